//! Extended attributes: those of unions are hidden, and shown under another name where a guest sets them itself,
//! so that unions can be stacked (`fs/overlayfs/xattrs.c`). Knows not what they mean.

use std::borrow::Cow;

use umvu_interface::{Caller, Errno, Result, XattrSet};

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
        inode.real()?.get_xattr(&stored(name))
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
        inode.real()?.get_xattr(&name)?;
        self.change_object(caller, inode, Data::All, |real| real.remove_xattr(caller, &name))
    }
}
