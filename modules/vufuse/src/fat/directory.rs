//! Directories: records of 32 bytes, those of a long name before the one of its file. Follows `fs/fat/dir.c`.

use umvu_interface::{Errno, Result, Timestamp};

use crate::image::Image;
use umvu_archive::Fields;

use super::boot::Layout;
use super::name::{is_same, records, Short, PLACES};
use super::table::Table;

pub const READ_ONLY: u8 = 1;
pub const LABEL: u8 = 8;
pub const DIRECTORY: u8 = 16;
pub const ARCHIVE: u8 = 32;
/// Of a piece of a long name.
const LONG: u8 = 15;
/// Size of a record.
pub const RECORD: u64 = 32;
/// Most records that a directory has.
const MOST: u64 = 65_536;
/// Says of a record that it is free.
const FREE: u8 = 0xe5;

/// What the record of a file says.
#[derive(Clone, Debug)]
pub struct Record {
    pub short: Short,
    pub attributes: u8,
    pub cluster: u32,
    pub size: u32,
    pub created: Timestamp,
    pub accessed: Timestamp,
    pub modified: Timestamp,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let name = fields.bytes(11)?.try_into().ok()?;
        let (attributes, case, tenths) = (fields.u8()?, fields.u8()?, fields.u8()?);
        let (created_time, created_date, accessed_date) = (fields.u16()?, fields.u16()?, fields.u16()?);
        let (high, time, date, low) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
        let size = fields.u32()?;
        let mut created = decode(created_date, created_time);
        created.seconds += i64::from(tenths / 100);
        created.nanoseconds = u32::from(tenths % 100) * 10_000_000;
        Some(Self {
            short: Short { bytes: name, case },
            attributes,
            cluster: (u32::from(high) << 16) | u32::from(low),
            size,
            created,
            accessed: decode(accessed_date, 0),
            modified: decode(date, time),
        })
    }

    /// As it lies there.
    pub fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[..11].copy_from_slice(&self.short.bytes);
        let (created_date, created_time, odd) = encode(self.created);
        let hundredths = odd * 100 + u8::try_from(self.created.nanoseconds / 10_000_000).unwrap_or(0);
        (bytes[11], bytes[12], bytes[13]) = (self.attributes, self.short.case, hundredths);
        let mut put = |at: usize, number: u16| bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
        put(14, created_time);
        put(16, created_date);
        put(18, encode(self.accessed).0);
        let [first, second, third, fourth] = self.cluster.to_le_bytes();
        put(20, u16::from_le_bytes([third, fourth]));
        put(22, encode(self.modified).1);
        put(24, encode(self.modified).0);
        put(26, u16::from_le_bytes([first, second]));
        bytes[28..].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }

    pub fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }
}

/// A date and a time, of two seconds, taken for UTC.
fn decode(date: u16, time: u16) -> Timestamp {
    let (year, month, day) = (i64::from(date >> 9) + 1980, i64::from((date >> 5) & 15), i64::from(date & 31));
    let days = umvu_archive::calendar::days(year, month, day.max(1));
    let seconds = i64::from(time >> 11) * 3_600 + i64::from((time >> 5) & 63) * 60 + i64::from(time & 31) * 2;
    Timestamp { seconds: days * 86_400 + seconds, nanoseconds: 0 }
}

/// Date, time, and whether the second is odd; from 1980 to 2107.
fn encode(time: Timestamp) -> (u16, u16, u8) {
    const FIRST: i64 = 315_532_800;
    const LAST: i64 = 4_354_819_199;
    let seconds = time.seconds.clamp(FIRST, LAST);
    let (year, month, day) = umvu_archive::calendar::date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    let clock = ((of_day / 3_600) << 11) | ((of_day / 60 % 60) << 5) | (of_day % 60 / 2);
    let short = |number: i64| u16::try_from(number).unwrap_or(0);
    (short(date), short(clock), u8::try_from(of_day % 2).unwrap_or(0))
}

/// An entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: Vec<u8>,
    pub record: Record,
    /// Where its record lies in the image.
    pub place: u64,
    /// The first and the last of its records, by number.
    span: (u64, u64),
}

/// A directory that was read: where its bytes lie, and they.
pub struct Directory {
    /// Its first cluster; 0 for a root that is not in clusters.
    cluster: u32,
    /// Where pieces of it lie, and how long they are.
    pieces: Vec<(u64, u64)>,
    bytes: Vec<u8>,
}

impl Directory {
    /// Reads a directory.
    pub fn read(image: &Image, layout: &Layout, table: &mut Table, cluster: u32) -> Result<Self> {
        let pieces: Vec<(u64, u64)> = if cluster == 0 {
            vec![(layout.root, layout.root_size)]
        } else {
            let runs = table.chain(cluster)?.into_iter();
            let piece =
                |(first, count): (u32, u32)| layout.place(first).map(|at| (at, u64::from(count) * layout.cluster_size));
            runs.filter_map(piece).collect()
        };
        let size: u64 = pieces.iter().map(|(_, length)| length).sum();
        if size > MOST * RECORD + layout.cluster_size {
            return Err(image.damaged(format_args!("a directory of {size} bytes")));
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut done = 0;
        for (at, length) in &pieces {
            let length = usize::try_from(*length).unwrap_or(0);
            image.read(*at, &mut bytes[done..done + length])?;
            done += length;
        }
        Ok(Self { cluster, pieces, bytes })
    }

    /// Where a record lies in the image.
    fn place(&self, number: u64) -> Option<u64> {
        let mut offset = number * RECORD;
        for (at, length) in &self.pieces {
            if offset < *length {
                return Some(at + offset);
            }
            offset -= length;
        }
        None
    }

    /// The entries.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut long = Long::default();
        for (number, bytes) in (0u64..).zip(self.bytes.chunks_exact(32)) {
            match (bytes[0], bytes[11]) {
                (0, _) => break,
                (FREE, _) => long = Long::default(),
                (_, attributes) if attributes & 0x3f == LONG => long.add(number, bytes),
                (_, attributes) if attributes & LABEL != 0 => long = Long::default(),
                _ => {
                    let long = std::mem::take(&mut long);
                    let (Some(record), Some(place)) = (Record::parse(bytes), self.place(number)) else { continue };
                    let (name, first) = match long.name(&record.short) {
                        Some(name) => (name, long.first),
                        None => (record.short.shown(), number),
                    };
                    let is_name = umvu_interface::Name::new(&name).is_ok();
                    if is_name {
                        entries.push(Entry { name, record, place, span: (first, number) });
                    }
                }
            }
        }
        entries
    }

