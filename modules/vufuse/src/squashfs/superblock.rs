//! The superblock, and the tables that it points to. Follows `fs/squashfs/squashfs_fs.h`.

use umvu_interface::{Errno, Result};

use crate::image::Image;
use umvu_archive::Fields;

use super::decompress::Compression;

pub const MAGIC: u32 = 0x7371_7368;
/// Size of the superblock.
const SIZE: usize = 96;
/// Where a table is that is not there.
const NONE: u64 = u64::MAX;

/// What the superblock says.
pub struct Superblock {
    pub inodes: u32,
    pub block_size: u32,
    pub fragments: u32,
    pub compression: Compression,
    pub ids: u16,
    pub root: u64,
    pub bytes_used: u64,
    pub id_table: u64,
    pub xattr_table: Option<u64>,
    pub inode_table: u64,
    pub directory_table: u64,
    pub fragment_table: Option<u64>,
}

impl Superblock {
    /// Reads it.
    ///
    /// # Errors
    /// - `EINVAL`: this is no squashfs; a version or a compression that is not known.
    /// - `EUCLEAN`: it says nonsense.
    pub fn read(image: &Image) -> Result<Self> {
        let bytes = image.read_piece(0, SIZE as u64, SIZE).map_err(|_| Errno::INVAL)?;
        Self::parse(image, &bytes).unwrap_or_else(|| Err(image.damaged("a short superblock")))
    }

    fn parse(image: &Image, bytes: &[u8]) -> Option<Result<Self>> {
        let mut fields = Fields(bytes);
        if fields.u32()? != MAGIC {
            return Some(Err(Errno::INVAL));
        }
        let (inodes, _made, block_size, fragments) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let (compression, block_log, _flags, ids) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?);
        let (major, minor) = (fields.u16()?, fields.u16()?);
        if major != 4 || minor > 0 {
            image.log(&format_args!("squashfs of version {major}.{minor}, of which only 4.0 is known"));
            return Some(Err(Errno::INVAL));
        }
        let Some(compression) = Compression::from_number(compression) else {
            image.log(&format_args!("squashfs compressed in way {compression}, which is not known"));
            return Some(Err(Errno::INVAL));
        };
        // fs/squashfs/super.c, squashfs_fill_super: 4 KiB to 1 MiB, and twice the same.
        if !(12..=20).contains(&block_log) || block_size != 1 << block_log {
            return Some(Err(image.damaged(format_args!("a block size of {block_size}"))));
        }
        let (root, bytes_used, id_table, xattr_table) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
        let (inode_table, directory_table, fragment_table) = (fields.u64()?, fields.u64()?, fields.u64()?);
        if bytes_used > image.size() {
            let (size, missing) = (image.size(), bytes_used - image.size());
            return Some(Err(image.damaged(format_args!("truncated: {missing} bytes are missing behind {size}"))));
        }
        if inode_table >= directory_table || directory_table > bytes_used || id_table > bytes_used {
            return Some(Err(image.damaged("tables that do not lie one behind the other")));
        }
        let there = |table: u64| Some(table).filter(|table| *table != NONE);
        Some(Ok(Self {
            inodes,
            block_size,
            fragments,
            compression,
            ids,
            root,
            bytes_used,
            id_table,
            xattr_table: there(xattr_table),
            inode_table,
            directory_table,
            fragment_table: there(fragment_table).filter(|_| fragments != 0),
        }))
    }
}
