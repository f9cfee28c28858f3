//! The words of the FUSE protocol, as `include/uapi/linux/fuse.h` has them. Knows no conversation.

mod structures;
#[cfg(test)]
mod tests;
mod wire;

use bitflags::bitflags;

pub use structures::*;
pub use wire::Wire;

/// The version spoken: 7.40, what later ones add is negotiated by flags that are not offered.
pub const MAJOR: u32 = 7;
/// Minor version.
pub const MINOR: u32 = 40;

/// Longest name: `FUSE_NAME_MAX`, which is `PATH_MAX` - 1 since Linux 6.14.
pub const NAME_MAX: usize = 4095;
/// `FUSE_SUPER_MAGIC`.
pub const MAGIC: u64 = 0x6573_5546;

/// Requests: `enum fuse_opcode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Opcode {
    Lookup = 1,
    Forget = 2,
    GetAttr = 3,
    SetAttr = 4,
    ReadLink = 5,
    Symlink = 6,
    MkNod = 8,
    MkDir = 9,
    Unlink = 10,
    RmDir = 11,
    Rename = 12,
    Link = 13,
    Open = 14,
    Read = 15,
    Write = 16,
    StatFs = 17,
    Release = 18,
    Fsync = 20,
    SetXattr = 21,
    GetXattr = 22,
    ListXattr = 23,
    RemoveXattr = 24,
    Flush = 25,
    Init = 26,
    OpenDir = 27,
    ReadDir = 28,
    ReleaseDir = 29,
    Create = 35,
    Interrupt = 36,
    Destroy = 38,
    NotifyReply = 41,
    BatchForget = 42,
    Fallocate = 43,
    ReadDirPlus = 44,
    Rename2 = 45,
    Lseek = 46,
    SyncFs = 50,
    Statx = 52,
}

impl Opcode {
    /// Its number.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// Notifications: `enum fuse_notify_code`, which a server sends with a unique number of 0.
pub mod notify {
    #![allow(missing_docs)]
    pub const POLL: i32 = 1;
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
    pub const STORE: i32 = 4;
    pub const RETRIEVE: i32 = 5;
    pub const DELETE: i32 = 6;
}

bitflags! {
    /// What is negotiated by `INIT`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Init: u64 {
        const ASYNC_READ = 1;
        const EXPORT_SUPPORT = 1 << 4;
        const BIG_WRITES = 1 << 5;
        const DONT_MASK = 1 << 6;
        const AUTO_INVAL_DATA = 1 << 12;
        const DO_READDIRPLUS = 1 << 13;
        const READDIRPLUS_AUTO = 1 << 14;
        const ASYNC_DIO = 1 << 15;
        const WRITEBACK_CACHE = 1 << 16;
        const NO_OPEN_SUPPORT = 1 << 17;
        const PARALLEL_DIROPS = 1 << 18;
        const MAX_PAGES = 1 << 22;
        const CACHE_SYMLINKS = 1 << 23;
        const NO_OPENDIR_SUPPORT = 1 << 24;
        const EXPLICIT_INVAL_DATA = 1 << 25;
        const SETXATTR_EXT = 1 << 29;
        const INIT_EXT = 1 << 30;
        const HAS_EXPIRE_ONLY = 1 << 35;
    }
}

bitflags! {
    /// What a server says of a file it has opened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct OpenAnswer: u32 {
        const DIRECT_IO = 1;
        const KEEP_CACHE = 2;
        const NONSEEKABLE = 4;
        const CACHE_DIR = 8;
        const STREAM = 16;
        const NOFLUSH = 32;
    }
}

bitflags! {
    /// Which fields of a [`SetAttrIn`] count.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Changed: u32 {
        const MODE = 1;
        const UID = 1 << 1;
        const GID = 1 << 2;
        const SIZE = 1 << 3;
        const ATIME = 1 << 4;
        const MTIME = 1 << 5;
        const FH = 1 << 6;
        const ATIME_NOW = 1 << 7;
        const MTIME_NOW = 1 << 8;
        const LOCKOWNER = 1 << 9;
    }
}
