//! Images of VirtualBox, version 1.1: a header, a map of blocks, and the blocks in the order in which they were first
//! written.

use std::fs::File;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use umvu_driver::{Behind, ImageFile, Storage, Use};
use umvu_interface::{Errno, Result};

use super::{io_errno, ImageError};

/// An open image.
pub struct Vdi {
    file: File,
    behind: Behind,
    use_: Use,
    size: u64,
    block: u64,
    map_at: u64,
    data_at: u64,
    map: Mutex<Map>,
}

/// Where the blocks are.
struct Map {
    places: Vec<u32>,
    /// How many places are given away.
    taken: u32,
}

/// Of a block that was never written. [`DISCARDED`] ones read as zeros, too.
const FREE: u32 = u32::MAX;
const DISCARDED: u32 = u32::MAX - 1;

const SIGNATURE: u32 = 0xbeda_107f;
const VERSION: u32 = 0x0001_0001;
/// Where the number of places that are given away stands.
const TAKEN_AT: u64 = 0x184;
/// As many blocks an image has at most: its map is held in memory.
const BLOCKS_MOST: u32 = 1 << 24;

/// Where a piece of the disk is.
enum Place {
    Zeros,
    At(u64),
}

impl Vdi {
    /// Opens an image.
    ///
    /// # Errors
    /// An [`ImageError`] that names what is wrong.
    pub fn open(image: ImageFile, use_: Use) -> core::result::Result<Self, ImageError> {
        let ImageFile { file, behind } = image;
        let length = file.metadata()?.len();
        let mut header = [0; 512];
        if length < 512 {
            return Err(ImageError::Foreign("VDI"));
        }
        file.read_exact_at(&mut header, 0)?;
        let half = |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let size = header[0x170..0x178].try_into().map_or(0, u64::from_le_bytes);
        if half(0x40) != SIGNATURE {
            return Err(ImageError::Foreign("VDI"));
        }
        if half(0x44) != VERSION {
            return Err(ImageError::Unsupported(format!("version {}.{}", half(0x44) >> 16, half(0x44) & 0xffff)));
        }
        if !matches!(half(0x4c), 1 | 2) || header[0x1a8..0x1b8] != [0; 16] {
            return Err(ImageError::Unsupported("an image that is the difference to another".into()));
        }
        let (map_at, data_at) = (u64::from(half(0x154)), u64::from(half(0x158)));
        let (block, extra) = (u64::from(half(0x178)), half(0x17c));
        let (blocks, taken) = (half(0x180), half(0x184));
        if extra != 0 || half(0x168) != 512 {
            return Err(ImageError::Unsupported("another size of blocks or sectors".into()));
        }
        let damaged = |what: &str| Err(ImageError::Damaged(what.into()));
        if !block.is_power_of_two() || !(4096..=1 << 26).contains(&block) {
            return damaged("size of blocks");
        }
        if blocks > BLOCKS_MOST || size > u64::from(blocks) * block {
            return damaged("size of the disk");
        }
        if map_at < 512 || map_at + 4 * u64::from(blocks) > data_at || data_at > length {
            return damaged("place of the map");
        }
        let mut bytes = vec![0; 4 * usize::try_from(blocks).unwrap_or(0)];
        file.read_exact_at(&mut bytes, map_at)?;
        let places: Vec<u32> = bytes.chunks_exact(4).map(|b| b.try_into().map_or(FREE, u32::from_le_bytes)).collect();
        let used = places.iter().copied().filter(|place| *place < DISCARDED);
        if used.clone().any(|place| place >= blocks) {
            return damaged("a block beyond the end");
        }
        // The number in the header may be older than the map, after a crash.
        let taken = used.max().map_or(taken, |last| taken.max(last + 1));
        let mut seen = vec![false; places.len()];
        for place in places.iter().filter(|place| **place < DISCARDED) {
            let slot = usize::try_from(*place).ok().and_then(|at| seen.get_mut(at));
            match slot {
                Some(slot) if !*slot => *slot = true,
                _ => return damaged("two blocks in one place"),
            }
        }
        Ok(Self { file, behind, use_, size, block, map_at, data_at, map: Mutex::new(Map { places, taken }) })
    }

    /// Calls `one` for each piece of a range that lies in one block: the block, the offset in it, and the range in the
    /// caller's buffer.
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut one: impl FnMut(usize, u64, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size).ok_or(Errno::IO)?;
        let mut at = offset;
        while at < end {
            let inside = at % self.block;
            let size = (self.block - inside).min(end - at);
            let begin = usize::try_from(at - offset).map_err(|_| Errno::IO)?;
            let size_here = usize::try_from(size).map_err(|_| Errno::IO)?;
            one(usize::try_from(at / self.block).map_err(|_| Errno::IO)?, inside, begin..begin + size_here)?;
            at += size;
        }
        Ok(())
    }

    fn place(&self, map: &Map, index: usize) -> Result<Place> {
        Ok(match *map.places.get(index).ok_or(Errno::IO)? {
            FREE | DISCARDED => Place::Zeros,
            place => Place::At(self.data_at + u64::from(place) * self.block),
        })
    }

    /// Gives a block a place, with `bytes` in it and zeros around them: first the block, then what leads to it.
    fn allocate(&self, map: &mut Map, index: usize, inside: u64, bytes: &[u8]) -> Result<()> {
        let place = map.taken;
        if usize::try_from(place).map_or(true, |place| place >= map.places.len()) {
            return Err(Errno::NOSPC);
        }
        let at = self.data_at + u64::from(place) * self.block;
        let done = || {
            // What an interrupted write has left there.
            let length = self.file.metadata()?.len();
            if length > at {
                self.file.write_all_at(&vec![0; usize::try_from(self.block).unwrap_or(0)], at)?;
            }
            if length < at + self.block {
                self.file.set_len(at + self.block)?;
            }
            self.file.write_all_at(bytes, at + inside)?;
            self.file.write_all_at(&place.to_le_bytes(), self.map_at + 4 * index as u64)?;
            self.file.write_all_at(&(place + 1).to_le_bytes(), TAKEN_AT)
        };
        done().map_err(|error: std::io::Error| io_errno(&error))?;
        map.places[index] = place;
        map.taken = place + 1;
        Ok(())
    }
}

