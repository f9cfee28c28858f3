//! Programs that run through the loader, or as copies: which one a process has become, and what a loader that asks is to
//! load.
//!
//! The kernel keeps who runs what: each program has a loader or a copy of its own, a memfd whose inode `/proc/PID/exe`
//! leads to, so fork needs no help and the table has one row for each program, not for each process. What was arranged
//! for a process lives from its execve(2) until its loader asks, or until the first notified call of a copy. Knows no
//! format and no identity's rules.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use umvu_interface::{Credentials, Errno, InodeRef, Result};
use umvu_loader::plan::{Plan, Segment};

use crate::handlers::exec::NamePlace;
use crate::mount::Location;

/// More than a user's programs; then those that nobody runs are forgotten.
const MANY: usize = 512;
/// Most bytes of all copies together. Files may have holes, copies have not.
const COPIES_MAX: u64 = 1 << 30;

/// A program that runs through the loader, or as a copy.
pub struct Program {
    /// Where it is.
    pub place: Location,
    /// By which path it was executed first.
    pub shown: Vec<u8>,
    /// Its own loader, or the copy.
    image: OwnedFd,
    /// Inode of the image.
    inode: u64,
    /// Where the copy had another name of its interpreter.
    pub name: Option<NamePlace>,
    /// Bytes of the copy.
    size: u64,
}

impl Program {
    /// Its loader, or the copy.
    pub fn image(&self) -> BorrowedFd<'_> {
        self.image.as_fd()
    }

    /// The shortest path by which a guest executes its loader, or the copy.
    pub fn loader_path(&self) -> Vec<u8> {
        format!("/proc/{}/fd/{}", std::process::id(), self.image.as_raw_fd()).into_bytes()
    }
}

/// What a loader is to load.
pub struct Order {
    /// The program.
    pub program: Arc<Program>,
    /// Its file, and that of its interpreter.
    pub files: (OwnedFd, Option<OwnedFd>),
    /// The file that the program is the interpreter of, if it gets that.
    pub binary: Option<OwnedFd>,
    /// The plan, but for the descriptors' numbers.
    pub plan: Plan,
    /// The segments of both.
    pub segments: Vec<Segment>,
    /// Path, and arguments to come first.
    pub strings: Vec<u8>,
    /// The identity that the process takes.
    pub credentials: Option<Arc<Credentials>>,
}

/// What is to be put right in a process once it runs a copy.
pub struct Fresh {
    /// The program.
    pub program: Arc<Program>,
    /// The path that it was executed by.
    pub path: Vec<u8>,
}

/// All programs.
#[derive(Default)]
pub struct Programs {
    inner: Mutex<Inner>,
    /// Whether something is to be put right somewhere.
    has_fresh: AtomicBool,
}

/// What makes two programs the same. An inode alone has several names where it has links, and others after a rename;
/// its number is nobody else's for as long as the place of the program is kept.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    mount: u64,
    id: (u64, u64),
    path: Vec<u8>,
    copy: Option<CopyOf>,
}

/// What makes two copies of a program the same.
#[derive(PartialEq, Eq, Hash)]
struct CopyOf {
    /// What it has for the name of its interpreter.
    name: Vec<u8>,
    version: Version,
}

/// What changes when a file does: size, time of the change of the content and of the inode.
type Version = (u64, [i64; 2], [u64; 2]);

fn version(stat: &rustix::fs::Stat) -> Result<Version> {
    let size = u64::try_from(stat.st_size).map_err(|_| Errno::INVAL)?;
    Ok((size, [stat.st_mtime, stat.st_ctime], [stat.st_mtime_nsec, stat.st_ctime_nsec]))
}

#[derive(Default)]
struct Inner {
    /// Device of the loaders' inodes.
    device: u64,
    by_place: HashMap<Key, u64>,
    by_inode: HashMap<u64, Arc<Program>>,
    orders: HashMap<u32, Vec<Order>>,
    fresh: HashMap<u32, Fresh>,
    /// Copies of interpreters, by device, inode and version.
    interpreters: HashMap<(u64, u64, Version), Arc<OwnedFd>>,
}

impl Programs {
    /// Gives the program at a place, with a loader of its own.
    ///
    /// # Errors
    /// - `ENFILE`, `EMFILE`, `ENOMEM`: the host's.
    pub fn at(&self, place: &Location, shown: &[u8]) -> Result<Arc<Program>> {
        let path = place.inode.path().unwrap_or_default();
        let key = Key { mount: place.mount.id, id: place.inode.id()?, path, copy: None };
        let mut inner = self.inner.lock();
        if let Some(known) = inner.known(&key) {
            return Ok(known);
        }
        if inner.by_inode.len() >= MANY {
            inner.forget_unused();
        }
        let image = make_file(shown, |file| {
            let mut rest = umvu_loader::IMAGE;
            while !rest.is_empty() {
                rest = &rest[rustix::io::write(file, rest)?..];
            }
            Ok(())
        })?;
        inner.add(key, (place, shown), image, None, 0)
    }

