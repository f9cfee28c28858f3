//! clone, clone3, fork, vfork: only those whose children get another record than their parents have. The kernel makes
//! an ordinary child; it is stopped before its first instruction, gets its record, and goes on. Knows no namespaces.
//!
//! The thread that calls is traced for that time, as `escort` does it, by a thread of ours: a call in a thread that is
//! traced by another fails with `EPERM`.

use umvu_interface::{Errno, Result};
use umvu_sys::redirect::{reissue, Redirect, Regs, Stop};

use crate::call::{Call, Outcome, Reply};
use crate::guest;
use crate::namespace::change::{as_child, renewed, Whose};
use crate::namespace::flag;
use crate::namespace::pid::Init;
use crate::redirect::{entry, expect, layout, Argument, Instead};
use crate::state::ProcessState;

const VM: u64 = 0x100;
const FS: u64 = 0x200;
const SIGHAND: u64 = 0x800;
const PARENT: u64 = 0x8000;
const THREAD: u64 = 0x1_0000;
const SYSVSEM: u64 = 0x4_0000;
const DETACHED: u64 = 0x40_0000;

const CLONE: u32 = 56;
const FORK: u32 = 57;
const VFORK: u32 = 58;
const CLONE3: u32 = 435;

/// `clone(flags, stack, parent_tid, child_tid, tls)`.
pub fn clone(call: &Call) -> Outcome {
    // The low byte is a signal: CLONE_NEWTIME has no place.
    let flags = call.raw(0) & 0xffff_ff00;
    spawn(call, flags, |kept| {
        let mut arguments = vec![Argument::Word(kept | (call.raw(0) & 0xff))];
        arguments.extend((1..5).map(|index| Argument::Word(call.raw(index))));
        Instead { nr: CLONE, arguments }
    })
}

/// `fork()`.
pub fn fork(call: &Call) -> Outcome {
    spawn(call, 0, |_| Instead { nr: FORK, arguments: Vec::new() })
}

/// `vfork()`.
pub fn vfork(call: &Call) -> Outcome {
    spawn(call, 0, |_| Instead { nr: VFORK, arguments: Vec::new() })
}

/// `clone3(arguments, size)`: the flags are the first word in memory.
pub fn clone3(call: &Call) -> Outcome {
    /// Larger ones hold what no kernel knows: `copy_clone_args_from_user` wants zeroes there.
    const SIZE_MAX: u64 = 4096;
    let size = call.raw(1);
    if !(8..=SIZE_MAX).contains(&size) {
        return Ok(Reply::Continue);
    }
    let bytes: [u8; 8] = guest::read_array(call.tid(), call.raw(0))?;
    let flags = u64::from_ne_bytes(bytes);
    // A flag that is put there after this look is for the kernel, which makes a namespace of its own then, or refuses.
    if flags & flag::ALL == 0 && call.state.namespaces.pid_for_children.is_none() {
        return Ok(Reply::Continue);
    }
    let mut structure = guest::read_some(call.tid(), call.raw(0), usize::try_from(size).unwrap_or(8))?;
    if (structure.len() as u64) < size {
        return Err(Errno::FAULT.into());
    }
    spawn(call, flags, |kept| {
        structure[..8].copy_from_slice(&kept.to_ne_bytes());
        Instead { nr: CLONE3, arguments: vec![Argument::Bytes(structure, Vec::new()), Argument::Word(size)] }
    })
}

/// Makes a child with new namespaces, or in those that are for children: the checks of `copy_process` in
/// `kernel/fork.c`, in their order.
fn spawn(call: &Call, flags: u64, instead: impl FnOnce(u64) -> Instead) -> Outcome {
    let for_children = call.state.namespaces.pid_for_children.is_some();
    if flags & flag::ALL == 0 && (!for_children || flags & THREAD != 0 && flags & SIGHAND == 0) {
        return Ok(Reply::Continue);
    }
    let both = |these| flags & these == these;
    if both(flag::MNT | FS) || both(flag::USER | FS) {
        return Err(Errno::INVAL.into());
    }
    if flags & THREAD != 0 && flags & SIGHAND == 0 || flags & SIGHAND != 0 && flags & VM == 0 {
        return Err(Errno::INVAL.into());
    }
    if flags & PARENT != 0 && super::pid::is_init(call) {
        return Err(Errno::INVAL.into());
    }
    // Namespaces are a process's here, not a thread's, so threads have none of their own.
    if flags & THREAD != 0 && (flags & flag::ALL != 0 || for_children) {
        return Err(Errno::INVAL.into());
    }
    if flags & DETACHED != 0 || both(flag::IPC | SYSVSEM) {
        return Err(Errno::INVAL.into());
    }
    let mut child = renewed(call, &call.state, flags & flag::ALL, Whose::Child)?;
    as_child(&mut child)?;
    call.check_alive()?;
    let instead = instead(flags & !flag::ALL);
    Ok(Reply::Aside(Box::new(move |call| match go_along(call, &instead, child) {
        Ok(()) => Ok(Reply::Answered),
        Err(errno) => {
            if errno == Errno::PERM {
                tracing::warn!(tid = call.tid(), "no child with namespaces of its own: the caller is being traced");
            }
            Err(errno.into())
        }
    })))
}

