//! Binding and moving: mounts that show what other mounts show. Knows no file system type.

use std::collections::HashMap;
use std::sync::Arc;

use umvu_interface::{Errno, MountError};

use super::context::Unmade;
use super::{attach, fail, new, place, same_sort, Depth, Result};
use crate::call::Call;
use crate::mount::{Location, Mount, MountKind, MountTable, NewMount, Origin, Propagation};
use crate::mount_table::MOUNTS_MAX;
use crate::resolve::strip_prefix;

/// Copies of mounts, in no tree yet.
pub struct Copies {
    /// The lowest one.
    pub root: Arc<Mount>,
    /// Those in it, parents before children, and the places they cover in their copied parents.
    inside: Vec<(Arc<Mount>, Location, Box<[u8]>)>,
}

impl Copies {
    /// Attaches all but the lowest to it.
    ///
    /// # Errors
    /// - `ENOSPC`: too many mounts.
    pub fn join(self, table: &mut MountTable) -> core::result::Result<Arc<Mount>, Errno> {
        for (mount, covered, name) in self.inside {
            if table.mounts().len() >= MOUNTS_MAX {
                return Err(Errno::NOSPC);
            }
            table.attach(mount, covered, &name)?;
        }
        Ok(self.root)
    }
}

/// Copies what is seen at a place: `__do_loopback` of `fs/namespace.c`.
///
/// # Errors
/// - `EINVAL`: the mount is unbindable, or in no tree.
/// - `ENOENT`: the place has been removed.
/// - `ENOSPC`: too many mounts.
pub fn copy_tree(call: &Call, of: &Location, depth: Depth) -> core::result::Result<Copies, Errno> {
    let table = call.table();
    // A namespace is bound from where it is seen without being mounted: mnt_ns_loop and do_loopback.
    let known = of.mount.id == call.supervisor.nsfs.id
        || table.is_in_tree(&of.mount)
        || table.detached().iter().any(|m| table.is_below(&of.mount, m));
    if of.mount.propagation() == Propagation::Unbindable || !known {
        return Err(Errno::INVAL);
    }
    let base = of.inode.path()?;
    let root = copy_of(call, of);
    let mut copies = HashMap::from([(of.mount.id, root.clone())]);
    let mut inside = Vec::new();
    for below in table.subtree(&of.mount).into_iter().skip(1) {
        let Some(at) = table.attachment(&below) else { continue };
        let Some(parent) = copies.get(&at.covered.mount.id).cloned() else { continue };
        let comes_along = below.kind == MountKind::Proc && below.origin != Origin::View;
        if (depth == Depth::This && !comes_along) || below.propagation() == Propagation::Unbindable {
            continue;
        }
        if at.covered.mount.id == of.mount.id {
            let path = at.covered.inode.path().unwrap_or_default();
            if strip_prefix(&path, &base).is_none() {
                continue;
            }
        }
        if table.mounts().len() + copies.len() >= MOUNTS_MAX {
            return Err(Errno::NOSPC);
        }
        let copy = copy_of(call, &Location::root_of(&below));
        copies.insert(below.id, copy.clone());
        inside.push((copy, Location { mount: parent, inode: at.covered.inode.clone() }, at.name.clone()));
    }
    Ok(Copies { root, inside })
}

fn copy_of(call: &Call, of: &Location) -> Arc<Mount> {
    let mount = &of.mount;
    // Through a bind the names are no longer the host's, so its directories are placeholders; a copy of /proc stays
    // what it is.
    let (kind, mark) = match mount.kind {
        MountKind::Proc => (MountKind::Proc, None),
        MountKind::Host | MountKind::Tree => (MountKind::Tree, Some(call.supervisor.marks.take())),
    };
    let on_host = if mount.kind == MountKind::Host { crate::listing::on_host(&of.inode) } else { None };
    let (source, fstype, flags) = match on_host {
        Some(line) => (line.source.clone(), line.fstype.clone(), line.flags() | mount.own_flags()),
        None => (mount.source.clone(), mount.fstype.clone(), mount.own_flags()),
    };
    let copy = Mount::new(NewMount {
        id: call.supervisor.next_id(),
        kind,
        origin: if mount.kind == MountKind::Proc && mount.origin != Origin::View {
            Origin::Carried
        } else {
            Origin::View
        },
        root: of.inode.clone(),
        filesystem: mount.filesystem.clone(),
        source,
        fstype,
        flags,
        superblock: mount.superblock.clone(),
        module: mount.module,
        mark,
    });
    copy.set_propagation(mount.propagation());
    copy
}

