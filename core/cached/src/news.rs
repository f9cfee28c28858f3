//! What a driver says unasked of what is kept: that it is not true any more, or what is. Knows no protocol.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use umvu_driver::NodeId;
use umvu_interface::{Errno, FileKind, OFlags, Result, Stat, Timestamp};

use crate::content::set_times;
use crate::fs::CachedFs;
use crate::node::Node;

/// Most that is taken, and given, at once.
const PIECE: usize = 1 << 20;

impl CachedFs {
    /// Forgets what was told of an object, and its content: the driver has news of it.
    pub fn invalidate(&self, node: NodeId) {
        if let Some(node) = self.nodes.by_id(node) {
            node.expire();
            let mut state = node.content.state.lock();
            if state.behind.is_none() {
                state.stamped(&Stat { mtime: Timestamp { seconds: i64::MIN, nanoseconds: 0 }, ..Stat::default() });
            }
        }
    }

    /// Forgets what was told of a name in a directory.
    pub fn invalidate_entry(&self, directory: NodeId, name: &[u8]) {
        if let Some(directory) = self.nodes.by_id(directory) {
            directory.expire();
            if let Some(entry) = directory.child(name) {
                entry.expire();
                entry.node.expire();
            }
        }
    }

    /// Takes note that the driver has removed a name, if it is still that of an object.
    pub fn removed(&self, directory: NodeId, name: &[u8], child: NodeId) {
        let Some(directory) = self.nodes.by_id(directory) else { return };
        let gone = {
            let _changes = directory.listing.write();
            directory.expire();
            let gone = directory.child(name).filter(|entry| entry.node.id == child);
            if let Some(gone) = &gone {
                self.gone(gone);
            }
            gone
        };
        if let Some(gone) = gone {
            self.forget_removed(&gone);
        }
    }

    /// Takes a piece of a file's content: `fuse_notify_store` of `fs/fuse/dev.c`. It is kept where the rest is there, or
    /// where it is all of the file; what a guest has written and the driver has not, stays.
    ///
    /// # Errors
    /// - `ENOENT`: nobody knows the object.
    /// - `EINVAL`: not a regular file, or a place that no file has.
    /// - the host's.
    pub fn store(&self, node: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let node = self.regular(node)?;
        let end = offset.checked_add(bytes.len() as u64).filter(|end| i64::try_from(*end).is_ok());
        let end = end.ok_or(Errno::INVAL)?;
        let Some(entry) = node.entry() else { return Ok(()) };
        let mut state = node.content.state.lock();
        let stat = node.known();
        let is_all = offset == 0 && end >= stat.size;
        let is_whole = state.is_filled && state.is_stamped(&stat) && state.partial.is_none();
        if state.behind.is_some() || !(is_whole || is_all) {
            return Ok(());
        }
        self.shelf.keep(&entry);
        let backing = std::fs::File::from(self.shelf.open(node.serial, OFlags::RDWR | OFlags::CREATE)?);
        for (number, piece) in bytes.chunks(PIECE).enumerate() {
            let at = offset.checked_add((number * PIECE) as u64).ok_or(Errno::INVAL)?;
            backing.write_all_at(piece, at).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        let size = stat.size.max(end);
        if is_all {
            rustix::fs::ftruncate(&backing, size)?;
            state.partial = None;
        }
        state.is_filled = true;
        set_times(backing.as_fd(), Some(stat.atime), Some(stat.mtime))?;
        state.stamped(&Stat { size, ..stat });
        node.grows(size);
        self.weigh(&node, backing.as_fd());
        Ok(())
    }

    /// Gives what is kept of a piece of a file's content: `fuse_retrieve`. It ends where something is missing.
    ///
    /// # Errors
    /// - `ENOENT`: nobody knows the object.
    /// - `EINVAL`: not a regular file.
    /// - the host's.
    pub fn retrieve(&self, node: NodeId, offset: u64, size: usize) -> Result<Vec<u8>> {
        let node = self.regular(node)?;
        let state = node.content.state.lock();
        let is_true = state.behind.is_some() || state.is_stamped(&node.known());
        if !state.is_filled || state.partial.is_some() || !is_true {
            return Ok(Vec::new());
        }
        let backing = std::fs::File::from(self.shelf.open(node.serial, OFlags::RDONLY)?);
        let mut bytes = vec![0; size.min(PIECE)];
        let mut filled = 0;
        while filled < bytes.len() {
            let Some(at) = offset.checked_add(filled as u64) else { break };
            match backing.read_at(&mut bytes[filled..], at) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => return Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn regular(&self, node: NodeId) -> Result<std::sync::Arc<Node>> {
        let node = self.nodes.by_id(node).ok_or(Errno::NOENT)?;
        if node.kind == FileKind::Regular {
            Ok(node)
        } else {
            Err(Errno::INVAL)
        }
    }
}
