//! Reads tar archives: ustar, GNU, PAX and the form before them. Each header is read, no content.
//!
//! The tar crate is not used: it splits PAX records at newlines, which values of extended attributes may hold, and
//! knows neither times before 1970 nor the sparse files of PAX.
//!
//! Architecture invariant: gives entries as they stand, in their order; what they mean together is `tree`'s business.

mod header;
mod pax;
mod sparse;

use std::io;

use umvu_interface::{Errno, MountError, Timestamp};

use self::header::{Header, BLOCK};
use self::pax::Records;
use crate::entry::{damaged, unreadable, Data, Entry, Object, Result};
use crate::source::Source;
use crate::window::Window;

/// Longest extended header, in bytes: values of extended attributes may have 64 KiB each.
const EXTENDED_MAX: u64 = 4 << 20;
/// Longest name in a header of its own, in bytes.
const LONG_MAX: u64 = 64 << 10;

/// Reads all entries of an archive; `name` is what messages call it.
///
/// # Errors
/// - `EINVAL`: it does not begin as a tar archive does
/// - `EUCLEAN`: it is damaged, truncated, or says what cannot be
/// - those of reading the source, and of `take`
pub fn read(source: &Source, name: &str, take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    let mut reader = Reader { window: Window::new(source, name) };
    let mut global = Records::default();
    let mut long = Long::default();
    let mut zeros = 0;
    while let Some(block) = reader.block()? {
        if block.iter().all(|byte| *byte == 0) {
            zeros += 1;
            if zeros == 2 {
                break;
            }
            continue;
        }
        zeros = 0;
        let header = reader.header(&block)?;
        match header.typeflag() {
            b'L' => long.path = Some(reader.long_name(&header)?),
            b'K' => long.link = Some(reader.long_name(&header)?),
            b'x' | b'X' => long.records = reader.records(&header)?,
            b'g' => global.merge(reader.records(&header)?),
            // The label of a volume is no file.
            b'V' => reader.skip(header.size(), b"volume label")?,
            _ => {
                let entry = reader.entry(&header, &global, std::mem::take(&mut long))?;
                take(entry)?;
            }
        }
    }
    Ok(())
}

/// What headers before that of an entry have said of it.
#[derive(Default)]
struct Long {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Records,
}

struct Reader<'a> {
    window: Window<'a>,
}

