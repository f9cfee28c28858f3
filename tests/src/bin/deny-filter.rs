//! `deny-filter CMD [ARGS]`: runs a command behind a seccomp filter that denies mounts, namespaces
//! and chroot, as the default profile of container engines does.
//!
//! Deliberately does not know umvu: whoever runs behind it must do without those calls.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libseccomp::error::SeccompError;
use libseccomp::{ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

/// Calls an ordinary user in a container does not get at all.
const DENIED: &[&str] = &[
    "mount",
    "umount2",
    "unshare",
    "setns",
    "chroot",
    "pivot_root",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "mount_setattr",
];

/// The namespace flags of clone(2), each of which alone makes the call fail.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

fn main() -> ExitCode {
    let mut line = std::env::args_os().skip(1);
    let Some(command) = line.next() else {
        eprintln!("usage: deny-filter CMD [ARGS]");
        return ExitCode::from(2);
    };
    if let Err(e) = install() {
        eprintln!("deny-filter: seccomp: {e}");
        return ExitCode::from(125);
    }
    let e = Command::new(&command).args(line).env(umvu_tests::failures::DENIED, "1").exec();
    eprintln!("deny-filter: {}: {e}", command.to_string_lossy());
    ExitCode::from(127)
}

/// Installs the filter for this thread and what it will execute (no TSYNC: there is one thread).
fn install() -> Result<(), SeccompError> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow)?;
    // 32-bit entry is not what this filter is about; libseccomp would kill it.
    filter.set_act_badarch(ScmpAction::Allow)?;
    let denied = ScmpAction::Errno(libc::EPERM);
    for name in DENIED {
        filter.add_rule(denied, ScmpSyscall::from_name(name)?)?;
    }
    let clone = ScmpSyscall::from_name("clone")?;
    for flag in NAMESPACES {
        let bit = u64::from(flag.unsigned_abs());
        let set = ScmpArgCompare::new(0, ScmpCompareOp::MaskedEqual(bit), bit);
        filter.add_rule_conditional(denied, clone, &[set])?;
    }
    // Its flags are in memory, where a filter cannot look: libc must fall back to clone.
    filter.add_rule(ScmpAction::Errno(libc::ENOSYS), ScmpSyscall::from_name("clone3")?)?;
    filter.load()
}
