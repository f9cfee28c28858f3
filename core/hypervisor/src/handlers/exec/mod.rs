//! execve and execveat: which program runs, found in the view.
//!
//! A program that stands at the same place on the host, whose interpreter does too, is left to the kernel. Any other
//! one is loaded by the loader, which the guest executes in its place (`start`), from what this module finds, or by the
//! kernel from a copy (`patched`); `#!` lines are read here, because the kernel would look for the interpreter on the
//! host, and `claim` asks the file systems of the view. What the bytes of a program mean is known to `format`, what
//! becomes of an identity to `identity`.

mod claim;
mod format;
mod identity;
mod load;
mod patched;
mod start;
mod traced;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use umvu_interface::{Access, Argv0, Errno, FileKind, MountFlags, Opened, Result};

use crate::call::{Call, EmptyPath, Fail, Outcome, Reply};
use crate::elf::Object;
use crate::handlers::open::permitted;
use crate::mount::{Location, MountKind};
use crate::resolve::Last;
use format::Format;
pub use patched::{settle, NamePlace};
use start::Target;

const EXECVE: u32 = 59;
/// How many programs are looked at, scripts and the one behind them: `exec_binprm` of `fs/exec.c`.
const DEPTH: usize = 6;

/// `execve(path, argv, envp)`.
pub fn execve(call: &Call) -> Outcome {
    if call.raw(0) == umvu_loader::plan::ASK {
        return load::answer(call);
    }
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    let asked = Asked::new(text, libc::AT_FDCWD, [call.raw(1), call.raw(2)]);
    execute(call, place, &asked)
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
    let arrays = [call.raw(2), call.raw(3)];
    if text.first() == Some(&b'/') || (!text.is_empty() && dirfd == libc::AT_FDCWD) {
        return execute(call, place, &Asked::new(text, dirfd, arrays));
    }
    let mut shown = format!("/dev/fd/{dirfd}").into_bytes();
    if !text.is_empty() {
        shown.push(b'/');
        shown.extend_from_slice(&text);
    }
    let mut asked = Asked::new(shown, dirfd, arrays);
    // The interpreter of a script could not open what is closed by then: alloc_bprm of fs/exec.c.
    asked.is_accessible = !closes_on_exec(call, dirfd);
    execute(call, place, &asked)
}

/// What execve was called with.
struct Asked {
    /// The path, as the new program is told it.
    path: Vec<u8>,
    /// Where the path starts.
    dirfd: i32,
    /// Addresses of the arguments and of the environment.
    arrays: [u64; 2],
    /// Whether the path leads to the program after the call, too.
    is_accessible: bool,
}

impl Asked {
    fn new(path: Vec<u8>, dirfd: i32, arrays: [u64; 2]) -> Self {
        Self { path, dirfd, arrays, is_accessible: true }
    }

    /// Last component of the path: the name of the process.
    fn name(&self) -> &[u8] {
        base_name(&self.path)
    }
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}

/// Whether a descriptor of the guest goes when it executes a program.
pub fn closes_on_exec(call: &Call, fd: i32) -> bool {
    let text = std::fs::read(format!("/proc/{}/fdinfo/{fd}", call.tid())).unwrap_or_default();
    let flags = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"flags:"));
    let flags = flags.and_then(|f| u32::from_str_radix(std::str::from_utf8(f).ok()?.trim(), 8).ok());
    flags.is_some_and(|f| OFlags::from_bits_retain(f).contains(OFlags::CLOEXEC))
}

/// Checks that a file may be executed: `do_open_execat` of `fs/exec.c`, but for what is open for writing.
///
/// # Errors
/// - `EACCES`: it may not.
pub fn may_execute(call: &Call, place: &Location) -> core::result::Result<(), Fail> {
    if place.inode.kind()? != FileKind::Regular {
        return Err(Errno::ACCESS.into());
    }
    if place.mount.kind == MountKind::Tree && place.mount.flags().contains(MountFlags::NO_EXEC) {
        return Err(Errno::ACCESS.into());
    }
    if !place.inode.kernel_checks() {
        return permitted(call, place, Access::EXEC);
    }
    let Some(fd) = place.inode.host_fd() else {
        // A driver judges by itself, but nobody executes what is no program: fuse_permission of fs/fuse/dir.c.
        let is_program = place.inode.stat()?.mode & 0o111 != 0;
        return if is_program { Ok(()) } else { Err(Errno::ACCESS.into()) };
    };
    Ok(rustix::fs::access(crate::guest::proc_path(fd), rustix::fs::Access::EXEC_OK)?)
}

