//! Lines of saved ownership, as fakeroot(1) saves with `-s` and loads with `-i`:
//! `dev=fe00,ino=12,mode=104755,uid=0,gid=33,nlink=1,rdev=0`, device in hexadecimal, mode in octal.
//!
//! The form has no birth time, so inode numbers must not have been reused between save and load.
//! Does no system calls.

use core::fmt;

use rustix::fs::{major, makedev, minor, FileType};

use crate::object::{FakeKind, Key, Override};
use crate::record::Record;

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
    /// Type shown and permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u64,
    pub(crate) rdev: u64,
}

impl Entry {
    /// Describes an object that shows `shown` and has `host_type` on the host.
    pub(crate) fn new(dev: u64, ino: u64, shown: &Override, host_type: FileType) -> Entry {
        let (shown_type, rdev) = match shown.kind {
            FakeKind::Same => (host_type, 0),
            FakeKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(major, minor)),
            FakeKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(major, minor)),
            FakeKind::Fifo => (FileType::Fifo, 0),
            FakeKind::Socket => (FileType::Socket, 0),
        };
        let mode = shown_type.as_raw_mode() | shown.mode;
        Entry { dev, ino, mode, uid: shown.uid, gid: shown.gid, nlink: 1, rdev }
    }

    /// Describes a record of which nothing but its key is known.
    pub(crate) fn of_record(key: &Key, record: &Record) -> Entry {
        Entry::new(key.dev, key.ino, &record.shown, record.host_type)
    }

    /// What the entry makes an object of `host_type` show; `None` when it cannot mean that object.
    pub(crate) fn shown_for(&self, host_type: FileType) -> Option<Override> {
        let (major, minor) = (major(self.rdev), minor(self.rdev));
        let kind = match FileType::from_raw_mode(self.mode) {
            same if same == host_type => FakeKind::Same,
            _ if host_type != FileType::RegularFile => return None,
            FileType::CharacterDevice => FakeKind::CharDevice { major, minor },
            FileType::BlockDevice => FakeKind::BlockDevice { major, minor },
            FileType::Fifo => FakeKind::Fifo,
            FileType::Socket => FakeKind::Socket,
            _ => return None,
        };
        Some(Override { uid: self.uid, gid: self.gid, mode: self.mode & 0o7777, kind })
    }

    /// Reads a line without its newline.
    pub(crate) fn parse(line: &str) -> Result<Entry, &'static str> {
        let mut fields = line.split(',');
        let mut next = |name: &str, radix, cause| {
            let digits = fields.next()?.strip_prefix(name)?.strip_prefix('=')?;
            let plain = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u64::from_str_radix(digits, radix).ok().filter(|_| plain).ok_or(cause).ok()
        };
        let mut field = |name: &str, radix, cause| next(name, radix, cause).ok_or(cause);
        let dev = field("dev", 16, "no dev=HEX")?;
        let ino = field("ino", 10, "no ino=NUMBER")?;
        let mode = field("mode", 8, "no mode=OCTAL")?;
        let uid = field("uid", 10, "no uid=NUMBER")?;
        let gid = field("gid", 10, "no gid=NUMBER")?;
        let nlink = field("nlink", 10, "no nlink=NUMBER")?;
        let rdev = field("rdev", 10, "no rdev=NUMBER")?;
        if fields.next().is_some() {
            return Err("something follows rdev");
        }
        let mode = u32::try_from(mode).ok().filter(|mode| *mode <= 0o177_777).ok_or("mode too large")?;
        if FileType::from_raw_mode(mode) == FileType::Unknown {
            return Err("mode without a file type");
        }
        let uid = u32::try_from(uid).map_err(|_| "uid too large")?;
        let gid = u32::try_from(gid).map_err(|_| "gid too large")?;
        Ok(Entry { dev, ino, mode, uid, gid, nlink, rdev })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Entry { dev, ino, mode, uid, gid, nlink, rdev } = self;
        write!(out, "dev={dev:x},ino={ino},mode={mode:o},uid={uid},gid={gid},nlink={nlink},rdev={rdev}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NULL: &str = "dev=fe00,ino=10010649,mode=20644,uid=0,gid=6,nlink=1,rdev=259";

    #[test]
    fn fakeroot_lines_read_and_write_back() {
        for line in [
            NULL,
            "dev=fe00,ino=10010648,mode=104755,uid=5,gid=6,nlink=1,rdev=0",
            "dev=fe00,ino=10010650,mode=60644,uid=0,gid=0,nlink=1,rdev=2049",
            "dev=fe00,ino=10010652,mode=120777,uid=7,gid=8,nlink=1,rdev=0",
            "dev=fe00,ino=18446744073709551615,mode=40755,uid=4294967295,gid=0,nlink=2,rdev=0",
        ] {
            assert_eq!(Entry::parse(line).map(|entry| entry.to_string()), Ok(line.to_owned()));
        }
    }

    #[test]
    fn a_device_is_faked_on_a_file_and_kept_on_a_device() {
        let entry = Entry::parse(NULL).unwrap();
        let kind = |host_type| entry.shown_for(host_type).map(|shown| shown.kind);
        assert_eq!(kind(FileType::RegularFile), Some(FakeKind::CharDevice { major: 1, minor: 3 }));
        assert_eq!(kind(FileType::CharacterDevice), Some(FakeKind::Same));
        assert_eq!(kind(FileType::Directory), None);
        assert_eq!(kind(FileType::BlockDevice), None);
    }

    #[test]
    fn malformed_lines_are_refused_with_their_reason() {
        for (line, cause) in [
            ("", "no dev=HEX"),
            ("dev=,ino=1", "no dev=HEX"),
            ("dev=+1,ino=1", "no dev=HEX"),
            ("dev=1 ,ino=1", "no dev=HEX"),
            ("dev=1,ino=x", "no ino=NUMBER"),
            ("dev=1,ino=1,mode=9", "no mode=OCTAL"),
            ("dev=1,ino=18446744073709551616,mode=1", "no ino=NUMBER"),
            ("dev=1,ino=1,mode=1000644,uid=0,gid=0,nlink=1,rdev=0", "mode too large"),
            ("dev=1,ino=1,mode=644,uid=0,gid=0,nlink=1,rdev=0", "mode without a file type"),
            ("dev=1,ino=1,mode=100644,uid=4294967296,gid=0,nlink=1,rdev=0", "uid too large"),
            ("dev=1,ino=1,mode=100644,uid=0,gid=0,nlink=1", "no rdev=NUMBER"),
            ("dev=1,ino=1,mode=100644,uid=0,gid=0,nlink=1,rdev=0,x=1", "something follows rdev"),
        ] {
            assert_eq!(Entry::parse(line), Err(cause), "{line:?}");
        }
    }
}
