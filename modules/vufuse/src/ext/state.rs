//! What is behind the lock: rsext4, which inodes are in use, and the parts of seconds that it does not tell.

use std::collections::{HashMap, HashSet};

use rsext4::{
    DeviceNumber, DirectoryEntryType, Ext4, Ext4Error, Ext4Timestamp, FileExtentState, FileExtentTarget,
    FilePermissions, InodeFlags, InodeInfo, InodeMetadataUpdate, InodeNumber, MountedServices, NoopObserver,
    UnlinkOutcome, XattrName, XattrSetMode,
};
use umvu_interface::{Stat, Timestamp};

use crate::image::Image;

use super::device::{Device, Now, Random, Wait};
use super::raw::{Superblock, Times};

/// A mounted file system.
pub type Mounted = Ext4<Device, MountedServices<Random, NoopObserver, Wait>>;

/// As many inodes have their times remembered.
const REMEMBERED: usize = 1 << 16;

type Outcome<T> = core::result::Result<T, Ext4Error>;

/// The state.
pub struct State {
    pub ext: Mounted,
    /// The time of the call.
    pub now: Now,
    /// Lookups that were not taken back, and open files.
    used: HashMap<InodeNumber, (u64, u64)>,
    /// Without a name, and in use.
    nameless: HashSet<InodeNumber>,
    /// Times of inodes that were changed, and are on the storage as they were before.
    times: HashMap<InodeNumber, Times>,
    /// Directories whose entries were changed.
    directories: HashSet<u32>,
}

impl State {
    pub fn new(ext: Mounted, now: Now) -> Self {
        Self {
            ext,
            now,
            used: HashMap::new(),
            nameless: HashSet::new(),
            times: HashMap::new(),
            directories: HashSet::new(),
        }
    }

    pub fn looked_up(&mut self, inode: InodeNumber) {
        self.used.entry(inode).or_default().0 += 1;
    }

    pub fn opened(&mut self, inode: InodeNumber) {
        self.used.entry(inode).or_default().1 += 1;
    }

    pub fn forget(&mut self, inode: InodeNumber, lookups: u64) -> Outcome<()> {
        if let Some((known, _)) = self.used.get_mut(&inode) {
            *known = known.saturating_sub(lookups);
        }
        self.let_go(inode)
    }

    pub fn closed(&mut self, inode: InodeNumber) -> Outcome<()> {
        if let Some((_, open)) = self.used.get_mut(&inode) {
            *open = open.saturating_sub(1);
        }
        self.let_go(inode)
    }

    /// An inode lost a name.
    pub fn unlinked(&mut self, outcome: UnlinkOutcome) -> Outcome<()> {
        if outcome.requires_reap() {
            self.nameless.insert(outcome.inode);
            return self.let_go(outcome.inode);
        }
        Ok(())
    }

    fn let_go(&mut self, inode: InodeNumber) -> Outcome<()> {
        if self.used.get(&inode).is_some_and(|used| *used != (0, 0)) {
            return Ok(());
        }
        self.used.remove(&inode);
        if self.nameless.remove(&inode) {
            self.times.remove(&inode);
            self.reap(inode)?;
        }
        Ok(())
    }

    /// Frees what has no name, whoever may still use it.
    pub fn reap_all(&mut self) -> Outcome<()> {
        for inode in std::mem::take(&mut self.nameless) {
            self.reap(inode)?;
        }
        Ok(())
    }

    fn reap(&mut self, inode: InodeNumber) -> Outcome<()> {
        self.take_outer_attributes(inode)?;
        self.ext.reap_unlinked_inode(inode)
    }

    /// Changes the content of a file. What that does to its set-id bits is the view's business, and rsext4 takes them
    /// away: they are given back.
    pub fn change_content<T>(
        &mut self,
        inode: InodeNumber,
        change: impl FnOnce(&mut Mounted) -> Outcome<T>,
    ) -> Outcome<T> {
        const SET_ID: u16 = 0o6000;
        let before = self.ext.inode(inode)?.mode;
        let result = change(&mut self.ext);
        if before & SET_ID != 0 && self.ext.inode(inode)?.mode != before {
            let permissions = Some(FilePermissions::new(before & 0o7777)?);
            self.ext.update_inode_metadata(inode, InodeMetadataUpdate { permissions, ..Default::default() })?;
        }
        self.changed(inode, true);
        result
    }

    /// Changes the size of a file.
    pub fn truncate(&mut self, inode: InodeNumber, size: u64) -> Outcome<()> {
        let attributes = self.take_outer_attributes(inode)?;
        let result = self.change_content(inode, |ext| ext.truncate_inode(inode, size));
        for (XattrName { namespace, name }, value) in attributes {
            self.ext.set_xattr(inode, namespace, &name, &value, XattrSetMode::Upsert)?;
        }
        result
    }

