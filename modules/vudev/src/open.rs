//! An open disk or partition. Knows nothing of guests.

use std::sync::Arc;

use umvu_interface::{Asker, Errno, OFlags, OpenDevice, Result};

use crate::disk::{Claim, Disk, Part, Use, Window};
use crate::ioctl;

/// An open disk or partition.
pub struct OpenDisk {
    disk: Arc<Disk>,
    part: Part,
    flags: OFlags,
    _use: Use,
}

impl std::fmt::Debug for OpenDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenDisk({:?})", self.part)
    }
}

impl OpenDisk {
    /// Opens it; `O_EXCL` claims it.
    ///
    /// # Errors
    /// Those of [`Disk::open`].
    pub fn new(disk: &Arc<Disk>, part: Part, flags: OFlags) -> Result<Self> {
        let claim = if flags.contains(OFlags::EXCL) { Claim::Exclusive } else { Claim::Shared };
        let used = disk.open(part, claim)?;
        Ok(Self { disk: disk.clone(), part, flags, _use: used })
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// What of it.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Where it lies.
    ///
    /// # Errors
    /// - `ENXIO`: the partition is gone.
    pub fn window(&self) -> Result<Window> {
        self.disk.window(self.part).ok_or(Errno::NXIO)
    }

    /// Whether it was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.flags & OFlags::ACCMODE != OFlags::RDONLY
    }

    /// Where a piece of it lies on the disk.
    ///
    /// # Errors
    /// - `EINVAL`: it ends beyond the end.
    pub fn place(&self, offset: u64, length: u64) -> Result<u64> {
        let window = self.window()?;
        let end = offset.checked_add(length).ok_or(Errno::INVAL)?;
        if end > window.length {
            return Err(Errno::INVAL);
        }
        Ok(window.start + offset)
    }

    /// As many bytes as there are from an offset on, up to `length`, and where they lie.
    fn clip(&self, offset: u64, length: usize) -> Result<(u64, usize)> {
        let window = self.window()?;
        let left = window.length.saturating_sub(offset);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        Ok((window.start.saturating_add(offset), count))
    }
}

impl OpenDevice for OpenDisk {
    fn size(&self) -> Option<u64> {
        Some(self.window().map_or(0, |window| window.length))
    }

    fn is_read_only(&self) -> bool {
        self.disk.is_read_only()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let (at, count) = self.clip(offset, buffer.len())?;
        if count > 0 {
            self.disk.storage().read_at(at, &mut buffer[..count])?;
        }
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        // blkdev_write_iter of block/fops.c
        if self.is_read_only() {
            return Err(Errno::PERM);
        }
        let (at, count) = self.clip(offset, bytes.len())?;
        if count == 0 && !bytes.is_empty() {
            return Err(Errno::NOSPC);
        }
        self.disk.storage().write_at(at, &bytes[..count])?;
        Ok(count)
    }

    fn sync(&self) -> Result<()> {
        self.disk.storage().flush()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.disk.storage().discard(self.place(offset, length)?, length)
    }

    fn ioctl(&self, request: u32, argument: u64, guest: &dyn Asker) -> Result<u64> {
        ioctl::answer(self, request, argument, guest)
    }
}
