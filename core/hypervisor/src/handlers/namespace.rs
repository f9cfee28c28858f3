//! unshare, setns, and what ioctl(2) tells of a namespace. The kernel is asked for none of them. Knows nothing of what
//! namespaces hold, nor of new processes.

use std::os::fd::{AsFd, OwnedFd};

use umvu_interface::{Capabilities, Errno, Result, UserNamespace};
use umvu_sys::seccomp::CloseOnExec;

use crate::call::{Call, Outcome, Reply, DONE};
use crate::magic::process_of;
use crate::mount::Location;
use crate::namespace::change::{enter, renewed, Target, Threads, Whose};
use crate::namespace::nsfs::NsInode;
use crate::namespace::{flag, linked, Kind, Link, Namespace};

/// Flags of unshare(2) that are about what threads share.
const VM: u64 = 0x100;
const FS: u64 = 0x200;
const FILES: u64 = 0x400;
const SIGHAND: u64 = 0x800;
const THREAD: u64 = 0x1_0000;
const SYSVSEM: u64 = 0x4_0000;

/// `unshare(flags)`: `ksys_unshare` of `kernel/fork.c`.
pub fn unshare(call: &Call) -> Outcome {
    let mut flags = call.raw(0);
    if flags & flag::ALL == 0 {
        return Ok(Reply::Continue);
    }
    if flags & flag::USER != 0 {
        flags |= THREAD | FS;
    }
    if flags & VM != 0 {
        flags |= SIGHAND;
    }
    if flags & SIGHAND != 0 {
        flags |= THREAD;
    }
    if flags & !(VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | flag::ALL) != 0 {
        return Err(Errno::INVAL.into());
    }
    if flags & (THREAD | SIGHAND | VM) != 0 && threads(call.tid()) == Threads::Many {
        return Err(Errno::INVAL.into());
    }
    let process = process_of(call.tid())?;
    let new = renewed(call, &call.state, flags & flag::ALL, Whose::Caller(process))?;
    call.check_alive()?;
    call.change_namespaces(new)?;
    if flags & (FILES | SYSVSEM) != 0 {
        // The rest is the kernel's. It gives the process what it had alone already, or a copy; neither can fail but for
        // want of memory.
        return rest_by_kernel(call, flags & (FILES | SYSVSEM));
    }
    DONE
}

/// Has the guest make the call once more with the flags that are for the kernel.
fn rest_by_kernel(call: &Call, flags: u64) -> Outcome {
    use crate::redirect::{redirect_and_restore, Argument, Instead};
    const UNSHARE: u32 = 272;
    redirect_and_restore(call, &Instead { nr: UNSHARE, arguments: vec![Argument::Word(flags)] })
}

fn threads(tid: u32) -> Threads {
    // Two entries and one for each thread: fs/proc/base.c, proc_task_getattr.
    match rustix::fs::stat(format!("/proc/{tid}/task")) {
        Ok(stat) if stat.st_nlink > 3 => Threads::Many,
        _ => Threads::One,
    }
}

/// `setns(fd, flags)`: `kernel/nsproxy.c`.
pub fn setns(call: &Call) -> Outcome {
    let fd = call.take_fd(call.i32(0))?;
    let wanted = u64::from(call.u32(1));
    let targets = match meant(call, &fd)? {
        Meant::Namespace(target) => {
            if wanted != 0 && wanted != target.kind().flag() {
                return Err(Errno::INVAL.into());
            }
            vec![target]
        }
        Meant::Process(pid) => {
            if wanted == 0 || wanted & !flag::ALL != 0 {
                return Err(Errno::INVAL.into());
            }
            of_process(call, pid, wanted)?
        }
        Meant::ByKernel => return Ok(Reply::Continue),
    };
    if call.state.is_plain() && targets.iter().all(|t| matches!(t, Target::First(_))) {
        return Ok(Reply::Continue);
    }
    let threads = threads(call.tid());
    let mut new = (*call.state).clone();
    for target in &targets {
        enter(call, &mut new, target, threads)?;
    }
    call.check_alive()?;
    call.change_namespaces(new)?;
    DONE
}

/// What a descriptor given to setns(2) means.
enum Meant {
    Namespace(Target),
    /// A pidfd.
    Process(u32),
    /// Something that the kernel alone knows.
    ByKernel,
}

/// # Errors
/// - `EINVAL`: neither a namespace nor a process.
fn meant(call: &Call, fd: &OwnedFd) -> Result<Meant> {
    const NSFS: i64 = 0x6e73_6673;
    let stat = rustix::fs::fstat(fd)?;
    if let Some(open) = call.supervisor.placeholders.find(stat.st_dev, stat.st_ino) {
        let found = NsInode::namespace_of(&open.location.inode).ok_or(Errno::INVAL)?;
        return Ok(Meant::Namespace(Target::Made(found.clone())));
    }
    if rustix::fs::fstatfs(fd)?.f_type == NSFS {
        let is = |kind: &Kind| {
            let own = rustix::fs::stat(format!("/proc/self/ns/{}", kind.name()));
            own.is_ok_and(|own| (own.st_dev, own.st_ino) == (stat.st_dev, stat.st_ino))
        };
        let first = Kind::ALL.into_iter().find(is);
        return Ok(first.map_or(Meant::ByKernel, |kind| Meant::Namespace(Target::First(kind))));
    }
    match process_of_pidfd(fd) {
        Some(pid) => Ok(Meant::Process(pid)),
        None => Err(Errno::INVAL),
    }
}

