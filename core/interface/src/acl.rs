//! Access control lists in the form that the attributes `system.posix_acl_*` have: acl(5), linux/posix_acl_xattr.h.
//!
//! Knows nothing of where they are kept, nor of who may set them.

use crate::{Access, Credentials, Errno, Result};

/// The attribute that says who may access an object.
pub const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
/// The attribute that says what new objects of a directory get.
pub const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
const HEADER: usize = 4;
/// `struct posix_acl_xattr_entry`: tag, permissions, id.
const ENTRY: usize = 8;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

impl Acl {
    /// Reads the value of an attribute; whether it is in order is for the kernel to say.
    ///
    /// # Errors
    /// - `EINVAL`: too short, or not a whole number of entries.
    /// - `EOPNOTSUPP`: of another version.
    pub fn parse(value: &[u8]) -> Result<Acl> {
        let (version, entries) = value.split_first_chunk::<HEADER>().ok_or(Errno::INVAL)?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::OPNOTSUPP);
        }
        let entries = entries.chunks(ENTRY).map(|entry| match *entry {
            [t0, t1, p0, p1, a, b, c, d] => Ok(Entry {
                tag: u16::from_le_bytes([t0, t1]),
                permissions: u16::from_le_bytes([p0, p1]),
                id: u32::from_le_bytes([a, b, c, d]),
            }),
            _ => Err(Errno::INVAL),
        });
        Ok(Acl { entries: entries.collect::<Result<_>>()? })
    }

    /// Gives the value of an attribute.
    pub fn bytes(&self) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for Entry { tag, permissions, id } in &self.entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    /// The permission bits (0777) of an object with this list, if it has the entries that every list has:
    /// `posix_acl_equiv_mode` of `fs/posix_acl.c`.
    pub fn mode(&self) -> Option<u32> {
        let of = |tag| self.entries.iter().find(|entry| entry.tag == tag).map(|entry| u32::from(entry.permissions & 7));
        let group = of(MASK).or(of(GROUP_OBJ))?;
        Some(of(USER_OBJ)? << 6 | group << 3 | of(OTHER)?)
    }

    /// Makes the list agree with permission bits: `__posix_acl_chmod_masq` of `fs/posix_acl.c`.
    pub fn set_mode(&mut self, mode: u32) {
        let bits = |shift: u32| u16::try_from(mode >> shift & 7).unwrap_or(0);
        let has_mask = self.entries.iter().any(|entry| entry.tag == MASK);
        for entry in &mut self.entries {
            match entry.tag {
                USER_OBJ => entry.permissions = bits(6),
                MASK => entry.permissions = bits(3),
                GROUP_OBJ if !has_mask => entry.permissions = bits(3),
                OTHER => entry.permissions = bits(0),
                _ => {}
            }
        }
    }

    /// Checks whether somebody who is not the owner may do `want` with an object of the group `gid`:
    /// `posix_acl_permission` of `fs/posix_acl.c`.
    ///
    /// # Errors
    /// - `EACCES`: it may not.
    /// - `EIO`: the list is none.
    pub fn permits(&self, credentials: &Credentials, gid: u32, want: Access) -> Result<()> {
        let grants = |entry: &Entry| Access::from_bits_truncate(entry.permissions.into()).contains(want);
        let mut in_a_group = false;
        for entry in &self.entries {
            let matches = match entry.tag {
                USER_OBJ | MASK => false,
                USER => entry.id == credentials.uid.fs,
                GROUP_OBJ | GROUP => {
                    let is_in = credentials.in_group(if entry.tag == GROUP { entry.id } else { gid });
                    in_a_group |= is_in;
                    // One group that has the permission is enough.
                    is_in && grants(entry)
                }
                OTHER if in_a_group => return Err(Errno::ACCESS),
                OTHER => return if grants(entry) { Ok(()) } else { Err(Errno::ACCESS) },
                _ => return Err(Errno::IO),
            };
            if matches {
                let mask = self.entries.iter().find(|entry| entry.tag == MASK);
                return if grants(entry) && mask.is_none_or(grants) { Ok(()) } else { Err(Errno::ACCESS) };
            }
        }
        Err(Errno::IO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Capabilities, Ids, Origin};
    use std::sync::Arc;

    fn acl(entries: &[(u16, u16, u32)]) -> Acl {
        let entries =
            entries.iter().map(|(tag, permissions, id)| Entry { tag: *tag, permissions: *permissions, id: *id });
        Acl { entries: entries.collect() }
    }

    fn user(uid: u32, gid: u32, groups: &[u32]) -> Credentials {
        Credentials {
            uid: Ids::all(uid),
            gid: Ids::all(gid),
            groups: Arc::from(groups),
            capabilities: Capabilities::none(),
            securebits: 0,
            origin: Origin::Faked,
            namespace: None,
        }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let list = acl(&[(USER_OBJ, 6, u32::MAX), (USER, 7, 5), (GROUP_OBJ, 4, u32::MAX), (MASK, 5, 0), (OTHER, 1, 0)]);
        assert_eq!(Acl::parse(&list.bytes()), Ok(list.clone()));
        assert_eq!(list.mode(), Some(0o651));
        assert_eq!(Acl::parse(&list.bytes()[..13]), Err(Errno::INVAL));
        assert_eq!(Acl::parse(&[1, 0, 0, 0]), Err(Errno::OPNOTSUPP));
        assert_eq!(Acl::parse(&[2, 0]), Err(Errno::INVAL));
    }

    #[test]
    fn the_mask_limits_named_users_and_all_groups() {
        let list =
            acl(&[(USER_OBJ, 6, 0), (USER, 7, 5), (GROUP_OBJ, 7, 0), (GROUP, 2, 8), (MASK, 5, 0), (OTHER, 7, 0)]);
        assert_eq!(list.permits(&user(5, 1, &[]), 7, Access::READ), Ok(()));
        assert_eq!(list.permits(&user(5, 1, &[]), 7, Access::WRITE), Err(Errno::ACCESS));
        assert_eq!(list.permits(&user(6, 7, &[]), 7, Access::EXEC), Ok(()));
        assert_eq!(list.permits(&user(6, 1, &[8]), 7, Access::WRITE), Err(Errno::ACCESS));
        assert_eq!(list.permits(&user(6, 1, &[8]), 7, Access::READ), Err(Errno::ACCESS));
        assert_eq!(list.permits(&user(6, 7, &[8]), 7, Access::READ), Ok(()));
        assert_eq!(list.permits(&user(6, 1, &[]), 7, Access::WRITE), Ok(()));
    }

    #[test]
    fn a_list_that_does_not_end_is_an_error() {
        assert_eq!(acl(&[]).permits(&user(5, 1, &[]), 7, Access::READ), Err(Errno::IO));
        assert_eq!(acl(&[(64, 7, 0), (OTHER, 7, 0)]).permits(&user(5, 1, &[]), 7, Access::READ), Err(Errno::IO));
    }

    #[test]
    fn chmod_changes_the_mask_where_there_is_one() {
        let mut list = acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (MASK, 5, 0), (OTHER, 1, 0)]);
        list.set_mode(0o724);
        assert_eq!(list, acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 4, 0), (MASK, 2, 0), (OTHER, 4, 0)]));
        let mut list = acl(&[(USER_OBJ, 6, 0), (GROUP_OBJ, 4, 0), (OTHER, 1, 0)]);
        list.set_mode(0o724);
        assert_eq!(list, acl(&[(USER_OBJ, 7, 0), (GROUP_OBJ, 2, 0), (OTHER, 4, 0)]));
    }
}
