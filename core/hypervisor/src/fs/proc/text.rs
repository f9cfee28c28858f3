//! The texts of `/proc` that a guest must see otherwise than the host: mounts, identity, file system types. Those that
//! list mappings are in `maps`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use umvu_interface::{Errno, Result, Stat};

use super::maps;
use crate::call::Call;
use crate::fs::proc::{numbers, ProcInode};
use crate::listing::{self, Entry};
use crate::mount::Origin;
use crate::namespace::maps as id_maps;
use crate::state::ProcessState;

/// Gives the text a guest reads from an object of `/proc`; `None` where the host's is right.
///
/// # Errors
/// The host's, when its own text cannot be read.
pub fn of(call: &Call, inode: &ProcInode) -> Result<Option<Vec<u8>>> {
    if inode.path_bytes() == b"filesystems" {
        return filesystems(call).map(Some);
    }
    if inode.path_bytes() == b"partitions" {
        return partitions(call);
    }
    match inode.path_bytes() {
        b"sys/kernel/hostname" => return Ok(host_name(call, |names| names.nodename.clone())),
        b"sys/kernel/osrelease" => return Ok(host_name(call, |names| names.release.clone())),
        b"sys/kernel/domainname" => return Ok(host_name(call, |names| names.domainname.clone())),
        _ => {}
    }
    let Some((pid, name)) = inode.of_process() else { return Ok(None) };
    let form = match name {
        b"mounts" => Some(Form::Mounts),
        b"mountinfo" => Some(Form::MountInfo),
        b"mountstats" => Some(Form::MountStats),
        _ => None,
    };
    let is_known =
        matches!(name, b"status" | b"limits" | b"stat") || maps::is_list(name) || name.starts_with(b"fdinfo/");
    let map = id_maps::File::named(name);
    if form.is_none() && map.is_none() && !is_known {
        return Ok(None);
    }
    let Some(state) = call.supervisor.state_of(pid) else { return Ok(None) };
    match (form, name) {
        // The host's own file can be polled for changes.
        (Some(_), _) if state.view.mounts.load().is_host() && state.root.is_none() => Ok(None),
        (None, name) if maps::is_list(name) => maps::of(call, pid, name),
        (Some(form), _) => Ok(Some(list(call, &state, form))),
        (None, b"status") => status(call, inode, &state, pid).map(Some),
        (None, b"stat") => numbers::stat(call, inode, pid),
        (None, _) if map.is_some() => {
            let (of, reader) = (call.supervisor.credentials(&state), call.credentials());
            if of.namespace.is_none() && reader.namespace.is_none() {
                return Ok(None);
            }
            Ok(map.map(|file| id_maps::text(file, of.namespace.as_ref(), reader.namespace.as_ref())))
        }
        (None, b"limits") => limits(&state, pid).map(Some),
        (None, name) => descriptor(call, pid, name.strip_prefix(b"fdinfo/").unwrap_or_default()),
    }
}

/// What the names of the descriptors of texts begin with.
const NAME: &[u8] = b"umvu:proc/";

