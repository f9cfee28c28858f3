//! Answers of a server made into what the view understands, and judged as the kernel judges them. Knows no connection.

use std::time::Duration;

use umvu_driver::{Found, Listing, Told, ROOT};
use umvu_interface::{DirEntry, Errno, FileKind, FsStat, Result, Stat, Timestamp};

use crate::abi::{self, Attr, AttrOut, Dirent, EntryOut, KStatFs, OpenOut, StatxOut, StatxTime, Wire};

/// How long something is valid: `fuse_time_to_jiffies` of `fs/fuse/dir.c`.
fn valid(seconds: u64, nanoseconds: u32) -> Duration {
    Duration::new(seconds, nanoseconds.min(999_999_999))
}

/// A time; nanoseconds that are none count as the last one.
fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds: nanoseconds.min(999_999_999) }
}

/// A device number of 32 bits: `new_decode_dev` of linux/kdev_t.h.
fn device(encoded: u32) -> u64 {
    rustix::fs::makedev((encoded & 0xf_ff00) >> 8, (encoded & 0xff) | ((encoded >> 12) & 0xf_ff00))
}

/// A device number as [`device`] takes it: `new_encode_dev`.
pub fn encoded_device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xf_ff00) << 12)
}

/// `fuse_invalid_attr` of `fs/fuse/dir.c`.
fn check(mode: u32, size: u64) -> Result<()> {
    if FileKind::from_mode(mode).is_none() || i64::try_from(size).is_err() {
        tracing::debug!(mode, size, "a FUSE server tells of an object that cannot be");
        return Err(Errno::IO);
    }
    Ok(())
}

/// Metadata.
///
/// # Errors
/// - `EIO`: there is no such type of files, or size.
fn stat(attr: &Attr) -> Result<Stat> {
    check(attr.mode, attr.size)?;
    let at = |seconds: u64, nanoseconds| time(i64::from_ne_bytes(seconds.to_ne_bytes()), nanoseconds);
    Ok(Stat {
        dev: 0,
        ino: attr.ino,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: device(attr.rdev),
        size: attr.size,
        blksize: if attr.blksize == 0 { 4096 } else { attr.blksize },
        blocks: attr.blocks,
        atime: at(attr.atime, attr.atimensec),
        mtime: at(attr.mtime, attr.mtimensec),
        ctime: at(attr.ctime, attr.ctimensec),
        ..Stat::default()
    })
}

/// The answer to `GETATTR` and `SETATTR`.
pub fn told(body: &[u8]) -> Result<Told> {
    let out = AttrOut::whole(body).ok_or(Errno::IO)?;
    Ok(Told { stat: stat(&out.attr)?, valid: valid(out.attr_valid, out.attr_valid_nsec) })
}

/// The answer to `STATX`.
pub fn told_more(body: &[u8]) -> Result<Told> {
    const BTIME: u32 = 0x800;
    const BASIC: u32 = 0x7ff;
    let out = StatxOut::whole(body).ok_or(Errno::IO)?;
    let from = &out.stat;
    check(u32::from(from.mode), from.size)?;
    if from.mask & BASIC != BASIC {
        return Err(Errno::IO);
    }
    let at = |t: &StatxTime| time(t.tv_sec, t.tv_nsec);
    let stat = Stat {
        dev: 0,
        ino: from.ino,
        mode: u32::from(from.mode),
        nlink: from.nlink,
        uid: from.uid,
        gid: from.gid,
        rdev: rustix::fs::makedev(from.rdev_major, from.rdev_minor),
        size: from.size,
        blksize: if from.blksize == 0 { 4096 } else { from.blksize },
        blocks: from.blocks,
        atime: at(&from.atime),
        mtime: at(&from.mtime),
        ctime: at(&from.ctime),
        btime: (from.mask & BTIME != 0).then(|| at(&from.btime)),
        attributes: 0,
        attributes_mask: 0,
    };
    Ok(Told { stat, valid: valid(out.attr_valid, out.attr_valid_nsec) })
}

/// The answer to `LOOKUP`. The number 0 says that there is no such entry: `fuse_lookup_name`.
pub fn looked_up(body: &[u8]) -> Result<Found> {
    let out = EntryOut::whole(body).ok_or(Errno::IO)?;
    if out.nodeid == 0 {
        return Err(Errno::NOENT);
    }
    found(&out)
}

