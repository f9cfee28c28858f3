//! The files beside a layer, as the one umvu that may write there holds them.
//!
//! Every change is appended to the journal before the table in memory shows it. When the journal
//! has grown it is folded into the database. Nothing is done at exit: being killed and leaving in
//! order are the same, so the path that must work is the one always taken.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::database;
use crate::error::{errno, OpenError};
use crate::journal::{self, Change, Replayed, Tail, CHANGE_LEN};
use crate::lock::{self, Lock};
use crate::table::Table;

/// The journal is folded at this many changes: 256 KiB, read back in about a millisecond.
pub(crate) const FOLD_AT: u64 = 4096;

const CHANGE_BYTES: u64 = 64;
const _: () = assert!(CHANGE_LEN == 64);

pub(crate) struct Disk {
    beside: PathBuf,
    /// Held for as long as the store is open.
    _lock: Lock,
    journal: Option<File>,
    /// Bytes of the journal that count.
    end: u64,
    generation: u64,
    /// Bytes of the journal at which the next fold is due.
    fold_at: u64,
    sync: Sync,
}

/// What a power cut could lose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sync {
    Nothing,
    Contents,
    /// The journal was created too.
    ContentsAndName,
}

impl Disk {
    /// Takes the lock and fills `table` with what is beside the layer.
    pub(crate) fn open(beside: &Path, table: &Table) -> Result<Disk, OpenError> {
        let io = |cause| OpenError::from_io(beside, cause);
        // Threads that change directory must not move the files.
        let beside = std::path::absolute(beside).map_err(io)?;
        match std::fs::create_dir(&beside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(io(error)),
            _ => {}
        }
        let lock = lock::take(&beside)?;
        let (generation, replayed) = load(&beside, table)?;
        let mut disk = Disk {
            beside,
            _lock: lock,
            journal: None,
            end: replayed.len,
            generation,
            fold_at: FOLD_AT * CHANGE_BYTES,
            // Whoever wrote this may have been killed before it was synced.
            sync: if replayed.len == 0 { Sync::Nothing } else { Sync::ContentsAndName },
        };
        // Changes appended over debris could make what follows it count again.
        if replayed.tail == Tail::Debris {
            let path = disk.beside.join("ownership.log");
            disk.fold().map_err(|cause| OpenError::from_io(&path, cause))?;
        }
        Ok(disk)
    }

    /// Makes a change survive this process.
    ///
    /// # Errors
    /// Those of open(2) and write(2) on the journal; the change is then not made.
    pub(crate) fn append(&mut self, change: &Change) -> Result<(), Errno> {
        let bytes = journal::encode(change, self.generation);
        let end = self.end;
        let journal = self.journal().map_err(|error| errno(&error))?;
        if let Err(error) = journal.write_all_at(&bytes, end) {
            // Part of a change ends the journal as well as nothing does; tidiness alone.
            let _ = journal.set_len(end);
            return Err(errno(&error));
        }
        self.end += CHANGE_BYTES;
        self.sync = self.sync.max_contents();
        if self.end >= self.fold_at && self.fold().is_err() {
            // The change is safe in the journal, so the caller need not know.
            self.fold_at = self.fold_at.saturating_mul(2);
        }
        Ok(())
    }

    /// Makes all changes survive a power cut.
    ///
    /// # Errors
    /// Those of fsync(2).
    pub(crate) fn sync(&mut self) -> Result<(), Errno> {
        if self.sync != Sync::Nothing {
            self.journal().and_then(|journal| journal.sync_data()).map_err(|error| errno(&error))?;
        }
        if self.sync == Sync::ContentsAndName {
            let directory = File::open(&self.beside).and_then(|directory| directory.sync_all());
            directory.map_err(|error| errno(&error))?;
        }
        self.sync = Sync::Nothing;
        Ok(())
    }

    fn journal(&mut self) -> io::Result<&mut File> {
        if self.journal.is_none() {
            let path = self.beside.join("ownership.log");
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            self.journal = Some(options.open(path)?);
            self.sync = Sync::ContentsAndName;
        }
        self.journal.as_mut().ok_or_else(|| Errno::IO.into())
    }

    /// Moves the journal into the database and starts it anew.
    fn fold(&mut self) -> io::Result<()> {
        let generation = self.generation;
        let end = self.end;
        let journal = self.journal()?;
        let mut bytes = vec![0; usize::try_from(end).map_err(io::Error::other)?];
        journal.read_exact_at(&mut bytes, 0)?;
        let mut changes = Vec::new();
        journal::replay(bytes.as_slice(), generation, |change| changes.push(change))?;
        self.generation = database::fold(&self.beside.join("ownership.redb"), generation, &changes)?;
        self.end = 0;
        self.fold_at = FOLD_AT * CHANGE_BYTES;
        // From here on the old changes count no more, cut off or not.
        self.journal()?.set_len(0)
    }
}

impl Sync {
    fn max_contents(self) -> Sync {
        match self {
            Sync::Nothing => Sync::Contents,
            other => other,
        }
    }
}

/// Fills `table` from the files in `beside` and changes nothing there.
pub(crate) fn load(beside: &Path, table: &Table) -> Result<(u64, Replayed), OpenError> {
    let database::Loaded { generation, records } = database::load(&beside.join("ownership.redb"))?;
    for (key, record) in records {
        table.insert(key, record);
    }
    let path = beside.join("ownership.log");
    let replayed = match File::open(&path) {
        Ok(file) => journal::replay(BufReader::new(file), generation, |change| match change {
            Change::Set(key, record) => table.insert(key, record),
            Change::Delete(key) => table.forget(&key),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Replayed { len: 0, tail: Tail::Clean }),
        Err(error) => Err(error),
    };
    replayed.map(|replayed| (generation, replayed)).map_err(|cause| OpenError::from_io(&path, cause))
}
