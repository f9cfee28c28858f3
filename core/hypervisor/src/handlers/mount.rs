//! mount, umount2 and what belongs to them. Knows no file system type.

use umvu_interface::{Capabilities, Errno, MountError};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;
use crate::mounting::{self, Order};
use crate::resolve::Last;

fn said(result: Result<(), MountError>) -> Outcome {
    match result {
        Ok(()) => DONE,
        Err(error) => {
            tracing::info!(%error, "mount refused");
            Err(error.errno.into())
        }
    }
}

/// Without a faked identity mount(2) is what it is outside: the kernel refuses it.
fn is_native(call: &Call) -> bool {
    !call.credentials().is_faked()
}

/// `mount(source, target, type, flags, data)`.
pub fn mount(call: &Call) -> Outcome {
    const MAGIC: u64 = 0xc0ed_0000;
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    let text = |index: usize| if call.raw(index) == 0 { Ok(Vec::new()) } else { call.path(index) };
    let (fstype, source, target) = (text(2)?, text(0)?, call.path(1)?);
    let data = if call.raw(4) == 0 { Vec::new() } else { guest::read_string(call.tid(), call.raw(4), 4096)? };
    let mut flags = call.raw(3);
    if flags & 0xffff_0000 == MAGIC {
        flags &= 0xffff;
    }
    call.check_alive()?;
    let order = Order { source: &source, target: &target, fstype: &fstype, flags, data: &data };
    said(mounting::mount(call, &order))
}

/// `umount2(target, flags)`.
pub fn umount2(call: &Call) -> Outcome {
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    let target = call.path(0)?;
    call.check_alive()?;
    said(mounting::unmount(call, &target, call.u32(1)))
}

/// `pivot_root(new_root, put_old)`.
pub fn pivot_root(call: &Call) -> Outcome {
    not_yet(call)
}

macro_rules! mount_api {
    ($($name:ident)*) => {$(
        /// Part of the mount API that mount(2) and its callers do without: they fall back on `ENOSYS`.
        pub fn $name(call: &Call) -> Outcome {
            not_yet(call)
        }
    )*};
}

mount_api! { fsopen fsconfig fsmount fspick open_tree open_tree_attr move_mount mount_setattr statmount listmount }

fn not_yet(call: &Call) -> Outcome {
    if is_native(call) && call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    Err(Errno::NOSYS.into())
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
