//! vu_rmmod: unloads modules from the caller's view. Knows no module.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use umvu_protocol::Request;

use crate::client::{Supervisor, View};
use crate::report::Failure;

/// Unloads modules from the view of the caller.
///
/// Works only inside a view, see umvu(1). A module that a mount still uses, or that was loaded for good, stays.
/// The first module that cannot be unloaded ends the command with status 1; those before it are gone.
#[derive(Debug, Parser)]
#[command(name = "vu_rmmod", version)]
pub struct Options {
    /// Names of modules
    #[arg(value_name = "MODULE", required = true)]
    modules: Vec<OsString>,
}

/// Does what the command line says.
///
/// # Errors
/// No view; or the supervisor's reason for the first module it refuses.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    let view = Supervisor::connect()?;
    for module in options.modules {
        view.order(&Request::Remove { module: module.into_vec() })?;
    }
    Ok(ExitCode::SUCCESS)
}
