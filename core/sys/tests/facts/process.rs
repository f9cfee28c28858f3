//! Facts about what a process does to itself.

use std::io::{Read, Write};
use std::os::fd::AsFd;

use rustix::process::{getpid, getppid, getrlimit, Resource};
use umvu_sys::process::{
    default_signal, exec, exit_now, fork, ignore_signal, interrupt_thread, on_signal_interrupt, prepare_worker_signals,
    recv_fd, reset_signals, send_fd, set_child_subreaper, set_name, set_no_new_privs, set_parent_death_signal,
    set_soft_nofile_to_hard, Forked, Signal,
};
use umvu_sys::Errno;

use crate::guest::{await_byte, pipe, read_number, readable, rustix_pid, socketpair, wait};

crate::facts![
    a_process_with_threads_does_not_fork,
    a_descriptor_is_handed_over,
    no_descriptor_comes_from_a_closed_socket,
    no_descriptor_comes_with_a_plain_message,
    a_program_is_executed_with_its_arguments_and_environment,
    a_missing_program_is_not_executed,
    a_signal_interrupts_a_blocking_call,
    a_thread_of_another_process_is_not_interrupted,
    a_worker_blocks_every_signal,
    dispositions_are_set_and_reset,
    some_signals_keep_their_disposition,
    orphans_come_to_the_subreaper,
    the_end_of_the_parent_kills,
    the_limit_of_open_files_is_raised,
    a_thread_is_named,
    privileges_are_given_up,
];

fn a_process_with_threads_does_not_fork() {
    let (go, mut go_in) = pipe();
    let thread = std::thread::spawn(move || await_byte(&go));
    assert_eq!(fork(), Err(Errno::DEADLK));
    go_in.write_all(b"g").unwrap();
    thread.join().unwrap();
}

fn a_descriptor_is_handed_over() {
    let (ours, theirs) = socketpair();
    send_fd(ours.as_fd(), readable(b"handed").as_fd()).unwrap();
    let mut file = std::fs::File::from(recv_fd(theirs.as_fd()).unwrap().unwrap());
    assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    let mut content = String::new();
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "handed");
}

fn no_descriptor_comes_from_a_closed_socket() {
    let (ours, theirs) = socketpair();
    drop(theirs);
    assert!(recv_fd(ours.as_fd()).unwrap().is_none());
    assert_eq!(send_fd(ours.as_fd(), ours.as_fd()), Err(Errno::PIPE));
}

fn no_descriptor_comes_with_a_plain_message() {
    let (ours, theirs) = socketpair();
    rustix::io::write(&ours, b"plain").unwrap();
    assert!(recv_fd(theirs.as_fd()).unwrap().is_none());
}

/// Runs a body in a child and returns the child's exit status.
fn in_child(body: impl FnOnce() -> i32) -> Option<i32> {
    match fork().unwrap() {
        Forked::Child => exit_now(body()),
        Forked::Parent(pid) => wait(pid).exit_status(),
    }
}

fn a_program_is_executed_with_its_arguments_and_environment() {
    let script = c"test \"$1 $VALUE\" = 'first second' && exit 42";
    let status = in_child(|| {
        let argv = [c"name".into(), c"-c".into(), script.into(), c"zero".into(), c"first".into()];
        exec(c"/bin/sh", &argv, &[c"VALUE=second".into()]).raw_os_error()
    });
    assert_eq!(status, Some(42));
}

fn a_missing_program_is_not_executed() {
    assert_eq!(exec(c"/nonexistent/program", &[c"program".into()], &[]), Errno::NOENT);
}

fn a_signal_interrupts_a_blocking_call() {
    let (mut never, _never_in) = pipe();
    let (tid, mut tid_in) = pipe();
    let thread = std::thread::spawn(move || {
        prepare_worker_signals().unwrap();
        on_signal_interrupt(Signal::URG).unwrap();
        tid_in.write_all(&rustix::thread::gettid().as_raw_nonzero().get().to_ne_bytes()).unwrap();
        never.read(&mut [0]).unwrap_err().kind()
    });
    let tid = read_number(&tid);
    // a signal that comes before the call blocks is lost, so one is not enough
    while !thread.is_finished() {
        // the thread may end just now
        let _ = interrupt_thread(tid, Signal::URG);
        std::thread::yield_now();
    }
    assert_eq!(thread.join().unwrap(), std::io::ErrorKind::Interrupted);
}

