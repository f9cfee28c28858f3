//! Calls that make and remove names: mkdir, rmdir, unlink, link, symlink, mknod. Knows nothing of trees' inside.

use umvu_interface::{
    may_access, may_delete, Access, Capabilities, Creation, Errno, FileKind, InodeRef, MountFlags, Name, RemoveKind,
    Result, DEFAULT_ACL,
};

use crate::additions;
use crate::call::{Call, EmptyPath, Outcome, Reply, DONE};
use crate::mount::Location;
use crate::protected;
use crate::resolve::{Last, LastComponent, Lookup, ResolveFlags, TrailingSlash};

/// The directory must be one, and searchable by the caller.
///
/// # Errors
/// - `ENOTDIR`, `EACCES`.
pub fn search(call: &Call, directory: &Location) -> Result<()> {
    if directory.inode.kind()? != FileKind::Directory {
        return Err(Errno::NOTDIR);
    }
    let who = call.credentials();
    if directory.inode.kernel_checks() || who.capable(Capabilities::DAC_OVERRIDE) {
        return Ok(());
    }
    may_access(&who, &*directory.inode, &directory.inode.stat()?, Access::EXEC)
}

/// Finds an entry, and what is mounted on it.
pub fn child(call: &Call, directory: &Location, name: &Name) -> Result<Location> {
    match directory.inode.lookup(name) {
        Err(Errno::NOENT) => additions::find(&call.table(), directory, name.as_bytes()),
        found => call.table().enter(Location { mount: directory.mount.clone(), inode: found? }, name.as_bytes()),
    }
}

/// Whether the caller may make an entry: `may_create` of `fs/namei.c`, after the check for a read-only mount.
///
/// # Errors
/// - `EROFS`: read-only mount.
/// - `EACCES`: no write or search permission.
pub fn creatable(call: &Call, directory: &Location) -> Result<()> {
    if directory.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS);
    }
    if directory.inode.kernel_checks() {
        return Ok(());
    }
    let who = call.credentials();
    if who.capable(Capabilities::DAC_OVERRIDE) {
        return Ok(());
    }
    may_access(&who, &*directory.inode, &directory.inode.stat()?, Access::WRITE | Access::EXEC)
}

/// Takes the set-gid bit of a program that would belong to a group that is not the caller's, and then applies the
/// umask, unless a default ACL of the directory takes its place: `vfs_prepare_mode` of `fs/namei.c`, acl(5).
pub fn creation_mode(call: &Call, directory: &Location, mode: u32) -> Result<u32> {
    let mut mode = mode;
    if mode & 0o2010 == 0o2010 {
        let (above, who) = (directory.inode.stat()?, call.credentials());
        if above.mode & 0o2000 != 0 && !who.in_group(above.gid) && !who.capable(Capabilities::FSETID) {
            mode &= !0o2000;
        }
    }
    match directory.inode.get_xattr(DEFAULT_ACL) {
        Ok(_) => Ok(mode),
        Err(_) => Ok(mode & !call.umask()),
    }
}

/// The place of a new entry, where the caller may make one.
fn place_for(call: &Call, dirfd: i32, path: &[u8], is_directory: bool) -> Result<(Location, Name)> {
    let (directory, name) = free_name(call, dirfd, path, is_directory)?;
    creatable(call, &directory)?;
    Ok((directory, name))
}

/// A name that nothing has yet: `filename_create` of `fs/namei.c`.
fn free_name(call: &Call, dirfd: i32, path: &[u8], is_directory: bool) -> Result<(Location, Name)> {
    let found = call.resolve(dirfd, path, Last::Parent, ResolveFlags::empty())?;
    let Lookup::AtParent { directory, last, slash } = found else { return Err(Errno::EXIST) };
    let name = match last {
        LastComponent::Name(name) => name,
        LastComponent::TooLong => return Err(Errno::NAMETOOLONG),
        LastComponent::Dot | LastComponent::DotDot | LastComponent::Root => return Err(Errno::EXIST),
    };
    search(call, &directory)?;
    match directory.inode.lookup(&name) {
        Ok(_) => return Err(Errno::EXIST),
        Err(Errno::NOENT) if additions::find(&call.table(), &directory, name.as_bytes()).is_ok() => {
            return Err(Errno::EXIST);
        }
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    if slash == TrailingSlash::Yes && !is_directory {
        return Err(Errno::NOENT);
    }
    if directory.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS);
    }
    Ok((directory, name))
}

/// The directory and the name of a new entry, for requests of the tools.
pub fn parent_and_name(call: &Call, path: &[u8]) -> Result<(Location, Name)> {
    place_for(call, libc::AT_FDCWD, path, false)
}

/// `mkdir(path, mode)`.
pub fn mkdir(call: &Call) -> Outcome {
    make_directory(call, libc::AT_FDCWD, 0)
}

