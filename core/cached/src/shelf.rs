//! The backings: where they lie, which there are, and which go when they take too much place. Knows nothing of what is in
//! them.
//!
//! Small ones that are only read lie in memory: to make a file on a disk and to remove it takes longer than to read most
//! files of an image.

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

/// What backings may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// As many bytes in all, but for what is in use.
    pub all: u64,
    /// As many bytes of these in memory.
    pub memory: u64,
}

impl Limits {
    /// What they may take in all, if nothing else is said.
    const ALL: u64 = 1 << 30;
    /// What they may take in memory at most, and as a part of all memory, if nothing else is said.
    const MEMORY: u64 = 256 << 20;
    const MEMORY_PART: u64 = 16;
}

impl Default for Limits {
    fn default() -> Self {
        let info = rustix::system::sysinfo();
        let total = info.totalram.saturating_mul(info.mem_unit.into());
        Self { all: Self::ALL, memory: Self::MEMORY.min(total / Self::MEMORY_PART) }
    }
}

/// Where a backing lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// On the host's disk.
    Disk,
    /// In memory.
    Memory,
}

/// A backing that is there.
struct Held {
    /// By which name it was opened last; keeps the object alive.
    entry: Arc<Entry>,
    /// What it takes.
    bytes: u64,
    /// When it was used last, by the count of uses.
    used: u64,
    /// Where it lies; `None` before it is made.
    medium: Option<Medium>,
}

/// All backings of a file system.
pub struct Shelf {
    disk: OnceLock<Private>,
    /// None if there is no place in memory.
    memory: OnceLock<Option<Private>>,
    held: Mutex<HashMap<u64, Held>>,
    /// On either medium.
    bytes: AtomicU64,
    /// In memory.
    memory_bytes: AtomicU64,
    uses: AtomicU64,
    /// When room is to be looked for again, by the count of uses.
    next_look: AtomicU64,
    limits: Limits,
}

impl Shelf {
    /// Makes an empty one.
    pub fn new(limits: Limits) -> Self {
        Self {
            disk: OnceLock::new(),
            memory: OnceLock::new(),
            held: Mutex::default(),
            bytes: AtomicU64::new(0),
            memory_bytes: AtomicU64::new(0),
            uses: AtomicU64::new(0),
            next_look: AtomicU64::new(0),
            limits,
        }
    }

    /// The directory on the disk, which is made by the first who needs it.
    fn disk(&self) -> Result<&Private> {
        if let Some(disk) = self.disk.get() {
            return Ok(disk);
        }
        let made = Private::new().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        Ok(self.disk.get_or_init(|| made))
    }

    fn memory(&self) -> Option<&Private> {
        let make = || {
            let made = Private::in_memory();
            made.inspect_err(|error| tracing::debug!(%error, "no files of images in memory")).ok()
        };
        self.memory.get_or_init(make).as_ref()
    }

    /// The directory that a backing lies in.
    fn place(&self, serial: u64) -> Result<&Private> {
        match self.medium(serial) {
            Some(Medium::Memory) => self.memory().ok_or(Errno::IO),
            Some(Medium::Disk) | None => self.disk(),
        }
    }

    /// Where a backing lies, if it was made.
    pub fn medium(&self, serial: u64) -> Option<Medium> {
        self.held.lock().get(&serial).and_then(|held| held.medium)
    }

    /// Says where a backing of so many bytes that will only be read is made, if it is not there yet.
    pub fn make_small(&self, serial: u64, size: u64) {
        /// One alone does not take more of what there is.
        const PART: u64 = 8;
        let limit = self.limits.memory;
        let has_room = || self.memory_bytes.load(Ordering::Relaxed).saturating_add(size) <= limit + limit / PART;
        if size <= limit / PART && limit > 0 && has_room() && self.memory().is_some() {
            self.make(serial, Medium::Memory);
        } else {
            self.make(serial, Medium::Disk);
        }
    }

    /// Says where a backing is made, if it is not there yet.
    pub fn make(&self, serial: u64, medium: Medium) {
        if let Some(held) = self.held.lock().get_mut(&serial) {
            held.medium.get_or_insert(medium);
        }
    }

    /// Has a backing that lies in memory made anew on the disk.
    pub fn move_to_disk(&self, serial: u64) {
        if let Some(memory) = self.memory() {
            let _ = rustix::fs::unlinkat(memory.fd(), serial.to_string(), AtFlags::empty());
        }
        if let Some(held) = self.held.lock().get_mut(&serial) {
            let former = std::mem::replace(&mut held.bytes, 0);
            self.count(held.medium, former.wrapping_neg());
            held.medium = Some(Medium::Disk);
        }
    }

