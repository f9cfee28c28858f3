//! A mount: a tree with the flags it is used by. Knows nothing of where it is attached.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_interface::{Filesystem, Hold, InodeRef, MountFlags, Result};

pub use crate::mount_table::MountTable;

/// A place in a view: an inode and the mount through which it is seen.
#[derive(Clone)]
pub struct Location {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The object.
    pub inode: InodeRef,
}

impl Location {
    /// The root of a mount.
    pub fn root_of(mount: &Arc<Mount>) -> Self {
        Self { inode: mount.root.clone(), mount: mount.clone() }
    }

    /// Whether both are the same object seen through the same mount.
    pub fn same(&self, other: &Location) -> Result<bool> {
        Ok(self.mount.id == other.mount.id && self.inode.id()? == other.inode.id()?)
    }

    /// Whether it is the root of its mount.
    pub fn is_mount_root(&self) -> bool {
        matches!((self.inode.id(), self.mount.root.id()), (Ok(a), Ok(b)) if a == b)
    }
}

/// What kind of tree a mount shows; decides what its descriptors look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// The host's own tree under the names it has on the host: directories are real descriptors.
    Host,
    /// The host's procfs, with the guest's truth.
    Proc,
    /// Anything else: directories are placeholders.
    Tree,
}

/// Who lists a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The host's own list has it, under the host's number.
    Host,
    /// It shows a mount of the host inside another tree, and comes and goes with that tree.
    Carried,
    /// It exists in the view alone.
    View,
}

/// How mounts and unmounts spread, as asked for: views share nothing, so it is only told and copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Propagation {
    Private,
    Shared,
    Unbindable,
}

/// What a mount is made of.
pub struct NewMount {
    /// Unique within the supervisor.
    pub id: u64,
    /// Kind.
    pub kind: MountKind,
    /// Who lists it.
    pub origin: Origin,
    /// What covers the mount point.
    pub root: InodeRef,
    /// The file system.
    pub filesystem: Arc<dyn Filesystem>,
    /// Source, as given.
    pub source: Vec<u8>,
    /// Type, as shown.
    pub fstype: Vec<u8>,
    /// Flags of this mount.
    pub flags: MountFlags,
    /// Flags of the file system, which all its mounts share.
    pub superblock: Arc<Superblock>,
    /// Name of the module that brought the type, if one did.
    pub module: Option<&'static str>,
    /// The mark of its open files.
    pub mark: Option<Mark>,
}

/// A mounted tree.
pub struct Mount {
    /// Unique within the supervisor.
    pub id: u64,
    /// What covers the mount point.
    pub root: InodeRef,
    /// The file system.
    pub filesystem: Arc<dyn Filesystem>,
    /// Kind.
    pub kind: MountKind,
    /// Who lists it.
    pub origin: Origin,
    /// Source, as given.
    pub source: Vec<u8>,
    /// Type, as shown.
    pub fstype: Vec<u8>,
    /// Name of the module that brought the type, if one did.
    pub module: Option<&'static str>,
    /// Flags of the file system.
    pub superblock: Arc<Superblock>,
    /// Whether umount2(2) with `MNT_EXPIRE` has found it idle.
    pub expiring: AtomicBool,
    /// Whether it was unmounted from the root of the view, where processes then stand in what comes to light.
    pub left_root: AtomicBool,
    flags: AtomicU64,
    propagation: AtomicU8,
    mark: Option<Mark>,
    holds: Arc<()>,
}

/// The flags of a file system: `SB_RDONLY` alone has an effect.
#[derive(Debug, Default)]
pub struct Superblock(AtomicU64);

impl Superblock {
    /// Makes one.
    pub fn new(flags: MountFlags) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new((flags & MountFlags::READ_ONLY).bits())))
    }

    /// The flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.0.load(Ordering::Relaxed))
    }

    /// Changes them (remount).
    pub fn set_flags(&self, flags: MountFlags) {
        self.0.store((flags & MountFlags::READ_ONLY).bits(), Ordering::Relaxed);
    }
}

