//! What rsext4 does not give: the superblock before it is mounted, and parts of seconds. Follows `fs/ext4/ext4.h`.

use rsext4::crc32c::crc32c_append;
use umvu_interface::{Errno, Result, Timestamp};

use crate::image::Image;
use umvu_archive::Fields;

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
    inodes: u32,
    inodes_per_group: u32,
    inode_size: u64,
    descriptor_size: u64,
    checksum_seed: Option<u32>,
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
        /// Inodes and others have checksums; and their seed is kept, not made of the UUID.
        const METADATA_CSUM: u32 = 0x400;
        const CSUM_SEED: u32 = 0x2000;
        let seed = match incompatible & CSUM_SEED {
            0 => crc32c_append(u32::MAX, bytes.get(0x68..0x78).unwrap_or_default()),
            _ => long(0x270),
        };
        let superblock = Self {
            checksum_seed: (long(100) & METADATA_CSUM != 0).then_some(seed),
            block_size: if shift <= 6 { 1024 << shift } else { 0 },
            blocks: u64::from(long(4)) | high(0x150),
            reserved: u64::from(long(8)) | high(0x154),
            overhead: long(0x248).into(),
            uuid: at(0x68).bytes(16).and_then(|uuid| uuid.try_into().ok()).unwrap_or_default(),
            compatible: long(92),
            incompatible,
            read_only_compatible: long(100),
            first_block: long(20).into(),
            inodes: long(0),
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

    /// What checksums begin with, where there are any.
    pub fn checksum_seed(&self) -> Option<u32> {
        self.checksum_seed
    }

    /// Bytes of an inode.
    pub fn inode_size(&self) -> u64 {
        self.inode_size
    }

    /// Inodes that the bitmap of a group stands for.
    pub fn inodes_in_group(&self) -> u32 {
        self.inodes_per_group
    }

    /// Reads the descriptor of a group.
    fn descriptor(&self, image: &Image, group: u32) -> Result<Vec<u8>> {
        let table = (self.first_block + 1).saturating_mul(self.block_size);
        image.read_piece(table.saturating_add(u64::from(group) * self.descriptor_size), self.descriptor_size, 1024)
    }

    /// A block number in a descriptor, as an offset: its halves stand apart.
    fn place_in(&self, descriptor: &[u8], low: usize, high: usize) -> u64 {
        let long = |offset: usize| Fields(descriptor.get(offset..).unwrap_or_default()).u32().unwrap_or(0);
        let high = if self.descriptor_size >= 64 { u64::from(long(high)) << 32 } else { 0 };
        (u64::from(long(low)) | high).saturating_mul(self.block_size)
    }

    /// Where an inode lies.
    pub fn inode_place(&self, image: &Image, inode: u32) -> Result<u64> {
        let index = inode.saturating_sub(1);
        let descriptor = self.descriptor(image, index / self.inodes_per_group)?;
        let table = self.place_in(&descriptor, 8, 40);
        Ok(table.saturating_add(u64::from(index % self.inodes_per_group) * self.inode_size))
    }

    /// The upper half of an inode's size, as it is on the storage.
    pub fn size_high(&self, image: &Image, inode: u32) -> Result<u32> {
        let raw = image.read_piece(self.inode_place(image, inode)?, self.inode_size.min(128), 128)?;
        Ok(Fields(raw.get(108..).unwrap_or_default()).u32().unwrap_or(0))
    }

    /// Where the inode bitmaps lie that were ever used.
    pub fn inode_bitmaps(&self, image: &Image) -> Result<Vec<u64>> {
        const INODE_UNINIT: u16 = 1;
        let groups = self.inodes / self.inodes_per_group;
        let mut places = Vec::new();
        for group in 0..groups {
            let descriptor = self.descriptor(image, group)?;
            let flags = Fields(descriptor.get(18..).unwrap_or_default()).u16().unwrap_or(0);
            // Without checksums of groups the flag means nothing, and is not there.
            if flags & INODE_UNINIT == 0 {
                places.push(self.place_in(&descriptor, 4, 36));
            }
        }
        Ok(places)
    }

    /// Reads the times of an inode as they are on the storage; parts of seconds and years behind 2038 where there are
    /// any.
    pub fn times(&self, image: &Image, inode: u32) -> Result<Times> {
        let at = self.inode_place(image, inode)?;
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
