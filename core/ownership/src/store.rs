//! The store of one layer: looks overrides up, sets them, and picks where each is kept.
//!
//! A record in the table always wins over a mark on the object: a mark is only ever written when
//! the record is then taken away, and a record only when the mark could not be written.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::disk;
use crate::error::OpenError;
use crate::journal::{Change, Tail};
use crate::layer::Layer;
use crate::mark::{self, Mark};
use crate::object::{FakeKind, Key, Medium, Override};
use crate::record::Record;
use crate::table::{Standing, Table};
use crate::xattr::{self, Existing, Found};

const STRIPES: u64 = 64;

/// The faked owners, modes and device numbers of one layer.
///
/// All methods may be called from any thread; changes of one object are made one after the other.
/// Throughout, `object` is a descriptor, `O_PATH` or not, of the host's object, `key` its identity
/// and `file_type_bits` its type on the host (`st_mode`; bits below `S_IFMT` do not matter).
pub struct Store {
    pub(crate) table: Table,
    /// `None` for a store in memory.
    pub(crate) layer: Option<Layer>,
    /// Whether a faked device node may be among the objects.
    devices: AtomicBool,
    stripes: Box<[Mutex<()>]>,
}

impl Store {
    /// Makes an empty store that writes nothing to the host, for the plain host tree.
    pub fn in_memory() -> Store {
        Store::new(Table::default(), None)
    }

    /// Opens the store of a layer for reading and writing, with its files in the directory
    /// `beside`, which is created if its parent exists.
    ///
    /// Until the first override is set, nothing but a lock file is written.
    ///
    /// # Errors
    /// - [`OpenError::ReadOnly`]: the layer or `beside` cannot be written
    /// - [`OpenError::Locked`]: another store, of this process or another, has `beside` open
    /// - [`OpenError::Corrupt`]: the database is damaged or something else
    /// - [`OpenError::Io`]: anything else that the host answers
    pub fn open(layer: BorrowedFd<'_>, beside: &Path) -> Result<Store, OpenError> {
        Store::open_on(layer, beside, Medium::Xattr)
    }

    /// Opens a store as [`Store::open`] does; [`Medium::Database`] keeps everything in the
    /// database, for layers whose extended attributes are not to be touched or are lost in
    /// transport.
    ///
    /// # Errors
    /// Those of [`Store::open`].
    pub fn open_on(layer: BorrowedFd<'_>, beside: &Path, medium: Medium) -> Result<Store, OpenError> {
        let mut layer = Layer::new(layer, medium)?;
        layer.check_writable()?;
        let table = Table::default();
        layer.take_disk(beside, &table)?;
        Ok(Store::new(table, Some(layer)))
    }

    /// Opens the store of a layer that is only read, as it is now. No file is written or locked
    /// for longer than the call.
    ///
    /// # Errors
    /// - [`OpenError::Locked`]: the database is being written at this moment
    /// - [`OpenError::Corrupt`]: the database is damaged or something else
    /// - [`OpenError::ReadOnly`]: it is there but may not be read
    /// - [`OpenError::Io`]: anything else that the host answers
    pub fn open_read_only(layer: BorrowedFd<'_>, beside: Option<&Path>) -> Result<Store, OpenError> {
        let layer = Layer::new(layer, Medium::Xattr)?;
        let mut table = Table::default();
        if let Some(beside) = beside {
            // A journal of another generation than the database is one that was folded between
            // our two looks, or in a process that was killed then: a second look tells.
            for _ in 0..2 {
                table = Table::default();
                let (_, replayed) = disk::load(beside, &table)?;
                if replayed.tail == Tail::Clean {
                    break;
                }
            }
        }
        Ok(Store::new(table, Some(layer)))
    }

    fn new(table: Table, layer: Option<Layer>) -> Store {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        let store = Store { table, layer, devices: AtomicBool::new(false), stripes };
        // What an earlier session made of it is not known without a look at every object.
        store.devices.store(!store.is_empty_hint(), Ordering::Relaxed);
        store
    }

    /// Says whether a regular file of the host may stand for something of another type.
    pub fn may_have_other_types(&self) -> bool {
        self.devices.load(Ordering::Relaxed)
    }