    /// Opens the backing of an object.
    pub fn open(&self, serial: u64, flags: OFlags) -> Result<OwnedFd> {
        let mode = Mode::RWXU;
        rustix::fs::openat(self.place(serial)?.fd(), serial.to_string(), flags | OFlags::CLOEXEC | OFlags::NOCTTY, mode)
    }

    /// Makes a FIFO that stands for an object, if there is none yet.
    pub fn make_fifo(&self, serial: u64) -> Result<()> {
        let disk = self.disk()?;
        match rustix::fs::mknodat(disk.fd(), serial.to_string(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            Err(Errno::EXIST) => Ok(()),
            made => made,
        }
    }

    /// Tells the metadata of a backing.
    pub fn stat(&self, serial: u64) -> Result<rustix::fs::Stat> {
        rustix::fs::statat(self.place(serial)?.fd(), serial.to_string(), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Does something with the directory and the name of a backing in it.
    pub fn at<T>(&self, serial: u64, body: impl FnOnce(&OwnedFd, String) -> Result<T>) -> Result<T> {
        body(self.place(serial)?.fd(), serial.to_string())
    }

    /// The path of a backing on the host.
    pub fn path(&self, serial: u64) -> Result<std::path::PathBuf> {
        Ok(self.place(serial)?.path().join(serial.to_string()))
    }

    fn places(&self) -> impl Iterator<Item = &Private> {
        self.disk.get().into_iter().chain(self.memory.get().into_iter().flatten())
    }

    /// Finds the number of the object whose backing has a path on the host.
    pub fn number_of(&self, host_path: &[u8]) -> Option<u64> {
        self.places().find_map(|place| place.number_of(host_path))
    }

    /// Whether a path of the host leads to a backing.
    pub fn holds(&self, host_path: &[u8]) -> bool {
        self.places().any(|place| place.holds(host_path))
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
                held.insert(entry.node.serial, Held { entry: entry.clone(), bytes: 0, used, medium: None });
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
            self.count(kept.medium, bytes.wrapping_sub(former));
        }
    }

    fn count(&self, medium: Option<Medium>, more: u64) {
        self.bytes.fetch_add(more, Ordering::Relaxed);
        if medium == Some(Medium::Memory) {
            self.memory_bytes.fetch_add(more, Ordering::Relaxed);
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

    /// Whether some should go, and it is worth to look for them.
    pub fn is_too_full(&self) -> bool {
        let is_due = || self.uses.load(Ordering::Relaxed) >= self.next_look.load(Ordering::Relaxed);
        !self.has_room(1, 1) && is_due()
    }

    /// Whether no more than a part of what there is, so many of so many, is taken.
    fn has_room(&self, part: u64, of: u64) -> bool {
        let most = usize::try_from(MOST as u64 / of * part).unwrap_or(MOST);
        self.bytes.load(Ordering::Relaxed) <= self.limits.all / of * part
            && self.memory_bytes.load(Ordering::Relaxed) <= self.limits.memory / of * part
            && self.held.lock().len() <= most
    }

    /// Lets `go` remove those that were not used for longest, until there is room for some more.
    pub fn make_room(&self, go: impl Fn(&Entry)) {
        /// After a look around that found too little the next one waits for so many uses.
        const PAUSE: u64 = 256;
        let held = self.held.lock();
        let mut all: Vec<(u64, Option<Medium>, Arc<Entry>)> =
            held.values().map(|held| (held.used, held.medium, held.entry.clone())).collect();
        drop(held);
        all.sort_by_key(|(used, ..)| *used);
        for (_, medium, entry) in all {
            if self.has_room(7, 8) {
                return;
            }
            let is_memory_alone =
                self.bytes.load(Ordering::Relaxed) <= self.limits.all / 8 * 7 && self.held.lock().len() <= MOST / 8 * 7;
            if !is_memory_alone || medium == Some(Medium::Memory) {
                go(&entry);
            }
        }
        if !self.has_room(1, 1) {
            self.next_look.store(self.uses.load(Ordering::Relaxed) + PAUSE, Ordering::Relaxed);
        }
    }

    /// Removes a backing.
    pub fn remove(&self, serial: u64) {
        let removed = self.at(serial, |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()));
        if let Err(errno) = removed {
            tracing::debug!(serial, %errno, "a backing was not removed");
        }
        let former = self.held.lock().remove(&serial);
        if let Some(former) = former {
            self.count(former.medium, former.bytes.wrapping_neg());
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
