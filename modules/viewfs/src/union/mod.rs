//! A union of trees: one that takes the changes over others that are only read, with the semantics of
//! overlayfs (`Documentation/filesystems/overlayfs.rst`) and its form on disk.
//!
//! Architecture invariant: reaches files through the inodes of its layers alone, resolves no symbolic links and
//! judges no permissions.
//!
//! Locks, in the order in which they are taken: a file's own while it is copied up ([`copy_up::Copying`]); `change`,
//! held while names change, never while data is copied; then those of [`node`]. Lookups take only the last and try
//! again when `epoch` has moved.

mod change;
mod copy_data;
mod copy_up;
mod descriptor;
mod devices;
mod inode;
mod links;
mod lookup;
mod moved;
mod node;
mod owners;
mod readdir;
mod remove;
mod rename;
mod stat;
mod walk;
mod whiteout;
mod work;
mod xattr;

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};
use umvu_interface::{
    Caller, Capabilities, Credentials, Errno, Filesystem, FsStat, Ids, Inode, InodeRef, Origin, Result, Stat,
};

use self::devices::Devices;
use self::inode::UnionInode;
use self::node::{LayerIndex, Node, Stack};
pub(crate) use self::whiteout::WORK_NAME;
pub(crate) use self::work::{Work, STATE_NAME};

/// How many directories that were crossed lately are kept for the next lookup.
const KEPT: usize = 512;

/// The number that statfs(2) gives for overlayfs (`linux/magic.h`).
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

/// Who acts where the union itself sets what a guest has set before: an owner that is copied, for one.
static ROOT: LazyLock<Credentials> = LazyLock::new(|| Credentials {
    uid: Ids::all(0),
    gid: Ids::all(0),
    groups: Arc::from([].as_slice()),
    capabilities: Capabilities::full(),
    securebits: 0,
    origin: Origin::Faked,
    namespace: None,
});

/// Gives the union's own identity, in place of that of `caller`.
pub(crate) fn as_root(caller: &Caller<'_>) -> Caller<'static> {
    Caller { tid: caller.tid, credentials: &ROOT, umask: 0 }
}

/// Whether a layer may hold whiteouts, opaque directories and redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marks {
    /// It is a plain tree: a name is a name.
    None,
    /// It may have been the upper layer of a union.
    Overlay,
    /// That, or part of an OCI image: names that begin with `.wh.` hide others.
    OverlayOrOci,
}

impl Marks {
    /// Tells which marks a lower layer has that may have any. A union, and overlayfs, leaves an attribute on the root of a
    /// layer that it has written, and there a name is a name.
    pub(crate) fn of(root: &InodeRef) -> Self {
        let is_overlay = |name: &Vec<u8>| name.starts_with(whiteout::PREFIX);
        match root.list_xattr().is_ok_and(|names| names.iter().any(is_overlay)) {
            true => Self::Overlay,
            false => Self::OverlayOrOci,
        }
    }

    /// Whether a name is none of an object: a whiteout in the form of OCI, or what a union keeps in its upper layer.
    fn hides(self, name: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Overlay => name == WORK_NAME,
            Self::OverlayOrOci => name.starts_with(whiteout::OCI_PREFIX),
        }
    }
}

/// What becomes of a change to an object that only a lower layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// It is done to a copy in the upper layer; without one, there is none.
    Never,
    /// It is tried on the object itself, and done to a copy where that is not permitted.
    First,
    /// It is done to the object itself.
    Through,
    /// There is none: `EROFS`.
    Refused,
}

/// A lower layer.
pub(crate) struct Layer {
    pub(crate) root: InodeRef,
    pub(crate) marks: Marks,
    pub(crate) writes: Writes,
    /// The device of the root.
    dev: u64,
}

impl Layer {
    pub(crate) fn new(root: InodeRef, marks: Marks, writes: Writes) -> Result<Self> {
        let (dev, _) = root.id()?;
        Ok(Self { root, marks, writes, dev })
    }
}

/// What is done when a directory is renamed that a lower layer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RedirectDir {
    /// The renamed directory refers to its place in the lower layers.
    On,
    /// `EXDEV`; references that are there are followed.
    Follow,
    /// `EXDEV`; references that are there are ignored.
    Off,
}

/// Whether copies are on disk before they are seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Synced,
    /// A crash of the system may leave copies incomplete.
    Volatile,
}

