//! open, openat, openat2, creat, name_to_handle_at. Knows nothing of what trees are made of.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use umvu_interface::{may_access, Access, Capabilities, Errno, FileKind, MountFlags, Opened, Result, SetAttr};
use umvu_sys::seccomp::CloseOnExec;

use crate::call::{Call, Fail, Outcome, Reply};
use crate::fs::proc::{text, ProcInode};
use crate::handlers::attribute::without_set_ids;
use crate::handlers::fifo;
use crate::handlers::tree::{self, creatable};
use crate::mount::{Location, MountKind};
use crate::resolve::{Last, LastComponent, Lookup, ResolveFlags, TrailingSlash};

/// `open(path, flags, mode)`.
pub fn open(call: &Call) -> Outcome {
    old_form(call, libc::AT_FDCWD, 0, call.u32(1), call.u32(2))
}

/// `creat(path, mode)`.
pub fn creat(call: &Call) -> Outcome {
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
    old_form(call, libc::AT_FDCWD, 0, flags.bits(), call.u32(1))
}

/// `openat(dirfd, path, flags, mode)`.
pub fn openat(call: &Call) -> Outcome {
    old_form(call, call.i32(0), 1, call.u32(2), call.u32(3))
}

/// The forms that ignore flags they do not know: `build_open_how` of `fs/open.c`.
fn old_form(call: &Call, dirfd: i32, path: usize, flags: u32, mode: u32) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let mut flags = OFlags::from_bits_retain(flags) & known();
    if flags.contains(OFlags::PATH) {
        flags &= OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
    }
    let creates = flags.intersects(OFlags::CREATE.union(UNNAMED));
    let how = How { flags, mode: if creates { mode & 0o7777 } else { 0 }, resolve: ResolveFlags::empty() };
    do_open(call, dirfd, &call.path(path)?, how)
}

/// `openat2(dirfd, path, how, size)`.
pub fn openat2(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let size = call.raw(3);
    if size < 24 {
        return Err(Errno::INVAL.into());
    }
    if size > 4096 {
        return Err(Errno::TOOBIG.into());
    }
    let bytes = crate::guest::read_some(call.tid(), call.raw(2), usize::try_from(size).unwrap_or(4096))?;
    if (bytes.len() as u64) < size {
        return Err(Errno::FAULT.into());
    }
    if bytes[24..].iter().any(|b| *b != 0) {
        return Err(Errno::TOOBIG.into());
    }
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    let how = strict(word(0), word(8), word(16))?;
    do_open(call, call.i32(0), &call.path(1)?, how)
}

/// The checks of openat2, which refuses what it does not know: `build_open_flags` of `fs/open.c`.
fn strict(flags: u64, mode: u64, resolve: u64) -> Result<How> {
    let flags = u32::try_from(flags).map(OFlags::from_bits_retain).map_err(|_| Errno::INVAL)?;
    if !known().contains(flags) {
        return Err(Errno::INVAL);
    }
    let resolve = ResolveFlags::from_bits(resolve).ok_or(Errno::INVAL)?;
    if resolve.contains(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT) {
        return Err(Errno::INVAL);
    }
    let creates = flags.intersects(OFlags::CREATE.union(UNNAMED));
    if creates {
        if mode & !0o7777 != 0 {
            return Err(Errno::INVAL);
        }
    } else if mode != 0 {
        return Err(Errno::INVAL);
    }
    check_kind(flags)?;
    let path_only = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
    if flags.contains(OFlags::PATH) && !path_only.contains(flags) {
        return Err(Errno::INVAL);
    }
    // Nobody waits for a disk here but the supervisor, so what only looks for names is done at once.
    let changes = flags.intersects(OFlags::TRUNC.union(OFlags::CREATE).union(UNNAMED));
    if resolve.contains(ResolveFlags::CACHED) && changes {
        return Err(Errno::AGAIN);
    }
    let resolve = resolve - ResolveFlags::CACHED;
    Ok(How { flags, mode: u32::try_from(mode).unwrap_or(0), resolve })
}

