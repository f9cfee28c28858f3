//! The virtual system call by which a process speaks to the supervisor of its view.
//!
//! What is said is deliberately unknown here.

use crate::{check, Errno};

/// Numbers that no kernel gives to a call of its own: far above the last one, below the bit that means x32.
const VIRTUAL: std::ops::Range<u32> = 0x7000..0x8000;

/// Sends a request to the supervisor by the virtual call `nr` and returns the length of its reply.
///
/// # Errors
/// - `ENOSYS`: `nr` is not a virtual call, or there is no supervisor.
/// - `EINVAL`: the supervisor cannot read the request.
/// - `ERANGE`: the reply does not fit.
pub fn view_call(nr: u32, request: &[u8], reply: &mut [u8]) -> Result<usize, Errno> {
    // the kernel's own calls would do with these arguments what they please
    if !VIRTUAL.contains(&nr) {
        return Err(Errno::NOSYS);
    }
    let nr = libc::c_long::from(nr);
    // SAFETY: the kernel knows no such call and touches nothing; a supervisor reads and writes within the two slices.
    let length = unsafe { libc::syscall(nr, request.as_ptr(), request.len(), reply.as_mut_ptr(), reply.len()) };
    usize::try_from(check(length)?).map_err(|_| Errno::OVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_supervisor_it_is_enosys() {
        assert_eq!(view_call(0x7675, b"", &mut []), Err(Errno::NOSYS));
    }

    #[test]
    fn a_call_of_the_kernels_own_is_refused() {
        // getpid would succeed
        assert_eq!(view_call(39, b"", &mut []), Err(Errno::NOSYS));
    }
}
