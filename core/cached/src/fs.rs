//! The file system: what all of its objects share, and what a mount asks of it.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use umvu_driver::{Driver, Told, ROOT};
use umvu_interface::{
    path_of_open, Caller, Credentials, Ending, Errno, FileKind, Filesystem, FsStat, Inode, InodeRef, Result, Stat,
};

use crate::asked::Asked;
use crate::entry::Entry;
use crate::inode::CachedInode;
use crate::names::Recent;
use crate::node::{Nodes, Until};
use crate::shelf::{Limits, Shelf};
use crate::watch::Watch;

/// How a file system is shown, and whose it is.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Options as `/proc/mounts` shows them.
    pub options: Vec<u8>,
    /// Who has mounted it: the driver is asked in his name where nobody in particular asks.
    pub mounter: Credentials,
    /// His thread.
    pub tid: u32,
    /// What contents may take.
    pub limits: Limits,
    /// What its root is.
    pub root: FileKind,
}

impl Shown {
    /// What a mount by `caller` shows.
    pub fn new(options: Vec<u8>, caller: &Caller<'_>) -> Self {
        let (mounter, limits) = (caller.credentials.clone(), Limits::default());
        Self { options, mounter, tid: caller.tid, limits, root: FileKind::Directory }
    }
}

/// A file system whose objects are a driver's.
pub struct CachedFs {
    me: Weak<CachedFs>,
    pub(crate) asked: Arc<Asked>,
    pub(crate) device: u64,
    options: Vec<u8>,
    pub(crate) nodes: Arc<Nodes>,
    root: Mutex<Option<Arc<Entry>>>,
    pub(crate) recent: Recent,
    pub(crate) shelf: Shelf,
    pub(crate) watch: Watch,
    /// Held while an entry goes from one directory to another.
    pub(crate) moving: Mutex<()>,
    ending: Arc<Ending>,
}

impl CachedFs {
    /// Makes the file system of a driver; `device` is what stat(2) shows.
    pub fn new(driver: Arc<dyn Driver>, device: u64, shown: Shown) -> Arc<Self> {
        let Shown { options, mounter, tid, limits, root } = shown;
        let asked = Arc::new(Asked::new(driver, mounter, tid));
        let nodes = Arc::new(Nodes::default());
        // Its metadata are asked for when somebody wants them: a server may not be ready to answer yet.
        let stat = Stat { mode: root.bits() | 0o755, ino: ROOT, nlink: 2, ..Stat::default() };
        let root = nodes.root(&asked, &Told { stat, valid: std::time::Duration::ZERO });
        let root = Entry::new(root, None, Until::Forever);
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            asked,
            device,
            options,
            nodes,
            root: Mutex::new(Some(root)),
            recent: Recent::default(),
            shelf: Shelf::new(limits),
            watch: Watch::default(),
            moving: Mutex::default(),
            ending: Arc::default(),
        })
    }

    pub(crate) fn me(&self) -> Arc<Self> {
        match self.me.upgrade() {
            Some(me) => me,
            None => unreachable!("a file system that is called is alive"),
        }
    }

    pub(crate) fn weak(&self) -> Weak<Self> {
        self.me.clone()
    }

    fn root_entry(&self) -> Arc<Entry> {
        match &*self.root.lock() {
            Some(root) => root.clone(),
            None => unreachable!("the root goes when nobody can call any more"),
        }
    }

    pub(crate) fn inode(&self, entry: Arc<Entry>) -> InodeRef {
        CachedInode::new(self.me(), entry)
    }

    fn of_host(&self, host_path: &[u8]) -> Option<Arc<Entry>> {
        let held = self.shelf.find(self.shelf.number_of(host_path)?)?;
        // It may have been opened by a name that is gone while others are there.
        match held.is_removed() {
            true => held.node.entry().or(Some(held)),
            false => Some(held),
        }
    }

    fn of_descriptor(&self, host: BorrowedFd<'_>) -> Result<Arc<Entry>> {
        self.of_host(&path_of_open(host)?).ok_or(Errno::NOENT)
    }

    /// The metadata of an object as guests see it.
    pub(crate) fn stat_of(&self, entry: &Arc<Entry>) -> Result<Stat> {
        let node = &entry.node;
        let stat = if node.kind == FileKind::Regular { self.stat_regular(node)? } else { node.stat()? };
        Ok(Stat { dev: self.device, ..stat })
    }

    /// Writes everything back, and has the driver write it to its storage.
    fn write_all_back(&self) -> Result<()> {
        let mut outcome = Ok(());
        for entry in self.shelf.all() {
            if entry.node.content.is_live() {
                outcome = outcome.and(self.write_back(&entry.node));
            }
        }
        outcome.and(self.asked.sync())
    }

    /// Writes back what can be while nobody has asked for it.
    pub(crate) fn write_back_what_is_open(&self) {
        for entry in self.shelf.all() {
            if entry.node.content.is_live() {
                self.write_back_unasked(&entry.node);
            }
        }
    }
}

impl Drop for CachedFs {
    fn drop(&mut self) {
        self.watch.end();
        let mut outcome = Ok(());
        for entry in self.shelf.all() {
            if entry.node.content.is_live() {
                outcome = outcome.and(self.write_back(&entry.node));
            }
        }
        self.asked.forgets_all();
        self.shelf.clear();
        self.recent.clear();
        let root = self.root.get_mut().take();
        drop(root);
        let outcome = outcome.and(self.asked.unmount());
        if let Err(errno) = outcome {
            tracing::warn!(%errno, "a file system was given up with changes that could not be written");
        }
        self.ending.is_over(outcome);
    }
}

impl Filesystem for CachedFs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        self.inode(self.root_entry())
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        self.asked.any(|driver, who| driver.statfs(who))
    }

    fn options(&self) -> Vec<u8> {
        self.options.clone()
    }

    fn path_of_host(&self, host_path: &[u8]) -> Option<Vec<u8>> {
        let (mut path, is_removed) = self.of_host(host_path)?.path();
        if is_removed {
            path.extend_from_slice(b" (deleted)");
        }
        Some(path)
    }

    fn is_own_host_path(&self, host_path: &[u8]) -> bool {
        self.shelf.holds(host_path)
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        self.stat_of(&self.of_descriptor(host)?)
    }

    fn inode_of_open(&self, host: OwnedFd) -> Result<InodeRef> {
        Ok(self.inode(self.of_descriptor(host.as_fd())?))
    }

    fn admits(&self, who: &Credentials) -> bool {
        self.asked.admits(who)
    }

    fn sync(&self) -> Result<()> {
        self.write_all_back()
    }

    fn writes_back(&self) -> bool {
        true
    }

    fn sync_object(&self, inode: &dyn Inode) -> Result<()> {
        match inode.as_any().downcast_ref::<CachedInode>().map(CachedInode::node) {
            Some(node) if node.kind == FileKind::Regular => self.sync_regular(node),
            _ => self.asked.sync(),
        }
    }

    fn abort(&self) {
        self.asked.abort();
    }

    fn ending(&self) -> Option<Arc<Ending>> {
        Some(self.ending.clone())
    }
}
