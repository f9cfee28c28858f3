//! Files that guests have open and that the kernel does not have: texts, files whose writes are answered by their file
//! system, devices, and files of the host that are attended to.
//!
//! The filter lets read(2) and write(2) through, so a guest with such a descriptor is traced for as long as it has it:
//! `watch`. `transfer` reads what a call is from its registers; `text` and `device` answer it. What the guest has is a
//! sealed memfd: with the text in it, or, for a device, empty, which keeps the position. A write that nobody sees fails
//! with `EPERM`, and a read of a device finds its end. Knows no particular file.

mod attend;
mod device;
mod text;
mod transfer;
mod watch;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::fs::{inotify, MemfdFlags, Mode, OFlags, SealFlags};
use umvu_interface::{Attendant, Control, Errno, OpenDevice, Result, TextFile};
use umvu_sys::redirect::Regs;
use umvu_sys::seccomp::CloseOnExec;
use umvu_table::i386::Abi;

use crate::call::{Call, Fail, Outcome, Reply};
use crate::mount::Location;

pub use device::ioctl;
use device::DeviceFile;

/// An open file of these.
pub struct OpenFile {
    /// What was opened.
    pub location: Location,
    /// Who answers its calls.
    served: Served,
}

/// Who answers the calls of an open file.
enum Served {
    /// The kernel, all of them: it is a text that was opened for reading.
    Kernel,
    /// Its file system, those that write.
    Control(Arc<dyn Control>),
    /// A device.
    Device(DeviceFile),
}

impl OpenFile {
    /// Whether those who have it must be watched.
    fn is_watched(&self) -> bool {
        match self.served {
            Served::Kernel => false,
            Served::Control(_) | Served::Device(_) => true,
        }
    }
}

/// What is done to the registers of a thread when it has returned from its call.
type AtReturn = Box<dyn FnOnce(&Regs) -> Regs + Send>;

/// All open files of these, and the threads that are traced for one.
pub struct Controls {
    inotify: OwnedFd,
    by_inode: DashMap<(u64, u64), Arc<OpenFile>>,
    by_watch: DashMap<i32, (u64, u64)>,
    watched: DashMap<u32, Mutex<Option<AtReturn>>>,
    /// Files of the host that are attended to.
    attended: DashMap<(u64, u64), Arc<dyn Attendant>>,
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
            attended: DashMap::new(),
        })
    }

    /// Whether nobody has such a file open.
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    /// Finds an open file, given the `stat` numbers of its descriptor.
    pub fn find(&self, dev: u64, ino: u64) -> Option<Arc<OpenFile>> {
        self.by_inode.get(&(dev, ino)).map(|open| open.clone())
    }

    /// Whether such a file of a mount is open.
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

    /// Makes a descriptor with `content` in it.
    fn make(&self, place: &Location, content: &[u8], served: Served, flags: OFlags) -> Result<OwnedFd> {
        self.collect();
        let file = rustix::fs::memfd_create("umvu:text", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut rest = content;
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(&file, rest)?..];
        }
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        let path = crate::guest::proc_path(file.as_fd());
        let kept = OFlags::ACCMODE | OFlags::APPEND | OFlags::NONBLOCK | OFlags::NOATIME | OFlags::SYNC | OFlags::DSYNC;
        let opened = rustix::fs::open(&path, (flags & kept) | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&opened)?;
        let watch = inotify::add_watch(&self.inotify, &path, inotify::WatchFlags::DELETE_SELF)?;
        let open = OpenFile { location: place.clone(), served };
        self.by_inode.insert((stat.st_dev, stat.st_ino), Arc::new(open));
        self.by_watch.insert(watch, (stat.st_dev, stat.st_ino));
        Ok(opened)
    }

    /// Forgets files whose last descriptor was closed.
    pub fn collect(&self) {
        if self.by_watch.is_empty() {
            return;
        }
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            if let Some((_, inode)) = self.by_watch.remove(&event.wd()) {
                self.by_inode.remove(&inode);
            }
        }
    }

    /// Whether a thread has a descriptor for which it is watched.
    fn watches(&self, tid: u32) -> bool {
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{tid}/fd")) else { return false };
        descriptors.flatten().any(|entry| {
            let Ok(stat) = rustix::fs::stat(entry.path()) else { return false };
            let number = (stat.st_dev, stat.st_ino);
            let is_attended = || self.attended.get(&number).is_some_and(|file| !file.is_done());
            self.find(stat.st_dev, stat.st_ino).is_some_and(|open| open.is_watched()) || is_attended()
        })
    }
}

/// Opens a text for a guest; one with a control has the guest watched.
///
/// # Errors
/// Those of [`open_device`].
pub fn open(call: &Call, place: &Location, text: &TextFile, flags: OFlags, cloexec: CloseOnExec) -> Outcome {
    let served = text.control.clone().map_or(Served::Kernel, Served::Control);
    hand_out(call, place, &text.content, served, flags, cloexec)
}

/// Opens a device for a guest, and has it watched.
///
/// # Errors
/// - `EPERM`: the guest is traced by somebody else.
/// - `EMFILE`, `ENFILE`, `ENOMEM`: the host's.
pub fn open_device(
    call: &Call,
    place: &Location,
    device: Arc<dyn OpenDevice>,
    flags: OFlags,
    cloexec: CloseOnExec,
) -> Outcome {
    hand_out(call, place, b"", Served::Device(DeviceFile::new(device, flags)), flags, cloexec)
}

/// Gives a guest a file that is attended to, and has it watched for as long as that is needed.
///
/// # Errors
/// - `EMFILE`, `ENFILE`, `ENOMEM`: the host's.
/// - what its content could not be brought for.
pub fn open_attended(call: &Call, fd: OwnedFd, file: Arc<dyn Attendant>, cloexec: CloseOnExec) -> Outcome {
    let controls = &call.supervisor.controls;
    controls.attended.retain(|_, known| !known.is_done());
    // Calls of 32-bit programs are not understood.
    if call.request.abi != Abi::X86_64 {
        return Ok(Reply::Aside(Box::new(move |_| all_of(fd, &*file, cloexec))));
    }
    let stat = rustix::fs::fstat(&fd)?;
    controls.attended.insert((stat.st_dev, stat.st_ino), file.clone());
    if controls.watched.contains_key(&call.tid()) {
        return Ok(Reply::Descriptor(fd, cloexec));
    }
    Ok(Reply::Aside(Box::new(move |call| match watch::Watch::begin(call) {
        Ok(watch) => {
            call.answer(Ok(Reply::Descriptor(fd, cloexec)));
            watch.run();
            Ok(Reply::Answered)
        }
        Err(Errno::SRCH) => Err(Fail::Gone),
        // Somebody else traces it.
        Err(_) => all_of(fd, &*file, cloexec),
    })))
}

fn all_of(fd: OwnedFd, file: &dyn Attendant, cloexec: CloseOnExec) -> Outcome {
    file.fill(0, u64::MAX)?;
    Ok(Reply::Descriptor(fd, cloexec))
}

fn hand_out(
    call: &Call,
    place: &Location,
    content: &[u8],
    served: Served,
    flags: OFlags,
    cloexec: CloseOnExec,
) -> Outcome {
    let controls = &call.supervisor.controls;
    let is_watched = !matches!(served, Served::Kernel);
    let fd = controls.make(place, content, served, flags)?;
    if !is_watched || controls.watched.contains_key(&call.tid()) {
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
                "not opened: the process is traced by another"
            );
            Err(errno.into())
        }
    })))
}
