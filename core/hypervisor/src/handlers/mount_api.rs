//! The mount API by descriptors: fsopen, fsconfig, fsmount, fspick, open_tree, move_mount, mount_setattr. Knows no file
//! system type.
//!
//! Mounts spread nowhere: `MOVE_MOUNT_SET_GROUP` is refused.

use std::sync::Arc;

use umvu_interface::{Errno, MountError, OFlags};
use umvu_sys::seccomp::CloseOnExec;

use crate::call::{Call, EmptyPath, Fail, Outcome, Reply, DONE};
use crate::guest;
use crate::handlers::mount::{is_native, refused};
use crate::handlers::open::{give_path, give_placeholder};
use crate::mount::{Location, Mount};
use crate::mounting::attributes::{of_fsmount, Change};
use crate::mounting::context::{Context, Value};
use crate::mounting::{copy, may_mount, move_loose, prune, Depth, Layer};
use crate::resolve::Last;

const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_NO_AUTOMOUNT: u32 = 0x800;
const AT_EMPTY_PATH: u32 = 0x1000;
const AT_RECURSIVE: u32 = 0x8000;

fn close_on_exec(flags: u32, bit: u32) -> CloseOnExec {
    if flags & bit != 0 {
        CloseOnExec::Yes
    } else {
        CloseOnExec::No
    }
}

fn empty(allowed: bool) -> EmptyPath {
    match allowed {
        true => EmptyPath::Allowed,
        false => EmptyPath::Refused,
    }
}

/// Why a context cannot be begun.
enum Beginning {
    Host(Errno),
    Refused(MountError),
}

impl From<Errno> for Beginning {
    fn from(errno: Errno) -> Self {
        Self::Host(errno)
    }
}

impl From<Beginning> for Fail {
    fn from(why: Beginning) -> Self {
        match why {
            Beginning::Host(errno) => errno.into(),
            Beginning::Refused(error) => refused(error),
        }
    }
}

/// `fsopen(name, flags)`.
pub fn fsopen(call: &Call) -> Outcome {
    const CLOEXEC: u32 = 1;
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    may_mount(call).map_err(refused)?;
    let flags = call.u32(1);
    if flags & !CLOEXEC != 0 {
        return Err(Errno::INVAL.into());
    }
    let fstype = string(call, 0, guest::PATH_MAX)?;
    call.check_alive()?;
    let begin = |messages| Context::new(call, fstype, messages).map_err(Beginning::Refused);
    let fd = call.supervisor.contexts.open(begin)?;
    Ok(Reply::Descriptor(fd, close_on_exec(flags, CLOEXEC)))
}

/// A string of at most `max` bytes with its end: `strndup_user`, to which a longer one is no string.
fn string(call: &Call, index: usize, max: usize) -> Result<Vec<u8>, Errno> {
    match guest::read_string(call.tid(), call.raw(index), max) {
        Err(Errno::NAMETOOLONG) => Err(Errno::INVAL),
        other => other,
    }
}

/// `fspick(dirfd, path, flags)`.
pub fn fspick(call: &Call) -> Outcome {
    const CLOEXEC: u32 = 1;
    const SYMLINK_NOFOLLOW: u32 = 2;
    const NO_AUTOMOUNT: u32 = 4;
    const EMPTY_PATH: u32 = 8;
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    may_mount(call).map_err(refused)?;
    let flags = call.u32(2);
    if flags & !(CLOEXEC | SYMLINK_NOFOLLOW | NO_AUTOMOUNT | EMPTY_PATH) != 0 {
        return Err(Errno::INVAL.into());
    }
    let last = if flags & SYMLINK_NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let at = call.object_at(call.i32(0), &call.path(1)?, last, empty(flags & EMPTY_PATH != 0))?;
    if !at.is_mount_root() {
        return Err(Errno::INVAL.into());
    }
    let fd = call.supervisor.contexts.open(|messages| Ok::<_, Errno>(Context::pick(at.mount, messages)))?;
    Ok(Reply::Descriptor(fd, close_on_exec(flags, CLOEXEC)))
}

/// `enum fsconfig_command`.
mod command {
    pub const SET_FLAG: u32 = 0;
    pub const SET_STRING: u32 = 1;
    pub const SET_BINARY: u32 = 2;
    pub const SET_PATH: u32 = 3;
    pub const SET_PATH_EMPTY: u32 = 4;
    pub const SET_FD: u32 = 5;
    pub const CREATE: u32 = 6;
    pub const RECONFIGURE: u32 = 7;
    pub const CREATE_EXCLUSIVE: u32 = 8;
}

