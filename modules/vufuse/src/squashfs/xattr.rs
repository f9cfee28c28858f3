//! Extended attributes: sets of them, that inodes share. Follows `fs/squashfs/xattr.c` and `xattr_id.c`.

use umvu_interface::Result;

use crate::image::Image;
use umvu_archive::Fields;

use super::metadata::{Metadata, Place};

/// Says of a value that it lies elsewhere.
const ELSEWHERE: u16 = 0x100;
/// The longest value that Linux takes.
const LONGEST: u32 = 64 << 10;

/// The table of sets.
pub struct Xattrs {
    /// Where the attributes lie.
    start: u64,
    /// Where the blocks of the table are pointed to.
    pointers: u64,
    sets: u32,
}

/// A set.
struct Set {
    at: Place,
    count: u32,
}

impl Xattrs {
    pub fn read(image: &Image, table: u64) -> Result<Self> {
        let head = image.read_piece(table, 16, 16)?;
        let mut fields = Fields(&head);
        let (Some(start), Some(sets)) = (fields.u64(), fields.u32()) else {
            return Err(image.damaged("a short table of attributes"));
        };
        Ok(Self { start, pointers: table.saturating_add(16), sets })
    }

    fn set(&self, image: &Image, metadata: &Metadata, number: u32) -> Result<Set> {
        let nonsense = || image.damaged("attributes that are not there");
        if number >= self.sets {
            return Err(nonsense());
        }
        let (block, within) = (u64::from(number) / 512, usize::try_from(number % 512).unwrap_or(0));
        let pointer = image.read_piece(self.pointers.saturating_add(block * 8), 8, 8)?;
        let mut place = Place { block: Fields(&pointer).u64().ok_or_else(nonsense)?, offset: within * 16 };
        let entry = metadata.piece(&mut place, 16)?;
        let mut fields = Fields(&entry);
        let (Some(reference), Some(count)) = (fields.u64(), fields.u32()) else { return Err(nonsense()) };
        Ok(Set { at: Place::of_reference(self.start, reference).ok_or_else(nonsense)?, count })
    }

    /// Gives names and values to `each` until it says that it has enough; the value only if it says that it wants it.
    pub fn walk(
        &self,
        image: &Image,
        metadata: &Metadata,
        number: u32,
        mut each: impl FnMut(&[u8], &mut dyn FnMut() -> Result<Vec<u8>>) -> Result<bool>,
    ) -> Result<()> {
        let nonsense = || image.damaged("attributes that say nothing sensible");
        let Set { mut at, count } = self.set(image, metadata, number)?;
        for _ in 0..count {
            let head = metadata.piece(&mut at, 4)?;
            let mut fields = Fields(&head);
            let (Some(kind), Some(size)) = (fields.u16(), fields.u16()) else { return Err(nonsense()) };
            let prefix: &[u8] = match kind & 0xff {
                0 => b"user.",
                1 => b"trusted.",
                2 => b"security.",
                _ => return Err(nonsense()),
            };
            if size > 255 {
                return Err(nonsense());
            }
            let name = [prefix, &metadata.piece(&mut at, usize::from(size))?].concat();
            let mut value_at = at;
            let length = Fields(&metadata.piece(&mut at, 4)?).u32().ok_or_else(nonsense)?;
            metadata.skip(&mut at, length.into())?;
            let mut value = || {
                if kind & ELSEWHERE != 0 {
                    metadata.skip(&mut value_at, 4)?;
                    let reference = Fields(&metadata.piece(&mut value_at, 8)?).u64().ok_or_else(nonsense)?;
                    value_at = Place::of_reference(self.start, reference).ok_or_else(nonsense)?;
                }
                let length = Fields(&metadata.piece(&mut value_at, 4)?).u32().ok_or_else(nonsense)?;
                metadata.long_piece(&mut value_at, length.into(), LONGEST.into())
            };
            if !each(&name, &mut value)? {
                return Ok(());
            }
        }
        Ok(())
    }
}
