//! Access control lists, which the image holds in another form than extended attributes show. Follows `fs/ext4/acl.c` and
//! `include/uapi/linux/posix_acl_xattr.h`.

use umvu_interface::{Errno, Result};

use umvu_archive::Fields;

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const NOBODY: u32 = u32::MAX;

/// The attribute for what is on the disk.
pub fn shown(disk: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(disk);
    if fields.u32()? != 1 {
        return None;
    }
    let mut out = 2u32.to_le_bytes().to_vec();
    while !fields.0.is_empty() {
        let (tag, permissions) = (fields.u16()?, fields.u16()?);
        let id = if matches!(tag, USER | GROUP) { fields.u32()? } else { NOBODY };
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&permissions.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Some(out)
}

/// What is on the disk for an attribute, and what it makes of the permissions of the mode.
///
/// # Errors
/// - `EOPNOTSUPP`: another version.
/// - `EINVAL`: no list.
pub fn stored(attribute: &[u8]) -> Result<(Vec<u8>, u32)> {
    let mut fields = Fields(attribute);
    if fields.u32().ok_or(Errno::INVAL)? != 2 {
        return Err(Errno::OPNOTSUPP);
    }
    let mut out = 1u32.to_le_bytes().to_vec();
    let (mut owner, mut group, mut mask, mut other) = (None, None, None, None);
    while !fields.0.is_empty() {
        let (Some(tag), Some(permissions), Some(id)) = (fields.u16(), fields.u16(), fields.u32()) else {
            return Err(Errno::INVAL);
        };
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&permissions.to_le_bytes());
        match tag {
            USER_OBJ => owner = Some(permissions),
            GROUP_OBJ => group = Some(permissions),
            MASK => mask = Some(permissions),
            OTHER => other = Some(permissions),
            USER | GROUP => out.extend_from_slice(&id.to_le_bytes()),
            _ => return Err(Errno::INVAL),
        }
    }
    let (Some(owner), Some(group), Some(other)) = (owner, mask.or(group), other) else { return Err(Errno::INVAL) };
    let bits = |permissions: u16| u32::from(permissions & 7);
    Ok((out, (bits(owner) << 6) | (bits(group) << 3) | bits(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_back_as_it_was_set() {
        let entry = |tag: u16, permissions: u16, id: u32| {
            [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
        };
        let list = [
            2u32.to_le_bytes().to_vec(),
            entry(USER_OBJ, 6, NOBODY),
            entry(USER, 7, 1234),
            entry(GROUP_OBJ, 4, NOBODY),
            entry(MASK, 5, NOBODY),
            entry(OTHER, 0, NOBODY),
        ]
        .concat();
        let (disk, permissions) = stored(&list).unwrap();
        assert_eq!((disk.len(), permissions), (4 + 4 * 4 + 8, 0o650));
        assert_eq!(shown(&disk).unwrap(), list);
        assert_eq!(stored(&list[..list.len() - 1]).unwrap_err(), Errno::INVAL);
        assert_eq!(shown(&disk[..disk.len() - 1]), None);
    }
}
