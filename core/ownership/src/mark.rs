//! The text in the extended attribute: `uid:gid:mode[:type]`.
//!
//! Written as containers-storage writes it (`pkg/idtools`); read as leniently as containers-storage
//! and fuse-overlayfs together do, since layers made by both are met. Does no system calls.

use rustix::fs::FileType;

use crate::object::{FakeKind, Override};

/// What an attribute says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The object shows this.
    Shows(Override),
    /// The object shows what the host stores; the attribute is there to mark the layer.
    Host,
}

/// The longest value accepted; the longest written is 54 bytes, and fuse-overlayfs reads 64.
pub(crate) const MAX_LEN: usize = 128;

/// Ends the type of a root that carries a mark but no override. Readers of the format look at how
/// the type begins, so they see a directory.
const HOST_SUFFIX: &[u8] = b"-host";

/// Formats the mark of an object that has `host_type` on the host.
pub(crate) fn format(shown: &Override, host_type: FileType) -> String {
    let Override { uid, gid, mode, kind } = shown;
    let type_name = match kind {
        FakeKind::Same if host_type == FileType::Directory => "dir".to_owned(),
        FakeKind::Same => "file".to_owned(),
        FakeKind::CharDevice { major, minor } => format!("char-{major}-{minor}"),
        FakeKind::BlockDevice { major, minor } => format!("block-{major}-{minor}"),
        FakeKind::Fifo => "pipe".to_owned(),
        FakeKind::Socket => "socket".to_owned(),
    };
    format!("{uid}:{gid}:{mode:04o}:{type_name}")
}

/// Formats the mark of a layer's root that shows what the host stores.
///
/// Others read it as owned by root, which is what an unmarked object of the user is in the user
/// namespace of a rootless container.
pub(crate) fn format_host_root(mode: u32) -> String {
    format!("0:0:{mode:04o}:dir-host", mode = mode & 0o7777)
}

/// Reads the mark of an object that has `host_type` on the host; `None` when it is malformed.
pub(crate) fn parse(value: &[u8], host_type: FileType) -> Option<Mark> {
    // setfattr(1) in scripts tends to leave one of these at the end.
    let end = value.iter().rposition(|byte| !b"\0\n".contains(byte))?;
    let mut fields = value[..=end].splitn(4, |byte| *byte == b':');
    let uid = parse_id(fields.next()?)?;
    let gid = parse_id(fields.next()?)?;
    let full_mode = parse_number(fields.next()?, 8)?;
    let kind = match fields.next() {
        Some(name) if name.starts_with(b"dir") && name.ends_with(HOST_SUFFIX) => {
            return (host_type == FileType::Directory).then_some(Mark::Host);
        }
        Some(name) => parse_type(name)?,
        None => kind_of_mode(full_mode)?,
    };
    if kind != FakeKind::Same && host_type != FileType::RegularFile {
        return None;
    }
    let mode = full_mode & 0o7777;
    Some(Mark::Shows(Override { uid, gid, mode, kind }))
}

/// An id; negative ones are what the C fuse-overlayfs made of ids above 2^31.
fn parse_id(field: &[u8]) -> Option<u32> {
    match field.strip_prefix(b"-") {
        Some(magnitude) => {
            parse_number(magnitude, 10).filter(|number| (1..=1 << 31).contains(number)).map(u32::wrapping_neg)
        }
        None => parse_number(field, 10),
    }
}

