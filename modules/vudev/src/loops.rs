//! Loop devices: files as disks, by the requests of `drivers/block/loop.c` to `/dev/loop-control` and `/dev/loopN`.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_driver::{FileStorage, Storage};
use umvu_interface::{
    Asker, Attendant, ClaimedDevice, Errno, FileKind, Hold, InodeRef, OFlags, OpenDevice, OpenedFile, Result,
};

use crate::disk::{Disk, Part};
use crate::ioctl;
use crate::node::Unit;
use crate::open::OpenDisk;

/// Major number of loop devices.
const MAJOR: u32 = 7;
/// As many minor numbers each of them has, as with the parameter `max_part=255` of the kernel's module.
const MINORS: u32 = 256;
/// As many of them there are at most.
const MOST: u32 = 1 << 12;

/// `LO_FLAGS_*` of linux/loop.h.
mod flag {
    pub const READ_ONLY: u32 = 1;
    pub const AUTOCLEAR: u32 = 4;
    pub const PARTSCAN: u32 = 8;
    pub const DIRECT_IO: u32 = 16;
}

/// All loop devices of a control device.
pub struct Loops {
    all: Mutex<BTreeMap<u32, Arc<Loop>>>,
    /// Whether the host has a device with a number, which cannot be ours.
    is_taken: Box<dyn Fn(u32) -> bool + Send + Sync>,
}

/// A loop device.
struct Loop {
    disk: Arc<Disk>,
    bound: Mutex<Option<Bound>>,
}

/// The file that a loop device shows, and how: what `struct loop_info64` tells.
struct Bound {
    file: File,
    inside: (InodeRef, Option<Arc<dyn Attendant>>, Hold),
    path: Vec<u8>,
    device: u64,
    inode: u64,
    offset: u64,
    size_limit: u64,
    flags: u32,
    name: [u8; 64],
}

/// The size of `struct loop_info64`.
const INFO: usize = 232;

/// What a loop device without a file is made of.
struct Nothing;

impl Storage for Nothing {
    fn size(&self) -> u64 {
        0
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Err(Errno::IO)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(Errno::IO)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

impl Loops {
    /// Makes a control device without loop devices.
    pub fn new(is_taken: impl Fn(u32) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { all: Mutex::default(), is_taken: Box::new(is_taken) })
    }

    /// The devices that there are.
    pub fn units(&self) -> Vec<Unit> {
        let all = self.all.lock().clone();
        let unit = |(index, found): (u32, Arc<Loop>)| Unit {
            index,
            name: format!("loop{index}").into_bytes(),
            numbers: (MAJOR, index * MINORS),
            disk: found.disk.clone(),
            more: found.shown().map(|files| ("loop", files)),
        };
        all.into_iter().map(unit).collect()
    }

    /// Whether a device has a file or is open.
    pub fn is_used(&self) -> bool {
        let all = self.all.lock();
        all.values().any(|found| found.bound.lock().is_some() || found.disk.is_used())
    }

    fn get(&self, index: u32) -> Result<Arc<Loop>> {
        self.all.lock().get(&index).cloned().ok_or(Errno::NXIO)
    }

    fn add(&self, index: u32) -> Result<u64> {
        if index >= MOST {
            return Err(Errno::INVAL);
        }
        let mut all = self.all.lock();
        if all.contains_key(&index) || (self.is_taken)(index) {
            return Err(Errno::EXIST);
        }
        all.insert(index, Arc::new(Loop { disk: Disk::new(Arc::new(Nothing)), bound: Mutex::new(None) }));
        Ok(index.into())
    }

    fn remove(&self, index: u32) -> Result<u64> {
        let mut all = self.all.lock();
        let found = all.get(&index).ok_or(Errno::NODEV)?;
        if found.bound.lock().is_some() || found.disk.is_used() {
            return Err(Errno::BUSY);
        }
        all.remove(&index);
        Ok(index.into())
    }

    fn free(&self) -> Result<u64> {
        let unbound = self.all.lock().iter().find(|(_, found)| found.bound.lock().is_none()).map(|(index, _)| *index);
        if let Some(index) = unbound {
            return Ok(index.into());
        }
        let new = (0..MOST).find(|index| !self.all.lock().contains_key(index) && !(self.is_taken)(*index));
        self.add(new.ok_or(Errno::NOSPC)?)
    }
}

impl Loop {
    fn shown(&self) -> Option<Vec<(&'static str, String)>> {
        let bound = self.bound.lock();
        let bound = bound.as_ref()?;
        let has = |flag: u32| u32::from(bound.flags & flag != 0).to_string();
        Some(vec![
            ("backing_file", bound.path.escape_ascii().to_string()),
            ("offset", bound.offset.to_string()),
            ("sizelimit", bound.size_limit.to_string()),
            ("autoclear", has(flag::AUTOCLEAR)),
            ("partscan", has(flag::PARTSCAN)),
            ("dio", has(flag::DIRECT_IO)),
        ])
    }

