//! What the supervisor knows of a process: an immutable record with a number, which the kernel keeps for us.
//!
//! The number is the soft limit of `RLIMIT_LOCKS`, which Linux stores and inherits but has not used since 2.4.25:
//! `fork` copies it at the right moment, `exec` keeps it, and nothing here needs to follow processes. Equal
//! records share a number; numbers that no living guest carries are swept.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use umvu_interface::{Credentials, Errno, Result};

use crate::mount::Location;
use crate::namespace::{Namespaces, Uts};
use crate::view::View;

/// The current directory of a process that the kernel does not know it by.
#[derive(Clone)]
pub struct WorkingDirectory {
    /// Where it is.
    pub location: Location,
    /// Generation of the mount table when it was entered: a mount over it since is entered by its path.
    pub generation: u64,
    /// Its path in the view at that time.
    pub path: Option<Vec<u8>>,
    /// The newest mount at that time.
    pub newest: u64,
}

/// What a process has of its own in a view. `None` means: what the kernel has for it.
#[derive(Clone)]
pub struct ProcessState {
    /// The view.
    pub view: Arc<View>,
    /// Root directory, after chroot(2).
    pub root: Option<Arc<Location>>,
    /// Current directory.
    pub cwd: Option<Arc<WorkingDirectory>>,
    /// File mode creation mask.
    pub umask: Option<u32>,
    /// Identity.
    pub credentials: Option<Arc<Credentials>>,
    /// `PR_SET_DUMPABLE` as the guest set it.
    pub dumpable: Option<u8>,
    /// Whether the guest has set `PR_SET_NO_NEW_PRIVS`: the kernel has it set for all guests.
    pub has_no_new_privs: bool,
    /// Limit of `RLIMIT_LOCKS` as the guest set it: (soft, hard).
    pub locks_limit: Option<(u64, u64)>,
    /// Namespaces that are not those of the view.
    pub namespaces: Namespaces,
}

impl ProcessState {
    /// What a process has that just entered `view`.
    pub fn new(view: Arc<View>) -> Self {
        Self {
            view,
            root: None,
            cwd: None,
            umask: None,
            credentials: None,
            dumpable: None,
            has_no_new_privs: false,
            locks_limit: None,
            namespaces: Namespaces::default(),
        }
    }

    /// Whether the kernel's own answer about files and identities is the right one.
    pub fn is_plain(&self) -> bool {
        let has_own = self.root.is_some() || self.cwd.is_some() || self.credentials.is_some() || self.umask.is_some();
        // With a limit of its own `/proc/PID/limits` has to be told otherwise than the kernel does.
        !has_own && self.locks_limit.is_none() && self.namespaces.is_empty() && self.view.is_plain()
    }

    /// The names of the host.
    pub fn uts(&self) -> &Arc<Uts> {
        self.namespaces.uts.as_ref().unwrap_or(&self.view.uts)
    }
}

fn address<T: ?Sized>(shared: &Option<Arc<T>>) -> usize {
    shared.as_ref().map_or(0, |a| Arc::as_ptr(a).cast::<u8>() as usize)
}

impl PartialEq for ProcessState {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view)
            && address(&self.root) == address(&other.root)
            && address(&self.cwd) == address(&other.cwd)
            && self.umask == other.umask
            && self.credentials == other.credentials
            && self.dumpable == other.dumpable
            && self.has_no_new_privs == other.has_no_new_privs
            && self.locks_limit == other.locks_limit
            && self.namespaces == other.namespaces
    }
}

impl Eq for ProcessState {}

impl Hash for ProcessState {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (Arc::as_ptr(&self.view) as usize).hash(state);
        address(&self.root).hash(state);
        address(&self.cwd).hash(state);
        self.umask.hash(state);
        self.credentials.hash(state);
        self.dumpable.hash(state);
        self.has_no_new_privs.hash(state);
        self.locks_limit.hash(state);
        self.namespaces.hash(state);
    }
}

/// The records by number.
#[derive(Default)]
pub struct States {
    inner: RwLock<Inner>,
    changing: Mutex<()>,
}

#[derive(Default)]
struct Inner {
    by_number: HashMap<u64, Entry>,
    numbers: HashMap<Arc<ProcessState>, u64>,
    last: u64,
    round: u64,
    /// How many records the last pair of sweeps left.
    swept_at: usize,
}

