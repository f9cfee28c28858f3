//! The supervisor as a process: starts the first guest, makes its view, serves until no guest is left.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use umvu_sys::process::{self, Forked};

use super::command::Command;
use super::first_guest;
use super::reap::Reaper;
use super::status::Status;
use super::streams::{self, Streams};
use crate::serve::Workers;
use crate::state::ProcessState;
use crate::supervisor::Supervisor;
use crate::{Config, StartError};

/// What the supervisor is started with.
pub struct Start {
    /// What the caller wants.
    pub config: Config,
    /// What the first guest executes.
    pub command: Command,
    /// Where the front is told.
    pub status: OwnedFd,
    /// Signals that the first guest blocks.
    pub saved_mask: SigSet,
}

impl Start {
    /// Says why there is no view, and ends the front.
    pub fn fail(&self, error: &StartError) {
        let _ = writeln!(std::io::stderr(), "umvu: {error}");
        let _ = Status::Over(1).tell(&self.status);
    }
}

/// Runs to the end of the view; returns an exit status, which nobody looks at.
pub fn run(start: Start, guard: OwnedFd) -> i32 {
    match supervise(&start, &guard) {
        Ok(()) => 0,
        Err(error) => {
            start.fail(&error);
            1
        }
    }
}

fn supervise(start: &Start, guard: &OwnedFd) -> Result<(), StartError> {
    if let Some(unknown) = crate::trace::unknown_tag(&start.config.debug_tags) {
        return Err(StartError::Message(format!("{}: no such tag", [unknown].escape_ascii())));
    }
    process::set_child_subreaper().map_err(StartError::system("child subreaper"))?;
    process::set_name(c"umvu-view").map_err(StartError::system("process name"))?;
    let (number_in, number_out) = super::pipe()?;
    let (go_in, go_out) = super::pipe()?;
    let guest = match process::fork().map_err(StartError::system("fork"))? {
        Forked::Child => {
            drop((number_in, go_out));
            let filter = crate::filter::program(start.config.pids);
            process::exit_now(first_guest::run(&start.command, filter, number_out, go_in, &start.saved_mask))
        }
        Forked::Parent(pid) => pid,
    };
    drop((number_out, go_in));
    let config = &start.config;
    // It may name an inherited descriptor or a terminal, which the leader of a session must not open.
    let trace = config.trace.as_ref().map(crate::trace::Trace::open).transpose()?;
    rustix::process::setsid().map_err(StartError::system("session"))?;
    streams::detach(Streams::AllButError);
    let limits = process::set_soft_nofile_to_hard();
    if let Err(errno) = limits {
        tracing::debug!(%errno, "limit of open files stays");
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let listener = first_guest::take_listener(guest, number_in)?;
    process::send_fd(guard.as_fd(), listener.as_fd()).map_err(StartError::system("guard"))?;
    let supervisor =
        Supervisor::new(listener, config.modules, config.nesting, config.pids, trace).map_err(StartError::Directory)?;
    let supervisor = Arc::new(supervisor);
    let name = config.name.clone().unwrap_or_else(|| guest.to_string().into_bytes());
    let view = supervisor.first_view(name).map_err(StartError::system("/"))?;
    if config.release.is_some() {
        view.uts.names.write().release.clone_from(&config.release);
        view.gets_namespaces();
    }
    view.debug.write().clone_from(&config.debug_tags);
    for module in &config.load {
        view.insert(config.modules, module, false).map_err(|error| StartError::Message(error.to_string()))?;
    }
    let limit = umvu_sys::guest::state_number(guest).map_err(StartError::system("process state"))?;
    // Ours is still the caller's: only guests get it from us.
    let has_no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
    let first = ProcessState { has_no_new_privs, ..ProcessState::new(view) };
    let number = supervisor.states.first(first, limit);
    umvu_sys::guest::set_state_number(guest, number).map_err(StartError::system("process state"))?;
    let signals = watch_signals()?;
    Workers::start(supervisor.clone()).map_err(StartError::Thread)?;
    let _ = Status::Begun(i32::try_from(guest).unwrap_or(0)).tell(&start.status);
    let _ = rustix::io::write(&go_out, b"g");
    drop(go_out);
    let reaper = Reaper {
        supervisor: &supervisor,
        first: guest,
        at_end: config.at_end,
        front: &start.status,
        guard,
        signals: &signals,
    };
    let untold = reaper.run();
    supervisor.placeholders.remove_directory();
    // Who starts umvu again at once finds the layers free.
    supervisor.close_views();
    if let Some(value) = untold {
        let _ = Status::Over(value).tell(&start.status);
    }
    Ok(())
}

fn watch_signals() -> Result<SignalFd, StartError> {
    let mut child = SigSet::empty();
    child.add(nix::sys::signal::Signal::SIGCHLD);
    child.add(nix::sys::signal::Signal::SIGTERM);
    SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(StartError::system("signalfd"))
}
