//! The workers that take notifications. Knows nothing of what calls mean.
//!
//! One worker waits in the kernel for the next notification, handles it in place and waits again: a wake-up costs
//! more than most calls. Another takes over when the first is stuck in a call; the watcher sees to that.
//! Calls that may block for long run on threads of their own; one that is about to wait for a guest says so.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use umvu_interface::Errno;
use umvu_sys::seccomp::Received;

use crate::call::{Call, Fail, Outcome, Reply};
use crate::entry::Request;
use crate::supervisor::Supervisor;

/// How long a worker may be in one call before another takes over the waiting.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often the watcher looks again before it goes to sleep.
const IDLE_LOOKS: u32 = 20;

thread_local! {
    /// The pool that a worker is of.
    static POOL: RefCell<Option<Arc<Workers>>> = const { RefCell::new(None) };
}

/// The pool.
pub struct Workers {
    supervisor: Arc<Supervisor>,
    /// Workers that wait for a notification or will at once.
    receiving: AtomicUsize,
    /// Counts notifications.
    taken: AtomicU64,
    /// Parked workers that may be woken, and how many of them should wake.
    parked: Mutex<Parked>,
    wake: Condvar,
    watcher_sleeps: AtomicBool,
    watcher: Mutex<()>,
    watch: Condvar,
    /// No guest is left.
    over: AtomicBool,
}

#[derive(Default)]
struct Parked {
    idle: usize,
    permits: usize,
}

impl Workers {
    /// Starts the first worker and the watcher.
    ///
    /// # Errors
    /// No thread can be made.
    pub fn start(supervisor: Arc<Supervisor>) -> std::io::Result<Arc<Self>> {
        let workers = Arc::new(Self {
            supervisor,
            receiving: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
            parked: Mutex::default(),
            wake: Condvar::new(),
            watcher_sleeps: AtomicBool::new(false),
            watcher: Mutex::new(()),
            watch: Condvar::new(),
            over: AtomicBool::new(false),
        });
        umvu_interface::on_blocking(about_to_wait);
        workers.add()?;
        let watching = workers.clone();
        std::thread::Builder::new().name("watcher".into()).stack_size(128 << 10).spawn(move || watching.watch())?;
        Ok(workers)
    }

    fn add(self: &Arc<Self>) -> std::io::Result<()> {
        self.receiving.fetch_add(1, Ordering::AcqRel);
        let own = self.clone();
        let spawned = std::thread::Builder::new().name("worker".into()).stack_size(512 << 10).spawn(move || own.work());
        if spawned.is_err() {
            self.receiving.fetch_sub(1, Ordering::AcqRel);
        }
        spawned.map(drop)
    }

    fn work(self: Arc<Self>) {
        POOL.set(Some(self.clone()));
        loop {
            match self.supervisor.listener.receive() {
                Ok(Received::Call(notification)) => {
                    self.taken.fetch_add(1, Ordering::Release);
                    self.receiving.fetch_sub(1, Ordering::AcqRel);
                    if self.watcher_sleeps.swap(false, Ordering::AcqRel) {
                        let _guard = self.watcher.lock();
                        self.watch.notify_one();
                    }
                    handle(&self.supervisor, notification);
                    // Somebody took over meanwhile: one is enough.
                    if self.receiving.fetch_add(1, Ordering::AcqRel) > 0 && !self.park() {
                        return;
                    }
                }
                Ok(Received::Interrupted) => {}
                Ok(Received::Gone) => {
                    self.over.store(true, Ordering::Release);
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "notifications can no longer be received");
                    return;
                }
            }
        }
    }

    /// Waits until another worker is stuck; false when there are enough parked ones.
    fn park(&self) -> bool {
        self.receiving.fetch_sub(1, Ordering::AcqRel);
        let mut parked = self.parked.lock();
        if parked.idle >= 4 {
            return false;
        }
        parked.idle += 1;
        while parked.permits == 0 {
            self.wake.wait(&mut parked);
        }
        parked.permits -= 1;
        parked.idle -= 1;
        true
    }

    /// Sees to it that somebody receives while others are stuck in calls.
    fn watch(self: Arc<Self>) {
        let mut quiet = 0;
        let mut last = self.taken.load(Ordering::Acquire);
        loop {
            std::thread::sleep(PATIENCE);
            if self.over.load(Ordering::Acquire) {
                return;
            }
            let taken = self.taken.load(Ordering::Acquire);
            let moved = taken != last;
            last = taken;
            if self.receiving.load(Ordering::Acquire) == 0 && !moved {
                self.one_more();
            }
            if self.supervisor.states.wants_sweep() {
                self.supervisor.sweep_states();
            }
            quiet = if moved { 0 } else { quiet + 1 };
            if quiet == IDLE_LOOKS && self.supervisor.states.has_grown() {
                self.supervisor.sweep_states();
                quiet = 0;
                continue;
            }
            if quiet > IDLE_LOOKS && self.receiving.load(Ordering::Acquire) > 0 {
                let mut guard = self.watcher.lock();
                self.watcher_sleeps.store(true, Ordering::Release);
                if self.taken.load(Ordering::Acquire) == last {
                    self.watch.wait(&mut guard);
                }
                self.watcher_sleeps.store(false, Ordering::Release);
                quiet = 0;
            }
        }
    }

    fn one_more(self: &Arc<Self>) {
        {
            let mut parked = self.parked.lock();
            if parked.idle > parked.permits {
                parked.permits += 1;
                self.receiving.fetch_add(1, Ordering::AcqRel);
                self.wake.notify_one();
                return;
            }
        }
        if let Err(error) = self.add() {
            tracing::warn!(%error, "no further worker");
        }
    }
}

