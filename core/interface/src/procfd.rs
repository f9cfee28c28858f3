//! Names of our own descriptors below `/proc/self/fd`, for the calls that take only a path, and what the host calls the
//! objects behind them.
//!
//! Such a name is a magic link: following it reaches the very object, a symbolic link included, whatever became
//! of its path. Knows nothing of views or owners.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, CWD};
use rustix::path::DecInt;

use crate::{Errno, Result};

const DIRECTORY: &[u8] = b"/proc/self/fd/";

/// The name of one of our own descriptors, kept on the stack.
pub struct ProcPath {
    // The prefix, at most eleven characters of a number, and zeros.
    bytes: [u8; 32],
}

impl ProcPath {
    /// Names a descriptor.
    pub fn of(fd: BorrowedFd<'_>) -> Self {
        let number = DecInt::new(fd.as_raw_fd());
        let mut bytes = [0; 32];
        for (place, byte) in bytes[..31].iter_mut().zip(DIRECTORY.iter().chain(number.as_bytes())) {
            *place = *byte;
        }
        Self { bytes }
    }

    /// Gives the path and what it is relative to.
    pub fn at(&self) -> (BorrowedFd<'static>, &CStr) {
        let (start, from) = match directory() {
            Some(directory) => (directory, DIRECTORY.len()),
            None => (CWD, 0),
        };
        (start, CStr::from_bytes_until_nul(&self.bytes[from..]).unwrap_or_default())
    }
}

/// Gives the directory of our descriptors, held open: the way from `/` to there costs more than most calls made
/// with it.
fn directory() -> Option<BorrowedFd<'static>> {
    static HELD: OnceLock<Option<(u32, OwnedFd)>> = OnceLock::new();
    let held = HELD.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(c"/proc/self/fd", flags, Mode::empty()).ok()?;
        Some((std::process::id(), fd))
    });
    match held {
        // In a process forked later it is still the directory of the first.
        Some((process, fd)) if *process == std::process::id() => Some(fd.as_fd()),
        _ => None,
    }
}

/// Gives the path that the host now has for the object behind `fd`, with ` (deleted)` at its end where it has none.
/// That of a directory may be longer than `PATH_MAX`.
///
/// # Errors
/// - `ENAMETOOLONG`: it is longer, and the object is no directory
/// - those of the directories above where it is longer: `EACCES`, and `ENOENT` for one that has been removed
pub fn path_of_open(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    match kernels_path(fd) {
        Err(Errno::NAMETOOLONG) => long_path(fd),
        path => path,
    }
}

fn kernels_path(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let path = ProcPath::of(fd);
    let (start, path) = path.at();
    Ok(rustix::fs::readlinkat(start, path, Vec::new())?.into_bytes())
}

/// Finds a path that the kernel has no room for (`do_proc_readlink` of `fs/proc/base.c`) by the names above it, as the
/// C library does for getcwd(3).
fn long_path(fd: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let mut below = Vec::new();
    let mut at = fd.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    loop {
        let above = match rustix::fs::openat(&at, c"..", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Err(Errno::NOTDIR) => return Err(Errno::NAMETOOLONG),
            above => above?,
        };
        below.splice(..0, name_in(above.as_fd(), at.as_fd())?);
        below.insert(0, b'/');
        match kernels_path(above.as_fd()) {
            Err(Errno::NAMETOOLONG) => at = above,
            path => return Ok([path?, below].concat()),
        }
    }
}

/// Finds the name of a directory in the one above it.
fn name_in(above: BorrowedFd<'_>, directory: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let id = |stat: &rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let wanted = id(&rustix::fs::fstat(directory)?);
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut listing = RawDir::new(rustix::fs::openat(above, c".", flags, Mode::empty())?, &mut buffer);
    while let Some(entry) = listing.next() {
        let entry = entry?;
        // The number of what is mounted there is another one.
        let stat = rustix::fs::statat(above, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW);
        if stat.is_ok_and(|stat| id(&stat) == wanted) {
            return Ok(entry.file_name().to_bytes().to_vec());
        }
    }
    Err(Errno::NOENT)
}
