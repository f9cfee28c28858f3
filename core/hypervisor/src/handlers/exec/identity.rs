//! What becomes of an identity when it executes a program: set-id bits and capabilities(7) on the faked one. Knows
//! nothing of formats.

use std::sync::Arc;

use umvu_interface::{Capabilities, Credentials, Errno, MountFlags, Result, Stat};

use crate::call::Call;
use crate::mount::Location;
use crate::redirect::read_pointers;
use crate::state::ProcessState;

/// The identity that a process takes with a program; `None` where it keeps its own.
///
/// # Errors
/// Those of looking at the program.
pub fn after(call: &Call, program: &Location) -> Result<Option<Arc<Credentials>>> {
    let old = call.credentials();
    if !old.is_faked() {
        return Ok(None);
    }
    // A mount and the guest itself can forbid the same: bprm_fill_uid of fs/exec.c.
    let no_gain = if call.state.has_no_new_privs { MountFlags::NO_SUID } else { MountFlags::empty() };
    let new = after_exec(&old, &program.inode.stat()?, program.mount.flags() | no_gain);
    Ok((new != *old).then(|| Arc::new(new)))
}

/// A new program can be seen by others again.
///
/// # Errors
/// - `ESRCH`: the process is gone.
pub fn reset_dumpable(call: &Call) -> Result<()> {
    if call.state.dumpable.is_none() && call.state.namespaces.time_for_children.is_none() {
        return Ok(());
    }
    call.check_alive().map_err(|_| Errno::SRCH)?;
    call.change_state(begin)
}

/// What every new program begins with: others see it, and it is in the time that was meant for children
/// (`exec_task_namespaces` of `kernel/nsproxy.c`).
fn begin(state: &mut ProcessState) {
    state.dumpable = None;
    if let Some(time) = state.namespaces.time_for_children.take() {
        state.namespaces.time = Some(time.space);
    }
}

/// Gives the identity before the program runs, for one that the kernel alone can execute: nobody tells when it does.
/// What fails in practice is tried first.
///
/// # Errors
/// - `EFAULT`, `E2BIG`: of the arguments.
/// - `ESRCH`: the process is gone.
pub fn take_early(call: &Call, program: &Location, arrays: [u64; 2]) -> Result<()> {
    let Some(new) = after(call, program)? else { return reset_dumpable(call) };
    for array in arrays {
        readable(call, array)?;
    }
    call.check_alive().map_err(|_| Errno::SRCH)?;
    call.change_state(|state| {
        begin(state);
        state.credentials = Some(new);
    })
}

/// Whether the new program must distrust its environment: `cap_bprm_creds_from_file` of `security/commoncap.c`.
pub fn is_secure(old: &Credentials, new: &Credentials) -> bool {
    let gained = new.capabilities.permitted & !new.capabilities.ambient != 0;
    new.uid.effective != old.uid.real
        || new.gid.effective != old.gid.real
        || (new.root() != Some(new.uid.real) && (new.root() == Some(new.uid.effective) || gained))
}

/// Checks that an array of strings can be read and passed on: `count` and `copy_strings` of `fs/exec.c`.
pub fn readable(call: &Call, array: u64) -> Result<()> {
    const STRING_MAX: usize = 128 << 10;
    for pointer in read_pointers(call, array)? {
        match crate::guest::read_string(call.tid(), pointer, STRING_MAX) {
            Ok(_) => {}
            Err(Errno::NAMETOOLONG) => return Err(Errno::TOOBIG),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn after_exec(old: &Credentials, file: &Stat, mount: MountFlags) -> Credentials {
    const NOROOT: u32 = 1;
    const KEEP_CAPS: u32 = 1 << 4;
    let mut new = old.clone();
    new.securebits &= !KEEP_CAPS;
    // Ids that the caller's user namespace does not know change nobody: bprm_fill_uid of fs/exec.c.
    let is_known = old.user_inside(file.uid).is_some() && old.group_inside(file.gid).is_some();
    if !mount.contains(MountFlags::NO_SUID) && is_known {
        if file.mode & 0o4000 != 0 {
            new.uid.effective = file.uid;
        }
        // Set-gid without group execution marks mandatory locks.
        if file.mode & 0o2010 == 0o2010 {
            new.gid.effective = file.gid;
        }
    }
    new.uid.saved = new.uid.effective;
    new.uid.fs = new.uid.effective;
    new.gid.saved = new.gid.effective;
    new.gid.fs = new.gid.effective;
    let caps = &mut new.capabilities;
    let set_id = new.uid.effective != old.uid.effective || new.gid.effective != old.gid.effective;
    if set_id {
        caps.ambient = 0;
    }
    let is_root = |uid| old.securebits & NOROOT == 0 && old.root() == Some(uid);
    if is_root(new.uid.effective) || is_root(new.uid.real) {
        caps.permitted = caps.inheritable | caps.bounding;
        caps.effective = if is_root(new.uid.effective) { caps.permitted } else { 0 };
    } else {
        caps.permitted = caps.ambient;
        caps.effective = caps.ambient;
    }
    caps.permitted &= Capabilities::ALL;
    caps.effective &= Capabilities::ALL;
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_user_id_bit_gives_the_owner() {
        let user = umvu_interface::Credentials {
            uid: umvu_interface::Ids::all(5),
            gid: umvu_interface::Ids::all(5),
            groups: Arc::from([].as_slice()),
            capabilities: Capabilities::none(),
            securebits: 0,
            origin: umvu_interface::Origin::Faked,
            namespace: None,
        };
        let file = Stat { mode: 0o104_755, ..Stat::default() };
        let root = after_exec(&user, &file, MountFlags::empty());
        assert_eq!((root.uid.real, root.uid.effective, root.uid.saved), (5, 0, 0));
        assert!(root.capable(Capabilities::CHOWN));
        let same = after_exec(&user, &file, MountFlags::NO_SUID);
        assert_eq!(same.uid, user.uid);
    }
}
