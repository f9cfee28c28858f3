//! FAT12, FAT16 and FAT32 with long names, read and written. A driver of our own, as the library that was tried reads and
//! writes by path only, from the start of a file, and cannot rename onto what is there.
//!
//! What is changed is written at once, in the order in which being killed in between loses clusters and not files.

mod boot;
mod directory;
mod name;
mod node;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use umvu_driver::{Driver, Found, NewNode, NodeId, OpenFile, Told, FOREVER, ROOT};
use umvu_interface::{
    Caller, DirEntry, Errno, FileKind, FsStat, Name, OFlags, RemoveKind, RenameFlags, Result, SetAttr, SetTime, Stat,
    Timestamp,
};

use crate::image::Image;
use crate::owner::Owner;

pub use self::boot::is_boot_sector;
use self::boot::{Layout, Width};
use self::directory::{Record, ARCHIVE, DIRECTORY, READ_ONLY};
use self::name::{checked, Short};
use self::node::State;

/// What statfs(2) says.
const MAGIC: u64 = 0x4d44;

/// A FAT file system.
pub struct Fat {
    me: Weak<Fat>,
    owner: Owner,
    image: Arc<Image>,
    state: Mutex<State>,
}

impl Fat {
    /// Opens an image.
    ///
    /// # Errors
    /// - `EINVAL`: it is no FAT.
    /// - `EUCLEAN`: it is damaged.
    pub fn open(image: Arc<Image>, owner: Owner) -> Result<Arc<Self>> {
        let layout = Arc::new(Layout::read(&image)?);
        let cluster = if layout.width == Width::ThirtyTwo { layout.root_cluster } else { 0 };
        if layout.width == Width::ThirtyTwo && layout.place(cluster).is_none() {
            return Err(image.damaged("a root that lies nowhere"));
        }
        let root = Record {
            short: Short { bytes: [b' '; 11], case: 0 },
            attributes: DIRECTORY,
            cluster,
            size: 0,
            created: Timestamp::default(),
            accessed: Timestamp::default(),
            modified: Timestamp::default(),
        };
        let state = Mutex::new(State::new(image.clone(), layout, root));
        Ok(Arc::new_cyclic(|me| Self { me: me.clone(), owner, image, state }))
    }

    fn told(&self, state: &mut State, node: NodeId) -> Result<Told> {
        let (record, ino) = {
            let known = state.node(node)?;
            (known.record.clone(), known.ino)
        };
        let taken = if node == ROOT && record.cluster == 0 { state.layout.root_size } else { state.taken(node)? };
        let kind = if record.is_directory() { FileKind::Directory } else { FileKind::Regular };
        let mut stat = Stat {
            ino,
            mode: kind.bits() | 0o777,
            nlink: 1,
            size: if record.is_directory() { taken } else { record.size.into() },
            blksize: u32::try_from(state.layout.cluster_size).unwrap_or(4096),
            blocks: taken / 512,
            atime: record.accessed,
            mtime: record.modified,
            ctime: record.modified,
            btime: Some(record.created).filter(|_| node != ROOT),
            ..Stat::default()
        };
        self.owner.apply(&mut stat);
        if record.attributes & READ_ONLY != 0 && kind == FileKind::Regular {
            stat.mode &= !0o222;
        }
        Ok(Told { stat, valid: FOREVER })
    }

    fn found(&self, state: &mut State, node: NodeId) -> Result<Found> {
        Ok(Found { node, generation: 0, told: self.told(state, node)?, name_valid: FOREVER })
    }

    /// What a change of owner and mode is answered: `fat_setattr` and `fat_sanitize_mode` of `fs/fat/file.c`.
    fn attributes(&self, old: &Stat, change: &SetAttr) -> Result<Option<bool>> {
        let other_owner = change.uid.is_some_and(|uid| uid != old.uid) || change.gid.is_some_and(|gid| gid != old.gid);
        if other_owner {
            return Err(Errno::PERM);
        }
        let Some(mode) = change.mode else { return Ok(None) };
        let mut all = Stat { mode: (old.mode & !0o7777) | 0o777, ..Stat::default() };
        self.owner.apply(&mut all);
        let all = all.mode & 0o777;
        if mode & 0o7777 == all {
            return Ok(Some(false));
        }
        if !old.is_dir() && mode & 0o7777 == all & !0o222 {
            return Ok(Some(true));
        }
        Err(Errno::PERM)
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanoseconds: since.subsec_nanos() }
}

