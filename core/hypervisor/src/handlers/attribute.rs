//! chmod, chown, utime families, truncate. Knows nothing of where attributes are kept.

use umvu_interface::{
    Access, Capabilities, Credentials, Errno, FileKind, MountFlags, Result, SetAttr, SetTime, Stat, Timestamp,
};
use umvu_table::i386::{Abi, Form};

use crate::call::{Call, EmptyPath, Outcome, Reply, DONE};
use crate::handlers::open::permitted;
use crate::mount::Location;
use crate::resolve::Last;

const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;
const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// Checks flags of the `AT_*` kind and finds the object.
fn find(call: &Call, dirfd: i32, path: usize, flags: u32) -> Result<Location> {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    // Unlike in fs/stat.c, a null path is no empty one.
    let text = call.path(path)?;
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let empty = if flags & AT_EMPTY_PATH != 0 { EmptyPath::Allowed } else { EmptyPath::Refused };
    call.object_at(dirfd, &text, last, empty)
}

fn writable(place: &Location) -> Result<()> {
    if place.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS);
    }
    Ok(())
}

fn change(call: &Call, place: &Location, change: &SetAttr) -> Outcome {
    call.check_alive()?;
    call.as_caller(|caller| place.inode.set_attr(caller, change))?;
    DONE
}

/// `chmod(path, mode)`.
pub fn chmod(call: &Call) -> Outcome {
    chmod_path(call, libc::AT_FDCWD, 0, call.u32(1), 0)
}

/// `fchmodat(dirfd, path, mode)`.
pub fn fchmodat(call: &Call) -> Outcome {
    chmod_path(call, call.i32(0), 1, call.u32(2), 0)
}

/// `fchmodat2(dirfd, path, mode, flags)`.
pub fn fchmodat2(call: &Call) -> Outcome {
    chmod_path(call, call.i32(0), 1, call.u32(2), call.u32(3))
}

fn chmod_path(call: &Call, dirfd: i32, path: usize, mode: u32, flags: u32) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let place = find(call, dirfd, path, flags)?;
    chmod_place(call, &place, mode)
}

/// `fchmod(fd, mode)`.
pub fn fchmod(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let place = opened(call)?;
    chmod_place(call, &place, call.u32(1))
}

/// What an open descriptor (the first argument) names; `O_PATH` ones are refused as the kernel does.
///
/// # Errors
/// - `EBADF`: it is not open, or `O_PATH`.
pub fn opened(call: &Call) -> Result<Location> {
    let fd = call.take_fd(call.i32(0))?;
    if rustix::fs::fcntl_getfl(&fd)?.contains(rustix::fs::OFlags::PATH) {
        return Err(Errno::BADF);
    }
    call.supervisor.place_of(call, fd)
}

fn chmod_place(call: &Call, place: &Location, mode: u32) -> Outcome {
    writable(place)?;
    let mut mode = mode & 0o7777;
    if place.inode.kind()? == FileKind::Symlink {
        return Err(Errno::OPNOTSUPP.into());
    }
    if !place.inode.kernel_checks() {
        let stat = place.inode.stat()?;
        let who = call.credentials();
        owner_or(&who, &stat, Capabilities::FOWNER)?;
        // setattr_prepare: a group one is not in loses set-gid.
        if !who.in_group(stat.gid) && !who.capable_over(Capabilities::FSETID, &stat) {
            mode &= !SETGID;
        }
    }
    change(call, place, &SetAttr { mode: Some(mode), ..SetAttr::default() })
}

fn owner_or(who: &Credentials, stat: &Stat, capability: u64) -> Result<()> {
    if who.uid.fs == stat.uid || who.capable_over(capability, stat) {
        Ok(())
    } else {
        Err(Errno::PERM)
    }
}

/// `chown(path, uid, gid)`.
pub fn chown(call: &Call) -> Outcome {
    chown_path(call, libc::AT_FDCWD, 0, 0)
}

/// `lchown(path, uid, gid)`.
pub fn lchown(call: &Call) -> Outcome {
    chown_path(call, libc::AT_FDCWD, 0, AT_SYMLINK_NOFOLLOW)
}

/// `fchownat(dirfd, path, uid, gid, flags)`.
pub fn fchownat(call: &Call) -> Outcome {
    chown_path(call, call.i32(0), 1, call.u32(4))
}

fn chown_path(call: &Call, dirfd: i32, path: usize, flags: u32) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let place = find(call, dirfd, path, flags)?;
    chown_place(call, &place, call.u32(path + 1), call.u32(path + 2))
}

/// `fchown(fd, uid, gid)`.
pub fn fchown(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let place = opened(call)?;
    chown_place(call, &place, call.u32(1), call.u32(2))
}

