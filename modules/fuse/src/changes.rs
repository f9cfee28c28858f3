//! Changes of attributes as a server is told of them. Knows no conversation.

use umvu_interface::{SetAttr, SetTime};

use crate::abi::{Changed, SetAttrIn};

/// `iattr_to_fattr` of `fs/fuse/dir.c`.
pub fn changes(change: &SetAttr) -> SetAttrIn {
    let mut out = SetAttrIn::default();
    let mut valid = Changed::empty();
    if let Some(mode) = change.mode {
        (out.mode, valid) = (mode, valid | Changed::MODE);
    }
    if let Some(uid) = change.uid {
        (out.uid, valid) = (uid, valid | Changed::UID);
    }
    if let Some(gid) = change.gid {
        (out.gid, valid) = (gid, valid | Changed::GID);
    }
    if let Some(size) = change.size {
        (out.size, valid) = (size, valid | Changed::SIZE);
    }
    match change.atime {
        SetTime::Keep => {}
        SetTime::Now => valid |= Changed::ATIME | Changed::ATIME_NOW,
        SetTime::At(time) => {
            valid |= Changed::ATIME;
            (out.atime, out.atimensec) = (u64::from_ne_bytes(time.seconds.to_ne_bytes()), time.nanoseconds);
        }
    }
    match change.mtime {
        SetTime::Keep => {}
        // update_mtime: the server knows by itself what cutting a file does.
        SetTime::Now if change.size.is_some() => {}
        SetTime::Now => valid |= Changed::MTIME | Changed::MTIME_NOW,
        SetTime::At(time) => {
            valid |= Changed::MTIME;
            (out.mtime, out.mtimensec) = (u64::from_ne_bytes(time.seconds.to_ne_bytes()), time.nanoseconds);
        }
    }
    out.valid = valid.bits();
    out
}
