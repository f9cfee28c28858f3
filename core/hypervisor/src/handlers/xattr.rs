//! The extended attribute calls. Knows nothing of where attributes are kept.

use umvu_interface::{
    may_access, Access, Capabilities, Errno, FileKind, MountFlags, Result, XattrSet, ACCESS_ACL, DEFAULT_ACL,
};

use crate::call::{Call, EmptyPath, Outcome, Reply, DONE};
use crate::guest;
use crate::handlers::attribute::opened;
use crate::mount::Location;
use crate::resolve::Last;

/// `XATTR_NAME_MAX`, in bytes.
const NAME_MAX: usize = 255;
/// `XATTR_SIZE_MAX` and `XATTR_LIST_MAX`, in bytes.
const SIZE_MAX: u64 = 65536;
const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;

macro_rules! forms {
    ($($path:ident $nofollow:ident $descriptor:ident => $body:ident;)*) => {$(
        /// The form by path.
        pub fn $path(call: &Call) -> Outcome {
            by_path(call, Last::Follow, $body)
        }
        /// The form that does not follow a last symbolic link.
        pub fn $nofollow(call: &Call) -> Outcome {
            by_path(call, Last::NoFollow, $body)
        }
        /// The form by descriptor.
        pub fn $descriptor(call: &Call) -> Outcome {
            if call.state.is_plain() {
                return Ok(Reply::Continue);
            }
            $body(call, &|| opened(call))
        }
    )*};
}

forms! {
    setxattr lsetxattr fsetxattr => set;
    getxattr lgetxattr fgetxattr => get;
    listxattr llistxattr flistxattr => list;
    removexattr lremovexattr fremovexattr => remove;
}

/// Finds the object of a call. Names and values are read before: `path_setxattrat` and its like in `fs/xattr.c`.
type Find<'a> = &'a dyn Fn() -> Result<Location>;

fn by_path(call: &Call, last: Last, body: fn(&Call, Find<'_>) -> Outcome) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    body(call, &|| call.object(libc::AT_FDCWD, &call.path(0)?, last))
}

fn set(call: &Call, find: Find<'_>) -> Outcome {
    set_value(call, find, call.raw(1), call.raw(2), call.raw(3), call.u32(4))
}

fn get(call: &Call, find: Find<'_>) -> Outcome {
    get_value(call, find, call.raw(1), call.raw(2), call.raw(3))
}

fn list(call: &Call, find: Find<'_>) -> Outcome {
    list_names(call, find, call.raw(1), call.raw(2))
}

fn remove(call: &Call, find: Find<'_>) -> Outcome {
    remove_name(call, find, call.raw(1))
}

/// Does `body` to the object of an `*xattrat` call: `(dirfd, path, flags, ...)`.
fn at(call: &Call, body: impl FnOnce(Find<'_>) -> Outcome) -> Outcome {
    if call.u32(2) & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL.into());
    }
    body(&|| object_at(call, call.u32(2)))
}

fn object_at(call: &Call, flags: u32) -> Result<Location> {
    let empty = if flags & AT_EMPTY_PATH != 0 { EmptyPath::Allowed } else { EmptyPath::Refused };
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let text = if flags & AT_EMPTY_PATH != 0 && call.raw(1) == 0 { Vec::new() } else { call.path(1)? };
    call.object_at(call.i32(0), &text, last, empty)
}

/// `struct xattr_args`: value, size, flags. What a later version adds must be zero: `copy_struct_from_user`.
fn arguments(call: &Call) -> Result<(u64, u64, u32)> {
    const SIZE: usize = 16;
    const PAGE: usize = 4096;
    let size = usize::try_from(call.raw(5)).unwrap_or(usize::MAX);
    if size < SIZE {
        return Err(Errno::INVAL);
    }
    if size > PAGE {
        return Err(Errno::TOOBIG);
    }
    let mut bytes = vec![0; size];
    guest::read_exact(call.tid(), call.raw(4), &mut bytes)?;
    if bytes[SIZE..].iter().any(|byte| *byte != 0) {
        return Err(Errno::TOOBIG);
    }
    let value = u64::from_ne_bytes(bytes[..8].try_into().unwrap_or_default());
    let size = u32::from_ne_bytes(bytes[8..12].try_into().unwrap_or_default());
    let flags = u32::from_ne_bytes(bytes[12..SIZE].try_into().unwrap_or_default());
    Ok((value, u64::from(size), flags))
}

/// `setxattrat(dirfd, path, flags, name, args, size)`.
pub fn setxattrat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let (value, size, flags) = arguments(call)?;
    at(call, |find| set_value(call, find, call.raw(3), value, size, flags))
}

/// `getxattrat(dirfd, path, flags, name, args, size)`.
pub fn getxattrat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let (value, size, flags) = arguments(call)?;
    if flags != 0 {
        return Err(Errno::INVAL.into());
    }
    at(call, |find| get_value(call, find, call.raw(3), value, size))
}

/// `listxattrat(dirfd, path, flags, list, size)`.
pub fn listxattrat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    at(call, |find| list_names(call, find, call.raw(3), call.raw(4)))
}

