//! What is shown of an object: one device number for all, inode numbers that copy-up and renames leave as they
//! are. Knows nothing of names.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use umvu_interface::{FileKind, InodeRef, Result, Stat};

use super::descriptor::host_path;
use super::devices::Device;
use super::inode::{At, UnionInode};
use super::node::LayerIndex;
use super::whiteout::ORIGIN;
use super::UnionFs;

/// Slots in which the layers of files that were looked at lately are kept.
const SLOTS: usize = 1024;

/// Which layer a real inode number was seen in last: says it for open files without a look at their paths.
pub(crate) struct Opened {
    slots: Box<[AtomicU64]>,
}

impl Default for Opened {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| AtomicU64::new(u64::MAX)).collect() }
    }
}

impl Opened {
    /// The number of the layer stands in the top byte: 0 for the upper one.
    fn entry(ino: u64, layer: Option<LayerIndex>) -> Option<u64> {
        let layer = layer.map_or(Some(0), |layer| u64::try_from(layer).ok()?.checked_add(1))?;
        (layer < 0xff && ino >> 56 == 0).then_some(layer << 56 | ino)
    }

    fn slot(&self, ino: u64) -> Option<&AtomicU64> {
        self.slots.get(usize::try_from(ino).ok()? % SLOTS)
    }

    fn remember(&self, ino: u64, layer: Option<LayerIndex>) {
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
                self.opened.remember(stat.ino, layer);
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
    pub(super) fn origin_of(&self, layer: LayerIndex, stat: &Stat) -> Vec<u8> {
        // Numbers of devices may change with the next boot, places of layers do not.
        match self.layers.get(layer).and_then(|layer| layer.root.id().ok()) {
            Some((dev, _)) if dev == stat.dev => format!("L{layer}:{}", stat.ino).into_bytes(),
            _ => format!("D{}:{}", stat.dev, stat.ino).into_bytes(),
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
                self.layers.get(layer)?.root.id().ok()?.0
            }
            None => place.strip_prefix('D')?.parse().ok()?,
        };
        Some((dev, ino.parse().ok()?))
    }

    pub(super) fn stat_descriptor(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        let real = rustix::fs::fstat(host)?;
        let layer = match self.opened.recall(real.st_ino) {
            Some(layer) => layer,
            None => {
                let layer = self.layer_of_host(&host_path(host)?);
                self.opened.remember(real.st_ino, layer);
                layer
            }
        };
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
        let origin = match layer {
            None if stat.kind() == FileKind::Regular => open_attribute(host, ORIGIN),
            None => None,
            Some(_) => {
                self.apply_owner(&mut stat);
                None
            }
        };
        if layer.is_none() {
            stat.nlink = self.shown_links_open(&stat, |name| open_attribute(host, name));
        }
        stat.ino = origin.and_then(|origin| self.origin_ino(&origin)).unwrap_or_else(|| device.ino(stat.ino));
        stat.dev = self.device;
        Ok(stat)
    }
}

fn open_attribute(host: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::fgetxattr(host, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}
