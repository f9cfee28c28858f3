//! What a module is and what it can claim. Knows no module and nothing of the supervisor.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bitflags::bitflags;

use crate::{
    Caller, ClaimedDevice, Credentials, Errno, Filesystem, HeldProgram, InodeRef, Parting, PortMap, Result, Unsaid,
};

/// An option that a module or a file system type takes, for `--help` and error messages.
#[derive(Clone, Copy, Debug)]
pub struct OptionHelp {
    /// `name` or `name=VALUE`.
    pub syntax: &'static str,
    /// One line.
    pub help: &'static str,
}

/// What comes of loading a module.
pub type Loaded = core::result::Result<Arc<dyn Module>, LoadError>;

/// A module as the list of modules shows it.
pub struct ModuleDescriptor {
    /// The name that `vu_lsmod` shows.
    pub name: &'static str,
    /// Other names it is known by.
    pub aliases: &'static [&'static str],
    /// One line.
    pub summary: &'static str,
    /// Options after the name: `vu_insmod NAME,OPTION,...`.
    pub options: &'static [OptionHelp],
    /// Options of the file system types it brings: `vumount -t TYPE -o OPTION,...`.
    pub mount_options: &'static [OptionHelp],
    /// Loads it with the text after the first comma, split at commas.
    pub load: fn(options: &[&[u8]]) -> Loaded,
}

/// Why a module cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option that the module does not know.
    #[error("unknown option '{0}'")]
    UnknownOption(String),
    /// An option with a value that cannot be used.
    #[error("option '{option}': {reason}")]
    BadValue {
        /// The option as given.
        option: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A loaded module: what it claims. Every method has a default that claims nothing.
pub trait Module: Send + Sync {
    /// File system types it brings.
    fn filesystem_types(&self) -> Vec<Arc<dyn FilesystemType>> {
        Vec::new()
    }

    /// Devices it claims by their numbers.
    fn devices(&self) -> Vec<Arc<dyn ClaimedDevice>> {
        Vec::new()
    }

    /// The identity it gives to the processes of the view.
    fn identity(&self) -> Option<Arc<dyn Identity>> {
        None
    }

    /// The ports of the network it gives other numbers.
    fn ports(&self) -> Option<Arc<dyn PortMap>> {
        None
    }
}

/// An identity that a module claims for the processes of a view.
pub trait Identity: Send + Sync {
    /// Gives the identity of a process that has none of its own yet; `host` is the one the kernel knows.
    fn enter(&self, host: &Credentials) -> Credentials;
}

bitflags! {
    /// Flags of a mount that the hypervisor keeps and enforces.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u64 {
        /// `ro`.
        const READ_ONLY = 1;
        /// `nosuid`.
        const NO_SUID = 2;
        /// `nodev`.
        const NO_DEV = 4;
        /// `noexec`.
        const NO_EXEC = 8;
        /// `noatime`.
        const NO_ATIME = 1024;
        /// `nodiratime`.
        const NO_DIRATIME = 2048;
        /// `relatime`.
        const RELATIME = 1 << 21;
        /// `nosymfollow`.
        const NO_SYMFOLLOW = 256;
    }
}

/// What is to be mounted.
pub struct MountRequest<'a> {
    /// Type as given: one of the names of the [`FilesystemType`].
    pub fstype: &'a [u8],
    /// Source as given.
    pub source: &'a [u8],
    /// Where it is mounted, as given.
    pub target: &'a [u8],
    /// The directory (or file) that will be covered: the world below.
    pub covered: InodeRef,
    /// The options (`-o`) without those that are [`MountFlags`], split at commas with `\,` undone.
    pub options: Vec<Vec<u8>>,
    /// The flags.
    pub flags: MountFlags,
    /// Who mounts.
    pub caller: Caller<'a>,
}

/// A mounted tree.
pub struct Mounted {
    /// The object that covers the mount point: mostly the root of `filesystem`, or, for a bind, any inode of it.
    pub root: InodeRef,
    /// The file system.
    pub filesystem: Arc<dyn Filesystem>,
    /// Type that `/proc/mounts` shows.
    pub shown_type: Vec<u8>,
    /// Flags that the type itself asks for, added to those of the request.
    pub flags: MountFlags,
    /// What becomes of the mounts inside the tree that is covered.
    pub inner: InnerMounts,
}

/// What becomes of the mounts inside a tree that is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InnerMounts {
    /// They are covered with it.
    Covered,
    /// The new mount shows the covered tree, and them at their places in it.
    Shown,
}

