//! Pid namespaces. The init of one is its process 1; every other process keeps the number that the host has for it, so
//! what fork(2) and wait(2) return needs no translation. Knows no calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use umvu_interface::UserNamespace;

use super::Space;

/// `MAX_PID_NS_LEVEL` of linux/pid_namespace.h.
pub const LEVELS_MAX: u32 = 32;

/// A pid namespace.
#[derive(Debug)]
pub struct PidNamespace {
    /// What all namespaces have.
    pub space: Space,
    /// How many namespaces it is in; the view's own is at 0.
    pub level: u32,
    /// The one it is in; `None` for the view's own.
    pub parent: Option<Arc<PidNamespace>>,
    /// Its init, by the host's number; 0 before there is one, [`DEAD`] after its end.
    init: AtomicU32,
}

impl PartialEq for PidNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.space.number == other.space.number
    }
}

impl Eq for PidNamespace {}

/// Stands for an init that has ended.
const DEAD: u32 = u32::MAX;

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.iter().rposition(|b| *b == b')').and_then(|at| stat.get(at + 2).copied());
    !matches!(state, None | Some(b'Z' | b'X'))
}

/// What there is at the head of a pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// Nothing yet: the first child becomes it.
    None,
    /// A process, by the host's number.
    Process(u32),
    /// It has ended, and nobody can be forked any more.
    Ended,
}

impl PidNamespace {
    /// Makes one without processes.
    pub fn new(parent: Option<Arc<PidNamespace>>, owner: Option<Arc<UserNamespace>>) -> Arc<Self> {
        let level = parent.as_ref().map_or(0, |p| p.level) + 1;
        Arc::new(Self { space: Space::new(owner), level, parent, init: AtomicU32::new(0) })
    }

    /// Its init.
    pub fn init(&self) -> Init {
        match self.init.load(Ordering::Acquire) {
            0 => Init::None,
            DEAD => Init::Ended,
            pid => Init::Process(pid),
        }
    }

    /// Whether its init has ended: seen in the process itself, which others may have waited for by now.
    pub fn has_ended(&self) -> bool {
        match self.init() {
            Init::None => false,
            Init::Ended => true,
            Init::Process(pid) => !is_alive(pid),
        }
    }

    /// Records that a process is its init.
    pub fn set_init(&self, pid: u32) {
        self.init.store(pid, Ordering::Release);
    }

    /// Records that its init has ended.
    pub fn end(&self) {
        self.init.store(DEAD, Ordering::Release);
    }

    /// Whether it is `outer` or in it.
    pub fn is_within(self: &Arc<Self>, outer: Option<&Arc<PidNamespace>>) -> bool {
        let Some(outer) = outer else { return true };
        let mut at = Some(self);
        while let Some(here) = at {
            if here == outer {
                return true;
            }
            at = here.parent.as_ref();
        }
        false
    }

    /// The number in this namespace of a process of it that the host knows as `pid`.
    pub fn shown(&self, pid: u32) -> u32 {
        if self.init() == Init::Process(pid) {
            1
        } else {
            pid
        }
    }

    /// The host's number of the process that somebody in this namespace means by `pid`.
    pub fn meant(&self, pid: u32) -> Option<u32> {
        match (pid, self.init()) {
            (1, Init::Process(init)) => Some(init),
            (1, _) => None,
            (pid, _) => Some(pid),
        }
    }
}
