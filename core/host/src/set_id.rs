//! Set-id bits that only the view shows, and the writes that take them away: `file_remove_privs` of `fs/inode.c`.
//!
//! The kernel writes unseen, but it drops the set-user-id bit that a file has on the host when a user writes to it.
//! So a file that is opened for writing by somebody who may not keep its set-id bits gets that bit there, and loses
//! execution for all but its owner, to whom the bit says nothing; once the bit is gone, somebody has written. So does
//! one that shows capabilities, which every write takes away.

use std::collections::HashMap;
use std::ffi::CStr;
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
/// Stands beside them for the capabilities of a file.
pub(crate) const CAPABILITIES: u32 = 1 << 16;

/// The attribute that holds those.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

/// The name under which it is kept for faked callers.
pub(crate) const KEPT_CAPABILITY: &CStr = c"user.umvu.security.capability";

/// The files that wait for a write, with the bits it takes away.
#[derive(Default)]
pub(crate) struct Watched {
    files: Mutex<HashMap<Key, u32>>,
}

impl Watched {
    /// Lets a write take nothing away any more: the file is gone.
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
        let Some(store) = self.ownership() else { return Ok(()) };
        let host = statx(fd)?;
        if self.override_of(fd, &host)?.is_none() {
            // No moment shows the bit.
            self.update(&store, fd, &host, |shown| shown)?;
        }
        let mut files = self.watched().files.lock();
        let real = (mode(&host) & 0o7777 & !0o011) | SETUID;
        match umvu_sys::file::change_mode(fd, real) {
            Ok(()) => {
                *files.entry(Key::from_statx(&host)).or_default() |= bits;
                Ok(())
            }
            // Another user's file on the host: it is taken as written.
            Err(_) => {
                drop_capabilities(fd, bits);
                self.update(&store, fd, &host, |shown| without(shown, bits))
            }
        }
    }

    /// Gives what a write still takes away from a file whose set-id bits are about to be set anew, and waits for none
    /// until it is told to watch for that.
    pub(crate) fn rearmed(&self, fd: BorrowedFd<'_>) -> Result<u32> {
        self.settle_writes(fd)?;
        if self.watched().files.lock().is_empty() {
            return Ok(0);
        }
        let key = Key::from_statx(&statx(fd)?);
        Ok(self.watched().files.lock().remove(&key).unwrap_or(0) & CAPABILITIES)
    }

    /// Takes away what a write has taken that was not looked at yet.
    pub(crate) fn settle_writes(&self, fd: BorrowedFd<'_>) -> Result<()> {
        if self.watched().files.lock().is_empty() {
            return Ok(());
        }
        let host = statx(fd)?;
        match self.override_of(fd, &host)? {
            Some(shown) => self.settled(fd, shown).map(drop),
            None => Ok(()),
        }
    }

    /// Ends [`HostFs::watch_writes`] for a file that somebody writes to who may keep its set-id bits.
    pub(crate) fn unwatch_writes(&self, fd: BorrowedFd<'_>) -> Result<()> {
        if self.watched().files.lock().is_empty() {
            return Ok(());
        }
        let host = statx(fd)?;
        let Some(shown) = self.override_of(fd, &host)? else { return Ok(()) };
        let left = self.settled(fd, shown)?;
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
        self.settled(fd, shown)
    }

    fn settled(&self, fd: BorrowedFd<'_>, shown: Override) -> Result<Override> {
        let mut files = self.watched().files.lock();
        if files.is_empty() {
            return Ok(shown);
        }
        // Not older than the bit.
        let host = statx(fd)?;
        let key = Key::from_statx(&host);
        let Some(bits) = files.get(&key).copied() else { return Ok(shown) };
        if mode(&host) & SETUID != 0 {
            return Ok(shown);
        }
        drop_capabilities(fd, bits);
        let left = without(shown, bits);
        if let Some(store) = self.ownership() {
            self.update(&store, fd, &host, |now| without(now, bits))?;
            umvu_sys::file::change_mode(fd, real_mode(left.mode, FileKind::Regular))?;
        }
        files.remove(&key);
        Ok(left)
    }
}

/// Takes the capabilities of a file away that are kept for it.
fn drop_capabilities(fd: BorrowedFd<'_>, bits: u32) {
    if bits & CAPABILITIES != 0 {
        // Who may write to it may do so; it may have been done.
        let _ = umvu_sys::file::remove_xattr(fd, KEPT_CAPABILITY);
    }
}

fn without(shown: Override, bits: u32) -> Override {
    Override { mode: shown.mode & !bits & 0o7777, ..shown }
}