struct Entry {
    state: Arc<ProcessState>,
    /// Round of the last sweep that saw the number, or of its last use.
    seen: u64,
}

impl States {
    /// Held from the reading of a process's number to the setting of another.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }

    /// Gives the record of a number.
    ///
    /// # Errors
    /// - `ESRCH`: no guest of ours has that number.
    pub fn get(&self, number: u64) -> Result<Arc<ProcessState>> {
        self.inner.read().by_number.get(&number).map(|e| e.state.clone()).ok_or(Errno::SRCH)
    }

    /// Records what the first guest has. Its number is the limit it came with, if none of ours can ever be equal:
    /// then nothing in a view without modules shows that the limit is in use.
    pub fn first(&self, state: ProcessState, limit: u64) -> u64 {
        if limit < u64::MAX / 2 {
            return self.number(state);
        }
        let mut inner = self.inner.write();
        let state = Arc::new(state);
        inner.numbers.insert(state.clone(), limit);
        inner.by_number.insert(limit, Entry { state, seen: 0 });
        limit
    }

    /// Gives the number of a record, a new one if there is no equal record.
    pub fn number(&self, state: ProcessState) -> u64 {
        let mut inner = self.inner.write();
        let round = inner.round;
        if let Some(number) = inner.numbers.get(&state).copied() {
            if let Some(entry) = inner.by_number.get_mut(&number) {
                entry.seen = round;
            }
            return number;
        }
        inner.last += 1;
        let number = inner.last;
        let state = Arc::new(state);
        inner.numbers.insert(state.clone(), number);
        inner.by_number.insert(number, Entry { state, seen: round });
        number
    }

    /// Whether there are so many more records than after the last sweep that one is due.
    pub fn wants_sweep(&self) -> bool {
        let inner = self.inner.read();
        // A record goes in the second round that does not see it.
        inner.round % 2 == 1 || inner.by_number.len() > 2 * inner.swept_at + 64
    }

    /// Drops the records whose numbers were neither carried nor handed out during the last two rounds: a process
    /// that was forked while the list of processes was read had its parent's number in the round before.
    pub fn sweep(&self, carried: &[u64]) {
        let mut inner = self.inner.write();
        inner.round += 1;
        let round = inner.round;
        for number in carried {
            if let Some(entry) = inner.by_number.get_mut(number) {
                entry.seen = round;
            }
        }
        let stale: Vec<u64> = inner.by_number.iter().filter(|(_, e)| e.seen + 2 <= round).map(|(n, _)| *n).collect();
        for number in stale {
            if let Some(entry) = inner.by_number.remove(&number) {
                inner.numbers.remove(&entry.state);
            }
        }
        if round % 2 == 0 {
            inner.swept_at = inner.by_number.len();
        }
    }

    /// Whether there are more records than after the last sweep: worth a sweep when nothing else is to be done.
    pub fn has_grown(&self) -> bool {
        let inner = self.inner.read();
        inner.by_number.len() > inner.swept_at + 8
    }

    /// Drops all records.
    pub fn clear(&self) {
        let mut inner = self.inner.write();
        inner.by_number.clear();
        inner.numbers.clear();
    }

    /// All records, for changes that concern many processes.
    pub fn all(&self) -> Vec<Arc<ProcessState>> {
        self.inner.read().by_number.values().map(|e| e.state.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states_of(many: u32) -> (States, u64) {
        let host = Arc::new(crate::credentials::of_host());
        let fs = umvu_host::HostFs::new(std::fs::File::open("/").unwrap().into(), None, None);
        let root = crate::mount::Mount::carried_proc(1, fs);
        let view = View::new(1, 0, crate::mount::MountTable::new(root), Vec::new(), Vec::new(), host);
        let states = States::default();
        let kept = states.first(ProcessState::new(view.clone()), u64::MAX);
        for umask in 0..many {
            states.number(ProcessState { umask: Some(umask), ..ProcessState::new(view.clone()) });
        }
        (states, kept)
    }

    #[test]
    fn records_that_nobody_carries_are_gone_after_two_sweeps() {
        let (states, kept) = states_of(200);
        assert_eq!(kept, u64::MAX);
        assert!(states.wants_sweep());
        states.sweep(&[kept]);
        assert!(states.wants_sweep(), "the second round follows whatever the first has left");
        states.sweep(&[kept]);
        assert_eq!(states.all().len(), 1);
        assert!(!states.wants_sweep());
    }
}
