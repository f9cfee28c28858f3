//! `allow-filter CMD [ARGS]`: runs a command behind a seccomp filter that allows everything: what the least of all
//! filters costs.
//!
//! Deliberately does not know umvu: the benchmark compares it with this.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libseccomp::{ScmpAction, ScmpFilterContext};

fn main() -> ExitCode {
    let mut line = std::env::args_os().skip(1);
    let Some(command) = line.next() else {
        eprintln!("usage: allow-filter CMD [ARGS]");
        return ExitCode::from(2);
    };
    if let Err(e) = ScmpFilterContext::new(ScmpAction::Allow).and_then(|filter| filter.load()) {
        eprintln!("allow-filter: seccomp: {e}");
        return ExitCode::from(125);
    }
    let e = Command::new(&command).args(line).exec();
    eprintln!("allow-filter: {}: {e}", command.to_string_lossy());
    ExitCode::from(127)
}
