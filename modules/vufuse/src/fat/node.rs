//! Files and directories that somebody knows, and their contents. A node stays the same while its record goes elsewhere.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use umvu_driver::{NodeId, ROOT};
use umvu_interface::{Errno, Result};

use crate::image::Image;

use super::boot::Layout;
use super::directory::{Directory, Entry, Record};
use super::table::Table;

/// A file or a directory.
pub struct Node {
    /// Where its record lies in the image; none for the root, and for what was removed.
    pub place: Option<u64>,
    pub record: Record,
    pub ino: u64,
    pub lookups: u64,
    pub opens: u64,
    /// Its clusters, once they were followed.
    runs: Option<Vec<(u32, u32)>>,
}

/// What is behind the lock.
pub struct State {
    pub image: Arc<Image>,
    pub layout: Arc<Layout>,
    pub table: Table,
    pub nodes: HashMap<NodeId, Node>,
    places: HashMap<u64, NodeId>,
    /// Numbers that nodes have.
    inos: HashSet<u64>,
    next: NodeId,
    is_marked: bool,
}

impl State {
    pub fn new(image: Arc<Image>, layout: Arc<Layout>, root: Record) -> Self {
        let table = Table::new(image.clone(), layout.clone());
        let root = Node { place: None, record: root, ino: 1, lookups: 1, opens: 0, runs: None };
        let nodes = HashMap::from([(ROOT, root)]);
        Self {
            image,
            layout,
            table,
            nodes,
            places: HashMap::new(),
            inos: HashSet::new(),
            next: ROOT + 1,
            is_marked: false,
        }
    }

    pub fn node(&self, node: NodeId) -> Result<&Node> {
        self.nodes.get(&node).ok_or(Errno::STALE)
    }

    fn node_mut(&mut self, node: NodeId) -> Result<&mut Node> {
        self.nodes.get_mut(&node).ok_or(Errno::STALE)
    }

    /// Reads a directory.
    pub fn directory(&mut self, node: NodeId) -> Result<Directory> {
        let known = self.node(node)?;
        if !known.record.is_directory() {
            return Err(Errno::NOTDIR);
        }
        if known.place.is_none() && node != ROOT {
            return Err(Errno::NOENT);
        }
        let cluster = known.record.cluster;
        if cluster == 0 && node != ROOT {
            return Err(self.image.damaged("a directory without a place"));
        }
        Directory::read(&self.image, &self.layout, &mut self.table, cluster)
    }

    /// The number that stat(2) shows of an entry.
    pub fn ino(&self, entry: &Entry) -> u64 {
        let known = self.places.get(&entry.place).and_then(|node| self.nodes.get(node));
        known.map_or(entry.place / 32, |node| node.ino)
    }

    /// The node of an entry that is looked up.
    pub fn enter(&mut self, entry: &Entry) -> NodeId {
        if let Some(node) = self.places.get(&entry.place).copied() {
            if let Some(known) = self.nodes.get_mut(&node) {
                known.lookups += 1;
                return node;
            }
        }
        let node = self.next;
        self.next += 1;
        // What has moved away from there keeps its number.
        let plain = entry.place / 32;
        let ino = if self.inos.contains(&plain) { (1 << 48) + node } else { plain };
        self.inos.insert(ino);
        let known =
            Node { place: Some(entry.place), record: entry.record.clone(), ino, lookups: 1, opens: 0, runs: None };
        self.nodes.insert(node, known);
        self.places.insert(entry.place, node);
        node
    }

    /// The record of a node is elsewhere now, or nowhere.
    pub fn moved(&mut self, node: NodeId, place: Option<u64>) -> Result<()> {
        let old = std::mem::replace(&mut self.node_mut(node)?.place, place);
        if let Some(old) = old {
            self.places.remove(&old);
        }
        if let Some(place) = place {
            self.places.insert(place, node);
        }
        Ok(())
    }

