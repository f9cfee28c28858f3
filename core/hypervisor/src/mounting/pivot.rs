//! pivot_root(2). Knows nothing of file systems.

use umvu_interface::{Errno, FileKind, MountError};

use super::{attach, fail, may_mount, place, Result};
use crate::call::Call;
use crate::mount::{Location, MountTable, Propagation};
use crate::resolve::strip_prefix;

/// Makes `new_root` the root of the view and puts the old one at `put_old`: `path_pivot_root` of `fs/namespace.c`.
///
/// # Errors
/// - `EPERM`: not the root of the view
/// - those of resolving the paths; `ENOTDIR`: no directories
/// - `EINVAL`: not mounted where they must be, in a shared mount, or not below each other
/// - `EBUSY`: one of them is on the mount that is the root now
pub fn pivot_root(call: &Call, new_root: &[u8], put_old: &[u8]) -> Result<()> {
    may_mount(call)?;
    let new = directory(call, new_root)?;
    let old = directory(call, put_old)?;
    let view = call.state.view.clone();
    let _change = view.change.lock();
    let mut table = (*call.table()).clone();
    let root = call.root(&table);
    let cwd = call.cwd().map_err(|errno| fail(b".", errno))?;
    check(&table, &root, &new, &old).map_err(|errno| fail(new_root, errno))?;
    let above = table.attachment(&root.mount).cloned();
    table.detach(&new.mount);
    match above {
        Some(attachment) => {
            table.detach(&root.mount);
            table.attach(new.mount.clone(), attachment.covered, &attachment.name)
        }
        None => {
            table.replace_root(new.mount.clone());
            Ok(())
        }
    }
    .and_then(|()| attach(&mut table, root.mount.clone(), old))
    .map_err(|errno| fail(put_old, errno))?;
    view.set_mounts(table);
    let stood_there = cwd.same(&root).unwrap_or(false);
    let follow = call.change_state(|state| {
        if state.root.is_some() {
            state.root = Some(std::sync::Arc::new(new.clone()));
        }
        if stood_there {
            state.cwd = Some(call.standing_at(new.clone()));
        }
    });
    follow.map_err(|errno| MountError::new(errno, "the process is gone"))
}

fn directory(call: &Call, path: &[u8]) -> Result<Location> {
    let found = place(call, path)?;
    match found.inode.kind() {
        Ok(FileKind::Directory) => Ok(found),
        Ok(_) => Err(fail(path, Errno::NOTDIR)),
        Err(errno) => Err(fail(path, errno)),
    }
}

fn check(table: &MountTable, root: &Location, new: &Location, old: &Location) -> core::result::Result<(), Errno> {
    let is_shared = |location: &Location| location.mount.propagation() == Propagation::Shared;
    let above = |location: &Location| table.attachment(&location.mount).map(|a| a.covered.clone());
    if is_shared(old) || [new, root].into_iter().filter_map(above).any(|parent| is_shared(&parent)) {
        return Err(Errno::INVAL);
    }
    if !table.is_in_tree(&root.mount) || !table.is_in_tree(&new.mount) {
        return Err(Errno::INVAL);
    }
    if new.mount.id == root.mount.id || old.mount.id == root.mount.id {
        return Err(Errno::BUSY);
    }
    if !root.is_mount_root() || !new.is_mount_root() || above(new).is_none() {
        return Err(Errno::INVAL);
    }
    if !is_reachable(table, old, new)? || !is_reachable(table, new, root)? {
        return Err(Errno::INVAL);
    }
    Ok(())
}

/// Whether `place` is at or below `from`: `is_path_reachable`.
fn is_reachable(table: &MountTable, place: &Location, from: &Location) -> core::result::Result<bool, Errno> {
    let mut at = place.clone();
    while at.mount.id != from.mount.id {
        match table.attachment(&at.mount) {
            Some(attachment) => at = attachment.covered.clone(),
            None => return Ok(false),
        }
    }
    Ok(strip_prefix(&at.inode.path()?, &from.inode.path()?).is_some())
}