    /// Removes the last name of an inode, as `remove` does. The number of a device is taken away before: rsext4 0.9.2 takes
    /// it for the place of a block, and does not free such an inode (`collect_legacy_inode_ownership`).
    pub fn without_device<T>(
        &mut self,
        info: Option<InodeInfo>,
        remove: impl FnOnce(&mut Mounted) -> Outcome<T>,
    ) -> Outcome<T> {
        let device = info.filter(|info| info.links <= 1).and_then(|info| Some((info.number, info.device_number?)));
        let Some((inode, number)) = device else { return remove(&mut self.ext) };
        let update = |device_number| InodeMetadataUpdate { device_number: Some(device_number), ..Default::default() };
        self.ext.update_inode_metadata(inode, update(DeviceNumber::ZERO))?;
        let result = remove(&mut self.ext);
        if result.is_err() {
            self.ext.update_inode_metadata(inode, update(number))?;
        }
        result
    }

    /// Takes away attributes that have a block of their own, of a file without extents: rsext4 0.9.2 forgets to count that
    /// block when it shortens such a file (`apply_inode_mapping` sets i_blocks to what is mapped).
    fn take_outer_attributes(&mut self, inode: InodeNumber) -> Outcome<Vec<(XattrName, Vec<u8>)>> {
        let info = self.ext.inode(inode)?;
        let is_mapped = matches!(info.file_type(), DirectoryEntryType::RegularFile | DirectoryEntryType::Directory);
        if info.flags.contains(InodeFlags::EXTENTS) || !is_mapped {
            return Ok(Vec::new());
        }
        let place = self.ext.inode_extents(inode, 0, u64::MAX, FileExtentTarget::ExtendedAttributes, 8)?;
        if place.extents.iter().all(|extent| extent.state == FileExtentState::Inline) {
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        for name in self.ext.list_xattrs(inode)? {
            let value = self.ext.get_xattr(inode, name.namespace, &name.name)?;
            taken.push((name, value));
        }
        for (XattrName { namespace, name }, _) in &taken {
            self.ext.remove_xattr(inode, *namespace, name)?;
        }
        Ok(taken)
    }

    /// Remembers the times of inodes that are about to be changed.
    pub fn remember(&mut self, image: &Image, superblock: &Superblock, inodes: &[InodeNumber]) {
        if self.times.len() > REMEMBERED {
            self.times.clear();
        }
        for inode in inodes {
            if !self.times.contains_key(inode) {
                self.times.insert(*inode, superblock.times(image, inode.raw()).unwrap_or_default());
            }
        }
    }

    /// An inode was changed; its content too, or not.
    pub fn changed(&mut self, inode: InodeNumber, content: bool) {
        let now = self.now.of_call();
        let times = self.times.entry(inode).or_default();
        times.0[2] = now;
        if content {
            times.0[1] = now;
        }
    }

    /// The entries of a directory were changed.
    pub fn changed_entries(&mut self, directory: InodeNumber) {
        self.changed(directory, true);
        self.directories.insert(directory.raw());
    }

    /// The directories whose entries were changed.
    pub fn take_directories(&mut self) -> HashSet<u32> {
        std::mem::take(&mut self.directories)
    }

    /// An inode was made.
    pub fn made(&mut self, inode: InodeNumber) {
        self.times.insert(inode, Times([self.now.of_call(); 4]));
    }

    /// Times were set.
    pub fn set_times(&mut self, inode: InodeNumber, atime: Option<Ext4Timestamp>, mtime: Option<Ext4Timestamp>) {
        let times = self.times.entry(inode).or_default();
        let set = |place: &mut Timestamp, time: Option<Ext4Timestamp>| {
            if let Some(Ext4Timestamp { sec, nsec }) = time {
                *place = Timestamp { seconds: sec, nanoseconds: nsec };
            }
        };
        set(&mut times.0[0], atime);
        set(&mut times.0[1], mtime);
    }

    /// What is shown of an inode.
    pub fn stat(&self, image: &Image, superblock: &Superblock, info: &InodeInfo) -> Stat {
        let exact = match self.times.get(&info.number) {
            Some(times) => *times,
            None => superblock.times(image, info.number.raw()).unwrap_or_default(),
        };
        // What rsext4 says of the second is the truth; the rest is known if it was of that second.
        let time = |known: Timestamp, seconds: u32| {
            let plain = i64::from(i32::from_le_bytes(seconds.to_le_bytes()));
            if known.seconds.rem_euclid(1 << 32) == plain.rem_euclid(1 << 32) {
                return known;
            }
            Timestamp { seconds: plain, nanoseconds: 0 }
        };
        let device = info.device_number.map_or(0, |device| rustix::fs::makedev(device.major(), device.minor()));
        let creation = time(exact.0[3], info.btime);
        Stat {
            ino: info.number.raw().into(),
            mode: info.mode.into(),
            nlink: info.links.into(),
            uid: info.uid,
            gid: info.gid,
            rdev: device,
            size: info.size,
            blksize: u32::try_from(superblock.block_size).unwrap_or(4096),
            blocks: info.blocks,
            atime: time(exact.0[0], info.atime),
            mtime: time(exact.0[1], info.mtime),
            ctime: time(exact.0[2], info.ctime),
            btime: Some(creation).filter(|creation| creation.seconds != 0),
            ..Stat::default()
        }
    }
}
