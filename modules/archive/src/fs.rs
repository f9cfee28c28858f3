//! The file system: a tree, and files of the host that hold the contents of those that were opened. Makes them at
//! the first use, never changes them, and removes them with the mount.

use std::any::Any;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use umvu_backing::Private;
use umvu_interface::{Errno, Filesystem, FsStat, Inode, InodeRef, Result, Stat};

use crate::entry::{Data, Extent};
use crate::inode::Object;
use crate::open::Contents;
use crate::source::Source;
use crate::tree::{Node, NodeId, Tree, What, ROOT};
use crate::zip::Packed;

/// Locks for files that are being filled: as many at once.
const FILLING: usize = 16;
const BLOCK: u64 = 4096;
/// What statfs(2) says of squashfs (`linux/magic.h`): archives have no number of their own, and programs know this one
/// for a file system that is local and does not change.
const MAGIC: u64 = 0x7371_7368;

/// An archive as a file system.
pub struct ArchiveFs {
    me: Weak<ArchiveFs>,
    tree: Tree,
    layers: Vec<Source>,
    device: u64,
    /// Sum of the sizes, in blocks.
    blocks: u64,
    options: Vec<u8>,
    /// Most bytes that a file may unpack to.
    limit: u64,
    backing: OnceLock<Private>,
    ready: Vec<AtomicBool>,
    filling: [Mutex<()>; FILLING],
}

impl ArchiveFs {
    pub(crate) fn new(contents: Contents, device: u64, options: Vec<u8>, limit: u64) -> Arc<Self> {
        let Contents { tree, layers, .. } = contents;
        let ids = 0..u32::try_from(tree.len()).unwrap_or(u32::MAX);
        let sizes = ids.filter_map(|id| tree.node(id)).map(|node| size_of(node).div_ceil(BLOCK));
        let blocks = sizes.fold(0u64, u64::saturating_add);
        let ready = (0..tree.len()).map(|_| AtomicBool::new(false)).collect();
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            tree,
            layers,
            device,
            blocks,
            options,
            limit,
            backing: OnceLock::new(),
            ready,
            filling: Default::default(),
        })
    }

    pub(crate) fn me(&self) -> Arc<Self> {
        match self.me.upgrade() {
            Some(me) => me,
            None => unreachable!("a file system that is called is alive"),
        }
    }

    pub(crate) fn tree(&self) -> &Tree {
        &self.tree
    }

    pub(crate) fn node(&self, id: NodeId) -> Result<&Node> {
        self.tree.node(id).ok_or(Errno::IO)
    }

    pub(crate) fn device(&self) -> u64 {
        self.device
    }

    pub(crate) fn stat(&self, id: NodeId) -> Result<Stat> {
        let node = self.node(id)?;
        let size = size_of(node);
        let rdev = match node.what {
            What::CharDevice(rdev) | What::BlockDevice(rdev) => rdev,
            _ => 0,
        };
        let allocated = match &node.what {
            What::Regular { data: Data::Sparse(extents), .. } => extents.iter().map(|extent| extent.length).sum(),
            What::Regular { .. } => size,
            _ => 0u64,
        };
        Ok(Stat {
            dev: self.device,
            ino: ino(id),
            mode: node.kind().bits() | node.mode,
            nlink: node.links,
            uid: node.uid,
            gid: node.gid,
            rdev,
            size,
            blksize: 4096,
            blocks: allocated.div_ceil(512),
            atime: node.mtime,
            mtime: node.mtime,
            ctime: node.mtime,
            ..Stat::default()
        })
    }

    /// Opens the host's file that holds the content of an object: a regular file or a FIFO.
    pub(crate) fn open(&self, id: NodeId, flags: OFlags) -> Result<OwnedFd> {
        let directory = self.fill(id)?;
        let flags = (flags & !OFlags::NOFOLLOW) | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::openat(directory.fd(), ino(id).to_string(), flags, Mode::empty())
    }

    /// Makes sure that the host has the file.
    fn fill(&self, id: NodeId) -> Result<&Private> {
        let at = usize::try_from(id).map_err(|_| Errno::IO)?;
        let ready = self.ready.get(at).ok_or(Errno::IO)?;
        if let (true, Some(directory)) = (ready.load(Ordering::Acquire), self.backing.get()) {
            return Ok(directory);
        }
        let _filling = self.filling[at % FILLING].lock();
        let directory = match self.backing.get() {
            Some(directory) => directory,
            None => {
                let made = Private::new().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
                self.backing.get_or_init(|| made)
            }
        };
        if !ready.load(Ordering::Acquire) {
            let name = ino(id).to_string();
            if let Err(errno) = self.make(directory, &name, id) {
                tracing::warn!(%errno, path = %self.tree.path(id).escape_ascii(), "the content of a file cannot be kept");
                let _ = rustix::fs::unlinkat(directory.fd(), &name, rustix::fs::AtFlags::empty());
                return Err(errno);
            }
            ready.store(true, Ordering::Release);
        }
        Ok(directory)
    }

    fn make(&self, directory: &Private, name: &str, id: NodeId) -> Result<()> {
        match &self.node(id)?.what {
            What::Fifo => {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(directory.fd(), name, kind, Mode::RUSR | Mode::WUSR, 0)
            }
            What::Regular { layer, size, data } => {
                // Who may read and execute it is told by the archive, not by the host.
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = rustix::fs::openat(directory.fd(), name, flags, Mode::RUSR | Mode::XUSR)?;
                let layer = self.layers.get(usize::try_from(*layer).unwrap_or(usize::MAX)).ok_or(Errno::IO)?;
                match data {
                    Data::Whole(at) => copy(layer, &file, Extent { logical: 0, at: *at, length: *size })?,
                    Data::Sparse(extents) => {
                        extents.iter().try_for_each(|extent| copy(layer, &file, *extent))?;
                        rustix::fs::ftruncate(&file, *size)?;
                    }
                    Data::Packed(packed) => self.unpack(id, packed, layer, file)?,
                }
                Ok(())
            }
            _ => Err(Errno::NXIO),
        }
    }

    /// Unpacks a file of a zip archive.
    fn unpack(&self, id: NodeId, packed: &Packed, layer: &Source, file: OwnedFd) -> Result<()> {
        let numbers = rustix::fs::fstatvfs(&file)?;
        // Half of what is free, as for compressed archives.
        let room = numbers.f_bavail.saturating_mul(numbers.f_frsize) / 2;
        let told = |why: &dyn std::fmt::Display| {
            tracing::warn!(path = %self.tree.path(id).escape_ascii(), "a file of an archive cannot be unpacked: {why}");
        };
        if packed.size > self.limit.min(room) {
            told(&format_args!("it has {} bytes, {} are the most", packed.size, self.limit.min(room)));
            return Err(if packed.size > self.limit { Errno::FBIG } else { Errno::NOSPC });
        }
        packed.unpack(layer, &mut File::from(file)).map_err(|error| {
            told(&error);
            match error.kind() {
                std::io::ErrorKind::Unsupported => Errno::OPNOTSUPP,
                std::io::ErrorKind::StorageFull => Errno::NOSPC,
                _ => Errno::IO,
            }
        })
    }

    /// Finds the object whose content a file of the host holds.
    fn of_host(&self, host_path: &[u8]) -> Option<NodeId> {
        let ino = u32::try_from(self.backing.get()?.number_of(host_path)?).ok()?;
        let id = ino.checked_sub(1)?;
        self.tree.node(id).is_some().then_some(id)
    }

    fn of_descriptor(&self, host: BorrowedFd<'_>) -> Result<NodeId> {
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", host.as_raw_fd()), Vec::new())?;
        self.of_host(path.as_bytes()).ok_or(Errno::NOENT)
    }
}

