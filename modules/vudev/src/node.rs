//! Devices as a file system: the node of one is the root, and those of partitions and loop devices stand beside it; what
//! sysfs tells of them is shown below `/sys`. Knows nothing of how a device is used.

use std::any::Any;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use umvu_interface::{
    BlockDevice, Caller, DirEntry, Errno, FileKind, Filesystem, FsStat, Inode, InodeRef, Name, OFlags, Opened, Result,
    SetAttr, SetTime, Stat, TextFile, Timestamp,
};

use crate::disk::{Disk, Part};
use crate::loops::{Loops, OpenControl, OpenLoop};
use crate::null::Null;
use crate::open::OpenDisk;
use crate::sys::{self, Entry, List, Shown, Tree};

/// What a device is.
pub enum Device {
    /// Takes everything, gives nothing.
    Null,
    /// A disk.
    Disk(Arc<Disk>),
    /// The control device of loop devices.
    Loops(Arc<Loops>),
}

/// Where nodes are.
pub struct Place {
    /// The directory of the mount point, by device and inode number.
    pub directory: (u64, u64),
    /// The name of the mount point.
    pub name: Vec<u8>,
    /// The directories of sysfs, as far as there are any.
    pub lists: Vec<(List, InodeRef)>,
}

/// What the nodes of a device show.
pub struct Numbers {
    /// Device of the file system.
    pub filesystem: u64,
    /// Device of what is shown below `/sys`.
    pub sysfs: u64,
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

/// A device, and those that come with it.
pub struct DeviceFs {
    device: Device,
    numbers: Numbers,
    place: Place,
    options: Vec<u8>,
    born: Timestamp,
    /// By node, where they are not as at first.
    attributes: Mutex<Vec<(What, Attributes)>>,
    first: Attributes,
    own: Weak<Self>,
}

/// A disk of a device, with its name and numbers.
pub struct Unit {
    /// Its number: 0 for the only one, that of a loop device otherwise.
    pub index: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// Major and first minor number.
    pub numbers: (u32, u32),
    /// The disk.
    pub disk: Arc<Disk>,
    /// More files that sysfs has for it, in a directory, and the name of that.
    pub more: Option<(&'static str, Vec<(&'static str, String)>)>,
}

impl Unit {
    /// The name of a partition: after a digit with a letter in between, as `disk_name` of `block/genhd.c` makes it.
    fn part_name(&self, number: u32) -> Vec<u8> {
        let between = if self.name.last().is_some_and(u8::is_ascii_digit) { "p" } else { "" };
        [&self.name[..], format!("{between}{number}").as_bytes()].concat()
    }

    fn name_of(&self, part: Part) -> Vec<u8> {
        match part {
            Part::Whole => self.name.clone(),
            Part::Number(number) => self.part_name(number),
        }
    }

    fn parts(&self) -> Vec<Part> {
        let parts = self.disk.parts();
        std::iter::once(Part::Whole).chain(parts.iter().map(|p| Part::Number(p.number))).collect()
    }
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// The device that is no disk.
    Character,
    /// A part of a disk, by the number of that.
    Block(u32, Part),
    /// An object of sysfs, by its path.
    Sys(Vec<u8>),
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

    fn node(&self, what: What) -> InodeRef {
        match self.own.upgrade() {
            Some(fs) => Arc::new(Node { fs, what }),
            None => unreachable!("whoever has a reference to it has the Arc that it is in"),
        }
    }

    fn attributes(&self, what: &What) -> Attributes {
        let changed = self.attributes.lock().iter().find(|(of, _)| of == what).map(|(_, attributes)| *attributes);
        changed.unwrap_or(self.first)
    }

    fn units(&self) -> Vec<Unit> {
        let numbers = (self.numbers.major, self.numbers.minor);
        match &self.device {
            Device::Null => Vec::new(),
            Device::Disk(disk) => {
                vec![Unit { index: 0, name: self.place.name.clone(), numbers, disk: disk.clone(), more: None }]
            }
            Device::Loops(loops) => loops.units(),
        }
    }

    fn unit(&self, index: u32) -> Result<Unit> {
        self.units().into_iter().find(|unit| unit.index == index).ok_or(Errno::NXIO)
    }

    /// The nodes beside the mount point: names, and what they are.
    fn beside(&self) -> Vec<(Vec<u8>, What)> {
        let units = self.units();
        let of = |unit: &Unit| -> Vec<(Vec<u8>, What)> {
            let index = unit.index;
            unit.parts().into_iter().map(|part| (unit.name_of(part), What::Block(index, part))).collect()
        };
        let root = self.root_is();
        units.iter().flat_map(of).filter(|(_, what)| *what != root).collect()
    }

    fn root_is(&self) -> What {
        match self.device {
            Device::Null | Device::Loops(_) => What::Character,
            Device::Disk(_) => What::Block(0, Part::Whole),
        }
    }

