//! From what the host says of an open object back to the union: its path, its layer, its inode. Changes nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use umvu_interface::{path_of_open, Errno, Inode, InodeRef, Name, Result};

use super::inode::{At, UnionInode};
use super::node::{LayerIndex, Node};
use super::UnionFs;

impl UnionFs {
    /// Finds the object that an open descriptor names: by its path while that leads to it, otherwise as one without
    /// a name.
    pub(super) fn of_descriptor(&self, host: OwnedFd) -> Result<InodeRef> {
        let (path, layer) = match path_of_open(host.as_fd()) {
            // A file deeper than the kernel tells: the object itself is all that is known of it.
            Err(Errno::NAMETOOLONG) => (None, self.layer_of_open(host.as_fd())?),
            path => {
                let path = path?;
                (self.path_of_layers(&path), self.layer_of_host(&path))
            }
        };
        let root = self.root_inode();
        if let (At::Directory(start), Some(path)) = (&root.at, path) {
            if path.is_empty() {
                return Ok(root);
            }
            match self.find(start, &path) {
                Ok(found) if self.is_open_as(&found, layer, host.as_fd())? => return Ok(found),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
        let open = rustix::fs::fstat(&host)?;
        if let Some(found) = self.moved_file((open.st_dev, open.st_ino)) {
            if self.is_open_as(&found, layer, host.as_fd())? {
                return Ok(found);
            }
        }
        let root = match layer {
            None => self.upper_root(),
            Some(layer) => self.layers.get(layer).map(|layer| &layer.root),
        };
        let real = root.ok_or(Errno::NOENT)?.filesystem().inode_of_open(host)?;
        // Without a name it is not copied up, and what is in a lower layer stays as it is.
        let kind = real.kind()?;
        Ok(UnionInode::leaf(self.me(), Node::gone(), Name::new(b"(deleted)")?, kind, layer, real)?)
    }

    /// Whether an object of the union is the one that is open, which may have been copied up since.
    fn is_open_as(&self, found: &UnionInode, layer: Option<LayerIndex>, host: BorrowedFd<'_>) -> Result<bool> {
        if let Some(own) = found.real()?.host_fd() {
            let (own, open) = (rustix::fs::fstat(own)?, rustix::fs::fstat(host)?);
            if (own.st_dev, own.st_ino) == (open.st_dev, open.st_ino) {
                return Ok(true);
            }
        }
        Ok(layer.is_some() && found.upper().is_some() && found.stat()?.ino == self.stat_object(host)?.ino)
    }

    /// Finds the layer that a path of the host lies in; none for the upper one.
    pub(super) fn layer_of_host(&self, path: &[u8]) -> Option<LayerIndex> {
        if self.is_in_upper(path) {
            return None;
        }
        let found = self.layers.iter().position(|layer| below(&layer.root, path).is_some());
        Some(found.unwrap_or(self.bottom))
    }

    /// Whether a path of the host lies in the upper layer.
    pub(super) fn is_in_upper(&self, path: &[u8]) -> bool {
        self.upper_root().is_some_and(|upper| below(upper, path).is_some())
    }

    /// Gives the path in the union of what is at a path of the host.
    pub(super) fn path_of_layers(&self, path: &[u8]) -> Option<Vec<u8>> {
        if let Some(found) = self.upper_root().and_then(|upper| below(upper, path)) {
            return self.path_of_link(&found).or(Some(found));
        }
        let found = self.layers.iter().find_map(|layer| below(&layer.root, path))?;
        self.moved_path(&found).or_else(|| Some(self.renamed_path(found)))
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