fn time(set: SetTime) -> Option<Timestamp> {
    match set {
        SetTime::Keep => None,
        SetTime::Now => Some(now()),
        SetTime::At(time) => Some(time),
    }
}

struct File {
    filesystem: Arc<Fat>,
    node: NodeId,
}

impl OpenFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.filesystem.state.lock().read(self.node, offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let state = &mut self.filesystem.state.lock();
        state.mark()?;
        state.write(self.node, offset, bytes)?;
        state.change(self.node, |record| {
            record.modified = now();
            record.attributes |= ARCHIVE;
        })
    }

    fn sync(&self) -> Result<()> {
        self.filesystem.image.flush()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let state = &mut self.filesystem.state.lock();
        if let Some(known) = state.nodes.get_mut(&self.node) {
            known.opens = known.opens.saturating_sub(1);
        }
        if let Err(errno) = state.let_go(self.node) {
            self.filesystem.image.log(&format_args!("a file cannot be freed: {errno}"));
        }
    }
}

impl Driver for Fat {
    fn lookup(&self, _: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let state = &mut self.state.lock();
        let directory = state.directory(directory)?;
        let entry = checked(name.as_bytes()).ok().and_then(|name| directory.find(name)).ok_or(Errno::NOENT)?;
        let node = state.enter(&entry);
        self.found(state, node)
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        let state = &mut self.state.lock();
        if let Some(known) = state.nodes.get_mut(&node) {
            known.lookups = known.lookups.saturating_sub(lookups);
        }
        if let Err(errno) = state.let_go(node) {
            self.image.log(&format_args!("a file cannot be freed: {errno}"));
        }
    }

    fn stat(&self, _: &Caller<'_>, node: NodeId) -> Result<Told> {
        self.told(&mut self.state.lock(), node)
    }

    fn set_attr(&self, _: &Caller<'_>, node: NodeId, change: &SetAttr) -> Result<Told> {
        let state = &mut self.state.lock();
        let old = self.told(state, node)?.stat;
        let read_only = self.attributes(&old, change)?;
        if node == ROOT {
            return self.told(state, node);
        }
        state.mark()?;
        if let Some(size) = change.size {
            if old.is_dir() {
                return Err(Errno::ISDIR);
            }
            state.truncate(node, size)?;
        }
        state.change(node, |record| {
            match read_only {
                Some(true) => record.attributes |= READ_ONLY,
                Some(false) => record.attributes &= !READ_ONLY,
                None => {}
            }
            if change.size.is_some() {
                record.modified = now();
            }
            record.accessed = time(change.atime).unwrap_or(record.accessed);
            record.modified = time(change.mtime).unwrap_or(record.modified);
        })?;
        self.told(state, node)
    }

    fn readlink(&self, _: &Caller<'_>, _: NodeId) -> Result<Vec<u8>> {
        Err(Errno::INVAL)
    }

    fn read_dir(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        let state = &mut self.state.lock();
        let entries = state.directory(node)?.entries();
        let is_dots = |name: &[u8]| matches!(name, b"." | b"..");
        let shown = entries.iter().filter(|entry| !is_dots(&entry.name)).map(|entry| DirEntry {
            name: entry.name.clone().into(),
            ino: state.ino(entry),
            dirent_type: if entry.record.is_directory() {
                FileKind::Directory.dirent_type()
            } else {
                FileKind::Regular.dirent_type()
            },
        });
        Ok(shown.collect())
    }

