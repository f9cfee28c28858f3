//! The handlers: one function per notified call, in the file of its family, found through the table.
//!
//! Architecture invariant: a handler names no module; it asks the view, and the view knows who claimed what.

use umvu_interface::Errno;

use crate::call::{Call, Fail, Outcome, Reply};
use crate::entry::Asked;

mod attribute;
mod directory;
pub mod exec;
mod fifo;
mod handle;
mod host;
mod identity;
mod ioctl;
mod landlock;
mod limit;
mod lock;
mod message;
mod mount;
mod mount_api;
mod mount_query;
mod namespace;
mod open;
mod open_object;
mod peer;
mod pid;
mod port;
mod process;
mod rename;
mod signal;
mod socket;
mod spawn;
pub mod stat;
mod sync;
mod tree;
mod view;
mod watch;
mod xattr;

pub use namespace::may_look;

macro_rules! handler {
    ($call:ident $name:ident allow) => {
        Ok(Reply::Continue)
    };
    ($call:ident $name:ident notify $family:ident) => {
        $family::$name($call)
    };
    ($call:ident $name:ident number $family:ident) => {
        $family::$name($call)
    };
    ($call:ident $name:ident refuse $errno:ident) => {
        Err(Fail::Errno(Errno::NOSYS))
    };
}

macro_rules! dispatch {
    ($($number:literal $name:ident($($argument:ident: $kind:ident),*) =>
        $tier:ident $($subject:ident)?
        $(when_nonnull $pointer:literal)?
        $(when_in $index:literal [$($value:literal),*])?
        $(when_any_bits $word:literal [$mask:literal])?
        $($note:literal)?;)*
    ) => {
        fn by_number(call: &Call, number: u32) -> Option<Outcome> {
            Some(match number {
                $($number => handler!(call $name $tier $($subject)?),)*
                _ => return None,
            })
        }
    };
}

umvu_table::for_each_syscall!(dispatch);

/// Runs the handler of a call.
pub fn dispatch(call: &Call) -> Outcome {
    if let Some(resumed) = crate::redirect::resume(call) {
        return resumed;
    }
    exec::settle(call);
    let number = match call.request.call {
        Asked::Call(number) => number,
        Asked::Native => return Ok(Reply::Continue),
        Asked::Refused(errno) => return Err(errno.into()),
    };
    if number == umvu_table::VU_CALL {
        return view::call(call);
    }
    by_number(call, number).unwrap_or_else(|| {
        // A negative one is what a tracer puts there for the kernel to skip the call.
        if i32::try_from(number).is_ok() {
            tracing::warn!(tid = call.tid(), nr = number, "refused a system call that the table does not know");
        }
        Err(Fail::Errno(Errno::NOSYS))
    })
}
