//! What a server says unasked, and what comes of it: `fuse_notify` of `fs/fuse/dev.c`. Knows no socket.

use std::sync::{Arc, OnceLock, Weak};

use umvu_cached::CachedFs;
use umvu_interface::Result;

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
            filesystem.removed(out.parent, name(rest, out.namelen)?, out.child);
        }
        notify::STORE => {
            let out = NotifyStore::take(&mut rest)?;
            (usize::try_from(out.size) == Ok(rest.len())).then_some(())?;
            passed_over(filesystem.store(out.nodeid, out.offset, rest));
        }
        notify::RETRIEVE => {
            let out = NotifyRetrieve::whole(rest)?;
            // fuse_retrieve: no more than one write carries.
            let most = connection.negotiated().ok()?.max_write.min(usize::try_from(out.size).ok()?);
            // An object that nobody knows gets no answer: the server is told ENOENT by write(2), which this is not.
            let bytes = filesystem.retrieve(out.nodeid, out.offset, most).unwrap_or_default();
            let size = u32::try_from(bytes.len()).ok()?;
            let body = NotifyRetrieveIn { offset: out.offset, size, ..NotifyRetrieveIn::default() }.bytes();
            let nobody = Asker::default();
            connection.answer(&nobody, Opcode::NotifyReply, out.notify_unique, out.nodeid, &[&body, &bytes]);
        }
        // Nobody polls: files of the view are always ready.
        notify::POLL => {}
        _ => return None,
    }
    Some(())
}

fn passed_over(outcome: Result<()>) {
    if let Err(errno) = outcome {
        tracing::debug!(%errno, "a notification of a FUSE server is passed over");
    }
}

/// A name of a length, and the NUL behind it.
fn name(rest: &[u8], length: u32) -> Option<&[u8]> {
    let (name, end) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (end == [0] && !name.is_empty()).then_some(name)
}
