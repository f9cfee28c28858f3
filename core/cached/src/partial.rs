//! Large files, whose backings are filled as they are read. Knows nothing of who reads.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Weak;

use rustix::fs::{OFlags, SeekFrom};
use umvu_driver::OpenFile;
use umvu_interface::{Attendant, Errno, Result};

use crate::asked::contained;
use crate::content::{self, State};
use crate::fs::CachedFs;
use crate::node::Node;
use crate::write_back::BLOCK;

/// Files above this size are filled as they are read.
pub const THRESHOLD: u64 = 16 << 20;
/// A backing is filled in pieces of this size, which are there or not.
const CHUNK: u64 = 1 << 20;
/// As many pieces ahead, at most, of who reads one after the other.
const AHEAD: u64 = 8;

/// What is there of a backing that is not filled yet.
pub struct Partial {
    /// Open for reading.
    file: Box<dyn OpenFile>,
    /// Where what the driver has ends: the rest is there.
    size: u64,
    there: Runs,
    /// The piece after the last that was filled, and how many were filled at once.
    next: (u64, u64),
}

impl Partial {
    /// Nothing of a file is there.
    pub fn new(file: Box<dyn OpenFile>, size: u64) -> Self {
        Self { file, size, there: Runs::default(), next: (0, 1) }
    }

    /// The file was cut.
    pub fn cut(&mut self, size: u64) {
        self.size = self.size.min(size);
    }

    fn has(&self, start: u64, end: u64) -> bool {
        start >= end.min(self.size) || self.there.next_gap(start / CHUNK) * CHUNK >= end.min(self.size)
    }

    fn is_complete(&self) -> bool {
        self.there.next_gap(0) * CHUNK >= self.size
    }
}

/// Rows of pieces that are there: where each begins and ends. They neither meet nor overlap.
#[derive(Default)]
struct Runs(std::collections::BTreeMap<u64, u64>);

impl Runs {
    /// The first piece from `at` on that is not there.
    fn next_gap(&self, at: u64) -> u64 {
        match self.0.range(..=at).next_back() {
            Some((_, end)) if *end > at => *end,
            _ => at,
        }
    }

    /// Where the pieces that are missing from `at` on end.
    fn gap_end(&self, at: u64) -> u64 {
        self.0.range(at..).next().map_or(u64::MAX, |(start, _)| *start)
    }

    fn add(&mut self, mut start: u64, mut end: u64) {
        if let Some((before, until)) = self.0.range(..=start).next_back().map(|(s, e)| (*s, *e)) {
            if until >= start {
                start = before;
                end = end.max(until);
            }
        }
        while let Some((next, until)) = self.0.range(start..=end).next().map(|(s, e)| (*s, *e)) {
            self.0.remove(&next);
            end = end.max(until);
        }
        self.0.insert(start, end);
    }
}

/// Attends to the backing of an object for the hypervisor.
pub struct Filler {
    fs: Weak<CachedFs>,
    node: Weak<Node>,
}

impl std::fmt::Debug for Filler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filler({:?})", self.node.as_ptr())
    }
}

impl Filler {
    pub fn new(fs: Weak<CachedFs>, node: &std::sync::Arc<Node>) -> Self {
        Self { fs, node: std::sync::Arc::downgrade(node) }
    }
}

impl Attendant for Filler {
    fn fill(&self, start: u64, end: u64) -> Result<()> {
        let (Some(fs), Some(node)) = (self.fs.upgrade(), self.node.upgrade()) else { return Err(Errno::IO) };
        let mut state = node.content.state.lock();
        fs.fill_range(&node, &mut state, start, end)
    }

    fn is_there(&self, start: u64, end: u64) -> bool {
        let is_there = |state: &State| state.partial.as_ref().is_none_or(|partial| partial.has(start, end));
        self.node.upgrade().is_some_and(|node| node.content.state.try_lock().is_some_and(|state| is_there(&state)))
    }

