//! User and group ids, groups, capabilities. Linux's rules on the identity that the view fakes: `kernel/sys.c`,
//! `kernel/groups.c`, `kernel/capability.c`. Knows nothing of files.

use std::sync::Arc;

use umvu_interface::{Capabilities, Credentials, Errno, Ids, UserNamespace};
use umvu_table::i386::{long_id, short_id};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;

/// The faked identity; without one the kernel's is the truth.
macro_rules! faked {
    ($call:ident) => {{
        let credentials = $call.credentials();
        if !credentials.is_faked() {
            return Ok(Reply::Continue);
        }
        credentials
    }};
}

/// The bytes of an id, as many as the form of the call has.
fn bytes_of(call: &Call, id: u32) -> Vec<u8> {
    if call.request.abi.has_short_ids() {
        short_id(id).to_ne_bytes().to_vec()
    } else {
        id.to_ne_bytes().to_vec()
    }
}

fn id(call: &Call, value: u32) -> Outcome {
    let is_short = call.request.abi.has_short_ids();
    Ok(Reply::Value(if is_short { short_id(value).into() } else { value.into() }))
}

/// `getuid()`.
pub fn getuid(call: &Call) -> Outcome {
    let who = faked!(call);
    id(call, who.user_shown(who.uid.real))
}

/// `geteuid()`.
pub fn geteuid(call: &Call) -> Outcome {
    let who = faked!(call);
    id(call, who.user_shown(who.uid.effective))
}

/// `getgid()`.
pub fn getgid(call: &Call) -> Outcome {
    let who = faked!(call);
    id(call, who.group_shown(who.gid.real))
}

/// `getegid()`.
pub fn getegid(call: &Call) -> Outcome {
    let who = faked!(call);
    id(call, who.group_shown(who.gid.effective))
}

/// `getresuid(ruid, euid, suid)`.
pub fn getresuid(call: &Call) -> Outcome {
    let who = faked!(call);
    three(call, who.uid, |id| who.user_shown(id))
}

/// `getresgid(rgid, egid, sgid)`.
pub fn getresgid(call: &Call) -> Outcome {
    let who = faked!(call);
    three(call, who.gid, |id| who.group_shown(id))
}

fn three(call: &Call, ids: Ids, shown: impl Fn(u32) -> u32) -> Outcome {
    for (index, value) in [ids.real, ids.effective, ids.saved].into_iter().enumerate() {
        call.write(call.raw(index), &bytes_of(call, shown(value)))?;
    }
    DONE
}

fn become_(call: &Call, new: Credentials) -> Outcome {
    if new != *call.credentials() {
        call.check_alive()?;
        call.change_state(|state| state.credentials = Some(Arc::new(new)))?;
    }
    DONE
}

/// `cap_emulate_setxuid` of `security/commoncap.c`: what a change of user ids does to the capabilities.
fn fix_capabilities(old: &Credentials, new: &mut Credentials) {
    const NO_SETUID_FIXUP: u32 = 1 << 2;
    const KEEP_CAPS: u32 = 1 << 4;
    if old.securebits & NO_SETUID_FIXUP != 0 {
        return;
    }
    let is_root = |uid: u32| old.root() == Some(uid);
    let had = [old.uid.real, old.uid.effective, old.uid.saved].into_iter().any(is_root);
    let has = [new.uid.real, new.uid.effective, new.uid.saved].into_iter().any(is_root);
    if had && !has {
        if old.securebits & KEEP_CAPS == 0 {
            new.capabilities.permitted = 0;
            new.capabilities.effective = 0;
        }
        new.capabilities.ambient = 0;
    }
    if is_root(old.uid.effective) && !is_root(new.uid.effective) {
        new.capabilities.effective = 0;
    }
    if !is_root(old.uid.effective) && is_root(new.uid.effective) {
        new.capabilities.effective = new.capabilities.permitted;
    }
}

