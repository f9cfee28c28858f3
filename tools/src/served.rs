//! Has a FUSE program serve what no driver of the view knows, as mount(8) runs `mount.TYPE`: in the view of the caller, by
//! its virtual `/dev/fuse`. Knows no format and no program.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::{access, AccessFlags};
use umvu_protocol::Request;

use crate::client::View;
use crate::report::{Failure, Reason};

/// Where programs for mounting are, besides `PATH`.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What is to be served.
#[derive(Debug)]
pub struct Served<'a> {
    /// Names of the program, the best first.
    pub programs: &'a [String],
    /// The package that has it.
    pub package: &'a str,
    /// Its options.
    pub options: &'a [u8],
    /// Why it is needed.
    pub message: &'a str,
    /// What it is to serve.
    pub source: &'a [u8],
    /// Where.
    pub target: &'a [u8],
}

/// Runs the program until it has mounted, and gone into the background.
///
/// # Errors
/// It is not installed; the module that it needs is not there; it fails.
pub fn serve(served: &Served<'_>, view: &dyn View) -> Result<(), Failure> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from));
    let Some(program) = find(directories, served.programs) else { return Err(missing(served)) };
    match view.order(&Request::Insert { module: b"fuse".to_vec(), permanent: false }) {
        // It is there.
        Err(Failure::Refused { errno, .. }) if errno == Errno::EEXIST as i32 => {}
        other => other?,
    }
    let mut command = Command::new(&program);
    if !served.options.is_empty() {
        command.arg("-o").arg(OsString::from_vec(served.options.to_vec()));
    }
    command.arg(operand(served.source)).arg(operand(served.target));
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let status = command.status().map_err(|error| Failure::Failed(format!("{name}: {}", Reason::from(&error))))?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::Failed(format!("{}: and {name} could not serve it: {status}", served.message))),
    }
}

fn missing(served: &Served<'_>) -> Failure {
    let Served { programs, package, message, .. } = served;
    let name = programs.first().map(String::as_str).unwrap_or_default();
    Failure::Failed(format!("{message}: {name}, which serves it, is not installed: its package is {package}"))
}

fn find(directories: impl Iterator<Item = PathBuf>, programs: &[String]) -> Option<PathBuf> {
    let directories: Vec<PathBuf> = directories.filter(|directory| directory.is_absolute()).collect();
    let all = programs.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
    let runs = |path: &PathBuf| Path::is_file(path) && access(path.as_path(), AccessFlags::X_OK).is_ok();
    all.into_iter().find(runs)
}

/// A path that no program takes for an option.
fn operand(path: &[u8]) -> OsString {
    let path = std::ffi::OsStr::from_bytes(path);
    if path.as_bytes().starts_with(b"-") {
        return Path::new(".").join(path).into_os_string();
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_installed_is_named_with_its_package() {
        let programs = ["no-such-program-a".to_owned(), "no-such-program-b".to_owned()];
        let served = Served {
            programs: &programs,
            package: "the-package",
            options: b"rw",
            message: "i: it is an exfat; there is no driver for it",
            source: b"i",
            target: b"m",
        };
        let view = |_: &Request| panic!("nothing is asked for");
        let said =
            "i: it is an exfat; there is no driver for it: no-such-program-a, which serves it, is not installed: \
            its package is the-package";
        assert_eq!(serve(&served, &view).unwrap_err().to_string(), said);
    }

    #[test]
    fn a_path_is_no_option() {
        assert_eq!((operand(b"-o"), operand(b"a")), ("./-o".into(), "a".into()));
    }

    #[test]
    fn the_best_name_is_looked_for_everywhere_first() {
        let directories = ["/nowhere", "/bin", "/usr/bin"].map(PathBuf::from);
        let found = find(directories.into_iter(), &["no-such-program".to_owned(), "sh".to_owned()]);
        assert_eq!(found, Some(PathBuf::from("/bin/sh")));
    }
}
