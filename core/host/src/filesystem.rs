//! The tree: its root, the store of owners that belongs to it, and what is shown in place of the host's metadata.

use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use rustix::fs::{makedev, AtFlags, Statx, StatxFlags, StatxTimestamp};
use umvu_interface::{Caller, Errno, FileKind, Filesystem, FsStat, Inode, InodeRef, Result, Stat, Timestamp};
use umvu_ownership::{FakeKind, Key, Medium, Override, Store};

use crate::seen::Seen;
use crate::set_id::Watched;
use crate::{procfd, HostInode};

/// Fields asked of statx(2) for an inode.
const MASK: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME).union(StatxFlags::MNT_ID);

/// A directory of the host as a [`Filesystem`].
pub struct HostFs {
    me: Weak<HostFs>,
    root: OwnedFd,
    root_place: Place,
    root_is_top: bool,
    device: Option<u64>,
    ownership: ArcSwapOption<Store>,
    seen: Seen,
    watched: Watched,
    /// The last path of the root on the host that was read.
    root_path: ArcSwap<Vec<u8>>,
}

/// Where an object is on the host: mount, device, inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    mount: u64,
    dev: u64,
    ino: u64,
}

impl Place {
    fn of(host: &Statx) -> Self {
        let mount = if host.stx_mask & StatxFlags::MNT_ID.bits() != 0 { host.stx_mnt_id } else { 0 };
        Self { mount, dev: makedev(host.stx_dev_major, host.stx_dev_minor), ino: host.stx_ino }
    }
}

impl HostFs {
    /// Makes a tree of the directory `root`, an `O_PATH` descriptor. `ownership` holds the owners shown in place of
    /// the host's; `device` is the `st_dev` shown for what lies on the root's own device, in place of the host's.
    pub fn new(root: OwnedFd, ownership: Option<Arc<Store>>, device: Option<u64>) -> Arc<HostFs> {
        // A root that the host cannot describe is told apart from all others, and every call on it fails anyway.
        let place = statx(root.as_fd()).map(|host| Place::of(&host));
        let above = procfd::open_path(root.as_fd(), b"..").and_then(|fd| statx(fd.as_fd()));
        let root_is_top = match (&place, &above) {
            (Ok(place), Ok(above)) => *place == Place::of(above),
            _ => false,
        };
        let root_place = place.unwrap_or(Place { mount: 0, dev: 0, ino: 0 });
        Arc::new_cyclic(|me| HostFs {
            me: me.clone(),
            root,
            root_place,
            root_is_top,
            device,
            ownership: ArcSwapOption::new(ownership),
            seen: Seen::default(),
            watched: Watched::default(),
            root_path: ArcSwap::default(),
        })
    }

    /// Gives the inode of the root.
    pub fn root_inode(self: &Arc<Self>) -> Arc<HostInode> {
        Arc::new(HostInode::root(Arc::clone(self)))
    }

    /// Takes a descriptor, of any kind, of an object that is known to lie in this tree.
    pub fn inode(self: &Arc<Self>, fd: OwnedFd) -> Arc<HostInode> {
        Arc::new(HostInode::new(Arc::clone(self), fd))
    }

    /// Attaches a store of owners.
    pub fn set_ownership(&self, store: Arc<Store>) {
        self.ownership.store(Some(store));
    }

    /// Gives the store of owners, if one is attached.
    pub fn ownership(&self) -> Option<Arc<Store>> {
        self.ownership.load_full()
    }

    /// Gives the store for a short use, without counting it.
    pub(crate) fn store(&self) -> Guard<Option<Arc<Store>>> {
        self.ownership.load()
    }

    /// Gives the store where what `caller` sets goes there and not to the host.
    pub(crate) fn store_for(&self, caller: &Caller<'_>) -> Option<Arc<Store>> {
        if caller.credentials.is_faked() {
            self.ownership()
        } else {
            None
        }
    }

