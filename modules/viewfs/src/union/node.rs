//! The directories of a union as guests name them: one node each while anybody holds it, so that a rename
//! changes the path of everything below. Knows names and layers, not how either is looked up.
//!
//! Locks: `children` of one node, `place` of one node; neither is held while another is taken, except that
//! `place` may be read under `children`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};
use umvu_interface::{Errno, InodeRef, Result};

/// Index of a lower layer: 0 is the topmost.
pub(crate) type LayerIndex = usize;

/// Entries by name, each with its layer.
pub(crate) type Excepted = HashMap<Box<[u8]>, (LayerIndex, InodeRef)>;

/// A directory of the union.
pub(crate) struct Node {
    place: RwLock<Place>,
    /// The layers that have it. Unset while it is *pure*: it and all below it are in one layer alone, at the same
    /// path below the nearest node that has a stack.
    stack: OnceLock<Stack>,
    pure: LayerIndex,
    children: Mutex<HashMap<Box<[u8]>, Weak<Node>>>,
    gone: AtomicBool,
    /// Whether the file system keeps it alive for the next lookup.
    pub(crate) kept: AtomicBool,
}

#[derive(Default)]
struct Place {
    parent: Option<Arc<Node>>,
    name: Box<[u8]>,
}

/// The real directories behind one of the union.
#[derive(Default)]
pub(crate) struct Stack {
    /// The one that takes changes, once it exists.
    pub(crate) upper: OnceLock<InodeRef>,
    /// Those that are merged below it, topmost first.
    pub(crate) lowers: Vec<(LayerIndex, InodeRef)>,
    /// The path from the root of lower layers where they have it, if that is another one.
    pub(crate) redirect: Option<Vec<u8>>,
    /// Whether the upper one holds objects that have been in a lower layer, whose inode numbers are kept.
    pub(crate) impure: AtomicBool,
    /// Entries that show another layer's object whatever the others hold.
    pub(crate) excepted: OnceLock<Excepted>,
}

impl Stack {
    /// Gives the directory whose metadata is shown.
    pub(crate) fn top(&self) -> Result<&InodeRef> {
        self.upper.get().or(self.lowers.first().map(|(_, inode)| inode)).ok_or(Errno::NOENT)
    }

    /// Gives the directory of one lower layer.
    pub(crate) fn lower(&self, layer: LayerIndex) -> Option<&InodeRef> {
        self.lowers.iter().find(|(index, _)| *index == layer).map(|(_, inode)| inode)
    }
}

impl Node {
    /// Makes the root.
    pub(crate) fn root(stack: Stack) -> Arc<Self> {
        Arc::new(Self::new(Place::default(), Some(stack), 0))
    }

    /// Makes a directory that is gone: where objects without a name lie.
    pub(crate) fn gone() -> Arc<Self> {
        let node = Self::new(Place::default(), None, 0);
        node.gone.store(true, Ordering::Release);
        Arc::new(node)
    }

    fn new(place: Place, stack: Option<Stack>, pure: LayerIndex) -> Self {
        Self {
            place: RwLock::new(place),
            stack: stack.map_or_else(OnceLock::new, OnceLock::from),
            pure,
            children: Mutex::default(),
            gone: AtomicBool::new(false),
            kept: AtomicBool::new(false),
        }
    }

    pub(crate) fn stack(&self) -> Option<&Stack> {
        self.stack.get()
    }

    /// The only layer that has it, while it has no stack.
    pub(crate) fn pure_layer(&self) -> LayerIndex {
        self.pure
    }

    /// Ends purity: the directory now has an upper one.
    pub(crate) fn promote(&self, stack: Stack) -> &Stack {
        self.stack.get_or_init(|| stack)
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// # Errors
    /// - `ENOENT`: the directory has been removed.
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.is_gone() {
            return Err(Errno::NOENT);
        }
        Ok(())
    }

    /// Gives the parent; none for the root.
    pub(crate) fn parent(&self) -> Option<Arc<Node>> {
        self.place.read().parent.clone()
    }

    /// Gives parent and name; none for the root.
    pub(crate) fn place(&self) -> Option<(Arc<Node>, Box<[u8]>)> {
        let place = self.place.read();
        place.parent.clone().map(|parent| (parent, place.name.clone()))
    }

