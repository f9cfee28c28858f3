//! execve and execveat: which program runs, found in the view. Knows nothing of identities' rules but set-id bits.
//!
//! A program that stands at the same place on the host, whose interpreter does too, is left to the kernel. Another
//! one is executed by the path that the host has for it; `#!` lines are read here, because the kernel would look
//! for the interpreter on the host.

use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_interface::{Access, Capabilities, Credentials, Errno, FileKind, MountFlags, Result, Stat};

use crate::call::{Call, EmptyPath, Fail, Outcome, Reply};
use crate::handlers::open::permitted;
use crate::mount::{Location, MountKind};
use crate::redirect::{read_pointers, redirect, Argument, Element, Instead};
use crate::resolve::Last;

const EXECVE: u32 = 59;
/// `BINPRM_BUF_SIZE`.
const HEAD: usize = 256;
/// How many programs are looked at, scripts and the one behind them: `exec_binprm` of `fs/exec.c`.
const DEPTH: usize = 6;

/// `execve(path, argv, envp)`.
pub fn execve(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    execute(call, place, text, libc::AT_FDCWD, call.raw(1), call.raw(2))
}

/// `execveat(dirfd, path, argv, envp, flags)`.
pub fn execveat(call: &Call) -> Outcome {
    const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
    const AT_EMPTY_PATH: u32 = 0x1000;
    const AT_EXECVE_CHECK: u32 = 0x10000;
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let flags = call.u32(4);
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_EXECVE_CHECK) != 0 {
        return Err(Errno::INVAL.into());
    }
    let text = call.path(1)?;
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let empty = if flags & AT_EMPTY_PATH != 0 { EmptyPath::Allowed } else { EmptyPath::Refused };
    let place = call.object_at(call.i32(0), &text, last, empty)?;
    if place.inode.kind()? == FileKind::Symlink {
        return Err(Errno::LOOP.into());
    }
    if flags & AT_EXECVE_CHECK != 0 {
        may_execute(call, &place)?;
        return Ok(Reply::Value(0));
    }
    let dirfd = call.i32(0);
    let shown = if text.is_empty() || (text.first() != Some(&b'/') && dirfd != libc::AT_FDCWD) {
        let mut shown = format!("/dev/fd/{dirfd}").into_bytes();
        if !text.is_empty() {
            shown.push(b'/');
            shown.extend_from_slice(&text);
        }
        shown
    } else {
        text
    };
    execute(call, place, shown, dirfd, call.raw(2), call.raw(3))
}

/// `do_open_execat` of `fs/exec.c`.
fn may_execute(call: &Call, place: &Location) -> core::result::Result<(), Fail> {
    if place.inode.kind()? != FileKind::Regular {
        return Err(Errno::ACCESS.into());
    }
    if place.mount.kind == MountKind::Tree && place.mount.flags().contains(MountFlags::NO_EXEC) {
        return Err(Errno::ACCESS.into());
    }
    if !place.inode.kernel_checks() {
        return permitted(call, place, Access::EXEC);
    }
    let fd = place.inode.host_fd().ok_or(Errno::ACCESS)?;
    Ok(rustix::fs::access(crate::guest::proc_path(fd), rustix::fs::Access::EXEC_OK)?)
}

/// What the first bytes of a program say.
#[derive(Debug, PartialEq, Eq)]
enum Format {
    /// An ELF object, and the interpreter that it names.
    Elf(Option<Vec<u8>>),
    /// A script: interpreter and optional argument.
    Script(Vec<u8>, Option<Vec<u8>>),
    /// Something else.
    Unknown,
}

