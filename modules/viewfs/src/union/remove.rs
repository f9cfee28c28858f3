//! Removing names. Knows how they vanish from the upper layer, or are hidden there, without ever showing a state
//! in between.

use umvu_interface::{Caller, Errno, Name, RemoveKind, RenameFlags, Result};

use super::copy_up::is_refusal;
use super::inode::{Directory, UnionInode};
use super::{Changing, UnionFs, Writes};

impl UnionFs {
    pub(super) fn remove(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        kind: RemoveKind,
    ) -> Result<()> {
        let changing = self.lock();
        let victim = self.find_locked(directory, name.as_bytes())?;
        match (kind, victim.is_directory()) {
            (RemoveKind::File, true) => return Err(Errno::ISDIR),
            (RemoveKind::Directory, false) => return Err(Errno::NOTDIR),
            _ => {}
        }
        if self.is_excepted(&directory.node, name.as_bytes()) {
            return Err(Errno::BUSY);
        }
        if victim.upper().is_none() {
            let writes = self.writes_to(&victim)?;
            if writes == Writes::Refused {
                return Err(Errno::ROFS);
            }
            if writes != Writes::Never {
                let done = self.real_parent(directory, &victim)?.remove(caller, name, kind);
                match done {
                    Err(errno) if writes == Writes::First && is_refusal(errno) => {}
                    Err(errno) => return Err(errno),
                    Ok(()) => {
                        self.renaming(&changing);
                        directory.node.detach(name.as_bytes());
                        return Ok(());
                    }
                }
            }
            self.work()?;
        }
        if kind == RemoveKind::Directory && !self.read_locked(victim.as_directory()?)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.renaming(&changing);
        let done = self.remove_upper(caller, directory, name, &victim, &changing);
        if done.is_ok() && kind == RemoveKind::Directory {
            directory.node.detach(name.as_bytes());
            self.let_go(&victim.as_directory()?.node);
        } else if let (Ok(()), Some(upper)) = (&done, victim.upper()) {
            self.drop_copy_without_names(caller, upper);
        }
        self.renaming(&changing);
        done
    }

    /// Removes a name from the upper layer, or hides it there.
    fn remove_upper(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        victim: &UnionInode,
        changing: &Changing<'_>,
    ) -> Result<()> {
        let work = self.work()?;
        let upper = self.raise_directory(caller, &directory.node, changing)?;
        if victim.named_upper().is_none() {
            if let Some(copy) = victim.upper() {
                self.drop_lower_name(caller, copy)?;
            }
            return self.make_whiteout(caller, &upper, name);
        }
        let kind = if victim.is_directory() { RemoveKind::Directory } else { RemoveKind::File };
        let temporary = work.new_name()?;
        if !self.lower_has(directory, name.as_bytes())? {
            return match upper.remove(caller, name, kind) {
                // What is left in it are whiteouts.
                Err(Errno::NOTEMPTY | Errno::EXIST) if kind == RemoveKind::Directory => {
                    upper.rename(caller, name, &work.directory, &temporary, RenameFlags::empty())?;
                    work.purge(&temporary);
                    Ok(())
                }
                done => done,
            };
        }
        if self.hides_by_oci_names() {
            self.make_whiteout(caller, &upper, name)?;
            upper.rename(caller, name, &work.directory, &temporary, RenameFlags::empty())?;
            work.purge(&temporary);
            return Ok(());
        }
        self.make_whiteout(caller, &work.directory, &temporary)?;
        let flags = if victim.is_directory() { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
        let done = match work.directory.rename(caller, &temporary, &upper, name, flags) {
            Err(Errno::INVAL) if victim.is_directory() => {
                let away = work.new_name()?;
                upper.rename(caller, name, &work.directory, &away, RenameFlags::empty())?;
                work.purge(&away);
                work.directory.rename(caller, &temporary, &upper, name, RenameFlags::empty())
            }
            done => done,
        };
        if done.is_err() || victim.is_directory() {
            work.purge(&temporary);
        }
        done
    }
}
