//! One component of a path. Knows nothing of directories or of resolution.

use crate::{Errno, Result};

/// A file name: bytes without `/` and NUL, at most 255 of them, neither empty nor `.` nor `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Longest name that Linux file systems take, in bytes.
    pub const MAX: usize = 255;

    /// Checks and takes a file name.
    ///
    /// # Errors
    /// - `ENOENT`: the name is empty.
    /// - `EINVAL`: the name is `.` or `..`, or has a `/` or a NUL byte.
    /// - `ENAMETOOLONG`: the name is longer than [`Name::MAX`].
    pub fn new(bytes: &[u8]) -> Result<Self> {
        match bytes {
            b"" => return Err(Errno::NOENT),
            b"." | b".." => return Err(Errno::INVAL),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => return Err(Errno::INVAL),
            _ => {}
        }
        if bytes.len() > Self::MAX {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Name {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for Name {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_separators_or_too_long_are_refused() {
        assert_eq!(Name::new(b"").unwrap_err(), Errno::NOENT);
        assert_eq!(Name::new(b"..").unwrap_err(), Errno::INVAL);
        assert_eq!(Name::new(b"a/b").unwrap_err(), Errno::INVAL);
        assert_eq!(Name::new(&[b'x'; 256]).unwrap_err(), Errno::NAMETOOLONG);
        assert_eq!(Name::new(&[0xff; 255]).unwrap().as_bytes().len(), 255);
    }
}