fn execute(call: &Call, place: Location, shown: Vec<u8>, dirfd: i32, argv: u64, envp: u64) -> Outcome {
    may_execute(call, &place)?;
    let asked = Asked { place: place.clone(), name: base_name(&shown).to_vec(), argv, envp };
    let mut program = place.clone();
    let mut program_shown = shown;
    let mut prefix: Vec<Vec<u8>> = Vec::new();
    let mut native = is_same_on_host(call, &place, dirfd, &program_shown);
    for _ in 0..DEPTH {
        match format(&program)? {
            Format::Script(interpreter, argument) => {
                let found = call.object(libc::AT_FDCWD, &interpreter, Last::Follow)?;
                may_execute(call, &found)?;
                native &= is_same_on_host(call, &found, libc::AT_FDCWD, &interpreter);
                let mut front = vec![interpreter.clone()];
                front.extend(argument);
                front.push(program_shown);
                // What came before is now behind the interpreter; its own first element was the script.
                front.extend(prefix.into_iter().skip(1));
                prefix = front;
                program = found;
                program_shown = interpreter;
            }
            Format::Elf(interpreter) => {
                let loader = match interpreter {
                    None => None,
                    Some(path) => {
                        let found = call.object(libc::AT_FDCWD, &path, Last::Follow)?;
                        may_execute(call, &found)?;
                        (!is_same_on_host(call, &found, libc::AT_FDCWD, &path)).then_some(found)
                    }
                };
                take_identity(call, &program, argv, envp)?;
                if native && loader.is_none() {
                    return Ok(Reply::Continue);
                }
                return start(call, &asked, &program, &program_shown, loader, prefix);
            }
            Format::Unknown if native && prefix.is_empty() => return Ok(Reply::Continue),
            Format::Unknown => return Err(Errno::NOEXEC.into()),
        }
    }
    Err(Errno::LOOP.into())
}

/// What execve was called with.
struct Asked {
    place: Location,
    /// Last component of the path: the name of the process.
    name: Vec<u8>,
    /// Address of the arguments.
    argv: u64,
    /// Address of the environment.
    envp: u64,
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}

/// Starts a program by the host's path of it.
fn start(
    call: &Call,
    asked: &Asked,
    program: &Location,
    shown: &[u8],
    loader: Option<Location>,
    mut prefix: Vec<Vec<u8>>,
) -> Outcome {
    let mut pointers = read_pointers(call.tid(), asked.argv)?;
    let executed = match &loader {
        None => host_path(program)?,
        // The program's own loader, as a program: it opens what it is given in the view.
        Some(loader) => {
            let path = host_path(loader)?;
            let first = match prefix.first() {
                Some(first) => first.clone(),
                None => match pointers.first() {
                    Some(first) => crate::guest::read_string(call.tid(), *first, 128 << 10)?,
                    None => Vec::new(),
                },
            };
            let mut front = vec![path.clone(), b"--argv0".to_vec(), first];
            let absolute = match crate::resolve::path_of(&call.table(), &call.root(&call.table()), program) {
                Ok(Some(path)) => path,
                _ => shown.to_vec(),
            };
            front.push(absolute);
            if prefix.is_empty() {
                pointers = pointers.into_iter().skip(1).collect();
            } else {
                front.extend(prefix.into_iter().skip(1));
                pointers = pointers.into_iter().skip(1).collect();
            }
            prefix = front;
            return go(call, asked, path, prefix, pointers);
        }
    };
    if !prefix.is_empty() {
        pointers = pointers.into_iter().skip(1).collect();
    }
    go(call, asked, executed, prefix, pointers)
}

fn go(call: &Call, asked: &Asked, path: Vec<u8>, prefix: Vec<Vec<u8>>, pointers: Vec<u64>) -> Outcome {
    let path = named(call, &asked.name, path);
    let new = prefix.into_iter().map(Element::New);
    let argv = Argument::Strings(new.chain(pointers.into_iter().map(Element::There)).collect());
    let instead = Instead { nr: EXECVE, arguments: vec![Argument::String(path), argv, Argument::Word(asked.envp)] };
    match redirect(call, &instead) {
        Err(Fail::Errno(Errno::PERM)) => traced(call, asked),
        other => other,
    }
}

/// The path, or another one to the same file, that names the process as the caller did.
fn named(call: &Call, name: &[u8], path: Vec<u8>) -> Vec<u8> {
    if base_name(&path) == name || name.is_empty() {
        return path;
    }
    match call.supervisor.placeholders.alias(name, &path) {
        Ok(alias) => alias.into_os_string().into_vec(),
        Err(errno) => {
            tracing::debug!(%errno, "the process is named after its interpreter");
            path
        }
    }
}

