//! inotify and fanotify: watches on objects of the view.

use std::os::fd::AsFd;

use umvu_interface::Errno;

use crate::call::{Call, Outcome, Reply};
use crate::resolve::Last;

/// `inotify_add_watch(fd, path, mask)`: the watch is put on the object of the host that stands behind the path.
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
    let fd = place.inode.host_fd().ok_or(Errno::NOENT)?;
    call.check_alive()?;
    // The link in /proc is followed to the object itself, also where that is a symbolic link.
    let mask = mask & !(WatchFlags::DONT_FOLLOW | WatchFlags::ONLYDIR);
    let watch = add_watch(instance.as_fd(), crate::guest::proc_path(fd), mask)?;
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
    let fd = place.inode.host_fd().ok_or(Errno::NOENT)?;
    call.check_alive()?;
    umvu_sys::file::fanotify_mark(group.as_fd(), flags & !DONT_FOLLOW, call.raw(2), &crate::guest::proc_path(fd))?;
    Ok(Reply::Value(0))
}