    /// Frees a node that nobody knows any more, and its clusters if it has no record.
    pub fn let_go(&mut self, node: NodeId) -> Result<()> {
        let Some(known) = self.nodes.get(&node) else { return Ok(()) };
        if node == ROOT || known.lookups > 0 || known.opens > 0 {
            return Ok(());
        }
        let (place, cluster, ino) = (known.place, known.record.cluster, known.ino);
        self.nodes.remove(&node);
        self.inos.remove(&ino);
        match place {
            Some(place) => {
                self.places.remove(&place);
                Ok(())
            }
            None => self.free_chain(cluster),
        }
    }

    /// Frees a whole chain.
    pub fn free_chain(&mut self, cluster: u32) -> Result<()> {
        if cluster == 0 {
            return Ok(());
        }
        let runs = self.table.chain(cluster)?;
        self.table.free(runs.into_iter().flat_map(|(first, count)| first..first + count))
    }

    /// Takes the chain of a node away from it.
    pub fn take_chain(&mut self, node: NodeId) -> Result<u32> {
        let known = self.node_mut(node)?;
        known.runs = None;
        known.record.size = 0;
        Ok(std::mem::take(&mut known.record.cluster))
    }

    /// Writes the record of a node.
    pub fn write_record(&mut self, node: NodeId) -> Result<()> {
        let known = self.node(node)?;
        match known.place {
            Some(place) => self.image.write(place, &known.record.bytes()),
            None => Ok(()),
        }
    }

    pub fn change(&mut self, node: NodeId, change: impl FnOnce(&mut Record)) -> Result<()> {
        change(&mut self.node_mut(node)?.record);
        self.write_record(node)
    }

    /// Says in the boot sector that somebody writes.
    pub fn mark(&mut self) -> Result<()> {
        if !self.is_marked {
            self.set_mark(|state| state | 1)?;
            self.is_marked = true;
        }
        Ok(())
    }

    /// Says that nobody does any more.
    pub fn unmark(&mut self) -> Result<()> {
        if self.is_marked {
            self.table.write_info()?;
            self.image.flush()?;
            self.set_mark(|state| state & !1)?;
            self.is_marked = false;
        }
        Ok(())
    }

    fn set_mark(&self, change: impl FnOnce(u8) -> u8) -> Result<()> {
        let mut state = [0];
        self.image.read(self.layout.state, &mut state)?;
        self.image.write(self.layout.state, &[change(state[0])])
    }

    fn runs(&mut self, node: NodeId) -> Result<&mut Vec<(u32, u32)>> {
        let cluster = self.node(node)?.record.cluster;
        if self.node(node)?.runs.is_none() {
            let runs = if cluster == 0 { Vec::new() } else { self.table.chain(cluster)? };
            self.node_mut(node)?.runs = Some(runs);
        }
        self.node_mut(node)?.runs.as_mut().ok_or(Errno::IO)
    }

    /// Where a place of a file lies, and how much of it lies there in one piece.
    fn find(&mut self, node: NodeId, offset: u64) -> Result<(u64, u64)> {
        let size = self.layout.cluster_size;
        let mut left = offset;
        for (first, count) in self.runs(node)?.iter().copied() {
            let length = u64::from(count) * size;
            if left < length {
                let start = self.layout.place(first).ok_or(Errno::IO)?;
                return Ok((start + left, length - left));
            }
            left -= length;
        }
        Err(self.image.damaged("a file with fewer clusters than its size says"))
    }

    pub fn read(&mut self, node: NodeId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let size = u64::from(self.node(node)?.record.size);
        let wanted = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut done = 0;
        while done < wanted {
            let (at, length) = self.find(node, offset + done as u64)?;
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(wanted - done);
            self.image.read(at, &mut buffer[done..done + count])?;
            done += count;
        }
        Ok(done)
    }

