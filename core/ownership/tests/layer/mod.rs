//! A throw-away layer with objects of all types, and the directory beside it.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{symlink, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{mknodat, open, FileType, Mode, OFlags, CWD};
use umvu_ownership::{FakeKind, Key, Override, Store};

/// Removed with all it holds when it goes out of scope.
pub struct Layer {
    top: PathBuf,
}

/// A host object as a store is asked about it.
pub struct Object {
    pub fd: OwnedFd,
    pub key: Key,
    pub mode: u32,
}

impl Layer {
    /// Makes an empty layer.
    pub fn new() -> Layer {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let top = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let top = if File::create(top.join("writable")).is_ok() { top.to_owned() } else { std::env::temp_dir() };
        let top = top.join(format!("umvu-ownership-{}-{number}", std::process::id()));
        fs::create_dir(&top).unwrap();
        fs::create_dir(top.join("layer")).unwrap();
        Layer { top }
    }

    pub fn path(&self) -> PathBuf {
        self.top.join("layer")
    }

    pub fn beside(&self) -> PathBuf {
        self.top.join("beside")
    }

    pub fn root(&self) -> OwnedFd {
        open(self.path(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    pub fn open(&self) -> Store {
        Store::open(self.root().as_fd(), &self.beside()).unwrap()
    }

    pub fn open_read_only(&self) -> Store {
        Store::open_read_only(self.root().as_fd(), Some(&self.beside())).unwrap()
    }

    pub fn object(&self, name: &str) -> Object {
        Object::at(&self.path().join(name))
    }

    /// Makes one object of each type that an ordinary user can make: `file`, `dir`, `link`,
    /// `fifo` and `socket`.
    pub fn populate(&self) -> [&'static str; 5] {
        let path = self.path();
        File::create(path.join("file")).unwrap();
        fs::create_dir(path.join("dir")).unwrap();
        symlink("nowhere", path.join("link")).unwrap();
        mknodat(CWD, path.join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // The address of a socket is short, a path through a descriptor always is.
        let root = self.root();
        use std::os::fd::AsRawFd;
        UnixListener::bind(format!("/proc/self/fd/{}/socket", root.as_raw_fd())).unwrap();
        ["file", "dir", "link", "fifo", "socket"]
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.top);
    }
}

impl Object {
    pub fn at(path: &Path) -> Object {
        let fd = open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let key = Key::of(fd.as_fd()).unwrap();
        let mode = fs::symlink_metadata(path).unwrap().mode();
        Object { fd, key, mode }
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn shown(&self, store: &Store) -> Option<Override> {
        store.get(self.fd(), &self.key, self.mode).unwrap()
    }

    pub fn set(&self, store: &Store, shown: &Override) {
        store.set(self.fd(), &self.key, self.mode, shown).unwrap();
    }

    pub fn mark(&self) -> Option<String> {
        let mut value = [0; 256];
        let len = umvu_sys::file::get_xattr(self.fd(), umvu_ownership::MARK, &mut value).ok()?;
        Some(String::from_utf8(value[..len].to_vec()).unwrap())
    }

    pub fn put_mark(&self, text: &str) {
        umvu_sys::file::set_xattr(self.fd(), umvu_ownership::MARK, text.as_bytes(), 0).unwrap();
    }
}

pub fn same(uid: u32, gid: u32, mode: u32) -> Override {
    Override { uid, gid, mode, kind: FakeKind::Same }
}