/// The process that a pidfd names: `Pid:` of proc_pid_fdinfo(5).
fn process_of_pidfd(fd: &OwnedFd) -> Option<u32> {
    use std::os::fd::AsRawFd;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// The namespaces of a process, the user namespace first: `validate_nsset`.
fn of_process(call: &Call, pid: u32, wanted: u64) -> Result<Vec<Target>> {
    let state = call.supervisor.state_of(pid).ok_or(Errno::PERM)?;
    const ORDER: [Kind; 8] =
        [Kind::User, Kind::Mnt, Kind::Uts, Kind::Ipc, Kind::Pid, Kind::Cgroup, Kind::Net, Kind::Time];
    let target = |kind| linked(&state, pid, Link::Of(kind)).map_or(Target::First(kind), Target::Made);
    Ok(ORDER.into_iter().filter(|kind| wanted & kind.flag() != 0).map(target).collect())
}

const GET_USERNS: u32 = 0xb701;
const GET_PARENT: u32 = 0xb702;
const GET_NSTYPE: u32 = 0xb703;
const GET_OWNER_UID: u32 = 0xb704;

/// Whether a request of ioctl(2) is one of [`get`].
pub fn is_get(request: u32) -> bool {
    (GET_USERNS..=GET_OWNER_UID).contains(&request)
}

/// `ioctl(fd, NS_GET_*, ...)`: `fs/nsfs.c`.
pub fn get(call: &Call) -> Outcome {
    let fd = call.take_fd(call.i32(0))?;
    let stat = rustix::fs::fstat(&fd)?;
    let Some(open) = call.supervisor.placeholders.find(stat.st_dev, stat.st_ino) else { return Ok(Reply::Continue) };
    let Some(namespace) = NsInode::namespace_of(&open.location.inode) else { return Ok(Reply::Continue) };
    match call.u32(1) {
        GET_NSTYPE => Ok(Reply::Value(i64::try_from(namespace.kind().flag()).unwrap_or(0))),
        GET_USERNS => relative(call, namespace.owner().map(|n| Namespace::User(n.clone())), Kind::User),
        GET_PARENT => match namespace {
            Namespace::User(user) => relative(call, user.parent.clone().map(Namespace::User), Kind::User),
            Namespace::Pid(pid) => relative(call, pid.parent.clone().map(Namespace::Pid), Kind::Pid),
            _ => Err(Errno::INVAL.into()),
        },
        GET_OWNER_UID => {
            let Namespace::User(user) = namespace else { return Err(Errno::INVAL.into()) };
            let shown = call.credentials().user_shown(user.owner.0);
            call.write(call.raw(2), &shown.to_ne_bytes())?;
            DONE
        }
        _ => Err(Errno::NOTTY.into()),
    }
}

/// Opens a namespace that stands around another.
///
/// # Errors
/// - `EPERM`: it is not the caller's own, nor in that.
fn relative(call: &Call, namespace: Option<Namespace>, kind: Kind) -> Outcome {
    let is_visible = match (&namespace, kind) {
        (Some(Namespace::User(user)), _) => is_within(user, call.credentials().namespace.as_deref()),
        (Some(Namespace::Pid(pid)), _) => pid.is_within(call.state.namespaces.pid.as_ref()),
        (_, Kind::User) => call.credentials().namespace.is_none(),
        _ => call.state.namespaces.pid.is_none(),
    };
    if !is_visible {
        return Err(Errno::PERM.into());
    }
    match namespace {
        Some(namespace) => open(call, namespace),
        None => {
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
            let path = format!("/proc/self/ns/{}", kind.name());
            Ok(Reply::Descriptor(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?, CloseOnExec::Yes))
        }
    }
}

fn is_within(inner: &UserNamespace, outer: Option<&UserNamespace>) -> bool {
    let Some(outer) = outer else { return true };
    let mut at = Some(inner);
    while let Some(here) = at {
        if here == outer {
            return true;
        }
        at = here.parent.as_deref();
    }
    false
}

/// Gives the guest a descriptor of a namespace.
fn open(call: &Call, namespace: Namespace) -> Outcome {
    let nsfs = call.supervisor.nsfs.clone();
    let place = Location { inode: NsInode::file_of(&nsfs, namespace), mount: nsfs };
    let fd = call.supervisor.placeholders.make(place, rustix::fs::OFlags::RDONLY)?;
    let _ = fd.as_fd();
    Ok(Reply::Descriptor(fd, CloseOnExec::Yes))
}

/// Whether a process may be asked for its namespaces by the caller: `ptrace_may_access`, of which the host's kernel has
/// judged the user already.
pub fn may_look(call: &Call, owner: Option<&std::sync::Arc<UserNamespace>>) -> bool {
    let who = call.credentials();
    who.namespace.as_ref() == owner || who.capable_in(owner, Capabilities::SYS_PTRACE)
}