    /// Below `/sys`.
    fn tree(&self) -> Tree {
        let mut all = Tree::new();
        for unit in self.units() {
            let part_name = |number| unit.part_name(number);
            let shown = Shown { disk: &unit.disk, name: &unit.name, part_name: &part_name, numbers: unit.numbers };
            all.extend(sys::tree(&shown, unit.more.as_ref()));
        }
        all
    }

    /// The path of a directory below `/sys` in which something is added.
    fn list(&self, directory: (u64, u64)) -> Option<&'static str> {
        let lists = self.place.lists.iter();
        lists.filter(|(_, inode)| inode.id() == Ok(directory)).map(|(list, _)| list.path()).next()
    }
}

/// The node of a disk, of one of its partitions, or of another device; or an object that tells of one.
struct Node {
    fs: Arc<DeviceFs>,
    what: What,
}

impl Node {
    fn entry(&self) -> Result<Option<Entry>> {
        match &self.what {
            What::Sys(path) => self.fs.tree().remove(path).map(Some).ok_or(Errno::NOENT),
            What::Character | What::Block(..) => Ok(None),
        }
    }

    fn numbers(&self) -> Result<(u32, u32)> {
        match self.what {
            What::Block(index, part) => {
                let (major, minor) = self.fs.unit(index)?.numbers;
                Ok((major, minor.saturating_add(part.number())))
            }
            _ => Ok((self.fs.numbers.major, self.fs.numbers.minor)),
        }
    }
}

/// FNV-1a: tells paths apart.
fn number_of(path: &[u8]) -> u64 {
    path.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.fs.clone()
    }

    fn stat(&self) -> Result<Stat> {
        let (dev, ino) = self.id()?;
        let born = self.fs.born;
        if let Some(entry) = self.entry()? {
            let (mode, nlink, size) = match entry {
                Entry::Directory => (0o755, 2, 0),
                Entry::Text(_) => (0o444, 1, 4096),
                Entry::Link(_) => (0o777, 1, 0),
            };
            let shown =
                Stat { dev, ino, mode: self.kind()?.bits() | mode, nlink, size, blksize: 4096, ..Stat::default() };
            return Ok(Stat { atime: born, mtime: born, ctime: born, ..shown });
        }
        let Attributes { owner, times } = self.fs.attributes(&self.what);
        let (major, minor) = self.numbers()?;
        let rdev = rustix::fs::makedev(major, minor);
        let mode = self.kind()?.bits() | owner.mode;
        let shown = Stat { dev, ino, mode, nlink: 1, uid: owner.uid, gid: owner.gid, rdev, ..Stat::default() };
        let [atime, mtime, ctime] = times;
        Ok(Stat { atime, mtime, ctime, btime: Some(born), blksize: 4096, ..shown })
    }

    fn kind(&self) -> Result<FileKind> {
        Ok(match &self.what {
            What::Character => FileKind::CharDevice,
            What::Block(..) => FileKind::BlockDevice,
            What::Sys(_) => match self.entry()? {
                Some(Entry::Directory) => FileKind::Directory,
                Some(Entry::Link(_)) => FileKind::Symlink,
                _ => FileKind::Regular,
            },
        })
    }

    fn id(&self) -> Result<(u64, u64)> {
        let numbers = &self.fs.numbers;
        Ok(match &self.what {
            What::Character => (numbers.filesystem, 1),
            What::Block(index, part) => (numbers.filesystem, 2 + (u64::from(*index) << 9) + u64::from(part.number())),
            What::Sys(path) => (numbers.sysfs, number_of(path)),
        })
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        match (self.entry()?, &self.what) {
            (Some(Entry::Directory), What::Sys(path)) => {
                let below = [path, &b"/"[..], name.as_bytes()].concat();
                match self.fs.tree().contains_key(&below) {
                    true => Ok(self.fs.node(What::Sys(below))),
                    false => Err(Errno::NOENT),
                }
            }
            _ => Err(Errno::NOTDIR),
        }
    }

    fn refusal(&self) -> Errno {
        match self.what {
            What::Sys(_) => Errno::PERM,
            What::Character | What::Block(..) => Errno::NOTDIR,
        }
    }

    fn parent(&self) -> Result<InodeRef> {
        let What::Sys(path) = &self.what else { return Ok(self.fs.root()) };
        let (directory, _) = sys::split(path);
        let mut lists = self.fs.place.lists.iter();
        match lists.find(|(list, _)| list.path().as_bytes() == directory) {
            Some((_, inode)) => Ok(inode.clone()),
            None => Ok(self.fs.node(What::Sys(directory.to_vec()))),
        }
    }

    fn path(&self) -> Result<Vec<u8>> {
        match &self.what {
            What::Sys(path) => Ok(path.clone()),
            what if *what == self.fs.root_is() => Ok(Vec::new()),
            What::Block(index, part) => {
                let name = self.fs.unit(*index)?.name_of(*part);
                Ok(beside(&self.fs.place.name, &name))
            }
            What::Character => Ok(Vec::new()),
        }
    }

    fn open(&self, _: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        if let Some(entry) = self.entry()? {
            return match entry {
                _ if flags & OFlags::ACCMODE != OFlags::RDONLY => Err(Errno::ACCESS),
                Entry::Text(content) => Ok(Opened::Text(TextFile { content, control: None })),
                Entry::Directory => Err(Errno::ISDIR),
                Entry::Link(_) => Err(Errno::LOOP),
            };
        }
        Ok(Opened::Device(match (&self.fs.device, &self.what) {
            (Device::Disk(disk), What::Block(_, part)) => Arc::new(OpenDisk::new(disk, *part, flags)?),
            (Device::Loops(loops), What::Block(index, part)) => Arc::new(OpenLoop::new(loops, *index, *part, flags)?),
            (Device::Loops(loops), _) => Arc::new(OpenControl::new(loops)),
            _ => Arc::new(Null),
        }))
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match self.entry()? {
            Some(Entry::Link(target)) => Ok(target),
            _ => Err(Errno::INVAL),
        }
    }

    fn set_attr(&self, _: &Caller<'_>, change: &SetAttr) -> Result<()> {
        if let What::Sys(_) = self.what {
            return Err(Errno::PERM);
        }
        // truncate(2) of a device: vfs_truncate of fs/open.c
        if change.size.is_some() {
            return Err(Errno::INVAL);
        }
        let mut attributes = self.fs.attributes(&self.what);
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
        all.retain(|(of, _)| *of != self.what);
        all.push((self.what.clone(), attributes));
        Ok(())
    }

    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        match (self.entry()?, &self.what) {
            (Some(Entry::Directory), What::Sys(path)) => Ok(entries(&self.fs.tree(), path)),
            _ => Err(Errno::NOTDIR),
        }
    }
}

