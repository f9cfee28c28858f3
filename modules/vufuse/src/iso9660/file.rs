//! Contents of files: one or more pieces, plain or in blocks compressed by mkzftree(1). Follows `fs/isofs/compress.c`.

use std::io::Read;
use std::sync::Arc;

use umvu_driver::OpenFile;
use umvu_interface::Result;

use crate::image::Image;
use umvu_archive::Fields;

/// A piece: where it lies, and how long it is.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub at: u64,
    pub length: u64,
}

/// An open file that is not compressed.
pub struct Plain {
    pub image: Arc<Image>,
    pub pieces: Vec<Piece>,
}

impl Plain {
    pub fn size(&self) -> u64 {
        self.pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.length))
    }
}

impl OpenFile for Plain {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let (mut done, mut start) = (0, 0u64);
        for piece in &self.pieces {
            let at = offset.saturating_add(done as u64);
            let end = start.saturating_add(piece.length);
            if at < end && done < buffer.len() {
                let count = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len() - done);
                self.image.read(piece.at.saturating_add(at - start), &mut buffer[done..done + count])?;
                done += count;
            }
            start = end;
        }
        Ok(done)
    }
}

/// An open file that is compressed.
pub struct Packed {
    plain: Plain,
    size: u64,
    block: usize,
    header: u64,
}

impl Packed {
    /// Reads the header. `None` if there is none: the file is as it lies there.
    pub fn open(plain: Plain, size: u32) -> Result<core::result::Result<Self, Plain>> {
        const MAGIC: [u8; 8] = [0x37, 0xe4, 0x53, 0x96, 0xc9, 0xdb, 0xd6, 0x07];
        let mut head = [0; 16];
        if plain.read_at(0, &mut head)? < head.len() || head[..8] != MAGIC {
            return Ok(Err(plain));
        }
        let (header, block) = (u64::from(head[12]) * 4, head[13]);
        if !(15..=17).contains(&block) || header < 16 || Fields(&head[8..]).u32() != Some(size) {
            return Err(plain.image.damaged("a compressed file whose header says nothing sensible"));
        }
        Ok(Ok(Self { plain, size: size.into(), block: 1 << block, header }))
    }

    /// Unpacks a block.
    fn block(&self, number: u64) -> Result<Vec<u8>> {
        let nonsense = || self.plain.image.damaged("a compressed file that is damaged");
        let mut pointers = [0; 8];
        if self.plain.read_at(self.header + number * 4, &mut pointers)? < pointers.len() {
            return Err(nonsense());
        }
        let mut fields = Fields(&pointers);
        let (Some(start), Some(end)) = (fields.u32(), fields.u32()) else { return Err(nonsense()) };
        let length = usize::try_from(end.checked_sub(start).ok_or_else(nonsense)?).unwrap_or(usize::MAX);
        let left = self.size - number * self.block as u64;
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.block);
        // A block of zeros takes no place; none takes much more than what is in it.
        if length == 0 {
            return Ok(vec![0; wanted]);
        }
        if length > 2 * self.block {
            return Err(nonsense());
        }
        let mut packed = vec![0; length];
        if self.plain.read_at(start.into(), &mut packed)? < length {
            return Err(nonsense());
        }
        let mut out = Vec::with_capacity(wanted);
        let unpacked = flate2::read::ZlibDecoder::new(&packed[..]).take(wanted as u64).read_to_end(&mut out);
        if unpacked.is_err() || out.len() < wanted {
            return Err(nonsense());
        }
        Ok(out)
    }
}

impl OpenFile for Packed {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let wanted = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let block = self.block(at / self.block as u64)?;
            let within = usize::try_from(at % self.block as u64).unwrap_or(0);
            let count = (block.len() - within).min(wanted - done);
            buffer[done..done + count].copy_from_slice(&block[within..within + count]);
            done += count;
        }
        Ok(done)
    }
}
