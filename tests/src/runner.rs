//! Starts commands in a place and collects what they say.
//!
//! Deliberately does not know how a place is entered (`place`).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::fresh::{profile_dir, FreshDir};
use crate::place::Place;
use crate::watch;

/// A command that runs longer is hung.
pub const HANG: Duration = Duration::from_secs(60);

/// Starts commands in one place, in a directory of their own.
pub struct Runner {
    place: Place,
    fresh: FreshDir,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Finished {
    /// The wait status of the command or of the umvu around it.
    pub status: ExitStatus,
    /// Everything it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to its standard error.
    pub stderr: Vec<u8>,
}

impl Runner {
    /// Makes a runner for a place.
    #[must_use]
    pub fn new(place: Place, fresh: FreshDir) -> Self {
        Self { place, fresh }
    }

    /// Returns the place the commands run in.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// Returns the directory the commands start in.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.fresh.work()
    }

    /// Returns the writable layer of a union place.
    #[must_use]
    pub fn upper(&self) -> PathBuf {
        self.fresh.upper()
    }

    /// Returns the command line that runs `command` in the place.
    pub fn command_line<W: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = W>) -> Vec<OsString> {
        let command: Vec<OsString> = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self.place.command_line(&command, &self.fresh.upper())
    }

    /// Returns the command, ready to start, with a small known environment, all pipes captured.
    ///
    /// # Panics
    ///
    /// When umvu is not built.
    pub fn command<W: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = W>) -> Command {
        let line = self.command_line(command);
        self.outside(&line)
    }

    /// Returns a command outside of the place, with the environment and directory of those inside.
    ///
    /// # Panics
    ///
    /// When the command line is empty, or umvu is not built.
    #[must_use]
    pub fn outside(&self, line: &[OsString]) -> Command {
        if self.place.is_inside() {
            let umvu = profile_dir().join("umvu");
            assert!(umvu.exists(), "{}: not built: run `cargo build --workspace` first", umvu.display());
        }
        let mut command = Command::new(&line[0]);
        command
            .args(&line[1..])
            .env_clear()
            .env("PATH", search_path())
            .env("HOME", self.fresh.home())
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm")
            .env("SHELL", "/bin/bash")
            .current_dir(self.fresh.work())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a command outside of the place and returns its output without the end of line.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn outside_text(&self, line: &[&str]) -> String {
        let line: Vec<OsString> = line.iter().map(OsString::from).collect();
        watch::finish(self.outside(&line), &[], HANG).unwrap_or_else(|why| panic!("{why}")).line()
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    ///
    /// When it cannot be started or hangs.
    pub fn run<W: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = W>) -> Finished {
        self.run_with_input(command, &[])
    }

    /// Runs a command with bytes on its standard input.
    ///
    /// # Panics
    ///
    /// When it cannot be started or hangs.
    pub fn run_with_input<W: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = W>, input: &[u8]) -> Finished {
        watch::finish(self.command(command), input, HANG).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Runs a script of bash, with `set -eu`.
    ///
    /// # Panics
    ///
    /// When it cannot be started or hangs.
    pub fn bash(&self, script: &str) -> Finished {
        self.run(["bash", "-euo", "pipefail", "-c", script])
    }

    /// Checks that a union kept the host's directory as it was: empty.
    ///
    /// # Panics
    ///
    /// When the host's tree has changed.
    pub fn assert_host_is_as_the_place_promises(&self) {
        if self.place.is_union() {
            let left = self.fresh.work().read_dir().expect("the fresh directory").count();
            assert_eq!(left, 0, "{}: the union let writes through to the host", self.fresh.work().display());
        }
    }

    /// Removes the directory of a behaviour that has passed.
    pub fn done(self) {
        self.fresh.remove();
    }
}

/// Returns the search path of commands: the tools of this build, then the system's.
fn search_path() -> OsString {
    let mut path = profile_dir().into_os_string();
    path.push(":/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");
    path
}

impl Finished {
    /// Returns the status as a shell reports it: the exit code, or 128 plus the signal.
    ///
    /// # Panics
    ///
    /// When the status is neither.
    #[must_use]
    pub fn shell_status(&self) -> i32 {
        let signal = || self.status.signal().map(|signal| 128 + signal);
        self.status.code().or_else(signal).expect("a finished command has exited or was killed")
    }

    /// Returns the standard output of a command that must have succeeded.
    ///
    /// # Panics
    ///
    /// When it failed.
    pub fn success(self) -> Vec<u8> {
        assert!(self.status.success(), "{self}");
        self.stdout
    }

    /// Returns [`Finished::success`] without the end of line, for comparing with text.
    ///
    /// # Panics
    ///
    /// When it failed.
    #[must_use]
    pub fn line(self) -> String {
        let stdout = self.success();
        String::from_utf8_lossy(&stdout).trim_end_matches('\n').to_owned()
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let out = String::from_utf8_lossy(&self.stdout);
        let err = String::from_utf8_lossy(&self.stderr);
        write!(f, "{}\n--- stdout\n{out}\n--- stderr\n{err}", self.status)
    }
}
