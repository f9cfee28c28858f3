//! Names that mounts add to directories which they do not cover: mount points that the directory does not have, and the
//! outposts of a file system ([`Filesystem::outpost`](umvu_interface::Filesystem::outpost)), as the partitions beside a
//! disk. They are asked for where a directory has no such name itself. Knows no file system.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use umvu_interface::{
    BlockDevice, Caller, DirEntry, Errno, FileKind, Filesystem, Inode, InodeRef, Name, OFlags, Opened, Result, Stat,
};

use crate::mount::{Location, Mount};
use crate::mount_table::MountTable;

/// Whether a mount attached at `covered` adds names to directories.
pub fn adds(mount: &Mount, covered: &Location) -> bool {
    covered.inode.as_any().is::<Absent>() || mount.filesystem.has_outposts()
}

/// What is seen under a name that `directory` itself does not have.
///
/// # Errors
/// - `ENOENT`: nothing.
pub fn find(table: &MountTable, directory: &Location, name: &[u8]) -> Result<Location> {
    if table.adding().is_empty() {
        return Err(Errno::NOENT);
    }
    let id = directory.inode.id()?;
    for mount in table.adding().iter().rev() {
        let Some(attachment) = table.attachment(mount) else { continue };
        let absent = attachment.covered.inode.as_any().downcast_ref::<Absent>();
        let is_point = absent.is_some_and(|absent| absent.is(id, name));
        if is_point && attachment.covered.mount.id == directory.mount.id {
            return Ok(table.top(Location::root_of(mount)));
        }
        if let Some(inode) = mount.filesystem.outpost(id, name) {
            return Ok(Location { mount: mount.clone(), inode });
        }
    }
    Err(Errno::NOENT)
}

/// Whether a directory has such names.
pub fn has(table: &MountTable, directory: &Location) -> bool {
    !table.adding().is_empty() && !entries(table, directory).is_empty()
}

/// Lists them.
pub fn entries(table: &MountTable, directory: &Location) -> Vec<DirEntry> {
    let mut all = Vec::new();
    if table.adding().is_empty() {
        return all;
    }
    let Ok(id) = directory.inode.id() else { return all };
    for mount in table.adding() {
        let Some(attachment) = table.attachment(mount) else { continue };
        let absent = attachment.covered.inode.as_any().downcast_ref::<Absent>();
        if let Some(absent) = absent.filter(|a| a.is(id, &a.name) && attachment.covered.mount.id == directory.mount.id)
        {
            if let Ok(stat) = table.top(Location::root_of(mount)).inode.stat() {
                let dirent_type = stat.kind().dirent_type();
                all.push(DirEntry { name: absent.name.clone(), ino: stat.ino, dirent_type });
            }
        }
        all.extend(mount.filesystem.outposts(id));
    }
    all
}

/// The block devices of a view, and the mounts that bring them.
pub fn block_devices(table: &MountTable) -> Vec<(Arc<Mount>, BlockDevice)> {
    let of = |mount: &Arc<Mount>| {
        let mount = mount.clone();
        let devices = mount.filesystem.block_devices();
        devices.into_iter().map(move |device| (mount.clone(), device))
    };
    table.adding().iter().flat_map(of).collect()
}

/// What a node of a block device leads to: a device of the view that has its number, or itself.
///
/// # Errors
/// Those of stat(2).
pub fn by_number(table: &MountTable, place: &Location) -> Result<Location> {
    if table.adding().is_empty() {
        return Ok(place.clone());
    }
    let number = place.inode.stat()?.rdev;
    let found = block_devices(table).into_iter().find(|(_, device)| device.number == number);
    Ok(found.map_or_else(|| place.clone(), |(mount, device)| Location { mount, inode: device.node }))
}

/// A mount point that does not exist: a name that its directory has for as long as something is mounted there.
pub struct Absent {
    directory: InodeRef,
    name: Box<[u8]>,
    number: u64,
}

/// The device of all of them: none that the kernel or a module gives out.
const DEVICE: u64 = u64::MAX;

impl Absent {
    /// Makes one.
    pub fn below(directory: &Location, name: &Name) -> Location {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let inode = Self { directory: directory.inode.clone(), name: name.as_bytes().into(), number };
        Location { mount: directory.mount.clone(), inode: Arc::new(inode) }
    }

    fn is(&self, directory: (u64, u64), name: &[u8]) -> bool {
        *self.name == *name && self.directory.id().is_ok_and(|id| id == directory)
    }
}

impl Inode for Absent {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.directory.filesystem()
    }

    fn stat(&self) -> Result<Stat> {
        let mode = FileKind::Regular.bits();
        Ok(Stat { dev: DEVICE, ino: self.number, mode, ..Stat::default() })
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
        path.extend_from_slice(&self.name);
        Ok(path)
    }

    fn open(&self, _: &Caller<'_>, _: OFlags) -> Result<Opened> {
        Err(Errno::NOENT)
    }
}
