//! A driver whose file system is in memory, which counts what it is asked and fails as it is told to.

#![allow(dead_code)]

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use umvu_cached::{CachedFs, Shown};
use umvu_driver::{Contents, Driver, Found, Keep, NewNode, NodeId, OpenFile, Range, Told, ROOT};
use umvu_interface::{
    Caller, Capabilities, Credentials, DirEntry, Errno, FileKind, Filesystem, FsStat, Ids, InodeRef, Name, OFlags,
    Origin, RemoveKind, RenameFlags, Result, SetAttr, SetTime, Stat, Timestamp,
};

/// An object.
#[derive(Clone, Debug, Default)]
pub struct Object {
    pub mode: u32,
    pub links: u32,
    pub lookups: u64,
    pub content: Vec<u8>,
    pub mtime: Timestamp,
    pub entries: BTreeMap<Vec<u8>, NodeId>,
    /// Where there is nothing.
    pub holes: Vec<(u64, u64)>,
    pub rdev: u64,
}

/// All objects, and how the driver is to behave.
#[derive(Default)]
pub struct Inside {
    pub objects: HashMap<NodeId, Object>,
    next: NodeId,
    /// Bytes that all files together may have.
    pub room: Option<usize>,
    pub fails: Option<Errno>,
    pub panics: bool,
    pub keep: Option<Keep>,
    pub valid: Option<Duration>,
    pub is_unmounted: bool,
    /// Whether it says that it may have to wait for a guest.
    pub blocks: bool,
}

/// The driver.
#[derive(Clone, Default)]
pub struct Memory {
    pub inside: Arc<Mutex<Inside>>,
    pub reads: Arc<AtomicUsize>,
    pub written: Arc<AtomicU64>,
    pub asked: Arc<AtomicUsize>,
    pub syncs: Arc<AtomicUsize>,
}

pub const TIME: Timestamp = Timestamp { seconds: 1_000_000_000, nanoseconds: 5 };

impl Memory {
    pub fn new() -> Self {
        let memory = Self::default();
        {
            let mut inside = memory.lock();
            inside.next = 10;
            let root = Object { mode: 0o040_755, links: 2, mtime: TIME, ..Object::default() };
            inside.objects.insert(ROOT, root);
        }
        memory
    }

    pub fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Puts a file there without anybody having asked.
    pub fn put(&self, directory: NodeId, name: &[u8], content: &[u8]) -> NodeId {
        let object = Object { mode: 0o100_644, content: content.to_vec(), ..Object::default() };
        self.lock().add(directory, name, object)
    }

    pub fn put_directory(&self, directory: NodeId, name: &[u8]) -> NodeId {
        self.lock().add(directory, name, Object { mode: 0o040_755, ..Object::default() })
    }

    /// The content that the driver has at a path.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let inside = self.lock();
        let mut at = ROOT;
        for name in path.split('/') {
            at = *inside.objects.get(&at)?.entries.get(name.as_bytes())?;
        }
        inside.objects.get(&at).map(|object| object.content.clone())
    }

    pub fn mount(&self) -> Arc<CachedFs> {
        self.mount_with(|_| {})
    }

    pub fn mount_with(&self, change: impl FnOnce(&mut Shown)) -> Arc<CachedFs> {
        let who = credentials();
        let caller = Caller { tid: 1, credentials: &who, umask: 0 };
        let mut shown = Shown::new(Vec::new(), &caller);
        change(&mut shown);
        CachedFs::new(Arc::new(self.clone()), 77, shown)
    }

    /// What the driver was told is still looked up.
    pub fn lookups(&self) -> u64 {
        self.lock().objects.values().map(|object| object.lookups).sum()
    }

    fn ask(&self) -> Result<MutexGuard<'_, Inside>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let inside = self.lock();
        assert!(!inside.is_unmounted, "asked after unmount");
        if inside.panics {
            drop(inside);
            unreachable!("on purpose");
        }
        match inside.fails {
            Some(errno) => Err(errno),
            None => Ok(inside),
        }
    }
}

pub fn credentials() -> Credentials {
    Credentials {
        uid: Ids::all(1000),
        gid: Ids::all(1000),
        groups: Arc::from([].as_slice()),
        capabilities: Capabilities::none(),
        securebits: 0,
        origin: Origin::Host,
        namespace: None,
    }
}

pub fn by<T>(body: impl FnOnce(&Caller<'_>) -> T) -> T {
    let who = credentials();
    body(&Caller { tid: 1, credentials: &who, umask: 0 })
}

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

/// Finds an object.
pub fn at(fs: &Arc<CachedFs>, path: &str) -> Result<InodeRef> {
    match path {
        "" => Ok(fs.root()),
        path => fs.root().lookup_path(path.as_bytes()),
    }
}

pub fn open(fs: &Arc<CachedFs>, path: &str, flags: OFlags) -> Result<OwnedFd> {
    by(|caller| at(fs, path)?.open(caller, flags)?.into_file())
}

pub fn make(fs: &Arc<CachedFs>, directory: &str, file: &str) -> Result<OwnedFd> {
    by(|caller| at(fs, directory)?.create_open(caller, &name(file), 0o644, OFlags::RDWR)?.1.into_file())
}

/// Reads all of a file.
pub fn read(fd: &OwnedFd) -> Vec<u8> {
    let size = usize::try_from(rustix::fs::fstat(fd).unwrap().st_size).unwrap();
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        match rustix::io::pread(fd, &mut bytes[at..], at as u64).unwrap() {
            0 => break,
            more => at += more,
        }
    }
    bytes
}

