//! Mounting and unmounting in a view: bind, move, remount, file systems of modules. Knows no system call.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_host::{HostFs, HostInode};
use umvu_interface::{
    Capabilities, Errno, FileKind, Filesystem, InnerMounts, InodeRef, LayerUse, MountError, MountFlags, MountRequest,
    Mounted, Name, Result, World,
};
use umvu_ownership::Store;

use crate::call::Call;
use crate::mount::{Location, Mount, MountKind, MountTable};
use crate::resolve::Last;

/// `MS_*` flags of mount(2) that say what is to be done.
pub mod what {
    #![allow(missing_docs)]
    pub const REMOUNT: u64 = 32;
    pub const BIND: u64 = 4096;
    pub const MOVE: u64 = 8192;
    pub const REC: u64 = 16384;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
}

/// Flags of umount2(2).
pub mod how {
    #![allow(missing_docs)]
    pub const FORCE: u32 = 1;
    pub const DETACH: u32 = 2;
    pub const EXPIRE: u32 = 4;
    pub const NOFOLLOW: u32 = 8;
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn fail(path: &[u8], errno: Errno) -> MountError {
    MountError::new(errno, format!("{}: {}", shown(path), std::io::Error::from(errno)))
}

/// What a mount is asked for.
pub struct Order<'a> {
    /// Source.
    pub source: &'a [u8],
    /// Mount point.
    pub target: &'a [u8],
    /// Type.
    pub fstype: &'a [u8],
    /// `MS_*`.
    pub flags: u64,
    /// Options of the type.
    pub data: &'a [u8],
}

fn may_mount(call: &Call) -> core::result::Result<(), MountError> {
    let who = call.credentials();
    // Without a faked identity everybody is the master of his own view.
    if who.is_faked() && !who.capable(Capabilities::SYS_ADMIN) {
        return Err(MountError::new(Errno::PERM, "only the root of the view may mount"));
    }
    Ok(())
}

/// Mounts: `path_mount` of `fs/namespace.c`.
///
/// # Errors
/// An errno for mount(2) and a line for people.
pub fn mount(call: &Call, order: &Order<'_>) -> core::result::Result<(), MountError> {
    may_mount(call)?;
    let covered = place(call, order.target)?;
    let view = call.state.view.clone();
    let _change = view.change.lock();
    let propagation = what::UNBINDABLE | what::PRIVATE | what::SLAVE | what::SHARED;
    let flags = MountFlags::from_bits_truncate(order.flags);
    if order.flags & what::REMOUNT != 0 {
        return remount(call, order, &covered, flags);
    }
    if order.flags & what::BIND != 0 {
        return bind(call, order, covered);
    }
    if order.flags & propagation != 0 {
        // Views share nothing: every mount is private.
        return if is_mount_root(&covered) { Ok(()) } else { Err(fail(order.target, Errno::INVAL)) };
    }
    if order.flags & what::MOVE != 0 {
        return move_mount(call, order, covered);
    }
    new_mount(call, order, covered, flags)
}

fn place(call: &Call, path: &[u8]) -> core::result::Result<Location, MountError> {
    call.object(libc::AT_FDCWD, path, Last::Follow).map_err(|errno| fail(path, errno))
}

fn is_mount_root(location: &Location) -> bool {
    matches!((location.inode.id(), location.mount.root.id()), (Ok(a), Ok(b)) if a == b)
}

/// Name of a place in its directory: mount points are found by it.
fn name_of(location: &Location) -> Vec<u8> {
    let path = location.inode.path().unwrap_or_default();
    path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec()
}

fn attach(call: &Call, mount: Arc<Mount>, covered: Location) -> core::result::Result<(), MountError> {
    let mut table = (*call.table()).clone();
    let name = name_of(&covered);
    table
        .attach(mount.clone(), covered.clone(), &name)
        .map_err(|errno| MountError::new(errno, "mount point is gone"))?;
    if mount.kind == MountKind::Tree {
        let source = call.object(libc::AT_FDCWD, &mount.source, Last::Follow).ok();
        crate::carried::cover(call, &mut table, &mount, &covered, source.as_ref());
    }
    call.state.view.set_mounts(table);
    Ok(())
}

