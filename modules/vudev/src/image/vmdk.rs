//! Images of VMware with everything in one file (`monolithicSparse`, `streamOptimized`): a directory of tables, the tables
//! of grains, and the grains in the order in which they were first written. Follows VMware's "Virtual Disk Format 5.0".

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;

use parking_lot::Mutex;
use umvu_driver::{Behind, ImageFile, Storage, Use};
use umvu_interface::{Errno, Result};

use super::{io_errno, ImageError};

/// An open image.
pub struct Vmdk {
    file: File,
    behind: Behind,
    use_: Use,
    size: u64,
    /// Bytes in a grain.
    grain: u64,
    is_compressed: bool,
    /// The directories: where the tables are, in sectors; of each copy.
    directories: Vec<Vec<u32>>,
    /// Tables that were read last.
    tables: Mutex<HashMap<usize, Vec<u32>>>,
}

const MAGIC: [u8; 4] = *b"KDMV";
const SECTOR: u64 = 512;
/// Grains in a table: the only number there is.
const TABLE: usize = 512;
/// Tables that are kept.
const KEPT: usize = 256;
/// As large as a disk is at most: 64 TiB of the usual grains.
const TABLES_MOST: u64 = 1 << 21;
/// Of a grain that reads as zeros, if the header says that there are such.
const ZEROED: u32 = 1;
/// `GD_AT_END`: the last header is the true one.
const AT_END: u64 = u64::MAX;

mod flag {
    pub const SECOND_TABLES: u32 = 1 << 1;
    pub const ZEROED_GRAINS: u32 = 1 << 2;
    pub const COMPRESSED: u32 = 1 << 16;
    pub const MARKERS: u32 = 1 << 17;
    /// With one that tells of line ends.
    pub const KNOWN: u32 = 1 | SECOND_TABLES | ZEROED_GRAINS | COMPRESSED | MARKERS;
}

/// A header.
struct Header([u8; 512]);

impl Header {
    fn read(file: &File, at: u64) -> core::result::Result<Self, ImageError> {
        let mut bytes = [0; 512];
        file.read_exact_at(&mut bytes, at).map_err(|_| ImageError::Foreign("VMDK"))?;
        match bytes[..4] == MAGIC {
            true => Ok(Self(bytes)),
            false => Err(ImageError::Foreign("VMDK")),
        }
    }

    fn half(&self, at: usize) -> u32 {
        self.0.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
    }

    fn word(&self, at: usize) -> u64 {
        self.0.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
    }
}

fn damaged(what: &str) -> ImageError {
    ImageError::Damaged(what.into())
}