/// `VALID_OPEN_FLAGS` of the kernel; `FASYNC` and `O_LARGEFILE` have no names in rustix.
fn known() -> OFlags {
    OFlags::ACCMODE
        | OFlags::CREATE
        | OFlags::EXCL
        | OFlags::NOCTTY
        | OFlags::TRUNC
        | OFlags::APPEND
        | OFlags::NONBLOCK
        | OFlags::SYNC
        | OFlags::DSYNC
        | OFlags::from_bits_retain(0o20_000)
        | OFlags::DIRECT
        | OFlags::from_bits_retain(0o100_000)
        | OFlags::DIRECTORY
        | OFlags::NOFOLLOW
        | OFlags::NOATIME
        | OFlags::CLOEXEC
        | OFlags::PATH
        | OFlags::TMPFILE
}

/// What is asked of an open.
#[derive(Clone, Copy)]
struct How {
    flags: OFlags,
    /// Mode of a new file, before the umask.
    mode: u32,
    resolve: ResolveFlags,
}

impl How {
    fn path(close_on_exec: CloseOnExec) -> Self {
        let cloexec = if close_on_exec == CloseOnExec::Yes { OFlags::CLOEXEC } else { OFlags::empty() };
        Self { flags: OFlags::PATH | cloexec, mode: 0, resolve: ResolveFlags::empty() }
    }

    fn close_on_exec(&self) -> CloseOnExec {
        if self.flags.contains(OFlags::CLOEXEC) {
            CloseOnExec::Yes
        } else {
            CloseOnExec::No
        }
    }

    fn wants(&self) -> Access {
        let mut want = match self.flags & OFlags::ACCMODE {
            OFlags::RDONLY => Access::READ,
            OFlags::WRONLY => Access::WRITE,
            _ => Access::READ | Access::WRITE,
        };
        if self.flags.contains(OFlags::TRUNC) {
            want |= Access::WRITE;
        }
        want
    }
}

/// `__O_TMPFILE`: `O_TMPFILE` without the `O_DIRECTORY` in it.
const UNNAMED: OFlags = OFlags::TMPFILE.difference(OFlags::DIRECTORY);

/// Flags that exclude each other: `build_open_flags` of `fs/open.c`.
fn check_kind(flags: OFlags) -> Result<()> {
    if flags.contains(OFlags::CREATE | OFlags::DIRECTORY) {
        return Err(Errno::INVAL);
    }
    let writes = (flags & OFlags::ACCMODE) != OFlags::RDONLY;
    if flags.contains(UNNAMED) && !(flags.contains(OFlags::DIRECTORY) && writes) {
        return Err(Errno::INVAL);
    }
    Ok(())
}

fn do_open(call: &Call, dirfd: i32, path: &[u8], how: How) -> Outcome {
    check_kind(how.flags)?;
    let is_tmpfile = how.flags.contains(UNNAMED);
    call.check_alive()?;
    if how.flags.contains(OFlags::CREATE) {
        return create_or_open(call, dirfd, path, how);
    }
    let last = if how.flags.contains(OFlags::NOFOLLOW) { Last::NoFollow } else { Last::Follow };
    let Lookup::Found(place) = call.resolve(dirfd, path, last, how.resolve)? else {
        return Err(Errno::NOENT.into());
    };
    if is_tmpfile {
        return tmpfile(call, &place, how);
    }
    open_place(call, &place, how, path)
}

