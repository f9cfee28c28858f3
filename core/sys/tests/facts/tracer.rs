//! Facts about tracing guests from call to call.

use rustix::process::Signal;
use umvu_sys::process::{exit_now, fork, Forked};
use umvu_sys::tracer::{Event, Tracer};
use umvu_sys::Errno;

use crate::guest::{call, count_signals, counted, wait, Guest};

const OPENAT: &[i64] = &[libc::SYS_openat];
/// A call that nothing else in a guest makes.
const RARE: i64 = libc::SYS_getpgid;

crate::facts![
    a_traced_call_returns_what_the_tracer_says,
    what_a_traced_guest_forks_is_traced,
    signals_reach_a_traced_guest,
    a_guest_that_is_let_go_is_traced_by_nobody,
    a_killed_guest_is_told_of,
];

/// Has a guest report a call, and traces it from there on: `rare` is asked for the result of each rare call.
fn trace(guest: &Guest, mut rare: impl FnMut(&mut Tracer, u32) -> Option<u64>) {
    let first = guest.next();
    let mut tracer = Tracer::new();
    tracer.seize(first.tid).unwrap();
    assert_eq!(Tracer::new().seize(first.tid), Err(Errno::PERM));
    guest.listener.answer(first.id, Ok(0)).unwrap();
    let mut result = None;
    while let Some((tid, event)) = tracer.next_event() {
        let gone = match event {
            Event::Gone | Event::Woken => continue,
            Event::Entry if tracer.regs(tid).unwrap().orig_rax == RARE as u64 => {
                result = rare(&mut tracer, tid);
                if result.is_none() {
                    tracer.let_go(tid, 0).unwrap();
                    continue;
                }
                tracer.go_on(tid, 0)
            }
            Event::Exit => {
                if let Some(rax) = result.take() {
                    let regs = tracer.regs(tid).unwrap();
                    tracer.set_regs(tid, &umvu_sys::redirect::Regs { rax, ..regs }).unwrap();
                }
                tracer.go_on(tid, 0)
            }
            Event::Signal(signal) => tracer.go_on(tid, signal),
            Event::JobStop => tracer.listen(tid),
            Event::Entry | Event::Foreign | Event::Stop | Event::Executed(_) => tracer.go_on(tid, 0),
        };
        assert!(matches!(gone, Ok(()) | Err(Errno::SRCH)));
    }
}

fn report() {
    call(libc::SYS_openat, [0; 6]).unwrap();
}

fn rare() -> i64 {
    call(RARE, [0; 6]).unwrap()
}

fn a_traced_call_returns_what_the_tracer_says() {
    let guest = Guest::start(OPENAT, || {
        report();
        i32::from(rare() != 4711)
    });
    trace(&guest, |_, _| Some(4711));
    guest.ends_well();
}

fn what_a_traced_guest_forks_is_traced() {
    let guest = Guest::start(OPENAT, || {
        report();
        match fork().unwrap() {
            Forked::Child => exit_now(i32::from(rare() != 4711)),
            Forked::Parent(pid) => wait(pid).exit_status().unwrap_or(102),
        }
    });
    trace(&guest, |_, tid| (tid != guest.pid).then_some(4711));
    guest.ends_well();
}

fn signals_reach_a_traced_guest() {
    let guest = Guest::start(OPENAT, || {
        count_signals(nix::sys::signal::SaFlags::empty());
        report();
        nix::sys::signal::raise(nix::sys::signal::SIGUSR1).unwrap();
        i32::from(counted() != 1)
    });
    trace(&guest, |_, _| None);
    guest.ends_well();
}

fn a_guest_that_is_let_go_is_traced_by_nobody() {
    let guest = Guest::start(OPENAT, || {
        report();
        rare();
        let status = std::fs::read_to_string("/proc/self/status");
        // Reading opens a file: the report of that is answered by nobody until the tracer is gone.
        i32::from(!status.unwrap_or_default().contains("TracerPid:\t0\n"))
    });
    trace(&guest, |_, _| None);
    let reading = guest.next();
    guest.listener.answer_continue(reading.id).unwrap();
    guest.ends_well();
}

fn a_killed_guest_is_told_of() {
    let mut guest = Guest::start(OPENAT, || {
        report();
        rare();
        0
    });
    trace(&guest, |_, _| {
        guest.kill(Signal::KILL);
        Some(0)
    });
    assert_eq!(guest.wait().terminating_signal(), Some(libc::SIGKILL));
}
