//! What unshare(2), clone(2) and setns(2) do to the namespaces of a process. Knows no arguments of calls.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use umvu_interface::{Capabilities, Credentials, Errno, IdMap, Origin, Result, UserNamespace};

use super::pid::LEVELS_MAX;
use super::{flag, new_number, Kind, Namespace, Namespaces, PidNamespace, Space, TimeForChildren};
use crate::call::Call;
use crate::state::ProcessState;

/// Who gets the new namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The calling process, by its number: unshare(2).
    Caller(u32),
    /// A child: clone(2).
    Child,
}

/// The most user namespaces in one another: `create_user_ns` of `kernel/user_namespace.c`.
const USER_LEVELS_MAX: u32 = 32;

/// Gives a record with new namespaces, those of `flags`: `unshare_userns`, and `create_new_namespaces` of
/// `kernel/nsproxy.c`.
///
/// # Errors
/// - `ENOSPC`: too many user namespaces in each other
/// - `EPERM`: a user namespace in a changed root, or for ids without a number in the present one
/// - `EPERM`: others without `CAP_SYS_ADMIN`
/// - `EINVAL`: a pid namespace after another one, or in a view that numbers no processes
/// - `ENOSPC`: too many pid namespaces in each other
/// - `EINVAL`: a network namespace
pub fn renewed(call: &Call, old: &ProcessState, flags: u64, whose: Whose) -> Result<ProcessState> {
    let mut new = old.clone();
    let mut who = call.supervisor.credentials(old);
    if flags & flag::USER != 0 {
        who = Arc::new(in_new_user_namespace(call, &who)?);
        new.credentials = Some(who.clone());
    }
    let others = flags & (flag::ALL & !flag::USER);
    if others == 0 {
        return Ok(new);
    }
    if !who.capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM);
    }
    let owner = who.namespace.clone();
    if flags & flag::MNT != 0 {
        let view = &old.view;
        new.view = view.stacked(call.supervisor.next_id(), view.name.read().clone(), view.uts.clone(), owner.clone());
    }
    if flags & flag::UTS != 0 {
        new.namespaces.uts = Some(old.uts().copy(owner.clone()));
    }
    if flags & flag::IPC != 0 {
        new.namespaces.ipc = Some(Arc::new(Space::new(owner.clone())));
    }
    if flags & flag::PID != 0 {
        new_pid_namespace(call, &mut new.namespaces, owner.clone())?;
    }
    if flags & flag::CGROUP != 0 {
        new.namespaces.cgroup = Some(Arc::new(Space::new(owner.clone())));
    }
    if flags & flag::NET != 0 {
        tracing::warn!(tid = call.tid(), "network namespaces are not there yet: CLONE_NEWNET is refused");
        return Err(Errno::INVAL);
    }
    if flags & flag::TIME != 0 {
        let space = Arc::new(Space::new(owner));
        match whose {
            Whose::Caller(parent) => new.namespaces.time_for_children = Some(TimeForChildren { space, parent }),
            Whose::Child => (new.namespaces.time, new.namespaces.time_for_children) = (Some(space), None),
        }
    }
    Ok(new)
}

/// `create_pid_namespace` of `kernel/pid_namespace.c`: as for children; who is the child enters it.
fn new_pid_namespace(call: &Call, spaces: &mut Namespaces, owner: Option<Arc<UserNamespace>>) -> Result<()> {
    if call.supervisor.pids == crate::Pids::Host {
        tracing::warn!(
            tid = call.tid(),
            "CLONE_NEWPID is refused: only a view started with `umvu --pid-namespaces` numbers processes anew"
        );
        return Err(Errno::INVAL);
    }
    // The second one before the first has been entered: copy_pid_ns.
    if spaces.children().map(|p| p.space.number) != spaces.pid.as_ref().map(|p| p.space.number) {
        return Err(Errno::INVAL);
    }
    let parent = spaces.pid.clone();
    if parent.as_ref().is_some_and(|p| p.level >= LEVELS_MAX) {
        return Err(Errno::NOSPC);
    }
    spaces.pid_for_children = Some(Some(PidNamespace::new(parent, owner)));
    Ok(())
}

/// `create_user_ns` of `kernel/user_namespace.c`.
fn in_new_user_namespace(call: &Call, who: &Credentials) -> Result<Credentials> {
    if who.namespace.as_ref().is_some_and(|n| n.level > USER_LEVELS_MAX) {
        return Err(Errno::NOSPC);
    }
    let table = call.table();
    // current_chrooted: a name in a changed root could be used against who makes the namespace.
    if !call.root(&table).same(&table.root())? {
        return Err(Errno::PERM);
    }
    let (uid, gid) = (who.uid.effective, who.gid.effective);
    if who.user_inside(uid).is_none() || who.group_inside(gid).is_none() {
        return Err(Errno::PERM);
    }
    let denied = who.namespace.as_ref().is_some_and(|n| n.setgroups_denied.load(std::sync::atomic::Ordering::Acquire));
    let namespace = UserNamespace {
        number: new_number(),
        level: who.namespace.as_ref().map_or(0, |n| n.level) + 1,
        parent: who.namespace.clone(),
        owner: (uid, gid),
        setgroups_denied: AtomicBool::new(denied),
        users: IdMap::default(),
        groups: IdMap::default(),
    };
    Ok(almighty(who, Some(Arc::new(namespace))))
}