fn a_thread_of_another_process_is_not_interrupted() {
    let parent = u32::try_from(getppid().unwrap().as_raw_nonzero().get()).unwrap();
    for tid in [0, parent, u32::MAX] {
        assert_eq!(interrupt_thread(tid, Signal::URG), Err(Errno::SRCH));
    }
}

/// Reads a set of signals from `/proc/thread-self/status`.
fn signals(word: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix(word)).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap()
}

fn bit(signal: Signal) -> u64 {
    1 << (signal.as_raw() - 1)
}

fn a_worker_blocks_every_signal() {
    prepare_worker_signals().unwrap();
    let blocked = signals("SigBlk:");
    for signal in [Signal::TERM, Signal::INT, Signal::CHILD, Signal::USR1, Signal::PIPE] {
        assert_ne!(blocked & bit(signal), 0, "{signal:?}");
    }
    on_signal_interrupt(Signal::USR1).unwrap();
    assert_eq!(signals("SigBlk:"), blocked & !bit(Signal::USR1));
}

fn dispositions_are_set_and_reset() {
    assert_ne!(signals("SigIgn:") & bit(Signal::PIPE), 0, "the Rust runtime ignores it");
    ignore_signal(Signal::INT).unwrap();
    on_signal_interrupt(Signal::USR2).unwrap();
    assert_ne!(signals("SigIgn:") & bit(Signal::INT), 0);
    assert_ne!(signals("SigCgt:") & bit(Signal::USR2), 0);
    reset_signals(&[Signal::PIPE, Signal::INT, Signal::USR2]).unwrap();
    let set = bit(Signal::PIPE) | bit(Signal::INT) | bit(Signal::USR2);
    assert_eq!((signals("SigIgn:") | signals("SigCgt:")) & set, 0);
}

fn some_signals_keep_their_disposition() {
    for signal in [Signal::KILL, Signal::STOP] {
        assert_eq!(ignore_signal(signal), Err(Errno::INVAL));
        assert_eq!(default_signal(signal), Err(Errno::INVAL));
        assert_eq!(on_signal_interrupt(signal), Err(Errno::INVAL));
    }
}

/// Forks a child, which forks a child; the first ends, the second runs `body` after that.
fn orphan(body: impl FnOnce(u32) -> i32) {
    let first = in_child(|| {
        let parent = std::process::id();
        match fork().unwrap() {
            Forked::Child => exit_now(body(parent)),
            Forked::Parent(_) => 0,
        }
    });
    assert_eq!(first, Some(0));
}

fn orphans_come_to_the_subreaper() {
    set_child_subreaper().unwrap();
    let us = getpid();
    let (report, mut report_in) = pipe();
    orphan(|parent| {
        while getppid() == Some(rustix_pid(parent)) {
            std::thread::yield_now();
        }
        report_in.write_all(if getppid() == Some(us) { b"y" } else { b"n" }).unwrap();
        0
    });
    assert_eq!(await_byte(&report), Some(b'y'));
    assert!(rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap().is_some());
}

fn the_end_of_the_parent_kills() {
    set_child_subreaper().unwrap();
    let (ready, mut ready_in) = pipe();
    let first = in_child(|| match fork().unwrap() {
        Forked::Child => {
            set_parent_death_signal(Signal::TERM).unwrap();
            ready_in.write_all(b"r").unwrap();
            loop {
                std::thread::park();
            }
        }
        Forked::Parent(_) => i32::from(await_byte(&ready) != Some(b'r')),
    });
    assert_eq!(first, Some(0));
    let (_, status) = rustix::process::wait(rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.terminating_signal(), Some(libc::SIGTERM));
}

fn the_limit_of_open_files_is_raised() {
    let hard = getrlimit(Resource::Nofile).maximum;
    let low = rustix::process::Rlimit { current: Some(100), maximum: hard };
    rustix::process::setrlimit(Resource::Nofile, low).unwrap();
    let old = set_soft_nofile_to_hard().unwrap();
    assert_eq!((old.current, old.maximum), (Some(100), hard));
    assert_eq!(getrlimit(Resource::Nofile).current, hard);
}

fn a_thread_is_named() {
    set_name(c"umvu-view-and-more").unwrap();
    assert_eq!(std::fs::read("/proc/thread-self/comm").unwrap(), b"umvu-view-and-m\n");
}

fn privileges_are_given_up() {
    set_no_new_privs().unwrap();
    assert_eq!(rustix::thread::no_new_privs(), Ok(true));
}