fn same_sort(covered: &Location, root: &InodeRef, target: &[u8]) -> core::result::Result<(), MountError> {
    let is_dir = |inode: &InodeRef| inode.kind().map(|k| k == FileKind::Directory);
    match (is_dir(&covered.inode), is_dir(root)) {
        (Ok(a), Ok(b)) if a == b => Ok(()),
        (Ok(_), Ok(_)) => Err(fail(target, Errno::NOTDIR)),
        (Err(errno), _) | (_, Err(errno)) => Err(fail(target, errno)),
    }
}

fn bind(call: &Call, order: &Order<'_>, covered: Location) -> core::result::Result<(), MountError> {
    if order.source.is_empty() {
        return Err(MountError::new(Errno::INVAL, "bind: no source given"));
    }
    let source = place(call, order.source)?;
    same_sort(&covered, &source.inode, order.target)?;
    let mount = copy_of(call, &source, source.inode.clone(), order.source);
    let table = call.table();
    let inside = if order.flags & what::REC != 0 { submounts(&table, &source) } else { Vec::new() };
    attach(call, mount.clone(), covered)?;
    for below in inside {
        let Some(at) = table.attachment(&below).cloned() else { continue };
        let copy = copy_of(
            call,
            &Location { mount: below.clone(), inode: below.root.clone() },
            below.root.clone(),
            &below.source,
        );
        // Its place is the same inode, seen through the copy of the mount it was attached to.
        let parent = if at.covered.mount.id == source.mount.id { mount.clone() } else { continue };
        attach(call, copy, Location { mount: parent, inode: at.covered.inode })?;
    }
    Ok(())
}

/// The mounts directly inside the tree at `source`.
fn submounts(table: &MountTable, source: &Location) -> Vec<Arc<Mount>> {
    let Ok(base) = source.inode.path() else { return Vec::new() };
    let inside = |m: &&Arc<Mount>| {
        table.attachment(m).is_some_and(|a| {
            a.covered.mount.id == source.mount.id
                && a.covered
                    .inode
                    .path()
                    .is_ok_and(|p| crate::resolve::strip_prefix(&p, &base).is_some_and(|r| !r.is_empty()))
        })
    };
    table.mounts().iter().filter(inside).cloned().collect()
}

fn copy_of(call: &Call, of: &Location, root: InodeRef, source: &[u8]) -> Arc<Mount> {
    // Through a bind the names are no longer the host's, so its directories are placeholders; a copy of /proc stays
    // what it is.
    let kind = if of.mount.kind == MountKind::Proc { MountKind::Proc } else { MountKind::Tree };
    Mount::new(
        call.supervisor.next_id(),
        kind,
        root,
        of.mount.filesystem.clone(),
        source.to_vec(),
        of.mount.fstype.clone(),
        of.mount.flags(),
        of.mount.module,
    )
}

fn remount(call: &Call, order: &Order<'_>, at: &Location, flags: MountFlags) -> core::result::Result<(), MountError> {
    if !is_mount_root(at) {
        return Err(fail(order.target, Errno::INVAL));
    }
    let mut mounts = vec![at.mount.clone()];
    if order.flags & what::REC != 0 {
        mounts = call.table().subtree(&at.mount);
    }
    for mount in mounts {
        mount.set_flags(flags);
    }
    call.state.view.set_mounts((*call.table()).clone());
    Ok(())
}