impl Storage for Vdi {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.use_ == Use::Read
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let map = self.map.lock();
        self.each(offset, buffer.len(), |index, inside, range| {
            match self.place(&map, index)? {
                Place::Zeros => buffer[range].fill(0),
                Place::At(at) => {
                    let read = self.file.read_exact_at(&mut buffer[range], at + inside);
                    read.map_err(|error| io_errno(&error))?;
                }
            }
            Ok(())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        let mut map = self.map.lock();
        self.each(offset, bytes.len(), |index, inside, range| match self.place(&map, index)? {
            Place::Zeros => self.allocate(&mut map, index, inside, &bytes[range]),
            Place::At(at) => self.file.write_all_at(&bytes[range], at + inside).map_err(|error| io_errno(&error)),
        })
    }

    fn flush(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| io_errno(&error))?;
        self.behind.sync()
    }

    fn zero(&self, offset: u64, length: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        let map = self.map.lock();
        let length = usize::try_from(length).map_err(|_| Errno::IO)?;
        let zeros = vec![0; usize::try_from(self.block).unwrap_or(0)];
        self.each(offset, length, |index, inside, range| match self.place(&map, index)? {
            Place::Zeros => Ok(()),
            Place::At(at) => {
                self.file.write_all_at(&zeros[..range.len()], at + inside).map_err(|error| io_errno(&error))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An empty image of so many blocks of 4 KiB.
    fn image(blocks: u32) -> File {
        let fd = rustix::fs::memfd_create("vdi", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        let mut header = [0; 512];
        let mut put = |at: usize, value: u32| header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        for (at, value) in [(0x40, SIGNATURE), (0x44, VERSION), (0x4c, 1), (0x154, 512), (0x158, 4096), (0x168, 512)] {
            put(at, value);
        }
        for (at, value) in [(0x170, blocks * 4096), (0x178, 4096), (0x180, blocks)] {
            put(at, value);
        }
        file.write_all_at(&header, 0).unwrap();
        file.write_all_at(&vec![0xff; 4 * usize::try_from(blocks).unwrap()], 512).unwrap();
        file.set_len(4096).unwrap();
        file
    }

    fn open_it(file: &File, use_: Use) -> core::result::Result<Vdi, ImageError> {
        Vdi::open(ImageFile { file: file.try_clone().unwrap(), behind: Behind::nothing() }, use_)
    }

    #[test]
    fn blocks_are_placed_in_the_order_of_their_first_writes() {
        let file = image(8);
        let vdi = open_it(&file, Use::Write).unwrap();
        assert_eq!(vdi.size(), 8 * 4096);
        vdi.write_at(5 * 4096 - 2, b"abcd").unwrap();
        vdi.write_at(0, b"first").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 4096 + 3 * 4096);
        let again = open_it(&file, Use::Read).unwrap();
        let mut all = vec![1; 8 * 4096];
        again.read_at(0, &mut all).unwrap();
        assert_eq!((&all[..6], &all[5 * 4096 - 3..5 * 4096 + 3]), (&b"first\0"[..], &b"\0abcd\0"[..]));
        assert_eq!(again.write_at(0, b"x"), Err(Errno::ROFS));
        assert_eq!(vdi.write_at(8 * 4096 - 1, b"xx"), Err(Errno::IO));
        vdi.zero(0, 8 * 4096).unwrap();
        again.read_at(0, &mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_map_newer_than_its_header_is_believed() {
        let file = image(8);
        file.write_all_at(&0u32.to_le_bytes(), 512).unwrap();
        file.write_all_at(b"kept", 4096).unwrap();
        file.set_len(8192).unwrap();
        let vdi = open_it(&file, Use::Write).unwrap();
        vdi.write_at(4096, b"new").unwrap();
        let mut first = [0; 4];
        vdi.read_at(0, &mut first).unwrap();
        assert_eq!(&first, b"kept");
    }

    #[test]
    fn what_is_no_image_is_named() {
        let file = image(8);
        file.write_all_at(&7u32.to_le_bytes(), 512).unwrap();
        file.write_all_at(&7u32.to_le_bytes(), 516).unwrap();
        let said = |file: &File| open_it(file, Use::Read).err().map(|error| error.to_string());
        assert_eq!(said(&file).unwrap(), "a damaged image: two blocks in one place");
        file.write_all_at(&9u32.to_le_bytes(), 512).unwrap();
        assert_eq!(said(&file).unwrap(), "a damaged image: a block beyond the end");
        file.write_all_at(b"????", 0x40).unwrap();
        assert_eq!(said(&file).unwrap(), "not a VDI image");
    }

    proptest! {
        #[test]
        fn no_header_is_too_much(fields in proptest::collection::vec((0x40usize..0x1c0, any::<u32>()), 1..6)) {
            let file = image(8);
            for (at, value) in fields {
                file.write_all_at(&value.to_le_bytes(), at as u64).unwrap();
            }
            if let Ok(vdi) = open_it(&file, Use::Write) {
                let mut some = [0; 512];
                let _ = vdi.read_at(vdi.size().saturating_sub(512), &mut some);
                let _ = vdi.write_at(0, b"x");
            }
        }
    }
}
