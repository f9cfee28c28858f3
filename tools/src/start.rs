//! Where umvu hands over to the hypervisor.

use std::ffi::OsString;
use std::path::PathBuf;

use umvu_interface::ModuleDescriptor;

/// Everything that a supervisor is started with.
pub struct Config {
    /// The first guest, never empty.
    pub command: Vec<OsString>,
    /// The modules that can be loaded.
    pub modules: &'static [&'static ModuleDescriptor],
    /// Those to load at once, with their options.
    pub load: Vec<Vec<u8>>,
    /// Name of the view.
    pub name: Option<Vec<u8>>,
    /// Whether views may be stacked on it.
    pub nesting: Nesting,
    /// Where calls are shown.
    pub trace: Option<TraceTarget>,
    /// Debug tags that are on.
    pub debug_tags: Vec<u8>,
}

/// Whether views may be stacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nesting {
    /// They may.
    Allowed,
    /// They may not.
    Refused,
}

/// Where calls are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceTarget {
    /// On standard error.
    Stderr,
    /// In a file.
    File(PathBuf),
}

/// Why no supervisor could be started.
#[derive(Debug, thiserror::Error)]
#[error("view: this build has no supervisor")]
pub struct StartError;

/// Runs the command under a new supervisor and gives its exit status as a shell does.
///
/// # Errors
/// There is no supervisor to start.
pub fn run(_config: Config) -> Result<u8, StartError> {
    Err(StartError)
}
