//! What a store is asked about: the identity of a host object and what is shown in its place.
//!
//! Knows nothing of where an override is kept.

use std::os::fd::BorrowedFd;

use rustix::fs::{makedev, statx, AtFlags, Statx, StatxFlags};
use rustix::io::Errno;

/// What a faked object shows in place of what the host stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Owner shown.
    pub uid: u32,
    /// Group shown.
    pub gid: u32,
    /// Permission bits shown, at most `0o7777`.
    pub mode: u32,
    /// Type shown.
    pub kind: FakeKind,
}

/// The type that a faked object shows.
///
/// For every kind but [`FakeKind::Same`] an empty regular file stands for the object on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeKind {
    /// The type that the object has on the host.
    Same,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

/// The identity of a host object, which survives rename, link and exchange.
///
/// The birth time tells an object from a later one that was given the same inode number. Where the
/// file system has none, only the type recorded with an override guards against that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Device number, as `st_dev` has it.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Birth time in nanoseconds since the epoch, where the file system knows it.
    pub btime_ns: Option<i128>,
}

impl Key {
    /// The fields that [`Key::from_statx`] needs; `INO` is filled in by every file system.
    pub const MASK: StatxFlags = StatxFlags::INO.union(StatxFlags::BTIME);

    /// Takes the identity out of a statx(2) answer that was asked for at least [`Key::MASK`].
    pub fn from_statx(stat: &Statx) -> Key {
        let has_btime = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let btime = &stat.stx_btime;
        Key {
            dev: makedev(stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            btime_ns: has_btime.then(|| i128::from(btime.tv_sec) * 1_000_000_000 + i128::from(btime.tv_nsec)),
        }
    }

    /// Asks the host for the identity of `object`, which may be an `O_PATH` descriptor.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn of(object: BorrowedFd<'_>) -> Result<Key, Errno> {
        statx(object, c"", AtFlags::EMPTY_PATH, Key::MASK).map(|stat| Key::from_statx(&stat))
    }
}

/// Where an override is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// In the object's own extended attribute, and in the database what cannot carry one.
    Xattr,
    /// In the database beside the layer.
    Database,
}
