//! The only crate with unsafe code: typed, safe functions over the kernel interfaces that rustix and nix lack.
//!
//! Each function is one kernel call, or the smallest group of them that makes sense. What the numbers mean to a
//! view is deliberately unknown here: this crate knows descriptors, threads, signals and registers, and no mounts,
//! paths or identities.
//!
//! Where rustix or nix has a safe function, callers use that; the few that are wrapped here are those whose
//! shape (a bare thread number, an `O_PATH` descriptor) needs care to get right.

#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![warn(missing_docs)]

pub mod file;
pub mod guest;
pub mod inherited;
pub mod process;
pub mod redirect;
pub mod seccomp;
pub mod tracer;
mod view_call;

pub use rustix::io::Errno;
pub use view_call::view_call;

/// Turns what a libc function returned into a result: -1 stands for the error in this thread's `errno`.
fn check<T: PartialOrd + Default>(returned: T) -> Result<T, Errno> {
    if returned < T::default() {
        return Err(last_errno());
    }
    Ok(returned)
}

/// Reads the error that the last libc call of this thread left.
fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Turns an error of nix into the one type that this crate reports.
fn from_nix(error: nix::errno::Errno) -> Errno {
    Errno::from_raw_os_error(error as i32)
}
