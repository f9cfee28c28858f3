//! Ends a blocking call of ours when the guest it is done for gets a signal or dies. Knows nothing of the call.
//!
//! A guest whose notification has been received waits for nothing but death, so that signals do not run calls
//! twice; a call that may block for long must therefore be ended by us. The kernel tells nobody of a pending
//! signal of another process: `/proc/PID/status` is looked at, for as long as such a call lasts.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use umvu_interface::Errno;

use crate::call::{Call, Fail, Outcome};

/// The signal that interrupts our own blocking calls.
pub const SIGNAL: Signal = Signal::USR2;

struct Shared {
    /// Thread id of the blocked thread of ours; 0 when it is done.
    thread: u32,
    interrupted: bool,
}

/// Watches over one blocking call.
pub struct Watch {
    shared: Arc<Mutex<Shared>>,
}

impl Watch {
    /// Begins, on the thread that will block.
    pub fn begin(call: &Call) -> Self {
        let thread = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
        let shared = Arc::new(Mutex::new(Shared { thread, interrupted: false }));
        if let Err(errno) = umvu_sys::process::admit_signal(SIGNAL) {
            tracing::warn!(%errno, "blocking calls cannot be interrupted");
        }
        let (watched, call) = (shared.clone(), call.clone());
        let spawned = std::thread::Builder::new().name("signals".into()).stack_size(128 << 10).spawn(move || {
            let mut wait = Duration::from_millis(1);
            loop {
                std::thread::sleep(wait);
                wait = (wait * 2).min(Duration::from_millis(10));
                let mut shared = watched.lock();
                if shared.thread == 0 {
                    return;
                }
                if !call.supervisor.listener.is_valid(call.notification.id) || has_signal(call.tid()) {
                    shared.interrupted = true;
                    if umvu_sys::process::interrupt_thread(shared.thread, SIGNAL).is_err() {
                        return;
                    }
                }
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "blocking call is not watched");
        }
        Self { shared }
    }

    /// Ends; a call that we interrupted is one that a signal interrupted.
    pub fn end(self, outcome: Outcome) -> Outcome {
        let mut shared = self.shared.lock();
        shared.thread = 0;
        match outcome {
            Err(Fail::Errno(Errno::INTR)) if shared.interrupted => Err(Fail::Interrupted),
            other => other,
        }
    }
}

/// Whether a signal is pending that the thread would take now.
fn has_signal(tid: u32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else { return true };
    let set = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
            .unwrap_or(0)
    };
    let ignored = set("SigIgn:");
    // Without a handler these do nothing: SIGCHLD, SIGCONT, SIGURG, SIGWINCH.
    let harmless = (1u64 << 16) | (1 << 17) | (1 << 22) | (1 << 27);
    let pending = (set("SigPnd:") | set("ShdPnd:")) & !set("SigBlk:") & !ignored;
    pending & !(harmless & !set("SigCgt:")) != 0
}
