//! Owners, modes and device numbers that the host cannot store for an ordinary user.
//!
//! A [`Store`] belongs to one layer, a directory tree on the host, and says for each object of it
//! what guests are shown in place of what the host stores. Objects are named by identity
//! ([`Key`]), never by path, so rename, link and exchange need no bookkeeping here.
//!
//! | object | kept in |
//! |---|---|
//! | regular file, directory | extended attribute `user.containers.override_stat` of the object itself |
//! | symlink, fifo, socket; file system without user attributes; an object that refuses the attribute | `ownership.log` and `ownership.redb` beside the layer |
//! | anything, in a store made by [`Store::in_memory`] | memory |
//!
//! The attribute is the one that containers-storage and fuse-overlayfs write, so podman shows what
//! is faked here and the reverse.
//!
//! Architecture invariant: this crate knows nothing of views, mounts, guests or paths, and judges
//! nobody's right to change an owner. It also never changes what the host itself stores: that the
//! real mode keeps `u+rw` is the caller's care.
//!
//! Lock order: stripe of the object, then the files beside the layer, then the table of records.

mod database;
mod disk;
mod error;
mod journal;
mod layer;
mod lock;
mod mark;
mod object;
mod record;
mod store;
mod table;
mod text;
mod transfer;
mod walk;
mod xattr;

pub use error::{ImportError, OpenError};
pub use object::{FakeKind, Key, Medium, Override};
pub use store::Store;
pub use transfer::Imported;

/// The extended attribute that carries a faked owner, mode and type.
pub const MARK: &core::ffi::CStr = xattr::NAME;
