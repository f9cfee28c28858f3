//! Devices that a module claims by their numbers. Knows no node of one.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use crate::{Caller, Errno, FileKind, Result};

/// A device that a module claims: whatever node has its numbers, in any tree of the view, opens it.
pub trait ClaimedDevice: Send + Sync {
    /// [`FileKind::CharDevice`] or [`FileKind::BlockDevice`].
    fn kind(&self) -> FileKind;

    /// Its number, as encoded by makedev(3).
    fn number(&self) -> u64;

    /// Where its node is found even if there is none: an absolute path.
    fn path(&self) -> &'static [u8];

    /// Permission bits of that node.
    fn mode(&self) -> u32 {
        0o666
    }

    /// The type of file systems that the device is the root of, if it comes by one: the first who opens the node has it
    /// mounted there, and all others open what is mounted.
    fn mounts(&self) -> Option<&'static [u8]> {
        None
    }

    /// Opens it: a descriptor of the host that the guest gets as it is.
    ///
    /// # Errors
    /// - `ENXIO`: it comes by a mount.
    fn open(&self, caller: &Caller<'_>, flags: OFlags) -> Result<OwnedFd> {
        let _ = (caller, flags);
        Err(Errno::NXIO)
    }

    /// Whether a descriptor with these `stat` numbers was opened here.
    fn has_opened(&self, dev: u64, ino: u64) -> bool {
        let _ = (dev, ino);
        false
    }

    /// The request of ioctl(2) by which a descriptor comes to be one more of another opening, whose number the argument
    /// points to; `None` where there is none.
    fn joins_by(&self) -> Option<u32> {
        None
    }

    /// Whether a descriptor with these `stat` numbers may still join another.
    fn may_join(&self, dev: u64, ino: u64) -> bool {
        let _ = (dev, ino);
        false
    }
}
