//! Descriptors that stand for directories (and other objects) which the kernel does not have.
//!
//! A placeholder is a deleted directory with an inode of its own, so `dup`, `fork`, `exec` and `SCM_RIGHTS` carry
//! it with no help, `read` gives `EISDIR`, and its file offset is the position in the listing. The inode's end is
//! told by inotify. Knows nothing of views.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use dashmap::DashMap;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::inotify;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, ResolveFlags};
use umvu_interface::{DirEntry, Errno, Result};

use crate::directory_lock::{DirectoryLock, Locks};
use crate::mount::Location;

/// What a placeholder stands for.
pub struct OpenDirectory {
    /// The directory (or whatever an `O_PATH` descriptor names).
    pub location: Location,
    /// The listing as it was when the reading began.
    pub listing: Mutex<Option<Arc<Vec<DirEntry>>>>,
    /// What flock(2) locks, once it was called.
    lock: Mutex<Option<Arc<DirectoryLock>>>,
}

/// A name and the host's path of the program that is executed under it.
type Alias = (Vec<u8>, Vec<u8>);

/// All placeholders.
pub struct Placeholders {
    place: OwnedFd,
    directory: PathBuf,
    /// Where files lie that may be executed, if the directory is no place for them.
    executables: Option<(OwnedFd, PathBuf)>,
    device: u64,
    inotify: OwnedFd,
    locks: Arc<Locks>,
    /// Whether a thread waits for placeholders to end.
    awaits_ends: AtomicBool,
    serial: AtomicU64,
    by_inode: DashMap<u64, Arc<OpenDirectory>>,
    by_watch: DashMap<i32, u64>,
    aliases: Mutex<HashMap<Alias, PathBuf>>,
    /// Programs that have been executed by the shortest path of all, a descriptor of ours.
    held: Mutex<HashMap<(u64, u64), OwnedFd>>,
}

impl Placeholders {
    /// Makes a private directory for them, where it costs least.
    ///
    /// # Errors
    /// No directory could be made anywhere.
    pub fn new() -> std::io::Result<Self> {
        let pid = std::process::id();
        let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
        let explain = |directory: &std::path::Path, errno: Errno| {
            std::io::Error::new(errno.kind(), format!("{}: {}", directory.display(), umvu_interface::cause(errno)))
        };
        for base in bases() {
            remove_abandoned_in(&base);
            let directory = base.join(format!("{PREFIX}{pid}-{:x}", nonce()));
            match Self::at(&directory) {
                Ok((place, device)) => {
                    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
                    let locks = Locks::new(rustix::io::fcntl_dupfd_cloexec(&place, 0)?);
                    return Ok(Self {
                        place,
                        locks,
                        awaits_ends: AtomicBool::new(false),
                        executables: if is_noexec(&base) { executables(pid) } else { None },
                        directory,
                        device,
                        inotify: inotify::init(flags)?,
                        serial: AtomicU64::new(0),
                        by_inode: DashMap::new(),
                        by_watch: DashMap::new(),
                        aliases: Mutex::default(),
                        held: Mutex::default(),
                    });
                }
                Err(errno) => last = explain(&directory, errno),
            }
        }
        Err(last)
    }

    fn at(directory: &std::path::Path) -> Result<(OwnedFd, u64)> {
        rustix::fs::mkdir(directory, Mode::RWXU)?;
        let place = rustix::fs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // Tells others that it is in use for as long as this process lives.
        rustix::fs::flock(&place, FlockOperation::NonBlockingLockExclusive)?;
        let device = rustix::fs::fstat(&place)?.st_dev;
        Ok((place, device))
    }

