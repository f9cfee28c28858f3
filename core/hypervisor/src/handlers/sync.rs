//! fsync, sync and the like: what guests have written reaches the file systems that are told late. Knows nothing of how
//! they write back.
//!
//! All of it may take long and may wait for guests, so it is done aside. The kernel does the same for its own files
//! afterwards.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use umvu_interface::{Errno, Filesystem};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::mount::Location;

/// The file systems of the caller's view that are told late, each once.
fn told_late(call: &Call) -> Vec<Arc<dyn Filesystem>> {
    let mut found: Vec<Arc<dyn Filesystem>> = Vec::new();
    if call.state.is_plain() {
        return found;
    }
    let table = call.table();
    for mount in table.mounts().iter().chain(table.detached()) {
        let is_known = |other: &Arc<dyn Filesystem>| Arc::ptr_eq(other, &mount.filesystem);
        if mount.filesystem.writes_back() && !found.iter().any(is_known) {
            found.push(mount.filesystem.clone());
        }
    }
    found
}

/// What the first argument, a descriptor, names, if that is in a file system that is told late.
fn place(call: &Call) -> Option<Location> {
    if told_late(call).is_empty() {
        return None;
    }
    // What is wrong with it the kernel says.
    let fd = call.take_fd(call.i32(0)).ok()?;
    if rustix::fs::fcntl_getfl(&fd).ok()?.contains(OFlags::PATH) {
        return None;
    }
    let stat = rustix::fs::fstat(&fd).ok()?;
    let is_ours = call.supervisor.placeholders.find(stat.st_dev, stat.st_ino).is_some()
        || umvu_sys::file::mark(fd.as_fd()).is_ok_and(|mark| mark > 0);
    let place = is_ours.then(|| call.supervisor.place_of(call, fd).ok()).flatten()?;
    place.mount.filesystem.writes_back().then_some(place)
}

/// `fsync(fd)`.
pub fn fsync(call: &Call) -> Outcome {
    let Some(place) = place(call) else { return Ok(Reply::Continue) };
    Ok(Reply::Aside(Box::new(move |_| {
        place.mount.filesystem.sync_object(&*place.inode)?;
        DONE
    })))
}

/// `fdatasync(fd)`: as [`fsync`].
pub fn fdatasync(call: &Call) -> Outcome {
    fsync(call)
}

/// `sync_file_range(fd, offset, length, flags)`: more than is asked for.
pub fn sync_file_range(call: &Call) -> Outcome {
    /// `SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER` of linux/fs.h.
    const KNOWN: u32 = 7;
    match call.u32(3) & !KNOWN {
        0 => fsync(call),
        _ => Ok(Reply::Continue),
    }
}

/// `syncfs(fd)`.
pub fn syncfs(call: &Call) -> Outcome {
    let Some(place) = place(call) else { return Ok(Reply::Continue) };
    Ok(Reply::Aside(Box::new(move |_| {
        place.mount.filesystem.sync()?;
        DONE
    })))
}

/// `sync()`.
pub fn sync(call: &Call) -> Outcome {
    let filesystems = told_late(call);
    if filesystems.is_empty() {
        return Ok(Reply::Continue);
    }
    Ok(Reply::Aside(Box::new(move |_| {
        for filesystem in filesystems {
            // sync(2) never fails.
            if let Err(errno) = filesystem.sync() {
                tracing::warn!(%errno, "a file system was not synchronised");
            }
        }
        Ok(Reply::Continue)
    })))
}

/// `msync(address, length, flags)` with `MS_SYNC`: the mapped files, whole.
pub fn msync(call: &Call) -> Outcome {
    let filesystems = told_late(call);
    if filesystems.is_empty() {
        return Ok(Reply::Continue);
    }
    let (start, length) = (call.raw(0), call.raw(1));
    Ok(Reply::Aside(Box::new(move |call| {
        for path in mapped(call.tid(), start, start.saturating_add(length)) {
            for filesystem in filesystems.iter().filter(|filesystem| filesystem.is_own_host_path(&path)) {
                let Some(inside) = filesystem.path_of_host(&path) else { continue };
                match filesystem.root().lookup_path(&inside) {
                    Ok(inode) => filesystem.sync_object(&*inode)?,
                    // A file without a name needs no storage.
                    Err(Errno::NOENT) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(Reply::Continue)
    })))
}

/// The host's paths of the files that are mapped, to be shared, between two addresses.
fn mapped(tid: u32, start: u64, end: u64) -> Vec<Vec<u8>> {
    let maps = std::fs::read(format!("/proc/{tid}/maps")).unwrap_or_default();
    maps.split(|byte| *byte == b'\n').filter_map(|line| mapped_in(line, start, end)).collect()
}

/// The path in a line of proc_pid_maps(5).
fn mapped_in(line: &[u8], start: u64, end: u64) -> Option<Vec<u8>> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let (from, to) = text(fields.next()?)?.split_once('-')?;
    let overlaps = u64::from_str_radix(from, 16).ok()? < end && start < u64::from_str_radix(to, 16).ok()?;
    let is_shared = fields.next()?.get(3) == Some(&b's');
    let rest = fields.next()?;
    let path = rest.iter().position(|byte| *byte == b'/')?;
    (overlaps && is_shared).then(|| rest[path..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::mapped_in;

    #[test]
    fn shared_mappings_in_the_range_are_found() {
        let line = b"7f0000001000-7f0000003000 rw-s 00000000 08:01 123                        /a/b c";
        assert_eq!(mapped_in(line, 0x7f00_0000_2000, 0x7f00_0000_2001), Some(b"/a/b c".to_vec()));
        assert_eq!(mapped_in(line, 0x7f00_0000_3000, 0x7f00_0000_4000), None);
        let private = b"7f0000001000-7f0000003000 rw-p 00000000 08:01 123                        /a/b c";
        assert_eq!(mapped_in(private, 0, u64::MAX), None);
        assert_eq!(mapped_in(b"", 0, u64::MAX), None);
    }
}