    fn closes(&self) -> Result<()> {
        let (Some(fs), Some(node)) = (self.fs.upgrade(), self.node.upgrade()) else { return Ok(()) };
        if !fs.asked.may_block() {
            // Its storage is the host's, where nobody looks for what is not synchronised.
            return Ok(());
        }
        fs.write_back(&node)?;
        let state = node.content.state.lock();
        match &state.behind {
            Some(behind) => fs.asked.waiting(|| contained(|| behind.file.flush())),
            None => Ok(()),
        }
    }

    fn may_wait(&self) -> bool {
        self.fs.upgrade().is_some_and(|fs| fs.asked.may_block())
    }

    fn is_done(&self) -> bool {
        let is_served = self.may_wait();
        self.node.upgrade().is_none_or(|node| {
            // Who holds it may be filling it.
            let is_there = node.content.state.try_lock().is_some_and(|state| state.partial.is_none());
            is_there && !(is_served && node.content.is_live())
        })
    }
}

impl CachedFs {
    /// Fills all that is missing.
    pub(crate) fn complete(&self, node: &Node, state: &mut State) -> Result<()> {
        self.fill_range(node, state, 0, u64::MAX)
    }

    /// Sees to it that a range is there.
    pub(crate) fn fill_range(&self, node: &Node, state: &mut State, start: u64, end: u64) -> Result<()> {
        let Some(partial) = state.partial.as_mut() else { return Ok(()) };
        let end = end.min(partial.size);
        let mut at = partial.there.next_gap(start / CHUNK);
        if start < end && at * CHUNK < end {
            let mut until = end.div_ceil(CHUNK);
            // Who reads on gets more each time.
            let (next, many) = partial.next;
            let many = if at == next { (many * 2).min(AHEAD) } else { 1 };
            until = until.max((at + many).min(partial.size.div_ceil(CHUNK)));
            partial.next = (until, many);
            let backing = self.shelf.open(node.serial, OFlags::RDWR)?;
            let before = content::mtime_of(&rustix::fs::fstat(&backing)?);
            let clean = state.behind.as_mut().map(|behind| &mut behind.clean);
            let filled = self.asked.waiting(|| {
                let mut clean = clean;
                while at < until {
                    let gap = partial.there.gap_end(at).min(until);
                    let (from, to) = (at * CHUNK, (gap * CHUNK).min(partial.size));
                    content::copy(&*partial.file, backing.as_fd(), from, to)?;
                    if let Some(clean) = clean.as_deref_mut() {
                        clean.add(backing.as_fd(), from, to)?;
                    }
                    partial.there.add(at, gap);
                    at = partial.there.next_gap(gap);
                }
                Ok(())
            });
            // That it is filled is no change.
            content::set_times(backing.as_fd(), None, Some(before))?;
            self.weigh(node, backing.as_fd());
            filled?;
        }
        if partial.is_complete() {
            state.partial = None;
        }
        Ok(())
    }

    /// Sees to it that pieces which are partly written are there, whole.
    pub(crate) fn fill_what_is_written(&self, node: &Node, state: &mut State, backing: BorrowedFd<'_>) -> Result<()> {
        let mut at = 0;
        while let Some(size) = state.partial.as_ref().map(|partial| partial.size).filter(|size| at < *size) {
            let Ok(data) = rustix::fs::seek(backing, SeekFrom::Data(at)) else { break };
            let hole = rustix::fs::seek(backing, SeekFrom::Hole(data)).unwrap_or(size).max(data + 1);
            self.fill_range(node, state, data / BLOCK * BLOCK, hole.next_multiple_of(BLOCK))?;
            at = hole;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Runs;

    #[test]
    fn runs_that_meet_become_one() {
        let mut runs = Runs::default();
        runs.add(2, 4);
        runs.add(6, 7);
        assert_eq!((runs.next_gap(0), runs.next_gap(2), runs.next_gap(6)), (0, 4, 7));
        assert_eq!((runs.gap_end(0), runs.gap_end(4), runs.gap_end(7)), (2, 6, u64::MAX));
        runs.add(4, 6);
        assert_eq!((runs.next_gap(2), runs.0.len()), (7, 1));
        runs.add(0, 100);
        assert_eq!((runs.next_gap(50), runs.0.len()), (100, 1));
    }
}
