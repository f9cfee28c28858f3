//! The names of the system: uname, sethostname, setdomainname. The view's own, never the host's.

use umvu_interface::{Capabilities, Errno};
use umvu_table::i386::{Abi, Form};

use crate::call::{Call, Outcome, Reply, DONE};

/// Length of each field of `struct new_utsname`, with its NUL.
const FIELD: usize = 65;
/// Length of each field of `struct oldold_utsname`, with its NUL.
const FIRST_FIELD: usize = 9;

/// `uname(name)`.
pub fn uname(call: &Call) -> Outcome {
    let names = call.state.uts().names.read().clone();
    if names == Default::default() {
        return Ok(Reply::Continue);
    }
    let host = rustix::system::uname();
    let node = names.nodename.unwrap_or_else(|| host.nodename().to_bytes().to_vec());
    let domain = names.domainname.unwrap_or_else(|| host.domainname().to_bytes().to_vec());
    let release = names.release.unwrap_or_else(|| host.release().to_bytes().to_vec());
    let fields: [&[u8]; 6] = [
        host.sysname().to_bytes(),
        &node,
        &release,
        host.version().to_bytes(),
        if is_32_bit(call) { b"i686" } else { host.machine().to_bytes() },
        &domain,
    ];
    // The older structures have no domain name.
    let (size, count) = match call.request.abi {
        Abi::X86_64 | Abi::I386(Form::Wide) => (FIELD, 6),
        Abi::I386(Form::Narrow) => (FIELD, 5),
        Abi::I386(Form::First) => (FIRST_FIELD, 5),
    };
    let mut bytes = vec![0; size * count];
    for (slot, field) in bytes.chunks_exact_mut(size).zip(fields) {
        let length = field.len().min(size - 1);
        slot[..length].copy_from_slice(&field[..length]);
    }
    call.write(call.raw(0), &bytes)?;
    DONE
}

/// Whether the process wants to be told of a 32-bit machine, as `setarch i686` has it: `override_architecture` of
/// `kernel/sys.c`.
fn is_32_bit(call: &Call) -> bool {
    const PER_MASK: u32 = 0xff;
    const PER_LINUX32: u32 = 8;
    let text = std::fs::read_to_string(format!("/proc/{}/personality", call.tid())).unwrap_or_default();
    u32::from_str_radix(text.trim(), 16).is_ok_and(|personality| personality & PER_MASK == PER_LINUX32)
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
    let uts = call.state.uts();
    if !call.credentials().capable_in(uts.space.owner.as_ref(), Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM.into());
    }
    let length = usize::try_from(call.i32(1)).ok().filter(|l| *l < FIELD).ok_or(Errno::INVAL)?;
    let mut name = vec![0; length];
    crate::guest::read_exact(call.tid(), call.raw(0), &mut name)?;
    put(&mut uts.names.write(), name);
    DONE
}
