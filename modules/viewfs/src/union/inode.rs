//! An object of the union as the rest of the view holds it. What its operations do stands in the other files.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use umvu_interface::{
    Acl, Caller, Creation, DirEntry, Errno, FileKind, Filesystem, Inode, InodeRef, Name, OFlags, Opened, RemoveKind,
    RenameFlags, Result, SetAttr, Stat, XattrSet,
};

use super::copy_up::Data;
use super::node::{LayerIndex, Node};
use super::UnionFs;

/// An object of a [`UnionFs`].
pub(crate) struct UnionInode {
    pub(super) fs: Arc<UnionFs>,
    pub(super) at: At,
}

pub(super) enum At {
    Directory(Directory),
    Leaf(Leaf),
}

/// A directory.
pub(crate) struct Directory {
    pub(super) node: Arc<Node>,
    /// The real one, while only one layer has it.
    below: OnceLock<InodeRef>,
}

/// Anything else: the object that had this name when it was looked up.
pub(crate) struct Leaf {
    pub(super) parent: Arc<Node>,
    pub(super) name: Name,
    pub(super) kind: FileKind,
    /// Its layer and the object there, if it was not found in the upper one.
    pub(super) lower: Option<(LayerIndex, InodeRef)>,
    /// The object in the upper layer, once there is one.
    pub(super) upper: OnceLock<InodeRef>,
    /// Whether the upper layer has it under this name.
    pub(super) is_named: AtomicBool,
}

impl Directory {
    pub(super) fn of(node: Arc<Node>) -> Self {
        Self { node, below: OnceLock::new() }
    }

    /// Gives the real directory whose metadata is shown.
    pub(super) fn top(&self, fs: &UnionFs) -> Result<&InodeRef> {
        if let Some(stack) = self.node.stack() {
            return stack.top();
        }
        if let Some(below) = self.below.get() {
            return Ok(below);
        }
        let below = fs.only_inode(&self.node)?;
        Ok(self.below.get_or_init(|| below))
    }

    /// Gives the upper directory, if there is one.
    pub(super) fn upper(&self) -> Option<&InodeRef> {
        self.node.stack()?.upper.get()
    }
}

impl Leaf {
    /// Gives the object in the upper layer, if it has this name there.
    pub(super) fn named_upper(&self) -> Option<&InodeRef> {
        self.upper.get().filter(|_| self.is_named.load(Ordering::Acquire))
    }

    /// Gives the real object.
    pub(super) fn real(&self) -> Result<&InodeRef> {
        self.upper.get().or(self.lower.as_ref().map(|(_, inode)| inode)).ok_or(Errno::IO)
    }
}

impl UnionInode {
    pub(super) fn directory(fs: Arc<UnionFs>, node: Arc<Node>, below: Option<InodeRef>) -> Arc<Self> {
        let below = below.map_or_else(OnceLock::new, OnceLock::from);
        Arc::new(Self { fs, at: At::Directory(Directory { node, below }) })
    }

    /// `layer` is none for an object of the upper one.
    pub(super) fn leaf(
        fs: Arc<UnionFs>,
        parent: Arc<Node>,
        name: Name,
        kind: FileKind,
        layer: Option<LayerIndex>,
        inode: InodeRef,
    ) -> Result<Arc<Self>> {
        let is_named = AtomicBool::new(layer.is_none());
        let (lower, upper) = match layer {
            Some(layer) => {
                let copy = fs.copy_of_link(layer, &inode, kind, || path_of(&parent, &name))?;
                (Some((layer, inode)), copy.map_or_else(OnceLock::new, OnceLock::from))
            }
            None => (None, OnceLock::from(inode)),
        };
        Ok(Arc::new(Self { fs, at: At::Leaf(Leaf { parent, name, kind, lower, upper, is_named }) }))
    }

    /// # Errors
    /// - `ENOTDIR`: it is none.
    pub(super) fn as_directory(&self) -> Result<&Directory> {
        match &self.at {
            At::Directory(directory) => Ok(directory),
            At::Leaf(_) => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        matches!(self.at, At::Directory(_))
    }

    /// Gives the real object whose metadata and content are shown.
    pub(super) fn real(&self) -> Result<&InodeRef> {
        match &self.at {
            At::Directory(directory) => directory.top(&self.fs),
            At::Leaf(leaf) => leaf.real(),
        }
    }

    /// Gives the object in the upper layer, if there is one.
    pub(super) fn upper(&self) -> Option<&InodeRef> {
        match &self.at {
            At::Directory(directory) => directory.upper(),
            At::Leaf(leaf) => leaf.upper.get(),
        }
    }

    /// Gives the object in the upper layer, if it has this name there.
    pub(super) fn named_upper(&self) -> Option<&InodeRef> {
        match &self.at {
            At::Directory(directory) => directory.upper(),
            At::Leaf(leaf) => leaf.named_upper(),
        }
    }

    /// Gives the topmost lower layer that has it.
    pub(super) fn layer(&self) -> Option<LayerIndex> {
        match &self.at {
            At::Leaf(leaf) => leaf.lower.as_ref().map(|(layer, _)| *layer),
            At::Directory(directory) => match directory.node.stack() {
                Some(stack) => stack.lowers.first().map(|(layer, _)| *layer),
                None => Some(directory.node.pure_layer()),
            },
        }
    }

    /// Finds the union's kind again; `fs` is the union that asks.
    pub(super) fn of<'a>(fs: &UnionFs, inode: &'a InodeRef) -> Result<&'a UnionInode> {
        let inode = inode.as_any().downcast_ref::<UnionInode>().ok_or(Errno::XDEV)?;
        match std::ptr::eq(Arc::as_ptr(&inode.fs), fs) {
            true => Ok(inode),
            false => Err(Errno::XDEV),
        }
    }
}

