//! open, openat, openat2, creat. Knows nothing of what trees are made of.

use rustix::fs::OFlags;
use umvu_interface::{Errno, FileKind, Result};

use crate::call::{Call, Outcome, Reply};
use crate::handlers::open_object::{give, open_place, How};
use crate::handlers::tree::{self, creatable};
use crate::mount::Location;
use crate::protected;
use crate::resolve::{Last, LastComponent, Lookup, ResolveFlags, TrailingSlash};

pub use crate::handlers::open_object::{give_path, give_placeholder, permitted};

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

/// `O_LARGEFILE`, as the kernel has it.
pub const LARGE_FILE: OFlags = OFlags::from_bits_retain(0o100_000);

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
        | LARGE_FILE
        | OFlags::DIRECTORY
        | OFlags::NOFOLLOW
        | OFlags::NOATIME
        | OFlags::CLOEXEC
        | OFlags::PATH
        | OFlags::TMPFILE
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
        Lookup::Entry { directory, found } => return open_existing(call, &directory, &found, how, path),
        Lookup::AtParent { directory, last, slash } => {
            let name = match last {
                LastComponent::Name(name) => name,
                LastComponent::TooLong => return Err(Errno::NAMETOOLONG.into()),
                LastComponent::Dot | LastComponent::DotDot | LastComponent::Root => {
                    let exclusive = how.flags.contains(OFlags::EXCL);
                    return Err(if exclusive { Errno::EXIST } else { Errno::ISDIR }.into());
                }
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
        Ok(existing) => open_existing(call, &directory, &existing, how, path),
        Err(Errno::NOENT) => {
            creatable(call, &directory)?;
            let mode = tree::creation_mode(call, &directory, how.mode)?;
            let flags = how.flags & !(OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::TRUNC);
            let made = call.as_caller(|caller| directory.inode.create_open(caller, &name, mode, flags));
            match made {
                Ok((_, opened)) => give(call, &directory, opened, how),
                // Somebody was faster.
                Err(Errno::EXIST) if !how.flags.contains(OFlags::EXCL) => {
                    open_existing(call, &directory, &tree::child(call, &directory, &name)?, how, path)
                }
                Err(errno) => Err(errno.into()),
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Opens what an open that would create has found: `do_open` of `fs/namei.c`.
fn open_existing(call: &Call, directory: &Location, place: &Location, how: How, path: &[u8]) -> Outcome {
    if place.inode.kind()? == FileKind::Directory {
        return Err(Errno::ISDIR.into());
    }
    protected::may_open_to_create(&call.credentials(), &directory.inode, &place.inode)?;
    open_place(call, place, how, path)
}

fn tmpfile(call: &Call, place: &Location, how: How) -> Outcome {
    if place.inode.kind()? != FileKind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    creatable(call, place)?;
    let mode = tree::creation_mode(call, place, how.mode)?;
    let opened = call.as_caller(|caller| place.inode.tmpfile(caller, mode, how.flags))?;
    give(call, place, opened, how)
}
