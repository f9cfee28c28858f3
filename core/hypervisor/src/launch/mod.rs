//! Starting a view: which processes there are, and how each of them ends. What each does is in the file of its name.
//!
//! - The *front* is the process that the user's shell started. It holds nothing of the guests' and mirrors their stop
//!   and end.
//! - The *guard* is its child, and does nothing but wait. It stays for as long as there are guests, also when the front
//!   has returned because the first of them ended.
//! - The *supervisor* is the child of the guard, and the guests' parent, or their child subreaper. It leaves the session
//!   of the others, so that what is sent to a process group or done to a terminal does not reach it.
//!
//! Whoever of them is killed, all guests are killed at once. If it was the supervisor, the guard does it, and until then
//! the guests wait in their calls: the guard holds the listener too, and without one the kernel would answer `ENOSYS`.
//! If it was the front or the guard, the supervisor does it.

mod command;
mod descendants;
mod ending;
mod first_guest;
mod front;
mod guard;
mod reap;
mod status;
mod streams;
mod supervise;

use std::os::fd::OwnedFd;

use nix::sys::signal::{SigSet, SigmaskHow};
use umvu_sys::process::{self, Forked, Signal};

use self::command::Command;
use crate::{Config, StartError};

/// Runs a command in a new view, to its end.
///
/// # Errors
/// What could not be had, named.
pub fn run(config: Config) -> Result<u8, StartError> {
    let command = Command::prepare(&config)?;
    let (status_in, status_out) = pipe()?;
    let (from_front, to_guard) = pipe()?;
    let saved_mask = SigSet::thread_get_mask().map_err(StartError::system("signal mask"))?;
    block_all()?;
    // Whoever ignores the end of children never hears of it.
    process::default_signal(Signal::CHILD).map_err(StartError::system("signal"))?;
    process::set_child_subreaper().map_err(StartError::system("child subreaper"))?;
    match process::fork().map_err(StartError::system("fork"))? {
        Forked::Parent(guard) => {
            drop((status_out, from_front));
            front::run(guard, status_in, &to_guard)
        }
        Forked::Child => {
            drop((status_in, to_guard));
            let start = supervise::Start { config, command, status: status_out, saved_mask };
            process::exit_now(guard::run(start, from_front))
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(StartError::system("pipe"))
}

fn block_all() -> Result<(), StartError> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(StartError::system("signal mask"))
}