    /// Gives the path from the root.
    pub(crate) fn path(self: &Arc<Self>) -> Vec<u8> {
        let mut names = Vec::new();
        let mut node = Arc::clone(self);
        while let Some((parent, name)) = node.place() {
            names.push(name);
            node = parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// Gives the nearest node at or above this one that has a stack, and the path from there.
    pub(crate) fn anchor(self: &Arc<Self>) -> (Arc<Node>, Vec<u8>) {
        let mut names = Vec::new();
        let mut node = Arc::clone(self);
        while node.stack().is_none() {
            let Some((parent, name)) = node.place() else { break };
            names.push(name);
            node = parent;
        }
        names.reverse();
        (node, names.join(&b'/'))
    }

    /// Whether `other` is this node or lies below it.
    pub(crate) fn holds(self: &Arc<Self>, other: &Arc<Node>) -> bool {
        let mut node = Arc::clone(other);
        loop {
            if Arc::ptr_eq(self, &node) {
                return true;
            }
            match node.parent() {
                Some(parent) => node = parent,
                None => return false,
            }
        }
    }

    /// Gives the node of a subdirectory, if anybody holds it.
    pub(crate) fn child(&self, name: &[u8]) -> Option<Arc<Node>> {
        self.children.lock().get(name)?.upgrade()
    }

    /// Gives the node of a subdirectory, making it if there is none. `current` is asked under the lock whether
    /// what the caller found is still true.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        name: &[u8],
        pure: LayerIndex,
        stack: Option<Stack>,
        current: impl FnOnce() -> bool,
    ) -> Option<Arc<Node>> {
        let mut children = self.children.lock();
        if let Some(child) = children.get(name).and_then(Weak::upgrade) {
            return Some(child);
        }
        if !current() {
            return None;
        }
        let place = Place { parent: Some(Arc::clone(self)), name: name.into() };
        let child = Arc::new(Self::new(place, stack, pure));
        children.insert(name.into(), Arc::downgrade(&child));
        Some(child)
    }

    /// Lets go of a subdirectory whose name now means something else; those who hold it find it removed.
    pub(crate) fn detach(&self, name: &[u8]) {
        let child = self.children.lock().remove(name).and_then(|child| child.upgrade());
        if let Some(child) = child {
            child.gone.store(true, Ordering::Release);
        }
    }

    /// Moves a subdirectory, if anybody holds it, to another place.
    pub(crate) fn relink(&self, name: &[u8], new_parent: &Arc<Node>, new_name: &[u8]) {
        let moved = self.children.lock().remove(name).and_then(|child| child.upgrade());
        if let Some(moved) = moved {
            moved.put(new_parent, new_name);
        }
    }

    /// Makes two entries change places.
    pub(crate) fn swap(&self, name: &[u8], other: &Arc<Node>, other_name: &[u8], this: &Arc<Node>) {
        let mine = self.children.lock().remove(name).and_then(|child| child.upgrade());
        let theirs = other.children.lock().remove(other_name).and_then(|child| child.upgrade());
        if let Some(moved) = mine {
            moved.put(other, other_name);
        }
        if let Some(moved) = theirs {
            moved.put(this, name);
        }
    }

    fn put(self: &Arc<Self>, parent: &Arc<Node>, name: &[u8]) {
        let old = {
            let mut place = self.place.write();
            place.name = name.into();
            place.parent.replace(Arc::clone(parent))
        };
        parent.children.lock().insert(name.into(), Arc::downgrade(self));
        // Outside of the locks: it may be the last reference.
        drop(old);
    }

    /// Takes itself off the parent's list and gives the parent.
    fn unlist(&mut self) -> Option<Arc<Node>> {
        let place = self.place.get_mut();
        let parent = place.parent.take()?;
        let mut children = parent.children.lock();
        if children.get(&place.name).is_some_and(|child| child.strong_count() == 0) {
            children.remove(&place.name);
        }
        drop(children);
        Some(parent)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Not by recursion: directories may be nested deeper than a stack is.
        let mut above = self.unlist();
        while let Some(mut node) = above.and_then(Arc::into_inner) {
            above = node.unlist();
        }
    }
}
