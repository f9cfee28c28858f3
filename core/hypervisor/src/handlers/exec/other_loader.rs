//! Dynamic programs for 32-bit x86 from another root: the kernel would look for their interpreter on the host, and our
//! loader is for 64-bit programs. So the interpreter itself is executed, by the path that the host has for it, and
//! loads the program by its path in the view. Knows nothing of formats but where the interpreter's name stands.

use std::os::fd::OwnedFd;

use goblin::container::Ctx;
use goblin::elf::header::EM_386;
use goblin::elf::program_header::{ProgramHeader, PT_INTERP};
use umvu_interface::Errno;

use super::start::{host_path, named, refused, Target};
use super::{Asked, EXECVE};
use crate::call::{Call, Fail, Outcome};
use crate::elf::ReadAt;
use crate::guest;
use crate::mount::Location;
use crate::redirect::{read_pointers, redirect, Argument, Element, Instead};
use crate::resolve::path_of;

/// The interpreter that a 32-bit object names; `None` where it names none, is for another machine, or is broken, which
/// the kernel will say.
pub fn interpreter_of(file: &OwnedFd, head: &[u8]) -> Option<Vec<u8>> {
    let header = goblin::elf::Elf::parse_header(head).ok().filter(|header| header.e_machine == EM_386)?;
    let context = Ctx::new(header.container().ok()?, header.endianness().ok()?);
    let count = usize::from(header.e_phnum);
    let size = count.checked_mul(usize::from(header.e_phentsize)).filter(|size| *size <= 64 << 10)?;
    let mut table = vec![0; size];
    if file.read_at(header.e_phoff, &mut table).ok()? != size {
        return None;
    }
    let headers = ProgramHeader::parse(&table, 0, count, context).ok()?;
    let found = headers.iter().find(|header| header.p_type == PT_INTERP)?;
    let length = usize::try_from(found.p_filesz).ok().filter(|length| (2..=guest::PATH_MAX).contains(length))?;
    let mut path = vec![0; length];
    if file.read_at(found.p_offset, &mut path).ok()? != length || path.pop() != Some(0) {
        return None;
    }
    Some(path)
}

/// Starts a program by its interpreter, as `ld.so --argv0 NAME PROGRAM ARGUMENT...`, which the loaders of glibc and musl
/// understand.
///
/// # Errors
/// - `ENOEXEC`: the host has no path of the interpreter.
/// - `E2BIG`: the arguments do not fit.
/// - `EPERM`: the process is traced.
pub fn start(call: &Call, asked: &Asked, target: &Target, interpreter: &Location) -> Outcome {
    let path = named(call, asked.name(), host_path(interpreter)?);
    let mut old = read_pointers(call, asked.arrays[0])?.into_iter();
    let first = old.next();
    let mut prefix = target.prefix.iter().cloned();
    let zero = match (prefix.next(), first) {
        (Some(own), _) => Element::New(own),
        (None, Some(there)) => Element::There(there),
        (None, None) => Element::New(Vec::new()),
    };
    let table = call.table();
    let shown = match path_of(&table, &call.root(&table), &target.program) {
        Ok(Some(path)) => path,
        _ => target.shown.clone(),
    };
    let mut arguments = vec![Element::New(path.clone()), Element::New(b"--argv0".to_vec()), zero, Element::New(shown)];
    arguments.extend(prefix.map(Element::New));
    arguments.extend(old.map(Element::There));
    let words = vec![Argument::String(path), Argument::Strings(arguments), Argument::Word(asked.arrays[1])];
    match redirect(call, &Instead { nr: EXECVE, arguments: words }) {
        Err(Fail::Errno(Errno::PERM)) => Err(refused(call, asked).err().unwrap_or(Errno::PERM).into()),
        other => other,
    }
}
