//! Nodes of devices that modules claim, at the paths where the tree of the view has none. Knows no device.

use std::any::Any;
use std::sync::Arc;

use umvu_interface::{Caller, ClaimedDevice, Errno, Filesystem, Inode, InodeRef, Name, OFlags, Opened, Result, Stat};

use crate::call::Call;
use crate::mount::{Location, MountTable};
use crate::resolve::{path_of, Last, LastComponent, Lookup, ResolveFlags, TrailingSlash};

/// Finds the node that a path means which was found to mean nothing else.
///
/// # Errors
/// - `ENOENT`: there is none.
pub fn find(call: &Call, table: &MountTable, start: Location, path: &[u8], flags: ResolveFlags) -> Result<Location> {
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let has_name = |device: &dyn ClaimedDevice| device.path().rsplit(|b| *b == b'/').next() == Some(name);
    let device = call.state.view.device(has_name).ok_or(Errno::NOENT)?;
    let Lookup::AtParent { directory, last: LastComponent::Name(name), slash: TrailingSlash::No } =
        call.resolve_from(table, start, path, Last::Parent, flags)?
    else {
        return Err(Errno::NOENT);
    };
    let above = path_of(table, &call.root(table), &directory)?.ok_or(Errno::NOENT)?;
    if [&above, &b"/"[..], name.as_bytes()].concat() != device.path() {
        return Err(Errno::NOENT);
    }
    let node = Node { directory: directory.inode.clone(), name, device };
    Ok(Location { mount: directory.mount, inode: Arc::new(node) })
}

/// The directory and the name of a node of these.
pub fn place_of(place: &Location) -> Option<(Location, Name)> {
    let node = place.inode.as_any().downcast_ref::<Node>()?;
    Some((Location { mount: place.mount.clone(), inode: node.directory.clone() }, node.name.clone()))
}

/// A node.
struct Node {
    directory: InodeRef,
    name: Name,
    device: Arc<dyn ClaimedDevice>,
}

impl Inode for Node {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.directory.filesystem()
    }

    fn stat(&self) -> Result<Stat> {
        let (mode, rdev) = (self.device.kind().bits() | self.device.mode(), self.device.number());
        // No object of the directory's file system has such a number.
        let ino = u64::MAX - rdev;
        Ok(Stat { dev: self.directory.stat()?.dev, ino, mode, nlink: 1, rdev, blksize: 4096, ..Stat::default() })
    }

    fn lookup(&self, _: &Name) -> Result<InodeRef> {
        Err(Errno::NOTDIR)
    }

    fn parent(&self) -> Result<InodeRef> {
        Ok(self.directory.clone())
    }

    fn path(&self) -> Result<Vec<u8>> {
        let mut path = self.directory.path()?;
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(self.name.as_bytes());
        Ok(path)
    }

    fn open(&self, _: &Caller<'_>, _: OFlags) -> Result<Opened> {
        // It is opened by its number.
        Err(Errno::NXIO)
    }
}
