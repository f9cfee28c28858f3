//! Objects of the host by our own descriptors of them, for the calls that take only a path. Knows nothing of views or
//! owners.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags};
use umvu_interface::{Errno, ProcPath, Result};

/// Opens the object behind `fd` again with other flags; the result is close-on-exec.
///
/// # Errors
/// - `ELOOP`: the object is a symbolic link, and `flags` has no `O_PATH`
/// - those of open(2)
pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd> {
    // O_NOFOLLOW would stop at the magic link itself.
    let flags = (flags - OFlags::NOFOLLOW) | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = ProcPath::of(fd);
    let (start, path) = path.at();
    rustix::fs::openat(start, path, flags, Mode::empty())
}

/// Makes a hard link `name` in `directory` to the object, which may be a symbolic link or have no name yet.
pub(crate) fn link(fd: BorrowedFd<'_>, directory: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
    let path = ProcPath::of(fd);
    let (start, path) = path.at();
    rustix::fs::linkat(start, path, directory, name, AtFlags::SYMLINK_FOLLOW)
}

/// Opens an object by name in a directory without following it: what every inode holds.
pub(crate) fn open_path(directory: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        // Nobody blocks here, so nothing is interrupted for long.
        Err(Errno::INTR) => rustix::fs::openat(directory, name, flags, Mode::empty()),
        opened => opened,
    }
}