/// `fsconfig(fd, command, key, value, auxiliary)`: the checks of `sys_fsconfig` of `fs/fsopen.c`, in their order.
pub fn fsconfig(call: &Call) -> Outcome {
    const NAME_MAX: usize = 256;
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    let (what, auxiliary) = (call.u32(1), call.i32(4));
    let (has_key, has_value) = (call.raw(2) != 0, call.raw(3) != 0);
    let is_sound = match what {
        command::SET_FLAG => has_key && !has_value && auxiliary == 0,
        command::SET_STRING => has_key && has_value && auxiliary == 0,
        command::SET_BINARY => has_key && has_value && auxiliary > 0 && auxiliary <= 1 << 20,
        command::SET_PATH | command::SET_PATH_EMPTY => {
            has_key && has_value && (auxiliary == libc::AT_FDCWD || auxiliary >= 0)
        }
        command::SET_FD => has_key && !has_value && auxiliary >= 0,
        command::CREATE | command::CREATE_EXCLUSIVE | command::RECONFIGURE => !has_key && !has_value && auxiliary == 0,
        _ => return Err(if call.i32(0) < 0 { Errno::INVAL } else { Errno::OPNOTSUPP }.into()),
    };
    if call.i32(0) < 0 || !is_sound {
        return Err(Errno::INVAL.into());
    }
    let context = context(call)?;
    match what {
        command::SET_FLAG => {
            let key = string(call, 2, NAME_MAX)?;
            context.set(&key, Value::Flag).map_err(refused)?;
        }
        command::SET_STRING => {
            let (key, value) = (string(call, 2, NAME_MAX)?, string(call, 3, NAME_MAX)?);
            context.set(&key, Value::Text(value)).map_err(refused)?;
        }
        // Types that take one take its number as a text, too: fs_param_is_fd.
        command::SET_FD => {
            let key = string(call, 2, NAME_MAX)?;
            let _ = call.take_fd(auxiliary)?;
            context.set(&key, Value::Text(auxiliary.to_string().into_bytes())).map_err(refused)?;
        }
        command::CREATE => {
            call.check_alive()?;
            let view = call.state.view.clone();
            let _change = view.change.lock();
            context.create(call).map_err(refused)?;
        }
        command::RECONFIGURE => context.reconfigure(call).map_err(refused)?,
        _ => return Err(Errno::OPNOTSUPP.into()),
    }
    DONE
}

/// The context of the descriptor that is the first argument.
fn context(call: &Call) -> Result<Arc<Context>, Errno> {
    call.supervisor.contexts.find(call.take_fd(call.i32(0))?)
}

/// `fsmount(fd, flags, attributes)`.
pub fn fsmount(call: &Call) -> Outcome {
    const CLOEXEC: u32 = 1;
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    may_mount(call).map_err(refused)?;
    let flags = call.u32(1);
    if flags & !CLOEXEC != 0 {
        return Err(Errno::INVAL.into());
    }
    let attributes = of_fsmount(call.u32(2))?;
    let mount = context(call)?.take(attributes)?;
    give_loose(call, &mount, close_on_exec(flags, CLOEXEC))
}

/// Gives a descriptor of a mount that is in no tree, and keeps the mount as long as the descriptor is open.
fn give_loose(call: &Call, mount: &Arc<Mount>, close_on_exec: CloseOnExec) -> Outcome {
    prune(call);
    let root = Location::root_of(mount);
    let fd = call.supervisor.placeholders.make(root.clone(), OFlags::PATH)?;
    {
        let view = call.state.view.clone();
        let _change = view.change.lock();
        let mut table = (*call.table()).clone();
        table.keep_detached(mount.clone());
        view.set_mounts(table);
    }
    give_placeholder(call, &root, fd, close_on_exec)
}

/// `open_tree(dirfd, path, flags)`.
pub fn open_tree(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    tree(call, None)
}

/// `open_tree_attr(dirfd, path, flags, attributes, size)`.
pub fn open_tree_attr(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    if call.raw(3) == 0 && call.raw(4) != 0 {
        return Err(Errno::INVAL.into());
    }
    let change = if call.raw(3) == 0 { None } else { read_change(call, 3)? };
    tree(call, change)
}

