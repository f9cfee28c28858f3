//! The extended attribute of one object, read and written through its descriptor.
//!
//! Knows which errnos mean "no mark here"; what to do instead is the store's business.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, XattrFlags};
use rustix::io::Errno;
use umvu_sys::file::{get_xattr, remove_xattr, set_xattr};

use crate::mark::{self, Mark};

pub(crate) const NAME: &CStr = c"user.containers.override_stat";

/// The outcome of looking for a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Mark(Mark),
    Nothing,
    /// The file system has no user attributes.
    Unsupported,
}

/// Reads the mark of `object`.
///
/// # Errors
/// - `EIO`: the mark is malformed
/// - those of getxattr(2) that say something else than that there is no mark to be seen
pub(crate) fn read(object: BorrowedFd<'_>, host_type: FileType) -> Result<Found, Errno> {
    let mut value = [0; mark::MAX_LEN];
    match get_xattr(object, NAME, &mut value) {
        Ok(len) => {
            let text = value.get(..len).ok_or(Errno::IO)?;
            mark::parse(text, host_type).map(Found::Mark).ok_or(Errno::IO)
        }
        // EACCES: user attributes are as readable as the contents (fs/xattr.c, xattr_permission).
        // The user who cannot read the file cannot have marked it.
        Err(Errno::NODATA | Errno::ACCESS | Errno::PERM) => Ok(Found::Nothing),
        Err(Errno::OPNOTSUPP) => Ok(Found::Unsupported),
        Err(Errno::RANGE) => Err(Errno::IO),
        Err(errno) => Err(errno),
    }
}

/// What becomes of a mark that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    Replace,
    /// EEXIST is the answer.
    Keep,
}

/// Writes the mark of `object`.
///
/// # Errors
/// Those of setxattr(2).
pub(crate) fn write(object: BorrowedFd<'_>, text: &str, existing: Existing) -> Result<(), Errno> {
    let flags = match existing {
        Existing::Replace => XattrFlags::empty(),
        Existing::Keep => XattrFlags::CREATE,
    };
    set_xattr(object, NAME, text.as_bytes(), flags.bits())
}

/// Takes the mark off `object`; that there is none is no error.
///
/// # Errors
/// Those of removexattr(2).
pub(crate) fn erase(object: BorrowedFd<'_>) -> Result<(), Errno> {
    match remove_xattr(object, NAME) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}
