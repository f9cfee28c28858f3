//! Signals to other processes: whether a faked identity may send them. Deliberately does not know what they do.
//!
//! The kernel takes all guests for processes of one user. `tgkill` is left to it: it serves the threads of one process,
//! which may signal each other, and some runtimes call it all the time.

use std::os::fd::AsRawFd;

use umvu_interface::{Capabilities, Credentials, Errno};

use crate::call::{Call, Outcome, Reply, DONE};

/// `valid_signal` of `include/linux/signal.h`, 0 included.
const SIGNALS: std::ops::RangeInclusive<i32> = 0..=64;

/// `kill(pid, signal)`: `kill_something_info` of `kernel/signal.c`.
pub fn kill(call: &Call) -> Outcome {
    let numbered = super::pid::kill(call)?;
    if !matches!(numbered, Reply::Continue) {
        return Ok(numbered);
    }
    let who = call.credentials();
    if is_free(&who) {
        return Ok(Reply::Continue);
    }
    let signal = call.i32(1);
    if !SIGNALS.contains(&signal) {
        return Err(Errno::INVAL.into());
    }
    let own = crate::magic::process_of(call.tid())?;
    match call.i32(0) {
        -1 => all(call, &who, own, signal),
        0 => group(call, &who, own, group_of(own), signal),
        group_id if group_id < 0 => group(call, &who, own, group_id.checked_neg(), signal),
        pid => one(call, &who, own, pid.unsigned_abs(), signal),
    }
}

/// `tkill(tid, signal)`.
pub fn tkill(call: &Call) -> Outcome {
    let numbered = super::pid::tkill(call)?;
    if !matches!(numbered, Reply::Continue) {
        return Ok(numbered);
    }
    to_one(call, 0, 1)
}

/// `rt_sigqueueinfo(pid, signal, info)`.
pub fn rt_sigqueueinfo(call: &Call) -> Outcome {
    tkill(call)
}

fn to_one(call: &Call, pid: usize, signal: usize) -> Outcome {
    let who = call.credentials();
    let signal = call.i32(signal);
    // What is no number of a process or of a signal is for the kernel to refuse.
    let Some(pid) = u32::try_from(call.i32(pid)).ok().filter(|pid| *pid > 0 && SIGNALS.contains(&signal)) else {
        return Ok(Reply::Continue);
    };
    if is_free(&who) {
        return Ok(Reply::Continue);
    }
    one(call, &who, crate::magic::process_of(call.tid())?, pid, signal)
}

/// `pidfd_send_signal(pidfd, signal, info, flags)`.
pub fn pidfd_send_signal(call: &Call) -> Outcome {
    let who = call.credentials();
    let signal = call.i32(1);
    if is_free(&who) || !SIGNALS.contains(&signal) || call.u32(3) != 0 {
        return Ok(Reply::Continue);
    }
    let pidfd = call.take_fd(call.i32(0))?;
    let Some(pid) = pid_of(&pidfd) else { return Ok(Reply::Continue) };
    one(call, &who, crate::magic::process_of(call.tid())?, pid, signal)
}

/// The process that a pidfd stands for; none if it is no pidfd, or its process has ended.
fn pid_of(pidfd: &std::os::fd::OwnedFd) -> Option<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

/// Whether nothing but the kernel's own check applies: `CAP_KILL` reaches everybody.
fn is_free(who: &Credentials) -> bool {
    !who.is_faked() || who.capable(Capabilities::KILL)
}

fn one(call: &Call, who: &Credentials, own: u32, pid: u32, signal: i32) -> Outcome {
    match call.supervisor.state_of(pid) {
        Some(state) if !may_signal(own, who, pid, &call.supervisor.credentials(&state), signal) => {
            Err(Errno::PERM.into())
        }
        // What does not exist, and who is outside of the view, is the kernel's to judge.
        _ => Ok(Reply::Continue),
    }
}

/// `check_kill_permission` of `kernel/signal.c`.
fn may_signal(own: u32, who: &Credentials, pid: u32, whom: &Credentials, signal: i32) -> bool {
    let by_ids = [who.uid.effective, who.uid.real].iter().any(|uid| [whom.uid.saved, whom.uid.real].contains(uid));
    let continues = signal == libc::SIGCONT && session_of(own).is_some_and(|session| session_of(pid) == Some(session));
    by_ids || continues || crate::magic::process_of(pid) == Ok(own)
}

/// `__kill_pgrp_info`: it is enough that one of the group may be signalled.
fn group(call: &Call, who: &Credentials, own: u32, group: Option<i32>, signal: i32) -> Outcome {
    let members: Vec<_> = call.supervisor.living().into_iter().filter(|(pid, _)| group_of(*pid) == group).collect();
    let reached: Vec<u32> = members
        .iter()
        .filter(|(pid, state)| may_signal(own, who, *pid, &call.supervisor.credentials(state), signal))
        .map(|(pid, _)| *pid)
        .collect();
    if reached.len() == members.len() {
        return Ok(Reply::Continue);
    }
    if reached.is_empty() {
        return Err(Errno::PERM.into());
    }
    send(call, &reached, signal)
}

/// `kill(-1, signal)`: everybody in the view but the caller; who may not be signalled is passed over in silence.
fn all(call: &Call, who: &Credentials, own: u32, signal: i32) -> Outcome {
    let others: Vec<_> = call.supervisor.living().into_iter().filter(|(pid, _)| *pid != own).collect();
    if others.is_empty() {
        return Err(Errno::SRCH.into());
    }
    let reached: Vec<u32> = others
        .into_iter()
        .filter(|(pid, state)| may_signal(own, who, *pid, &call.supervisor.credentials(state), signal))
        .map(|(pid, _)| pid)
        .collect();
    send(call, &reached, signal)
}

/// Sends a signal in the caller's place: who gets it sees us as its sender.
fn send(call: &Call, pids: &[u32], signal: i32) -> Outcome {
    call.check_alive()?;
    for pid in pids {
        let Some(pid) = i32::try_from(*pid).ok().map(nix::unistd::Pid::from_raw) else { continue };
        let signal = nix::sys::signal::Signal::try_from(signal).ok();
        if let Err(errno) = nix::sys::signal::kill(pid, signal) {
            tracing::debug!(%pid, %errno, "a signal to a group did not reach one of it");
        }
    }
    DONE
}

fn group_of(pid: u32) -> Option<i32> {
    let pid = i32::try_from(pid).ok()?;
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid))).ok().map(nix::unistd::Pid::as_raw)
}

fn session_of(pid: u32) -> Option<i32> {
    let pid = i32::try_from(pid).ok()?;
    nix::unistd::getsid(Some(nix::unistd::Pid::from_raw(pid))).ok().map(nix::unistd::Pid::as_raw)
}