impl Vmdk {
    /// Opens an image.
    ///
    /// # Errors
    /// An [`ImageError`] that names what is wrong.
    pub fn open(image: ImageFile, use_: Use) -> core::result::Result<Self, ImageError> {
        let ImageFile { file, behind } = image;
        let length = file.metadata()?.len();
        let mut start = [0; 21];
        if file.read_exact_at(&mut start, 0).is_ok() && start == *b"# Disk DescriptorFile" {
            return Err(ImageError::Unsupported("an image in several files".into()));
        }
        let mut header = Header::read(&file, 0)?;
        if header.word(56) == AT_END {
            // The footer is followed by the marker of the end.
            header = Header::read(&file, length.checked_sub(2 * SECTOR).ok_or_else(|| damaged("no footer"))?)?;
        }
        if !(1..=3).contains(&header.half(4)) {
            return Err(ImageError::Unsupported(format!("version {}", header.half(4))));
        }
        let flags = header.half(8);
        let compression = (header.half(76) >> 8) & 0xffff;
        if flags & !flag::KNOWN != 0 || compression > 1 {
            return Err(ImageError::Unsupported(format!("flags {flags:#x}")));
        }
        let is_compressed = flags & flag::COMPRESSED != 0;
        if is_compressed && use_ == Use::Write {
            return Err(ImageError::Unsupported("writing to a compressed image".into()));
        }
        if header.0[72] != 0 {
            return Err(damaged("not closed when it was last written"));
        }
        let (capacity, sectors) = (header.word(12), header.word(20));
        if !sectors.is_power_of_two() || !(8..=2048).contains(&sectors) || header.half(44) != 512 {
            return Err(damaged("size of grains or tables"));
        }
        let grain = sectors * SECTOR;
        let size = capacity.checked_mul(SECTOR).filter(|size| i64::try_from(*size).is_ok());
        let size = size.ok_or_else(|| damaged("size of the disk"))?;
        let tables = size.div_ceil(grain * TABLE as u64);
        if tables > TABLES_MOST {
            return Err(damaged("size of the disk"));
        }
        check_descriptor(&file, &header)?;
        let mut places = vec![header.word(56)];
        if flags & flag::SECOND_TABLES != 0 {
            places.push(header.word(48));
        }
        let directory = |at: u64| {
            let mut bytes = vec![0; usize::try_from(tables * 4).unwrap_or(0)];
            let at = at.checked_mul(SECTOR).ok_or_else(|| damaged("place of the tables"))?;
            file.read_exact_at(&mut bytes, at).map_err(|_| damaged("place of the tables"))?;
            Ok(bytes.chunks_exact(4).map(|b| b.try_into().map_or(0, u32::from_le_bytes)).collect::<Vec<u32>>())
        };
        let directories = places.into_iter().map(directory).collect::<core::result::Result<Vec<_>, ImageError>>()?;
        if use_ == Use::Write && directories.iter().flatten().any(|table| *table == 0) {
            return Err(ImageError::Unsupported("writing to an image without all of its tables".into()));
        }
        let tables = Mutex::default();
        Ok(Self { file, behind, use_, size, grain, is_compressed, directories, tables })
    }

    /// Calls `one` for each piece of a range that lies in one grain: the grain, the offset in it, and the range in the
    /// caller's buffer.
    fn each(
        &self,
        offset: u64,
        length: usize,
        mut one: impl FnMut(u64, u64, std::ops::Range<usize>) -> Result<()>,
    ) -> Result<()> {
        let end = offset.checked_add(length as u64).filter(|end| *end <= self.size).ok_or(Errno::IO)?;
        let mut at = offset;
        while at < end {
            let inside = at % self.grain;
            let size = (self.grain - inside).min(end - at);
            let begin = usize::try_from(at - offset).map_err(|_| Errno::IO)?;
            one(at / self.grain, inside, begin..begin + usize::try_from(size).map_err(|_| Errno::IO)?)?;
            at += size;
        }
        Ok(())
    }

    /// Where a grain's entry stands: its table, and its number there.
    fn entry(number: u64) -> Result<(usize, usize)> {
        let number = usize::try_from(number).map_err(|_| Errno::IO)?;
        Ok((number / TABLE, number % TABLE))
    }

    /// Where a grain is, in sectors; `None` if it reads as zeros.
    fn place(&self, tables: &mut HashMap<usize, Vec<u32>>, number: u64) -> Result<Option<u64>> {
        let (table, entry) = Self::entry(number)?;
        if !tables.contains_key(&table) {
            if tables.len() >= KEPT {
                tables.clear();
            }
            let entries = match *self.directories[0].get(table).ok_or(Errno::IO)? {
                0 => vec![0; TABLE],
                at => {
                    let mut bytes = vec![0; TABLE * 4];
                    let read = self.file.read_exact_at(&mut bytes, u64::from(at) * SECTOR);
                    read.map_err(|error| io_errno(&error))?;
                    bytes.chunks_exact(4).map(|b| b.try_into().map_or(0, u32::from_le_bytes)).collect()
                }
            };
            tables.insert(table, entries);
        }
        match tables.get(&table).and_then(|entries| entries.get(entry).copied()) {
            None => Err(Errno::IO),
            Some(0 | ZEROED) => Ok(None),
            Some(place) => Ok(Some(u64::from(place))),
        }
    }

