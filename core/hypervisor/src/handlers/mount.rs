//! mount, umount2 and what belongs to them. Knows no file system type.

use umvu_interface::{Capabilities, Errno, MountError};

use crate::call::{Call, Fail, Outcome, Reply, DONE};
use crate::guest;
use crate::mounting::{self, Order};
use crate::resolve::Last;

fn said(result: Result<(), MountError>) -> Outcome {
    result.map_err(refused)?;
    DONE
}

/// What a guest sees of an error; the line for people goes to the log.
pub fn refused(error: MountError) -> Fail {
    match &error.server {
        Some(server) => tracing::warn!("{error}; vumount(8) has it served by {}", server.programs[0]),
        None => tracing::info!(%error, "mount refused"),
    }
    error.errno.into()
}

/// Without a faked identity mount(2) is what it is outside: the kernel refuses it.
pub fn is_native(call: &Call) -> bool {
    !call.credentials().is_faked()
}

/// `mount(source, target, type, flags, data)`: the order of `sys_mount` of `fs/namespace.c`.
pub fn mount(call: &Call) -> Outcome {
    const MAGIC: u64 = 0xc0ed_0000;
    const MAGIC_MASK: u64 = 0xffff_0000;
    if is_native(call) && !(makes_new(call.raw(3)) && call.path(2).is_ok_and(|fstype| is_for_everybody(call, &fstype)))
    {
        return Ok(Reply::Continue);
    }
    let fstype = text(call, 2)?;
    let source = text(call, 0)?;
    let data = options(call, 4)?;
    let target = call.path(1)?;
    let mut flags = call.raw(3);
    if flags & MAGIC_MASK == MAGIC {
        flags &= !MAGIC_MASK;
    }
    call.check_alive()?;
    let order = Order { source: source.as_deref(), target: &target, fstype: fstype.as_deref(), flags, data: &data };
    said(mounting::mount(call, &order))
}

/// Whether a type is one that every user of the view may mount.
fn is_for_everybody(call: &Call, fstype: &[u8]) -> bool {
    call.state.view.filesystem_type(fstype).is_some_and(|(_, fstype)| fstype.is_for_everybody())
}

/// Whether mount(2) is asked for a new mount, and not for a change of one.
fn makes_new(flags: u64) -> bool {
    use mounting::what;
    let other = what::REMOUNT | what::BIND | what::MOVE | what::SHARED | what::PRIVATE | what::SLAVE | what::UNBINDABLE;
    flags & other == 0
}

/// Whether what umount2(2) is asked for is a mount that every user of the view may unmount.
fn unmounts_for_everybody(call: &Call) -> bool {
    const NOFOLLOW: u32 = mounting::how::NOFOLLOW;
    let last = if call.u32(1) & NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let Ok(target) = call.path(0) else { return false };
    let at = call.object(libc::AT_FDCWD, &target, last);
    at.is_ok_and(|at| at.mount.module.is_some() && is_for_everybody(call, &at.mount.fstype))
}

/// Whether the caller unmounts what it has served, after somebody else has: outside, its descriptor would tell it of that
/// by `POLLERR`, and it would not try.
fn is_late(call: &Call) -> bool {
    let types = call.state.view.filesystem_types();
    if !types.iter().any(|fstype| fstype.is_for_everybody()) {
        return false;
    }
    let own = crate::magic::process_of(call.tid()).unwrap_or(call.tid());
    let processes: Vec<u32> = std::iter::successors(Some(own), |pid| guest::parent_of(*pid)).take(3).collect();
    types.iter().any(|fstype| fstype.is_late(&processes))
}

/// A string that may be null: `copy_mount_string`, to which one without end is no string.
fn text(call: &Call, index: usize) -> Result<Option<Vec<u8>>, Errno> {
    match call.raw(index) {
        0 => Ok(None),
        _ => call.path(index).map(Some).map_err(|errno| if errno == Errno::NAMETOOLONG { Errno::INVAL } else { errno }),
    }
}

/// Options: up to a page, the rest of which need not be readable (`copy_mount_options`).
fn options(call: &Call, index: usize) -> Result<Vec<u8>, Errno> {
    if call.raw(index) == 0 {
        return Ok(Vec::new());
    }
    let mut data = guest::read_some(call.tid(), call.raw(index), guest::PATH_MAX)?;
    data.truncate(guest::PATH_MAX - 1);
    if let Some(end) = data.iter().position(|b| *b == 0) {
        data.truncate(end);
    }
    Ok(data)
}

/// `umount2(target, flags)`.
pub fn umount2(call: &Call) -> Outcome {
    if is_native(call) && !unmounts_for_everybody(call) {
        return Ok(Reply::Continue);
    }
    if mounting::refuses(call.u32(1)) {
        return Err(Errno::INVAL.into());
    }
    let target = call.path(0)?;
    call.check_alive()?;
    if is_late(call) {
        return Err(Errno::INVAL.into());
    }
    said(mounting::unmount(call, &target, call.u32(1)))
}

/// `pivot_root(new_root, put_old)`.
pub fn pivot_root(call: &Call) -> Outcome {
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    if !call.credentials().capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM.into());
    }
    let (new_root, put_old) = (call.path(0)?, call.path(1)?);
    call.check_alive()?;
    said(mounting::pivot_root(call, &new_root, &put_old))
}

/// Calls that name a path and that only the host's root may make: the path is resolved for its errors, then the
/// answer is the one an unprivileged user gets.
fn refused_after_resolving(call: &Call, path: usize) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    if !call.credentials().capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM.into());
    }
    if call.raw(path) != 0 {
        let text = call.path(path)?;
        call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    }
    Err(Errno::PERM.into())
}

/// `swapon(path, flags)`.
pub fn swapon(call: &Call) -> Outcome {
    refused_after_resolving(call, 0)
}

/// `swapoff(path)`.
pub fn swapoff(call: &Call) -> Outcome {
    refused_after_resolving(call, 0)
}

/// `acct(path)`.
pub fn acct(call: &Call) -> Outcome {
    refused_after_resolving(call, 0)
}

/// `quotactl(command, special, id, address)`.
pub fn quotactl(call: &Call) -> Outcome {
    refused_after_resolving(call, 1)
}

/// `quotactl_fd(fd, command, id, address)`.
pub fn quotactl_fd(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    Err(Errno::NOSYS.into())
}
