//! Resource limits: only `RLIMIT_LOCKS` comes here, whose value the kernel keeps for us. Knows nothing of others.

use umvu_interface::{Capabilities, Errno};
use umvu_table::i386::{Abi, Form};

use crate::abi_i386;
use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;

const RLIMIT_LOCKS: u32 = 10;
const PRLIMIT64: u32 = 302;

/// `getrlimit(resource, limit)`: only `RLIMIT_LOCKS`, whose kernel value is ours.
pub fn getrlimit(call: &Call) -> Outcome {
    if call.u32(0) != RLIMIT_LOCKS {
        return Ok(Reply::Continue);
    }
    let (soft, hard) = call.state.locks_limit.unwrap_or((u64::MAX, u64::MAX));
    write_limit(call, call.raw(1), soft, hard)
}

fn write_limit(call: &Call, address: u64, soft: u64, hard: u64) -> Outcome {
    let bytes = match call.request.abi {
        Abi::X86_64 => limits(soft, hard),
        // prlimit64 has 64 bits everywhere.
        Abi::I386(_) if call.request.number() == Some(PRLIMIT64) => limits(soft, hard),
        Abi::I386(Form::Wide) => [soft, hard].map(|value| abi_i386::limit(value).to_ne_bytes()).concat(),
        Abi::I386(_) => [soft, hard].map(|value| abi_i386::first_limit(value).to_ne_bytes()).concat(),
    };
    call.write(address, &bytes)?;
    DONE
}

fn limits(soft: u64, hard: u64) -> Vec<u8> {
    [soft, hard].map(u64::to_ne_bytes).concat()
}

/// `setrlimit(resource, limit)`.
pub fn setrlimit(call: &Call) -> Outcome {
    if call.u32(0) != RLIMIT_LOCKS {
        return Ok(Reply::Continue);
    }
    set_limit(call, call.raw(1))
}

fn read_limit(call: &Call, address: u64) -> Result<(u64, u64), Errno> {
    if call.request.abi != Abi::X86_64 && call.request.number() != Some(PRLIMIT64) {
        let bytes: [u8; 8] = guest::read_array(call.tid(), address)?;
        let value = |at: usize| match u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap_or_default()) {
            u32::MAX => u64::MAX,
            value => value.into(),
        };
        return Ok((value(0), value(4)));
    }
    let bytes: [u8; 16] = guest::read_array(call.tid(), address)?;
    let value = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    Ok((value(0), value(8)))
}

fn set_limit(call: &Call, address: u64) -> Outcome {
    let (soft, hard) = read_limit(call, address)?;
    if soft > hard {
        return Err(Errno::INVAL.into());
    }
    let (_, old_hard) = call.state.locks_limit.unwrap_or((u64::MAX, u64::MAX));
    if hard > old_hard && !call.credentials().capable(Capabilities::SYS_RESOURCE) {
        return Err(Errno::PERM.into());
    }
    call.change_state(|state| state.locks_limit = Some((soft, hard)))?;
    DONE
}

/// `prlimit64(pid, resource, new, old)`.
pub fn prlimit64(call: &Call) -> Outcome {
    if call.u32(1) != RLIMIT_LOCKS {
        return Ok(Reply::Continue);
    }
    let pid = call.u32(0);
    let own = pid == 0 || pid == call.tid() || crate::magic::process_of(call.tid()) == Ok(pid);
    let state = if own { Some(call.state.clone()) } else { call.supervisor.state_of(pid) };
    let Some(state) = state else { return Ok(Reply::Continue) };
    let (soft, hard) = state.locks_limit.unwrap_or((u64::MAX, u64::MAX));
    if call.raw(2) != 0 {
        if !own {
            return Err(Errno::PERM.into());
        }
        set_limit(call, call.raw(2))?;
    }
    if call.raw(3) != 0 {
        write_limit(call, call.raw(3), soft, hard)?;
    }
    DONE
}
