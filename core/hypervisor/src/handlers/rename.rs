//! Calls that move names: rename, renameat, renameat2. Knows nothing of trees' inside.

use umvu_interface::{may_access, may_delete, Access, Errno, FileKind, InodeRef, MountFlags, RenameFlags, Result};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::handlers::tree::{not_a_mount_point, search};
use crate::mount::Location;
use crate::resolve::{Last, LastComponent, Lookup, ResolveFlags, TrailingSlash};

/// `rename(old, new)`.
pub fn rename(call: &Call) -> Outcome {
    do_rename(call, libc::AT_FDCWD, 0, libc::AT_FDCWD, 1, 0)
}

/// `renameat(olddirfd, old, newdirfd, new)`.
pub fn renameat(call: &Call) -> Outcome {
    do_rename(call, call.i32(0), 1, call.i32(2), 3, 0)
}

/// `renameat2(olddirfd, old, newdirfd, new, flags)`.
pub fn renameat2(call: &Call) -> Outcome {
    do_rename(call, call.i32(0), 1, call.i32(2), 3, call.u32(4))
}

/// `do_renameat2` and `vfs_rename` of `fs/namei.c`, checks in their order.
fn do_rename(call: &Call, old_dirfd: i32, old: usize, new_dirfd: i32, new: usize, flags: u32) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    // Flags are checked before the paths are read.
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
    if flags.contains(RenameFlags::EXCHANGE) && flags.intersects(RenameFlags::NOREPLACE | RenameFlags::WHITEOUT) {
        return Err(Errno::INVAL.into());
    }
    let (old, new) = (call.path(old)?, call.path(new)?);
    call.check_alive()?;
    let from = call.resolve(old_dirfd, &old, Last::Parent, ResolveFlags::empty())?;
    let to = call.resolve(new_dirfd, &new, Last::Parent, ResolveFlags::empty())?;
    let (
        Lookup::AtParent { directory: from, last: from_last, slash: from_slash },
        Lookup::AtParent { directory: to, last: to_last, slash: to_slash },
    ) = (from, to)
    else {
        return Err(Errno::BUSY.into());
    };
    // Mounts of the host itself are no mounts here: their devices tell them apart.
    if from.mount.id != to.mount.id || from.inode.id()?.0 != to.inode.id()?.0 {
        return Err(Errno::XDEV.into());
    }
    let is_name = |last: &LastComponent| matches!(last, LastComponent::Name(_) | LastComponent::TooLong);
    if !is_name(&from_last) {
        return Err(Errno::BUSY.into());
    }
    if !is_name(&to_last) {
        let errno = if flags.contains(RenameFlags::NOREPLACE) { Errno::EXIST } else { Errno::BUSY };
        return Err(errno.into());
    }
    if from.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS.into());
    }
    search(call, &from)?;
    search(call, &to)?;
    // A name that is too long is found out when it is looked up.
    let LastComponent::Name(from_name) = from_last else { return Err(Errno::NAMETOOLONG.into()) };
    let moved = from.inode.lookup(&from_name)?;
    let LastComponent::Name(to_name) = to_last else { return Err(Errno::NAMETOOLONG.into()) };
    let replaced = match to.inode.lookup(&to_name) {
        Ok(inode) => Some(inode),
        Err(Errno::NOENT) => None,
        Err(errno) => return Err(errno.into()),
    };
    let moved_is_dir = moved.kind()? == FileKind::Directory;
    if replaced.is_some() && flags.contains(RenameFlags::NOREPLACE) {
        return Err(Errno::EXIST.into());
    }
    if flags.contains(RenameFlags::EXCHANGE) {
        let other = replaced.as_ref().ok_or(Errno::NOENT)?;
        if other.kind()? != FileKind::Directory && to_slash == TrailingSlash::Yes {
            return Err(Errno::NOTDIR.into());
        }
    }
    if !moved_is_dir {
        let slash = from_slash == TrailingSlash::Yes;
        if slash || (!flags.contains(RenameFlags::EXCHANGE) && to_slash == TrailingSlash::Yes) {
            return Err(Errno::NOTDIR.into());
        }
    }
    if !from.inode.kernel_checks() {
        if moved_is_dir && is_above(&moved, &to)? {
            return Err(Errno::INVAL.into());
        }
        if let Some(other) = &replaced {
            if is_above(other, &from)? {
                let exchanged = flags.contains(RenameFlags::EXCHANGE);
                return Err(if exchanged { Errno::INVAL } else { Errno::NOTEMPTY }.into());
            }
            // Two names of one object: nothing is to be done, and nothing more is judged.
            if other.id()? == moved.id()? {
                return DONE;
            }
        }
        judge_rename(call, &from, &moved, &to, replaced.as_ref(), flags)?;
    }
    not_a_mount_point(call, &from, &from_name, &moved)?;
    if let Some(replaced) = &replaced {
        not_a_mount_point(call, &to, &to_name, replaced)?;
    }
    call.as_caller(|caller| from.inode.rename(caller, &from_name, &to.inode, &to_name, flags))?;
    DONE
}

/// Whether `directory` is, or lies below, `above`: both are of one mount.
fn is_above(above: &InodeRef, directory: &Location) -> Result<bool> {
    if above.kind()? != FileKind::Directory {
        return Ok(false);
    }
    let (wanted, top) = (above.id()?, directory.mount.root.id()?);
    let mut at = directory.inode.clone();
    loop {
        match at.id()? {
            id if id == wanted => return Ok(true),
            id if id == top => return Ok(false),
            _ => {}
        }
        let parent = at.parent()?;
        // A root of a file system is its own parent.
        if parent.id()? == at.id()? {
            return Ok(false);
        }
        at = parent;
    }
}

fn judge_rename(
    call: &Call,
    from: &Location,
    moved: &InodeRef,
    to: &Location,
    replaced: Option<&InodeRef>,
    flags: RenameFlags,
) -> Result<()> {
    let who = call.credentials();
    let from_stat = from.inode.stat()?;
    let to_stat = to.inode.stat()?;
    let (object, moved) = (moved, moved.stat()?);
    may_delete(&who, &*from.inode, &from_stat, &moved)?;
    let replaced = replaced.map(|victim| Ok((victim, victim.stat()?))).transpose()?;
    match &replaced {
        Some((_, victim)) => {
            may_delete(&who, &*to.inode, &to_stat, victim)?;
            if !flags.contains(RenameFlags::EXCHANGE) {
                if moved.is_dir() && !victim.is_dir() {
                    return Err(Errno::NOTDIR);
                }
                if !moved.is_dir() && victim.is_dir() {
                    return Err(Errno::ISDIR);
                }
            }
        }
        None => may_access(&who, &*to.inode, &to_stat, Access::WRITE | Access::EXEC)?,
    }
    // A directory that changes its parent has its own `..` written.
    let moves = (from_stat.dev, from_stat.ino) != (to_stat.dev, to_stat.ino);
    if moves {
        if moved.is_dir() {
            may_access(&who, &**object, &moved, Access::WRITE)?;
        }
        if let (true, Some((object, victim))) = (flags.contains(RenameFlags::EXCHANGE), &replaced) {
            if victim.is_dir() {
                may_access(&who, &***object, victim, Access::WRITE)?;
            }
        }
    }
    Ok(())
}