/// `cap_task_fix_setuid` for setfsuid: the capabilities about files follow the file-system id.
fn fix_fs_capabilities(old: &Credentials, new: &mut Credentials) {
    const NO_SETUID_FIXUP: u32 = 1 << 2;
    // CAP_FS_MASK of linux/capability.h: chown, dac_override, dac_read_search, fowner, fsetid, linux_immutable,
    // mknod, mac_override.
    const FS: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
    if old.securebits & NO_SETUID_FIXUP != 0 {
        return;
    }
    let is_root = |uid: u32| old.root() == Some(uid);
    if is_root(old.uid.fs) && !is_root(new.uid.fs) {
        new.capabilities.effective &= !FS;
    }
    if !is_root(old.uid.fs) && is_root(new.uid.fs) {
        new.capabilities.effective |= new.capabilities.permitted & FS;
    }
}

/// `setuid(uid)`.
pub fn setuid(call: &Call) -> Outcome {
    let old = faked!(call);
    let uid = user(call, &old, 0)?.ok_or(Errno::INVAL)?;
    let mut new = (*old).clone();
    if old.capable(Capabilities::SETUID) {
        new.uid.real = uid;
        new.uid.saved = uid;
    } else if uid != old.uid.real && uid != old.uid.saved {
        return Err(Errno::PERM.into());
    }
    new.uid.effective = uid;
    new.uid.fs = uid;
    fix_capabilities(&old, &mut new);
    become_(call, new)
}

/// `setgid(gid)`.
pub fn setgid(call: &Call) -> Outcome {
    let old = faked!(call);
    let gid = group(call, &old, 0)?.ok_or(Errno::INVAL)?;
    let mut new = (*old).clone();
    if old.capable(Capabilities::SETGID) {
        new.gid = Ids::all(gid);
    } else if gid == old.gid.real || gid == old.gid.saved {
        new.gid.effective = gid;
        new.gid.fs = gid;
    } else {
        return Err(Errno::PERM.into());
    }
    become_(call, new)
}

/// The user an argument means; `None` for -1.
///
/// # Errors
/// - `EINVAL`: the caller's user namespace does not know the number.
fn user(call: &Call, who: &Credentials, index: usize) -> Result<Option<u32>, Errno> {
    match call.u32(index) {
        u32::MAX => Ok(None),
        uid => who.user_meant(uid).map(Some).ok_or(Errno::INVAL),
    }
}

/// The group an argument means; as [`user`].
fn group(call: &Call, who: &Credentials, index: usize) -> Result<Option<u32>, Errno> {
    match call.u32(index) {
        u32::MAX => Ok(None),
        gid => who.group_meant(gid).map(Some).ok_or(Errno::INVAL),
    }
}

/// `setreuid(ruid, euid)`.
pub fn setreuid(call: &Call) -> Outcome {
    let old = faked!(call);
    let mut new = (*old).clone();
    new.uid = change_two(old.uid, user(call, &old, 0)?, user(call, &old, 1)?, old.capable(Capabilities::SETUID))?;
    fix_capabilities(&old, &mut new);
    become_(call, new)
}

/// `setregid(rgid, egid)`.
pub fn setregid(call: &Call) -> Outcome {
    let old = faked!(call);
    let mut new = (*old).clone();
    new.gid = change_two(old.gid, group(call, &old, 0)?, group(call, &old, 1)?, old.capable(Capabilities::SETGID))?;
    become_(call, new)
}

fn change_two(old: Ids, real: Option<u32>, effective: Option<u32>, capable: bool) -> Result<Ids, Errno> {
    let mut new = old;
    if let Some(id) = real {
        if !capable && id != old.real && id != old.effective {
            return Err(Errno::PERM);
        }
        new.real = id;
    }
    if let Some(id) = effective {
        if !capable && id != old.real && id != old.effective && id != old.saved {
            return Err(Errno::PERM);
        }
        new.effective = id;
    }
    if real.is_some() || effective.is_some_and(|id| id != old.real) {
        new.saved = new.effective;
    }
    new.fs = new.effective;
    Ok(new)
}

/// `setresuid(ruid, euid, suid)`.
pub fn setresuid(call: &Call) -> Outcome {
    let old = faked!(call);
    let mut new = (*old).clone();
    let wanted = [user(call, &old, 0)?, user(call, &old, 1)?, user(call, &old, 2)?];
    new.uid = change_three(wanted, old.uid, old.capable(Capabilities::SETUID))?;
    fix_capabilities(&old, &mut new);
    become_(call, new)
}

