//! Paths in one layer, whatever the others hold.

use std::sync::Arc;

use umvu_interface::{Errno, FileKind, InodeRef, Name, Result};

/// Finds a descendant of a directory of a layer.
pub(crate) fn walk(base: &InodeRef, path: &[u8]) -> Result<InodeRef> {
    if path.is_empty() {
        return Ok(Arc::clone(base));
    }
    match base.lookup_path(path) {
        Err(Errno::LOOP) => {}
        done => return done,
    }
    // A link in the way, or a layer without a fast way.
    let mut inode = Arc::clone(base);
    let mut rest = path;
    loop {
        let (name, tail) = split(rest);
        inode = inode.lookup(&Name::new(name)?)?;
        if tail.is_empty() {
            return Ok(inode);
        }
        match inode.kind()? {
            FileKind::Directory => {}
            FileKind::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::NOTDIR),
        }
        rest = tail;
    }
}

/// Gives the first component of a path and what follows it.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (path, &path[path.len()..]),
    }
}

pub(crate) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
}
