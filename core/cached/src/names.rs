//! Finding and changing entries of directories: the driver is asked, and what is known is kept. Knows no content.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_driver::Found;
use umvu_interface::{Caller, Errno, FileKind, Name, RemoveKind, RenameFlags, Result};

use crate::entry::Entry;
use crate::fs::CachedFs;
use crate::node::Until;

/// As many entries are kept that nobody uses.
const KEPT: usize = 1 << 14;

/// The entries that were found last, so that they are found again.
#[derive(Default)]
pub struct Recent(Mutex<Queue>);

/// By the number of their turn.
#[derive(Default)]
struct Queue {
    entries: BTreeMap<u64, Arc<Entry>>,
    next: u64,
}

impl Queue {
    fn push(&mut self, entry: Arc<Entry>) {
        entry.set_turn(self.next);
        self.entries.insert(self.next, entry);
        self.next += 1;
    }
}

impl Recent {
    fn keep(&self, entry: &Arc<Entry>) {
        let mut gone = Vec::new();
        let mut queue = self.0.lock();
        queue.push(entry.clone());
        // Those that were used meanwhile have a second chance.
        for _ in 0..8 {
            if queue.entries.len() <= KEPT {
                break;
            }
            match queue.entries.pop_first() {
                Some((_, used)) if used.was_used() => queue.push(used),
                other => gone.extend(other),
            }
        }
        drop(queue);
        drop(gone);
    }

    /// Lets one go that has no name any more.
    fn forget(&self, entry: &Arc<Entry>) {
        let mut queue = self.0.lock();
        let turn = entry.turn();
        let gone = queue.entries.get(&turn).is_some_and(|kept| Arc::ptr_eq(kept, entry));
        let gone = gone.then(|| queue.entries.remove(&turn));
        drop(queue);
        drop(gone);
    }

    /// Lets all go.
    pub fn clear(&self) {
        let all = std::mem::take(&mut self.0.lock().entries);
        drop(all);
    }
}

impl CachedFs {
    /// Finds an entry of a directory.
    pub(crate) fn child(&self, directory: &Arc<Entry>, name: &Name) -> Result<Arc<Entry>> {
        let node = &directory.node;
        if node.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        if let Some(known) = node.child(name.as_bytes()).filter(|known| known.is_valid()) {
            known.touch();
            return Ok(known);
        }
        let _reads = node.listing.read();
        match self.asked.any(|driver, who| driver.lookup(who, node.id, name)) {
            Ok(found) => self.place(directory, name.as_bytes(), &found),
            Err(errno) => {
                if errno == Errno::NOENT {
                    if let Some(gone) = node.child(name.as_bytes()) {
                        self.gone(&gone);
                    }
                }
                Err(errno)
            }
        }
    }

    /// Gives what was found in a directory its entry. The directory's lock is held.
    pub(crate) fn place(&self, directory: &Arc<Entry>, name: &[u8], found: &Found) -> Result<Arc<Entry>> {
        let node = self.nodes.found(&self.asked, found);
        let until = Until::of(found.name_valid);
        let known = directory.node.child(name);
        if let Some(known) = &known {
            if Arc::ptr_eq(&known.node, &node) && !known.is_removed() {
                known.renew(until);
                known.touch();
                return Ok(known.clone());
            }
        }
        if node.kind == FileKind::Directory {
            if let Some(elsewhere) = node.entry() {
                // d_splice_alias of fs/dcache.c: somebody has moved it behind our back, but never into itself.
                if directory.is_within(&elsewhere) {
                    tracing::warn!(name = %name.escape_ascii(), "a driver tells of a directory that is in itself");
                    return Err(Errno::LOOP);
                }
                if let Some(known) = known {
                    self.gone(&known);
                }
                elsewhere.move_to(directory, name, Some(until));
                return Ok(elsewhere);
            }
        }
        let entry = Entry::new(node, Some((directory, name)), until);
        let mut other = None;
        {
            let mut children = directory.node.children.lock();
            let former = children.get(name).and_then(std::sync::Weak::upgrade);
            match former.filter(|former| Arc::ptr_eq(&former.node, &entry.node) && !former.is_removed()) {
                // Somebody was faster.
                Some(same) => other = Some(same),
                None => {
                    children.insert(name.into(), Arc::downgrade(&entry));
                }
            }
        }
        if let Some(same) = other {
            same.renew(until);
            return Ok(same);
        }
        if let Some(known) = known {
            self.gone(&known);
        }
        self.recent.keep(&entry);
        Ok(entry)
    }

