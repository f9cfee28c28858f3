//! Reads cpio archives, those of an initramfs too: several, one behind the other, the last ones maybe compressed. Each
//! header is read, no content but the targets of symbolic links. The sums of the form `crc` are not looked at.
//!
//! Architecture invariant: gives entries as they stand, but for files with several names, whose content stands at one
//! of them; what entries mean together is `tree`'s business.

mod header;
#[cfg(test)]
pub mod tests;

use std::collections::HashMap;

use umvu_interface::{Errno, FileKind, MountError, Timestamp};

use self::header::{Form, Header};
use crate::entry::{damaged, Data, Entry, Object, Result};
use crate::source::Source;
use crate::window::Window;

/// Longest name, in bytes: `PATH_MAX`.
const NAME_MAX: u64 = 4096;
/// Most zeros between two archives, in bytes; programs write less than a block.
const GAP_MAX: u64 = 1 << 20;
/// The name that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Whether a file that begins so is a cpio archive.
pub fn begins(start: &[u8]) -> bool {
    Form::of(start).is_some()
}

/// Reads all entries of a source; gives where something else than an archive follows.
///
/// # Errors
/// - `EINVAL`: it does not begin as a cpio archive does
/// - `EUCLEAN`: it is damaged, truncated, or says what cannot be
/// - those of reading the source, and of `take`
pub fn read(source: &Source, name: &str, take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<Option<u64>> {
    let mut reader = Reader { window: Window::new(source, name) };
    if reader.form()?.is_none() {
        return Err(MountError::new(Errno::INVAL, format!("{name}: not a cpio archive")));
    }
    while let Some(form) = reader.form()? {
        reader.archive(form, take)?;
        if !reader.skip_zeros()? {
            return Ok(None);
        }
    }
    Ok(Some(reader.window.at))
}

/// A file that may have several names.
enum Shared {
    /// The content has not come: the names so far.
    Waits(Vec<Entry>),
    /// It is at this path.
    At(Vec<u8>),
}

struct Reader<'a> {
    window: Window<'a>,
}

