//! `/dev/null`: `drivers/char/mem.c`.

use umvu_interface::{Asker, Errno, OpenDevice, Result};

/// The open device.
#[derive(Debug)]
pub struct Null;

impl OpenDevice for Null {
    fn size(&self) -> Option<u64> {
        None
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: u64, bytes: &[u8]) -> Result<usize> {
        Ok(bytes.len())
    }

    fn sync(&self) -> Result<()> {
        Err(Errno::INVAL)
    }

    fn ioctl(&self, _: u32, _: u64, _: &dyn Asker) -> Result<u64> {
        Err(Errno::NOTTY)
    }
}
