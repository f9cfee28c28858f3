//! What a process was started with and Rust's runtime, or umvu, changes: kept from before `main`, to be given to the
//! programs that it executes.
//!
//! The runtime ignores `SIGPIPE` and opens `/dev/null` in place of standard streams that are closed, both before
//! `main`, so this looks earlier: the C library calls what stands in `.init_array`. What is done with it is
//! deliberately unknown here.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::process::Signal;

use crate::{check, process, Errno};

/// Bits 0 to 2: the standard stream of that number was closed.
static STARTED_WITH: AtomicU8 = AtomicU8::new(0);
const PIPE_IGNORED: u8 = 1 << 3;
const CHILD_IGNORED: u8 = 1 << 4;

// SAFETY: the section holds pointers to functions of this type, which the C library calls once, before `main`.
#[used]
#[link_section = ".init_array"]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let mut seen = 0;
    for number in 0..3 {
        // SAFETY: asking for the flags of a number changes nothing, whether it is open or not.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
            seen |= 1 << number;
        }
    }
    if is_ignored(libc::SIGPIPE) {
        seen |= PIPE_IGNORED;
    }
    if is_ignored(libc::SIGCHLD) {
        seen |= CHILD_IGNORED;
    }
    STARTED_WITH.store(seen, Ordering::Relaxed);
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: the structure consists of integers and an optional function, for which all zeroes are a value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no action is set, and the old one is written to `action`.
    let returned = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    returned == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// Gives signals and standard streams back what the process was started with, before a program is executed.
///
/// Streams that were closed then are closed again: nobody may own them.
///
/// # Errors
/// None.
pub fn restore() -> Result<(), Errno> {
    let seen = STARTED_WITH.load(Ordering::Relaxed);
    for (bit, signal) in [(PIPE_IGNORED, Signal::PIPE), (CHILD_IGNORED, Signal::CHILD)] {
        match seen & bit {
            0 => process::default_signal(signal)?,
            _ => process::ignore_signal(signal)?,
        }
    }
    for number in (0..3).filter(|number| seen & (1 << number) != 0) {
        close(number);
    }
    Ok(())
}

/// Closes what the process has inherited above the standard streams: what it opens itself closes on exec, or would
/// not be told apart.
///
/// # Errors
/// The error of reading `/proc/self/fd`.
pub fn close_descriptors() -> Result<(), Errno> {
    let listed = std::fs::read_dir("/proc/self/fd").map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    let numbers: Vec<RawFd> = listed.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        // SAFETY: asking for the flags of a number changes nothing, whether it is open or not.
        let flags = check(unsafe { libc::fcntl(number, libc::F_GETFD) });
        if flags.is_ok_and(|flags| flags & libc::FD_CLOEXEC == 0) {
            close(number);
        }
    }
    Ok(())
}

fn close(number: RawFd) {
    // SAFETY: the callers say that nothing in this process owns the number.
    unsafe { libc::close(number) };
}