    /// Gives the files that wait for a write.
    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    pub(crate) fn root_fd(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Whether `host` describes the root.
    pub(crate) fn is_root(&self, host: &Statx) -> bool {
        self.root_place == Place::of(host)
    }

    /// Whether the root is the root of the host, so that nothing lies above it.
    pub(crate) fn root_is_top(&self) -> bool {
        self.root_is_top
    }

    /// Gives what follows the root's path in a path of the host, without a leading slash.
    ///
    /// # Errors
    /// - `ENOENT`: the path does not lie below the root
    pub(crate) fn below_root(&self, host_path: &[u8]) -> Result<Vec<u8>> {
        if self.root_is_top {
            return after(host_path, b"").ok_or(Errno::NOENT);
        }
        // Known from an earlier call, unless the host has renamed the directory since.
        let known = self.root_path.load();
        if !known.is_empty() {
            if let Some(rest) = after(host_path, &known) {
                return Ok(rest);
            }
        }
        let path = umvu_interface::path_of_open(self.root.as_fd())?;
        let rest = after(host_path, &path);
        self.root_path.store(Arc::new(path));
        rest.ok_or(Errno::NOENT)
    }

    /// Gives the device number shown for an object of the host's device `dev`.
    fn shown_dev(&self, dev: u64) -> u64 {
        // What the host has mounted below the root keeps its own number, or inode numbers would meet.
        match self.device {
            Some(device) if dev == self.root_place.dev => device,
            _ => dev,
        }
    }

    /// Gives (device, inode number) as shown.
    pub(crate) fn shown_id(&self, host: &Statx) -> (u64, u64) {
        (self.shown_dev(makedev(host.stx_dev_major, host.stx_dev_minor)), host.stx_ino)
    }

    /// Gives the override of the object, if there is one. `host` describes it.
    pub(crate) fn override_of(&self, fd: BorrowedFd<'_>, host: &Statx) -> Result<Option<Override>> {
        let store = self.store();
        let Some(store) = store.as_ref().filter(|store| !store.is_empty_hint()) else {
            return Ok(None);
        };
        let key = Key::from_statx(host);
        let read = || store.get(fd, &key, mode(host));
        match store.medium(&key, mode(host)) {
            Medium::Xattr => self.seen.get_or_read(&key, host, read),
            Medium::Database => read(),
        }
    }

    /// Makes an object show something else, in dependence of what it shows. `host` describes it.
    pub(crate) fn update(
        &self,
        store: &Store,
        fd: BorrowedFd<'_>,
        host: &Statx,
        change: impl FnOnce(Override) -> Override,
    ) -> Result<()> {
        let key = Key::from_statx(host);
        let updated = store.update(fd, &key, mode(host), |now| change(now.unwrap_or_else(|| unfaked(host))));
        self.seen.forget(&key);
        updated.map(drop)
    }

    /// Gives what guests see of the object. `host` describes it.
    pub(crate) fn shown(&self, fd: BorrowedFd<'_>, host: &Statx) -> Result<Stat> {
        let mut stat = as_stat(host);
        stat.dev = self.shown_dev(stat.dev);
        if let Some(found) = self.override_of(fd, host)? {
            apply(&mut stat, &self.after_writes(fd, host, found)?);
        }
        Ok(stat)
    }

    /// Whether anything may show something else than the host says.
    pub(crate) fn has_overrides(&self) -> bool {
        self.store().as_ref().is_some_and(|store| !store.is_empty_hint())
    }

    /// Forgets the record of an object whose last name is gone.
    pub(crate) fn forget(&self, removed: &Removed) {
        let store = self.store();
        let Some(store) = &*store else { return };
        self.watched.forget(&removed.key);
        if let Err(errno) = store.remove(removed.fd.as_fd(), &removed.key, removed.mode) {
            // The name is gone, and its key is never used again.
            tracing::warn!(ino = removed.key.ino, %errno, "the owner of a removed object stays recorded");
        }
    }
}

/// An object that is about to lose its last name.
pub(crate) struct Removed {
    pub(crate) fd: OwnedFd,
    pub(crate) key: Key,
    pub(crate) mode: u32,
}

impl Filesystem for HostFs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        match self.me.upgrade() {
            Some(me) => me.root_inode(),
            None => unreachable!("a file system that is called is alive"),
        }
    }

    fn statfs(&self, inode: &dyn Inode) -> Result<FsStat> {
        let object = inode.host_fd().unwrap_or(self.root.as_fd());
        let host = rustix::fs::fstatfs(object)?;
        // The structure hides this number, which its other form shows as one.
        let fsid = rustix::fs::fstatvfs(object)?.f_fsid;
        let [a, b, c, d, e, f, g, h] = fsid.to_le_bytes();
        Ok(FsStat {
            magic: unsigned(host.f_type),
            block_size: unsigned(host.f_bsize),
            blocks: host.f_blocks,
            blocks_free: host.f_bfree,
            blocks_available: host.f_bavail,
            files: host.f_files,
            files_free: host.f_ffree,
            fsid: [i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h])],
            name_max: unsigned(host.f_namelen),
            fragment_size: unsigned(host.f_frsize),
        })
    }

    fn path_of_host(&self, host_path: &[u8]) -> Option<Vec<u8>> {
        self.below_root(host_path).ok()
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        self.shown(host, &statx(host)?)
    }

    fn inode_of_open(&self, host: OwnedFd) -> Result<InodeRef> {
        if !self.root_is_top {
            match umvu_interface::path_of_open(host.as_fd()) {
                // Nothing tells where a file so deep lies: it is where its descriptor came from.
                Err(Errno::NAMETOOLONG) => {}
                path => drop(self.below_root(&path?)?),
            }
        }
        let me = self.me.upgrade().ok_or(Errno::NOENT)?;
        Ok(me.inode(host))
    }

    fn fake_ownership(&self) {
        self.ownership.rcu(|now| Some(now.clone().unwrap_or_else(|| Arc::new(Store::in_memory()))));
    }
}

