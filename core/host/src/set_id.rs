//! Set-id bits that only the view shows, and the writes that take them away: `file_remove_privs` of `fs/inode.c`.
//!
//! The kernel writes unseen, but it drops the set-user-id bit that a file has on the host when a user writes to it.
//! So a file that is opened for writing by somebody who may not keep its set-id bits gets that bit there, and loses
//! execution for all but its owner, to whom the bit says nothing; once the bit is gone, somebody has written.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use parking_lot::Mutex;
use rustix::fs::{OFlags, Statx};
use umvu_interface::{Caller, Capabilities, FileKind, Result};
use umvu_ownership::{Key, Override};

use crate::create::real_mode;
use crate::filesystem::{kind, mode, statx};
use crate::HostFs;

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;

/// The files that wait for a write, with the bits it takes away.
#[derive(Default)]
pub(crate) struct Watched {
    files: Mutex<HashMap<Key, u32>>,
}

impl Watched {
    /// Lets a write take nothing away any more: the bits were set anew, or the file is gone.
    pub(crate) fn forget(&self, key: &Key) {
        self.files.lock().remove(key);
    }
}

/// The bits that a write through a descriptor with `flags` takes away: `setattr_should_drop_suidgid` of `fs/attr.c`.
pub(crate) fn lost_by_writing(caller: &Caller<'_>, flags: OFlags, shown: &Override) -> u32 {
    let who = caller.credentials;
    let writes = flags & OFlags::ACCMODE != OFlags::RDONLY;
    if !writes || !who.is_faked() || who.capable(Capabilities::FSETID) {
        return 0;
    }
    let with_group = shown.mode & 0o010 != 0 || !who.in_group(shown.gid);
    shown.mode & if with_group { SETUID | SETGID } else { SETUID }
}

impl HostFs {
    /// Sees to it that the next write to a regular file takes `bits` away from what it shows.
    pub(crate) fn watch_writes(&self, fd: BorrowedFd<'_>, bits: u32) -> Result<()> {
        if bits == 0 {
            return Ok(());
        }
        let host = statx(fd)?;
        let mut files = self.watched().files.lock();
        let real = (mode(&host) & 0o7777 & !0o011) | SETUID;
        match umvu_sys::file::change_mode(fd, real) {
            Ok(()) => {
                *files.entry(Key::from_statx(&host)).or_default() |= bits;
                Ok(())
            }
            // Another user's file on the host: it is taken as written.
            Err(_) => match self.ownership() {
                Some(store) => self.update(&store, fd, &host, |shown| without(shown, bits)),
                None => Ok(()),
            },
        }
    }

    /// Ends [`HostFs::watch_writes`] for a file that somebody writes to who may keep its set-id bits.
    pub(crate) fn unwatch_writes(&self, fd: BorrowedFd<'_>) -> Result<()> {
        if self.watched().files.lock().is_empty() {
            return Ok(());
        }
        let host = statx(fd)?;
        let Some(shown) = self.override_of(fd, &host)? else { return Ok(()) };
        let left = self.after_writes(fd, &host, shown)?;
        if self.watched().files.lock().remove(&Key::from_statx(&host)).is_some() {
            umvu_sys::file::change_mode(fd, real_mode(left.mode, FileKind::Regular))?;
        }
        Ok(())
    }

    /// Gives what is left of `shown` when the file may have been written to. `host` describes it.
    pub(crate) fn after_writes(&self, fd: BorrowedFd<'_>, host: &Statx, shown: Override) -> Result<Override> {
        if shown.mode & (SETUID | SETGID) == 0 || kind(host) != FileKind::Regular {
            return Ok(shown);
        }
        let key = Key::from_statx(host);
        let mut files = self.watched().files.lock();
        let Some(bits) = files.get(&key).copied() else { return Ok(shown) };
        // `host` may be older than the bit.
        let host = statx(fd)?;
        if mode(&host) & SETUID != 0 {
            return Ok(shown);
        }
        let left = without(shown, bits);
        if let Some(store) = self.ownership() {
            self.update(&store, fd, &host, |now| without(now, bits))?;
            umvu_sys::file::change_mode(fd, real_mode(left.mode, FileKind::Regular))?;
        }
        files.remove(&key);
        Ok(left)
    }
}

fn without(shown: Override, bits: u32) -> Override {
    Override { mode: shown.mode & !bits, ..shown }
}
