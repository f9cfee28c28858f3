//! One object of the tree: how it is found, described, opened and listed. What changes it stands in the other files.

use std::any::Any;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags, RawDir, ResolveFlags, Statx};
use umvu_interface::{
    Acl, Caller, Capabilities, Creation, DirEntry, Errno, FileKind, Filesystem, Inode, InodeRef, Name, Opened,
    RemoveKind, RenameFlags, Result, SetAttr, Stat, XattrSet,
};
use umvu_ownership::FakeKind;
use umvu_sys::file;

use crate::filesystem::{kind, mode, statx};
use crate::set_id::{lost_by_writing, CAPABILITIES, KEPT_CAPABILITY};
use crate::{device, procfd, HostFs};

/// How long a path may be that the kernel is asked for, its end included: linux/limits.h.
const PATH_MAX: usize = 4096;

/// How often a path is looked up again when the kernel lost a race against a rename.
const TRIES: u32 = 4;

/// Room for entries of a directory in one call, in bytes.
const ENTRIES: usize = 32 * 1024;

/// An object of a [`HostFs`], held by a descriptor.
pub struct HostInode {
    fs: Arc<HostFs>,
    fd: Handle,
    /// The type on the host, which never changes.
    kind: OnceLock<FileKind>,
    /// Device and number as shown, which never change either.
    id: OnceLock<(u64, u64)>,
}

enum Handle {
    /// The root of the tree: its descriptor is the tree's.
    Root,
    Own(OwnedFd),
}

impl HostInode {
    pub(crate) fn root(fs: Arc<HostFs>) -> Self {
        Self { fs, fd: Handle::Root, kind: OnceLock::from(FileKind::Directory), id: OnceLock::new() }
    }

    pub(crate) fn new(fs: Arc<HostFs>, fd: OwnedFd) -> Self {
        Self { fs, fd: Handle::Own(fd), kind: OnceLock::new(), id: OnceLock::new() }
    }

    /// Gives the descriptor, mostly an `O_PATH` one, that holds the object.
    pub fn fd(&self) -> BorrowedFd<'_> {
        match &self.fd {
            Handle::Root => self.fs.root_fd(),
            Handle::Own(fd) => fd.as_fd(),
        }
    }

    pub(crate) fn fs(&self) -> &Arc<HostFs> {
        &self.fs
    }

    /// Makes an inode of a descriptor of the same tree.
    pub(crate) fn sibling(&self, fd: OwnedFd) -> InodeRef {
        Arc::new(Self::new(Arc::clone(&self.fs), fd))
    }

    /// Asks the host about the object.
    pub(crate) fn host(&self) -> Result<Statx> {
        let host = statx(self.fd())?;
        let _ = self.kind.set(kind(&host));
        let _ = self.id.set(self.fs.shown_id(&host));
        Ok(host)
    }

    /// Gives the type that the object has on the host.
    pub(crate) fn host_kind(&self) -> Result<FileKind> {
        match self.kind.get() {
            Some(kind) => Ok(*kind),
            None => self.host().map(|host| kind(&host)),
        }
    }

    /// Does what `operation` does and, where the host's mode alone forbids it, opens the object to its owner and
    /// tries once more.
    pub(crate) fn permitted<T>(&self, operation: impl Fn() -> Result<T>) -> Result<T> {
        match operation() {
            Err(Errno::ACCESS) if self.open_to_owner() => operation(),
            done => done,
        }
    }

    /// Gives the real mode the bits that this user needs, where a store keeps the mode shown. With a store, the view
    /// has judged the mode shown before it calls. Gives whether something was changed.
    pub(crate) fn open_to_owner(&self) -> bool {
        let store = self.fs.store();
        let Some(store) = &*store else { return false };
        let Ok(host) = self.host() else { return false };
        let needed = owner_bits(kind(&host));
        if host.stx_uid != rustix::process::geteuid().as_raw() || mode(&host) & needed == needed {
            return false;
        }
        // First the record of what is shown: no moment shows the bits that are added.
        let recorded = self.fs.update(store, self.fd(), &host, |shown| shown);
        recorded.is_ok() && file::change_mode(self.fd(), (mode(&host) | needed) & 0o7777).is_ok()
    }

    /// Opens the object again with other flags.
    pub(crate) fn reopen(&self, flags: OFlags) -> Result<OwnedFd> {
        self.permitted(|| procfd::reopen(self.fd(), flags))
    }
}

/// The bits of the real mode without which this user could not reach its own objects.
pub(crate) fn owner_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::Directory => 0o700,
        FileKind::Symlink => 0,
        _ => 0o600,
    }
}

