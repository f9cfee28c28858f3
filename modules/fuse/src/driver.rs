//! A FUSE server as the driver of a file system: one request, or a few, for each thing that is asked. Follows
//! `fs/fuse/dir.c`; knows nothing of how messages travel.

use std::sync::Arc;

use umvu_driver::{Driver, Found, Listing, NewNode, NodeId, OpenFile, Told, ROOT};
use umvu_interface::{
    Caller, Credentials, DirEntry, Errno, FileKind, FsStat, Name, OFlags, Parting, RemoveKind, RenameFlags, Result,
    SetAttr, XattrSet,
};

use crate::abi::{
    self, Changed, CreateIn, GetAttrIn, GetXattrIn, LinkIn, MkDirIn, MkNodIn, OpenIn, OpenOut, Rename2In, RenameIn,
    SetAttrIn, SetXattrIn, StatxIn, SyncFsIn, Wire,
};
use crate::abi::{Init, Opcode, OpenAnswer};
use crate::changes::changes;
use crate::connection::{Asker, Connection, End};
use crate::device::Device;
use crate::file::{Handle, ServedFile};
use crate::options::Options;
use crate::reply;

/// A mounted server.
pub struct Served {
    pub(crate) connection: Arc<Connection>,
    options: Options,
    device: Arc<Device>,
    parting: Arc<dyn Parting>,
}

impl Served {
    /// Makes the driver of a connection that has begun.
    pub fn new(connection: Arc<Connection>, options: Options, device: Arc<Device>, parting: Arc<dyn Parting>) -> Self {
        Self { connection, options, device, parting }
    }

    fn end(&self, how: End) {
        if !self.connection.is_over() {
            self.device.ends(&self.connection);
            self.connection.end(how, &*self.parting);
        }
    }

    #[cfg(test)]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Who asks, if the file system is for him.
    ///
    /// # Errors
    /// - `EACCES`: it is not.
    pub(crate) fn asker(&self, who: &Caller<'_>) -> Result<Asker> {
        if self.admits(who.credentials) {
            Ok(Asker::of(who))
        } else {
            Err(Errno::ACCESS)
        }
    }

    fn named(name: &Name) -> Vec<u8> {
        [name.as_bytes(), &[0]].concat()
    }

    fn make(&self, who: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        let asker = self.asker(who)?;
        let name = Self::named(name);
        let (opcode, kind, head, tail) = match what {
            NewNode::Directory { mode } => {
                let head = MkDirIn { mode: *mode, umask: who.umask }.bytes();
                (Opcode::MkDir, FileKind::Directory, head, vec![])
            }
            // The name is first, and the target is a second one.
            NewNode::Symlink { target } => (Opcode::Symlink, FileKind::Symlink, vec![], [*target, &[0]].concat()),
            NewNode::Regular { mode } => {
                let head = MkNodIn { mode: FileKind::Regular.bits() | mode, umask: who.umask, ..MkNodIn::default() };
                (Opcode::MkNod, FileKind::Regular, head.bytes(), vec![])
            }
            NewNode::Special { mode, rdev } => {
                let kind = FileKind::from_mode(*mode).ok_or(Errno::INVAL)?;
                let rdev = reply::encoded_device(*rdev);
                (Opcode::MkNod, kind, MkNodIn { mode: *mode, rdev, umask: who.umask, padding: 0 }.bytes(), vec![])
            }
        };
        let body = self.connection.ask(&asker, opcode, directory, &[&head, &name, &tail])?;
        self.counted(&body, reply::made(&body, kind))
    }

    /// A found object that makes no sense is given back.
    fn counted<T>(&self, body: &[u8], judged: Result<T>) -> Result<T> {
        if judged.is_err() {
            if let Some(entry) = body.get(..abi::EntryOut::SIZE).and_then(abi::EntryOut::whole) {
                if entry.nodeid != 0 {
                    self.connection.forget(entry.nodeid, 1);
                }
            }
        }
        judged
    }

