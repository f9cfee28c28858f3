//! Metadata: a stream of bytes in blocks of 8 KiB, compressed one by one. Follows `fs/squashfs/cache.c`,
//! `squashfs_read_metadata`.

use std::sync::Arc;

use umvu_interface::Result;

use crate::image::Image;
use crate::recent::Recent;

use super::decompress::Compression;

const BLOCK: usize = 8192;
/// Blocks kept: 2 MiB.
const KEPT: usize = 256;

/// The blocks, and a cache of them.
pub struct Metadata {
    image: Arc<Image>,
    compression: Compression,
    recent: Recent<Block>,
}

struct Block {
    bytes: Vec<u8>,
    next: u64,
}

/// A place in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where its block lies in the image.
    pub block: u64,
    /// Where it is in the block, once unpacked.
    pub offset: usize,
}

impl Place {
    /// The place that a reference means: 16 bits of offset, the block relative to a table above them.
    pub fn of_reference(table: u64, reference: u64) -> Option<Self> {
        Some(Self { block: table.checked_add(reference >> 16)?, offset: usize::try_from(reference & 0xffff).ok()? })
    }
}

impl Metadata {
    pub fn new(image: Arc<Image>, compression: Compression) -> Self {
        Self { image, compression, recent: Recent::new(KEPT) }
    }

    fn block(&self, at: u64) -> Result<Arc<Block>> {
        self.recent.get(at, || {
            let mut header = [0; 2];
            self.image.read(at, &mut header)?;
            let header = u16::from_le_bytes(header);
            let size = u64::from(header & 0x7fff);
            let packed = self.image.read_piece(at.saturating_add(2), size, BLOCK)?;
            let bytes = if header & 0x8000 != 0 {
                packed
            } else {
                let unpacked = self.compression.unpack(&packed, BLOCK);
                unpacked.map_err(|error| self.image.damaged(format_args!("metadata at {at}: {error}")))?
            };
            Ok(Arc::new(Block { bytes, next: at.saturating_add(2).saturating_add(size) }))
        })
    }

    /// Fills a buffer from a place, and moves the place behind it.
    pub fn read(&self, place: &mut Place, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let block = self.block(place.block)?;
            let Some(rest) = block.bytes.get(place.offset..).filter(|_| !block.bytes.is_empty()) else {
                return Err(self.image.damaged("a place outside of its block of metadata"));
            };
            let count = rest.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&rest[..count]);
            done += count;
            place.offset += count;
            if place.offset >= block.bytes.len() {
                *place = Place { block: block.next, offset: 0 };
            }
        }
        Ok(())
    }

    /// Reads so many bytes.
    pub fn piece(&self, place: &mut Place, size: usize) -> Result<Vec<u8>> {
        let mut piece = vec![0; size];
        self.read(place, &mut piece)?;
        Ok(piece)
    }

    /// Reads a piece whose size the image says. Its memory is taken as it is read, up to `limit` bytes.
    pub fn long_piece(&self, place: &mut Place, size: u64, limit: u64) -> Result<Vec<u8>> {
        if size > limit {
            return Err(self.image.damaged(format_args!("{size} bytes of metadata, where {limit} are the most")));
        }
        let mut all = Vec::new();
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let count = left.min(BLOCK);
            all.extend_from_slice(&self.piece(place, count)?);
            left -= count;
        }
        Ok(all)
    }

    /// Passes over so many bytes.
    pub fn skip(&self, place: &mut Place, size: u64) -> Result<()> {
        let mut left = size;
        while left > 0 {
            let block = self.block(place.block)?;
            let rest = (block.bytes.len() as u64).saturating_sub(place.offset as u64);
            if rest == 0 {
                return Err(self.image.damaged("an empty block of metadata"));
            }
            if left < rest {
                place.offset += usize::try_from(left).unwrap_or(0);
                return Ok(());
            }
            left -= rest;
            *place = Place { block: block.next, offset: 0 };
        }
        Ok(())
    }
}
