//! Partition tables as the kernel reads them: `block/partitions/msdos.c` and `efi.c`. Whatever a table says, as many
//! partitions as fit are found in bounded time. Knows nothing of who uses them.

use umvu_driver::Storage;
use umvu_interface::Result;

/// A piece of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// From 1 on.
    pub number: u32,
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// Bytes in a sector.
pub const SECTOR: u64 = 512;

/// As many partitions a disk has at most: `DISK_MAX_PARTS` of linux/blkdev.h.
pub const MOST: u32 = 256;

/// Reads the partition table of a disk; one without a table has no partitions.
///
/// # Errors
/// - `EIO`: the first sector cannot be read.
pub fn read(disk: &dyn Storage) -> Result<Vec<Partition>> {
    let sectors = disk.size() / SECTOR;
    if sectors == 0 {
        return Ok(Vec::new());
    }
    let first = sector(disk, 0)?;
    let found = match gpt(disk, &first, sectors) {
        Some(found) => found,
        None => mbr(disk, &first),
    };
    let fits = |(number, start, length): (u32, u64, u64)| {
        // What begins on the disk ends on it: blk_add_partition of block/partitions/core.c.
        let length = length.min(sectors.checked_sub(start)?);
        (length > 0).then(|| Partition { number, start: start * SECTOR, length: length * SECTOR })
    };
    Ok(found.into_iter().filter_map(fits).collect())
}

type Sector = [u8; 512];

/// The type of the entry that covers a GUID table in a master boot record.
const PROTECTIVE: u8 = 0xee;

