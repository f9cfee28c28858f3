//! The stat family, access, readlink, statfs. Knows nothing of what trees are made of.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use umvu_interface::{
    may_access, Access, Credentials, Errno, FileKind, FsStat, Ids, Inode, InodeRef, MountFlags, Result, Stat,
};
use umvu_table::i386::{Abi, Form};

use crate::call::{Call, EmptyPath, Outcome, Reply, DONE};
use crate::fs::proc::ProcInode;
use crate::listing::{self, MountNumbers};
use crate::magic::Follower;
use crate::mount::{Location, Mount, MountKind, Origin};
use crate::resolve::{Last, Lookup, ResolveFlags};

const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EACCESS: u32 = 0x200;
const AT_NO_AUTOMOUNT: u32 = 0x800;
const AT_EMPTY_PATH: u32 = 0x1000;
const AT_STATX_SYNC_TYPE: u32 = 0x6000;

/// `stat(path, status)`.
pub fn stat(call: &Call) -> Outcome {
    by_path(call, libc::AT_FDCWD, 0, 1, Last::Follow, EmptyPath::Refused)
}

/// `lstat(path, status)`.
pub fn lstat(call: &Call) -> Outcome {
    by_path(call, libc::AT_FDCWD, 0, 1, Last::NoFollow, EmptyPath::Refused)
}

/// `newfstatat(dirfd, path, status, flags)`.
pub fn newfstatat(call: &Call) -> Outcome {
    let flags = call.u32(3);
    // The types of synchronisation are those of statx(2): vfs_statx of fs/stat.c.
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC_TYPE) != 0 {
        return Err(Errno::INVAL.into());
    }
    by_path(call, call.i32(0), 1, 2, last(flags), empty(flags))
}

fn last(flags: u32) -> Last {
    if flags & AT_SYMLINK_NOFOLLOW != 0 {
        Last::NoFollow
    } else {
        Last::Follow
    }
}

fn empty(flags: u32) -> EmptyPath {
    if flags & AT_EMPTY_PATH != 0 {
        EmptyPath::Allowed
    } else {
        EmptyPath::Refused
    }
}

fn by_path(call: &Call, dirfd: i32, path: usize, out: usize, last: Last, empty: EmptyPath) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let (stat, _) = find(call, dirfd, path, last, empty)?;
    call.write(call.raw(out), crate::abi::stat_for(call.request.abi, &call.credentials().shown(stat))?.as_bytes())?;
    DONE
}

/// What an object was found through: statx(2) tells the mount.
enum Through {
    /// A mount of the view.
    Mount(Arc<Mount>),
    /// The host's own tree.
    Host(InodeRef),
    /// A descriptor of the host.
    Descriptor(OwnedFd),
}

impl Through {
    fn place(place: Location) -> Self {
        match place.mount.origin {
            Origin::Host => Self::Host(place.inode),
            Origin::Carried | Origin::View => Self::Mount(place.mount),
        }
    }

    fn numbers(&self, stat: &Stat) -> MountNumbers {
        match self {
            Self::Mount(mount) => listing::numbers(mount, stat),
            Self::Host(inode) => match inode.host_fd() {
                Some(fd) => listing::numbers_on_host(fd),
                None => MountNumbers { id: 0, is_root: None },
            },
            Self::Descriptor(fd) => listing::numbers_on_host(fd.as_fd()),
        }
    }
}

/// Finds the metadata of a path, or of the descriptor itself for an empty one.
fn find(call: &Call, dirfd: i32, path: usize, last: Last, empty: EmptyPath) -> Result<(Stat, Through)> {
    // Since Linux 6.11 a null path with AT_EMPTY_PATH is an empty one.
    let text = if empty == EmptyPath::Allowed && call.raw(path) == 0 { Vec::new() } else { call.path(path)? };
    if text.is_empty() && empty == EmptyPath::Allowed && dirfd != libc::AT_FDCWD {
        return of_descriptor(call, dirfd);
    }
    let place = call.object_at(dirfd, &text, last, empty)?;
    Ok((metadata(call, &place)?, Through::place(place)))
}

/// The metadata of a place.
fn metadata(call: &Call, place: &Location) -> Result<Stat> {
    match place.inode.as_any().downcast_ref::<ProcInode>() {
        Some(inode) => shown(call, inode),
        None if !place.mount.filesystem.admits(&call.credentials()) => Err(Errno::ACCESS),
        None => place.inode.stat(),
    }
}

