//! The end of a file system that nobody uses any more: what it still has to write, and whether that has gone well.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Result;

/// Tells others when it is over.
#[derive(Debug, Default)]
pub struct Ending {
    outcome: Mutex<Option<Result<()>>>,
    told: Condvar,
}

impl Ending {
    /// Says how it has gone.
    pub fn is_over(&self, outcome: Result<()>) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.told.notify_all();
    }

    /// Waits for it; `None` if it takes longer.
    pub fn wait(&self, longest: Duration) -> Option<Result<()>> {
        let deadline = Instant::now() + longest;
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        while outcome.is_none() {
            let left = deadline.checked_duration_since(Instant::now())?;
            outcome = self.told.wait_timeout(outcome, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *outcome
    }
}
