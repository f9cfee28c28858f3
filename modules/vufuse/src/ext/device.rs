//! What rsext4 stands on: the image in sectors, the time, and random numbers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rsext4::{
    BlockIo, Clock, Delay, DeviceCapabilities, DeviceGeometry, EntropySource, Ext4Error, Ext4Result, Ext4Timestamp,
    SectorId,
};
use umvu_interface::{Errno, Timestamp};

use crate::image::Image;

const SECTOR: u32 = 512;

/// What failed last: rsext4 says no more than that something did.
pub type LastErrno = Arc<Mutex<Option<Errno>>>;

/// An image in sectors.
pub struct Device {
    pub image: Arc<Image>,
    pub failed: LastErrno,
}

impl Device {
    fn offset(sector: SectorId) -> Ext4Result<u64> {
        sector.raw().checked_mul(SECTOR.into()).ok_or_else(Ext4Error::overflow)
    }

    fn length(count: u32) -> Ext4Result<usize> {
        usize::try_from(u64::from(count) * u64::from(SECTOR)).map_err(|_| Ext4Error::overflow())
    }

    fn result<T>(&self, result: umvu_interface::Result<T>) -> Ext4Result<T> {
        result.map_err(|errno| {
            *self.failed.lock() = Some(errno);
            match errno {
                Errno::NOSPC => Ext4Error::no_space(),
                Errno::ROFS => Ext4Error::read_only(),
                Errno::UCLEAN => Ext4Error::corrupted(),
                _ => Ext4Error::io(),
            }
        })
    }
}

impl BlockIo for Device {
    fn write(&mut self, buffer: &[u8], sector: SectorId, count: u32) -> Ext4Result<()> {
        let bytes = buffer.get(..Self::length(count)?).ok_or_else(Ext4Error::invalid_input)?;
        self.result(self.image.write(Self::offset(sector)?, bytes))
    }

    fn read(&mut self, buffer: &mut [u8], sector: SectorId, count: u32) -> Ext4Result<()> {
        let buffer = buffer.get_mut(..Self::length(count)?).ok_or_else(Ext4Error::invalid_input)?;
        self.result(self.image.read(Self::offset(sector)?, buffer))
    }

    fn geometry(&self) -> DeviceGeometry {
        DeviceGeometry::new(SECTOR, self.image.size() / u64::from(SECTOR))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        DeviceCapabilities { read_only: self.image.is_read_only(), flush: true, discard: true, ..Default::default() }
    }

    fn flush(&mut self) -> Ext4Result<()> {
        self.result(self.image.flush())
    }

    fn discard(&mut self, start: SectorId, count: u32) -> Ext4Result<()> {
        self.result(self.image.discard(Self::offset(start)?, u64::from(count) * u64::from(SECTOR)))
    }
}

/// The time, which stands still for as long as a call takes: what was written is then known.
#[derive(Clone)]
pub struct Now(Arc<Mutex<Timestamp>>);

impl Default for Now {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Self::now())))
    }
}

impl Now {
    /// The time.
    pub fn now() -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(0), nanoseconds: since.subsec_nanos() }
    }

    /// A call begins.
    pub fn begin(&self) {
        *self.0.lock() = Self::now();
    }

    /// When the call began.
    pub fn of_call(&self) -> Timestamp {
        *self.0.lock()
    }
}

impl Clock for Now {
    fn now(&self) -> Ext4Result<Ext4Timestamp> {
        let now = self.of_call();
        Ok(Ext4Timestamp::new(now.seconds, now.nanoseconds))
    }
}

/// Random numbers, for multiple mount protection.
pub struct Random;

impl EntropySource for Random {
    fn fill_bytes(&mut self, output: &mut [u8]) -> Ext4Result<()> {
        let count = rustix::rand::getrandom(&mut *output, rustix::rand::GetRandomFlags::empty());
        if count != Ok(output.len()) {
            return Err(Ext4Error::io());
        }
        Ok(())
    }
}

/// Waits, for multiple mount protection.
pub struct Wait;

impl Delay for Wait {
    fn wait(&mut self, duration: Duration) -> Ext4Result<()> {
        std::thread::sleep(duration);
        Ok(())
    }
}
