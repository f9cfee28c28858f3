//! AF_UNIX addresses that are paths. Knows nothing of other families: their calls go to the kernel.

use umvu_interface::Errno;

use crate::call::{Call, Outcome, Reply};

/// `bind(fd, address, length)`.
pub fn bind(call: &Call) -> Outcome {
    plain_or(call)
}

/// `connect(fd, address, length)`.
pub fn connect(call: &Call) -> Outcome {
    plain_or(call)
}

/// `sendto(fd, buffer, length, flags, address, address_length)`.
pub fn sendto(call: &Call) -> Outcome {
    plain_or(call)
}

/// `sendmsg(fd, message, flags)`.
pub fn sendmsg(call: &Call) -> Outcome {
    plain_or(call)
}

/// `sendmmsg(fd, messages, count, flags)`.
pub fn sendmmsg(call: &Call) -> Outcome {
    plain_or(call)
}

/// `getsockname(fd, address, length)`.
pub fn getsockname(call: &Call) -> Outcome {
    plain_or(call)
}

/// `getpeername(fd, address, length)`.
pub fn getpeername(call: &Call) -> Outcome {
    plain_or(call)
}

fn plain_or(call: &Call) -> Outcome {
    let _ = (call, Errno::NOSYS);
    Ok(Reply::Continue)
}
