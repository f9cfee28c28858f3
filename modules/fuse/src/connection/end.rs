//! How a conversation ends. Knows nothing of what it was about.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::{shutdown, Shutdown};
use umvu_interface::{Errno, Parting};

use super::{message, Asker, Connection, Phase, Slot};
use crate::abi::Opcode;

/// How long the last request may take.
const FAREWELL: Duration = Duration::from_secs(10);
/// How long a server may take to read something: one that does not is not at work.
const BEGINS: Duration = Duration::from_secs(1);
/// How long is waited before that is looked at.
const STEP: Duration = Duration::from_millis(20);

/// How much is said at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `DESTROY`, and its answer is waited for.
    WithFarewell,
    /// Nothing, and who waits for an answer gets none: `fuse_abort_conn`.
    AtOnce,
}

impl Connection {
    /// Ends the conversation, and hangs up: the server reads `ENODEV`.
    pub fn end(&self, how: End, parting: &dyn Parting) {
        if how == End::WithFarewell {
            self.say_farewell();
        }
        let mut cut = || {
            if let Err(errno) = shutdown(&self.socket, Shutdown::Both) {
                tracing::debug!(%errno, "a FUSE server is gone already");
            }
        };
        if self.is_closed() {
            cut();
        } else {
            let servers = self.servers.lock().clone();
            parting.part(&servers, self.theirs, Errno::NODEV, &mut cut);
        }
        self.over();
    }

    /// Says `DESTROY`, which the kernel says to servers of block devices alone: what others do at their end, which may be
    /// to write an image, is done when umount(8) returns.
    fn say_farewell(&self) {
        let slot = Arc::new(Slot::default());
        {
            let mut state = self.state.lock();
            if state.phase != Phase::Ready {
                return;
            }
            // What was told before is done before.
            let deadline = Instant::now() + BEGINS;
            while !state.owed.is_empty() && !self.ready.wait_until(&mut state, deadline).timed_out() {}
            if state.phase != Phase::Ready {
                return;
            }
            let unique = state.unique();
            state.waiting.insert(unique, slot.clone());
            if let Ok(message) = message(&Asker::default(), Opcode::Destroy, unique, 0, &[]) {
                self.transmit(&mut state, message);
            }
        }
        let (mut left, mut since) = (self.untaken(), Instant::now());
        loop {
            {
                let mut reply = slot.reply.lock();
                if reply.is_none() {
                    slot.answered.wait_for(&mut reply, STEP);
                }
                if reply.is_some() {
                    return;
                }
            }
            let now = self.untaken();
            if now != left {
                (left, since) = (now, Instant::now());
            }
            if since.elapsed() >= if left == (0, 0) { FAREWELL } else { BEGINS } {
                tracing::info!("a FUSE server does not end its work");
                return;
            }
        }
    }

    /// How many messages wait to be sent, and how much the server has yet to read.
    fn untaken(&self) -> (usize, u64) {
        let queued = self.state.lock().queue.len();
        (queued, umvu_sys::file::untaken_by_peer(self.socket.as_fd()).unwrap_or(0))
    }

    /// Fails all who wait.
    pub(super) fn over(&self) {
        let waiting = {
            let mut state = self.state.lock();
            state.phase = Phase::Over;
            state.queue.clear();
            state.forgets.clear();
            state.owed.clear();
            std::mem::take(&mut state.waiting)
        };
        self.ready.notify_all();
        waiting.into_values().for_each(|slot| slot.fill(Err(Errno::CONNABORTED)));
    }
}
