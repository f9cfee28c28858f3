//! New objects. For a caller with a faked identity the host gets an object of its own user, which that user can
//! always reach, and the store gets what is shown.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{major, minor, AtFlags, FileType, Mode, OFlags};
use umvu_interface::{Caller, Capabilities, Creation, Errno, FileKind, Inode, InodeRef, Name, Result};
use umvu_ownership::{FakeKind, Key, Override, Store};

use crate::filesystem::{kind, mode, statx};
use crate::inode::owner_bits;
use crate::names::whiteout;
use crate::set_id::lost_by_writing;
use crate::{procfd, HostInode};

/// What open(2) is asked for beside the flags of a guest when a file is made.
const NEW_FILE: OFlags =
    OFlags::CREATE.union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Flags that mean something only while a file is made.
const CREATION_FLAGS: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::TRUNC);

impl HostInode {
    pub(crate) fn create_entry(&self, caller: &Caller<'_>, name: &Name, what: &Creation<'_>) -> Result<InodeRef> {
        if let Creation::CharDevice { rdev: 0, .. } = what {
            // A whiteout is one for every kernel that mounts the layer, so it is never faked.
            self.permitted(|| whiteout(self.fd(), name))?;
            return self.lookup(name);
        }
        let Some(store) = self.fs().store_for(caller) else {
            self.permitted(|| make(self.fd(), name, what, mode_of(what)))?;
            let inode = self.lookup(name)?;
            self.disown(inode.host_fd())?;
            return Ok(inode);
        };
        let shown = self.new_owner(caller, what)?;
        if let Creation::Regular { .. } | Creation::CharDevice { .. } | Creation::BlockDevice { .. } = what {
            return self.faked_file(&store, name, shown).map(|fd| self.sibling(fd));
        }
        self.permitted(|| make(self.fd(), name, what, real_mode(mode_of(what), kind_of(what))))?;
        let fd = procfd::open_path(self.fd(), name.as_bytes())?;
        if let Err(errno) = record(&store, fd.as_fd(), shown) {
            let flags = if kind_of(what) == FileKind::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            let _ = rustix::fs::unlinkat(self.fd(), name.as_bytes(), flags);
            return Err(errno);
        }
        Ok(self.sibling(fd))
    }

    /// Makes a regular file and opens it with `flags`, whatever `mode` allows.
    pub(crate) fn create_file(
        &self,
        caller: &Caller<'_>,
        name: &Name,
        mode: u32,
        flags: OFlags,
    ) -> Result<(InodeRef, OwnedFd)> {
        match self.fs().store_for(caller) {
            None => {
                let mode = Mode::from_raw_mode(mode & 0o7777);
                let fd = self.permitted(|| rustix::fs::openat(self.fd(), name.as_bytes(), flags | NEW_FILE, mode))?;
                self.disown(Some(fd.as_fd()))?;
                // Not by name: that may be another object by now.
                let path = procfd::reopen(fd.as_fd(), OFlags::PATH)?;
                Ok((self.sibling(path), fd))
            }
            Some(store) => {
                let shown = self.new_owner(caller, &Creation::Regular { mode })?;
                let path = self.faked_file(&store, name, shown)?;
                let fd = procfd::reopen(path.as_fd(), flags - CREATION_FLAGS)?;
                self.fs().watch_writes(fd.as_fd(), lost_by_writing(caller, flags, &shown))?;
                Ok((self.sibling(path), fd))
            }
        }
    }

    /// Makes a file without a name and opens it with `flags`.
    pub(crate) fn unnamed_file(&self, caller: &Caller<'_>, mode: u32, flags: OFlags) -> Result<OwnedFd> {
        let flags = (flags - (OFlags::CREATE | OFlags::NOFOLLOW)) | OFlags::TMPFILE | OFlags::CLOEXEC;
        let make = |mode: u32| {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            self.permitted(|| rustix::fs::openat(self.fd(), c".", flags, mode))
        };
        let Some(store) = self.fs().store_for(caller) else {
            let fd = make(mode)?;
            self.disown(Some(fd.as_fd()))?;
            return Ok(fd);
        };
        let shown = self.new_owner(caller, &Creation::Regular { mode })?;
        let fd = make(real_mode(mode, FileKind::Regular))?;
        record(&store, fd.as_fd(), shown)?;
        self.fs().watch_writes(fd.as_fd(), lost_by_writing(caller, flags, &shown))?;
        Ok(fd)
    }

    /// Makes an empty regular file that shows `shown` from the moment it has a name; gives an `O_PATH` descriptor.
    fn faked_file(&self, store: &Store, name: &Name, shown: Override) -> Result<OwnedFd> {
        let mode = Mode::from_raw_mode(real_mode(shown.mode, FileKind::Regular));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match self.permitted(|| rustix::fs::openat(self.fd(), c".", flags, mode)) {
            Ok(unnamed) => {
                let key = record(store, unnamed.as_fd(), shown)?;
                procfd::link(unnamed.as_fd(), self.fd(), name.as_bytes())?;
                // The descriptor at hand would go on saying that the file was deleted: /proc/PID/fd shows it.
                let named = procfd::open_path(self.fd(), name.as_bytes());
                match named.and_then(|named| Ok((Key::of(named.as_fd())?, named))) {
                    Ok((found, named)) if found == key => Ok(named),
                    // Somebody was quicker to rename it.
                    _ => procfd::reopen(unnamed.as_fd(), OFlags::PATH),
                }
            }
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => {
                let flags = NEW_FILE | OFlags::WRONLY;
                let fd = rustix::fs::openat(self.fd(), name.as_bytes(), flags, mode)?;
                if let Err(errno) = record(store, fd.as_fd(), shown) {
                    let _ = rustix::fs::unlinkat(self.fd(), name.as_bytes(), AtFlags::empty());
                    return Err(errno);
                }
                procfd::reopen(fd.as_fd(), OFlags::PATH)
            }
            // What ext4 says of a removed directory; a name is asked for here: may_create of fs/namei.c.
            Err(Errno::PERM) if self.host()?.stx_nlink == 0 => Err(Errno::NOENT),
            Err(errno) => Err(errno),
        }
    }

