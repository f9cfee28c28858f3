//! `/dev/fuse`: each opening begins a connection. Knows no mount.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::net::SocketFlags;
use umvu_interface::{Caller, ClaimedDevice, FileKind, OFlags, Result};

use crate::connection::Connection;

/// How long a server that was unmounted may take to see it.
const LATE: Duration = Duration::from_secs(30);

/// The connections whose servers have their end open, by device and inode of that.
#[derive(Default)]
pub struct Device {
    connections: Mutex<HashMap<(u64, u64), Arc<Connection>>>,
    /// Those that were unmounted, and when.
    ended: Mutex<Vec<(Instant, Arc<Connection>)>>,
}

impl Device {
    /// Finds the connection of a descriptor with these `stat` numbers.
    pub fn find(&self, dev: u64, ino: u64) -> Option<Arc<Connection>> {
        self.connections.lock().get(&(dev, ino)).cloned()
    }

    /// Takes note that a connection is unmounted.
    pub fn ends(&self, connection: &Arc<Connection>) {
        let mut ended = self.ended.lock();
        ended.retain(|(when, _)| when.elapsed() < LATE);
        ended.push((Instant::now(), connection.clone()));
    }

    /// Whether one of these processes has served what was unmounted, and serves nothing else.
    pub fn is_late(&self, processes: &[u32]) -> bool {
        let is_served = |connection: &Arc<Connection>| connection.is_served_by(processes);
        let mut ended = self.ended.lock();
        ended.retain(|(when, _)| when.elapsed() < LATE);
        let has_served = ended.iter().any(|(_, connection)| is_served(connection));
        drop(ended);
        has_served && !self.connections.lock().values().any(|c| !c.is_over() && is_served(c))
    }
}

impl ClaimedDevice for Device {
    fn kind(&self) -> FileKind {
        FileKind::CharDevice
    }

    /// `FUSE_MINOR` of linux/miscdevice.h.
    fn number(&self) -> u64 {
        rustix::fs::makedev(10, 229)
    }

    fn path(&self) -> &'static [u8] {
        b"/dev/fuse"
    }

    fn open(&self, _: &Caller<'_>, flags: OFlags) -> Result<OwnedFd> {
        let nonblock = if flags.contains(OFlags::NONBLOCK) { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
        let (connection, fd) = Connection::open(nonblock)?;
        let mut connections = self.connections.lock();
        connections.retain(|_, connection| !connection.is_closed());
        connections.insert(connection.theirs(), connection);
        Ok(fd)
    }

    fn has_opened(&self, dev: u64, ino: u64) -> bool {
        self.connections.lock().contains_key(&(dev, ino))
    }

    /// `FUSE_DEV_IOC_CLONE`: what is asked is read, and answered, by whichever descriptor.
    fn joins_by(&self) -> Option<u32> {
        Some(0x8004_e500)
    }

    fn may_join(&self, dev: u64, ino: u64) -> bool {
        self.find(dev, ino).is_some_and(|connection| connection.is_fresh())
    }
}