/// The metadata of an object of `/proc`. Those of `/proc/PID` belong to the identity that the process has in its view.
pub fn shown(call: &Call, inode: &ProcInode) -> Result<Stat> {
    let mut stat = inode.stat()?;
    let Some((pid, _)) = inode.of_process() else { return Ok(stat) };
    if stat.uid != call.supervisor.host_credentials.uid.effective || !call.credentials().is_faked() {
        return Ok(stat);
    }
    if let Some(state) = call.supervisor.state_of(pid) {
        let who = call.supervisor.credentials(&state);
        (stat.uid, stat.gid) = (who.uid.effective, who.gid.effective);
    }
    Ok(stat)
}

/// What has no name on the host, a pipe or a socket, belongs to whoever asks if it is the user's: nothing tells
/// which of the guests made it.
fn nameless(call: &Call, fd: BorrowedFd<'_>, mut stat: Stat) -> Stat {
    let who = call.credentials();
    if !who.is_faked() || stat.uid != call.supervisor.host_credentials.uid.effective {
        return stat;
    }
    if !matches!(stat.kind(), FileKind::Fifo | FileKind::Socket) {
        return stat;
    }
    if is_nameless(fd) {
        (stat.uid, stat.gid) = (who.uid.fs, who.gid.fs);
    }
    stat
}

fn is_nameless(fd: BorrowedFd<'_>) -> bool {
    const PIPEFS: i64 = 0x5049_5045;
    const SOCKFS: i64 = 0x534f_434b;
    rustix::fs::fstatfs(fd).is_ok_and(|fs| matches!(fs.f_type, PIPEFS | SOCKFS))
}

/// `fstat(fd, status)`.
pub fn fstat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let (stat, _) = of_descriptor(call, call.i32(0))?;
    call.write(call.raw(1), crate::abi::stat_for(call.request.abi, &call.credentials().shown(stat))?.as_bytes())?;
    DONE
}

/// The metadata of an open descriptor, and what it came through.
fn of_descriptor(call: &Call, fd: i32) -> Result<(Stat, Through)> {
    let fd = call.take_fd(fd)?;
    let numbers = rustix::fs::fstat(&fd)?;
    if let Some(open) = call.supervisor.placeholders.find(numbers.st_dev, numbers.st_ino) {
        return Ok((open.location.inode.stat()?, Through::place(open.location.clone())));
    }
    if let Some(place) = call.supervisor.object_of_text(call, fd.as_fd(), &numbers) {
        return Ok((metadata(call, &place)?, Through::place(place)));
    }
    if let Some(place) = call.supervisor.open_nodes.find(fd.as_fd(), &numbers) {
        return Ok((metadata(call, &place)?, Through::place(place)));
    }
    if let Some(stat) = of_device(call, &numbers) {
        return Ok((stat, Through::Descriptor(fd)));
    }
    let table = call.table();
    let mark = umvu_sys::file::mark(fd.as_fd()).unwrap_or(-1);
    if let Some(mount) = call.supervisor.marked(&table, fd.as_fd(), mark) {
        return Ok((mount.filesystem.stat_open(fd.as_fd())?, Through::Mount(mount)));
    }
    let is_fifo = FileKind::from_mode(numbers.st_mode) == Some(FileKind::Fifo) && !is_nameless(fd.as_fd());
    if mark < 0 || is_fifo || numbers.st_dev == call.supervisor.proc_device {
        // O_PATH descriptors take no mark, those of /proc have none, and guests open pipes themselves: the path tells.
        let place = call.supervisor.place_of(call, fd)?;
        return Ok((metadata(call, &place)?, Through::place(place)));
    }
    let host = table.host().mount;
    let stat = nameless(call, fd.as_fd(), host.filesystem.stat_open(fd.as_fd())?);
    Ok((stat, Through::Descriptor(fd)))
}

/// The metadata of a descriptor with these numbers, if it was opened as a device that a module claims.
fn of_device(call: &Call, numbers: &rustix::fs::Stat) -> Option<Stat> {
    if FileKind::from_mode(numbers.st_mode) != Some(FileKind::Socket) {
        return None;
    }
    let device = call.state.view.device(|device| device.has_opened(numbers.st_dev, numbers.st_ino))?;
    let (mode, rdev) = (device.kind().bits() | device.mode(), device.number());
    let (dev, ino) = (numbers.st_dev, numbers.st_ino);
    Some(Stat { dev, ino, mode, nlink: 1, rdev, blksize: 4096, ..Stat::default() })
}

