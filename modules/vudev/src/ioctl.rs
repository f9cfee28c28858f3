//! The requests of block devices: `blkdev_ioctl` of `block/ioctl.c`, numbers from linux/fs.h and linux/hdreg.h.

use umvu_interface::{Asker, Capabilities, Errno, OpenDevice, Result};

use crate::disk::Part;
use crate::open::OpenDisk;
use crate::partition::{Partition, SECTOR};

/// Answers a request.
///
/// # Errors
/// - `ENOTTY`: an unknown one.
/// - others as `block/ioctl.c`.
pub fn answer(open: &OpenDisk, request: u32, argument: u64, guest: &dyn Asker) -> Result<u64> {
    let give = |bytes: &[u8]| guest.write(argument, bytes).map(|()| 0);
    let number = |value: u32| give(&value.to_ne_bytes());
    let long = |value: u64| give(&value.to_ne_bytes());
    let size = open.window()?.length;
    match request {
        0x0301 => give(&geometry(open)?),
        // BLKROSET, BLKROGET
        0x125d => {
            administers(guest)?;
            open.disk().set_read_only(taken::<4>(guest, argument)? != [0; 4]).map(|()| 0)
        }
        0x125e => number(u32::from(open.disk().is_read_only())),
        // BLKRRPART
        0x125f => {
            if open.part() != Part::Whole {
                return Err(Errno::INVAL);
            }
            administers(guest)?;
            open.disk().read_partitions().map(|()| 0)
        }
        // BLKGETSIZE, BLKGETSIZE64
        0x1260 => long(size / SECTOR),
        0x8008_1272 => long(size),
        // BLKFLSBUF
        0x1261 => {
            administers(guest)?;
            open.sync().map(|()| 0)
        }
        // BLKRASET, BLKFRASET; BLKRAGET, BLKFRAGET
        0x1262 | 0x1264 => administers(guest).map(|()| 0),
        0x1263 | 0x1265 => long(256),
        // BLKSECTGET
        0x1267 => give(&2560u16.to_ne_bytes()),
        // BLKSSZGET, BLKPBSZGET, BLKIOMIN
        0x1268 | 0x127b | 0x1278 => number(512),
        // BLKIOOPT, BLKALIGNOFF, BLKDISCARDZEROES
        0x1279 | 0x127a | 0x127c => number(0),
        // BLKROTATIONAL
        0x127e => give(&0u16.to_ne_bytes()),
        // BLKBSZGET, BLKBSZSET
        0x8008_1270 => number(4096),
        0x4008_1271 => {
            administers(guest)?;
            let size = u32::from_ne_bytes(taken(guest, argument)?);
            let is_block = size.is_power_of_two() && (512..=65536).contains(&size);
            if is_block {
                Ok(0)
            } else {
                Err(Errno::INVAL)
            }
        }
        0x1269 => partition(open, argument, guest),
        // BLKDISCARD, BLKSECDISCARD, BLKZEROOUT
        0x1277 => {
            let (start, length) = range(open, argument, guest)?;
            open.disk().storage().discard(start, length).map(|()| 0)
        }
        0x127d => Err(Errno::OPNOTSUPP),
        0x127f => {
            let (start, length) = range(open, argument, guest)?;
            open.disk().storage().zero(start, length).map(|()| 0)
        }
        // BLKGETDISKSEQ
        0x8008_1280 => long(1),
        // BLKGETZONESZ, BLKGETNRZONES
        0x8004_1284 | 0x8004_1285 => number(0),
        _ => Err(Errno::NOTTY),
    }
}

fn taken<const N: usize>(guest: &dyn Asker, address: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    guest.read(address, &mut bytes)?;
    Ok(bytes)
}

/// Checks for `CAP_SYS_ADMIN`; who has no faked identity is the master of his own view.
fn administers(guest: &dyn Asker) -> Result<()> {
    let who = guest.caller().credentials;
    if who.is_faked() && !who.capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::ACCESS);
    }
    Ok(())
}

/// `struct hd_geometry`, as drivers make it up that have none.
fn geometry(open: &OpenDisk) -> Result<[u8; 16]> {
    const HEADS: u8 = 255;
    const SECTORS: u8 = 63;
    let window = open.window()?;
    let whole = open.disk().window(Part::Whole).map_or(0, |whole| whole.length);
    let cylinders = whole / SECTOR / (u64::from(HEADS) * u64::from(SECTORS));
    let mut bytes = [0; 16];
    (bytes[0], bytes[1]) = (HEADS, SECTORS);
    bytes[2..4].copy_from_slice(&u16::try_from(cylinders).unwrap_or(u16::MAX).to_ne_bytes());
    bytes[8..].copy_from_slice(&(window.start / SECTOR).to_ne_bytes());
    Ok(bytes)
}

/// The start, on the disk, and the length that a pair of numbers tells: `blk_validate_byte_range`.
fn range(open: &OpenDisk, argument: u64, guest: &dyn Asker) -> Result<(u64, u64)> {
    if !open.is_writable() {
        return Err(Errno::BADF);
    }
    if open.is_read_only() {
        return Err(Errno::PERM);
    }
    let bytes: [u8; 16] = taken(guest, argument)?;
    let (start, length) = (word(&bytes, 0), word(&bytes, 8));
    if (start | length) % SECTOR != 0 || length == 0 {
        return Err(Errno::INVAL);
    }
    Ok((open.place(start, length)?, length))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

/// `BLKPG`: adds, removes and resizes partitions: `blkpg_do_ioctl`.
fn partition(open: &OpenDisk, argument: u64, guest: &dyn Asker) -> Result<u64> {
    const ADD: i32 = 1;
    const REMOVE: i32 = 2;
    const RESIZE: i32 = 3;
    let order: [u8; 24] = taken(guest, argument)?;
    administers(guest)?;
    // struct blkpg_partition: start, length, number, two names.
    let described: [u8; 24] = taken(guest, word(&order, 16))?;
    if open.part() != Part::Whole {
        return Err(Errno::INVAL);
    }
    let int =
        |bytes: &[u8], at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
    let number = u32::try_from(int(&described, 16)).ok().filter(|n| *n > 0).ok_or(Errno::INVAL)?;
    let new = || Partition { number, start: word(&described, 0), length: word(&described, 8) };
    match int(&order, 0) {
        ADD => open.disk().add(new()),
        REMOVE => open.disk().remove(number),
        RESIZE => open.disk().resize(new()),
        _ => Err(Errno::INVAL),
    }
    .map(|()| 0)
}