    /// Says whether the store has nothing to show: no record, and no mark on the layer's root nor on
    /// a directory above it. Until it says otherwise, [`Store::get`] need not be asked.
    ///
    /// Marks that another program set without marking the root are not hinted at;
    /// fuse-overlayfs does not see those either.
    pub fn is_empty_hint(&self) -> bool {
        self.table.is_empty() && !self.layer.as_ref().is_some_and(Layer::is_marked)
    }

    /// Tells where the override of an object would be kept, as far as is known before trying.
    pub fn medium(&self, key: &Key, file_type_bits: u32) -> Medium {
        match &self.layer {
            Some(layer) if layer.can_carry(key, FileType::from_raw_mode(file_type_bits)) => Medium::Xattr,
            _ => Medium::Database,
        }
    }

    /// Looks up what an object shows; `None` is what the host stores.
    ///
    /// An object without links that is still open shows what it showed before.
    ///
    /// # Errors
    /// - `EIO`: the mark on the object is malformed
    /// - those of getxattr(2), apart from those that say that there is no mark to be seen
    pub fn get(&self, object: BorrowedFd<'_>, key: &Key, file_type_bits: u32) -> Result<Option<Override>, Errno> {
        let host_type = FileType::from_raw_mode(file_type_bits);
        let Some(layer) = &self.layer else {
            return Ok(self.table.get(key, host_type));
        };
        if let Some(shown) = self.table.get(&layer.key_within(key), host_type) {
            return Ok(Some(shown));
        }
        if !layer.can_carry(key, host_type) {
            return Ok(None);
        }
        match xattr::read(object, host_type)? {
            Found::Mark(Mark::Shows(shown)) => Ok(Some(shown)),
            Found::Mark(Mark::Host) | Found::Nothing => Ok(None),
            Found::Unsupported => {
                layer.note_lacking(key);
                Ok(None)
            }
        }
    }

    /// Makes an object show something else than the host stores.
    ///
    /// When this returns, the death of this process does not undo it; see [`Store::sync`] for
    /// power cuts.
    ///
    /// # Errors
    /// - `EINVAL`: a mode above `0o7777`, or a faked type on anything but a regular file
    /// - `EROFS`: the store is read-only
    /// - those of setxattr(2) or, for what goes to the database, open(2) and write(2): `ENOSPC`,
    ///   `EDQUOT`, `EIO`, ...; nothing is changed then
    pub fn set(&self, object: BorrowedFd<'_>, key: &Key, file_type_bits: u32, shown: &Override) -> Result<(), Errno> {
        let _one_at_a_time = self.stripe(key);
        self.put(object, key, FileType::from_raw_mode(file_type_bits), shown)
    }

    /// Changes what an object shows in dependence of what it shows now, with no other change in
    /// between, and returns what it shows then.
    ///
    /// # Errors
    /// Those of [`Store::get`], then those of [`Store::set`].
    pub fn update(
        &self,
        object: BorrowedFd<'_>,
        key: &Key,
        file_type_bits: u32,
        change: impl FnOnce(Option<Override>) -> Override,
    ) -> Result<Override, Errno> {
        let _one_at_a_time = self.stripe(key);
        let shown = change(self.get(object, key, file_type_bits)?);
        self.put(object, key, FileType::from_raw_mode(file_type_bits), &shown)?;
        Ok(shown)
    }

    /// Notes that the last link of an object is gone.
    ///
    /// Its mark goes with it; its record is deleted. Descriptors that are still open show what they
    /// showed, as long as the object can be told from a new one with its inode number.
    ///
    /// # Errors
    /// Those of open(2) and write(2) on the journal.
    pub fn remove(&self, _object: BorrowedFd<'_>, key: &Key, _file_type_bits: u32) -> Result<(), Errno> {
        let _one_at_a_time = self.stripe(key);
        let key = self.layer.as_ref().map_or(*key, |layer| layer.key_within(key));
        self.journal_delete(&key)?;
        self.table.unlink(&key);
        Ok(())
    }

