//! A storage whose writes stay in memory: what a mount for reading replays of a journal does not change the image. Knows
//! no format.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_driver::Storage;
use umvu_interface::{Errno, Result};

const BLOCK: u64 = 4096;
/// As many blocks are kept: 256 MiB.
const MOST: usize = 65_536;

/// The storage.
pub struct Overlay {
    below: Arc<dyn Storage>,
    written: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Overlay {
    /// Covers a storage.
    pub fn new(below: Arc<dyn Storage>) -> Self {
        Self { below, written: Mutex::new(HashMap::new()) }
    }

    /// Reads a block of the storage below; behind its end there are zeros.
    fn block(&self, number: u64) -> Result<Vec<u8>> {
        let start = number * BLOCK;
        let there = self.below.size().saturating_sub(start).min(BLOCK);
        let mut block = vec![0; 4096];
        self.below.read_at(start, &mut block[..usize::try_from(there).unwrap_or(0)])?;
        Ok(block)
    }
}

impl Storage for Overlay {
    fn size(&self) -> u64 {
        self.below.size()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.below.read_at(offset, buffer)?;
        let written = self.written.lock();
        if written.is_empty() {
            return Ok(());
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = usize::try_from(at % BLOCK).unwrap_or(0);
            let count = (4096 - within).min(buffer.len() - done);
            if let Some(block) = written.get(&(at / BLOCK)) {
                buffer[done..done + count].copy_from_slice(&block[within..within + count]);
            }
            done += count;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= self.size());
        end.ok_or(Errno::IO)?;
        let mut written = self.written.lock();
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = usize::try_from(at % BLOCK).unwrap_or(0);
            let count = (4096 - within).min(bytes.len() - done);
            let number = at / BLOCK;
            if !written.contains_key(&number) {
                if written.len() >= MOST {
                    return Err(Errno::NOSPC);
                }
                written.insert(number, self.block(number)?);
            }
            if let Some(block) = written.get_mut(&number) {
                block[within..within + count].copy_from_slice(&bytes[done..done + count]);
            }
            done += count;
        }
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umvu_driver::FileStorage;

    #[test]
    fn what_is_written_is_read_and_the_storage_below_is_as_it_was() {
        let fd = rustix::fs::memfd_create("below", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&fd, 10_000).unwrap();
        let below = Arc::new(FileStorage::new(fd.into(), 0, 10_000, true));
        let overlay = Overlay::new(below.clone());
        overlay.write_at(4090, &[7; 5_000]).unwrap();
        overlay.write_at(9_999, &[8]).unwrap();
        assert_eq!(overlay.write_at(9_999, &[8, 8]), Err(Errno::IO));
        let mut all = vec![1; 10_000];
        overlay.read_at(0, &mut all).unwrap();
        let expected = [vec![0; 4090], vec![7; 5_000], vec![0; 909], vec![8]].concat();
        assert!(all == expected);
        below.read_at(0, &mut all).unwrap();
        assert!(all == vec![0; 10_000]);
    }
}
