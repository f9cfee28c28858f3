//! The work directory: where copies and new objects are made before they get their names, in the upper layer's own
//! file system. What a crash left there is removed at the next mount.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use umvu_interface::{Caller, Creation, Errno, FileKind, InodeRef, Name, RemoveKind, Result, XattrSet};

use super::inode::Directory;
use super::node::{Excepted, LayerIndex, Stack};
use super::walk::walk;
use super::whiteout::{has, OPAQUE, PLAIN_NAMES, WORK_NAME};
use super::{UnionFs, ROOT};

/// How deep a tree may be that is removed: what the union makes is never deeper than two.
const DEPTH: usize = 64;

/// What the layer itself keeps in the work directory, where it has no other place.
pub(crate) const STATE_NAME: &[u8] = b"state";
const OWNERS_NAME: &[u8] = b"owners";
pub(super) const LINKS_NAME: &[u8] = b"links";
/// What a new mount finds of an earlier one.
const KEPT_NAMES: [&[u8]; 4] = [STATE_NAME, OWNERS_NAME, LINKS_NAME, OCI_NAME];
/// There if names in the upper layer are hidden as in OCI layers.
const OCI_NAME: &[u8] = b"oci";

/// Where copies are made.
pub(crate) struct Work {
    pub(super) directory: InodeRef,
    /// Where `directory` lies.
    parent: InodeRef,
    /// What `nochcopy` writes down, once there is something.
    pub(super) owners: OnceLock<InodeRef>,
    /// The copies of files with several names, once there are some.
    pub(super) links: OnceLock<InodeRef>,
    /// The whiteout that was made last.
    pub(super) whiteout: Mutex<Option<InodeRef>>,
    next: AtomicU64,
    /// Whether the layer cannot hold both 0:0 devices and attributes.
    pub(super) needs_oci_names: bool,
    pub(super) takes_attributes: bool,
}

fn root_caller() -> Caller<'static> {
    Caller { tid: 0, credentials: &ROOT, umask: 0 }
}

impl Work {
    /// Makes the work directory in the upper layer, and clears away what an earlier one left.
    pub(crate) fn prepare(upper: &InodeRef, caller: &Caller<'_>) -> Result<Self> {
        let name = Name::new(WORK_NAME)?;
        let directory = match upper.create(caller, &name, &Creation::Directory { mode: 0o700 }) {
            Err(Errno::EXIST) => upper.lookup(&name)?,
            made => made?,
        };
        if directory.kind()? != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let mut work = Self {
            owners: kept(&directory, OWNERS_NAME)?,
            links: kept(&directory, LINKS_NAME)?,
            directory,
            parent: Arc::clone(upper),
            whiteout: Mutex::new(None),
            next: AtomicU64::new(0),
            needs_oci_names: false,
            takes_attributes: true,
        };
        work.clear()?;
        work.probe(caller)?;
        work.note_form_of_names(caller)?;
        Ok(work)
    }

    /// Tries whether the layer takes whiteouts and attributes.
    fn probe(&mut self, caller: &Caller<'_>) -> Result<()> {
        let name = self.new_name()?;
        let device = self.directory.create(caller, &name, &Creation::CharDevice { mode: 0, rdev: 0 });
        let takes_devices = match device {
            Ok(_) => true,
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => false,
            Err(errno) => return Err(errno),
        };
        self.purge(&name);
        self.takes_attributes = match self.directory.set_xattr(caller, OPAQUE, b"n", XattrSet::Any) {
            Ok(()) => true,
            Err(Errno::OPNOTSUPP | Errno::PERM) => false,
            Err(errno) => return Err(errno),
        };
        self.needs_oci_names = has(&self.directory, OCI_NAME)?;
        let takes_marks = takes_devices && self.takes_attributes;
        if !takes_marks && !self.needs_oci_names {
            self.needs_oci_names = true;
            self.note_oci_names(caller)?;
            tracing::warn!("the upper layer takes no 0:0 devices or no attributes: removals are kept as .wh. files");
        }
        Ok(())
    }

    /// Lets those who have the layer for a lower one know whether names that begin with `.wh.` are just that.
    fn note_form_of_names(&self, caller: &Caller<'_>) -> Result<()> {
        let done = match self.needs_oci_names {
            true => self.parent.remove_xattr(caller, PLAIN_NAMES),
            false => self.parent.set_xattr(caller, PLAIN_NAMES, b"", XattrSet::Any),
        };
        match done {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(()),
            done => done,
        }
    }

