//! Guests whose memory and descriptors the kernel does not let us see: programs that the user may execute and not read.
//! Nothing can be answered for them. Knows nothing of why a particular call failed.
//!
//! Such a program sees the host's tree, and may not change it: what only reads is left to the kernel, everything else
//! stays refused.

use umvu_interface::Errno;

use crate::call::{Call, Fail, Outcome, Reply};

/// Calls that change nothing, whatever they are given.
const READING: &[&str] = &[
    "stat",
    "lstat",
    "fstat",
    "newfstatat",
    "statx",
    "statfs",
    "fstatfs",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getcwd",
    "getdents",
    "getdents64",
    "getxattr",
    "lgetxattr",
    "fgetxattr",
    "listxattr",
    "llistxattr",
    "flistxattr",
    "uname",
    "execve",
    "execveat",
];

/// Decides anew about a call that was refused, if the guest is one that cannot be seen.
pub fn reconsider(call: &Call, outcome: Outcome) -> Outcome {
    if !matches!(outcome, Err(Fail::Errno(Errno::PERM | Errno::ACCESS))) || !is_unreadable(call) {
        return outcome;
    }
    let name = call.request.number().and_then(umvu_table::row).map_or("", |row| row.name);
    let reads = match name {
        "open" => opens_to_read(call.u32(1)),
        "openat" => opens_to_read(call.u32(2)),
        _ => READING.contains(&name),
    };
    warn_once(call);
    if reads {
        Ok(Reply::Continue)
    } else {
        Err(Errno::PERM.into())
    }
}

fn opens_to_read(flags: u32) -> bool {
    use rustix::fs::OFlags;
    let flags = OFlags::from_bits_retain(flags);
    (flags & OFlags::ACCMODE) == OFlags::RDONLY
        && !flags.intersects(OFlags::CREATE | OFlags::TRUNC)
        && !flags.contains(OFlags::TMPFILE)
}

fn is_unreadable(call: &Call) -> bool {
    let mut byte = [0];
    umvu_sys::guest::read_memory(call.tid(), call.notification.instruction_pointer, &mut byte) == Err(Errno::PERM)
}

fn warn_once(call: &Call) {
    let name = std::fs::read_to_string(format!("/proc/{}/comm", call.tid())).unwrap_or_default();
    let name = name.trim_end().to_owned();
    if call.supervisor.unreadable.insert(name.clone()) {
        tracing::warn!(program = name, "may be executed but not read: it sees the host's files and can change none");
    }
}