fn move_mount(call: &Call, order: &Order<'_>, covered: Location) -> core::result::Result<(), MountError> {
    let from = place(call, order.source)?;
    let mut table = (*call.table()).clone();
    if !is_mount_root(&from) || table.attachment(&from.mount).is_none() {
        return Err(fail(order.source, Errno::INVAL));
    }
    same_sort(&covered, &from.inode, order.target)?;
    if table.subtree(&from.mount).iter().any(|m| m.id == covered.mount.id) {
        return Err(fail(order.target, Errno::LOOP));
    }
    table.detach(&from.mount);
    let name = name_of(&covered);
    table.attach(from.mount, covered, &name).map_err(|errno| fail(order.target, errno))?;
    call.state.view.set_mounts(table);
    Ok(())
}

/// Splits options at commas; `\,` is a comma in an option.
pub fn split_options(data: &[u8]) -> Vec<Vec<u8>> {
    let mut out = vec![Vec::new()];
    let mut bytes = data.iter().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if bytes.peek() == Some(&&b',') => {
                bytes.next();
                if let Some(last) = out.last_mut() {
                    last.push(b',');
                }
            }
            b',' => out.push(Vec::new()),
            other => {
                if let Some(last) = out.last_mut() {
                    last.push(*other);
                }
            }
        }
    }
    out.retain(|o| !o.is_empty());
    out
}

fn new_mount(
    call: &Call,
    order: &Order<'_>,
    covered: Location,
    flags: MountFlags,
) -> core::result::Result<(), MountError> {
    let world = Below { call };
    if let Some((mounted, kind)) = builtin(call, order, &world)? {
        same_sort(&covered, &mounted.root, order.target)?;
        return attach(call, made(call, order, mounted, flags, kind, None), covered);
    }
    let Some((module, fstype)) = call.state.view.filesystem_type(order.fstype) else {
        let message = if order.fstype.is_empty() {
            format!("{}: no file system type given", shown(order.target))
        } else {
            format!("{}: unknown file system type: is its module loaded?", shown(order.fstype))
        };
        return Err(MountError::new(Errno::NODEV, message));
    };
    let mounted = call.as_caller(|caller| {
        let request = MountRequest {
            fstype: order.fstype,
            source: order.source,
            target: order.target,
            covered: covered.inode.clone(),
            options: split_options(order.data),
            flags,
            caller: *caller,
        };
        fstype.mount(&request, &world)
    })?;
    same_sort(&covered, &mounted.root, order.target)?;
    if call.state.view.identity().is_some() {
        mounted.filesystem.fake_ownership();
    }
    let inner = mounted.inner;
    let mount = made(call, order, mounted, flags, MountKind::Tree, Some(module));
    attach(call, mount.clone(), covered.clone())?;
    if inner == InnerMounts::Shown {
        let mut table = (*call.table()).clone();
        show_inner(call, &mut table, &mount, &covered).map_err(|errno| fail(order.target, errno))?;
        call.state.view.set_mounts(table);
    }
    Ok(())
}

/// Shows the mounts inside a covered tree at their places in the mount that covers it, which shows that tree.
fn show_inner(call: &Call, table: &mut MountTable, mount: &Arc<Mount>, covered: &Location) -> Result<()> {
    let base = covered.inode.path()?;
    // Every procfs is covered anew, wherever it is.
    for inner in submounts(table, covered).into_iter().filter(|m| m.kind != MountKind::Proc) {
        let Some(at) = table.attachment(&inner).cloned() else { continue };
        let path = at.covered.inode.path()?;
        let Some(below) = crate::resolve::strip_prefix(&path, &base) else { continue };
        let mut place = mount.root.clone();
        for name in below.split(|b| *b == b'/') {
            place = match place.lookup(&Name::new(name)?) {
                Ok(found) => found,
                // The new tree has no such place to show it at.
                Err(_) => break,
            };
        }
        if place.path()? != below {
            continue;
        }
        let of = Location { mount: inner.clone(), inode: inner.root.clone() };
        let copy = inner.carried_copy(call.supervisor.next_id());
        table.attach(copy.clone(), Location { mount: mount.clone(), inode: place }, &name_of(&at.covered))?;
        show_inner(call, table, &copy, &of)?;
    }
    Ok(())
}

