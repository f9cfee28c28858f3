//! The content of a regular file: a backing that is filled when it is opened first, and what is known of it. Knows no
//! names and nothing of how it is written back.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{OFlags, Timespec, Timestamps};
use umvu_driver::{Contents, Keep, OpenFile, Range};
use umvu_interface::{Caller, Errno, Opened, Result, SetAttr, SetTime, Stat, Timestamp};

use crate::asked::contained;
use crate::entry::Entry;
use crate::fs::CachedFs;
use crate::node::Node;
use crate::partial::{Filler, Partial, THRESHOLD};
use crate::shelf::Medium;
use crate::write_back::Clean;

/// As much is asked of a driver at once.
const PIECE: usize = 256 << 10;
/// Most that is read of a file whose size nobody knows.
const ENDLESS: u64 = 1 << 30;

/// The content of an object.
#[derive(Default)]
pub struct Content {
    /// Held while the backing is filled, and while the driver's copy and the backing are compared.
    pub state: Mutex<State>,
    is_live: AtomicBool,
    /// Set-id bits that go when the backing is written to.
    pub set_id_at_stake: AtomicU32,
}

/// What is known of it.
#[derive(Default)]
pub struct State {
    /// Whether the backing is there, with all in it but for what `partial` says.
    pub is_filled: bool,
    /// Time and size that the driver told when it was filled.
    stamp: (Timestamp, u64),
    /// What is missing of it, where it is filled as it is read.
    pub partial: Option<Partial>,
    /// What is known of the driver's copy, while the backing may be another one.
    pub behind: Option<Behind>,
    /// The number by which its closing is watched.
    pub watch: Option<i32>,
    /// Whether its descriptors may be where nobody sees them.
    pub is_pinned: bool,
}

/// The driver's copy of a file that may be written.
pub struct Behind {
    /// Open for writing.
    pub file: Box<dyn OpenFile>,
    /// What of it is known.
    pub clean: Clean,
    /// Its size.
    pub size: u64,
    /// The time of modification of the backing when both were the same.
    pub mtime: Timestamp,
    /// Why the last attempt to write back has failed, until somebody is told.
    pub error: Option<Errno>,
}

impl Content {
    /// Whether the backing is the truth.
    pub fn is_live(&self) -> bool {
        self.is_live.load(Ordering::SeqCst)
    }

    pub fn set_live(&self, is_live: bool) {
        self.is_live.store(is_live, Ordering::SeqCst);
    }
}

impl State {
    /// Takes note of what the driver has now.
    pub fn stamped(&mut self, stat: &Stat) {
        self.stamp = (stat.mtime, stat.size);
    }

    /// Whether that is still so.
    pub fn is_stamped(&self, stat: &Stat) -> bool {
        self.stamp == (stat.mtime, stat.size)
    }
}

/// Flags of a guest's open that mean something to the host's file.
const PASSED: OFlags = OFlags::ACCMODE.union(OFlags::APPEND).union(OFlags::NONBLOCK).union(OFlags::NOATIME);

impl CachedFs {
    /// Opens a regular file for a guest.
    pub(crate) fn open_regular(&self, entry: &Arc<Entry>, caller: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        let node = &entry.node;
        let is_written = (flags & OFlags::ACCMODE) != OFlags::RDONLY;
        let opened = {
            let mut state = node.content.state.lock();
            self.shelf.keep(entry);
            if is_written {
                self.prepare_writing(node, &mut state, caller, flags.contains(OFlags::TRUNC))?;
                self.watch_set_id(node, caller)?;
            } else {
                if flags.contains(OFlags::TRUNC) {
                    self.resize(node, &mut state, caller, &SetAttr { size: Some(0), ..SetAttr::default() })?;
                }
                self.prepare_reading(node, &mut state, Some(caller))?;
            }
            let fd = self.shelf.open(node.serial, flags & PASSED)?;
            self.attended(node, &state, fd, is_written)
        };
        self.make_room();
        Ok(opened)
    }

    /// What a guest opened, and who attends to it: a file that is filled as it is read, and one whose server expects to
    /// have what was written when it is closed.
    fn attended(&self, node: &Arc<Node>, state: &State, fd: OwnedFd, is_written: bool) -> Opened {
        match state.partial.is_some() || (is_written && self.asked.may_block()) {
            true => Opened::Attended(fd, Arc::new(Filler::new(self.weak(), node))),
            false => Opened::File(fd),
        }
    }

