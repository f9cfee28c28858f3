//! Tracing guests' threads from call to call, and all that they fork, for as long as something is to be watched.
//!
//! Which calls matter, and when the watching ends, is deliberately unknown here. A [`Redirect`](crate::redirect) holds
//! one thread for a moment; a [`Tracer`] holds a family of them, and a thread of ours does nothing else meanwhile.

use std::collections::HashSet;
use std::marker::PhantomData;
use std::time::Duration;

use nix::sys::ptrace;

use crate::redirect::Regs;
use crate::{check, from_nix, guest, Errno};

/// What has become of a traced thread. All but [`Event::Gone`] and [`Event::Woken`] leave it stopped until it is let on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It begins a call of a 64-bit program: [`Tracer::regs`] has number and arguments.
    Entry,
    /// It begins a call of another sort of program, which is not understood.
    Foreign,
    /// It has returned from a call.
    Exit,
    /// It is about to take a signal.
    Signal(i32),
    /// It was stopped by [`Tracer::interrupt`], has just been born, or has forked.
    Stop,
    /// Job control has stopped it: [`Tracer::listen`] leaves it so.
    JobStop,
    /// It has executed a program; it was this thread before.
    Executed(u32),
    /// It has ended.
    Gone,
    /// Nothing has happened, but for a signal to the tracing thread.
    Woken,
}

/// The calling thread as a tracer. It is not `Send`, because the tracer of a thread is a thread.
#[derive(Debug, Default)]
pub struct Tracer {
    threads: HashSet<u32>,
    /// Forbids `Send` and `Sync`.
    _here: PhantomData<*const ()>,
}

impl Tracer {
    /// Makes one that traces nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts tracing a thread, and asks it to stop; what it forks from then on is traced too.
    ///
    /// # Errors
    /// - `ESRCH`: there is no such thread.
    /// - `EPERM`: it is traced already, is not dumpable, or has another user's identity.
    pub fn seize(&mut self, tid: u32) -> Result<(), Errno> {
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACEFORK
            | ptrace::Options::PTRACE_O_TRACEVFORK
            | ptrace::Options::PTRACE_O_TRACECLONE
            | ptrace::Options::PTRACE_O_TRACEEXEC;
        ptrace::seize(guest::nix_pid(tid)?, options).map_err(from_nix)?;
        self.threads.insert(tid);
        // one that is gone already is told of by the next event
        let _ = self.interrupt(tid);
        Ok(())
    }

