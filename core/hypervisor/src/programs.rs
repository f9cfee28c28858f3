//! Programs that run through the loader: which one a process has become, and what a loader that asks is to load.
//!
//! The kernel keeps who runs what: each program has a loader of its own, a memfd whose inode `/proc/PID/exe` leads
//! to, so fork needs no help and the table has one row for each program, not for each process. What was arranged for
//! a process lives from its execve(2) until its loader asks. Knows no format and no identity's rules.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{fcntl_add_seals, memfd_create, MemfdFlags, SealFlags};
use umvu_interface::{Credentials, Errno, InodeRef, Result};
use umvu_loader::plan::{Plan, Segment};

use crate::mount::Location;

/// More than a user's programs; then those that nobody runs are forgotten.
const MANY: usize = 512;

/// A program that runs through the loader.
pub struct Program {
    /// Where it is.
    pub place: Location,
    /// By which path it was executed first.
    pub shown: Vec<u8>,
    /// Its own loader.
    image: OwnedFd,
    /// Inode of the loader.
    inode: u64,
}

impl Program {
    /// Its loader.
    pub fn image(&self) -> BorrowedFd<'_> {
        self.image.as_fd()
    }

    /// The shortest path by which a guest executes its loader.
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

/// All programs.
#[derive(Default)]
pub struct Programs {
    inner: Mutex<Inner>,
}

/// What makes two programs the same. An inode alone has several names where it has links, and others after a rename;
/// its number is nobody else's for as long as the place of the program is kept.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    mount: u64,
    id: (u64, u64),
    path: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    /// Device of the loaders' inodes.
    device: u64,
    by_place: HashMap<Key, u64>,
    by_inode: HashMap<u64, Arc<Program>>,
    orders: HashMap<u32, Vec<Order>>,
}

impl Programs {
    /// Gives the program at a place, with a loader of its own.
    ///
    /// # Errors
    /// - `ENFILE`, `EMFILE`, `ENOMEM`: the host's.
    pub fn at(&self, place: &Location, shown: &[u8]) -> Result<Arc<Program>> {
        let path = place.inode.path().unwrap_or_default();
        let key = Key { mount: place.mount.id, id: place.inode.id()?, path };
        let mut inner = self.inner.lock();
        if let Some(known) = inner.by_place.get(&key).and_then(|inode| inner.by_inode.get(inode)) {
            return Ok(known.clone());
        }
        if inner.by_inode.len() >= MANY {
            inner.forget_unused();
        }
        let image = make_image(shown)?;
        let stat = rustix::fs::fstat(&image)?;
        let program = Arc::new(Program { place: place.clone(), shown: shown.to_vec(), image, inode: stat.st_ino });
        inner.device = stat.st_dev;
        inner.by_place.insert(key, stat.st_ino);
        inner.by_inode.insert(stat.st_ino, program.clone());
        Ok(program)
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
    }

    /// Forgets everything.
    pub fn clear(&self) {
        *self.inner.lock() = Inner::default();
    }
}

impl Inner {
    fn forget_unused(&mut self) {
        let running = running(self.device);
        let ordered: Vec<u64> = self.orders.values().flatten().map(|o| o.program.inode).collect();
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

/// Makes a memfd with the loader in it, named for people after the program.
fn make_image(shown: &[u8]) -> Result<OwnedFd> {
    /// `MFD_NAME_MAX_LEN` of mm/memfd.c, without room for what is put in front.
    const NAME_MAX: usize = 240;
    let name: Vec<u8> = [b"umvu:", shown.get(..NAME_MAX).unwrap_or(shown)].concat();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = match memfd_create(&name[..], flags | MemfdFlags::EXEC) {
        // Linux before 6.3 makes all of them executable.
        Err(Errno::INVAL) => memfd_create(&name[..], flags)?,
        other => other?,
    };
    let mut rest = umvu_loader::IMAGE;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    // The kernel executes nothing that is open for writing, and a memfd is.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    let readable = rustix::fs::open(format!("/proc/self/fd/{}", file.as_raw_fd()), flags, rustix::fs::Mode::empty())?;
    Ok(readable)
}
