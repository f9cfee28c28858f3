//! The backings: where they lie, which there are, and which go when they take too much place. Knows nothing of what is in
//! them.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use umvu_backing::Private;
use umvu_interface::{Errno, Result};

use crate::entry::Entry;

/// As many backings at most, whatever their size.
const MOST: usize = 1 << 16;

/// A backing that is there.
struct Held {
    /// By which name it was opened last; keeps the object alive.
    entry: Arc<Entry>,
    /// What it takes on the host's disk.
    bytes: u64,
    /// When it was used last, by the count of uses.
    used: u64,
}

/// All backings of a file system.
pub struct Shelf {
    private: OnceLock<Private>,
    held: Mutex<HashMap<u64, Held>>,
    bytes: AtomicU64,
    uses: AtomicU64,
    limit: u64,
}

impl Shelf {
    /// Makes an empty one that takes no more than `limit` bytes as long as it can.
    pub fn new(limit: u64) -> Self {
        Self {
            private: OnceLock::new(),
            held: Mutex::default(),
            bytes: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            limit,
        }
    }

    /// The directory, which is made by the first who needs it.
    fn private(&self) -> Result<&Private> {
        if let Some(private) = self.private.get() {
            return Ok(private);
        }
        let made = Private::new().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(self.private.get_or_init(|| made))
    }

    /// Opens the backing of an object.
    pub fn open(&self, serial: u64, flags: OFlags) -> Result<OwnedFd> {
        let mode = Mode::RWXU;
        rustix::fs::openat(self.private()?.fd(), serial.to_string(), flags | OFlags::CLOEXEC | OFlags::NOCTTY, mode)
    }

    /// Makes a FIFO that stands for an object, if there is none yet.
    pub fn make_fifo(&self, serial: u64) -> Result<()> {
        let private = self.private()?;
        match rustix::fs::mknodat(private.fd(), serial.to_string(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
    }

    /// Tells the metadata of a backing.
    pub fn stat(&self, serial: u64) -> Result<rustix::fs::Stat> {
        rustix::fs::statat(self.private()?.fd(), serial.to_string(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Does something with the directory and the name of a backing in it.
    pub fn at<T>(&self, serial: u64, body: impl FnOnce(&OwnedFd, String) -> Result<T>) -> Result<T> {
        body(self.private()?.fd(), serial.to_string())
    }

    /// The path of a backing on the host.
    pub fn path(&self, serial: u64) -> Result<std::path::PathBuf> {
        Ok(self.private()?.path().join(serial.to_string()))
    }

    /// Finds the number of the object whose backing has a path on the host.
    pub fn number_of(&self, host_path: &[u8]) -> Option<u64> {
        self.private.get()?.number_of(host_path)
    }

    /// Whether a path of the host leads to a backing.
    pub fn holds(&self, host_path: &[u8]) -> bool {
        self.private.get().is_some_and(|private| private.holds(host_path))
    }

    /// Takes note of a backing, or of a use of it.
    pub fn keep(&self, entry: &Arc<Entry>) {
        let used = self.uses.fetch_add(1, Ordering::Relaxed);
        let mut held = self.held.lock();
        let former = match held.get_mut(&entry.node.serial) {
            Some(kept) => {
                kept.used = used;
                std::mem::replace(&mut kept.entry, entry.clone())
            }
            None => {
                held.insert(entry.node.serial, Held { entry: entry.clone(), bytes: 0, used });
                return;
            }
        };
        drop(held);
        drop(former);
    }

    /// Takes note of how much a backing takes.
    pub fn weigh(&self, serial: u64, bytes: u64) {
        if let Some(kept) = self.held.lock().get_mut(&serial) {
            let former = std::mem::replace(&mut kept.bytes, bytes);
            self.bytes.fetch_add(bytes.wrapping_sub(former), Ordering::Relaxed);
        }
    }

    /// Whether there is a backing that is not known: the object has none yet.
    pub fn find(&self, serial: u64) -> Option<Arc<Entry>> {
        self.held.lock().get(&serial).map(|held| held.entry.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Entry>> {
        self.held.lock().values().map(|held| held.entry.clone()).collect()
    }

    /// Whether some should go.
    pub fn is_too_full(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.limit || self.held.lock().len() > MOST
    }

    /// Those that were not used for longest, and would go first.
    pub fn oldest(&self) -> Vec<Arc<Entry>> {
        let held = self.held.lock();
        let mut all: Vec<(u64, Arc<Entry>)> = held.values().map(|held| (held.used, held.entry.clone())).collect();
        drop(held);
        all.sort_by_key(|(used, _)| *used);
        all.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Removes a backing.
    pub fn remove(&self, serial: u64) {
        let removed = self.at(serial, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()));
        if let Err(errno) = removed {
            tracing::debug!(serial, %errno, "a backing was not removed");
        }
        let former = self.held.lock().remove(&serial);
        if let Some(former) = former {
            self.bytes.fetch_sub(former.bytes, Ordering::Relaxed);
        }
    }

    /// Lets all objects go.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *self.held.lock());
        drop(all);
    }

    /// Whether nobody has a backing open, for reading or writing, or mapped.
    pub fn is_unused(&self, serial: u64) -> bool {
        let opened = self.open(serial, OFlags::RDONLY | OFlags::NONBLOCK);
        opened.is_ok_and(|fd| !umvu_sys::file::is_open_elsewhere(fd.as_fd()))
    }
}
