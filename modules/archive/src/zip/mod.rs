//! Reads zip archives by the directory at their end, those with long numbers and those behind a program too. Contents are
//! unpacked when files are opened, not before.
//!
//! The zip crate is not used: it reads the header of each entry to open an archive, keeps all names a second time, and has
//! names as text.
//!
//! Architecture invariant: gives entries as they stand, in their order; what they mean together is `tree`'s business.

mod end;
mod packed;
mod record;
#[cfg(test)]
pub mod tests;

use std::io::{BufReader, Read};

use umvu_interface::{Errno, FileKind, MountError};

use self::end::Missing;
use self::record::Record;
use crate::entry::{damaged, unreadable, Data, Entry, Object, Result};
use crate::source::Source;

pub use packed::Packed;

/// Longest target of a symbolic link, in bytes.
const TARGET_MAX: u64 = 4096;

/// Whether a file that begins so is a zip archive: what stands behind a program is found by who asks for it alone.
pub fn begins(start: &[u8]) -> bool {
    matches!(start, [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..])
}

/// Reads all entries of an archive; `owner` has what tells none.
///
/// # Errors
/// - `EINVAL`: it does not end as a zip archive does
/// - `EUCLEAN`: it is damaged, truncated, or says what cannot be
/// - those of reading the source, and of `take`
pub fn read(source: &Source, name: &str, owner: (u32, u32), take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    let nonsense = |why: &str| MountError::new(Errno::UCLEAN, format!("{name}: {why}"));
    let directory = match end::find(source, name)? {
        Ok(directory) => directory,
        Err(Missing::End) => {
            let mut start = [0; 4];
            let count = source.read_at(0, &mut start).map_err(|error| unreadable(name, &error))?;
            return Err(match begins(&start[..count]) {
                true => nonsense("truncated: a zip archive without its end"),
                false => MountError::new(Errno::INVAL, format!("{name}: not a zip archive")),
            });
        }
        Err(Missing::Nonsense(why)) => return Err(nonsense(why)),
    };
    let part = source.part(directory.at, directory.size).ok_or_else(|| nonsense("truncated in its directory"))?;
    let mut records = BufReader::with_capacity(64 << 10, part.reader());
    let mut fill = |bytes: &mut [u8]| match records.read_exact(bytes) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(nonsense("damaged: the directory ends in the middle of a record"))
        }
        Err(error) => Err(unreadable(name, &error)),
    };
    for number in 0..directory.entries {
        let mut fixed = [0; record::LENGTH];
        fill(&mut fixed)?;
        let record = Record::read(&fixed);
        let mut record =
            record.ok_or_else(|| nonsense(&format!("damaged: record {number} of the directory is none")))?;
        let [mut path, mut extra, mut comment] = record.lengths.map(|length| vec![0; length]);
        fill(&mut path)?;
        fill(&mut extra)?;
        fill(&mut comment)?;
        record.extra(&path, &extra).ok_or_else(|| damaged(name, &path, "its long numbers are missing"))?;
        take(entry(source, name, directory.before, owner, record, path)?)?;
    }
    Ok(())
}

fn entry(
    source: &Source,
    archive: &str,
    before: u64,
    owner: (u32, u32),
    mut record: Record,
    name: Vec<u8>,
) -> Result<Entry> {
    let path = record.name(name);
    let wrong = |why: &str| damaged(archive, &path, why);
    let (kind, mode) = record.mode(&path);
    let header = record.header.checked_add(before).ok_or_else(|| wrong("its header is behind the end"))?;
    let size = record.size;
    if i64::try_from(size).is_err() {
        return Err(wrong("its size is impossible"));
    }
    let packed = Packed {
        header,
        length: record.packed,
        size,
        crc: record.crc,
        method: record.method,
        is_encrypted: record.flags & 1 != 0,
    };
    let what = match kind {
        FileKind::Directory => Object::Directory,
        FileKind::Regular => Object::Regular { size, data: Data::Packed(Box::new(packed)) },
        FileKind::Symlink if size > TARGET_MAX => return Err(wrong("a symbolic link with an impossible target")),
        FileKind::Symlink => {
            let mut target = Vec::new();
            packed.unpack(source, &mut target).map_err(|error| wrong(&error.to_string()))?;
            Object::Symlink(target)
        }
        FileKind::Fifo => Object::Fifo,
        FileKind::Socket => Object::Socket,
        // zip does not tell its number.
        FileKind::CharDevice | FileKind::BlockDevice => Object::Regular { size: 0, data: Data::Whole(0) },
    };
    let (uid, gid) = record.owner.unwrap_or(owner);
    Ok(Entry { mode, uid, gid, mtime: record.mtime(), xattrs: Vec::new(), path, what })
}
