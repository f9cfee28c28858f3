//! Answers of files whose writes are commands. Knows nothing of registers.

use umvu_interface::{Control, Errno, Result, CONTROL_MAX};

use super::transfer::{Data, What};
use crate::call::Call;
use crate::guest;
use crate::mounting::Below;

/// Answers a call that writes to a control: the number of bytes taken.
pub fn answer(call: &Call, control: &dyn Control, what: &What) -> Result<u64> {
    let data = match what {
        // do_loop_readv_writev of fs/read_write.c takes no flags but RWF_HIPRI.
        What::Write(_, _, flags) if flags & !1 != 0 => return Err(Errno::OPNOTSUPP),
        What::Write(data, _, _) => data,
        // There is no way to splice into it.
        _ => return Err(Errno::INVAL),
    };
    let written = match data {
        Data::Bytes(address, length) => one(call, control, *address, usize::try_from(*length).unwrap_or(CONTROL_MAX))?,
        Data::Vectors(..) => all(call, control, &data.pieces(call)?)?,
    };
    Ok(written as u64)
}

/// Each piece is a write of its own: do_loop_readv_writev of fs/read_write.c.
fn all(call: &Call, control: &dyn Control, pieces: &[(u64, usize)]) -> Result<usize> {
    let mut written = 0;
    for (address, length) in pieces {
        match one(call, control, *address, *length) {
            Err(errno) if written == 0 => return Err(errno),
            Err(_) => break,
            Ok(count) => {
                written += count;
                if count != *length {
                    break;
                }
            }
        }
    }
    Ok(written)
}

fn one(call: &Call, control: &dyn Control, address: u64, length: usize) -> Result<usize> {
    let mut bytes = vec![0; length.min(CONTROL_MAX)];
    guest::read_exact(call.tid(), address, &mut bytes)?;
    call.as_caller(|caller| control.write(caller, &bytes, &Below { call }))
}
