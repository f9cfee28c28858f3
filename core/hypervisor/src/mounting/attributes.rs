//! The flags of mounts: what a new one gets, remounts, mount_setattr(2). Knows nothing of where mounts are attached.

use std::sync::Arc;

use umvu_interface::{Errno, MountFlags};

use super::{fail, reached, what, Depth, Result};
use crate::call::Call;
use crate::mount::{Location, Mount, Propagation};

/// The flags that say how access times are kept.
const ATIME: MountFlags = MountFlags::NO_ATIME.union(MountFlags::NO_DIRATIME).union(MountFlags::RELATIME);

/// The flags of a mount by those of mount(2), as `path_mount` of `fs/namespace.c` takes them apart; a remount that
/// says nothing of access times keeps what `present` has.
pub fn of_mount_call(flags: u64, present: &Location) -> MountFlags {
    let mut own = MountFlags::from_bits_truncate(flags);
    if flags & MountFlags::NO_ATIME.bits() == 0 {
        own |= MountFlags::RELATIME;
    }
    if flags & what::STRICTATIME != 0 {
        own &= !(MountFlags::RELATIME | MountFlags::NO_ATIME);
    }
    if flags & what::REMOUNT != 0 && flags & (ATIME.bits() | what::STRICTATIME) == 0 {
        own &= !ATIME;
        own |= present.mount.own_flags() & ATIME;
    }
    own
}

/// How far a remount reaches.
pub enum Reach<'a> {
    /// The mount alone: `do_reconfigure_mnt`.
    Mount,
    /// The file system with all its mounts, which gets these options: `do_remount`.
    Filesystem(&'a [Vec<u8>]),
}

/// Remounts what is at `at`.
///
/// # Errors
/// - `EINVAL`: not a mount point, or an option that the file system does not take.
/// - `EBUSY`: it shall be read-only, and a file in it is open for writing.
pub fn remount(call: &Call, at: &Location, flags: MountFlags, reach: Reach<'_>, target: &[u8]) -> Result<()> {
    let table = call.table();
    if !table.is_in_tree(&at.mount) || !at.is_mount_root() {
        return Err(fail(target, Errno::INVAL));
    }
    match reach {
        Reach::Filesystem(options) => reconfigure(call, &at.mount, options, flags)?,
        Reach::Mount if becomes_read_only(at.mount.own_flags(), flags) => {
            idle(call, std::slice::from_ref(&at.mount)).map_err(|errno| fail(target, errno))?;
        }
        Reach::Mount => {}
    }
    at.mount.set_flags(flags);
    call.state.view.set_mounts((*table).clone());
    Ok(())
}

/// Changes a file system: options, and whether it may be written to.
///
/// # Errors
/// - `EBUSY`: it shall be read-only, and a file in it is open for writing.
/// - `EINVAL`: an option that the file system does not take.
pub fn reconfigure(call: &Call, mount: &Arc<Mount>, options: &[Vec<u8>], flags: MountFlags) -> Result<()> {
    if becomes_read_only(mount.superblock.flags(), flags) {
        let table = call.table();
        let all = table.mounts().iter().chain(table.detached());
        let sharing: Vec<_> = all.filter(|m| Arc::ptr_eq(&m.superblock, &mount.superblock)).cloned().collect();
        idle(call, &sharing).map_err(|errno| fail(&mount.source, errno))?;
    }
    mount.filesystem.reconfigure(options)?;
    mount.superblock.set_flags(flags);
    Ok(())
}

fn becomes_read_only(old: MountFlags, new: MountFlags) -> bool {
    new.contains(MountFlags::READ_ONLY) && !old.contains(MountFlags::READ_ONLY)
}

/// Checks that no file is open for writing in mounts: `mnt_hold_writers` of `fs/namespace.c`.
fn idle(call: &Call, mounts: &[Arc<Mount>]) -> core::result::Result<(), Errno> {
    if super::leave::is_written(call, mounts) {
        return Err(Errno::BUSY);
    }
    Ok(())
}

