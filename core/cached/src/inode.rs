//! An object of a driver as guests meet it, by one of its names.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::OFlags;
use umvu_backing::open_device;
use umvu_driver::NewNode;
use umvu_interface::{
    Acl, Caller, Creation, DirEntry, Errno, FileKind, Filesystem, Inode, InodeRef, Name, Opened, RemoveKind,
    RenameFlags, Result, SetAttr, Stat, XattrSet, ACCESS_ACL,
};

use crate::entry::Entry;
use crate::fs::CachedFs;
use crate::node::Node;

/// An object by one of its names.
pub(crate) struct CachedInode {
    fs: Arc<CachedFs>,
    entry: Arc<Entry>,
    /// The host's object that stands for it.
    host: OnceLock<Option<OwnedFd>>,
}

impl CachedInode {
    pub(crate) fn new(fs: Arc<CachedFs>, entry: Arc<Entry>) -> Arc<Self> {
        Arc::new(Self { fs, entry, host: OnceLock::new() })
    }

    pub(crate) fn node(&self) -> &Node {
        &self.entry.node
    }

    fn same_fs<'i>(&self, other: &'i InodeRef) -> Result<&'i CachedInode> {
        let other = other.as_any().downcast_ref::<CachedInode>();
        other.filter(|other| Arc::ptr_eq(&other.fs, &self.fs)).ok_or(Errno::XDEV)
    }

    /// Whether names can still be given in it.
    fn living(&self) -> Result<&Arc<Entry>> {
        match self.entry.is_removed() {
            true => Err(Errno::NOENT),
            false => Ok(&self.entry),
        }
    }

    fn make(&self, caller: &Caller<'_>, name: &Name, what: &NewNode<'_>) -> Result<Arc<Entry>> {
        let directory = self.living()?;
        let id = directory.node.id;
        let ask = || self.fs.asked.by(caller, |driver, who| driver.create(who, id, name, what));
        self.fs.made(directory, name, ask)
    }

    fn open_host(&self) -> Result<OwnedFd> {
        let serial = self.entry.node.serial;
        match self.entry.node.kind {
            FileKind::Regular => self.fs.path_of_regular(&self.entry),
            FileKind::Fifo => {
                self.fs.shelf.keep(&self.entry);
                self.fs.shelf.make_fifo(serial)?;
                self.fs.shelf.open(serial, OFlags::PATH)
            }
            FileKind::Socket => self.fs.shelf.open(serial, OFlags::PATH),
            _ => Err(Errno::NXIO),
        }
    }
}

