//! Whether a signal waits for a thread. Knows nothing of what is to come of it.

/// Whether a signal is pending that a thread would take now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PendingSignal {
    /// None is.
    #[default]
    No,
    /// One is that any thread of the process may take.
    Shared,
    /// One is that no other thread will take, or the thread is gone.
    Own,
}

/// Looks what is pending for a thread.
pub fn pending_signal(tid: u32) -> PendingSignal {
    match std::fs::read_to_string(format!("/proc/{tid}/status")) {
        Ok(status) => pending_in(&status),
        Err(_) => PendingSignal::Own,
    }
}

/// Whether a thread should rather be interrupted in what it waits for, or is gone.
pub fn has_signal(tid: u32) -> bool {
    pending_signal(tid) != PendingSignal::No
}

/// What proc_pid_status(5) says of pending signals.
fn pending_in(status: &str) -> PendingSignal {
    // Without a handler these do nothing: SIGCHLD, SIGCONT, SIGURG, SIGWINCH.
    const HARMLESS: u64 = (1 << 16) | (1 << 17) | (1 << 22) | (1 << 27);
    let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).map_or("", str::trim);
    let set = |name: &str| u64::from_str_radix(field(name), 16).unwrap_or(0);
    let passed_over = set("SigBlk:") | set("SigIgn:") | (HARMLESS & !set("SigCgt:"));
    let shared = set("ShdPnd:") & !passed_over != 0;
    if set("SigPnd:") & !passed_over != 0 || (shared && field("Threads:") == "1") {
        PendingSignal::Own
    } else if shared {
        PendingSignal::Shared
    } else {
        PendingSignal::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(threads: u32, own: &str, shared: &str, blocked: &str, caught: &str) -> PendingSignal {
        pending_in(&format!(
            "Threads:\t{threads}\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t{blocked}\nSigIgn:\t0\nSigCgt:\t{caught}\n"
        ))
    }

    #[test]
    fn only_signals_that_would_be_taken_are_pending() {
        let alarm = "0000000000002000";
        let child = "0000000000010000";
        assert_eq!(status(1, "0", "0", "0", "0"), PendingSignal::No);
        assert_eq!(status(1, "0", alarm, alarm, alarm), PendingSignal::No);
        assert_eq!(status(1, child, "0", "0", "0"), PendingSignal::No);
        assert_eq!(status(1, child, "0", "0", child), PendingSignal::Own);
        assert_eq!(status(1, "0", alarm, "0", alarm), PendingSignal::Own);
        assert_eq!(status(2, "0", alarm, "0", alarm), PendingSignal::Shared);
        assert_eq!(status(2, alarm, "0", "0", alarm), PendingSignal::Own);
    }
}