    /// Gives an `O_PATH` descriptor of the backing, filled.
    pub(crate) fn path_of_regular(&self, entry: &Arc<Entry>) -> Result<OwnedFd> {
        let mut state = entry.node.content.state.lock();
        self.shelf.keep(entry);
        self.prepare_reading(&entry.node, &mut state, None)?;
        self.complete(&entry.node, &mut state)?;
        state.is_pinned = true;
        self.shelf.open(entry.node.serial, OFlags::PATH)
    }

    /// Opens what `create_open` has made.
    pub(crate) fn open_new(&self, entry: &Arc<Entry>, file: Box<dyn OpenFile>, flags: OFlags) -> Result<Opened> {
        let node = &entry.node;
        let mut state = node.content.state.lock();
        self.shelf.keep(entry);
        let is_written = (flags & OFlags::ACCMODE) != OFlags::RDONLY;
        if !state.is_filled {
            self.shelf.make(node.serial, Medium::Disk);
            self.fill(node, &mut state, None, &*file)?;
        }
        if is_written && state.behind.is_none() {
            self.begin_writing(node, &mut state, file)?;
        }
        let fd = self.shelf.open(node.serial, flags & PASSED)?;
        Ok(self.attended(node, &state, fd, is_written))
    }

    /// Sees to it that the backing has what is to be read.
    fn prepare_reading(&self, node: &Node, state: &mut State, caller: Option<&Caller<'_>>) -> Result<()> {
        if state.behind.is_some() {
            return Ok(());
        }
        let stat = node.stat()?;
        let is_true = state.is_filled && state.stamp == (stat.mtime, stat.size);
        if is_true && node.is_ours() && !self.asked.checks_permissions() {
            return Ok(());
        }
        let file = self.open_at_driver(node, caller, OFlags::RDONLY)?;
        if is_true && contained(|| Ok(file.keep()))? == Keep::SinceEver {
            return Ok(());
        }
        self.fill(node, state, caller, &*file)
    }

    /// Sees to it that the backing may be written.
    fn prepare_writing(&self, node: &Node, state: &mut State, caller: &Caller<'_>, truncates: bool) -> Result<()> {
        let empty = SetAttr { size: Some(0), mtime: SetTime::Now, ..SetAttr::default() };
        if state.behind.is_some() {
            if self.asked.checks_permissions() {
                self.open_at_driver(node, Some(caller), OFlags::RDWR)?;
            }
            if truncates {
                self.resize(node, state, caller, &empty)?;
            }
            return Ok(());
        }
        let file = self.open_at_driver(node, Some(caller), OFlags::RDWR)?;
        self.leave_memory(node, state);
        if truncates && node.stat()?.size > 0 {
            self.resize(node, state, caller, &empty)?;
        }
        let stat = node.stat()?;
        let is_true = state.is_filled && state.stamp == (stat.mtime, stat.size);
        if !is_true || contained(|| Ok(file.keep()))? != Keep::SinceEver {
            self.shelf.make(node.serial, Medium::Disk);
            self.fill(node, state, Some(caller), &*file)?;
        }
        self.begin_writing(node, state, file)
    }

    /// Has a backing made anew on the disk that is to be written and lies in memory, where nobody would limit it. One that
    /// somebody reads stays where it is: he is to see what is written.
    fn leave_memory(&self, node: &Node, state: &mut State) {
        let is_in_memory = self.shelf.medium(node.serial) == Some(Medium::Memory);
        if is_in_memory && !state.is_pinned && self.shelf.is_unused(node.serial) {
            self.shelf.move_to_disk(node.serial);
            state.is_filled = false;
            state.partial = None;
            state.watch = None;
        }
    }

    /// From now on the backing, which is what the driver has, is the truth.
    fn begin_writing(&self, node: &Node, state: &mut State, file: Box<dyn OpenFile>) -> Result<()> {
        let stat = node.stat()?;
        let backing = self.shelf.open(node.serial, OFlags::RDONLY)?;
        let clean = Clean::of(backing.as_fd())?;
        let mtime = mtime_of(&rustix::fs::fstat(&backing)?);
        state.behind = Some(Behind { file, clean, size: stat.size, mtime, error: None });
        // First this: the watch sleeps if it sees none.
        node.content.set_live(true);
        self.watch_closing(node, state);
        Ok(())
    }

