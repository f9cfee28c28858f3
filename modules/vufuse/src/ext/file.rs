//! Contents of files.

use std::sync::Arc;

use rsext4::{FileExtentState, FileExtentTarget, InodeNumber, PreallocationOptions, RangeOperation, ZeroRangeOptions};
use umvu_driver::{Contents, OpenFile, Range};
use umvu_interface::{Errno, Result};

use super::Ext;

/// An open file.
pub struct File {
    filesystem: Arc<Ext>,
    inode: InodeNumber,
}

impl File {
    pub fn new(filesystem: Arc<Ext>, inode: InodeNumber) -> Self {
        Self { filesystem, inode }
    }
}

impl OpenFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
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
