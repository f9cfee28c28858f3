//! The calls that tell or name processes by number, where a view has pid namespaces: in one, its init is 1, every other
//! process has the host's number, and who is not in it does not exist. Knows nothing of how processes come in.

use std::sync::Arc;

use umvu_interface::{Errno, Result};

use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest::parent_of;
use crate::inspect::{may_inspect, may_steer, By};
use crate::namespace::pid::Init;
use crate::namespace::PidNamespace;
use crate::redirect::{redirect_and_restore, Argument, Instead};

/// The caller's namespace; the kernel has the answer for who is in none.
macro_rules! inside {
    ($call:ident) => {
        match &$call.state.namespaces.pid {
            Some(namespace) => namespace,
            None => return Ok(Reply::Continue),
        }
    };
}

fn value(number: u32) -> Outcome {
    Ok(Reply::Value(i64::from(number)))
}

/// Whether a thread is one of the init of a namespace.
fn is_of_init(namespace: &PidNamespace, tid: u32) -> bool {
    match namespace.init() {
        Init::Process(init) => init == tid || std::path::Path::new(&format!("/proc/{init}/task/{tid}")).exists(),
        Init::None | Init::Ended => false,
    }
}

/// Whether the caller is the init of its namespace.
pub fn is_init(call: &Call) -> bool {
    call.state.namespaces.pid.as_ref().is_some_and(|namespace| is_of_init(namespace, call.tid()))
}

/// `getpid()`.
pub fn getpid(call: &Call) -> Outcome {
    let namespace = inside!(call);
    if is_of_init(namespace, call.tid()) {
        return value(1);
    }
    Ok(Reply::Continue)
}

/// `gettid()`.
pub fn gettid(call: &Call) -> Outcome {
    let namespace = inside!(call);
    if namespace.init() == Init::Process(call.tid()) {
        return value(1);
    }
    Ok(Reply::Continue)
}

/// `getppid()`: 0 for a parent outside.
pub fn getppid(call: &Call) -> Outcome {
    let namespace = inside!(call);
    if is_of_init(namespace, call.tid()) {
        return value(0);
    }
    let parent = parent_of(call.tid()).ok_or(Errno::SRCH)?;
    value(shown(call, namespace, parent))
}

/// The number of a process in a namespace; 0 for one outside.
pub fn shown(call: &Call, namespace: &Arc<PidNamespace>, pid: u32) -> u32 {
    match call.supervisor.is_in(namespace, pid) {
        true => namespace.shown(pid),
        false => 0,
    }
}

/// The host's number of a process that the caller names.
///
/// # Errors
/// - `ESRCH`: there is none in the caller's namespace.
fn meant(call: &Call, namespace: &Arc<PidNamespace>, pid: u32) -> Result<u32> {
    let pid = namespace.meant(pid).ok_or(Errno::SRCH)?;
    if call.supervisor.is_in(namespace, pid) {
        Ok(pid)
    } else {
        Err(Errno::SRCH)
    }
}

/// Has the kernel do the call on the processes meant by the arguments at `indexes`; 0 is the caller.
fn on_processes<const N: usize>(call: &Call, indexes: [usize; N]) -> Outcome {
    let namespace = inside!(call);
    let mut arguments = call.request.arguments;
    for index in indexes {
        let Ok(pid) = u32::try_from(call.i32(index)) else { continue };
        if pid != 0 {
            arguments[index] = meant(call, namespace, pid)?.into();
        }
    }
    as_meant(call, arguments)
}

/// The call with other arguments, where they are others.
fn as_meant(call: &Call, arguments: [u64; 6]) -> Outcome {
    if arguments == call.request.arguments {
        return Ok(Reply::Continue);
    }
    let nr = call.request.number().unwrap_or(0);
    let arguments = arguments.into_iter().map(Argument::Word).collect();
    redirect_and_restore(call, &Instead { nr, arguments })
}

macro_rules! by_first_argument {
    ($($name:ident)*) => {
        $(
            /// The call of this name, on the process that the first argument means.
            pub fn $name(call: &Call) -> Outcome {
                on_processes(call, [0])
            }
        )*
    };
}

