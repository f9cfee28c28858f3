//! ext2, ext3 and ext4, read and written by the library rsext4: what it does is behind one lock, as it is made to be.
//! What it does not give is read from the image beside it: parts of seconds, access control lists as attributes show
//! them.

mod acl;
mod device;
mod error;
mod file;
mod mend;
mod names;
mod raw;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rsext4::{
    DeviceNumber, DirectoryCursor, Ext4, Ext4Error, Ext4Timestamp, FileName, FilePermissions, InodeInfo,
    InodeMetadataUpdate, InodeNumber, MmpIdentity, MountOptions, MountServices, MutationContext, NoopObserver,
    RenameOptions, SpecialInodeKind, XattrSetMode,
};
use umvu_driver::{Driver, Found, NewNode, NodeId, OpenFile, Told, FOREVER};
use umvu_interface::{
    Caller, DirEntry, Errno, FileKind, FsStat, Name, OFlags, RemoveKind, RenameFlags, Result, SetAttr, SetTime,
    Timestamp, XattrSet,
};

use crate::image::Image;

use self::names::{attribute_name, dirent_type, inode_of, node_of, space_of};
pub use self::raw::Superblock;
use self::state::State;

/// What statfs(2) says.
const MAGIC: u64 = 0xef53;
const S_ISGID: u16 = 0o2000;

/// Whether an image is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is; the journal is replayed first.
    ReadWrite,
    /// It is not, but for a journal that must be replayed.
    ReadOnly,
    /// Not at all: the journal stays as it is (`noload`).
    NoReplay,
}

/// An ext2, ext3 or ext4. A node is the number of its inode, the root excepted.
pub struct Ext {
    me: Weak<Ext>,
    image: Arc<Image>,
    is_read_only: bool,
    superblock: Superblock,
    failed: device::LastErrno,
    state: Mutex<State>,
}

impl Ext {
    /// Opens an image.
    ///
    /// # Errors
    /// An errno, and why. The image is as it was.
    pub fn open(image: Arc<Image>, mode: Mode) -> core::result::Result<Arc<Self>, (Errno, String)> {
        let superblock = Superblock::read(&image).map_err(|errno| (errno, "not an ext2, ext3 or ext4".to_owned()))?;
        if let Some(why) = superblock.unsupported(mode) {
            return Err((Errno::OPNOTSUPP, why));
        }
        let failed = device::LastErrno::default();
        let now = device::Now::default();
        let device = device::Device { image: image.clone(), failed: failed.clone() };
        let services = MountServices::new(now.clone(), device::Random, NoopObserver)
            .with_mmp(device::Wait, MmpIdentity::from_names(b"umvu", image.name().as_bytes()));
        let options = match mode {
            Mode::ReadWrite => MountOptions::read_write(),
            Mode::ReadOnly => MountOptions { readonly: true, ..MountOptions::read_write() },
            Mode::NoReplay => MountOptions::read_only_no_journal_replay(),
        };
        let ext = Ext4::mount(device, services, options).map_err(|error| {
            let errno = failed.lock().take().unwrap_or_else(|| error::errno(error));
            (errno, error::why(error))
        })?;
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            image,
            is_read_only: mode != Mode::ReadWrite,
            superblock,
            failed,
            state: Mutex::new(State::new(ext, now)),
        }))
    }

    /// Calls rsext4.
    fn with<T>(&self, call: impl FnOnce(&mut State) -> core::result::Result<T, Ext4Error>) -> Result<T> {
        let mut state = self.state.lock();
        *self.failed.lock() = None;
        state.now.begin();
        call(&mut state).map_err(|error| self.errno(error))
    }

    /// Calls rsext4 to change something of some inodes.
    fn change<T>(
        &self,
        inodes: &[InodeNumber],
        call: impl FnOnce(&mut State) -> core::result::Result<T, Ext4Error>,
    ) -> Result<T> {
        self.with(|state| {
            state.remember(&self.image, &self.superblock, inodes);
            call(state)
        })
    }

    fn errno(&self, error: Ext4Error) -> Errno {
        let errno = error::errno(error);
        if matches!(errno, Errno::UCLEAN | Errno::IO | Errno::BUSY) {
            self.image.log(&error::why(error));
        }
        match self.failed.lock().take() {
            Some(failed) if errno == Errno::IO => failed,
            _ => errno,
        }
    }

    fn told(&self, state: &mut State, info: &InodeInfo) -> Told {
        Told { stat: state.stat(&self.image, &self.superblock, info), valid: FOREVER }
    }

    fn found(&self, state: &mut State, info: &InodeInfo) -> Found {
        state.looked_up(info.number);
        let told = self.told(state, info);
        Found { node: node_of(info.number), generation: 0, told, name_valid: FOREVER }
    }

    /// An open file of an inode is gone.
    fn closed(&self, inode: InodeNumber) {
        let result = self.with(|state| state.closed(inode));
        if let Err(errno) = result {
            self.image.log(&format_args!("inode {} cannot be freed: {errno}", inode.raw()));
        }
    }

    /// Who makes something in a directory, and what the directory makes of it: `inode_init_owner` of `fs/inode.c`.
    fn context(
        &self,
        state: &mut State,
        who: &Caller<'_>,
        directory: InodeNumber,
    ) -> core::result::Result<(MutationContext, u16), Ext4Error> {
        let parent = state.ext.inode(directory)?;
        let is_inherited = parent.mode & S_ISGID != 0;
        let gid = if is_inherited { parent.gid } else { who.credentials.gid.fs };
        let context = MutationContext::new(who.credentials.uid.fs, gid, 0, 0);
        Ok((context, if is_inherited { S_ISGID } else { 0 }))
    }
}

