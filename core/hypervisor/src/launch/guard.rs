//! The guard: waits for the end of the supervisor, and kills the guests if that was killed.
//!
//! It holds the listener, so that guests whose supervisor is gone wait for an answer and not one of their calls fails
//! before they are killed. It blocks every signal. Knows nothing of views.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{poll, PollFd, PollFlags};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use umvu_sys::process::{self, Forked};

use super::descendants::kill_all;
use super::streams::{self, Streams};
use super::supervise::{self, Start};
use crate::StartError;

/// Starts the supervisor and guards it, to its end; returns an exit status, which nobody looks at.
pub fn run(start: Start, from_front: OwnedFd) -> i32 {
    // Not by the name of the others: who kills all that is called umvu has the guests killed.
    let _ = process::set_name(c"vu-guard");
    let forked = process::set_child_subreaper().map_err(StartError::system("child subreaper")).and_then(|()| {
        let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
        let sockets = socketpair(kind.0, kind.1, kind.2, None).map_err(StartError::system("socket pair"))?;
        Ok((process::fork().map_err(StartError::system("fork"))?, sockets))
    });
    match forked {
        Ok((Forked::Child, (to_guard, from_supervisor))) => {
            drop((from_supervisor, from_front));
            supervise::run(start, to_guard)
        }
        Ok((Forked::Parent(_), (to_guard, from_supervisor))) => {
            drop((to_guard, start));
            streams::detach(Streams::All);
            let _ = rustix::process::chdir("/");
            let listener = wait(&from_supervisor, from_front);
            kill_all();
            drop(listener);
            crate::placeholder::remove_abandoned();
            0
        }
        Err(error) => {
            start.fail(&error);
            1
        }
    }
}

/// Waits until the supervisor has closed its end of the socket, which it does by ending. Returns the listener.
fn wait(supervisor: &OwnedFd, front: OwnedFd) -> Option<OwnedFd> {
    let mut front = Some(front);
    let mut listener = None;
    loop {
        let mut fds = vec![PollFd::new(supervisor, PollFlags::IN)];
        fds.extend(front.as_ref().map(|front| PollFd::new(front, PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let told = fds.iter().map(|fd| !fd.revents().is_empty()).collect::<Vec<_>>();
        if told[0] {
            match process::recv_fd(supervisor.as_fd()) {
                Ok(Some(received)) => listener = Some(received),
                _ => return listener,
            }
        }
        if told.get(1) == Some(&true) {
            // It has ended: nothing binds us to the session that it was started in.
            front = None;
            let _ = rustix::process::setsid();
        }
    }
}