impl Inode for HostInode {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        Arc::clone(&self.fs) as Arc<dyn Filesystem>
    }

    fn stat(&self) -> Result<Stat> {
        self.fs.shown(self.fd(), &self.host()?)
    }

    fn kind(&self) -> Result<FileKind> {
        match self.host_kind()? {
            FileKind::Regular if self.fs.has_overrides() => Ok(self.stat()?.kind()),
            kind => Ok(kind),
        }
    }

    fn id(&self) -> Result<(u64, u64)> {
        match self.id.get() {
            Some(id) => Ok(*id),
            // One that asks for the number will mostly ask for the rest, too.
            None => self.host().map(|host| self.fs.shown_id(&host)),
        }
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        let fd = self.permitted(|| procfd::open_path(self.fd(), name.as_bytes()))?;
        Ok(self.sibling(fd))
    }

    fn lookup_path(&self, path: &[u8]) -> Result<InodeRef> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        if path.len() >= PATH_MAX {
            // The kernel takes it in steps only.
            return Err(Errno::LOOP);
        }
        for _ in 0..TRIES {
            match rustix::fs::openat2(self.fd(), path, flags, Mode::empty(), resolve) {
                Ok(fd) => return Ok(self.sibling(fd)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                // One of the directories may have to be opened to its owner: only the walk knows which.
                Err(Errno::ACCESS) if self.fs.store().is_some() => return Err(Errno::LOOP),
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::LOOP)
    }

    fn parent(&self) -> Result<InodeRef> {
        if matches!(self.fd, Handle::Root) || self.fs.is_root(&self.host()?) {
            return Ok(self.fs.root_inode());
        }
        let above = self.permitted(|| procfd::open_path(self.fd(), b".."))?;
        // A directory that the host has moved out of the tree must not lead out of it.
        if !self.fs.root_is_top() {
            self.fs.below_root(&umvu_interface::path_of_open(above.as_fd())?)?;
        }
        Ok(self.sibling(above))
    }

    fn path(&self) -> Result<Vec<u8>> {
        if matches!(self.fd, Handle::Root) {
            return Ok(Vec::new());
        }
        let host_path = umvu_interface::path_of_open(self.fd())?;
        let path = self.fs.below_root(&host_path)?;
        // A living object may have such a name, too.
        if path.ends_with(b" (deleted)") && !self.is_at(&path) {
            return Err(Errno::NOENT);
        }
        Ok(path)
    }

    fn open(&self, caller: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        let mut lost = 0;
        if self.host_kind()? == FileKind::Regular && self.fs.has_overrides() {
            let host = self.host()?;
            // What stands for a device is empty, which saves most files the look into the store.
            if host.stx_size == 0 || !caller.credentials.capable(Capabilities::FSETID) {
                if let Some(found) = self.fs.override_of(self.fd(), &host)? {
                    if found.kind != FakeKind::Same {
                        return device::open(found.kind, flags).map(Opened::File);
                    }
                    lost = lost_by_writing(caller, flags, &found);
                }
            }
        }
        let writes = flags & OFlags::ACCMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC);
        if writes && self.host_kind()? == FileKind::Regular && self.fs.store().is_some() {
            if lost == 0 {
                self.fs.unwatch_writes(self.fd())?;
            }
            if file::get_xattr(self.fd(), KEPT_CAPABILITY, &mut []).is_ok() {
                lost |= CAPABILITIES;
            }
        }
        let opened = self.reopen(flags - (OFlags::CREATE | OFlags::EXCL))?;
        self.fs.watch_writes(opened.as_fd(), lost)?;
        Ok(Opened::File(opened))
    }

    fn create(&self, caller: &Caller<'_>, name: &Name, what: &Creation<'_>) -> Result<InodeRef> {
        self.create_entry(caller, name, what)
    }

    fn create_open(&self, caller: &Caller<'_>, name: &Name, mode: u32, flags: OFlags) -> Result<(InodeRef, Opened)> {
        let (inode, fd) = self.create_file(caller, name, mode, flags)?;
        Ok((inode, Opened::File(fd)))
    }

    fn tmpfile(&self, caller: &Caller<'_>, mode: u32, flags: OFlags) -> Result<Opened> {
        self.unnamed_file(caller, mode, flags).map(Opened::File)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match rustix::fs::readlinkat(self.fd(), c"", Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // With an empty path this is what the kernel says of anything but a link: fs/stat.c, do_readlinkat.
            Err(Errno::NOENT) => Err(Errno::INVAL),
            Err(errno) => Err(errno),
        }
    }

    fn link(&self, caller: &Caller<'_>, name: &Name, target: &InodeRef) -> Result<()> {
        self.link_entry(caller, name, target)
    }

    fn remove(&self, _caller: &Caller<'_>, name: &Name, kind: RemoveKind) -> Result<()> {
        self.remove_entry(name, kind)
    }

    fn rename(
        &self,
        _caller: &Caller<'_>,
        name: &Name,
        new_directory: &InodeRef,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        self.rename_entry(name, new_directory, new_name, flags)
    }

    fn set_attr(&self, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        self.change(caller, change)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.read_attribute(name)
    }

    fn set_xattr(&self, caller: &Caller<'_>, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        self.write_attribute(caller, name, value, how)
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        self.list_attributes()
    }

    fn remove_xattr(&self, caller: &Caller<'_>, name: &[u8]) -> Result<()> {
        self.remove_attribute(caller, name)
    }

    fn access_acl(&self) -> Result<Option<Acl>> {
        self.judged_acl()
    }

    /// Where a regular file may stand for a faked device node, regular files are listed without a type: to know it,
    /// each would have to be looked up, and programs that must know then call stat.
    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        let directory = self.reopen(OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut buffer = [MaybeUninit::uninit(); ENTRIES];
        let mut listing = RawDir::new(directory, &mut buffer);
        let mut entries = Vec::new();
        let uncertain = self.fs.ownership().is_some_and(|store| store.may_have_other_types());
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let dirent_type = match FileKind::from_mode(entry.file_type().as_raw_mode()) {
                    Some(FileKind::Regular) if uncertain => 0,
                    Some(kind) => kind.dirent_type(),
                    None => 0,
                };
                entries.push(DirEntry { name: name.into(), ino: entry.ino(), dirent_type });
            }
        }
        Ok(entries)
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }

    fn kernel_checks(&self) -> bool {
        self.fs.store().is_none()
    }
}

impl HostInode {
    /// Whether `path`, from the root, is this very object.
    fn is_at(&self, path: &[u8]) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let there = rustix::fs::openat2(self.fs.root_fd(), path, flags, Mode::empty(), resolve);
        match (there.and_then(|there| statx(there.as_fd()).map(|host| self.fs.shown_id(&host))), self.id()) {
            (Ok(there), Ok(here)) => there == here,
            _ => false,
        }
    }
}
