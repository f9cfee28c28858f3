//! File systems of drivers as guests meet them. A [`CachedFs`] does for a [`umvu_driver::Driver`] what a kernel does
//! for its own: it keeps names, attributes and the contents of files that were opened, and writes back.
//!
//! A guest that opens a regular file gets a descriptor of a file of the host with the same content, its *backing*: what
//! a kernel's page cache is. For as long as a backing may be written, it is the truth, and the driver's copy is behind.
//!
//! Locks, outermost first: that of a directory's entries, that of a file's content, and then the short ones, of which
//! nobody holds two. A driver is called with locks of the first two sorts alone, and only those of the object that is
//! asked for: who serves the driver may use every other object.
//!
//! Architecture invariant: knows no format and no protocol, and of guests only the descriptors that they are given.

mod asked;
mod content;
mod entry;
mod fs;
mod inode;
mod names;
mod news;
mod node;
mod partial;
mod set_id;
mod shelf;
mod watch;
mod write_back;

pub use fs::{CachedFs, Shown};
pub use shelf::Limits;
