//! Facts about redirecting a call of a guest.

use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::SaFlags;
use rustix::process::Signal;
use umvu_sys::guest::write_memory;
use umvu_sys::process::{exec, exit_now, fork, Forked};
use umvu_sys::redirect::{reissue, Entry, Redirect};
use umvu_sys::seccomp::Notification;
use umvu_sys::Errno;

use crate::guest::{call, count_signals, counted, file_from, wait, Guest, Scratch};

const OPENAT: &[i64] = &[libc::SYS_openat];
const EXECVE: &[i64] = &[libc::SYS_execve];
/// Bytes below the stack pointer that belong to a running function: the x86-64 psABI's red zone.
const RED_ZONE: u64 = 128;

crate::facts![
    a_redirected_open_opens_the_other_file,
    a_redirected_call_may_come_from_any_thread,
    a_redirected_call_survives_a_signal_handler,
    a_redirected_execve_executes_the_other_program,
    a_redirected_guest_is_traced_by_nobody,
    a_stopped_guest_is_let_go_when_the_redirection_is_dropped,
    a_guest_killed_before_its_stop_is_gone,
    a_guest_killed_while_stopped_is_gone,
    a_thread_killed_before_its_stop_does_not_hold_its_process,
    nobody_cannot_be_seized,
    a_guest_is_seized_by_one_only,
];

/// Two files, whose content is their name, and the paths of both.
fn two_files(scratch: &Scratch) -> [CString; 2] {
    ["asked for", "redirected"].map(|name| {
        let path = scratch.0.join(name);
        std::fs::write(&path, name).unwrap();
        CString::new(path.as_os_str().as_bytes()).unwrap()
    })
}

/// Opens a file by the reported call, and returns its content.
fn content_of(path: &CString) -> String {
    let opened = call(libc::SYS_openat, [0, path.as_ptr() as u64, 0, 0, 0, 0]).unwrap();
    let mut content = String::new();
    file_from(opened).read_to_string(&mut content).unwrap();
    content
}

/// Redirects a call to the path `to`, given in its argument `index`; `between` runs while the guest is stopped.
fn redirect(guest: &Guest, call: &Notification, index: usize, to: &CString, between: impl FnOnce()) {
    let mut redirect = Redirect::seize(call.tid).unwrap();
    guest.listener.answer(call.id, Err(Errno::INTR)).unwrap();
    let mut regs = redirect.wait_stop().unwrap();
    assert_eq!(regs.rip, call.instruction_pointer);
    let bytes = to.as_bytes_with_nul();
    let place = (regs.rsp - RED_ZONE - u64::try_from(bytes.len()).unwrap()) & !15;
    let mut args = call.args;
    args[index] = place;
    reissue(&mut regs, Entry::Syscall, call.nr.into(), args);
    redirect.set_regs(&regs).unwrap();
    between();
    redirect.detach().unwrap();
    let again = guest.next();
    assert_eq!((again.tid, again.nr, again.args), (call.tid, call.nr, args));
    assert_eq!(again.instruction_pointer, call.instruction_pointer);
    assert_eq!(write_memory(again.tid, place, bytes), Ok(bytes.len()));
    guest.listener.answer_continue(again.id).unwrap();
}

fn a_redirected_open_opens_the_other_file() {
    let scratch = Scratch::new();
    let [asked, to] = two_files(&scratch);
    let guest = Guest::start(OPENAT, || i32::from(content_of(&asked) != "redirected"));
    redirect(&guest, &guest.next(), 1, &to, || ());
    guest.ends_well();
}

fn a_redirected_call_may_come_from_any_thread() {
    let scratch = Scratch::new();
    let [asked, to] = two_files(&scratch);
    // the guest is a child of a guest, so that it is not ours to wait for
    let guest = Guest::start(OPENAT, || match fork().unwrap() {
        Forked::Child => {
            let contents = std::thread::spawn(move || content_of(&asked)).join().unwrap();
            exit_now(i32::from(contents != "redirected"))
        }
        Forked::Parent(pid) => wait(pid).exit_status().unwrap_or(102),
    });
    // a new thread opens files for its own sake, too
    let call = loop {
        let call = guest.next();
        if path_of(&call).ends_with(b"asked for") {
            break call;
        }
        guest.listener.answer_continue(call.id).unwrap();
    };
    redirect(&guest, &call, 1, &to, || ());
    guest.ends_well();
}

fn path_of(call: &Notification) -> Vec<u8> {
    let mut buffer = [0; 200];
    let length = umvu_sys::guest::read_memory(call.tid, call.args[1], &mut buffer).unwrap();
    buffer[..length].split(|&byte| byte == 0).next().unwrap().to_vec()
}

fn a_redirected_call_survives_a_signal_handler() {
    let scratch = Scratch::new();
    let [asked, to] = two_files(&scratch);
    let guest = Guest::start(OPENAT, || {
        count_signals(SaFlags::empty());
        i32::from(content_of(&asked) != "redirected" || counted() != 1)
    });
    redirect(&guest, &guest.next(), 1, &to, || guest.kill(Signal::USR1));
    guest.ends_well();
}