fn name_of(name: &Name) -> core::result::Result<FileName<'_>, Ext4Error> {
    FileName::new(name.as_bytes())
}

fn permissions(mode: u32) -> core::result::Result<FilePermissions, Ext4Error> {
    FilePermissions::new(u16::try_from(mode & 0o7777).unwrap_or(0))
}

fn time(set: SetTime, now: Timestamp) -> Option<Ext4Timestamp> {
    let Timestamp { seconds, nanoseconds } = match set {
        SetTime::Keep => return None,
        SetTime::Now => now,
        SetTime::At(time) => time,
    };
    // What 34 bits of seconds hold: 1901 to 2446.
    Some(Ext4Timestamp::new(seconds.clamp(-(1 << 31), (1 << 34) - (1 << 31) - 1), nanoseconds))
}

impl Driver for Ext {
    fn lookup(&self, _: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let directory = inode_of(directory)?;
        self.with(|state| {
            if !state.ext.inode(directory)?.is_directory() {
                return Err(Ext4Error::not_dir());
            }
            let info = state.ext.lookup_child(directory, name_of(name)?)?.ok_or_else(Ext4Error::not_found)?;
            Ok(self.found(state, &info))
        })
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        let Ok(inode) = inode_of(node) else { return };
        let result = self.with(|state| state.forget(inode, lookups));
        if let Err(errno) = result {
            self.image.log(&format_args!("inode {} cannot be freed: {errno}", inode.raw()));
        }
    }

    fn stat(&self, _: &Caller<'_>, node: NodeId) -> Result<Told> {
        let inode = inode_of(node)?;
        self.with(|state| {
            let info = state.ext.inode(inode)?;
            Ok(self.told(state, &info))
        })
    }