/// `setresgid(rgid, egid, sgid)`.
pub fn setresgid(call: &Call) -> Outcome {
    let old = faked!(call);
    let mut new = (*old).clone();
    let wanted = [group(call, &old, 0)?, group(call, &old, 1)?, group(call, &old, 2)?];
    new.gid = change_three(wanted, old.gid, old.capable(Capabilities::SETGID))?;
    become_(call, new)
}

fn change_three(wanted: [Option<u32>; 3], old: Ids, capable: bool) -> Result<Ids, Errno> {
    let own = [old.real, old.effective, old.saved];
    if !capable && wanted.iter().flatten().any(|id| !own.contains(id)) {
        return Err(Errno::PERM);
    }
    let effective = wanted[1].unwrap_or(old.effective);
    Ok(Ids { real: wanted[0].unwrap_or(old.real), effective, saved: wanted[2].unwrap_or(old.saved), fs: effective })
}

/// `setfsuid(uid)`: gives the old id, whatever happens.
pub fn setfsuid(call: &Call) -> Outcome {
    let old = faked!(call);
    let own = [old.uid.real, old.uid.effective, old.uid.saved, old.uid.fs];
    let wanted = user(call, &old, 0).ok().flatten();
    if let Some(uid) = wanted.filter(|uid| own.contains(uid) || old.capable(Capabilities::SETUID)) {
        let mut new = (*old).clone();
        new.uid.fs = uid;
        fix_fs_capabilities(&old, &mut new);
        become_(call, new)?;
    }
    Ok(Reply::Value(old.user_shown(old.uid.fs).into()))
}

/// `setfsgid(gid)`: gives the old id, whatever happens.
pub fn setfsgid(call: &Call) -> Outcome {
    let old = faked!(call);
    let own = [old.gid.real, old.gid.effective, old.gid.saved, old.gid.fs];
    let wanted = group(call, &old, 0).ok().flatten();
    if let Some(gid) = wanted.filter(|gid| own.contains(gid) || old.capable(Capabilities::SETGID)) {
        let mut new = (*old).clone();
        new.gid.fs = gid;
        become_(call, new)?;
    }
    Ok(Reply::Value(old.group_shown(old.gid.fs).into()))
}

/// `getgroups(size, list)`.
pub fn getgroups(call: &Call) -> Outcome {
    let who = faked!(call);
    let size = usize::try_from(call.i32(0)).map_err(|_| Errno::INVAL)?;
    let count = Ok(Reply::Value(i64::try_from(who.groups.len()).unwrap_or(0)));
    if size == 0 {
        return count;
    }
    if who.groups.len() > size {
        return Err(Errno::INVAL.into());
    }
    let bytes: Vec<u8> = who.groups.iter().flat_map(|g| bytes_of(call, who.group_shown(*g))).collect();
    call.write(call.raw(1), &bytes)?;
    count
}