/// What a union is made of.
pub(crate) struct Setup {
    /// The layer that takes the changes, and where its copies are made.
    pub(crate) upper: Option<(InodeRef, Work)>,
    /// The merged layers, topmost first.
    pub(crate) lowers: Vec<Layer>,
    /// What excepted and frozen paths show.
    pub(crate) covered: InodeRef,
    /// Paths below the root, without leading slash, that show `covered` whatever the layers hold.
    pub(crate) excepted: Vec<Vec<u8>>,
    /// The same, but read-only: where the union's own layers lie.
    pub(crate) frozen: Vec<Vec<u8>>,
    pub(crate) device: u64,
    pub(crate) redirect_dir: RedirectDir,
    pub(crate) durability: Durability,
    /// Whether changes of mode and owner are written down instead of copying the object for them.
    pub(crate) records_owners: bool,
    /// As `/proc/mounts` shows them.
    pub(crate) options: Vec<u8>,
}

/// A union of trees.
pub(crate) struct UnionFs {
    me: Weak<UnionFs>,
    root: Arc<Node>,
    work: Option<Work>,
    /// The merged layers, then what excepted and what frozen paths show.
    layers: Vec<Layer>,
    /// Index of the last of the merged layers.
    bottom: LayerIndex,
    device: u64,
    devices: Devices,
    redirect_dir: RedirectDir,
    durability: Durability,
    records_owners: bool,
    owners: owners::Owners,
    links: links::Links,
    options: Vec<u8>,
    /// Whether the upper layer cannot hold 0:0 devices or attributes and hides names as OCI layers do.
    upper_has_oci_names: AtomicBool,
    change: Mutex<()>,
    copying: copy_up::Copying,
    /// Grows whenever a directory gets another name, before and after.
    epoch: AtomicU64,
    kept: Mutex<VecDeque<Arc<Node>>>,
    opened: stat::Opened,
    renamed: RwLock<rename::Renamed>,
    moved: RwLock<moved::MovedFiles>,
    /// Directories whose nodes know of excepted entries.
    excepting: OnceLock<Vec<Arc<Node>>>,
    /// Whether the view fakes identities.
    faked: AtomicBool,
}

/// Proof that names are not changed by anybody else.
pub(crate) type Changing<'a> = MutexGuard<'a, ()>;

impl UnionFs {
    /// What is said of an entry that the host does not let this user see. A faked root may change every directory
    /// of the view, so that one of a lower layer which the host closes to the user is there, and empty; what the
    /// host's owner keeps in it stays out of reach.
    pub(crate) fn unseen(&self, errno: Errno) -> Errno {
        if errno == Errno::ACCESS && self.faked.load(Ordering::Acquire) {
            Errno::NOENT
        } else {
            errno
        }
    }

