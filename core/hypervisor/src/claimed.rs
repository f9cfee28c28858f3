//! Nodes of devices that modules claim, at the paths where the tree of the view has none. Knows no device.

use std::any::Any;
use std::os::fd::AsFd;
use std::sync::Arc;

use umvu_interface::{Caller, ClaimedDevice, Errno, Filesystem, Inode, InodeRef, Name, OFlags, Opened, Result, Stat};
use umvu_sys::seccomp::CloseOnExec;

use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest;
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

/// Whether a request of ioctl(2) may be one by which a descriptor joins another: type 0xe5, that of `/dev/fuse`.
pub fn may_join_by(request: u32) -> bool {
    (request >> 8) & 0xff == 0xe5
}

/// `ioctl(fd, request, &other)` by which a descriptor of a claimed device becomes one more of another:
/// `fuse_dev_ioctl_clone` of `fs/fuse/dev.c`.
pub fn join(call: &Call) -> Outcome {
    let number = call.i32(0);
    let own = rustix::fs::fstat(call.take_fd(number)?)?;
    let opened_it = |device: &dyn ClaimedDevice| {
        device.joins_by() == Some(call.u32(1)) && device.has_opened(own.st_dev, own.st_ino)
    };
    let Some(device) = call.state.view.device(opened_it) else { return Ok(Reply::Continue) };
    let other = i32::from_ne_bytes(guest::read_array(call.tid(), call.raw(2))?);
    let other = call.take_fd(other).map_err(|_| Errno::INVAL)?;
    let stat = rustix::fs::fstat(&other)?;
    if !device.has_opened(stat.st_dev, stat.st_ino) || !device.may_join(own.st_dev, own.st_ino) {
        return Err(Errno::INVAL.into());
    }
    call.check_alive()?;
    let at = u32::try_from(number).map_err(|_| Errno::BADF)?;
    let cloexec = if crate::handlers::exec::closes_on_exec(call, number) { CloseOnExec::Yes } else { CloseOnExec::No };
    call.supervisor.listener.add_fd(call.notification.id, other.as_fd(), cloexec, Some(at))?;
    DONE
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
