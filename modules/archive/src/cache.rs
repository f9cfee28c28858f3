//! What is kept on the host's disk: compressed archives as they are when unpacked, and which parts of images were found
//! to have their digests. Knows no format.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{Mode, OFlags};
use umvu_backing::{directory, fresh_name};

use crate::source::Source;

/// Shorter archives are unpacked, and verified, again each time.
const WORTH_KEEPING: u64 = 1 << 20;
/// What was not used for so long goes.
const AGE_MAX: Duration = Duration::from_secs(14 * 24 * 60 * 60);

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

/// Removes what a source was unpacked to before, if it is kept.
pub fn forget(source: &Source) {
    let path = directory("unpacked").and_then(|directory| Ok(directory.join(key(source)?)));
    if let Ok(path) = path {
        let _ = std::fs::remove_file(path);
    }
}

/// The memory that a source, as it is now, has passed a test.
pub struct Passed(Option<PathBuf>);

impl Passed {
    /// Of the test that `mark` names. Taken before the source is read, as it may be changed meanwhile.
    pub fn of(source: &Source, mark: &str) -> Self {
        let path = || -> io::Result<PathBuf> { Ok(directory("verified")?.join(format!("{}-{mark}", key(source)?))) };
        Self(Some(source).filter(|source| source.length() >= WORTH_KEEPING).and_then(|_| path().ok()))
    }

    /// Whether it has.
    pub fn is_known(&self) -> bool {
        let Some(path) = &self.0 else { return false };
        // The time of the last use.
        OpenOptions::new().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now())).is_ok()
    }

    /// Remembers that it has. What cannot be remembered is tested again.
    pub fn remember(self) {
        let Some(path) = self.0 else { return };
        if let Some(directory) = path.parent() {
            remove_old(directory);
        }
        let _ = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    }
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