fn sector(disk: &dyn Storage, number: u64) -> Result<Sector> {
    let mut bytes = [0; 512];
    disk.read_at(number.saturating_mul(SECTOR), &mut bytes)?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// An entry of a master boot record.
struct Entry {
    flag: u8,
    kind: u8,
    start: u64,
    length: u64,
}

impl Entry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

fn entries(sector: &Sector) -> Option<[Entry; 4]> {
    (sector[510..] == [0x55, 0xaa]).then(|| {
        std::array::from_fn(|i| {
            let entry = &sector[446 + 16 * i..462 + 16 * i];
            let (start, length) = (u32_at(entry, 8), u32_at(entry, 12));
            Entry { flag: entry[0], kind: entry[4], start: start.into(), length: length.into() }
        })
    })
}

fn mbr(disk: &dyn Storage, first: &Sector) -> Vec<(u32, u64, u64)> {
    let Some(table) = entries(first) else { return Vec::new() };
    // A boot sector without a table has code there; and one that protects a GUID table tells nothing else.
    if table.iter().any(|entry| entry.flag & 0x7f != 0 || entry.kind == PROTECTIVE) {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut logical = 5;
    for (number, entry) in (1..).zip(&table) {
        if entry.length == 0 {
            continue;
        }
        if entry.is_extended() {
            // Shown with room for a boot loader.
            found.push((number, entry.start, entry.length.min(2)));
            extended(disk, entry, &mut logical, &mut found);
        } else {
            found.push((number, entry.start, entry.length));
        }
    }
    found
}

/// The logical partitions of an extended one: each record tells one, and where the next record is.
fn extended(disk: &dyn Storage, outer: &Entry, next_number: &mut u32, found: &mut Vec<(u32, u64, u64)>) {
    /// Records in a row that tell no partition.
    const EMPTY_MOST: u32 = 100;
    let outer_end = outer.start + outer.length;
    let (mut at, mut size) = (outer.start, outer.length);
    let mut empty = 0;
    while *next_number < MOST && empty <= EMPTY_MOST {
        empty += 1;
        let Some(table) = sector(disk, at).ok().as_ref().and_then(entries) else { return };
        for (index, entry) in table.iter().enumerate() {
            if entry.length == 0 || entry.is_extended() {
                continue;
            }
            let start = at + entry.start;
            let end = start + entry.length;
            // The third and fourth are mostly rubbish.
            let is_inside = entry.start + entry.length <= size && start >= outer.start && end <= outer_end;
            if index >= 2 && !is_inside {
                continue;
            }
            found.push((*next_number, start, entry.length));
            *next_number += 1;
            empty = 0;
            if *next_number == MOST {
                return;
            }
        }
        let Some(next) = table.iter().find(|entry| entry.length > 0 && entry.is_extended()) else { return };
        (at, size) = (outer.start + next.start, next.length);
    }
}

/// The partitions of a GUID partition table, if there is one that is whole: the first header, or the last.
fn gpt(disk: &dyn Storage, first: &Sector, sectors: u64) -> Option<Vec<(u32, u64, u64)>> {
    let table = entries(first)?;
    if !table.iter().any(|entry| entry.kind == PROTECTIVE) {
        return None;
    }
    let last = sectors - 1;
    let entries = gpt_entries(disk, 1, last).or_else(|| gpt_entries(disk, last, last))?;
    let mut found = Vec::new();
    for (number, entry) in (1..MOST).zip(entries.chunks_exact(ENTRY)) {
        let (start, end) = (u64_at(entry, 32), u64_at(entry, 40));
        if entry[..16] != [0; 16] && start <= end && end <= last {
            found.push((number, start, end - start + 1));
        }
    }
    Some(found)
}

/// Bytes in an entry: others than these are not taken (`is_gpt_valid`).
const ENTRY: usize = 128;

/// The entries that the header in a sector tells of, if their sums are right: `is_gpt_valid`.
fn gpt_entries(disk: &dyn Storage, at: u64, last: u64) -> Option<Vec<u8>> {
    /// Many times what any tool makes.
    const ENTRIES_MOST: u32 = 4096;
    let mut header = sector(disk, at).ok()?;
    let size = usize::try_from(u32_at(&header, 12)).ok().filter(|size| (92..=512).contains(size))?;
    let sum = u32_at(&header, 16);
    header[16..20].fill(0);
    let is_header = header[..8] == *b"EFI PART" && crc32(&header[..size]) == sum && u64_at(&header, 24) == at;
    let (first_usable, last_usable) = (u64_at(&header, 40), u64_at(&header, 48));
    if !is_header || first_usable > last || last_usable > last || last_usable < first_usable {
        return None;
    }
    let (count, entry_size, entries_sum) = (u32_at(&header, 80), u32_at(&header, 84), u32_at(&header, 88));
    if usize::try_from(entry_size) != Ok(ENTRY) || count == 0 || count > ENTRIES_MOST {
        return None;
    }
    let mut entries = vec![0; usize::try_from(count).ok()? * ENTRY];
    disk.read_at(u64_at(&header, 72).checked_mul(SECTOR)?, &mut entries).ok()?;
    (crc32(&entries) == entries_sum).then_some(entries)
}

/// The sum that GUID partition tables have: CRC-32 with the polynomial of IEEE 802.3.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// An empty master boot record, with a number that tells disks apart.
pub fn empty_mbr(signature: [u8; 4]) -> [u8; 512] {
    let mut sector = [0; 512];
    sector[440..444].copy_from_slice(&signature);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;
    use umvu_driver::FileStorage;

    use super::*;

    fn disk(sectors: u64) -> (File, FileStorage) {
        let fd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(sectors * SECTOR).unwrap();
        (file.try_clone().unwrap(), FileStorage::new(file, 0, sectors * SECTOR, false))
    }

    fn record(parts: &[(u8, u32, u32)]) -> [u8; 512] {
        let mut sector = empty_mbr([0; 4]);
        for (index, (kind, start, length)) in parts.iter().enumerate() {
            let at = 446 + 16 * index;
            sector[at + 4] = *kind;
            sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
            sector[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
        }
        sector
    }

    #[test]
    fn a_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_disk_without_a_table_has_no_partitions() {
        assert_eq!(read(&disk(100).1), Ok(Vec::new()));
        assert_eq!(read(&disk(0).1), Ok(Vec::new()));
    }

    #[test]
    fn what_lies_beyond_the_end_is_cut_off_or_left_out() {
        let (file, storage) = disk(100);
        file.write_all_at(&record(&[(0x83, 10, 50), (0x83, 60, 1000), (0x83, 100, 1)]), 0).unwrap();
        let found = read(&storage).unwrap();
        let sizes: Vec<_> = found.iter().map(|p| (p.number, p.start / SECTOR, p.length / SECTOR)).collect();
        assert_eq!(sizes, [(1, 10, 50), (2, 60, 40)]);
    }

    #[test]
    fn a_chain_of_records_that_goes_round_ends() {
        let (file, storage) = disk(100);
        file.write_all_at(&record(&[(0x05, 10, 80)]), 0).unwrap();
        file.write_all_at(&record(&[(0x83, 1, 5), (0x05, 0, 80)]), 10 * SECTOR).unwrap();
        let found = read(&storage).unwrap();
        assert_eq!(found.len(), usize::try_from(MOST - 5).unwrap() + 1);
        file.write_all_at(&record(&[(0, 1, 0), (0x05, 0, 80)]), 10 * SECTOR).unwrap();
        assert_eq!(read(&storage).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn no_table_is_too_much(
            sectors in proptest::collection::vec((0u64..64, proptest::collection::vec(any::<u8>(), 66)), 1..12),
            header in any::<bool>(),
        ) {
            let (file, storage) = disk(64);
            for (at, tail) in &sectors {
                let mut sector = [0; 512];
                sector[446..].copy_from_slice(tail);
                sector[510..].copy_from_slice(&[0x55, 0xaa]);
                for entry in 0..4 {
                    sector[446 + 16 * entry] &= 0x80;
                }
                file.write_all_at(&sector, at * SECTOR).unwrap();
            }
            if header {
                file.write_all_at(b"EFI PART", SECTOR).unwrap();
            }
            let found = read(&storage).unwrap();
            prop_assert!(found.len() <= usize::try_from(MOST).unwrap());
            for part in found {
                prop_assert!(part.start + part.length <= 64 * SECTOR && part.length > 0);
            }
        }
    }
}