    /// Gives it a file: `loop_configure`.
    fn bind(&self, fd: i32, info: &[u8; INFO], guest: &dyn Asker) -> Result<()> {
        let mut bound = self.bound.lock();
        if bound.is_some() {
            return Err(Errno::BUSY);
        }
        let OpenedFile { fd, path, inode: object, attendant, hold } = guest.descriptor(fd)?;
        let (device, inode) = object.id()?;
        let file = File::from(fd);
        let stat = rustix::fs::fstat(&file)?;
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, rustix::fs::FileType::RegularFile | rustix::fs::FileType::BlockDevice) {
            return Err(Errno::INVAL);
        }
        let mode = rustix::fs::fcntl_getfl(&file)? & OFlags::ACCMODE;
        if mode == OFlags::WRONLY {
            return Err(Errno::BADF);
        }
        let writes = mode == OFlags::RDWR;
        let mut new = Bound {
            file,
            inside: (object, attendant, hold),
            path,
            device,
            inode,
            offset: 0,
            size_limit: 0,
            flags: if writes { 0 } else { flag::READ_ONLY },
            name: [0; 64],
        };
        new.take(info, flag::READ_ONLY | flag::AUTOCLEAR | flag::PARTSCAN | flag::DIRECT_IO)?;
        self.show(&new)?;
        *bound = Some(new);
        Ok(())
    }

    /// Makes the disk of what is bound.
    fn show(&self, bound: &Bound) -> Result<()> {
        let end = rustix::fs::seek(&bound.file, rustix::fs::SeekFrom::End(0))?;
        let rest = end.saturating_sub(bound.offset);
        let size = if bound.size_limit > 0 { rest.min(bound.size_limit) } else { rest };
        let file = bound.file.try_clone().map_err(|_| Errno::MFILE)?;
        let is_read_only = bound.flags & flag::READ_ONLY != 0;
        let (inode, attendant, hold) = bound.inside.clone();
        let storage = FileStorage::new(file, bound.offset, size, is_read_only);
        self.disk.replace(Arc::new(storage.inside(&inode, attendant, hold)));
        if bound.flags & flag::PARTSCAN != 0 {
            // Its partitions are none's yet.
            let _ = self.disk.read_partitions();
        }
        Ok(())
    }

    fn unbind(&self) {
        self.disk.replace(Arc::new(Nothing));
        *self.bound.lock() = None;
    }

    /// Takes its file away, now or when the last one closes it: `loop_clr_fd`.
    fn clear(&self) -> Result<u64> {
        let mut bound = self.bound.lock();
        let now = bound.as_mut().ok_or(Errno::NXIO)?;
        if self.disk.users() > 1 {
            now.flags |= flag::AUTOCLEAR;
            return Ok(0);
        }
        drop(bound);
        self.unbind();
        Ok(0)
    }

    fn set_status(&self, argument: u64, guest: &dyn Asker) -> Result<u64> {
        let mut info = [0; INFO];
        guest.read(argument, &mut info)?;
        let mut bound = self.bound.lock();
        let now = bound.as_mut().ok_or(Errno::NXIO)?;
        now.take(&info, flag::AUTOCLEAR | flag::PARTSCAN)?;
        self.show(now)?;
        Ok(0)
    }

    fn status(&self, index: u32) -> Result<[u8; INFO]> {
        let bound = self.bound.lock();
        let now = bound.as_ref().ok_or(Errno::NXIO)?;
        let mut info = [0; INFO];
        for (at, value) in [(0, now.device), (8, now.inode), (24, now.offset), (32, now.size_limit)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        info[40..44].copy_from_slice(&index.to_ne_bytes());
        info[52..56].copy_from_slice(&now.flags.to_ne_bytes());
        info[56..120].copy_from_slice(&now.name);
        Ok(info)
    }
}

impl Bound {
    /// Takes what `struct loop_info64` says: `loop_set_status_from_info`. Of the flags, those in `settable`.
    fn take(&mut self, info: &[u8; INFO], settable: u32) -> Result<()> {
        let word = |at: usize| info.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
        let half = |at: usize| info.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let known = flag::READ_ONLY | flag::AUTOCLEAR | flag::PARTSCAN | flag::DIRECT_IO;
        let flags = half(52);
        // Ciphers are gone since Linux 5.16.
        if flags & !known != 0 || half(44) != 0 || half(48) > 32 {
            return Err(Errno::INVAL);
        }
        let (offset, size_limit) = (word(24), word(32));
        if i64::try_from(offset).is_err() || i64::try_from(size_limit).is_err() {
            return Err(Errno::OVERFLOW);
        }
        let forced = self.flags & flag::READ_ONLY;
        (self.offset, self.size_limit) = (offset, size_limit);
        self.flags = (self.flags & !settable) | (flags & settable) | forced;
        self.name.copy_from_slice(&info[56..120]);
        self.name[63] = 0;
        Ok(())
    }
}

/// The node of the control device, which needs no mount before it is used.
pub struct ControlNode;

impl ClaimedDevice for ControlNode {
    fn kind(&self) -> FileKind {
        FileKind::CharDevice
    }

