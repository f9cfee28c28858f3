//! One run: wall time, and the CPU time of everything that ran for it, supervisor and orphans included.
//!
//! A helper process is made subreaper of all that descends from it and waits until nothing is left; what
//! the kernel then says of its children is the whole tree.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{getrusage, UsageWho};
use nix::sys::time::TimeValLike;
use nix::sys::wait::wait;

use crate::subject::Subject;
use crate::workload::Site;

/// The first argument that makes this executable the helper.
pub const HELPER: &str = "--measure";

/// What one run took and printed.
pub struct Run {
    /// From the start to the end of the command; what is left behind is not waited for.
    pub wall: Duration,
    /// User and system time of the whole tree.
    pub cpu: Duration,
    /// What it printed.
    pub output: String,
}

/// Runs a script of sh as a subject.
///
/// # Errors
///
/// A sentence, when it fails.
pub fn run(subject: &Subject, site: &Site, script: &str) -> Result<Run, String> {
    run_line(subject, site, &["/bin/sh", "-c", script].map(OsString::from))
}

/// Runs a script of sh as a subject with a tree as its root.
///
/// # Errors
///
/// A sentence, when it fails.
pub fn run_in(tree: &Path, subject: &Subject, site: &Site, script: &str) -> Result<Run, String> {
    let command = ["/bin/sh", "-c", script].map(OsString::from);
    let line = subject.command_line_in(tree, &command).ok_or("no root of its own")?;
    measured(subject, site, line)
}

/// Runs a command line in a directory; `name` is what complaints begin with.
///
/// # Errors
///
/// A sentence, when it fails.
pub fn line(name: &str, directory: &Path, line: Vec<OsString>) -> Result<Run, String> {
    let exe = std::env::current_exe().map_err(|e| format!("current_exe: {e}"))?;
    let output = Command::new(exe)
        .arg(HELPER)
        .args(&line)
        .current_dir(directory)
        .env("PATH", search_path())
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("helper: {e}"))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    let (printed, times) = printed.rsplit_once(HELPER).ok_or_else(|| format!("{name}: {complaint}"))?;
    let times: Vec<u64> = times.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    match times[..] {
        [0, wall, cpu] => {
            Ok(Run { wall: Duration::from_micros(wall), cpu: Duration::from_micros(cpu), output: printed.to_owned() })
        }
        _ => Err(format!("{name}: {line:?}: failed: {printed}{complaint}")),
    }
}

/// Runs a command as a subject.
///
/// # Errors
///
/// A sentence, when it fails.
pub fn run_line(subject: &Subject, site: &Site, command: &[OsString]) -> Result<Run, String> {
    measured(subject, site, subject.command_line(command, &site.upper()))
}

fn measured(subject: &Subject, site: &Site, line: Vec<OsString>) -> Result<Run, String> {
    self::line(subject.name(), &site.work(), line)
}

/// Runs a command line, waits for everything it leaves behind, and prints status, wall and CPU time.
#[must_use]
pub fn helper(line: &[OsString]) -> ExitCode {
    if let Err(e) = nix::sys::prctl::set_child_subreaper(true) {
        eprintln!("bench: subreaper: {e}");
        return ExitCode::FAILURE;
    }
    let Some((program, args)) = line.split_first() else { return ExitCode::FAILURE };
    let start = Instant::now();
    let status = match Command::new(program).args(args).status() {
        Ok(status) => status,
        Err(e) => {
            eprintln!("bench: {}: {e}", program.to_string_lossy());
            return ExitCode::FAILURE;
        }
    };
    let wall = start.elapsed();
    while wait() != Err(Errno::ECHILD) {}
    match getrusage(UsageWho::RUSAGE_CHILDREN) {
        Ok(usage) => {
            let cpu = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
            println!("{HELPER} {} {} {cpu}", status.code().unwrap_or(255), wall.as_micros());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("bench: getrusage: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Checks the accounting itself: the time of an orphan, whose parent did not wait for it, must be seen.
///
/// # Errors
///
/// A sentence, when it is not.
pub fn assert_orphans_are_counted(subject: &Subject, site: &Site) -> Result<(), String> {
    let burn = "import time\nwhile time.process_time() < 0.3: pass\nprint(1)";
    let script = format!("mkfifo ../fifo.$$; (python3 -c '{burn}' > ../fifo.$$ &) ; cat ../fifo.$$; rm ../fifo.$$");
    let run = run(subject, site, &script)?;
    if run.cpu < Duration::from_millis(300) {
        return Err(format!("{}: {:?} of CPU counted, where an orphan used 300 ms", subject.name(), run.cpu));
    }
    Ok(())
}

fn search_path() -> OsString {
    let mut path = umvu_tests::fresh::profile_dir().into_os_string();
    path.push(":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    path
}
