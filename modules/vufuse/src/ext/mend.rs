//! What rsext4 0.9.2 leaves behind that e2fsck finds, put right when the image is given back: blocks of the extent tree that
//! an indexed directory has and does not count, and the end of inode bitmaps that were not used before. Follows
//! `fs/ext4/extents.c` and `fs/ext4/ialloc.c`; knows nothing of rsext4.

use std::collections::HashSet;

use rsext4::crc32c::crc32c_append;
use umvu_interface::Result;

use crate::image::Image;
use umvu_archive::Fields;

use super::raw::Superblock;

/// An inode as it lies on the storage, its first 160 bytes at most.
struct Raw {
    bytes: Vec<u8>,
}

/// Offsets in an inode.
mod at {
    pub const MODE: usize = 0;
    pub const BLOCKS: usize = 28;
    pub const FLAGS: usize = 32;
    pub const EXTENTS: usize = 40;
    pub const GENERATION: usize = 100;
    pub const ATTRIBUTES: usize = 104;
    pub const BLOCKS_HIGH: usize = 116;
    pub const ATTRIBUTES_HIGH: usize = 118;
    pub const CHECKSUM: usize = 124;
    pub const EXTRA_SIZE: usize = 128;
    pub const CHECKSUM_HIGH: usize = 130;
}

/// Bytes of the extents in an inode.
const ROOT: usize = 60;
/// Bytes of a header, an extent, and an index.
const ENTRY: usize = 12;
/// Deepest tree that Linux makes: `EXT4_MAX_EXTENT_DEPTH`.
const DEPTH_MAX: u16 = 5;

impl Raw {
    fn short(&self, offset: usize) -> u16 {
        Fields(self.bytes.get(offset..).unwrap_or_default()).u16().unwrap_or(0)
    }