    /// `LOOP_CTRL_MINOR` of linux/miscdevice.h.
    fn number(&self) -> u64 {
        rustix::fs::makedev(10, 237)
    }

    fn path(&self) -> &'static [u8] {
        b"/dev/loop-control"
    }

    fn mode(&self) -> u32 {
        0o660
    }

    fn mounts(&self) -> Option<&'static [u8]> {
        Some(b"vudevloop")
    }
}

/// The open control device.
pub struct OpenControl(Arc<Loops>);

impl std::fmt::Debug for OpenControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenControl")
    }
}

impl OpenControl {
    /// Opens it.
    pub fn new(loops: &Arc<Loops>) -> Self {
        Self(loops.clone())
    }
}

impl OpenDevice for OpenControl {
    fn size(&self) -> Option<u64> {
        None
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<usize> {
        Err(Errno::INVAL)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<usize> {
        Err(Errno::INVAL)
    }

    fn ioctl(&self, request: u32, argument: u64, _: &dyn Asker) -> Result<u64> {
        let index = u32::try_from(argument & 0xffff_ffff).unwrap_or(u32::MAX);
        match request {
            // LOOP_CTL_ADD, LOOP_CTL_REMOVE, LOOP_CTL_GET_FREE
            0x4c80 if index == u32::MAX => self.0.free(),
            0x4c80 => self.0.add(index),
            0x4c81 => self.0.remove(index),
            0x4c82 => self.0.free(),
            _ => Err(Errno::NOTTY),
        }
    }
}

/// An open loop device, or a partition of one.
#[derive(Debug)]
pub struct OpenLoop {
    /// Goes first when this one is closed.
    open: Option<OpenDisk>,
    index: u32,
    found: LoopRef,
}

struct LoopRef(Arc<Loop>);

impl std::fmt::Debug for LoopRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Loop")
    }
}

impl OpenLoop {
    /// Opens it.
    ///
    /// # Errors
    /// - `ENXIO`: there is none with this number.
    /// - those of [`OpenDisk::new`].
    pub fn new(loops: &Loops, index: u32, part: Part, flags: OFlags) -> Result<Self> {
        let found = loops.get(index)?;
        let open = Some(OpenDisk::new(&found.disk, part, flags)?);
        Ok(Self { open, index, found: LoopRef(found) })
    }

    fn open(&self) -> Result<&OpenDisk> {
        self.open.as_ref().ok_or(Errno::BADF)
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.open = None;
        let found = &self.found.0;
        let clears = found.bound.lock().as_ref().is_some_and(|bound| bound.flags & flag::AUTOCLEAR != 0);
        if clears && !found.disk.is_used() {
            found.unbind();
        }
    }
}

impl OpenDevice for OpenLoop {
    fn size(&self) -> Option<u64> {
        self.open().map_or(Some(0), OpenDevice::size)
    }

    fn is_read_only(&self) -> bool {
        self.found.0.disk.is_read_only()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.open()?.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        self.open()?.write_at(offset, bytes)
    }

    fn sync(&self) -> Result<()> {
        self.open()?.sync()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.open()?.discard(offset, length)
    }

    fn ioctl(&self, request: u32, argument: u64, guest: &dyn Asker) -> Result<u64> {
        let number = i32::try_from(argument & 0xffff_ffff).unwrap_or(-1);
        let found = &self.found.0;
        match request {
            // LOOP_SET_FD, LOOP_CLR_FD
            0x4c00 => found.bind(number, &[0; INFO], guest).map(|()| 0),
            0x4c01 => found.clear(),
            // LOOP_SET_STATUS64, LOOP_GET_STATUS64
            0x4c04 => found.set_status(argument, guest),
            0x4c05 => guest.write(argument, &found.status(self.index)?).map(|()| 0),
            // LOOP_SET_CAPACITY
            0x4c07 => {
                let bound = found.bound.lock();
                found.show(bound.as_ref().ok_or(Errno::NXIO)?).map(|()| 0)
            }
            // LOOP_SET_DIRECT_IO: it makes no difference.
            0x4c08 => found.bound.lock().as_ref().map(|_| 0).ok_or(Errno::NXIO),
            // LOOP_SET_BLOCK_SIZE
            0x4c09 if argument == 512 => Ok(0),
            // LOOP_CONFIGURE
            0x4c0a => {
                let mut config = [0; 8 + INFO];
                guest.read(argument, &mut config)?;
                let half =
                    |at: usize| config.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes);
                if !matches!(half(4), 0 | 512) {
                    return Err(Errno::INVAL);
                }
                let info = config[8..].try_into().map_err(|_| Errno::INVAL)?;
                found.bind(i32::try_from(half(0)).unwrap_or(-1), info, guest).map(|()| 0)
            }
            0x4c02 | 0x4c03 | 0x4c06 | 0x4c09 => Err(Errno::INVAL),
            _ => ioctl::answer(self.open()?, request, argument, guest),
        }
    }
}
