//! The mount table of a view: which tree covers which object. Knows nothing of how paths are resolved.
//!
//! A table is immutable; a change makes a new one. A mount sees the world below itself because it keeps the
//! inodes it was given, not paths.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

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
    /// Whether both are the same object seen through the same mount.
    pub fn same(&self, other: &Location) -> Result<bool> {
        Ok(self.mount.id == other.mount.id && self.inode.id()? == other.inode.id()?)
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
    /// Source, as given.
    pub source: Vec<u8>,
    /// Type, as shown.
    pub fstype: Vec<u8>,
    /// Name of the module that brought the type, if one did.
    pub module: Option<&'static str>,
    flags: AtomicU64,
    origin: Origin,
}

/// Why a mount is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Somebody asked for it.
    Asked,
    /// It came with another.
    Carried,
}

impl Mount {
    /// Makes a procfs that nobody asked for: it comes with the mount it is in, and leaves with it.
    pub fn carried_proc(id: u64, filesystem: Arc<dyn Filesystem>) -> Arc<Self> {
        Arc::new(Self {
            id,
            root: filesystem.root(),
            filesystem,
            kind: MountKind::Proc,
            source: b"proc".to_vec(),
            fstype: b"proc".to_vec(),
            module: None,
            flags: AtomicU64::new((MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC).bits()),
            origin: Origin::Carried,
        })
    }

    /// Makes the same mount once more, to come with the mount it will be in.
    pub fn carried_copy(&self, id: u64) -> Arc<Self> {
        Arc::new(Self {
            id,
            root: self.root.clone(),
            filesystem: self.filesystem.clone(),
            kind: self.kind,
            source: self.source.clone(),
            fstype: self.fstype.clone(),
            module: self.module,
            flags: AtomicU64::new(self.flags().bits()),
            origin: Origin::Carried,
        })
    }

    /// Whether it came with the mount it is in.
    pub fn is_carried(&self) -> bool {
        self.origin == Origin::Carried
    }

    /// Makes a mount that is not attached yet.
    #[expect(clippy::too_many_arguments, reason = "each is one property of a mount, and none has a default")]
    pub fn new(
        id: u64,
        kind: MountKind,
        root: InodeRef,
        filesystem: Arc<dyn Filesystem>,
        source: Vec<u8>,
        fstype: Vec<u8>,
        flags: MountFlags,
        module: Option<&'static str>,
    ) -> Arc<Self> {
        let flags = AtomicU64::new(flags.bits());
        Arc::new(Self { id, root, filesystem, kind, source, fstype, module, flags, origin: Origin::Asked })
    }

    /// The mount flags.
    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// Changes the mount flags (remount).
    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// The mark that open files of this mount carry: 1 to 63, 0 for the host's own tree.
    pub fn mark(&self) -> i32 {
        match self.kind {
            MountKind::Host | MountKind::Proc => 0,
            MountKind::Tree => i32::try_from(self.id % 63).unwrap_or(0) + 1,
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

/// The mounts of a view, oldest first; the first is the root of everything.
#[derive(Clone)]
pub struct MountTable {
    mounts: Vec<Arc<Mount>>,
    attached: HashMap<u64, Attachment>,
    /// Mounts on the root of a mount, by the id of the lower one.
    over_root: HashMap<u64, Arc<Mount>>,
    /// Other mounts, by the mount and name they cover.
    over_name: HashMap<(u64, Box<[u8]>), Vec<Covering>>,
    /// Mounts that have mounts on places other than their root.
    crossed: HashMap<u64, usize>,
}

impl MountTable {
    /// A table with nothing but a root.
    pub fn new(root: Arc<Mount>) -> Self {
        Self {
            mounts: vec![root],
            attached: HashMap::new(),
            over_root: HashMap::new(),
            over_name: HashMap::new(),
            crossed: HashMap::new(),
        }
    }

    /// Whether there is nothing but the host's own tree.
    pub fn is_host(&self) -> bool {
        self.mounts.iter().all(|m| matches!(m.kind, MountKind::Host | MountKind::Proc))
    }

    /// All mounts, oldest first.
    pub fn mounts(&self) -> &[Arc<Mount>] {
        &self.mounts
    }

    /// The mount with a mark, newest first.
    pub fn by_mark(&self, mark: i32) -> Option<&Arc<Mount>> {
        self.mounts.iter().rev().find(|m| m.mark() == mark)
    }

    /// The root of the view, below everything mounted on it.
    pub fn lowest_root(&self) -> Location {
        let mount = self.mounts[0].clone();
        Location { inode: mount.root.clone(), mount }
    }

    /// The root of the view as it is seen.
    pub fn root(&self) -> Location {
        self.top(self.lowest_root())
    }

    /// What is seen at `location` where `location` may be the root of a mount with others on it.
    pub fn top(&self, mut location: Location) -> Location {
        while let Some(top) = self.over_root.get(&location.mount.id) {
            location = Location { mount: top.clone(), inode: top.root.clone() };
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
            Some((_, top)) => Ok(self.top(Location { mount: top.clone(), inode: top.root.clone() })),
            None => Ok(location),
        }
    }

    /// Where a mount is attached; `None` for the root of the view.
    pub fn attachment(&self, mount: &Mount) -> Option<&Attachment> {
        self.attached.get(&mount.id)
    }

    /// The mounts in and below `mount`, itself first, parents before children.
    pub fn subtree(&self, mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut found = vec![mount.clone()];
        let mut next = 0;
        while next < found.len() {
            let parent = found[next].id;
            next += 1;
            for candidate in &self.mounts {
                if self.attached.get(&candidate.id).is_some_and(|a| a.covered.mount.id == parent) {
                    found.push(candidate.clone());
                }
            }
        }
        found
    }

    /// Attaches `mount` over `covered`, whose name in its directory is `name` (empty for the root of a mount).
    pub fn attach(&mut self, mount: Arc<Mount>, covered: Location, name: &[u8]) -> Result<()> {
        let id = covered.inode.id()?;
        let on_root = covered.mount.root.id()? == id;
        let name: Box<[u8]> = if on_root { Box::default() } else { name.into() };
        if !self.mounts.iter().any(|m| m.id == mount.id) {
            self.mounts.push(mount.clone());
        }
        if on_root {
            self.over_root.insert(covered.mount.id, mount.clone());
        } else {
            self.over_name.entry((covered.mount.id, name.clone())).or_default().push((id, mount.clone()));
            *self.crossed.entry(covered.mount.id).or_default() += 1;
        }
        self.attached.insert(mount.id, Attachment { covered, name });
        Ok(())
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
}