/// Starts a program whose process somebody else traces: the kernel is given the host's path of what was asked for,
/// and finds interpreters itself.
fn traced(call: &Call, asked: &Asked) -> Outcome {
    let path = host_path(&asked.place)?;
    let short = call.supervisor.placeholders.alias(&asked.name, &path)?.into_os_string().into_vec();
    let put = |path: &[u8]| super::exec_traced::put_path(call, path);
    let shortest = || {
        let fd = asked.place.inode.host_fd().ok_or(Errno::NOEXEC)?;
        put(call.supervisor.placeholders.shortest(fd)?.as_bytes())
    };
    let is_execve = u32::try_from(call.notification.nr) == Ok(EXECVE);
    if is_execve && (put(&path).is_ok() || put(&short).is_ok() || shortest().is_ok()) {
        return Ok(Reply::Continue);
    }
    tracing::warn!(
        tid = call.tid(),
        program = %asked.name.escape_ascii(),
        "not executed: the process is traced or not dumpable, and the program is in a layer of the view"
    );
    Err(Errno::PERM.into())
}

/// The path by which the host's kernel reaches a file.
fn host_path(place: &Location) -> Result<Vec<u8>> {
    let fd = place.inode.host_fd().ok_or(Errno::NOEXEC)?;
    let path = rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new())?.into_bytes();
    let ours = rustix::fs::fstat(fd)?;
    let host = rustix::fs::stat(&path[..])?;
    if (host.st_dev, host.st_ino) != (ours.st_dev, ours.st_ino) {
        return Err(Errno::NOENT);
    }
    Ok(path)
}