    /// Finds an entry.
    pub fn find(&self, name: &str) -> Option<Entry> {
        let same = |entry: &Entry| {
            let long = std::str::from_utf8(&entry.name).is_ok_and(|long| is_same(long, name));
            long || std::str::from_utf8(&entry.record.short.shown()).is_ok_and(|short| is_same(short, name))
        };
        self.entries().into_iter().find(same)
    }

    /// Adds an entry; gives where its record lies.
    ///
    /// # Errors
    /// - `ENOSPC`: there is no room.
    pub fn add(
        &mut self,
        image: &Image,
        layout: &Layout,
        table: &mut Table,
        name: &str,
        record: &Record,
    ) -> Result<(u64, Short)> {
        let taken: std::collections::HashSet<[u8; 11]> =
            self.entries().iter().map(|entry| entry.record.short.bytes).collect();
        let (pieces, short) = records(name, |bytes| taken.contains(bytes))?;
        let last = Record { short, ..record.clone() }.bytes();
        let count = pieces.len() as u64 + 1;
        let start = self.room(image, layout, table, count)?;
        for (number, bytes) in (start..).zip(pieces.iter().chain([&last])) {
            image.write(self.place(number).ok_or(Errno::IO)?, bytes)?;
        }
        Ok((self.place(start + count - 1).ok_or(Errno::IO)?, short))
    }

    /// Finds so many free records one behind the other.
    fn room(&mut self, image: &Image, layout: &Layout, table: &mut Table, count: u64) -> Result<u64> {
        let mut run = 0;
        let mut is_behind_end = false;
        for (number, bytes) in (0u64..).zip(self.bytes.chunks_exact(32)) {
            is_behind_end |= bytes[0] == 0;
            run = if is_behind_end || bytes[0] == FREE { run + 1 } else { 0 };
            if run == count {
                return Ok(number + 1 - count);
            }
        }
        let all = self.bytes.len() as u64 / RECORD;
        if self.cluster == 0 || all + count > MOST {
            return Err(Errno::NOSPC);
        }
        let start = all - run;
        while run < count {
            let runs = table.chain(self.cluster)?;
            let last = runs.last().map(|(first, count)| first + count - 1);
            let added = table.take(last)?;
            let place = layout.place(added).ok_or(Errno::IO)?;
            let zeros = vec![0; usize::try_from(layout.cluster_size).unwrap_or(0)];
            image.write(place, &zeros)?;
            self.pieces.push((place, layout.cluster_size));
            self.bytes.extend_from_slice(&zeros);
            run += layout.cluster_size / RECORD;
        }
        Ok(start)
    }

    /// Removes an entry.
    pub fn remove(&self, image: &Image, entry: &Entry) -> Result<()> {
        for number in entry.span.0..=entry.span.1 {
            image.write(self.place(number).ok_or(Errno::IO)?, &[FREE])?;
        }
        Ok(())
    }
}

/// The pieces of a long name, which come last first.
#[derive(Default)]
struct Long {
    first: u64,
    units: Vec<u16>,
    /// The number of the piece that is next.
    next: u8,
    sum: u8,
}

impl Long {
    fn add(&mut self, number: u64, bytes: &[u8]) {
        let piece = bytes[0] & 0x3f;
        if bytes[0] & 0x40 != 0 {
            *self = Self { first: number, units: Vec::new(), next: piece, sum: bytes[13] };
        }
        if piece == 0 || piece > 20 || piece != self.next || bytes[13] != self.sum {
            *self = Self::default();
            return;
        }
        self.next -= 1;
        let units = PLACES.iter().map(|place| u16::from_le_bytes([bytes[*place], bytes[place + 1]]));
        self.units.splice(0..0, units);
    }

    fn name(&self, short: &Short) -> Option<Vec<u8>> {
        if self.units.is_empty() || self.next != 0 || self.sum != short.sum() {
            return None;
        }
        let end = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        let name: String =
            char::decode_utf16(self.units[..end].iter().copied()).map(|unit| unit.unwrap_or('_')).collect();
        Some(name.into_bytes()).filter(|name| !name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_to_two_seconds() {
        for seconds in [315_532_800, 1_000_000_000, 1_795_627_830, 4_354_819_198] {
            let (date, time, _) = encode(Timestamp { seconds, nanoseconds: 0 });
            assert_eq!(decode(date, time).seconds, seconds);
        }
        assert_eq!(decode(encode(Timestamp::default()).0, 0).seconds, 315_532_800);
    }
}