/// `MOUNT_ATTR_*` of mount_setattr(2) and fsmount(2).
mod bits {
    pub const RDONLY: u64 = 1;
    pub const NOSUID: u64 = 2;
    pub const NODEV: u64 = 4;
    pub const NOEXEC: u64 = 8;
    pub const ATIME: u64 = 0x70;
    pub const RELATIME: u64 = 0;
    pub const NOATIME: u64 = 0x10;
    pub const STRICTATIME: u64 = 0x20;
    pub const NODIRATIME: u64 = 0x80;
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

const PLAIN: [(u64, MountFlags); 6] = [
    (bits::RDONLY, MountFlags::READ_ONLY),
    (bits::NOSUID, MountFlags::NO_SUID),
    (bits::NODEV, MountFlags::NO_DEV),
    (bits::NOEXEC, MountFlags::NO_EXEC),
    (bits::NODIRATIME, MountFlags::NO_DIRATIME),
    (bits::NOSYMFOLLOW, MountFlags::NO_SYMFOLLOW),
];

/// The flags that stand for themselves; `None` where there are others.
fn plain(attributes: u64) -> Option<MountFlags> {
    let known: u64 = PLAIN.iter().map(|(bit, _)| bit).sum();
    let chosen = PLAIN.iter().filter(|(bit, _)| attributes & bit != 0).map(|(_, flag)| *flag);
    (attributes & !(known | bits::ATIME) == 0).then(|| chosen.fold(MountFlags::empty(), |all, one| all | one))
}

fn atime(attributes: u64) -> Option<MountFlags> {
    match attributes & bits::ATIME {
        bits::RELATIME => Some(MountFlags::RELATIME),
        bits::NOATIME => Some(MountFlags::NO_ATIME),
        bits::STRICTATIME => Some(MountFlags::empty()),
        _ => None,
    }
}

/// The flags of a new mount by the attributes of fsmount(2).
///
/// # Errors
/// - `EINVAL`: an unknown attribute, or two ways of keeping access times.
pub fn of_fsmount(attributes: u32) -> core::result::Result<MountFlags, Errno> {
    let attributes = u64::from(attributes);
    Ok(plain(attributes).ok_or(Errno::INVAL)? | atime(attributes).ok_or(Errno::INVAL)?)
}

/// The attributes of a mount as statmount(2) tells them.
pub fn to_attributes(flags: MountFlags) -> u64 {
    let chosen: u64 = PLAIN.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(bit, _)| bit).sum();
    if flags.contains(MountFlags::NO_ATIME) {
        chosen | bits::NOATIME
    } else if flags.contains(MountFlags::RELATIME) {
        chosen
    } else {
        chosen | bits::STRICTATIME
    }
}

/// A change of attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    set: MountFlags,
    clear: MountFlags,
    propagation: Option<Propagation>,
}

impl Change {
    /// Reads `struct mount_attr`: `build_mount_kattr` of `fs/namespace.c`. User namespaces have no meaning here, so
    /// `MOUNT_ATTR_IDMAP` is refused as for a file system that does not take it.
    ///
    /// # Errors
    /// - `EINVAL`: anything unknown or contradictory.
    pub fn new(set: u64, clear: u64, propagation: u64) -> core::result::Result<Self, Errno> {
        let propagation = match propagation {
            0 => None,
            what::SHARED => Some(Propagation::Shared),
            what::PRIVATE | what::SLAVE => Some(Propagation::Private),
            what::UNBINDABLE => Some(Propagation::Unbindable),
            _ => return Err(Errno::INVAL),
        };
        let mut change =
            Self { set: plain(set).ok_or(Errno::INVAL)?, clear: plain(clear).ok_or(Errno::INVAL)?, propagation };
        // The ways of keeping access times are one value, so the old one must be cleared whole.
        match (set & bits::ATIME, clear & bits::ATIME) {
            (_, bits::ATIME) => {
                change.clear |= MountFlags::RELATIME | MountFlags::NO_ATIME;
                change.set |= atime(set).ok_or(Errno::INVAL)?;
            }
            (0, 0) => {}
            _ => return Err(Errno::INVAL),
        }
        Ok(change)
    }

    /// Applies it: `do_mount_setattr`.
    ///
    /// # Errors
    /// - `EINVAL`: not the root of a mount.
    /// - `EBUSY`: it shall be read-only, and a file in it is open for writing.
    pub fn apply(&self, call: &Call, at: &Location, depth: Depth) -> core::result::Result<(), Errno> {
        if !at.is_mount_root() {
            return Err(Errno::INVAL);
        }
        let view = call.state.view.clone();
        let _change = view.change.lock();
        let table = call.table();
        let mounts = reached(&table, &at.mount, depth);
        let locked = mounts.iter().filter(|m| becomes_read_only(m.own_flags(), self.set));
        idle(call, &locked.cloned().collect::<Vec<_>>())?;
        for mount in mounts {
            mount.set_flags((mount.own_flags() & !self.clear) | self.set);
            if let Some(propagation) = self.propagation {
                mount.set_propagation(propagation);
            }
        }
        view.set_mounts((*table).clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_times_are_changed_as_one_value() {
        assert_eq!(Change::new(bits::NOATIME, 0, 0), Err(Errno::INVAL));
        assert_eq!(Change::new(bits::NOATIME, bits::NOATIME, 0), Err(Errno::INVAL));
        let change = Change::new(bits::NOATIME, bits::ATIME, 0).unwrap();
        assert_eq!(change.set, MountFlags::NO_ATIME);
        assert_eq!(change.clear, MountFlags::NO_ATIME | MountFlags::RELATIME);
    }

    #[test]
    fn attributes_are_told_as_they_were_given() {
        for attributes in [0, 1, 0x10, 0x20 | 8, 0x80 | 2, 0x0020_0000] {
            assert_eq!(to_attributes(of_fsmount(attributes).unwrap()), u64::from(attributes));
        }
        assert_eq!(of_fsmount(0x30), Err(Errno::INVAL));
        assert_eq!(of_fsmount(0x100), Err(Errno::INVAL));
    }
}
