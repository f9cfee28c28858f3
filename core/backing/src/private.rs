//! Directories of a process alone for files that guests have open.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Mode, OFlags};

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A name that nobody else uses.
pub fn fresh_name() -> String {
    format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// Makes the directory for things of one kind.
///
/// # Errors
/// The host's, where there is no place for it.
pub fn directory(kind: &str) -> io::Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let home = set("HOME").map(|home| home.join(".cache"));
    let bases = [set("XDG_CACHE_HOME").filter(|base| base.is_absolute()), home, Some(std::env::temp_dir())];
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for base in bases.into_iter().flatten() {
        let path = base.join("umvu").join(kind);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        match made.and_then(|()| Ok(rustix::fs::access(&path, rustix::fs::Access::WRITE_OK)?)) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The directory for files in memory: in the tmpfs that shared memory is in (shm_overview(7)).
fn memory() -> io::Result<PathBuf> {
    const SHARED: &str = "/dev/shm";
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let unfit = || io::Error::from(io::ErrorKind::NotFound);
    let is_tmpfs = u64::try_from(rustix::fs::statfs(SHARED)?.f_type) == Ok(TMPFS_MAGIC);
    if !is_tmpfs || rustix::fs::statvfs(SHARED)?.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        return Err(unfit());
    }
    let owner = rustix::process::geteuid();
    let base = Path::new(SHARED).join(format!("umvu-{}", owner.as_raw()));
    match std::fs::DirBuilder::new().mode(0o700).create(&base) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Everybody may make a directory of that name, or a link.
    let stat = rustix::fs::lstat(&base)?;
    let is_ours = stat.st_uid == owner.as_raw() && stat.st_mode == 0o040_700;
    if is_ours {
        Ok(base)
    } else {
        Err(unfit())
    }
}

/// A directory of this process alone, which goes with it.
pub struct Private {
    fd: OwnedFd,
    path: PathBuf,
}

impl Private {
    /// Makes one, and removes those of processes that were killed.
    ///
    /// # Errors
    /// The host's.
    pub fn new() -> io::Result<Self> {
        Self::below(&directory("open")?)
    }

    /// Makes one whose files take memory and no disk, if there is a place for programs there.
    ///
    /// # Errors
    /// - `ENOENT`: there is none.
    /// - the host's.
    pub fn in_memory() -> io::Result<Self> {
        Self::below(&memory()?)
    }

    fn below(base: &Path) -> io::Result<Self> {
        remove_abandoned(base);
        let path = base.join(fresh_name());
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&path, flags, Mode::empty())?;
        // Says that it is in use for as long as this process lives.
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { fd, path: path.canonicalize()? })
    }

    /// The directory.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Its path on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a path of the host leads into it.
    pub fn holds(&self, host_path: &[u8]) -> bool {
        self.name_in(host_path).is_some()
    }

    /// The number that a file in it is called by, given the host's path of it, removed or not.
    pub fn number_of(&self, host_path: &[u8]) -> Option<u64> {
        let name = self.name_in(host_path)?;
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        std::str::from_utf8(name).ok()?.parse().ok()
    }

    fn name_in<'p>(&self, host_path: &'p [u8]) -> Option<&'p [u8]> {
        host_path.strip_prefix(self.path.as_os_str().as_bytes())?.strip_prefix(b"/")
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::debug!(%error, directory = ?self.path, "private directory not removed");
        }
    }
}

fn remove_abandoned(base: &Path) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.split('-').next()?.parse::<u32>().ok());
        // Neither a process with that number, nor one in another container, holds it.
        let Some(pid) = owner.filter(|pid| !Path::new(&format!("/proc/{pid}")).exists()) else { continue };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(held) = rustix::fs::open(entry.path(), flags, Mode::empty()) else { continue };
        if rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).is_ok() {
            if let Err(error) = std::fs::remove_dir_all(entry.path()) {
                tracing::debug!(pid, %error, "abandoned directory not removed");
            }
        }
    }
}