/// Has the kernel change how a process is run, named by the argument at `index`, if the caller may.
fn steered(call: &Call, index: usize) -> Outcome {
    let pid = match &call.state.namespaces.pid {
        Some(namespace) => namespace.meant(call.u32(index)),
        None => Some(call.u32(index)),
    };
    if pid.is_some_and(|pid| pid != 0 && !may_steer(call, pid)) {
        return Err(Errno::PERM.into());
    }
    on_processes(call, [index])
}

macro_rules! steered_by_first_argument {
    ($($name:ident)*) => {
        $(
            /// The call of this name, on the process that the first argument means.
            pub fn $name(call: &Call) -> Outcome {
                steered(call, 0)
            }
        )*
    };
}

steered_by_first_argument! {
    sched_setparam sched_setscheduler sched_setaffinity sched_setattr
}

by_first_argument! {
    sched_getparam sched_getscheduler sched_rr_get_interval sched_getaffinity sched_getattr pidfd_open process_vm_readv process_vm_writev get_robust_list
    migrate_pages move_pages
}

/// `ptrace(request, pid, address, data)`.
pub fn ptrace(call: &Call) -> Outcome {
    const TRACEME: u64 = 0;
    const ATTACH: u64 = 16;
    const SEIZE: u64 = 0x4206;
    let request = call.raw(0);
    if request == TRACEME {
        return Ok(Reply::Continue);
    }
    let pid = match &call.state.namespaces.pid {
        Some(namespace) => namespace.meant(call.u32(1)),
        None => Some(call.u32(1)),
    };
    if matches!(request, ATTACH | SEIZE) && pid.is_some_and(|pid| !may_inspect(call, pid, By::Real)) {
        return Err(Errno::PERM.into());
    }
    on_processes(call, [1])
}

/// `kcmp(pid1, pid2, kind, index1, index2)`.
pub fn kcmp(call: &Call) -> Outcome {
    on_processes(call, [0, 1])
}

const PRIO_PROCESS: u32 = 0;

/// `getpriority(which, who)`: a group or a process is named by a number.
pub fn getpriority(call: &Call) -> Outcome {
    match call.u32(0) {
        PRIO_PROCESS => on_processes(call, [1]),
        _ => Ok(Reply::Continue),
    }
}

/// `setpriority(which, who, priority)`.
pub fn setpriority(call: &Call) -> Outcome {
    match call.u32(0) {
        PRIO_PROCESS => steered(call, 1),
        _ => Ok(Reply::Continue),
    }
}

/// `getpgid(pid)`.
pub fn getpgid(call: &Call) -> Outcome {
    of_group(call, call.i32(0), |pid| nix::unistd::getpgid(Some(pid)))
}

/// `getpgrp()`.
pub fn getpgrp(call: &Call) -> Outcome {
    of_group(call, 0, |pid| nix::unistd::getpgid(Some(pid)))
}

/// `getsid(pid)`.
pub fn getsid(call: &Call) -> Outcome {
    of_group(call, call.i32(0), |pid| nix::unistd::getsid(Some(pid)))
}

fn of_group(call: &Call, pid: i32, ask: impl FnOnce(nix::unistd::Pid) -> nix::Result<nix::unistd::Pid>) -> Outcome {
    let namespace = inside!(call);
    let pid = match u32::try_from(pid) {
        Ok(0) => call.tid(),
        Ok(pid) => meant(call, namespace, pid)?,
        Err(_) => return Err(Errno::SRCH.into()),
    };
    let asked = nix::unistd::Pid::from_raw(i32::try_from(pid).map_err(|_| Errno::SRCH)?);
    let group = ask(asked).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
    value(group_shown(call, namespace, u32::try_from(group.as_raw()).unwrap_or(0)))
}

/// The number of a process group or session: that of its leader, who may have ended.
pub fn group_shown(call: &Call, namespace: &Arc<PidNamespace>, group: u32) -> u32 {
    if group == 0 || !std::path::Path::new(&format!("/proc/{group}")).exists() {
        return group;
    }
    shown(call, namespace, group)
}