impl Reader<'_> {
    /// Takes the next block; none at the end of the archive.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let found = self.window.peek(BLOCK)?;
        let count = found.len();
        match found.first_chunk::<BLOCK>().copied() {
            Some(block) => {
                self.window.at += BLOCK as u64;
                Ok(Some(block))
            }
            None if count == 0 && self.window.at > 0 => Ok(None),
            None if self.window.at == 0 => Err(self.no_archive()),
            None => Err(self.window.damaged_here("truncated: a part of a header is all that is left")),
        }
    }

    fn no_archive(&self) -> MountError {
        MountError::new(Errno::INVAL, format!("{}: not a tar archive", self.window.name))
    }

    fn header(&self, block: &[u8; BLOCK]) -> Result<Header> {
        let header = Header::of(*block);
        if header.checksum_is_right() {
            return Ok(header);
        }
        if self.window.at == BLOCK as u64 {
            return Err(self.no_archive());
        }
        let at = self.window.at - BLOCK as u64;
        Err(MountError::new(
            Errno::UCLEAN,
            format!("{}: at byte {at}: damaged: the checksum is wrong", self.window.name),
        ))
    }

    /// Passes over content, which must be there; gives its offset.
    fn content(&mut self, size: u64, entry: &[u8]) -> Result<u64> {
        let at = self.window.at;
        let end = at.checked_add(size).filter(|end| *end <= self.window.source.length());
        let Some(end) = end else {
            let left = self.window.source.length().saturating_sub(at);
            return Err(damaged(self.window.name, entry, format_args!("truncated: {left} of {size} bytes are there")));
        };
        // The last block may be cut short where the content is whole.
        self.window.at = end.checked_next_multiple_of(BLOCK as u64).unwrap_or(end);
        Ok(at)
    }

    fn skip(&mut self, size: Option<u64>, entry: &[u8]) -> Result<()> {
        let size = size.ok_or_else(|| damaged(self.window.name, entry, "its size is no number"))?;
        self.content(size, entry).map(drop)
    }

    fn bytes(&mut self, header: &Header, most: u64) -> Result<Vec<u8>> {
        let path = header.path();
        let size = header.size().filter(|size| *size <= most);
        let size = size.ok_or_else(|| damaged(self.window.name, &path, "an extended header of an impossible size"))?;
        let at = self.content(size, &path)?;
        let part = self.window.source.part(at, size).ok_or_else(|| self.window.damaged_here("truncated"))?;
        part.read_all(most).map_err(|error| unreadable(self.window.name, &error))
    }

    fn long_name(&mut self, header: &Header) -> Result<Vec<u8>> {
        let mut name = self.bytes(header, LONG_MAX)?;
        if let Some(end) = name.iter().position(|byte| *byte == 0) {
            name.truncate(end);
        }
        Ok(name)
    }

    fn records(&mut self, header: &Header) -> Result<Records> {
        let bytes = self.bytes(header, EXTENDED_MAX)?;
        Records::parse(&bytes).ok_or_else(|| damaged(self.window.name, &header.path(), "a broken extended header"))
    }

    fn entry(&mut self, header: &Header, global: &Records, long: Long) -> Result<Entry> {
        let own = &long.records;
        let value = |key: &[u8]| own.get(key).or_else(|| global.get(key));
        let mut path = match (value(b"GNU.sparse.name"), value(b"path"), long.path) {
            (Some(path), _, _) | (None, Some(path), _) => path.to_vec(),
            (None, None, Some(path)) => path,
            (None, None, None) => header.path(),
        };
        let wrong = |what: &str| damaged(self.window.name, &path, what);
        let number = |key: &[u8], field: Option<i64>, what: &str| match value(key) {
            Some(text) => pax::number(text).ok_or_else(|| wrong(what)),
            None => field.ok_or_else(|| wrong(what)),
        };
        let size = number(b"size", header.number(Header::SIZE), "its size is no number")?;
        let size = u64::try_from(size).map_err(|_| wrong("its size is negative"))?;
        let uid = number(b"uid", header.number(Header::UID), "its owner is no number")?;
        let gid = number(b"gid", header.number(Header::GID), "its group is no number")?;
        let id = |id: i64, what: &str| u32::try_from(id).map_err(|_| wrong(what));
        let (uid, gid) = (id(uid, "its owner is no user id")?, id(gid, "its group is no group id")?);
        let mtime = match value(b"mtime") {
            Some(text) => pax::time(text),
            None => header.number(Header::MTIME).map(|seconds| Timestamp { seconds, nanoseconds: 0 }),
        };
        let mtime = mtime.ok_or_else(|| wrong("its time is no number"))?;
        let mode = header.number(Header::MODE).ok_or_else(|| wrong("its mode is no number"))?;
        let mode = u32::try_from(mode & 0o7777).unwrap_or(0);
        let link = match (value(b"linkpath"), long.link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => link,
            (None, None) => header.link(),
        };
        let device = || header.device().ok_or_else(|| wrong("its device number is none"));
        let what = match header.typeflag() {
            b'1' => Object::HardLink(link),
            b'2' => Object::Symlink(link),
            b'3' => Object::CharDevice(device()?),
            b'4' => Object::BlockDevice(device()?),
            b'6' => Object::Fifo,
            b'5' => Object::Directory,
            // A directory with a list of its names, from incremental dumps.
            b'D' => {
                self.content(size, &path)?;
                Object::Directory
            }
            b'M' => return Err(damaged(self.window.name, &path, "continued from another volume")),
            b'S' => self.old_sparse(header, size, &path)?,
            // Before POSIX a directory was told by the slash at its end.
            b'0' | b'\0' if path.ends_with(b"/") => {
                self.content(size, &path)?;
                Object::Directory
            }
            // POSIX: a type that is not known is a regular file.
            _ => self.regular(own, size, &path)?,
        };
        if path.contains(&0) {
            path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(0));
        }
        let xattrs = global.xattrs().chain(own.xattrs()).collect();
        Ok(Entry { path, mode, uid, gid, mtime, xattrs, what })
    }

    fn regular(&mut self, records: &Records, size: u64, path: &[u8]) -> Result<Object> {
        let at = self.content(size, path)?;
        let Some(map) =
            sparse::of_records(records, self.window.source, at, size).map_err(|why| self.sparse(path, why))?
        else {
            return Ok(Object::Regular { size, data: Data::Whole(at) });
        };
        self.sparse_file(map, path)
    }

    fn old_sparse(&mut self, header: &Header, size: u64, path: &[u8]) -> Result<Object> {
        let mut pieces = sparse::in_header(header).ok_or_else(|| self.sparse(path, sparse::Wrong::Map))?;
        let mut more = pieces.continues;
        while more {
            let block = self.block()?.ok_or_else(|| damaged(self.window.name, path, "truncated in its map"))?;
            more = pieces.add(&block).ok_or_else(|| self.sparse(path, sparse::Wrong::Map))?;
        }
        let at = self.content(size, path)?;
        let map = pieces.placed(at, size).ok_or_else(|| self.sparse(path, sparse::Wrong::Map))?;
        self.sparse_file(map, path)
    }

    fn sparse_file(&self, map: sparse::Map, path: &[u8]) -> Result<Object> {
        let sparse::Map { size, extents } = map;
        let mut end = 0;
        for extent in &extents {
            if extent.logical < end {
                return Err(self.sparse(path, sparse::Wrong::Map));
            }
            end = extent.logical.checked_add(extent.length).ok_or_else(|| self.sparse(path, sparse::Wrong::Map))?;
        }
        if end > size || i64::try_from(size).is_err() {
            return Err(self.sparse(path, sparse::Wrong::Map));
        }
        Ok(Object::Regular { size, data: Data::Sparse(extents.into()) })
    }

    fn sparse(&self, path: &[u8], why: sparse::Wrong) -> MountError {
        match why {
            sparse::Wrong::Map => damaged(self.window.name, path, "its map of holes makes no sense"),
            sparse::Wrong::Read(error) => unreadable(self.window.name, &error),
        }
    }
}

impl From<io::Error> for sparse::Wrong {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}