/// Makes a read-only descriptor of the text of an object, named after the object.
///
/// # Errors
/// - `EMFILE`, `ENFILE`, `ENOMEM`: the host's.
pub fn readable(of: &ProcInode, text: &[u8]) -> Result<OwnedFd> {
    let name = [NAME, of.path_bytes()].concat();
    let file = rustix::fs::memfd_create(&name[..], MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = text;
    while !rest.is_empty() {
        rest = &rest[rustix::io::write(&file, rest)?..];
    }
    rustix::fs::open(crate::guest::proc_path(file.as_fd()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The path in `/proc` of the object whose text a descriptor holds, given the path that the host has for the
/// descriptor. That of a guest's own file with such a name is the name of an object, and no more.
pub fn object_of(host_path: &[u8]) -> Option<&[u8]> {
    host_path.strip_prefix(b"/memfd:")?.strip_prefix(NAME)?.strip_suffix(b" (deleted)")
}

pub(super) fn host(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn host_name(call: &Call, which: impl FnOnce(&crate::view::HostNames) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut text = which(&call.state.uts().names.read())?;
    text.push(b'\n');
    Some(text)
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

/// The host's block devices and those of the view: `show_partition` of `block/genhd.c`.
fn partitions(call: &Call) -> Result<Option<Vec<u8>>> {
    let devices = crate::additions::block_devices(&call.table());
    if devices.is_empty() {
        return Ok(None);
    }
    let mut text = host("/proc/partitions")?;
    if text.is_empty() {
        text.extend_from_slice(b"major minor  #blocks  name\n\n");
    }
    for (_, device) in devices {
        let (major, minor) = (rustix::fs::major(device.number), rustix::fs::minor(device.number));
        text.extend_from_slice(format!("{major:4}  {minor:7} {:10} ", device.size / 1024).as_bytes());
        text.extend_from_slice(&device.name);
        text.push(b'\n');
    }
    Ok(Some(text))
}

/// A form of the list of mounts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Mounts,
    MountInfo,
    MountStats,
}

/// The mounts that a process sees: `fs/proc_namespace.c`.
fn list(call: &Call, state: &ProcessState, form: Form) -> Vec<u8> {
    let table = state.view.mounts.load();
    let root = state.root.as_ref().map_or_else(|| table.root(), |r| (**r).clone());
    listing::of(call, &table, &root).iter().flat_map(|entry| line(entry, form)).collect()
}

fn line(entry: &Entry, form: Form) -> Vec<u8> {
    let (source, point, fstype) = (escape(&entry.source), escape(&entry.point), escape(&entry.fstype));
    match form {
        Form::Mounts => {
            let read_only = entry.options.starts_with(b"ro") || entry.super_options.starts_with(b"ro");
            let access: &[u8] = if read_only { b"ro" } else { b"rw" };
            let options = [access, after_access(&entry.options), after_access(&entry.super_options)].concat();
            [&source[..], b" ", &point, b" ", &fstype, b" ", &options, b" 0 0\n"].concat()
        }
        Form::MountInfo => {
            let (major, minor) = entry.device;
            let numbers = format!("{} {} {major}:{minor} ", entry.id, entry.parent);
            let space: &[u8] = if entry.propagation.is_empty() { b"" } else { b" " };
            let place = [&escape(&entry.root)[..], b" ", &point, b" ", &entry.options].concat();
            let what = [&fstype[..], b" ", &source, b" ", &entry.super_options, b"\n"].concat();
            [numbers.as_bytes(), &place, space, &entry.propagation, b" - ", &what].concat()
        }
        Form::MountStats => {
            [b"device ", &source[..], b" mounted on ", &point, b" with fstype ", &fstype, b"\n"].concat()
        }
    }
}

/// Options without the `rw` or `ro` they begin with.
fn after_access(options: &[u8]) -> &[u8] {
    options.get(2..).unwrap_or_default()
}

/// What is told of a descriptor, with the number of the mount as it is listed.
fn descriptor(call: &Call, pid: u32, number: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(n) = std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()) else { return Ok(None) };
    let fd = call.supervisor.threads.take_fd(pid, n)?;
    let stat = rustix::fs::fstat(&fd)?;
    let mount = match call.supervisor.placeholders.find(stat.st_dev, stat.st_ino) {
        Some(open) => Some(open.location.mount.clone()),
        None => {
            let mark = umvu_sys::file::mark(fd.as_fd()).unwrap_or(0);
            call.supervisor.marked(&call.table(), fd.as_fd(), mark)
        }
    };
    let Some(mount) = mount.filter(|m| m.origin != Origin::Host) else { return Ok(None) };
    let id = listing::numbers(&mount, &Stat::default()).id;
    let text = host(&format!("/proc/{pid}/fdinfo/{n}"))?;
    let lines = text.split_inclusive(|b| *b == b'\n');
    let shown = lines.flat_map(|line| match line.starts_with(b"mnt_id:") {
        true => format!("mnt_id:\t{id}\n").into_bytes(),
        false => line.to_vec(),
    });
    Ok(Some(shown.collect()))
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

fn status(call: &Call, inode: &ProcInode, state: &ProcessState, pid: u32) -> Result<Vec<u8>> {
    let text = host(&format!("/proc/{pid}/status"))?;
    let who = call.supervisor.credentials(state);
    let reader = call.credentials();
    let mut out = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        let caps = &who.capabilities;
        let four = |ids: umvu_interface::Ids, shown: &dyn Fn(u32) -> u32| {
            let [real, effective, saved, fs] = [ids.real, ids.effective, ids.saved, ids.fs].map(shown);
            format!("\t{real}\t{effective}\t{saved}\t{fs}\n")
        };
        let replaced = match name {
            b"Umask" => state.umask.map(|u| format!("\t{u:04o}\n")),
            b"NoNewPrivs" => Some(format!("\t{}\n", u8::from(state.has_no_new_privs))),
            _ if numbers::is_line(name) => numbers::line(call, inode, state, pid, name, line),
            _ if !who.is_faked() && !reader.is_faked() => None,
            b"Uid" => Some(four(who.uid, &|id| reader.user_shown(id))),
            b"Gid" => Some(four(who.gid, &|id| reader.group_shown(id))),
            b"Groups" => {
                let groups: Vec<String> = who.groups.iter().map(|g| reader.group_shown(*g).to_string()).collect();
                Some(format!("\t{} \n", groups.join(" ")))
            }
            _ if !who.is_faked() => None,
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
    fn the_name_of_a_descriptor_leads_back() {
        assert_eq!(object_of(b"/memfd:umvu:proc/12/mounts (deleted)"), Some(b"12/mounts".as_slice()));
        assert_eq!(object_of(b"/memfd:other (deleted)"), None);
        assert_eq!(object_of(b"/tmp/umvu:proc/12/mounts"), None);
    }

    #[test]
    fn blanks_in_mount_points_are_octal() {
        assert_eq!(escape(b"/a b\\c"), b"/a\\040b\\134c");
    }
}
