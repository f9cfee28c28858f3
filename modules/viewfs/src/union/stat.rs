//! What is shown of an object: one device number for all, inode numbers that copy-up and renames leave as they
//! are. Knows nothing of names.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use umvu_interface::{path_of_open, Errno, FileKind, InodeRef, OFlags, Result, Stat};

use super::devices::Device;
use super::inode::{At, UnionInode};
use super::node::LayerIndex;
use super::whiteout::ORIGIN;
use super::{UnionFs, Writes};

/// Slots in which the layers of files that were looked at lately are kept.
const SLOTS: usize = 1024;

/// Which layer an inode number was seen in last: says it for open files without a look at their paths. Only for those
/// on the device of the upper layer: others are in a lower one.
pub(crate) struct Opened {
    /// That device, as the host has it; none if the layer is not one of the host's.
    dev: Option<u64>,
    slots: Box<[AtomicU64]>,
}

impl Opened {
    pub(super) fn new(upper: Option<&InodeRef>) -> Self {
        let upper = upper.filter(|upper| !is_union(upper)).and_then(|upper| upper.host_fd());
        let dev = upper.and_then(|upper| rustix::fs::fstat(upper).ok()).map(|stat| stat.st_dev);
        let slots = if dev.is_some() { SLOTS } else { 0 };
        Self { dev, slots: (0..slots).map(|_| AtomicU64::new(u64::MAX)).collect() }
    }

    /// The number of the layer stands in the top byte: 0 for the upper one.
    fn entry(ino: u64, layer: Option<LayerIndex>) -> Option<u64> {
        let layer = layer.map_or(Some(0), |layer| u64::try_from(layer).ok()?.checked_add(1))?;
        (layer < 0xff && ino >> 56 == 0).then_some(layer << 56 | ino)
    }

    fn slot(&self, ino: u64) -> Option<&AtomicU64> {
        self.slots.get(usize::try_from(ino).ok()? % SLOTS)
    }

    fn remember(&self, dev: u64, ino: u64, layer: Option<LayerIndex>) {
        if self.dev != Some(dev) {
            return;
        }
        if let (Some(entry), Some(slot)) = (Self::entry(ino, layer), self.slot(ino)) {
            slot.store(entry, Ordering::Relaxed);
        }
    }

    fn recall(&self, ino: u64) -> Option<Option<LayerIndex>> {
        let entry = self.slot(ino)?.load(Ordering::Relaxed);
        if entry == u64::MAX || entry & !(0xff << 56) != ino {
            return None;
        }
        match usize::try_from(entry >> 56).ok()? {
            0 => Some(None),
            layer => Some(Some(layer - 1)),
        }
    }
}

impl UnionFs {
    pub(super) fn stat_inode(&self, inode: &UnionInode) -> Result<Stat> {
        let real = inode.real()?;
        let mut stat = real.stat()?;
        let device = self.devices.of(real, stat.dev);
        if inode.upper().is_none() {
            self.apply_owner(&mut stat);
        }
        match &inode.at {
            At::Directory(directory) => {
                if device.is_kernel_state {
                    return Ok(stat);
                }
                stat.ino = device.ino(stat.ino);
                if let Some(stack) = directory.node.stack() {
                    if let (Some(_), Some((_, lower))) = (stack.upper.get(), stack.lowers.first()) {
                        let (dev, ino) = lower.id()?;
                        stat.ino = self.devices.of(lower, dev).ino(ino);
                    }
                    if stack.lowers.len() + usize::from(stack.upper.get().is_some()) > 1 {
                        // Nobody has counted the subdirectories: fs/overlayfs/inode.c, ovl_getattr.
                        stat.nlink = 1;
                    }
                }
                if directory.node.is_gone() {
                    stat.nlink = 0;
                }
            }
            At::Leaf(leaf) => {
                let layer = match leaf.upper.get() {
                    Some(_) => None,
                    None => leaf.lower.as_ref().map(|(layer, _)| *layer),
                };
                self.opened.remember(stat.dev, stat.ino, layer);
                if device.is_kernel_state {
                    return Ok(stat);
                }
                let is_impure = leaf.parent.stack().is_none_or(|stack| stack.impure.load(Ordering::Acquire));
                if layer.is_none() {
                    stat.nlink = self.shown_links(real, &stat);
                }
                stat.ino = match (layer, &leaf.lower) {
                    (None, Some((_, lower))) if leaf.kind == FileKind::Regular => {
                        let (dev, ino) = lower.id()?;
                        self.devices.of(lower, dev).ino(ino)
                    }
                    (None, _) if is_impure => self.kept_ino(real, &stat, device),
                    _ => device.ino(stat.ino),
                };
            }
        }
        stat.dev = self.device;
        Ok(stat)
    }

    /// Gives the inode number shown for an upper object, whose own is in `stat`.
    fn kept_ino(&self, upper: &InodeRef, stat: &Stat, device: Device) -> u64 {
        let origin = match stat.kind() {
            FileKind::Regular => upper.get_xattr(ORIGIN).ok(),
            _ => None,
        };
        origin.and_then(|origin| self.origin_ino(&origin)).unwrap_or_else(|| device.ino(stat.ino))
    }

