//! The end of a view that somebody asked to end: who is asked, and how long they may take. Knows nothing of who wants it.

use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::process::{kill_process, Signal};

use super::descendants::descendants;

/// How long those that were asked may take.
const GRACE: Duration = Duration::from_secs(5);

/// How far it has come.
#[derive(Default)]
pub struct Ending {
    deadline: Option<Instant>,
}

impl Ending {
    /// Asks all descendants to end; says whether they were asked before.
    pub fn ask(&mut self) -> bool {
        if self.has_begun() {
            return true;
        }
        self.deadline = Some(Instant::now() + GRACE);
        // A child that one of them makes meanwhile is not asked: it is killed with the rest.
        for pid in descendants() {
            let _ = kill_process(pid, Signal::TERM);
            // One that is stopped would take it only when somebody lets it go on.
            let _ = kill_process(pid, Signal::CONT);
        }
        false
    }

    /// Whether they have been asked.
    pub fn has_begun(&self) -> bool {
        self.deadline.is_some()
    }

    /// Whether those that were asked have had their time.
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= Instant::now())
    }

    /// The time that those that were asked still have.
    pub fn left(&self) -> Option<Timespec> {
        let left = self.deadline?.saturating_duration_since(Instant::now());
        Timespec::try_from(left).ok()
    }
}
