//! What can go wrong when a store is opened or loaded, as a person is told.
//!
//! Errors of single objects are [`rustix::io::Errno`] instead: guests see those.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another umvu holds the store.
    #[error("{}: in use by {}", path.display(), holder(*pid))]
    Locked {
        /// The file that is locked.
        path: PathBuf,
        /// The process that holds it, where it said so.
        pid: Option<u32>,
    },
    /// The layer, or the directory for the database, cannot be written.
    #[error("{}: faked owners cannot be kept here: {cause}", path.display())]
    ReadOnly {
        /// The directory or file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
    /// A file beside the layer holds something else than a store.
    #[error("{}: not a store of faked owners, or a damaged one: {cause}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// Any other failure of the host.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What the host said.
        cause: io::Error,
    },
}

impl OpenError {
    /// Sorts a failure of the host to write or read `path`.
    pub(crate) fn from_io(path: &Path, cause: io::Error) -> OpenError {
        let path = path.to_owned();
        match Errno::from_io_error(&cause) {
            Some(Errno::ROFS | Errno::ACCESS | Errno::PERM) => OpenError::ReadOnly { path, cause },
            _ => OpenError::Io { path, cause },
        }
    }
}

/// Why saved state could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A line is not `dev=..,ino=..,mode=..,uid=..,gid=..,nlink=..,rdev=..`.
    #[error("line {line}: not a line of saved owners: {cause}")]
    Syntax {
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        cause: &'static str,
    },
    /// The text could not be read, or the layer not walked.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// An owner could not be stored.
    #[error("inode {ino}: {}", io::Error::from(*cause))]
    Store {
        /// The inode number in the text.
        ino: u64,
        /// What the store said.
        cause: Errno,
    },
}

impl From<Errno> for ImportError {
    fn from(errno: Errno) -> ImportError {
        ImportError::Io(errno.into())
    }
}

/// The errno behind a failure of `std::io`; EIO for those that std made up itself.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Who holds a store, for people.
fn holder(pid: Option<u32>) -> String {
    match pid {
        Some(pid) if pid == std::process::id() => "another mount of this umvu".into(),
        Some(pid) => format!("another umvu (process {pid})"),
        None => "another umvu".into(),
    }
}
