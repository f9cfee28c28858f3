//! What the bytes of a program say about how it is run: ELF objects, scripts. A format is asked for the first bytes;
//! what it names is looked up by the caller. Knows nothing of identities and of how a program is started.

use std::os::fd::OwnedFd;

use umvu_interface::{Errno, Result};

use super::{open, patched, NamePlace};
use crate::call::Call;
use crate::elf::{self, Machine, Object, ReadAt};
use crate::mount::Location;

/// `BINPRM_BUF_SIZE`.
const HEAD: usize = 256;

/// What a program is.
pub enum Format {
    /// An ELF object that the loader can load, and its file.
    Elf(OwnedFd, Object),
    /// A program that only the kernel can load: it may not be read, or is for another machine. The interpreter that it
    /// names is known of those for 32-bit x86, and their file.
    Opaque(Option<(OwnedFd, NamePlace)>),
    /// A script: interpreter and optional argument.
    Script(Vec<u8>, Option<Vec<u8>>),
    /// Something else.
    Unknown,
}

/// Looks into a program.
///
/// # Errors
/// - `ENOEXEC`: a first line that names no interpreter, a broken ELF object.
/// - others as open(2) and read(2).
pub fn of(call: &Call, place: &Location) -> Result<Format> {
    let file = match open(call, place) {
        Ok(file) => file,
        // Nothing can be said of it: the kernel reads it itself.
        Err(Errno::ACCESS) => return Ok(Format::Opaque(None)),
        Err(errno) => return Err(errno),
    };
    let mut head = [0; HEAD];
    let length = file.read_at(0, &mut head)?;
    let head = &head[..length];
    if head.starts_with(b"#!") {
        return script(head).map(|(interpreter, argument)| Format::Script(interpreter, argument));
    }
    if !head.starts_with(b"\x7fELF") {
        return Ok(Format::Unknown);
    }
    match elf::machine(head)? {
        Machine::Foreign if elf::is_i386(head) => {
            let name = patched::name_place(&file, head);
            Ok(Format::Opaque(name.map(|name| (file, name))))
        }
        Machine::Foreign => Ok(Format::Opaque(None)),
        Machine::Native => elf::object(&file, head).map(|object| Format::Elf(file, object)),
    }
}

/// Reads an object as the interpreter of another one.
///
/// # Errors
/// - `EIO`: shorter than a header.
/// - `ELIBBAD`: not one for this machine.
pub fn interpreter(file: &OwnedFd) -> Result<Object> {
    let mut head = [0; elf::HEADER_SIZE];
    if file.read_at(0, &mut head)? != head.len() {
        return Err(Errno::IO);
    }
    elf::object(file, &head).map_err(|_| Errno::LIBBAD)
}

/// `load_script` of `fs/binfmt_script.c`.
fn script(head: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    let is_blank = |b: &u8| matches!(b, b' ' | b'\t');
    let line = &head[2..];
    let end = match line.iter().position(|b| matches!(b, b'\n' | 0)) {
        Some(end) => end,
        None => {
            // A line that does not end within the buffer is taken if the interpreter's name does.
            let start = line.iter().position(|b| !is_blank(b)).ok_or(Errno::NOEXEC)?;
            if head.len() == HEAD && !line[start..].iter().any(is_blank) {
                return Err(Errno::NOEXEC);
            }
            line.len()
        }
    };
    let trimmed: &[u8] = line[..end].trim_ascii();
    if trimmed.is_empty() {
        return Err(Errno::NOEXEC);
    }
    match trimmed.iter().position(is_blank) {
        None => Ok((trimmed.to_vec(), None)),
        Some(at) => {
            let argument = trimmed[at..].trim_ascii();
            Ok((trimmed[..at].to_vec(), (!argument.is_empty()).then(|| argument.to_vec())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_line_has_one_argument_at_most() {
        let parse = |text: &[u8]| script(text);
        assert_eq!(parse(b"#! /bin/sh -e x \n").unwrap(), (b"/bin/sh".to_vec(), Some(b"-e x".to_vec())));
        assert_eq!(parse(b"#!/bin/sh\nfoo").unwrap(), (b"/bin/sh".to_vec(), None));
        assert_eq!(parse(b"#!\n"), Err(Errno::NOEXEC));
        assert_eq!(parse(b"#!/bin/true").unwrap(), (b"/bin/true".to_vec(), None));
        let mut long = b"#!/".to_vec();
        long.resize(HEAD, b'a');
        assert_eq!(parse(&long), Err(Errno::NOEXEC));
    }
}