pub fn content(fs: &Arc<CachedFs>, path: &str) -> Result<Vec<u8>> {
    Ok(read(&open(fs, path, OFlags::RDONLY)?))
}

impl Inside {
    pub fn add(&mut self, directory: NodeId, name: &[u8], object: Object) -> NodeId {
        let id = self.next;
        self.next += 1;
        let is_directory = object.mode & 0o170_000 == 0o040_000;
        let links = if is_directory { 2 } else { 1 };
        self.objects.insert(id, Object { links, mtime: TIME, ..object });
        let above = self.objects.get_mut(&directory).unwrap();
        above.entries.insert(name.to_vec(), id);
        if is_directory {
            above.links += 1;
        }
        id
    }

    fn get(&mut self, id: NodeId) -> Result<&mut Object> {
        self.objects.get_mut(&id).ok_or(Errno::STALE)
    }

    fn told(&mut self, id: NodeId) -> Result<Told> {
        let valid = self.valid.unwrap_or(Duration::MAX);
        let object = self.get(id)?;
        let stat = Stat {
            ino: id,
            mode: object.mode,
            nlink: object.links,
            size: object.content.len() as u64,
            blocks: (object.content.len() as u64).div_ceil(512),
            rdev: object.rdev,
            atime: object.mtime,
            mtime: object.mtime,
            ctime: object.mtime,
            ..Stat::default()
        };
        Ok(Told { stat, valid })
    }

    fn found(&mut self, id: NodeId) -> Result<Found> {
        self.get(id)?.lookups += 1;
        let told = self.told(id)?;
        Ok(Found { node: id, generation: 0, name_valid: told.valid, told })
    }

    fn entry(&mut self, directory: NodeId, name: &Name) -> Result<NodeId> {
        let object = self.get(directory)?;
        if object.mode & 0o170_000 != 0o040_000 {
            return Err(Errno::NOTDIR);
        }
        object.entries.get(name.as_bytes()).copied().ok_or(Errno::NOENT)
    }

    fn drop_link(&mut self, id: NodeId) {
        if let Some(object) = self.objects.get_mut(&id) {
            let is_directory = object.mode & 0o170_000 == 0o040_000;
            object.links = if is_directory { 0 } else { object.links - 1 };
            if object.links == 0 && object.lookups == 0 {
                self.objects.remove(&id);
            }
        }
    }

    fn used(&self) -> usize {
        self.objects.values().map(|object| object.content.len()).sum()
    }

    fn has_room(&self, more: usize) -> Result<()> {
        match self.room {
            Some(room) if self.used() + more > room => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }
}

impl Driver for Memory {
    fn lookup(&self, _: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let mut inside = self.ask()?;
        let id = inside.entry(directory, name)?;
        inside.found(id)
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        let mut inside = self.lock();
        let object = inside.objects.get_mut(&node).expect("forgotten twice");
        object.lookups = object.lookups.checked_sub(lookups).expect("forgotten too often");
        if object.lookups == 0 && object.links == 0 {
            inside.objects.remove(&node);
        }
    }

    fn stat(&self, _: &Caller<'_>, node: NodeId) -> Result<Told> {
        self.ask()?.told(node)
    }

    fn set_attr(&self, _: &Caller<'_>, node: NodeId, change: &SetAttr) -> Result<Told> {
        let mut inside = self.ask()?;
        if let Some(size) = change.size {
            let size = usize::try_from(size).map_err(|_| Errno::FBIG)?;
            let more = size.saturating_sub(inside.get(node)?.content.len());
            inside.has_room(more)?;
            let object = inside.get(node)?;
            object.content.resize(size, 0);
            object.mtime = Timestamp { seconds: object.mtime.seconds + 1, nanoseconds: 0 };
        }
        let object = inside.get(node)?;
        if let Some(mode) = change.mode {
            object.mode = object.mode & 0o170_000 | mode;
        }
        match change.mtime {
            SetTime::Keep => {}
            SetTime::Now => object.mtime.seconds += 1,
            SetTime::At(time) => object.mtime = time,
        }
        inside.told(node)
    }

    fn readlink(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        Ok(self.ask()?.get(node)?.content.clone())
    }

    fn read_dir(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        let mut inside = self.ask()?;
        let entries = inside.get(node)?.entries.clone();
        let one = |(name, id): (Vec<u8>, NodeId)| DirEntry { name: name.into(), ino: id, dirent_type: 0 };
        Ok(entries.into_iter().map(one).collect())
    }