/// A worker that is going to wait, perhaps for a guest whose calls it would take, has another one take them.
fn about_to_wait() {
    let pool = POOL.with_borrow(Clone::clone);
    if let Some(workers) = pool.filter(|workers| workers.receiving.load(Ordering::Acquire) == 0) {
        workers.one_more();
    }
}

fn handle(supervisor: &Arc<Supervisor>, notification: umvu_sys::seccomp::Notification) {
    let state = match umvu_sys::guest::state_number(notification.tid).and_then(|n| supervisor.states.get(n)) {
        Ok(state) => state,
        Err(errno) => {
            // A thread that is gone, or one whose limit was changed behind our back.
            tracing::warn!(tid = notification.tid, %errno, "no record of the process");
            if let Err(errno) = supervisor.listener.answer(notification.id, Err(Errno::IO)) {
                tracing::debug!(%errno, "answer not taken");
            }
            return;
        }
    };
    let request = Request::of(&notification);
    let call = Call { supervisor: supervisor.clone(), notification, request, state };
    let outcome = guarded(&call, crate::handlers::dispatch);
    finish(call, outcome);
}

fn finish(call: Call, outcome: Outcome) {
    match outcome {
        Ok(Reply::Block(rest)) => aside(call, "blocking", |call| {
            let watch = crate::interrupt::Watch::begin(call);
            watch.end(guarded(call, rest))
        }),
        Ok(Reply::Aside(rest)) => aside(call, "escort", |call| guarded(call, rest)),
        outcome => {
            if let Some(trace) = &call.supervisor.trace {
                trace.line(&call, &outcome);
            }
            call.answer(outcome);
        }
    }
}

fn guarded(call: &Call, handler: impl FnOnce(&Call) -> Outcome) -> Outcome {
    let outcome = contained(|| handler(call)).unwrap_or_else(|| {
        tracing::error!(tid = call.tid(), nr = call.notification.nr, "handler failed, answered EIO");
        Err(Fail::Errno(Errno::IO))
    });
    crate::unreadable::reconsider(call, outcome)
}

/// Runs a handler; `None` if it failed. Its call is answered with `EIO` then, and the rest goes on.
fn contained(handler: impl FnOnce() -> Outcome) -> Option<Outcome> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(handler)).ok()
}

/// Finishes a call on a thread of its own.
fn aside(call: Call, name: &str, rest: impl FnOnce(&Call) -> Outcome + Send + 'static) {
    let lost = call.clone();
    let spawned = std::thread::Builder::new().name(name.into()).stack_size(256 << 10).spawn(move || {
        let outcome = rest(&call);
        finish(call, outcome);
    });
    if spawned.is_err() {
        lost.answer(Err(Fail::Errno(Errno::NOMEM)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_panics_is_contained() {
        assert!(contained(|| Ok(Reply::Value(1))).is_some());
        assert!(contained(|| unreachable!("on purpose")).is_none());
    }
}
