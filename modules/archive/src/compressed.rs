//! Compressed files: told by their first bytes, unpacked once. Knows nothing of what is inside.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};

use umvu_interface::{Errno, MountError};

use crate::cache::{self, Kept};
use crate::entry::{unreadable, Result};
use crate::source::Source;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    /// Tells it by the beginning of a file.
    pub fn of(start: &[u8]) -> Option<Self> {
        Some(match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        }
    }
}

/// Gives the content of a source that is compressed, however often it is, and any other as it is. What is unpacked is
/// at most `limit` bytes long.
///
/// # Errors
/// - `EFBIG`: it is longer
/// - `EUCLEAN`: it is damaged
/// - those of reading it and of writing what is unpacked
pub fn unpacked(source: Source, name: &str, limit: u64) -> Result<Source> {
    /// An archive in an archive is a layer; deeper nesting is a bomb.
    const DEPTH: u32 = 3;
    let mut source = source;
    for _ in 0..DEPTH {
        let mut start = [0; 8];
        let count = source.read_at(0, &mut start).map_err(|error| unreadable(name, &error))?;
        let Some(compression) = Compression::of(&start[..count]) else { return Ok(source) };
        source = unpack(&source, compression, name, limit)?;
    }
    Err(MountError::new(Errno::UCLEAN, format!("{name}: compressed more than {DEPTH} times")))
}

fn unpack(source: &Source, compression: Compression, name: &str, limit: u64) -> Result<Source> {
    let kept = match cache::find(source).map_err(|error| unreadable(name, &error))? {
        Kept::There(file) => return Source::whole(file).map_err(|error| unreadable(name, &error)),
        Kept::New(kept) => kept,
    };
    let cannot = |error: io::Error| {
        let MountError { errno, message, .. } = unreadable(name, &error);
        MountError::new(errno, format!("{message}, while it was unpacked"))
    };
    let limit = limit.min(kept.room().map_err(cannot)?);
    let mut out = Limited { file: kept.file().try_clone().map_err(cannot)?, left: limit, failed: None };
    if let Err(error) = copy(source, compression, &mut out) {
        // The reason is what the output says, if it says something.
        return Err(match out.failed.take() {
            Some(failed) if failed.kind() == io::ErrorKind::FileTooLarge => {
                let message = format!("{name}: unpacks to more than {limit} bytes, the most that is taken");
                MountError::new(Errno::FBIG, message)
            }
            Some(failed) => cannot(failed),
            None if error.raw_os_error().is_some() => cannot(error),
            None => {
                let why = error.to_string().to_lowercase();
                MountError::new(Errno::UCLEAN, format!("{name}: damaged {} data: {why}", compression.name()))
            }
        });
    }
    let file = kept.keep().map_err(cannot)?;
    Source::whole(file).map_err(|error| unreadable(name, &error))
}

fn copy(source: &Source, compression: Compression, out: &mut Limited) -> io::Result<()> {
    let packed = BufReader::with_capacity(128 << 10, source.reader());
    match compression {
        Compression::Gzip => pump(flate2::bufread::MultiGzDecoder::new(packed), out),
        Compression::Bzip2 => pump(bzip2::bufread::MultiBzDecoder::new(packed), out),
        Compression::Xz => {
            /// More than `xz -9` needs, in KiB: a larger dictionary is asked for by none but a bomb.
            const MEMORY: u32 = 256 << 10;
            pump(lzma_rust2::XzReader::new_mem_limit(packed, true, MEMORY), out)
        }
        Compression::Zstd => zstd(packed, out),
    }
}

/// All frames, one behind the other.
fn zstd(mut packed: BufReader<crate::source::Reader<'_>>, out: &mut Limited) -> io::Result<()> {
    use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
    use ruzstd::decoding::StreamingDecoder;
    while !io::BufRead::fill_buf(&mut packed)?.is_empty() {
        match StreamingDecoder::new(&mut packed) {
            Ok(frame) => pump(frame, out)?,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let skipped = io::copy(&mut (&mut packed).take(length.into()), &mut io::sink())?;
                if skipped != u64::from(length) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(error) => return Err(io::Error::other(error.to_string())),
        }
    }
    Ok(())
}

fn pump(mut from: impl Read, to: &mut Limited) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that takes only so much.
struct Limited {
    file: File,
    left: u64,
    failed: Option<io::Error>,
}

impl Limited {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = match self.left.checked_sub(bytes.len() as u64) {
            Some(left) => {
                self.left = left;
                self.file.write_all(bytes)
            }
            None => Err(io::ErrorKind::FileTooLarge.into()),
        };
        written.map_err(|error| {
            self.failed = Some(error);
            io::Error::other("the output takes no more")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    fn source(bytes: &[u8]) -> Source {
        let fd = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = File::from(fd);
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        Source::whole(file).unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_is_compressed_is_unpacked_and_the_rest_left_alone() {
        let plain = unpacked(source(b"plain"), "a", 1 << 20).unwrap();
        assert_eq!(plain.read_all(100).unwrap(), b"plain");
        let members = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(unpacked(source(&members), "a", 1 << 20).unwrap().read_all(100).unwrap(), b"one two");
    }

    #[test]
    fn a_bomb_is_stopped_at_the_limit() {
        let error = unpacked(source(&gzip(&vec![0; 1 << 20])), "bomb", 1 << 16).unwrap_err();
        assert_eq!(error.message, "bomb: unpacks to more than 65536 bytes, the most that is taken");
    }

    #[test]
    fn damage_is_told_with_its_kind() {
        let mut bytes = gzip(&[7; 5000]);
        bytes.truncate(bytes.len() - 4);
        let error = unpacked(source(&bytes), "a.gz", 1 << 20).unwrap_err();
        assert!(error.message.starts_with("a.gz: damaged gzip data: "), "{}", error.message);
    }
}
