//! The permission checks of `fs/namei.c` on the metadata shown, for identities that the kernel does not know.
//! Knows nothing of inodes or of ACLs.

use bitflags::bitflags;

use crate::{Capabilities, Credentials, Errno, FileKind, Result, Stat};

bitflags! {
    /// What is asked of an object, as `MAY_*` of the kernel and the mode of access(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// Execute a file, search a directory.
        const EXEC = 1;
        /// Write a file, change a directory.
        const WRITE = 2;
        /// Read.
        const READ = 4;
    }
}

/// Checks whether `credentials` may do `want` with an object that shows `stat`, by its file-system ids:
/// `generic_permission` of `fs/namei.c`.
///
/// # Errors
/// - `EACCES`: it may not.
pub fn may_access(credentials: &Credentials, stat: &Stat, want: Access) -> Result<()> {
    let shift = if credentials.uid.fs == stat.uid {
        6
    } else if credentials.in_group(stat.gid) {
        3
    } else {
        0
    };
    let granted = Access::from_bits_truncate((stat.mode >> shift) & 7);
    if granted.contains(want) {
        return Ok(());
    }
    if stat.kind() == FileKind::Directory {
        if credentials.capable_over(Capabilities::DAC_OVERRIDE, stat) {
            return Ok(());
        }
        if credentials.capable_over(Capabilities::DAC_READ_SEARCH, stat) && !want.contains(Access::WRITE) {
            return Ok(());
        }
        return Err(Errno::ACCESS);
    }
    if credentials.capable_over(Capabilities::DAC_READ_SEARCH, stat) && want == Access::READ {
        return Ok(());
    }
    // Execution needs at least one x bit, whoever asks.
    if credentials.capable_over(Capabilities::DAC_OVERRIDE, stat)
        && (!want.contains(Access::EXEC) || stat.mode & 0o111 != 0)
    {
        return Ok(());
    }
    Err(Errno::ACCESS)
}

/// Checks the sticky bit of `directory` for the removal or replacement of `victim`: `check_sticky` of
/// `fs/namei.c`, after write and search permission on the directory.
///
/// # Errors
/// - `EACCES`: no write or search permission on the directory.
/// - `EPERM`: the directory is sticky and neither it nor the victim belongs to the caller.
pub fn may_delete(credentials: &Credentials, directory: &Stat, victim: &Stat) -> Result<()> {
    may_access(credentials, directory, Access::WRITE | Access::EXEC)?;
    let sticky = directory.mode & 0o1000 != 0;
    let owner = credentials.uid.fs == victim.uid || credentials.uid.fs == directory.uid;
    if sticky && !owner && !credentials.capable_over(Capabilities::FOWNER, victim) {
        return Err(Errno::PERM);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ids, Origin};
    use std::sync::Arc;

    fn user(uid: u32, capabilities: Capabilities) -> Credentials {
        Credentials {
            uid: Ids::all(uid),
            gid: Ids::all(uid),
            groups: Arc::from([7u32].as_slice()),
            capabilities,
            securebits: 0,
            origin: Origin::Faked,
            namespace: None,
        }
    }

    fn stat(mode: u32, uid: u32, gid: u32) -> Stat {
        Stat { mode, uid, gid, ..Stat::default() }
    }

    #[test]
    fn the_first_matching_class_decides() {
        let me = user(5, Capabilities::none());
        assert!(may_access(&me, &stat(0o100_077, 5, 5), Access::READ).is_err());
        assert!(may_access(&me, &stat(0o100_040, 1, 7), Access::READ).is_ok());
        assert!(may_access(&me, &stat(0o100_704, 1, 7), Access::READ).is_err());
        assert!(may_access(&me, &stat(0o100_001, 1, 1), Access::EXEC).is_ok());
    }

    #[test]
    fn root_executes_only_what_has_an_x_bit() {
        let root = user(0, Capabilities::full());
        assert!(may_access(&root, &stat(0o100_000, 1, 1), Access::READ | Access::WRITE).is_ok());
        assert!(may_access(&root, &stat(0o100_666, 1, 1), Access::EXEC).is_err());
        assert!(may_access(&root, &stat(0o100_010, 1, 1), Access::EXEC).is_ok());
        assert!(may_access(&root, &stat(0o040_000, 1, 1), Access::EXEC).is_ok());
    }

    #[test]
    fn sticky_directories_protect_what_others_own() {
        let me = user(5, Capabilities::none());
        let tmp = stat(0o041_777, 0, 0);
        assert_eq!(may_delete(&me, &tmp, &stat(0o100_666, 6, 6)), Err(Errno::PERM));
        assert_eq!(may_delete(&me, &tmp, &stat(0o100_666, 5, 6)), Ok(()));
        assert_eq!(may_delete(&user(0, Capabilities::full()), &tmp, &stat(0o100_666, 6, 6)), Ok(()));
    }
}