    /// Opens a file or a directory: `fuse_file_open` of `fs/fuse/file.c`.
    pub(crate) fn open_handle(&self, asker: &Asker, node: NodeId, flags: OFlags, opcode: Opcode) -> Result<Handle> {
        let body = OpenIn { flags: flags.bits(), open_flags: 0 }.bytes();
        let opened = match self.connection.ask_if_known(asker, opcode, node, &[&body]) {
            Ok(body) => OpenOut::whole(&body).ok_or(Errno::IO)?,
            // A server without such a request keeps no state of open files.
            Err(Errno::NOSYS) => OpenOut { open_flags: OpenAnswer::KEEP_CACHE.bits(), ..OpenOut::default() },
            Err(errno) => return Err(errno),
        };
        Ok(self.handle(asker, node, flags, &opened))
    }

    fn handle(&self, asker: &Asker, node: NodeId, flags: OFlags, opened: &OpenOut) -> Handle {
        let answer = OpenAnswer::from_bits_truncate(opened.open_flags);
        Handle { connection: self.connection.clone(), asker: *asker, node, number: opened.fh, flags, answer }
    }

    fn file(&self, handle: Handle) -> Box<dyn OpenFile> {
        let max_read = self.options.max_read.unwrap_or(usize::MAX);
        Box::new(ServedFile::new(handle, max_read))
    }

    /// The flags that a server is told: those of the kernel's `fuse_open`, but that appending and writing alone are the
    /// view's matter, which reads what it writes a part of.
    fn flags_told(flags: OFlags) -> OFlags {
        let not_told = OFlags::CREATE | OFlags::EXCL | OFlags::NOCTTY | OFlags::TRUNC | OFlags::APPEND;
        let flags = flags & !(not_told | OFlags::CLOEXEC | OFlags::NOFOLLOW);
        if flags & OFlags::ACCMODE == OFlags::WRONLY {
            return (flags & !OFlags::ACCMODE) | OFlags::RDWR;
        }
        flags
    }
}

impl Driver for Served {
    fn lookup(&self, who: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let asker = self.asker(who)?;
        let body = self.connection.ask(&asker, Opcode::Lookup, directory, &[&Self::named(name)])?;
        match reply::looked_up(&body) {
            Err(Errno::NOENT) => Err(Errno::NOENT),
            judged => self.counted(&body, judged),
        }
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        self.connection.forget(node, lookups);
    }

    /// What is forgotten just before `DESTROY` would be heeded after it, by another thread of the server. At that all counts
    /// are zero: `forget` in libfuse's fuse_lowlevel.h.
    fn forgets_all(&self) {
        self.connection.forgets_all();
    }

    fn stat(&self, who: &Caller<'_>, node: NodeId) -> Result<Told> {
        let asker = self.asker(who)?;
        // A server that is older does not know the other one: `fuse_do_statx`.
        if self.connection.negotiated()?.minor >= 39 {
            const BASIC_AND_BTIME: u32 = 0xfff;
            let body = StatxIn { sx_mask: BASIC_AND_BTIME, ..StatxIn::default() }.bytes();
            match self.connection.ask_if_known(&asker, Opcode::Statx, node, &[&body]) {
                Err(Errno::NOSYS) => {}
                answer => return reply::told_more(&answer?),
            }
        }
        let body = GetAttrIn::default().bytes();
        reply::told(&self.connection.ask(&asker, Opcode::GetAttr, node, &[&body])?)
    }

    fn set_attr(&self, who: &Caller<'_>, node: NodeId, change: &SetAttr) -> Result<Told> {
        let asker = self.asker(who)?;
        let body = changes(change).bytes();
        reply::told(&self.connection.ask(&asker, Opcode::SetAttr, node, &[&body])?)
    }

    fn readlink(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        reply::target(self.connection.ask(&self.asker(who)?, Opcode::ReadLink, node, &[])?)
    }

    fn read_dir(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        self.list(who, node).map(|listing| listing.entries)
    }

    fn read_dir_found(&self, who: &Caller<'_>, node: NodeId) -> Result<Listing> {
        self.list(who, node)
    }

