//! Starting a dynamic program by the kernel's own loader although its interpreter is not where the kernel looks for it: the
//! guest executes a copy of the program that names its interpreter by a descriptor. This is how 32-bit programs start,
//! which our loader is not for, and those of who is being traced: a debugger that looks at the new program before its
//! first instruction finds in it what it expects.
//!
//! The path that the kernel tells the program, and the name of the interpreter in its memory, are put right at the first
//! call of the program that is notified. Knows nothing of formats but where the interpreter's name stands.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use goblin::container::{Container, Ctx};
use goblin::elf::program_header::{ProgramHeader, PT_INTERP};
use umvu_interface::{Errno, Result};
use umvu_sys::seccomp::CloseOnExec;

use super::start::{named, padded, refused, Target};
use super::traced::{self, Strings};
use super::{load, Asked, EXECVE};
use crate::call::{Call, Fail, Outcome, Reply};
use crate::elf::ReadAt;
use crate::guest;
use crate::programs::{Fresh, Program};
use crate::redirect::{redirect, Argument, Instead};

/// Where an object names its interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePlace {
    /// The name.
    pub path: Vec<u8>,
    /// Its offset in the file.
    offset: u64,
    /// Bytes that it may take, with the NUL behind it.
    room: usize,
    /// Its address, and that where the program begins to run, as the file has them.
    address: u64,
    entry: u64,
    /// Bytes of a word of the program.
    word: usize,
}

/// Finds the name in an object whose first bytes are `head`; `None` where it names none or is broken, which the kernel will
/// say.
pub fn name_place(file: &OwnedFd, head: &[u8]) -> Option<NamePlace> {
    let header = goblin::elf::Elf::parse_header(head).ok()?;
    let container = header.container().ok()?;
    let context = Ctx::new(container, header.endianness().ok()?);
    let count = usize::from(header.e_phnum);
    let size = count.checked_mul(usize::from(header.e_phentsize)).filter(|size| *size <= 64 << 10)?;
    let mut table = vec![0; size];
    if file.read_at(header.e_phoff, &mut table).ok()? != size {
        return None;
    }
    let headers = ProgramHeader::parse(&table, 0, count, context).ok()?;
    let found = headers.iter().find(|header| header.p_type == PT_INTERP)?;
    let room = usize::try_from(found.p_filesz).ok().filter(|length| (2..=guest::PATH_MAX).contains(length))?;
    let mut path = vec![0; room];
    if file.read_at(found.p_offset, &mut path).ok()? != room || path.last() != Some(&0) {
        return None;
    }
    path.truncate(path.iter().position(|b| *b == 0)?);
    let word = if container == Container::Big { 8 } else { 4 };
    Some(NamePlace { path, offset: found.p_offset, room, address: found.p_vaddr, entry: header.e_entry, word })
}

impl NamePlace {
    /// Writes another name into a copy of the object.
    ///
    /// # Errors
    /// - `EPERM`: it is too long.
    /// - others as pwrite(2).
    pub fn write(&self, copy: &OwnedFd, name: &[u8]) -> Result<()> {
        if name.len() >= self.room {
            return Err(Errno::PERM);
        }
        let mut bytes = name.to_vec();
        bytes.resize(self.room, 0);
        match rustix::io::pwrite(copy, &bytes, self.offset)? {
            all if all == bytes.len() => Ok(()),
            _ => Err(Errno::IO),
        }
    }
}

/// Makes the copy, which names the interpreter by a descriptor of ours, or, where there is no room for that, by one of the
/// guest's that closes when it is executed.
///
/// # Errors
/// - `EPERM`: there is no room for the name.
/// - `EMFILE`, `ENFILE`, `ENOMEM`: there is none for the descriptor, or for the copy.
fn copy(
    call: &Call,
    target: &Target,
    program: &OwnedFd,
    interpreter: &OwnedFd,
    place: &NamePlace,
) -> Result<std::sync::Arc<Program>> {
    let mut own = None;
    if rustix::fs::access(guest::proc_path(interpreter.as_fd()), rustix::fs::Access::EXEC_OK).is_err() {
        // What an archive holds is in a file that nobody executes.
        own = Some(call.supervisor.programs.interpreter(interpreter)?);
    }
    let interpreter = own.as_deref().unwrap_or(interpreter);
    // A debugger opens it by that name, too.
    let mut name = call.supervisor.placeholders.shortest(interpreter.as_fd())?;
    if name.len() >= place.room {
        name = format!("/dev/fd/{}", load::give(call, interpreter, CloseOnExec::Yes)?);
    }
    call.supervisor.programs.copied(&target.program, &target.shown, program, place, name.as_bytes())
}

