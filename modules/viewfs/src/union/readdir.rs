//! Listing: the entries of all layers, each name once, with the inode numbers that stat(2) gives. Changes nothing.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use umvu_interface::{DirEntry, Errno, FileKind, InodeRef, Name, Result};

use super::inode::Directory;
use super::node::{LayerIndex, Stack};
use super::whiteout::{self, OCI_OPAQUE, OCI_PREFIX};
use super::{Marks, UnionFs};

/// Entries that have been collected, and the names that later layers have no say in.
#[derive(Default)]
struct Listing {
    entries: Vec<DirEntry>,
    seen: HashSet<Box<[u8]>>,
}

impl UnionFs {
    pub(super) fn read_dir(&self, directory: &Directory) -> Result<Vec<DirEntry>> {
        // Names of a merged directory must not move from one layer to another meanwhile.
        let needs_lock = |stack: &Stack| !stack.lowers.is_empty() || stack.impure.load(Ordering::Acquire);
        let _changing = directory.node.stack().is_some_and(needs_lock).then(|| self.lock());
        self.read_locked(directory)
    }

    /// The same, for those who hold the lock on changes.
    pub(super) fn read_locked(&self, directory: &Directory) -> Result<Vec<DirEntry>> {
        directory.node.check_alive()?;
        let Some(stack) = directory.node.stack() else {
            let layer = directory.node.pure_layer();
            return self.read_only_layer(layer, directory.top(self)?);
        };
        if let (None, [(layer, inode)], None) = (stack.upper.get(), stack.lowers.as_slice(), stack.excepted.get()) {
            return self.read_only_layer(*layer, inode);
        }
        let mut listing = Listing::default();
        self.list_excepted(stack, &mut listing)?;
        if let Some(upper) = stack.upper.get() {
            self.list_upper(directory, stack, upper, &mut listing)?;
        }
        for (position, (layer, inode)) in stack.lowers.iter().enumerate() {
            let is_last = position + 1 == stack.lowers.len();
            if !self.list_lower(*layer, inode, is_last, &mut listing)? {
                break;
            }
        }
        Ok(listing.entries)
    }

    /// Lists a directory of a lower layer; one that the host closes to this user may count as empty.
    fn list_layer(&self, inode: &InodeRef) -> Result<Vec<DirEntry>> {
        match inode.read_dir() {
            Err(errno) if self.unseen(errno) == Errno::NOENT => Ok(Vec::new()),
            other => other,
        }
    }

    /// Lists a directory that only one lower layer has.
    fn read_only_layer(&self, layer: LayerIndex, inode: &InodeRef) -> Result<Vec<DirEntry>> {
        let mut entries = self.list_layer(inode)?;
        let device = self.devices.of(inode, inode.id()?.0);
        let marks = self.layer(layer)?.marks;
        let forms = Forms::of(inode, marks);
        let mut failed = None;
        entries.retain_mut(|entry| {
            entry.ino = if device.is_kernel_state { entry.ino } else { device.ino(entry.ino) };
            match is_whiteout_entry(inode, entry, forms) {
                Ok(is_whiteout) => !(is_whiteout || marks.hides(&entry.name)),
                Err(errno) => {
                    failed = Some(errno);
                    false
                }
            }
        });
        match failed {
            Some(errno) => Err(errno),
            None => Ok(entries),
        }
    }

    fn list_excepted(&self, stack: &Stack, listing: &mut Listing) -> Result<()> {
        for (name, (_, inode)) in stack.excepted.get().into_iter().flatten() {
            let (dev, ino) = inode.id()?;
            let device = self.devices.of(inode, dev);
            let ino = if device.is_kernel_state { ino } else { device.ino(ino) };
            listing.seen.insert(name.clone());
            listing.entries.push(DirEntry { name: name.clone(), ino, dirent_type: inode.kind()?.dirent_type() });
        }
        Ok(())
    }

