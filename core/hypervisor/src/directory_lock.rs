//! Locks of flock(2) on directories that placeholders stand for. The kernel keeps such a lock with an inode, and each
//! placeholder has its own; so the supervisor locks something that all of one directory share, once for each open file
//! of a guest, and lets go when that is closed for the last time. Knows nothing of calls.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use umvu_host::HostInode;
use umvu_interface::Result;

use crate::mount::Location;

/// Device and inode number of a directory as guests see it.
type Key = (u64, u64);

/// What stands for directories that the host does not have.
pub struct Locks {
    /// The directory that their files are made in.
    place: OwnedFd,
    /// How many open files use each.
    used: Mutex<HashMap<Key, usize>>,
}

/// What one open file of a guest locks.
pub struct DirectoryLock {
    object: OwnedFd,
    made: Option<(Key, Arc<Locks>)>,
}

impl Locks {
    /// Makes none yet; their files will be in `place`.
    pub fn new(place: OwnedFd) -> Arc<Self> {
        Arc::new(Self { place, used: Mutex::default() })
    }

    /// Opens what stands for a directory: itself, where the host has it, so that the host's processes are excluded
    /// too.
    ///
    /// # Errors
    /// - `ENOSPC`, `EMFILE`, `ENFILE`: the host's.
    pub fn open(self: &Arc<Self>, location: &Location) -> Result<DirectoryLock> {
        if let Some(own) = location.inode.as_any().downcast_ref::<HostInode>() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(object) = rustix::fs::open(crate::guest::proc_path(own.fd()), flags, Mode::empty()) {
                return Ok(DirectoryLock { object, made: None });
            }
        }
        let key = location.inode.id()?;
        let mut used = self.used.lock();
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
        let object = rustix::fs::openat(&self.place, name_of(key), flags, Mode::RUSR)?;
        *used.entry(key).or_default() += 1;
        drop(used);
        Ok(DirectoryLock { object, made: Some((key, self.clone())) })
    }
}

impl DirectoryLock {
    /// Locks or unlocks as flock(2), waiting if it has to.
    ///
    /// # Errors
    /// - `EWOULDBLOCK`: somebody else has it, and the operation does not wait.
    /// - `EINTR`: our thread was interrupted.
    pub fn apply(&self, operation: FlockOperation) -> Result<()> {
        rustix::fs::flock(self.object.as_fd(), operation)
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let Some((key, locks)) = &self.made else { return };
        let mut used = locks.used.lock();
        let Some(count) = used.get_mut(key) else { return };
        *count -= 1;
        if *count == 0 {
            used.remove(key);
            // Whoever comes next makes another: nobody has this one.
            if let Err(errno) = rustix::fs::unlinkat(&locks.place, name_of(*key), AtFlags::empty()) {
                tracing::debug!(%errno, "a lock file stays until the end");
            }
        }
    }
}

fn name_of((dev, ino): Key) -> String {
    format!("l{dev:x}-{ino:x}")
}
