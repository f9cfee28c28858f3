//! Changes of owner, mode, size and times. Knows not who may make them.

use rustix::fs::{chownat, ftruncate, utimensat, AtFlags, Gid, OFlags, Timespec, Timestamps, Uid};
use rustix::fs::{UTIME_NOW, UTIME_OMIT};
use umvu_interface::{Caller, Errno, FileKind, Inode, Result, SetAttr, SetTime};
use umvu_ownership::{Override, Store};

use crate::create::real_mode;
use crate::filesystem::kind;
use crate::HostInode;

impl HostInode {
    /// Changes owner, mode, size and times, in this order; the first failure ends it.
    pub(crate) fn change(&self, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        if change.uid.is_some() || change.gid.is_some() || change.mode.is_some() {
            match self.fs().store_for(caller) {
                Some(store) => self.change_shown(&store, change)?,
                None => self.change_real(change)?,
            }
        } else if change.is_empty() {
            // chown(2) without ids: the time of the last change is what changes, if the host lets it.
            let _ = chownat(self.fd(), c"", None, None, AtFlags::EMPTY_PATH);
        }
        if let Some(size) = change.size {
            self.truncate(size)?;
        }
        if change.atime != SetTime::Keep || change.mtime != SetTime::Keep {
            let times =
                Timestamps { last_access: as_timespec(change.atime), last_modification: as_timespec(change.mtime) };
            self.permitted(|| utimensat(self.fd(), c"", &times, AtFlags::EMPTY_PATH))?;
        }
        Ok(())
    }

    /// Changes what is shown of owner and mode, on top of what is shown now.
    fn change_shown(&self, store: &Store, change: &SetAttr) -> Result<()> {
        let host = self.host()?;
        let kind = kind(&host);
        if change.mode.is_some() && kind == FileKind::Symlink {
            return Err(Errno::OPNOTSUPP);
        }
        let rearmed = if change.mode.is_some() { self.fs().rearmed(self.fd())? } else { 0 };
        self.fs().update(store, self.fd(), &host, |shown| changed(shown, change))?;
        if host.stx_uid != rustix::process::geteuid().as_raw() {
            // The host's mode is another user's business.
            return Ok(());
        }
        // Execution and the time of the last change are the host's: it takes part as far as it can, and what is
        // shown has been changed already.
        let _ = match change.mode {
            Some(shown) => umvu_sys::file::change_mode(self.fd(), real_mode(shown, kind)),
            None => chownat(self.fd(), c"", None, None, AtFlags::EMPTY_PATH),
        };
        self.fs().watch_writes(self.fd(), rearmed)
    }

    /// Changes owner and mode on the host, and what is shown where that differs.
    fn change_real(&self, change: &SetAttr) -> Result<()> {
        let host = self.host()?;
        let shown = self.fs().override_of(self.fd(), &host)?;
        let uid = change.uid.filter(|id| *id != u32::MAX).map(Uid::from_raw);
        let gid = change.gid.filter(|id| *id != u32::MAX).map(Gid::from_raw);
        if uid.is_some() || gid.is_some() {
            chownat(self.fd(), c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(wanted) = change.mode {
            let real = if shown.is_some() { real_mode(wanted, kind(&host)) } else { wanted & 0o7777 };
            umvu_sys::file::change_mode(self.fd(), real)?;
        }
        if let (Some(_), Some(store)) = (shown, self.fs().ownership()) {
            self.fs().update(&store, self.fd(), &host, |shown| changed(shown, change))?;
        }
        Ok(())
    }

    /// Changes the size of a regular file.
    ///
    /// # Errors
    /// - `EISDIR`: a directory
    /// - `EINVAL`: not a regular file, or too large a size
    /// - those of truncate(2)
    fn truncate(&self, size: u64) -> Result<()> {
        match self.kind()? {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        self.fs().unwatch_writes(self.fd())?;
        match ftruncate(self.fd(), size) {
            // The descriptor is no more than a name, or cannot write.
            Err(Errno::BADF | Errno::INVAL) => ftruncate(self.reopen(OFlags::WRONLY)?, size),
            done => done,
        }
    }
}

fn changed(mut shown: Override, change: &SetAttr) -> Override {
    shown.uid = change.uid.unwrap_or(shown.uid);
    shown.gid = change.gid.unwrap_or(shown.gid);
    shown.mode = change.mode.map_or(shown.mode, |mode| mode & 0o7777);
    shown
}

fn as_timespec(time: SetTime) -> Timespec {
    match time {
        SetTime::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        SetTime::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        SetTime::At(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
    }
}