/// The inode number of an object.
pub(crate) fn ino(id: NodeId) -> u64 {
    u64::from(id) + 1
}

fn size_of(node: &Node) -> u64 {
    match &node.what {
        What::Regular { size, .. } => *size,
        What::Symlink(target) => target.len() as u64,
        // What a listing of it is about.
        What::Directory(entries) => (entries.len() as u64 + 2) * 32,
        _ => 0,
    }
}

/// Copies a piece of an archive to its place in a file, in the kernel where that can.
fn copy(source: &Source, to: &OwnedFd, extent: Extent) -> Result<()> {
    let Extent { logical, at, length } = extent;
    let part = source.part(at, length).ok_or(Errno::IO)?;
    let (mut from, mut target) = (part.start(), logical);
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(part.file(), Some(&mut from), to, Some(&mut target), wanted) {
            Ok(count) if count > 0 => left -= count as u64,
            Err(Errno::INTR) => {}
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG)) => return Err(errno),
            // Across file systems, or where one has no such operation.
            _ => break,
        }
    }
    let mut buffer = vec![0; if left > 0 { 128 << 10 } else { 0 }];
    while left > 0 {
        let done = length - left;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let count = part.read_at(done, &mut buffer[..wanted]).map_err(|_| Errno::IO)?;
        if count == 0 {
            // Somebody has cut the archive short.
            return Err(Errno::IO);
        }
        let mut written = 0;
        while written < count {
            match rustix::io::pwrite(to, &buffer[written..count], logical + done + written as u64) {
                Ok(more) => written += more,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        left -= count as u64;
    }
    Ok(())
}

impl Filesystem for ArchiveFs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        Object::new(self.me(), ROOT, None)
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        Ok(FsStat {
            magic: MAGIC,
            block_size: BLOCK,
            blocks: self.blocks,
            files: self.tree.len() as u64,
            name_max: 255,
            fragment_size: BLOCK,
            ..FsStat::default()
        })
    }

    fn options(&self) -> Vec<u8> {
        self.options.clone()
    }

    fn path_of_host(&self, host_path: &[u8]) -> Option<Vec<u8>> {
        self.of_host(host_path).map(|id| self.tree.path(id))
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        self.stat(self.of_descriptor(host)?)
    }

    fn inode_of_open(&self, host: OwnedFd) -> Result<InodeRef> {
        Ok(Object::new(self.me(), self.of_descriptor(host.as_fd())?, None))
    }
}
