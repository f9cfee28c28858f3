//! The thread that traces guests for as long as they have a descriptor whose calls are answered. Knows nothing of what
//! they are.
//!
//! Between its calls a watched guest runs natively, and those that are notified are served by the workers as ever;
//! registers that a worker wants changed are changed here, where the thread's tracer is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use umvu_interface::{Errno, Result};
use umvu_sys::redirect::Regs;
use umvu_sys::tracer::{Event, Tracer};

use super::attend::{self, Asking, Done};
use super::transfer::Transfer;
use crate::call::Call;

/// A watch over the processes that share descriptors with one, and their descendants.
pub struct Watch<'a> {
    opener: &'a Call,
    tracer: Tracer,
    /// The calls that threads are in.
    calls: HashMap<u32, InCall>,
    /// Threads that are let go when they stop without a descriptor.
    leaving: HashSet<u32>,
    /// Threads that wait at the beginning of a call.
    jobs: Vec<Job>,
}

/// A call that a thread is in.
struct InCall {
    nr: u64,
    /// The registers that the program will see instead of what the kernel did.
    instead: Option<Box<Regs>>,
    /// Whether a file may need no attendant any more.
    may_be_done: bool,
}

/// Attendants that are asked on another thread: they may wait for a guest, perhaps one that is watched here.
struct Job {
    tid: u32,
    regs: Regs,
    done: Arc<Mutex<Option<Done>>>,
}

