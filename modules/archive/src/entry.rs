//! One entry of an archive, whatever the format of the archive. Knows no tree.

use umvu_interface::{Errno, MountError, Timestamp};

use crate::zip::Packed;

/// What comes of reading an archive.
pub type Result<T> = core::result::Result<T, MountError>;

/// An extended attribute.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// What an archive says of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it stands in the archive.
    pub path: Vec<u8>,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last modification.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Vec<Xattr>,
    /// The object itself.
    pub what: Object,
}

/// The kinds of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Object {
    Directory,
    Regular {
        size: u64,
        data: Data,
    },
    Symlink(Vec<u8>),
    /// Another name of what is at this path of the archive.
    HardLink(Vec<u8>),
    Fifo,
    /// `rdev` as encoded by makedev(3).
    CharDevice(u64),
    BlockDevice(u64),
    Socket,
}

/// Where the content of a regular file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// From this offset of the archive on, without holes.
    Whole(u64),
    /// In pieces; holes between them.
    Sparse(Box<[Extent]>),
    /// Compressed on its own, in a zip archive.
    Packed(Box<Packed>),
}

/// A piece of a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Offset in the file.
    pub logical: u64,
    /// Offset in the archive.
    pub at: u64,
    /// Length in bytes.
    pub length: u64,
}

/// The failure of an archive that says nothing sensible: `EUCLEAN`, as file systems of Linux have it.
pub fn damaged(archive: &str, entry: &[u8], why: impl std::fmt::Display) -> MountError {
    MountError::new(Errno::UCLEAN, format!("{archive}: entry '{}': {why}", shown(entry)))
}

/// The failure of a read.
pub fn unreadable(archive: &str, error: &std::io::Error) -> MountError {
    let errno = Errno::from_io_error(error).unwrap_or(Errno::IO);
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    let text: String = match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    };
    MountError::new(errno, format!("{archive}: {text}"))
}

/// A name for a message, whatever it is made of, and not longer than a line.
pub fn shown(name: &[u8]) -> String {
    const MOST: usize = 120;
    let cut = name.len().min(MOST);
    let text = match std::str::from_utf8(&name[..cut]) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => name[..cut].escape_ascii().to_string(),
    };
    if cut < name.len() {
        return text + "...";
    }
    text
}
