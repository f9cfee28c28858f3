//! The host's procfs with the guest's truth: whose `self` it is, where its links lead. The texts that must differ
//! are made in `text`. Knows nothing of mounts and views.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use umvu_interface::{
    Caller, Creation, DirEntry, Errno, FileKind, Filesystem, FsStat, Inode, InodeRef, Name, Opened, Result, SetAttr,
    Stat, Timestamp,
};

use crate::mount::Location;
use crate::namespace::{Link, PidNamespace};
use crate::supervisor::Supervisor;

mod maps;
mod numbers;
pub mod text;

/// Where a link of `/proc` leads.
pub enum Jump {
    /// To a path.
    Text(Vec<u8>),
    /// To a place, whatever its path.
    Place(Location),
}

/// A link of `/proc` that is not its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Magic {
    /// `/proc/self`, in the procfs of a pid namespace if it is one's.
    SelfLink(Option<Arc<PidNamespace>>),
    /// `/proc/thread-self`.
    ThreadSelf(Option<Arc<PidNamespace>>),
    /// `/proc/PID/cwd`.
    Cwd(u32),
    /// `/proc/PID/root`.
    Root(u32),
    /// `/proc/PID/exe`.
    Exe(u32),
    /// `/proc/PID/fd/N`.
    Descriptor(u32, i32),
    /// `/proc/PID/ns/NAME`.
    Namespace(u32, Link),
}

/// A procfs: its root on the host, and the processes that it shows.
#[derive(Clone)]
pub struct ProcFs {
    root: Arc<OwnedFd>,
    pids: Option<Pids>,
}

/// The processes of a pid namespace.
#[derive(Clone)]
struct Pids {
    namespace: Arc<PidNamespace>,
    supervisor: Weak<Supervisor>,
}

impl Pids {
    fn has(&self, pid: u32) -> bool {
        self.supervisor.upgrade().is_some_and(|s| s.is_in(&self.namespace, pid))
    }

    /// The host's number of a process that has this one here.
    fn meant(&self, shown: u32) -> Option<u32> {
        // The host's number of the init is nobody's here.
        let pid = self.namespace.meant(shown).filter(|pid| *pid == shown || shown == 1)?;
        (self.namespace.shown(pid) == shown && self.has(pid)).then_some(pid)
    }
}

impl ProcFs {
    /// Wraps the host's.
    pub fn new(root: OwnedFd) -> Arc<Self> {
        Arc::new(Self { root: Arc::new(root), pids: None })
    }

    /// Wraps the host's for a pid namespace.
    pub fn of_namespace(root: OwnedFd, namespace: Arc<PidNamespace>, supervisor: &Arc<Supervisor>) -> Arc<Self> {
        let pids = Pids { namespace, supervisor: Arc::downgrade(supervisor) };
        Arc::new(Self { root: Arc::new(root), pids: Some(pids) })
    }

    fn inode(&self, fd: OwnedFd, path: Vec<u8>) -> Arc<ProcInode> {
        Arc::new(ProcInode { fs: self.clone(), fd: Some(fd), path })
    }
}

/// An object of `/proc`.
pub struct ProcInode {
    fs: ProcFs,
    /// `O_PATH`; `None` for the root itself.
    fd: Option<OwnedFd>,
    /// From the root of procfs, without a leading slash.
    path: Vec<u8>,
}

