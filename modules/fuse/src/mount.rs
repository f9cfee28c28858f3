//! The types `fuse` and `fuseblk`: a connection becomes a file system. Knows no message.

use std::sync::Arc;

use umvu_cached::{CachedFs, Shown};
use umvu_interface::{
    cause, Errno, FileKind, Filesystem, FilesystemType, InnerMounts, MountError, MountFlags, MountRequest, Mounted,
    World,
};

use crate::connection::Connection;
use crate::device::Device;
use crate::driver::Served;
use crate::news::Heed;
use crate::options::{Options, Sort};

/// One of the types.
pub struct Type {
    /// Where connections are found.
    pub device: Arc<Device>,
    /// Which one.
    pub sort: Sort,
}

impl Type {
    /// The connection that a descriptor of the mounting process stands for: `fuse_opt_fd`.
    fn connection(&self, options: &Options, world: &dyn World) -> Result<Arc<Connection>, MountError> {
        let bad = |why: &str| MountError::new(Errno::INVAL, format!("fuse: option 'fd={}': {why}", options.descriptor));
        let fd = world.descriptor(options.descriptor).map_err(|errno| bad(&cause(errno)))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| bad(&cause(errno)))?;
        self.device.find(stat.st_dev, stat.st_ino).ok_or_else(|| bad("not a descriptor of /dev/fuse"))
    }
}

impl FilesystemType for Type {
    fn names(&self) -> &'static [&'static str] {
        match self.sort {
            Sort::Plain => &["fuse"],
            Sort::Block => &["fuseblk"],
        }
    }

    fn has_subtypes(&self) -> bool {
        true
    }

    fn is_for_everybody(&self) -> bool {
        true
    }

    fn is_late(&self, processes: &[u32]) -> bool {
        self.device.is_late(processes)
    }

    fn needs_no_source(&self) -> bool {
        self.sort == Sort::Plain
    }

    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> Result<Mounted, MountError> {
        let options = Options::parse(&request.options, self.sort)?;
        let connection = self.connection(&options, world)?;
        let (heed, notified) = Heed::new(&connection);
        connection
            .begin(notified)
            .map_err(|errno| MountError::new(errno, "fuse: the descriptor has been mounted already"))?;
        let root = FileKind::from_mode(options.root_mode).unwrap_or(FileKind::Directory);
        let shown = Shown { root, ..Shown::new(options.shown(), &request.caller) };
        let mut shown_type = request.fstype.to_vec();
        if let (Some(subtype), false) = (&options.subtype, shown_type.contains(&b'.')) {
            shown_type.push(b'.');
            shown_type.extend_from_slice(subtype);
        }
        let served = Served::new(connection, options, self.device.clone(), world.parting());
        let filesystem = CachedFs::new(Arc::new(served), world.new_device(), shown);
        heed.is_for(&filesystem);
        let (root, flags, inner) = (filesystem.root(), MountFlags::empty(), InnerMounts::Covered);
        Ok(Mounted { root, filesystem, shown_type, flags, inner })
    }
}
