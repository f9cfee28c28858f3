//! The mount table of a view: which tree covers which object. Knows nothing of how paths are resolved.
//!
//! A table is immutable; a change makes a new one. A mount sees the world below itself because it keeps the
//! inodes it was given, not paths.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicU8, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_interface::{Filesystem, InodeRef, MountFlags, Result};

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

/// Where a mount is attached.
#[derive(Clone)]
pub struct Attachment {
    /// The place that is covered.
    pub covered: Location,
    /// Name of the covered object in its directory; empty when it is the root of its mount.
    pub name: Box<[u8]>,
}

/// (device, inode) of what is covered, and the mount that covers it.
type Covering = ((u64, u64), Arc<Mount>);

/// The mounts of a view.
#[derive(Clone)]
pub struct MountTable {
    /// Attached mounts, oldest first.
    mounts: Vec<Arc<Mount>>,
    /// The lowest mount of the view.
    root: Arc<Mount>,
    /// The host's own tree, wherever it is attached.
    host: Arc<Mount>,
    attached: HashMap<u64, Attachment>,
    /// Mounts on the root of a mount, by the id of the lower one.
    over_root: HashMap<u64, Arc<Mount>>,
    /// Other mounts, by the mount and name they cover.
    over_name: HashMap<(u64, Box<[u8]>), Vec<Covering>>,
    /// Mounts that have mounts on places other than their root.
    crossed: HashMap<u64, usize>,
    /// Mounts that are no longer, or not yet, in the tree and may still be used.
    detached: Vec<Arc<Mount>>,
}

/// As many mounts a view may have, so that a guest that binds a tree into itself over and over comes to an end.
/// (The kernel's own limit is in `/proc/sys/fs/mount-max`.)
pub const MOUNTS_MAX: usize = 10_000;

impl MountTable {
    /// A table with nothing but the host's tree.
    pub fn new(host: Arc<Mount>) -> Self {
        Self {
            mounts: vec![host.clone()],
            root: host.clone(),
            host,
            attached: HashMap::new(),
            over_root: HashMap::new(),
            over_name: HashMap::new(),
            crossed: HashMap::new(),
            detached: Vec::new(),
        }
    }

    /// Whether there is nothing but the host's own tree, as it is.
    pub fn is_host(&self) -> bool {
        self.mounts.iter().all(|m| m.origin == Origin::Host) && self.host.flags().is_empty()
    }

    /// All attached mounts, oldest first.
    pub fn mounts(&self) -> &[Arc<Mount>] {
        &self.mounts
    }

    /// Mounts that were taken out of the tree, or are not in it yet, and may still be used.
    pub fn detached(&self) -> &[Arc<Mount>] {
        &self.detached
    }

    /// The mounts whose open files have a mark, newest first.
    pub fn by_mark(&self, mark: i32) -> impl Iterator<Item = &Arc<Mount>> {
        self.mounts.iter().rev().chain(self.detached.iter().rev()).filter(move |m| m.mark() == mark)
    }

    /// The root of the host's own tree, whatever is mounted on it.
    pub fn host(&self) -> Location {
        Location::root_of(&self.host)
    }

    /// The root of the view, below everything mounted on it.
    pub fn lowest_root(&self) -> Location {
        Location::root_of(&self.root)
    }

    /// The root of the view as it is seen.
    pub fn root(&self) -> Location {
        self.top(self.lowest_root())
    }

    /// What is seen at `location` where `location` may be the root of a mount with others on it.
    pub fn top(&self, mut location: Location) -> Location {
        while let Some(top) = self.over_root.get(&location.mount.id) {
            location = Location::root_of(top);
        }
        location
    }

    /// Whether an entry called `name` of a directory of `mount` may be a mount point.
    pub fn may_be_covered(&self, mount: &Mount, name: &[u8]) -> bool {
        self.crossed.contains_key(&mount.id) && self.over_name.contains_key(&(mount.id, name.into()))
    }

    /// Whether no place of `mount` but its root is covered.
    pub fn is_uncrossed(&self, mount: &Mount) -> bool {
        !self.crossed.contains_key(&mount.id)
    }

    /// What is seen where `location`, found under `name`, may be a mount point.
    pub fn enter(&self, location: Location, name: &[u8]) -> Result<Location> {
        if !self.crossed.contains_key(&location.mount.id) {
            return Ok(location);
        }
        let Some(candidates) = self.over_name.get(&(location.mount.id, name.into())) else {
            return Ok(location);
        };
        let id = location.inode.id()?;
        match candidates.iter().find(|(covered, _)| *covered == id) {
            Some((_, top)) => {
                let top = self.top(Location::root_of(top));
                if top.mount.expiring.load(Ordering::Relaxed) {
                    top.mount.expiring.store(false, Ordering::Relaxed);
                }
                Ok(top)
            }
            None => Ok(location),
        }
    }

