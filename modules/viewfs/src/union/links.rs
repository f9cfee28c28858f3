//! Hard links of lower layers: their names go on meaning one file when one of them is copied up. The copy is kept
//! under the name of its origin in the work directory, as overlayfs does with `index=on`; other names find it there.

use std::collections::HashMap;

use parking_lot::RwLock;
use umvu_interface::{Caller, Errno, FileKind, InodeRef, Name, RemoveKind, RenameFlags, Result, Stat, XattrSet};

use super::copy_up::Data;
use super::inode::Leaf;
use super::node::LayerIndex;
use super::whiteout::{NLINK, ORIGIN, WORK_NAME};
use super::work::LINKS_NAME;
use super::{as_root, Changing, UnionFs, Writes};

/// Which lower files have such a copy, by device and inode number; with the path under which it was found last.
#[derive(Default)]
pub(crate) struct Links {
    known: RwLock<HashMap<(u64, u64), Vec<u8>>>,
}

impl UnionFs {
    /// Finds the copies that an earlier mount made.
    pub(super) fn load_links(&self) -> Result<()> {
        let Some(directory) = self.work.as_ref().and_then(|work| work.links.get()) else { return Ok(()) };
        let entries = directory.read_dir()?;
        let keys = entries.iter().filter_map(|entry| self.origin_key(&entry.name));
        self.links.known.write().extend(keys.map(|key| (key, Vec::new())));
        Ok(())
    }

    fn has_links(&self) -> bool {
        !self.links.known.read().is_empty()
    }

    /// Finds the copy of a lower file that was made under another of its names; `path` is the one at hand.
    pub(super) fn copy_of_link(
        &self,
        layer: LayerIndex,
        lower: &InodeRef,
        kind: FileKind,
        path: impl FnOnce() -> Vec<u8>,
    ) -> Result<Option<InodeRef>> {
        if kind != FileKind::Regular || layer > self.bottom || !self.has_links() {
            return Ok(None);
        }
        let stat = lower.stat()?;
        let found = self.known_copy(&stat)?;
        if found.is_some() {
            if let Some(known) = self.links.known.write().get_mut(&(stat.dev, stat.ino)) {
                *known = path();
            }
        }
        Ok(found)
    }

    /// Gives the path in the union of a copy whose name in the upper layer is only its origin's.
    pub(super) fn path_of_link(&self, upper_path: &[u8]) -> Option<Vec<u8>> {
        let origin = upper_path.strip_prefix(WORK_NAME)?.strip_prefix(b"/")?.strip_prefix(LINKS_NAME)?;
        let key = self.origin_key(origin.strip_prefix(b"/")?)?;
        self.links.known.read().get(&key).filter(|path| !path.is_empty()).cloned()
    }

