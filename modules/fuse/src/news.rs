//! What a server says unasked, and what comes of it: `fuse_notify` of `fs/fuse/dev.c`. Knows no socket.

use std::sync::{Arc, OnceLock, Weak};

use umvu_cached::CachedFs;

use crate::abi::{notify, NotifyDelete, NotifyInvalEntry, NotifyInvalInode, NotifyRetrieve, NotifyRetrieveIn};
use crate::abi::{NotifyStore, Opcode, Wire};
use crate::connection::{Asker, Connection, Notification};

/// Where news go, as soon as there is a file system.
pub struct Heed(Arc<OnceLock<Weak<CachedFs>>>);

impl Heed {
    /// Makes one, and what takes the news of a connection.
    pub fn new(connection: &Arc<Connection>) -> (Self, impl Fn(Notification) + Send + 'static) {
        let place: Arc<OnceLock<Weak<CachedFs>>> = Arc::default();
        let connection = Arc::downgrade(connection);
        let taken = place.clone();
        let heed = move |news: Notification| {
            let filesystem = taken.get().and_then(Weak::upgrade);
            let (Some(filesystem), Some(connection)) = (filesystem, connection.upgrade()) else { return };
            if heed(&filesystem, &connection, &news).is_none() {
                tracing::debug!(code = news.code, "a notification of a FUSE server makes no sense");
            }
        };
        (Self(place), heed)
    }

    /// From now on the news are of this file system.
    pub fn is_for(&self, filesystem: &Arc<CachedFs>) {
        let _ = self.0.set(Arc::downgrade(filesystem));
    }
}

/// Heeds one; `None` where it makes no sense.
fn heed(filesystem: &CachedFs, connection: &Connection, news: &Notification) -> Option<()> {
    let mut rest = &news.body[..];
    match news.code {
        notify::INVAL_INODE => filesystem.invalidate(NotifyInvalInode::whole(rest)?.ino),
        notify::INVAL_ENTRY => {
            let out = NotifyInvalEntry::take(&mut rest)?;
            filesystem.invalidate_entry(out.parent, name(rest, out.namelen)?);
        }
        notify::DELETE => {
            let out = NotifyDelete::take(&mut rest)?;
            filesystem.invalidate_entry(out.parent, name(rest, out.namelen)?);
        }
        // What is stored is what the server would answer: it is asked when somebody wants it.
        notify::STORE => {
            let out = NotifyStore::take(&mut rest)?;
            (usize::try_from(out.size) == Ok(rest.len())).then_some(())?;
            filesystem.invalidate(out.nodeid);
        }
        // Nothing is kept that the server has not: it gets none of it back.
        notify::RETRIEVE => {
            let out = NotifyRetrieve::whole(rest)?;
            let body = NotifyRetrieveIn { offset: out.offset, ..NotifyRetrieveIn::default() }.bytes();
            connection.answer(&Asker::default(), Opcode::NotifyReply, out.notify_unique, out.nodeid, &[&body]);
        }
        // Nobody polls: files of the view are always ready.
        notify::POLL => {}
        _ => return None,
    }
    Some(())
}

/// A name of a length, and the NUL behind it.
fn name(rest: &[u8], length: u32) -> Option<&[u8]> {
    let (name, end) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (end == [0] && !name.is_empty()).then_some(name)
}
