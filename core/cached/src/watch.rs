//! When files are written back: when a descriptor that could write to one is closed, and every few seconds. Knows nothing
//! of how.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::inotify;
use umvu_interface::{Errno, Result};

use crate::content::State;
use crate::fs::CachedFs;
use crate::node::Node;

/// How long a change stays in a backing alone while the file is open: `dirty_writeback_centisecs` of the kernel.
const INTERVAL: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The watch over the closing of files; begins with the first file that is written.
#[derive(Default)]
pub struct Watch(OnceLock<Option<Arc<Watching>>>);

struct Watching {
    inotify: OwnedFd,
    /// Wakes the thread.
    bell: OwnedFd,
    is_over: AtomicBool,
    /// Whether the thread waits without an end.
    is_idle: AtomicBool,
    by_number: Mutex<HashMap<i32, u64>>,
}

impl Watching {
    fn start(fs: Weak<CachedFs>) -> Result<Arc<Self>> {
        let watching = Arc::new(Self {
            inotify: inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?,
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            is_over: AtomicBool::new(false),
            is_idle: AtomicBool::new(false),
            by_number: Mutex::default(),
        });
        let own = watching.clone();
        let thread = std::thread::Builder::new().name("write back".into()).stack_size(256 << 10);
        thread.spawn(move || own.run(&fs)).map_err(|_| Errno::AGAIN)?;
        Ok(watching)
    }

    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    fn run(&self, fs: &Weak<CachedFs>) {
        let mut is_idle = false;
        loop {
            let mut fds = [PollFd::new(&self.inotify, PollFlags::IN), PollFd::new(&self.bell, PollFlags::IN)];
            let found = poll(&mut fds, if is_idle { None } else { Some(&INTERVAL) });
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            let Some(fs) = fs.upgrade() else { return };
            match found {
                Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::warn!(%errno, "files are no longer written back when they are closed");
                    return;
                }
                Ok(0) => {
                    fs.write_back_what_is_open();
                    self.is_idle.store(true, Ordering::SeqCst);
                    is_idle = !fs.shelf.all().iter().any(|entry| entry.node.content.is_live());
                    self.is_idle.store(is_idle, Ordering::SeqCst);
                }
                Ok(_) => {
                    is_idle = false;
                    self.is_idle.store(false, Ordering::SeqCst);
                    let _ = rustix::io::read(&self.bell, &mut [0; 8]);
                    self.closed().into_iter().filter_map(|serial| fs.shelf.find(serial)).for_each(|entry| {
                        if entry.node.is_removed() {
                            fs.give_up(&entry.node);
                        } else {
                            fs.write_back_unasked(&entry.node);
                        }
                    });
                }
            }
        }
    }

    /// Takes the files that were closed, each once.
    fn closed(&self) -> Vec<u64> {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut closed = Vec::new();
        let mut by_number = self.by_number.lock();
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::IGNORED) {
                by_number.remove(&event.wd());
            } else if let Some(serial) = by_number.get(&event.wd()).filter(|serial| !closed.contains(*serial)) {
                closed.push(*serial);
            }
        }
        closed
    }
}

impl Watch {
    /// Ends it.
    pub fn end(&self) {
        if let Some(Some(watching)) = self.0.get() {
            watching.is_over.store(true, Ordering::Release);
            watching.ring();
        }
    }
}

impl CachedFs {
    /// Sees to it that a file is written back when it is closed.
    pub(crate) fn watch_closing(&self, node: &Node, state: &mut State) {
        let start = || {
            let started = Watching::start(self.weak());
            if let Err(errno) = &started {
                tracing::warn!(%errno, "files are written back at fsync and umount only");
            }
            started.ok()
        };
        let Some(watching) = self.watch.0.get_or_init(start) else { return };
        let is_removed = node.is_removed();
        if state.watch.is_none() || is_removed {
            let closes = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::CLOSE_NOWRITE;
            // Who only reads matters once the file is removed.
            let wanted = if is_removed { closes } else { inotify::WatchFlags::CLOSE_WRITE };
            let number = self.shelf.path(node.serial).and_then(|path| {
                let mut by_number = watching.by_number.lock();
                let number = inotify::add_watch(&watching.inotify, path, wanted)?;
                by_number.insert(number, node.serial);
                Ok(number)
            });
            match number {
                Ok(number) => state.watch = Some(number),
                Err(errno) => tracing::warn!(%errno, "a file is not written back when it is closed"),
            }
        }
        if watching.is_idle.load(Ordering::SeqCst) {
            watching.ring();
        }
    }
}
