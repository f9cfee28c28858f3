//! How a tool fails and how it says so: `TOOL: message` on standard error and a status that is not zero.
//! Knows no tool and no request.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use nix::errno::Errno;

/// Why a tool could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no supervisor to ask.
    #[error("not inside a view: start one with 'umvu'")]
    OutsideView,
    /// The supervisor refused, with its reason.
    #[error("{message}")]
    Refused {
        /// Its line for people.
        message: String,
        /// Its errno.
        errno: i32,
    },
    /// Supervisor and tool are not from the same version of `umvu`.
    #[error("this tool and the supervisor of the view do not understand each other: {0}")]
    Mismatch(String),
    /// A program cannot be executed: nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// A program cannot be executed: what has that name will not run.
    #[error("{0}")]
    NotExecutable(String),
    /// Options that do not go together, or too few operands.
    #[error("{0}")]
    Usage(String),
    /// Anything else: lower case, names the object, ends in the cause.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// Makes a failure of an object and the errno it met.
    pub fn of(object: impl std::fmt::Display, error: impl Into<Reason>) -> Self {
        Self::Failed(format!("{object}: {}", error.into().0))
    }

    /// Tells the exit status, as a shell reports it.
    pub fn status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::NotExecutable(_) => 126,
            Self::NotFound(_) => 127,
            _ => 1,
        }
    }
}

/// The cause at the end of a message.
pub struct Reason(String);

impl From<Errno> for Reason {
    fn from(errno: Errno) -> Self {
        let text = errno.desc();
        // A word in capitals (RFS, TTY) is a name and stays.
        let mut letters = text.chars();
        match (letters.next(), letters.next()) {
            (Some(first), Some(second)) if second.is_lowercase() => Self(first.to_lowercase().to_string() + &text[1..]),
            _ => Self(text.to_owned()),
        }
    }
}

impl From<&io::Error> for Reason {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw(number).into(),
            None => Self(error.to_string()),
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Reads the command line, does the work, reports a failure, and gives the status for `main` to return.
pub fn run_tool<Options: Parser>(work: fn(Options) -> Result<ExitCode, Failure>) -> ExitCode {
    let command = Options::command();
    let tool = command.get_name();
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            let text = error.render().to_string();
            complain(&format!("{tool}: {}", text.strip_prefix("error: ").unwrap_or(&text)));
            return ExitCode::from(2);
        }
        Err(help) => return ExitCode::from(u8::from(help.print().is_err())),
    };
    match work(options) {
        Ok(status) => status,
        Err(failure) => {
            complain(&format!("{tool}: {failure}\n"));
            ExitCode::from(failure.status())
        }
    }
}

/// Writes to standard output.
///
/// # Errors
/// Standard output takes no more.
pub fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| Failure::of("standard output", &error))
}

/// Writes to standard error; where that is impossible there is nobody left to tell.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Shows a name of any bytes in a message.
pub fn shown(name: impl AsRef<std::ffi::OsStr>) -> String {
    use std::os::unix::ffi::OsStrExt;
    let bytes = name.as_ref().as_bytes();
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_lower_case() {
        let failure = Failure::of("/mnt", Errno::EBUSY);
        assert_eq!(failure.to_string(), "/mnt: device or resource busy");
    }

    #[test]
    fn a_shells_statuses_are_kept() {
        assert_eq!(Failure::NotFound(String::new()).status(), 127);
        assert_eq!(Failure::NotExecutable(String::new()).status(), 126);
        assert_eq!(Failure::OutsideView.status(), 1);
    }

    #[test]
    fn a_name_that_is_not_utf8_is_escaped() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(shown(std::ffi::OsStr::from_bytes(b"a\xff")), "a\\xff");
    }
}
