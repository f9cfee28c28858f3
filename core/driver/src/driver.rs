//! What a driver does with the objects of its file system.

use std::time::Duration;

use umvu_interface::XattrSet;
use umvu_interface::{
    Caller, Credentials, DirEntry, Errno, FsStat, Name, OFlags, RemoveKind, RenameFlags, Result, SetAttr, Stat,
};

use crate::OpenFile;

/// The number of an object, as the driver has it; not what `st_ino` shows, though mostly the same.
pub type NodeId = u64;

/// The root directory.
pub const ROOT: NodeId = 1;

/// How long something is true that only the driver changes.
pub const FOREVER: Duration = Duration::MAX;

/// Metadata, and how long it may be believed. `st_dev` is filled in by who asked.
#[derive(Clone, Debug)]
pub struct Told {
    /// The metadata.
    pub stat: Stat,
    /// From now on.
    pub valid: Duration,
}

/// An entry of a directory that was looked up or made.
#[derive(Clone, Debug)]
pub struct Found {
    /// The object. Each `Found` counts as one lookup of it: [`Driver::forget`].
    pub node: NodeId,
    /// Tells objects apart that have the same number one after the other.
    pub generation: u64,
    /// Its metadata.
    pub told: Told,
    /// How long the name stays that of this object.
    pub name_valid: Duration,
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Its entries, without `.` and `..`.
    pub entries: Vec<DirEntry>,
    /// What was looked up of them.
    pub found: Vec<(Box<[u8]>, Found)>,
}

/// A new object that has no content yet; modes are permission bits (07777) with the umask applied.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum NewNode<'a> {
    Regular {
        mode: u32,
    },
    Directory {
        mode: u32,
    },
    Symlink {
        target: &'a [u8],
    },
    /// A FIFO, socket or device: `mode` with its `S_IFMT` bits, `rdev` as encoded by makedev(3).
    Special {
        mode: u32,
        rdev: u64,
    },
}

/// The driver of a mounted file system. Calls come from several threads at once; those that change something have been
/// checked for what the view checks (permissions, read-only mounts, names), not for what depends on the directory
/// (existence, kinds).
///
/// The defaults are those of a file system that cannot be changed.
pub trait Driver: Send + Sync {
    /// Looks up an entry of a directory.
    ///
    /// # Errors
    /// - `ENOTDIR`: not a directory.
    /// - `ENOENT`: no such entry.
    fn lookup(&self, who: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found>;

    /// Takes note that `lookups` of the [`Found`]s of an object are not needed any more. After the last one its number
    /// may be given to another object.
    fn forget(&self, node: NodeId, lookups: u64) {
        let _ = (node, lookups);
    }

    /// Gives the metadata of an object.
    fn stat(&self, who: &Caller<'_>, node: NodeId) -> Result<Told>;

    /// Changes mode, owner, size or times.
    fn set_attr(&self, who: &Caller<'_>, node: NodeId, change: &SetAttr) -> Result<Told> {
        let _ = (who, node, change);
        Err(Errno::ROFS)
    }

    /// Reads the target of a symbolic link.
    fn readlink(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<u8>>;

    /// Lists a directory, whole, without `.` and `..`.
    ///
    /// # Errors
    /// - `ENOTDIR`: not a directory.
    fn read_dir(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>>;

    /// Lists a directory as [`Driver::read_dir`] does, and gives what it has looked up on the way, by name: none of it need
    /// be looked up once more.
    fn read_dir_found(&self, who: &Caller<'_>, node: NodeId) -> Result<Listing> {
        Ok(Listing { entries: self.read_dir(who, node)?, found: Vec::new() })
    }

    /// Opens a regular file. `flags` has no `O_CREAT`, `O_EXCL`, `O_PATH`.
    fn open(&self, who: &Caller<'_>, node: NodeId, flags: OFlags) -> Result<Box<dyn OpenFile>>;

    /// Makes a new entry of a directory.
    ///
    /// # Errors
    /// - `EEXIST`: the name exists.
    /// - `ENOENT`: the directory has been removed.
    fn create(&self, who: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        let _ = (who, directory, name, what);
        Err(Errno::ROFS)
    }

    /// Makes a new regular file and opens it.
    fn create_open(
        &self,
        who: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        mode: u32,
        flags: OFlags,
    ) -> Result<(Found, Box<dyn OpenFile>)> {
        let found = self.create(who, directory, name, &NewNode::Regular { mode })?;
        match self.open(who, found.node, flags) {
            Ok(file) => Ok((found, file)),
            Err(errno) => {
                self.forget(found.node, 1);
                Err(errno)
            }
        }
    }

    /// Makes a hard link to `node`.
    fn link(&self, who: &Caller<'_>, node: NodeId, directory: NodeId, name: &Name) -> Result<Found> {
        let _ = (who, node, directory, name);
        Err(Errno::ROFS)
    }

    /// Removes an entry of a directory. The object goes with its last name and its last lookup, whichever goes last.
    fn remove(&self, who: &Caller<'_>, directory: NodeId, name: &Name, kind: RemoveKind) -> Result<()> {
        let _ = (who, directory, name, kind);
        Err(Errno::ROFS)
    }

    /// Renames an entry.
    ///
    /// # Errors
    /// - `EINVAL`: a flag that the file system has not.
    fn rename(
        &self,
        who: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        new_directory: NodeId,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let _ = (who, directory, name, new_directory, new_name, flags);
        Err(Errno::ROFS)
    }

    /// Reads an extended attribute whole.
    ///
    /// # Errors
    /// - `ENODATA`: no such attribute.
    /// - `EOPNOTSUPP`: the file system has none.
    fn get_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let _ = (who, node, name);
        Err(Errno::OPNOTSUPP)
    }

    /// Gives the names of the extended attributes.
    fn list_xattr(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<Vec<u8>>> {
        let _ = (who, node);
        Ok(Vec::new())
    }

    /// Sets an extended attribute.
    fn set_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let _ = (who, node, name, value, how);
        Err(Errno::OPNOTSUPP)
    }

    /// Removes an extended attribute.
    fn remove_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<()> {
        let _ = (who, node, name);
        Err(Errno::OPNOTSUPP)
    }

    /// Gives the numbers of the file system.
    fn statfs(&self, who: &Caller<'_>) -> Result<FsStat>;

    /// Writes all that was changed to the storage, in an order that survives a crash, and returns when it is there.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Whether the driver itself judges who may do what (FUSE without `default_permissions`), and the view does not.
    fn checks_permissions(&self) -> bool {
        false
    }

    /// Whether the view judges by the access control lists that its objects have: `SB_POSIXACL`.
    fn has_acls(&self) -> bool {
        false
    }

    /// Whether its answers may wait for a guest: then others take over what the asking thread would have done.
    fn may_block(&self) -> bool {
        false
    }

    /// Whether a user may use it at all.
    fn admits(&self, who: &Credentials) -> bool {
        let _ = who;
        true
    }

    /// Whether it can answer yet; before that, who asks waits.
    fn is_ready(&self) -> bool {
        true
    }

    /// The last of all that is kept goes: [`Driver::forget`] need not be heeded any more.
    fn forgets_all(&self) {}

    /// Gives up what it waits for; calls fail from now on.
    fn abort(&self) {}

    /// Whether it takes the time of a modification from each write that it is given: then it is not told that time.
    fn stamps_writes(&self) -> bool {
        false
    }

    /// The file system is being unmounted, or given up: no call comes after this one. Everything has been written back.
    ///
    /// # Errors
    /// What could not be written.
    fn unmount(&self) -> Result<()> {
        self.sync()
    }
}