    fn set_attr(&self, _: &Caller<'_>, node: NodeId, change: &SetAttr) -> Result<Told> {
        let inode = inode_of(node)?;
        self.change(&[inode], |state| {
            if let Some(size) = change.size {
                state.truncate(inode, size)?;
            }
            let before = state.ext.inode(inode)?;
            if change.uid.is_some() || change.gid.is_some() {
                let owner = (change.uid.unwrap_or(before.uid), change.gid.unwrap_or(before.gid));
                let update = InodeMetadataUpdate { owner: Some(owner), ..Default::default() };
                state.ext.update_inode_metadata(inode, update)?;
            }
            // What a change of the owner does to the bits is said by who asks, and was undone by rsext4.
            let mode = change.mode.unwrap_or_else(|| u32::from(before.mode));
            let update = InodeMetadataUpdate {
                permissions: Some(permissions(mode)?),
                atime: time(change.atime, state.now.of_call()),
                mtime: time(change.mtime, state.now.of_call()),
                ..Default::default()
            };
            let only_size = SetAttr { size: None, ..*change }.is_empty() && change.size.is_some();
            let info = if only_size { before } else { state.ext.update_inode_metadata(inode, update)? };
            state.changed(inode, false);
            state.set_times(inode, update.atime, update.mtime);
            Ok(self.told(state, &info))
        })
    }

    fn readlink(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        let inode = inode_of(node)?;
        self.with(|state| {
            let info = state.ext.inode(inode)?;
            if info.mode & 0o170_000 != 0o120_000 {
                return Err(Ext4Error::invalid_input());
            }
            let size = usize::try_from(info.size).ok().filter(|size| *size <= 4096).ok_or_else(Ext4Error::corrupted)?;
            // rsext4 0.9.2 tells the lower half of the size, and takes memory for all of it. What it has not written yet is
            // on the storage as it was before.
            let is_too_large = || self.superblock.size_high(&self.image, inode.raw()) != Ok(0);
            if is_too_large() {
                state.ext.sync()?;
                if is_too_large() {
                    return Err(Ext4Error::corrupted());
                }
            }
            let mut target = vec![0; size];
            let count = state.ext.read_inode(inode, 0, &mut target)?;
            target.truncate(count);
            Ok(target)
        })
    }

    fn read_dir(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        /// More entries than any directory that is not large_dir has.
        const MOST: usize = 20_000_000;
        let inode = inode_of(node)?;
        self.with(|state| {
            let mut reader = state.ext.open_directory_reader(inode)?;
            let mut cursor = DirectoryCursor::Start;
            let mut entries = Vec::new();
            loop {
                let some = state.ext.read_directory_with_reader(&mut reader, cursor, 4096)?;
                let Some(last) = some.last() else { return Ok(entries) };
                cursor = last.next_cursor;
                entries.extend(some.into_iter().filter(|entry| entry.name != b"." && entry.name != b"..").map(
                    |entry| DirEntry {
                        name: entry.name.into(),
                        ino: entry.inode.raw().into(),
                        dirent_type: dirent_type(entry.file_type),
                    },
                ));
                if entries.len() > MOST {
                    return Err(Ext4Error::corrupted());
                }
            }
        })
    }

    fn open(&self, _: &Caller<'_>, node: NodeId, _: OFlags) -> Result<Box<dyn OpenFile>> {
        let inode = inode_of(node)?;
        let me = self.me.upgrade().ok_or(Errno::IO)?;
        self.with(|state| {
            match FileKind::from_mode(state.ext.inode(inode)?.mode.into()) {
                Some(FileKind::Regular) => state.opened(inode),
                Some(FileKind::Directory) => return Err(Ext4Error::is_dir()),
                _ => return Err(Ext4Error::invalid_input()),
            }
            Ok(())
        })?;
        Ok(Box::new(file::File::new(me, inode)))
    }

    fn create(&self, who: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        let directory = inode_of(directory)?;
        self.change(&[directory], |state| {
            let (context, inherited) = self.context(state, who, directory)?;
            let name = name_of(name)?;
            let info = match *what {
                NewNode::Regular { mode } => {
                    state.ext.create_regular_file(context, directory, name, permissions(mode)?)?
                }
                NewNode::Directory { mode } => {
                    let mode = permissions(mode | u32::from(inherited))?;
                    state.ext.create_directory(context, directory, name, mode)?
                }
                NewNode::Symlink { target } => state.ext.create_symlink(context, directory, name, target)?,
                NewNode::Special { mode, rdev } => {
                    let device = || DeviceNumber::new(rustix::fs::major(rdev), rustix::fs::minor(rdev));
                    let kind = match FileKind::from_mode(mode) {
                        Some(FileKind::Fifo) => SpecialInodeKind::Fifo,
                        Some(FileKind::Socket) => SpecialInodeKind::Socket,
                        Some(FileKind::CharDevice) => SpecialInodeKind::CharacterDevice(device()?),
                        Some(FileKind::BlockDevice) => SpecialInodeKind::BlockDevice(device()?),
                        _ => return Err(Ext4Error::invalid_input()),
                    };
                    state.ext.create_special_inode(context, directory, name, permissions(mode)?, kind)?
                }
            };
            state.made(info.number);
            state.changed_entries(directory);
            Ok(self.found(state, &info))
        })
    }

