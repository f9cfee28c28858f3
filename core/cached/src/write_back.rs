//! Bringing to the driver what guests have written to a backing: only what has changed. Knows nothing of when.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{OFlags, SeekFrom};
use twox_hash::XxHash3_128;
use umvu_driver::{OpenFile, Range};
use umvu_interface::{Errno, Result, SetAttr, SetTime};

use crate::asked::contained;
use crate::content::{mtime_of, Behind, State};
use crate::fs::CachedFs;
use crate::node::Node;

/// Changes are told apart by pieces of so many bytes.
pub const BLOCK: u64 = 64 << 10;
/// As much is given to a driver at once.
const PIECE: usize = 1 << 20;

/// What the driver has of a file, in pieces: a number made of the bytes up to the last that is not zero. A piece that is
/// not listed is nothing but zeros; one without a number is not known.
#[derive(Default)]
pub struct Clean(HashMap<u64, Option<u128>>);

impl Clean {
    /// Takes note of the content of a file.
    pub fn of(file: BorrowedFd<'_>) -> Result<Self> {
        let mut clean = Self::default();
        clean.add(file, 0, size_of(file)?)?;
        Ok(clean)
    }

    /// Takes note of a range that was just filled.
    pub fn add(&mut self, file: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
        each_block(file, start, end, |block, bytes| {
            if let Some(number) = number_of(bytes) {
                self.0.insert(block, Some(number));
            }
            Ok(())
        })
    }

    /// The file was cut, or has grown by zeros.
    pub fn cut(&mut self, size: u64) {
        self.0.retain(|block, _| block.saturating_mul(BLOCK) < size);
        // Nobody has read what is left of the last piece.
        if let Some(last) = self.0.get_mut(&(size / BLOCK)) {
            *last = None;
        }
    }
}

/// The bytes up to the last one that is not zero.
fn stripped(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    &bytes[..end]
}

fn number_of(bytes: &[u8]) -> Option<u128> {
    let bytes = stripped(bytes);
    (!bytes.is_empty()).then(|| XxHash3_128::oneshot(bytes))
}

fn size_of(file: BorrowedFd<'_>) -> Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0))
}

/// Hands over the pieces of a file that are not holes, each once and in order, from `at`, where one begins, up to `size`.
fn each_block(
    file: BorrowedFd<'_>,
    mut at: u64,
    size: u64,
    mut take: impl FnMut(u64, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; usize::try_from(size.min(BLOCK)).unwrap_or(0)];
    while at < size {
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data >= size => return Ok(()),
            Ok(data) => data / BLOCK * BLOCK,
            Err(Errno::NXIO) => return Ok(()),
            Err(_) => at,
        };
        // All pieces up to the next hole.
        let hole = rustix::fs::seek(file, SeekFrom::Hole(at)).unwrap_or(size).max(at + 1).min(size);
        while at < hole {
            let length = usize::try_from((size - at).min(BLOCK)).unwrap_or(0);
            let count = read_full(file, at, &mut buffer[..length])?;
            // Somebody cuts it this very moment.
            if count == 0 {
                return Ok(());
            }
            take(at / BLOCK, &buffer[..count])?;
            at += BLOCK;
        }
    }
    Ok(())
}

fn read_full(file: BorrowedFd<'_>, at: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match rustix::io::pread(file, &mut buffer[count..], at + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(count)
}

/// Changed pieces that lie side by side.
struct Run {
    at: u64,
    bytes: Vec<u8>,
    blocks: Vec<(u64, Option<u128>)>,
}

impl Run {
    fn end(&self) -> u64 {
        self.at + self.bytes.len() as u64
    }

    fn write(&mut self, behind: &mut Behind) -> Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        contained(|| behind.file.write_at(self.at, &self.bytes))?;
        behind.size = behind.size.max(self.end());
        for (block, number) in self.blocks.drain(..) {
            match number {
                Some(number) => behind.clean.0.insert(block, Some(number)),
                None => behind.clean.0.remove(&block),
            };
        }
        self.bytes.clear();
        Ok(())
    }
}

/// Writes all that differs.
fn write_changes(behind: &mut Behind, backing: BorrowedFd<'_>, size: u64) -> Result<bool> {
    let mut is_changed = false;
    let mut run = Run { at: 0, bytes: Vec::new(), blocks: Vec::new() };
    let mut missing: HashMap<u64, ()> = behind.clean.0.keys().map(|block| (*block, ())).collect();
    each_block(backing, 0, size, |block, bytes| {
        missing.remove(&block);
        let number = number_of(bytes);
        let known = behind.clean.0.get(&block).copied();
        let is_same = match known {
            Some(known) => known.is_some() && known == number,
            None => number.is_none(),
        };
        if is_same {
            return Ok(());
        }
        is_changed = true;
        let at = block * BLOCK;
        // Where the driver has zeros, or nothing, it need not be given any.
        let bytes = if known.is_some() { bytes } else { stripped(bytes) };
        if run.end() != at || run.bytes.len() >= PIECE {
            run.write(behind)?;
            run.at = at;
        }
        run.bytes.extend_from_slice(bytes);
        run.blocks.push((block, number));
        Ok(())
    })?;
    run.write(behind)?;
    // What has become a hole.
    for block in missing.into_keys() {
        let (start, end) = (block * BLOCK, ((block + 1) * BLOCK).min(size));
        if start < end {
            is_changed = true;
            zero(&*behind.file, Range { start, end })?;
        }
        behind.clean.0.remove(&block);
    }
    Ok(is_changed)
}

