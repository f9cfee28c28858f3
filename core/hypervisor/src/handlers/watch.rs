//! inotify and fanotify: a watch is put on the object of the host that stands behind the path.
//!
//! A directory of a union is first made one of the upper layer: what guests change is made there, and nothing would
//! be told of it otherwise. What others change in the lower one is not told then, nor are changes told under the
//! name that a guest gives them where a union makes them otherwise: a file that is copied up is moved in, a whiteout
//! is created. A file is watched where it is: whoever has it open reads it there, too.

use std::os::fd::{AsFd, OwnedFd};

use umvu_interface::{Access, Errno, FileKind, Result};

use crate::call::{Call, Outcome, Reply};
use crate::handlers::open::permitted;
use crate::mount::Location;
use crate::resolve::Last;

/// The object of the host that changes when the view's does.
fn watched(call: &Call, place: &Location) -> Result<OwnedFd> {
    if place.inode.kind()? == FileKind::Directory {
        if let Err(errno) = call.as_caller(|caller| place.inode.make_writable(caller)) {
            tracing::debug!(tid = call.tid(), %errno, "watched directory stays in its layer");
        }
    }
    rustix::io::fcntl_dupfd_cloexec(place.inode.host_fd().ok_or(Errno::NOENT)?, 0)
}

/// `inotify_add_watch(fd, path, mask)`.
pub fn inotify_add_watch(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    use rustix::fs::inotify::{add_watch, WatchFlags};
    let mask = WatchFlags::from_bits_retain(call.u32(2));
    let text = call.path(1)?;
    let instance = call.take_fd(call.i32(0))?;
    let last = if mask.contains(WatchFlags::DONT_FOLLOW) { Last::NoFollow } else { Last::Follow };
    let place = call.object(libc::AT_FDCWD, &text, last)?;
    if mask.contains(WatchFlags::ONLYDIR) && !place.inode.stat()?.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    permitted(call, &place, Access::READ)?;
    call.check_alive()?;
    let fd = watched(call, &place)?;
    // The link in /proc is followed to the object itself, also where that is a symbolic link.
    let mask = mask & !(WatchFlags::DONT_FOLLOW | WatchFlags::ONLYDIR);
    let watch = add_watch(instance.as_fd(), crate::guest::proc_path(fd.as_fd()), mask)?;
    Ok(Reply::Value(i64::from(watch)))
}

/// `fanotify_mark(fd, flags, mask, dirfd, path)`: needs a group of fanotify, which an ordinary user's kernel gives
/// for single objects only.
pub fn fanotify_mark(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    use crate::call::EmptyPath;
    const DONT_FOLLOW: u32 = 4;
    let group = call.take_fd(call.i32(0))?;
    let flags = call.u32(1);
    let text = if call.raw(4) == 0 { Vec::new() } else { call.path(4)? };
    let last = if flags & DONT_FOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let empty = if call.raw(4) == 0 { EmptyPath::Allowed } else { EmptyPath::Refused };
    let place = call.object_at(call.i32(3), &text, last, empty)?;
    call.check_alive()?;
    let fd = watched(call, &place)?;
    umvu_sys::file::fanotify_mark(
        group.as_fd(),
        flags & !DONT_FOLLOW,
        call.raw(2),
        &crate::guest::proc_path(fd.as_fd()),
    )?;
    Ok(Reply::Value(0))
}
