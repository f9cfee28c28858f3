//! A device as a file system: its node is the root, and those of its partitions stand beside it. Knows nothing of how a
//! device is used.

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use umvu_interface::{
    Caller, DirEntry, Errno, FileKind, Filesystem, FsStat, Inode, InodeRef, Name, OFlags, Opened, Result, SetAttr,
    SetTime, Stat, Timestamp,
};

use crate::disk::{Disk, Part};
use crate::null::Null;
use crate::open::OpenDisk;

/// What a device is.
pub enum Device {
    /// Takes everything, gives nothing.
    Null,
    /// A disk.
    Disk(Arc<Disk>),
}

/// Where the node is: the directory by device and inode number, and the name.
pub struct Place {
    /// The directory.
    pub directory: (u64, u64),
    /// The name.
    pub name: Vec<u8>,
}

/// What the nodes of a device show.
pub struct Numbers {
    /// Device of the file system.
    pub filesystem: u64,
    /// Major number.
    pub major: u32,
    /// Minor number of the whole; those of the partitions follow.
    pub minor: u32,
}

/// Owner and mode of all nodes of a device.
#[derive(Clone, Copy)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A device.
pub struct DeviceFs {
    device: Device,
    numbers: Numbers,
    place: Place,
    options: Vec<u8>,
    born: Timestamp,
    /// By part, where it is not as at first.
    attributes: Mutex<Vec<(Part, Attributes)>>,
    first: Attributes,
    own: Weak<Self>,
}

#[derive(Clone, Copy)]
struct Attributes {
    owner: Owner,
    times: [Timestamp; 3],
}

fn now() -> Timestamp {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanoseconds: now.subsec_nanos() }
}

impl DeviceFs {
    /// Makes one; `options` are shown in lists of mounts.
    pub fn new(device: Device, numbers: Numbers, place: Place, owner: Owner, options: Vec<u8>) -> Arc<Self> {
        let born = now();
        let first = Attributes { owner, times: [born; 3] };
        Arc::new_cyclic(|own| Self {
            device,
            numbers,
            place,
            options,
            born,
            attributes: Mutex::default(),
            first,
            own: own.clone(),
        })
    }

    fn node(&self, part: Part) -> InodeRef {
        match self.own.upgrade() {
            Some(fs) => Arc::new(Node { fs, part }),
            None => unreachable!("whoever has a reference to it has the Arc that it is in"),
        }
    }

    fn attributes(&self, part: Part) -> Attributes {
        let changed = self.attributes.lock().iter().find(|(of, _)| *of == part).map(|(_, attributes)| *attributes);
        changed.unwrap_or(self.first)
    }

    fn disk(&self) -> Option<&Arc<Disk>> {
        match &self.device {
            Device::Null => None,
            Device::Disk(disk) => Some(disk),
        }
    }

    /// What is appended to the name of a disk for a partition: after a digit with a letter in between, as `disk_name`
    /// of `block/genhd.c` does.
    fn suffix(&self, number: u32) -> Vec<u8> {
        let between = if self.place.name.last().is_some_and(u8::is_ascii_digit) { "p" } else { "" };
        format!("{between}{number}").into_bytes()
    }

    fn part_called(&self, name: &[u8]) -> Option<Part> {
        let suffix = name.strip_prefix(&self.place.name[..])?;
        let parts = self.disk()?.parts();
        parts.iter().find(|p| self.suffix(p.number) == suffix).map(|p| Part::Number(p.number))
    }
}

/// The node of a disk, of one of its partitions, or of another device.
struct Node {
    fs: Arc<DeviceFs>,
    part: Part,
}