    fn list_upper(&self, directory: &Directory, stack: &Stack, upper: &InodeRef, listing: &mut Listing) -> Result<()> {
        let device = self.devices.of(upper, upper.id()?.0);
        let is_impure = stack.impure.load(Ordering::Acquire);
        let is_merged = !stack.lowers.is_empty();
        let has_oci_names = self.hides_by_oci_names();
        for mut entry in upper.read_dir()? {
            if self.is_hidden_in_upper(stack, &entry.name) {
                let hidden = entry.name.strip_prefix(OCI_PREFIX).filter(|_| has_oci_names);
                listing.seen.extend(hidden.map(Box::from));
                continue;
            }
            if self.is_excepted(&directory.node, &entry.name) {
                continue;
            }
            if is_whiteout_entry(upper, &entry, Forms::Devices)? {
                listing.seen.insert(entry.name);
                continue;
            }
            if is_merged {
                listing.seen.insert(entry.name.clone());
            }
            // Where numbers are not the layer's own, they cost a look at each object.
            entry.ino = match is_impure {
                true => match self.find_locked(directory, &entry.name) {
                    Ok(found) => self.stat_inode(&found)?.ino,
                    Err(Errno::NOENT | Errno::AGAIN) => continue,
                    Err(errno) => return Err(errno),
                },
                false => device.ino(entry.ino),
            };
            listing.entries.push(entry);
        }
        Ok(())
    }

    /// Gives whether the layers below have a say.
    fn list_lower(&self, layer: LayerIndex, inode: &InodeRef, is_last: bool, listing: &mut Listing) -> Result<bool> {
        let marks = self.layer(layer)?.marks;
        let device = self.devices.of(inode, inode.id()?.0);
        let forms = Forms::of(inode, marks);
        let mut hidden = Vec::new();
        let mut is_opaque = false;
        for mut entry in self.list_layer(inode)? {
            if marks == Marks::OverlayOrOci {
                if *entry.name == *OCI_OPAQUE {
                    is_opaque = true;
                    continue;
                }
                if let Some(name) = entry.name.strip_prefix(OCI_PREFIX) {
                    // It hides what is below this layer, not what is in it.
                    hidden.push(Box::from(name));
                    continue;
                }
            }
            if marks.hides(&entry.name) || listing.seen.contains(&entry.name) {
                continue;
            }
            let is_whiteout = is_whiteout_entry(inode, &entry, forms)?;
            if !is_last || is_whiteout {
                listing.seen.insert(entry.name.clone());
            }
            if !is_whiteout {
                entry.ino = if device.is_kernel_state { entry.ino } else { device.ino(entry.ino) };
                listing.entries.push(entry);
            }
        }
        listing.seen.extend(hidden);
        Ok(!is_opaque)
    }
}

/// The forms of whiteouts that a directory may hold, beside that of OCI.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Forms {
    Devices,
    /// Files with an attribute, too.
    DevicesAndFiles,
}

impl Forms {
    fn of(directory: &InodeRef, marks: Marks) -> Self {
        match marks != Marks::None && directory.get_xattr(whiteout::OPAQUE).is_ok_and(|value| value == b"x") {
            true => Self::DevicesAndFiles,
            false => Self::Devices,
        }
    }
}

/// Whether an entry of a layer is a whiteout.
fn is_whiteout_entry(directory: &InodeRef, entry: &DirEntry, forms: Forms) -> Result<bool> {
    let may_be = |kind: FileKind| entry.dirent_type == kind.dirent_type() || entry.dirent_type == 0;
    let is_file = may_be(FileKind::Regular) && forms == Forms::DevicesAndFiles;
    if !may_be(FileKind::CharDevice) && !is_file {
        return Ok(false);
    }
    let inode = match directory.lookup(&Name::new(&entry.name)?) {
        Ok(inode) => inode,
        // It has gone meanwhile, or is not for this user to see.
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let kind = inode.kind()?;
    match forms {
        Forms::DevicesAndFiles => whiteout::is_marked_whiteout(directory, &inode, kind),
        Forms::Devices => whiteout::is_whiteout(&inode, kind),
    }
}