    fn open(&self, _: &Caller<'_>, node: NodeId, _: OFlags) -> Result<Box<dyn OpenFile>> {
        let me = self.me.upgrade().ok_or(Errno::IO)?;
        let state = &mut self.state.lock();
        let known = state.nodes.get_mut(&node).ok_or(Errno::STALE)?;
        if known.record.is_directory() {
            return Err(Errno::ISDIR);
        }
        known.opens += 1;
        Ok(Box::new(File { filesystem: me, node }))
    }

    fn create(&self, _: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        let state = &mut self.state.lock();
        let parent = state.node(directory)?.record.cluster;
        let mut inside = state.directory(directory)?;
        let name = checked(name.as_bytes())?;
        if inside.find(name).is_some() {
            return Err(Errno::EXIST);
        }
        let (attributes, mode) = match what {
            NewNode::Regular { mode } => (ARCHIVE, *mode),
            NewNode::Directory { mode } => (DIRECTORY, *mode),
            // fs/fat/namei_vfat.c has neither symlink nor mknod.
            NewNode::Symlink { .. } | NewNode::Special { .. } => return Err(Errno::PERM),
        };
        state.mark()?;
        let now = now();
        let is_read_only = attributes == ARCHIVE && mode & 0o222 == 0;
        let mut record = Record {
            short: Short { bytes: [b' '; 11], case: 0 },
            attributes: if is_read_only { attributes | READ_ONLY } else { attributes },
            cluster: 0,
            size: 0,
            created: now,
            accessed: now,
            modified: now,
        };
        if attributes == DIRECTORY {
            record.cluster = new_directory(state, &record, if directory == ROOT { 0 } else { parent })?;
        }
        let (image, layout) = (state.image.clone(), state.layout.clone());
        if let Err(errno) = inside.add(&image, &layout, &mut state.table, name, &record) {
            state.free_chain(record.cluster)?;
            return Err(errno);
        }
        state.forget_runs(directory);
        let entry = state.directory(directory)?.find(name).ok_or(Errno::IO)?;
        let node = state.enter(&entry);
        self.found(state, node)
    }

    fn link(&self, _: &Caller<'_>, _: NodeId, _: NodeId, _: &Name) -> Result<Found> {
        Err(Errno::PERM)
    }

    fn remove(&self, _: &Caller<'_>, directory: NodeId, name: &Name, kind: RemoveKind) -> Result<()> {
        let state = &mut self.state.lock();
        let inside = state.directory(directory)?;
        let entry = inside.find(checked(name.as_bytes())?).ok_or(Errno::NOENT)?;
        match (kind, entry.record.is_directory()) {
            (RemoveKind::File, true) => return Err(Errno::ISDIR),
            (RemoveKind::Directory, false) => return Err(Errno::NOTDIR),
            _ => {}
        }
        let node = state.enter(&entry);
        let result = check_empty(state, node).and_then(|()| {
            state.mark()?;
            inside.remove(&self.image, &entry)?;
            state.moved(node, None)
        });
        if let Some(known) = state.nodes.get_mut(&node) {
            known.lookups -= 1;
        }
        state.let_go(node)?;
        result
    }

