//! Contents of files: blocks one behind the other, the end of many files together in a fragment. Follows
//! `fs/squashfs/file.c`.

use std::sync::Arc;

use parking_lot::Mutex;
use umvu_driver::{Contents, OpenFile, Range};
use umvu_interface::Result;

use umvu_archive::Fields;

use super::inode::Content;
use super::metadata::Place;
use super::Squashfs;

/// As many sizes of blocks are read at once.
const STRIDE: u64 = 1024;
/// Most blocks that a file may have, holes too: 2 TiB of the usual size. Their sizes must be passed over to find the last.
const MOST: u64 = 1 << 24;
/// Says of the size of a block that it is not compressed.
const PLAIN: u32 = 1 << 24;

/// An open file.
pub struct File {
    filesystem: Arc<Squashfs>,
    content: Content,
    size: u64,
    /// Blocks that are not in a fragment.
    blocks: u64,
    strides: Mutex<Strides>,
}

/// What was learnt of where the blocks are.
#[derive(Default)]
struct Strides {
    /// Where the sizes of each stride of blocks, and the first of these blocks, are.
    starts: Vec<(Place, u64)>,
    /// The stride read last: its number, and the sizes.
    last: Option<(u64, Arc<Vec<u32>>)>,
}

impl File {
    pub fn new(filesystem: Arc<Squashfs>, content: Content, size: u64) -> Result<Self> {
        let block_size = u64::from(filesystem.superblock.block_size);
        let blocks = if content.fragment.is_some() { size / block_size } else { size.div_ceil(block_size) };
        if blocks > MOST {
            return Err(filesystem.image.damaged(format_args!("a file of {size} bytes")));
        }
        let starts = vec![(content.sizes, content.start)];
        Ok(Self { filesystem, content, size, blocks, strides: Mutex::new(Strides { starts, last: None }) })
    }

    /// Gives the sizes of a stride of blocks, and where the first of them lies.
    fn stride(&self, number: u64) -> Result<(Arc<Vec<u32>>, u64)> {
        let mut strides = self.strides.lock();
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        if let (Some((last, sizes)), Some((_, start))) = (&strides.last, strides.starts.get(at)) {
            if *last == number {
                return Ok((sizes.clone(), *start));
            }
        }
        loop {
            let known = strides.starts.len() - 1;
            let reading = known.min(at);
            let (mut place, start) = strides.starts[reading];
            let sizes = Arc::new(self.read_sizes(&mut place, reading as u64)?);
            if reading == known {
                let length = sizes.iter().fold(0u64, |sum, size| sum + u64::from(size & (PLAIN - 1)));
                strides.starts.push((place, start.saturating_add(length)));
            }
            if reading == at {
                strides.last = Some((number, sizes.clone()));
                return Ok((sizes, start));
            }
        }
    }

    fn read_sizes(&self, place: &mut Place, stride: u64) -> Result<Vec<u32>> {
        let first = stride.saturating_mul(STRIDE);
        let count = self.blocks.saturating_sub(first).min(STRIDE);
        let bytes = self.filesystem.metadata.piece(place, usize::try_from(count * 4).unwrap_or(0))?;
        let mut fields = Fields(&bytes);
        Ok(std::iter::from_fn(|| fields.u32()).collect())
    }

    /// Finds a block: where it lies, and the size that the image gives it; 0 for a hole.
    fn find(&self, number: u64) -> Result<(u64, u32)> {
        let (sizes, start) = self.stride(number / STRIDE)?;
        let within = usize::try_from(number % STRIDE).unwrap_or(usize::MAX);
        let before = sizes.iter().take(within).fold(0u64, |sum, size| sum + u64::from(size & (PLAIN - 1)));
        let nonsense = || self.filesystem.image.damaged("a block that is not there");
        Ok((start.saturating_add(before), *sizes.get(within).ok_or_else(nonsense)?))
    }

    /// Gives a block unpacked; `None` for a hole.
    fn block(&self, number: u64) -> Result<Option<Arc<Vec<u8>>>> {
        if number >= self.blocks {
            return match self.content.fragment {
                Some((fragment, _)) => self.filesystem.fragment(fragment).map(Some),
                None => Ok(None),
            };
        }
        match self.find(number)? {
            (_, 0) => Ok(None),
            (at, size) => self.filesystem.block(at, size).map(Some),
        }
    }
}

impl OpenFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let block_size = u64::from(self.filesystem.superblock.block_size);
        let wanted = self.size.saturating_sub(offset).min(buffer.len() as u64);
        let wanted = usize::try_from(wanted).unwrap_or(0);
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let number = at / block_size;
            let within = usize::try_from(at % block_size).unwrap_or(0);
            let length = usize::try_from(block_size.min(self.size - number * block_size)).unwrap_or(0);
            let count = (length - within).min(wanted - done);
            let out = &mut buffer[done..done + count];
            match self.block(number)? {
                None => out.fill(0),
                Some(block) => {
                    let before = match self.content.fragment {
                        Some((_, offset)) if number >= self.blocks => usize::try_from(offset).unwrap_or(usize::MAX),
                        _ => 0,
                    };
                    let start = before.saturating_add(within);
                    let Some(piece) = block.get(start..start.saturating_add(count)) else {
                        return Err(self.filesystem.image.damaged("a block shorter than the file says"));
                    };
                    out.copy_from_slice(piece);
                }
            }
            done += count;
        }
        Ok(done)
    }

    fn contents_at(&self, offset: u64) -> Result<Contents> {
        let block_size = u64::from(self.filesystem.superblock.block_size);
        let is_hole = |number: u64| Ok(number < self.blocks && self.find(number)?.1 == 0);
        let first = offset / block_size;
        let hole = is_hole(first)?;
        let mut end = first + 1;
        // One stride at most: who asks will ask again.
        while end < self.blocks && end < first + STRIDE && is_hole(end)? == hole {
            end += 1;
        }
        let end = if !hole && end >= self.blocks { self.size } else { (end * block_size).min(self.size) };
        let range = Range { start: offset, end };
        Ok(if hole { Contents::Hole(range) } else { Contents::Data(range) })
    }
}
