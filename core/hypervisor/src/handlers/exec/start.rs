//! Starting a program that the kernel would not find: the guest executes the loader in its place, and what that is to
//! load is kept for when it asks. Knows nothing of formats and permissions.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::sync::{Arc, OnceLock};

use umvu_interface::{Argv0, Credentials, Errno, Result};
use umvu_loader::plan::{self, placement, Plan};
use umvu_sys::seccomp::CloseOnExec;

use super::traced::{self, Strings};
use super::{base_name, identity, patched, Asked, Interpreter, EXECVE};
use crate::call::{Call, Fail, Outcome, Reply};
use crate::elf::Object;
use crate::mount::Location;
use crate::programs::Order;
use crate::redirect::{read_pointers, redirect, Argument, Element, Instead};

/// What runs in the end.
pub struct Target {
    /// The program.
    pub program: Location,
    /// The path by which it was found.
    pub shown: Vec<u8>,
    /// Arguments that come in place of the first one.
    pub prefix: Vec<Vec<u8>>,
    /// The file that it is the interpreter of, if it is to get that.
    pub binary: Option<OwnedFd>,
    /// Whether the first argument stayed behind the path of what it is the interpreter of.
    pub argv0: Argv0,
}

impl Target {
    /// Refuses another interpreter once the first has been promised what it interprets: `exec_binprm` of `fs/exec.c`.
    ///
    /// # Errors
    /// - `ENOEXEC`: so it is.
    pub fn may_be_interpreted(&self) -> Result<()> {
        match self.binary {
            Some(_) => Err(Errno::NOEXEC),
            None => Ok(()),
        }
    }

    /// Puts the interpreter of a script in its place.
    pub fn interpreted_by(&mut self, found: Location, interpreter: Vec<u8>, argument: Option<Vec<u8>>) {
        let mut front = vec![interpreter.clone()];
        front.extend(argument);
        front.push(std::mem::replace(&mut self.shown, interpreter));
        // What came before is now behind the interpreter; its own first element was the script.
        front.extend(std::mem::take(&mut self.prefix).into_iter().skip(1));
        self.prefix = front;
        self.program = found;
    }

    /// The arguments, with those of scripts in front.
    pub fn arguments(&self, call: &Call, asked: &Asked) -> Result<Argument> {
        if self.prefix.is_empty() {
            return Ok(Argument::Word(asked.arrays[0]));
        }
        let new = self.prefix.iter().cloned().map(Element::New);
        let old = read_pointers(call, asked.arrays[0])?.into_iter().skip(1);
        Ok(Argument::Strings(new.chain(old.map(Element::There)).collect()))
    }
}

/// Starts an ELF object by the loader.
///
/// # Errors
/// - `EMFILE`, `ENFILE`, `ENOMEM`: there is no room for a loader of its own.
/// - `E2BIG`: the arguments do not fit.
/// - `EPERM`: the process is traced, and what it called execve with leaves no room.
pub fn load(
    call: &Call,
    asked: &Asked,
    mut target: Target,
    program: (OwnedFd, Object),
    interpreter: Option<Interpreter>,
    identity: Option<Arc<Credentials>>,
) -> Outcome {
    let (file, object) = program;
    let of_interpreter = interpreter.as_ref().map(|i| &i.object);
    let by_kernel = interpreter.as_ref().is_none_or(|i| i.is_same_on_host) && identity.is_none();
    let arguments = target.arguments(call, asked)?;
    let running = call.supervisor.programs.at(&target.program, &target.shown)?;
    let path = running.loader_path();
    let leader = crate::guest::leader_of(call.tid())?;
    let mut plan = plan(call, asked, &object, of_interpreter, identity.as_deref())?;
    if target.argv0 == Argv0::Kept {
        plan.flags |= plan::PRESERVED_ARGV0;
    }
    let order = Order {
        plan,
        segments: [Some(&object), of_interpreter].into_iter().flatten().flat_map(|o| &o.segments).copied().collect(),
        files: (file, interpreter.map(|i| i.file)),
        binary: target.binary.take(),
        strings: asked.path.clone(),
        credentials: identity,
        program: running,
    };
    call.supervisor.programs.expect(leader, order);
    let executed = Argument::String(padded(&path, asked.path.len()));
    let instead = Instead { nr: EXECVE, arguments: vec![executed, arguments, Argument::Word(asked.arrays[1])] };
    match redirect(call, &instead) {
        Err(Fail::Errno(Errno::PERM)) => {
            let order = call.supervisor.programs.withdraw(leader);
            // A debugger finds the program where it looks for it only if the kernel has put it there.
            if by_kernel && target.prefix.is_empty() && put_host_path(call, asked, &target.program) == Ok(()) {
                return Ok(Reply::Continue);
            }
            if let Some(order) = order.as_ref().filter(|o| o.credentials.is_none() && target.prefix.is_empty()) {
                let (file, interpreter) = &order.files;
                if patched::start_traced(call, asked, &target, file, interpreter.as_ref()) == Ok(()) {
                    return Ok(Reply::Continue);
                }
            }
            put_loader(call, asked, &target, order, leader, &path)
        }
        other => other,
    }
}

