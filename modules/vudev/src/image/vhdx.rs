//! Images of Hyper-V, version 2 (VHDX), which are only read: headers, regions, metadata and the table of blocks. Follows
//! Microsoft's \[MS-VHDX\]. What the log of an image has not brought to its place yet is not known here: such an image is
//! refused.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use umvu_driver::{Behind, ImageFile, Storage, Use};
use umvu_interface::{Errno, Result};

use super::{io_errno, ImageError};

/// An open image.
pub struct Vhdx {
    file: File,
    _behind: Behind,
    size: u64,
    block: u64,
    /// Where the table of blocks is, in bytes.
    table: u64,
    /// After so many entries comes one that tells of something else.
    chunk: u64,
    /// Pieces of the table that were read last.
    pieces: Mutex<HashMap<u64, Vec<u8>>>,
}

/// The identifiers of regions and metadata, as they stand in an image: 2.2.3.2 and 2.6.2.
mod id {
    pub const TABLE: [u8; 16] = *b"\x66\x77\xc2\x2d\x23\xf6\x00\x42\x9d\x64\x11\x5e\x9b\xfd\x4a\x08";
    pub const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    pub const PARAMETERS: [u8; 16] = *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    pub const SIZE: [u8; 16] = *b"\x24\x42\xa5\x2f\x1b\xcd\x76\x48\xb2\x11\x5d\xbe\xd8\x3b\xf4\xb8";
    pub const SECTOR: [u8; 16] = *b"\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f";
}

const KIB64: usize = 64 << 10;
/// As many bytes of the table are read at once, and as many such pieces are kept.
const PIECE: u64 = 4096;
const KEPT: usize = 256;
/// As large as a disk is at most: 64 TiB.
const SIZE_MOST: u64 = 64 << 40;

