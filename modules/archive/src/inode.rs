//! An object of an archive as guests meet it: all of it can be read, nothing changed.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;
use umvu_backing::open_device;
use umvu_interface::{
    Caller, Creation, DirEntry, Errno, FileKind, Filesystem, Inode, InodeRef, Name, Opened, Result, Stat,
};

use crate::fs::{ino, ArchiveFs};
use crate::tree::{NodeId, What, ROOT};

/// An object by one of its names.
pub(crate) struct Object {
    fs: Arc<ArchiveFs>,
    id: NodeId,
    /// The directory and the name that it was found by; none where it was found otherwise.
    found: Option<(NodeId, Box<[u8]>)>,
    /// The host's file that holds its content.
    host: OnceLock<Option<OwnedFd>>,
}

impl Object {
    pub(crate) fn new(fs: Arc<ArchiveFs>, id: NodeId, found: Option<(NodeId, Box<[u8]>)>) -> Arc<Self> {
        Arc::new(Self { fs, id, found, host: OnceLock::new() })
    }

    fn child_of(&self, directory: NodeId, name: &[u8]) -> Result<NodeId> {
        let entries = self.fs.node(directory)?.entries().ok_or(Errno::NOTDIR)?;
        entries.get(name).copied().ok_or(Errno::NOENT)
    }
}

impl Inode for Object {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        Arc::clone(&self.fs) as Arc<dyn Filesystem>
    }

    fn stat(&self) -> Result<Stat> {
        self.fs.stat(self.id)
    }

    fn kind(&self) -> Result<FileKind> {
        Ok(self.fs.node(self.id)?.kind())
    }

    fn id(&self) -> Result<(u64, u64)> {
        Ok((self.fs.device(), ino(self.id)))
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        let child = self.child_of(self.id, name.as_bytes())?;
        Ok(Self::new(Arc::clone(&self.fs), child, Some((self.id, name.as_bytes().into()))))
    }

    fn lookup_path(&self, path: &[u8]) -> Result<InodeRef> {
        let mut at = self.id;
        let mut found = None;
        for name in path.split(|byte| *byte == b'/') {
            if let What::Symlink(_) = self.fs.node(at)?.what {
                return Err(Errno::LOOP);
            }
            if name.len() > Name::MAX {
                return Err(Errno::NAMETOOLONG);
            }
            found = Some((at, name));
            at = self.child_of(at, name)?;
        }
        Ok(Self::new(Arc::clone(&self.fs), at, found.map(|(directory, name)| (directory, name.into()))))
    }

    fn parent(&self) -> Result<InodeRef> {
        let parent = match &self.found {
            Some((directory, _)) => *directory,
            None => self.fs.node(self.id)?.parent,
        };
        Ok(Self::new(Arc::clone(&self.fs), parent, None))
    }

    fn path(&self) -> Result<Vec<u8>> {
        let tree = self.fs.tree();
        match &self.found {
            Some((ROOT, name)) => Ok(name.to_vec()),
            Some((directory, name)) => Ok([&tree.path(*directory), &b"/"[..], name].concat()),
            None => Ok(tree.path(self.id)),
        }
    }

    fn open(&self, _: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        let writes = (flags & OFlags::ACCMODE) != OFlags::RDONLY || flags.contains(OFlags::TRUNC);
        let fd = match &self.fs.node(self.id)?.what {
            What::Regular { .. } if writes => return Err(Errno::ROFS),
            What::Regular { .. } | What::Fifo => self.fs.open(self.id, flags)?,
            What::CharDevice(rdev) => open_device(*rdev, flags)?,
            What::BlockDevice(_) | What::Socket => return Err(Errno::NXIO),
            What::Directory(_) => return Err(Errno::ISDIR),
            What::Symlink(_) => return Err(Errno::LOOP),
        };
        Ok(Opened::File(fd))
    }

    fn create(&self, _: &Caller<'_>, name: &Name, _: &Creation<'_>) -> Result<InodeRef> {
        match self.child_of(self.id, name.as_bytes()) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Err(Errno::ROFS),
            Err(errno) => Err(errno),
        }
    }

    fn refusal(&self) -> Errno {
        Errno::ROFS
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match &self.fs.node(self.id)?.what {
            What::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Errno::INVAL),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let xattrs = &self.fs.node(self.id)?.xattrs;
        // The last of several is the one that counts.
        let value = xattrs.iter().rev().find(|(known, _)| **known == *name).map(|(_, value)| value.to_vec());
        value.ok_or(Errno::NODATA)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        let mut names: Vec<Vec<u8>> = self.fs.node(self.id)?.xattrs.iter().map(|(name, _)| name.to_vec()).collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        let entries = self.fs.node(self.id)?.entries().ok_or(Errno::NOTDIR)?;
        let mut list = Vec::with_capacity(entries.len());
        for (name, id) in entries {
            let dirent_type = self.fs.node(*id)?.kind().dirent_type();
            list.push(DirEntry { name: name.clone(), ino: ino(*id), dirent_type });
        }
        Ok(list)
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        let open = || match self.kind() {
            Ok(FileKind::Regular | FileKind::Fifo) => self.fs.open(self.id, OFlags::PATH).ok(),
            _ => None,
        };
        self.host.get_or_init(open).as_ref().map(AsFd::as_fd)
    }
}
