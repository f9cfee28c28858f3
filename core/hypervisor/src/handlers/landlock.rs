//! Landlock. Its rules bind the calling thread, and in a view it is the supervisor that opens files.

use umvu_interface::Errno;

use crate::call::{Call, Outcome, Reply};

/// `landlock_create_ruleset(attributes, size, flags)`: a program would take itself for confined where it is not, so it
/// is told that Landlock is not there, as where it was not enabled at boot: `security/landlock/syscalls.c`.
pub fn landlock_create_ruleset(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    Err(Errno::OPNOTSUPP.into())
}
