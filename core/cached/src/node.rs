//! The objects that are known, each once, and what the driver has told of them. Knows no names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use umvu_driver::{Driver, Found, NodeId, Told, ROOT};
use umvu_interface::{Caller, Errno, FileKind, Result, Stat};

use crate::asked::Asked;
use crate::content::Content;
use crate::entry::Entry;

/// For how long something is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Only we change it.
    Forever,
    /// The driver said so.
    Till(Instant),
    /// The driver is to be asked again.
    Past,
}

impl Until {
    pub fn of(valid: Duration) -> Self {
        Instant::now().checked_add(valid).map_or(Self::Forever, Self::Till)
    }

    pub fn is_past(self) -> bool {
        match self {
            Self::Forever => false,
            Self::Till(end) => Instant::now() >= end,
            Self::Past => true,
        }
    }
}

/// What was told of an object.
struct Known {
    stat: Stat,
    until: Until,
    /// Counts what was told: an answer to an earlier question is not kept.
    version: u64,
}

/// A live object.
pub struct Node {
    /// The driver's number of it.
    pub id: NodeId,
    generation: u64,
    /// Never given twice: its backing is called by it.
    pub serial: u64,
    /// Never changes.
    pub kind: FileKind,
    asked: Arc<Asked>,
    nodes: Arc<Nodes>,
    lookups: AtomicU64,
    known: Mutex<Known>,
    /// By which names it is known.
    pub entries: Mutex<Vec<Weak<Entry>>>,
    /// Of a directory: shared by who looks something up, held alone by who changes entries.
    pub listing: RwLock<()>,
    /// Of a directory: entries that are known.
    pub children: Mutex<HashMap<Box<[u8]>, Weak<Entry>>>,
    /// Of a regular file.
    pub content: Content,
}

impl Node {
    /// Gives the metadata as the driver has it.
    pub fn stat(&self) -> Result<Stat> {
        let version = {
            let known = self.known.lock();
            if !known.until.is_past() {
                return Ok(known.stat.clone());
            }
            known.version
        };
        let told = self.asked.any(|driver, who| driver.stat(who, self.id))?;
        self.checked(&told)?;
        let mut known = self.known.lock();
        if known.version == version {
            known.version += 1;
            (known.stat, known.until) = (told.stat.clone(), Until::of(told.valid));
        }
        Ok(told.stat)
    }

    /// The inode number: of an object that was never asked for the driver tells it.
    pub fn ino(&self) -> Result<u64> {
        let known = self.known.lock();
        if known.version > 0 {
            return Ok(known.stat.ino);
        }
        drop(known);
        // The root is to be found, and unmounted, even if the driver is not there yet, or not any more.
        if self.id == ROOT && !self.asked.is_ready() {
            return Ok(ROOT);
        }
        match self.stat() {
            Err(_) if self.id == ROOT => Ok(ROOT),
            stat => Ok(stat?.ino),
        }
    }

    /// Whether nobody but us changes it.
    pub fn is_ours(&self) -> bool {
        self.known.lock().until == Until::Forever
    }