/// `statx(dirfd, path, flags, mask, status)`.
pub fn statx(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let flags = call.u32(2);
    let known = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
    if call.u32(3) & 0x8000_0000 != 0 || flags & AT_STATX_SYNC_TYPE == AT_STATX_SYNC_TYPE || flags & !known != 0 {
        return Err(Errno::INVAL.into());
    }
    let (stat, through) = find(call, call.i32(0), 1, last(flags), empty(flags))?;
    call.write(
        call.raw(4),
        &crate::abi::statx(&call.credentials().shown(stat.clone()), through.numbers(&stat), call.u32(3)),
    )?;
    DONE
}

/// `readlink(path, buffer, size)`.
pub fn readlink(call: &Call) -> Outcome {
    link_text(call, libc::AT_FDCWD, 0)
}

/// `readlinkat(dirfd, path, buffer, size)`.
pub fn readlinkat(call: &Call) -> Outcome {
    link_text(call, call.i32(0), 1)
}

fn link_text(call: &Call, dirfd: i32, path: usize) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let size = call.i32(path + 2);
    let size = usize::try_from(size).ok().filter(|s| *s > 0).ok_or(Errno::INVAL)?;
    let text = call.path(path)?;
    let place = if text.is_empty() && dirfd != libc::AT_FDCWD {
        let place = call.directory(dirfd)?;
        if place.inode.kind()? != FileKind::Symlink {
            return Err(Errno::NOENT.into());
        }
        place
    } else {
        call.object(dirfd, &text, Last::NoFollow)?
    };
    let target = text_of(call, &place)?;
    let length = target.len().min(size);
    call.write(call.raw(path + 1), &target[..length])?;
    Ok(Reply::Value(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn text_of(call: &Call, place: &Location) -> Result<Vec<u8>> {
    if let Some(magic) = place.inode.as_any().downcast_ref::<ProcInode>().and_then(ProcInode::magic) {
        return Follower { call }.text(&magic, call.tid());
    }
    place.inode.readlink()
}

/// `access(path, mode)`.
pub fn access(call: &Call) -> Outcome {
    check_access(call, libc::AT_FDCWD, 0, call.u32(1), 0)
}

/// `faccessat(dirfd, path, mode)`.
pub fn faccessat(call: &Call) -> Outcome {
    check_access(call, call.i32(0), 1, call.u32(2), 0)
}

/// `faccessat2(dirfd, path, mode, flags)`.
pub fn faccessat2(call: &Call) -> Outcome {
    check_access(call, call.i32(0), 1, call.u32(2), call.u32(3))
}

/// `do_faccessat` of `fs/open.c`: by the real ids unless `AT_EACCESS` says otherwise.
fn check_access(call: &Call, dirfd: i32, path: usize, mode: u32, flags: u32) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let want = Access::from_bits(mode).ok_or(Errno::INVAL)?;
    if flags & !(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL.into());
    }
    let text = call.path(path)?;
    let credentials = call.credentials();
    let judged = if flags & AT_EACCESS != 0 { (*credentials).clone() } else { by_real_ids(&credentials) };
    // The way there is judged like the object.
    let place = call.judged_by(&judged).object_at(dirfd, &text, last(flags), empty(flags))?;
    let stat = place.inode.stat()?;
    let special =
        matches!(stat.kind(), FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice);
    if want.contains(Access::EXEC) && stat.kind() == FileKind::Regular {
        let noexec = place.mount.flags().contains(MountFlags::NO_EXEC);
        if noexec && place.mount.kind == MountKind::Tree {
            return Err(Errno::ACCESS.into());
        }
    }
    if !want.is_empty() {
        kernel_or_view(&place, &judged, &stat, want)?;
    }
    if want.contains(Access::WRITE) && !special && place.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS.into());
    }
    DONE
}

