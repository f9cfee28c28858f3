//! The first thread of the supervisor: reaps guests, and sees the end of the front and of the guard. Knows no calls.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;
use rustix::event::{poll, PollFd, PollFlags};

use super::descendants::kill_all;
use super::ending::Ending;
use super::status::Status;
use super::streams::{self, Streams};
use crate::supervisor::Supervisor;
use crate::AtEnd;

/// Status of what was killed.
const KILLED: i32 = 137;

/// What it watches.
pub struct Reaper<'a> {
    /// Whose children the guests are.
    pub supervisor: &'a Supervisor,
    /// The guest whose end the front mirrors.
    pub first: u32,
    /// What becomes of the others when it ends.
    pub at_end: AtEnd,
    /// The pipe to the front.
    pub front: &'a OwnedFd,
    /// The socket to the guard.
    pub guard: &'a OwnedFd,
    /// Signals to the supervisor.
    pub signals: &'a SignalFd,
}

/// Whether the front still is to be told something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Front {
    Waits,
    HasReturned,
}

impl Reaper<'_> {
    /// Reaps guests until there are none. Returns the status of the first if the front does not know it yet: when it was
    /// the last, or the view was asked to end.
    pub fn run(&self) -> Option<i32> {
        let mut front = Front::Waits;
        let mut ending = Ending::default();
        let mut untold = None;
        loop {
            let (status, has_children) = self.reap();
            untold = untold.or(status);
            if !has_children {
                return untold;
            }
            if untold.is_some() && self.at_end == AtEnd::Ends {
                ending.ask();
            }
            // A view that is asked to end leaves no daemons: the front returns when all of it has ended.
            if let Some(value) = untold.take_if(|_| !ending.has_begun()) {
                front = Front::HasReturned;
                if Status::Ended(value).tell(self.front).is_err() {
                    // It was killed before.
                    kill_all();
                    return None;
                }
                // What outlives the first guest is a daemon: it keeps no terminal busy through us.
                streams::detach_standard(Streams::All);
            }
            let mut fds = [
                PollFd::new(self.signals, PollFlags::IN),
                PollFd::new(self.guard, PollFlags::empty()),
                PollFd::new(self.front, PollFlags::empty()),
            ];
            let watched = if front == Front::Waits { &mut fds[..] } else { &mut fds[..2] };
            if poll(watched, ending.left().as_ref()).is_err() {
                continue;
            }
            // What ends is killed: the guard, or the front before the first guest ended.
            if watched[1..].iter().any(|fd| !fd.revents().is_empty()) {
                kill_all();
                return None;
            }
            if self.is_ended(&mut ending) || ending.is_over() {
                kill_all();
                return untold.or(Some(KILLED)).filter(|_| front == Front::Waits);
            }
        }
    }

    /// Takes what has happened with children: the status of the first guest if it has ended, and whether any are left.
    fn reap(&self) -> (Option<i32>, bool) {
        let is_first = |pid: nix::unistd::Pid| u32::try_from(pid.as_raw()) == Ok(self.first);
        let mut untold = None;
        loop {
            let ended = match crate::children::next(self.supervisor) {
                Ok(WaitStatus::Exited(pid, value)) => Some((pid, value)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, 128 + signal as i32)),
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    if is_first(pid) {
                        let _ = Status::Stopped(signal as i32).tell(self.front);
                    }
                    None
                }
                Ok(WaitStatus::StillAlive) => return (untold, true),
                Ok(_) | Err(nix::errno::Errno::EINTR) => None,
                Err(_) => return (untold, false),
            };
            if let Some((_, value)) = ended.filter(|(pid, _)| is_first(*pid)) {
                self.supervisor.ended.store(true, Ordering::Release);
                untold = Some(value);
            }
        }
    }

    /// Whoever ends the supervisor ends the view: its processes are asked first. Says whether that was done before.
    fn is_ended(&self, ending: &mut Ending) -> bool {
        while let Ok(Some(info)) = self.signals.read_signal() {
            if i32::try_from(info.ssi_signo) != Ok(libc::SIGTERM) {
                continue;
            }
            if ending.ask() {
                return true;
            }
        }
        false
    }
}