/// Starts a program so.
///
/// # Errors
/// - those of [`copy`].
/// - `E2BIG`: the arguments do not fit.
/// - `EPERM`: the process is traced, and what it called execve with leaves no room.
pub fn start(
    call: &Call,
    asked: &Asked,
    target: &Target,
    program: &OwnedFd,
    interpreter: &OwnedFd,
    place: &NamePlace,
) -> Outcome {
    let arguments = target.arguments(call, asked)?;
    let leader = guest::leader_of(call.tid())?;
    let copy = copy(call, target, program, interpreter, place)?;
    call.supervisor.programs.settle_later(leader, Fresh { program: copy.clone(), path: asked.path.clone() });
    let path = padded(&named(call, asked.name(), copy.loader_path()), asked.path.len());
    let instead =
        Instead { nr: EXECVE, arguments: vec![Argument::String(path), arguments, Argument::Word(asked.arrays[1])] };
    match redirect(call, &instead) {
        Err(Fail::Errno(Errno::PERM)) if target.prefix.is_empty() => {
            put(call, asked, &copy).or_else(|_| refused(call, asked))?;
            Ok(Reply::Continue)
        }
        Err(Fail::Errno(Errno::PERM)) => refused(call, asked).map(|()| Reply::Answered).map_err(Fail::from),
        other => other,
    }
}

/// Starts a program so whose process somebody else traces.
///
/// # Errors
/// - those of [`copy`].
/// - `EPERM`: what it called execve with leaves no room.
pub fn start_traced(
    call: &Call,
    asked: &Asked,
    target: &Target,
    program: &OwnedFd,
    interpreter: Option<&OwnedFd>,
) -> Result<()> {
    let Some(interpreter) = interpreter else {
        let number = load::give(call, program, CloseOnExec::Yes)?;
        return traced::put_path(call, format!("/dev/fd/{number}").as_bytes(), Strings::Moved).map(drop);
    };
    let mut head = [0; crate::elf::HEADER_SIZE];
    program.read_at(0, &mut head)?;
    let place = name_place(program, &head).ok_or(Errno::PERM)?;
    let leader = guest::leader_of(call.tid())?;
    let copy = copy(call, target, program, interpreter, &place)?;
    put(call, asked, &copy)?;
    call.supervisor.programs.settle_later(leader, Fresh { program: copy, path: asked.path.clone() });
    Ok(())
}

/// Overwrites the path that a process executes with one of a copy: one that names the process as it should be, or the
/// shortest.
fn put(call: &Call, asked: &Asked, copy: &Program) -> Result<()> {
    let put = |path: &[u8]| traced::put_path(call, path, Strings::Moved).map(drop);
    if put(&named(call, asked.name(), copy.loader_path())).is_ok() {
        return Ok(());
    }
    let number = load::give(call, &copy.image(), CloseOnExec::Yes)?;
    put(format!("/dev/fd/{number}").as_bytes())
}

/// Puts right what a program that was started so has in its memory, at the first call that it is notified for.
pub fn settle(call: &Call) {
    let Some(fresh) = call.supervisor.programs.take_fresh(call.tid()) else { return };
    if let Err(errno) = correct(call, &fresh) {
        tracing::debug!(tid = call.tid(), %errno, "the path of a program is not put right");
    }
}

fn correct(call: &Call, fresh: &Fresh) -> Result<()> {
    const AT_ENTRY: u64 = 9;
    const AT_EXECFN: u64 = 31;
    let place = fresh.program.name.as_ref().ok_or(Errno::INVAL)?;
    let io = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
    let vector = std::fs::read(format!("/proc/{}/auxv", call.tid())).map_err(io)?;
    let word = |bytes: &[u8]| {
        let mut wide = [0; 8];
        wide[..place.word].copy_from_slice(bytes);
        u64::from_le_bytes(wide)
    };
    let mut words = vector.chunks_exact(place.word).map(word);
    while let (Some(kind), Some(value)) = (words.next(), words.next()) {
        match kind {
            AT_EXECFN => {
                let room = guest::read_string(call.tid(), value, guest::PATH_MAX)?.len();
                if fresh.path.len() <= room {
                    guest::write(call.tid(), value, &[&fresh.path[..], b"\0"].concat())?;
                }
            }
            AT_ENTRY => {
                let mut name = place.path.clone();
                name.resize(place.room, 0);
                let address = value.wrapping_sub(place.entry).wrapping_add(place.address);
                let address = if place.word == 4 { address & u64::from(u32::MAX) } else { address };
                let memory = std::fs::File::options().write(true).open(format!("/proc/{}/mem", call.tid()));
                // Not by process_vm_writev: it is read-only data.
                memory.and_then(|memory| memory.write_all_at(&name, address)).map_err(io)?;
            }
            0 => break,
            _ => {}
        }
    }
    Ok(())
}