/// `mkdirat(dirfd, path, mode)`.
pub fn mkdirat(call: &Call) -> Outcome {
    make_directory(call, call.i32(0), 1)
}

fn make_directory(call: &Call, dirfd: i32, path: usize) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let text = call.path(path)?;
    call.check_alive()?;
    let (directory, name) = place_for(call, dirfd, &text, true)?;
    let mode = creation_mode(call, &directory, call.u32(path + 1) & 0o1777)?;
    call.as_caller(|caller| directory.inode.create(caller, &name, &Creation::Directory { mode }))?;
    DONE
}

/// `mknod(path, mode, dev)`.
pub fn mknod(call: &Call) -> Outcome {
    make_node(call, libc::AT_FDCWD, 0)
}

/// `mknodat(dirfd, path, mode, dev)`.
pub fn mknodat(call: &Call) -> Outcome {
    make_node(call, call.i32(0), 1)
}

fn make_node(call: &Call, dirfd: i32, path: usize) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let mode = call.u32(path + 1);
    let kind = match mode & 0o170_000 {
        0 => FileKind::Regular,
        _ => match FileKind::from_mode(mode) {
            Some(FileKind::Directory) => return Err(Errno::PERM.into()),
            Some(FileKind::Symlink) | None => return Err(Errno::INVAL.into()),
            Some(kind) => kind,
        },
    };
    let text = call.path(path)?;
    call.check_alive()?;
    let rdev = call.u32(path + 2);
    // The 32 bits of the call hold the kernel's encoding: minor 0-7, major 8-19, minor 20-31.
    let rdev = rustix::fs::makedev((rdev >> 8) & 0xfff, (rdev & 0xff) | ((rdev >> 12) & 0xfff00));
    let (directory, name) = place_for(call, dirfd, &text, false)?;
    let mode = creation_mode(call, &directory, mode & 0o7777)?;
    let is_device = matches!(kind, FileKind::CharDevice | FileKind::BlockDevice);
    let is_whiteout = kind == FileKind::CharDevice && rdev == 0;
    if is_device && !is_whiteout && !directory.inode.kernel_checks() && !call.credentials().capable(Capabilities::MKNOD)
    {
        return Err(Errno::PERM.into());
    }
    let what = match kind {
        FileKind::CharDevice => Creation::CharDevice { mode, rdev },
        FileKind::BlockDevice => Creation::BlockDevice { mode, rdev },
        FileKind::Fifo => Creation::Fifo { mode },
        FileKind::Socket => Creation::Socket { mode },
        _ => Creation::Regular { mode },
    };
    call.as_caller(|caller| directory.inode.create(caller, &name, &what))?;
    DONE
}

/// `symlink(target, path)`.
pub fn symlink(call: &Call) -> Outcome {
    make_symlink(call, libc::AT_FDCWD, 1)
}

/// `symlinkat(target, dirfd, path)`.
pub fn symlinkat(call: &Call) -> Outcome {
    make_symlink(call, call.i32(1), 2)
}

fn make_symlink(call: &Call, dirfd: i32, path: usize) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let target = call.path(0)?;
    if target.is_empty() {
        return Err(Errno::NOENT.into());
    }
    let text = call.path(path)?;
    call.check_alive()?;
    let (directory, name) = place_for(call, dirfd, &text, false)?;
    call.as_caller(|caller| directory.inode.create(caller, &name, &Creation::Symlink { target: &target }))?;
    DONE
}

/// `link(old, new)`.
pub fn link(call: &Call) -> Outcome {
    make_link(call, libc::AT_FDCWD, 0, libc::AT_FDCWD, 1, 0)
}

/// `linkat(olddirfd, old, newdirfd, new, flags)`.
pub fn linkat(call: &Call) -> Outcome {
    make_link(call, call.i32(0), 1, call.i32(2), 3, call.u32(4))
}

fn make_link(call: &Call, old_dirfd: i32, old: usize, new_dirfd: i32, new: usize, flags: u32) -> Outcome {
    const SYMLINK_FOLLOW: u32 = 0x400;
    const EMPTY_PATH: u32 = 0x1000;
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    if flags & !(SYMLINK_FOLLOW | EMPTY_PATH) != 0 {
        return Err(Errno::INVAL.into());
    }
    let (old, new) = (call.path(old)?, call.path(new)?);
    call.check_alive()?;
    let last = if flags & SYMLINK_FOLLOW != 0 { Last::Follow } else { Last::NoFollow };
    let empty = if flags & EMPTY_PATH != 0 { EmptyPath::Allowed } else { EmptyPath::Refused };
    let target = call.object_at(old_dirfd, &old, last, empty)?;
    let (directory, name) = free_name(call, new_dirfd, &new, false)?;
    if target.mount.id != directory.mount.id {
        return Err(Errno::XDEV.into());
    }
    may_link(call, &target)?;
    creatable(call, &directory)?;
    if target.inode.kind()? == FileKind::Directory {
        return Err(Errno::PERM.into());
    }
    call.as_caller(|caller| directory.inode.link(caller, &name, &target.inode))?;
    DONE
}