fn create_or_open(call: &Call, dirfd: i32, path: &[u8], how: How) -> Outcome {
    let exclusive = how.flags.intersects(OFlags::EXCL | OFlags::NOFOLLOW);
    let last = if exclusive { Last::Parent } else { Last::ParentFollow };
    let (directory, name) = match call.resolve(dirfd, path, last, how.resolve)? {
        Lookup::Found(place) => {
            if path.last() == Some(&b'/') || place.inode.kind()? == FileKind::Directory {
                return Err(Errno::ISDIR.into());
            }
            return open_place(call, &place, how, path);
        }
        Lookup::AtParent { directory, last, slash } => {
            let LastComponent::Name(name) = last else {
                let exclusive = how.flags.contains(OFlags::EXCL);
                return Err(if exclusive { Errno::EXIST } else { Errno::ISDIR }.into());
            };
            if slash == TrailingSlash::Yes {
                return Err(Errno::ISDIR.into());
            }
            (directory, name)
        }
    };
    tree::search(call, &directory)?;
    match tree::child(call, &directory, &name) {
        Ok(_) if how.flags.contains(OFlags::EXCL) => Err(Errno::EXIST.into()),
        Ok(existing) => open_existing(call, &existing, how, path),
        Err(Errno::NOENT) => {
            creatable(call, &directory)?;
            let mode = tree::creation_mode(call, &directory, how.mode)?;
            let flags = how.flags & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::TRUNC);
            let made = call.as_caller(|caller| directory.inode.create_open(caller, &name, mode, flags));
            match made {
                Ok((_, opened)) => hand_out(&directory, opened, how),
                // Somebody was faster.
                Err(Errno::EXIST) if !how.flags.contains(OFlags::EXCL) => {
                    open_existing(call, &tree::child(call, &directory, &name)?, how, path)
                }
                Err(errno) => Err(errno.into()),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

fn open_existing(call: &Call, place: &Location, how: How, path: &[u8]) -> Outcome {
    if place.inode.kind()? == FileKind::Directory {
        return Err(Errno::ISDIR.into());
    }
    open_place(call, place, how, path)
}

fn tmpfile(call: &Call, place: &Location, how: How) -> Outcome {
    if place.inode.kind()? != FileKind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    creatable(call, place)?;
    let mode = tree::creation_mode(call, place, how.mode)?;
    let opened = call.as_caller(|caller| place.inode.tmpfile(caller, mode, how.flags))?;
    hand_out(place, opened, how)
}

/// Opens what is there: the checks of `may_open` and `do_open` in `fs/namei.c`, in their order.
fn open_place(call: &Call, place: &Location, how: How, path: &[u8]) -> Outcome {
    let kind = place.inode.kind()?;
    let flags = how.flags;
    if flags.contains(OFlags::DIRECTORY) && kind != FileKind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    if flags.contains(OFlags::PATH) {
        return open_path(call, place, how, kind);
    }
    let want = how.wants();
    match kind {
        FileKind::Symlink => return Err(Errno::LOOP.into()),
        FileKind::Directory if want.contains(Access::WRITE) => return Err(Errno::ISDIR.into()),
        FileKind::CharDevice | FileKind::BlockDevice
            if place.mount.kind == MountKind::Tree && place.mount.flags().contains(MountFlags::NO_DEV) =>
        {
            return Err(Errno::ACCESS.into());
        }
        _ => {}
    }
    permitted(call, place, want)?;
    if flags.contains(OFlags::NOATIME) && !place.inode.kernel_checks() {
        let stat = place.inode.stat()?;
        let who = call.credentials();
        if who.uid.fs != stat.uid && !who.capable(Capabilities::FOWNER) {
            return Err(Errno::PERM.into());
        }
    }
    let writes = want.contains(Access::WRITE) && kind == FileKind::Regular;
    if writes && place.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS.into());
    }
    match kind {
        FileKind::Socket => return Err(Errno::NXIO.into()),
        FileKind::Directory => return open_directory(call, place, how),
        FileKind::CharDevice if is_own_terminal(place, path)? => return Ok(Reply::Continue),
        _ => {}
    }
    if let (Some(proc), false) = (place.inode.as_any().downcast_ref::<ProcInode>(), want.contains(Access::WRITE)) {
        if let Some(text) = text::of(call, proc)? {
            return Ok(Reply::Descriptor(text::readable(proc, &text)?, how.close_on_exec()));
        }
    }
    let truncates = writes && flags.contains(OFlags::TRUNC);
    let strips = if truncates { stripped_mode(call, place)? } else { None };
    let flags = flags & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::DIRECTORY);
    if kind == FileKind::Fifo && fifo::waits(flags) {
        return fifo::open(place, flags, move |place, opened| hand_out(place, opened, how));
    }
    let opened = call.as_caller(|caller| place.inode.open(caller, flags))?;
    if strips.is_some() {
        let change = SetAttr { mode: strips, ..SetAttr::default() };
        call.as_caller(|caller| place.inode.set_attr(caller, &change))?;
    }
    hand_out(place, opened, how)
}

/// The mode without the set-id bits that a truncation by a faked identity takes away: `do_truncate` of `fs/open.c`.
fn stripped_mode(call: &Call, place: &Location) -> Result<Option<u32>> {
    let who = call.credentials();
    if place.inode.kernel_checks() || who.capable(Capabilities::FSETID) {
        return Ok(None);
    }
    Ok(without_set_ids(&who, &place.inode.stat()?))
}

