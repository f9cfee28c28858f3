//! Assertions on system calls, worded so that a failure names the call's line and both errnos.

use std::fmt::Debug;

use rustix::io::Errno;

/// Checks that a call failed with exactly this errno.
///
/// # Panics
///
/// When it succeeded or failed otherwise.
#[track_caller]
pub fn fails<T>(with: Errno, result: Result<T, Errno>) {
    match result {
        Ok(_) => panic!("succeeded, where {with:?} was expected"),
        Err(errno) => assert_eq!(errno, with),
    }
}

/// Checks that a call succeeded and returns its value.
///
/// # Panics
///
/// When it failed.
#[track_caller]
pub fn works<T, E: Debug>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(errno) => panic!("failed: {errno:?}"),
    }
}
