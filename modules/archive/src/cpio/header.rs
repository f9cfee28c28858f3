//! A header of a cpio archive, in the forms that are written today: SVR4's with and without a sum (`newc`, `crc`), and
//! POSIX's (`odc`). Knows nothing of what is around it.

/// A form of cpio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Eight hexadecimal digits for each number; names and contents begin at multiples of four.
    New,
    /// Octal digits, nothing between.
    Old,
}

impl Form {
    /// Tells it by the first bytes of a header.
    pub fn of(start: &[u8]) -> Option<Self> {
        match start {
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2', ..] => Some(Self::New),
            [b'0', b'7', b'0', b'7', b'0', b'7', ..] => Some(Self::Old),
            _ => None,
        }
    }

    /// Length of a header, in bytes.
    pub fn length(self) -> usize {
        match self {
            Self::New => 110,
            Self::Old => 76,
        }
    }

    /// Where that begins which does not begin before `at`.
    pub fn aligned(self, at: u64) -> Option<u64> {
        match self {
            Self::New => at.checked_next_multiple_of(4),
            Self::Old => Some(at),
        }
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Device and inode: what tells names of one file.
    pub file: (u64, u64, u64),
    /// With the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub links: u64,
    pub mtime: u64,
    pub size: u64,
    /// As encoded by makedev(3).
    pub rdev: u64,
    /// With the zero at its end.
    pub name_size: u64,
}

/// Takes numbers off the front.
struct Digits<'a> {
    rest: &'a [u8],
    radix: u32,
}

impl Digits<'_> {
    fn take(&mut self, count: usize) -> Option<u64> {
        let (field, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        let text = std::str::from_utf8(field).ok().filter(|text| !text.starts_with('+'))?;
        u64::from_str_radix(text, self.radix).ok()
    }

    fn short(&mut self, count: usize) -> Option<u32> {
        self.take(count)?.try_into().ok()
    }
}

impl Header {
    /// Reads a header; none where a number is none.
    pub fn read(form: Form, bytes: &[u8]) -> Option<Self> {
        let rest = bytes.get(6..form.length())?;
        match form {
            // Documentation/driver-api/early-userspace/buffer-format.rst
            Form::New => {
                let mut digits = Digits { rest, radix: 16 };
                let ino = digits.take(8)?;
                let (mode, uid, gid) = (digits.short(8)?, digits.short(8)?, digits.short(8)?);
                let (links, mtime, size) = (digits.take(8)?, digits.take(8)?, digits.take(8)?);
                let file = (digits.take(8)?, digits.take(8)?, ino);
                let rdev = rustix::fs::makedev(digits.short(8)?, digits.short(8)?);
                Some(Self { file, mode, uid, gid, links, mtime, size, rdev, name_size: digits.take(8)? })
            }
            // POSIX, pax: cpio Interchange Format
            Form::Old => {
                let mut digits = Digits { rest, radix: 8 };
                let file = (0, digits.take(6)?, digits.take(6)?);
                let (mode, uid, gid) = (digits.short(6)?, digits.short(6)?, digits.short(6)?);
                let (links, rdev, mtime) = (digits.take(6)?, digits.take(6)?, digits.take(11)?);
                let (name_size, size) = (digits.take(6)?, digits.take(11)?);
                Some(Self { file, mode, uid, gid, links, mtime, size, rdev, name_size })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_alone() {
        let good = b"070701000000010000A1FF0000000200000003000000040000000500000006000000070000000800000009000000aa0000000b00000000";
        let header = Header::read(Form::New, good).unwrap();
        let rdev = rustix::fs::makedev(9, 0xaa);
        let expected =
            Header { file: (7, 8, 1), mode: 0xa1ff, uid: 2, gid: 3, links: 4, mtime: 5, size: 6, rdev, name_size: 11 };
        assert_eq!(header, expected);
        for wrong in [b"+", b"-", b" ", b"g"] {
            let mut bytes = *good;
            bytes[14] = wrong[0];
            assert_eq!(Header::read(Form::New, &bytes), None);
        }
        assert_eq!(Header::read(Form::New, &good[..109]), None);
    }
}
