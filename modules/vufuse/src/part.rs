//! A piece of a storage: the options offset and sizelimit. Knows no format.

use std::sync::Arc;

use umvu_driver::Storage;
use umvu_interface::{Errno, Result};

/// So many bytes of a storage, from a place on.
pub struct Part {
    below: Arc<dyn Storage>,
    start: u64,
    size: u64,
}

impl Part {
    /// Takes a piece: all behind `start`, or `limit` bytes of it.
    ///
    /// # Errors
    /// - `EINVAL`: it begins behind the end.
    pub fn new(below: Arc<dyn Storage>, start: u64, limit: Option<u64>) -> Result<Self> {
        let left = below.size().checked_sub(start).filter(|left| *left > 0).ok_or(Errno::INVAL)?;
        Ok(Self { below, start, size: limit.map_or(left, |limit| limit.min(left)) })
    }

    fn place(&self, offset: u64, length: u64) -> Result<u64> {
        offset.checked_add(length).filter(|end| *end <= self.size).ok_or(Errno::IO)?;
        self.start.checked_add(offset).ok_or(Errno::IO)
    }
}

impl Storage for Part {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.below.is_read_only()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.below.read_at(self.place(offset, buffer.len() as u64)?, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.below.write_at(self.place(offset, bytes.len() as u64)?, bytes)
    }

    fn flush(&self) -> Result<()> {
        self.below.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.below.discard(self.place(offset, length)?, length)
    }
}