    /// Takes the override of an object back, so that it shows what the host stores.
    ///
    /// # Errors
    /// - `EROFS`: the store is read-only
    /// - those of removexattr(2), and of open(2) and write(2) on the journal
    pub fn clear(&self, object: BorrowedFd<'_>, key: &Key, file_type_bits: u32) -> Result<(), Errno> {
        let _one_at_a_time = self.stripe(key);
        let Some(layer) = &self.layer else {
            self.table.forget(key);
            return Ok(());
        };
        if layer.disk.is_none() {
            return Err(Errno::ROFS);
        }
        // The mark first: without the record, an older mark would show.
        if layer.can_carry(key, FileType::from_raw_mode(file_type_bits)) {
            xattr::erase(object)?;
            layer.note_erased(key);
        }
        let key = layer.key_within(key);
        self.journal_delete(&key)?;
        self.table.forget(&key);
        Ok(())
    }

    /// Makes everything in the database survive a power cut. Marks are synced with their objects,
    /// by fsync(2) or syncfs(2).
    ///
    /// # Errors
    /// Those of fsync(2).
    pub fn sync(&self) -> Result<(), Errno> {
        let disk = self.layer.as_ref().and_then(|layer| layer.disk.as_ref());
        disk.map_or(Ok(()), |disk| disk.lock().sync())
    }

    /// Sets an override; the caller holds the stripe.
    fn put(&self, object: BorrowedFd<'_>, key: &Key, host_type: FileType, shown: &Override) -> Result<(), Errno> {
        if shown.mode > 0o7777 || (shown.kind != FakeKind::Same && host_type != FileType::RegularFile) {
            return Err(Errno::INVAL);
        }
        if shown.kind != FakeKind::Same {
            self.devices.store(true, Ordering::Relaxed);
        }
        let record = Record { shown: *shown, host_type };
        let Some(layer) = &self.layer else {
            self.table.insert(*key, record);
            return Ok(());
        };
        let disk = layer.disk.as_ref().ok_or(Errno::ROFS)?;
        let within = layer.key_within(key);
        let standing = self.table.standing(&within);
        if layer.can_carry(key, host_type) && set_mark(layer, object, key, host_type, shown)? {
            if standing != Standing::Absent {
                self.journal_delete(&within)?;
                self.table.forget(&within);
            }
            return Ok(());
        }
        // What has no link left is not found by a later session, so it is kept out of the journal.
        if standing != Standing::Unlinked {
            let mut disk = disk.lock();
            disk.append(&Change::Set(within, record))?;
            self.table.insert(within, record);
            return Ok(());
        }
        self.table.insert(within, record);
        Ok(())
    }

    /// Journals the deletion of a record, if there is one that a later session would find.
    pub(crate) fn journal_delete(&self, key: &Key) -> Result<(), Errno> {
        let disk = self.layer.as_ref().and_then(|layer| layer.disk.as_ref());
        match disk {
            Some(disk) if self.table.standing(key) == Standing::Live => disk.lock().append(&Change::Delete(*key)),
            _ => Ok(()),
        }
    }

    fn stripe(&self, key: &Key) -> MutexGuard<'_, ()> {
        let stripe = usize::try_from(key.ino % STRIPES).unwrap_or_default();
        self.stripes[stripe].lock()
    }
}

/// Marks an object; false if the database must take the override.
fn set_mark(
    layer: &Layer,
    object: BorrowedFd<'_>,
    key: &Key,
    host_type: FileType,
    shown: &Override,
) -> Result<bool, Errno> {
    match layer.mark_root() {
        Ok(()) => {}
        Err(Errno::OPNOTSUPP) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    match xattr::write(object, &mark::format(shown, host_type), Existing::Replace) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP) => {
            layer.note_lacking(key);
            Ok(false)
        }
        // Of this object alone: it is immutable, not the user's to write, or full of other attributes.
        Err(Errno::PERM | Errno::ACCESS | Errno::NOSPC | Errno::DQUOT | Errno::TOOBIG) => Ok(false),
        Err(errno) => Err(errno),
    }
}

impl core::fmt::Debug for Store {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.debug_struct("Store").finish_non_exhaustive()
    }
}
