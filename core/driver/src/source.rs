//! What a file system or a disk is made of: the file or device of the view that a path led to. Knows no format.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::FlockOperation;
use umvu_interface::{may_access, Access, Caller, Errno, FileKind, Hold, InodeRef, OFlags, OpenDevice, Opened, Result};

use crate::{FileStorage, Storage};

/// What is to be done with a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is only read.
    Read,
    /// It is written too, and nobody else writes it meanwhile.
    Write,
}

/// Opens a regular file or a block device as a storage, which has `hold` for as long as it lives. A file is locked as flock(2) does, for others or, if it is only
/// read, for writers; a device is claimed as by `O_EXCL`.
///
/// # Errors
/// - `ENOTBLK`: it is neither.
/// - `EROFS`, `EACCES`, ...: as open(2).
/// - `EBUSY`: somebody else uses it.
pub fn open_source(inode: &InodeRef, hold: Hold, caller: &Caller<'_>, use_: Use) -> Result<Arc<dyn Storage>> {
    match open(inode, caller, use_)? {
        Opened::Device(device) => Ok(Arc::new(DeviceStorage::new(device, use_)?)),
        opened @ (Opened::File(_) | Opened::Attended(..)) => {
            let (fd, attendant) = match opened {
                Opened::Attended(fd, attendant) => (fd, Some(attendant)),
                other => (other.into_file()?, None),
            };
            // Of a device of the host stat(2) tells no size.
            let size = rustix::fs::seek(&fd, rustix::fs::SeekFrom::End(0))?;
            let storage = FileStorage::new(File::from(fd), 0, size, use_ == Use::Read);
            Ok(Arc::new(storage.inside(inode, attendant, hold)))
        }
        Opened::Text(_) => Err(Errno::NOTBLK),
    }
}

/// A file that an image is in, which may grow.
pub struct ImageFile {
    /// The host's file: the image itself, or its content as the view keeps it.
    pub file: File,
    /// What must be told of the image when it is to outlast a crash.
    pub behind: Behind,
}

/// What is behind the content of an image that is not a file of the host.
pub struct Behind {
    inode: Option<InodeRef>,
    _hold: Hold,
}

impl Behind {
    /// Nothing: it is a file of the host.
    pub fn nothing() -> Self {
        Self { inode: None, _hold: Hold::default() }
    }

    /// Brings what was written to it where it belongs.
    ///
    /// # Errors
    /// Those of the file system that it is in.
    pub fn sync(&self) -> Result<()> {
        match &self.inode {
            Some(inode) => inode.filesystem().sync_object(&**inode),
            None => Ok(()),
        }
    }
}

/// Opens a regular file that may grow, as images do, and locks it as [`open_source`] does. One whose content the view brings
/// as it is read is brought whole.
///
/// # Errors
/// - `ENOTBLK`: it is no regular file.
/// - those of [`open_source`].
pub fn open_file(inode: &InodeRef, hold: Hold, caller: &Caller<'_>, use_: Use) -> Result<ImageFile> {
    if inode.kind()? != FileKind::Regular {
        return Err(Errno::NOTBLK);
    }
    let fd = match open(inode, caller, use_)? {
        Opened::File(fd) => fd,
        Opened::Attended(fd, attendant) => {
            attendant.fill(0, u64::MAX)?;
            fd
        }
        Opened::Device(_) | Opened::Text(_) => return Err(Errno::NOTBLK),
    };
    let inode = inode.filesystem().writes_back().then(|| inode.clone());
    Ok(ImageFile { file: File::from(fd), behind: Behind { inode, _hold: hold } })
}

fn open(inode: &InodeRef, caller: &Caller<'_>, use_: Use) -> Result<Opened> {
    if !matches!(inode.kind()?, FileKind::Regular | FileKind::BlockDevice) {
        return Err(Errno::NOTBLK);
    }
    if !inode.kernel_checks() {
        let want = if use_ == Use::Write { Access::READ | Access::WRITE } else { Access::READ };
        may_access(caller.credentials, &**inode, &inode.stat()?, want)?;
    }
    let access = if use_ == Use::Write { OFlags::RDWR } else { OFlags::RDONLY };
    let claim = if inode.kind()? == FileKind::BlockDevice { OFlags::EXCL } else { OFlags::empty() };
    let opened = inode.open(caller, access | claim | OFlags::CLOEXEC)?;
    if let Opened::File(fd) | Opened::Attended(fd, _) = &opened {
        let how = match use_ {
            Use::Read => FlockOperation::NonBlockingLockShared,
            Use::Write => FlockOperation::NonBlockingLockExclusive,
        };
        match rustix::fs::flock(fd.as_fd(), how) {
            Err(Errno::AGAIN) => return Err(Errno::BUSY),
            // Not every file system of the host has locks.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NOLCK) | Ok(()) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(opened)
}

/// A block device of a view as a storage.
pub struct DeviceStorage {
    device: Arc<dyn OpenDevice>,
    size: u64,
    use_: Use,
}

impl DeviceStorage {
    /// Takes an open device.
    ///
    /// # Errors
    /// - `ENOTBLK`: it has no size.
    /// - `EROFS`: it refuses writes, which are wanted.
    pub fn new(device: Arc<dyn OpenDevice>, use_: Use) -> Result<Self> {
        let size = device.size().ok_or(Errno::NOTBLK)?;
        if use_ == Use::Write && device.is_read_only() {
            return Err(Errno::ROFS);
        }
        Ok(Self { device, size, use_ })
    }
}

impl Storage for DeviceStorage {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.use_ == Use::Read
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::IO)?;
            match self.device.read_at(at, &mut buffer[done..])? {
                0 => return Err(Errno::IO),
                count => done += count,
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        let mut done = 0;
        while done < bytes.len() {
            let at = offset.checked_add(done as u64).ok_or(Errno::IO)?;
            match self.device.write_at(at, &bytes[done..])? {
                0 => return Err(Errno::IO),
                count => done += count,
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.device.sync()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        self.device.discard(offset, length)
    }
}
