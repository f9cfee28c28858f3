//! Starting a view: front process, supervisor, first guest; and how each of them ends.
//!
//! The front process is the one that the user's shell started. It holds nothing of the guests' and mirrors their
//! stop and end; if the supervisor is killed, it kills the guests. The supervisor is its child, and the guests'
//! child subreaper. When the front process is killed, the supervisor kills the guests.

use std::ffi::{CString, OsString};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{waitid, Id, WaitPidFlag, WaitStatus};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::process::{Pid, Signal};
use umvu_sys::process::{self, Forked};
use umvu_sys::seccomp::{self, Listener};

use crate::serve::Workers;
use crate::state::ProcessState;
use crate::supervisor::Supervisor;
use crate::{Config, StartError};

/// What the supervisor tells the front process, one byte and a value.
const ENDED: u8 = b'e';
const STOPPED: u8 = b's';

/// Status of what a hang-up ended.
const HUNG_UP: u8 = 129;

/// Signals that the front process hands on to the first guest when they were sent to it alone.
const HANDED_ON: [Signal; 6] = [Signal::TERM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Runs a command in a new view, to its end.
///
/// # Errors
/// What could not be had, named.
pub fn run(config: Config) -> Result<u8, StartError> {
    let command = Command::prepare(&config)?;
    let program = crate::filter::program()?;
    let (status_in, status_out) = pipe()?;
    let saved_mask = SigSet::thread_get_mask().map_err(StartError::system("signal mask"))?;
    block_all()?;
    process::set_child_subreaper().map_err(StartError::system("child subreaper"))?;
    match process::fork().map_err(StartError::system("fork"))? {
        Forked::Parent(supervisor) => {
            drop(status_out);
            front(supervisor, status_in)
        }
        Forked::Child => {
            drop(status_in);
            let status = supervise(config, command, program, status_out, saved_mask);
            process::exit_now(status)
        }
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), StartError> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(StartError::system("pipe"))
}

fn block_all() -> Result<(), StartError> {
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .map_err(StartError::system("signal mask"))
}

/// A command ready to be executed.
struct Command {
    argv: Vec<CString>,
    paths: Vec<CString>,
    envp: Vec<CString>,
}

impl Command {
    fn prepare(config: &Config) -> Result<Self, StartError> {
        let text = |s: &OsString| {
            CString::new(s.as_bytes()).map_err(|_| StartError::Message("a NUL byte in the command".into()))
        };
        let argv = config.command.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let name = argv.first().ok_or_else(|| StartError::Message("no command".into()))?.clone();
        let mut paths = Vec::new();
        if name.as_bytes().contains(&b'/') {
            paths.push(name);
        } else {
            let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            for directory in path.as_bytes().split(|b| *b == b':') {
                let mut full = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
                full.push(b'/');
                full.extend_from_slice(name.as_bytes());
                paths.extend(CString::new(full));
            }
        }
        let envp = std::env::vars_os().map(|(name, value)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            text(&entry)
        });
        Ok(Self { argv, paths, envp: envp.collect::<Result<_, _>>()? })
    }

    /// Executes it; returns the status of a shell that could not.
    fn execute(&self) -> i32 {
        let mut denied = false;
        for path in &self.paths {
            let errno = process::exec(path, &self.argv, &self.envp);
            match errno.raw_os_error() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES if self.paths.len() > 1 => denied = true,
                _ => {
                    self.complain(&umvu_interface::cause(errno));
                    return 126;
                }
            }
        }
        if denied {
            self.complain("permission denied");
            return 126;
        }
        let searched = self.paths.len() > 1 || !self.argv[0].as_bytes().contains(&b'/');
        self.complain(if searched { "command not found" } else { "no such file or directory" });
        127
    }

    fn complain(&self, why: &str) {
        let name = self.argv.first().map(|n| n.as_bytes().escape_ascii().to_string()).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "umvu: {name}: {why}");
    }
}