    fn open_at_driver(&self, node: &Node, caller: Option<&Caller<'_>>, flags: OFlags) -> Result<Box<dyn OpenFile>> {
        match caller {
            Some(caller) => self.asked.by(caller, |driver, who| driver.open(who, node.id, flags)),
            None => self.asked.any(|driver, who| driver.open(who, node.id, flags)),
        }
    }

    /// Copies what the driver has to the backing; of a large file nothing yet.
    fn fill(&self, node: &Node, state: &mut State, caller: Option<&Caller<'_>>, file: &dyn OpenFile) -> Result<()> {
        state.is_filled = false;
        state.partial = None;
        let stat = node.stat()?;
        // Those of unknown size end somewhere.
        let is_kept = contained(|| Ok(file.keep()))? != Keep::Never;
        if is_kept && stat.size <= THRESHOLD {
            self.shelf.make_small(node.serial, stat.size);
        }
        if stat.size > THRESHOLD && is_kept {
            let own = self.open_at_driver(node, caller, OFlags::RDONLY)?;
            state.partial = Some(Partial::new(own, stat.size));
        }
        let is_partial = state.partial.is_some();
        let filled = self.asked.waiting(|| self.fill_from(node, file, &stat, is_partial));
        match filled {
            Ok(()) => {
                state.is_filled = true;
                state.stamped(&stat);
                Ok(())
            }
            Err(errno) => {
                state.partial = None;
                if !state.is_pinned && self.shelf.is_unused(node.serial) {
                    self.shelf.remove(node.serial);
                }
                Err(errno)
            }
        }
    }

    fn fill_from(&self, node: &Node, file: &dyn OpenFile, stat: &Stat, is_partial: bool) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE;
        let backing = self.shelf.open(node.serial, flags)?;
        // In place: who has it open sees the new content, as in a page cache.
        rustix::fs::ftruncate(&backing, 0)?;
        let is_kept = file.keep() != Keep::Never;
        let end = if is_kept { stat.size } else { stat.size.max(ENDLESS) };
        let size = if is_partial { end } else { copy(file, backing.as_fd(), 0, end)? };
        let size = if is_kept { stat.size } else { size };
        rustix::fs::ftruncate(&backing, size)?;
        set_times(backing.as_fd(), Some(stat.atime), Some(stat.mtime))?;
        self.weigh(node, backing.as_fd());
        Ok(())
    }

    pub(crate) fn weigh(&self, node: &Node, backing: BorrowedFd<'_>) {
        if let Ok(stat) = rustix::fs::fstat(backing) {
            self.shelf.weigh(node.serial, u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
        }
    }

    /// Changes the attributes of a regular file: what its backing has too is changed in both.
    pub(crate) fn set_regular(&self, node: &Node, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        let mut state = node.content.state.lock();
        self.resize(node, &mut state, caller, change)
    }

    /// As [`CachedFs::set_regular`], with the lock held.
    fn resize(&self, node: &Node, state: &mut State, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        let stat = node.change(caller, |driver, who| driver.set_attr(who, node.id, change))?;
        if let Some(size) = change.size.filter(|_| state.is_filled) {
            if let Some(partial) = &mut state.partial {
                partial.cut(size);
            }
            let backing = self.shelf.open(node.serial, OFlags::WRONLY)?;
            rustix::fs::ftruncate(&backing, size)?;
            self.weigh(node, backing.as_fd());
        }
        if change.mode.is_some() {
            self.set_id_changed(node)?;
        }
        if let Some(behind) = &mut state.behind {
            if let Some(size) = change.size {
                behind.clean.cut(size);
                behind.size = size;
            }
            let time = |set, now| match set {
                SetTime::Keep => None,
                SetTime::Now | SetTime::At(_) => Some(now),
            };
            let sized = change.size.map(|_| stat.mtime);
            let (atime, mtime) = (time(change.atime, stat.atime), time(change.mtime, stat.mtime).or(sized));
            if atime.is_some() || mtime.is_some() {
                let backing = self.shelf.open(node.serial, OFlags::RDONLY)?;
                set_times(backing.as_fd(), atime, mtime)?;
                if mtime.is_some() {
                    behind.mtime = mtime_of(&rustix::fs::fstat(&backing)?);
                }
            }
        } else if state.is_filled {
            // It is as the driver has it, before and after.
            state.stamped(&stat);
        }
        Ok(())
    }

    /// The metadata of a regular file: of one that may be written the backing tells what a write changes.
    pub(crate) fn stat_regular(&self, node: &Node) -> Result<Stat> {
        let mut stat = node.stat()?;
        if !node.content.is_live() {
            return Ok(stat);
        }
        let Ok(backing) = self.shelf.stat(node.serial) else { return Ok(stat) };
        stat.size = u64::try_from(backing.st_size).unwrap_or(0);
        stat.blocks = u64::try_from(backing.st_blocks).unwrap_or(0);
        let mtime = mtime_of(&backing);
        if mtime > stat.mtime {
            stat.ctime = stat.ctime.max(mtime);
        }
        stat.mtime = mtime;
        stat.mode = self.mode_after_writes(node, stat.mode, &backing);
        Ok(stat)
    }

    /// Removes the backings that were not used for longest, if there are too many.
    pub(crate) fn make_room(&self) {
        if !self.shelf.is_too_full() {
            return;
        }
        self.shelf.make_room(|entry| self.drop_content(&entry.node));
    }

    /// Lets the content of an object go, unless somebody uses it.
    pub(crate) fn drop_content(&self, node: &Node) {
        // Who holds it is using it.
        let Some(mut state) = node.content.state.try_lock() else { return };
        if state.behind.is_none() && !state.is_pinned && self.shelf.is_unused(node.serial) {
            state.is_filled = false;
            state.partial = None;
            state.watch = None;
            self.shelf.remove(node.serial);
        }
    }

    /// Lets go of what has lost its name: content that nobody reads is of no use any more.
    pub(crate) fn forget_removed(&self, entry: &Arc<Entry>) {
        let node = &entry.node;
        if self.shelf.find(node.serial).is_none() || !node.is_removed() {
            return;
        }
        {
            let mut state = node.content.state.lock();
            if !state.is_filled {
                return;
            }
            self.watch_closing(node, &mut state);
        }
        self.give_up(node);
    }

    /// Drops the content of a removed file if its last descriptor is closed.
    pub(crate) fn give_up(&self, node: &Node) {
        let mut state = node.content.state.lock();
        if !state.is_pinned && self.shelf.is_unused(node.serial) {
            node.content.set_live(false);
            state.behind = None;
            state.is_filled = false;
            state.partial = None;
            state.watch = None;
            self.shelf.remove(node.serial);
        }
    }
}

