//! vuumount: unmounts in the caller's view. Knows no type of file system.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use clap::{Parser, ValueHint};
use umvu_protocol::Request;

use crate::client::{Supervisor, View};
use crate::report::{shown, Failure};

/// Unmounts what is mounted in the view of the caller.
///
/// Works only inside a view, see umvu(1), and changes only that view. The first target that cannot be unmounted
/// ends the command with status 1; those before it are unmounted.
#[derive(Debug, Parser)]
#[command(name = "vuumount", version)]
pub struct Options {
    /// Give up operations that wait for a server which does not answer
    #[arg(short, long)]
    force: bool,
    /// Take it out of the tree now, and end it when nothing uses it any more
    #[arg(short, long)]
    lazy: bool,
    /// Unmount also all that is mounted below
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Accepted as umount(8) has it: losetup -d frees what losetup has set up
    #[arg(short, long)]
    detach_loop: bool,
    /// Accepted as umount(8) has it: there is no mtab to leave alone
    #[arg(short, long)]
    no_mtab: bool,
    /// Mount points
    #[arg(value_name = "TARGET", required = true, value_hint = ValueHint::AnyPath)]
    targets: Vec<OsString>,
}

/// Does what the command line says.
///
/// # Errors
/// No view; or the supervisor's reason.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    let view = Supervisor::connect()?;
    let mut flags = 0;
    for (asked, flag) in [(options.force, libc::MNT_FORCE), (options.lazy, libc::MNT_DETACH)] {
        if asked {
            flags |= flag.unsigned_abs();
        }
    }
    for target in options.targets {
        let points = if options.recursive { below(&target)? } else { vec![target.into_vec()] };
        for point in points {
            view.order(&Request::Unmount { target: point, flags })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the mount points at `target` and below, the newest first.
fn below(target: &OsString) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = |error| Failure::of(shown(target), &error);
    let top = std::fs::canonicalize(target).map_err(failed)?;
    let table = std::fs::read("/proc/self/mountinfo").map_err(|error| Failure::of("/proc/self/mountinfo", &error))?;
    let points = mounted_below(&table, top.as_os_str().as_bytes());
    if points.is_empty() {
        return Err(Failure::Failed(format!("{}: not mounted", shown(target))));
    }
    Ok(points)
}

fn mounted_below(mountinfo: &[u8], top: &[u8]) -> Vec<Vec<u8>> {
    // The fifth field is the mount point, proc_pid_mountinfo(5); the newest mount stands last.
    let points = mountinfo.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    let inside = |point: &Vec<u8>| match point.strip_prefix(top) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || top == b"/",
        None => false,
    };
    let mut points: Vec<_> = points.map(unescape).filter(inside).collect();
    points.reverse();
    points
}

/// Undoes the `\040` by which the kernel writes blanks, fs/proc_namespace.c.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(decoded) => {
                name.push(decoded);
                rest = &tail[3..];
            }
            None => {
                name.push(byte);
                rest = tail;
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"1 0 0:1 / / rw - a a rw\n2 1 0:2 / /mnt rw - a a rw\n3 2 0:3 / /mnt/a\\040b rw - a a rw\n\
        4 1 0:4 / /mnt2 rw - a a rw\n";

    #[test]
    fn mounts_below_come_newest_first_and_neighbours_stay() {
        assert_eq!(mounted_below(TABLE, b"/mnt"), [b"/mnt/a b".to_vec(), b"/mnt".to_vec()]);
    }

    #[test]
    fn all_is_below_the_root() {
        assert_eq!(mounted_below(TABLE, b"/").len(), 4);
    }

    #[test]
    fn a_backslash_without_digits_stays() {
        assert_eq!(unescape(br"a\9zz\"), br"a\9zz\");
    }
}
