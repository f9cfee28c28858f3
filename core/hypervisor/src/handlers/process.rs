//! prctl, reboot, fcntl: what a process asks about itself and the view must answer or watch.

use umvu_interface::{Capabilities, Errno};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;

/// `prctl(option, ...)`: only the options that the table names come here.
pub fn prctl(call: &Call) -> Outcome {
    match call.i32(0) {
        libc::PR_GET_DUMPABLE => Ok(match call.state.dumpable {
            Some(value) => Reply::Value(i64::from(value)),
            None => Reply::Continue,
        }),
        libc::PR_SET_DUMPABLE => {
            // A guest that the kernel takes as not dumpable would lock the supervisor out of its memory.
            let value = u8::try_from(call.raw(1)).ok().filter(|v| *v <= 1).ok_or(Errno::INVAL)?;
            call.change_state(|state| state.dumpable = Some(value))?;
            DONE
        }
        libc::PR_GET_NO_NEW_PRIVS => {
            if (1..5).any(|index| call.raw(index) != 0) {
                return Err(Errno::INVAL.into());
            }
            Ok(Reply::Value(i64::from(call.state.has_no_new_privs)))
        }
        libc::PR_SET_NO_NEW_PRIVS => {
            if call.raw(1) != 1 || (2..5).any(|index| call.raw(index) != 0) {
                return Err(Errno::INVAL.into());
            }
            call.change_state(|state| state.has_no_new_privs = true)?;
            DONE
        }
        libc::PR_SET_SECCOMP if call.raw(1) == u64::from(libc::SECCOMP_MODE_FILTER) => may_filter(call, call.raw(2)),
        // That an init takes in orphans is no property it has asked for.
        libc::PR_GET_CHILD_SUBREAPER if super::pid::is_init(call) => {
            call.write(call.raw(1), &0i32.to_ne_bytes())?;
            DONE
        }
        libc::PR_GET_SECUREBITS
        | libc::PR_SET_SECUREBITS
        | libc::PR_GET_KEEPCAPS
        | libc::PR_SET_KEEPCAPS
        | libc::PR_CAPBSET_READ
        | libc::PR_CAPBSET_DROP
        | libc::PR_CAP_AMBIENT => secure(call),
        _ => Ok(Reply::Continue),
    }
}

/// `seccomp(operation, flags, arguments)`: only `SECCOMP_SET_MODE_FILTER`.
pub fn seccomp(call: &Call) -> Outcome {
    may_filter(call, call.raw(2))
}

/// Whether a guest may filter its own calls: the kernel lets all of them, as they have `no_new_privs` from us.
/// `seccomp_prepare_filter` of `kernel/seccomp.c`.
fn may_filter(call: &Call, program: u64) -> Outcome {
    const MOST: u16 = 4096;
    if call.state.has_no_new_privs || call.credentials().capable(Capabilities::SYS_ADMIN) {
        return Ok(Reply::Continue);
    }
    // `struct sock_fprog`: a length and a pointer.
    let mut header = vec![0; 2 * call.request.abi.word_size()];
    guest::read_exact(call.tid(), program, &mut header)?;
    if !(1..=MOST).contains(&u16::from_ne_bytes([header[0], header[1]])) {
        return Err(Errno::INVAL.into());
    }
    Err(Errno::ACCESS.into())
}

/// `cap_task_prctl` of `security/commoncap.c` on the faked identity.
fn secure(call: &Call) -> Outcome {
    const KEEP_CAPS: u32 = 1 << 4;
    const ALL_BITS: u32 = 0xff;
    const ALL_LOCKS: u32 = 0xaa;
    let old = call.credentials();
    if !old.is_faked() {
        return Ok(Reply::Continue);
    }
    let mut new = (*old).clone();
    let argument = call.raw(1);
    match call.i32(0) {
        libc::PR_GET_SECUREBITS => return Ok(Reply::Value(i64::from(old.securebits))),
        libc::PR_SET_SECUREBITS => {
            let bits = u32::try_from(argument).ok().filter(|b| b & !ALL_BITS == 0).ok_or(Errno::PERM)?;
            let locks = old.securebits & ALL_LOCKS;
            let changes_locked = (locks >> 1) & (old.securebits ^ bits) != 0;
            if changes_locked || locks & !bits != 0 || !old.capable(Capabilities::SETPCAP) {
                return Err(Errno::PERM.into());
            }
            new.securebits = bits;
        }
        libc::PR_GET_KEEPCAPS => return Ok(Reply::Value(i64::from(old.securebits & KEEP_CAPS != 0))),
        libc::PR_SET_KEEPCAPS => {
            match argument {
                0 => new.securebits &= !KEEP_CAPS,
                1 => new.securebits |= KEEP_CAPS,
                _ => return Err(Errno::INVAL.into()),
            }
            if old.securebits & (KEEP_CAPS << 1) != 0 {
                return Err(Errno::PERM.into());
            }
        }
        libc::PR_CAPBSET_READ => {
            let bit = capability(argument)?;
            return Ok(Reply::Value(i64::from(old.capabilities.bounding & bit != 0)));
        }
        libc::PR_CAPBSET_DROP => {
            if !old.capable(Capabilities::SETPCAP) {
                return Err(Errno::PERM.into());
            }
            new.capabilities.bounding &= !capability(argument)?;
        }
        _ => return ambient(call, new),
    }
    call.change_state(|state| state.credentials = Some(new.into()))?;
    DONE
}

fn ambient(call: &Call, mut new: umvu_interface::Credentials) -> Outcome {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    const NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    if call.raw(3) != 0 || call.raw(4) != 0 {
        return Err(Errno::INVAL.into());
    }
    if call.raw(1) == CLEAR_ALL {
        if call.raw(2) != 0 {
            return Err(Errno::INVAL.into());
        }
        new.capabilities.ambient = 0;
    } else {
        let bit = capability(call.raw(2))?;
        match call.raw(1) {
            IS_SET => return Ok(Reply::Value(i64::from(new.capabilities.ambient & bit != 0))),
            RAISE => {
                let held = new.capabilities.permitted & new.capabilities.inheritable & bit != 0;
                if !held || new.securebits & NO_CAP_AMBIENT_RAISE != 0 {
                    return Err(Errno::PERM.into());
                }
                new.capabilities.ambient |= bit;
            }
            LOWER => new.capabilities.ambient &= !bit,
            _ => return Err(Errno::INVAL.into()),
        }
    }
    call.change_state(|state| state.credentials = Some(new.into()))?;
    DONE
}

fn capability(number: u64) -> Result<u64, Errno> {
    let bit = u32::try_from(number).ok().and_then(|n| 1u64.checked_shl(n)).ok_or(Errno::INVAL)?;
    if bit & Capabilities::ALL == 0 {
        return Err(Errno::INVAL);
    }
    Ok(bit)
}

/// `reboot(...)`: the view's root reboots nothing.
pub fn reboot(call: &Call) -> Outcome {
    if call.credentials().is_faked() {
        return Err(Errno::PERM.into());
    }
    Ok(Reply::Continue)
}

/// `fcntl(fd, F_GETSIG | F_SETSIG, ...)`: the value holds the mark of the mount on descriptors of a view.
pub fn fcntl(call: &Call) -> Outcome {
    const F_SETSIG: i32 = 10;
    let fd = call.take_fd(call.i32(0))?;
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode);
    if !kind.is_file() || call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    // Regular files send no signals: nothing is lost.
    if call.i32(1) == F_SETSIG && call.raw(2) > 64 {
        return Err(Errno::INVAL.into());
    }
    DONE
}
