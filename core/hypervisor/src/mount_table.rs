//! The mount table of a view: which tree covers which object. Knows nothing of how paths are resolved.
//!
//! A table is immutable; a change makes a new one. A mount sees the world below itself because it keeps the
//! inodes it was given, not paths.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use umvu_interface::{FileKind, InodeRef, Result};

use crate::mount::{Location, Mount, MountKind, Origin};

/// Where a mount is attached.
#[derive(Clone)]
pub struct Attachment {
    /// The place that is covered.
    pub covered: Location,
    /// Name of the covered object in its directory; empty when it is the root of its mount.
    pub name: Box<[u8]>,
    /// Device and inode number of the covered object.
    id: (u64, u64),
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
    /// Mounts that add names to directories they do not cover, oldest first.
    adding: Vec<Arc<Mount>>,
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
            adding: Vec::new(),
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

    /// The mounts that add names to directories they do not cover, oldest first.
    pub fn adding(&self) -> &[Arc<Mount>] {
        &self.adding
    }

    /// The mounts whose open files have a mark, newest first.
    pub fn by_mark(&self, mark: i32) -> impl Iterator<Item = &Arc<Mount>> {
        self.mounts.iter().rev().chain(self.detached.iter().rev()).filter(move |m| m.mark() == mark)
    }

    /// The host's own `/proc`, if it has not been unmounted.
    pub fn hosts_proc(&self) -> Option<&Arc<Mount>> {
        self.mounts.iter().find(|m| m.kind == MountKind::Proc && m.origin == Origin::Host)
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

    /// Whether something is mounted on an object, through whichever mount it is covered: `is_local_mountpoint` of
    /// `fs/namespace.c`.
    pub fn is_mount_point(&self, object: &InodeRef) -> Result<bool> {
        let id = object.id()?;
        for (mount, attachment) in self.attached.iter().filter(|(_, attachment)| attachment.id == id) {
            // What was unmounted with the mount that it is in covers nothing any more.
            if self.bottom_of(*mount) == self.root.id && is_same_entry(object, &attachment.covered.inode)? {
                return Ok(true);
            }
        }
        Ok(false)
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
        self.bottom_of(mount.id) == self.root.id
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
    fn bottom_of(&self, mount: u64) -> u64 {
        let mut at = mount;
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
        if crate::additions::adds(&mount, &covered) {
            self.adding.push(mount.clone());
        }
        self.attached.insert(mount.id, Attachment { covered, name, id });
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
        self.adding.retain(|m| m.id != mount.id);
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

/// Whether two that have the same numbers have the same name, too: a file may have several, and only one is covered.
fn is_same_entry(one: &InodeRef, other: &InodeRef) -> Result<bool> {
    if one.kind()? == FileKind::Directory {
        return Ok(true);
    }
    // Only what has been removed has no path.
    let (Ok(path), Ok(other_path)) = (one.path(), other.path()) else { return Ok(false) };
    if Arc::ptr_eq(&one.filesystem(), &other.filesystem()) {
        return Ok(path == other_path);
    }
    let name = |path: &[u8]| path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    Ok(name(&path) == name(&other_path))
}
