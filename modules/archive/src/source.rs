//! Bytes of a file that hold an archive: the whole of it, or a part. Knows nothing of what the bytes mean.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A range of a file.
#[derive(Clone, Debug)]
pub struct Source {
    file: Arc<File>,
    start: u64,
    length: u64,
}

impl Source {
    /// Takes a whole file.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn whole(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), start: 0, length })
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Offset of the range in the file.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Takes a part of the range; none where it is not all there.
    pub fn part(&self, at: u64, length: u64) -> Option<Self> {
        let end = at.checked_add(length)?;
        if end > self.length {
            return None;
        }
        Some(Self { file: Arc::clone(&self.file), start: self.start.checked_add(at)?, length })
    }

    /// Reads at an offset of the range as much as there is, up to the length of `buffer`.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let mut done = 0;
        while done < wanted {
            let offset = self.start + at + done as u64;
            match self.file.read_at(&mut buffer[done..wanted], offset) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Reads all of the range, which must not be longer than `most`.
    ///
    /// # Errors
    /// Those of pread(2); it is longer, or shorter than it was.
    pub fn read_all(&self, most: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.length).ok().filter(|_| self.length <= most);
        let mut bytes = vec![0; length.ok_or_else(|| io::Error::other(format!("{} bytes long", self.length)))?];
        match self.read_at(0, &mut bytes)? == bytes.len() {
            true => Ok(bytes),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Reads it from the beginning.
    pub fn reader(&self) -> Reader<'_> {
        Reader { source: self, at: 0 }
    }
}

/// Reads a [`Source`] in order.
pub struct Reader<'a> {
    source: &'a Source,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(self.at, buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}
