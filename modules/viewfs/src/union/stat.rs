//! What is shown of an object: one device number for all, inode numbers that copy-up and renames leave as they
//! are. Knows nothing of names.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use umvu_interface::{Errno, FileKind, InodeRef, Result, Stat};

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
                let is_impure = leaf.parent.stack().is_some_and(|stack| stack.impure.load(Ordering::Acquire));
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

    /// Finds the object that an open descriptor names: by its path while it has one that leads to it, otherwise
    /// as the bare object of its layer.
    pub(super) fn of_descriptor(&self, host: OwnedFd) -> Result<InodeRef> {
        let path = host_path(host.as_fd())?;
        let layer = self.layer_of_host(&path);
        let root = self.root_inode();
        if let (At::Directory(start), Some(path)) = (&root.at, self.path_of_layers(&path)) {
            if path.is_empty() {
                return Ok(root);
            }
            match self.find(start, &path) {
                // A file of a lower layer may have been copied up since; one of the upper layer must be this one.
                Ok(found) if layer.is_some() || is_same(found.real()?, host.as_fd())? => return Ok(found),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        let root = match layer {
            None => self.upper_root(),
            Some(layer) => self.layers.get(layer).map(|layer| &layer.root),
        };
        root.ok_or(Errno::NOENT)?.filesystem().inode_of_open(host)
    }

    /// Finds the layer that a path of the host lies in; none for the upper one.
    fn layer_of_host(&self, path: &[u8]) -> Option<LayerIndex> {
        if self.upper_root().is_some_and(|upper| below(upper, path).is_some()) {
            return None;
        }
        let found = self.layers.iter().position(|layer| below(&layer.root, path).is_some());
        Some(found.unwrap_or(self.bottom))
    }

    /// Gives the path in the union of what is at a path of the host.
    pub(super) fn path_of_layers(&self, path: &[u8]) -> Option<Vec<u8>> {
        if let Some(found) = self.upper_root().and_then(|upper| below(upper, path)) {
            return Some(found);
        }
        let found = self.layers.iter().find_map(|layer| below(&layer.root, path))?;
        Some(self.renamed_path(found))
    }
}

/// Gives the path from a layer's root of what is at a path of the host.
fn below(root: &InodeRef, path: &[u8]) -> Option<Vec<u8>> {
    let found = root.filesystem().path_of_host(path)?;
    let prefix = root.path().ok()?;
    if prefix.is_empty() {
        return Some(found);
    }
    match found.strip_prefix(prefix.as_slice())? {
        [] => Some(Vec::new()),
        [b'/', rest @ ..] => Some(rest.to_vec()),
        _ => None,
    }
}

fn is_same(inode: &InodeRef, host: BorrowedFd<'_>) -> Result<bool> {
    let Some(own) = inode.host_fd() else { return Ok(false) };
    let (own, host) = (rustix::fs::fstat(own)?, rustix::fs::fstat(host)?);
    Ok((own.st_dev, own.st_ino) == (host.st_dev, host.st_ino))
}

fn host_path(host: BorrowedFd<'_>) -> Result<Vec<u8>> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", host.as_raw_fd());
    Ok(rustix::fs::readlink(link, Vec::new())?.into_bytes())
}

fn open_attribute(host: BorrowedFd<'_>, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let length = rustix::fs::fgetxattr(host, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}
