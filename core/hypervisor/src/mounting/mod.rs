//! Changing the mounts of a view: what mount(2), umount2(2), pivot_root(2) and the file descriptors of the newer mount
//! API come down to. Knows no system call's arguments.
//!
//! `new` makes file systems, `copy` binds and moves, `attributes` remounts, `leave` unmounts, `pivot` changes the
//! root, `context` is what fsopen(2) collects, `world` is what a file system type sees.

pub mod attributes;
pub mod context;
pub mod copy;
mod leave;
mod new;
mod pivot;
mod world;

pub use leave::{prune, refuses, unmount};
use new::Wanted;
pub use pivot::pivot_root;
pub use world::Below;

use std::sync::Arc;

use umvu_interface::{Capabilities, Errno, FileKind, InodeRef, MountError, MountFlags};

use crate::additions::Absent;
use crate::call::Call;
use crate::fs::proc::ProcInode;
use crate::mount::{Location, Mount, MountTable, Propagation};
use crate::mount_table::MOUNTS_MAX;
use crate::resolve::{Last, LastComponent, Lookup, ResolveFlags, TrailingSlash};

/// Result of a change of the mounts: an errno and a line for people.
pub type Result<T> = core::result::Result<T, MountError>;

/// `MS_*` flags of mount(2) that say what is to be done.
pub mod what {
    #![allow(missing_docs)]
    pub const REMOUNT: u64 = 32;
    pub const BIND: u64 = 4096;
    pub const MOVE: u64 = 8192;
    pub const REC: u64 = 16384;
    pub const SILENT: u64 = 32768;
    pub const UNBINDABLE: u64 = 1 << 17;
    pub const PRIVATE: u64 = 1 << 18;
    pub const SLAVE: u64 = 1 << 19;
    pub const SHARED: u64 = 1 << 20;
    pub const STRICTATIME: u64 = 1 << 24;
    pub const NOUSER: u64 = 1 << 31;
}

/// Flags of umount2(2).
pub mod how {
    #![allow(missing_docs)]
    pub const FORCE: u32 = 1;
    pub const DETACH: u32 = 2;
    pub const EXPIRE: u32 = 4;
    pub const NOFOLLOW: u32 = 8;
}

/// How deep a change goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// One mount.
    This,
    /// The mounts in it, too.
    Below,
}

/// Where a mount goes among those of a mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// It is seen.
    OnTop,
    /// It is seen when the one that is seen now has gone: `MOVE_MOUNT_BENEATH`.
    Beneath,
}

/// What a mount is asked for.
pub struct Order<'a> {
    /// Source; `None` where mount(2) got a null pointer.
    pub source: Option<&'a [u8]>,
    /// Mount point.
    pub target: &'a [u8],
    /// Type; `None` as for the source.
    pub fstype: Option<&'a [u8]>,
    /// `MS_*`.
    pub flags: u64,
    /// Options of the type.
    pub data: &'a [u8],
}

/// A name as people read it.
pub fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// An error about a path, in the words of the errno.
pub fn fail(path: &[u8], errno: Errno) -> MountError {
    MountError::new(errno, format!("{}: {}", shown(path), umvu_interface::cause(errno)))
}

/// Checks that the caller may change mounts: `may_mount` of `fs/namespace.c`.
///
/// # Errors
/// - `EPERM`: it may not.
pub fn may_mount(call: &Call) -> Result<()> {
    let who = call.credentials();
    // Without a faked identity everybody is the master of his own view.
    if who.is_faked() && !who.capable_in(call.state.view.owner.as_ref(), Capabilities::SYS_ADMIN) {
        return Err(MountError::new(Errno::PERM, "only the root of the view may mount"));
    }
    Ok(())
}

