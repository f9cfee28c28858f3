//! The namespaces of a view: which a process is in, what they are called, what each holds. The kernel makes none of
//! them. Knows no calls: `change` says what unshare(2), setns(2) and clone(2) do to a process.
//!
//! A mount namespace is a [`View`]; the others are objects of their own that processes share. Where a process has none
//! of a kind, it is in the one that the kernel has it in.

pub mod change;
pub mod maps;
pub mod nsfs;
pub mod pid;

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::RwLock;
use umvu_interface::UserNamespace;

pub use pid::PidNamespace;

use crate::state::ProcessState;
use crate::view::{HostNames, View};

/// `CLONE_NEW*` of linux/sched.h.
pub mod flag {
    #![allow(missing_docs)]
    pub const TIME: u64 = 0x80;
    pub const MNT: u64 = 0x0002_0000;
    pub const CGROUP: u64 = 0x0200_0000;
    pub const UTS: u64 = 0x0400_0000;
    pub const IPC: u64 = 0x0800_0000;
    pub const USER: u64 = 0x1000_0000;
    pub const PID: u64 = 0x2000_0000;
    pub const NET: u64 = 0x4000_0000;
    /// Those that a clone(2) can have.
    pub const OF_CLONE: u64 = MNT | CGROUP | UTS | IPC | USER | PID | NET;
    /// All.
    pub const ALL: u64 = OF_CLONE | TIME;
}

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Kind {
    Cgroup,
    Ipc,
    Mnt,
    Net,
    Pid,
    Time,
    User,
    Uts,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 8] =
        [Kind::Cgroup, Kind::Ipc, Kind::Mnt, Kind::Net, Kind::Pid, Kind::Time, Kind::User, Kind::Uts];

    /// The name in `/proc/PID/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cgroup => "cgroup",
            Kind::Ipc => "ipc",
            Kind::Mnt => "mnt",
            Kind::Net => "net",
            Kind::Pid => "pid",
            Kind::Time => "time",
            Kind::User => "user",
            Kind::Uts => "uts",
        }
    }

    /// Its `CLONE_NEW*`.
    pub fn flag(self) -> u64 {
        match self {
            Kind::Cgroup => flag::CGROUP,
            Kind::Ipc => flag::IPC,
            Kind::Mnt => flag::MNT,
            Kind::Net => flag::NET,
            Kind::Pid => flag::PID,
            Kind::Time => flag::TIME,
            Kind::User => flag::USER,
            Kind::Uts => flag::UTS,
        }
    }
}

/// A link in `/proc/PID/ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// The namespace a process is in.
    Of(Kind),
    /// `pid_for_children`, `time_for_children`.
    ForChildren(Kind),
}

impl Link {
    /// Finds it by its name in `/proc/PID/ns`.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"pid_for_children" => Some(Link::ForChildren(Kind::Pid)),
            b"time_for_children" => Some(Link::ForChildren(Kind::Time)),
            _ => Kind::ALL.into_iter().find(|k| k.name().as_bytes() == name).map(Link::Of),
        }
    }

    /// The name in `/proc/PID/ns`.
    pub fn name(self) -> String {
        match self {
            Link::Of(kind) => kind.name().into(),
            Link::ForChildren(kind) => format!("{}_for_children", kind.name()),
        }
    }
}

/// Numbers of namespaces: above those that the kernel gives out, which begin at `PROC_DYNAMIC_FIRST`.
static NUMBERS: AtomicU64 = AtomicU64::new(0xf001_0000);

/// A number for a new namespace: what stat(2) shows as its inode.
pub fn new_number() -> u64 {
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// What every namespace has. Of a namespace of System V IPC, of control groups and of time, it is all there is: they can
/// be told apart and entered.
#[derive(Debug)]
pub struct Space {
    /// What stat(2) shows as its inode.
    pub number: u64,
    /// The user namespace that owns it; `None` for the view's own.
    pub owner: Option<Arc<UserNamespace>>,
}

impl Space {
    /// Makes a new one.
    pub fn new(owner: Option<Arc<UserNamespace>>) -> Self {
        Self { number: new_number(), owner }
    }
}

/// A namespace of the host's names.
#[derive(Debug)]
pub struct Uts {
    /// What all have; its number is 0 where it is the kernel's own.
    pub space: Space,
    /// The names.
    pub names: RwLock<HostNames>,
}

impl Uts {
    /// The one that a view begins with: the kernel's own, until a name is set.
    pub fn of_kernel() -> Arc<Self> {
        Arc::new(Self { space: Space { number: 0, owner: None }, names: RwLock::default() })
    }

    /// A new one, with the names of another.
    pub fn copy(&self, owner: Option<Arc<UserNamespace>>) -> Arc<Self> {
        Arc::new(Self { space: Space::new(owner), names: RwLock::new(self.names.read().clone()) })
    }
}

/// A time namespace for the children of a process. Nothing has to be done when they are forked: who carries the record
/// and is another process is a child.
#[derive(Clone, Debug)]
pub struct TimeForChildren {
    /// The namespace.
    pub space: Arc<Space>,
    /// The process whose children are in it.
    pub parent: u32,
}

/// The namespaces that a process does not share with its view. Two records are equal if they hold the same objects.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Namespaces {
    pub uts: Option<Arc<Uts>>,
    pub ipc: Option<Arc<Space>>,
    pub cgroup: Option<Arc<Space>>,
    pub time: Option<Arc<Space>>,
    pub time_for_children: Option<TimeForChildren>,
    pub pid: Option<Arc<PidNamespace>>,
    /// Where it differs from that of the process itself.
    pub pid_for_children: Option<Option<Arc<PidNamespace>>>,
}

