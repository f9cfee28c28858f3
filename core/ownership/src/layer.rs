//! The marks of one layer: which objects can carry one, and the mark of the root that says that
//! there are any.
//!
//! fuse-overlayfs reads the marks of a layer only if its root carries one; so do readers here that
//! ask [`crate::Store::is_empty_hint`]. The root is therefore marked before the first object is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{Mutex, RwLock};
use rustix::fs::{fstatvfs, openat, statx, AtFlags, FileType, Mode, OFlags, StatVfsMountFlags, StatxFlags};
use rustix::io::Errno;

use crate::disk::Disk;
use crate::error::OpenError;
use crate::lock::{Lock, Others};
use crate::mark;
use crate::object::{Key, Medium};
use crate::table::Table;
use crate::xattr::{self, Existing, Found};

pub(crate) struct Layer {
    pub(crate) root: OwnedFd,
    pub(crate) root_key: Key,
    medium: Medium,
    root_mark: AtomicU8,
    /// Device numbers of file systems, seen in this layer, that have no user attributes.
    lacking: RwLock<Vec<u64>>,
    /// Held for as long as the layer is written.
    root_lock: Option<Lock>,
    /// `None` if the layer is only read.
    pub(crate) disk: Option<Mutex<Disk>>,
}

/// States of `root_mark`.
const UNMARKED: u8 = 0;
/// A directory above the root is marked: the root is part of a larger layer.
const MARKED_ABOVE: u8 = 1;
const MARKED: u8 = 2;
/// The root takes no mark, so nothing below gets one.
const UNMARKABLE: u8 = 3;

impl Layer {
    /// Looks at the root of a layer that is only read, as long as it is not given a disk.
    pub(crate) fn new(layer: BorrowedFd<'_>, medium: Medium) -> Result<Layer, OpenError> {
        let io = |errno: Errno| OpenError::from_io(&path_of(layer), errno.into());
        let root = layer.try_clone_to_owned().map_err(|cause| OpenError::from_io(&path_of(layer), cause))?;
        let root_key = Key::of(layer).map_err(io)?;
        let root_mark = AtomicU8::new(root_mark(layer).map_err(io)?);
        let lacking = RwLock::default();
        Ok(Layer { root, root_key, medium, root_mark, lacking, root_lock: None, disk: None })
    }

    /// The identity of an object within the layer: device numbers change from boot to boot.
    pub(crate) fn key_within(&self, key: &Key) -> Key {
        let dev = if key.dev == self.root_key.dev { 0 } else { key.dev };
        Key { dev, ..*key }
    }

    /// The identity that the host has for what the layer calls `key`.
    pub(crate) fn key_outside(&self, key: &Key) -> Key {
        let dev = if key.dev == 0 { self.root_key.dev } else { key.dev };
        Key { dev, ..*key }
    }

    pub(crate) fn is_marked(&self) -> bool {
        matches!(self.root_mark.load(Ordering::Acquire), MARKED | MARKED_ABOVE)
    }

    /// Whether an object can carry a mark, as far as is known.
    pub(crate) fn can_carry(&self, key: &Key, host_type: FileType) -> bool {
        self.medium == Medium::Xattr
            && matches!(host_type, FileType::RegularFile | FileType::Directory)
            && !self.lacking.read().contains(&key.dev)
    }

    /// Remembers that the file system of `key` has no user attributes.
    pub(crate) fn note_lacking(&self, key: &Key) {
        let mut lacking = self.lacking.write();
        if !lacking.contains(&key.dev) {
            lacking.push(key.dev);
        }
    }

    /// Sees to it that the root carries a mark.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: the root cannot be marked; nothing below it should be.
    pub(crate) fn mark_root(&self) -> Result<(), Errno> {
        match self.root_mark.load(Ordering::Acquire) {
            MARKED => return Ok(()),
            UNMARKABLE => return Err(Errno::OPNOTSUPP),
            _ => {}
        }
        let stat = statx(&self.root, c"", AtFlags::EMPTY_PATH, StatxFlags::MODE)?;
        let text = mark::format_host_root(u32::from(stat.stx_mode));
        let state = match xattr::write(self.root.as_fd(), &text, Existing::Keep) {
            Ok(()) | Err(Errno::EXIST) => MARKED,
            Err(_) => UNMARKABLE,
        };
        self.root_mark.store(state, Ordering::Release);
        if state == MARKED {
            Ok(())
        } else {
            Err(Errno::OPNOTSUPP)
        }
    }

    /// Notes that the mark of the root was taken off; the next mark brings it back.
    pub(crate) fn note_erased(&self, key: &Key) {
        if *key == self.root_key {
            let _ = self.root_mark.compare_exchange(MARKED, UNMARKED, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Fails if the layer cannot be written.
    pub(crate) fn check_writable(&self) -> Result<(), OpenError> {
        let path = || path_of(self.root.as_fd());
        let stat = fstatvfs(&self.root).map_err(|errno| OpenError::from_io(&path(), errno.into()))?;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(OpenError::ReadOnly { path: path(), cause: Errno::ROFS.into() });
        }
        Ok(())
    }

    /// Makes this the one store that writes to the layer, with its files in `beside`.
    ///
    /// The lock beside the layer knows its holder; the lock on the root holds also against one that
    /// keeps its files elsewhere.
    pub(crate) fn take_disk(&mut self, beside: &Path, table: &Table) -> Result<(), OpenError> {
        let path = || path_of(self.root.as_fd());
        let disk = Disk::open(beside, table)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let lock = openat(&self.root, c".", flags, Mode::empty());
        let lock = lock.map_err(|errno| OpenError::from_io(&path(), errno.into()))?;
        match Lock::take(lock, Others::Nobody) {
            Ok(lock) => self.root_lock = Some(lock),
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: path(), pid: None }),
            // Some network file systems lock no directories: then the lock beside must do.
            Err(_) => {}
        }
        self.disk = Some(Mutex::new(disk));
        Ok(())
    }
}

/// Looks for a mark on the root and on the directories above it.
fn root_mark(root: BorrowedFd<'_>) -> Result<u8, Errno> {
    if has_mark(root) {
        return Ok(MARKED);
    }
    let mut key = Key::of(root)?;
    let mut directory = root.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    // A directory above that we cannot see says nothing; the host's root is its own parent.
    while let Ok(above) = openat(&directory, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        let key_above = Key::of(above.as_fd())?;
        if key_above == key {
            break;
        }
        if has_mark(above.as_fd()) {
            return Ok(MARKED_ABOVE);
        }
        key = key_above;
        directory = above;
    }
    Ok(UNMARKED)
}

/// A malformed mark is a mark: whoever meets it must be told.
fn has_mark(directory: BorrowedFd<'_>) -> bool {
    !matches!(xattr::read(directory, FileType::Directory), Ok(Found::Nothing | Found::Unsupported))
}

/// The path of a directory, for messages only.
fn path_of(directory: BorrowedFd<'_>) -> PathBuf {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    let path = rustix::fs::readlink(link, Vec::new()).map(|path| path.into_bytes());
    let path = path.map_err(io::Error::from).unwrap_or_else(|_| b"layer".to_vec());
    PathBuf::from(std::ffi::OsString::from_vec(path))
}