fn damaged(what: &str) -> ImageError {
    ImageError::Damaged(what.into())
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// CRC-32C of something whose own sum, of four bytes from `at` on, counts as zeros.
fn sum_of(bytes: &[u8], at: usize) -> u32 {
    let mut sum = !0u32;
    for (place, byte) in bytes.iter().enumerate() {
        let byte = if (at..at + 4).contains(&place) { 0 } else { *byte };
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

fn read(file: &File, at: u64, size: usize) -> core::result::Result<Vec<u8>, ImageError> {
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, at).map_err(|_| damaged("it ends too early"))?;
    Ok(bytes)
}

/// Where a region is, and how long.
fn region(entries: &[u8], wanted: [u8; 16]) -> core::result::Result<(u64, u64), ImageError> {
    let count = usize::try_from(half(entries, 8)).unwrap_or(usize::MAX).min(2047);
    let found = entries[16..].chunks_exact(32).take(count).find(|entry| entry[..16] == wanted);
    found.map(|entry| (word(entry, 16), half(entry, 24).into())).ok_or_else(|| damaged("a region is missing"))
}

impl Vhdx {
    /// Opens an image.
    ///
    /// # Errors
    /// An [`ImageError`] that names what is wrong.
    pub fn open(image: ImageFile, use_: Use) -> core::result::Result<Self, ImageError> {
        let ImageFile { file, behind } = image;
        let mut start = [0; 8];
        if file.read_exact_at(&mut start, 0).is_err() || start != *b"vhdxfile" {
            return Err(ImageError::Foreign("VHDX"));
        }
        if use_ == Use::Write {
            return Err(ImageError::Unsupported("writing to a VHDX image".into()));
        }
        let headers = [1u64, 2].map(|at| read(&file, at * KIB64 as u64, 4096));
        let is_header = |bytes: &Vec<u8>| bytes[..4] == *b"head" && sum_of(bytes, 4) == half(bytes, 4);
        let header = headers.into_iter().filter_map(core::result::Result::ok).filter(is_header);
        let header = header.max_by_key(|bytes| word(bytes, 8)).ok_or_else(|| damaged("no header"))?;
        // The number of the log: none, if all is where it belongs.
        if header[48..64] != [0; 16] {
            return Err(damaged("not closed when it was last written"));
        }
        let regions = [3u64, 4].map(|at| read(&file, at * KIB64 as u64, KIB64));
        let is_table = |bytes: &Vec<u8>| bytes[..4] == *b"regi" && sum_of(bytes, 4) == half(bytes, 4);
        let regions = regions.into_iter().filter_map(core::result::Result::ok).find(is_table);
        let regions = regions.ok_or_else(|| damaged("no table of regions"))?;
        let (table, table_length) = region(&regions, id::TABLE)?;
        let (metadata, _) = region(&regions, id::METADATA)?;
        let list = read(&file, metadata, KIB64)?;
        if list[..8] != *b"metadata" {
            return Err(damaged("metadata"));
        }
        let item = |wanted: [u8; 16], size: usize| {
            let count = usize::from(u16::from_le_bytes([list[10], list[11]])).min(2047);
            let found = list[32..].chunks_exact(32).take(count).find(|entry| entry[..16] == wanted);
            let at = found.and_then(|entry| metadata.checked_add(half(entry, 16).into()));
            read(&file, at.ok_or_else(|| damaged("metadata"))?, size)
        };
        let parameters = item(id::PARAMETERS, 8)?;
        let (block, flags) = (u64::from(half(&parameters, 0)), half(&parameters, 4));
        let (size, sector) = (word(&item(id::SIZE, 8)?, 0), u64::from(half(&item(id::SECTOR, 4)?, 0)));
        if flags & 2 != 0 {
            return Err(ImageError::Unsupported("an image that is the difference to another".into()));
        }
        if !block.is_power_of_two() || !(1 << 20..=1 << 28).contains(&block) || !matches!(sector, 512 | 4096) {
            return Err(damaged("size of blocks or sectors"));
        }
        let chunk = (sector << 23) / block;
        let blocks = size.div_ceil(block);
        if size > SIZE_MOST || (blocks + blocks / chunk) * 8 > table_length || table < 1 << 20 {
            return Err(damaged("size of the disk"));
        }
        Ok(Self { file, _behind: behind, size, block, table, chunk, pieces: Mutex::default() })
    }

    /// Where a block is; `None` if it reads as zeros.
    fn place(&self, number: u64) -> Result<Option<u64>> {
        /// `PAYLOAD_BLOCK_FULLY_PRESENT`.
        const PRESENT: u64 = 6;
        let at = (number + number / self.chunk) * 8;
        let (piece, inside) = (at / PIECE, usize::try_from(at % PIECE).map_err(|_| Errno::IO)?);
        let mut pieces = self.pieces.lock();
        if !pieces.contains_key(&piece) {
            if pieces.len() >= KEPT {
                pieces.clear();
            }
            let mut bytes = vec![0; usize::try_from(PIECE).map_err(|_| Errno::IO)?];
            let start = self.table.checked_add(piece * PIECE).ok_or(Errno::IO)?;
            self.file.read_exact_at(&mut bytes, start).map_err(|error| io_errno(&error))?;
            pieces.insert(piece, bytes);
        }
        let entry = pieces.get(&piece).map_or(0, |bytes| word(bytes, inside));
        match entry & 7 {
            PRESENT => Ok(Some(entry >> 20 << 20)),
            0..=3 => Ok(None),
            _ => Err(Errno::UCLEAN),
        }
    }
}

impl Storage for Vhdx {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size).ok_or(Errno::IO)?;
        let mut at = offset;
        while at < end {
            let inside = at % self.block;
            let size = (self.block - inside).min(end - at);
            let begin = usize::try_from(at - offset).map_err(|_| Errno::IO)?;
            let out = &mut buffer[begin..begin + usize::try_from(size).map_err(|_| Errno::IO)?];
            match self.place(at / self.block)? {
                None => out.fill(0),
                Some(place) => {
                    let start = place.checked_add(inside).ok_or(Errno::IO)?;
                    self.file.read_exact_at(out, start).map_err(|error| io_errno(&error))?;
                }
            }
            at += size;
        }
        Ok(())
    }

    fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(Errno::ROFS)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An image of 4 MiB in blocks of 1 MiB, of which the second is there.
    fn image() -> File {
        let fd = rustix::fs::memfd_create("vhdx", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(6 << 20).unwrap();
        file.write_all_at(b"vhdxfile", 0).unwrap();
        let mut header = vec![0; 4096];
        header[..4].copy_from_slice(b"head");
        let sum = sum_of(&header, 4);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, 64 << 10).unwrap();
        let mut regions = vec![0; KIB64];
        regions[..4].copy_from_slice(b"regi");
        regions[8] = 2;
        for (at, id, place) in [(16, id::TABLE, 3u64 << 20), (48, id::METADATA, 2 << 20)] {
            regions[at..at + 16].copy_from_slice(&id);
            regions[at + 16..at + 24].copy_from_slice(&place.to_le_bytes());
            regions[at + 24..at + 28].copy_from_slice(&(1u32 << 20).to_le_bytes());
        }
        let sum = sum_of(&regions, 4);
        regions[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&regions, 192 << 10).unwrap();
        let mut list = vec![0; KIB64 + 64];
        list[..8].copy_from_slice(b"metadata");
        list[10] = 3;
        for (at, id, place) in [(32, id::PARAMETERS, 0), (64, id::SIZE, 16), (96, id::SECTOR, 32)] {
            list[at..at + 16].copy_from_slice(&id);
            list[at + 16..at + 20].copy_from_slice(&(65536u32 + place).to_le_bytes());
        }
        list[KIB64..KIB64 + 4].copy_from_slice(&(1u32 << 20).to_le_bytes());
        list[KIB64 + 16..KIB64 + 24].copy_from_slice(&(4u64 << 20).to_le_bytes());
        list[KIB64 + 32..KIB64 + 36].copy_from_slice(&512u32.to_le_bytes());
        file.write_all_at(&list, 2 << 20).unwrap();
        file.write_all_at(&((4u64 << 20) | 6).to_le_bytes(), (3 << 20) + 8).unwrap();
        file.write_all_at(b"block", 4 << 20).unwrap();
        file
    }

    fn open_it(file: &File) -> core::result::Result<Vhdx, ImageError> {
        Vhdx::open(ImageFile { file: file.try_clone().unwrap(), behind: Behind::nothing() }, Use::Read)
    }

    #[test]
    fn a_sum_is_that_of_the_standard() {
        assert_eq!(sum_of(b"123456789", 100), 0xe306_9283);
    }

    #[test]
    fn blocks_are_found_and_others_are_zeros() {
        let vhdx = open_it(&image()).unwrap();
        let mut bytes = [1; 7];
        vhdx.read_at((1 << 20) - 1, &mut bytes).unwrap();
        assert_eq!((&bytes, vhdx.size()), (b"\0block\0", 4 << 20));
        assert_eq!(vhdx.read_at((4 << 20) - 3, &mut bytes), Err(Errno::IO));
    }

    #[test]
    fn an_image_with_a_log_is_refused() {
        let file = image();
        let mut header = vec![0; 4096];
        header[..4].copy_from_slice(b"head");
        header[8] = 1;
        header[48] = 1;
        let sum = sum_of(&header, 4);
        header[4..8].copy_from_slice(&sum.to_le_bytes());
        file.write_all_at(&header, 128 << 10).unwrap();
        let said = open_it(&file).err().map(|error| error.to_string());
        assert_eq!(said.unwrap(), "a damaged image: not closed when it was last written");
    }

    proptest! {
        #[test]
        fn nothing_an_image_says_is_too_much(
            places in proptest::collection::vec((0usize..3, 0u64..64, any::<u32>()), 1..4),
        ) {
            let file = image();
            for (what, at, value) in places {
                let start = [2 << 20, (2 << 20) + KIB64 as u64, 3 << 20][what];
                file.write_all_at(&value.to_le_bytes(), start + at * 4).unwrap();
            }
            if let Ok(vhdx) = open_it(&file) {
                let mut some = [0; 512];
                let _ = vhdx.read_at(vhdx.size().saturating_sub(512), &mut some);
                let _ = vhdx.read_at(0, &mut some);
            }
        }
    }
}