    /// Where a mount is attached; `None` for the root of the view and for detached mounts.
    pub fn attachment(&self, mount: &Mount) -> Option<&Attachment> {
        self.attached.get(&mount.id)
    }

    /// Whether a mount is in the tree of the view: `check_mnt` of `fs/namespace.c`.
    pub fn is_in_tree(&self, mount: &Mount) -> bool {
        self.bottom_of(mount) == self.root.id
    }

    /// Whether a mount is, or lies in, the mount `above`.
    pub fn is_below(&self, mount: &Mount, above: &Mount) -> bool {
        let mut at = mount.id;
        loop {
            if at == above.id {
                return true;
            }
            match self.attached.get(&at) {
                Some(attachment) => at = attachment.covered.mount.id,
                None => return false,
            }
        }
    }

    /// The mount that is at the bottom of the tree `mount` is in.
    fn bottom_of(&self, mount: &Mount) -> u64 {
        let mut at = mount.id;
        while let Some(attachment) = self.attached.get(&at) {
            at = attachment.covered.mount.id;
        }
        at
    }

    /// The mounts in and below `mount`, itself first, parents before children, older before newer.
    pub fn subtree(&self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut children: HashMap<u64, Vec<&Arc<Mount>>> = HashMap::new();
        for candidate in &self.mounts {
            if let Some(attachment) = self.attached.get(&candidate.id) {
                children.entry(attachment.covered.mount.id).or_default().push(candidate);
            }
        }
        let mut found = vec![mount.clone()];
        let mut next = 0;
        while next < found.len() {
            let inside = children.get(&found[next].id).into_iter().flatten();
            found.extend(inside.map(|m| Arc::clone(m)));
            next += 1;
        }
        found
    }

    /// Attaches `mount` over `covered`, whose name in its directory is `name`, on top of what is there already:
    /// `lock_mount` of `fs/namespace.c`.
    pub fn attach(&mut self, mount: Arc<Mount>, covered: Location, name: &[u8]) -> Result<()> {
        let covered = match covered.is_mount_root() {
            true => self.top(covered),
            false => self.enter(covered, name)?,
        };
        let id = covered.inode.id()?;
        let name: Box<[u8]> = if covered.is_mount_root() { Box::default() } else { name.into() };
        self.detached.retain(|m| m.id != mount.id);
        if !self.mounts.iter().any(|m| m.id == mount.id) {
            self.mounts.push(mount.clone());
        }
        if name.is_empty() {
            self.over_root.insert(covered.mount.id, mount.clone());
        } else {
            self.over_name.entry((covered.mount.id, name.clone())).or_default().push((id, mount.clone()));
            *self.crossed.entry(covered.mount.id).or_default() += 1;
        }
        self.attached.insert(mount.id, Attachment { covered, name });
        Ok(())
    }

    /// Keeps a mount that is in no tree.
    pub fn keep_detached(&mut self, mount: Arc<Mount>) {
        self.detached.push(mount);
    }

    /// Forgets a mount that is in no tree.
    pub fn forget(&mut self, mount: &Mount) {
        self.detached.retain(|m| m.id != mount.id);
    }

    /// Detaches `mount`; mounts inside it stay attached to it and leave with it.
    pub fn detach(&mut self, mount: &Mount) {
        let Some(attachment) = self.attached.remove(&mount.id) else { return };
        self.mounts.retain(|m| m.id != mount.id);
        let below = attachment.covered.mount.id;
        if attachment.name.is_empty() {
            self.over_root.remove(&below);
            return;
        }
        let key = (below, attachment.name);
        if let Some(list) = self.over_name.get_mut(&key) {
            list.retain(|(_, m)| m.id != mount.id);
            if list.is_empty() {
                self.over_name.remove(&key);
            }
        }
        if let Some(count) = self.crossed.get_mut(&below) {
            *count -= 1;
            if *count == 0 {
                self.crossed.remove(&below);
            }
        }
    }

    /// Makes an unattached mount the lowest one in place of the present one, which is then unattached.
    pub fn replace_root(&mut self, new: Arc<Mount>) -> Arc<Mount> {
        let old = std::mem::replace(&mut self.root, new.clone());
        self.mounts.retain(|m| m.id != new.id && m.id != old.id);
        self.mounts.insert(0, new);
        old
    }
}