/// A terminal that could become the caller's controlling one must be opened by the caller itself, and
/// `/dev/tty` is a different one for everybody: such a call is continued where the path means the same to the
/// kernel. No permission hangs on the path that was read, so a change of it in between gains nothing.
fn is_own_terminal(place: &Location, path: &[u8]) -> Result<bool> {
    let major = rustix::fs::major(place.inode.stat()?.rdev);
    if !matches!(major, 4 | 5 | 136..=143) || path.first() != Some(&b'/') {
        return Ok(false);
    }
    let Some(fd) = place.inode.host_fd() else { return Ok(false) };
    let ours = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::stat(path).is_ok_and(|host| (host.st_dev, host.st_ino) == (ours.st_dev, ours.st_ino)))
}

/// Gives the guest an `O_PATH` descriptor of a place.
pub fn give_path(call: &Call, place: &Location, close_on_exec: CloseOnExec) -> Outcome {
    open_path(call, place, How::path(close_on_exec), place.inode.kind()?)
}

/// Gives the guest an `O_PATH` placeholder of a place.
pub fn give_placeholder(call: &Call, place: &Location, fd: OwnedFd, close_on_exec: CloseOnExec) -> Outcome {
    hand_over_path(call, place, fd, How::path(close_on_exec))
}

fn open_path(call: &Call, place: &Location, how: How, kind: FileKind) -> Outcome {
    if place.mount.kind != MountKind::Tree || kind != FileKind::Directory {
        if let Some(fd) = place.inode.host_fd() {
            return hand_over_path(call, place, rustix::io::fcntl_dupfd_cloexec(fd, 0)?, how);
        }
    }
    let fd = call.supervisor.placeholders.make(place.clone(), how.flags)?;
    hand_over_path(call, place, fd, how)
}

fn hand_over_path(call: &Call, place: &Location, fd: OwnedFd, how: How) -> Outcome {
    match crate::redirect::hand_over_path(call, fd, how.close_on_exec()) {
        // Traced by somebody else: a descriptor that stands for the object, but is not O_PATH by its flags.
        Err(Fail::Errno(Errno::PERM)) => {
            let fd = call.supervisor.placeholders.make(place.clone(), OFlags::empty())?;
            Ok(Reply::Descriptor(fd, how.close_on_exec()))
        }
        other => other,
    }
}

fn open_directory(call: &Call, place: &Location, how: How) -> Outcome {
    if place.mount.kind == MountKind::Tree {
        let fd = call.supervisor.placeholders.make(place.clone(), how.flags)?;
        return Ok(Reply::Descriptor(fd, how.close_on_exec()));
    }
    let fd = place.inode.host_fd().ok_or(Errno::IO)?;
    let flags = (how.flags | OFlags::CLOEXEC | OFlags::DIRECTORY) & !(OFlags::NOFOLLOW | OFlags::CREATE);
    // Not by ".", which would need search permission.
    let fd = rustix::fs::open(crate::guest::proc_path(fd), flags, Mode::empty())?;
    Ok(Reply::Descriptor(fd, how.close_on_exec()))
}

/// Gives the guest a descriptor, marked with the mount it came through.
fn hand_out(place: &Location, opened: Opened, how: How) -> Outcome {
    let Opened::File(fd) = opened;
    let mark = place.mount.mark();
    if mark > 0 {
        umvu_sys::file::set_mark(fd.as_fd(), mark)?;
    }
    Ok(Reply::Descriptor(fd, how.close_on_exec()))
}

/// Checks access where the kernel's own check does not answer for it.
///
/// # Errors
/// - `EACCES`: not permitted.
pub fn permitted(call: &Call, place: &Location, want: Access) -> core::result::Result<(), Fail> {
    if place.inode.kernel_checks() {
        return Ok(());
    }
    let credentials = call.credentials();
    if credentials.is_faked() && credentials.capable(Capabilities::DAC_OVERRIDE) && !want.contains(Access::EXEC) {
        return Ok(());
    }
    Ok(may_access(&credentials, &place.inode.stat()?, want)?)
}

/// `name_to_handle_at(dirfd, path, handle, mount_id, flags)`.
pub fn name_to_handle_at(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    // A handle of the host would lead around the view; file systems without handles say the same.
    Err(Errno::OPNOTSUPP.into())
}