    fn rename(
        &self,
        _: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        new_directory: NodeId,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        if !(flags & !RenameFlags::NOREPLACE).is_empty() {
            return Err(Errno::INVAL);
        }
        let state = &mut self.state.lock();
        let (image, layout) = (state.image.clone(), state.layout.clone());
        let entry = state.directory(directory)?.find(checked(name.as_bytes())?).ok_or(Errno::NOENT)?;
        let new_name = checked(new_name.as_bytes())?;
        let target = state.directory(new_directory)?.find(new_name).filter(|target| target.place != entry.place);
        let node = state.enter(&entry);
        let result = (|| {
            if let Some(target) = &target {
                if flags.contains(RenameFlags::NOREPLACE) {
                    return Err(Errno::EXIST);
                }
                match (entry.record.is_directory(), target.record.is_directory()) {
                    (true, false) => return Err(Errno::NOTDIR),
                    (false, true) => return Err(Errno::ISDIR),
                    _ => {}
                }
                let replaced = state.enter(target);
                let emptied = check_empty(state, replaced).and_then(|()| {
                    state.mark()?;
                    state.directory(new_directory)?.remove(&image, target)?;
                    state.moved(replaced, None)
                });
                if let Some(known) = state.nodes.get_mut(&replaced) {
                    known.lookups -= 1;
                }
                state.let_go(replaced)?;
                emptied?;
            }
            state.mark()?;
            let record = state.node(node)?.record.clone();
            // The same name in other letters: the old one is in the way.
            let is_same = directory == new_directory && state.directory(directory)?.find(new_name).is_some();
            if is_same {
                state.directory(directory)?.remove(&image, &entry)?;
            }
            let mut inside = state.directory(new_directory)?;
            let (place, short) = inside.add(&image, &layout, &mut state.table, new_name, &record)?;
            if !is_same {
                state.directory(directory)?.remove(&image, &entry)?;
            }
            state.forget_runs(new_directory);
            state.moved(node, Some(place))?;
            state.change(node, |record| record.short = short)?;
            if record.is_directory() && directory != new_directory {
                let parent = if new_directory == ROOT { 0 } else { state.node(new_directory)?.record.cluster };
                set_parent(state, record.cluster, parent)?;
            }
            Ok(())
        })();
        if let Some(known) = state.nodes.get_mut(&node) {
            known.lookups -= 1;
        }
        state.let_go(node)?;
        result
    }

    fn statfs(&self, _: &Caller<'_>) -> Result<FsStat> {
        let state = &mut self.state.lock();
        let free = u64::from(state.table.count_free()?);
        Ok(FsStat {
            magic: MAGIC,
            block_size: state.layout.cluster_size,
            fragment_size: state.layout.cluster_size,
            blocks: state.layout.clusters.into(),
            blocks_free: free,
            blocks_available: free,
            name_max: 1530,
            ..FsStat::default()
        })
    }

    fn sync(&self) -> Result<()> {
        self.image.flush()
    }

    fn unmount(&self) -> Result<()> {
        let state = &mut self.state.lock();
        let nameless = state.nodes.iter().filter(|(node, known)| known.place.is_none() && **node != ROOT);
        let nameless: Vec<NodeId> = nameless.map(|(node, _)| *node).collect();
        for node in nameless {
            // Who has it open lets go of it later: nothing is left to free then.
            let cluster = state.take_chain(node)?;
            state.free_chain(cluster)?;
        }
        state.unmark()?;
        self.image.flush()
    }
}

/// Checks that a directory has no entries; a file has none.
fn check_empty(state: &mut State, node: NodeId) -> Result<()> {
    if !state.node(node)?.record.is_directory() {
        return Ok(());
    }
    let entries = state.directory(node)?.entries();
    if entries.iter().any(|entry| !matches!(&entry.name[..], b"." | b"..")) {
        return Err(Errno::NOTEMPTY);
    }
    Ok(())
}

fn dots(bytes: &[u8; 11], record: &Record, cluster: u32) -> [u8; 32] {
    Record { short: Short { bytes: *bytes, case: 0 }, cluster, ..record.clone() }.bytes()
}

/// Makes the cluster of an empty directory.
fn new_directory(state: &mut State, record: &Record, parent: u32) -> Result<u32> {
    let cluster = state.table.take(None)?;
    let place = state.layout.place(cluster).ok_or(Errno::IO)?;
    let mut bytes = vec![0; usize::try_from(state.layout.cluster_size).unwrap_or(0)];
    bytes[..32].copy_from_slice(&dots(b".          ", record, cluster));
    bytes[32..64].copy_from_slice(&dots(b"..         ", record, parent));
    state.image.write(place, &bytes)?;
    Ok(cluster)
}

/// Says in a directory which one it is in.
fn set_parent(state: &mut State, cluster: u32, parent: u32) -> Result<()> {
    let place = state.layout.place(cluster).ok_or(Errno::IO)?;
    let [first, second, third, fourth] = parent.to_le_bytes();
    state.image.write(place + 32 + 20, &[third, fourth])?;
    state.image.write(place + 32 + 26, &[first, second])
}