fn zero(file: &dyn OpenFile, range: Range) -> Result<()> {
    /// `FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE` of linux/falloc.h.
    const PUNCH: u32 = 3;
    if contained(|| file.allocate(PUNCH, range)).is_ok() {
        return Ok(());
    }
    let length = usize::try_from(range.end - range.start).map_err(|_| Errno::FBIG)?;
    contained(|| file.write_at(range.start, &vec![0; length]))
}

impl CachedFs {
    /// Brings what guests have written to a file to the driver. One that nobody can write any more is the driver's again.
    ///
    /// # Errors
    /// The driver's, now or when nobody was there to be told: told once.
    pub(crate) fn write_back(&self, node: &Node) -> Result<()> {
        let mut state = node.content.state.lock();
        self.write_back_locked(node, &mut state)?;
        match state.behind.as_mut().and_then(|behind| behind.error.take()) {
            Some(errno) => Err(errno),
            None => Ok(()),
        }
    }

    /// Writes a file back, and has the driver write it to its storage: fsync(2).
    ///
    /// # Errors
    /// As [`CachedFs::write_back`].
    pub(crate) fn sync_regular(&self, node: &Node) -> Result<()> {
        self.write_back(node)?;
        let state = node.content.state.lock();
        match &state.behind {
            Some(behind) => self.asked.waiting(|| contained(|| behind.file.sync())),
            None => {
                drop(state);
                self.asked.sync()
            }
        }
    }

    /// As [`CachedFs::write_back`], with what fails kept for who asks next.
    pub(crate) fn write_back_unasked(&self, node: &Node) {
        let mut state = node.content.state.lock();
        if let Err(errno) = self.write_back_locked(node, &mut state) {
            let path = node.entry().map(|entry| entry.path().0).unwrap_or_default();
            let behind = state.behind.as_mut();
            let is_new = behind.as_ref().is_some_and(|behind| behind.error != Some(errno));
            if is_new {
                tracing::warn!(path = %path.escape_ascii(), %errno, "a file was not written back");
            }
            if let Some(behind) = behind {
                behind.error = Some(errno);
            }
        }
    }

    fn write_back_locked(&self, node: &Node, state: &mut State) -> Result<()> {
        if state.behind.is_none() {
            return Ok(());
        }
        let backing = self.shelf.open(node.serial, OFlags::RDONLY)?;
        // Looked for first: what nobody writes from now on is complete.
        let is_written = umvu_sys::file::is_open_for_writing(backing.as_fd());
        self.weigh(node, backing.as_fd());
        if node.is_removed() {
            return Ok(());
        }
        self.fill_what_is_written(node, state, backing.as_fd())?;
        let Some(behind) = state.behind.as_mut() else { return Ok(()) };
        self.asked.waiting(|| self.bring(node, behind, backing.as_fd()))?;
        if !is_written {
            state.behind = None;
            node.expire();
            let stat = node.stat();
            node.content.set_live(false);
            node.content.set_id_at_stake.store(0, std::sync::atomic::Ordering::SeqCst);
            match stat {
                Ok(stat) => state.stamped(&stat),
                Err(_) => state.is_filled = false,
            }
        }
        Ok(())
    }

    fn bring(&self, node: &Node, behind: &mut Behind, backing: BorrowedFd<'_>) -> Result<()> {
        let stat = rustix::fs::fstat(backing)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mtime = mtime_of(&stat);
        self.bring_set_id(node, &stat)?;
        let set = |change: SetAttr| {
            let told = self.asked.any(|driver, who| driver.set_attr(who, node.id, &change));
            node.expire();
            told
        };
        if size < behind.size {
            set(SetAttr { size: Some(size), ..SetAttr::default() })?;
            behind.clean.cut(size);
            behind.size = size;
        }
        let written = write_changes(behind, backing, size);
        node.expire();
        if written.is_err() {
            // What of it has arrived the driver knows.
            if let Ok(stat) = node.stat() {
                behind.size = stat.size;
            }
        }
        let mut is_changed = written?;
        if behind.size < size {
            set(SetAttr { size: Some(size), ..SetAttr::default() })?;
            behind.size = size;
            is_changed = true;
        }
        if !self.asked.stamps_writes() && (is_changed || behind.mtime != mtime) {
            set(SetAttr { mtime: SetTime::At(mtime), ..SetAttr::default() })?;
            behind.mtime = mtime;
        }
        Ok(())
    }
}
