//! The permission checks of `fs/namei.c` on the metadata shown, for identities that the kernel does not know.
//! Knows nothing of where metadata and lists come from.

use bitflags::bitflags;

use crate::{Acl, Capabilities, Credentials, Errno, FileKind, Inode, Result, Stat};

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

/// Checks whether `credentials` may do `want` with an inode, which shows `stat`, by its file-system ids:
/// `generic_permission` of `fs/namei.c`.
///
/// # Errors
/// - `EACCES`: it may not.
/// - those of [`Inode::access_acl`].
pub fn may_access(credentials: &Credentials, inode: &dyn Inode, stat: &Stat, want: Access) -> Result<()> {
    judge(credentials, stat, want, || inode.access_acl())
}

/// As [`may_access`], for what has no access control list.
///
/// # Errors
/// - `EACCES`: it may not.
pub fn may_access_by_mode(credentials: &Credentials, stat: &Stat, want: Access) -> Result<()> {
    judge(credentials, stat, want, || Ok(None))
}

fn judge(
    credentials: &Credentials,
    stat: &Stat,
    want: Access,
    acl: impl FnOnce() -> Result<Option<Acl>>,
) -> Result<()> {
    // Whom capabilities let through needs no look at the list.
    match overrides(credentials, stat, want) {
        true => Ok(()),
        false => granted(credentials, stat, want, acl),
    }
}

/// `acl_permission_check` of `fs/namei.c`: the owner needs no list, nor does an object whose group bits, the mask of
/// one, are all clear.
fn granted(
    credentials: &Credentials,
    stat: &Stat,
    want: Access,
    acl: impl FnOnce() -> Result<Option<Acl>>,
) -> Result<()> {
    let is_owner = credentials.uid.fs == stat.uid;
    if !is_owner && stat.mode & 0o070 != 0 && stat.kind() != FileKind::Symlink {
        if let Some(acl) = acl()? {
            return acl.permits(credentials, stat.gid, want);
        }
    }
    let shift = if is_owner {
        6
    } else if credentials.in_group(stat.gid) {
        3
    } else {
        0
    };
    let granted = Access::from_bits_truncate((stat.mode >> shift) & 7);
    if granted.contains(want) {
        Ok(())
    } else {
        Err(Errno::ACCESS)
    }
}

/// Whether capabilities let somebody do what the permissions do not.
fn overrides(credentials: &Credentials, stat: &Stat, want: Access) -> bool {
    let overrides = credentials.capable_over(Capabilities::DAC_OVERRIDE, stat);
    let reads = credentials.capable_over(Capabilities::DAC_READ_SEARCH, stat);
    if stat.kind() == FileKind::Directory {
        return overrides || reads && !want.contains(Access::WRITE);
    }
    // Execution needs at least one x bit, whoever asks.
    overrides && (!want.contains(Access::EXEC) || stat.mode & 0o111 != 0) || reads && want == Access::READ
}

/// Checks the sticky bit of `directory`, which shows `shows`, for the removal or replacement of `victim`: `check_sticky`
/// of `fs/namei.c`, after write and search permission on the directory.
///
/// # Errors
/// - `EACCES`: no write or search permission on the directory.
/// - `EPERM`: the directory is sticky and neither it nor the victim belongs to the caller.
pub fn may_delete(credentials: &Credentials, directory: &dyn Inode, shows: &Stat, victim: &Stat) -> Result<()> {
    may_access(credentials, directory, shows, Access::WRITE | Access::EXEC)?;
    check_sticky(credentials, shows, victim)
}

fn check_sticky(credentials: &Credentials, directory: &Stat, victim: &Stat) -> Result<()> {
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
        assert!(may_access_by_mode(&me, &stat(0o100_077, 5, 5), Access::READ).is_err());
        assert!(may_access_by_mode(&me, &stat(0o100_040, 1, 7), Access::READ).is_ok());
        assert!(may_access_by_mode(&me, &stat(0o100_704, 1, 7), Access::READ).is_err());
        assert!(may_access_by_mode(&me, &stat(0o100_001, 1, 1), Access::EXEC).is_ok());
    }

    #[test]
    fn a_list_is_only_read_where_it_may_decide() {
        let read = |who: &Credentials, mode: u32, uid: u32| {
            let mut is_read = false;
            let _ = judge(who, &stat(mode, uid, 7), Access::READ, || {
                is_read = true;
                Ok(None)
            });
            is_read
        };
        let me = user(5, Capabilities::none());
        assert!(read(&me, 0o100_674, 1));
        assert!(!read(&me, 0o100_674, 5) && !read(&me, 0o100_704, 1));
        assert!(!read(&user(0, Capabilities::full()), 0o100_674, 1));
    }

    #[test]
    fn root_executes_only_what_has_an_x_bit() {
        let root = user(0, Capabilities::full());
        assert!(may_access_by_mode(&root, &stat(0o100_000, 1, 1), Access::READ | Access::WRITE).is_ok());
        assert!(may_access_by_mode(&root, &stat(0o100_666, 1, 1), Access::EXEC).is_err());
        assert!(may_access_by_mode(&root, &stat(0o100_010, 1, 1), Access::EXEC).is_ok());
        assert!(may_access_by_mode(&root, &stat(0o040_000, 1, 1), Access::EXEC).is_ok());
    }

    #[test]
    fn sticky_directories_protect_what_others_own() {
        let me = user(5, Capabilities::none());
        let tmp = stat(0o041_777, 0, 0);
        assert_eq!(check_sticky(&me, &tmp, &stat(0o100_666, 6, 6)), Err(Errno::PERM));
        assert_eq!(check_sticky(&me, &tmp, &stat(0o100_666, 5, 6)), Ok(()));
        assert_eq!(check_sticky(&user(0, Capabilities::full()), &tmp, &stat(0o100_666, 6, 6)), Ok(()));
    }
}
