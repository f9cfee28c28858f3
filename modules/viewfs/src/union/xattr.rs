//! Extended attributes: those of unions are hidden, and shown under another name where a guest sets them itself,
//! so that unions can be stacked (`fs/overlayfs/xattrs.c`). Knows not what they mean.

use std::borrow::Cow;

use umvu_interface::{Acl, Caller, Errno, Inode, Result, XattrSet, ACCESS_ACL, DEFAULT_ACL};

use super::copy_up::Data;
use super::inode::UnionInode;
use super::whiteout::PREFIX;
use super::UnionFs;

/// What stands before the rest of the name of an attribute that belongs to a union above this one.
const ESCAPED: &[u8] = b"user.overlay.overlay.";

/// Gives the name under which a layer has what guests call `name`.
fn stored(name: &[u8]) -> Cow<'_, [u8]> {
    match name.strip_prefix(PREFIX) {
        Some(rest) => Cow::Owned([ESCAPED, rest].concat()),
        None => Cow::Borrowed(name),
    }
}

/// Gives the name under which guests see an attribute of a layer; none for the union's own.
pub(crate) fn shown(name: &[u8]) -> Option<Cow<'_, [u8]>> {
    match name.strip_prefix(ESCAPED) {
        Some(rest) => Some(Cow::Owned([PREFIX, rest].concat())),
        None => (!name.starts_with(PREFIX)).then_some(Cow::Borrowed(name)),
    }
}

impl UnionFs {
    pub(super) fn get_xattr(&self, inode: &UnionInode, name: &[u8]) -> Result<Vec<u8>> {
        let value = inode.real()?.get_xattr(&stored(name))?;
        // The mode that the union shows may be one that no layer has.
        match Acl::parse(&value) {
            Ok(mut acl) if name == ACCESS_ACL => {
                acl.set_mode(inode.stat()?.mode);
                Ok(acl.bytes())
            }
            _ => Ok(value),
        }
    }

    pub(super) fn list_xattr(&self, inode: &UnionInode) -> Result<Vec<Vec<u8>>> {
        let names = inode.real()?.list_xattr()?;
        Ok(names.iter().filter_map(|name| shown(name).map(Cow::into_owned)).collect())
    }

    pub(super) fn set_xattr(
        &self,
        caller: &Caller<'_>,
        inode: &UnionInode,
        name: &[u8],
        value: &[u8],
        how: XattrSet,
    ) -> Result<()> {
        let name = stored(name);
        match how {
            XattrSet::Any => {}
            // What must fail is not copied up for it.
            XattrSet::Create if inode.real()?.get_xattr(&name).is_ok() => return Err(Errno::EXIST),
            XattrSet::Create => {}
            XattrSet::Replace => {
                inode.real()?.get_xattr(&name)?;
            }
        }
        self.change_object(caller, inode, Data::All, |real| real.set_xattr(caller, &name, value, how))
    }

    pub(super) fn remove_xattr(&self, caller: &Caller<'_>, inode: &UnionInode, name: &[u8]) -> Result<()> {
        let name = stored(name);
        match inode.real()?.get_xattr(&name) {
            // To take away a list that is not there is no error: vfs_remove_acl of fs/posix_acl.c.
            Err(Errno::NODATA) if *name == *ACCESS_ACL || *name == *DEFAULT_ACL => return Ok(()),
            found => drop(found?),
        }
        self.change_object(caller, inode, Data::All, |real| real.remove_xattr(caller, &name))
    }
}
