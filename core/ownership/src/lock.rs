//! Locks that say who may write: on the file `lock` beside a layer, on its root, on the database.
//!
//! flock(2) goes with the open file, so a killed process leaves nothing to clean up.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;

use crate::error::OpenError;

/// A lock that is given back when this goes out of scope.
///
/// Closing alone would not do: a thread that is between fork(2) and execve(2) has the open file too.
pub(crate) struct Lock {
    file: OwnedFd,
}

/// Whom a lock lets in besides its holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    Nobody,
    Readers,
}

impl Lock {
    /// Locks an open file or directory without waiting.
    ///
    /// # Errors
    /// `EAGAIN`: it is locked already; else those of flock(2).
    pub(crate) fn take(file: impl Into<OwnedFd>, others: Others) -> Result<Lock, Errno> {
        let file = file.into();
        let operation = match others {
            Others::Nobody => FlockOperation::NonBlockingLockExclusive,
            Others::Readers => FlockOperation::NonBlockingLockShared,
        };
        flock(&file, operation).map(|()| Lock { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = flock(self.file.as_fd(), FlockOperation::Unlock);
    }
}

/// Takes the lock of the one umvu that may write to the files in `beside`.
pub(crate) fn take(beside: &Path) -> Result<Lock, OpenError> {
    let path = beside.join("lock");
    let io = |cause| OpenError::from_io(&path, cause);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(io)?;
    match Lock::take(file.try_clone().map_err(io)?, Others::Nobody) {
        Ok(lock) => {
            // The number only makes the message of a second umvu better: without room for it we go on.
            let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
            Ok(lock)
        }
        Err(Errno::WOULDBLOCK) => Err(OpenError::Locked { pid: holder(&mut file), path }),
        Err(errno) => Err(io(errno.into())),
    }
}

/// The process that holds the lock, if the file says so.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}