/// Copies what a driver has from `at` to `end`, its holes left out; gives where it ended.
pub fn copy(file: &dyn OpenFile, to: BorrowedFd<'_>, mut at: u64, end: u64) -> Result<u64> {
    let mut tells_holes = true;
    let mut buffer = vec![0; usize::try_from(end - at).unwrap_or(PIECE).clamp(1, PIECE)];
    while at < end {
        let mut until = end;
        if tells_holes {
            match contained(|| file.contents_at(at)) {
                Ok(Contents::Hole(Range { end: next, .. })) if next > at => {
                    at = next.min(end);
                    continue;
                }
                Ok(Contents::Data(Range { end: next, .. })) if next > at => until = next.min(end),
                _ => tells_holes = false,
            }
        }
        let wanted = usize::try_from(until - at).unwrap_or(PIECE).min(buffer.len());
        let count = contained(|| file.read_at(at, &mut buffer[..wanted]))?.min(wanted);
        if count == 0 {
            break;
        }
        write_all(to, at, &buffer[..count])?;
        at += count as u64;
    }
    Ok(at)
}

/// The time of modification of a file of the host.
pub fn mtime_of(stat: &rustix::fs::Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

/// Writes to a file of the host.
pub fn write_all(to: BorrowedFd<'_>, at: u64, bytes: &[u8]) -> Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::pwrite(to, &bytes[written..], at + written as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(more) => written += more,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets the times of a file of the host that are given.
pub fn set_times(file: BorrowedFd<'_>, atime: Option<Timestamp>, mtime: Option<Timestamp>) -> Result<()> {
    let omitted = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let time = |at: Option<Timestamp>| {
        at.map_or(omitted, |at| Timespec { tv_sec: at.seconds, tv_nsec: at.nanoseconds.into() })
    };
    let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
    match rustix::fs::futimens(file, &times) {
        // A time that the host's file system cannot have.
        Err(Errno::INVAL | Errno::OVERFLOW) => Ok(()),
        set => set,
    }
}