fn a_redirected_execve_executes_the_other_program() {
    let mut guest = Guest::start(EXECVE, || {
        let argv = [c"sh".into(), c"-c".into(), c"exit 7".into()];
        exec(c"/nonexistent/program", &argv, &[]).raw_os_error()
    });
    redirect(&guest, &guest.next(), 0, &c"/bin/sh".into(), || ());
    assert_eq!(guest.wait().exit_status(), Some(7));
}

fn a_redirected_guest_is_traced_by_nobody() {
    let scratch = Scratch::new();
    let [asked, to] = two_files(&scratch);
    let guest = Guest::start(OPENAT, || {
        let opened = content_of(&asked);
        let tracer = call(libc::SYS_openat, [0, c"/proc/self/status".as_ptr() as u64, 0, 0, 0, 0]).unwrap();
        let mut status = String::new();
        file_from(tracer).read_to_string(&mut status).unwrap();
        i32::from(opened != "redirected" || !status.contains("\nTracerPid:\t0\n"))
    });
    redirect(&guest, &guest.next(), 1, &to, || ());
    guest.listener.answer_continue(guest.next().id).unwrap();
    guest.ends_well();
}

fn a_stopped_guest_is_let_go_when_the_redirection_is_dropped() {
    let guest = Guest::start(OPENAT, || i32::from(call(libc::SYS_openat, [0; 6]) != Err(Errno::XDEV)));
    let call = guest.next();
    let mut redirect = Redirect::seize(call.tid).unwrap();
    guest.listener.answer(call.id, Err(Errno::XDEV)).unwrap();
    redirect.wait_stop().unwrap();
    assert!(redirect.wait_stop().is_ok(), "registers can be read again");
    drop(redirect);
    guest.ends_well();
}

fn a_guest_killed_before_its_stop_is_gone() {
    let mut guest = Guest::start(OPENAT, || i32::from(call(libc::SYS_openat, [0; 6]).is_err()));
    let call = guest.next();
    let mut redirect = Redirect::seize(call.tid).unwrap();
    guest.kill(Signal::KILL);
    assert_eq!(redirect.wait_stop().err(), Some(Errno::SRCH));
    assert_eq!(redirect.wait_stop().err(), Some(Errno::SRCH));
    assert_eq!(guest.listener.answer(call.id, Ok(0)), Err(Errno::NOENT));
    assert_eq!(redirect.detach(), Err(Errno::SRCH));
    assert_eq!(guest.wait().terminating_signal(), Some(libc::SIGKILL), "its end is left to its parent");
}

fn a_guest_killed_while_stopped_is_gone() {
    let mut guest = Guest::start(OPENAT, || i32::from(call(libc::SYS_openat, [0; 6]).is_err()));
    let call = guest.next();
    let mut redirect = Redirect::seize(call.tid).unwrap();
    guest.listener.answer(call.id, Err(Errno::INTR)).unwrap();
    let regs = redirect.wait_stop().unwrap();
    guest.kill(Signal::KILL);
    await_zombie(guest.pid);
    assert_eq!(redirect.set_regs(&regs), Err(Errno::SRCH));
    assert_eq!(redirect.detach(), Err(Errno::SRCH));
    assert_eq!(guest.wait().terminating_signal(), Some(libc::SIGKILL), "its end is left to its parent");
}

fn a_thread_killed_before_its_stop_does_not_hold_its_process() {
    // the guest that is killed is a child of a guest, and the thread is not its leader
    let guest = Guest::start(OPENAT, || match fork().unwrap() {
        Forked::Child => {
            let thread = std::thread::spawn(move || call(libc::SYS_openat, [0, 0, 0xabc, 0, 0, 0]).is_err());
            exit_now(i32::from(thread.join().unwrap()))
        }
        Forked::Parent(pid) => i32::from(wait(pid).terminating_signal() != Some(libc::SIGKILL)),
    });
    let call = loop {
        let call = guest.next();
        if call.args[2] == 0xabc {
            break call;
        }
        guest.listener.answer_continue(call.id).unwrap();
    };
    let mut redirect = Redirect::seize(call.tid).unwrap();
    rustix::process::kill_process(crate::guest::rustix_pid(call.tid), Signal::KILL).unwrap();
    assert_eq!(redirect.wait_stop().err(), Some(Errno::SRCH));
    guest.ends_well();
}

fn nobody_cannot_be_seized() {
    for tid in [0, 1 << 22, u32::MAX] {
        assert_eq!(Redirect::seize(tid).err(), Some(Errno::SRCH));
    }
}

fn a_guest_is_seized_by_one_only() {
    let guest = Guest::start(OPENAT, || i32::from(call(libc::SYS_openat, [0; 6]) != Ok(4)));
    let call = guest.next();
    let mut redirect = Redirect::seize(call.tid).unwrap();
    assert_eq!(Redirect::seize(call.tid).err(), Some(Errno::PERM));
    guest.listener.answer(call.id, Ok(4)).unwrap();
    redirect.wait_stop().unwrap();
    redirect.detach().unwrap();
    guest.ends_well();
}

fn await_zombie(pid: u32) {
    while crate::guest::state(pid) != b'Z' {
        std::thread::yield_now();
    }
}