impl Inode for CachedInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.fs.clone()
    }

    fn stat(&self) -> Result<Stat> {
        self.fs.stat_of(&self.entry)
    }

    fn kind(&self) -> Result<FileKind> {
        Ok(self.entry.node.kind)
    }

    fn id(&self) -> Result<(u64, u64)> {
        Ok((self.fs.device, self.entry.node.ino()?))
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        Ok(self.fs.inode(self.fs.child(&self.entry, name)?))
    }

    fn lookup_path(&self, path: &[u8]) -> Result<InodeRef> {
        let mut at = self.entry.clone();
        for name in path.split(|byte| *byte == b'/') {
            if at.node.kind == FileKind::Symlink {
                return Err(Errno::LOOP);
            }
            at = self.fs.child(&at, &Name::new(name)?)?;
        }
        Ok(self.fs.inode(at))
    }

    fn parent(&self) -> Result<InodeRef> {
        Ok(self.fs.inode(self.entry.parent()))
    }

    fn path(&self) -> Result<Vec<u8>> {
        match self.entry.path() {
            (_, true) => Err(Errno::NOENT),
            (path, false) => Ok(path),
        }
    }

    fn open(&self, caller: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        let node = &self.entry.node;
        let fd = match node.kind {
            FileKind::Regular => return self.fs.open_regular(&self.entry, caller, flags),
            FileKind::Fifo => {
                self.fs.shelf.keep(&self.entry);
                self.fs.shelf.make_fifo(node.serial)?;
                let means = OFlags::ACCMODE | OFlags::NONBLOCK;
                self.fs.shelf.open(node.serial, flags & means)?
            }
            FileKind::CharDevice => open_device(node.stat()?.rdev, flags)?,
            FileKind::BlockDevice | FileKind::Socket => return Err(Errno::NXIO),
            FileKind::Directory => return Err(Errno::ISDIR),
            FileKind::Symlink => return Err(Errno::LOOP),
        };
        Ok(Opened::File(fd))
    }

    fn create(&self, caller: &Caller<'_>, name: &Name, what: &Creation<'_>) -> Result<InodeRef> {
        let special = |kind: FileKind, mode: u32, rdev| NewNode::Special { mode: kind.bits() | mode, rdev };
        let new = match what {
            Creation::Regular { mode } => NewNode::Regular { mode: *mode },
            Creation::Directory { mode } => NewNode::Directory { mode: *mode },
            Creation::Symlink { target } => NewNode::Symlink { target },
            Creation::Fifo { mode } => special(FileKind::Fifo, *mode, 0),
            Creation::Socket { mode } | Creation::BoundSocket { mode, .. } => special(FileKind::Socket, *mode, 0),
            Creation::CharDevice { mode, rdev } => special(FileKind::CharDevice, *mode, *rdev),
            Creation::BlockDevice { mode, rdev } => special(FileKind::BlockDevice, *mode, *rdev),
        };
        let made = self.make(caller, name, &new)?;
        if let Creation::BoundSocket { mode, bind } = what {
            self.fs.shelf.keep(&made);
            let serial = made.node.serial;
            let bound = self
                .fs
                .shelf
                .at(serial, |directory, inside| bind.bind(directory.as_fd(), &Name::new(inside.as_bytes())?, *mode));
            if let Err(errno) = bound {
                self.fs.shelf.remove(serial);
                self.fs.unname(caller, &self.entry, name, RemoveKind::File)?;
                return Err(errno);
            }
        }
        Ok(self.fs.inode(made))
    }

    fn create_open(&self, caller: &Caller<'_>, name: &Name, mode: u32, flags: OFlags) -> Result<(InodeRef, Opened)> {
        let directory = self.living()?;
        let id = directory.node.id;
        let mut file = None;
        let ask = || {
            let create = |who: &Caller<'_>, driver: &dyn umvu_driver::Driver| {
                driver.create_open(who, id, name, mode, OFlags::RDWR)
            };
            let (found, opened) = self.fs.asked.by(caller, |driver, who| create(who, driver))?;
            file = Some(opened);
            Ok(found)
        };
        let made = self.fs.made(directory, name, ask)?;
        let file = file.ok_or(Errno::IO)?;
        let opened = self.fs.open_new(&made, file, flags)?;
        Ok((self.fs.inode(made), opened))
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match self.entry.node.kind {
            FileKind::Symlink => self.fs.asked.any(|driver, who| driver.readlink(who, self.entry.node.id)),
            _ => Err(Errno::INVAL),
        }
    }

    fn link(&self, caller: &Caller<'_>, name: &Name, target: &InodeRef) -> Result<()> {
        let target = self.same_fs(target)?;
        if target.entry.node.kind == FileKind::Directory {
            return Err(Errno::PERM);
        }
        let directory = self.living()?;
        let (id, directory_id) = (target.entry.node.id, directory.node.id);
        let ask = || self.fs.asked.by(caller, |driver, who| driver.link(who, id, directory_id, name));
        let made = self.fs.made(directory, name, ask).map(drop);
        // To a driver the two may be different objects that stand for the same: fuse_link of fs/fuse/dir.c.
        if made.is_ok() && !target.entry.node.is_ours() {
            target.entry.node.expire();
        }
        made
    }

    fn remove(&self, caller: &Caller<'_>, name: &Name, kind: RemoveKind) -> Result<()> {
        self.fs.unname(caller, &self.entry, name, kind)
    }

    fn rename(
        &self,
        caller: &Caller<'_>,
        name: &Name,
        new_directory: &InodeRef,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let new_directory = self.same_fs(new_directory)?;
        let to = new_directory.living()?;
        // As ext4 does (`auto_da_alloc`): who replaces a file by a new one wants its content there first.
        if let Some(moved) = self.entry.node.child(name.as_bytes()) {
            if moved.node.content.is_live() && to.node.child(new_name.as_bytes()).is_some() {
                self.fs.write_back_unasked(&moved.node);
            }
        }
        self.fs.renamed(caller, (&self.entry, name), (to, new_name), flags)
    }

    fn set_attr(&self, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        let node = &self.entry.node;
        match node.kind {
            FileKind::Regular => self.fs.set_regular(node, caller, change),
            _ => node.change(caller, |driver, who| driver.set_attr(who, node.id, change)).map(drop),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.fs.asked.any(|driver, who| driver.get_xattr(who, self.entry.node.id, name))
    }

    fn set_xattr(&self, caller: &Caller<'_>, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let node = &self.entry.node;
        self.fs.asked.by(caller, |driver, who| driver.set_xattr(who, node.id, name, value, how))?;
        node.expire();
        Ok(())
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        self.fs.asked.any(|driver, who| driver.list_xattr(who, self.entry.node.id))
    }

    fn remove_xattr(&self, caller: &Caller<'_>, name: &[u8]) -> Result<()> {
        let node = &self.entry.node;
        self.fs.asked.by(caller, |driver, who| driver.remove_xattr(who, node.id, name))?;
        node.expire();
        Ok(())
    }

    fn access_acl(&self) -> Result<Option<Acl>> {
        if !self.fs.asked.has_acls() {
            return Ok(None);
        }
        match self.get_xattr(ACCESS_ACL) {
            Ok(value) => {
                let mut acl = Acl::parse(&value).map_err(|_| Errno::IO)?;
                acl.set_mode(self.stat()?.mode);
                Ok(Some(acl))
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        let node = &self.entry.node;
        if node.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let _reads = node.listing.read();
        let listing = self.fs.asked.any(|driver, who| driver.read_dir_found(who, node.id))?;
        for (name, found) in &listing.found {
            // A lie of the driver concerns nobody before it is asked for that name.
            if let Err(errno) = self.fs.place(&self.entry, name, found) {
                tracing::debug!(name = %name.escape_ascii(), %errno, "an entry of a listing makes no sense");
            }
        }
        Ok(listing.entries)
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        let open = || match self.open_host() {
            Ok(fd) => Some(fd),
            Err(Errno::NXIO) => None,
            Err(errno) => {
                let path = self.entry.path().0;
                tracing::warn!(path = %path.escape_ascii(), %errno, "the content of a file cannot be kept");
                None
            }
        };
        self.host.get_or_init(open).as_ref().map(AsFd::as_fd)
    }

    fn kernel_checks(&self) -> bool {
        self.fs.asked.checks_permissions()
    }
}