/// A number without sign, blank or prefix, as `from_str_radix` would also take a `+`.
fn parse_number(field: &[u8], radix: u32) -> Option<u32> {
    let digits = core::str::from_utf8(field).ok()?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

fn parse_type(name: &[u8]) -> Option<FakeKind> {
    // Only how the name begins counts, so that later writers may add to it.
    if let Some(numbers) = name.strip_prefix(b"char") {
        let (major, minor) = parse_device(numbers)?;
        return Some(FakeKind::CharDevice { major, minor });
    }
    if let Some(numbers) = name.strip_prefix(b"block") {
        let (major, minor) = parse_device(numbers)?;
        return Some(FakeKind::BlockDevice { major, minor });
    }
    let known: [(&[u8], FakeKind); 5] = [
        (b"file", FakeKind::Same),
        (b"dir", FakeKind::Same),
        (b"symlink", FakeKind::Same),
        (b"pipe", FakeKind::Fifo),
        (b"socket", FakeKind::Socket),
    ];
    known.into_iter().find(|(start, _)| name.starts_with(start)).map(|(_, kind)| kind)
}

/// `-MAJ-MIN` as containers-storage has it, or `MAJ:MIN` as fuse-overlayfs reads.
fn parse_device(numbers: &[u8]) -> Option<(u32, u32)> {
    let numbers = numbers.strip_prefix(b"-").unwrap_or(numbers);
    let mut parts = numbers.split(|byte| b"-:".contains(byte));
    let major = parse_number(parts.next()?, 10)?;
    let minor = parse_number(parts.next()?, 10)?;
    Some((major, minor))
}

/// The type in the mode, which some writers put there instead of a fourth field.
fn kind_of_mode(full_mode: u32) -> Option<FakeKind> {
    if full_mode > 0o177_777 {
        return None;
    }
    match FileType::from_raw_mode(full_mode) {
        FileType::Fifo => Some(FakeKind::Fifo),
        FileType::Socket => Some(FakeKind::Socket),
        // A device without its numbers.
        FileType::CharacterDevice | FileType::BlockDevice => None,
        _ => Some(FakeKind::Same),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use FileType::{Directory, RegularFile};

    fn shows(uid: u32, gid: u32, mode: u32, kind: FakeKind) -> Option<Mark> {
        Some(Mark::Shows(Override { uid, gid, mode, kind }))
    }

    #[test]
    fn marks_are_written_as_containers_storage_writes_them() {
        let mut shown = Override { uid: 0, gid: 33, mode: 0o755, kind: FakeKind::Same };
        assert_eq!(format(&shown, Directory), "0:33:0755:dir");
        assert_eq!(format(&shown, RegularFile), "0:33:0755:file");
        shown.mode = 0o4711;
        assert_eq!(format(&shown, RegularFile), "0:33:4711:file");
        shown.mode = 0;
        shown.kind = FakeKind::CharDevice { major: 1, minor: 3 };
        assert_eq!(format(&shown, RegularFile), "0:33:0000:char-1-3");
        shown.kind = FakeKind::BlockDevice { major: 8, minor: 1 };
        assert_eq!(format(&shown, RegularFile), "0:33:0000:block-8-1");
        shown.kind = FakeKind::Fifo;
        assert_eq!(format(&shown, RegularFile), "0:33:0000:pipe");
        shown.kind = FakeKind::Socket;
        assert_eq!(format(&shown, RegularFile), "0:33:0000:socket");
    }

    #[test]
    fn the_longest_mark_fits_the_64_bytes_that_others_read() {
        let device = FakeKind::BlockDevice { major: u32::MAX, minor: u32::MAX };
        let shown = Override { uid: u32::MAX, gid: u32::MAX, mode: 0o7777, kind: device };
        let text = format(&shown, RegularFile);
        assert!(text.len() <= 64, "{text}");
        assert_eq!(parse(text.as_bytes(), RegularFile), Some(Mark::Shows(shown)));
    }

    #[test]
    fn what_others_write_is_read() {
        use FakeKind::{BlockDevice, CharDevice, Fifo, Same, Socket};
        let table: [(&str, Option<Mark>); 17] = [
            ("0:0:755", shows(0, 0, 0o755, Same)),
            ("1000:100:0644:file", shows(1000, 100, 0o644, Same)),
            ("0:0:4755:file\n", shows(0, 0, 0o4755, Same)),
            ("0:0:0777:symlink", shows(0, 0, 0o777, Same)),
            ("0:0:0100755", shows(0, 0, 0o755, Same)),
            ("0:0:100644:file", shows(0, 0, 0o644, Same)),
            ("0:0:010600", shows(0, 0, 0o600, Fifo)),
            ("0:0:0140600\0", shows(0, 0, 0o600, Socket)),
            ("0:0:0600:pipe", shows(0, 0, 0o600, Fifo)),
            ("0:0:0600:socket", shows(0, 0, 0o600, Socket)),
            ("0:6:0660:block-8-1", shows(0, 6, 0o660, BlockDevice { major: 8, minor: 1 })),
            ("0:6:0666:char-1-3", shows(0, 6, 0o666, CharDevice { major: 1, minor: 3 })),
            ("0:6:0666:char-1-3-later", shows(0, 6, 0o666, CharDevice { major: 1, minor: 3 })),
            ("0:6:660:block8:0", shows(0, 6, 0o660, BlockDevice { major: 8, minor: 0 })),
            ("-1:-2147483648:644", shows(u32::MAX, 1 << 31, 0o644, Same)),
            ("4294967295:0:0:file", shows(u32::MAX, 0, 0, Same)),
            ("0:0:0:filed-under", shows(0, 0, 0, Same)),
        ];
        for (text, expected) in table {
            assert_eq!(parse(text.as_bytes(), RegularFile), expected, "{text:?}");
        }
        assert_eq!(parse(b"0:0:040755", Directory), shows(0, 0, 0o755, Same));
        assert_eq!(parse(b"0:0:1777:dir", Directory), shows(0, 0, 0o1777, Same));
    }

    #[test]
    fn malformed_marks_are_refused() {
        for text in [
            &b""[..],
            b"\0",
            b":",
            b":::",
            b"0",
            b"0:0",
            b"0:0:",
            b"0:0::file",
            b"a:0:644",
            b"0:a:644",
            b"0:0:8",
            b"0:0:rw",
            b"+1:0:644",
            b"--1:0:644",
            b"-0:0:644",
            b"-2147483649:0:644",
            b"0:0:-644",
            b" 0:0:644",
            b"4294967296:0:644",
            b"0:0:644:",
            b"0:0:644:bogus",
            b"0:0:644:char",
            b"0:0:644:char-1",
            b"0:0:644:char-1-",
            b"0:0:644:block-x-1",
            b"0:0:644:char-1-4294967296",
            b"0:0:020644",
            b"0:0:060644",
            b"0:0:1000644",
            b"0:0:77777777777777",
            b"\xff\xfe:0:644",
            b"0:0:644:dir-host",
        ] {
            assert_eq!(parse(text, RegularFile), None, "{:?}", text.escape_ascii().to_string());
        }
        // A directory cannot stand for a device.
        assert_eq!(parse(b"0:0:644:char-1-3", Directory), None);
        assert_eq!(parse(b"0:0:010644", Directory), None);
    }

    #[test]
    fn a_root_can_be_marked_without_an_override() {
        let text = format_host_root(0o40_750);
        assert_eq!(text, "0:0:0750:dir-host");
        assert_eq!(parse(text.as_bytes(), Directory), Some(Mark::Host));
    }
}