    fn long(&self, offset: usize) -> u32 {
        Fields(self.bytes.get(offset..).unwrap_or_default()).u32().unwrap_or(0)
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(offset..offset + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// Has directories count all of their blocks.
///
/// # Errors
/// The storage's.
pub fn count_blocks(image: &Image, superblock: &Superblock, directories: &HashSet<u32>) -> Result<()> {
    const DIRECTORY: u16 = 0o040_000;
    const EXTENTS: u32 = 0x8_0000;
    /// `i_blocks` counts file system blocks.
    const HUGE_FILE: u32 = 0x4_0000;
    for number in directories {
        let place = superblock.inode_place(image, *number)?;
        let mut inode = Raw { bytes: image.read_piece(place, superblock.inode_size(), 4096)? };
        let flags = inode.long(at::FLAGS);
        if inode.short(at::MODE) & 0o170_000 != DIRECTORY || flags & EXTENTS == 0 || flags & HUGE_FILE != 0 {
            continue;
        }
        let root = inode.bytes.get(at::EXTENTS..at::EXTENTS + ROOT).unwrap_or_default().to_vec();
        if depth(&root) == 0 {
            continue;
        }
        let attributes = u64::from(inode.long(at::ATTRIBUTES)) | u64::from(inode.short(at::ATTRIBUTES_HIGH)) << 32;
        let blocks = owned(image, superblock, &root, depth(&root))? + u64::from(attributes != 0);
        let sectors = blocks.saturating_mul(superblock.block_size / 512);
        let counted = u64::from(inode.long(at::BLOCKS)) | u64::from(inode.short(at::BLOCKS_HIGH)) << 32;
        if sectors != counted {
            let bytes = sectors.to_le_bytes();
            inode.put(at::BLOCKS, &bytes[..4]);
            inode.put(at::BLOCKS_HIGH, &bytes[4..6]);
            seal(superblock, *number, &mut inode);
            image.write(place, &inode.bytes)?;
        }
    }
    Ok(())
}

fn depth(node: &[u8]) -> u16 {
    Fields(node.get(6..).unwrap_or_default()).u16().unwrap_or(0)
}

/// Blocks below a node: those of the tree, and those of the directory.
fn owned(image: &Image, superblock: &Superblock, node: &[u8], depth: u16) -> Result<u64> {
    let damaged = || image.damaged("an extent tree that is none");
    let mut header = Fields(node);
    let (magic, entries) = header.u16().zip(header.u16()).ok_or_else(damaged)?;
    if magic != 0xf30a || depth > DEPTH_MAX || self::depth(node) != depth {
        return Err(damaged());
    }
    let mut blocks = 0u64;
    for index in 1..=usize::from(entries) {
        let entry = node.get(index * ENTRY..(index + 1) * ENTRY).ok_or_else(damaged)?;
        if depth == 0 {
            /// A longer one is not initialized, and as much shorter.
            const INITIALIZED: u16 = 0x8000;
            let length = Fields(&entry[4..]).u16().ok_or_else(damaged)?;
            blocks += u64::from(if length > INITIALIZED { length - INITIALIZED } else { length });
            continue;
        }
        let (low, high) = (Fields(&entry[4..]).u32(), Fields(&entry[8..]).u16());
        let block = low.zip(high).map(|(low, high)| u64::from(low) | u64::from(high) << 32).ok_or_else(damaged)?;
        let place = block.saturating_mul(superblock.block_size);
        let below = image.read_piece(place, superblock.block_size, 4096)?;
        blocks += 1 + owned(image, superblock, &below, depth - 1)?;
    }
    Ok(blocks)
}

/// Makes the checksum of an inode right: `ext4_inode_csum`.
fn seal(superblock: &Superblock, number: u32, inode: &mut Raw) {
    let Some(seed) = superblock.checksum_seed() else { return };
    let has_high = inode.bytes.len() > 128 && inode.short(at::EXTRA_SIZE) >= 4;
    inode.put(at::CHECKSUM, &[0; 2]);
    if has_high {
        inode.put(at::CHECKSUM_HIGH, &[0; 2]);
    }
    let seed = crc32c_append(seed, &number.to_le_bytes());
    let seed = crc32c_append(seed, &inode.long(at::GENERATION).to_le_bytes());
    let sum = crc32c_append(seed, &inode.bytes).to_le_bytes();
    inode.put(at::CHECKSUM, &sum[..2]);
    if has_high {
        inode.put(at::CHECKSUM_HIGH, &sum[2..]);
    }
}

/// Sets the bits of inode bitmaps that stand for no inode: `ext4_mark_bitmap_end`. No checksum is over them.
///
/// # Errors
/// The storage's.
pub fn mark_bitmap_ends(image: &Image, superblock: &Superblock) -> Result<()> {
    for place in superblock.inode_bitmaps(image)? {
        let bitmap = image.read_piece(place, superblock.block_size, 4096)?;
        let mut marked = bitmap.clone();
        mark_end(&mut marked, superblock.inodes_in_group());
        if marked != bitmap {
            image.write(place, &marked)?;
        }
    }
    Ok(())
}

fn mark_end(bitmap: &mut [u8], inodes: u32) {
    let inodes = usize::try_from(inodes).unwrap_or(usize::MAX);
    for (index, byte) in bitmap.iter_mut().enumerate().skip(inodes / 8) {
        let first = inodes.saturating_sub(index * 8).min(8);
        *byte |= u8::MAX.checked_shl(u32::try_from(first).unwrap_or(8)).unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_bitmap_stands_for_no_inode() {
        let mut bitmap = [0b1, 0b1, 0, 0];
        mark_end(&mut bitmap, 12);
        assert_eq!(bitmap, [0b1, 0b1111_0001, 0xff, 0xff]);
        let mut bitmap = [0b1, 0b1, 0, 0];
        mark_end(&mut bitmap, 16);
        assert_eq!(bitmap, [0b1, 0b1, 0xff, 0xff]);
        let mut bitmap = [0b1, 0b1];
        mark_end(&mut bitmap, 64);
        assert_eq!(bitmap, [0b1, 0b1]);
    }
}
