//! The content of an entry of a zip archive, and how it is unpacked: to what the directory says of it, or not at all.

use std::io::{self, Read, Write};

use crate::fields::Fields;
use crate::source::Source;

/// Length of an entry's header, without the name and the extra fields behind it.
const HEADER: u64 = 30;

/// What the directory says of a content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Where the entry's header is.
    pub header: u64,
    /// Bytes that it takes in the archive.
    pub length: u64,
    /// Bytes that it has.
    pub size: u64,
    /// The CRC-32 of them.
    pub crc: u32,
    /// How it is compressed: APPNOTE.TXT, 4.4.5.
    pub method: u16,
    /// Whether a password is needed.
    pub is_encrypted: bool,
}

impl Packed {
    /// Writes the content.
    ///
    /// # Errors
    /// - `Unsupported`: it is encrypted, or compressed in a way that is not known.
    /// - `InvalidData`, `UnexpectedEof`, `Other`: it is damaged, or not what the directory says.
    /// - those of reading and of writing.
    pub fn unpack(&self, source: &Source, to: &mut dyn Write) -> io::Result<()> {
        if self.is_encrypted {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it is encrypted"));
        }
        let wrong = |why: &'static str| io::Error::new(io::ErrorKind::InvalidData, why);
        let header = source.part(self.header, HEADER).ok_or_else(|| wrong("its header is behind the end"))?;
        let header = header.read_all(HEADER)?;
        let mut fields = Fields(&header);
        if fields.bytes(4) != Some(b"PK\x03\x04") {
            return Err(wrong("where its header should be is none"));
        }
        let mut lengths = || {
            fields.skip(22)?;
            Some(u64::from(fields.u16()?) + u64::from(fields.u16()?))
        };
        let at = lengths().and_then(|lengths| self.header.checked_add(HEADER + lengths));
        let packed = at.and_then(|at| source.part(at, self.length)).ok_or_else(|| wrong("it is cut short"))?;
        let packed = io::BufReader::with_capacity(64 << 10, packed.reader());
        match self.method {
            0 => self.pump(packed, to),
            8 => self.pump(flate2::bufread::DeflateDecoder::new(packed), to),
            12 => self.pump(bzip2::bufread::BzDecoder::new(packed), to),
            14 => self.lzma(packed, to),
            93 => {
                let frame = ruzstd::decoding::StreamingDecoder::new(packed);
                self.pump(frame.map_err(|error| io::Error::other(error.to_string()))?, to)
            }
            95 => self.pump(lzma_rust2::XzReader::new_mem_limit(packed, false, MEMORY >> 10), to),
            other => {
                let why = format!("compressed in a way that is not known ({other})");
                Err(io::Error::new(io::ErrorKind::Unsupported, why))
            }
        }
    }

    /// APPNOTE.TXT, 5.8: a version, the length of the properties, the properties, the data.
    fn lzma(&self, mut packed: impl Read, to: &mut dyn Write) -> io::Result<()> {
        let mut start = [0; 9];
        packed.read_exact(&mut start)?;
        let mut fields = Fields(&start[2..]);
        let (Some(5), Some(properties), Some(dictionary)) = (fields.u16(), fields.u8(), fields.u32()) else {
            return Err(io::Error::other("properties of LZMA that are not known"));
        };
        if dictionary > MEMORY {
            return Err(io::Error::other("a dictionary of an impossible size"));
        }
        self.pump(lzma_rust2::LzmaReader::new_with_props(packed, self.size, properties, dictionary, None)?, to)
    }

    fn pump(&self, mut from: impl Read, to: &mut dyn Write) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(self.size).unwrap_or(usize::MAX).clamp(1, 128 << 10)];
        let (mut sum, mut left) = (flate2::Crc::new(), self.size);
        loop {
            match from.read(&mut buffer) {
                Ok(0) if left > 0 => return Err(io::Error::other("it is shorter than the directory says")),
                Ok(0) if sum.sum() != self.crc => return Err(io::Error::other("its checksum is wrong")),
                Ok(0) => return Ok(()),
                Ok(count) => {
                    let rest = left.checked_sub(count as u64);
                    left = rest.ok_or_else(|| io::Error::other("it is longer than the directory says"))?;
                    sum.update(&buffer[..count]);
                    to.write_all(&buffer[..count])?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Most memory for a dictionary, in bytes: more is asked for by none but a bomb.
const MEMORY: u32 = 256 << 20;
