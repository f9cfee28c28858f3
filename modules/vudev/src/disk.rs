//! A disk: its storage, its partitions, and who has claimed what of it. Knows nothing of requests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use umvu_driver::Storage;
use umvu_interface::{Errno, Result};

use crate::partition::{self, Partition, MOST, SECTOR};

/// What of a disk: the whole of it, or a partition by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// All of it.
    Whole,
    /// A partition.
    Number(u32),
}

impl Part {
    /// Its number; 0 for the whole.
    pub fn number(self) -> u32 {
        match self {
            Self::Whole => 0,
            Self::Number(number) => number,
        }
    }
}

/// A piece of the storage, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where it begins.
    pub start: u64,
    /// How long it is.
    pub length: u64,
}

/// A disk.
pub struct Disk {
    storage: RwLock<Arc<dyn Storage>>,
    parts: RwLock<Vec<Partition>>,
    /// Set and cleared by `BLKROSET`.
    read_only: AtomicBool,
    uses: Mutex<Vec<(Part, Claim)>>,
    open: AtomicUsize,
}

/// How something is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Beside others.
    Shared,
    /// Claimed: nobody else may claim it, nor the disk that it is a part of.
    Exclusive,
}

/// A use of a disk, for as long as it lives.
pub struct Use {
    disk: Arc<Disk>,
    part: Part,
    claim: Claim,
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut uses = self.disk.uses.lock();
        if let Some(at) = uses.iter().position(|used| *used == (self.part, self.claim)) {
            uses.swap_remove(at);
        }
        self.disk.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({} bytes)", self.storage().size())
    }
}

impl Disk {
    /// Makes a disk of a storage, and reads its partition table.
    pub fn new(storage: Arc<dyn Storage>) -> Arc<Self> {
        let read_only = AtomicBool::new(storage.is_read_only());
        let disk = Self {
            storage: RwLock::new(storage),
            parts: RwLock::default(),
            read_only,
            uses: Mutex::default(),
            open: AtomicUsize::new(0),
        };
        disk.reread();
        Arc::new(disk)
    }

    /// What it is made of.
    pub fn storage(&self) -> Arc<dyn Storage> {
        self.storage.read().clone()
    }

    /// Makes it of something else. Its partitions are left to [`Disk::read_partitions`].
    pub fn replace(&self, storage: Arc<dyn Storage>) {
        self.read_only.store(storage.is_read_only(), Ordering::Relaxed);
        self.parts.write().clear();
        *self.storage.write() = storage;
    }

