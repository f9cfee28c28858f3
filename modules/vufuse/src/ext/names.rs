//! Numbers and names between what a driver says and what rsext4 does.

use rsext4::{DirectoryEntryType, InodeNumber, XattrName, XattrNamespace};
use umvu_driver::{NodeId, ROOT};
use umvu_interface::{Errno, FileKind, Result};

/// The inode of the root.
const ROOT_INODE: u32 = 2;

/// The inode of a node.
pub fn inode_of(node: NodeId) -> Result<InodeNumber> {
    let number = if node == ROOT { ROOT_INODE } else { u32::try_from(node).map_err(|_| Errno::STALE)? };
    InodeNumber::new(number).map_err(|_| Errno::STALE)
}

/// The node of an inode.
pub fn node_of(inode: InodeNumber) -> NodeId {
    if inode.raw() == ROOT_INODE {
        return ROOT;
    }
    inode.raw().into()
}

/// `d_type`.
pub fn dirent_type(kind: DirectoryEntryType) -> u8 {
    let kind = match kind {
        DirectoryEntryType::Unknown => return 0,
        DirectoryEntryType::RegularFile => FileKind::Regular,
        DirectoryEntryType::Directory => FileKind::Directory,
        DirectoryEntryType::CharacterDevice => FileKind::CharDevice,
        DirectoryEntryType::BlockDevice => FileKind::BlockDevice,
        DirectoryEntryType::Fifo => FileKind::Fifo,
        DirectoryEntryType::Socket => FileKind::Socket,
        DirectoryEntryType::Symlink => FileKind::Symlink,
    };
    kind.dirent_type()
}

/// Prefixes of attributes, and what they are on the disk: `ext4_xattr_handler_map` of `fs/ext4/xattr.c`.
const SPACES: &[(&[u8], XattrNamespace)] = &[
    (b"user.", XattrNamespace::User),
    (b"trusted.", XattrNamespace::Trusted),
    (b"security.", XattrNamespace::Security),
];
const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

/// What an attribute is on the disk.
pub fn space_of(name: &[u8]) -> Option<(XattrNamespace, &[u8])> {
    match name {
        ACCESS => return Some((XattrNamespace::PosixAclAccess, b"")),
        DEFAULT => return Some((XattrNamespace::PosixAclDefault, b"")),
        _ => {}
    }
    SPACES.iter().find_map(|(prefix, space)| name.strip_prefix(*prefix).map(|rest| (*space, rest)))
}

/// Whether it is an access control list.
pub fn is_acl(space: XattrNamespace) -> bool {
    matches!(space, XattrNamespace::PosixAclAccess | XattrNamespace::PosixAclDefault)
}

/// The name that an attribute is shown by.
pub fn attribute_name(name: &XattrName) -> Option<Vec<u8>> {
    match name.namespace {
        XattrNamespace::PosixAclAccess => return Some(ACCESS.to_vec()),
        XattrNamespace::PosixAclDefault => return Some(DEFAULT.to_vec()),
        _ => {}
    }
    let (prefix, _) = SPACES.iter().find(|(_, space)| *space == name.namespace)?;
    Some([prefix, &name.name[..]].concat())
}
