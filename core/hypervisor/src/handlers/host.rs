//! The names of the system: uname, sethostname, setdomainname. The view's own, never the host's.

use umvu_interface::{Capabilities, Errno};

use crate::call::{Call, Outcome, Reply, DONE};

/// Length of each field of `struct new_utsname`, with its NUL.
const FIELD: usize = 65;

/// `uname(name)`.
pub fn uname(call: &Call) -> Outcome {
    let names = call.state.view.names.read().clone();
    if names == Default::default() {
        return Ok(Reply::Continue);
    }
    let host = rustix::system::uname();
    let node = names.nodename.unwrap_or_else(|| host.nodename().to_bytes().to_vec());
    let domain = names.domainname.unwrap_or_else(|| host.domainname().to_bytes().to_vec());
    let fields: [&[u8]; 6] = [
        host.sysname().to_bytes(),
        &node,
        host.release().to_bytes(),
        host.version().to_bytes(),
        host.machine().to_bytes(),
        &domain,
    ];
    let mut bytes = vec![0; FIELD * fields.len()];
    for (slot, field) in bytes.chunks_exact_mut(FIELD).zip(fields) {
        let length = field.len().min(FIELD - 1);
        slot[..length].copy_from_slice(&field[..length]);
    }
    call.write(call.raw(0), &bytes)?;
    DONE
}

/// `sethostname(name, length)`.
pub fn sethostname(call: &Call) -> Outcome {
    set(call, |names, name| names.nodename = Some(name))
}

/// `setdomainname(name, length)`.
pub fn setdomainname(call: &Call) -> Outcome {
    set(call, |names, name| names.domainname = Some(name))
}

fn set(call: &Call, put: impl FnOnce(&mut crate::view::HostNames, Vec<u8>)) -> Outcome {
    if !call.credentials().is_faked() {
        return Ok(Reply::Continue);
    }
    if !call.credentials().capable(Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM.into());
    }
    let length = usize::try_from(call.i32(1)).ok().filter(|l| *l < FIELD).ok_or(Errno::INVAL)?;
    let mut name = vec![0; length];
    crate::guest::read_exact(call.tid(), call.raw(0), &mut name)?;
    put(&mut call.state.view.names.write(), name);
    DONE
}
