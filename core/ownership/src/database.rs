//! The database `ownership.redb`: what the journal has been folded into.
//!
//! It is read whole when a store is opened and from then on only written, one transaction a fold,
//! so nothing is kept open. Reading goes through a copy in memory, in which redb may check and
//! repair as it likes: the file of a read-only layer is never touched, and a damaged one is
//! reported, not trusted.

use std::fs::File;
use std::io::{self, Read};
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;

use parking_lot::Mutex;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError};
use rustix::io::Errno;

use crate::error::OpenError;
use crate::journal::Change;
use crate::lock::{Lock, Others};
use crate::object::Key;
use crate::record::{self, Record, KEY_LEN, VALUE_LEN};

const OBJECTS: TableDefinition<'_, &[u8; KEY_LEN], &[u8; VALUE_LEN]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;

/// Folds touch each page once, so a large cache would only cost memory.
const CACHE_BYTES: usize = 1 << 20;

/// What a database holds.
#[derive(Default)]
pub(crate) struct Loaded {
    /// Counts the folds; the journal of this generation is the one to replay on top.
    pub(crate) generation: u64,
    pub(crate) records: Vec<(Key, Record)>,
}

/// Reads the database at `path`; one that does not exist is empty.
pub(crate) fn load(path: &Path) -> Result<Loaded, OpenError> {
    let io = |cause| OpenError::from_io(path, cause);
    let corrupt = |cause| OpenError::Corrupt { path: path.to_owned(), cause };
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::default()),
        Err(error) => return Err(io(error)),
    };
    // redb holds this lock exclusively while it writes.
    let locked = file.try_clone().map_err(io)?;
    let lock = match Lock::take(locked, Others::Readers) {
        Ok(lock) => lock,
        Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { path: path.to_owned(), pid: None }),
        Err(errno) => return Err(io(errno.into())),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(io)?;
    drop(lock);
    if bytes.is_empty() {
        return Err(corrupt("the file is empty".to_owned()));
    }
    // redb panics on some files that it did not write.
    catch_unwind(AssertUnwindSafe(|| read(bytes)))
        .unwrap_or_else(|_| Err("the checks of the database failed".to_owned()))
        .map_err(corrupt)
}

fn read(bytes: Vec<u8>) -> Result<Loaded, String> {
    fn say(error: impl std::error::Error) -> String {
        error.to_string()
    }
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(Copy::new(bytes))
        .map_err(say)?;
    let transaction = database.begin_read().map_err(say)?;
    let meta = match transaction.open_table(META) {
        Ok(meta) => meta,
        // Killed in the first fold, before its transaction.
        Err(TableError::TableDoesNotExist(_)) => return Ok(Loaded::default()),
        Err(error) => return Err(say(error)),
    };
    let number = |name| meta.get(name).map(|row| row.map_or(0, |row| row.value())).map_err(say);
    let format = number("format")?;
    if format != FORMAT {
        return Err(format!("format {format} instead of {FORMAT}"));
    }
    let generation = number("generation")?;
    let mut records = Vec::new();
    for row in transaction.open_table(OBJECTS).map_err(say)?.iter().map_err(say)? {
        let (key, value) = row.map_err(say)?;
        let key = record::decode_key(key.value()).ok_or("a malformed key")?;
        let record = record::decode_value(value.value()).ok_or("a malformed record")?;
        records.push((key, record));
    }
    Ok(Loaded { generation, records })
}

/// Applies `changes` to the database at `path`, creates it if need be, and returns its new generation.
///
/// When this returns, the database is on stable storage, its name included.
///
/// # Errors
/// Those of the host; the database is then as it was.
pub(crate) fn fold(path: &Path, generation: u64, changes: &[Change]) -> io::Result<u64> {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if path.try_exists()? {
            let database = Builder::new().set_cache_size(CACHE_BYTES).open(path).map_err(to_io)?;
            return write(&database, generation, changes).map_err(to_io);
        }
        // Under its name from the first only when whole: redb does not finish a file whose
        // creation was cut short.
        let unfinished = path.with_extension("redb.new");
        match std::fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let database = Builder::new().set_cache_size(CACHE_BYTES).create(&unfinished).map_err(to_io)?;
        let next = write(&database, generation, changes).map_err(to_io)?;
        drop(database);
        std::fs::rename(&unfinished, path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(next)
    }));
    outcome.unwrap_or_else(|_| Err(Errno::IO.into()))
}

fn write(database: &Database, generation: u64, changes: &[Change]) -> Result<u64, redb::Error> {
    let next = generation.wrapping_add(1);
    // Durability::Immediate is the default: the journal is thrown away after this.
    let transaction = database.begin_write()?;
    {
        let mut objects = transaction.open_table(OBJECTS)?;
        for change in changes {
            match change {
                Change::Set(key, record) => {
                    objects.insert(&record::encode_key(key), &record::encode_value(record))?;
                }
                Change::Delete(key) => {
                    objects.remove(&record::encode_key(key))?;
                }
            }
        }
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("generation", next)?;
    }
    transaction.commit()?;
    Ok(next)
}

/// Keeps the errno, which says "no space" or "read-only" to whoever waits for the fold.
fn to_io(error: impl Into<redb::Error>) -> io::Error {
    match error.into() {
        redb::Error::Io(error) => error,
        redb::Error::DatabaseAlreadyOpen => Errno::BUSY.into(),
        other => io::Error::other(other),
    }
}

/// A database file read into memory.
#[derive(Debug)]
struct Copy {
    bytes: Mutex<Vec<u8>>,
    /// A damaged header must not make a repair ask for all memory there is.
    max: usize,
}

impl Copy {
    fn new(bytes: Vec<u8>) -> Copy {
        let max = bytes.len().saturating_mul(2).saturating_add(8 << 20);
        Copy { bytes: Mutex::new(bytes), max }
    }
}

fn range(offset: u64, len: usize) -> io::Result<core::ops::Range<usize>> {
    let start = usize::try_from(offset).ok();
    let range = start.and_then(|start| Some(start..start.checked_add(len)?));
    range.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

impl StorageBackend for Copy {
    fn len(&self) -> io::Result<u64> {
        u64::try_from(self.bytes.lock().len()).map_err(io::Error::other)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock();
        let source = bytes.get(range(offset, out.len())?).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(source);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).ok().filter(|len| *len <= self.max);
        let len = len.ok_or(io::ErrorKind::OutOfMemory)?;
        self.bytes.lock().resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.lock();
        let target = bytes.get_mut(range(offset, data.len())?).ok_or(io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(data);
        Ok(())
    }
}