    /// Takes note that an entry is no more.
    pub(crate) fn gone(&self, entry: &Arc<Entry>) {
        entry.remove();
        entry.node.expire();
        self.recent.forget(entry);
    }

    /// Makes an entry by what `make` has the driver do.
    pub(crate) fn made(
        &self,
        directory: &Arc<Entry>,
        name: &Name,
        make: impl FnOnce() -> Result<Found>,
    ) -> Result<Arc<Entry>> {
        if directory.node.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let _changes = directory.node.listing.write();
        let found = make()?;
        directory.node.expire();
        self.place(directory, name.as_bytes(), &found)
    }

    /// Removes an entry.
    pub(crate) fn unname(
        &self,
        caller: &Caller<'_>,
        directory: &Arc<Entry>,
        name: &Name,
        kind: RemoveKind,
    ) -> Result<()> {
        if directory.node.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let gone = {
            let _changes = directory.node.listing.write();
            self.asked.by(caller, |driver, who| driver.remove(who, directory.node.id, name, kind))?;
            directory.node.expire();
            let gone = directory.node.child(name.as_bytes());
            if let Some(gone) = &gone {
                self.gone(gone);
            }
            gone
        };
        if let Some(gone) = gone {
            self.forget_removed(&gone);
        }
        Ok(())
    }

    /// Renames an entry.
    pub(crate) fn renamed(
        &self,
        caller: &Caller<'_>,
        (directory, name): (&Arc<Entry>, &Name),
        (new_directory, new_name): (&Arc<Entry>, &Name),
        flags: RenameFlags,
    ) -> Result<()> {
        if [directory, new_directory].iter().any(|entry| entry.node.kind != FileKind::Directory) {
            return Err(Errno::NOTDIR);
        }
        let replaced = {
            let crosses = !Arc::ptr_eq(&directory.node, &new_directory.node);
            // lock_rename of fs/namei.c: one at a time between directories, so that what is above what stays so.
            let _moves = crosses.then(|| self.moving.lock());
            let (first, second) = match directory.node.serial <= new_directory.node.serial {
                true => (&directory.node, &new_directory.node),
                false => (&new_directory.node, &directory.node),
            };
            let _one = first.listing.write();
            let _other = crosses.then(|| second.listing.write());
            let moved = directory.node.child(name.as_bytes());
            let replaced = new_directory.node.child(new_name.as_bytes());
            let is_same = match (&moved, &replaced) {
                (Some(moved), Some(replaced)) => Arc::ptr_eq(&moved.node, &replaced.node),
                _ => false,
            };
            if is_same {
                // Two names of one object, or one: the driver is not asked. vfs_rename of fs/namei.c.
                return Ok(());
            }
            // do_renameat2 of fs/namei.c: nothing goes into itself, and what is above is not empty.
            if moved.as_ref().is_some_and(|moved| new_directory.is_within(moved)) {
                return Err(Errno::INVAL);
            }
            if replaced.as_ref().is_some_and(|replaced| directory.is_within(replaced)) {
                let exchanges = flags.contains(RenameFlags::EXCHANGE);
                return Err(if exchanges { Errno::INVAL } else { Errno::NOTEMPTY });
            }
            let (from, to) = (directory.node.id, new_directory.node.id);
            self.asked.by(caller, |driver, who| driver.rename(who, from, name, to, new_name, flags))?;
            directory.node.expire();
            new_directory.node.expire();
            for entry in [&moved, &replaced].into_iter().flatten() {
                entry.node.expire();
            }
            if let Some(replaced) = &replaced {
                self.gone(replaced);
            }
            if let Some(moved) = &moved {
                moved.move_to(new_directory, new_name.as_bytes(), None);
            }
            match &replaced {
                Some(replaced) if flags.contains(RenameFlags::EXCHANGE) => {
                    replaced.move_to(directory, name.as_bytes(), None);
                    self.recent.keep(replaced);
                    None
                }
                _ => replaced,
            }
        };
        if let Some(replaced) = replaced {
            self.forget_removed(&replaced);
        }
        Ok(())
    }
}
