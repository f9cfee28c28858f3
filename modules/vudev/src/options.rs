//! The options of a mount. Knows nothing of what they do.

use umvu_interface::{Errno, MountError};

/// The options of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Major number.
    pub major: Option<u32>,
    /// Minor number.
    pub minor: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Whether it begins with a partition table.
    pub table: Option<Table>,
    /// Whether it refuses writes.
    pub access: Option<Access>,
}

/// The partition table that a new disk gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// A master boot record without partitions.
    Mbr,
}

/// How a device may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It refuses writes.
    ReadOnly,
    /// It takes them.
    ReadWrite,
}

/// Major and minor numbers are below these: `MAJOR` and `MINOR` of linux/kdev_t.h.
const MAJORS: u64 = 1 << 12;
const MINORS: u64 = 1 << 20;

/// Reads the options of a mount.
///
/// # Errors
/// - `EINVAL`: an option that there is not, or a value that cannot be.
pub fn parse(options: &[Vec<u8>]) -> Result<Options, MountError> {
    let mut parsed = Options::default();
    for option in options {
        let (name, value) = match option.iter().position(|b| *b == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (&option[..], None),
        };
        let refused = |why: &str| {
            let message = format!("vudev: option '{}': {why}", option.escape_ascii());
            MountError::new(Errno::INVAL, message)
        };
        let number = |radix, limit: u64| {
            let digits = value.and_then(|v| std::str::from_utf8(v).ok()).unwrap_or_default();
            let number = u64::from_str_radix(digits, radix).ok().filter(|n| *n < limit);
            number.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| refused("not a number that it takes"))
        };
        match (name, value) {
            (b"mode", Some(_)) => parsed.mode = Some(number(8, 0o10000)?),
            (b"uid", Some(_)) => parsed.uid = Some(number(10, u64::from(u32::MAX))?),
            (b"gid", Some(_)) => parsed.gid = Some(number(10, u64::from(u32::MAX))?),
            (b"major", Some(_)) => parsed.major = Some(number(10, MAJORS)?),
            (b"minor", Some(_)) => parsed.minor = Some(number(10, MINORS)?),
            (b"size", Some(value)) => {
                parsed.size = Some(size(value).ok_or_else(|| refused("not a size: a number, K, M, G or T"))?);
            }
            (b"mbr", None) => parsed.table = Some(Table::Mbr),
            (b"ro", None) => parsed.access = Some(Access::ReadOnly),
            (b"rw", None) => parsed.access = Some(Access::ReadWrite),
            _ => return Err(refused("unknown")),
        }
    }
    Ok(parsed)
}

fn size(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let unit = match &text[digits..] {
        b"" => 1,
        b"k" | b"K" => 1 << 10,
        b"m" | b"M" => 1 << 20,
        b"g" | b"G" => 1 << 30,
        b"t" | b"T" => 1 << 40,
        _ => return None,
    };
    let number: u64 = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    // An offset in a file is a signed number.
    number.checked_mul(unit).filter(|bytes| i64::try_from(*bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Result<Options, MountError> {
        parse(&text.split(|b| *b == b',').map(<[u8]>::to_vec).collect::<Vec<_>>())
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parsed(b"size=1M").unwrap().size, Some(1 << 20));
        assert_eq!(parsed(b"size=512").unwrap().size, Some(512));
        for wrong in [&b"size="[..], b"size=M", b"size=1X", b"size=99999999T", b"size=-1"] {
            assert!(parsed(wrong).is_err(), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn modes_are_octal_and_other_numbers_are_not() {
        let options = parsed(b"mode=600,uid=10,major=3,minor=64,mbr,ro").unwrap();
        assert_eq!((options.mode, options.uid), (Some(0o600), Some(10)));
        assert_eq!((options.major, options.minor), (Some(3), Some(64)));
        assert_eq!((options.table, options.access), (Some(Table::Mbr), Some(Access::ReadOnly)));
        assert!(parsed(b"mode=9").is_err());
        assert!(parsed(b"major=4096").is_err());
        assert!(parsed(b"frob").is_err());
    }
}
