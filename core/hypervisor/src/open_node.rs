//! Opened device nodes of the view. The descriptor is one of the host's own device, which knows nothing of the node;
//! the byte of it that is locked says which open it was. Knows no device.
//!
//! The kernel shows the locks of a descriptor in `fdinfo`, and all there are in `/proc/locks`: proc(5). Nobody else has
//! a reason to lock a byte so far out; who locks a whole device finds it locked.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use umvu_interface::FileKind;

use crate::mount::Location;

/// How many are remembered before those that were closed are looked for.
const FEW: usize = 64;

/// As many may be remembered: what is opened after them is the host's device.
const MOST: usize = 1 << 16;

/// The open ones, by the offset of the byte that is locked.
pub struct OpenNodes {
    nodes: DashMap<i64, Location>,
    /// The next offset: no other supervisor begins where this one does.
    next: AtomicI64,
    /// Held from taking a lock to remembering it, and while those without one are forgotten.
    changing: Mutex<()>,
    /// At how many the closed ones are looked for again.
    collect_at: AtomicUsize,
}

impl Default for OpenNodes {
    fn default() -> Self {
        // Process numbers have 22 bits at most, which leaves a sign and 40 bits.
        let first = (1 << 62) | (i64::from(std::process::id()) << 40);
        Self {
            nodes: DashMap::new(),
            next: AtomicI64::new(first),
            changing: Mutex::default(),
            collect_at: AtomicUsize::new(FEW),
        }
    }
}

impl OpenNodes {
    /// Remembers which node was opened, unless the descriptor is one of the node itself.
    pub fn remember(&self, place: &Location, fd: BorrowedFd<'_>) {
        let Ok(opened) = rustix::fs::fstat(fd) else { return };
        let own = place.inode.host_fd().and_then(|own| rustix::fs::fstat(own).ok());
        let is_own = own.is_some_and(|own| (own.st_dev, own.st_ino) == (opened.st_dev, opened.st_ino));
        if is_own || !is_device(&opened) {
            return;
        }
        let _changing = self.changing.lock();
        if self.nodes.len() >= self.collect_at.load(Ordering::Relaxed) {
            self.collect();
            self.collect_at.store((self.nodes.len() * 2).max(FEW), Ordering::Relaxed);
        }
        if self.nodes.len() >= MOST {
            return;
        }
        let offset = self.next.fetch_add(1, Ordering::Relaxed);
        match umvu_sys::file::lock_byte(fd, offset) {
            Ok(()) => drop(self.nodes.insert(offset, place.clone())),
            Err(errno) => tracing::debug!(%errno, "an opened node is shown as the host's"),
        }
    }

    /// Finds the node that a descriptor with this `stat` was opened as.
    pub fn find(&self, fd: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> Option<Location> {
        if !is_device(stat) || self.nodes.is_empty() {
            return None;
        }
        let text = std::fs::read(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
        let mut offsets = text.split(|b| *b == b'\n').filter(|line| line.starts_with(b"lock:")).filter_map(offset_of);
        offsets.find_map(|offset| self.nodes.get(&offset).map(|place| place.clone()))
    }

    /// Whether one of a mount is open.
    pub fn any_in(&self, mount: u64) -> bool {
        if self.nodes.iter().any(|place| place.mount.id == mount) {
            let _changing = self.changing.lock();
            self.collect();
        }
        self.nodes.iter().any(|place| place.mount.id == mount)
    }

    /// Forgets those that were closed.
    fn collect(&self) {
        let Ok(text) = std::fs::read("/proc/locks") else { return };
        let held: HashSet<i64> = text.split(|b| *b == b'\n').filter_map(offset_of).collect();
        self.nodes.retain(|offset, _| held.contains(offset));
    }

    /// Forgets all of them: no guest is left.
    pub fn forget_all(&self) {
        self.nodes.clear();
    }
}

/// The offset in a line that describes a lock of one byte: `lock_get_status` of `fs/locks.c`.
fn offset_of(line: &[u8]) -> Option<i64> {
    let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty()).rev();
    let (end, start) = (fields.next()?, fields.next()?);
    (start == end).then(|| std::str::from_utf8(start).ok()?.parse().ok())?
}

fn is_device(stat: &rustix::fs::Stat) -> bool {
    matches!(FileKind::from_mode(stat.st_mode), Some(FileKind::CharDevice | FileKind::BlockDevice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offset_of_a_lock_is_read_where_it_is_one_byte() {
        assert_eq!(offset_of(b"lock:\t1: OFDLCK ADVISORY  READ -1 00:06:3 12345679 12345679"), Some(12_345_679));
        assert_eq!(offset_of(b"3: FLOCK  ADVISORY  WRITE 17876 fe:00:3424288 0 EOF"), None);
        assert_eq!(offset_of(b"mnt_id:\t24"), None);
        assert_eq!(offset_of(b""), None);
    }
}
