//! What opening a faked special file gives. Knows nothing of which devices there are.

use std::os::fd::OwnedFd;

use rustix::fs::{makedev, OFlags};
use umvu_backing::open_device;
use umvu_interface::{Errno, Result};
use umvu_ownership::FakeKind;

/// Opens the host's device that a faked node names.
///
/// # Errors
/// - `ENOTDIR`: a directory was wanted
/// - `ENXIO`: the node is none of the devices that every user may open, or the host has another one at its place
/// - those of open(2)
pub(crate) fn open(kind: FakeKind, flags: OFlags) -> Result<OwnedFd> {
    // Judged before the node's own open: do_open of fs/namei.c.
    if flags.contains(OFlags::DIRECTORY) {
        return Err(Errno::NOTDIR);
    }
    let FakeKind::CharDevice { major, minor } = kind else {
        return Err(Errno::NXIO);
    };
    // It need not be created.
    open_device(makedev(major, minor), flags - (OFlags::CREATE | OFlags::EXCL))
}