    fn link(&self, _: &Caller<'_>, node: NodeId, directory: NodeId, name: &Name) -> Result<Found> {
        let (inode, directory) = (inode_of(node)?, inode_of(directory)?);
        self.change(&[inode, directory], |state| {
            let info = state.ext.hard_link(inode, directory, name_of(name)?)?;
            state.changed(inode, false);
            state.changed_entries(directory);
            Ok(self.found(state, &info))
        })
    }

    fn remove(&self, _: &Caller<'_>, directory: NodeId, name: &Name, kind: RemoveKind) -> Result<()> {
        let directory = inode_of(directory)?;
        self.with(|state| {
            let name = name_of(name)?;
            let info = state.ext.lookup_child(directory, name)?.ok_or_else(Ext4Error::not_found)?;
            state.remember(&self.image, &self.superblock, &[directory, info.number]);
            let outcome = match (kind, info.is_directory()) {
                (RemoveKind::File, true) => return Err(Ext4Error::is_dir()),
                (RemoveKind::Directory, false) => return Err(Ext4Error::not_dir()),
                (RemoveKind::File, false) => state.without_device(Some(info), |ext| ext.unlink(directory, name))?,
                (RemoveKind::Directory, true) => state.ext.remove_empty_directory(directory, name)?,
            };
            state.changed(info.number, false);
            state.changed_entries(directory);
            state.unlinked(outcome)
        })
    }

    fn rename(
        &self,
        _: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        new_directory: NodeId,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let (directory, new_directory) = (inode_of(directory)?, inode_of(new_directory)?);
        let options = match flags {
            RenameFlags::NOREPLACE => RenameOptions::NO_REPLACE,
            RenameFlags::EXCHANGE => RenameOptions::EXCHANGE,
            RenameFlags::WHITEOUT => RenameOptions::WHITEOUT,
            flags if flags.is_empty() => RenameOptions::REPLACE,
            flags if flags == RenameFlags::NOREPLACE | RenameFlags::WHITEOUT => RenameOptions::WHITEOUT_NO_REPLACE,
            _ => return Err(Errno::INVAL),
        };
        self.with(|state| {
            let (name, new_name) = (name_of(name)?, name_of(new_name)?);
            let moved = state.ext.lookup_child(directory, name)?.ok_or_else(Ext4Error::not_found)?;
            state.remember(&self.image, &self.superblock, &[directory, new_directory, moved.number]);
            let mut replaced = None;
            if options != RenameOptions::EXCHANGE {
                replaced = state.ext.lookup_child(new_directory, new_name)?.filter(|info| info.number != moved.number);
                // fs/namei.c, may_delete
                match (moved.is_directory(), replaced.map(|info| info.is_directory())) {
                    (true, Some(false)) => return Err(Ext4Error::not_dir()),
                    (false, Some(true)) => return Err(Ext4Error::is_dir()),
                    _ => {}
                }
            }
            let rename = |ext: &mut state::Mounted| ext.rename(directory, name, new_directory, new_name, options);
            let outcome = state.without_device(replaced, rename)?;
            state.changed(moved.number, false);
            state.changed_entries(directory);
            state.changed_entries(new_directory);
            match outcome.replaced {
                Some(replaced) => state.unlinked(replaced),
                None => Ok(()),
            }
        })
    }