fn path_of(parent: &Arc<Node>, name: &Name) -> Vec<u8> {
    let mut path = parent.path();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}

impl Inode for UnionInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        Arc::clone(&self.fs) as Arc<dyn Filesystem>
    }

    fn stat(&self) -> Result<Stat> {
        self.fs.stat_inode(self)
    }

    fn kind(&self) -> Result<FileKind> {
        match &self.at {
            At::Directory(_) => Ok(FileKind::Directory),
            At::Leaf(leaf) => Ok(leaf.kind),
        }
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        Ok(self.fs.find(self.as_directory()?, name.as_bytes())?)
    }

    fn lookup_path(&self, path: &[u8]) -> Result<InodeRef> {
        Ok(self.fs.find(self.as_directory()?, path)?)
    }

    fn parent(&self) -> Result<InodeRef> {
        let parent = match &self.at {
            At::Directory(directory) => match directory.node.parent() {
                Some(parent) => parent,
                None => Arc::clone(&directory.node),
            },
            At::Leaf(leaf) => Arc::clone(&leaf.parent),
        };
        Ok(UnionInode::directory(Arc::clone(&self.fs), parent, None))
    }

    fn path(&self) -> Result<Vec<u8>> {
        match &self.at {
            At::Directory(directory) => {
                directory.node.check_alive()?;
                Ok(directory.node.path())
            }
            At::Leaf(leaf) => {
                leaf.parent.check_alive()?;
                Ok(path_of(&leaf.parent, &leaf.name))
            }
        }
    }

    fn open(&self, caller: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        self.fs.open(caller, self, flags)
    }

    fn create(&self, caller: &Caller<'_>, name: &Name, what: &Creation<'_>) -> Result<InodeRef> {
        Ok(self.fs.create(caller, self.as_directory()?, name, what)?)
    }

    fn create_open(&self, caller: &Caller<'_>, name: &Name, mode: u32, flags: OFlags) -> Result<(InodeRef, Opened)> {
        let (inode, opened) = self.fs.create_open(caller, self.as_directory()?, name, mode, flags)?;
        Ok((inode, opened))
    }

    fn tmpfile(&self, caller: &Caller<'_>, mode: u32, flags: OFlags) -> Result<Opened> {
        self.fs.tmpfile(caller, self.as_directory()?, mode, flags)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        self.real()?.readlink()
    }

    fn link(&self, caller: &Caller<'_>, name: &Name, target: &InodeRef) -> Result<()> {
        self.fs.link(caller, self.as_directory()?, name, target)
    }

    fn remove(&self, caller: &Caller<'_>, name: &Name, kind: RemoveKind) -> Result<()> {
        self.fs.remove(caller, self.as_directory()?, name, kind)
    }

    fn rename(
        &self,
        caller: &Caller<'_>,
        name: &Name,
        new_directory: &InodeRef,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let new_directory = UnionInode::of(&self.fs, new_directory)?.as_directory()?;
        self.fs.rename(caller, (self.as_directory()?, name), (new_directory, new_name), flags)
    }

    fn set_attr(&self, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        if let Some(done) = self.fs.record_owner(caller, self, change) {
            return done;
        }
        let data = change.size.map_or(Data::All, Data::Begin);
        self.fs.change_object(caller, self, data, |real| real.set_attr(caller, change))
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.fs.get_xattr(self, name)
    }

    fn set_xattr(&self, caller: &Caller<'_>, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        self.fs.set_xattr(caller, self, name, value, how)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        self.fs.list_xattr(self)
    }

    fn remove_xattr(&self, caller: &Caller<'_>, name: &[u8]) -> Result<()> {
        self.fs.remove_xattr(caller, self, name)
    }

    fn access_acl(&self) -> Result<Option<Acl>> {
        let Some(mut acl) = self.real()?.access_acl()? else { return Ok(None) };
        acl.set_mode(self.stat()?.mode);
        Ok(Some(acl))
    }

    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        self.fs.read_dir(self.as_directory()?)
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        self.real().ok()?.host_fd()
    }

    fn make_writable(&self, caller: &Caller<'_>) -> Result<()> {
        self.fs.change_object(caller, self, Data::All, |real| real.make_writable(caller))
    }
}