impl Mount {
    /// Makes a procfs that nobody asked for: it comes with the mount it is in, and leaves with it.
    pub fn carried_proc(id: u64, filesystem: Arc<dyn Filesystem>) -> Arc<Self> {
        Self::new(NewMount {
            id,
            kind: MountKind::Proc,
            origin: Origin::Carried,
            root: filesystem.root(),
            filesystem,
            source: b"proc".to_vec(),
            fstype: b"proc".to_vec(),
            flags: MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC | MountFlags::RELATIME,
            superblock: Superblock::new(MountFlags::empty()),
            module: None,
            mark: None,
        })
    }

    /// Makes the same mount once more, to come with the mount it will be in.
    pub fn carried_copy(&self, id: u64, marks: &Arc<Marks>) -> Arc<Self> {
        Self::new(NewMount {
            id,
            kind: self.kind,
            origin: Origin::Carried,
            root: self.root.clone(),
            filesystem: self.filesystem.clone(),
            source: self.source.clone(),
            fstype: self.fstype.clone(),
            flags: self.own_flags(),
            superblock: self.superblock.clone(),
            module: self.module,
            mark: self.mark.as_ref().map(|_| marks.take()),
        })
    }

    /// Whether it came with the mount it is in.
    pub fn is_carried(&self) -> bool {
        self.origin == Origin::Carried
    }

    /// Makes a mount that is not attached yet.
    pub fn new(made: NewMount) -> Arc<Self> {
        let NewMount { id, kind, origin, root, filesystem, source, fstype, flags, superblock, module, mark } = made;
        Arc::new(Self {
            id,
            root,
            filesystem,
            kind,
            origin,
            source,
            fstype,
            module,
            superblock,
            expiring: AtomicBool::new(false),
            left_root: AtomicBool::new(false),
            flags: AtomicU64::new(flags.bits()),
            propagation: AtomicU8::new(Propagation::Private as u8),
            mark,
            holds: Arc::default(),
        })
    }

    /// The flags by which its objects are used: its own and those of the file system.
    pub fn flags(&self) -> MountFlags {
        self.own_flags() | self.superblock.flags()
    }

    /// The flags of this mount alone.
    pub fn own_flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes the flags of this mount.
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// How mounts in it are said to spread.
    pub fn propagation(&self) -> Propagation {
        match self.propagation.load(Ordering::Relaxed) {
            1 => Propagation::Shared,
            2 => Propagation::Unbindable,
            _ => Propagation::Private,
        }
    }

    /// Changes that.
    pub fn set_propagation(&self, propagation: Propagation) {
        self.propagation.store(propagation as u8, Ordering::Relaxed);
    }

    /// Keeps it from being unmounted.
    pub fn hold(&self) -> Hold {
        Hold::new(&self.holds)
    }

    /// Whether something keeps it from that: another mount or a device stands on a file of it.
    pub fn is_held(&self) -> bool {
        Arc::strong_count(&self.holds) > 1
    }

    /// The mark that open files of this mount carry: 1 to 63, 0 for the host's own tree.
    pub fn mark(&self) -> i32 {
        self.mark.as_ref().map_or(0, |mark| mark.number)
    }
}

/// The marks of open files: few, so the least used one is given out, and mounts that share one are told apart by
/// the paths of their files.
pub struct Marks(Mutex<[u32; MARKS]>);

impl Default for Marks {
    fn default() -> Self {
        Self(Mutex::new([0; MARKS]))
    }
}

/// Numbers of signals, but for 0.
const MARKS: usize = 63;

/// A mark in use.
pub struct Mark {
    number: i32,
    pool: Arc<Marks>,
}

impl Marks {
    /// Gives the mark that the fewest mounts have.
    pub fn take(self: &Arc<Self>) -> Mark {
        let mut used = self.0.lock();
        let least = used.iter().enumerate().min_by_key(|(_, count)| **count).map_or(0, |(at, _)| at);
        used[least] += 1;
        Mark { number: i32::try_from(least + 1).unwrap_or(1), pool: self.clone() }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let at = usize::try_from(self.number).unwrap_or(1).saturating_sub(1);
        if let Some(count) = self.pool.0.lock().get_mut(at) {
            *count = count.saturating_sub(1);
        }
    }
}
