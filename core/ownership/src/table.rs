//! The records of a store in memory, for lookups that ask neither the disk nor the host.
//!
//! Knows nothing of persistence: what a restart must bring back is the disk's business.

use std::collections::{HashMap, VecDeque};

use parking_lot::RwLock;
use rustix::fs::FileType;

use crate::object::{Key, Override};
use crate::record::Record;
use crate::text::Entry;

/// How many unlinked objects are remembered for the sake of descriptors still open.
const UNLINKED_MAX: usize = 1024;

/// What the table knows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Absent,
    Live,
    /// Its last link is gone; descriptors may still show it.
    Unlinked,
}

#[derive(Default)]
pub(crate) struct Table {
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    live: HashMap<Key, Record>,
    unlinked: HashMap<Key, Record>,
    unlinked_order: VecDeque<Key>,
    /// Loaded text names objects without their birth time; each entry waits here for the first
    /// look at its object.
    loaded: HashMap<(u64, u64), Entry>,
}

impl Table {
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.inner.read();
        inner.live.is_empty() && inner.loaded.is_empty() && inner.unlinked.is_empty()
    }

    /// Looks up an object; one of another type than the record's is not the object recorded.
    pub(crate) fn get(&self, key: &Key, host_type: FileType) -> Option<Override> {
        {
            let inner = self.inner.read();
            let record = inner.live.get(key).or_else(|| inner.unlinked.get(key));
            if let Some(record) = record {
                return (record.host_type == host_type).then_some(record.shown);
            }
            if !inner.loaded.contains_key(&(key.dev, key.ino)) {
                return None;
            }
        }
        self.adopt(key, host_type)
    }

    /// Binds a loaded entry to the object that carries its inode number now.
    fn adopt(&self, key: &Key, host_type: FileType) -> Option<Override> {
        let mut inner = self.inner.write();
        let shown = inner.loaded.get(&(key.dev, key.ino))?.shown_for(host_type)?;
        inner.loaded.remove(&(key.dev, key.ino));
        inner.live.insert(*key, Record { shown, host_type });
        Some(shown)
    }

    pub(crate) fn standing(&self, key: &Key) -> Standing {
        let inner = self.inner.read();
        if inner.live.contains_key(key) {
            Standing::Live
        } else if inner.unlinked.contains_key(key) {
            Standing::Unlinked
        } else {
            Standing::Absent
        }
    }

    pub(crate) fn insert(&self, key: Key, record: Record) {
        let mut inner = self.inner.write();
        inner.loaded.remove(&(key.dev, key.ino));
        match inner.unlinked.get_mut(&key) {
            Some(unlinked) => *unlinked = record,
            None => {
                inner.live.insert(key, record);
            }
        }
    }

    /// Takes in entries of loaded text, which replace what is known of their objects.
    pub(crate) fn load(&self, entries: &[Entry]) {
        let mut inner = self.inner.write();
        inner.loaded.extend(entries.iter().map(|entry| ((entry.dev, entry.ino), *entry)));
        let Inner { live, loaded, .. } = &mut *inner;
        live.retain(|key, _| !loaded.contains_key(&(key.dev, key.ino)));
    }

    /// Forgets an object altogether.
    pub(crate) fn forget(&self, key: &Key) {
        let mut inner = self.inner.write();
        inner.live.remove(key);
        inner.loaded.remove(&(key.dev, key.ino));
        if inner.unlinked.remove(key).is_some() {
            inner.unlinked_order.retain(|unlinked| unlinked != key);
        }
    }

    /// Notes that the last link of an object is gone.
    ///
    /// Without a birth time a new object could not be told from it, so it is forgotten.
    pub(crate) fn unlink(&self, key: &Key) {
        let mut inner = self.inner.write();
        inner.loaded.remove(&(key.dev, key.ino));
        let Some(record) = inner.live.remove(key) else { return };
        if key.btime_ns.is_none() {
            return;
        }
        if inner.unlinked_order.len() >= UNLINKED_MAX {
            if let Some(oldest) = inner.unlinked_order.pop_front() {
                inner.unlinked.remove(&oldest);
            }
        }
        inner.unlinked.insert(*key, record);
        inner.unlinked_order.push_back(*key);
    }

    /// The identities of all linked objects that have a record.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.inner.read().live.keys().copied().collect()
    }

    /// All linked objects as lines of text, in the order of device and inode number.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let inner = self.inner.read();
        let live = inner.live.iter().map(|(key, record)| Entry::of_record(key, record));
        let mut entries: Vec<Entry> = live.chain(inner.loaded.values().copied()).collect();
        entries.sort_by_key(|entry| (entry.dev, entry.ino));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::FakeKind;

    fn record(uid: u32) -> Record {
        let shown = Override { uid, gid: 0, mode: 0o600, kind: FakeKind::Same };
        Record { shown, host_type: FileType::Fifo }
    }

    fn key(ino: u64) -> Key {
        Key { dev: 1, ino, btime_ns: Some(7) }
    }

    fn uid(table: &Table, key: &Key) -> Option<u32> {
        table.get(key, FileType::Fifo).map(|shown| shown.uid)
    }

    #[test]
    fn an_unlinked_object_is_still_shown_and_still_changed() {
        let table = Table::default();
        table.insert(key(1), record(5));
        table.unlink(&key(1));
        assert_eq!(table.standing(&key(1)), Standing::Unlinked);
        assert_eq!(uid(&table, &key(1)), Some(5));
        table.insert(key(1), record(6));
        assert_eq!(uid(&table, &key(1)), Some(6));
        assert!(table.keys().is_empty());
        table.forget(&key(1));
        assert_eq!(table.standing(&key(1)), Standing::Absent);
        assert!(table.is_empty());
    }

    #[test]
    fn the_memory_of_unlinked_objects_is_bounded() {
        let table = Table::default();
        for ino in 0..3000 {
            table.insert(key(ino), record(5));
            table.unlink(&key(ino));
        }
        let inner = table.inner.read();
        assert_eq!((inner.unlinked.len(), inner.unlinked_order.len()), (UNLINKED_MAX, UNLINKED_MAX));
        assert!(inner.live.is_empty());
    }

    #[test]
    fn without_birth_time_an_unlinked_object_is_forgotten() {
        let table = Table::default();
        let key = Key { btime_ns: None, ..key(1) };
        table.insert(key, record(5));
        table.unlink(&key);
        assert_eq!(uid(&table, &key), None);
    }

    #[test]
    fn an_object_of_another_type_is_another_object() {
        let table = Table::default();
        table.insert(key(1), record(5));
        assert_eq!(table.get(&key(1), FileType::Symlink), None);
    }
}
