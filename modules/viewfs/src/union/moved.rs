//! Files that were copied up and renamed since, by the object of the lower layer: a descriptor that was opened before
//! still names that one, and means the file under its present name, as on overlayfs. Knows nothing of descriptors.

use std::collections::VecDeque;
use std::sync::Arc;

use umvu_interface::Name;

use super::inode::{At, Directory, UnionInode};
use super::node::Node;
use super::whiteout::ORIGIN;
use super::UnionFs;

/// How many are remembered.
const MOVED: usize = 1024;

/// Those that were renamed lately, the latest last.
pub(crate) type MovedFiles = VecDeque<Moved>;

pub(crate) struct Moved {
    /// Device and inode number in the lower layer.
    key: (u64, u64),
    /// The path there.
    path: Vec<u8>,
    parent: Arc<Node>,
    name: Name,
}

impl UnionFs {
    /// Remembers where a file is after a rename, if a descriptor of what it was copied from may be open.
    pub(super) fn note_moved(
        &self,
        object: &UnionInode,
        (old, old_name): (&Directory, &Name),
        (new, new_name): (&Directory, &Name),
    ) {
        let At::Leaf(leaf) = &object.at else { return };
        let origin =
            leaf.upper.get().filter(|_| self.copying.has_done()).and_then(|upper| upper.get_xattr(ORIGIN).ok());
        let Some(key) = origin.and_then(|origin| self.origin_key(&origin)).filter(|key| self.copying.is_done(*key))
        else {
            return;
        };
        let mut moved = self.moved.write();
        let known = moved.iter().position(|file| file.key == key).and_then(|at| moved.remove(at));
        let path = match known {
            Some(file) => Some(file.path),
            None => self.path_in_layer(old, old_name, key),
        };
        let Some(path) = path else { return };
        moved.push_back(Moved { key, path, parent: Arc::clone(&new.node), name: new_name.clone() });
        let oldest = if moved.len() > MOVED { moved.pop_front() } else { None };
        drop(moved);
        // Outside of the lock: it may be the last to hold a directory.
        drop(oldest);
    }

    /// Finds where in its layer a file is that had this name first.
    fn path_in_layer(&self, directory: &Directory, name: &Name, key: (u64, u64)) -> Option<Vec<u8>> {
        directory.node.stack()?.lowers.iter().find_map(|(layer, lower)| {
            let found = lower.lookup(name).ok().filter(|found| found.id() == Ok(key))?;
            let root = self.layer(*layer).ok()?.root.path().ok()?;
            let path = found.path().ok()?;
            let below = path.strip_prefix(root.as_slice())?;
            Some(below.strip_prefix(b"/").unwrap_or(below).to_vec())
        })
    }

    /// Finds a file that was renamed, by what it was copied from.
    pub(super) fn moved_file(&self, key: (u64, u64)) -> Option<Arc<UnionInode>> {
        let place = self.moved.read().iter().find(|file| file.key == key).map(|f| (f.parent.clone(), f.name.clone()));
        let (parent, name) = place?;
        self.find(&Directory::of(parent), name.as_bytes()).ok()
    }

    /// Gives the union's path of a file that was renamed, by its path in the lower layer.
    pub(super) fn moved_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let moved = self.moved.read();
        let file = moved.iter().rev().find(|file| file.path == path)?;
        let mut now = file.parent.path();
        if !now.is_empty() {
            now.push(b'/');
        }
        now.extend_from_slice(file.name.as_bytes());
        Some(now)
    }
}
