//! What is on its way to a server: sent at once, or queued for the thread to send. Knows nothing of answers.

use rustix::net::send;
use rustix::net::SendFlags;
use umvu_interface::Errno;

use super::{message, Asker, Connection, State};
use crate::abi::{BatchForgetIn, ForgetIn, Opcode, Wire};

impl Connection {
    /// Sends a message, or queues it; what cannot be sent to a server that is gone fails with it.
    pub(super) fn transmit(&self, state: &mut State, message: Vec<u8>) {
        if state.queue.is_empty() && self.is_sent(&message) {
            return;
        }
        state.queue.push_back(message);
        if let Err(errno) = rustix::io::write(&self.wake, &1u64.to_ne_bytes()) {
            tracing::debug!(%errno, "the thread of a FUSE connection is awake");
        }
    }

    fn is_sent(&self, message: &[u8]) -> bool {
        match send(&self.socket, message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(_) => true,
            Err(Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => false,
            Err(errno) => {
                // The receiving side sees the same, and tells those who wait.
                tracing::debug!(%errno, "not sent to a FUSE server");
                true
            }
        }
    }

    /// Sends what is queued, as far as it goes.
    pub(super) fn send_queued(&self) {
        let mut state = self.state.lock();
        while let Some(first) = state.queue.pop_front() {
            if !self.is_sent(&first) {
                state.queue.push_front(first);
                return;
            }
        }
        self.send_forgets(&mut state);
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.state.lock().queue.is_empty()
    }

    /// `fuse_read_forget` of `fs/fuse/dev.c`: one by one, or many at once where the server knows how.
    pub(super) fn send_forgets(&self, state: &mut State) {
        const AT_ONCE: usize = 1024;
        let forgets = std::mem::take(&mut state.forgets);
        let knows_many = self.negotiated.get().is_some_and(|n| n.minor >= 16);
        for some in forgets.chunks(if knows_many { AT_ONCE } else { 1 }) {
            let unique = state.unique();
            let nobody = Asker::default();
            let sent = match some {
                [one] => {
                    let body = ForgetIn { nlookup: one.nlookup }.bytes();
                    message(&nobody, Opcode::Forget, unique, one.nodeid, &[&body])
                }
                many => {
                    let count = u32::try_from(many.len()).unwrap_or(0);
                    let mut body = BatchForgetIn { count, dummy: 0 }.bytes();
                    many.iter().for_each(|one| one.put(&mut body));
                    message(&nobody, Opcode::BatchForget, unique, 0, &[&body])
                }
            };
            if let Ok(sent) = sent {
                self.transmit(state, sent);
            }
        }
    }
}
