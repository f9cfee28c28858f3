//! A directory of the host as a file system of a view, with the owners that the host does not store.
//!
//! [`HostFs`] is the tree, [`HostInode`] one object of it, held by an `O_PATH` descriptor. Where an ownership store
//! is attached, what an object shows of owner, mode and type comes from there, and callers with a faked
//! identity change the store in place of the host.
//!
//! Architecture invariant: knows nothing of mounts, unions or paths of a view, and judges no permission: the host
//! does for its own user, the hypervisor for the rest.

mod acl;
mod attr;
mod create;
mod device;
mod filesystem;
mod inode;
mod names;
mod procfd;
mod seen;
mod set_id;
mod xattr;

pub use filesystem::HostFs;
pub use inode::HostInode;