/// Makes a path longer without making it another one: the path that the program was executed by is written in its
/// place.
pub fn padded(path: &[u8], room: usize) -> Vec<u8> {
    let mut padded = vec![b'/'; room.saturating_sub(path.len())];
    padded.extend_from_slice(path);
    padded
}

/// What to load, but for the descriptors.
fn plan(
    call: &Call,
    asked: &Asked,
    program: &Object,
    interpreter: Option<&Object>,
    identity: Option<&Credentials>,
) -> Result<Plan> {
    let mut plan = Plan {
        program: object(program, if interpreter.is_some() { placement::PROGRAM } else { placement::ANYWHERE }),
        interpreter: interpreter.map_or_else(plan::Object::default, |i| object(i, placement::ANYWHERE)),
        headers: program.headers,
        header_count: program.header_count.into(),
        start_code: program.code.0,
        end_code: program.code.1.max(program.code.0.saturating_add(1)),
        start_data: program.data.0,
        end_data: program.data.1,
        start_break: program.high,
        random: random()?,
        path_size: asked.path.len() as u64,
        ..Plan::default()
    };
    plan.interpreter.fd = plan::NONE;
    plan.binary = plan::NONE;
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(asked.name()) {
        *to = *from;
    }
    plan.name = words(name);
    if program.is_doomed || interpreter.is_some_and(|i| i.is_doomed) {
        plan.flags |= plan::DOOMED;
    }
    if program.has_executable_stack {
        plan.flags |= plan::EXECUTABLE_STACK;
    }
    plan.flags |= match randomization() {
        0 => 0,
        1 => plan::RANDOMIZE,
        _ => plan::RANDOMIZE | plan::RANDOMIZE_BREAK,
    };
    let old = call.credentials();
    if old.is_faked() {
        let new = identity.unwrap_or(&old);
        plan.flags |= plan::IDS;
        let users = [new.uid.real, new.uid.effective].map(|id| u64::from(new.user_shown(id)));
        let groups = [new.gid.real, new.gid.effective].map(|id| u64::from(new.group_shown(id)));
        plan.ids[..2].copy_from_slice(&users);
        plan.ids[2..4].copy_from_slice(&groups);
        plan.ids[4] = u64::from(identity::is_secure(&old, new));
    }
    Ok(plan)
}

fn object(object: &Object, movable: u64) -> plan::Object {
    plan::Object {
        placement: if object.is_fixed { placement::FIXED } else { movable },
        fd: 0,
        segments: object.segments.len() as u64,
        entry: object.entry,
        low: object.low,
        high: object.high,
        alignment: object.alignment,
    }
}

fn words(bytes: [u8; 16]) -> [u64; 2] {
    let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap_or_default());
    [word(0), word(8)]
}

fn random() -> Result<[u64; 2]> {
    let mut bytes = [0; 16];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(words(bytes))
}

/// `kernel.randomize_va_space`.
fn randomization() -> u8 {
    static SETTING: OnceLock<u8> = OnceLock::new();
    *SETTING.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/randomize_va_space").unwrap_or_default();
        text.trim().parse().unwrap_or(2)
    })
}

