//! The supervisor: takes a guest's notified calls and answers them from its view.
//!
//! Entry point: [`run`]. A notification goes `serve` -> `handlers` (one function per call, found through the table)
//! -> `resolve` and `mount` -> the inodes of a file system, and back as a `call::Reply`.
//!
//! Lock order: `View::change`, then the locks of a file system, then `States`. No lock is held while a guest is
//! answered, nor across a call that may block, except `View::change` while something is mounted or unmounted.

mod abi;
mod abi_i386;
mod additions;
mod call;
mod carried;
mod children;
mod claimed;
mod contexts;
mod control;
mod credentials;
mod cwd;
mod directory_lock;
mod elf;
mod entry;
mod escort;
mod filter;
mod fs;
mod guest;
mod handlers;
mod inspect;
mod interrupt;
mod launch;
mod listing;
mod magic;
mod mount;
mod mount_table;
mod mounting;
mod namespace;
mod open_node;
mod parting;
mod paths;
mod placeholder;
mod programs;
mod protected;
mod redirect;
mod resolve;
mod serve;
mod socket_name;
mod state;
mod supervisor;
mod trace;
mod unreadable;
mod view;

use std::ffi::OsString;

pub use launch::run;
pub use trace::TraceTarget;
use umvu_interface::ModuleDescriptor;
pub use umvu_table::Pids;

/// Whether views may be stacked on the one that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// `umvu` inside a view makes another view.
    Allowed,
    /// It is refused.
    Refused,
}

/// What becomes of a view when its command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtEnd {
    /// Daemons keep it.
    Stays,
    /// They are asked to end, and killed if they do not.
    Ends,
}

/// Judges bytes as a program that a guest executes, for fuzzing: whatever they are, this returns.
#[doc(hidden)]
pub fn judge_program(bytes: &[u8]) {
    elf::judge(bytes);
}

/// How a view is started.
pub struct Config {
    /// Command and arguments; found by `PATH` when it has no slash.
    pub command: Vec<OsString>,
    /// All modules that can be loaded.
    pub modules: &'static [&'static ModuleDescriptor],
    /// Modules to load at once: `name[,option...]`.
    pub load: Vec<Vec<u8>>,
    /// Name of the view.
    pub name: Option<Vec<u8>>,
    /// Nesting.
    pub nesting: Nesting,
    /// Whose numbers processes have.
    pub pids: Pids,
    /// The release of the kernel that uname(2) tells, if not the host's.
    pub release: Option<Vec<u8>>,
    /// What becomes of the view when its command ends.
    pub at_end: AtEnd,
    /// Where calls are traced to.
    pub trace: Option<TraceTarget>,
    /// Debug tags that are on.
    pub debug_tags: Vec<u8>,
}

/// Why a view cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel refused something.
    #[error("{what}: {source}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The private directory.
    #[error("private directory: {0}")]
    Directory(std::io::Error),
    /// A thread.
    #[error("thread: {0}")]
    Thread(std::io::Error),
    /// In words.
    #[error("{0}")]
    Message(String),
    /// It has been said already.
    #[error("no view was made")]
    Told,
}

impl StartError {
    fn system<E: Into<std::io::Error>>(what: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::System { what, source: error.into() }
    }
}
