//! Devices that the kernel does not have: what an open one answers. Knows nothing of how a call gets to it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::{Attendant, Caller, Hold, InodeRef, Result};

/// An open device of a view; dropped when its last descriptor was closed.
///
/// A guest that has opened one is watched from call to call for as long as it, or a child, has the descriptor, and each
/// of its reads, writes and ioctls is answered here. Calls come from several threads at once.
pub trait OpenDevice: Send + Sync + std::fmt::Debug {
    /// How many bytes a block device has now; `None` for a character device, where positions mean nothing.
    fn size(&self) -> Option<u64>;

    /// Whether writes are refused, however it was opened.
    fn is_read_only(&self) -> bool;

    /// Reads from an offset; fewer bytes than asked for only at the end of the device.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Writes at an offset; fewer bytes than given only at the end of the device.
    ///
    /// # Errors
    /// - `EPERM`: it is read-only.
    /// - `ENOSPC`: nothing of it lies before the end.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize>;

    /// Returns when all that was written will outlast a crash of the host.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Says that a piece holds nothing that matters any more; it reads as zeros, or as before.
    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        let _ = (offset, length);
        Ok(())
    }

    /// Answers ioctl(2).
    ///
    /// # Errors
    /// - `ENOTTY`: a request that it does not know.
    /// - `EFAULT`: the argument points nowhere.
    fn ioctl(&self, request: u32, argument: u64, guest: &dyn Asker) -> Result<u64>;
}

/// A block device, as `/proc/partitions` lists it.
pub struct BlockDevice {
    /// Its numbers, as encoded by makedev(3).
    pub number: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its name, without a directory.
    pub name: Vec<u8>,
    /// Its node.
    pub node: InodeRef,
}

/// A file that a process has open, as it sees it.
pub struct OpenedFile {
    /// A duplicate of its descriptor.
    pub fd: OwnedFd,
    /// The path.
    pub path: Vec<u8>,
    /// The object.
    pub inode: InodeRef,
    /// Who brings what of it is not there yet.
    pub attendant: Option<Arc<dyn Attendant>>,
    /// Keeps the mount that it was opened through.
    pub hold: Hold,
}

/// The process that asks something of a device.
pub trait Asker {
    /// Who it is.
    fn caller(&self) -> Caller<'_>;

    /// Fills `buffer` from its memory.
    ///
    /// # Errors
    /// - `EFAULT`: not readable.
    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()>;

    /// Writes to its memory.
    ///
    /// # Errors
    /// - `EFAULT`: not writable.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<()>;

    /// Takes a duplicate of a descriptor of its.
    ///
    /// # Errors
    /// - `EBADF`: there is none.
    /// - `EINVAL`: the kernel does not have that file.
    fn descriptor(&self, fd: i32) -> Result<OpenedFile>;
}
