//! Answers of devices: `def_blk_fops` of `block/fops.c` over an [`OpenDevice`]. Knows nothing of registers, nor of any
//! request of ioctl(2).

use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{OFlags, SeekFrom};
use umvu_interface::{Asker, Caller, Credentials, Errno, OpenDevice, OpenedFile, Result};

use super::transfer::{At, Data, What};
use super::Served;
use crate::call::{Call, Outcome, Reply};
use crate::guest;

/// An open device.
pub struct DeviceFile {
    device: Arc<dyn OpenDevice>,
    flags: OFlags,
    /// Held while the position, which the descriptor itself keeps, is used: `fdget_pos` of fs/file.c.
    position: Mutex<()>,
}

/// At most so much is in our own memory at once.
const CHUNK: usize = 1 << 20;

impl DeviceFile {
    /// Makes one of a device that was opened with `flags`.
    pub fn new(device: Arc<dyn OpenDevice>, flags: OFlags) -> Self {
        Self { device, flags, position: Mutex::new(()) }
    }

    fn may(&self, how: OFlags) -> Result<()> {
        let mode = self.flags & OFlags::ACCMODE;
        if mode == how || mode == OFlags::RDWR {
            Ok(())
        } else {
            Err(Errno::BADF)
        }
    }
}

/// Answers a call that names an open device as `fd`: what it returns.
pub fn answer(call: &Call, file: &DeviceFile, fd: i32, what: &What) -> Result<u64> {
    match *what {
        What::Read(data, at, flags) => {
            file.may(OFlags::RDONLY)?;
            takes(flags)?;
            moving(call, file, fd, at, |offset| read(call, file, &data, offset))
        }
        What::Write(data, at, flags) => {
            file.may(OFlags::WRONLY)?;
            takes(flags)?;
            let appends = file.flags.contains(OFlags::APPEND) || flags & RWF_APPEND != 0;
            let end = file.device.size().filter(|_| appends);
            let written = moving(call, file, fd, at, |offset| write(call, file, &data, end.unwrap_or(offset)))?;
            let waits = file.flags.intersects(OFlags::SYNC | OFlags::DSYNC) || flags & (RWF_SYNC | RWF_DSYNC) != 0;
            if waits {
                file.device.sync()?;
            }
            Ok(written)
        }
        What::Seek(offset, whence) => seek(call, file, fd, offset, whence),
        What::Sync => file.device.sync().map(|()| 0),
        What::Map => Err(Errno::NODEV),
        What::Allocate => Err(Errno::OPNOTSUPP),
        What::Truncate | What::Splice => Err(Errno::INVAL),
    }
}

const RWF_DSYNC: u64 = 2;
const RWF_SYNC: u64 = 4;
const RWF_APPEND: u64 = 0x10;

/// The flags that block devices take: `kiocb_set_rw_flags`.
fn takes(flags: u64) -> Result<()> {
    const HIPRI_AND_NOWAIT: u64 = 1 | 8;
    match flags & !(HIPRI_AND_NOWAIT | RWF_DSYNC | RWF_SYNC | RWF_APPEND) {
        0 => Ok(()),
        _ => Err(Errno::OPNOTSUPP),
    }
}

/// Moves bytes at an offset, or at the position of a descriptor, which moves with them.
fn moving(call: &Call, file: &DeviceFile, fd: i32, at: At, bytes: impl FnOnce(u64) -> Result<u64>) -> Result<u64> {
    match at {
        At::Offset(offset) => bytes(u64::try_from(offset).map_err(|_| Errno::INVAL)?),
        At::Position => {
            let own = call.take_fd(fd)?;
            let _moves = file.position.lock();
            let offset = rustix::fs::seek(&own, SeekFrom::Current(0))?;
            let count = bytes(offset)?;
            if file.device.size().is_some() {
                rustix::fs::seek(&own, SeekFrom::Start(offset.saturating_add(count)))?;
            }
            Ok(count)
        }
    }
}

fn read(call: &Call, file: &DeviceFile, data: &Data, offset: u64) -> Result<u64> {
    let mut buffer = Vec::new();
    each_chunk(call, data, offset, |address, length, at| {
        buffer.resize(length, 0);
        let count = file.device.read_at(at, &mut buffer)?.min(length);
        guest::write(call.tid(), address, &buffer[..count])?;
        Ok(count)
    })
}