/// Opens a program to look into it, and to load it.
///
/// # Errors
/// - `EACCES`: executable, not readable.
fn open(call: &Call, place: &Location) -> Result<OwnedFd> {
    match place.inode.host_fd() {
        Some(fd) => rustix::fs::open(crate::guest::proc_path(fd), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()),
        None => call.as_caller(|caller| place.inode.open(caller, OFlags::RDONLY)).and_then(Opened::into_file),
    }
}

fn execute(call: &Call, place: Location, asked: &Asked) -> Outcome {
    may_execute(call, &place)?;
    match find(call, place, asked) {
        // Arguments are copied before the program is looked into.
        Err(Fail::Errno(errno)) if errno != Errno::ACCESS => {
            identity::readable(call, asked.arrays[0])?;
            identity::readable(call, asked.arrays[1])?;
            Err(errno.into())
        }
        other => other,
    }
}

/// Follows scripts to the program that runs, and starts it.
fn find(call: &Call, place: Location, asked: &Asked) -> Outcome {
    let mut native = is_same_on_host(call, &place, asked.dirfd, &asked.path);
    let mut target = Target {
        program: place.clone(),
        shown: asked.path.clone(),
        prefix: Vec::new(),
        binary: None,
        argv0: Argv0::Dropped,
    };
    // The program whose set-id bits count, if that is not the one that runs.
    let mut identity_of: Option<Location> = None;
    for _ in 0..DEPTH {
        // binfmt_misc registers itself before all others: insert_binfmt in fs/binfmt_misc.c.
        if let Some(claimed) = claim::take(call, asked, &mut target)? {
            identity_of = identity_of.or(claimed.identity);
            native = false;
            continue;
        }
        match format::of(call, &target.program)? {
            Format::Script(interpreter, argument) => {
                if target.prefix.is_empty() && !asked.is_accessible {
                    return Err(Errno::NOENT.into());
                }
                let found = call.object(libc::AT_FDCWD, &interpreter, Last::Follow)?;
                may_execute(call, &found)?;
                target.may_be_interpreted()?;
                native &= is_same_on_host(call, &found, libc::AT_FDCWD, &interpreter);
                target.interpreted_by(found, interpreter, argument);
            }
            Format::Elf(file, object) => {
                let interpreter = interpreter(call, &object)?;
                let same = interpreter.as_ref().is_none_or(|i| i.is_same_on_host);
                let identity = identity::after(call, identity_of.as_ref().unwrap_or(&target.program))?;
                if native && same && identity.is_none() {
                    identity::reset_dumpable(call)?;
                    return Ok(Reply::Continue);
                }
                not_written(&file)?;
                return start::load(call, asked, target, (file, object), interpreter, identity);
            }
            Format::Opaque(named) => {
                let found = match named {
                    None => None,
                    Some((file, name)) => {
                        let found = call.object(libc::AT_FDCWD, &name.path, Last::Follow)?;
                        may_execute(call, &found)?;
                        let is_other = !is_same_on_host(call, &found, libc::AT_FDCWD, &name.path);
                        if is_other {
                            Some((file, name, open(call, &found)?))
                        } else {
                            None
                        }
                    }
                };
                identity::take_early(call, identity_of.as_ref().unwrap_or(&target.program), asked.arrays)?;
                if let Some((file, name, interpreter)) = found {
                    return patched::start(call, asked, &target, &file, &interpreter, &name);
                }
                if native {
                    return Ok(Reply::Continue);
                }
                return start::by_host_path(call, asked, &target);
            }
            Format::Unknown if native && target.prefix.is_empty() => return Ok(Reply::Continue),
            Format::Unknown => return Err(Errno::NOEXEC.into()),
        }
    }
    Err(Errno::LOOP.into())
}

/// The interpreter of a dynamic program.
struct Interpreter {
    file: OwnedFd,
    object: Object,
    is_same_on_host: bool,
}

/// Refuses a program that somebody has open for writing: `exe_file_deny_write_access` in `fs/exec.c`.
fn not_written(file: &OwnedFd) -> Result<()> {
    if umvu_sys::file::is_open_for_writing(file.as_fd()) {
        return Err(Errno::TXTBSY);
    }
    Ok(())
}

/// Finds the interpreter that an object names: `load_elf_binary` of `fs/binfmt_elf.c`.
fn interpreter(call: &Call, object: &Object) -> core::result::Result<Option<Interpreter>, Fail> {
    let Some(path) = &object.interpreter else { return Ok(None) };
    let found = call.object(libc::AT_FDCWD, path, Last::Follow)?;
    may_execute(call, &found)?;
    let file = open(call, &found)?;
    not_written(&file)?;
    let object = format::interpreter(&file)?;
    let is_same_on_host = is_same_on_host(call, &found, libc::AT_FDCWD, path);
    Ok(Some(Interpreter { file, object, is_same_on_host }))
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
