//! The end of a zip archive, which says where its directory is. Follows PKWARE's APPNOTE.TXT, 4.3.14 to 4.3.16.

use crate::entry::{unreadable, Result};
use crate::fields::Fields;
use crate::source::Source;

/// The record's length without its comment.
const LENGTH: usize = 22;
/// That of the one that says where the record with long numbers is.
const LOCATOR: usize = 20;
/// That of the record with long numbers.
const LONG: usize = 56;
/// The longest comment.
const COMMENT_MAX: usize = 65_535;

/// Where the directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directory {
    pub at: u64,
    pub size: u64,
    pub entries: u64,
    /// What stands before the archive, and is not counted by its offsets: a program that unpacks it.
    pub before: u64,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq)]
pub enum Missing {
    /// No end is found.
    End,
    /// It says what cannot be.
    Nonsense(&'static str),
}

/// Finds the directory.
///
/// # Errors
/// Those of reading the source.
pub fn find(source: &Source, name: &str) -> Result<core::result::Result<Directory, Missing>> {
    let tail = (LONG + LOCATOR + LENGTH + COMMENT_MAX) as u64;
    let start = source.length().saturating_sub(tail);
    let mut bytes = vec![0; usize::try_from(source.length() - start).unwrap_or(0)];
    let count = source.read_at(start, &mut bytes).map_err(|error| unreadable(name, &error))?;
    bytes.truncate(count);
    Ok(directory(source, start, &bytes))
}

fn directory(source: &Source, start: u64, bytes: &[u8]) -> core::result::Result<Directory, Missing> {
    // The last one whose comment ends with the file; something may have been put behind it.
    let is_end = |at: &usize| bytes[*at..].starts_with(b"PK\x05\x06");
    let mut ends = (0..=bytes.len().saturating_sub(LENGTH)).rev().filter(is_end);
    let comment = |at: usize| Fields(bytes.get(at + LENGTH - 2..)?).u16().map(usize::from);
    let whole = ends.clone().find(|at| comment(*at).is_some_and(|length| at + LENGTH + length == bytes.len()));
    let at = whole.or_else(|| ends.next()).ok_or(Missing::End)?;
    let short = |mut fields: Fields<'_>| -> Option<(u16, u16, u64, u64, u64)> {
        fields.skip(4)?;
        let (disk, first) = (fields.u16()?, fields.u16()?);
        fields.skip(2)?;
        Some((disk, first, fields.u16()?.into(), fields.u32()?.into(), fields.u32()?.into()))
    };
    let (disk, first, mut entries, mut size, mut offset) = short(Fields(&bytes[at..])).ok_or(Missing::End)?;
    let mut end = start + at as u64;
    let locator = at.checked_sub(LOCATOR).and_then(|at| bytes.get(at..)).filter(|l| l.starts_with(b"PK\x06\x07"));
    if let Some(locator) = locator {
        let long = |locator: &[u8]| -> Option<(u64, u64, u64, u64)> {
            let mut fields = Fields(locator);
            fields.skip(8)?;
            // Where it is said to be, or right before the locator, if something stands before the archive.
            let told = fields.u64()?;
            let (at, record) = [told, end.checked_sub((LOCATOR + LONG) as u64)?].into_iter().find_map(|at| {
                let record = source.part(at, LONG as u64)?.read_all(LONG as u64).ok()?;
                record.starts_with(b"PK\x06\x06").then_some((at, record))
            })?;
            let mut fields = Fields(&record);
            fields.skip(32)?;
            Some((at, fields.u64()?, fields.u64()?, fields.u64()?))
        };
        (end, entries, size, offset) =
            long(locator).ok_or(Missing::Nonsense("the end with long numbers is missing"))?;
    } else if (disk, first) != (0, 0) {
        return Err(Missing::Nonsense("it is a part of several"));
    }
    let at = end.checked_sub(size).ok_or(Missing::Nonsense("the directory is longer than the file"))?;
    let before = at.checked_sub(offset).ok_or(Missing::Nonsense("the directory is behind its end"))?;
    Ok(Directory { at, size, entries, before })
}
