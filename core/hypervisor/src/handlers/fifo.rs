//! Opening FIFOs: fifo(7). Knows nothing of how they were found.

use std::os::fd::AsFd;

use rustix::fs::OFlags;
use umvu_interface::{Errno, Opened};

use crate::call::{Call, Outcome};
use crate::escort::escorted;
use crate::mount::Location;
use crate::redirect::{Argument, Instead};

const OPENAT: u32 = 257;

/// Whether an open with these flags waits for the other end.
pub fn waits(flags: OFlags) -> bool {
    !flags.contains(OFlags::NONBLOCK) && flags & OFlags::ACCMODE != OFlags::RDWR
}

/// Opens a FIFO by our descriptor of it: the guest waits in a call of its own, which signals end as ever. `hand_out`
/// gives a guest that a debugger holds what was opened for it.
pub fn open(
    place: &Location,
    flags: OFlags,
    hand_out: impl FnOnce(&Location, Opened) -> Outcome + Send + 'static,
) -> Outcome {
    let fd = rustix::io::fcntl_dupfd_cloexec(place.inode.host_fd().ok_or(Errno::NXIO)?, 0)?;
    let arguments = vec![
        Argument::Word(0),
        Argument::String(crate::guest::path_for_guests(fd.as_fd())),
        Argument::Word(flags.bits().into()),
        Argument::Word(0),
    ];
    let place = place.clone();
    escorted(Instead { nr: OPENAT, arguments }, fd, move |_: &Call, _| {
        Ok(crate::call::Reply::Block(Box::new(move |call| {
            let opened = call.as_caller(|caller| place.inode.open(caller, flags))?;
            hand_out(&place, opened)
        })))
    })
}
