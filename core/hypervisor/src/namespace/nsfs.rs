//! Namespaces as files: what the links in `/proc/PID/ns` lead to. They can be bound elsewhere and opened there. Knows
//! nothing of what namespaces hold.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use umvu_interface::{Caller, Errno, Filesystem, FsStat, Inode, InodeRef, Name, OFlags, Opened, Result, Stat};

use super::Namespace;
use crate::mount::{Mount, MountKind, NewMount, Origin, Superblock};

/// `NSFS_MAGIC` of linux/magic.h.
const MAGIC: u64 = 0x6e73_6673;

/// The file system of namespaces.
pub struct NsFs {
    device: u64,
}

impl NsFs {
    /// The mount through which namespaces are seen that are bound nowhere: it is in no tree, as the kernel's is not.
    pub fn mount(id: u64, device: u64) -> Arc<Mount> {
        let filesystem = Arc::new(Self { device });
        Mount::new(NewMount {
            id,
            kind: MountKind::Tree,
            origin: Origin::View,
            root: filesystem.root(),
            filesystem,
            source: b"nsfs".to_vec(),
            fstype: b"nsfs".to_vec(),
            flags: umvu_interface::MountFlags::empty(),
            superblock: Superblock::new(umvu_interface::MountFlags::empty()),
            module: None,
            mark: None,
        })
    }
}

/// A namespace as a file.
pub struct NsInode {
    device: u64,
    /// `None` for the root, which nobody sees.
    namespace: Option<Namespace>,
}

impl NsInode {
    /// Makes the file of a namespace.
    pub fn file_of(of: &Mount, namespace: Namespace) -> InodeRef {
        let device = of.filesystem.as_any().downcast_ref::<NsFs>().map_or(0, |fs| fs.device);
        Arc::new(Self { device, namespace: Some(namespace) })
    }

    /// The namespace that an object is the file of.
    pub fn namespace_of(inode: &InodeRef) -> Option<&Namespace> {
        inode.as_any().downcast_ref::<NsInode>()?.namespace.as_ref()
    }
}

impl Inode for NsInode {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        Arc::new(NsFs { device: self.device })
    }

    fn stat(&self) -> Result<Stat> {
        let (mode, ino) = match &self.namespace {
            Some(namespace) => (0o100_444, namespace.number()),
            None => (0o040_555, 1),
        };
        Ok(Stat { dev: self.device, ino, mode, nlink: 1, blksize: 4096, ..Stat::default() })
    }

    fn lookup(&self, _: &Name) -> Result<InodeRef> {
        Err(if self.namespace.is_some() { Errno::NOTDIR } else { Errno::NOENT })
    }

    fn parent(&self) -> Result<InodeRef> {
        Ok(Arc::new(Self { device: self.device, namespace: None }))
    }

    fn path(&self) -> Result<Vec<u8>> {
        Ok(self.namespace.as_ref().map_or_else(Vec::new, Namespace::text))
    }

    fn open(&self, _: &Caller<'_>, _: OFlags) -> Result<Opened> {
        // A descriptor of it is made where descriptors of what the kernel does not have are made.
        Err(Errno::NXIO)
    }
}

impl Filesystem for NsFs {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn root(&self) -> InodeRef {
        Arc::new(NsInode { device: self.device, namespace: None })
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        Ok(FsStat { magic: MAGIC, block_size: 4096, name_max: 255, fragment_size: 4096, ..FsStat::default() })
    }

    fn stat_open(&self, _: BorrowedFd<'_>) -> Result<Stat> {
        Err(Errno::BADF)
    }
}
