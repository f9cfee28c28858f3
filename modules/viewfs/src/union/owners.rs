//! Modes and owners of objects that stay in a lower layer (`nochcopy`): each is kept by an empty file in the work
//! directory that shows them. Knows nothing of names in the union.

use std::collections::HashMap;

use parking_lot::RwLock;
use umvu_interface::{
    Caller, Creation, Errno, FileKind, InodeRef, Name, RemoveKind, RenameFlags, Result, SetAttr, SetTime, Stat,
    Timestamp,
};

use super::inode::UnionInode;
use super::{as_root, UnionFs, Writes};

/// What is kept, by device and inode number of the lower object.
#[derive(Default)]
pub(crate) struct Owners {
    known: RwLock<HashMap<(u64, u64), Record>>,
}

#[derive(Clone, Copy)]
struct Record {
    mode: u32,
    uid: u32,
    gid: u32,
    changed: Timestamp,
}

impl Record {
    fn of(stat: &Stat) -> Self {
        Self { mode: stat.mode & 0o7777, uid: stat.uid, gid: stat.gid, changed: stat.ctime }
    }
}

impl UnionFs {
    /// Reads what an earlier mount wrote down.
    pub(super) fn load_owners(&self) -> Result<()> {
        let Some(directory) = self.work.as_ref().and_then(|work| work.owners.get()) else { return Ok(()) };
        for entry in directory.read_dir()? {
            if let Some(key) = self.origin_key(&entry.name) {
                let stat = directory.lookup(&Name::new(&entry.name)?)?.stat()?;
                self.owners.known.write().insert(key, Record::of(&stat));
            }
        }
        Ok(())
    }

    /// Gives the metadata of a lower object as it is shown, but for its number.
    pub(super) fn stat_lower(&self, lower: &InodeRef) -> Result<Stat> {
        let mut stat = lower.stat()?;
        self.apply_owner(&mut stat);
        Ok(stat)
    }

    /// Puts what was written down in place of what a lower object has.
    pub(super) fn apply_owner(&self, stat: &mut Stat) {
        let known = self.owners.known.read();
        if known.is_empty() {
            return;
        }
        if let Some(record) = known.get(&(stat.dev, stat.ino)) {
            stat.mode = stat.mode & !0o7777 | record.mode;
            stat.uid = record.uid;
            stat.gid = record.gid;
            stat.ctime = stat.ctime.max(record.changed);
        }
    }

    /// Writes down a change of mode or owner; gives nothing if it is a case for a copy.
    pub(super) fn record_owner(&self, caller: &Caller<'_>, inode: &UnionInode, change: &SetAttr) -> Option<Result<()>> {
        let is_other = change.size.is_some() || change.atime != SetTime::Keep || change.mtime != SetTime::Keep;
        if !self.records_owners || is_other || inode.upper().is_some() {
            return None;
        }
        match self.writes_to(inode) {
            Ok(Writes::Never) => Some(self.write_owner(caller, inode, change)),
            Ok(_) => None,
            Err(errno) => Some(Err(errno)),
        }
    }

    fn write_owner(&self, caller: &Caller<'_>, inode: &UnionInode, change: &SetAttr) -> Result<()> {
        let _changing = self.lock();
        let shown = self.stat_lower(inode.real()?)?;
        if shown.kind() == FileKind::Symlink && change.mode.is_some() {
            return Err(Errno::OPNOTSUPP);
        }
        let work = self.work()?;
        let directory = work.owners(caller)?;
        let name = Name::new(&self.origin_of(&shown))?;
        let file = match directory.lookup(&name) {
            Err(Errno::NOENT) => {
                // Whole before it counts.
                let temporary = work.new_name()?;
                let file = work.directory.create(caller, &temporary, &Creation::Regular { mode: 0o600 })?;
                let done = as_shown(&as_root(caller), &file, &shown)
                    .and_then(|()| file.set_attr(caller, change))
                    .and_then(|()| work.directory.rename(caller, &temporary, directory, &name, RenameFlags::empty()));
                if let Err(errno) = done {
                    work.purge(&temporary);
                    return Err(errno);
                }
                file
            }
            found => {
                let file = found?;
                file.set_attr(caller, change)?;
                file
            }
        };
        let record = Record::of(&file.stat()?);
        self.owners.known.write().insert((shown.dev, shown.ino), record);
        Ok(())
    }

    /// Forgets what was written down of an object that has been copied up; `name` is that of its origin.
    pub(super) fn forget_owner(&self, caller: &Caller<'_>, key: (u64, u64), name: &[u8]) {
        if self.owners.known.write().remove(&key).is_none() {
            return;
        }
        let directory = self.work.as_ref().and_then(|work| work.owners.get());
        if let (Some(directory), Ok(name)) = (directory, Name::new(name)) {
            // If it stays, it tells of an object that nobody sees any more.
            let _ = directory.remove(&as_root(caller), &name, RemoveKind::File);
        }
    }
}

/// Gives a file the owner and mode that another object shows.
fn as_shown(caller: &Caller<'_>, file: &InodeRef, shown: &Stat) -> Result<()> {
    let made = file.stat()?;
    if (made.uid, made.gid) != (shown.uid, shown.gid) {
        let owner = SetAttr { uid: Some(shown.uid), gid: Some(shown.gid), ..SetAttr::default() };
        match file.set_attr(caller, &owner) {
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    file.set_attr(caller, &SetAttr { mode: Some(shown.mode & 0o7777), ..SetAttr::default() })
}
