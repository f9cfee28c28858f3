//! Changing the registers of one guest thread that waits in a notified call: ptrace for that moment only.
//!
//! Which call is redirected where is deliberately unknown here. The order of steps is
//!
//! 1. [`Redirect::seize`], while the call waits for its answer (received under `WAIT_KILLABLE_RECV`, or the seizing
//!    itself would take the thread out of the call);
//! 2. answer the call with an error, whose value nobody will see;
//! 3. [`Redirect::wait_stop`]: the thread stops before it returns to its program;
//! 4. change the registers, for a call that is to be made in place of the old one with [`reissue`];
//! 5. [`Redirect::detach`]: the thread runs its instruction for a call again, and that call is notified again.
//!
//! A signal handler of the guest may run between 5 and the second notification. It may overwrite all memory below the
//! stack pointer, so what the new arguments point to is written when the second notification has come, just before it
//! is continued. And it makes calls of its own, so the second notification is known by its number and arguments, not
//! by its thread alone.

use std::marker::PhantomData;

use nix::sys::ptrace;
use rustix::process::{waitid, Pid, WaitId, WaitIdOptions, WaitIdStatus};

use crate::{from_nix, guest, Errno};

/// The registers of a stopped thread.
pub type Regs = libc::user_regs_struct;

/// The length of the `syscall` and the `int 0x80` instruction, in bytes.
///
/// A thread that used `sysenter` is taken to be behind an `int 0x80` that its vDSO has for this:
/// arch/x86/entry/common.c, do_fast_syscall_32.
const SYSCALL_LENGTH: u64 = 2;

/// By which instruction a thread made its call, and so in which registers the arguments are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `syscall`, with the numbers of x86_64.
    Syscall,
    /// `int 0x80`, with the numbers of i386.
    Int80,
}

/// `__WALL` of linux/wait.h: also threads that are not leaders.
const WALL: u32 = linux_raw_sys::general::__WALL;

/// What a thread has stopped for that goes on from stop to stop: [`Redirect::go_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It begins a call, or has returned from one.
    Call,
    /// It is about to take a signal.
    Signal(i32),
    /// It has made a child, which is traced too and stops before its first instruction: [`Redirect::child`].
    Forked(u32),
    /// Anything else: job control.
    Other,
}

/// A guest thread that is traced by the calling thread for a moment.
///
/// All steps happen on one thread, because the tracer of a thread is a thread: the type is not `Send`. That thread must
/// live until the end. Once the thread is seized it must be answered, waited for and detached; dropping does the last
/// for a thread that has stopped, but a thread that was not waited for would stay stopped until the dropping thread
/// ends.
///
/// Other threads of the process must not take the stop away: a wait for any child passes `__WNOTHREAD` (and then sees
/// orphans only on the first thread of the process, which adopts them), or names the child that it waits for.
#[derive(Debug)]
pub struct Redirect {
    tid: u32,
    state: State,
    /// Forbids `Send` and `Sync`.
    _here: PhantomData<*const ()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A stop is on its way.
    Seized,
    /// The thread has stopped.
    Stopped,
    /// The thread is dead or detached.
    Done,
}

impl Redirect {
    /// Starts tracing a thread and asks it to stop as soon as it leaves the call it waits in.
    ///
    /// # Errors
    /// - `ESRCH`: there is no such thread.
    /// - `EPERM`: it is traced by another, is not dumpable, or has another user's identity.
    pub fn seize(tid: u32) -> Result<Self, Errno> {
        Self::seize_with(tid, ptrace::Options::PTRACE_O_TRACESYSGOOD)
    }

    /// As [`Redirect::seize`], and what the thread forks is traced from its beginning.
    ///
    /// # Errors
    /// As [`Redirect::seize`].
    pub fn seize_with_children(tid: u32) -> Result<Self, Errno> {
        use ptrace::Options;
        let forks = Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
        Self::seize_with(tid, Options::PTRACE_O_TRACESYSGOOD | forks)
    }

    /// A child that [`Stop::Forked`] told of. It must be waited for and detached as any other.
    pub fn child(&mut self, tid: u32) -> Self {
        Self { tid, state: State::Seized, _here: PhantomData }
    }

    fn seize_with(tid: u32, options: ptrace::Options) -> Result<Self, Errno> {
        let pid = guest::nix_pid(tid)?;
        ptrace::seize(pid, options).map_err(from_nix)?;
        let mut redirect = Self { tid, state: State::Seized, _here: PhantomData };
        if let Err(error) = ptrace::interrupt(pid) {
            // it died in between
            redirect.bury();
            return Err(from_nix(error));
        }
        Ok(redirect)
    }

    /// Waits until the thread has stopped, after its call was answered, and reads its registers.
    ///
    /// A second call reads them again.
    ///
    /// # Errors
    /// - `ESRCH`: the thread is gone.
    pub fn wait_stop(&mut self) -> Result<Regs, Errno> {
        if self.state == State::Seized {
            self.next_stop()?;
        }
        if self.state == State::Done {
            return Err(Errno::SRCH);
        }
        ptrace::getregs(guest::nix_pid(self.tid)?).map_err(|error| self.gone(error))
    }

    /// Sets the registers of the stopped thread.
    ///
    /// # Errors
    /// - `ESRCH`: the thread is gone, or was not waited for.
    /// - `EIO`: the kernel refuses a value, such as a segment or an address that is not canonical.
    pub fn set_regs(&mut self, regs: &Regs) -> Result<(), Errno> {
        if self.state != State::Stopped {
            return Err(Errno::SRCH);
        }
        ptrace::setregs(guest::nix_pid(self.tid)?, *regs).map_err(|error| self.gone(error))
    }

