//! What a driver does with the content of an open file.

use umvu_interface::{Errno, Result};

/// A piece of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Where it begins, in bytes.
    pub start: u64,
    /// Where it ends: the byte after the last one.
    pub end: u64,
}

/// How the content of a file may be kept by who opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What was read of it before is true, too.
    SinceEver,
    /// From this opening on.
    SinceOpened,
    /// Not at all: each read asks the driver (`FOPEN_DIRECT_IO`).
    Never,
}

/// Whether a piece of a file was ever written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// There are bytes.
    Data(Range),
    /// It reads as zeros, and takes no place.
    Hole(Range),
}

/// An open file of a driver; dropped when it is closed.
pub trait OpenFile: Send + Sync {
    /// Reads at an offset; fewer bytes than asked for only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes at an offset, all of it; the file grows as needed.
    ///
    /// # Errors
    /// - `ENOSPC`: the storage is full; what was written is told by [`crate::Driver::stat`].
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let _ = (offset, bytes);
        Err(Errno::ROFS)
    }

    /// Tells what lies at an offset, up to where that changes; the end of the file ends all.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: the driver cannot tell: all is data.
    fn contents_at(&self, offset: u64) -> Result<Contents> {
        let _ = offset;
        Err(Errno::OPNOTSUPP)
    }

    /// Makes room, or holes: `mode` as fallocate(2) has it.
    fn allocate(&self, mode: u32, range: Range) -> Result<()> {
        let _ = (mode, range);
        Err(Errno::OPNOTSUPP)
    }

    /// A descriptor of it was closed.
    fn flush(&self) -> Result<()> {
        Ok(())
    }

    /// Returns when all that was written to the file is on the storage.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// How its content may be kept.
    fn keep(&self) -> Keep {
        Keep::SinceEver
    }
}