/// `chown_common` of `fs/open.c` and `setattr_prepare` of `fs/attr.c`.
fn chown_place(call: &Call, place: &Location, uid: u32, gid: u32) -> Outcome {
    writable(place)?;
    let asks = call.credentials();
    let meant = |id: u32, meaning: &dyn Fn(u32) -> Option<u32>| match id {
        u32::MAX => Ok(None),
        id => meaning(id).map(Some).ok_or(Errno::INVAL),
    };
    let uid = meant(uid, &|id| asks.user_meant(id))?;
    let gid = meant(gid, &|id| asks.group_meant(id))?;
    let mut wanted = SetAttr { uid, gid, ..SetAttr::default() };
    if !place.inode.kernel_checks() {
        let stat = place.inode.stat()?;
        let who = call.credentials();
        let may_chown = who.capable_over(Capabilities::CHOWN, &stat);
        if uid.is_some_and(|u| !(may_chown || who.uid.fs == stat.uid && u == stat.uid)) {
            return Err(Errno::PERM.into());
        }
        if gid.is_some_and(|g| !(may_chown || who.uid.fs == stat.uid && (who.in_group(g) || g == stat.gid))) {
            return Err(Errno::PERM.into());
        }
        if stat.kind() != FileKind::Directory {
            // setattr_should_drop_suidgid: set-gid without group execution marks mandatory locks, and stays
            // for those in the group.
            let mut mode = stat.mode & 0o7777;
            mode &= !SETUID;
            let executable = mode & 0o010 != 0;
            if executable || !(who.in_group(stat.gid) || who.capable(Capabilities::FSETID)) {
                mode &= !SETGID;
            }
            if mode != stat.mode & 0o7777 && stat.kind() != FileKind::Symlink {
                owner_or(&who, &stat, Capabilities::FOWNER)?;
                wanted.mode = Some(mode);
            }
        }
    }
    change(call, place, &wanted)?;
    without_capabilities(call, place)?;
    DONE
}

/// Takes the capabilities of a file away: `cap_inode_killpriv` of `security/commoncap.c`.
pub fn without_capabilities(call: &Call, place: &Location) -> Result<()> {
    if place.inode.kernel_checks() || place.inode.kind()? != FileKind::Regular {
        return Ok(());
    }
    match call.as_caller(|caller| place.inode.remove_xattr(caller, b"security.capability")) {
        // There are none, or the kernel has seen to them.
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => Ok(()),
        done => done,
    }
}

/// `truncate(path, length)`.
pub fn truncate(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let length = i64::from_ne_bytes(call.raw(1).to_ne_bytes());
    let length = u64::try_from(length).map_err(|_| Errno::INVAL)?;
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    match place.inode.kind()? {
        FileKind::Directory => return Err(Errno::ISDIR.into()),
        FileKind::Regular => {}
        _ => return Err(Errno::INVAL.into()),
    }
    writable(&place)?;
    permitted(call, &place, Access::WRITE)?;
    call.supervisor.programs.may_be_written(&place.inode)?;
    within_limit(call, &place, length)?;
    let mut wanted = SetAttr { size: Some(length), ..SetAttr::default() };
    if !place.inode.kernel_checks() {
        wanted.mode = without_set_ids(&call.credentials(), &place.inode.stat()?);
    }
    change(call, &place, &wanted)?;
    without_capabilities(call, &place)?;
    DONE
}

/// `inode_newsize_ok` of `fs/attr.c` for the guest's limit, which is not ours.
///
/// # Errors
/// - `EFBIG`: the file would grow beyond it; the guest gets a `SIGXFSZ`.
fn within_limit(call: &Call, place: &Location, length: u64) -> core::result::Result<(), crate::call::Fail> {
    let limit = umvu_sys::guest::file_size_limit(call.tid())?;
    if length <= limit || length <= place.inode.stat()?.size {
        return Ok(());
    }
    call.check_alive()?;
    let process = i32::try_from(crate::magic::process_of(call.tid())?).map_err(|_| Errno::SRCH)?;
    let sent = nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGXFSZ);
    if let Err(errno) = sent {
        tracing::debug!(process, %errno, "SIGXFSZ not sent");
    }
    Err(Errno::FBIG.into())
}

/// The mode after a write by somebody who may not keep set-id bits, if it is another one:
/// `setattr_should_drop_suidgid` of `fs/attr.c`.
pub fn without_set_ids(who: &Credentials, stat: &Stat) -> Option<u32> {
    if who.capable(Capabilities::FSETID) {
        return None;
    }
    let mode = stat.mode & 0o7777;
    let mut kept = mode & !SETUID;
    if mode & 0o010 != 0 || !who.in_group(stat.gid) {
        kept &= !SETGID;
    }
    (kept != mode).then_some(kept)
}

/// `ftruncate(fd, length)`: the descriptor is a real file, open for writing or not; the kernel decides.
pub fn ftruncate(call: &Call) -> Outcome {
    let _ = call;
    Ok(Reply::Continue)
}

/// `utime(path, times)`: whole seconds.
pub fn utime(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let times = if call.raw(1) == 0 {
        NOW
    } else {
        let [access, modification] = numbers(call, call.raw(1))?;
        let second = |seconds: i64| SetTime::At(Timestamp { seconds, nanoseconds: 0 });
        (second(access), second(modification))
    };
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    set_times(call, &place, times)
}

/// `utimes(path, times)`: microseconds.
pub fn utimes(call: &Call) -> Outcome {
    microseconds(call, libc::AT_FDCWD, 0)
}