fn found(out: &EntryOut) -> Result<Found> {
    if out.nodeid == ROOT || out.nodeid == 0 {
        return Err(Errno::IO);
    }
    Ok(Found {
        node: out.nodeid,
        generation: out.generation,
        told: Told { stat: stat(&out.attr)?, valid: valid(out.attr_valid, out.attr_valid_nsec) },
        name_valid: valid(out.entry_valid, out.entry_valid_nsec),
    })
}

/// The answer to what makes an entry of a kind: `create_new_entry`.
pub fn made(body: &[u8], kind: FileKind) -> Result<Found> {
    let out = EntryOut::whole(body).ok_or(Errno::IO)?;
    if FileKind::from_mode(out.attr.mode) != Some(kind) {
        return Err(Errno::IO);
    }
    found(&out)
}

/// The answer to `CREATE`.
pub fn created(body: &[u8]) -> Result<(Found, OpenOut)> {
    let (entry, open) = body.split_at_checked(EntryOut::SIZE).ok_or(Errno::IO)?;
    Ok((made(entry, FileKind::Regular)?, OpenOut::whole(open).ok_or(Errno::IO)?))
}

/// The target of a symbolic link: `fuse_readlink_folio`, which takes less than a page, and what is before a NUL.
pub fn target(mut body: Vec<u8>) -> Result<Vec<u8>> {
    if body.len() >= 4096 {
        return Err(Errno::IO);
    }
    if let Some(end) = body.iter().position(|byte| *byte == 0) {
        body.truncate(end);
    }
    Ok(body)
}

/// One piece of a listing: adds the entries, and gives the place after the last one; `None` at the end.
/// `parse_dirfile` of `fs/fuse/readdir.c`.
///
/// # Errors
/// - `EIO`: a name that cannot be.
pub fn entries(mut body: &[u8], out: &mut Vec<DirEntry>) -> Result<Option<u64>> {
    let mut next = None;
    while let Some((entry, after)) = one_entry(&mut body)? {
        next = Some(after);
        out.extend(entry);
    }
    Ok(next)
}

/// One piece of a listing with what each entry is: `parse_dirplusfile`. What makes no sense is given to `forget`.
///
/// # Errors
/// - `EIO`: a name that cannot be.
pub fn entries_found(mut body: &[u8], out: &mut Listing, forget: impl Fn(u64)) -> Result<Option<u64>> {
    let mut next = None;
    while let Some(told) = EntryOut::take(&mut body) {
        let Some((entry, after)) = one_entry(&mut body)? else { break };
        next = Some(after);
        // Nothing is told of the directory itself and of the one above, nor where the number is 0.
        let Some(entry) = entry else { continue };
        if told.nodeid != 0 {
            match found(&told) {
                Ok(found) => out.found.push((entry.name.clone(), found)),
                Err(_) => forget(told.nodeid),
            }
        }
        out.entries.push(entry);
    }
    Ok(next)
}

/// Takes one entry, `None` for `.` and `..`, and the place after it; `None` where no whole one is left.
fn one_entry(body: &mut &[u8]) -> Result<Option<(Option<DirEntry>, u64)>> {
    let Some(dirent) = Dirent::take(body) else { return Ok(None) };
    let length = usize::try_from(dirent.namelen).map_err(|_| Errno::IO)?;
    if length == 0 || length > abi::NAME_MAX {
        return Err(Errno::IO);
    }
    let Some((name, rest)) = body.split_at_checked(length) else { return Ok(None) };
    if name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        return Err(Errno::IO);
    }
    // Each begins at a multiple of eight.
    *body = rest.get(length.next_multiple_of(8) - length..).unwrap_or_default();
    let dirent_type = u8::try_from(dirent.r#type & 0xf).unwrap_or(0);
    let entry = DirEntry { name: name.into(), ino: dirent.ino, dirent_type };
    Ok(Some(((!matches!(name, b"." | b"..")).then_some(entry), dirent.off)))
}

/// The names of extended attributes: `fuse_verify_xattr_list` of `fs/fuse/xattr.c`.
pub fn names(body: &[u8]) -> Result<Vec<Vec<u8>>> {
    let Some(list) = body.strip_suffix(&[0]) else {
        return if body.is_empty() { Ok(Vec::new()) } else { Err(Errno::IO) };
    };
    let names: Vec<Vec<u8>> = list.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    if names.iter().any(Vec::is_empty) {
        return Err(Errno::IO);
    }
    Ok(names)
}