    /// Forgets what an older object with the same identity may have left in the store: a host that counts birth
    /// times in ticks may give a number twice in one.
    fn disown(&self, object: Option<BorrowedFd<'_>>) -> Result<()> {
        let store = self.fs().store();
        match (&*store, object) {
            (Some(store), Some(object)) if !store.is_empty_hint() => {
                let host = statx(object)?;
                let key = Key::from_statx(&host);
                match store.get(object, &key, mode(&host))? {
                    Some(_) => store.clear(object, &key, mode(&host)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Gives what a new object in this directory shows: `inode_init_owner` and `mode_strip_sgid` of `fs/inode.c`.
    fn new_owner(&self, caller: &Caller<'_>, what: &Creation<'_>) -> Result<Override> {
        let credentials = caller.credentials;
        let parent = self.stat()?;
        let inherits = parent.mode & 0o2000 != 0;
        let gid = if inherits { parent.gid } else { credentials.gid.fs };
        let mut mode = mode_of(what) & 0o7777;
        match kind_of(what) {
            FileKind::Symlink => mode = 0o777,
            FileKind::Directory if inherits => mode = mode & 0o1777 | 0o2000,
            FileKind::Directory => mode &= 0o1777,
            _ if inherits
                && mode & 0o2010 == 0o2010
                && !credentials.in_group(gid)
                && !credentials.capable(Capabilities::FSETID) =>
            {
                mode &= !0o2000;
            }
            _ => {}
        }
        let kind = match what {
            Creation::CharDevice { rdev, .. } => FakeKind::CharDevice { major: major(*rdev), minor: minor(*rdev) },
            Creation::BlockDevice { rdev, .. } => FakeKind::BlockDevice { major: major(*rdev), minor: minor(*rdev) },
            _ => FakeKind::Same,
        };
        Ok(Override { uid: credentials.uid.fs, gid, mode, kind })
    }
}

/// Records what a new object shows.
fn record(store: &Store, object: BorrowedFd<'_>, mut shown: Override) -> Result<Key> {
    let host = statx(object)?;
    let key = Key::from_statx(&host);
    if kind(&host) != FileKind::Symlink {
        // Bits that the host took away are those that a default ACL of the directory does not give.
        shown.mode &= mode(&host) | !0o777;
    }
    if !matches!(kind(&host), FileKind::Regular | FileKind::Directory) {
        // Of what carries no attribute, the store may still know an older object with the same identity.
        store.clear(object, &key, mode(&host))?;
    }
    store.set(object, &key, mode(&host), &shown)?;
    Ok(key)
}

/// Makes an object on the host.
fn make(directory: BorrowedFd<'_>, name: &Name, what: &Creation<'_>, mode: u32) -> Result<()> {
    let (entry, name) = (name, name.as_bytes());
    let mode = Mode::from_raw_mode(mode & 0o7777);
    match what {
        Creation::Regular { .. } => rustix::fs::mknodat(directory, name, FileType::RegularFile, mode, 0),
        Creation::Directory { .. } => rustix::fs::mkdirat(directory, name, mode),
        Creation::Symlink { target } => rustix::fs::symlinkat(*target, directory, name),
        Creation::Fifo { .. } => rustix::fs::mknodat(directory, name, FileType::Fifo, mode, 0),
        Creation::Socket { .. } => rustix::fs::mknodat(directory, name, FileType::Socket, mode, 0),
        Creation::BoundSocket { bind, .. } => bind.bind(directory, entry, mode.as_raw_mode()),
        Creation::CharDevice { rdev, .. } => {
            rustix::fs::mknodat(directory, name, FileType::CharacterDevice, mode, *rdev)
        }
        Creation::BlockDevice { rdev, .. } => rustix::fs::mknodat(directory, name, FileType::BlockDevice, mode, *rdev),
    }
}

/// The mode that the host stores in place of a shown one: what the user needs is added, set-id and sticky bits, which
/// would mean something else there, are not stored.
pub(crate) fn real_mode(shown: u32, kind: FileKind) -> u32 {
    (shown & 0o777) | owner_bits(kind)
}

fn mode_of(what: &Creation<'_>) -> u32 {
    match what {
        Creation::Symlink { .. } => 0o777,
        Creation::Regular { mode }
        | Creation::Directory { mode }
        | Creation::Fifo { mode }
        | Creation::Socket { mode }
        | Creation::BoundSocket { mode, .. }
        | Creation::CharDevice { mode, .. }
        | Creation::BlockDevice { mode, .. } => *mode,
    }
}

fn kind_of(what: &Creation<'_>) -> FileKind {
    match what {
        Creation::Regular { .. } => FileKind::Regular,
        Creation::Directory { .. } => FileKind::Directory,
        Creation::Symlink { .. } => FileKind::Symlink,
        Creation::Fifo { .. } => FileKind::Fifo,
        Creation::Socket { .. } | Creation::BoundSocket { .. } => FileKind::Socket,
        Creation::CharDevice { .. } => FileKind::CharDevice,
        Creation::BlockDevice { .. } => FileKind::BlockDevice,
    }
}
