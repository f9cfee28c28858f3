//! A directory on the host that is thrown away, and the callers that the tests act for.

#![allow(dead_code)] // Each test program uses its part.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_host::{HostFs, HostInode};
use umvu_interface::{Caller, Capabilities, Credentials, Ids, Inode, InodeRef, Name, Origin, Stat};
use umvu_ownership::Store;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory with the tree in `t` and the store's own files in `beside`.
pub struct Tree {
    pub base: PathBuf,
}

impl Tree {
    pub fn new() -> Self {
        // The modes that the interface is given have the guest's umask applied.
        rustix::process::umask(Mode::empty());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("umvu-host-{}-{number}", std::process::id()));
        std::fs::create_dir(&base).unwrap();
        std::fs::create_dir(base.join("t")).unwrap();
        rustix::fs::chmod(base.join("t"), Mode::from_raw_mode(0o755)).unwrap();
        Self { base }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.base.join("t").join(name)
    }

    pub fn fd(&self) -> OwnedFd {
        open_path(&self.base.join("t"))
    }

    /// The tree without a store.
    pub fn plain(&self) -> Arc<HostFs> {
        HostFs::new(self.fd(), None, None)
    }

    /// The tree with a store in memory.
    pub fn in_memory(&self) -> Arc<HostFs> {
        HostFs::new(self.fd(), Some(Arc::new(Store::in_memory())), None)
    }

    /// The tree with a store that lasts.
    pub fn kept(&self) -> Arc<HostFs> {
        let store = Store::open(self.fd().as_fd(), &self.base.join("beside")).unwrap();
        HostFs::new(self.fd(), Some(Arc::new(store)), None)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

pub fn open_path(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

pub fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

pub fn credentials(uid: u32, origin: Origin) -> Credentials {
    let capabilities = if uid == 0 { Capabilities::full() } else { Capabilities::none() };
    let ids = Ids::all(uid);
    Credentials { uid: ids, gid: ids, groups: Arc::from([]), capabilities, securebits: 0, origin, namespace: None }
}

/// Calls `with` for root of the view.
pub fn as_root<T>(with: impl FnOnce(&Caller<'_>) -> T) -> T {
    as_user(0, with)
}

/// Calls `with` for a faked user.
pub fn as_user<T>(uid: u32, with: impl FnOnce(&Caller<'_>) -> T) -> T {
    with(&Caller { tid: 1, credentials: &credentials(uid, Origin::Faked), umask: 0 })
}

/// Calls `with` for the user that the host knows.
pub fn as_host<T>(with: impl FnOnce(&Caller<'_>) -> T) -> T {
    let uid = rustix::process::geteuid().as_raw();
    with(&Caller { tid: 1, credentials: &credentials(uid, Origin::Host), umask: 0 })
}

pub fn root(fs: &Arc<HostFs>) -> Arc<HostInode> {
    fs.root_inode()
}

pub fn find(fs: &Arc<HostFs>, path: &str) -> InodeRef {
    root(fs).lookup_path(path.as_bytes()).unwrap()
}

pub fn stat(fs: &Arc<HostFs>, path: &str) -> Stat {
    find(fs, path).stat().unwrap()
}

/// Owner, group and permission bits shown.
pub fn owner(fs: &Arc<HostFs>, path: &str) -> (u32, u32, u32) {
    let stat = stat(fs, path);
    (stat.uid, stat.gid, stat.mode & 0o7777)
}