impl ProcInode {
    /// The object that a descriptor of the host's procfs stands for.
    pub fn of_open(fs: &Arc<dyn Filesystem>, fd: &OwnedFd) -> Option<InodeRef> {
        let fs = fs.as_any().downcast_ref::<ProcFs>()?;
        let own = crate::guest::proc_path(fd.as_fd());
        let path = rustix::fs::readlink(&own, Vec::new()).ok()?.into_bytes();
        let inside = path.strip_prefix(b"/proc")?;
        let inside = inside.strip_prefix(b"/").unwrap_or(inside).to_vec();
        let copy = rustix::fs::open(own, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(fs.inode(copy, inside))
    }

    /// Path from the root of procfs.
    pub fn path_bytes(&self) -> &[u8] {
        &self.path
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().unwrap_or(&self.fs.root).as_fd()
    }

    /// The pid namespace whose processes it shows.
    pub fn namespace(&self) -> Option<&Arc<PidNamespace>> {
        self.fs.pids.as_ref().map(|pids| &pids.namespace)
    }

    /// The host's number of a process or thread that a name stands for here.
    fn process_named(&self, name: &[u8]) -> Option<u32> {
        let shown = number(name)?;
        match &self.fs.pids {
            Some(pids) => pids.namespace.meant(shown),
            None => Some(shown),
        }
    }

    /// Whether the names in this directory are numbers of processes or threads.
    fn lists_processes(&self) -> bool {
        self.path.is_empty() || self.path.ends_with(b"/task")
    }

    /// The process (or thread) that the object tells of, and the name below it.
    pub fn of_process(&self) -> Option<(u32, &[u8])> {
        let (first, rest) = split(&self.path);
        let pid = self.process_named(first)?;
        if let Some(inside) = rest.strip_prefix(b"task/") {
            let (thread, name) = split(inside);
            return Some((self.process_named(thread)?, name));
        }
        Some((pid, rest))
    }

    /// What kind of link it is, if it is none of text.
    pub fn magic(&self) -> Option<Magic> {
        match &self.path[..] {
            b"self" => return Some(Magic::SelfLink(self.namespace().cloned())),
            b"thread-self" => return Some(Magic::ThreadSelf(self.namespace().cloned())),
            _ => {}
        }
        let (pid, name) = self.of_process()?;
        Some(match name {
            b"cwd" => Magic::Cwd(pid),
            b"root" => Magic::Root(pid),
            b"exe" => Magic::Exe(pid),
            _ if name.starts_with(b"ns/") => Magic::Namespace(pid, Link::named(&name[3..])?),
            _ => Magic::Descriptor(pid, i32::try_from(number(name.strip_prefix(b"fd/")?)?).ok()?),
        })
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, b""),
    }
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn stat_of(fd: BorrowedFd<'_>) -> Result<Stat> {
    let time = |t: rustix::fs::StatxTimestamp| Timestamp { seconds: t.tv_sec, nanoseconds: t.tv_nsec };
    let s = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(Stat {
        dev: rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor),
        ino: s.stx_ino,
        mode: u32::from(s.stx_mode),
        nlink: s.stx_nlink,
        uid: s.stx_uid,
        gid: s.stx_gid,
        size: s.stx_size,
        blksize: s.stx_blksize,
        blocks: s.stx_blocks,
        atime: time(s.stx_atime),
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
        attributes: s.stx_attributes.bits(),
        attributes_mask: s.stx_attributes_mask.bits(),
        ..Stat::default()
    })
}

