//! Ends a blocking call of ours when the guest it is done for gets a signal or dies. Knows nothing of the call.
//!
//! Where it can, a guest makes a call that blocks itself (`redirect`); this is for guests that a debugger holds.
//! A guest whose notification has been received waits for nothing but death, and the kernel tells nobody of a
//! pending signal of another process: one thread looks at `/proc/PID/status` of all such guests while there are any.
//! It repeats our signal until the call has ended, so it does not matter whether the call had begun to block.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use umvu_interface::{pending_signal, Errno, PendingSignal};

use crate::call::{Call, Fail, Outcome};

/// The signal that interrupts our own blocking calls.
const SIGNAL: Signal = Signal::USR2;
/// How long a signal may go unnoticed.
const INTERVAL: Duration = Duration::from_millis(4);

/// The blocking calls that are watched over.
#[derive(Default)]
pub struct Watches {
    list: Mutex<Vec<Arc<Watched>>>,
}

struct Watched {
    /// Thread id of the blocked thread of ours.
    thread: u32,
    call: Call,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    is_over: bool,
    /// What was found when the guest was looked at last.
    seen: PendingSignal,
}

/// Watches over one blocking call.
pub struct Watch(Arc<Watched>);

impl Watch {
    /// Begins, on the thread that will block.
    pub fn begin(call: &Call) -> Self {
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
        if let Err(errno) = umvu_sys::process::on_signal_interrupt(SIGNAL) {
            tracing::warn!(%errno, "blocking calls cannot be interrupted");
        }
        let watched = Arc::new(Watched { thread, call: call.clone(), progress: Mutex::default() });
        let mut list = call.supervisor.watches.list.lock();
        list.push(watched.clone());
        if list.len() == 1 {
            let supervisor = call.supervisor.clone();
            let all = move || watch(&supervisor.watches);
            if let Err(error) = std::thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(all) {
                tracing::warn!(%error, "blocking calls are not watched");
                list.clear();
            }
        }
        Self(watched)
    }

    /// Ends; a call that we interrupted is one that a signal interrupted.
    pub fn end(self, outcome: Outcome) -> Outcome {
        let mut progress = self.0.progress.lock();
        progress.is_over = true;
        match (outcome, progress.seen) {
            // The kernel restarts the call if the handler wants it. It does so only with a signal in hand: without
            // one the guest would see this errno, which is none.
            (Err(Fail::Errno(Errno::INTR)), PendingSignal::Own) => Err(Fail::Interrupted),
            (outcome, _) => outcome,
        }
    }
}

/// Looks after all blocking calls until there are none.
fn watch(watches: &Watches) {
    loop {
        std::thread::sleep(INTERVAL);
        let mut list = watches.list.lock();
        list.retain(|watched| {
            // Held while the signal is sent: the thread may be another's after the end.
            let mut progress = watched.progress.lock();
            if !progress.is_over {
                watched.look(&mut progress);
            }
            !progress.is_over
        });
        if list.is_empty() {
            return;
        }
    }
}

impl Watched {
    fn look(&self, progress: &mut Progress) {
        let gone = !self.call.supervisor.listener.is_valid(self.call.notification.id);
        let found = if gone { PendingSignal::Own } else { pending_signal(self.call.tid()) };
        let before = std::mem::replace(&mut progress.seen, found);
        // Another thread takes a shared signal at once, if it is to.
        if found == PendingSignal::Own || (found == PendingSignal::Shared && before == PendingSignal::Shared) {
            if let Err(errno) = umvu_sys::process::interrupt_thread(self.thread, SIGNAL) {
                tracing::debug!(%errno, "blocking call not interrupted");
            }
        }
    }
}