impl Namespaces {
    fn numbers(&self) -> [u64; 8] {
        let of = |space: Option<&Space>| space.map_or(0, |s| s.number);
        let time = self.time_for_children.as_ref();
        let pid = self.pid_for_children.as_ref();
        [
            of(self.uts.as_ref().map(|u| &u.space)),
            of(self.ipc.as_deref()),
            of(self.cgroup.as_deref()),
            of(self.time.as_deref()),
            of(time.map(|t| &*t.space)),
            time.map_or(0, |t| u64::from(t.parent)),
            of(self.pid.as_ref().map(|p| &p.space)),
            pid.map_or(u64::MAX, |p| of(p.as_ref().map(|p| &p.space))),
        ]
    }

    /// Whether the process shares all with its view.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The time namespace of process `pid`, which carries this.
    pub fn time_of(&self, pid: u32) -> Option<&Arc<Space>> {
        match &self.time_for_children {
            Some(t) if t.parent != pid => Some(&t.space),
            _ => self.time.as_ref(),
        }
    }

    /// The pid namespace that children are forked into.
    pub fn children(&self) -> Option<&Arc<PidNamespace>> {
        self.pid_for_children.as_ref().unwrap_or(&self.pid).as_ref()
    }
}

impl PartialEq for Namespaces {
    fn eq(&self, other: &Self) -> bool {
        self.numbers() == other.numbers()
    }
}

impl Eq for Namespaces {}

impl Hash for Namespaces {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.numbers().hash(state);
    }
}

/// A namespace that the view made.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Namespace {
    Mnt(Arc<View>),
    Uts(Arc<Uts>),
    Pid(Arc<PidNamespace>),
    User(Arc<UserNamespace>),
    /// One of the kinds that are no more than what all are.
    Other(Kind, Arc<Space>),
}

impl Namespace {
    /// Kind.
    pub fn kind(&self) -> Kind {
        match self {
            Namespace::Mnt(_) => Kind::Mnt,
            Namespace::Uts(_) => Kind::Uts,
            Namespace::Pid(_) => Kind::Pid,
            Namespace::User(_) => Kind::User,
            Namespace::Other(kind, _) => *kind,
        }
    }

    /// What stat(2) shows as its inode.
    pub fn number(&self) -> u64 {
        match self {
            Namespace::Mnt(view) => view.number,
            Namespace::Uts(uts) => uts.space.number,
            Namespace::Pid(pid) => pid.space.number,
            Namespace::User(user) => user.number,
            Namespace::Other(_, space) => space.number,
        }
    }

    /// The user namespace that owns it; `None` for the view's own.
    pub fn owner(&self) -> Option<&Arc<UserNamespace>> {
        match self {
            Namespace::Mnt(view) => view.owner.as_ref(),
            Namespace::Uts(uts) => uts.space.owner.as_ref(),
            Namespace::Pid(pid) => pid.space.owner.as_ref(),
            Namespace::User(user) => user.parent.as_ref(),
            Namespace::Other(_, space) => space.owner.as_ref(),
        }
    }

    /// The text of a link to it.
    pub fn text(&self) -> Vec<u8> {
        format!("{}:[{}]", self.kind().name(), self.number()).into_bytes()
    }
}

/// The namespace that a link of process `pid`, whose record this is, leads to; `None` where the kernel's own does.
pub fn linked(state: &ProcessState, pid: u32, link: Link) -> Option<Namespace> {
    let own = &state.namespaces;
    let other = |kind, space: Option<&Arc<Space>>| space.map(|s| Namespace::Other(kind, s.clone()));
    match link {
        Link::Of(Kind::Mnt) => (state.view.number != 0).then(|| Namespace::Mnt(state.view.clone())),
        Link::Of(Kind::Uts) => Some(state.uts()).filter(|u| u.space.number != 0).map(|u| Namespace::Uts(u.clone())),
        Link::Of(Kind::Ipc) => other(Kind::Ipc, own.ipc.as_ref()),
        Link::Of(Kind::Cgroup) => other(Kind::Cgroup, own.cgroup.as_ref()),
        Link::Of(Kind::Time) => other(Kind::Time, own.time_of(pid)),
        Link::ForChildren(Kind::Time) => {
            let for_children = own.time_for_children.as_ref().map(|t| &t.space);
            other(Kind::Time, for_children.or(own.time.as_ref()))
        }
        Link::Of(Kind::User) => state.credentials.as_ref()?.namespace.clone().map(Namespace::User),
        Link::Of(Kind::Pid) => own.pid.clone().map(Namespace::Pid),
        Link::ForChildren(Kind::Pid) => own.children().cloned().map(Namespace::Pid),
        Link::Of(Kind::Net) | Link::ForChildren(_) => None,
    }
}
