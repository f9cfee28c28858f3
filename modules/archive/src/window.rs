//! Reading an archive from its beginning to its end, a piece at a time. Knows no format.

use umvu_interface::{Errno, MountError};

use crate::entry::{unreadable, Result};
use crate::source::Source;

/// As much is read at once.
const PIECE: usize = 32 << 10;

/// What is read of an archive, and where.
pub struct Window<'a> {
    /// The archive.
    pub source: &'a Source,
    /// Its name, for people.
    pub name: &'a str,
    /// Where the next header is.
    pub at: u64,
    bytes: Vec<u8>,
    bytes_at: u64,
}

impl<'a> Window<'a> {
    /// Begins at the beginning.
    pub fn new(source: &'a Source, name: &'a str) -> Self {
        Self { source, name, at: 0, bytes: Vec::new(), bytes_at: 0 }
    }

    /// Looks at the next bytes, as many as there are of `count`.
    ///
    /// # Errors
    /// The archive cannot be read.
    pub fn peek(&mut self, count: usize) -> Result<&[u8]> {
        let inside = self.at.checked_sub(self.bytes_at).and_then(|offset| usize::try_from(offset).ok());
        let has_all = inside.is_some_and(|offset| offset + count <= self.bytes.len());
        if !has_all {
            self.bytes.resize(PIECE.max(count), 0);
            let read = self.source.read_at(self.at, &mut self.bytes);
            self.bytes.truncate(read.map_err(|error| unreadable(self.name, &error))?);
            self.bytes_at = self.at;
        }
        let offset = if has_all { inside.unwrap_or(0) } else { 0 };
        let rest = self.bytes.get(offset..).unwrap_or_default();
        Ok(&rest[..count.min(rest.len())])
    }

    /// Says that something is wrong where the next header is.
    pub fn damaged_here(&self, why: &str) -> MountError {
        MountError::new(Errno::UCLEAN, format!("{}: at byte {}: {why}", self.name, self.at))
    }
}
