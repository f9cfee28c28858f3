//! The first guest, between fork and exec, and how the supervisor gets its listener. Knows nothing of views.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::signal::{SigSet, SigmaskHow};
use umvu_sys::seccomp::{self, Listener};

use super::command::Command;
use crate::StartError;

/// Takes a filter, says where its listener is, waits, executes.
pub fn run(command: &Command, filter: &[libc::sock_filter], number: OwnedFd, go: OwnedFd, mask: &SigSet) -> i32 {
    let listener = match seccomp::install(filter) {
        Ok(listener) => listener,
        Err(errno) => {
            let why = match errno.raw_os_error() {
                libc::EBUSY => "another tool already supervises this process by seccomp".into(),
                libc::EINVAL => {
                    "the kernel lacks seccomp user notification with WAIT_KILLABLE_RECV (Linux 5.19 or newer)".into()
                }
                _ => umvu_interface::cause(errno),
            };
            let _ = rustix::io::write(&number, &(-1i32).to_ne_bytes());
            let _ = writeln!(std::io::stderr(), "umvu: seccomp filter: {why}");
            return 125;
        }
    };
    let _ = rustix::io::write(&number, &listener.as_raw_fd().to_ne_bytes());
    drop(number);
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(&go, &mut byte) {
            Ok(1) => break,
            Err(rustix::io::Errno::INTR) => {}
            _ => return 125,
        }
    }
    drop((listener, go));
    if umvu_sys::inherited::restore().is_err() {
        return 125;
    }
    if nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None).is_err() {
        return 125;
    }
    command.execute()
}

/// Takes the listener from the first guest, which tells its number of it.
///
/// # Errors
/// The filter was refused, which the guest has told; the guest is gone.
pub fn take_listener(guest: u32, number: OwnedFd) -> Result<Listener, StartError> {
    let mut bytes = [0u8; 4];
    let lost = || StartError::Message("the first process ended before it began".into());
    std::fs::File::from(number).read_exact(&mut bytes).map_err(|_| lost())?;
    let fd = i32::from_ne_bytes(bytes);
    if fd < 0 {
        return Err(StartError::Told);
    }
    let pidfd = umvu_sys::guest::open_thread(guest).map_err(StartError::system("pidfd"))?;
    let listener = Listener::from(umvu_sys::guest::take_fd(pidfd.as_fd(), fd).map_err(StartError::system("listener"))?);
    // Older kernels wake up less well, and all else works.
    if let Err(errno) = listener.set_sync_wake_up() {
        tracing::debug!(%errno, "no synchronous wake-up");
    }
    Ok(listener)
}