    fn open(&self, who: &Caller<'_>, node: NodeId, flags: OFlags) -> Result<Box<dyn OpenFile>> {
        let asker = self.asker(who)?;
        let told = Self::flags_told(flags);
        let handle = match self.open_handle(&asker, node, told, Opcode::Open) {
            // One who may write and not read.
            Err(Errno::ACCESS) if told & OFlags::ACCMODE != flags & OFlags::ACCMODE => {
                let told = (told & !OFlags::ACCMODE) | OFlags::WRONLY;
                self.open_handle(&asker, node, told, Opcode::Open)?
            }
            handle => handle?,
        };
        let number = handle.number;
        let file = self.file(handle);
        if flags.contains(OFlags::TRUNC) {
            let valid = Changed::SIZE | Changed::FH;
            let body = SetAttrIn { valid: valid.bits(), fh: number, ..SetAttrIn::default() }.bytes();
            reply::told(&self.connection.ask(&asker, Opcode::SetAttr, node, &[&body])?)?;
        }
        Ok(file)
    }

    fn create(&self, who: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        self.make(who, directory, name, what)
    }

    fn create_open(
        &self,
        who: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        mode: u32,
        flags: OFlags,
    ) -> Result<(Found, Box<dyn OpenFile>)> {
        let asker = self.asker(who)?;
        let told = Self::flags_told(flags);
        let mode = FileKind::Regular.bits() | mode;
        let flags_of_creat = (told | OFlags::CREATE | (flags & OFlags::EXCL)).bits();
        let body = CreateIn { flags: flags_of_creat, mode, umask: who.umask, open_flags: 0 }.bytes();
        match self.connection.ask_if_known(&asker, Opcode::Create, directory, &[&body, &Self::named(name)]) {
            Ok(body) => {
                let (found, opened) = self.counted(&body, reply::created(&body))?;
                let handle = self.handle(&asker, found.node, told, &opened);
                Ok((found, self.file(handle)))
            }
            Err(Errno::NOSYS) => {
                let found = self.make(who, directory, name, &NewNode::Regular { mode: mode & 0o7777 })?;
                match self.open(who, found.node, flags) {
                    Ok(file) => Ok((found, file)),
                    Err(errno) => {
                        self.forget(found.node, 1);
                        Err(errno)
                    }
                }
            }
            Err(errno) => Err(errno),
        }
    }

    fn link(&self, who: &Caller<'_>, node: NodeId, directory: NodeId, name: &Name) -> Result<Found> {
        let asker = self.asker(who)?;
        let head = LinkIn { oldnodeid: node }.bytes();
        let body = self.connection.ask(&asker, Opcode::Link, directory, &[&head, &Self::named(name)])?;
        self.counted(&body, reply::looked_up(&body).map_err(|_| Errno::IO))
    }

    fn remove(&self, who: &Caller<'_>, directory: NodeId, name: &Name, kind: RemoveKind) -> Result<()> {
        let opcode = match kind {
            RemoveKind::File => Opcode::Unlink,
            RemoveKind::Directory => Opcode::RmDir,
        };
        self.connection.ask(&self.asker(who)?, opcode, directory, &[&Self::named(name)]).map(drop)
    }

    fn rename(
        &self,
        who: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        new_directory: NodeId,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let asker = self.asker(who)?;
        let names = [Self::named(name), Self::named(new_name)].concat();
        if flags.is_empty() {
            let head = RenameIn { newdir: new_directory }.bytes();
            return self.connection.ask(&asker, Opcode::Rename, directory, &[&head, &names]).map(drop);
        }
        // `fuse_rename2` of fs/fuse/dir.c.
        if self.connection.negotiated()?.minor < 23 {
            return Err(Errno::INVAL);
        }
        let head = Rename2In { newdir: new_directory, flags: flags.bits(), padding: 0 }.bytes();
        match self.connection.ask_if_known(&asker, Opcode::Rename2, directory, &[&head, &names]) {
            Err(Errno::NOSYS) => Err(Errno::INVAL),
            answer => answer.map(drop),
        }
    }