/// Mounts: `path_mount` of `fs/namespace.c`.
///
/// # Errors
/// An errno for mount(2) and a line for people:
/// - those of resolving the target
/// - `EINVAL`: `MS_NOUSER`
/// - `EPERM`: not the root of the view
/// - those of what is asked for
pub fn mount(call: &Call, order: &Order<'_>) -> Result<()> {
    let wants_new = order.flags & (what::REMOUNT | what::BIND | what::MOVE) == 0;
    let covered = match place(call, order.target) {
        Err(error) if error.errno == Errno::NOENT && wants_new => {
            absent_point(call, order.target, order.fstype).ok_or(error)?
        }
        found => found?,
    };
    if order.flags & what::NOUSER != 0 {
        return Err(fail(order.target, Errno::INVAL));
    }
    may_mount(call)?;
    prune(call);
    call.supervisor.controls.collect();
    let view = call.state.view.clone();
    let _change = view.change.lock();
    let flags = attributes::of_mount_call(order.flags, &covered);
    let propagation = what::UNBINDABLE | what::PRIVATE | what::SLAVE | what::SHARED;
    let depth = if order.flags & what::REC != 0 { Depth::Below } else { Depth::This };
    if order.flags & what::REMOUNT != 0 {
        let options = split_options(order.data);
        let own = order.flags & what::BIND != 0;
        let reach = if own { attributes::Reach::Mount } else { attributes::Reach::Filesystem(&options) };
        return attributes::remount(call, &covered, flags, reach, order.target);
    }
    if order.flags & what::BIND != 0 {
        return copy::bind(call, order.source, covered, order.target, depth);
    }
    if order.flags & propagation != 0 {
        return change_type(call, order, &covered, depth);
    }
    if order.flags & what::MOVE != 0 {
        let Some(source) = order.source.filter(|s| !s.is_empty()) else {
            return Err(MountError::new(Errno::INVAL, "move: no source given"));
        };
        let from = place(call, source)?;
        return copy::move_mount(call, &from, source, covered, order.target);
    }
    let Some(fstype) = order.fstype else {
        let message = format!("{}: no file system type given", shown(order.target));
        return Err(MountError::new(Errno::INVAL, message));
    };
    let wanted = Wanted {
        fstype,
        source: order.source.unwrap_or_default(),
        target: order.target,
        options: split_options(order.data),
        flags,
        superblock: flags,
    };
    let made = new::make(call, &wanted, covered.inode.clone())?;
    new::add(call, made, covered, order.target)
}

/// Finds the root of a file system whose root is a device, as it is mounted in the view; if it is not yet, it is mounted
/// on the node at `at`. Whoever may load the module may do so.
///
/// # Errors
/// - `ENOENT`: the node has no path in the view.
/// - those of the type.
pub fn device(call: &Call, at: &Location, fstype: &[u8]) -> core::result::Result<Location, Errno> {
    let view = call.state.view.clone();
    let _change = view.change.lock();
    let table = call.table();
    if let Some(mount) = table.mounts().iter().find(|mount| mount.fstype == fstype) {
        return Ok(Location::root_of(mount));
    }
    let path = &crate::resolve::path_of(&table, &call.root(&table), at)?.ok_or(Errno::NOENT)?[..];
    let said = |error: MountError| {
        tracing::warn!(%error, "a device is not to be had");
        error.errno
    };
    let covered = match crate::claimed::place_of(at) {
        Some((directory, name)) => Absent::below(&directory, &name),
        None => at.clone(),
    };
    let flags = MountFlags::empty();
    let wanted = Wanted { fstype, source: b"none", target: path, options: Vec::new(), flags, superblock: flags };
    let made = new::make(call, &wanted, covered.inode.clone()).map_err(said)?;
    let root = Location::root_of(&made.mount);
    new::add(call, made, covered, path).map_err(said)?;
    Ok(root)
}

/// Moves what is at `from`, attached or not, to `to`: move_mount(2).
///
/// # Errors
/// Those of [`copy::move_mount`].
pub fn move_loose(call: &Call, from: &Location, to: Location, target: &[u8], layer: Layer) -> Result<()> {
    let view = call.state.view.clone();
    let _change = view.change.lock();
    match layer {
        Layer::OnTop => copy::move_mount(call, from, b"", to, target),
        Layer::Beneath => copy::move_beneath(call, from, to, target),
    }
}

