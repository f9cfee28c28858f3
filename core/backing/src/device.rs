//! Device nodes of file systems that the host does not have: the devices that every user may open anyway.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags};
use umvu_interface::{Errno, Result};

const DEVICES: [(u32, u32, &str); 7] = [
    (1, 3, "/dev/null"),
    (1, 5, "/dev/zero"),
    (1, 7, "/dev/full"),
    (1, 8, "/dev/random"),
    (1, 9, "/dev/urandom"),
    (5, 0, "/dev/tty"),
    (5, 2, "/dev/ptmx"),
];

/// Opens the character device with a number, as encoded by makedev(3).
///
/// # Errors
/// - `ENXIO`: it is none that every user may open.
/// - the host's.
pub fn open_device(rdev: u64, flags: OFlags) -> Result<OwnedFd> {
    let wanted = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    let path = DEVICES.iter().find(|(major, minor, _)| (*major, *minor) == wanted).ok_or(Errno::NXIO)?.2;
    // A device has nothing to truncate.
    let fd = rustix::fs::open(path, (flags - OFlags::TRUNC) | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    match FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == rdev {
        true => Ok(fd),
        false => Err(Errno::NXIO),
    }
}