    fn get_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let head = GetXattrIn { size: XATTR_MAX, padding: 0 }.bytes();
        let name = [name, &[0]].concat();
        let answer = self.connection.ask_if_known(&self.asker(who)?, Opcode::GetXattr, node, &[&head, &name]);
        of_xattr(answer)
    }

    fn list_xattr(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let head = GetXattrIn { size: XATTR_MAX, padding: 0 }.bytes();
        let answer = self.connection.ask_if_known(&self.asker(who)?, Opcode::ListXattr, node, &[&head]);
        reply::names(&of_xattr(answer)?)
    }

    fn set_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        /// The size of the structure before `FUSE_SETXATTR_EXT`.
        const SHORT: usize = 8;
        let asker = self.asker(who)?;
        let flags = match how {
            XattrSet::Any => 0,
            XattrSet::Create => 1,
            XattrSet::Replace => 2,
        };
        let size = u32::try_from(value.len()).map_err(|_| Errno::TOOBIG)?;
        let mut head = SetXattrIn { size, flags, ..SetXattrIn::default() }.bytes();
        if !self.connection.negotiated()?.flags.contains(Init::SETXATTR_EXT) {
            head.truncate(SHORT);
        }
        let name = [name, &[0]].concat();
        of_xattr(self.connection.ask_if_known(&asker, Opcode::SetXattr, node, &[&head, &name, value])).map(drop)
    }

    fn remove_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<()> {
        let name = [name, &[0]].concat();
        of_xattr(self.connection.ask_if_known(&self.asker(who)?, Opcode::RemoveXattr, node, &[&name])).map(drop)
    }

    fn statfs(&self, who: &Caller<'_>) -> Result<FsStat> {
        // Who is not admitted sees what it is, and no more: `fuse_statfs` of fs/fuse/inode.c.
        let Ok(asker) = self.asker(who) else { return Ok(FsStat { magic: abi::MAGIC, ..FsStat::default() }) };
        reply::numbers(&self.connection.ask(&asker, Opcode::StatFs, ROOT, &[])?)
    }

    fn sync(&self) -> Result<()> {
        // The kernel trusts no other server with sync(2): `fuse_sync_fs`.
        if !self.options.is_block || self.connection.is_over() {
            return Ok(());
        }
        let body = SyncFsIn::default().bytes();
        match self.connection.ask_if_known(&Asker::default(), Opcode::SyncFs, ROOT, &[&body]) {
            Err(Errno::NOSYS) => Ok(()),
            answer => answer.map(drop),
        }
    }

    fn checks_permissions(&self) -> bool {
        !self.options.default_permissions
    }

    /// `fuse_allow_current_process` of `fs/fuse/dir.c`.
    fn admits(&self, who: &Credentials) -> bool {
        let (user, group) = (self.options.user, self.options.group);
        let is_mounter = [who.uid.real, who.uid.effective, who.uid.saved].iter().all(|id| *id == user)
            && [who.gid.real, who.gid.effective, who.gid.saved].iter().all(|id| *id == group);
        is_mounter || self.options.allow_other
    }

    fn is_ready(&self) -> bool {
        self.connection.is_ready()
    }

    fn may_block(&self) -> bool {
        true
    }

    /// `fuse_umount_begin` of `fs/fuse/inode.c`.
    fn abort(&self) {
        self.end(End::AtOnce);
    }

    fn stamps_writes(&self) -> bool {
        !self.connection.negotiated().is_ok_and(|n| n.flags.contains(Init::WRITEBACK_CACHE))
    }

    fn unmount(&self) -> Result<()> {
        self.end(End::WithFarewell);
        Ok(())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end(End::WithFarewell);
    }
}

/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX` of linux/limits.h.
const XATTR_MAX: u32 = 65_536;

/// A server without extended attributes: `EOPNOTSUPP`, as `fs/fuse/xattr.c` has it.
fn of_xattr(answer: Result<Vec<u8>>) -> Result<Vec<u8>> {
    match answer {
        Err(Errno::NOSYS) => Err(Errno::OPNOTSUPP),
        // More than asked for, which is more than there can be.
        Ok(value) if value.len() > XATTR_MAX as usize => Err(Errno::IO),
        Err(Errno::RANGE) => Err(Errno::TOOBIG),
        answer => answer,
    }
}
