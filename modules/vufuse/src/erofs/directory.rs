//! Directories: blocks of sorted entries, names behind them. Follows `fs/erofs/dir.c`, `fs/erofs/namei.c` and
//! `erofs_fs.h`.

use umvu_driver::NodeId;
use umvu_interface::{Errno, Result};

use umvu_archive::Fields;

use super::Erofs;

/// Size of an entry.
const ENTRY: usize = 12;
/// Most bytes of a directory.
const MOST: u64 = 256 << 20;

/// Where the content of a directory lies.
struct Place {
    /// Its blocks; the last may be elsewhere.
    start: u64,
    /// Where the end of it is that is not a whole block, if it lies behind the inode.
    tail: Option<u64>,
    size: u64,
    block_size: u64,
}

impl Erofs {
    fn place(&self, node: NodeId) -> Result<Place> {
        let number = self.number(node)?;
        let inode = self.inode(node)?;
        if !inode.is_dir() {
            return Err(Errno::NOTDIR);
        }
        let superblock = self.inner.super_block();
        let bits = u32::from(superblock.blk_size_bits);
        let nonsense = || self.image.damaged("a directory that lies nowhere");
        let at = u64::from(superblock.meta_blk_addr) << bits;
        let at = number.checked_mul(32).and_then(|offset| at.checked_add(offset)).ok_or_else(nonsense)?;
        let raw = self.image.read_piece(at, 20, 20)?;
        let format = Fields(&raw).u16().ok_or_else(nonsense)?;
        let block = Fields(&raw[16..]).u32().ok_or_else(nonsense)?;
        let header = if format & 1 == 0 { 32 } else { 64 };
        let tail = match (format >> 1) & 7 {
            0 => None,
            2 => Some(at + header + inode.xattr_size() as u64),
            layout => {
                self.image.log(&format_args!("a directory of layout {layout}, which is not supported"));
                return Err(Errno::OPNOTSUPP);
            }
        };
        let size = inode.data_size();
        if size > MOST {
            return Err(self.image.damaged(format_args!("a directory of {size} bytes")));
        }
        Ok(Place { start: u64::from(block) << bits, tail, size, block_size: 1 << bits })
    }

    fn block(&self, place: &Place, number: u64) -> Result<Vec<u8>> {
        let length = (place.size - number * place.block_size).min(place.block_size);
        let limit = usize::try_from(place.block_size).unwrap_or(usize::MAX);
        let at = match place.tail {
            Some(tail) if (number + 1) * place.block_size > place.size => tail,
            _ => place.start.saturating_add(number * place.block_size),
        };
        self.image.read_piece(at, length, limit)
    }

    /// Gives the entries to `each`: name, number, type.
    pub(super) fn walk(&self, node: NodeId, mut each: impl FnMut(&[u8], u64, u8)) -> Result<()> {
        let place = self.place(node)?;
        for number in 0..place.size.div_ceil(place.block_size) {
            let block = self.block(&place, number)?;
            let count = self.count(&block)?;
            for index in 0..count {
                let (name, inode, kind) = self.entry(&block, index, count)?;
                each(name, inode, kind);
            }
        }
        Ok(())
    }

    /// Finds an entry: blocks and the entries in them are sorted.
    pub(super) fn find(&self, node: NodeId, wanted: &[u8]) -> Result<Option<u64>> {
        let place = self.place(node)?;
        let (mut low, mut high) = (0, place.size.div_ceil(place.block_size));
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.block(&place, middle)?;
            let count = self.count(&block)?;
            let (first, ..) = self.entry(&block, 0, count)?;
            let (last, ..) = self.entry(&block, count - 1, count)?;
            if wanted < first {
                high = middle;
            } else if wanted > last {
                low = middle + 1;
            } else {
                for index in 0..count {
                    let (name, inode, _) = self.entry(&block, index, count)?;
                    if name == wanted {
                        return Ok(Some(inode));
                    }
                }
                return Ok(None);
            }
        }
        Ok(None)
    }

    /// How many entries a block has: the names begin behind them.
    fn count(&self, block: &[u8]) -> Result<usize> {
        let first = block.get(8..).and_then(|bytes| Fields(bytes).u16()).map(usize::from);
        match first {
            Some(first) if first >= ENTRY && first < block.len() && first % ENTRY == 0 => Ok(first / ENTRY),
            _ => Err(self.image.damaged("a block of a directory that is none")),
        }
    }

    fn entry<'a>(&self, block: &'a [u8], index: usize, count: usize) -> Result<(&'a [u8], u64, u8)> {
        let nonsense = || self.image.damaged("an entry that says nothing sensible");
        let parse = |index: usize| -> Option<(u64, usize, u8)> {
            let mut fields = Fields(block.get(index * ENTRY..(index + 1) * ENTRY)?);
            Some((fields.u64()?, fields.u16()?.into(), fields.u8()?))
        };
        let (inode, start, kind) = parse(index).ok_or_else(nonsense)?;
        let end = if index + 1 < count { parse(index + 1).ok_or_else(nonsense)?.1 } else { block.len() };
        let name = block.get(start..end).ok_or_else(nonsense)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        if name.is_empty() || name.len() > 255 || name.contains(&b'/') {
            return Err(nonsense());
        }
        Ok((name, inode, kind))
    }
}