/// `futimesat(dirfd, path, times)`: microseconds.
pub fn futimesat(call: &Call) -> Outcome {
    microseconds(call, call.i32(0), 1)
}

fn microseconds(call: &Call, dirfd: i32, path: usize) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let times = if call.raw(path + 1) == 0 {
        NOW
    } else {
        let [access, access_micro, modification, modification_micro] = numbers(call, call.raw(path + 1))?;
        (microsecond(access, access_micro)?, microsecond(modification, modification_micro)?)
    };
    let place = if path == 1 && call.raw(1) == 0 {
        opened(call)?
    } else {
        let text = call.path(path)?;
        call.object(dirfd, &text, Last::Follow)?
    };
    set_times(call, &place, times)
}

fn microsecond(seconds: i64, micro: i64) -> Result<SetTime> {
    let micro = u32::try_from(micro).ok().filter(|m| *m < 1_000_000).ok_or(Errno::INVAL)?;
    Ok(SetTime::At(Timestamp { seconds, nanoseconds: micro * 1000 }))
}

/// Reads the numbers of a structure of times: signed, and as long as the form of the call has them.
fn numbers<const N: usize>(call: &Call, address: u64) -> Result<[i64; N]> {
    let is_short = matches!(call.request.abi, Abi::I386(Form::First | Form::Narrow));
    let mut bytes = vec![0; N * if is_short { 4 } else { 8 }];
    crate::guest::read_exact(call.tid(), address, &mut bytes)?;
    let mut out = [0; N];
    for (index, number) in out.iter_mut().enumerate() {
        *number = if is_short {
            i32::from_ne_bytes(bytes[4 * index..][..4].try_into().unwrap_or_default()).into()
        } else {
            i64::from_ne_bytes(bytes[8 * index..][..8].try_into().unwrap_or_default())
        };
    }
    Ok(out)
}

const NOW: (SetTime, SetTime) = (SetTime::Now, SetTime::Now);

/// `utimensat(dirfd, path, times, flags)`.
pub fn utimensat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    // The path is walked before the times are judged: fs/utimes.c, vfs_utimes.
    let times = if call.raw(2) == 0 {
        Ok(NOW)
    } else {
        let [access, mut access_nano, modification, mut modification_nano] = numbers(call, call.raw(2))?;
        if call.request.abi == Abi::I386(Form::Wide) {
            // Above the 32 bits of such a program's `long` is padding: get_timespec64 of kernel/time/time.c.
            access_nano &= 0xffff_ffff;
            modification_nano &= 0xffff_ffff;
        }
        nanosecond(access, access_nano).and_then(|atime| Ok((atime, nanosecond(modification, modification_nano)?)))
    };
    // Both times kept: nothing else is checked.
    if times == Ok((SetTime::Keep, SetTime::Keep)) {
        return DONE;
    }
    let flags = call.u32(3);
    let place = if call.raw(1) == 0 && call.i32(0) != libc::AT_FDCWD {
        // do_utimes_fd of fs/utimes.c
        if flags != 0 {
            return Err(Errno::INVAL.into());
        }
        opened(call)?
    } else {
        find(call, call.i32(0), 1, flags)?
    };
    set_times(call, &place, times?)
}

fn nanosecond(seconds: i64, nano: i64) -> Result<SetTime> {
    const UTIME_NOW: i64 = 0x3fff_ffff;
    const UTIME_OMIT: i64 = 0x3fff_fffe;
    match nano {
        UTIME_NOW => Ok(SetTime::Now),
        UTIME_OMIT => Ok(SetTime::Keep),
        nano => {
            let nano = u32::try_from(nano).ok().filter(|n| *n < 1_000_000_000).ok_or(Errno::INVAL)?;
            Ok(SetTime::At(Timestamp { seconds, nanoseconds: nano }))
        }
    }
}

/// `vfs_utimes` of `fs/utimes.c`: the present may be set by who may write, any other time by the owner.
fn set_times(call: &Call, place: &Location, (atime, mtime): (SetTime, SetTime)) -> Outcome {
    writable(place)?;
    if !place.inode.kernel_checks() {
        let stat = place.inode.stat()?;
        let who = call.credentials();
        let owner = who.uid.fs == stat.uid || who.capable_over(Capabilities::FOWNER, &stat);
        if !owner {
            if (atime, mtime) != NOW {
                return Err(Errno::PERM.into());
            }
            permitted(call, place, Access::WRITE)?;
        }
    }
    change(call, place, &SetAttr { atime, mtime, ..SetAttr::default() })
}

/// `file_getattr(dirfd, path, attributes, size, flags)`: as on a file system without such attributes.
pub fn file_getattr(call: &Call) -> Outcome {
    without_attributes(call)
}

/// `file_setattr(dirfd, path, attributes, size, flags)`: as [`file_getattr`].
pub fn file_setattr(call: &Call) -> Outcome {
    without_attributes(call)
}

fn without_attributes(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    find(call, call.i32(0), 1, call.u32(4))?;
    Err(Errno::OPNOTSUPP.into())
}