    fn has_acls(&self) -> bool {
        true
    }

    fn get_xattr(&self, _: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let inode = inode_of(node)?;
        let (space, rest) = space_of(name).ok_or(Errno::OPNOTSUPP)?;
        let value = self.with(|state| match state.ext.get_xattr(inode, space, rest) {
            Err(error) if error.kind() == rsext4::Ext4ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        })?;
        let value = value.ok_or(Errno::NODATA)?;
        if names::is_acl(space) {
            return acl::shown(&value).ok_or_else(|| self.image.damaged("an access control list that is none"));
        }
        Ok(value)
    }

    fn list_xattr(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let inode = inode_of(node)?;
        let names = self.with(|state| state.ext.list_xattrs(inode))?;
        Ok(names.iter().filter_map(attribute_name).collect())
    }

    fn set_xattr(&self, _: &Caller<'_>, node: NodeId, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let inode = inode_of(node)?;
        let (space, rest) = space_of(name).ok_or(Errno::OPNOTSUPP)?;
        let how = match how {
            XattrSet::Any => XattrSetMode::Upsert,
            XattrSet::Create => XattrSetMode::Create,
            XattrSet::Replace => XattrSetMode::Replace,
        };
        let list = if names::is_acl(space) { Some(acl::stored(value)?) } else { None };
        let stored = list.as_ref().map_or(value, |(stored, _)| stored);
        self.change(&[inode], |state| {
            state.ext.set_xattr(inode, space, rest, stored, how)?;
            if let (Some((_, bits)), rsext4::XattrNamespace::PosixAclAccess) = (&list, space) {
                // fs/posix_acl.c, posix_acl_update_mode
                let mode = u32::from(state.ext.inode(inode)?.mode);
                let update = InodeMetadataUpdate {
                    permissions: Some(permissions((mode & 0o7000) | bits)?),
                    ..Default::default()
                };
                state.ext.update_inode_metadata(inode, update)?;
            }
            state.changed(inode, false);
            Ok(())
        })
        .map_err(no_attribute)
    }

    fn remove_xattr(&self, _: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<()> {
        let inode = inode_of(node)?;
        let (space, rest) = space_of(name).ok_or(Errno::OPNOTSUPP)?;
        self.change(&[inode], |state| {
            state.ext.remove_xattr(inode, space, rest)?;
            state.changed(inode, false);
            Ok(())
        })
        .map_err(no_attribute)
    }

    fn statfs(&self, _: &Caller<'_>) -> Result<FsStat> {
        let numbers = self.with(|state| Ok(state.ext.statfs()))?;
        let half = |at: usize| {
            let bytes = self.superblock.uuid.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            i32::from_le_bytes(bytes.unwrap_or_default())
        };
        Ok(FsStat {
            magic: MAGIC,
            block_size: numbers.block_size,
            fragment_size: numbers.block_size,
            blocks: numbers.total_blocks.saturating_sub(self.superblock.overhead),
            blocks_free: numbers.free_blocks,
            blocks_available: numbers.free_blocks.saturating_sub(self.superblock.reserved),
            files: numbers.total_inodes.into(),
            files_free: numbers.free_inodes.into(),
            fsid: [half(0) ^ half(8), half(4) ^ half(12)],
            name_max: 255,
        })
    }

    fn sync(&self) -> Result<()> {
        self.with(|state| state.ext.sync())
    }

    fn unmount(&self) -> Result<()> {
        let directories = self.with(|state| {
            state.reap_all()?;
            state.ext.unmount()?;
            Ok(state.take_directories())
        })?;
        if !directories.is_empty() {
            self.image.begin_call();
            mend::count_blocks(&self.image, &self.superblock, &directories)?;
            mend::mark_bitmap_ends(&self.image, &self.superblock)?;
        }
        self.image.flush()
    }
}

/// What rsext4 calls not found is an attribute.
fn no_attribute(errno: Errno) -> Errno {
    if errno == Errno::NOENT {
        return Errno::NODATA;
    }
    errno
}