/// What is appended to the path of the mount point for a node called `name` beside it.
fn beside(point: &[u8], name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(point) {
        Some(suffix) => suffix.to_vec(),
        None => [b"/../", name].concat(),
    }
}

/// The entries of a directory of the tree.
fn entries(tree: &Tree, directory: &[u8]) -> Vec<DirEntry> {
    let inside = tree.iter().filter(|(path, _)| sys::split(path).0 == directory);
    let entry = |(path, entry): (&Vec<u8>, &Entry)| DirEntry {
        name: sys::split(path).1.into(),
        ino: number_of(path),
        dirent_type: match entry {
            Entry::Directory => FileKind::Directory,
            Entry::Text(_) => FileKind::Regular,
            Entry::Link(_) => FileKind::Symlink,
        }
        .dirent_type(),
    };
    inside.map(entry).collect()
}

impl Filesystem for DeviceFs {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        self.node(self.root_is())
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        /// `TMPFS_MAGIC` of linux/magic.h, which devtmpfs has too.
        const MAGIC: u64 = 0x0102_1994;
        Ok(FsStat { magic: MAGIC, block_size: 4096, fragment_size: 4096, name_max: 255, ..FsStat::default() })
    }

    fn options(&self) -> Vec<u8> {
        self.options.clone()
    }

    fn stat_open(&self, _: std::os::fd::BorrowedFd<'_>) -> Result<Stat> {
        // Open devices are known to who has opened them.
        Err(Errno::NOENT)
    }

    fn sync(&self) -> Result<()> {
        let all = self.units();
        all.iter().map(|unit| unit.disk.storage()).filter(|s| !s.is_read_only()).try_for_each(|s| s.flush())
    }

    fn has_outposts(&self) -> bool {
        !matches!(self.device, Device::Null)
    }

    fn outpost(&self, directory: (u64, u64), name: &[u8]) -> Option<InodeRef> {
        if directory == self.place.directory {
            let found = self.beside().into_iter().find(|(called, _)| called == name);
            return found.map(|(_, what)| self.node(what));
        }
        let path = [self.list(directory)?.as_bytes(), b"/", name].concat();
        self.tree().contains_key(&path).then(|| self.node(What::Sys(path)))
    }

    fn outposts(&self, directory: (u64, u64)) -> Vec<DirEntry> {
        if directory == self.place.directory {
            let entry = |(name, what): (Vec<u8>, What)| DirEntry {
                name: name.into(),
                ino: self.node(what).id().map_or(0, |(_, ino)| ino),
                dirent_type: FileKind::BlockDevice.dirent_type(),
            };
            return self.beside().into_iter().map(entry).collect();
        }
        match self.list(directory) {
            Some(list) => entries(&self.tree(), list.as_bytes()),
            None => Vec::new(),
        }
    }

    fn block_devices(&self) -> Vec<BlockDevice> {
        let mut all = Vec::new();
        for unit in self.units() {
            for part in unit.parts() {
                let (major, minor) = unit.numbers;
                all.push(BlockDevice {
                    number: rustix::fs::makedev(major, minor.saturating_add(part.number())),
                    size: unit.disk.window(part).map_or(0, |window| window.length),
                    name: unit.name_of(part),
                    node: self.node(What::Block(unit.index, part)),
                });
            }
        }
        all
    }

    fn is_in_use(&self) -> bool {
        match &self.device {
            Device::Loops(loops) => loops.is_used(),
            _ => self.units().iter().any(|unit| unit.disk.is_used()),
        }
    }
}
