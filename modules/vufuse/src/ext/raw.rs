//! What rsext4 does not give: the superblock before it is mounted, and parts of seconds. Follows `fs/ext4/ext4.h`.

use umvu_interface::{Errno, Result, Timestamp};

use crate::fields::Fields;
use crate::image::Image;

use super::{error, Mode};

/// The feature that says that the journal must be replayed.
const RECOVER: u32 = 4;

/// What the superblock says.
pub struct Superblock {
    pub block_size: u64,
    pub blocks: u64,
    pub reserved: u64,
    pub overhead: u64,
    pub uuid: [u8; 16],
    compatible: u32,
    incompatible: u32,
    read_only_compatible: u32,
    first_block: u64,
    inodes_per_group: u32,
    inode_size: u64,
    descriptor_size: u64,
}

/// The times of an inode: access, modification, change, creation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times(pub [Timestamp; 4]);

impl Superblock {
    /// Reads it.
    ///
    /// # Errors
    /// - `EINVAL`: this is no ext2, ext3 or ext4.
    /// - `EUCLEAN`: it says nonsense.
    pub fn read(image: &Image) -> Result<Self> {
        let bytes = image.read_piece(1024, 1024, 1024).map_err(|_| Errno::INVAL)?;
        let at = |offset: usize| Fields(bytes.get(offset..).unwrap_or_default());
        let short = |offset: usize| at(offset).u16().unwrap_or(0);
        let long = |offset: usize| at(offset).u32().unwrap_or(0);
        if short(56) != 0xef53 {
            return Err(Errno::INVAL);
        }
        let shift = long(24);
        let revision = long(76);
        let incompatible = long(96);
        let high = |offset: usize| if incompatible & 0x80 != 0 { u64::from(long(offset)) << 32 } else { 0 };
        let superblock = Self {
            block_size: if shift <= 6 { 1024 << shift } else { 0 },
            blocks: u64::from(long(4)) | high(0x150),
            reserved: u64::from(long(8)) | high(0x154),
            overhead: long(0x248).into(),
            uuid: at(0x68).bytes(16).and_then(|uuid| uuid.try_into().ok()).unwrap_or_default(),
            compatible: long(92),
            incompatible,
            read_only_compatible: long(100),
            first_block: long(20).into(),
            inodes_per_group: long(40),
            inode_size: if revision == 0 { 128 } else { short(88).into() },
            descriptor_size: if incompatible & 0x80 != 0 { short(254).into() } else { 32 },
        };
        if superblock.block_size == 0 || superblock.inodes_per_group == 0 {
            return Err(image.damaged("a superblock that says nothing sensible"));
        }
        // fs/ext4/super.c, ext4_check_geometry
        if superblock.blocks.saturating_mul(superblock.block_size) > image.size() {
            let (blocks, size) = (superblock.blocks, image.size());
            return Err(image.damaged(format_args!("truncated: {blocks} blocks, which {size} bytes do not hold")));
        }
        Ok(superblock)
    }

    /// Whether the journal must be replayed.
    pub fn needs_recovery(&self) -> bool {
        self.incompatible & RECOVER != 0
    }

    /// Names the features that are in the way of a mount.
    pub fn unsupported(&self, mode: Mode) -> Option<String> {
        /// filetype, recover, extents, 64bit, mmp, flex_bg, csum_seed
        const INCOMPATIBLE: u32 = 0x2 | RECOVER | 0x40 | 0x80 | 0x100 | 0x200 | 0x2000;
        /// sparse_super, large_file, huge_file, gdt_csum, dir_nlink, extra_isize, metadata_csum, project
        const WRITTEN: u32 = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400 | 0x2000;
        /// Reading needs to know of it, too.
        const BIGALLOC: u32 = 0x200;
        let incompatible = self.incompatible & !INCOMPATIBLE;
        if incompatible != 0 {
            return Some(error::incompatible(incompatible));
        }
        let unwritten = self.read_only_compatible & !WRITTEN;
        if unwritten & BIGALLOC != 0 {
            return Some(error::incompatible_for_reading(BIGALLOC));
        }
        if unwritten != 0 && mode == Mode::ReadWrite {
            return Some(error::unwritten(unwritten));
        }
        if self.block_size > 4096 {
            return Some(format!("blocks of {} bytes, where 4096 are the most that is supported", self.block_size));
        }
        None
    }

    /// The type that it is mounted as: ext2, ext3 or ext4.
    pub fn fstype(&self) -> &'static str {
        /// What ext3 has of incompatible features: filetype, recover, journal_dev, meta_bg.
        const EXT3: u32 = 0x1e;
        match (self.incompatible & !EXT3 != 0, self.compatible & 4 != 0) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        }
    }

    /// Reads the times of an inode as they are on the storage; parts of seconds and years behind 2038 where there are
    /// any.
    pub fn times(&self, image: &Image, inode: u32) -> Result<Times> {
        let (group, within) =
            ((inode.saturating_sub(1)) / self.inodes_per_group, (inode.saturating_sub(1)) % self.inodes_per_group);
        let table = (self.first_block + 1).saturating_mul(self.block_size);
        let descriptor = table.saturating_add(u64::from(group) * self.descriptor_size);
        let descriptor = image.read_piece(descriptor, self.descriptor_size, 1024)?;
        let long = |offset: usize| Fields(descriptor.get(offset..).unwrap_or_default()).u32().unwrap_or(0);
        let high = if self.descriptor_size >= 64 { u64::from(long(40)) << 32 } else { 0 };
        let start = (u64::from(long(8)) | high).saturating_mul(self.block_size);
        let at = start.saturating_add(u64::from(within) * self.inode_size);
        let raw = image.read_piece(at, self.inode_size.min(256), 256)?;
        let short = |offset: usize| Fields(raw.get(offset..).unwrap_or_default()).u16().unwrap_or(0);
        let long = |offset: usize| Fields(raw.get(offset..).unwrap_or_default()).u32().unwrap_or(0);
        let extra_size = if raw.len() > 128 { usize::from(short(128)) } else { 0 };
        let extra = |offset: usize| if offset + 4 <= 128 + extra_size { long(offset) } else { 0 };
        let creation = if 0x90 + 4 <= 128 + extra_size { long(0x90) } else { 0 };
        Ok(Times([
            decode(long(8), extra(0x8c)),
            decode(long(16), extra(0x88)),
            decode(long(12), extra(0x84)),
            decode(creation, extra(0x94)),
        ]))
    }
}

/// `ext4_decode_extra_time`.
fn decode(seconds: u32, extra: u32) -> Timestamp {
    let signed = i64::from(i32::from_le_bytes(seconds.to_le_bytes()));
    Timestamp { seconds: signed + (i64::from(extra & 3) << 32), nanoseconds: (extra >> 2).min(999_999_999) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_on_behind_2038() {
        assert_eq!(decode(0xffff_ffff, 0), Timestamp { seconds: -1, nanoseconds: 0 });
        assert_eq!(decode(0x8000_0000, 1), Timestamp { seconds: 1 << 31, nanoseconds: 0 });
        assert_eq!(decode(5, (7 << 2) | 1), Timestamp { seconds: (1 << 32) + 5, nanoseconds: 7 });
    }
}