    /// Makes a directory for this supervisor alone, beside the placeholders or where what lies in it can be executed;
    /// what is left of it goes at the end.
    ///
    /// # Errors
    /// - `ENOSPC`, `EMFILE`: the host's.
    pub fn make_directory(&self) -> Result<(OwnedFd, PathBuf)> {
        let name = format!("{}", self.serial.fetch_add(1, Ordering::Relaxed));
        let (place, directory) = match &self.executables {
            Some((place, directory)) => (place, directory),
            None => (&self.place, &self.directory),
        };
        rustix::fs::mkdirat(place, &name, Mode::RWXU)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place, &name, flags, Mode::empty())?;
        Ok((fd, directory.join(name)))
    }

    /// Gives a path of the host that leads to `target` and ends in `name`: the kernel names a process after the path
    /// that it executes.
    ///
    /// # Errors
    /// - `ENOSPC`: the host's.
    pub fn alias(&self, name: &[u8], target: &[u8]) -> Result<PathBuf> {
        /// More than a user's programs; the oldest paths may still be about to be executed.
        const MOST: usize = 1 << 16;
        let mut aliases = self.aliases.lock();
        let key = (name.to_vec(), target.to_vec());
        if let Some(known) = aliases.get(&key) {
            return Ok(known.clone());
        }
        if aliases.len() >= MOST {
            return Err(Errno::NOSPC);
        }
        let (fd, mut path) = self.make_directory()?;
        rustix::fs::symlinkat(target, fd, name)?;
        path.push(std::ffi::OsStr::from_bytes(name));
        aliases.insert(key, path.clone());
        Ok(path)
    }

    /// Gives the shortest path of the host to an object, which names nothing.
    ///
    /// # Errors
    /// - `EMFILE`: the host's, or too many already.
    pub fn shortest(&self, object: BorrowedFd<'_>) -> Result<String> {
        const MOST: usize = 256;
        let stat = rustix::fs::fstat(object)?;
        let mut held = self.held.lock();
        let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        if let Some(known) = held.get(&(stat.st_dev, stat.st_ino)) {
            return Ok(path(known));
        }
        if held.len() >= MOST {
            return Err(Errno::MFILE);
        }
        let copy = rustix::io::fcntl_dupfd_cloexec(object, 0)?;
        let shortest = path(&copy);
        held.insert((stat.st_dev, stat.st_ino), copy);
        Ok(shortest)
    }

    /// Makes a placeholder; `flags` are those of the guest's open that stay with a descriptor.
    ///
    /// # Errors
    /// - `ENOSPC`, `EMFILE`, `ENFILE`, `ENOMEM`: the host's.
    pub fn make(&self, location: Location, flags: OFlags) -> Result<OwnedFd> {
        self.collect();
        let name = format!("d{}", self.serial.fetch_add(1, Ordering::Relaxed));
        rustix::fs::mkdirat(&self.place, &name, Mode::RWXU)?;
        let fd = self.open_and_watch(&name, location, flags);
        rustix::fs::unlinkat(&self.place, &name, AtFlags::REMOVEDIR)?;
        fd
    }

    fn open_and_watch(&self, name: &str, location: Location, flags: OFlags) -> Result<OwnedFd> {
        let keep = OFlags::PATH | OFlags::NONBLOCK | OFlags::NOATIME;
        let flags = (flags & keep) | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&self.place, name, flags, Mode::empty(), ResolveFlags::BENEATH)?;
        let inode = rustix::fs::fstat(&fd)?.st_ino;
        // A path through our own descriptor: the directory has a name only until the next call.
        let path = format!("/proc/self/fd/{}/{name}", self.place.as_raw_fd());
        let watch = inotify::add_watch(&self.inotify, path, inotify::WatchFlags::DELETE_SELF)?;
        let open = OpenDirectory { location, listing: Mutex::new(None), lock: Mutex::new(None) };
        self.by_inode.insert(inode, Arc::new(open));
        self.by_watch.insert(watch, inode);
        Ok(fd)
    }

    /// Finds what a descriptor stands for, given its `stat` numbers.
    pub fn find(&self, dev: u64, ino: u64) -> Option<Arc<OpenDirectory>> {
        if dev != self.device {
            return None;
        }
        self.by_inode.get(&ino).map(|o| o.clone())
    }

    /// What flock(2) on a placeholder locks.
    ///
    /// # Errors
    /// - `ENOSPC`, `EMFILE`, `ENFILE`: the host's.
    pub fn lock_of(self: &Arc<Self>, open: &OpenDirectory) -> Result<Arc<DirectoryLock>> {
        // Others that are closed have let go.
        self.drain();
        let mut lock = open.lock.lock();
        if let Some(known) = &*lock {
            return Ok(known.clone());
        }
        let new = Arc::new(self.locks.open(&open.location)?);
        *lock = Some(new.clone());
        drop(lock);
        self.await_ends();
        Ok(new)
    }

    /// Sees to it that a lock ends with its placeholder while somebody may wait for it: a thread looks from the first
    /// lock on.
    fn await_ends(self: &Arc<Self>) {
        if self.awaits_ends.swap(true, Ordering::AcqRel) {
            return;
        }
        let all = self.clone();
        let wait = move || loop {
            let mut fds = [PollFd::new(&all.inotify, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => all.drain(),
                Err(errno) => return tracing::warn!(%errno, "locks of directories may outlast their files"),
            }
        };
        if let Err(error) = std::thread::Builder::new().name("locks".into()).stack_size(128 << 10).spawn(wait) {
            tracing::warn!(%error, "locks of directories may outlast their files");
        }
    }

    /// Forgets placeholders whose last descriptor was closed.
    pub fn collect(&self) {
        if self.by_inode.len() >= 32 {
            self.drain();
        }
    }

    /// The same, however few there are.
    pub fn drain(&self) {
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let gone = inotify::ReadFlags::IGNORED | inotify::ReadFlags::DELETE_SELF;
            if event.events().intersects(gone) {
                if let Some((_, inode)) = self.by_watch.remove(&event.wd()) {
                    self.by_inode.remove(&inode);
                }
            }
        }
    }

    /// Forgets all of them: no guest is left.
    pub fn forget_all(&self) {
        self.by_inode.clear();
        self.held.lock().clear();
    }

    /// Whether no placeholder is open.
    pub fn is_empty(&self) -> bool {
        self.by_inode.is_empty()
    }

    /// Whether a placeholder stands for something in a mount.
    pub fn any_in(&self, mount: u64) -> bool {
        self.drain();
        self.by_inode.iter().any(|open| open.location.mount.id == mount)
    }

    /// Removes the private directories from the host.
    pub fn remove_directory(&self) {
        for directory in [Some(&self.directory), self.executables.as_ref().map(|(_, d)| d)].into_iter().flatten() {
            if let Err(errno) = std::fs::remove_dir_all(directory) {
                tracing::debug!(?directory, %errno, "private directory not removed");
            }
        }
    }
}