/// Gives what follows `directory`, a path without a slash at its end, in `path`.
fn after(path: &[u8], directory: &[u8]) -> Option<Vec<u8>> {
    match path.strip_prefix(directory)? {
        b"" => Some(Vec::new()),
        [b'/', rest @ ..] => Some(rest.to_vec()),
        _ => None,
    }
}

/// Asks the host about an object.
pub(crate) fn statx(fd: BorrowedFd<'_>) -> Result<Statx> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, MASK)
}

/// Type and permission bits that the object has on the host.
pub(crate) fn mode(host: &Statx) -> u32 {
    u32::from(host.stx_mode)
}

/// The type that the object has on the host.
pub(crate) fn kind(host: &Statx) -> FileKind {
    FileKind::from_mode(mode(host)).unwrap_or(FileKind::Regular)
}

/// Puts an override in place of what the host says.
pub(crate) fn apply(stat: &mut Stat, found: &Override) {
    stat.uid = found.uid;
    stat.gid = found.gid;
    let mut kind = stat.mode & 0o170_000;
    // Only an empty regular file stands for something else.
    if kind == FileKind::Regular.bits() {
        let (shown, rdev) = match found.kind {
            FakeKind::Same => (FileKind::Regular, 0),
            FakeKind::Fifo => (FileKind::Fifo, 0),
            FakeKind::Socket => (FileKind::Socket, 0),
            FakeKind::CharDevice { major, minor } => (FileKind::CharDevice, makedev(major, minor)),
            FakeKind::BlockDevice { major, minor } => (FileKind::BlockDevice, makedev(major, minor)),
        };
        kind = shown.bits();
        stat.rdev = rdev;
    }
    stat.mode = kind | (found.mode & 0o7777);
}

/// What an object without override shows.
fn unfaked(host: &Statx) -> Override {
    Override { uid: host.stx_uid, gid: host.stx_gid, mode: mode(host) & 0o7777, kind: FakeKind::Same }
}

/// Converts what the host says.
pub(crate) fn as_stat(host: &Statx) -> Stat {
    let time = |time: &StatxTimestamp| Timestamp { seconds: time.tv_sec, nanoseconds: time.tv_nsec };
    Stat {
        dev: makedev(host.stx_dev_major, host.stx_dev_minor),
        ino: host.stx_ino,
        mode: mode(host),
        nlink: host.stx_nlink,
        uid: host.stx_uid,
        gid: host.stx_gid,
        rdev: makedev(host.stx_rdev_major, host.stx_rdev_minor),
        size: host.stx_size,
        blksize: host.stx_blksize,
        blocks: host.stx_blocks,
        atime: time(&host.stx_atime),
        mtime: time(&host.stx_mtime),
        ctime: time(&host.stx_ctime),
        btime: (host.stx_mask & StatxFlags::BTIME.bits() != 0).then(|| time(&host.stx_btime)),
        attributes: host.stx_attributes.bits(),
        attributes_mask: host.stx_attributes_mask.bits(),
    }
}

/// Numbers of statfs(2), which the kernel's structure has signed and which are never negative.
fn unsigned(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(0)
}
