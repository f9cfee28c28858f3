//! Contents of files.

use std::sync::{Arc, OnceLock};

use rsext4::{
    Ext4Error, FileExtent, FileExtentState, FileExtentTarget, InodeNumber, PreallocationOptions, RangeOperation,
    ZeroRangeOptions,
};
use umvu_driver::{Contents, OpenFile, Range};
use umvu_interface::{Errno, Result};

use crate::image::Image;

use super::state::State;
use super::Ext;

/// Most extents of a file that are kept.
const EXTENTS: usize = 1 << 16;

/// An open file.
pub struct File {
    filesystem: Arc<Ext>,
    inode: InodeNumber,
    /// Where it lies, if nobody writes: it is read from there, by all at once.
    map: OnceLock<Option<Map>>,
}

/// Where the content of a file lies.
struct Map {
    size: u64,
    extents: Vec<FileExtent>,
}

impl Map {
    fn read(&self, image: &Image, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let next = self.extents.partition_point(|extent| extent.logical_start <= at);
            let here = next.checked_sub(1).and_then(|index| self.extents.get(index));
            let here =
                here.map(|extent| (extent, at - extent.logical_start)).filter(|(extent, in_it)| *in_it < extent.length);
            let length = match (here, self.extents.get(next)) {
                (Some((extent, in_it)), _) => extent.length - in_it,
                (None, Some(extent)) => extent.logical_start - at,
                (None, None) => u64::MAX,
            };
            let count = usize::try_from(length).unwrap_or(usize::MAX).min(wanted - done);
            let out = &mut buffer[done..done + count];
            match here {
                Some((extent, in_it)) if extent.state == FileExtentState::Initialized => {
                    image.read(extent.physical_start.saturating_add(in_it), out)?;
                }
                _ => out.fill(0),
            }
            done += count;
        }
        Ok(done)
    }
}

impl File {
    pub fn new(filesystem: Arc<Ext>, inode: InodeNumber) -> Self {
        Self { filesystem, inode, map: OnceLock::new() }
    }

    /// Checks that there is room for what is written: rsext4 0.9.2 keeps blocks that it has taken for a write which then
    /// fails for want of more, and nobody owns them.
    fn has_room(&self, state: &mut State, offset: u64, length: u64) -> core::result::Result<(), Ext4Error> {
        /// Blocks that the extent tree of one write takes at most, and then some.
        const TREE: u64 = 8;
        let block = self.filesystem.superblock.block_size;
        let wanted = offset.saturating_add(length).div_ceil(block).saturating_sub(offset / block);
        if state.ext.statfs().free_blocks >= wanted.saturating_add(TREE) {
            return Ok(());
        }
        let map = state.ext.inode_extents(self.inode, offset, length, FileExtentTarget::Data, EXTENTS)?;
        let end = offset.saturating_add(length);
        let mut at = offset;
        for extent in &map.extents {
            if extent.logical_start > at {
                break;
            }
            at = at.max(extent.logical_start.saturating_add(extent.length));
        }
        match at >= end {
            true => Ok(()),
            false => Err(Ext4Error::no_space()),
        }
    }

    fn map(&self) -> Option<&Map> {
        if !self.filesystem.is_read_only {
            return None;
        }
        let read = || {
            self.filesystem.with(|state| {
                let size = state.ext.inode(self.inode)?.size;
                if size == 0 {
                    return Ok(None);
                }
                let map = state.ext.inode_extents(self.inode, 0, size, FileExtentTarget::Data, EXTENTS)?;
                Ok(map.complete.then_some(Map { size, extents: map.extents }))
            })
        };
        self.map.get_or_init(|| read().ok().flatten()).as_ref()
    }
}

impl OpenFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if let Some(map) = self.map() {
            return map.read(&self.filesystem.image, offset, buffer);
        }
        self.filesystem.with(|state| {
            let mut done = 0;
            while done < buffer.len() {
                let count = state.ext.read_inode(self.inode, offset + done as u64, &mut buffer[done..])?;
                if count == 0 {
                    break;
                }
                done += count;
            }
            Ok(done)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.filesystem.change(&[self.inode], |state| {
            self.has_room(state, offset, bytes.len() as u64)?;
            state.change_content(self.inode, |ext| ext.write_inode(self.inode, offset, bytes))
        })
    }

    fn contents_at(&self, offset: u64) -> Result<Contents> {
        self.filesystem.with(|state| {
            let size = state.ext.inode(self.inode)?.size;
            let end = size.max(offset);
            if offset >= end {
                return Ok(Contents::Hole(Range { start: offset, end }));
            }
            let map = state.ext.inode_extents(self.inode, offset, end - offset, FileExtentTarget::Data, 64)?;
            let mut at = offset;
            let mut data_end = None;
            for extent in &map.extents {
                if extent.state == FileExtentState::Unwritten {
                    continue;
                }
                let extent_end = extent.logical_start.saturating_add(extent.length).min(end);
                match data_end {
                    None if extent.logical_start > at => {
                        return Ok(Contents::Hole(Range { start: at, end: extent.logical_start.min(end) }));
                    }
                    Some(known) if extent.logical_start > known => break,
                    _ => data_end = Some(extent_end),
                }
                at = extent_end;
            }
            Ok(match (data_end, map.complete) {
                (Some(end), _) => Contents::Data(Range { start: offset, end }),
                (None, true) => Contents::Hole(Range { start: offset, end }),
                (None, false) => {
                    let last = map.extents.last().map_or(end, |last| last.logical_start.saturating_add(last.length));
                    Contents::Hole(Range { start: offset, end: last.clamp(offset + 1, end) })
                }
            })
        })
    }

    fn allocate(&self, mode: u32, range: Range) -> Result<()> {
        const KEEP_SIZE: u32 = 1;
        const PUNCH_HOLE: u32 = 2;
        const COLLAPSE_RANGE: u32 = 8;
        const ZERO_RANGE: u32 = 0x10;
        const INSERT_RANGE: u32 = 0x20;
        let keep_size = mode & KEEP_SIZE != 0;
        let operation = match mode & !KEEP_SIZE {
            0 => RangeOperation::Allocate(PreallocationOptions { keep_size }),
            PUNCH_HOLE if keep_size => RangeOperation::PunchHole,
            ZERO_RANGE => RangeOperation::Zero(ZeroRangeOptions { keep_size }),
            COLLAPSE_RANGE if !keep_size => RangeOperation::Collapse,
            INSERT_RANGE if !keep_size => RangeOperation::Insert,
            _ => return Err(Errno::OPNOTSUPP),
        };
        let length = range.end.checked_sub(range.start).ok_or(Errno::INVAL)?;
        self.filesystem.change(&[self.inode], |state| {
            if mode & !KEEP_SIZE == 0 {
                self.has_room(state, range.start, length)?;
            }
            state.change_content(self.inode, |ext| ext.operate_inode_range(self.inode, range.start, length, operation))
        })
    }

    fn sync(&self) -> Result<()> {
        self.filesystem.with(|state| state.ext.sync())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.filesystem.closed(self.inode);
    }
}