/// `removexattrat(dirfd, path, flags, name)`.
pub fn removexattrat(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    at(call, |find| remove_name(call, find, call.raw(3)))
}

/// Reads a name; an empty or too long one is `ERANGE`, as `import_xattr_name`.
fn name(call: &Call, address: u64) -> Result<Vec<u8>> {
    match guest::read_string(call.tid(), address, NAME_MAX + 1) {
        Ok(name) if name.is_empty() => Err(Errno::RANGE),
        Err(Errno::NAMETOOLONG) => Err(Errno::RANGE),
        other => other,
    }
}

fn set_value(call: &Call, find: Find<'_>, name_at: u64, value: u64, size: u64, flags: u32) -> Outcome {
    const CREATE: u32 = 1;
    const REPLACE: u32 = 2;
    if flags & !(CREATE | REPLACE) != 0 {
        return Err(Errno::INVAL.into());
    }
    let name = name(call, name_at)?;
    if size > SIZE_MAX {
        return Err(Errno::TOOBIG.into());
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    guest::read_exact(call.tid(), value, &mut bytes)?;
    let place = find()?;
    may_change(call, &place, &name)?;
    call.check_alive()?;
    let how = match flags {
        // A list is set whether there is one or not: do_set_acl of fs/posix_acl.c.
        _ if is_acl(&name) => XattrSet::Any,
        0 => XattrSet::Any,
        CREATE => XattrSet::Create,
        REPLACE => XattrSet::Replace,
        _ => return Err(place.inode.get_xattr(&name).map_or_else(Into::into, |_| Errno::EXIST.into())),
    };
    call.as_caller(|caller| place.inode.set_xattr(caller, &name, &bytes, how))?;
    DONE
}

fn get_value(call: &Call, find: Find<'_>, name_at: u64, value: u64, size: u64) -> Outcome {
    let name = name(call, name_at)?;
    let place = find()?;
    may_read(call, &place, &name)?;
    let bytes = place.inode.get_xattr(&name)?;
    deliver(call, &bytes, value, size)
}

fn list_names(call: &Call, find: Find<'_>, list: u64, size: u64) -> Outcome {
    let place = find()?;
    let trusted = place.inode.kernel_checks() || call.credentials().capable(Capabilities::SYS_ADMIN);
    let mut bytes = Vec::new();
    for name in place.inode.list_xattr()? {
        if trusted || !name.starts_with(b"trusted.") {
            bytes.extend_from_slice(&name);
            bytes.push(0);
        }
    }
    deliver(call, &bytes, list, size)
}

fn deliver(call: &Call, bytes: &[u8], address: u64, size: u64) -> Outcome {
    let length = bytes.len() as u64;
    if size != 0 {
        if length > size {
            return Err(Errno::RANGE.into());
        }
        call.write(address, bytes)?;
    }
    Ok(Reply::Value(i64::try_from(length).unwrap_or(i64::MAX)))
}

fn remove_name(call: &Call, find: Find<'_>, name_at: u64) -> Outcome {
    let name = name(call, name_at)?;
    let place = find()?;
    may_change(call, &place, &name)?;
    call.check_alive()?;
    call.as_caller(|caller| place.inode.remove_xattr(caller, &name))?;
    DONE
}

/// `xattr_permission` of `fs/xattr.c` for a change, after the check for a read-only mount.
fn may_change(call: &Call, place: &Location, name: &[u8]) -> Result<()> {
    if place.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS);
    }
    if place.inode.kernel_checks() {
        return Ok(());
    }
    let who = call.credentials();
    let stat = place.inode.stat()?;
    let owner = who.uid.fs == stat.uid || who.capable_over(Capabilities::FOWNER, &stat);
    if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
        return if who.capable(Capabilities::SYS_ADMIN) { Ok(()) } else { Err(Errno::PERM) };
    }
    if name.starts_with(b"system.") {
        return if owner || !is_acl(name) { Ok(()) } else { Err(Errno::PERM) };
    }
    user_names(&stat.kind(), Errno::PERM, name)?;
    if stat.kind() == FileKind::Directory && stat.mode & 0o1000 != 0 && !owner {
        return Err(Errno::PERM);
    }
    may_access(&who, &*place.inode, &stat, Access::WRITE)
}

fn is_acl(name: &[u8]) -> bool {
    name == ACCESS_ACL || name == DEFAULT_ACL
}

fn may_read(call: &Call, place: &Location, name: &[u8]) -> Result<()> {
    if place.inode.kernel_checks() {
        return Ok(());
    }
    let who = call.credentials();
    if name.starts_with(b"trusted.") && !who.capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::NODATA);
    }
    if name.starts_with(b"user.") {
        let stat = place.inode.stat()?;
        user_names(&stat.kind(), Errno::NODATA, name)?;
        may_access(&who, &*place.inode, &stat, Access::READ)?;
    }
    Ok(())
}

/// Only regular files and directories have `user.` attributes.
fn user_names(kind: &FileKind, otherwise: Errno, name: &[u8]) -> Result<()> {
    if name.starts_with(b"user.") && !matches!(kind, FileKind::Regular | FileKind::Directory) {
        return Err(otherwise);
    }
    Ok(())
}