    /// Gives a copy of the program at a place, whose content is in `file`, with another name of its interpreter.
    ///
    /// # Errors
    /// - `ENOMEM`: it is too large, or there are too many.
    /// - `EPERM`: there is no room for the name.
    /// - `ENFILE`, `EMFILE`: the host's.
    pub fn copied(
        &self,
        place: &Location,
        shown: &[u8],
        file: &OwnedFd,
        at: &NamePlace,
        name: &[u8],
    ) -> Result<Arc<Program>> {
        let version = version(&rustix::fs::fstat(file)?)?;
        let size = version.0;
        let copy = Some(CopyOf { name: name.to_vec(), version });
        let path = place.inode.path().unwrap_or_default();
        let key = Key { mount: place.mount.id, id: place.inode.id()?, path, copy };
        let mut inner = self.inner.lock();
        if let Some(known) = inner.known(&key) {
            return Ok(known);
        }
        if inner.by_inode.len() >= MANY || inner.copied().saturating_add(size) > COPIES_MAX {
            inner.forget_unused();
        }
        if inner.copied().saturating_add(size) > COPIES_MAX {
            return Err(Errno::NOMEM);
        }
        let image = make_file(shown, |copy| {
            fill(copy, file, size)?;
            at.write(copy, name)
        })?;
        inner.add(key, (place, shown), image, Some(at.clone()), size)
    }

    /// Gives a copy of an interpreter that can be executed.
    ///
    /// # Errors
    /// - `ENOMEM`: it is too large.
    /// - `ENFILE`, `EMFILE`: the host's.
    pub fn interpreter(&self, file: &OwnedFd) -> Result<Arc<OwnedFd>> {
        /// More than an interpreter has.
        const LARGE: u64 = 32 << 20;
        const FEW: usize = 32;
        let stat = rustix::fs::fstat(file)?;
        let version = version(&stat)?;
        let key = (stat.st_dev, stat.st_ino, version);
        let mut inner = self.inner.lock();
        if let Some(known) = inner.interpreters.get(&key) {
            return Ok(known.clone());
        }
        if version.0 > LARGE {
            return Err(Errno::NOMEM);
        }
        if inner.interpreters.len() >= FEW {
            inner.interpreters.clear();
        }
        let copy = Arc::new(make_file(b"interpreter", |copy| fill(copy, file, version.0))?);
        inner.interpreters.insert(key, copy.clone());
        Ok(copy)
    }

    /// Keeps what is to be put right in process `pid` when it runs a copy.
    pub fn settle_later(&self, pid: u32, fresh: Fresh) {
        const FEW: usize = 64;
        let mut inner = self.inner.lock();
        if inner.fresh.len() >= FEW {
            inner.fresh.retain(|pid, _| std::path::Path::new(&format!("/proc/{pid}")).exists());
        }
        inner.fresh.insert(pid, fresh);
        self.has_fresh.store(true, Ordering::Release);
    }

    /// Takes what is to be put right in process `pid`, if it runs the copy by now.
    pub fn take_fresh(&self, pid: u32) -> Option<Fresh> {
        if !self.has_fresh.load(Ordering::Acquire) {
            return None;
        }
        let expected = self.inner.lock().fresh.get(&pid)?.program.inode;
        let running = self.of_process(pid)?;
        if running.inode != expected {
            return None;
        }
        let mut inner = self.inner.lock();
        let fresh = inner.fresh.remove(&pid);
        self.has_fresh.store(!inner.fresh.is_empty(), Ordering::Release);
        fresh
    }

    /// Finds a program by what `stat` says of the loader, as `/proc/PID/exe` leads to it.
    pub fn find(&self, device: u64, inode: u64) -> Option<Arc<Program>> {
        let inner = self.inner.lock();
        inner.by_inode.get(&inode).filter(|_| inner.device == device).cloned()
    }

    /// Finds what a process runs, if that came through the loader.
    pub fn of_process(&self, pid: u32) -> Option<Arc<Program>> {
        let exe = rustix::fs::stat(format!("/proc/{pid}/exe")).ok()?;
        self.find(exe.st_dev, exe.st_ino)
    }

    /// Keeps an order until the loader of process `pid` asks. Those of processes that were not executed after all go
    /// with the next ones.
    pub fn expect(&self, pid: u32, order: Order) {
        const FEW: usize = 8;
        let mut inner = self.inner.lock();
        if inner.orders.len() >= FEW {
            inner.orders.retain(|pid, _| std::path::Path::new(&format!("/proc/{pid}")).exists());
        }
        let orders = inner.orders.entry(pid).or_default();
        // One for each thread that executes the same or another program at the same moment.
        if orders.len() >= FEW {
            orders.remove(0);
        }
        orders.push(order);
    }

    /// Takes back what was kept last for process `pid`.
    pub fn withdraw(&self, pid: u32) -> Option<Order> {
        self.inner.lock().orders.get_mut(&pid)?.pop()
    }