fn made(
    call: &Call,
    order: &Order<'_>,
    mounted: Mounted,
    flags: MountFlags,
    kind: MountKind,
    module: Option<&'static str>,
) -> Arc<Mount> {
    Mount::new(
        call.supervisor.next_id(),
        kind,
        mounted.root,
        mounted.filesystem,
        order.source.to_vec(),
        mounted.shown_type,
        mounted.flags | flags,
        module,
    )
}

/// The types that need no module.
fn builtin(
    call: &Call,
    order: &Order<'_>,
    world: &Below<'_>,
) -> core::result::Result<Option<(Mounted, MountKind)>, MountError> {
    let done = |root: InodeRef, filesystem, kind| {
        let shown_type = order.fstype.to_vec();
        let (flags, inner) = (MountFlags::empty(), InnerMounts::Covered);
        Ok(Some((Mounted { root, filesystem, shown_type, flags, inner }, kind)))
    };
    match order.fstype {
        b"tmpfs" | b"ramfs" => {
            let fs = crate::fs::tmp::TmpFs::new(call, order.data, world.new_device())?;
            done(fs.root(), fs, MountKind::Tree)
        }
        b"proc" => {
            let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open("/proc", path, Mode::empty()).map_err(|errno| fail(b"/proc", errno))?;
            let fs = crate::fs::proc::ProcFs::new(fd);
            done(fs.root(), fs, MountKind::Proc)
        }
        b"sysfs" => host_directory(call, b"/sys").and_then(|i| done(i.clone(), i.filesystem(), MountKind::Tree)),
        b"devtmpfs" => host_directory(call, b"/dev").and_then(|i| done(i.clone(), i.filesystem(), MountKind::Tree)),
        b"devpts" => host_directory(call, b"/dev/pts").and_then(|i| done(i.clone(), i.filesystem(), MountKind::Tree)),
        b"mqueue" => {
            host_directory(call, b"/dev/mqueue").and_then(|i| done(i.clone(), i.filesystem(), MountKind::Tree))
        }
        _ => Ok(None),
    }
}

/// A directory of the host's own tree.
fn host_directory(call: &Call, path: &[u8]) -> core::result::Result<InodeRef, MountError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| fail(path, errno))?;
    let found = call.supervisor.host_place(&call.table(), fd).map_err(|errno| fail(path, errno))?;
    Ok(found.inode)
}

/// Unmounts: `path_umount` of `fs/namespace.c`.
///
/// # Errors
/// An errno for umount2(2) and a line for people.
pub fn unmount(call: &Call, target: &[u8], flags: u32) -> core::result::Result<(), MountError> {
    if flags & !(how::FORCE | how::DETACH | how::EXPIRE | how::NOFOLLOW) != 0 {
        return Err(fail(target, Errno::INVAL));
    }
    may_mount(call)?;
    let last = if flags & how::NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let at = call.object(libc::AT_FDCWD, target, last).map_err(|errno| fail(target, errno))?;
    let view = call.state.view.clone();
    let _change = view.change.lock();
    let mut table = (*call.table()).clone();
    if !is_mount_root(&at) || table.attachment(&at.mount).is_none() {
        return Err(MountError::new(Errno::INVAL, format!("{}: not a mount point", shown(target))));
    }
    let leaving = table.subtree(&at.mount);
    if flags & how::DETACH == 0 {
        if leaving.iter().filter(|m| !m.is_carried()).count() > 1 {
            return Err(busy(target, "something is mounted in it"));
        }
        if in_use(call, &at.mount) {
            return Err(busy(target, "a process uses it"));
        }
    }
    if let Err(errno) = at.mount.filesystem.sync() {
        return Err(MountError::new(
            errno,
            format!("{}: {}: not unmounted", shown(target), std::io::Error::from(errno)),
        ));
    }
    for mount in leaving.iter().rev() {
        table.detach(mount);
    }
    view.set_mounts(table);
    Ok(())
}

