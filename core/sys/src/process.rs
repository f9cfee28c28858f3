//! What a process does to itself: forking, executing, handing descriptors over, signals and limits.
//!
//! Which processes there are, and why, is deliberately unknown here.

use std::ffi::{CStr, CString};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    recvmsg, sendmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{getpid, getrlimit, setrlimit, Resource, Rlimit};

pub use rustix::process::Signal;

use crate::{check, from_nix, guest, last_errno, Errno};

/// On which side of a [`fork`] the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The old process, with the number of the new one.
    Parent(u32),
    /// The new process.
    Child,
}

/// Forks the calling process, which must have one thread: what other threads hold locked would stay so in the child.
///
/// # Errors
/// - `EDEADLK`: the process has more than one thread, or `/proc` does not say.
/// - `EAGAIN`, `ENOMEM`: there is no room for another process.
pub fn fork() -> Result<Forked, Errno> {
    // two entries and one for each thread: fs/proc/base.c, proc_task_getattr
    match rustix::fs::stat("/proc/self/task") {
        Ok(task) if task.st_nlink == 3 => {}
        _ => return Err(Errno::DEADLK),
    }
    // SAFETY: there is no other thread, so the child has all that the parent has.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Forked::Child),
        pid => u32::try_from(pid).map(Forked::Parent).map_err(|_| Errno::SRCH),
    }
}

/// Sends a descriptor over an `AF_UNIX` socket, with one byte.
///
/// # Errors
/// - `EPIPE`: the other end is closed.
/// - `ETOOMANYREFS`: too many descriptors are in flight.
pub fn send_fd(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::NOBUFS);
    }
    retry(|| sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// Receives a descriptor from an `AF_UNIX` socket, waiting for it; it closes on exec.
///
/// `None` stands for a message without a descriptor, or for the other end being closed.
///
/// # Errors
/// - `EMFILE`: no descriptor is free.
/// - `ECONNRESET`: the other end closed without reading what was sent to it.
pub fn recv_fd(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Errno> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry(|| recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC))?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    // the kernel drops a descriptor for which it finds no number, and says so only by this flag
    if fd.is_none() && received.flags.contains(rustix::net::ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE);
    }
    Ok(fd)
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Makes the calling process the parent of its descendants whose parents end: `PR_SET_CHILD_SUBREAPER`.
///
/// They become children of the first thread of the process, which matters to a wait with `__WNOTHREAD`.
///
/// # Errors
/// None on any Linux since 3.4.
pub fn set_child_subreaper() -> Result<(), Errno> {
    rustix::process::set_child_subreaper(Some(getpid()))
}

/// Has a signal sent to the calling process when the thread that forked it ends: `PR_SET_PDEATHSIG`.
///
/// It does not survive the execution of a program that changes identity, and is not inherited. A parent that ended
/// before is not noticed: compare getppid(2) afterwards.
///
/// # Errors
/// None for a valid signal.
pub fn set_parent_death_signal(signal: Signal) -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(signal))
}

/// Names the calling thread: `PR_SET_NAME`; more than 15 bytes are cut off.
///
/// # Errors
/// None.
pub fn set_name(name: &CStr) -> Result<(), Errno> {
    rustix::thread::set_name(name)
}

/// Gives up gaining privilege by executing programs: `PR_SET_NO_NEW_PRIVS`.
///
/// # Errors
/// None on any Linux since 3.5.
pub fn set_no_new_privs() -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)
}

/// Executes a program in place of the calling one, and returns only the reason why it could not: execve(2).
pub fn exec(path: &CStr, argv: &[CString], envp: &[CString]) -> Errno {
    let argv = pointers(argv);
    let envp = pointers(envp);
    // SAFETY: the path is a C string, both arrays hold pointers to C strings and end in null, and all outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    last_errno()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Ends the process at once, without running what was registered for its end: _exit(2).
pub fn exit_now(status: i32) -> ! {
    // SAFETY: no memory is touched, and the call does not return.
    unsafe { libc::_exit(status) }
}

/// Gives signals back the disposition that a new program expects, before it is executed.
///
/// The Rust runtime ignores `SIGPIPE`, so that one belongs into most lists. Blocked signals stay blocked.
///
/// # Errors
/// - `EINVAL`: a signal is `SIGKILL` or `SIGSTOP`.
pub fn reset_signals(signals: &[Signal]) -> Result<(), Errno> {
    signals.iter().try_for_each(|&signal| default_signal(signal))
}

/// Makes the process ignore a signal; executed programs inherit that.
///
/// # Errors
/// - `EINVAL`: the signal is `SIGKILL` or `SIGSTOP`.
pub fn ignore_signal(signal: Signal) -> Result<(), Errno> {
    set_disposition(signal, libc::SIG_IGN)
}

/// Gives a signal its default disposition.
///
/// # Errors
/// - `EINVAL`: the signal is `SIGKILL` or `SIGSTOP`.
pub fn default_signal(signal: Signal) -> Result<(), Errno> {
    set_disposition(signal, libc::SIG_DFL)
}

/// Lets a signal interrupt a blocking call of the calling thread with `EINTR`, and do nothing else: a handler without
/// `SA_RESTART` is installed for the process, and the signal is unblocked for this thread.
///
/// # Errors
/// - `EINVAL`: the signal is `SIGKILL` or `SIGSTOP`.
pub fn on_signal_interrupt(signal: Signal) -> Result<(), Errno> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    set_disposition(signal, handler as libc::sighandler_t)?;
    let set = one_signal(signal);
    // SAFETY: `set` is initialized, and the place for the old mask may be null.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut()) };
    if error != 0 {
        return Err(Errno::from_raw_os_error(error));
    }
    Ok(())
}

