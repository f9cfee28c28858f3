//! name_to_handle_at. Knows nothing of what is in a handle: the host's tree has the host's, what the view has made of
//! its own has none, as a union of overlayfs has not. Nobody can open one: open_by_handle_at is refused.

use umvu_interface::Errno;

use crate::call::{Call, EmptyPath, Outcome, Reply, DONE};
use crate::guest;
use crate::listing;
use crate::mount::Origin;
use crate::resolve::Last;

const HANDLE_MNT_ID_UNIQUE: u32 = 1;
const HANDLE_CONNECTABLE: u32 = 2;
const HANDLE_FID: u32 = 0x200;
const SYMLINK_FOLLOW: u32 = 0x400;
const EMPTY_PATH: u32 = 0x1000;

/// `name_to_handle_at(dirfd, path, handle, mount_id, flags)`: the checks of `sys_name_to_handle_at` and
/// `do_sys_name_to_handle` of `fs/fhandle.c`, in their order.
pub fn name_to_handle_at(call: &Call) -> Outcome {
    /// `unsigned handle_bytes; int handle_type;`
    const HEADER: usize = 8;
    /// `MAX_HANDLE_SZ`.
    const MOST: u32 = 128;
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let flags = call.u32(4);
    let known = HANDLE_MNT_ID_UNIQUE | HANDLE_CONNECTABLE | HANDLE_FID | SYMLINK_FOLLOW | EMPTY_PATH;
    let both = HANDLE_CONNECTABLE | HANDLE_FID;
    if flags & !known != 0 || flags & both == both {
        return Err(Errno::INVAL.into());
    }
    let last = if flags & SYMLINK_FOLLOW != 0 { Last::Follow } else { Last::NoFollow };
    let empty = if flags & EMPTY_PATH != 0 { EmptyPath::Allowed } else { EmptyPath::Refused };
    let place = call.object_at(call.i32(0), &call.path(1)?, last, empty)?;
    let object = place.inode.host_fd().filter(|_| place.mount.origin == Origin::Host).ok_or(Errno::OPNOTSUPP)?;
    let mut size = [0; 4];
    guest::read_exact(call.tid(), call.raw(2), &mut size)?;
    let size = u32::from_ne_bytes(size);
    if size > MOST {
        return Err(Errno::INVAL.into());
    }
    let mut handle = vec![0; HEADER + usize::try_from(size).unwrap_or(0)];
    handle[..4].copy_from_slice(&size.to_ne_bytes());
    let made = umvu_sys::file::handle(object, flags & both, &mut handle);
    let written = match made {
        Ok(()) => handle.len(),
        // How many bytes it takes.
        Err(Errno::OVERFLOW) => HEADER,
        Err(errno) => return Err(errno.into()),
    };
    let id = listing::numbers_on_host(object).id;
    match flags & HANDLE_MNT_ID_UNIQUE {
        0 => call.write(call.raw(3), &u32::try_from(id).unwrap_or(0).to_ne_bytes())?,
        _ => call.write(call.raw(3), &listing::unique(id).to_ne_bytes())?,
    }
    call.write(call.raw(2), &handle[..written])?;
    made?;
    DONE
}