/// `may_linkat` of `fs/namei.c`: with `fs.protected_hardlinks`, only what one owns or could read and write as a plain
/// file.
fn may_link(call: &Call, target: &Location) -> Result<()> {
    if target.inode.kernel_checks() {
        return Ok(());
    }
    let who = call.credentials();
    let stat = target.inode.stat()?;
    if who.uid.fs == stat.uid || who.capable_over(Capabilities::FOWNER, &stat) {
        return Ok(());
    }
    let plain = stat.kind() == FileKind::Regular && stat.mode & 0o4000 == 0 && stat.mode & 0o2010 != 0o2010;
    if plain && may_access(&who, &*target.inode, &stat, Access::READ | Access::WRITE).is_ok()
        || !protected::restricts_links()
    {
        return Ok(());
    }
    Err(Errno::PERM)
}

/// `rmdir(path)`.
pub fn rmdir(call: &Call) -> Outcome {
    remove(call, libc::AT_FDCWD, 0, RemoveKind::Directory)
}

/// `unlink(path)`.
pub fn unlink(call: &Call) -> Outcome {
    remove(call, libc::AT_FDCWD, 0, RemoveKind::File)
}

/// `unlinkat(dirfd, path, flags)`.
pub fn unlinkat(call: &Call) -> Outcome {
    const REMOVEDIR: u32 = 0x200;
    match call.u32(2) {
        0 => remove(call, call.i32(0), 1, RemoveKind::File),
        REMOVEDIR => remove(call, call.i32(0), 1, RemoveKind::Directory),
        _ if call.state.is_plain() => Ok(Reply::Continue),
        _ => Err(Errno::INVAL.into()),
    }
}

fn remove(call: &Call, dirfd: i32, path: usize, kind: RemoveKind) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let text = call.path(path)?;
    call.check_alive()?;
    let found = call.resolve(dirfd, &text, Last::Parent, ResolveFlags::empty())?;
    let Lookup::AtParent { directory, last, slash } = found else { return Err(Errno::BUSY.into()) };
    let name = match (last, kind) {
        (LastComponent::Name(name), _) => name,
        (LastComponent::TooLong, _) => return Err(Errno::NAMETOOLONG.into()),
        (LastComponent::Dot, RemoveKind::Directory) => return Err(Errno::INVAL.into()),
        (LastComponent::DotDot, RemoveKind::Directory) => return Err(Errno::NOTEMPTY.into()),
        (LastComponent::Root, RemoveKind::Directory) => return Err(Errno::BUSY.into()),
        (_, RemoveKind::File) => return Err(Errno::ISDIR.into()),
    };
    search(call, &directory)?;
    // The mount is looked at before the name: do_unlinkat, mnt_want_write.
    if directory.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS.into());
    }
    let victim = match directory.inode.lookup(&name) {
        // What a mount adds stays as long as that.
        Err(Errno::NOENT) if additions::find(&call.table(), &directory, name.as_bytes()).is_ok() => {
            return Err(Errno::BUSY.into());
        }
        found => found?,
    };
    let victim_kind = victim.kind()?;
    if kind == RemoveKind::File && slash == TrailingSlash::Yes {
        let errno = if victim_kind == FileKind::Directory { Errno::ISDIR } else { Errno::NOTDIR };
        return Err(errno.into());
    }
    if !directory.inode.kernel_checks() {
        may_delete(&call.credentials(), &*directory.inode, &directory.inode.stat()?, &victim.stat()?)?;
    }
    match (kind, victim_kind) {
        (RemoveKind::Directory, k) if k != FileKind::Directory => return Err(Errno::NOTDIR.into()),
        (RemoveKind::File, FileKind::Directory) => return Err(Errno::ISDIR.into()),
        _ => {}
    }
    not_a_mount_point(call, &directory, &name, &victim)?;
    call.as_caller(|caller| directory.inode.remove(caller, &name, kind))?;
    if kind == RemoveKind::Directory && !call.supervisor.placeholders.is_empty() {
        // The kernel tells of its end when nobody has it any more.
        call.supervisor.placeholders.drain();
    }
    DONE
}

/// Checks that nothing is mounted on an entry, which is `object`.
///
/// # Errors
/// - `EBUSY`: something is.
pub fn not_a_mount_point(call: &Call, directory: &Location, name: &Name, object: &InodeRef) -> Result<()> {
    let table = call.table();
    // Numbers of trees that are made up may change: here the name counts.
    let is_covered = table.may_be_covered(&directory.mount, name.as_bytes())
        && child(call, directory, name)?.mount.id != directory.mount.id;
    if is_covered || table.is_mount_point(object)? {
        return Err(Errno::BUSY);
    }
    Ok(())
}