/// The front process: waits, mirrors, hands signals on.
fn front(supervisor: u32, status: OwnedFd) -> Result<u8, StartError> {
    detach_standard_streams(Streams::AllButError);
    let mut watched = SigSet::empty();
    for signal in HANDED_ON.iter().chain(&[Signal::CHILD]) {
        watched.add(to_nix(*signal)?);
    }
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(StartError::system("signalfd"))?;
    let mut pipe = std::fs::File::from(status);
    // Not rustix: it takes 0, a leader in an outer pid namespace, for a mistake.
    let leads_session = nix::unistd::getsid(None) == Ok(nix::unistd::getpid());
    let mut guest: Option<i32> = None;
    // A guest may read the end of the terminal, and end, before it gets the signal that we hand on; outside a view the
    // signal comes first.
    let mut hung_up = false;
    loop {
        let mut fds = [PollFd::new(&pipe, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(StartError::system("poll")(errno)),
        }
        let told = !fds[0].revents().is_empty();
        while let Ok(Some(info)) = signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(Signal::from_named_raw);
            // The kernel tells of a terminal that is gone only the leader of the session.
            let is_hangup = signal == Some(Signal::HUP) && leads_session;
            let is_for_guest = info.ssi_code <= 0 || is_hangup;
            if let (true, Some(signal), Some(pid)) = (is_for_guest, signal, guest.and_then(Pid::from_raw)) {
                if signal != Signal::CHILD {
                    hung_up |= is_hangup && !ignores_hangup(pid);
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
        if !told {
            continue;
        }
        let mut message = [0u8; 5];
        match pipe.read_exact(&mut message) {
            Ok(()) => {
                let value = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
                match message[0] {
                    ENDED if hung_up && value < 128 => return Ok(HUNG_UP),
                    ENDED => return Ok(u8::try_from(value).unwrap_or(255)),
                    STOPPED => stop_as(value),
                    _ => guest = Some(value),
                }
            }
            Err(_) => {
                // The supervisor died without a word: its guests are ours now.
                kill_descendants();
                crate::placeholder::remove_abandoned();
                let _ = writeln!(std::io::stderr(), "umvu: the supervisor (process {supervisor}) was killed");
                return Ok(137);
            }
        }
    }
}

fn ignores_hangup(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|set| set & 1 != 0)
}

fn to_nix(signal: Signal) -> Result<nix::sys::signal::Signal, StartError> {
    nix::sys::signal::Signal::try_from(signal.as_raw()).map_err(StartError::system("signal"))
}

/// Stops as the first guest has, so that the shell sees its job stopped.
fn stop_as(_signal: i32) {
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::STOP);
}

/// Sends a signal to all children of the calling thread.
fn signal_children(signal: Signal) {
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    for pid in children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Kills all children until there are none: whoever is killed leaves its children to us.
fn kill_descendants() {
    loop {
        signal_children(Signal::KILL);
        match waitid(Id::All, WaitPidFlag::WEXITED) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Which standard streams to let go of.
enum Streams {
    AllButError,
    All,
}

/// Nobody but the guests holds the ends of their pipes.
fn detach_standard_streams(which: Streams) {
    let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty()) else { return };
    let _ = rustix::stdio::dup2_stdin(&null);
    let _ = rustix::stdio::dup2_stdout(&null);
    if matches!(which, Streams::All) {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}

/// The supervisor, to its end; returns its exit status, which nobody looks at.
fn supervise(
    config: Config,
    command: Command,
    program: Vec<libc::sock_filter>,
    status: OwnedFd,
    saved_mask: SigSet,
) -> i32 {
    match try_supervise(config, command, program, &status, saved_mask) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "umvu: {error}");
            let _ = tell(&status, ENDED, 1);
            1
        }
    }
}

/// Tells the front process something; it may have been killed.
fn tell(status: &OwnedFd, what: u8, value: i32) -> rustix::io::Result<()> {
    let mut message = [what, 0, 0, 0, 0];
    message[1..].copy_from_slice(&value.to_ne_bytes());
    rustix::io::write(status, &message).map(drop)
}

fn try_supervise(
    config: Config,
    command: Command,
    program: Vec<libc::sock_filter>,
    status: &OwnedFd,
    saved_mask: SigSet,
) -> Result<(), StartError> {
    process::set_child_subreaper().map_err(StartError::system("child subreaper"))?;
    process::set_name(c"umvu-view").map_err(StartError::system("process name"))?;
    let (number_in, number_out) = pipe()?;
    let (go_in, go_out) = pipe()?;
    let guest = match process::fork().map_err(StartError::system("fork"))? {
        Forked::Child => {
            drop((number_in, go_out));
            process::exit_now(first_guest(&command, &program, number_out, go_in, &saved_mask))
        }
        Forked::Parent(pid) => pid,
    };
    drop((number_out, go_in));
    detach_standard_streams(Streams::AllButError);
    let limits = process::set_soft_nofile_to_hard();
    if let Err(errno) = limits {
        tracing::debug!(%errno, "limit of open files stays");
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    let listener = take_listener(guest, number_in)?;
    let trace = config.trace.as_ref().map(crate::trace::Trace::open).transpose().map_err(StartError::Trace)?;
    let supervisor = Supervisor::new(listener, config.modules, config.nesting, trace).map_err(StartError::Directory)?;
    let supervisor = Arc::new(supervisor);
    let name = config.name.clone().unwrap_or_else(|| guest.to_string().into_bytes());
    let view = supervisor.first_view(name).map_err(StartError::system("/"))?;
    view.debug.write().clone_from(&config.debug_tags);
    for module in &config.load {
        view.insert(config.modules, module, false).map_err(|error| StartError::Message(error.to_string()))?;
    }
    let limit = umvu_sys::guest::state_number(guest).map_err(StartError::system("process state"))?;
    // Ours is still the caller's: only guests get it from us.
    let has_no_new_privs = rustix::thread::no_new_privs().unwrap_or(false);
    let first = ProcessState { has_no_new_privs, ..ProcessState::new(view) };
    let number = supervisor.states.first(first, limit);
    umvu_sys::guest::set_state_number(guest, number).map_err(StartError::system("process state"))?;
    let signals = watch_signals()?;
    Workers::start(supervisor.clone()).map_err(StartError::Thread)?;
    let _ = tell(status, b'g', i32::try_from(guest).unwrap_or(0));
    let _ = rustix::io::write(&go_out, b"g");
    drop(go_out);
    let untold = reap(&supervisor, guest, status, &signals);
    supervisor.placeholders.remove_directory();
    // Who starts umvu again at once finds the layers free.
    supervisor.close_views();
    if let Some(value) = untold {
        let _ = tell(status, ENDED, value);
    }
    Ok(())
}

/// The first guest, between fork and exec: takes the filter, says where its listener is, waits, executes.
fn first_guest(command: &Command, program: &[libc::sock_filter], number: OwnedFd, go: OwnedFd, mask: &SigSet) -> i32 {
    // Rust ignores SIGPIPE; programs expect the default.
    if process::default_signal(Signal::PIPE).is_err() {
        return 125;
    }
    let listener = match seccomp::install(program) {
        Ok(listener) => listener,
        Err(errno) => {
            let why = match errno.raw_os_error() {
                libc::EBUSY => "another tool already supervises this process by seccomp".into(),
                libc::EINVAL => {
                    "the kernel lacks seccomp user notification with WAIT_KILLABLE_RECV (Linux 5.19 or newer)".into()
                }
                _ => umvu_interface::cause(errno),
            };
            let _ = rustix::io::write(&number, &(-1i32).to_ne_bytes());
            let _ = writeln!(std::io::stderr(), "umvu: seccomp filter: {why}");
            return 125;
        }
    };
    let _ = rustix::io::write(&number, &listener.as_raw_fd().to_ne_bytes());
    drop(number);
    let mut byte = [0u8; 1];
    loop {
        match rustix::io::read(&go, &mut byte) {
            Ok(1) => break,
            Err(rustix::io::Errno::INTR) => {}
            _ => return 125,
        }
    }
    drop(listener);
    if nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(mask), None).is_err() {
        return 125;
    }
    command.execute()
}

fn take_listener(guest: u32, number: OwnedFd) -> Result<Listener, StartError> {
    let mut bytes = [0u8; 4];
    let lost = || StartError::Message("the first process ended before it began".into());
    std::fs::File::from(number).read_exact(&mut bytes).map_err(|_| lost())?;
    let fd = i32::from_ne_bytes(bytes);
    if fd < 0 {
        return Err(StartError::Told);
    }
    let pidfd = umvu_sys::guest::open_thread(guest).map_err(StartError::system("pidfd"))?;
    let listener = Listener::from(umvu_sys::guest::take_fd(pidfd.as_fd(), fd).map_err(StartError::system("listener"))?);
    // Older kernels wake up less well, and all else works.
    if let Err(errno) = listener.set_sync_wake_up() {
        tracing::debug!(%errno, "no synchronous wake-up");
    }
    Ok(listener)
}

fn watch_signals() -> Result<SignalFd, StartError> {
    let mut child = SigSet::empty();
    child.add(nix::sys::signal::Signal::SIGCHLD);
    child.add(nix::sys::signal::Signal::SIGTERM);
    SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(StartError::system("signalfd"))
}

/// Reaps guests until there are none. Returns the status of the first if the front process does not know it yet: when
/// it was the last.
fn reap(supervisor: &Supervisor, first: u32, status: &OwnedFd, signals: &SignalFd) -> Option<i32> {
    let is_first = |pid: nix::unistd::Pid| u32::try_from(pid.as_raw()) == Ok(first);
    let mut front_waits = true;
    let mut untold = None;
    let mut asked = false;
    loop {
        loop {
            let ended = match crate::children::next(supervisor) {
                Ok(WaitStatus::Exited(pid, value)) => Some((pid, value)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid, 128 + signal as i32)),
                Ok(WaitStatus::Stopped(pid, signal)) => {
                    if is_first(pid) {
                        let _ = tell(status, STOPPED, signal as i32);
                    }
                    None
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(nix::errno::Errno::EINTR) => None,
                Err(_) => return untold,
            };
            if let Some((pid, value)) = ended {
                if is_first(pid) {
                    supervisor.ended.store(true, Ordering::Release);
                    untold = Some(value);
                }
            }
        }
        if let Some(value) = untold.take() {
            front_waits = false;
            if tell(status, ENDED, value).is_err() {
                // The front process was killed before.
                kill_descendants();
                return None;
            }
            // What outlives the first guest is a daemon: it keeps no terminal busy through us.
            detach_standard_streams(Streams::All);
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(status, PollFlags::empty())];
        let watched = if front_waits { &mut fds[..] } else { &mut fds[..1] };
        if poll(watched, None).is_err() {
            continue;
        }
        while let Ok(Some(info)) = signals.read_signal() {
            if i32::try_from(info.ssi_signo) != Ok(libc::SIGTERM) {
                continue;
            }
            // Whoever ends the supervisor ends the view: its processes are asked first.
            if std::mem::replace(&mut asked, true) {
                kill_descendants();
                return None;
            }
            signal_children(Signal::TERM);
        }
        if front_waits && !fds[1].revents().is_empty() {
            // The front process was killed.
            kill_descendants();
            return None;
        }
    }
}