    /// Takes the order for the loader that process `pid` runs.
    pub fn take(&self, pid: u32) -> Option<Order> {
        let running = self.of_process(pid)?;
        let orders = self.inner.lock().orders.remove(&pid)?;
        orders.into_iter().rfind(|order| order.program.inode == running.inode)
    }

    /// Refuses to have a program written that somebody runs: `deny_write_access` of `fs/exec.c`, which the kernel does
    /// for the loader only.
    ///
    /// # Errors
    /// - `ETXTBSY`: it runs.
    /// - others: it cannot be looked at.
    pub fn may_be_written(&self, inode: &InodeRef) -> Result<()> {
        let (device, loaders) = {
            let inner = self.inner.lock();
            if inner.by_place.is_empty() {
                return Ok(());
            }
            let id = inode.id()?;
            let loaders: Vec<u64> = inner.by_place.iter().filter(|(key, _)| key.id == id).map(|(_, l)| *l).collect();
            (inner.device, loaders)
        };
        if loaders.is_empty() || !running(device).iter().any(|inode| loaders.contains(inode)) {
            return Ok(());
        }
        Err(Errno::TXTBSY)
    }

    /// Forgets the programs of a mount that leaves: those that run go on, without a place.
    pub fn forget_mount(&self, mount: u64) {
        let mut inner = self.inner.lock();
        inner.by_inode.retain(|_, program| program.place.mount.id != mount);
        inner.orders.retain(|_, orders| orders.iter().all(|o| o.program.place.mount.id != mount));
        inner.by_place.retain(|key, _| key.mount != mount);
        inner.fresh.retain(|_, fresh| fresh.program.place.mount.id != mount);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }
}

impl Inner {
    fn known(&self, key: &Key) -> Option<Arc<Program>> {
        self.by_place.get(key).and_then(|inode| self.by_inode.get(inode)).cloned()
    }

    fn add(
        &mut self,
        key: Key,
        (place, shown): (&Location, &[u8]),
        image: OwnedFd,
        name: Option<NamePlace>,
        size: u64,
    ) -> Result<Arc<Program>> {
        let stat = rustix::fs::fstat(&image)?;
        let (place, shown) = (place.clone(), shown.to_vec());
        let program = Arc::new(Program { place, shown, image, inode: stat.st_ino, name, size });
        self.device = stat.st_dev;
        self.by_place.insert(key, stat.st_ino);
        self.by_inode.insert(stat.st_ino, program.clone());
        Ok(program)
    }

    /// Bytes of all copies.
    fn copied(&self) -> u64 {
        self.by_inode.values().fold(0, |sum, program| sum.saturating_add(program.size))
    }

    fn forget_unused(&mut self) {
        let running = running(self.device);
        let ordered = self.orders.values().flatten().map(|o| &o.program);
        let ordered: Vec<u64> =
            ordered.chain(self.fresh.values().map(|f| &f.program)).map(|program| program.inode).collect();
        self.by_inode.retain(|inode, _| running.contains(inode) || ordered.contains(inode));
        let by_inode = &self.by_inode;
        self.by_place.retain(|_, inode| by_inode.contains_key(inode));
    }
}

/// The inodes of all programs that run and are on a device.
fn running(device: u64) -> Vec<u64> {
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = processes.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let stats = pids.filter_map(|pid| rustix::fs::stat(format!("/proc/{pid}/exe")).ok());
    stats.filter(|s| s.st_dev == device).map(|s| s.st_ino).collect()
}

/// Copies the beginning of a file.
fn fill(copy: &OwnedFd, file: &OwnedFd, size: u64) -> Result<()> {
    let mut at = 0;
    while at < size {
        let count = usize::try_from(size - at).unwrap_or(usize::MAX);
        if rustix::fs::sendfile(copy, file, Some(&mut at), count)? == 0 {
            // It has become shorter.
            return Err(Errno::TXTBSY);
        }
    }
    Ok(())
}

/// Makes a memfd that can be executed, named for people after the program.
fn make_file(shown: &[u8], fill: impl FnOnce(&OwnedFd) -> Result<()>) -> Result<OwnedFd> {
    /// `MFD_NAME_MAX_LEN` of mm/memfd.c, without room for what is put in front.
    const NAME_MAX: usize = 240;
    let name: Vec<u8> = [b"umvu:", shown.get(..NAME_MAX).unwrap_or(shown)].concat();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(&name[..], flags | MemfdFlags::EXEC) {
        // Linux before 6.3 makes all of them executable.
        Err(Errno::INVAL) => memfd_create(&name[..], flags)?,
        other => other?,
    };
    fill(&file)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    // The kernel executes nothing that is open for writing, and a memfd is.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let readable = rustix::fs::open(format!("/proc/self/fd/{}", file.as_raw_fd()), flags, rustix::fs::Mode::empty())?;
    Ok(readable)
}