    /// Has the driver change it.
    pub fn change(
        &self,
        caller: &Caller<'_>,
        change: impl FnOnce(&dyn Driver, &Caller<'_>) -> Result<Told>,
    ) -> Result<Stat> {
        let version = self.known.lock().version;
        let told = self.asked.by(caller, change);
        let mut known = self.known.lock();
        let is_newest = known.version == version;
        known.version += 1;
        match told.and_then(|told| self.checked(&told).map(|()| told)) {
            Ok(told) if is_newest => {
                (known.stat, known.until) = (told.stat.clone(), Until::of(told.valid));
                Ok(told.stat)
            }
            other => {
                known.until = Until::Past;
                other.map(|told| told.stat)
            }
        }
    }

    /// Lets the driver be asked again: something about the object has changed.
    pub fn expire(&self) {
        let mut known = self.known.lock();
        known.version += 1;
        known.until = Until::Past;
    }

    /// What was told last, whether it is still believed or not.
    pub fn known(&self) -> Stat {
        self.known.lock().stat.clone()
    }

    /// Takes note that a file is at least so large.
    pub fn grows(&self, size: u64) {
        let mut known = self.known.lock();
        if known.stat.size < size {
            known.version += 1;
            known.stat.size = size;
        }
    }

    fn tell(&self, told: &Told) {
        let mut known = self.known.lock();
        known.version += 1;
        (known.stat, known.until) = (told.stat.clone(), Until::of(told.valid));
    }

    /// An object does not change what it is.
    fn checked(&self, told: &Told) -> Result<()> {
        if told.stat.kind() == self.kind {
            return Ok(());
        }
        tracing::warn!(node = self.id, mode = told.stat.mode, "a driver tells another type of an object than before");
        Err(Errno::IO)
    }

    /// One of its entries that still has a name, or else any.
    pub fn entry(&self) -> Option<Arc<Entry>> {
        let all: Vec<Arc<Entry>> = self.entries.lock().iter().filter_map(Weak::upgrade).collect();
        all.iter().find(|entry| !entry.is_removed()).or(all.first()).cloned()
    }

    /// Whether it has no name any more.
    pub fn is_removed(&self) -> bool {
        self.entry().is_none_or(|entry| entry.is_removed()) && self.stat().is_ok_and(|stat| stat.nlink == 0)
    }

    /// The entry of a directory that is known by a name.
    pub fn child(&self, name: &[u8]) -> Option<Arc<Entry>> {
        self.children.lock().get(name).and_then(Weak::upgrade)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.nodes.gone(self);
        match *self.lookups.get_mut() {
            0 => {}
            lookups => self.asked.forget(self.id, lookups),
        }
    }
}

/// All live objects.
#[derive(Default)]
pub struct Nodes {
    by_id: Mutex<HashMap<NodeId, Weak<Node>>>,
    serial: AtomicU64,
}

impl Nodes {
    /// Makes the object that is the root.
    pub fn root(self: &Arc<Self>, asked: &Arc<Asked>, told: &Told) -> Arc<Node> {
        let found = Found { node: ROOT, generation: 0, told: told.clone(), name_valid: Duration::MAX };
        let root = self.make(asked, &found, 0);
        self.by_id.lock().insert(ROOT, Arc::downgrade(&root));
        root
    }

    /// Gives the object that the driver has found.
    pub fn found(self: &Arc<Self>, asked: &Arc<Asked>, found: &Found) -> Arc<Node> {
        let mut by_id = self.by_id.lock();
        let known = by_id.get(&found.node).and_then(Weak::upgrade);
        let is_same = |node: &Arc<Node>| node.generation == found.generation && node.kind == found.told.stat.kind();
        let same = known.as_ref().filter(|node| is_same(node)).cloned();
        let node = match same {
            Some(node) => {
                node.lookups.fetch_add(1, Ordering::Relaxed);
                node
            }
            // An object that has the number of another one now, or that was something else before.
            None => {
                let node = self.make(asked, found, 1);
                by_id.insert(found.node, Arc::downgrade(&node));
                node
            }
        };
        // What goes is told to the driver with no lock held.
        drop(by_id);
        node.tell(&found.told);
        drop(known);
        node
    }

    fn make(self: &Arc<Self>, asked: &Arc<Asked>, found: &Found, lookups: u64) -> Arc<Node> {
        Arc::new(Node {
            id: found.node,
            generation: found.generation,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
            kind: found.told.stat.kind(),
            asked: asked.clone(),
            nodes: self.clone(),
            lookups: AtomicU64::new(lookups),
            known: Mutex::new(Known { stat: found.told.stat.clone(), until: Until::of(found.told.valid), version: 0 }),
            entries: Mutex::default(),
            listing: RwLock::new(()),
            children: Mutex::default(),
            content: Content::default(),
        })
    }

    /// The live object of a number.
    pub fn by_id(&self, id: NodeId) -> Option<Arc<Node>> {
        self.by_id.lock().get(&id).and_then(Weak::upgrade)
    }

    fn gone(&self, node: &Node) {
        let mut by_id = self.by_id.lock();
        if by_id.get(&node.id).is_some_and(|known| std::ptr::eq(known.as_ptr(), node)) {
            by_id.remove(&node.id);
        }
    }
}
