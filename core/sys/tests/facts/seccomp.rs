//! Facts about receiving and answering.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::sys::signal::SaFlags;
use rustix::process::{kill_process, pidfd_open, PidfdFlags, Resource, Rlimit, Signal};
use umvu_sys::process::{exit_now, fork, Forked};
use umvu_sys::seccomp::{install, CloseOnExec, Received};
use umvu_sys::Errno;

use crate::guest::{
    await_byte, await_readable, await_sleep, call, count_signals, counted, file_from, filter, pipe, read_number,
    readable, rustix_pid, wait, Guest,
};

const GETPPID: &[i64] = &[libc::SYS_getppid];

crate::facts![
    a_call_returns_the_value_it_is_answered_with,
    a_call_returns_the_error_it_is_answered_with,
    a_notification_carries_all_arguments,
    a_continued_call_is_done_by_the_kernel,
    a_guest_gets_the_descriptor_it_is_answered_with,
    a_descriptor_is_added_at_the_number_asked_for,
    a_guest_without_a_free_number_still_waits_for_its_answer,
    erestartsys_and_a_restarting_handler_make_the_call_again,
    erestartsys_and_another_handler_are_eintr,
    a_signal_does_not_make_a_call_arrive_twice,
    a_guest_that_dies_before_it_is_read_is_passed_over,
    a_call_of_a_dead_guest_is_not_valid,
    the_end_of_the_last_guest_is_seen,
    the_end_of_the_last_guest_ends_a_wait,
    a_second_listener_is_refused,
    a_malformed_program_is_refused,
    waking_on_one_processor_can_be_asked_for,
];

fn getppid() -> Result<i64, Errno> {
    call(libc::SYS_getppid, [0; 6])
}

fn a_call_returns_the_value_it_is_answered_with() {
    for value in [0, 1, 4242, i64::MAX, i64::MIN] {
        let guest = Guest::start(GETPPID, || i32::from(getppid() != Ok(value)));
        guest.listener.answer(guest.next().id, Ok(value)).unwrap();
        guest.ends_well();
    }
}

fn a_call_returns_the_error_it_is_answered_with() {
    let guest = Guest::start(GETPPID, || i32::from(getppid() != Err(Errno::XDEV)));
    guest.listener.answer(guest.next().id, Err(Errno::XDEV)).unwrap();
    guest.ends_well();
}

fn a_notification_carries_all_arguments() {
    let args = [1, u64::MAX, 3 << 40, 4, 5, 6];
    let guest = Guest::start(GETPPID, || i32::from(call(libc::SYS_getppid, args) != Ok(0)));
    let notification = guest.next();
    assert_eq!(notification.args, args);
    assert_eq!(i64::from(notification.nr), libc::SYS_getppid);
    assert_eq!(notification.tid, guest.pid);
    assert_eq!(notification.arch, 0xc000_003e, "AUDIT_ARCH_X86_64");
    assert_ne!(notification.instruction_pointer, 0);
    guest.listener.answer(notification.id, Ok(0)).unwrap();
    guest.ends_well();
}

fn a_continued_call_is_done_by_the_kernel() {
    let we = i64::from(std::process::id());
    let guest = Guest::start(GETPPID, || i32::from(getppid() != Ok(we)));
    guest.listener.answer_continue(guest.next().id).unwrap();
    guest.ends_well();
}

fn a_guest_gets_the_descriptor_it_is_answered_with() {
    for cloexec in [CloseOnExec::Yes, CloseOnExec::No] {
        let guest = Guest::start(GETPPID, || {
            let mut file = file_from(getppid().unwrap());
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            let flags = rustix::io::fcntl_getfd(&file).unwrap();
            let closes = flags.contains(rustix::io::FdFlags::CLOEXEC);
            i32::from(content != "from outside" || closes != (cloexec == CloseOnExec::Yes))
        });
        let content = readable(b"from outside");
        let number = guest.listener.answer_with_fd(guest.next().id, content.as_fd(), cloexec).unwrap();
        assert!(number > 2);
        guest.ends_well();
    }
}

fn a_descriptor_is_added_at_the_number_asked_for() {
    let guest = Guest::start(GETPPID, || {
        let free = getppid().unwrap();
        let contents = [77, free].map(|number| {
            let mut content = String::new();
            file_from(number).read_to_string(&mut content).unwrap();
            content
        });
        i32::from(contents != ["second", "third"])
    });
    let id = guest.next().id;
    let add = |content: &[u8], at| guest.listener.add_fd(id, readable(content).as_fd(), CloseOnExec::No, at);
    assert_eq!(add(b"first", Some(77)), Ok(77));
    assert_eq!(add(b"second", Some(77)), Ok(77), "a file in the way is replaced");
    let free = add(b"third", None).unwrap();
    assert_eq!(add(b"", Some(u32::MAX)), Err(Errno::BADF));
    guest.listener.answer(id, Ok(free.into())).unwrap();
    guest.ends_well();
}

fn a_guest_without_a_free_number_still_waits_for_its_answer() {
    let guest = Guest::start(GETPPID, || {
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        rustix::process::setrlimit(Resource::Nofile, none).unwrap();
        i32::from(getppid() != Err(Errno::MFILE))
    });
    let id = guest.next().id;
    let refused = guest.listener.answer_with_fd(id, readable(b"").as_fd(), CloseOnExec::No);
    assert_eq!(refused, Err(Errno::MFILE));
    assert!(guest.listener.is_valid(id));
    guest.listener.answer(id, Err(Errno::MFILE)).unwrap();
    guest.ends_well();
}