    /// Unpacks a grain: its number, the size of what is packed, and that.
    fn unpack(&self, place: u64) -> Result<Vec<u8>> {
        let at = place * SECTOR;
        let mut marker = [0; 12];
        self.file.read_exact_at(&mut marker, at).map_err(|error| io_errno(&error))?;
        let size = marker[8..].try_into().map_or(0, u32::from_le_bytes);
        let most = self.grain * 2;
        if u64::from(size) > most {
            return Err(Errno::UCLEAN);
        }
        let mut packed = vec![0; usize::try_from(size).map_err(|_| Errno::IO)?];
        self.file.read_exact_at(&mut packed, at + 12).map_err(|error| io_errno(&error))?;
        let mut grain = Vec::new();
        let unpacked = flate2::read::ZlibDecoder::new(&packed[..]).take(self.grain).read_to_end(&mut grain);
        unpacked.map_err(|_| Errno::UCLEAN)?;
        grain.resize(usize::try_from(self.grain).map_err(|_| Errno::IO)?, 0);
        Ok(grain)
    }

    /// Gives a grain a place, with `bytes` in it and zeros around them: first the grain, then what leads to it.
    fn allocate(&self, tables: &mut HashMap<usize, Vec<u32>>, number: u64, inside: u64, bytes: &[u8]) -> Result<()> {
        let (table, entry) = Self::entry(number)?;
        let done = || {
            let at = self.file.metadata()?.len().next_multiple_of(self.grain);
            let place =
                u32::try_from(at / SECTOR).map_err(|_| std::io::Error::from(std::io::ErrorKind::FileTooLarge))?;
            self.file.set_len(at + self.grain)?;
            self.file.write_all_at(bytes, at + inside)?;
            for directory in self.directories.iter().rev() {
                let start = directory.get(table).map_or(0, |at| u64::from(*at) * SECTOR);
                self.file.write_all_at(&place.to_le_bytes(), start + 4 * entry as u64)?;
            }
            Ok(place)
        };
        let place = done().map_err(|error: std::io::Error| io_errno(&error))?;
        if let Some(known) = tables.get_mut(&table).and_then(|entries| entries.get_mut(entry)) {
            *known = place;
        }
        Ok(())
    }
}

/// What the text in an image says of it.
fn check_descriptor(file: &File, header: &Header) -> core::result::Result<(), ImageError> {
    const LONGEST: u64 = 64 << 10;
    let (at, size) = (header.word(28), header.word(36).saturating_mul(SECTOR).min(LONGEST));
    if at == 0 || size == 0 {
        return Ok(());
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let at = at.checked_mul(SECTOR).ok_or_else(|| damaged("place of the descriptor"))?;
    file.read_exact_at(&mut bytes, at).map_err(|_| damaged("place of the descriptor"))?;
    let value = |key: &[u8]| {
        let mut lines = bytes.split(|byte| matches!(byte, b'\n' | 0));
        lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(b"=")).map(<[u8]>::trim_ascii)
    };
    if value(b"parentCID").is_some_and(|parent| !parent.eq_ignore_ascii_case(b"ffffffff")) {
        return Err(ImageError::Unsupported("an image that is the difference to another".into()));
    }
    let kind = value(b"createType").unwrap_or(b"\"monolithicSparse\"");
    if !matches!(kind, b"\"monolithicSparse\"" | b"\"streamOptimized\"") {
        return Err(ImageError::Unsupported(format!("an image of type {}", kind.escape_ascii())));
    }
    Ok(())
}