    pub(crate) fn new(setup: Setup) -> Result<Arc<Self>> {
        let mut layers = setup.lowers;
        let bottom = layers.len().checked_sub(1).ok_or(Errno::INVAL)?;
        let lowers = layers.iter().enumerate().map(|(index, layer)| (index, Arc::clone(&layer.root))).collect();
        for writes in [Writes::Through, Writes::Refused] {
            layers.push(Layer::new(Arc::clone(&setup.covered), Marks::None, writes)?);
        }
        let mut stack = Stack { lowers, ..Stack::default() };
        let work = match setup.upper {
            Some((upper, work)) => {
                stack.impure = AtomicBool::new(whiteout::directory_marks(&upper)?.impure);
                stack.upper = OnceLock::from(upper);
                Some(work)
            }
            None => None,
        };
        let opened = stat::Opened::new(stack.upper.get());
        let oci = work.as_ref().is_some_and(|work| work.needs_oci_names);
        let fs = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            root: Node::root(stack),
            work,
            layers,
            bottom,
            device: setup.device,
            devices: Devices::default(),
            redirect_dir: setup.redirect_dir,
            durability: setup.durability,
            records_owners: setup.records_owners,
            owners: owners::Owners::default(),
            links: links::Links::default(),
            options: setup.options,
            upper_has_oci_names: AtomicBool::new(oci),
            change: Mutex::new(()),
            copying: copy_up::Copying::default(),
            epoch: AtomicU64::new(0),
            kept: Mutex::default(),
            opened,
            renamed: RwLock::default(),
            moved: RwLock::default(),
            excepting: OnceLock::new(),
            faked: AtomicBool::new(false),
        });
        // The bottom layer's device first: its inode numbers, the most by far, are shown as they are.
        for layer in fs.layers.iter().take(bottom + 1).rev() {
            fs.devices.of(&layer.root, layer.dev);
        }
        fs.load_owners()?;
        fs.load_links()?;
        let excepted = setup.excepted.iter().map(|path| (path.as_slice(), bottom + 1));
        let frozen = setup.frozen.iter().map(|path| (path.as_slice(), bottom + 2));
        fs.except(excepted.chain(frozen))?;
        Ok(fs)
    }

    fn me(&self) -> Arc<Self> {
        match self.me.upgrade() {
            Some(me) => me,
            None => unreachable!("a file system that is called is alive"),
        }
    }

    pub(crate) fn upper_root(&self) -> Option<&InodeRef> {
        self.root.stack()?.upper.get()
    }

    fn work(&self) -> Result<&Work> {
        self.work.as_ref().ok_or(Errno::ROFS)
    }

    fn layer(&self, index: LayerIndex) -> Result<&Layer> {
        self.layers.get(index).ok_or(Errno::IO)
    }

    /// Whether what lies below a directory that only this layer has is the layer's own.
    fn is_sealed(&self, index: LayerIndex) -> bool {
        index >= self.bottom
    }

    fn lock(&self) -> Changing<'_> {
        self.change.lock()
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Tells lookups under way that what they found of directories may be wrong.
    fn renaming(&self, _changing: &Changing<'_>) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Keeps a directory that was crossed for the next lookup.
    fn keep(&self, node: &Arc<Node>) {
        if node.kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut kept = self.kept.lock();
        kept.push_back(Arc::clone(node));
        let oldest = if kept.len() > KEPT { kept.pop_front() } else { None };
        drop(kept);
        if let Some(oldest) = oldest {
            oldest.kept.store(false, Ordering::Relaxed);
        }
    }

    /// No longer keeps a directory that has been removed: who watches it waits for its end.
    fn let_go(&self, node: &Arc<Node>) {
        if node.kept.swap(false, Ordering::Relaxed) {
            self.kept.lock().retain(|kept| !Arc::ptr_eq(kept, node));
        }
    }

    fn root_inode(&self) -> Arc<UnionInode> {
        UnionInode::directory(self.me(), Arc::clone(&self.root), None)
    }
}

impl Drop for UnionFs {
    fn drop(&mut self) {
        if let Some(work) = &self.work {
            work.finish();
        }
    }
}

impl Filesystem for UnionFs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        self.root_inode()
    }

    fn statfs(&self, inode: &dyn Inode) -> Result<FsStat> {
        if let Some(inode) = inode.as_any().downcast_ref::<UnionInode>() {
            let real = inode.real()?;
            if self.devices.of(real, real.id()?.0).is_kernel_state {
                return real.filesystem().statfs(&**real);
            }
        }
        let top = self.root.stack().ok_or(Errno::IO)?.top()?;
        let numbers = top.filesystem().statfs(&**top)?;
        Ok(FsStat { magic: OVERLAYFS_MAGIC, ..numbers })
    }

    fn options(&self) -> Vec<u8> {
        self.options.clone()
    }

    fn path_of_host(&self, host_path: &[u8]) -> Option<Vec<u8>> {
        self.path_of_layers(host_path)
    }

    fn is_own_host_path(&self, host_path: &[u8]) -> bool {
        self.is_in_upper(host_path)
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        self.stat_descriptor(host)
    }

    fn inode_of_open(&self, host: OwnedFd) -> Result<InodeRef> {
        self.of_descriptor(host)
    }

    fn sync(&self) -> Result<()> {
        match self.upper_root() {
            Some(upper) => upper.filesystem().sync(),
            None => Ok(()),
        }
    }

    fn writes_back(&self) -> bool {
        self.upper_root().is_some_and(|upper| upper.filesystem().writes_back())
    }

    fn sync_object(&self, inode: &dyn Inode) -> Result<()> {
        let Some(inode) = inode.as_any().downcast_ref::<UnionInode>() else { return Ok(()) };
        let real = inode.real()?;
        real.filesystem().sync_object(&**real)
    }

    fn fake_ownership(&self) {
        self.faked.store(true, Ordering::Release);
        if let Some(upper) = self.upper_root() {
            upper.filesystem().fake_ownership();
        }
        for layer in &self.layers {
            layer.root.filesystem().fake_ownership();
        }
    }
}