    /// Writes what is in the file's clusters already.
    fn put(&mut self, node: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (at, length) = self.find(node, offset + done as u64)?;
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len() - done);
            self.image.write(at, &bytes[done..done + count])?;
            done += count;
        }
        Ok(())
    }

    /// Gives a file as many clusters as a size needs.
    fn grow(&mut self, node: NodeId, size: u64) -> Result<()> {
        let wanted = size.div_ceil(self.layout.cluster_size);
        let mut have: u64 = self.runs(node)?.iter().map(|(_, count)| u64::from(*count)).sum();
        while have < wanted {
            let last = self.runs(node)?.last().map(|(first, count)| first + count - 1);
            let added = self.table.take(last)?;
            if last.is_none() {
                self.node_mut(node)?.record.cluster = added;
            }
            match self.runs(node)?.last_mut() {
                Some((first, count)) if *first + *count == added => *count += 1,
                _ => self.runs(node)?.push((added, 1)),
            }
            have += 1;
        }
        Ok(())
    }

    /// Takes away the clusters that a size does not need.
    fn shrink(&mut self, node: NodeId, size: u64) -> Result<()> {
        let keep = size.div_ceil(self.layout.cluster_size);
        let all: Vec<u32> = self.runs(node)?.iter().flat_map(|(first, count)| *first..first + count).collect();
        let keep = usize::try_from(keep).unwrap_or(usize::MAX).min(all.len());
        let (kept, freed) = all.split_at(keep);
        if freed.is_empty() {
            return Ok(());
        }
        match kept.last() {
            Some(last) => self.table.end(*last)?,
            None => {
                self.node_mut(node)?.record.cluster = 0;
                self.write_record(node)?;
            }
        }
        let freed = freed.to_vec();
        self.node_mut(node)?.runs = None;
        self.table.free(freed)
    }

    /// Writes zeros.
    fn zero(&mut self, node: NodeId, from: u64, to: u64) -> Result<()> {
        let zeros = [0; 65_536];
        let mut at = from;
        while at < to {
            let count = (to - at).min(zeros.len() as u64);
            self.put(node, at, &zeros[..usize::try_from(count).unwrap_or(0)])?;
            at += count;
        }
        Ok(())
    }

    /// Makes room up to a size; what was taken goes back if there is not enough.
    fn extend(&mut self, node: NodeId, size: u64) -> Result<u32> {
        let new = u32::try_from(size).map_err(|_| Errno::FBIG)?;
        let old = self.node(node)?.record.size;
        if let Err(errno) = self.grow(node, size) {
            let _ = self.shrink(node, old.into());
            return Err(errno);
        }
        Ok(new)
    }

    pub fn write(&mut self, node: NodeId, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        let old = u64::from(self.node(node)?.record.size);
        if end > old {
            let new = self.extend(node, end)?;
            if offset > old {
                self.zero(node, old, offset)?;
            }
            self.put(node, offset, bytes)?;
            self.node_mut(node)?.record.size = new;
            return Ok(());
        }
        self.put(node, offset, bytes)
    }

    pub fn truncate(&mut self, node: NodeId, size: u64) -> Result<()> {
        let old = u64::from(self.node(node)?.record.size);
        if size > old {
            let new = self.extend(node, size)?;
            self.zero(node, old, size)?;
            self.node_mut(node)?.record.size = new;
        } else {
            let new = u32::try_from(size).map_err(|_| Errno::FBIG)?;
            // The record first: whoever is killed in between loses clusters, not what is in others.
            self.change(node, |record| record.size = new)?;
            self.shrink(node, size)?;
        }
        self.write_record(node)
    }

    /// Bytes that a node takes.
    pub fn taken(&mut self, node: NodeId) -> Result<u64> {
        let clusters: u64 = self.runs(node)?.iter().map(|(_, count)| u64::from(*count)).sum();
        Ok(clusters * self.layout.cluster_size)
    }

    /// Forgets which clusters a node has.
    pub fn forget_runs(&mut self, node: NodeId) {
        if let Some(known) = self.nodes.get_mut(&node) {
            known.runs = None;
        }
    }
}