    fn known_copy(&self, stat: &Stat) -> Result<Option<InodeRef>> {
        if stat.nlink < 2 || !self.links.known.read().contains_key(&(stat.dev, stat.ino)) {
            return Ok(None);
        }
        let Some(directory) = self.work.as_ref().and_then(|work| work.links.get()) else { return Ok(None) };
        match directory.lookup(&Name::new(&self.origin_of(stat))?) {
            Ok(copy) => Ok(Some(copy)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether a file has other names that a copy must stay together with.
    pub(super) fn is_shared(&self, layer: LayerIndex, stat: &Stat) -> bool {
        // Without attributes nobody could count the names.
        let can_count = self.work.as_ref().is_some_and(|work| work.takes_attributes);
        let is_changed_here = self.layer(layer).is_ok_and(|layer| layer.writes == Writes::Never);
        stat.kind() == FileKind::Regular && stat.nlink > 1 && can_count && is_changed_here
    }

    /// Gives the one copy of a file with several names, making it if need be.
    pub(super) fn shared_copy(&self, caller: &Caller<'_>, lower: &InodeRef, stat: &Stat) -> Result<InodeRef> {
        if let Some(copy) = self.known_copy(stat)? {
            return Ok(copy);
        }
        let work = self.work()?;
        let directory = work.links(caller)?;
        let name = Name::new(&self.origin_of(stat))?;
        // All of it: whoever asks for less cuts it off under all names.
        let temporary = self.copy(caller, lower, stat, Data::All)?;
        let done = work.directory.lookup(&temporary).and_then(|copy| {
            // The name kept here is none of the union's.
            set_surplus(caller, &copy, i64::from(stat.nlink) - 1)?;
            work.directory.rename(caller, &temporary, directory, &name, RenameFlags::empty())?;
            Ok(copy)
        });
        match done {
            Ok(_) => {
                self.links.known.write().insert((stat.dev, stat.ino), Vec::new());
                directory.lookup(&name)
            }
            Err(errno) => {
                work.purge(&temporary);
                Err(errno)
            }
        }
    }

    /// Gives a name of a lower file to its copy.
    pub(super) fn name_copy(
        &self,
        caller: &Caller<'_>,
        copy: &InodeRef,
        leaf: &Leaf,
        directory: &InodeRef,
        _changing: &Changing<'_>,
    ) -> Result<()> {
        let surplus = surplus(copy);
        set_surplus(caller, copy, surplus - 1)?;
        let done = directory.link(caller, &leaf.name, copy);
        if done.is_err() {
            set_surplus(caller, copy, surplus)?;
        }
        done
    }

    /// Counts one name less of a file that had it only in a lower layer.
    pub(super) fn drop_lower_name(&self, caller: &Caller<'_>, copy: &InodeRef) -> Result<()> {
        set_surplus(caller, copy, surplus(copy) - 1)
    }

    /// Lets go of the copy if it has no name left in the union.
    pub(super) fn drop_copy_without_names(&self, caller: &Caller<'_>, copy: &InodeRef) {
        if !self.has_links() {
            return;
        }
        let Ok(stat) = copy.stat() else { return };
        let Ok(origin) = copy.get_xattr(ORIGIN) else { return };
        if stat.nlink != 1 || self.shown_links(copy, &stat) != 0 {
            return;
        }
        let directory = self.work.as_ref().and_then(|work| work.links.get());
        if let (Some(directory), Ok(name), Some(key)) = (directory, Name::new(&origin), self.origin_key(&origin)) {
            if directory.remove(&as_root(caller), &name, RemoveKind::File).is_ok() {
                self.links.known.write().remove(&key);
            }
        }
    }

    /// Gives the number of names that a file of the upper layer has in the union.
    pub(super) fn shown_links(&self, upper: &InodeRef, stat: &Stat) -> u32 {
        if stat.kind() != FileKind::Regular || !self.has_links() {
            return stat.nlink;
        }
        shown(stat.nlink, surplus(upper))
    }

    /// The same for an open file; `attribute` reads one of its attributes.
    pub(super) fn shown_links_open(&self, stat: &Stat, attribute: impl FnOnce(&[u8]) -> Option<Vec<u8>>) -> u32 {
        if stat.kind() != FileKind::Regular || !self.has_links() {
            return stat.nlink;
        }
        shown(stat.nlink, attribute(NLINK).map_or(0, |value| parse(&value)))
    }
}

fn shown(real: u32, surplus: i64) -> u32 {
    u32::try_from(i64::from(real) + surplus).unwrap_or(0)
}

/// Reads how many names the union has beyond those of the upper layer; `U+2` and the like, as overlayfs writes it.
fn surplus(copy: &InodeRef) -> i64 {
    copy.get_xattr(NLINK).map_or(0, |value| parse(&value))
}

fn parse(value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).unwrap_or_default();
    text.strip_prefix('U').and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn set_surplus(caller: &Caller<'_>, copy: &InodeRef, surplus: i64) -> Result<()> {
    copy.set_xattr(&as_root(caller), NLINK, format!("U{surplus:+}").as_bytes(), XattrSet::Any)
}
