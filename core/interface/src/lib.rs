//! What a module may know: inodes, file systems, callers, identities and module descriptors.
//!
//! Architecture invariant: this crate knows neither the supervisor nor any module. A module depends on it
//! alone; it claims *things* (a file system type, an identity), never system calls.

mod access;
mod acl;
mod attendant;
mod blocking;
mod caller;
mod claimed;
mod control;
mod device;
mod ending;
mod inode;
mod module;
mod name;
mod parting;
mod ports;
mod procfd;
mod program;
mod signal;
mod text_fs;
mod user_namespace;

pub use access::{may_access, may_access_by_mode, may_delete, Access};
pub use acl::{Acl, ACCESS_ACL, DEFAULT_ACL};
pub use attendant::Attendant;
pub use blocking::{blocking, on_blocking};
pub use caller::{Caller, Capabilities, Credentials, Ids, Origin};
pub use claimed::ClaimedDevice;
pub use control::{Control, TextFile, CONTROL_MAX};
pub use device::{Asker, BlockDevice, OpenDevice, OpenedFile};
pub use ending::Ending;
pub use inode::{
    BindSocket, Creation, DirEntry, FileKind, Filesystem, FsStat, Inode, InodeRef, Opened, RemoveKind, RenameFlags,
    SetAttr, SetTime, Stat, Timestamp, XattrSet,
};
pub use module::{
    FilesystemType, Hold, Identity, InnerMounts, LayerUse, LoadError, Loaded, Module, ModuleDescriptor, MountError,
    MountFlags, MountRequest, Mounted, OptionHelp, Server, World,
};
pub use name::Name;
pub use parting::{Parting, Unsaid};
pub use ports::PortMap;
pub use procfd::{path_of_open, ProcPath};
pub use program::{Argv0, HeldProgram, IdentityOf, Program, ProgramClaim, ProgramDescriptor, PROGRAM_HEAD};
pub use rustix::fs::OFlags;
pub use rustix::io::Errno;
pub use signal::{has_signal, pending_signal, PendingSignal};
pub use text_fs::{TextEntry, TextFiles, TextFs};
pub use user_namespace::{Extent, IdMap, UserNamespace, OVERFLOW_ID};

/// Outcome of an operation on a file tree.
pub type Result<T> = core::result::Result<T, Errno>;

/// Says an errno for people, as the end of a message: lower case, without its number.
pub fn cause(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}
