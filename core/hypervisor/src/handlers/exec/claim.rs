//! Programs that a mounted file system claims, as binfmt_misc does: which interpreter runs them, and with which
//! arguments. Follows `load_misc_binary` of `fs/binfmt_misc.c`; knows no rule and no format.

use std::sync::Arc;

use umvu_interface::{
    Argv0, Errno, Filesystem, IdentityOf, Program, ProgramClaim, ProgramDescriptor, Result, PROGRAM_HEAD,
};

use super::start::Target;
use super::{may_execute, open, Asked};
use crate::call::{Call, Fail};
use crate::elf::ReadAt;
use crate::mount::Location;
use crate::redirect::read_pointers;
use crate::resolve::{path_of, Last};

/// Puts the interpreter of a claimed program in its place, and tells whose set-id bits count: the program's, if it is
/// to be given. `None` if nobody claims it.
///
/// # Errors
/// - `ENOENT`: the program's path leads to nothing once it is executed, or there is no interpreter.
/// - others as execve(2) has them for the interpreter.
pub fn take(call: &Call, asked: &Asked, target: &mut Target) -> core::result::Result<Option<Claimed>, Fail> {
    let Some(claim) = find(call, target)? else { return Ok(None) };
    if target.prefix.is_empty() && !asked.is_accessible {
        return Err(Errno::NOENT.into());
    }
    let argv0 = match claim.argv0 {
        Argv0::Dropped => None,
        Argv0::Kept => Some(first_argument(call, asked, target)?),
    };
    let held = claim.held.and_then(|held| held.0.downcast::<Location>().ok());
    let interpreter = match held {
        Some(held) => (*held).clone(),
        None => {
            let found = call.object(libc::AT_FDCWD, &claim.interpreter, Last::Follow)?;
            may_execute(call, &found)?;
            found
        }
    };
    target.may_be_interpreted()?;
    if claim.descriptor == ProgramDescriptor::Given {
        target.binary = Some(open(call, &target.program)?);
    }
    if claim.argv0 == Argv0::Kept {
        target.argv0 = Argv0::Kept;
    }
    let program = std::mem::replace(&mut target.program, interpreter);
    let mut front = vec![claim.interpreter.clone(), std::mem::replace(&mut target.shown, claim.interpreter)];
    front.extend(argv0);
    // The first one before was the program's own name.
    front.extend(std::mem::take(&mut target.prefix).into_iter().skip(1));
    target.prefix = front;
    Ok(Some(Claimed { identity: (claim.identity == IdentityOf::Program).then_some(program) }))
}

/// A program that was claimed.
pub struct Claimed {
    /// The program, if its set-id bits count.
    pub identity: Option<Location>,
}

/// Asks the file systems of the view, the newest mount first.
fn find(call: &Call, target: &Target) -> Result<Option<ProgramClaim>> {
    let table = call.table();
    let claimants = table.mounts().iter().filter(|mount| mount.filesystem.claims_programs());
    let mut claimants: Vec<(u64, &Arc<dyn Filesystem>)> = claimants.map(|m| (m.id, &m.filesystem)).collect();
    if claimants.is_empty() {
        return Ok(None);
    }
    claimants.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(*id));
    let file = match open(call, &target.program) {
        Ok(file) => file,
        // Nothing can be said of it.
        Err(Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let mut head = [0; PROGRAM_HEAD];
    file.read_at(0, &mut head)?;
    let place = path_of(&table, &call.root(&table), &target.program).ok().flatten();
    let program = Program { head: &head, path: &target.shown, place: place.as_deref() };
    Ok(claimants.into_iter().find_map(|(_, filesystem)| filesystem.claim_program(&program)))
}

/// The first argument of the program; one that has none gets an empty one: `do_execveat_common` of `fs/exec.c`.
fn first_argument(call: &Call, asked: &Asked, target: &Target) -> Result<Vec<u8>> {
    /// `MAX_ARG_STRLEN` of linux/binfmts.h.
    const LONGEST: usize = 128 << 10;
    if let Some(first) = target.prefix.first() {
        return Ok(first.clone());
    }
    match read_pointers(call, asked.arrays[0])?.first() {
        Some(address) => match crate::guest::read_string(call.tid(), *address, LONGEST) {
            Err(Errno::NAMETOOLONG) => Err(Errno::TOOBIG),
            other => other,
        },
        None => Ok(Vec::new()),
    }
}
