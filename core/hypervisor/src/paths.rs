//! Where a place is: the directory above it, and its path as processes see it. Knows nothing of how it was found.

use std::sync::Arc;

use umvu_interface::{Errno, FileKind, Filesystem, InodeRef, Result};

use crate::mount::{Location, Mount, MountTable};

/// Gives the parent of a directory, through the roots of mounts; the root of the view is its own parent.
pub fn parent(table: &MountTable, place: &Location) -> Result<Location> {
    let mut at = place.clone();
    while at.inode.id()? == at.mount.root.id()? {
        match table.attachment(&at.mount) {
            Some(attachment) => at = attachment.covered.clone(),
            None => return Ok(at),
        }
    }
    let inode = at.inode.parent()?;
    let mount = if at.mount.filesystem.has_outposts() { mount_of_outpost(table, &at, &inode) } else { at.mount };
    let above = Location { mount, inode };
    if above.inode.id()? == above.mount.root.id()? {
        return Ok(table.top(above));
    }
    Ok(above)
}

/// The mount that the directory above an object is in, where that may be outside of the object's file system.
fn mount_of_outpost(table: &MountTable, of: &Location, above: &InodeRef) -> Arc<Mount> {
    let has =
        |filesystem: &Arc<dyn Filesystem>| std::ptr::addr_eq(Arc::as_ptr(filesystem), Arc::as_ptr(&above.filesystem()));
    let found = (!has(&of.mount.filesystem)).then(|| table.mounts().iter().rev().find(|m| has(&m.filesystem)));
    found.flatten().unwrap_or(&of.mount).clone()
}

/// Gives the absolute path of a place as a process with `root` sees it; `None` where it is not below that root.
///
/// # Errors
/// - `ENOENT`: the place has been removed.
pub fn path_of(table: &MountTable, root: &Location, place: &Location) -> Result<Option<Vec<u8>>> {
    let mut tail: Vec<u8> = Vec::new();
    let mut at = place.clone();
    let root_in_mount = root.inode.path()?;
    // What is to be appended to the name of a mount point.
    let mut suffix: Vec<u8> = Vec::new();
    loop {
        let path = [at.inode.path()?, std::mem::take(&mut suffix)].concat();
        // An outpost somewhere else in the view: Filesystem::outpost.
        if path.first() == Some(&b'/') {
            let base =
                if root.inode.id()? == table.root().inode.id()? { Vec::new() } else { path_from_bottom(table, root)? };
            let below = path.strip_prefix(&base[..]).filter(|below| below.first() == Some(&b'/'));
            return Ok(below.map(|below| [below, &tail[..]].concat()));
        }
        if at.mount.id == root.mount.id {
            if let Some(inside) = strip_prefix(&path, &root_in_mount) {
                prepend(&mut tail, inside);
                if tail.is_empty() {
                    tail.push(b'/');
                }
                return Ok(Some(tail));
            }
        }
        let base = at.mount.root.path()?;
        if at.mount.filesystem.has_outposts() && at.mount.root.kind()? != FileKind::Directory {
            suffix = path;
        } else {
            prepend(&mut tail, strip_prefix(&path, &base).ok_or(Errno::NOENT)?);
        }
        match table.attachment(&at.mount) {
            Some(attachment) => at = attachment.covered.clone(),
            None => return Ok(None),
        }
    }
}

/// Gives the path of a place from the root of the lowest mount it is in, whether a process can get there or not.
///
/// # Errors
/// - `ENOENT`: the place has been removed.
pub fn path_from_bottom(table: &MountTable, place: &Location) -> Result<Vec<u8>> {
    let mut bottom = place.mount.clone();
    while let Some(attachment) = table.attachment(&bottom) {
        bottom = attachment.covered.mount.clone();
    }
    Ok(path_of(table, &Location::root_of(&bottom), place)?.unwrap_or_else(|| b"/".to_vec()))
}

fn prepend(tail: &mut Vec<u8>, head: &[u8]) {
    if head.is_empty() {
        return;
    }
    let mut joined = Vec::with_capacity(head.len() + 1 + tail.len());
    joined.push(b'/');
    joined.extend_from_slice(head);
    joined.extend_from_slice(tail);
    *tail = joined;
}

/// The rest of `path` below `base`, both relative without a leading slash; `None` where it is not below.
pub fn strip_prefix<'a>(path: &'a [u8], base: &[u8]) -> Option<&'a [u8]> {
    if base.is_empty() {
        return Some(path);
    }
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() {
        return Some(rest);
    }
    rest.strip_prefix(b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_a_slash() {
        assert_eq!(strip_prefix(b"usr/lib", b"usr"), Some(b"lib".as_slice()));
        assert_eq!(strip_prefix(b"usrlib", b"usr"), None);
        assert_eq!(strip_prefix(b"usr", b"usr"), Some(b"".as_slice()));
    }
}
