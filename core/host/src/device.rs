//! What opening a faked special file gives. Knows only the devices that every user may open anyway.

use std::os::fd::OwnedFd;

use rustix::fs::{fstat, major, minor, FileType, Mode, OFlags};
use umvu_interface::{Errno, Result};
use umvu_ownership::FakeKind;

/// Number and path on the host of the devices that a faked node opens.
const DEVICES: [(u32, u32, &str); 7] = [
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    (5, 0, "/dev/tty"),
    (5, 2, "/dev/ptmx"),
];

/// Opens the host's device that a faked node names.
///
/// # Errors
/// - `ENXIO`: the node is none of the harmless devices, or the host has another one at its place
/// - those of open(2)
pub(crate) fn open(kind: FakeKind, flags: OFlags) -> Result<OwnedFd> {
    let FakeKind::CharDevice { major: wanted_major, minor: wanted_minor } = kind else {
        return Err(Errno::NXIO);
    };
    let wanted = (wanted_major, wanted_minor);
    let path = DEVICES.iter().find(|(major, minor, _)| (*major, *minor) == wanted).ok_or(Errno::NXIO)?.2;
    if flags.contains(OFlags::DIRECTORY) {
        return Err(Errno::NOTDIR);
    }
    // A device has nothing to truncate, and need not be created.
    let flags = (flags - (OFlags::CREATE | OFlags::EXCL | OFlags::TRUNC)) | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = rustix::fs::open(path, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    let is_char = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice;
    if !is_char || (major(stat.st_rdev), minor(stat.st_rdev)) != wanted {
        return Err(Errno::NXIO);
    }
    Ok(fd)
}
