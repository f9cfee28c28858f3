//! File systems whose objects are not the host's: what a driver of one does, and what it stands on.
//!
//! A [`Driver`] knows objects by number and contents by offset, as the drivers of a kernel do: it reads an image, or
//! speaks to a FUSE server. A [`Storage`] is what an image lies in.
//!
//! Architecture invariant: a driver knows nothing of guests, descriptors, mounts or caches, and never touches a file that
//! it was not given.

mod driver;
mod file;
mod source;
mod storage;

pub use driver::{Driver, Found, Listing, NewNode, NodeId, Told, FOREVER, ROOT};
pub use file::{Contents, Keep, OpenFile, Range};
pub use source::{open_file, open_source, Behind, DeviceStorage, ImageFile, Use};
pub use storage::{FileStorage, Storage};
