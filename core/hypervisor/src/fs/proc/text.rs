//! The texts of `/proc` that a guest must see otherwise than the host: mounts, identity, file system types.

use umvu_interface::{Errno, MountFlags, Result};

use crate::call::Call;
use crate::fs::proc::ProcInode;
use crate::mount::{Location, Mount, MountKind, MountTable};
use crate::resolve::path_of;
use crate::state::ProcessState;

/// Gives the text a guest reads from an object of `/proc`; `None` where the host's is right.
///
/// # Errors
/// The host's, when its own text cannot be read.
pub fn of(call: &Call, inode: &ProcInode) -> Result<Option<Vec<u8>>> {
    if inode.path_bytes() == b"filesystems" {
        return filesystems(call).map(Some);
    }
    let Some((pid, name)) = inode.of_process() else { return Ok(None) };
    let wanted = matches!(name, b"mounts" | b"mountinfo" | b"status" | b"limits");
    if !wanted {
        return Ok(None);
    }
    let Some(state) = call.supervisor.state_of(pid) else { return Ok(None) };
    match name {
        b"mounts" => Ok(Some(list(&state, Form::Mounts))),
        b"mountinfo" => Ok(Some(list(&state, Form::MountInfo))),
        b"status" => status(call, &state, pid).map(Some),
        _ => limits(&state, pid).map(Some),
    }
}

fn host(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn filesystems(call: &Call) -> Result<Vec<u8>> {
    let mut text = host("/proc/filesystems")?;
    for fstype in call.state.view.filesystem_types() {
        for name in fstype.names() {
            let line = if fstype.needs_no_source() { format!("nodev\t{name}\n") } else { format!("\t{name}\n") };
            text.extend_from_slice(line.as_bytes());
        }
    }
    Ok(text)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Mounts,
    MountInfo,
}

/// The host's mounts, as far as they are still seen, and the view's.
fn list(state: &ProcessState, form: Form) -> Vec<u8> {
    let table = state.view.mounts.load();
    let root = state.root.as_ref().map_or_else(|| table.root(), |r| (**r).clone());
    let name = if form == Form::Mounts { "/proc/self/mounts" } else { "/proc/self/mountinfo" };
    let mut out = Vec::new();
    if root.mount.kind == MountKind::Host {
        let text = host(name).unwrap_or_default();
        for line in text.split(|b| *b == b'\n').filter(|l| !l.is_empty()) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    for mount in table.mounts().iter().filter(|m| m.kind != MountKind::Host) {
        if mount.kind == MountKind::Proc && root.mount.kind == MountKind::Host && mount.module.is_none() && mount.id < 4
        {
            continue;
        }
        if let Some(line) = line(&table, &root, mount, form) {
            out.extend_from_slice(&line);
        }
    }
    out
}

fn line(table: &MountTable, root: &Location, mount: &std::sync::Arc<Mount>, form: Form) -> Option<Vec<u8>> {
    let top = Location { mount: mount.clone(), inode: mount.root.clone() };
    let at = escape(&path_of(table, root, &top).ok()??);
    let source = if mount.source.is_empty() { b"none".to_vec() } else { escape(&mount.source) };
    let fstype = escape(&mount.fstype);
    let flags = flags(mount);
    let mut options = mount.filesystem.options();
    let mut out = Vec::new();
    match form {
        Form::Mounts => {
            if !options.is_empty() {
                options.insert(0, b',');
            }
            for part in [&source[..], b" ", &at, b" ", &fstype, b" ", flags.as_bytes(), &options, b" 0 0\n"] {
                out.extend_from_slice(part);
            }
        }
        Form::MountInfo => {
            let stat = mount.root.stat().ok()?;
            let parent = table.attachment(mount).map_or(0, |a| a.covered.mount.id);
            let (major, minor) = (rustix::fs::major(stat.dev), rustix::fs::minor(stat.dev));
            let base = escape(&[b"/", &mount.root.path().ok()?[..]].concat());
            let head = format!("{} {} {major}:{minor} ", shown_id(mount.id), shown_id(parent));
            let access = if mount.flags().contains(MountFlags::READ_ONLY) { "ro" } else { "rw" };
            if !options.is_empty() {
                options.insert(0, b',');
            }
            let tail = format!(" {flags} - ");
            for part in [
                head.as_bytes(),
                &base,
                b" ",
                &at,
                tail.as_bytes(),
                &fstype,
                b" ",
                &source,
                b" ",
                access.as_bytes(),
                &options,
                b"\n",
            ] {
                out.extend_from_slice(part);
            }
        }
    }
    Some(out)
}

/// Ids that do not collide with the host's mounts in the same list.
fn shown_id(id: u64) -> u64 {
    100_000 + id
}

fn flags(mount: &Mount) -> String {
    let flags = mount.flags();
    let mut text = String::from(if flags.contains(MountFlags::READ_ONLY) { "ro" } else { "rw" });
    let names = [
        (MountFlags::NO_SUID, ",nosuid"),
        (MountFlags::NO_DEV, ",nodev"),
        (MountFlags::NO_EXEC, ",noexec"),
        (MountFlags::NO_ATIME, ",noatime"),
        (MountFlags::NO_DIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
        (MountFlags::NO_SYMFOLLOW, ",nosymfollow"),
    ];
    for (flag, name) in names {
        if flags.contains(flag) {
            text.push_str(name);
        }
    }
    text
}

/// `mangle` of `fs/seq_file.c`: blanks and backslashes in octal.
fn escape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            other => out.push(*other),
        }
    }
    out
}

