//! What is kept on the host's disk: compressed archives as they are when unpacked, and the contents of files that are
//! open. Knows no format.
//!
//! All of it lies in `$XDG_CACHE_HOME/umvu`, or `~/.cache/umvu`, and may be removed at any time; where that cannot be
//! written, it goes to `$TMPDIR`.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::source::Source;

/// Shorter archives are unpacked again each time.
const WORTH_KEEPING: u64 = 1 << 20;
/// Unpacked archives that were not used for so long go.
const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// A name that nobody else uses.
fn fresh_name() -> String {
    format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// Makes the directory for things of one kind.
fn directory(kind: &str) -> io::Result<PathBuf> {
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

/// What is known of a compressed source.
pub enum Kept {
    /// It was unpacked before.
    There(File),
    /// It is to be unpacked.
    New(Unpacked),
}

/// An unpacked archive that is being written.
pub struct Unpacked {
    file: File,
    /// Where it is, and where it goes; none for one that is not kept.
    paths: Option<(PathBuf, PathBuf)>,
}

/// Looks for a source that was unpacked before.
///
/// # Errors
/// There is no place for what is to be unpacked.
pub fn find(source: &Source) -> io::Result<Kept> {
    let kept = || -> io::Result<Kept> {
        if source.length() < WORTH_KEEPING {
            return Err(io::ErrorKind::NotFound.into());
        }
        let directory = directory("unpacked")?;
        let path = directory.join(key(source)?);
        if let Ok(file) = File::open(&path) {
            // Used just now.
            let _ = OpenOptions::new().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
            return Ok(Kept::There(file));
        }
        remove_old(&directory);
        let part = directory.join(format!("{PART}{}", fresh_name()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part)?;
        Ok(Kept::New(Unpacked { file, paths: Some((part, path)) }))
    };
    kept().or_else(|_| unnamed()).or_else(|_| in_memory())
}

/// Before the names of files that are being written.
const PART: &str = ".part-";

fn unnamed() -> io::Result<Kept> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory("unpacked")?, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(Kept::New(Unpacked { file: file.into(), paths: None }))
}

fn in_memory() -> io::Result<Kept> {
    let file = rustix::fs::memfd_create("umvu-unpacked", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(Kept::New(Unpacked { file: file.into(), paths: None }))
}

/// Names the content of a source without reading it.
fn key(source: &Source) -> io::Result<String> {
    let meta = source.file().metadata()?;
    if !meta.is_file() || meta.nlink() == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (start, length) = (source.start(), source.length());
    let (changed, nanoseconds) = (meta.ctime(), meta.ctime_nsec());
    let (dev, ino, size, mtime) = (meta.dev(), meta.ino(), meta.size(), meta.mtime());
    Ok(format!("{dev:x}-{ino:x}-{size:x}-{mtime:x}-{changed:x}.{nanoseconds:x}-{start:x}-{length:x}"))
}

fn remove_old(directory: &Path) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > AGE_MAX) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

impl Unpacked {
    /// The file to write to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// How much of the file system may be filled: half of what is free.
    pub fn room(&self) -> io::Result<u64> {
        let numbers = rustix::fs::fstatvfs(&self.file)?;
        if numbers.f_blocks == 0 {
            // In memory.
            return Ok(rustix::system::sysinfo().freeram / 2);
        }
        Ok(numbers.f_bavail.saturating_mul(numbers.f_frsize) / 2)
    }

    /// Keeps it for later.
    pub fn keep(mut self) -> io::Result<File> {
        if let Some((part, path)) = self.paths.take() {
            std::fs::rename(part, path)?;
        }
        self.file.try_clone()
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.paths {
            let _ = std::fs::remove_file(part);
        }
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
        let base = directory("open")?;
        remove_abandoned(&base);
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
