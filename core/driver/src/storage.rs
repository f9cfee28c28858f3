//! What an image lies in: a row of bytes. Knows no format.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use umvu_interface::{Attendant, Errno, Hold, InodeRef, Result};

/// A row of bytes of a fixed size: a file, a device, a part of either.
pub trait Storage: Send + Sync {
    /// Its size in bytes.
    fn size(&self) -> u64;

    /// Whether it refuses writes.
    fn is_read_only(&self) -> bool;

    /// Fills `buffer` from an offset.
    ///
    /// # Errors
    /// - `EIO`: the storage ends before that, or cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes all of `bytes` at an offset.
    ///
    /// # Errors
    /// - `EROFS`: it takes none.
    /// - `ENOSPC`, `EIO`, `EDQUOT`, `EFBIG`: the host's.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Returns when all that was written will outlast a crash of the host.
    fn flush(&self) -> Result<()>;

    /// Says that a piece holds nothing that matters any more; it reads as zeros, or as before.
    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let _ = (offset, length);
        Ok(())
    }

    /// Writes zeros.
    ///
    /// # Errors
    /// Those of [`Storage::write_at`].
    fn zero(&self, offset: u64, length: u64) -> Result<()> {
        write_zeros(self, offset, length)
    }
}

/// A file of the host, or a piece of one.
pub struct FileStorage {
    file: File,
    start: u64,
    size: u64,
    is_read_only: bool,
    /// The object of a view whose content it is, if its file system is told of writes late.
    inode: Option<InodeRef>,
    /// Who brings what is not there yet.
    attendant: Option<Arc<dyn Attendant>>,
    _hold: Hold,
}

impl FileStorage {
    /// Takes `size` bytes of a file from `start`. The file must be open for what is to be done with it.
    pub fn new(file: File, start: u64, size: u64, is_read_only: bool) -> Self {
        Self { file, start, size, is_read_only, inode: None, attendant: None, _hold: Hold::default() }
    }

    /// Says of which object of a view it is the content, who brings it, and what keeps its mount.
    pub fn inside(self, inode: &InodeRef, attendant: Option<Arc<dyn Attendant>>, hold: Hold) -> Self {
        let is_told_late = inode.filesystem().writes_back();
        Self { inode: is_told_late.then(|| inode.clone()), attendant, _hold: hold, ..self }
    }

    fn bring(&self, at: u64, length: usize) -> Result<()> {
        match &self.attendant {
            Some(attendant) => attendant.fill(at, at.saturating_add(length as u64)),
            None => Ok(()),
        }
    }

    fn place(&self, offset: u64, length: usize) -> Result<u64> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size);
        end.and(self.start.checked_add(offset)).ok_or(Errno::IO)
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

impl Storage for FileStorage {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = self.place(offset, buffer.len())?;
        self.bring(at, buffer.len())?;
        self.file.read_exact_at(buffer, at).map_err(|error| errno(&error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.is_read_only {
            return Err(Errno::ROFS);
        }
        let at = self.place(offset, bytes.len())?;
        self.bring(at, bytes.len())?;
        self.file.write_all_at(bytes, at).map_err(|error| errno(&error))
    }

    fn flush(&self) -> Result<()> {
        if self.is_read_only {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| errno(&error))?;
        match &self.inode {
            Some(inode) => inode.filesystem().sync_object(&**inode),
            None => Ok(()),
        }
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let size = usize::try_from(length).map_err(|_| Errno::IO)?;
        let at = self.place(offset, size)?;
        self.bring(at, size)?;
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, at, length) {
            // Not every file system of the host has holes: the bytes stay, which is allowed.
            Err(Errno::OPNOTSUPP) => Ok(()),
            other => other,
        }
    }

    fn zero(&self, offset: u64, length: u64) -> Result<()> {
        if self.is_read_only {
            return Err(Errno::ROFS);
        }
        let size = usize::try_from(length).map_err(|_| Errno::IO)?;
        let at = self.place(offset, size)?;
        self.bring(at, size)?;
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, at, length) {
            Err(Errno::OPNOTSUPP | Errno::NODEV) => write_zeros(self, offset, length),
            other => other,
        }
    }
}

/// Writes zeros where there is no quicker way.
fn write_zeros<S: Storage + ?Sized>(storage: &S, offset: u64, length: u64) -> Result<()> {
    const CHUNK: u64 = 1 << 20;
    let zeros = vec![0; usize::try_from(length.min(CHUNK)).unwrap_or(0)];
    let mut done = 0;
    while done < length {
        let size = usize::try_from((length - done).min(CHUNK)).map_err(|_| Errno::IO)?;
        storage.write_at(offset.checked_add(done).ok_or(Errno::IO)?, &zeros[..size])?;
        done += size as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> FileStorage {
        let fd = rustix::fs::memfd_create("storage", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.write_all_at(b"0123456789", 0).unwrap();
        FileStorage::new(file, 2, 5, false)
    }

    #[test]
    fn nothing_outside_of_the_piece_is_read_or_written() {
        let storage = storage();
        let mut all = [0; 5];
        storage.read_at(0, &mut all).unwrap();
        assert_eq!(&all, b"23456");
        assert_eq!(storage.read_at(1, &mut all), Err(Errno::IO));
        assert_eq!(storage.write_at(4, b"xx"), Err(Errno::IO));
        assert_eq!(storage.read_at(u64::MAX, &mut all), Err(Errno::IO));
        storage.write_at(4, b"x").unwrap();
        storage.read_at(0, &mut all).unwrap();
        assert_eq!(&all, b"2345x");
    }

    #[test]
    fn zeros_are_written_in_the_piece_alone() {
        let storage = storage();
        storage.zero(1, 2).unwrap();
        write_zeros(&storage, 4, 1).unwrap();
        let mut all = [0; 5];
        storage.read_at(0, &mut all).unwrap();
        assert_eq!(&all, b"2\0\x005\0");
        assert_eq!(storage.zero(4, 2), Err(Errno::IO));
    }

    #[test]
    fn a_discarded_piece_keeps_its_place() {
        let storage = storage();
        storage.discard(0, 2).unwrap();
        let mut all = [0; 5];
        storage.read_at(0, &mut all).unwrap();
        assert_eq!(&all[2..], b"456");
    }
}
