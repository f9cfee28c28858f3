//! Finding and executing a program as a shell does, with a shell's statuses when that fails: 127 where there is no
//! such program, 126 where there is one that will not run. Knows nothing of views.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::{access, AccessFlags};

use crate::report::{shown, Failure, Reason};

/// What execvp(3) searches when `PATH` is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// Replaces the calling process; returns only when that fails.
pub fn execute(command: &[OsString]) -> Failure {
    match command.split_first() {
        Some((program, arguments)) => cannot_execute(program, &Command::new(program).args(arguments).exec()),
        None => Failure::Usage("no command given".to_owned()),
    }
}

/// Makes the failure of a program that could not be executed.
pub fn cannot_execute(program: &OsStr, error: &io::Error) -> Failure {
    let name = shown(program);
    match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
        // A script or program whose interpreter is missing gives ENOENT too, execve(2).
        Errno::ENOENT if find(program).is_some() => Failure::NotFound(format!("{name}: its interpreter: not found")),
        Errno::ENOENT => Failure::NotFound(not_found(program)),
        _ => Failure::NotExecutable(format!("{name}: {}", Reason::from(error))),
    }
}

/// Checks that a program can be found, before anything is set up for it.
///
/// # Errors
/// - [`Failure::NotFound`]: no file has that name.
/// - [`Failure::NotExecutable`]: one has, but the caller may not execute it.
pub fn check(program: &OsStr) -> Result<(), Failure> {
    let Some(path) = find(program) else { return Err(Failure::NotFound(not_found(program))) };
    if path.is_dir() {
        return Err(Failure::NotExecutable(format!("{}: is a directory", shown(program))));
    }
    access(&path, AccessFlags::X_OK)
        .map_err(|errno| Failure::NotExecutable(format!("{}: {}", shown(program), Reason::from(errno))))
}

fn not_found(program: &OsStr) -> String {
    let searched = !program.as_bytes().contains(&b'/');
    format!("{}: {}", shown(program), if searched { "command not found" } else { "no such file or directory" })
}

/// Finds the file that execvp(3) would try, or, for want of an executable one, the first of that name.
fn find(program: &OsStr) -> Option<PathBuf> {
    if program.is_empty() {
        return None;
    }
    if program.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(program)).filter(|path| path.symlink_metadata().is_ok());
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let candidates: Vec<PathBuf> = std::env::split_paths(&path)
        .map(|directory| if directory.as_os_str().is_empty() { Path::new(".").to_owned() } else { directory })
        .map(|directory| directory.join(program))
        .filter(|candidate| candidate.is_file())
        .collect();
    let runs = |candidate: &&PathBuf| access(candidate.as_path(), AccessFlags::X_OK).is_ok();
    candidates.iter().find(runs).or(candidates.first()).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_nowhere_is_127() {
        let failure = check(OsStr::new("no-such-command-here")).unwrap_err();
        assert_eq!((failure.to_string().as_str(), failure.status()), ("no-such-command-here: command not found", 127));
    }

    #[test]
    fn a_directory_is_126() {
        let failure = check(OsStr::new("/usr")).unwrap_err();
        assert_eq!((failure.to_string().as_str(), failure.status()), ("/usr: is a directory", 126));
    }

    #[test]
    fn a_file_that_may_not_be_executed_is_126() {
        let failure = check(OsStr::new("/etc/passwd")).unwrap_err();
        assert_eq!((failure.to_string().as_str(), failure.status()), ("/etc/passwd: permission denied", 126));
    }

    #[test]
    fn a_shell_is_found_along_the_path() {
        check(OsStr::new("sh")).unwrap();
    }
}