fn write(call: &Call, file: &DeviceFile, data: &Data, offset: u64) -> Result<u64> {
    let mut buffer = Vec::new();
    each_chunk(call, data, offset, |address, length, at| {
        buffer.resize(length, 0);
        guest::read_exact(call.tid(), address, &mut buffer)?;
        Ok(file.device.write_at(at, &buffer)?.min(length))
    })
}

/// Moves bytes chunk by chunk until one is not moved whole: an error counts only for the first.
fn each_chunk(
    call: &Call,
    data: &Data,
    offset: u64,
    mut one: impl FnMut(u64, usize, u64) -> Result<usize>,
) -> Result<u64> {
    let mut done: u64 = 0;
    for (address, length) in data.pieces(call)? {
        let mut moved = 0;
        while moved < length {
            let size = (length - moved).min(CHUNK);
            let at = offset.checked_add(done).ok_or(Errno::INVAL)?;
            let count = match one(address.wrapping_add(moved as u64), size, at) {
                Ok(count) => count,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => return Ok(done),
            };
            done += count as u64;
            moved += count;
            if count < size {
                return Ok(done);
            }
        }
    }
    Ok(done)
}

/// `blkdev_llseek` of `block/fops.c`; a character device stays where it is: `null_lseek` of `drivers/char/mem.c`.
fn seek(call: &Call, file: &DeviceFile, fd: i32, offset: i64, whence: u64) -> Result<u64> {
    let Some(size) = file.device.size() else { return Ok(0) };
    let own = call.take_fd(fd)?;
    let _moves = file.position.lock();
    let base = match whence {
        0 => 0,
        1 => rustix::fs::seek(&own, SeekFrom::Current(0))?,
        2 => size,
        _ => return Err(Errno::INVAL),
    };
    let to = base.checked_add_signed(offset).filter(|to| *to <= size).ok_or(Errno::INVAL)?;
    rustix::fs::seek(&own, SeekFrom::Start(to)).map_err(|_| Errno::INVAL)
}

/// `ioctl(fd, request, argument)` where the request is one that a device of a view may know: all others, and those of
/// other descriptors, stay in the kernel.
pub fn ioctl(call: &Call) -> Outcome {
    if call.supervisor.controls.is_empty() {
        return Ok(Reply::Continue);
    }
    let fd = call.take_fd(call.i32(0))?;
    let stat = rustix::fs::fstat(&fd)?;
    drop(fd);
    let Some(open) = call.supervisor.controls.find(stat.st_dev, stat.st_ino) else { return Ok(Reply::Continue) };
    let Served::Device(file) = &open.served else { return Ok(Reply::Continue) };
    call.check_alive()?;
    // What is closed uses nothing any more.
    call.supervisor.controls.collect();
    let guest = Guest { call, credentials: call.credentials() };
    let value = file.device.ioctl(call.u32(1), call.raw(2), &guest)?;
    Ok(Reply::Value(i64::try_from(value).unwrap_or(i64::MAX)))
}

/// The guest that asks.
struct Guest<'a> {
    call: &'a Call,
    credentials: Arc<Credentials>,
}

impl Asker for Guest<'_> {
    fn caller(&self) -> Caller<'_> {
        Caller { tid: self.call.tid(), credentials: &self.credentials, umask: self.call.umask() }
    }

    fn read(&self, address: u64, buffer: &mut [u8]) -> Result<()> {
        guest::read_exact(self.call.tid(), address, buffer)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.call.write(address, bytes)
    }

    fn descriptor(&self, number: i32) -> Result<OpenedFile> {
        let fd = self.call.take_fd(number)?;
        let stat = rustix::fs::fstat(&fd)?;
        let controls = &self.call.supervisor.controls;
        if controls.find(stat.st_dev, stat.st_ino).is_some() {
            return Err(Errno::INVAL);
        }
        let attendant = controls.attended.get(&(stat.st_dev, stat.st_ino)).map(|attendant| attendant.clone());
        let place = self.call.supervisor.place_of(self.call, self.call.take_fd(number)?)?;
        let table = self.call.table();
        let path = crate::resolve::path_of(&table, &self.call.root(&table), &place)?;
        let (inode, hold) = (place.inode, place.mount.hold());
        Ok(OpenedFile { fd, path: path.unwrap_or_default(), inode, attendant, hold })
    }
}
