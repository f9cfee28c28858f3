//! The descriptors of a volume: where its root is, and in which way names are written. Follows ECMA-119 and
//! `fs/isofs/inode.c`, `isofs_fill_super`.

use umvu_interface::{Errno, Result};

use crate::image::Image;

/// Size of a sector.
pub const SECTOR: u64 = 2048;
/// The first descriptor.
const FIRST: u64 = 16;
/// Most descriptors that are looked at.
const MOST: u64 = 100;

/// How names are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// In capital letters, with a version behind them.
    Plain,
    /// In UCS-2 with the high byte first.
    Joliet,
}

/// A volume.
pub struct Volume {
    pub block_size: u64,
    pub blocks: u64,
    /// The record of the root.
    pub root: Vec<u8>,
    pub names: Names,
}

/// What is found in the descriptors: the volume, and the same with Joliet's names.
pub struct Volumes {
    pub primary: Volume,
    pub joliet: Option<Volume>,
}

impl Volumes {
    /// Reads the descriptors.
    ///
    /// # Errors
    /// - `EINVAL`: this is no iso9660.
    /// - `EUCLEAN`: it says nonsense.
    pub fn read(image: &Image) -> Result<Self> {
        let (mut primary, mut joliet) = (None, None);
        for number in FIRST..FIRST + MOST {
            let at = number * SECTOR;
            if at + SECTOR > image.size() {
                break;
            }
            let descriptor = image.read_piece(at, SECTOR, 2048)?;
            if &descriptor[1..6] != b"CD001" {
                break;
            }
            match descriptor[0] {
                1 if primary.is_none() => primary = Some(Volume::parse(image, &descriptor, Names::Plain)?),
                2 if is_joliet(&descriptor[88..120]) => {
                    joliet = Some(Volume::parse(image, &descriptor, Names::Joliet)?);
                }
                255 => break,
                _ => {}
            }
        }
        Ok(Self { primary: primary.ok_or(Errno::INVAL)?, joliet })
    }
}

/// ISO 2022 escape sequences of UCS-2 levels 1 to 3.
fn is_joliet(escapes: &[u8]) -> bool {
    matches!(escapes, [0x25, 0x2f, 0x40 | 0x43 | 0x45, ..])
}

impl Volume {
    fn parse(image: &Image, descriptor: &[u8], names: Names) -> Result<Self> {
        let short = |at: usize| u64::from(descriptor[at]) | (u64::from(descriptor[at + 1]) << 8);
        let (block_size, blocks) = (short(128), short(80) | (short(82) << 16));
        if ![512, 1024, 2048].contains(&block_size) {
            return Err(image.damaged(format_args!("a block size of {block_size}")));
        }
        Ok(Self { block_size, blocks, root: descriptor[156..190].to_vec(), names })
    }
}