impl Storage for Vmdk {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.use_ == Use::Read
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut tables = self.tables.lock();
        self.each(offset, buffer.len(), |grain, inside, range| {
            let out = &mut buffer[range];
            match self.place(&mut tables, grain)? {
                None => out.fill(0),
                Some(place) if self.is_compressed => {
                    let from = usize::try_from(inside).map_err(|_| Errno::IO)?;
                    let length = out.len();
                    out.copy_from_slice(&self.unpack(place)?[from..from + length]);
                }
                Some(place) => {
                    let read = self.file.read_exact_at(out, place * SECTOR + inside);
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
        let mut tables = self.tables.lock();
        self.each(offset, bytes.len(), |grain, inside, range| match self.place(&mut tables, grain)? {
            None => self.allocate(&mut tables, grain, inside, &bytes[range]),
            Some(place) => {
                let written = self.file.write_all_at(&bytes[range], place * SECTOR + inside);
                written.map_err(|error| io_errno(&error))
            }
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
        let mut tables = self.tables.lock();
        let length = usize::try_from(length).map_err(|_| Errno::IO)?;
        let zeros = vec![0; usize::try_from(self.grain).unwrap_or(0)];
        self.each(offset, length, |grain, inside, range| match self.place(&mut tables, grain)? {
            None => Ok(()),
            Some(place) => {
                let written = self.file.write_all_at(&zeros[..range.len()], place * SECTOR + inside);
                written.map_err(|error| io_errno(&error))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An empty image of 1 MiB in grains of 4 KiB, with both copies of its table.
    fn image() -> File {
        let fd = rustix::fs::memfd_create("vmdk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        let mut header = [0; 512];
        header[..4].copy_from_slice(&MAGIC);
        for (at, value) in [(4, 1u32), (8, 3), (44, 512)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        for (at, value) in [(12, 2048u64), (20, 8), (48, 1), (56, 2), (64, 16)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        file.write_all_at(&header, 0).unwrap();
        file.write_all_at(&3u32.to_le_bytes(), 512).unwrap();
        file.write_all_at(&7u32.to_le_bytes(), 1024).unwrap();
        file.set_len(16 * 512).unwrap();
        file
    }

    fn open_it(file: &File, use_: Use) -> core::result::Result<Vmdk, ImageError> {
        Vmdk::open(ImageFile { file: file.try_clone().unwrap(), behind: Behind::nothing() }, use_)
    }

    #[test]
    fn what_is_written_is_read_again_by_either_table() {
        let file = image();
        let vmdk = open_it(&file, Use::Write).unwrap();
        vmdk.write_at(5 * 4096 - 2, b"abcd").unwrap();
        vmdk.write_at(0, b"first").unwrap();
        assert_eq!(vmdk.write_at((1 << 20) - 1, b"xx"), Err(Errno::IO));
        assert_eq!(file.metadata().unwrap().len(), 16 * 512 + 3 * 4096);
        for tables in [3u32, 7] {
            file.write_all_at(&tables.to_le_bytes(), 1024).unwrap();
            let again = open_it(&file, Use::Read).unwrap();
            let mut all = vec![1; 1 << 20];
            again.read_at(0, &mut all).unwrap();
            assert_eq!((&all[..6], &all[5 * 4096 - 3..5 * 4096 + 3]), (&b"first\0"[..], &b"\0abcd\0"[..]));
            assert_eq!(again.write_at(0, b"x"), Err(Errno::ROFS));
        }
    }

    #[test]
    fn what_is_no_image_is_named() {
        let file = image();
        let said = |file: &File| open_it(file, Use::Write).err().map(|error| error.to_string());
        file.write_all_at(&[1], 72).unwrap();
        assert_eq!(said(&file).unwrap(), "a damaged image: not closed when it was last written");
        file.write_all_at(&[0], 72).unwrap();
        file.write_all_at(&0x10003u32.to_le_bytes(), 8).unwrap();
        assert_eq!(said(&file).unwrap(), "writing to a compressed image is not supported");
        file.write_all_at(b"????", 0).unwrap();
        assert_eq!(said(&file).unwrap(), "not a VMDK image");
    }

    proptest! {
        #[test]
        fn no_header_is_too_much(fields in proptest::collection::vec((0u64..16 * 128, any::<u32>()), 1..6)) {
            let file = image();
            for (at, value) in fields {
                file.write_all_at(&value.to_le_bytes(), at * 4).unwrap();
            }
            file.write_all_at(&MAGIC, 0).unwrap();
            // A file of any size is not made of an entry of any size.
            for use_ in [Use::Read, Use::Write] {
                if let Ok(vmdk) = open_it(&file, use_) {
                    let mut some = [0; 512];
                    let _ = vmdk.read_at(vmdk.size().saturating_sub(512), &mut some);
                    let _ = vmdk.write_at(0, b"x");
                }
            }
        }
    }
}
