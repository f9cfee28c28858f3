//! Maps of sparse files, in the four forms that GNU tar has had. Checks only that numbers are numbers.

use super::header::{number, Header, BLOCK};
use super::pax::Records;
use crate::entry::Extent;
use crate::source::Source;

/// More pieces than any file has need of: the map lives in memory.
const PIECES_MAX: usize = 1 << 20;

/// What is wrong with a map.
pub enum Wrong {
    /// It makes no sense.
    Map,
    /// It cannot be read.
    Read(std::io::Error),
}

/// A map.
pub struct Map {
    /// Size of the file with its holes.
    pub size: u64,
    /// The pieces.
    pub extents: Vec<Extent>,
}

/// Pieces as offset and length in the file.
pub struct Pieces {
    size: u64,
    pieces: Vec<(u64, u64)>,
    /// Whether a block with more follows.
    pub continues: bool,
}

/// The pieces that stand in a header of the oldest form.
pub fn in_header(header: &Header) -> Option<Pieces> {
    let size = u64::try_from(header.number(Header::REAL_SIZE)?).ok()?;
    let mut pieces = Pieces { size, pieces: Vec::new(), continues: header.bytes()[482] != 0 };
    pieces.take(&header.bytes()[386..386 + 4 * 24])?;
    Some(pieces)
}

impl Pieces {
    fn take(&mut self, table: &[u8]) -> Option<()> {
        for piece in table.chunks_exact(24) {
            if piece[0] == 0 {
                break;
            }
            let part = |field: &[u8]| u64::try_from(number(field)?).ok();
            self.pieces.push((part(&piece[..12])?, part(&piece[12..])?));
        }
        (self.pieces.len() <= PIECES_MAX).then_some(())
    }

    /// Takes a block with more; gives whether yet another follows.
    pub fn add(&mut self, block: &[u8; BLOCK]) -> Option<bool> {
        self.take(&block[..21 * 24])?;
        Some(block[504] != 0)
    }

    /// Puts the pieces one behind the other into `length` bytes at offset `at` of the archive.
    pub fn placed(self, at: u64, length: u64) -> Option<Map> {
        let mut extents = Vec::with_capacity(self.pieces.len());
        let mut used = 0u64;
        for (logical, piece) in self.pieces {
            let start = at.checked_add(used)?;
            used = used.checked_add(piece)?;
            if used > length {
                return None;
            }
            if piece > 0 {
                extents.push(Extent { logical, at: start, length: piece });
            }
        }
        Some(Map { size: self.size, extents })
    }
}

/// Reads the map of a file with PAX records; none where it is not sparse. Its content is `length` bytes at `at`.
pub fn of_records(records: &Records, source: &Source, at: u64, length: u64) -> Result<Option<Map>, Wrong> {
    let decimal = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    let value = |key: &[u8]| records.get(key).map(|text| decimal(text).ok_or(Wrong::Map)).transpose();
    if value(b"GNU.sparse.major")? == Some(1) {
        let size = value(b"GNU.sparse.realsize")?.ok_or(Wrong::Map)?;
        let (pieces, used) = in_content(source, at, length)?;
        let pieces = Pieces { size, pieces, continues: false };
        let (at, left) = (at.checked_add(used).ok_or(Wrong::Map)?, length.checked_sub(used).ok_or(Wrong::Map)?);
        return pieces.placed(at, left).map(Some).ok_or(Wrong::Map);
    }
    let Some(size) = value(b"GNU.sparse.size")? else { return Ok(None) };
    let mut numbers = Vec::new();
    for (key, text) in records.all() {
        match key {
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => numbers.push(decimal(text).ok_or(Wrong::Map)?),
            b"GNU.sparse.map" => {
                for part in text.split(|byte| *byte == b',') {
                    numbers.push(decimal(part).ok_or(Wrong::Map)?);
                }
            }
            _ => {}
        }
    }
    let pairs = numbers.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return Err(Wrong::Map);
    }
    let pieces = Pieces { size, pieces: pairs.map(|pair| (pair[0], pair[1])).collect(), continues: false };
    pieces.placed(at, length).map(Some).ok_or(Wrong::Map)
}

/// Reads the map that stands before the content: lines of decimal numbers, filled up to whole blocks. Gives how many
/// bytes it takes.
fn in_content(source: &Source, at: u64, length: u64) -> Result<(Vec<(u64, u64)>, u64), Wrong> {
    let part = source.part(at, length).ok_or(Wrong::Map)?;
    let mut lines = Lines { source: &part, at: 0, buffer: Vec::new(), used: 0 };
    let count = usize::try_from(lines.next()?).ok().filter(|count| *count <= PIECES_MAX).ok_or(Wrong::Map)?;
    let mut pieces = Vec::new();
    for _ in 0..count {
        pieces.push((lines.next()?, lines.next()?));
    }
    Ok((pieces, lines.at))
}

struct Lines<'a> {
    source: &'a Source,
    /// How much has been read.
    at: u64,
    buffer: Vec<u8>,
    used: usize,
}

impl Lines<'_> {
    fn next(&mut self) -> Result<u64, Wrong> {
        let mut value = None::<u64>;
        loop {
            if self.used == self.buffer.len() {
                self.buffer.resize(BLOCK, 0);
                let count = self.source.read_at(self.at, &mut self.buffer)?;
                if count < BLOCK {
                    return Err(Wrong::Map);
                }
                self.at += BLOCK as u64;
                self.used = 0;
            }
            let byte = self.buffer[self.used];
            self.used += 1;
            value = match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let next = value.unwrap_or(0).checked_mul(10).and_then(|value| value.checked_add(digit));
                    Some(next.ok_or(Wrong::Map)?)
                }
                b'\n' => return value.ok_or(Wrong::Map),
                _ => return Err(Wrong::Map),
            };
        }
    }
}