fn kernel_or_view(place: &Location, who: &Credentials, stat: &Stat, want: Access) -> Result<()> {
    if place.inode.kernel_checks() {
        if let Some(fd) = place.inode.host_fd() {
            let mode = rustix::fs::Access::from_bits_truncate(want.bits());
            let path = crate::guest::proc_path(fd);
            return rustix::fs::access(path, mode);
        }
    }
    may_access(who, &*place.inode, stat, want)
}

/// The identity as access(2) judges it: real ids, and root's capabilities only for a real root.
fn by_real_ids(credentials: &Credentials) -> Credentials {
    let mut judged = credentials.clone();
    judged.uid = Ids { fs: judged.uid.real, ..judged.uid };
    judged.gid = Ids { fs: judged.gid.real, ..judged.gid };
    const NO_SETUID_FIXUP: u32 = 1 << 2;
    if judged.securebits & NO_SETUID_FIXUP == 0 {
        judged.capabilities.effective = if judged.uid.real == 0 { judged.capabilities.permitted } else { 0 };
    }
    judged
}

/// `statfs(path, status)`.
pub fn statfs(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    check_size(call)?;
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    write_statfs(call, &place)
}

/// `fstatfs(fd, status)`.
pub fn fstatfs(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    check_size(call)?;
    let fd = call.take_fd(call.i32(0))?;
    let place = call.supervisor.place_of(call, fd)?;
    write_statfs(call, &place)
}

/// statfs64(2) and fstatfs64(2) of 32-bit programs, which have a third argument, say how long the structure is.
fn check_size(call: &Call) -> Result<()> {
    if call.request.abi == Abi::I386(Form::Wide) && call.raw(2) != crate::abi_i386::WIDE_STATFS as u64 {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn write_statfs(call: &Call, place: &Location) -> Outcome {
    let numbers = place.mount.filesystem.statfs(&*place.inode)?;
    const ST_RELATIME: u64 = 4096;
    const ST_NOSYMFOLLOW: u64 = 8192;
    // The ST_* bits of these flags are those of mount(2).
    let shown = MountFlags::READ_ONLY
        | MountFlags::NO_SUID
        | MountFlags::NO_DEV
        | MountFlags::NO_EXEC
        | MountFlags::NO_ATIME
        | MountFlags::NO_DIRATIME;
    let mut flags = (place.mount.flags() & shown).bits();
    if place.mount.flags().contains(MountFlags::RELATIME) {
        flags |= ST_RELATIME;
    }
    if place.mount.flags().contains(MountFlags::NO_SYMFOLLOW) {
        flags |= ST_NOSYMFOLLOW;
    }
    if let (Origin::Host, Some(fd)) = (place.mount.origin, place.inode.host_fd()) {
        let host = rustix::fs::fstatvfs(fd)?.f_flag.bits();
        flags |= host & (shown.bits() | ST_RELATIME | ST_NOSYMFOLLOW);
    }
    call.write(call.raw(1), crate::abi::statfs_for(call.request.abi, &numbers, flags)?.as_bytes())?;
    DONE
}

/// `ustat(dev, status)`: obsolete, and asked by device: `fs/statfs.c`.
pub fn ustat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let numbers = statfs_of_device(call, u64::from(call.u32(0)))?;
    // Two numbers, and two names of six bytes each.
    let (size, files_at) = if call.request.abi == Abi::X86_64 { (32, 8) } else { (20, 4) };
    let word = call.request.abi.word_size();
    let mut bytes = vec![0; size];
    bytes[..4].copy_from_slice(&u32::try_from(numbers.blocks_free).unwrap_or(u32::MAX).to_ne_bytes());
    bytes[files_at..files_at + word].copy_from_slice(&numbers.files_free.to_ne_bytes()[..word]);
    call.write(call.raw(1), &bytes)?;
    DONE
}

/// Describes the file system that is mounted on a device, in the form that stat(2) tells.
///
/// # Errors
/// - `EINVAL`: the caller sees none.
fn statfs_of_device(call: &Call, device: u64) -> Result<FsStat> {
    let table = call.table();
    let root = call.root(&table);
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    for entry in listing::of(call, &table, &root).iter().filter(|entry| entry.device == (major, minor)) {
        let seen = call.resolve_from(&table, root.clone(), &entry.point, Last::Follow, ResolveFlags::empty());
        if let Ok(Lookup::Found(place)) = seen {
            return place.mount.filesystem.statfs(&*place.inode);
        }
    }
    Err(Errno::INVAL)
}
