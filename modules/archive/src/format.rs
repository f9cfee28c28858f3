//! The formats of archives, and how a file tells which one it is. Knows nothing of what is in them.

use crate::entry::{unreadable, Result};
use crate::source::Source;
use crate::{cpio, zip};

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Format {
    Tar,
    Zip,
    Cpio,
}

impl Format {
    /// What the type of a mount is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Zip => "zip",
            Self::Cpio => "cpio",
        }
    }

    /// Tells it by the beginning of a file. What tells nothing is taken for a tar archive, of which the oldest have no
    /// mark.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn of(source: &Source, name: &str) -> Result<Self> {
        let mut start = [0; 8];
        let count = source.read_at(0, &mut start).map_err(|error| unreadable(name, &error))?;
        Ok(match &start[..count] {
            start if zip::begins(start) => Self::Zip,
            start if cpio::begins(start) => Self::Cpio,
            _ => Self::Tar,
        })
    }
}
