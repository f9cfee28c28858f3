//! Names: short ones of eleven bytes, long ones in UTF-16. Follows `fs/fat/dir.c`, `fs/fat/namei_vfat.c`.

use umvu_interface::{Errno, Result};

/// Letters are small in the base, in the extension.
const SMALL_BASE: u8 = 8;
const SMALL_EXTENSION: u8 = 16;

/// A short name, and which of its halves are shown in small letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    pub bytes: [u8; 11],
    pub case: u8,
}

impl Short {
    /// As it is shown, where there is no long one.
    pub fn shown(&self) -> Vec<u8> {
        let half = |bytes: &[u8], small: bool| -> Vec<u8> {
            let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
            let byte = |byte: &u8| match byte {
                0..=31 | b'/' | 127.. => b'_',
                byte if small => byte.to_ascii_lowercase(),
                byte => *byte,
            };
            bytes[..end].iter().map(byte).collect()
        };
        let (mut bytes, case) = (self.bytes, self.case);
        // 0xe5 would say that it is free.
        if bytes[0] == 5 {
            bytes[0] = 0xe5;
        }
        let mut name = half(&bytes[..8], case & SMALL_BASE != 0);
        let extension = half(&bytes[8..], case & SMALL_EXTENSION != 0);
        if !extension.is_empty() {
            name.push(b'.');
            name.extend_from_slice(&extension);
        }
        name
    }

    /// The sum that ties the pieces of a long name to it.
    pub fn sum(&self) -> u8 {
        self.bytes.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
    }

    /// The short name that says the same as a long one, if there is such.
    fn exact(name: &str) -> Option<Self> {
        let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let half = |text: &str, most: usize| -> Option<bool> {
            let has = |test: fn(&u8) -> bool| text.bytes().any(|byte| test(&byte));
            let (small, big) = (has(u8::is_ascii_lowercase), has(u8::is_ascii_uppercase));
            let fits = text.len() <= most && text.bytes().all(is_short) && !(small && big);
            fits.then_some(small)
        };
        let (small_base, small_extension) = (half(base, 8)?, half(extension, 3)?);
        if base.is_empty() {
            return None;
        }
        let mut bytes = [b' '; 11];
        put(&mut bytes[..8], base.as_bytes());
        put(&mut bytes[8..], extension.as_bytes());
        let case = (if small_base { SMALL_BASE } else { 0 }) | (if small_extension { SMALL_EXTENSION } else { 0 });
        Some(Self { bytes, case })
    }

    /// A short name for a long one that has none, beside those that `is_taken` says are there.
    fn made(name: &str, is_taken: impl Fn(&[u8; 11]) -> bool) -> Option<Self> {
        let (base, extension) = name.rsplit_once('.').filter(|(base, _)| !base.is_empty()).unwrap_or((name, ""));
        let squeeze = |text: &str, most: usize| -> Vec<u8> {
            let bytes = text.bytes().filter(|byte| !matches!(byte, b' ' | b'.') && byte.is_ascii());
            bytes.map(|byte| if is_short(byte) { byte } else { b'_' }).take(most).collect()
        };
        let (base, extension) = (squeeze(base, 6), squeeze(extension, 3));
        let base = if base.is_empty() { b"_".to_vec() } else { base };
        for number in 1..1_000_000u32 {
            let tail = format!("~{number}");
            let mut bytes = [b' '; 11];
            let head = &base[..base.len().min(8 - tail.len())];
            put(&mut bytes[..8], &[head, tail.as_bytes()].concat());
            put(&mut bytes[8..], &extension);
            if !is_taken(&bytes) {
                return Some(Self { bytes, case: 0 });
            }
        }
        None
    }
}

fn is_short(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'()-@^_`{}~".contains(&byte)
}

fn put(place: &mut [u8], text: &[u8]) {
    for (place, byte) in place.iter_mut().zip(text) {
        *place = byte.to_ascii_uppercase();
    }
}

/// What a name is for this file system: without dots behind it.
///
/// # Errors
/// - `ENOENT`: nothing is left.
/// - `EINVAL`: it has what names may not have.
/// - `ENAMETOOLONG`: more than 255 units of UTF-16.
pub fn checked(name: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(name).map_err(|_| Errno::INVAL)?.trim_end_matches('.');
    if text.is_empty() {
        return Err(Errno::NOENT);
    }
    // fs/fat/namei_vfat.c, vfat_bad_char
    if text.chars().any(|character| character < ' ' || "*?<>|\":\\/".contains(character)) || text.ends_with(' ') {
        return Err(Errno::INVAL);
    }
    if text.encode_utf16().count() > 255 {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(text)
}

/// Whether two names are the same: letters are, big or small.
pub fn is_same(one: &str, other: &str) -> bool {
    one.chars().flat_map(char::to_uppercase).eq(other.chars().flat_map(char::to_uppercase))
}

/// The records that a name takes: those of the long name, if it needs them, and the short one.
pub fn records(name: &str, is_taken: impl Fn(&[u8; 11]) -> bool) -> Result<(Vec<[u8; 32]>, Short)> {
    if let Some(short) = Short::exact(name).filter(|short| !is_taken(&short.bytes)) {
        return Ok((Vec::new(), short));
    }
    let short = Short::made(name, is_taken).ok_or(Errno::NOSPC)?;
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let pieces = units.len().div_ceil(13);
    if units.len() % 13 != 0 {
        units.push(0);
    }
    units.resize(pieces * 13, 0xffff);
    let mut records = Vec::new();
    for (number, piece) in units.chunks(13).enumerate().rev() {
        let mut record = [0; 32];
        let last = if number + 1 == pieces { 0x40 } else { 0 };
        record[0] = u8::try_from(number + 1).map_err(|_| Errno::NAMETOOLONG)? | last;
        record[11] = 0x0f;
        record[13] = short.sum();
        for (unit, place) in piece.iter().zip(PLACES) {
            record[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        records.push(record);
    }
    Ok((records, short))
}

/// Where the units of a piece of a long name are.
pub const PLACES: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_short_take_one_record() {
        let (records, short) = records("readme.TXT", |_| false).unwrap();
        assert!(records.is_empty());
        assert_eq!((&short.bytes, short.case), (b"README  TXT", 8));
        assert_eq!(short.shown(), b"readme.TXT");
    }

    #[test]
    fn names_that_are_long_have_a_short_one_that_nobody_has() {
        let (pieces, short) = records("A long name.html", |bytes| bytes == b"ALONGN~1HTM").unwrap();
        assert_eq!((pieces.len(), &short.bytes), (2, b"ALONGN~2HTM"));
        assert_eq!(pieces[0][0], 0x42);
        assert_eq!(records(".profile", |_| false).unwrap().1.bytes, *b"PROFIL~1   ");
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        assert_eq!(checked(b"a:b"), Err(Errno::INVAL));
        assert_eq!(checked(b"...."), Err(Errno::NOENT));
        assert_eq!(checked(b"name."), Ok("name"));
        assert_eq!(checked("ä".repeat(256).as_bytes()), Err(Errno::NAMETOOLONG));
        assert!(is_same("Ärger.Txt", "äRGER.TXT"));
    }
}