fn busy(target: &[u8], why: &str) -> MountError {
    MountError::new(Errno::BUSY, format!("{}: busy: {why}", shown(target)))
}

/// Whether a process has its root or current directory, or an open directory, in a mount.
fn in_use(call: &Call, mount: &Mount) -> bool {
    call.supervisor.sweep_states();
    let in_state = call.supervisor.states.all().iter().any(|state| {
        state.cwd.as_ref().is_some_and(|c| c.location.mount.id == mount.id)
            || state.root.as_ref().is_some_and(|r| r.mount.id == mount.id)
    });
    in_state || call.supervisor.placeholders.any_in(mount.id)
}

/// The view below a mount that is being made.
struct Below<'a> {
    call: &'a Call,
}

/// Device numbers of file systems of views: major 0, minors the kernel is unlikely to have reached.
static DEVICES: AtomicU64 = AtomicU64::new(0);

impl World for Below<'_> {
    fn resolve(&self, path: &[u8]) -> Result<InodeRef> {
        Ok(self.call.object(libc::AT_FDCWD, path, Last::Follow)?.inode)
    }

    fn layer(
        &self,
        directory: &InodeRef,
        use_: LayerUse,
        state: Option<&InodeRef>,
    ) -> core::result::Result<InodeRef, MountError> {
        let name = directory.path().unwrap_or_default();
        if directory.as_any().downcast_ref::<HostInode>().is_none() {
            return Ok(directory.clone());
        }
        let fd = directory.host_fd().ok_or_else(|| fail(&name, Errno::NOENT))?;
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(|errno| fail(&name, errno))?;
        let refused = |error: umvu_ownership::OpenError| {
            let errno = match &error {
                umvu_ownership::OpenError::Locked { .. } => Errno::BUSY,
                umvu_ownership::OpenError::ReadOnly { .. } => Errno::ROFS,
                _ => Errno::IO,
            };
            MountError::new(errno, error.to_string())
        };
        let store = match use_ {
            LayerUse::Upper => {
                let beside = state.and_then(|s| s.host_fd()).ok_or_else(|| fail(&name, Errno::INVAL))?;
                let beside = host_path(beside).map_err(|errno| fail(&name, errno))?;
                Some(Arc::new(Store::open(copy.as_fd(), &beside).map_err(refused)?))
            }
            LayerUse::Lower => {
                let beside = state.and_then(|s| s.host_fd()).and_then(|fd| host_path(fd).ok());
                let store = Store::open_read_only(copy.as_fd(), beside.as_deref()).map_err(refused)?;
                (!store.is_empty_hint()).then(|| Arc::new(store))
            }
        };
        let fs = HostFs::new(copy, store, None);
        Ok(fs.root_inode())
    }

    fn is_inside(&self, inner: &InodeRef, outer: &InodeRef) -> bool {
        let Ok(outer) = outer.id() else { return false };
        let mut at = inner.clone();
        // Deeper than any path is long.
        for _ in 0..4096 {
            let Ok(id) = at.id() else { return false };
            if id == outer {
                return true;
            }
            match at.parent() {
                Ok(above) if above.id().is_ok_and(|a| a != id) => at = above,
                _ => return false,
            }
        }
        false
    }

    fn new_device(&self) -> u64 {
        let minor = 0xf_0000 + (DEVICES.fetch_add(1, Ordering::Relaxed) & 0xffff);
        rustix::fs::makedev(0, u32::try_from(minor).unwrap_or(0))
    }
}

fn host_path(fd: rustix::fd::BorrowedFd<'_>) -> Result<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new())?.into_bytes();
    Ok(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_comma_is_part_of_an_option() {
        let options = split_options(b"cow,except=/a\\,b,,x");
        assert_eq!(options, [b"cow".to_vec(), b"except=/a,b".to_vec(), b"x".to_vec()]);
    }
}