    /// Gives what is written down as the origin of a copy of `lower`.
    pub(super) fn origin_of(&self, stat: &Stat) -> Vec<u8> {
        // Numbers of devices may change with the next boot, places of layers do not.
        match self.layers.iter().position(|layer| layer.dev == stat.dev) {
            Some(layer) => format!("L{layer}:{}", stat.ino).into_bytes(),
            None => format!("D{}:{}", stat.dev, stat.ino).into_bytes(),
        }
    }

    /// Gives the inode number shown for an origin that was written down; none if it means nothing any more.
    fn origin_ino(&self, origin: &[u8]) -> Option<u64> {
        let (dev, ino) = self.origin_key(origin)?;
        Some(self.devices.find(dev)?.ino(ino))
    }

    /// Gives device and inode number of an origin that was written down.
    pub(super) fn origin_key(&self, origin: &[u8]) -> Option<(u64, u64)> {
        let (place, ino) = std::str::from_utf8(origin).ok()?.split_once(':')?;
        let dev = match place.strip_prefix('L') {
            Some(layer) => {
                let layer: LayerIndex = layer.parse().ok()?;
                self.layers.get(layer)?.dev
            }
            None => place.strip_prefix('D')?.parse().ok()?,
        };
        Some((dev, ino.parse().ok()?))
    }

    /// What is shown of an open object: that of its copy, whatever the descriptor reads, as ovl_getattr of
    /// fs/overlayfs/inode.c has it.
    pub(super) fn stat_descriptor(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        let real = rustix::fs::fstat(host)?;
        if self.copying.is_done((real.st_dev, real.st_ino)) {
            let copy = self.of_descriptor(host.try_clone_to_owned().map_err(|_| Errno::MFILE)?)?;
            if copy.as_any().downcast_ref::<UnionInode>().is_some_and(|copy| copy.upper().is_some()) {
                return copy.stat();
            }
        }
        self.stat_object(host)
    }

    /// What is shown of the very object that is open.
    pub(super) fn stat_object(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        let layer = self.layer_of_open(host)?;
        let root = match layer {
            None => self.upper_root(),
            Some(layer) => self.layers.get(layer).map(|layer| &layer.root),
        };
        let root = root.unwrap_or(&self.layer(self.bottom)?.root);
        let mut stat = root.filesystem().stat_open(host)?;
        let device = self.devices.get(stat.dev, || {
            let numbers = rustix::fs::fstatfs(host)?;
            let magic = u64::try_from(numbers.f_type).unwrap_or(0);
            Ok(umvu_interface::FsStat { magic, ..Default::default() })
        });
        if device.is_kernel_state {
            return Ok(stat);
        }
        let mut origin = None;
        match layer {
            None if stat.kind() == FileKind::Regular => {
                let attribute = |name: &[u8]| attribute_of_open(root, host, name);
                origin = attribute(ORIGIN).and_then(|origin| self.origin_ino(&origin));
                stat.nlink = self.shown_links_open(&stat, attribute);
            }
            None => {}
            Some(_) => self.apply_owner(&mut stat),
        }
        stat.ino = origin.unwrap_or_else(|| device.ino(stat.ino));
        stat.dev = self.device;
        Ok(stat)
    }

    /// Finds the layer of an open object; none for the upper one.
    ///
    /// # Errors
    /// - `ENAMETOOLONG`: it is no directory, its path is longer than the kernel tells, and nothing else says it.
    pub(super) fn layer_of_open(&self, host: BorrowedFd<'_>) -> Result<Option<LayerIndex>> {
        let real = rustix::fs::fstat(host)?;
        if self.opened.dev != Some(real.st_dev) {
            return match self.bottom == 0 && self.opened.dev.is_some() {
                true => Ok(Some(0)),
                false => Ok(self.layer_of_host(&path_of_open(host)?)),
            };
        }
        if let Some(layer) = self.opened.recall(real.st_ino) {
            return Ok(layer);
        }
        let layer = match path_of_open(host) {
            Err(Errno::NAMETOOLONG) if self.is_of_upper_alone(host)? => None,
            path => self.layer_of_host(&path?),
        };
        self.opened.remember(real.st_dev, real.st_ino, layer);
        Ok(layer)
    }

    /// Whether an object is open in a way that only those of the upper layer ever are.
    fn is_of_upper_alone(&self, host: BorrowedFd<'_>) -> Result<bool> {
        let writes = rustix::fs::fcntl_getfl(host)?.intersects(OFlags::WRONLY | OFlags::RDWR);
        Ok(writes && self.layers.iter().take(self.bottom + 1).all(|layer| layer.writes == Writes::Never))
    }
}

/// Reads an attribute of an open object of a layer.
fn attribute_of_open(root: &InodeRef, host: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    if is_union(root) {
        // Its name on the host is another one.
        let inode = root.filesystem().inode_of_open(host.try_clone_to_owned().ok()?).ok()?;
        return inode.get_xattr(name).ok();
    }
    let mut value = vec![0; 64];
    let length = rustix::fs::fgetxattr(host, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_union(inode: &InodeRef) -> bool {
    inode.as_any().downcast_ref::<UnionInode>().is_some()
}
