//! A name of an object, which follows its renames. Knows no driver.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::node::{Node, Until};

/// An object by one of its names; a directory has one alone.
pub struct Entry {
    /// The object.
    pub node: Arc<Node>,
    place: Mutex<Place>,
    /// Whether it was used since somebody has looked.
    used: AtomicBool,
    /// When it is its turn to be let go.
    turn: AtomicU64,
}

/// Where an entry is.
struct Place {
    /// None for the root.
    parent: Option<Arc<Entry>>,
    name: Box<[u8]>,
    is_removed: bool,
    until: Until,
}

impl Entry {
    /// Makes one that is in its directory's list, if it has one.
    pub fn new(node: Arc<Node>, at: Option<(&Arc<Entry>, &[u8])>, until: Until) -> Arc<Self> {
        let (parent, name) = at.map_or((None, Box::default()), |(parent, name)| (Some(parent.clone()), name.into()));
        let place = Mutex::new(Place { parent, name, is_removed: false, until });
        let entry = Arc::new(Self { node, place, used: AtomicBool::new(false), turn: AtomicU64::new(0) });
        let mut entries = entry.node.entries.lock();
        entries.retain(|other| other.strong_count() > 0);
        entries.push(Arc::downgrade(&entry));
        drop(entries);
        entry
    }

    /// Whether the name is no longer there.
    pub fn is_removed(&self) -> bool {
        self.place.lock().is_removed
    }

    /// Whether it may be believed without asking.
    pub fn is_valid(&self) -> bool {
        let place = self.place.lock();
        !place.is_removed && !place.until.is_past()
    }

    /// Has the driver been asked about the name before it is believed again.
    pub fn expire(&self) {
        self.place.lock().until = Until::Past;
    }

    /// Believes it for longer.
    pub fn renew(&self, until: Until) {
        self.place.lock().until = until;
    }

    /// The directory it is in; the root is in itself.
    pub fn parent(self: &Arc<Self>) -> Arc<Entry> {
        self.place.lock().parent.as_ref().unwrap_or(self).clone()
    }

    /// The path from the root, without a leading slash; and whether it is that of a name which is no more.
    pub fn path(self: &Arc<Self>) -> (Vec<u8>, bool) {
        let mut names = Vec::new();
        let mut is_removed = false;
        let mut at = self.clone();
        loop {
            let above = {
                let place = at.place.lock();
                is_removed |= place.is_removed;
                let Some(parent) = &place.parent else { break };
                names.push(place.name.clone());
                parent.clone()
            };
            at = above;
        }
        names.reverse();
        (names.join(&b'/'), is_removed)
    }

    /// Whether it is, or lies below, another.
    pub fn is_within(self: &Arc<Self>, above: &Arc<Entry>) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at, above) {
                return true;
            }
            let parent = at.parent();
            if Arc::ptr_eq(&parent, &at) {
                return false;
            }
            at = parent;
        }
    }

    /// Takes the name away.
    pub fn remove(self: &Arc<Self>) {
        let (parent, name) = {
            let mut place = self.place.lock();
            place.is_removed = true;
            (place.parent.clone(), place.name.clone())
        };
        if let Some(parent) = parent {
            parent.leaves(&name, Arc::as_ptr(self));
        }
    }

    /// Takes it to another place; what was there is removed first by who calls.
    pub fn move_to(self: &Arc<Self>, directory: &Arc<Entry>, name: &[u8], until: Option<Until>) {
        let (former, former_name) = {
            let mut place = self.place.lock();
            place.is_removed = false;
            place.until = until.unwrap_or(place.until);
            (place.parent.replace(directory.clone()), std::mem::replace(&mut place.name, name.into()))
        };
        if let Some(former) = former {
            former.leaves(&former_name, Arc::as_ptr(self));
        }
        directory.node.children.lock().insert(name.into(), Arc::downgrade(self));
    }

    /// Takes an entry off the list of a directory, if it is still there.
    fn leaves(&self, name: &[u8], entry: *const Entry) {
        let mut children = self.node.children.lock();
        if children.get(name).is_some_and(|known| std::ptr::eq(known.as_ptr(), entry)) {
            children.remove(name);
        }
    }

    /// When it is its turn among those that are kept though nobody uses them.
    pub fn turn(&self) -> u64 {
        self.turn.load(Ordering::Relaxed)
    }

    /// Gives it another turn.
    pub fn set_turn(&self, turn: u64) {
        self.turn.store(turn, Ordering::Relaxed);
    }

    /// Takes note of a use.
    pub fn touch(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there was one since the last time.
    pub fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let own: *const Entry = self;
        self.node.entries.lock().retain(|known| !std::ptr::eq(known.as_ptr(), own));
        let place = self.place.get_mut();
        let Some(parent) = place.parent.take() else { return };
        parent.leaves(&place.name, own);
        // Not by recursion: a guest can make directories deeper than our stack.
        let mut above = Some(parent);
        while let Some(entry) = above.take() {
            let own = Arc::as_ptr(&entry);
            let Some(mut entry) = Arc::into_inner(entry) else { return };
            let place = entry.place.get_mut();
            above = place.parent.take();
            if let Some(parent) = &above {
                parent.leaves(&place.name, own);
            }
        }
    }
}