/// `set_cred_user_ns`: who enters a user namespace has every capability in it.
fn almighty(who: &Credentials, namespace: Option<Arc<UserNamespace>>) -> Credentials {
    let full = Capabilities::full();
    Credentials { capabilities: full, securebits: 0, origin: Origin::Faked, namespace, ..who.clone() }
}

/// What is entered by setns(2).
#[derive(Clone)]
pub enum Target {
    /// A namespace of the view's making.
    Made(Namespace),
    /// The one of this kind that the view began with.
    First(Kind),
}

impl Target {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Target::Made(namespace) => namespace.kind(),
            Target::First(kind) => *kind,
        }
    }

    fn owner(&self) -> Option<&Arc<UserNamespace>> {
        match self {
            Target::Made(namespace) => namespace.owner(),
            Target::First(_) => None,
        }
    }
}

/// Whether the process shares what must be its own to enter namespaces of some kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// It has one thread.
    One,
    /// It has more.
    Many,
}

/// Has a record enter a namespace: the `install` operations of the kinds.
///
/// # Errors
/// - `EINVAL`: a user namespace that one is in, or with several threads; a pid namespace that is not below one's own
/// - `EUSERS`: a time namespace with several threads
/// - `EPERM`: without the capabilities in both user namespaces
pub fn enter(call: &Call, state: &mut ProcessState, target: &Target, threads: Threads) -> Result<()> {
    let who = call.supervisor.credentials(state);
    let may = |capability| who.capable_in(target.owner(), capability);
    if let Target::Made(Namespace::User(namespace)) = target {
        // userns_install of kernel/user_namespace.c.
        if who.namespace.as_ref() == Some(namespace) || threads == Threads::Many {
            return Err(Errno::INVAL);
        }
        if !who.capable_in(Some(namespace), Capabilities::SYS_ADMIN) {
            return Err(Errno::PERM);
        }
        state.credentials = Some(Arc::new(almighty(&who, Some(namespace.clone()))));
        return Ok(());
    }
    if target.kind() == Kind::User {
        let is_there = who.namespace.is_none() || threads == Threads::Many;
        return Err(if is_there { Errno::INVAL } else { Errno::PERM });
    }
    if target.kind() == Kind::Time && threads == Threads::Many {
        return Err(Errno::USERS);
    }
    let roots = target.kind() != Kind::Mnt || who.capable(Capabilities::SYS_CHROOT);
    if !may(Capabilities::SYS_ADMIN) || !roots || !who.capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM);
    }
    let spaces = &mut state.namespaces;
    match target {
        Target::Made(Namespace::Mnt(view)) => {
            state.view = view.clone();
            stand_at_root(call, state);
        }
        Target::First(Kind::Mnt) => {
            state.view = call.supervisor.first.get().cloned().ok_or(Errno::INVAL)?;
            stand_at_root(call, state);
        }
        Target::Made(Namespace::Uts(uts)) => spaces.uts = Some(uts.clone()),
        Target::First(Kind::Uts) => spaces.uts = call.supervisor.first.get().map(|view| view.uts.clone()),
        Target::Made(Namespace::Pid(pid)) => {
            if !pid.is_within(spaces.pid.as_ref()) {
                return Err(Errno::INVAL);
            }
            spaces.pid_for_children = Some(Some(pid.clone()));
        }
        Target::First(Kind::Pid) if spaces.pid.is_some() => return Err(Errno::INVAL),
        Target::First(Kind::Pid) => spaces.pid_for_children = None,
        Target::Made(Namespace::Other(kind, space)) => put(spaces, *kind, Some(space.clone())),
        Target::First(kind) => put(spaces, *kind, None),
        Target::Made(Namespace::User(_)) => {}
    }
    Ok(())
}

fn put(spaces: &mut Namespaces, kind: Kind, space: Option<Arc<Space>>) {
    match kind {
        Kind::Ipc => spaces.ipc = space,
        Kind::Cgroup => spaces.cgroup = space,
        Kind::Time => (spaces.time, spaces.time_for_children) = (space, None),
        _ => {}
    }
}

/// `mntns_install` of `fs/namespace.c`: root and current directory become the root of the namespace.
fn stand_at_root(call: &Call, state: &mut ProcessState) {
    let root = state.view.mounts.load().root();
    let entered = Call { state: Arc::new(ProcessState { root: None, cwd: None, ..state.clone() }), ..call.clone() };
    state.root = None;
    state.cwd = Some(entered.standing_at(root));
}

/// The record of a child that is forked as `spaces` say for children: its number is not known yet.
///
/// # Errors
/// - `ENOMEM`: the init of its namespace has ended.
pub fn as_child(state: &mut ProcessState) -> Result<()> {
    let spaces = &mut state.namespaces;
    if let Some(pid) = spaces.pid_for_children.take() {
        // alloc_pid of kernel/pid.c.
        if pid.as_ref().is_some_and(|p| p.has_ended()) {
            return Err(Errno::NOMEM);
        }
        spaces.pid = pid;
    }
    Ok(())
}
