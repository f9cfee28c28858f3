//! A record of the directory of a zip archive: APPNOTE.TXT, 4.3.12, with the extra fields of Info-ZIP (`extrafld.txt`).

use umvu_interface::{FileKind, Timestamp};

use crate::calendar;
use crate::fields::Fields;

/// The record's length without what is behind it.
pub const LENGTH: usize = 46;

/// What stands for a number that does not fit into the record.
const ELSEWHERE: u64 = 0xffff_ffff;
/// Unix, and macOS, as the system that made an entry.
const UNIX: [u8; 2] = [3, 19];

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    system: u8,
    pub flags: u16,
    pub method: u16,
    /// MS-DOS's date and time.
    stamp: (u16, u16),
    pub crc: u32,
    pub packed: u64,
    pub size: u64,
    /// Lengths of the name, the extra fields and the comment.
    pub lengths: [usize; 3],
    attributes: u32,
    /// Where the entry's header is.
    pub header: u64,
    mtime: Option<Timestamp>,
    pub owner: Option<(u32, u32)>,
    /// The name in UTF-8, where the other is in something else.
    unicode: Option<Vec<u8>>,
}

impl Record {
    /// Reads the part of it whose length is fixed.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.bytes(4)? != b"PK\x01\x02" {
            return None;
        }
        fields.skip(1)?;
        let system = fields.u8()?;
        fields.skip(2)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        let (time, date) = (fields.u16()?, fields.u16()?);
        let (crc, packed, size) = (fields.u32()?, fields.u32()?.into(), fields.u32()?.into());
        let lengths = [fields.u16()?.into(), fields.u16()?.into(), fields.u16()?.into()];
        fields.skip(4)?;
        let attributes = fields.u32()?;
        let header = fields.u32()?.into();
        let stamp = (date, time);
        let (mtime, owner, unicode) = (None, None, None);
        Some(Self {
            system,
            flags,
            method,
            stamp,
            crc,
            packed,
            size,
            lengths,
            attributes,
            header,
            mtime,
            owner,
            unicode,
        })
    }

    /// Takes what the extra fields say; a field that is cut short says nothing.
    pub fn extra(&mut self, name: &[u8], extra: &[u8]) -> Option<()> {
        let mut fields = Fields(extra);
        let is_long = [self.size, self.packed, self.header].contains(&ELSEWHERE);
        let mut has_long = false;
        while let (Some(kind), Some(length)) = (fields.u16(), fields.u16()) {
            let Some(field) = fields.bytes(length.into()) else { break };
            match kind {
                0x0001 => has_long = self.long(Fields(field)).is_some(),
                0x5455 => self.unix_time(Fields(field)),
                0x000a => self.ntfs_time(Fields(field)),
                0x7875 => self.owner = owner(Fields(field)).or(self.owner),
                0x7075 => self.unicode = unicode(name, Fields(field)),
                _ => {}
            }
        }
        (!is_long || has_long).then_some(())
    }

    /// APPNOTE.TXT, 4.5.3: those numbers that do not fit into the record, in this order.
    fn long(&mut self, mut fields: Fields<'_>) -> Option<()> {
        for number in [&mut self.size, &mut self.packed, &mut self.header] {
            if *number == ELSEWHERE {
                *number = fields.u64()?;
            }
        }
        Some(())
    }

    fn unix_time(&mut self, mut fields: Fields<'_>) {
        let has_mtime = fields.u8().is_some_and(|which| which & 1 != 0);
        if let Some(seconds) = fields.i32().filter(|_| has_mtime) {
            self.mtime = Some(Timestamp { seconds: seconds.into(), nanoseconds: 0 });
        }
    }

    /// Tenths of microseconds since 1601.
    fn ntfs_time(&mut self, mut fields: Fields<'_>) {
        /// The seconds from there to 1970.
        const EPOCH: i64 = 11_644_473_600;
        let mut read = || {
            fields.skip(4)?;
            let kind = (fields.u16()?, fields.u16()?);
            let ticks = i64::try_from(fields.u64()?).ok().filter(|_| kind.0 == 1)?;
            let nanoseconds = u32::try_from(ticks % 10_000_000 * 100).ok()?;
            Some(Timestamp { seconds: ticks / 10_000_000 - EPOCH, nanoseconds })
        };
        self.mtime = read().or(self.mtime);
    }

    /// The time of the last change.
    pub fn mtime(&self) -> Timestamp {
        self.mtime.unwrap_or_else(|| {
            let (date, time) = (i64::from(self.stamp.0), i64::from(self.stamp.1));
            let days = calendar::days((date >> 9) + 1980, date >> 5 & 15, date & 31);
            let seconds = days * 86_400 + (time >> 11) * 3_600 + (time >> 5 & 63) * 60 + (time & 31) * 2;
            Timestamp { seconds, nanoseconds: 0 }
        })
    }

    /// The name, in UTF-8 if the archive has it so.
    pub fn name(&mut self, plain: Vec<u8>) -> Vec<u8> {
        self.unicode.take().unwrap_or(plain)
    }

    /// The kind of object, and its permissions.
    pub fn mode(&self, name: &[u8]) -> (FileKind, u32) {
        let unix = self.attributes >> 16;
        let is_directory = name.ends_with(b"/") || self.attributes & 0x10 != 0;
        let told = FileKind::from_mode(unix).filter(|_| UNIX.contains(&self.system));
        match told {
            Some(kind) => (kind, unix & 0o7777),
            None if UNIX.contains(&self.system) && unix & 0o777 != 0 => {
                (if is_directory { FileKind::Directory } else { FileKind::Regular }, unix & 0o7777)
            }
            None if is_directory => (FileKind::Directory, 0o755),
            None if self.attributes & 1 != 0 => (FileKind::Regular, 0o444),
            None => (FileKind::Regular, 0o644),
        }
    }
}

/// Owner and group: numbers of a length that is told.
fn owner(mut fields: Fields<'_>) -> Option<(u32, u32)> {
    if fields.u8()? != 1 {
        return None;
    }
    let mut id = || -> Option<u32> {
        let length = fields.u8()?;
        let bytes = fields.bytes(length.into())?;
        let mut number = 0u64;
        for byte in bytes.iter().rev() {
            number = number.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        u32::try_from(number).ok()
    };
    Some((id()?, id()?))
}

/// A name in UTF-8, if it is that of this entry: the sum of the other name stands with it.
fn unicode(name: &[u8], mut fields: Fields<'_>) -> Option<Vec<u8>> {
    if fields.u8()? != 1 {
        return None;
    }
    let mut sum = flate2::Crc::new();
    sum.update(name);
    (fields.u32()? == sum.sum()).then(|| fields.0.to_vec())
}