    fn open(&self, _: &Caller<'_>, node: NodeId, _: OFlags) -> Result<Box<dyn OpenFile>> {
        self.ask()?.get(node)?;
        Ok(Box::new(OpenMemory { memory: self.clone(), node }))
    }

    fn create(&self, _: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        let mut inside = self.ask()?;
        if inside.entry(directory, name).is_ok() {
            return Err(Errno::EXIST);
        }
        let object = match what {
            NewNode::Regular { mode } => Object { mode: FileKind::Regular.bits() | mode, ..Object::default() },
            NewNode::Directory { mode } => Object { mode: FileKind::Directory.bits() | mode, ..Object::default() },
            NewNode::Symlink { target } => {
                Object { mode: FileKind::Symlink.bits() | 0o777, content: target.to_vec(), ..Object::default() }
            }
            NewNode::Special { mode, rdev } => Object { mode: *mode, rdev: *rdev, ..Object::default() },
        };
        let id = inside.add(directory, name.as_bytes(), object);
        inside.found(id)
    }

    fn link(&self, _: &Caller<'_>, node: NodeId, directory: NodeId, name: &Name) -> Result<Found> {
        let mut inside = self.ask()?;
        if inside.entry(directory, name).is_ok() {
            return Err(Errno::EXIST);
        }
        inside.get(node)?.links += 1;
        inside.get(directory)?.entries.insert(name.as_bytes().to_vec(), node);
        inside.found(node)
    }

    fn remove(&self, _: &Caller<'_>, directory: NodeId, name: &Name, kind: RemoveKind) -> Result<()> {
        let mut inside = self.ask()?;
        let id = inside.entry(directory, name)?;
        let victim = inside.get(id)?;
        let is_directory = victim.mode & 0o170_000 == 0o040_000;
        match (kind, is_directory) {
            (RemoveKind::File, true) => return Err(Errno::ISDIR),
            (RemoveKind::Directory, false) => return Err(Errno::NOTDIR),
            (RemoveKind::Directory, true) if !victim.entries.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        inside.get(directory)?.entries.remove(name.as_bytes());
        inside.drop_link(id);
        Ok(())
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
        let mut inside = self.ask()?;
        let moved = inside.entry(directory, name)?;
        let replaced = inside.entry(new_directory, new_name).ok();
        if replaced == Some(moved) {
            return Ok(());
        }
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = replaced.ok_or(Errno::NOENT)?;
            inside.get(directory)?.entries.insert(name.as_bytes().to_vec(), other);
            inside.get(new_directory)?.entries.insert(new_name.as_bytes().to_vec(), moved);
            return Ok(());
        }
        if let Some(replaced) = replaced {
            if !inside.get(replaced)?.entries.is_empty() {
                return Err(Errno::NOTEMPTY);
            }
            inside.drop_link(replaced);
        }
        inside.get(directory)?.entries.remove(name.as_bytes());
        inside.get(new_directory)?.entries.insert(new_name.as_bytes().to_vec(), moved);
        Ok(())
    }

    fn statfs(&self, _: &Caller<'_>) -> Result<FsStat> {
        Ok(FsStat::default())
    }

    fn sync(&self) -> Result<()> {
        drop(self.ask()?);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn may_block(&self) -> bool {
        self.lock().blocks
    }

    fn unmount(&self) -> Result<()> {
        self.lock().is_unmounted = true;
        Ok(())
    }
}

struct OpenMemory {
    memory: Memory,
    node: NodeId,
}

impl OpenFile for OpenMemory {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.memory.reads.fetch_add(1, Ordering::Relaxed);
        let mut inside = self.memory.ask()?;
        let content = &inside.get(self.node)?.content;
        let start = usize::try_from(offset).map_or(content.len(), |offset| offset.min(content.len()));
        let count = buffer.len().min(content.len() - start);
        buffer[..count].copy_from_slice(&content[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut inside = self.memory.ask()?;
        let start = usize::try_from(offset).map_err(|_| Errno::FBIG)?;
        let end = start + bytes.len();
        let more = end.saturating_sub(inside.get(self.node)?.content.len());
        inside.has_room(more)?;
        self.memory.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let object = inside.get(self.node)?;
        if object.content.len() < end {
            object.content.resize(end, 0);
        }
        object.content[start..end].copy_from_slice(bytes);
        object.mtime.seconds += 1;
        object.holes.clear();
        Ok(())
    }

    fn contents_at(&self, offset: u64) -> Result<Contents> {
        let mut inside = self.memory.ask()?;
        let object = inside.get(self.node)?;
        let size = object.content.len() as u64;
        let hole = object.holes.iter().find(|(start, end)| *start <= offset && offset < *end);
        if let Some((start, end)) = hole {
            return Ok(Contents::Hole(Range { start: *start, end: *end }));
        }
        let end = object.holes.iter().map(|(start, _)| *start).filter(|start| *start > offset).min();
        Ok(Contents::Data(Range { start: offset, end: end.unwrap_or(size) }))
    }

    fn sync(&self) -> Result<()> {
        self.memory.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn keep(&self) -> Keep {
        self.memory.lock().keep.unwrap_or(Keep::SinceEver)
    }
}
