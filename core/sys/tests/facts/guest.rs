//! A guest for the facts: a forked process under a filter that reports the calls a fact names.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{sigaction, SaFlags, SigAction, SigHandler, SigSet, SIGUSR1};
use rustix::process::{kill_process, waitpid, Pid, Signal, WaitOptions, WaitStatus};
use umvu_sys::process::{exit_now, fork, recv_fd, send_fd, set_parent_death_signal, Forked};
use umvu_sys::seccomp::{install, Listener, Notification, Received};
use umvu_sys::Errno;

/// A forked process whose calls the fact answers; it is killed if the fact forgets it.
pub struct Guest {
    pub pid: u32,
    pub listener: Listener,
    waited: bool,
}

impl Guest {
    /// Forks a guest that runs `body` and ends with the status that it returns.
    pub fn start(reported: &[i64], body: impl FnOnce() -> i32) -> Self {
        let (ours, theirs) = socketpair();
        match fork().unwrap() {
            Forked::Child => {
                drop(ours);
                set_parent_death_signal(Signal::KILL).unwrap();
                let listener = install(&filter(reported)).unwrap();
                send_fd(theirs.as_fd(), listener.as_fd()).unwrap();
                drop(listener);
                drop(theirs);
                exit_now(catch_unwind(AssertUnwindSafe(body)).unwrap_or(101))
            }
            Forked::Parent(pid) => {
                drop(theirs);
                let listener = recv_fd(ours.as_fd()).unwrap().expect("the guest sends its listener");
                Self { pid, listener: Listener::from(listener), waited: false }
            }
        }
    }

    /// Receives the next call.
    pub fn next(&self) -> Notification {
        loop {
            match self.listener.receive().unwrap() {
                Received::Call(call) => return call,
                Received::Interrupted => {}
                Received::Gone => panic!("the guest is gone"),
            }
        }
    }

    pub fn kill(&self, signal: Signal) {
        kill_process(rustix_pid(self.pid), signal).unwrap();
    }

    pub fn wait(&mut self) -> WaitStatus {
        self.waited = true;
        wait(self.pid)
    }

    /// Waits for the guest, which must have found everything as it should be.
    pub fn ends_well(mut self) {
        assert_eq!(self.wait().exit_status(), Some(0), "exit status of the guest");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.waited {
            self.kill(Signal::KILL);
            wait(self.pid);
        }
    }
}

pub fn wait(pid: u32) -> WaitStatus {
    waitpid(Some(rustix_pid(pid)), WaitOptions::empty()).unwrap().unwrap().1
}

pub fn rustix_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Makes a system call in the guest; a fact only names calls that are harmless with these arguments.
pub fn call(nr: i64, args: [u64; 6]) -> Result<i64, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: facts pass numbers, or addresses of their own memory that lives until the call returns.
    let returned = unsafe { libc::syscall(nr, a, b, c, d, e, f) };
    match returned {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()),
        value => Ok(value),
    }
}

/// A filter that reports these calls and allows the others; a fact runs on x86_64 only.
pub fn filter(reported: &[i64]) -> Vec<libc::sock_filter> {
    // seccomp_data.nr stands at offset 0
    let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for &nr in reported {
        program.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, u32::try_from(nr).unwrap(), 1));
        program.push(instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0));
    }
    program.push(instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0));
    program
}

fn instruction(code: u32, k: u32, skip_if_not: u8) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: skip_if_not, k }
}

pub fn socketpair() -> (OwnedFd, OwnedFd) {
    use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// A pipe, as its reading and its writing end.
pub fn pipe() -> (File, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (File::from(read), File::from(write))
}

/// A pipe's reading end from which `content` can be read, then the end of file.
pub fn readable(content: &[u8]) -> File {
    let (read, mut write) = pipe();
    write.write_all(content).unwrap();
    read
}

/// Waits until the other side writes a byte, or has closed the pipe.
pub fn await_byte(mut pipe: &File) -> Option<u8> {
    let mut byte = [0];
    match pipe.read(&mut byte).unwrap() {
        0 => None,
        _ => Some(byte[0]),
    }
}

/// Reads a number that another process or thread has written.
pub fn read_number(mut pipe: &File) -> u32 {
    let mut number = [0; 4];
    pipe.read_exact(&mut number).unwrap();
    u32::from_ne_bytes(number)
}

/// Waits until something can be read, or a process has ended.
pub fn await_readable(fd: impl AsFd) {
    let mut fds = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
}

/// Waits until a thread of this process sleeps.
pub fn await_sleep(tid: u32) {
    while state(tid) != b'S' {
        std::thread::yield_now();
    }
}

/// The letter that stands for what a thread does: proc_pid_stat(5).
pub fn state(tid: u32) -> u8 {
    let stat = std::fs::read(format!("/proc/{tid}/stat")).unwrap();
    let name_end = stat.iter().rposition(|&byte| byte == b')').unwrap();
    stat[name_end + 2]
}

static COUNTED: AtomicU32 = AtomicU32::new(0);

/// Counts `SIGUSR1` in the guest from here on.
pub fn count_signals(flags: SaFlags) {
    extern "C" fn count(_: libc::c_int) {
        COUNTED.fetch_add(1, Ordering::SeqCst);
    }
    let action = SigAction::new(SigHandler::Handler(count), flags, SigSet::empty());
    // SAFETY: the handler does nothing but count.
    unsafe { sigaction(SIGUSR1, &action) }.unwrap();
}

/// How often the signal has come.
pub fn counted() -> u32 {
    COUNTED.load(Ordering::SeqCst)
}

/// The file of a descriptor that a call has returned.
pub fn file_from(number: i64) -> File {
    // SAFETY: the call has opened this descriptor for the guest, which knows of it from here alone.
    unsafe { File::from_raw_fd(number.try_into().unwrap()) }
}

/// A directory of this fact alone, removed at its end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("umvu-sys-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