    /// Lets later mounts know that names are hidden as in OCI layers.
    pub(super) fn note_oci_names(&self, caller: &Caller<'_>) -> Result<()> {
        match self.parent.remove_xattr(caller, PLAIN_NAMES) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        match self.directory.create(caller, &Name::new(OCI_NAME)?, &Creation::Regular { mode: 0o600 }) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Gives the directory for what `nochcopy` writes down.
    pub(super) fn owners(&self, caller: &Caller<'_>) -> Result<&InodeRef> {
        self.keep(&self.owners, OWNERS_NAME, caller)
    }

    /// Gives the directory for the copies of files with several names.
    pub(super) fn links(&self, caller: &Caller<'_>) -> Result<&InodeRef> {
        self.keep(&self.links, LINKS_NAME, caller)
    }

    fn keep<'a>(&self, slot: &'a OnceLock<InodeRef>, name: &[u8], caller: &Caller<'_>) -> Result<&'a InodeRef> {
        if let Some(directory) = slot.get() {
            return Ok(directory);
        }
        let name = Name::new(name)?;
        let made = match self.directory.create(caller, &name, &Creation::Directory { mode: 0o700 }) {
            Err(Errno::EXIST) => self.directory.lookup(&name)?,
            made => made?,
        };
        Ok(slot.get_or_init(|| made))
    }

    /// Gives a name that is free.
    pub(super) fn new_name(&self) -> Result<Name> {
        Name::new(format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed)).as_bytes())
    }

    /// Removes an entry with all that is in it. What cannot be removed stays until the next mount.
    pub(super) fn purge(&self, name: &Name) {
        self.purge_in(&self.directory, name);
    }

    /// The same for an entry of a directory in the work directory.
    pub(super) fn purge_in(&self, directory: &InodeRef, name: &Name) {
        if let Err(errno) = remove_tree(directory, name, 0) {
            if errno != Errno::NOENT {
                tracing::warn!(?name, %errno, "left in the work directory");
            }
        }
    }

    fn clear(&self) -> Result<()> {
        for entry in self.directory.read_dir()? {
            if KEPT_NAMES.contains(&&*entry.name) {
                continue;
            }
            remove_tree(&self.directory, &Name::new(&entry.name)?, 0)?;
        }
        Ok(())
    }

    /// Leaves no trace, if nothing is left in it.
    pub(super) fn finish(&self) {
        for name in [OWNERS_NAME, LINKS_NAME] {
            if let Ok(name) = Name::new(name) {
                let _ = self.directory.remove(&root_caller(), &name, RemoveKind::Directory);
            }
        }
        if let Ok(name) = Name::new(WORK_NAME) {
            let _ = self.parent.remove(&root_caller(), &name, RemoveKind::Directory);
        }
    }
}

/// Finds a directory that an earlier mount made.
fn kept(directory: &InodeRef, name: &[u8]) -> Result<OnceLock<InodeRef>> {
    match directory.lookup(&Name::new(name)?) {
        Ok(found) => Ok(OnceLock::from(found)),
        Err(Errno::NOENT) => Ok(OnceLock::new()),
        Err(errno) => Err(errno),
    }
}

fn remove_tree(directory: &InodeRef, name: &Name, depth: usize) -> Result<()> {
    let inode = directory.lookup(name)?;
    if inode.kind()? != FileKind::Directory {
        return directory.remove(&root_caller(), name, RemoveKind::File);
    }
    if depth == DEPTH {
        return Err(Errno::NOTEMPTY);
    }
    for entry in inode.read_dir()? {
        let name = Name::new(&entry.name)?;
        // Mostly whiteouts, which need no look at each.
        if entry.dirent_type == FileKind::CharDevice.dirent_type() {
            inode.remove(&root_caller(), &name, RemoveKind::File)?;
        } else {
            remove_tree(&inode, &name, depth + 1)?;
        }
    }
    directory.remove(&root_caller(), name, RemoveKind::Directory)
}

impl UnionFs {
    /// Makes paths show one layer, whatever the others hold.
    pub(super) fn except<'a>(&self, paths: impl Iterator<Item = (&'a [u8], LayerIndex)>) -> Result<()> {
        let mut by_directory: HashMap<&[u8], Excepted> = HashMap::new();
        for (path, layer) in paths {
            let object = walk(&self.layer(layer)?.root, path)?;
            let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => (&path[..slash], &path[slash + 1..]),
                None => (&path[..0], path),
            };
            by_directory.entry(directory).or_default().insert(name.into(), (layer, object));
        }
        let mut held = Vec::new();
        for (directory, names) in by_directory {
            let mut node = Arc::clone(&self.root);
            for name in directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
                let found = self.find(&Directory::of(Arc::clone(&node)), name)?;
                let child = Arc::clone(&found.as_directory()?.node);
                if child.stack().is_none() {
                    let lowers = vec![(child.pure_layer(), Arc::clone(found.real()?))];
                    child.promote(Stack { lowers, ..Stack::default() });
                }
                held.push(Arc::clone(&child));
                node = child;
            }
            if let Some(stack) = node.stack() {
                let _ = stack.excepted.set(names);
            }
        }
        let _ = self.excepting.set(held);
        Ok(())
    }
}