impl Inode for ProcInode {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        Arc::new(self.fs.clone())
    }

    fn stat(&self) -> Result<Stat> {
        stat_of(self.fd())
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match (&self.fs.pids, number(name.as_bytes())) {
            (Some(pids), Some(shown)) if self.lists_processes() => {
                let pid = pids.meant(shown).ok_or(Errno::NOENT)?;
                rustix::fs::openat(self.fd(), pid.to_string(), flags, Mode::empty())?
            }
            _ => rustix::fs::openat(self.fd(), name.as_bytes(), flags, Mode::empty())?,
        };
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        Ok(Arc::new(Self { fs: self.fs.clone(), fd: Some(fd), path }))
    }

    fn parent(&self) -> Result<InodeRef> {
        let Some(cut) = self.path.iter().rposition(|b| *b == b'/') else {
            return Ok(Arc::new(Self { fs: self.fs.clone(), fd: None, path: Vec::new() }));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.fd(), "..", flags, Mode::empty())?;
        Ok(Arc::new(Self { fs: self.fs.clone(), fd: Some(fd), path: self.path[..cut].to_vec() }))
    }

    fn path(&self) -> Result<Vec<u8>> {
        Ok(self.path.clone())
    }

    fn open(&self, _: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        let flags = (flags | OFlags::CLOEXEC | OFlags::NOCTTY) & !OFlags::NOFOLLOW;
        Ok(Opened::File(rustix::fs::open(crate::guest::proc_path(self.fd()), flags, Mode::empty())?))
    }

    fn create(&self, _: &Caller<'_>, _: &Name, _: &Creation<'_>) -> Result<InodeRef> {
        Err(Errno::NOENT)
    }

    fn create_open(&self, _: &Caller<'_>, _: &Name, _: u32, _: OFlags) -> Result<(InodeRef, Opened)> {
        Err(Errno::NOENT)
    }

    fn readlink(&self) -> Result<Vec<u8>> {
        match rustix::fs::readlinkat(self.fd(), "", Vec::new()) {
            Ok(target) => Ok(target.into_bytes()),
            // With an empty path this is what the kernel says of anything but a link: fs/stat.c, do_readlinkat.
            Err(Errno::NOENT) => Err(Errno::INVAL),
            Err(errno) => Err(errno),
        }
    }

    fn set_attr(&self, _: &Caller<'_>, change: &SetAttr) -> Result<()> {
        if change.uid.is_some() || change.gid.is_some() {
            return Err(Errno::PERM);
        }
        match change.mode {
            Some(mode) => rustix::fs::chmod(crate::guest::proc_path(self.fd()), Mode::from_raw_mode(mode)),
            None => Ok(()),
        }
    }

    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        let mut out = Vec::new();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(crate::guest::proc_path(self.fd()), flags, Mode::empty())?;
        for entry in rustix::fs::Dir::new(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let kind = FileKind::from_mode(entry.file_type().as_raw_mode());
                let dirent_type = kind.map_or(0, FileKind::dirent_type);
                out.push(DirEntry { name: name.into(), ino: entry.ino(), dirent_type });
            }
        }
        if let (Some(pids), true) = (&self.fs.pids, self.lists_processes()) {
            out.retain(|entry| number(&entry.name).is_none_or(|pid| pids.has(pid)));
            for entry in &mut out {
                if let Some(pid) = number(&entry.name) {
                    entry.name = pids.namespace.shown(pid).to_string().into_bytes().into();
                }
            }
            // As the kernel lists them: what is no process first, then by number.
            out.sort_by_key(|entry| number(&entry.name));
        }
        Ok(out)
    }

    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd())
    }

    fn kernel_checks(&self) -> bool {
        true
    }
}

impl Filesystem for ProcFs {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn root(&self) -> InodeRef {
        Arc::new(ProcInode { fs: self.clone(), fd: None, path: Vec::new() })
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        let host = rustix::fs::fstatfs(&*self.root)?;
        Ok(FsStat {
            magic: u64::try_from(host.f_type).unwrap_or(0x9fa0),
            block_size: 4096,
            name_max: 255,
            fragment_size: 4096,
            ..FsStat::default()
        })
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        stat_of(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &[u8]) -> Option<Magic> {
        let root = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        ProcInode { fs: ProcFs { root: Arc::new(root), pids: None }, fd: None, path: path.to_vec() }.magic()
    }

    #[test]
    fn links_are_told_by_their_names() {
        assert_eq!(at(b"self"), Some(Magic::SelfLink(None)));
        assert_eq!(at(b"12/fd/3"), Some(Magic::Descriptor(12, 3)));
        assert_eq!(at(b"12/task/13/cwd"), Some(Magic::Cwd(13)));
        assert_eq!(at(b"12/exe"), Some(Magic::Exe(12)));
        assert_eq!(at(b"12/fd"), None);
        assert_eq!(at(b"12/fd/3/x"), None);
        assert_eq!(at(b"meminfo"), None);
    }
}
