//! The command of the first guest: how it is found, and how it is executed. Knows nothing of views.

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use umvu_sys::process;

use crate::{Config, StartError};

/// A command ready to be executed.
pub struct Command {
    argv: Vec<CString>,
    paths: Vec<CString>,
    envp: Vec<CString>,
}

impl Command {
    /// Takes it from the command line, the environment and `PATH`, before anything is forked.
    ///
    /// # Errors
    /// No command, or a NUL byte in it.
    pub fn prepare(config: &Config) -> Result<Self, StartError> {
        let text = |s: &OsString| {
            CString::new(s.as_bytes()).map_err(|_| StartError::Message("a NUL byte in the command".into()))
        };
        let argv = config.command.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let name = argv.first().ok_or_else(|| StartError::Message("no command".into()))?.clone();
        let mut paths = Vec::new();
        if name.as_bytes().contains(&b'/') {
            paths.push(name);
        } else {
            let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            for directory in path.as_bytes().split(|b| *b == b':') {
                let mut full = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
                full.push(b'/');
                full.extend_from_slice(name.as_bytes());
                paths.extend(CString::new(full));
            }
        }
        let envp = std::env::vars_os().map(|(name, value)| {
            let mut entry = name;
            entry.push("=");
            entry.push(value);
            text(&entry)
        });
        Ok(Self { argv, paths, envp: envp.collect::<Result<_, _>>()? })
    }

    /// Executes it; returns the status of a shell that could not.
    pub fn execute(&self) -> i32 {
        let mut denied = false;
        for path in &self.paths {
            let errno = process::exec(path, &self.argv, &self.envp);
            match errno.raw_os_error() {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES if self.paths.len() > 1 => denied = true,
                _ => {
                    self.complain(&umvu_interface::cause(errno));
                    return 126;
                }
            }
        }
        if denied {
            self.complain("permission denied");
            return 126;
        }
        let searched = self.paths.len() > 1 || !self.argv[0].as_bytes().contains(&b'/');
        self.complain(if searched { "command not found" } else { "no such file or directory" });
        127
    }

    fn complain(&self, why: &str) {
        let name = self.argv.first().map(|n| n.as_bytes().escape_ascii().to_string()).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "umvu: {name}: {why}");
    }
}