/// # Errors
/// - `EPERM`: the thread is traced by somebody else.
/// - `ESRCH`: it is gone.
fn go_along(call: &Call, instead: &Instead, child: ProcessState) -> Result<()> {
    let thread = {
        let _begins = call.supervisor.tracing.read_recursive();
        Redirect::seize_with_children(call.tid())?
    };
    // Whatever it returns is never seen: the registers are set before it runs on.
    if let Err(errno) = call.supervisor.listener.answer(call.notification.id, Err(Errno::NOSYS)) {
        tracing::debug!(tid = call.tid(), %errno, "guest gone while it forks");
    }
    if let Err(errno) = fork_under(call, thread, instead, child) {
        tracing::debug!(tid = call.tid(), %errno, "guest gone while it forks");
    }
    Ok(())
}

fn fork_under(call: &Call, mut thread: Redirect, instead: &Instead, child: ProcessState) -> Result<()> {
    let own = thread.wait_stop()?;
    let Some(laid) = layout(call.request.abi, own.rsp, instead) else { return thread.detach() };
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
    if !laid.memory.is_empty() && call.write(laid.address, &laid.memory).is_err() {
        let mut none = thread.wait_stop()?;
        none.orig_rax = u64::MAX;
        thread.set_regs(&none)?;
        thread.go_on()?;
        thread.set_regs(&Regs { rax: failure(libc::ENOMEM), orig_rax: u64::MAX, ..own })?;
        return thread.detach();
    }
    // Whether the call in this form is notified is up to the filter.
    expect(call, &laid);
    let next = thread.go_on();
    call.supervisor.redirected.remove(&call.tid());
    if let Stop::Forked(pid) = next? {
        if let Err(errno) = begin(call, &mut thread, pid, child, &own) {
            tracing::warn!(pid, %errno, "a child did not get its namespaces and is ended");
            umvu_sys::guest::kill(pid);
        }
        // A vfork ends when the child has let go of its parent's memory.
        while thread.go_on()? != Stop::Call {}
    }
    let result = thread.wait_stop()?.rax;
    let restarts = (512..=514).any(|errno| result == failure(errno));
    let orig_rax = if restarts { u64::try_from(call.notification.nr).unwrap_or(u64::MAX) } else { u64::MAX };
    thread.set_regs(&Regs { rax: result, orig_rax, ..own })?;
    thread.detach()
}

/// Gives a new child its record and its parent's registers, and lets it go.
fn begin(call: &Call, parent: &mut Redirect, pid: u32, state: ProcessState, own: &Regs) -> Result<()> {
    let mut child = parent.child(pid);
    let at = child.wait_stop()?;
    let new = state.namespaces.pid.clone().filter(|p| p.init() == Init::None);
    call.supervisor.take_record(pid, state)?;
    if let Some(namespace) = new {
        adopts_orphans(call, &mut child, at)?;
        call.supervisor.end_with_init(namespace, pid)?;
    }
    // The registers of the arguments, of either entry.
    let Regs { rdi, rsi, rbx, .. } = *own;
    child.set_regs(&Regs { rdi, rsi, rbx, ..at })?;
    child.detach()
}

/// Has a new init make itself the parent of orphans, before its first instruction: `find_new_reaper` of `kernel/exit.c`
/// gives them to the init of their namespace.
fn adopts_orphans(call: &Call, child: &mut Redirect, at: Regs) -> Result<()> {
    const PRCTL: u32 = 157;
    const SET_CHILD_SUBREAPER: u64 = 36;
    let mut regs = at;
    let arguments = [SET_CHILD_SUBREAPER, 1, 0, 0, 0].map(Argument::Word).into();
    let Some(laid) = layout(call.request.abi, at.rsp, &Instead { nr: PRCTL, arguments }) else {
        return Err(Errno::NOMEM);
    };
    laid.reissue(&mut regs);
    child.set_regs(&regs)?;
    for _ in ["entry", "exit"] {
        // A signal that comes first is taken up again by the kernel, which finds it still pending for the process.
        while child.go_on()? != Stop::Call {}
    }
    Ok(())
}

fn failure(errno: i32) -> u64 {
    u64::from_ne_bytes((-i64::from(errno)).to_ne_bytes())
}