fn tree(call: &Call, change: Option<Change>) -> Outcome {
    const CLONE: u32 = 1;
    const CLOEXEC: u32 = 0o2_000_000;
    let flags = call.u32(2);
    let known = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | CLONE | CLOEXEC;
    if flags & !known != 0 || flags & (AT_RECURSIVE | CLONE) == AT_RECURSIVE {
        return Err(Errno::INVAL.into());
    }
    if flags & CLONE != 0 {
        // Without a faked identity this is what it is outside.
        if is_native(call) {
            return Err(Errno::PERM.into());
        }
        may_mount(call).map_err(refused)?;
    }
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let at = call.object_at(call.i32(0), &call.path(1)?, last, empty(flags & AT_EMPTY_PATH != 0))?;
    let depth = if flags & AT_RECURSIVE != 0 { Depth::Below } else { Depth::This };
    let cloexec = close_on_exec(flags, CLOEXEC);
    call.check_alive()?;
    if flags & CLONE == 0 {
        if let Some(change) = change {
            change.apply(call, &at, depth)?;
        }
        return give_path(call, &at, cloexec);
    }
    let root = {
        let view = call.state.view.clone();
        let _change = view.change.lock();
        let copies = copy::copy_tree(call, &at, depth)?;
        let mut table = (*call.table()).clone();
        let root = copies.join(&mut table)?;
        view.set_mounts(table);
        root
    };
    if let Some(change) = change {
        change.apply(call, &Location::root_of(&root), depth)?;
    }
    give_loose(call, &root, cloexec)
}

/// `move_mount(from_dirfd, from_path, to_dirfd, to_path, flags)`.
pub fn move_mount(call: &Call) -> Outcome {
    const FROM_SYMLINKS: u32 = 1;
    const FROM_EMPTY_PATH: u32 = 4;
    const TO_SYMLINKS: u32 = 0x10;
    const TO_EMPTY_PATH: u32 = 0x40;
    const SET_GROUP: u32 = 0x100;
    const BENEATH: u32 = 0x200;
    const MASK: u32 = 0x377;
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    may_mount(call).map_err(refused)?;
    let flags = call.u32(4);
    if flags & !MASK != 0 || flags & SET_GROUP != 0 {
        return Err(Errno::INVAL.into());
    }
    let last = |bit| if flags & bit != 0 { Last::Follow } else { Last::NoFollow };
    let (from_path, to_path) = (call.path(1)?, call.path(3)?);
    let from = call.object_at(call.i32(0), &from_path, last(FROM_SYMLINKS), empty(flags & FROM_EMPTY_PATH != 0))?;
    let to = call.object_at(call.i32(2), &to_path, last(TO_SYMLINKS), empty(flags & TO_EMPTY_PATH != 0))?;
    call.check_alive()?;
    let layer = if flags & BENEATH != 0 { Layer::Beneath } else { Layer::OnTop };
    move_loose(call, &from, to, &to_path, layer).map_err(refused)?;
    DONE
}

/// `mount_setattr(dirfd, path, flags, attributes, size)`.
pub fn mount_setattr(call: &Call) -> Outcome {
    if is_native(call) {
        return Ok(Reply::Continue);
    }
    let flags = call.u32(2);
    if flags & !(AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT) != 0 {
        return Err(Errno::INVAL.into());
    }
    let Some(change) = read_change(call, 3)? else { return DONE };
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let at = call.object_at(call.i32(0), &call.path(1)?, last, empty(flags & AT_EMPTY_PATH != 0))?;
    call.check_alive()?;
    let depth = if flags & AT_RECURSIVE != 0 { Depth::Below } else { Depth::This };
    change.apply(call, &at, depth)?;
    DONE
}

/// Reads a `struct mount_attr` whose size is the next argument; `None` where it changes nothing:
/// `wants_mount_setattr` of `fs/namespace.c`.
fn read_change(call: &Call, index: usize) -> Result<Option<Change>, Fail> {
    const FIRST_SIZE: u64 = 32;
    const MOST: u64 = 4096;
    let size = call.raw(index + 1);
    if size > MOST {
        return Err(Errno::TOOBIG.into());
    }
    if size < FIRST_SIZE {
        return Err(Errno::INVAL.into());
    }
    may_mount(call).map_err(refused)?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    guest::read_exact(call.tid(), call.raw(index), &mut bytes)?;
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    if bytes.iter().skip(32).any(|b| *b != 0) {
        return Err(Errno::TOOBIG.into());
    }
    let (set, clear, propagation) = (word(0), word(8), word(16));
    if set == 0 && clear == 0 && propagation == 0 {
        return Ok(None);
    }
    Ok(Some(Change::new(set, clear, propagation)?))
}