/// The answer to `STATFS`.
pub fn numbers(body: &[u8]) -> Result<FsStat> {
    let out = KStatFs::whole(body).ok_or(Errno::IO)?;
    Ok(FsStat {
        magic: abi::MAGIC,
        block_size: u64::from(out.bsize),
        blocks: out.blocks,
        blocks_free: out.bfree,
        blocks_available: out.bavail,
        files: out.files,
        files_free: out.ffree,
        fsid: [0; 2],
        name_max: u64::from(out.namelen),
        fragment_size: u64::from(out.frsize),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirent(name: &[u8], off: u64) -> Vec<u8> {
        let namelen = u32::try_from(name.len()).unwrap();
        let mut bytes = Dirent { ino: 5, off, namelen, r#type: 8 }.bytes();
        bytes.extend_from_slice(name);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn listings_end_at_a_broken_entry_and_names_that_cannot_be_are_errors() {
        let mut out = Vec::new();
        let whole = [dirent(b".", 1), dirent(b"a", 2), dirent(b"longer-name", 3)].concat();
        assert_eq!(entries(&whole, &mut out), Ok(Some(3)));
        let seen: Vec<&[u8]> = out.iter().map(|e| &*e.name).collect();
        assert_eq!(seen, [&b"a"[..], b"longer-name"]);
        assert_eq!(entries(&whole[..whole.len() - 9], &mut out), Ok(Some(2)));
        assert_eq!(entries(&[], &mut out), Ok(None));
        assert_eq!(entries(&dirent(b"a/b", 1), &mut out), Err(Errno::IO));
        assert_eq!(entries(&dirent(b"", 1), &mut out), Err(Errno::IO));
        let huge = Dirent { ino: 1, off: 1, namelen: u32::MAX, r#type: 0 };
        assert_eq!(entries(&huge.bytes(), &mut out), Err(Errno::IO));
    }

    #[test]
    fn a_listing_tells_what_its_entries_are_and_gives_back_what_cannot_be() {
        let attr = Attr { mode: 0o100_644, ..Attr::default() };
        let told = |nodeid, attr| EntryOut { nodeid, attr, ..EntryOut::default() }.bytes();
        let no_kind = Attr { mode: 0, ..attr };
        let whole = [
            [told(0, attr), dirent(b"..", 1)].concat(),
            [told(7, attr), dirent(b"a", 2)].concat(),
            [told(0, attr), dirent(b"untold", 3)].concat(),
            [told(9, no_kind), dirent(b"none", 4)].concat(),
        ];
        let forgotten = std::cell::RefCell::new(vec![]);
        let mut out = Listing::default();
        let next = entries_found(&whole.concat(), &mut out, |node| forgotten.borrow_mut().push(node));
        assert_eq!(next, Ok(Some(4)));
        let found: Vec<_> = out.found.iter().map(|(name, found)| (&**name, found.node)).collect();
        assert_eq!((found, out.entries.len(), forgotten.into_inner()), (vec![(&b"a"[..], 7)], 3, vec![9]));
        assert_eq!(entries_found(&whole[0][..140], &mut Listing::default(), |_| {}), Ok(None));
    }

    #[test]
    fn objects_that_cannot_be_are_errors() {
        let attr = Attr { mode: 0o100_644, size: 1, ..Attr::default() };
        assert!(stat(&attr).is_ok());
        assert_eq!(stat(&Attr { mode: 0o644, ..attr }).err(), Some(Errno::IO));
        assert_eq!(stat(&Attr { size: u64::MAX, ..attr }).err(), Some(Errno::IO));
        let entry = EntryOut { nodeid: 2, attr, ..EntryOut::default() };
        assert!(looked_up(&entry.bytes()).is_ok());
        assert_eq!(looked_up(&EntryOut { nodeid: 0, ..entry }.bytes()).err(), Some(Errno::NOENT));
        assert_eq!(looked_up(&EntryOut { nodeid: ROOT, ..entry }.bytes()).err(), Some(Errno::IO));
        assert_eq!(made(&entry.bytes(), FileKind::Directory).err(), Some(Errno::IO));
    }

    #[test]
    fn device_numbers_are_those_of_makedev() {
        for (major, minor) in [(10, 229), (8, 1), (259, 70_000)] {
            let number = rustix::fs::makedev(major, minor);
            assert_eq!(device(encoded_device(number)), number);
        }
    }

    #[test]
    fn lists_of_names_are_verified() {
        assert_eq!(names(b"user.a\0user.b\0"), Ok(vec![b"user.a".to_vec(), b"user.b".to_vec()]));
        assert_eq!(names(b""), Ok(vec![]));
        assert_eq!(names(b"user.a"), Err(Errno::IO));
        assert_eq!(names(b"user.a\0\0"), Err(Errno::IO));
        assert_eq!(names(b"\0"), Err(Errno::IO));
    }
}
