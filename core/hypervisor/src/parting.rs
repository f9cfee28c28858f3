//! Guests that have a descriptor of something that is gone, and read an error from it where the kernel tells of an end.
//!
//! They are traced from before the end until they have read it, or have no such descriptor any more. Knows no device.

use std::collections::HashSet;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use umvu_interface::{Errno, Parting};
use umvu_sys::redirect::Regs;
use umvu_sys::tracer::{Event, Tracer};

use crate::supervisor::Supervisor;

/// How long a guest may take to read it.
const LONGEST: Duration = Duration::from_secs(30);

/// `ERESTARTSYS` of linux/errno.h, as a call returns it that was interrupted while it waited.
const RESTARTS: i64 = -512;

/// What has ended, by the `stat` numbers of its descriptors.
#[derive(Default)]
pub struct Parted(DashMap<(u64, u64), Errno>);

impl Parted {
    /// The registers that a thread gets instead, if it has just read the end of one of these or waits for it.
    pub fn instead(&self, tid: u32, now: &Regs) -> Option<Regs> {
        const READ: u64 = 0;
        const READV: u64 = 19;
        if self.0.is_empty() || !matches!(now.orig_rax, READ | READV) {
            return None;
        }
        let result = i64::from_ne_bytes(now.rax.to_ne_bytes());
        let fd = u32::try_from(now.rdi & 0xffff_ffff).ok()?;
        if !matches!(result, 0 | RESTARTS) {
            return None;
        }
        let stat = rustix::fs::stat(format!("/proc/{tid}/fd/{fd}")).ok()?;
        let errno = *self.0.get(&(stat.st_dev, stat.st_ino))?;
        let rax = u64::from_ne_bytes((-i64::from(errno.raw_os_error())).to_ne_bytes());
        Some(Regs { rax, orig_rax: u64::MAX, ..*now })
    }

    fn is_open_in(&self, process: u32) -> bool {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
        descriptors.flatten().any(|entry| {
            rustix::fs::stat(entry.path()).is_ok_and(|stat| self.0.contains_key(&(stat.st_dev, stat.st_ino)))
        })
    }
}

/// Tells the guests of a supervisor.
pub struct Farewell(Weak<Supervisor>);

impl Farewell {
    /// Makes one.
    pub fn new(supervisor: &Arc<Supervisor>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(supervisor)))
    }
}

impl Parting for Farewell {
    fn part(&self, processes: &[u32], file: (u64, u64), errno: Errno, cut: &mut dyn FnMut()) {
        let Some(supervisor) = self.0.upgrade() else { return cut() };
        supervisor.parted.0.insert(file, errno);
        let (ready, is_ready) = channel();
        let processes = processes.to_vec();
        let started = std::thread::Builder::new().name("farewell".into()).stack_size(128 << 10).spawn(move || {
            follow(&supervisor, &processes, || {
                let _ = ready.send(());
            });
            supervisor.parted.0.remove(&file);
        });
        if started.is_ok() {
            // It comes, or the thread is gone.
            let _ = is_ready.recv();
        }
        cut();
    }
}

/// Traces processes until they have read the end; `ready` is called when all are asked to stop.
fn follow(supervisor: &Supervisor, processes: &[u32], ready: impl FnOnce()) {
    if umvu_sys::process::on_signal_interrupt(WAKES).is_err() {
        return ready();
    }
    let mut tracer = Tracer::new();
    {
        let _begins = supervisor.tracing.read_recursive();
        for tid in processes.iter().flat_map(|process| threads(*process)) {
            // Who is watched is told by who watches him.
            if let Err(errno) = tracer.seize(tid) {
                tracing::debug!(tid, %errno, "a guest is not told of an end");
            }
        }
    }
    let own: HashSet<u32> = tracer.threads().into_iter().collect();
    ready();
    let me = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).unwrap_or(0);
    let (over, is_over) = channel::<()>();
    // Without it a guest that never reads is traced to its end.
    let alarm = std::thread::Builder::new().name("farewell".into()).stack_size(64 << 10).spawn(move || {
        let mut wait = LONGEST;
        while is_over.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            let _ = umvu_sys::process::interrupt_thread(me, WAKES);
            wait = Duration::from_millis(1);
        }
    });
    if let Err(error) = alarm {
        tracing::debug!(%error, "a guest may be traced for longer than needed");
    }
    while let Some((tid, event)) = tracer.next_event() {
        if event == Event::Woken {
            // Who is traced by a thread that ends goes on: exit_ptrace of kernel/ptrace.c.
            break;
        }
        if let Err(errno) = take(supervisor, &mut tracer, &own, tid, event) {
            tracing::debug!(tid, %errno, "a guest that was to be told of an end is gone");
        }
    }
    drop(over);
}

fn take(supervisor: &Supervisor, tracer: &mut Tracer, own: &HashSet<u32>, tid: u32, event: Event) -> Result<(), Errno> {
    /// Calls after which a process may have one descriptor less: close, close_range, dup2, dup3.
    const CLOSE: [u64; 4] = [3, 436, 33, 292];
    match event {
        Event::Woken | Event::Gone => Ok(()),
        // What it has forked serves nothing.
        Event::Stop if !own.contains(&tid) && !shares_with(own, tid) => tracer.let_go(tid, 0),
        Event::Stop | Event::Exit => {
            let regs = tracer.regs(tid)?;
            if let Some(told) = supervisor.parted.instead(tid, &regs) {
                tracer.set_regs(tid, &told)?;
                return tracer.let_go(tid, 0);
            }
            let may_be_closed = event == Event::Stop || CLOSE.contains(&regs.orig_rax);
            if may_be_closed && !supervisor.parted.is_open_in(tid) {
                return tracer.let_go(tid, 0);
            }
            tracer.go_on(tid, 0)
        }
        Event::Entry | Event::Foreign => tracer.go_on(tid, 0),
        Event::Executed(_) => tracer.let_go(tid, 0),
        Event::Signal(signal) => tracer.go_on(tid, signal),
        Event::JobStop => tracer.listen(tid),
    }
}

/// What wakes a thread that waits for guests.
const WAKES: rustix::process::Signal = rustix::process::Signal::USR2;

fn threads(process: u32) -> Vec<u32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// Whether a thread is one of a process that these are threads of.
fn shares_with(own: &HashSet<u32>, tid: u32) -> bool {
    own.iter().any(|known| std::path::Path::new(&format!("/proc/{known}/task/{tid}")).exists())
}