/// Binds: `do_loopback` of `fs/namespace.c`.
///
/// # Errors
/// - `EINVAL`: no source, or one that cannot be bound
/// - those of resolving the source
/// - `ENOENT`: the target has been removed, or is in no tree
/// - `ENOTDIR`: one is a directory and the other is not
/// - `ENOSPC`: too many mounts
pub fn bind(call: &Call, source: Option<&[u8]>, covered: Location, target: &[u8], depth: Depth) -> Result<()> {
    let Some(source) = source.filter(|s| !s.is_empty()) else {
        return Err(MountError::new(Errno::INVAL, "bind: no source given"));
    };
    let from = place(call, source)?;
    let mut table = (*call.table()).clone();
    if !table.is_in_tree(&covered.mount) {
        return Err(fail(target, Errno::NOENT));
    }
    let copies = copy_tree(call, &from, depth).map_err(|errno| fail(source, errno))?;
    if !same_sort(&covered.inode, &from.inode).map_err(|errno| fail(target, errno))? {
        return Err(fail(target, Errno::NOTDIR));
    }
    attach(&mut table, copies.root.clone(), covered.clone()).map_err(|errno| fail(target, errno))?;
    let root = copies.join(&mut table).map_err(|errno| fail(target, errno))?;
    if root.kind == MountKind::Tree {
        crate::carried::cover(call, &mut table, &root, &covered, Some(&from));
    }
    call.state.view.set_mounts(table);
    Ok(())
}

/// Moves a mount, or attaches a detached one: `do_move_mount` of `fs/namespace.c`.
///
/// # Errors
/// - `EINVAL`: the source is no mount point, or the root of the view; one is a directory
///   and the other is not
/// - `ELOOP`: the target lies in the source
/// - `ENOENT`: the target has been removed, or is in no tree
pub fn move_mount(call: &Call, from: &Location, source: &[u8], covered: Location, target: &[u8]) -> Result<()> {
    let mut table = (*call.table()).clone();
    if !table.is_in_tree(&covered.mount) {
        return Err(fail(target, Errno::NOENT));
    }
    let is_loose = table.detached().iter().any(|m| m.id == from.mount.id);
    let is_attached = table.is_in_tree(&from.mount) && table.attachment(&from.mount).is_some();
    if !from.is_mount_root() || !(is_loose || is_attached) {
        return Err(fail(source, Errno::INVAL));
    }
    if let Some(unmade) = from.mount.filesystem.as_any().downcast_ref::<Unmade>() {
        let mount = unmade.make(call, covered.inode.clone(), target, from.mount.own_flags())?;
        new::add(call, mount, covered, target)?;
        return Ok(());
    }
    if !same_sort(&covered.inode, &from.inode).map_err(|errno| fail(target, errno))? {
        return Err(fail(target, Errno::INVAL));
    }
    let in_shared = table.attachment(&from.mount).is_some_and(|a| is_shared(&a.covered.mount));
    if is_attached && in_shared {
        return Err(fail(source, Errno::INVAL));
    }
    if table.is_below(&covered.mount, &from.mount) {
        return Err(fail(target, Errno::LOOP));
    }
    table.detach(&from.mount);
    attach(&mut table, from.mount.clone(), covered).map_err(|errno| fail(target, errno))?;
    call.state.view.set_mounts(table);
    Ok(())
}

/// Moves a mount, or attaches a detached one, beneath what is mounted at `to`: `do_move_mount` and
/// `can_move_mount_beneath` of `fs/namespace.c`.
///
/// # Errors
/// - `ENOENT`: the target is in no tree
/// - `EINVAL`: the source is no mount point, the root of the view, or has another mount on its root; the target is no
///   mount point, the root of the view or the caller's, or is the source or in it; one is a directory and the other
///   is not
pub fn move_beneath(call: &Call, from: &Location, to: Location, target: &[u8]) -> Result<()> {
    let refused = || fail(target, Errno::INVAL);
    let mut table = (*call.table()).clone();
    if !table.is_in_tree(&to.mount) {
        return Err(fail(target, Errno::NOENT));
    }
    let is_loose = table.detached().iter().any(|m| m.id == from.mount.id);
    let is_attached = table.is_in_tree(&from.mount) && table.attachment(&from.mount).is_some();
    if !from.is_mount_root() || !(is_loose || is_attached) || !to.is_mount_root() {
        return Err(refused());
    }
    let top = table.top(to);
    let is_covered = table.top(from.clone()).mount.id != from.mount.id;
    let is_root = call.root(&table).mount.id == top.mount.id;
    if is_covered || is_root || table.attachment(&top.mount).is_none() || table.is_below(&from.mount, &top.mount) {
        return Err(refused());
    }
    let spreads = |mount: &Mount| table.attachment(mount).is_some_and(|at| is_shared(&at.covered.mount));
    if is_attached && spreads(&from.mount) {
        return Err(refused());
    }
    let mount = match from.mount.filesystem.as_any().downcast_ref::<Unmade>() {
        Some(unmade) => unmade.make(call, top.inode.clone(), target, from.mount.own_flags())?.mount,
        None => from.mount.clone(),
    };
    if !same_sort(&top.inode, &mount.root).map_err(|errno| fail(target, errno))? {
        return Err(refused());
    }
    table.detach(&mount);
    super::attach_beneath(&mut table, &mount, &top.mount).map_err(|errno| fail(target, errno))?;
    call.state.view.set_mounts(table);
    Ok(())
}

fn is_shared(mount: &Mount) -> bool {
    mount.propagation() == Propagation::Shared
}
