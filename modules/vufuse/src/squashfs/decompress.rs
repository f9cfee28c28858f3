//! The ways in which blocks are compressed. Each gives at most as many bytes as are asked for.

use std::io::{self, Read};

/// A way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Lzma,
    Lzo,
    Xz,
    Lz4,
    Zstd,
}

impl Compression {
    /// `fs/squashfs/squashfs_fs.h`, `ZLIB_COMPRESSION` and those behind it.
    pub fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Gzip,
            2 => Self::Lzma,
            3 => Self::Lzo,
            4 => Self::Xz,
            5 => Self::Lz4,
            6 => Self::Zstd,
            _ => return None,
        })
    }

    /// Unpacks a block that is to have `limit` bytes at most.
    pub fn unpack(self, packed: &[u8], limit: usize) -> io::Result<Vec<u8>> {
        /// More memory than a block of 1 MiB asks for, in KiB.
        const MEMORY: u32 = 64 << 10;
        match self {
            Self::Gzip => whole(flate2::read::ZlibDecoder::new(packed), limit),
            Self::Lzma => whole(lzma_rust2::LzmaReader::new_mem_limit(packed, MEMORY, None)?, limit),
            Self::Xz => whole(lzma_rust2::XzReader::new_mem_limit(packed, false, MEMORY), limit),
            Self::Zstd => {
                let frame = ruzstd::decoding::StreamingDecoder::new(packed).map_err(io::Error::other)?;
                whole(frame, limit)
            }
            Self::Lz4 => {
                let mut out = vec![0; limit];
                let count = lz4_flex::block::decompress_into(packed, &mut out).map_err(io::Error::other)?;
                out.truncate(count);
                Ok(out)
            }
            Self::Lzo => {
                // A byte of LZO1X stands for at most 255: that bounds what is unpacked before it is looked at.
                // It trusts some of what it reads, and panics.
                let unpacked = std::panic::catch_unwind(|| lzokay_native::decompress_all(packed, None));
                let out = unpacked
                    .map_err(|_| io::Error::other("not LZO"))?
                    .map_err(|error| io::Error::other(format!("{error:?}")))?;
                if out.len() > limit {
                    return Err(too_long(limit));
                }
                Ok(out)
            }
        }
    }
}

fn whole(source: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(limit);
    source.take(limit as u64 + 1).read_to_end(&mut out)?;
    if out.len() > limit {
        return Err(too_long(limit));
    }
    Ok(out)
}

fn too_long(limit: usize) -> io::Error {
    io::Error::other(format!("it unpacks to more than {limit} bytes"))
}
