//! An image as the drivers read it: checked reads, one line in the log for what is damaged, and a limit to what one call
//! may read. Knows no format.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use umvu_driver::Storage;
use umvu_interface::{Errno, Result};

/// As many lines an image may put into the log.
const LINES: u32 = 16;

thread_local! {
    /// Reads that the call served by this thread may still make.
    static LEFT: Cell<u64> = const { Cell::new(u64::MAX) };
}

/// An image.
pub struct Image {
    /// None once it is closed.
    storage: RwLock<Option<Arc<dyn Storage>>>,
    size: u64,
    is_read_only: bool,
    name: String,
    lines: AtomicU32,
    reason: Mutex<Option<String>>,
}

impl Image {
    /// Takes an image; `name` is what messages call it.
    pub fn new(storage: Arc<dyn Storage>, name: impl Into<String>) -> Self {
        let (size, is_read_only) = (storage.size(), storage.is_read_only());
        let storage = RwLock::new(Some(storage));
        Self { storage, size, is_read_only, name: name.into(), lines: AtomicU32::new(0), reason: Mutex::new(None) }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives back what it lies in.
    pub fn into_storage(self) -> Option<Arc<dyn Storage>> {
        self.storage.into_inner()
    }

    /// Lets go of what it lies in, and of the lock on that: whoever reads or writes from now on gets `EIO`.
    pub fn close(&self) {
        *self.storage.write() = None;
    }

    fn storage(&self) -> Result<Arc<dyn Storage>> {
        self.storage.read().clone().ok_or(Errno::IO)
    }

    /// What was said last of what is wrong with it.
    pub fn last_reason(&self) -> Option<String> {
        self.reason.lock().clone()
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether it takes no writes.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Starts a call: it may read each byte of the image many times over, but not for ever. What goes round in circles in
    /// a damaged image ends so.
    pub fn begin_call(&self) {
        LEFT.set((self.size() / 512).saturating_mul(64).saturating_add(1 << 20));
    }

    /// Fills a buffer.
    ///
    /// # Errors
    /// - `EUCLEAN`: this call has read too much, or the place is not in the image.
    /// - `EIO`: the storage fails.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.charge()?;
        let end = u64::try_from(buffer.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > self.size()) {
            return Err(self.damaged(format_args!("something lies at {offset}, behind the end of the image")));
        }
        self.storage()?.read_at(offset, buffer)
    }

    /// Reads a piece of at most `limit` bytes.
    pub fn read_piece(&self, offset: u64, length: u64, limit: usize) -> Result<Vec<u8>> {
        let size = usize::try_from(length).ok().filter(|size| *size <= limit);
        let Some(size) = size else {
            return Err(self.damaged(format_args!("a piece of {length} bytes, where {limit} are the most")));
        };
        let mut piece = vec![0; size];
        self.read(offset, &mut piece)?;
        Ok(piece)
    }

    /// Writes.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.charge()?;
        self.storage()?.write_at(offset, bytes)
    }

    /// Returns when what was written will outlast a crash.
    pub fn flush(&self) -> Result<()> {
        self.storage()?.flush()
    }

    /// Says that a piece does not matter any more.
    pub fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.storage()?.discard(offset, length)
    }

    fn charge(&self) -> Result<()> {
        let left = LEFT.get();
        if left == 0 {
            return Err(self.damaged("it goes round in circles"));
        }
        LEFT.set(left - 1);
        Ok(())
    }

    /// Puts into the log what is wrong, and gives the errno that file systems of Linux have for it.
    pub fn damaged(&self, why: impl std::fmt::Display) -> Errno {
        self.log(&why);
        Errno::UCLEAN
    }

    /// Puts a line into the log, if the image has not put too many there.
    pub fn log(&self, what: &dyn std::fmt::Display) {
        let count = self.lines.fetch_add(1, Ordering::Relaxed);
        if count < LINES {
            *self.reason.lock() = Some(what.to_string());
            tracing::warn!("{}: {what}", self.name);
        } else {
            self.lines.store(LINES, Ordering::Relaxed);
        }
    }
}
