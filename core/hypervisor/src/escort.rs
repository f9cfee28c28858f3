//! Has the guest make another call, which may block, in place of the one it was notified for, and gives the program its
//! registers back. Knows no particular call.
//!
//! The thread is traced until the call is over, by a thread of ours that does nothing else. When a signal comes first,
//! or the kernel would restart the call after a handler, the program is put back to before its own call, and what
//! happens then is the kernel's: the call fails with `EINTR`, or it is made and notified again.

use umvu_interface::Errno;
use umvu_sys::redirect::{reissue, Redirect, Regs, Stop};

use crate::call::{Call, Outcome, Reply};
use crate::redirect::{entry, expect, layout, Instead};

/// Makes the call that `instead` makes out of the duplicate of a descriptor that `keep` holds; `otherwise` is done
/// for a thread that is traced by somebody else.
pub fn escorted<K: Send + 'static>(
    instead: Instead,
    keep: K,
    otherwise: impl FnOnce(&Call, K) -> Outcome + Send + 'static,
) -> Outcome {
    Ok(Reply::Aside(Box::new(move |call| match go_along(call, &instead) {
        Err(Errno::PERM) => otherwise(call, keep),
        Err(errno) => Err(errno.into()),
        Ok(()) => {
            drop(keep);
            Ok(Reply::Answered)
        }
    })))
}

/// # Errors
/// - `EPERM`: the thread is traced by somebody else.
/// - `ESRCH`: it is gone.
fn go_along(call: &Call, instead: &Instead) -> Result<(), Errno> {
    let thread = {
        let _begins = call.supervisor.tracing.read_recursive();
        Redirect::seize(call.tid())?
    };
    // Whatever it returns is never seen: the registers are set before it runs on.
    if let Err(errno) = call.supervisor.listener.answer(call.notification.id, Err(Errno::NOSYS)) {
        tracing::debug!(tid = call.tid(), %errno, "guest gone while it is escorted");
    }
    if let Err(errno) = make_call(call, thread, instead) {
        tracing::debug!(tid = call.tid(), %errno, "guest gone while it is escorted");
    }
    Ok(())
}

fn make_call(call: &Call, mut thread: Redirect, instead: &Instead) -> Result<(), Errno> {
    let own = thread.wait_stop()?;
    let Some(laid) = layout(call.request.abi, own.rsp, instead) else {
        tracing::warn!(
            tid = call.tid(),
            "refused a 32-bit call of a 64-bit program: its stack is out of the call's reach"
        );
        return thread.detach();
    };
    let mut regs = own;
    laid.reissue(&mut regs);
    thread.set_regs(&regs)?;
    let stop = thread.go_on()?;
    if stop != Stop::Call {
        // Its own call once more, once the signal is seen to.
        let mut regs = own;
        reissue(&mut regs, entry(call), i64::from(call.notification.nr), call.notification.args);
        thread.set_regs(&regs)?;
        return match stop {
            Stop::Signal(signal) => thread.detach_with(signal),
            _ => thread.detach(),
        };
    }
    // From here to the end of the call no handler runs that could overwrite it.
    let is_written = call.write(laid.address, &laid.memory).is_ok();
    if is_written {
        expect(call, &laid);
    } else {
        let mut none = thread.wait_stop()?;
        none.orig_rax = u64::MAX;
        thread.set_regs(&none)?;
    }
    let ended = thread.go_on();
    // Still there if the notification was not received before a signal.
    call.supervisor.redirected.remove(&call.tid());
    ended?;
    let result = if is_written { thread.wait_stop()?.rax } else { error(libc::ENOMEM) };
    thread.set_regs(&returned(own, call.notification.nr, result))?;
    thread.detach()
}

fn error(errno: i32) -> u64 {
    u64::from_ne_bytes((-i64::from(errno)).to_ne_bytes())
}

/// The program's registers after a call with this result.
fn returned(own: Regs, nr: i32, result: u64) -> Regs {
    // ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND: the kernel decides what becomes of the call that `orig_rax` names.
    let restarts = (512..=514).any(|errno| result == error(errno));
    let orig_rax = if restarts { u64::try_from(nr).unwrap_or(u64::MAX) } else { u64::MAX };
    Regs { rax: result, orig_rax, ..own }
}
