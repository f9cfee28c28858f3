//! The tree that the entries of one archive, or of the layers of an image, make together. Reads nothing.
//!
//! Nothing in an archive reaches out of the tree: `..` in a name is refused, a symbolic link that is the parent of an
//! entry is followed inside the tree alone, and a hard link names an earlier entry.

mod whiteout;

use std::collections::BTreeMap;

use umvu_interface::{FileKind, Name, Timestamp};

use crate::entry::{damaged, shown, Data, Entry, Object, Result, Xattr};

/// Number of a node: its inode number is one more.
pub type NodeId = u32;

/// The root.
pub const ROOT: NodeId = 0;

/// Most objects in a tree: they are kept in memory.
const MOST: usize = 1 << 22;
/// Deepest directory: no path of Linux is longer.
const DEPTH_MAX: u16 = 2048;
/// Most symbolic links on the way to an entry.
const LINKS_MAX: u32 = 40;

/// How the entries of one archive meet those that are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// A name is a name.
    None,
    /// Names that begin with `.wh.` hide what earlier layers have: image-spec, `layer.md`.
    Oci,
}

/// An object.
#[derive(Debug)]
pub struct Node {
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub mtime: Timestamp,
    /// Extended attributes.
    pub xattrs: Box<[Xattr]>,
    /// What it is.
    pub what: What,
    /// Number of names, for a directory with those that its subdirectories give it.
    pub links: u32,
    /// A directory that has it.
    pub parent: NodeId,
    /// Its name there; empty for the root.
    pub name: Box<[u8]>,
    /// The last layer that has said something of it.
    layer: u32,
    /// The last layer that has hidden what earlier ones have of it.
    pruned: u32,
    depth: u16,
}

/// What a node is.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum What {
    Directory(BTreeMap<Box<[u8]>, NodeId>),
    Regular { layer: u32, size: u64, data: Data },
    Symlink(Box<[u8]>),
    Fifo,
    CharDevice(u64),
    BlockDevice(u64),
    Socket,
}

impl Node {
    /// Its type.
    pub fn kind(&self) -> FileKind {
        match &self.what {
            What::Directory(_) => FileKind::Directory,
            What::Regular { .. } => FileKind::Regular,
            What::Symlink(_) => FileKind::Symlink,
            What::Fifo => FileKind::Fifo,
            What::CharDevice(_) => FileKind::CharDevice,
            What::BlockDevice(_) => FileKind::BlockDevice,
            What::Socket => FileKind::Socket,
        }
    }

    /// Its entries, if it is a directory.
    pub fn entries(&self) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match &self.what {
            What::Directory(entries) => Some(entries),
            _ => None,
        }
    }
}

/// A tree.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    layer: u32,
}

impl Default for Tree {
    fn default() -> Self {
        let root = Node {
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: Box::default(),
            what: What::Directory(BTreeMap::new()),
            links: 2,
            parent: ROOT,
            name: Box::default(),
            layer: 0,
            pruned: 0,
            depth: 0,
        };
        Self { nodes: vec![root], layer: 0 }
    }
}

/// Where an entry goes.
enum Place {
    /// The root itself.
    Root,
    /// A name in a directory.
    At(NodeId, Name),
}

