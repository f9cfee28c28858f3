//! The front: mirrors the first guest, and hands on to it what signals are sent to the front alone. Knows no guest but
//! the first.

use std::io::Write;
use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{siginfo, SfdFlags, SignalFd};
use nix::sys::wait::{waitid, Id, WaitPidFlag};
use nix::unistd::Pid;
use rustix::event::{poll, PollFd, PollFlags};
use umvu_sys::process;

use super::descendants::kill_all;
use super::status::Status;
use super::streams::{self, Streams};
use crate::StartError;

/// Signals that are handed on to the first guest when they were sent to the front.
const HANDED_ON: [i32; 6] = [libc::SIGTERM, libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2];

/// Status of what a hang-up ended.
const HUNG_UP: u8 = 129;
/// Status of what was killed.
const KILLED: u8 = 137;

/// Waits for the end of the first guest and returns its status. The guard sees the end of the front by `_to_guard`.
///
/// # Errors
/// There is no signalfd, or waiting fails.
pub fn run(guard: u32, status: OwnedFd, _to_guard: &OwnedFd) -> Result<u8, StartError> {
    streams::detach(Streams::AllButError);
    for signal in [process::Signal::TSTP, process::Signal::TTIN, process::Signal::TTOU] {
        // The first guest may stop by one that was ignored when umvu was started.
        process::default_signal(signal).map_err(StartError::system("signal"))?;
    }
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(StartError::system("signalfd"))?;
    let mut status = std::fs::File::from(status);
    // Not rustix: it takes 0, a leader in an outer pid namespace, for a mistake.
    let leads_session = nix::unistd::getsid(None) == Ok(nix::unistd::getpid());
    let mut front = Front { guard, leads_session, guest: None, early: Vec::new(), hung_up: false };
    loop {
        let mut fds = [PollFd::new(&status, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(StartError::system("poll")(errno)),
        }
        let told = !fds[0].revents().is_empty();
        while let Ok(Some(info)) = signals.read_signal() {
            front.signal(&info);
        }
        if !told {
            continue;
        }
        match Status::receive(&mut status) {
            Some(Status::Begun(pid)) => front.begin(Pid::from_raw(pid)),
            Some(Status::Stopped(signal)) => front.guest.into_iter().for_each(|guest| stop(signal, guest)),
            Some(Status::Ended(value)) => return Ok(front.status(value)),
            Some(Status::Over(value)) => {
                front.reap_guard();
                return Ok(front.status(value));
            }
            None => {
                front.bury();
                return Ok(KILLED);
            }
        }
    }
}

struct Front {
    guard: u32,
    leads_session: bool,
    /// The first guest, from when it begins.
    guest: Option<Pid>,
    /// Signals that came before.
    early: Vec<siginfo>,
    /// A guest may read the end of the terminal, and end, before it gets the signal that we hand on; outside a view the
    /// signal comes first.
    hung_up: bool,
}

impl Front {
    fn begin(&mut self, guest: Pid) {
        self.guest = Some(guest);
        for info in std::mem::take(&mut self.early) {
            self.signal(&info);
        }
    }

    /// The status to end with.
    fn status(&self, value: i32) -> u8 {
        match self.hung_up && value < 128 {
            true => HUNG_UP,
            false => u8::try_from(value).unwrap_or(u8::MAX),
        }
    }

    /// Waits for the guard, which is about to end: not every process that might inherit it reaps what it inherits.
    fn reap_guard(&self) {
        if let Ok(guard) = i32::try_from(self.guard) {
            let _ = waitid(Id::Pid(Pid::from_raw(guard)), WaitPidFlag::WEXITED);
        }
    }

    /// Hands a signal on, unless the first guest has it already.
    fn signal(&mut self, info: &siginfo) {
        let Ok(signal) = i32::try_from(info.ssi_signo) else { return };
        let Some(guest) = self.guest else {
            self.early.push(*info);
            return;
        };
        // The kernel tells of a terminal that is gone the leader of the session, and the group in the foreground or
        // stopped, which need not be the first guest's.
        let is_hangup = signal == libc::SIGHUP && (self.leads_session || (info.ssi_code > 0 && !shares_group(guest)));
        // What the kernel sends to a process group, all guests in it get.
        let is_sent = info.ssi_code <= 0 && HANDED_ON.contains(&signal);
        if !is_hangup && !is_sent {
            return;
        }
        self.hung_up |= is_hangup && !has_signal("SigIgn:", signal, guest);
        let _ = process::send_signal(guest.as_raw(), signal);
        if is_hangup && is_stopped(guest) {
            // As the kernel does where it tells a group that is stopped.
            let _ = process::send_signal(guest.as_raw(), libc::SIGCONT);
        }
    }

    /// The supervisor ended without a word.
    fn bury(&self) {
        // The guard kills the guests and ends. If it was killed as well, they are ours now.
        self.reap_guard();
        kill_all();
        crate::placeholder::remove_abandoned();
        let _ = writeln!(std::io::stderr(), "umvu: the supervisor of the view was killed");
    }
}

/// Whether a set of signals in `/proc/PID/status` has a signal.
fn has_signal(set: &str, signal: i32, pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(set)?.trim(), 16).ok());
    let bit = u32::try_from(signal - 1).ok().and_then(|shift| 1u64.checked_shl(shift));
    set.zip(bit).is_some_and(|(set, bit)| set & bit != 0)
}

/// Stops as the first guest has, by the same signal, so that the shell sees its job stopped.
fn stop(signal: i32, guest: Pid) {
    let signal = Signal::try_from(signal).unwrap_or(Signal::SIGSTOP);
    if signal == Signal::SIGSTOP {
        if is_stopped(guest) {
            let _ = nix::sys::signal::raise(signal);
            resume(guest);
        }
        return;
    }
    // Whoever continues the group before we have stopped takes the signal away again (`prepare_signal` in
    // kernel/signal.c), or has continued the guest before.
    let _ = nix::sys::signal::raise(signal);
    if !is_stopped(guest) {
        let _ = nix::sys::signal::raise(Signal::SIGCONT);
    }
    // It is delivered, and we go on when we are continued.
    let set = SigSet::from(signal);
    let _ = set.thread_unblock();
    let _ = set.thread_block();
    resume(guest);
}

/// Continues a guest that has a process group of its own, which nobody outside knows: whoever has continued us meant
/// it. It gets the terminal if we got it.
fn resume(guest: Pid) {
    let Ok(group) = nix::unistd::getpgid(Some(guest)) else { return };
    if group == nix::unistd::getpgrp() || !is_stopped(guest) {
        return;
    }
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
    if let Ok(terminal) = rustix::fs::open("/dev/tty", flags, rustix::fs::Mode::empty()) {
        if nix::unistd::tcgetpgrp(&terminal) == Ok(nix::unistd::getpgrp()) {
            let _ = nix::unistd::tcsetpgrp(&terminal, group);
        }
    }
    let _ = nix::sys::signal::killpg(group, Signal::SIGCONT);
}

/// Whether a guest is in the process group that we are in.
fn shares_group(guest: Pid) -> bool {
    nix::unistd::getpgid(Some(guest)) == Ok(nix::unistd::getpgrp())
}

fn is_stopped(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tT"))
}
