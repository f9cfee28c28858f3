//! rc files: commands that are run inside a view before the command it is made for. Knows nothing of supervisors.
//!
//! The files must be run by a guest, so umvu executes itself as the first guest, with the option [`RUN`] for each
//! file; that guest runs them and then becomes the command.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{access, AccessFlags};

use crate::program;
use crate::report::{shown, Failure};

/// The option by which umvu tells itself to run a file.
pub const RUN: &str = "run-rc";

const SYSTEM: &str = "/etc/vurc";
const PERSONAL: &str = ".vurc";

/// Which files are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// `/etc/vurc` and `~/.vurc`, as far as they exist.
    Usual,
    /// This one, which must exist.
    Only(PathBuf),
    /// None.
    Nothing,
}

/// Lists the files to run, in order.
///
/// # Errors
/// The one file that was asked for cannot be read.
pub fn files(wanted: Wanted) -> Result<Vec<PathBuf>, Failure> {
    match wanted {
        Wanted::Nothing => Ok(Vec::new()),
        Wanted::Usual => {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
            let personal = home.map(|home| Path::new(&home).join(PERSONAL));
            Ok([Some(PathBuf::from(SYSTEM)), personal].into_iter().flatten().filter(|file| file.is_file()).collect())
        }
        Wanted::Only(file) => {
            let failed = |error: std::io::Error| Failure::of(shown(&file), &error);
            access(&file, AccessFlags::R_OK).map_err(|errno| Failure::of(shown(&file), errno))?;
            // sh searches PATH for a name without a slash.
            Ok(vec![std::path::absolute(&file).map_err(failed)?])
        }
    }
}

/// Makes the command whose process runs `files` and then becomes `command`.
///
/// # Errors
/// The program umvu cannot be found again.
pub fn before(files: &[PathBuf], command: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    if files.is_empty() {
        return Ok(command);
    }
    let umvu = std::env::current_exe().map_err(|error| Failure::of("/proc/self/exe", &error))?;
    let mut whole = vec![umvu.into_os_string()];
    for file in files {
        whole.extend([OsString::from(format!("--{RUN}")), file.clone().into_os_string()]);
    }
    whole.push("--".into());
    whole.extend(command);
    Ok(whole)
}

/// Runs `files` and becomes `command`; returns only when one of them fails.
///
/// A file that fails ends it: the command was meant for a view that the file would have made, and what it does
/// might now be done to the host.
pub fn run_then_become(files: &[PathBuf], command: &[OsString]) -> Failure {
    match files.iter().try_for_each(|file| run(file)) {
        Ok(()) => program::execute(command),
        Err(failure) => failure,
    }
}

fn run(file: &Path) -> Result<(), Failure> {
    let (program, argument) = match access(file, AccessFlags::X_OK) {
        Ok(()) => (file.as_os_str(), None),
        Err(_) => (OsStr::new("/bin/sh"), Some(file)),
    };
    let status = Command::new(program).args(argument).status();
    let status = status.map_err(|error| program::cannot_execute(program, &error))?;
    let name = shown(file);
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(Failure::Failed(format!("{name}: ended with status {code}"))),
        (None, signal) => Err(Failure::Failed(format!("{name}: ended by signal {}", signal.unwrap_or(0)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_files_the_command_is_executed_directly() {
        let command = vec![OsString::from("ls")];
        assert_eq!(before(&[], command.clone()).unwrap(), command);
    }

    #[test]
    fn the_command_stands_after_a_double_dash() {
        let whole = before(&["/etc/vurc".into()], vec!["ls".into(), "-l".into()]).unwrap();
        assert_eq!(whole[1..], ["--run-rc", "/etc/vurc", "--", "ls", "-l"].map(OsString::from));
    }

    #[test]
    fn a_file_asked_for_must_exist() {
        let failure = files(Wanted::Only("/no/such/rc".into())).unwrap_err();
        assert_eq!(failure.to_string(), "/no/such/rc: no such file or directory");
    }

    #[test]
    fn a_failing_file_ends_it() {
        assert_eq!(run(Path::new("/dev/null")).map_err(|failure| failure.to_string()), Ok(()));
        let failure = run(Path::new("/bin/false")).unwrap_err();
        assert_eq!(failure.to_string(), "/bin/false: ended with status 1");
    }
}