fn status(call: &Call, state: &ProcessState, pid: u32) -> Result<Vec<u8>> {
    let text = host(&format!("/proc/{pid}/status"))?;
    let who = call.supervisor.credentials(state);
    let mut out = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let caps = &who.capabilities;
        let four = |ids: umvu_interface::Ids| format!("\t{}\t{}\t{}\t{}\n", ids.real, ids.effective, ids.saved, ids.fs);
        let replaced = match name {
            b"Umask" => state.umask.map(|u| format!("\t{u:04o}\n")),
            _ if !who.is_faked() => None,
            b"Uid" => Some(four(who.uid)),
            b"Gid" => Some(four(who.gid)),
            b"Groups" => Some(format!("\t{} \n", who.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(" "))),
            b"CapInh" => Some(format!("\t{:016x}\n", caps.inheritable)),
            b"CapPrm" => Some(format!("\t{:016x}\n", caps.permitted)),
            b"CapEff" => Some(format!("\t{:016x}\n", caps.effective)),
            b"CapBnd" => Some(format!("\t{:016x}\n", caps.bounding)),
            b"CapAmb" => Some(format!("\t{:016x}\n", caps.ambient)),
            _ => None,
        };
        match replaced {
            None => out.extend_from_slice(line),
            Some(text) => {
                out.extend_from_slice(name);
                out.push(b':');
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
    Ok(out)
}

/// The limit that holds our number is shown as the guest set it.
fn limits(state: &ProcessState, pid: u32) -> Result<Vec<u8>> {
    let text = host(&format!("/proc/{pid}/limits"))?;
    let (soft, hard) = state.locks_limit.unwrap_or((u64::MAX, u64::MAX));
    let show = |v: u64| if v == u64::MAX { "unlimited".to_string() } else { v.to_string() };
    let mut out = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        if line.starts_with(b"Max file locks") {
            let shown = format!("{:<25} {:<20} {:<20} {:<10}\n", "Max file locks", show(soft), show(hard), "locks");
            out.extend_from_slice(shown.as_bytes());
        } else {
            out.extend_from_slice(line);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_in_mount_points_are_octal() {
        assert_eq!(escape(b"/a b\\c"), b"/a\\040b\\134c");
    }
}