fn erestartsys_and_a_restarting_handler_make_the_call_again() {
    let guest = Guest::start(GETPPID, || {
        count_signals(SaFlags::SA_RESTART);
        i32::from(getppid() != Ok(5) || counted() != 1)
    });
    let first = guest.next();
    guest.kill(Signal::USR1);
    guest.listener.answer_raw_error(first.id, 512).unwrap();
    let second = guest.next();
    assert_ne!(first.id, second.id);
    assert_eq!((first.nr, first.args), (second.nr, second.args));
    guest.listener.answer(second.id, Ok(5)).unwrap();
    guest.ends_well();
}

fn erestartsys_and_another_handler_are_eintr() {
    let guest = Guest::start(GETPPID, || {
        count_signals(SaFlags::empty());
        i32::from(getppid() != Err(Errno::INTR) || counted() != 1)
    });
    let id = guest.next().id;
    guest.kill(Signal::USR1);
    guest.listener.answer_raw_error(id, 512).unwrap();
    guest.ends_well();
}

fn a_signal_does_not_make_a_call_arrive_twice() {
    let guest = Guest::start(GETPPID, || {
        count_signals(SaFlags::SA_RESTART);
        i32::from(getppid() != Ok(1) || counted() != 1 || getppid() != Ok(2))
    });
    let id = guest.next().id;
    guest.kill(Signal::USR1);
    assert!(guest.listener.is_valid(id));
    guest.listener.answer(id, Ok(1)).unwrap();
    guest.listener.answer(guest.next().id, Ok(2)).unwrap();
    guest.ends_well();
}

fn a_guest_that_dies_before_it_is_read_is_passed_over() {
    let (child_number, mut child_number_in) = pipe();
    let (go, mut go_in) = pipe();
    let guest = Guest::start(GETPPID, || match fork().unwrap() {
        Forked::Child => exit_now(i32::from(getppid() != Ok(0))),
        Forked::Parent(child) => {
            child_number_in.write_all(&child.to_ne_bytes()).unwrap();
            assert_eq!(wait(child).terminating_signal(), Some(libc::SIGKILL));
            await_byte(&go);
            i32::from(getppid() != Ok(7))
        }
    });
    let child = rustix_pid(read_number(&child_number));
    let pidfd = pidfd_open(child, PidfdFlags::empty()).unwrap();
    await_readable(&guest.listener);
    kill_process(child, Signal::KILL).unwrap();
    await_readable(&pidfd);
    assert!(matches!(guest.listener.receive().unwrap(), Received::Interrupted));
    go_in.write_all(b"g").unwrap();
    guest.listener.answer(guest.next().id, Ok(7)).unwrap();
    guest.ends_well();
}

fn a_call_of_a_dead_guest_is_not_valid() {
    let mut guest = Guest::start(GETPPID, || i32::from(getppid().is_err()));
    let id = guest.next().id;
    assert!(guest.listener.is_valid(id));
    guest.kill(Signal::KILL);
    guest.wait();
    assert!(!guest.listener.is_valid(id));
    assert_eq!(guest.listener.answer(id, Ok(0)), Err(Errno::NOENT));
    assert_eq!(guest.listener.answer_continue(id), Err(Errno::NOENT));
    let content = readable(b"");
    let injected = guest.listener.answer_with_fd(id, content.as_fd(), CloseOnExec::No);
    assert_eq!(injected, Err(Errno::NOENT));
}

fn the_end_of_the_last_guest_is_seen() {
    let mut guest = Guest::start(GETPPID, || 0);
    guest.wait();
    assert!(matches!(guest.listener.receive().unwrap(), Received::Gone));
    assert!(matches!(guest.listener.receive().unwrap(), Received::Gone));
}

fn the_end_of_the_last_guest_ends_a_wait() {
    let (go, mut go_in) = pipe();
    let guest = Guest::start(GETPPID, || i32::from(await_byte(&go) != Some(b'g')));
    let (tid, mut tid_in) = pipe();
    let received = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            tid_in.write_all(&rustix::thread::gettid().as_raw_nonzero().get().to_ne_bytes()).unwrap();
            guest.listener.receive().unwrap()
        });
        await_sleep(read_number(&tid));
        go_in.write_all(b"g").unwrap();
        waiting.join().unwrap()
    });
    assert!(matches!(received, Received::Gone));
    guest.ends_well();
}

fn a_second_listener_is_refused() {
    Guest::start(GETPPID, || i32::from(install(&filter(GETPPID)).err() != Some(Errno::BUSY))).ends_well();
}

fn a_malformed_program_is_refused() {
    let guest = Guest::start(&[], || 0);
    guest.ends_well();
    assert_eq!(install(&[]).err(), Some(Errno::INVAL));
    assert_eq!(install(&vec![filter(&[])[0]; 70_000]).err(), Some(Errno::INVAL));
    // a program that does not end in a return
    assert_eq!(install(&filter(&[])[..1]).err(), Some(Errno::INVAL));
}

fn waking_on_one_processor_can_be_asked_for() {
    let guest = Guest::start(GETPPID, || i32::from(getppid() != Ok(3)));
    guest.listener.set_sync_wake_up().unwrap();
    guest.listener.answer(guest.next().id, Ok(3)).unwrap();
    guest.ends_well();
}