/// `setpgid(pid, group)`.
pub fn setpgid(call: &Call) -> Outcome {
    on_processes(call, [0, 1])
}

/// `setsid()`: the leader of a session has its number.
pub fn setsid(call: &Call) -> Outcome {
    /// Above are errors: `IS_ERR_VALUE` of linux/err.h.
    const MOST: u64 = u64::MAX - 4095;
    let namespace = inside!(call);
    if !is_of_init(namespace, call.tid()) {
        return Ok(Reply::Continue);
    }
    let instead = Instead { nr: 112, arguments: Vec::new() };
    crate::redirect::redirect_and_show(call, &instead, |result| if result <= MOST { 1 } else { result })
}

/// What becomes of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// The kernel sends it.
    Sent,
    /// It is dropped, and nobody is told.
    Dropped,
}

/// Whether a signal reaches a process: an init takes none that it has no handler for, but for `SIGKILL` and `SIGSTOP`
/// from outside. `sig_task_ignored` and `sig_ignored` of `kernel/signal.c`.
fn reach(call: &Call, target: u32, signal: u32) -> Reach {
    let Some(state) = call.supervisor.state_of(target) else { return Reach::Sent };
    let Some(namespace) = &state.namespaces.pid else { return Reach::Sent };
    if signal == 0 || !is_of_init(namespace, target) {
        return Reach::Sent;
    }
    let is_inside = call.state.namespaces.pid.as_ref().is_some_and(|own| own.is_within(Some(namespace)));
    let is_forced = [libc::SIGKILL, libc::SIGSTOP].iter().any(|s| u32::try_from(*s) == Ok(signal));
    if is_forced {
        return if is_inside { Reach::Dropped } else { Reach::Sent };
    }
    let status = std::fs::read_to_string(format!("/proc/{target}/status")).unwrap_or_default();
    let has = |set: &str| {
        let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(set)?.trim(), 16).ok());
        bits.is_some_and(|bits| bits & 1u64.checked_shl(signal - 1).unwrap_or(0) != 0)
    };
    if has("SigCgt:") || has("SigBlk:") {
        Reach::Sent
    } else {
        Reach::Dropped
    }
}

/// Signals are numbered from 1 to 64, and 0 is none.
fn signal_at(call: &Call, index: usize) -> Result<u32> {
    Some(call.u32(index)).filter(|signal| *signal <= 64).ok_or(Errno::INVAL)
}

/// `kill(pid, signal)`, as far as numbers decide.
pub fn kill(call: &Call) -> Outcome {
    if call.supervisor.pids == crate::Pids::Host {
        return Ok(Reply::Continue);
    }
    let Ok(signal) = signal_at(call, 1) else { return Ok(Reply::Continue) };
    let own = call.state.namespaces.pid.as_ref();
    match (call.i32(0), own) {
        (-1, Some(namespace)) => kill_all(call, namespace, signal),
        (i32::MIN..=0, None) => Ok(Reply::Continue),
        (0, Some(_)) => Ok(Reply::Continue),
        (group @ ..=-2, Some(namespace)) => {
            let leader = group.unsigned_abs();
            if group_shown(call, namespace, leader) == 0 {
                return Err(Errno::SRCH.into());
            }
            Ok(Reply::Continue)
        }
        (pid, _) => to_process(call, u32::try_from(pid).unwrap_or(0), signal, [0]),
    }
}

/// A signal for the process that the arguments at `indexes` name.
fn to_process<const N: usize>(call: &Call, pid: u32, signal: u32, indexes: [usize; N]) -> Outcome {
    let target = match &call.state.namespaces.pid {
        Some(namespace) => meant(call, namespace, pid)?,
        None => pid,
    };
    if reach(call, target, signal) == Reach::Dropped {
        return DONE;
    }
    on_processes(call, indexes)
}