/// Starts a program that the kernel alone can load, by the path that the host has for it.
///
/// # Errors
/// - `ENOEXEC`: the host has none.
/// - others as [`load`].
pub fn by_host_path(call: &Call, asked: &Asked, target: &Target) -> Outcome {
    let path = named(call, asked.name(), host_path(&target.program)?);
    let arguments = target.arguments(call, asked)?;
    let arguments = vec![Argument::String(path), arguments, Argument::Word(asked.arrays[1])];
    match redirect(call, &Instead { nr: EXECVE, arguments }) {
        Err(Fail::Errno(Errno::PERM)) if target.prefix.is_empty() => {
            put_host_path(call, asked, &target.program).or_else(|_| refused(call, asked))?;
            Ok(Reply::Continue)
        }
        Err(Fail::Errno(Errno::PERM)) => refused(call, asked).map(|()| Reply::Answered).map_err(Fail::from),
        other => other,
    }
}

/// The path, or another one to the same file, that names the process as the caller did.
pub fn named(call: &Call, name: &[u8], path: Vec<u8>) -> Vec<u8> {
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

/// The path by which the host's kernel reaches a file.
pub fn host_path(place: &Location) -> Result<Vec<u8>> {
    let fd = place.inode.host_fd().ok_or(Errno::NOEXEC)?;
    let path = rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new())?.into_bytes();
    let ours = rustix::fs::fstat(fd)?;
    let host = rustix::fs::stat(&path[..])?;
    if (host.st_dev, host.st_ino) != (ours.st_dev, ours.st_ino) {
        return Err(Errno::NOENT);
    }
    Ok(path)
}

/// Has the kernel execute a program whose process somebody else traces, by one of the host's paths of it that fits.
fn put_host_path(call: &Call, asked: &Asked, program: &Location) -> Result<()> {
    let put = |path: &[u8]| traced::put_path(call, path, Strings::Moved).map(drop);
    let path = host_path(program)?;
    if put(&path).is_ok() {
        return Ok(());
    }
    let alias = call.supervisor.placeholders.alias(asked.name(), &path)?.into_os_string().into_vec();
    if put(&alias).is_ok() {
        return Ok(());
    }
    let fd = program.inode.host_fd().ok_or(Errno::NOEXEC)?;
    put(call.supervisor.placeholders.shortest(fd)?.as_bytes())
}

/// Has the kernel execute the loader in a process that somebody else traces. What would be put into registers is done
/// by the loader: it puts the arguments of scripts in front, and strings right that were overwritten.
fn put_loader(call: &Call, asked: &Asked, target: &Target, order: Option<Order>, leader: u32, path: &[u8]) -> Outcome {
    let Some(mut order) = order else { return Err(Fail::Gone) };
    for argument in &target.prefix {
        order.strings.extend_from_slice(argument);
        order.strings.push(0);
    }
    order.plan.prefix_count = target.prefix.len() as u64;
    order.plan.prefix_size = (order.strings.len() - asked.path.len()) as u64;
    let Ok(overwritten) = put_short_path(call, &order, path) else {
        refused(call, asked)?;
        return Err(Errno::PERM.into());
    };
    order.plan.correction_count = overwritten.len() as u64;
    for (index, text) in overwritten {
        order.strings.extend_from_slice(&index.to_ne_bytes());
        order.strings.extend_from_slice(&text);
        order.strings.push(0);
    }
    call.supervisor.programs.expect(leader, order);
    Ok(Reply::Continue)
}

/// Overwrites the path with the shortest one to the loader: that of a descriptor of the guest's own, which closes when
/// it has done its work.
fn put_short_path(call: &Call, order: &Order, path: &[u8]) -> Result<Vec<traced::Correction>> {
    let listener = &call.supervisor.listener;
    let own = || -> Result<Vec<traced::Correction>> {
        let fd = listener.add_fd(call.notification.id, order.program.image(), CloseOnExec::Yes, None)?;
        traced::put_path(call, format!("/dev/fd/{fd}").as_bytes(), Strings::Corrected)
    };
    traced::put_path(call, path, Strings::Kept).or_else(|_| own())
}

/// Says why a traced process could not execute a program.
pub fn refused(call: &Call, asked: &Asked) -> Result<()> {
    tracing::warn!(
        tid = call.tid(),
        program = %asked.name().escape_ascii(),
        "not executed: the process is traced or not dumpable, and its path leaves no room for another one"
    );
    Err(Errno::PERM)
}