    /// Lets the stopped thread go on to the beginning or the end of a call, or to a signal, whichever is first, and
    /// waits for that.
    ///
    /// # Errors
    /// - `ESRCH`: the thread is gone, or was not waited for.
    pub fn go_on(&mut self) -> Result<Stop, Errno> {
        /// What `PTRACE_O_TRACESYSGOOD` marks the stop of a call with: ptrace(2).
        const CALL: i32 = libc::SIGTRAP | 0x80;
        /// `PTRACE_EVENT_FORK`, `PTRACE_EVENT_VFORK` and `PTRACE_EVENT_CLONE`.
        const FORKS: [i32; 3] = [libc::SIGTRAP | 1 << 8, libc::SIGTRAP | 2 << 8, libc::SIGTRAP | 3 << 8];
        if self.state != State::Stopped {
            return Err(Errno::SRCH);
        }
        ptrace::syscall(guest::nix_pid(self.tid)?, None).map_err(|error| self.gone(error))?;
        self.state = State::Seized;
        match self.next_stop()?.trapping_signal() {
            Some(CALL) => Ok(Stop::Call),
            Some(event) if FORKS.contains(&event) => {
                let child = ptrace::getevent(guest::nix_pid(self.tid)?).map_err(|error| self.gone(error))?;
                u32::try_from(child).map(Stop::Forked).map_err(|_| Errno::SRCH)
            }
            // a stop that is none for a signal has its event in the upper half
            Some(signal) if (1..0x80).contains(&signal) => Ok(Stop::Signal(signal)),
            _ => Ok(Stop::Other),
        }
    }

    /// Waits until the thread stops.
    fn next_stop(&mut self) -> Result<WaitIdStatus, Errno> {
        let pid = guest::rustix_pid(self.tid)?;
        let wall = WaitIdOptions::from_bits_retain(WALL);
        loop {
            // its end is only looked at: it may be for others to wait for
            let any = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | wall;
            match waitid(WaitId::Pid(pid), any) {
                Ok(Some(status)) if status.trapped() || status.stopped() => {
                    // gone again only for a kill, which the next call finds
                    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | wall);
                    self.state = State::Stopped;
                    return Ok(status);
                }
                Ok(None) | Err(Errno::INTR) => {}
                Ok(Some(_)) | Err(_) => {
                    self.bury();
                    return Err(Errno::SRCH);
                }
            }
        }
    }

    /// Lets the stopped thread go on, traced by nobody.
    ///
    /// # Errors
    /// - `ESRCH`: the thread is gone, or was not waited for.
    pub fn detach(mut self) -> Result<(), Errno> {
        self.let_go(None)
    }

    /// As [`Redirect::detach`], and the thread takes the signal that it has stopped for.
    ///
    /// # Errors
    /// - `ESRCH`: the thread is gone, or was not waited for.
    pub fn detach_with(mut self, signal: i32) -> Result<(), Errno> {
        self.let_go(Some(signal))
    }

    fn let_go(&mut self, signal: Option<i32>) -> Result<(), Errno> {
        if self.state != State::Stopped {
            return Err(Errno::SRCH);
        }
        self.state = State::Done;
        // a real-time signal is none to nix, and is sent again by its number
        let known = signal.and_then(|number| nix::sys::signal::Signal::try_from(number).ok());
        if let (Some(number), None) = (signal, known) {
            send(self.tid, number)?;
        }
        ptrace::detach(guest::nix_pid(self.tid)?, known).map_err(|error| {
            self.bury();
            from_nix(error)
        })
    }

    fn gone(&mut self, error: nix::errno::Errno) -> Errno {
        if error == nix::errno::Errno::ESRCH {
            self.bury();
        }
        from_nix(error)
    }

    /// Waits for the end of a dead thread where that is the tracer's duty: its process could not end otherwise.
    ///
    /// The leader of a child of this process is left to whoever waits for children.
    fn bury(&mut self) {
        self.state = State::Done;
        let is = |word: &[u8], number: Option<i32>| guest::status_number(self.tid, word).ok() == number;
        let our_pid = rustix::process::getpid().as_raw_nonzero().get();
        if is(b"PPid:", Some(our_pid)) && is(b"Tgid:", i32::try_from(self.tid).ok()) {
            return;
        }
        let Some(pid) = i32::try_from(self.tid).ok().and_then(Pid::from_raw) else { return };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::from_bits_retain(WALL);
        // nothing to wait for means that somebody else has done it
        let _ = waitid(WaitId::Pid(pid), options);
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        // fails for a thread that is not stopped, about which nothing can be done here
        let _ = self.let_go(None);
    }
}

/// Sends a signal to a thread of another process.
fn send(tid: u32, signal: i32) -> Result<(), Errno> {
    let group = guest::status_number(tid, b"Tgid:")?;
    // SAFETY: three numbers are passed by value.
    let returned = unsafe { libc::syscall(libc::SYS_tgkill, group, tid, signal) };
    crate::check(returned).map(drop)
}

/// Changes registers such that the thread makes a call in place of the one it has just returned from.
pub fn reissue(regs: &mut Regs, entry: Entry, nr: i64, args: [u64; 6]) {
    // a register has no sign
    regs.rax = nr as u64;
    // the kernel must not take the stop for the end of a call that wants a restart: arch/x86/kernel/signal.c
    regs.orig_rax = u64::MAX;
    match entry {
        Entry::Syscall => [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = args,
        Entry::Int80 => [regs.rbx, regs.rcx, regs.rdx, regs.rsi, regs.rdi, regs.rbp] = args,
    }
    regs.rip = regs.rip.wrapping_sub(SYSCALL_LENGTH);
}