impl<'a> Watch<'a> {
    /// Begins to trace the process of `opener`, whose call has not been answered.
    ///
    /// # Errors
    /// - `EPERM`: a thread of it is traced by somebody else.
    /// - `ESRCH`: it is gone.
    pub fn begin(opener: &'a Call) -> Result<Self> {
        umvu_sys::process::on_signal_interrupt(WAKES)?;
        let mut tracer = Tracer::new();
        {
            let _begins = opener.supervisor.tracing.read_recursive();
            tracer.seize(opener.tid())?;
            for tid in threads_beside(opener.tid()) {
                match tracer.seize(tid) {
                    // One that a watch of an earlier descriptor has is none of ours.
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(_) if opener.supervisor.controls.watched.contains_key(&tid) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        for tid in tracer.threads() {
            opener.supervisor.controls.watched.insert(tid, Mutex::default());
        }
        Ok(Self { opener, tracer, calls: HashMap::new(), leaving: HashSet::new(), jobs: Vec::new() })
    }

    /// Watches until nobody has such a descriptor any more.
    pub fn run(mut self) {
        while let Some((tid, event)) = self.tracer.next_event() {
            if let Err(errno) = self.take(tid, event) {
                tracing::debug!(tid, %errno, "a watched guest is gone");
            }
            self.finish_jobs();
        }
    }

    fn take(&mut self, tid: u32, event: Event) -> Result<()> {
        let watched = &self.opener.supervisor.controls.watched;
        if event == Event::Woken {
            return Ok(());
        }
        if event != Event::Gone && !watched.contains_key(&tid) {
            watched.insert(tid, Mutex::default());
        }
        match event {
            Event::Woken => Ok(()),
            Event::Gone => {
                self.forget(tid);
                self.opener.supervisor.controls.collect();
                Ok(())
            }
            Event::Executed(former) => {
                if former != tid {
                    self.forget(former);
                    self.calls.insert(tid, InCall { nr: EXECVE, instead: None, may_be_done: false });
                }
                self.tracer.go_on(tid, 0)
            }
            Event::Entry => self.begins(tid),
            Event::Foreign => {
                // What it reads is not understood.
                let regs = self.tracer.regs(tid)?;
                self.attend(tid, regs, attend::before_anything(self.opener, tid))
            }
            Event::Exit => {
                let may_close = self.returns(tid)?;
                if may_close {
                    self.opener.supervisor.controls.collect();
                }
                if may_close || self.leaving.contains(&tid) {
                    return self.go_on_or_away(tid);
                }
                self.tracer.go_on(tid, 0)
            }
            Event::Stop if self.leaving.contains(&tid) => self.go_on_or_away(tid),
            Event::Stop => self.tracer.go_on(tid, 0),
            Event::Signal(signal) => self.tracer.go_on(tid, signal),
            Event::JobStop => self.tracer.listen(tid),
        }
    }

    fn forget(&mut self, tid: u32) {
        self.calls.remove(&tid);
        self.leaving.remove(&tid);
        self.opener.supervisor.controls.watched.remove(&tid);
    }

    /// A thread begins a call: one through such a descriptor is answered here, and the kernel is given one to the
    /// same effect on registers that fails; before others, attendants are asked.
    fn begins(&mut self, tid: u32) -> Result<()> {
        let regs = self.tracer.regs(tid)?;
        if let Some(transfer) = Transfer::of(&regs) {
            if let Some((result, argument)) = transfer.answer(self.opener, tid) {
                // No descriptor has this number, and nothing but that comes of the call.
                let mut harmless = regs;
                *argument.of(&mut harmless) = u64::MAX;
                self.tracer.set_regs(tid, &harmless)?;
                let instead = Some(Box::new(Regs { rax: result, orig_rax: u64::MAX, ..regs }));
                self.calls.insert(tid, InCall { nr: regs.orig_rax, instead, may_be_done: false });
                return self.tracer.go_on(tid, 0);
            }
        }
        let askings = attend::before(self.opener, tid, &regs);
        self.attend(tid, regs, askings)
    }

    /// Asks attendants, and lets the thread go on when they have answered.
    fn attend(&mut self, tid: u32, regs: Regs, askings: Vec<Asking>) -> Result<()> {
        if askings.is_empty() {
            return self.attended(tid, regs, Done::Well(false));
        }
        if !attend::may_wait(&askings) {
            return self.attended(tid, regs, attend::ask(&askings));
        }
        let done = Arc::new(Mutex::new(None));
        let own = done.clone();
        let waiting = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
        let ask = move || {
            *own.lock() = Some(attend::ask(&askings));
            // Until it is taken, or nobody is there to take it: the signal is lost on who does not wait yet.
            while Arc::strong_count(&own) > 1 && own.lock().is_some() {
                if let Err(errno) = umvu_sys::process::interrupt_thread(waiting, WAKES) {
                    tracing::debug!(%errno, "a thread that watches guests is gone");
                    return;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        };
        match std::thread::Builder::new().name("attendant".into()).stack_size(256 << 10).spawn(ask) {
            Ok(_) => {
                self.jobs.push(Job { tid, regs, done });
                Ok(())
            }
            Err(_) => self.attended(tid, regs, Done::Failed(Errno::NOMEM)),
        }
    }

    /// Lets threads go on whose attendants have answered.
    fn finish_jobs(&mut self) {
        let mut finished = Vec::new();
        self.jobs.retain(|job| match job.done.lock().take() {
            Some(done) => {
                finished.push((job.tid, job.regs, done));
                false
            }
            None => true,
        });
        for (tid, regs, done) in finished {
            if let Err(errno) = self.attended(tid, regs, done) {
                tracing::debug!(tid, %errno, "a watched guest is gone");
            }
        }
    }

    /// A thread at the beginning of a call goes on.
    fn attended(&mut self, tid: u32, regs: Regs, done: Done) -> Result<()> {
        let result = |errno: Errno| u64::from_ne_bytes((-i64::from(errno.raw_os_error())).to_ne_bytes());
        let returns = |errno| Some(Box::new(Regs { rax: result(errno), orig_rax: u64::MAX, ..regs }));
        let (instead, may_be_done) = match done {
            Done::Well(may_be_done) => (None, may_be_done),
            Done::Failed(errno) => {
                // No call has this number.
                self.tracer.set_regs(tid, &Regs { orig_rax: u64::MAX, ..regs })?;
                (returns(errno), false)
            }
            Done::ClosedBadly(errno) => (if regs.orig_rax == CLOSE_ONE { returns(errno) } else { None }, false),
        };
        self.calls.insert(tid, InCall { nr: regs.orig_rax, instead, may_be_done });
        self.tracer.go_on(tid, 0)
    }

    /// A thread has returned from a call: tells whether descriptors may have been closed by it.
    fn returns(&mut self, tid: u32) -> Result<bool> {
        let job = self.opener.supervisor.controls.watched.get(&tid).and_then(|job| job.lock().take());
        let call = self.calls.remove(&tid);
        let now = self.tracer.regs(tid)?;
        let instead = call.as_ref().and_then(|call| call.instead.as_ref());
        match (instead, job) {
            (Some(regs), _) => self.tracer.set_regs(tid, &Regs { rcx: now.rcx, r11: now.r11, ..**regs })?,
            (None, Some(job)) => self.tracer.set_regs(tid, &job(&now))?,
            (None, None) => {
                if let Some(told) = self.opener.supervisor.parted.instead(tid, &now) {
                    self.tracer.set_regs(tid, &told)?;
                }
            }
        }
        // Of a call whose beginning was not seen, or not understood, anything can be true.
        Ok(call.is_none_or(|call| call.may_be_done || CLOSE.contains(&call.nr)))
    }

    /// Lets a thread go if its process has no descriptor left, and the others that share its table with it.
    fn go_on_or_away(&mut self, tid: u32) -> Result<()> {
        if self.opener.supervisor.controls.watches(tid) {
            self.leaving.remove(&tid);
            return self.tracer.go_on(tid, 0);
        }
        for other in threads_beside(tid) {
            if self.opener.supervisor.controls.watched.contains_key(&other) && self.leaving.insert(other) {
                // One that is gone is told of by its own event.
                let _ = self.tracer.interrupt(other);
            }
        }
        self.forget(tid);
        self.tracer.let_go(tid, 0)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        for tid in self.tracer.threads() {
            self.opener.supervisor.controls.watched.remove(&tid);
        }
    }
}

/// What wakes a thread that waits for guests.
const WAKES: rustix::process::Signal = rustix::process::Signal::USR2;

const EXECVE: u64 = 59;
const CLOSE_ONE: u64 = 3;

/// Calls after which a process may have one descriptor less: close, dup2, dup3, close_range, execve, execveat, unshare.
const CLOSE: [u64; 7] = [3, 33, 292, 436, EXECVE, 322, 272];

/// The other threads of a thread's process.
fn threads_beside(tid: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{tid}/task")) else { return Vec::new() };
    let tids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
    tids.filter(|other| *other != tid).collect()
}