/// `setgroups(size, list)`.
pub fn setgroups(call: &Call) -> Outcome {
    const NGROUPS_MAX: usize = 65536;
    let old = faked!(call);
    // may_setgroups of kernel/groups.c: in a user namespace not before its groups are mapped.
    let allows = |n: &Arc<UserNamespace>| {
        !n.groups.extents().is_empty() && !n.setgroups_denied.load(std::sync::atomic::Ordering::Acquire)
    };
    if !old.capable(Capabilities::SETGID) || !old.namespace.as_ref().is_none_or(allows) {
        return Err(Errno::PERM.into());
    }
    let count = usize::try_from(call.i32(0)).ok().filter(|c| *c <= NGROUPS_MAX).ok_or(Errno::INVAL)?;
    let size = if call.request.abi.has_short_ids() { 2 } else { 4 };
    let mut bytes = vec![0; count * size];
    guest::read_exact(call.tid(), call.raw(1), &mut bytes)?;
    let word = |b: &[u8]| match *b {
        [a, b] => long_id(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => u32::MAX,
    };
    let meant = |gid| if gid == u32::MAX { None } else { old.group_meant(gid) };
    let groups: Option<Vec<u32>> = bytes.chunks_exact(size).map(|b| meant(word(b))).collect();
    let mut groups = groups.ok_or(Errno::INVAL)?;
    groups.sort_unstable();
    let mut new = (*old).clone();
    new.groups = Arc::from(groups);
    become_(call, new)
}

const CAPABILITY_VERSION_1: u32 = 0x1998_0330;
const CAPABILITY_VERSION_2: u32 = 0x2007_1026;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// Reads `struct __user_cap_header_struct`: how many words a set has, and the process.
fn header(call: &Call) -> Result<(usize, i32), Errno> {
    let bytes: [u8; 8] = guest::read_array(call.tid(), call.raw(0))?;
    let version = u32::from_ne_bytes(bytes[..4].try_into().unwrap_or_default());
    let pid = i32::from_ne_bytes(bytes[4..].try_into().unwrap_or_default());
    match version {
        CAPABILITY_VERSION_1 => Ok((1, pid)),
        CAPABILITY_VERSION_2 | CAPABILITY_VERSION_3 => Ok((2, pid)),
        _ => {
            call.write(call.raw(0), &CAPABILITY_VERSION_3.to_ne_bytes())?;
            Err(Errno::INVAL)
        }
    }
}

/// `capget(header, data)`.
pub fn capget(call: &Call) -> Outcome {
    let own = faked!(call);
    let (words, pid) = match header(call) {
        Ok(found) => found,
        // A null data pointer asks for the version.
        Err(Errno::INVAL) if call.raw(1) == 0 => return DONE,
        Err(errno) => return Err(errno.into()),
    };
    if pid < 0 {
        return Err(Errno::INVAL.into());
    }
    let who = match u32::try_from(pid).unwrap_or(0) {
        0 => own,
        pid if pid == call.tid() => own,
        pid => match call.supervisor.state_of(pid) {
            Some(state) => call.supervisor.credentials(&state),
            None if std::path::Path::new(&format!("/proc/{pid}")).exists() => call.supervisor.host_credentials.clone(),
            None => return Err(Errno::SRCH.into()),
        },
    };
    if call.raw(1) == 0 {
        return DONE;
    }
    let caps = who.capabilities;
    let mut bytes = Vec::with_capacity(24);
    for word in 0..words {
        for set in [caps.effective, caps.permitted, caps.inheritable] {
            let part = u32::try_from((set >> (32 * word)) & 0xffff_ffff).unwrap_or(0);
            bytes.extend_from_slice(&part.to_ne_bytes());
        }
    }
    call.write(call.raw(1), &bytes)?;
    DONE
}

/// `capset(header, data)`: `cap_capset` of `security/commoncap.c`.
pub fn capset(call: &Call) -> Outcome {
    let old = faked!(call);
    let (words, pid) = header(call)?;
    if pid != 0 && u32::try_from(pid) != Ok(call.tid()) {
        return Err(Errno::PERM.into());
    }
    let mut bytes = vec![0; words * 12];
    guest::read_exact(call.tid(), call.raw(1), &mut bytes)?;
    let mut sets = [0u64; 3];
    for word in 0..words {
        for (index, set) in sets.iter_mut().enumerate() {
            let at = word * 12 + index * 4;
            let part = u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default());
            *set |= u64::from(part) << (32 * word);
        }
    }
    let [effective, permitted, inheritable] = sets.map(|s| s & Capabilities::ALL);
    let has = old.capabilities;
    let within = |set: u64, of: u64| set & !of == 0;
    if !old.capable(Capabilities::SETPCAP) && !within(inheritable, has.inheritable | has.permitted) {
        return Err(Errno::PERM.into());
    }
    if !within(inheritable, has.inheritable | has.bounding) || !within(permitted, has.permitted) {
        return Err(Errno::PERM.into());
    }
    if !within(effective, permitted) {
        return Err(Errno::PERM.into());
    }
    let mut new = (*old).clone();
    new.capabilities.effective = effective;
    new.capabilities.permitted = permitted;
    new.capabilities.inheritable = inheritable;
    new.capabilities.ambient &= permitted & inheritable;
    become_(call, new)
}