impl Reader<'_> {
    fn form(&mut self) -> Result<Option<Form>> {
        Ok(Form::of(self.window.peek(6)?))
    }

    /// Passes over the zeros behind an archive; gives whether something follows.
    fn skip_zeros(&mut self) -> Result<bool> {
        let end = self.window.at.saturating_add(GAP_MAX);
        while self.window.at < end {
            let piece = self.window.peek(4096)?;
            if piece.is_empty() {
                return Ok(false);
            }
            let zeros = piece.iter().take_while(|byte| **byte == 0).count();
            let is_over = zeros < piece.len();
            self.window.at += zeros as u64;
            if is_over {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads one archive to its end.
    fn archive(&mut self, form: Form, take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut shared = HashMap::new();
        // The first names of files, in their order: a map has none.
        let mut order = Vec::new();
        loop {
            if self.form()? != Some(form) {
                let is_end = self.window.peek(1)?.is_empty();
                return Err(self.window.damaged_here(if is_end {
                    "truncated: no end is marked"
                } else {
                    "no header is here"
                }));
            }
            let start = self.window.peek(form.length())?;
            if start.len() < form.length() {
                return Err(self.window.damaged_here("truncated: a part of a header is all that is left"));
            }
            let header = Header::read(form, start);
            let header = header.ok_or_else(|| self.window.damaged_here("damaged: a number of a header is none"))?;
            let (path, at) = self.path(form, &header)?;
            if path == TRAILER {
                break;
            }
            let entry = self.entry(&header, path, at)?;
            let Object::Regular { size, .. } = entry.what else {
                take(entry)?;
                continue;
            };
            if header.links < 2 {
                take(entry)?;
                continue;
            }
            let first = || {
                order.push(header.file);
                Shared::Waits(Vec::new())
            };
            let known = shared.entry(header.file).or_insert_with(first);
            match known {
                Shared::At(target) => take(Entry { what: Object::HardLink(target.clone()), ..entry })?,
                // SVR4 puts the content at the last of the names.
                Shared::Waits(waiting) if size == 0 => waiting.push(entry),
                Shared::Waits(waiting) => {
                    let others = std::mem::take(waiting);
                    let target = entry.path.clone();
                    take(entry)?;
                    named(others, &target, take)?;
                    *known = Shared::At(target);
                }
            }
        }
        // What has no content at all, is empty.
        for file in order {
            let Some(Shared::Waits(waiting)) = shared.remove(&file) else { continue };
            let mut waiting = waiting.into_iter();
            let Some(first) = waiting.next() else { continue };
            let target = first.path.clone();
            take(first)?;
            named(waiting.collect(), &target, take)?;
        }
        Ok(())
    }

    /// Takes the name behind a header, and passes over both and the content; gives where the content is.
    fn path(&mut self, form: Form, header: &Header) -> Result<(Vec<u8>, u64)> {
        let size = usize::try_from(header.name_size).ok().filter(|_| header.name_size <= NAME_MAX);
        let size =
            size.filter(|size| *size > 0).ok_or_else(|| self.window.damaged_here("a name of an impossible length"))?;
        let length = form.length();
        let bytes = self.window.peek(length + size)?;
        let name = bytes.get(length..).filter(|name| name.len() == size).map(<[u8]>::to_vec);
        let mut name =
            name.ok_or_else(|| self.window.damaged_here("truncated: a part of a name is all that is left"))?;
        match name.iter().position(|byte| *byte == 0) {
            Some(end) => name.truncate(end),
            None => return Err(self.window.damaged_here("a name without an end")),
        }
        let content = self.window.at.checked_add((length + size) as u64).and_then(|at| form.aligned(at));
        let end = content.and_then(|at| at.checked_add(header.size)).filter(|end| *end <= self.window.source.length());
        let (Some(content), Some(end)) = (content, end) else {
            let left = self.window.source.length().saturating_sub(content.unwrap_or(u64::MAX));
            let why = format_args!("truncated: {left} of {} bytes are there", header.size);
            return Err(damaged(self.window.name, &name, why));
        };
        self.window.at = form.aligned(end).unwrap_or(end);
        Ok((name, content))
    }

    fn entry(&self, header: &Header, path: Vec<u8>, at: u64) -> Result<Entry> {
        let wrong = |what: &str| damaged(self.window.name, &path, what);
        let what = match FileKind::from_mode(header.mode) {
            Some(FileKind::Directory) => Object::Directory,
            Some(FileKind::Regular) => Object::Regular { size: header.size, data: Data::Whole(at) },
            Some(FileKind::Symlink) => {
                let target = self.window.source.part(at, header.size).ok_or_else(|| wrong("truncated"))?;
                let target = target.read_all(NAME_MAX);
                Object::Symlink(target.map_err(|_| wrong("a symbolic link with an impossible target"))?)
            }
            Some(FileKind::Fifo) => Object::Fifo,
            Some(FileKind::Socket) => Object::Socket,
            Some(FileKind::CharDevice) => Object::CharDevice(header.rdev),
            Some(FileKind::BlockDevice) => Object::BlockDevice(header.rdev),
            None => return Err(wrong("its mode has no type that is known")),
        };
        let seconds = i64::try_from(header.mtime).map_err(|_| wrong("its time is no number"))?;
        Ok(Entry {
            mode: header.mode & 0o7777,
            uid: header.uid,
            gid: header.gid,
            mtime: Timestamp { seconds, nanoseconds: 0 },
            xattrs: Vec::new(),
            path,
            what,
        })
    }
}

/// Takes further names of a file.
fn named(entries: Vec<Entry>, target: &[u8], take: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
    entries.into_iter().try_for_each(|entry| take(Entry { what: Object::HardLink(target.to_vec()), ..entry }))
}