impl Tree {
    /// The object of a number.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(usize::try_from(id).ok()?)
    }

    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(id).ok()?)
    }

    /// How many objects there have been.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The entry of a directory.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(directory)?.entries()?.get(name).copied()
    }

    /// Says that what follows is the next layer.
    pub fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Finds an object by a path from the root, following symbolic links inside the tree.
    pub fn find(&self, path: &[u8]) -> Option<NodeId> {
        let mut links = 0;
        self.walk(ROOT, path, &mut links).ok()
    }

    /// Adds an entry of `archive`, as messages call it.
    ///
    /// # Errors
    /// - `EUCLEAN`: it cannot be there, or there are too many
    pub fn add(&mut self, archive: &str, entry: Entry, marks: Marks) -> Result<()> {
        let path = entry.path.clone();
        let (directory, name) = match self.place(archive, &path)? {
            Place::Root => {
                if entry.what == Object::Directory {
                    self.describe(ROOT, entry);
                }
                return Ok(());
            }
            Place::At(directory, name) => (directory, name),
        };
        if marks == Marks::Oci && self.hide(directory, name.as_bytes()) {
            return Ok(());
        }
        let existing = self.child(directory, name.as_bytes());
        let is_directory = |tree: &Self, id| tree.node(id).is_some_and(|node| node.entries().is_some());
        if let Object::HardLink(target) = &entry.what {
            let found = self.link_target(archive, &path, target)?;
            if is_directory(self, found) {
                return Err(damaged(archive, &path, format_args!("hard link to '{}', a directory", shown(target))));
            }
            self.enter(directory, name.as_bytes(), found);
            return Ok(());
        }
        match existing {
            Some(id) if entry.what == Object::Directory && is_directory(self, id) => self.describe(id, entry),
            _ => {
                let id = self.push(archive, directory, name.as_bytes(), entry)?;
                self.enter(directory, name.as_bytes(), id);
            }
        }
        Ok(())
    }

    /// Makes sure that there is a directory, or a file, to mount something on; gives whether there was room for it.
    pub fn add_mount_point(&mut self, path: &[u8], what: Object) -> Result<()> {
        if self.find(path).is_some() {
            return Ok(());
        }
        let mode = if what == Object::Directory { 0o755 } else { 0o644 };
        let (mtime, xattrs) = (self.nodes[0].mtime, Vec::new());
        let entry = Entry { path: path.to_vec(), mode, uid: 0, gid: 0, mtime, xattrs, what };
        self.add("mount point", entry, Marks::None)
    }

    /// Counts names, and gives each object the place that its path tells. To be called when all is added.
    pub fn finish(&mut self) {
        for node in &mut self.nodes {
            node.links = 0;
        }
        let mut directories = vec![ROOT];
        while let Some(directory) = directories.pop() {
            let Some(node) = self.node(directory) else { continue };
            let entries: Vec<_> = node.entries().into_iter().flatten().map(|(name, id)| (name.clone(), *id)).collect();
            let mut subdirectories = 0u32;
            for (name, id) in entries {
                let Some(node) = self.node_mut(id) else { continue };
                if node.entries().is_some() {
                    subdirectories = subdirectories.saturating_add(1);
                    directories.push(id);
                }
                if node.links == 0 {
                    (node.parent, node.name) = (directory, name);
                }
                node.links = node.links.saturating_add(1);
            }
            if let Some(node) = self.node_mut(directory) {
                node.links = subdirectories.saturating_add(2);
            }
        }
    }

    /// The path of an object from the root.
    pub fn path(&self, id: NodeId) -> Vec<u8> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = id;
        while at != ROOT {
            let Some(node) = self.node(at) else { break };
            names.push(&node.name);
            at = node.parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Takes a path apart and finds, or makes, the directory that its last name is in.
    fn place(&mut self, archive: &str, path: &[u8]) -> Result<Place> {
        if path.len() > 4096 {
            return Err(damaged(archive, path, "the name is too long"));
        }
        let mut names = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(damaged(archive, path, "climbs out of the archive with '..'")),
                name => {
                    names.push(Name::new(name).map_err(|_| damaged(archive, path, "the name is too long"))?);
                }
            }
        }
        let Some(last) = names.pop() else { return Ok(Place::Root) };
        let mut at = ROOT;
        for name in names {
            at = match self.child(at, name.as_bytes()) {
                Some(child) => self.directory(child, at).map_err(|why| {
                    damaged(archive, path, format_args!("its parent '{}' {why}", shown(name.as_bytes())))
                })?,
                None => {
                    let mtime = self.node(at).map(|node| node.mtime).unwrap_or_default();
                    let what = Object::Directory;
                    let (path, xattrs) = (path.to_vec(), Vec::new());
                    let made = Entry { path, mode: 0o755, uid: 0, gid: 0, mtime, xattrs, what };
                    let made = self.push(archive, at, name.as_bytes(), made)?;
                    self.enter(at, name.as_bytes(), made);
                    made
                }
            };
        }
        Ok(Place::At(at, last))
    }

    /// The directory that an object is, or, as a symbolic link in the directory `at`, leads to.
    fn directory(&self, id: NodeId, at: NodeId) -> core::result::Result<NodeId, &'static str> {
        let found = match self.node(id).map(|node| &node.what) {
            Some(What::Symlink(target)) => self.walk(at, target, &mut 1)?,
            _ => id,
        };
        match self.node(found).and_then(Node::entries) {
            Some(_) => Ok(found),
            None => Err("is not a directory"),
        }
    }

    /// Follows a path inside the tree, all symbolic links included.
    fn walk(&self, from: NodeId, path: &[u8], links: &mut u32) -> core::result::Result<NodeId, &'static str> {
        const NOWHERE: &str = "is a symbolic link that leads nowhere";
        let mut at = if path.first() == Some(&b'/') { ROOT } else { from };
        // What is still to be walked, last name first.
        let names = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut rest = names(path);
        while let Some(name) = rest.pop() {
            match &name[..] {
                b"" | b"." => {}
                b".." if at == ROOT => return Err("is a symbolic link that climbs out of the archive"),
                b".." => at = self.node(at).map_or(ROOT, |node| node.parent),
                name => {
                    let child = self.child(at, name).ok_or(NOWHERE)?;
                    match self.node(child).map(|node| &node.what) {
                        Some(What::Symlink(target)) => {
                            *links += 1;
                            if *links > LINKS_MAX {
                                return Err("is a symbolic link that leads to no end");
                            }
                            if target.first() == Some(&b'/') {
                                at = ROOT;
                            }
                            rest.extend(names(target));
                        }
                        _ => at = child,
                    }
                }
            }
        }
        Ok(at)
    }

    fn link_target(&mut self, archive: &str, path: &[u8], target: &[u8]) -> Result<NodeId> {
        let no_target = |why: &str| damaged(archive, path, format_args!("hard link to '{}', {why}", shown(target)));
        if target.split(|byte| *byte == b'/').any(|part| part == b"..") {
            return Err(no_target("which climbs out of the archive with '..'"));
        }
        let missing = || no_target("which is not there");
        let trimmed = target.strip_suffix(b"/").unwrap_or(target);
        let (parent, last) = match trimmed.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (&b""[..], trimmed),
        };
        let directory = self.find(parent).ok_or_else(missing)?;
        self.child(directory, last).ok_or_else(missing)
    }

    fn push(&mut self, archive: &str, parent: NodeId, name: &[u8], entry: Entry) -> Result<NodeId> {
        let path = entry.path;
        let depth = self.node(parent).map_or(0, |node| node.depth).saturating_add(1);
        if depth > DEPTH_MAX {
            return Err(damaged(archive, &path, "the directories are nested too deeply"));
        }
        let id = u32::try_from(self.nodes.len()).ok().filter(|_| self.nodes.len() < MOST);
        let id = id.ok_or_else(|| damaged(archive, &path, format_args!("more than {MOST} objects")))?;
        let what = match entry.what {
            Object::Directory | Object::HardLink(_) => What::Directory(BTreeMap::new()),
            Object::Regular { size, data } => What::Regular { layer: self.layer, size, data },
            Object::Symlink(target) if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
                return Err(damaged(archive, &path, "a symbolic link with an impossible target"));
            }
            Object::Symlink(target) => What::Symlink(target.into()),
            Object::Fifo => What::Fifo,
            Object::CharDevice(rdev) => What::CharDevice(rdev),
            Object::BlockDevice(rdev) => What::BlockDevice(rdev),
            Object::Socket => What::Socket,
        };
        self.nodes.push(Node {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.into(),
            what,
            links: 1,
            parent,
            name: name.into(),
            layer: self.layer,
            pruned: 0,
            depth,
        });
        Ok(id)
    }

    fn enter(&mut self, directory: NodeId, name: &[u8], id: NodeId) {
        if let Some(What::Directory(entries)) = self.node_mut(directory).map(|node| &mut node.what) {
            entries.insert(name.into(), id);
        }
    }

    /// Gives a directory that is there already the metadata of a later entry.
    fn describe(&mut self, id: NodeId, entry: Entry) {
        let layer = self.layer;
        if let Some(node) = self.node_mut(id) {
            (node.mode, node.uid, node.gid, node.mtime) = (entry.mode, entry.uid, entry.gid, entry.mtime);
            node.xattrs = entry.xattrs.into();
            node.layer = layer;
        }
    }
}

#[cfg(test)]
mod tests;