/// `do_change_type` of `fs/namespace.c`.
fn change_type(call: &Call, order: &Order<'_>, at: &Location, depth: Depth) -> Result<()> {
    let table = call.table();
    if !table.is_in_tree(&at.mount) || !at.is_mount_root() {
        return Err(fail(order.target, Errno::INVAL));
    }
    let propagation = match order.flags & !(what::REC | what::SILENT) {
        what::SHARED => Propagation::Shared,
        // A mount without peers has no master: its slave is a private one.
        what::PRIVATE | what::SLAVE => Propagation::Private,
        what::UNBINDABLE => Propagation::Unbindable,
        _ => return Err(fail(order.target, Errno::INVAL)),
    };
    for mount in reached(&table, &at.mount, depth) {
        mount.set_propagation(propagation);
    }
    Ok(())
}

/// The mounts that a change concerns.
pub fn reached(table: &MountTable, mount: &Arc<Mount>, depth: Depth) -> Vec<Arc<Mount>> {
    match depth {
        Depth::This => vec![mount.clone()],
        Depth::Below => table.subtree(mount),
    }
}

/// Finds what a path names, following links.
pub fn place(call: &Call, path: &[u8]) -> Result<Location> {
    call.object(libc::AT_FDCWD, path, Last::Follow).map_err(|errno| fail(path, errno))
}

/// A mount point that does not exist, for a type that does without one; its directory does.
pub fn absent_point(call: &Call, target: &[u8], fstype: Option<&[u8]>) -> Option<Location> {
    let (_, fstype) = call.state.view.filesystem_type(fstype?)?;
    if !fstype.makes_mount_point() {
        return None;
    }
    let found = call.resolve(libc::AT_FDCWD, target, Last::Parent, ResolveFlags::empty()).ok()?;
    match found {
        Lookup::AtParent { directory, last: LastComponent::Name(name), slash: TrailingSlash::No }
            if directory.inode.kind() == Ok(FileKind::Directory) =>
        {
            Some(Absent::below(&directory, &name))
        }
        _ => None,
    }
}

/// Name of a place in its directory: mount points are found by it.
///
/// # Errors
/// - `ENOENT`: the place has been removed.
fn name_of(location: &Location) -> core::result::Result<Vec<u8>, Errno> {
    let path = location.inode.path()?;
    Ok(path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec())
}

/// Attaches a mount to a table.
///
/// # Errors
/// - `ENOENT`: the mount point has been removed, or is a descriptor in `/proc`.
/// - `ENOSPC`: too many mounts.
fn attach(table: &mut MountTable, mount: Arc<Mount>, covered: Location) -> core::result::Result<(), Errno> {
    // proc_fd_instantiate of fs/proc/fd.c: these can not be mount points.
    if covered.inode.as_any().downcast_ref::<ProcInode>().and_then(ProcInode::magic).is_some() {
        return Err(Errno::NOENT);
    }
    if table.mounts().len() >= MOUNTS_MAX {
        return Err(Errno::NOSPC);
    }
    let name = name_of(&covered)?;
    table.attach(mount, covered, &name)
}

/// Attaches `mount` where `top` is attached, and `top` on it: who has it open, or stands in it, sees no change.
fn attach_beneath(table: &mut MountTable, mount: &Arc<Mount>, top: &Arc<Mount>) -> core::result::Result<(), Errno> {
    let Some(at) = table.attachment(top).cloned() else { return Err(Errno::INVAL) };
    table.detach(top);
    table.attach(mount.clone(), at.covered, &at.name)?;
    table.attach(top.clone(), Location::root_of(mount), b"")
}

/// Whether both are directories, or both are not.
fn same_sort(covered: &InodeRef, root: &InodeRef) -> core::result::Result<bool, Errno> {
    let is_dir = |inode: &InodeRef| inode.kind().map(|k| k == FileKind::Directory);
    Ok(is_dir(covered)? == is_dir(root)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escaped_comma_is_part_of_an_option() {
        let options = split_options(b"cow,except=/a\\,b,,x");
        assert_eq!(options, [b"cow".to_vec(), b"except=/a,b".to_vec(), b"x".to_vec()]);
    }
}
