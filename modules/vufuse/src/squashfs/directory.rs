//! Directories: sorted runs of entries, an index by name beside the long ones. Follows `fs/squashfs/dir.c` and
//! `fs/squashfs/namei.c`.

use umvu_interface::Result;

use crate::image::Image;
use umvu_archive::Fields;

use super::inode::Listing;
use super::metadata::{Metadata, Place};

/// Most entries that a run has, and most bytes that a directory has.
const RUN: u32 = 256;
const MOST: u64 = 64 << 20;

/// An entry.
pub struct Entry {
    /// Reference of the inode.
    pub reference: u64,
    pub number: u32,
    /// Type of a short inode.
    pub kind: u16,
    pub name: Vec<u8>,
}

/// Gives the entries to `each` until it says that it has enough, from the run that may hold `wanted`.
pub fn walk(
    image: &Image,
    metadata: &Metadata,
    table: u64,
    listing: &Listing,
    wanted: Option<&[u8]>,
    mut each: impl FnMut(Entry) -> bool,
) -> Result<()> {
    let nonsense = || image.damaged("a directory that says nothing sensible");
    if listing.size > MOST {
        return Err(image.damaged(format_args!("a directory of {} bytes, where {MOST} are the most", listing.size)));
    }
    let mut place = Place {
        block: table.checked_add(listing.block.into()).ok_or_else(nonsense)?,
        offset: usize::from(listing.offset),
    };
    let mut done = 0;
    if let (Some(wanted), Some((count, at))) = (wanted, listing.index) {
        let mut at = at;
        for _ in 0..count {
            let head = metadata.piece(&mut at, 12)?;
            let mut fields = Fields(&head);
            let (Some(position), Some(block), Some(size)) = (fields.u32(), fields.u32(), fields.u32()) else {
                return Err(nonsense());
            };
            if size >= RUN {
                return Err(nonsense());
            }
            let name = metadata.piece(&mut at, usize::try_from(size).unwrap_or(0) + 1)?;
            if name.as_slice() > wanted {
                break;
            }
            done = u64::from(position);
            place.block = table.checked_add(block.into()).ok_or_else(nonsense)?;
            place.offset = (usize::from(listing.offset) + usize::try_from(position).unwrap_or(0)) % 8192;
        }
    }
    while done < listing.size {
        let head = metadata.piece(&mut place, 12)?;
        let mut fields = Fields(&head);
        let (Some(count), Some(block), Some(base)) = (fields.u32(), fields.u32(), fields.u32()) else {
            return Err(nonsense());
        };
        done += 12;
        if count >= RUN {
            return Err(nonsense());
        }
        for _ in 0..=count {
            let head = metadata.piece(&mut place, 8)?;
            let mut fields = Fields(&head);
            let (Some(offset), Some(delta), Some(kind), Some(size)) =
                (fields.u16(), fields.i16(), fields.u16(), fields.u16())
            else {
                return Err(nonsense());
            };
            let name = metadata.piece(&mut place, usize::from(size & 0xff) + 1)?;
            if size > 255 || name.iter().any(|byte| matches!(byte, b'/' | 0)) || name == b"." || name == b".." {
                return Err(image.damaged("a name that is none"));
            }
            done += 8 + name.len() as u64;
            let reference = (u64::from(block) << 16) | u64::from(offset);
            let number = base.wrapping_add_signed(delta.into());
            if !each(Entry { reference, number, kind, name }) {
                return Ok(());
            }
        }
    }
    Ok(())
}
