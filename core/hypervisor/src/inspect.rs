//! Whether a faked identity may look into a process, or change how it is run: `__ptrace_may_access` of
//! `kernel/ptrace.c`, and the checks of owners in `kernel/sched/syscalls.c`. For the kernel all guests are of one user.
//!
//! Deliberately does not know processes outside of views: those are the kernel's to judge.

use std::sync::Arc;

use umvu_interface::{may_access_by_mode, Access, Capabilities, Credentials, Errno, Ids, Result};

use crate::call::Call;
use crate::fs::proc::ProcInode;
use crate::handlers::stat::shown;
use crate::magic::process_of;

/// By which of its ids a caller is judged.
#[derive(Clone, Copy)]
pub enum By {
    /// Those for access to files, as in `/proc`.
    Files,
    /// The real ones, as in ptrace(2).
    Real,
}

/// The caller's identity and that of another process that it is to be measured by; `None` where only the kernel's check
/// applies, and for who has `capability` over it.
fn judged(call: &Call, pid: u32, capability: u64) -> Option<(Arc<Credentials>, Arc<Credentials>)> {
    let who = call.credentials();
    if !who.is_faked() || who.namespace.is_none() && who.capable(capability) {
        return None;
    }
    let theirs = call.supervisor.credentials(&*call.supervisor.state_of(pid)?);
    let is_own = || process_of(pid).is_ok_and(|process| process_of(call.tid()) == Ok(process));
    (!who.capable_in(theirs.namespace.as_ref(), capability) && !is_own()).then_some((who, theirs))
}

/// Whether the caller may look into the process of a thread.
pub fn may_inspect(call: &Call, pid: u32, by: By) -> bool {
    let Some((who, theirs)) = judged(call, pid, Capabilities::SYS_PTRACE) else { return true };
    let of = |ids: &Ids| match by {
        By::Files => ids.fs,
        By::Real => ids.real,
    };
    let is = |ids: &Ids, id: u32| [ids.real, ids.effective, ids.saved].iter().all(|theirs| *theirs == id);
    // cap_ptrace_access_check: it must not gain a capability.
    let gains = who.namespace != theirs.namespace || theirs.capabilities.permitted & !who.capabilities.permitted != 0;
    is(&theirs.uid, of(&who.uid)) && is(&theirs.gid, of(&who.gid)) && !gains
}

/// Whether the caller may change how the process of a thread is run: `check_same_owner`.
pub fn may_steer(call: &Call, pid: u32) -> bool {
    match judged(call, pid, Capabilities::SYS_NICE) {
        Some((who, theirs)) => [theirs.uid.effective, theirs.uid.real].contains(&who.uid.effective),
        None => true,
    }
}

/// What of `/proc/PID` is a look into the memory of the process, beside what its mode says: `mm_access` of
/// `kernel/fork.c`.
const OF_MEMORY: [&[u8]; 9] =
    [b"maps", b"smaps", b"smaps_rollup", b"numa_maps", b"pagemap", b"mem", b"environ", b"auxv", b"clear_refs"];

/// Checks access to an object of `/proc`, where the kernel has not done so.
///
/// # Errors
/// - `EACCES`: not permitted.
pub fn may_use(call: &Call, object: &ProcInode, want: Access) -> Result<()> {
    let who = call.credentials();
    let Some((pid, name)) = object.of_process().filter(|_| who.is_faked()) else { return Ok(()) };
    let is_root = who.namespace.is_none() && who.capable(Capabilities::DAC_OVERRIDE);
    // A process may use its own, whoever it has become: the kernel has judged its user.
    if is_root && who.capable(Capabilities::SYS_PTRACE) || judged(call, pid, 0).is_none() {
        return Ok(());
    }
    may_access_by_mode(&who, &shown(call, object)?, want)?;
    if OF_MEMORY.contains(&name) && !may_inspect(call, pid, By::Files) {
        return Err(Errno::ACCESS);
    }
    Ok(())
}