    /// How many have it open.
    pub fn users(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether it refuses writes.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    /// Lets it refuse writes, or take them if the storage does.
    ///
    /// # Errors
    /// - `EACCES`: the storage takes none.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        if !read_only && self.storage().is_read_only() {
            return Err(Errno::ACCESS);
        }
        self.read_only.store(read_only, Ordering::Relaxed);
        Ok(())
    }

    /// Its partitions.
    pub fn parts(&self) -> Vec<Partition> {
        self.parts.read().clone()
    }

    /// Where a part of it lies; `None` for a partition that is gone.
    pub fn window(&self, part: Part) -> Option<Window> {
        match part {
            Part::Whole => Some(Window { start: 0, length: self.storage().size() / SECTOR * SECTOR }),
            Part::Number(number) => {
                let parts = self.parts.read();
                let found = parts.iter().find(|p| p.number == number)?;
                Some(Window { start: found.start, length: found.length })
            }
        }
    }

    /// Uses a part of it.
    ///
    /// # Errors
    /// - `ENXIO`: there is no such partition.
    /// - `EBUSY`: it is to be claimed, and is claimed: `bd_may_claim` of `block/bdev.c`.
    pub fn open(self: &Arc<Self>, part: Part, claim: Claim) -> Result<Use> {
        self.window(part).ok_or(Errno::NXIO)?;
        let mut uses = self.uses.lock();
        let collides = |other: &(Part, Claim)| {
            let (other_part, other_claim) = *other;
            let overlaps = other_part == part || other_part == Part::Whole || part == Part::Whole;
            other_claim == Claim::Exclusive && overlaps
        };
        if claim == Claim::Exclusive && uses.iter().any(collides) {
            return Err(Errno::BUSY);
        }
        uses.push((part, claim));
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Use { disk: self.clone(), part, claim })
    }

    /// Whether somebody uses any of it.
    pub fn is_used(&self) -> bool {
        self.users() > 0
    }

    fn has_open_parts(&self) -> bool {
        self.uses.lock().iter().any(|(part, _)| *part != Part::Whole)
    }

    fn reread(&self) {
        match partition::read(&*self.storage()) {
            Ok(parts) => *self.parts.write() = parts,
            Err(errno) => tracing::warn!(%errno, "vudev: partition table not read"),
        }
    }

    /// Reads the partition table again: `BLKRRPART`.
    ///
    /// # Errors
    /// - `EBUSY`: a partition is in use.
    pub fn read_partitions(&self) -> Result<()> {
        if self.has_open_parts() {
            return Err(Errno::BUSY);
        }
        self.reread();
        Ok(())
    }

    /// Adds a partition: `bdev_add_partition` of `block/partitions/core.c`.
    ///
    /// # Errors
    /// - `EINVAL`: it has no length, a number that cannot be, or ends beyond the disk.
    /// - `EBUSY`: the number, or a part of the space, is another's.
    pub fn add(&self, new: Partition) -> Result<()> {
        let end = self.check(&new)?;
        let mut parts = self.parts.write();
        let collides = |p: &Partition| p.number == new.number || (new.start < p.start + p.length && p.start < end);
        if parts.iter().any(collides) {
            return Err(Errno::BUSY);
        }
        parts.push(new);
        parts.sort_by_key(|p| p.number);
        Ok(())
    }

    /// Removes a partition.
    ///
    /// # Errors
    /// - `ENXIO`: there is none of this number.
    /// - `EBUSY`: it is in use.
    pub fn remove(&self, number: u32) -> Result<()> {
        let mut parts = self.parts.write();
        let at = parts.iter().position(|p| p.number == number).ok_or(Errno::NXIO)?;
        if self.uses.lock().iter().any(|(part, _)| *part == Part::Number(number)) {
            return Err(Errno::BUSY);
        }
        parts.remove(at);
        Ok(())
    }

    /// Gives a partition another length.
    ///
    /// # Errors
    /// - `EINVAL`: another start, or a length that cannot be.
    /// - `ENXIO`: there is none of this number.
    /// - `EBUSY`: it would reach into another.
    pub fn resize(&self, new: Partition) -> Result<()> {
        let end = self.check(&new)?;
        let mut parts = self.parts.write();
        let at = parts.iter().position(|p| p.number == new.number).ok_or(Errno::NXIO)?;
        if parts[at].start != new.start {
            return Err(Errno::INVAL);
        }
        let collides = |p: &Partition| p.number != new.number && new.start < p.start + p.length && p.start < end;
        if parts.iter().any(collides) {
            return Err(Errno::BUSY);
        }
        parts[at].length = new.length;
        Ok(())
    }

    fn check(&self, new: &Partition) -> Result<u64> {
        let end = new.start.checked_add(new.length).filter(|end| *end <= self.storage().size()).ok_or(Errno::INVAL)?;
        let is_aligned = new.start % SECTOR == 0 && new.length % SECTOR == 0;
        if new.number == 0 || new.number >= MOST || new.length == 0 || !is_aligned {
            return Err(Errno::INVAL);
        }
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use umvu_driver::FileStorage;

    use super::*;

    fn disk() -> Arc<Disk> {
        let fd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(100 * SECTOR).unwrap();
        Disk::new(Arc::new(FileStorage::new(file, 0, 100 * SECTOR, false)))
    }

    fn partition(number: u32, start: u64, length: u64) -> Partition {
        Partition { number, start: start * SECTOR, length: length * SECTOR }
    }

    #[test]
    fn partitions_do_not_overlap() {
        let disk = disk();
        disk.add(partition(1, 10, 20)).unwrap();
        assert_eq!(disk.add(partition(2, 29, 5)), Err(Errno::BUSY));
        assert_eq!(disk.add(partition(1, 50, 5)), Err(Errno::BUSY));
        assert_eq!(disk.add(partition(2, 90, 11)), Err(Errno::INVAL));
        disk.add(partition(2, 30, 5)).unwrap();
        assert_eq!(disk.resize(partition(1, 10, 21)), Err(Errno::BUSY));
        assert_eq!(disk.resize(partition(1, 11, 2)), Err(Errno::INVAL));
        disk.resize(partition(1, 10, 2)).unwrap();
        assert_eq!(disk.window(Part::Number(1)), Some(Window { start: 10 * SECTOR, length: 2 * SECTOR }));
        disk.remove(1).unwrap();
        assert_eq!(disk.remove(1), Err(Errno::NXIO));
    }

    #[test]
    fn a_claim_excludes_claims_of_the_disk_and_of_the_part() {
        let disk = disk();
        disk.add(partition(1, 10, 20)).unwrap();
        disk.add(partition(2, 30, 20)).unwrap();
        let claimed = disk.open(Part::Number(1), Claim::Exclusive).unwrap();
        assert!(matches!(disk.open(Part::Number(1), Claim::Exclusive), Err(Errno::BUSY)));
        assert!(matches!(disk.open(Part::Whole, Claim::Exclusive), Err(Errno::BUSY)));
        let beside = disk.open(Part::Number(2), Claim::Exclusive).unwrap();
        let shared = disk.open(Part::Number(1), Claim::Shared).unwrap();
        assert_eq!(disk.read_partitions(), Err(Errno::BUSY));
        drop((claimed, beside, shared));
        assert!(!disk.is_used());
        disk.open(Part::Whole, Claim::Exclusive).map(drop).unwrap();
        disk.read_partitions().unwrap();
        assert!(disk.parts().is_empty());
    }
}