/// `kill(-1, signal)`: all but the init and the caller; they are sent by us, as the user that all belong to.
fn kill_all(call: &Call, namespace: &Arc<PidNamespace>, signal: u32) -> Outcome {
    let own = crate::magic::process_of(call.tid())?;
    let mut found = false;
    for (pid, state) in call.supervisor.living() {
        let is_in = state.namespaces.pid.as_ref().is_some_and(|p| p.is_within(Some(namespace)));
        if !is_in || pid == own || namespace.init() == Init::Process(pid) {
            continue;
        }
        found = true;
        if reach(call, pid, signal) == Reach::Sent {
            umvu_sys::guest::signal(pid, signal);
        }
    }
    if found {
        DONE
    } else {
        Err(Errno::SRCH.into())
    }
}

/// `tkill(tid, signal)`, as far as numbers decide.
pub fn tkill(call: &Call) -> Outcome {
    if call.supervisor.pids == crate::Pids::Host {
        return Ok(Reply::Continue);
    }
    match (signal_at(call, 1), u32::try_from(call.i32(0))) {
        (Ok(signal), Ok(tid)) if tid > 0 => to_process(call, tid, signal, [0]),
        _ => Ok(Reply::Continue),
    }
}

/// `tgkill(process, tid, signal)`.
pub fn tgkill(call: &Call) -> Outcome {
    match (signal_at(call, 2), u32::try_from(call.i32(0)), u32::try_from(call.i32(1))) {
        (Ok(signal), Ok(process), Ok(tid)) if process > 0 && tid > 0 => to_process(call, process, signal, [0, 1]),
        _ => Ok(Reply::Continue),
    }
}

/// `rt_tgsigqueueinfo(process, tid, signal, info)`.
pub fn rt_tgsigqueueinfo(call: &Call) -> Outcome {
    tgkill(call)
}

/// `ioctl(fd, TIOCGPGRP | TIOCSPGRP | TIOCGSID, group)`: whose the terminal is.
pub fn terminal(call: &Call) -> Outcome {
    const IOCTL: u32 = 16;
    const TIOCGPGRP: u32 = 0x540f;
    const TIOCSPGRP: u32 = 0x5410;
    let namespace = inside!(call);
    if call.u32(1) == TIOCSPGRP {
        let bytes: [u8; 4] = crate::guest::read_array(call.tid(), call.raw(2))?;
        let group = u32::from_ne_bytes(bytes);
        let wanted = namespace.meant(group).ok_or(Errno::SRCH)?;
        if wanted == group {
            return Ok(Reply::Continue);
        }
        let group = Argument::Bytes(wanted.to_ne_bytes().to_vec(), Vec::new());
        let arguments = vec![Argument::Word(call.raw(0)), Argument::Word(call.raw(1)), group];
        return redirect_and_restore(call, &Instead { nr: IOCTL, arguments });
    }
    // Asked of the caller's own terminal, which only the caller may ask: `/proc` tells it, too.
    let field = if call.u32(1) == TIOCGPGRP { 5 } else { 3 };
    let fd = call.take_fd(call.i32(0))?;
    let device = rustix::fs::fstat(&fd)?.st_rdev;
    let stat = std::fs::read(format!("/proc/{}/stat", call.tid())).map_err(|_| Errno::SRCH)?;
    let at = stat.iter().rposition(|b| *b == b')').ok_or(Errno::SRCH)?;
    let text = String::from_utf8_lossy(&stat[at + 1..]).into_owned();
    let fields: Vec<&str> = text.split_whitespace().collect();
    let terminal: u64 = fields.get(4).and_then(|f| f.parse().ok()).unwrap_or(0);
    // The kernel's form of device numbers: new_encode_dev of linux/kdev_t.h.
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let own = u64::from(minor & 0xff | major << 8 | (minor & !0xff) << 12);
    let group = fields.get(field).and_then(|f| f.parse::<u32>().ok());
    match group.filter(|_| own == terminal) {
        None => Ok(Reply::Continue),
        Some(group) => {
            call.write(call.raw(2), &group_shown(call, namespace, group).to_ne_bytes())?;
            DONE
        }
    }
}
