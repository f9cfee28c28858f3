//! The descriptors of fsopen(2) and fspick(2): sockets, told by their inodes, from which a guest reads messages.
//! Knows nothing of what contexts hold.
//!
//! A message is a packet `e TEXT`, as with the kernel's own descriptors; with none left, `read` fails with `EAGAIN`
//! where the kernel's fails with `ENODATA`.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use umvu_interface::{Errno, Result};

use crate::mounting::context::Context;

/// The open ones, by device and inode number.
#[derive(Default)]
pub struct Contexts(DashMap<(u64, u64), Arc<Context>>);

impl Contexts {
    /// Makes a descriptor for a context; `begin` gets the end that takes the messages.
    ///
    /// # Errors
    /// - `EMFILE`, `ENFILE`, `ENOBUFS`: the host's.
    /// - those of `begin`
    pub fn open<E: From<Errno>>(
        &self,
        begin: impl FnOnce(OwnedFd) -> core::result::Result<Context, E>,
    ) -> core::result::Result<OwnedFd, E> {
        self.0.retain(|_, context| !context.is_closed());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (theirs, ours) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let stat = rustix::fs::fstat(&theirs)?;
        self.0.insert((stat.st_dev, stat.st_ino), Arc::new(begin(ours)?));
        Ok(theirs)
    }

    /// Finds the context that a descriptor stands for.
    ///
    /// # Errors
    /// - `EINVAL`: it stands for none.
    pub fn find(&self, fd: impl AsFd) -> Result<Arc<Context>> {
        let stat = rustix::fs::fstat(fd)?;
        self.0.get(&(stat.st_dev, stat.st_ino)).map(|c| c.clone()).ok_or(Errno::INVAL)
    }
}
