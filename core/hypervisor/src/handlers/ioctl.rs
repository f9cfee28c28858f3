//! ioctl: whose request is it? Knows no request itself. Those that are nobody's never come here.

use crate::call::{Call, Outcome};
use crate::handlers::{namespace, pid};

/// `ioctl(fd, request, argument)`: of terminals, those that tell process groups.
pub fn ioctl(call: &Call) -> Outcome {
    const TERMINALS: u32 = 0x54;
    match call.u32(1) {
        request if namespace::is_get(request) => namespace::get(call),
        request if request >> 8 == TERMINALS => pid::terminal(call),
        request if crate::claimed::may_join_by(request) => crate::claimed::join(call),
        _ => crate::control::ioctl(call),
    }
}