    /// Asks a thread to stop.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn interrupt(&self, tid: u32) -> Result<(), Errno> {
        ptrace::interrupt(guest::nix_pid(tid)?).map_err(from_nix)
    }

    /// The threads that are traced.
    pub fn threads(&self) -> Vec<u32> {
        self.threads.iter().copied().collect()
    }

    /// Waits for the next event; `None` when nobody is traced any more.
    pub fn next_event(&mut self) -> Option<(u32, Event)> {
        while !self.threads.is_empty() {
            let (tid, change) = match look(libc::P_ALL, 0, 0) {
                Err(Errno::INTR) => return Some((0, Event::Woken)),
                Err(_) => return None,
                Ok(None) => continue,
                Ok(Some(found)) => found,
            };
            if let Change::Stopped(status) = change {
                return Some((tid, self.stopped(tid, status)));
            }
            if is_left_to_others(tid) {
                // A leader that is a child of this process: whoever waits for children takes it, and until then it
                // hides the others.
                if self.threads.remove(&tid) {
                    return Some((tid, Event::Gone));
                }
                if let Some((tid, status)) = self.another() {
                    return Some((tid, self.stopped(tid, status)));
                }
                std::thread::sleep(Duration::from_micros(50));
                continue;
            }
            let _ = wait(tid, libc::WEXITED);
            self.threads.remove(&tid);
            return Some((tid, Event::Gone));
        }
        None
    }

    /// A traced thread that has stopped, looked for one by one.
    fn another(&self) -> Option<(u32, i32)> {
        self.threads.iter().find_map(|tid| match look(libc::P_PID, *tid, libc::WNOHANG) {
            Ok(Some((_, Change::Stopped(status)))) => Some((*tid, status)),
            _ => None,
        })
    }

    /// Takes a stop, and says what it is for.
    fn stopped(&mut self, tid: u32, status: i32) -> Event {
        /// What `PTRACE_O_TRACESYSGOOD` marks the stop of a call with: ptrace(2).
        const CALL: i32 = libc::SIGTRAP | 0x80;
        let _ = wait(tid, libc::WSTOPPED);
        self.threads.insert(tid);
        let signal = status & 0xff;
        match status >> 8 {
            0 if signal == CALL => self.call(tid),
            0 => Event::Signal(signal),
            libc::PTRACE_EVENT_EXEC => {
                let former = self.message(tid).unwrap_or(tid);
                if former != tid {
                    self.threads.remove(&former);
                }
                Event::Executed(former)
            }
            libc::PTRACE_EVENT_STOP if signal != libc::SIGTRAP => Event::JobStop,
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                self.threads.extend(self.message(tid));
                Event::Stop
            }
            _ => Event::Stop,
        }
    }

    fn call(&self, tid: u32) -> Event {
        /// `AUDIT_ARCH_X86_64`: what a call by another entry is, its registers do not say.
        const ARCH: u32 = 0xc000_003e;
        let info = guest::nix_pid(tid).map(ptrace::syscall_info);
        match info {
            Ok(Ok(info)) if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY && info.arch == ARCH => Event::Entry,
            Ok(Ok(info)) if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY => Event::Foreign,
            Ok(Ok(info)) if info.op == libc::PTRACE_SYSCALL_INFO_EXIT => Event::Exit,
            _ => Event::Stop,
        }
    }

    fn message(&self, tid: u32) -> Option<u32> {
        u32::try_from(ptrace::getevent(guest::nix_pid(tid).ok()?).ok()?).ok()
    }

    /// Reads the registers of a stopped thread.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn regs(&self, tid: u32) -> Result<Regs, Errno> {
        ptrace::getregs(guest::nix_pid(tid)?).map_err(from_nix)
    }

    /// Sets the registers of a stopped thread.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    /// - `EIO`: the kernel refuses a value.
    pub fn set_regs(&self, tid: u32, regs: &Regs) -> Result<(), Errno> {
        ptrace::setregs(guest::nix_pid(tid)?, *regs).map_err(from_nix)
    }

    /// Lets a stopped thread go on to its next event, with a signal or 0.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn go_on(&self, tid: u32, signal: i32) -> Result<(), Errno> {
        request(libc::PTRACE_SYSCALL, tid, signal)
    }

    /// Leaves a thread stopped by job control, until that continues it.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn listen(&self, tid: u32) -> Result<(), Errno> {
        request(libc::PTRACE_LISTEN, tid, 0)
    }

    /// Lets a stopped thread go on untraced, with a signal or 0.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn let_go(&mut self, tid: u32, signal: i32) -> Result<(), Errno> {
        request(libc::PTRACE_DETACH, tid, signal)?;
        self.threads.remove(&tid);
        Ok(())
    }
}

/// One of the requests that take a signal; nix knows no real-time ones.
fn request(request: libc::c_uint, tid: u32, signal: i32) -> Result<(), Errno> {
    let pid = guest::nix_pid(tid)?.as_raw();
    let nothing = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests take numbers only, and touch no memory of this process.
    check(unsafe { libc::ptrace(request, pid, nothing, libc::c_long::from(signal)) }).map(drop)
}

enum Change {
    Ended,
    /// With the signal, and above it the number of an event.
    Stopped(i32),
}

/// Looks for a traced thread of the calling thread with which something has happened, and leaves that to be waited for.
fn look(sort: libc::idtype_t, id: u32, how: i32) -> Result<Option<(u32, Change)>, Errno> {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | libc::__WALL | libc::__WNOTHREAD | how;
    // SAFETY: the structure consists of integers and unions of them, for which all zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo_t, which `info` is.
    check(unsafe { libc::waitid(sort, id, &mut info, options) })?;
    // SAFETY: waitid(2) fills the fields of a SIGCHLD or leaves the zeroes.
    let pid = unsafe { info.si_pid() };
    // SAFETY: as before.
    let status = unsafe { info.si_status() };
    let change = match info.si_code {
        libc::CLD_STOPPED | libc::CLD_TRAPPED => Change::Stopped(status),
        _ => Change::Ended,
    };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid > 0).map(|pid| (pid, change)))
}

/// Takes what [`look`] has found.
fn wait(tid: u32, what: i32) -> Result<(), Errno> {
    let options = what | libc::WNOHANG | libc::__WALL | libc::__WNOTHREAD;
    // SAFETY: the structure consists of integers and unions of them, for which all zeroes are a value.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one siginfo_t, which `info` is.
    check(unsafe { libc::waitid(libc::P_PID, tid, &mut info, options) }).map(drop)
}

/// Whether the end of a thread is for those to wait for who wait for the children of this process.
fn is_left_to_others(tid: u32) -> bool {
    let is = |word: &[u8], number: Option<i32>| guest::status_number(tid, word).ok() == number;
    let our_pid = rustix::process::getpid().as_raw_nonzero().get();
    is(b"PPid:", Some(our_pid)) && is(b"Tgid:", i32::try_from(tid).ok())
}