/// Why a file system cannot be mounted: an errno for mount(2), a line for people.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    /// What mount(2) returns.
    pub errno: Errno,
    /// Lower case, names the object, ends in the cause.
    pub message: String,
    /// Who can serve it all the same.
    pub server: Option<Box<Server>>,
}

impl MountError {
    /// Makes an error.
    pub fn new(errno: Errno, message: impl Into<String>) -> Self {
        Self { errno, message: message.into(), server: None }
    }

    /// Says who can serve it all the same.
    #[must_use]
    pub fn served_by(self, server: Server) -> Self {
        Self { server: Some(Box::new(server)), ..self }
    }
}

/// A FUSE program that serves what no driver knows; the tool that mounts runs it, as mount(8) runs `mount.TYPE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its names, the best first.
    pub programs: &'static [&'static str],
    /// The package of Debian that has it.
    pub package: &'static str,
    /// Its options.
    pub options: Vec<Vec<u8>>,
}

/// How a directory of the host is used as a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerUse {
    /// It is only read.
    Lower,
    /// It takes the changes: owners, modes and devices that the host refuses are kept with it. `state` beside
    /// it (the work directory) holds what the layer itself cannot.
    Upper,
}

/// Keeps the mount that something was found in from being unmounted, for as long as it, or a copy of it, lives.
#[derive(Clone, Debug, Default)]
pub struct Hold {
    _count: Option<Arc<()>>,
}

impl Hold {
    /// Makes one that counts in `count`, by which the mount knows of it.
    pub fn new(count: &Arc<()>) -> Self {
        Self { _count: Some(count.clone()) }
    }
}

/// The view as it is below a mount that is being made: the only way a module reaches files.
pub trait World {
    /// Resolves a path of the mounting process, following symbolic links.
    fn resolve(&self, path: &[u8]) -> Result<InodeRef>;

    /// As [`World::resolve`], of what is going to be used for as long as the new mount lives.
    fn hold(&self, path: &[u8]) -> Result<(InodeRef, Hold)> {
        Ok((self.resolve(path)?, Hold::default()))
    }

    /// Makes a directory of the view a layer. A directory that is one of the host's becomes a file system of its
    /// own, rooted there, with the ownership store that belongs to it; any other is used as it is.
    /// `state`, for an upper, is a directory for what the layer itself cannot hold.
    ///
    /// # Errors
    /// A message that names the layer: not a directory, in use by another view, not writable.
    fn layer(
        &self,
        directory: &InodeRef,
        how: LayerUse,
        state: Option<&InodeRef>,
    ) -> core::result::Result<InodeRef, MountError>;

    /// Whether `inner` is `outer` or lies below it.
    fn is_inside(&self, inner: &InodeRef, outer: &InodeRef) -> bool;

    /// Gives a device number for a new file system.
    fn new_device(&self) -> u64;

    /// Takes a duplicate of a descriptor of the mounting process.
    ///
    /// # Errors
    /// - `EBADF`: there is none.
    fn descriptor(&self, number: i32) -> Result<OwnedFd> {
        let _ = number;
        Err(Errno::BADF)
    }

    /// Gives who tells guests of the end of what they have descriptors of.
    fn parting(&self) -> Arc<dyn Parting> {
        Arc::new(Unsaid)
    }

    /// Keeps hold of a program that may be executed, whatever becomes of its path: `open_exec` of `fs/exec.c`.
    ///
    /// # Errors
    /// - those of path_resolution(7).
    /// - `EACCES`: it may not be executed.
    fn hold_program(&self, path: &[u8]) -> Result<HeldProgram>;
}

/// A type of file systems, as `/proc/filesystems` lists it.
pub trait FilesystemType: Send + Sync {
    /// The names it answers to; the first is shown in lists.
    fn names(&self) -> &'static [&'static str];

    /// Whether a name may be followed by a dot and a word that says more (`FS_HAS_SUBTYPE`).
    fn has_subtypes(&self) -> bool {
        false
    }

    /// Whether everybody may mount it, and unmount it, as with a set-user-id helper outside.
    fn is_for_everybody(&self) -> bool {
        false
    }

    /// Whether who unmounts is late. `processes` are the one that does, and those it descends from; where one has served
    /// what was unmounted already, it does not mean what is mounted now.
    fn is_late(&self, processes: &[u32]) -> bool {
        let _ = processes;
        false
    }

    /// Whether a mount needs no source (`nodev` in `/proc/filesystems`).
    fn needs_no_source(&self) -> bool {
        true
    }

    /// Whether a mount point that does not exist comes to be with the mount, and goes with it.
    fn makes_mount_point(&self) -> bool {
        false
    }

    /// Mounts.
    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> core::result::Result<Mounted, MountError>;
}