/// Whether the kernel, given the same path, finds the same file.
pub fn is_same_on_host(call: &Call, place: &Location, dirfd: i32, path: &[u8]) -> bool {
    let Some(fd) = place.inode.host_fd() else { return false };
    let Ok(ours) = rustix::fs::fstat(fd) else { return false };
    let same = |s: rustix::fs::Stat| (s.st_dev, s.st_ino) == (ours.st_dev, ours.st_ino);
    if path.first() == Some(&b'/') && !path.starts_with(b"/dev/fd/") && !path.starts_with(b"/proc/") {
        return rustix::fs::stat(path).is_ok_and(same);
    }
    if path.starts_with(b"/dev/fd/") {
        // A descriptor of the guest that is a real file.
        return call.take_fd(dirfd).and_then(|fd| rustix::fs::fstat(&fd)).is_ok_and(same);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(cwd) = rustix::fs::open(format!("/proc/{}/cwd", call.tid()), flags, Mode::empty()) else { return false };
    rustix::fs::statat(cwd, path, rustix::fs::AtFlags::empty()).is_ok_and(same)
}

fn format(place: &Location) -> Result<Format> {
    let fd = place.inode.host_fd().ok_or(Errno::NOEXEC)?;
    let opened = rustix::fs::open(crate::guest::proc_path(fd), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let file = match opened {
        Ok(file) => file,
        // Executable, not readable: nothing can be said of it, the kernel reads it itself.
        Err(Errno::ACCESS) => return Ok(Format::Elf(None)),
        Err(errno) => return Err(errno),
    };
    let mut head = [0; HEAD];
    let length = rustix::io::pread(&file, &mut head, 0)?;
    let head = &head[..length];
    if head.starts_with(b"#!") {
        return script(head);
    }
    if head.starts_with(b"\x7fELF") {
        return Ok(Format::Elf(interpreter(&file, head)));
    }
    Ok(Format::Unknown)
}

/// `load_script` of `fs/binfmt_script.c`.
fn script(head: &[u8]) -> Result<Format> {
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
        None => Ok(Format::Script(trimmed.to_vec(), None)),
        Some(at) => {
            let argument = trimmed[at..].trim_ascii();
            Ok(Format::Script(trimmed[..at].to_vec(), (!argument.is_empty()).then(|| argument.to_vec())))
        }
    }
}

/// `PT_INTERP` of an ELF object; `None` where there is none or the object is broken, which the kernel will say.
fn interpreter(file: &impl AsFd, head: &[u8]) -> Option<Vec<u8>> {
    use goblin::container::Ctx;
    use goblin::elf::program_header::{ProgramHeader, PT_INTERP};
    let header = goblin::elf::Elf::parse_header(head).ok()?;
    let context = Ctx::new(header.container().ok()?, header.endianness().ok()?);
    let count = usize::from(header.e_phnum);
    let size = count.checked_mul(usize::from(header.e_phentsize)).filter(|s| *s <= 64 << 10)?;
    let mut table = vec![0; size];
    if rustix::io::pread(file, &mut table, header.e_phoff).ok()? != size {
        return None;
    }
    let headers = ProgramHeader::parse(&table, 0, count, context).ok()?;
    let found = headers.iter().find(|h| h.p_type == PT_INTERP)?;
    let length = usize::try_from(found.p_filesz).ok().filter(|l| (2..=4096).contains(l))?;
    let mut path = vec![0; length];
    if rustix::io::pread(file, &mut path, found.p_offset).ok()? != length || path.pop() != Some(0) {
        return None;
    }
    Some(path)
}

/// What becomes of a faked identity when it executes a program: set-id bits and capabilities(7).
fn take_identity(call: &Call, program: &Location, argv: u64, envp: u64) -> Result<()> {
    let old = call.credentials();
    let dumpable = call.state.dumpable.is_some();
    if !old.is_faked() {
        if dumpable {
            call.change_state(|state| state.dumpable = None)?;
        }
        return Ok(());
    }
    let new = after_exec(&old, &program.inode.stat()?, program.mount.flags());
    if new == *old && !dumpable {
        return Ok(());
    }
    if new != *old {
        // The kernel takes the identity when nothing can fail any more; here it is taken before, so what fails in
        // practice is tried first.
        readable(call.tid(), argv)?;
        readable(call.tid(), envp)?;
    }
    call.check_alive().map_err(|_| Errno::SRCH)?;
    call.change_state(|state| {
        state.dumpable = None;
        if new != *old {
            state.credentials = Some(Arc::new(new));
        }
    })
}

/// Checks that an array of strings can be read and passed on: `count` and `copy_strings` of `fs/exec.c`.
fn readable(tid: u32, array: u64) -> Result<()> {
    const STRING_MAX: usize = 128 << 10;
    for pointer in read_pointers(tid, array)? {
        match crate::guest::read_string(tid, pointer, STRING_MAX) {
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
    if !mount.contains(MountFlags::NO_SUID) {
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
    let root = new.securebits & NOROOT == 0;
    if root && (new.uid.effective == 0 || new.uid.real == 0) {
        caps.permitted = caps.inheritable | caps.bounding;
        caps.effective = if new.uid.effective == 0 { caps.permitted } else { 0 };
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
    fn a_script_line_has_one_argument_at_most() {
        let parse = |text: &[u8]| script(text);
        assert_eq!(parse(b"#! /bin/sh -e x \n").unwrap(), Format::Script(b"/bin/sh".to_vec(), Some(b"-e x".to_vec())));
        assert_eq!(parse(b"#!/bin/sh\nfoo").unwrap(), Format::Script(b"/bin/sh".to_vec(), None));
        assert_eq!(parse(b"#!\n"), Err(Errno::NOEXEC));
        assert_eq!(parse(b"#!/bin/true").unwrap(), Format::Script(b"/bin/true".to_vec(), None));
        let mut long = b"#!/".to_vec();
        long.resize(HEAD, b'a');
        assert_eq!(parse(&long), Err(Errno::NOEXEC));
    }

    #[test]
    fn the_set_user_id_bit_gives_the_owner() {
        let user = umvu_interface::Credentials {
            uid: umvu_interface::Ids::all(5),
            gid: umvu_interface::Ids::all(5),
            groups: Arc::from([].as_slice()),
            capabilities: Capabilities::none(),
            securebits: 0,
            origin: umvu_interface::Origin::Faked,
        };
        let file = Stat { mode: 0o104_755, ..Stat::default() };
        let root = after_exec(&user, &file, MountFlags::empty());
        assert_eq!((root.uid.real, root.uid.effective, root.uid.saved), (5, 0, 0));
        assert!(root.capable(Capabilities::CHOWN));
        let same = after_exec(&user, &file, MountFlags::NO_SUID);
        assert_eq!(same.uid, user.uid);
    }
}
