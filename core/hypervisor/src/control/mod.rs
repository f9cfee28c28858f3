//! Texts that guests have open, and files whose writes are answered by their file system.
//!
//! The filter lets write(2) through, so a guest with such a descriptor is traced for as long as it has it: `watch`.
//! What it has is a sealed memfd with the text in it: a write that nobody sees fails with `EPERM`. Knows no particular
//! file.

mod watch;
mod write;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::{inotify, MemfdFlags, Mode, OFlags, SealFlags};
use umvu_interface::{Control, Errno, Result, TextFile};
use umvu_sys::redirect::Regs;
use umvu_sys::seccomp::CloseOnExec;

use crate::call::{Call, Fail, Outcome, Reply};
use crate::mount::Location;

/// An open text.
pub struct OpenText {
    /// The file.
    pub location: Location,
    /// Who takes what is written.
    pub control: Option<Arc<dyn Control>>,
}

/// What is done to the registers of a thread when it has returned from its call.
type AtReturn = Box<dyn FnOnce(&Regs) -> Regs + Send>;

/// All open texts, and the threads that are traced for one.
pub struct Controls {
    inotify: OwnedFd,
    by_inode: DashMap<(u64, u64), Arc<OpenText>>,
    by_watch: DashMap<i32, (u64, u64)>,
    watched: DashMap<u32, Mutex<Option<AtReturn>>>,
}

impl Controls {
    /// Makes an empty list.
    ///
    /// # Errors
    /// - `EMFILE`: the host's.
    pub fn new() -> Result<Self> {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        Ok(Self {
            inotify: inotify::init(flags)?,
            by_inode: DashMap::new(),
            by_watch: DashMap::new(),
            watched: DashMap::new(),
        })
    }

    /// Finds an open text, given the `stat` numbers of its descriptor.
    pub fn find(&self, dev: u64, ino: u64) -> Option<Arc<OpenText>> {
        self.by_inode.get(&(dev, ino)).map(|open| open.clone())
    }

    /// Whether a text of a mount is open.
    pub fn any_in(&self, mount: u64) -> bool {
        self.collect();
        self.by_inode.iter().any(|open| open.location.mount.id == mount)
    }

    /// Has `change` made to the registers of a thread when it has returned from its call, if it is traced here;
    /// gives it back otherwise.
    pub fn at_return<F: FnOnce(&Regs) -> Regs + Send + 'static>(&self, tid: u32, change: F) -> Option<F> {
        match self.watched.get(&tid) {
            Some(job) => {
                *job.lock() = Some(Box::new(change));
                None
            }
            None => Some(change),
        }
    }

    /// Makes a descriptor of a text.
    fn make(&self, place: &Location, text: &TextFile, flags: OFlags) -> Result<OwnedFd> {
        self.collect();
        let file = rustix::fs::memfd_create("umvu:text", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut rest = &text.content[..];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest)?..];
        }
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let path = crate::guest::proc_path(file.as_fd());
        let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOATIME;
        let opened = rustix::fs::open(&path, (flags & kept) | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&opened)?;
        let watch = inotify::add_watch(&self.inotify, &path, inotify::WatchFlags::DELETE_SELF)?;
        let open = OpenText { location: place.clone(), control: text.control.clone() };
        self.by_inode.insert((stat.st_dev, stat.st_ino), Arc::new(open));
        self.by_watch.insert(watch, (stat.st_dev, stat.st_ino));
        Ok(opened)
    }

    /// Forgets texts whose last descriptor was closed.
    fn collect(&self) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            if let Some((_, inode)) = self.by_watch.remove(&event.wd()) {
                self.by_inode.remove(&inode);
            }
        }
    }
}

/// Opens a text for a guest; one with a control has the guest watched.
///
/// # Errors
/// - `EPERM`: the file takes writes, and the guest is traced by somebody else.
/// - `EMFILE`, `ENFILE`, `ENOMEM`: the host's.
pub fn open(call: &Call, place: &Location, text: &TextFile, flags: OFlags, cloexec: CloseOnExec) -> Outcome {
    let controls = &call.supervisor.controls;
    let fd = controls.make(place, text, flags)?;
    if text.control.is_none() || controls.watched.contains_key(&call.tid()) {
        return Ok(Reply::Descriptor(fd, cloexec));
    }
    let name = place.inode.path().unwrap_or_default();
    Ok(Reply::Aside(Box::new(move |call| match watch::Watch::begin(call) {
        Ok(watch) => {
            call.answer(Ok(Reply::Descriptor(fd, cloexec)));
            watch.run();
            Ok(Reply::Answered)
        }
        Err(Errno::SRCH) => Err(Fail::Gone),
        Err(errno) => {
            tracing::warn!(
                tid = call.tid(),
                file = %name.escape_ascii(),
                %errno,
                "not opened for writing: the process is traced by another"
            );
            Err(errno.into())
        }
    })))
}
