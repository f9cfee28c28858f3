//! Links, removals and renames: changes of names, which owners survive because stores know objects by identity.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode};
use umvu_interface::{Caller, Errno, FileKind, InodeRef, Name, RemoveKind, RenameFlags, Result};
use umvu_ownership::Key;

use crate::filesystem::{kind, mode, statx, Removed};
use crate::{procfd, HostInode};

impl HostInode {
    /// Gives the inode behind the interface, if it belongs to the same tree.
    ///
    /// # Errors
    /// - `EXDEV`: it does not
    fn same_tree<'a>(&self, other: &'a InodeRef) -> Result<&'a HostInode> {
        let other = other.as_any().downcast_ref::<HostInode>().ok_or(Errno::XDEV)?;
        if Arc::ptr_eq(self.fs(), other.fs()) {
            Ok(other)
        } else {
            Err(Errno::XDEV)
        }
    }

    pub(crate) fn link_entry(&self, _caller: &Caller<'_>, name: &Name, target: &InodeRef) -> Result<()> {
        let target = self.same_tree(target)?;
        self.permitted(|| procfd::link(target.fd(), self.fd(), name.as_bytes()))
    }

    pub(crate) fn remove_entry(&self, name: &Name, kind: RemoveKind) -> Result<()> {
        let flags = match kind {
            RemoveKind::File => AtFlags::empty(),
            RemoveKind::Directory => AtFlags::REMOVEDIR,
        };
        let doomed = self.last_name(name);
        self.permitted(|| rustix::fs::unlinkat(self.fd(), name.as_bytes(), flags))?;
        if let Some(doomed) = doomed {
            self.fs().forget(&doomed);
        }
        Ok(())
    }

    pub(crate) fn rename_entry(
        &self,
        name: &Name,
        new_directory: &InodeRef,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let new_directory = self.same_tree(new_directory)?;
        let replaced = if flags.contains(RenameFlags::EXCHANGE) { None } else { new_directory.last_name(new_name) };
        let rename = |flags: RenameFlags| {
            self.permitted(|| {
                new_directory.permitted(|| {
                    rustix::fs::renameat_with(
                        self.fd(),
                        name.as_bytes(),
                        new_directory.fd(),
                        new_name.as_bytes(),
                        rustix::fs::RenameFlags::from_bits_retain(flags.bits()),
                    )
                })
            })
        };
        let done = match rename(flags) {
            // A directory that changes its parent is written to as well: the entry `..`.
            Err(Errno::ACCESS) if self.open_entry_to_owner(name) => rename(flags),
            done => done,
        };
        match done {
            Err(Errno::INVAL | Errno::PERM) if flags == RenameFlags::WHITEOUT => {
                // Some file systems cannot leave a whiteout behind: the old name is free for a moment.
                rename(RenameFlags::empty())?;
                whiteout(self.fd(), name)?;
            }
            done => done?,
        }
        if let Some(replaced) = replaced {
            self.fs().forget(&replaced);
        }
        Ok(())
    }

    /// Does for an entry what [`HostInode::open_to_owner`] does.
    fn open_entry_to_owner(&self, name: &Name) -> bool {
        match procfd::open_path(self.fd(), name.as_bytes()) {
            Ok(fd) => HostInode::new(Arc::clone(self.fs()), fd).open_to_owner(),
            Err(_) => false,
        }
    }

    /// Gives an entry that has no other name, if a record of it may have to be forgotten.
    fn last_name(&self, name: &Name) -> Option<Removed> {
        if !self.fs().has_overrides() {
            return None;
        }
        let fd = procfd::open_path(self.fd(), name.as_bytes()).ok()?;
        let host = statx(fd.as_fd()).ok()?;
        let last = host.stx_nlink <= 1 || kind(&host) == FileKind::Directory;
        last.then(|| Removed { key: Key::from_statx(&host), mode: mode(&host), fd })
    }
}

/// Makes a whiteout, which every user may since Linux 5.8.
pub(crate) fn whiteout(directory: BorrowedFd<'_>, name: &Name) -> Result<()> {
    rustix::fs::mknodat(directory, name.as_bytes(), FileType::CharacterDevice, Mode::empty(), 0)
}