/// Sends a signal to a process by number, also one of those for real time, which have no names: kill(2).
///
/// # Errors
/// - `EINVAL`: not a signal, or not the number of one process.
/// - `ESRCH`: there is no such process.
/// - `EPERM`: it is another user's.
pub fn send_signal(pid: i32, signal: i32) -> Result<(), Errno> {
    if pid <= 0 {
        return Err(Errno::INVAL);
    }
    // SAFETY: two numbers are passed by value.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Sends a signal to a thread of the calling process: tgkill(2).
///
/// # Errors
/// - `ESRCH`: this process has no such thread.
pub fn interrupt_thread(tid: u32, signal: Signal) -> Result<(), Errno> {
    let tid = guest::rustix_pid(tid)?;
    // SAFETY: three numbers are passed by value.
    let returned = unsafe {
        libc::syscall(libc::SYS_tgkill, getpid().as_raw_nonzero().get(), tid.as_raw_nonzero().get(), signal.as_raw())
    };
    check(returned).map(drop)
}

/// Blocks every signal in the calling thread, so that signals to the process go to a thread that waits for them.
///
/// # Errors
/// None.
pub fn prepare_worker_signals() -> Result<(), Errno> {
    nix::sys::signal::SigSet::all().thread_block().map_err(from_nix)
}

/// Raises the soft limit of open files to the hard one, and returns the limits as they were, to be restored in
/// programs that are executed.
///
/// # Errors
/// None.
pub fn set_soft_nofile_to_hard() -> Result<Rlimit, Errno> {
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: old.maximum, maximum: old.maximum })?;
    Ok(old)
}

fn set_disposition(signal: Signal, disposition: libc::sighandler_t) -> Result<(), Errno> {
    // SAFETY: the structure consists of integers and an optional function, for which all zeroes are a value: no flags,
    // an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = disposition;
    // SAFETY: the disposition is one of the two constants or a handler that touches nothing, and the place for the old
    // action may be null.
    let returned = unsafe { libc::sigaction(signal.as_raw(), &action, std::ptr::null_mut()) };
    check(returned).map(drop)
}

fn one_signal(signal: Signal) -> libc::sigset_t {
    // SAFETY: the set consists of integers, for which all zeroes are a value: no signal.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is initialized; a number that is no signal changes nothing.
    unsafe { libc::sigaddset(&mut set, signal.as_raw()) };
    set
}

/// Lets a signal through to the calling thread, whatever the thread's creator blocked.
///
/// # Errors
/// - `EINVAL`: not a signal.
pub fn admit_signal(signal: Signal) -> Result<(), Errno> {
    let signal = nix::sys::signal::Signal::try_from(signal.as_raw()).map_err(from_nix)?;
    let mut set = nix::sys::signal::SigSet::empty();
    set.add(signal);
    set.thread_unblock().map_err(from_nix)
}

/// What has become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildChange {
    /// It ended.
    Ended,
    /// Job control stopped it.
    Stopped,
    /// A thread of this process traces it, and it stopped for that.
    Traced,
}

/// Looks for a child of the calling thread with which something has happened, and leaves that to be waited for.
///
/// # Errors
/// - `ECHILD`: there are no children.
pub fn peek_child() -> Result<Option<(u32, ChildChange)>, Errno> {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT | libc::__WNOTHREAD;
    // SAFETY: the structure consists of integers and unions of them, for which all zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo_t, which `info` is.
    check(unsafe { libc::waitid(libc::P_ALL, 0, &mut info, options) })?;
    // SAFETY: waitid(2) fills the fields of a SIGCHLD or leaves the zeroes.
    let pid = unsafe { info.si_pid() };
    let change = match info.si_code {
        libc::CLD_STOPPED => ChildChange::Stopped,
        libc::CLD_TRAPPED => ChildChange::Traced,
        _ => ChildChange::Ended,
    };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, change)))
}
