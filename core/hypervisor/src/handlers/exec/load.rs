//! The loader's question: what to load. It is an execve(2) with an address that is none, made by the image that the
//! process has just become.

use std::os::fd::AsFd;

use umvu_interface::{Errno, Result};
use umvu_loader::plan;
use umvu_sys::seccomp::CloseOnExec;

use crate::call::{Call, Outcome, Reply};

/// Gives the loader its descriptors and its plan, and the process the identity that comes with the program: nothing
/// that is kept can fail any more.
pub fn answer(call: &Call) -> Outcome {
    let mut order = call.supervisor.programs.take(call.tid()).ok_or(Errno::INVAL)?;
    call.check_alive()?;
    if let Some(binary) = &order.binary {
        // First, as begin_new_exec of fs/exec.c has the lowest number for it, and it stays open.
        order.plan.binary = give(call, binary, CloseOnExec::No)?;
    }
    order.plan.program.fd = give(call, &order.files.0, CloseOnExec::Yes)?;
    if let Some(interpreter) = &order.files.1 {
        order.plan.interpreter.fd = give(call, interpreter, CloseOnExec::Yes)?;
    }
    let mut bytes = order.plan.as_bytes().to_vec();
    order.segments.iter().for_each(|segment| bytes.extend_from_slice(segment.as_bytes()));
    bytes.extend_from_slice(&order.strings);
    if bytes.len() > plan::CAPACITY || call.raw(2) < bytes.len() as u64 {
        return Err(Errno::NOMEM.into());
    }
    call.write(call.raw(1), &bytes)?;
    if order.credentials.is_some() || call.state.dumpable.is_some() {
        call.change_state(|state| {
            state.dumpable = None;
            state.credentials = order.credentials.clone().or(state.credentials.take());
        })?;
    }
    Ok(Reply::Value(i64::try_from(bytes.len()).unwrap_or(0)))
}

/// Gives the guest a descriptor.
///
/// # Errors
/// - `EBADF`, `ENFILE`, `ENOMEM`: the host's.
pub fn give(call: &Call, file: &impl AsFd, cloexec: CloseOnExec) -> Result<u64> {
    let add = || call.supervisor.listener.add_fd(call.notification.id, file.as_fd(), cloexec, None);
    let number = match add() {
        // The kernel needs no descriptor to execute a program, so the guest may have none left.
        Err(Errno::MFILE) => umvu_sys::guest::with_more_files(call.tid(), add)?,
        other => other?,
    };
    u64::try_from(number).map_err(|_| Errno::BADF)
}