impl Node {
    fn number(&self) -> u32 {
        match self.part {
            Part::Whole => 0,
            Part::Number(number) => number,
        }
    }
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.fs.clone()
    }

    fn stat(&self) -> Result<Stat> {
        let Attributes { owner, times } = self.fs.attributes(self.part);
        let numbers = &self.fs.numbers;
        let rdev = rustix::fs::makedev(numbers.major, numbers.minor.saturating_add(self.number()));
        let (dev, ino) = self.id()?;
        let mode = self.kind()?.bits() | owner.mode;
        let shown = Stat { dev, ino, mode, nlink: 1, uid: owner.uid, gid: owner.gid, rdev, ..Stat::default() };
        let [atime, mtime, ctime] = times;
        Ok(Stat { atime, mtime, ctime, btime: Some(self.fs.born), blksize: 4096, ..shown })
    }

    fn kind(&self) -> Result<FileKind> {
        Ok(match self.fs.device {
            Device::Null => FileKind::CharDevice,
            Device::Disk(_) => FileKind::BlockDevice,
        })
    }

    fn id(&self) -> Result<(u64, u64)> {
        Ok((self.fs.numbers.filesystem, u64::from(self.number()) + 1))
    }

    fn lookup(&self, _: &Name) -> Result<InodeRef> {
        Err(Errno::NOTDIR)
    }

    fn parent(&self) -> Result<InodeRef> {
        Ok(self.fs.node(Part::Whole))
    }

    fn path(&self) -> Result<Vec<u8>> {
        match self.part {
            Part::Whole => Ok(Vec::new()),
            Part::Number(number) => Ok(self.fs.suffix(number)),
        }
    }

    fn open(&self, _: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        Ok(Opened::Device(match &self.fs.device {
            Device::Null => Arc::new(Null),
            Device::Disk(disk) => Arc::new(OpenDisk::new(disk, self.part, flags)?),
        }))
    }

    fn set_attr(&self, _: &Caller<'_>, change: &SetAttr) -> Result<()> {
        // truncate(2) of a device: vfs_truncate of fs/open.c
        if change.size.is_some() {
            return Err(Errno::INVAL);
        }
        let mut attributes = self.fs.attributes(self.part);
        let Attributes { owner, times } = &mut attributes;
        owner.mode = change.mode.unwrap_or(owner.mode);
        owner.uid = change.uid.unwrap_or(owner.uid);
        owner.gid = change.gid.unwrap_or(owner.gid);
        let at = |old: &mut Timestamp, new: SetTime| match new {
            SetTime::Keep => {}
            SetTime::Now => *old = now(),
            SetTime::At(time) => *old = time,
        };
        at(&mut times[0], change.atime);
        at(&mut times[1], change.mtime);
        times[2] = now();
        let mut all = self.fs.attributes.lock();
        all.retain(|(of, _)| *of != self.part);
        all.push((self.part, attributes));
        Ok(())
    }
}

impl Filesystem for DeviceFs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        self.node(Part::Whole)
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        /// `TMPFS_MAGIC` of linux/magic.h, which devtmpfs has too.
        const MAGIC: u64 = 0x0102_1994;
        Ok(FsStat { magic: MAGIC, block_size: 4096, fragment_size: 4096, name_max: 255, ..FsStat::default() })
    }

    fn options(&self) -> Vec<u8> {
        self.options.clone()
    }

    fn stat_open(&self, _: BorrowedFd<'_>) -> Result<Stat> {
        // Open devices are known to who has opened them.
        Err(Errno::NOENT)
    }

    fn sync(&self) -> Result<()> {
        match self.disk() {
            Some(disk) if !disk.storage().is_read_only() => disk.storage().flush(),
            _ => Ok(()),
        }
    }

    fn has_outposts(&self) -> bool {
        self.disk().is_some()
    }

    fn outpost(&self, directory: (u64, u64), name: &[u8]) -> Option<InodeRef> {
        if directory != self.place.directory {
            return None;
        }
        self.part_called(name).map(|part| self.node(part))
    }

    fn outposts(&self, directory: (u64, u64)) -> Vec<DirEntry> {
        let Some(disk) = self.disk().filter(|_| directory == self.place.directory) else { return Vec::new() };
        let entry = |number: u32| DirEntry {
            name: [&self.place.name[..], &self.suffix(number)].concat().into(),
            ino: u64::from(number) + 1,
            dirent_type: FileKind::BlockDevice.dirent_type(),
        };
        disk.parts().iter().map(|part| entry(part.number)).collect()
    }

    fn is_in_use(&self) -> bool {
        self.disk().is_some_and(|disk| disk.is_used())
    }
}