/// Whether nothing below a directory can be executed, nor mapped as code.
fn is_noexec(base: &std::path::Path) -> bool {
    rustix::fs::statvfs(base).is_ok_and(|fs| fs.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Makes a private directory below the first place that is not mounted `noexec`, as `/dev/shm` is in many containers.
fn executables(pid: u32) -> Option<(OwnedFd, PathBuf)> {
    let fit = bases().filter(|base| !is_noexec(base));
    fit.map(|base| base.join(format!("{PREFIX}{pid}-{:x}", nonce())))
        .find_map(|directory| Placeholders::at(&directory).ok().map(|(place, _)| (place, directory)))
}

const PREFIX: &str = ".umvu-";

/// Where private directories may be, the best place first.
fn bases() -> impl Iterator<Item = PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    [runtime, Some(PathBuf::from("/dev/shm")), Some(std::env::temp_dir())].into_iter().flatten()
}

/// Removes what supervisors that were killed have left.
pub fn remove_abandoned() {
    for base in bases() {
        remove_abandoned_in(&base);
    }
}

fn remove_abandoned_in(base: &std::path::Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        // Neither a process with that number, nor one in another container, holds it.
        let Some(pid) = owner.filter(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) else { continue };
        let directory = entry.path();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(held) = rustix::fs::open(&directory, flags, Mode::empty()) else { continue };
        if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
            if let Err(error) = std::fs::remove_dir_all(&directory) {
                tracing::debug!(pid, %error, "abandoned directory not removed");
            }
        }
    }
}

fn nonce() -> u64 {
    let mut bytes = [0u8; 8];
    match rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) {
        Ok(_) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}
