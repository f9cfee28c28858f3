//! The mounts of a view as guests may list them: the host's own, as far as they are still seen, and the view's.
//! Knows no form of the list: `fs::proc::text` and the handlers of statmount(2) write it down.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{AtFlags, StatxFlags};
use umvu_host::HostFs;
use umvu_interface::{FileKind, InodeRef, MountFlags, Result, Stat};

use crate::call::Call;
use crate::mount::{Location, Mount, MountKind, MountTable, Origin, Propagation};
use crate::resolve::{path_of, strip_prefix, Last, Lookup, ResolveFlags};

/// A mount, with the fields of a line of `/proc/PID/mountinfo`, nothing escaped.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number.
    pub id: u64,
    /// Number of the mount it is attached to.
    pub parent: u64,
    /// Device of its root.
    pub device: (u32, u32),
    /// Path of its root in its file system.
    pub root: Vec<u8>,
    /// Mount point, seen from the root of the process.
    pub point: Vec<u8>,
    /// Options of the mount: `rw,relatime`.
    pub options: Vec<u8>,
    /// Optional fields: `shared:1`.
    pub propagation: Vec<u8>,
    /// Type.
    pub fstype: Vec<u8>,
    /// Source.
    pub source: Vec<u8>,
    /// Options of the file system: `rw,size=4k`.
    pub super_options: Vec<u8>,
}

/// What statx(2) tells of the mount of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountNumbers {
    /// The number in the list.
    pub id: u64,
    /// Whether the object is the root of the mount; `None` where the host has said so in the attributes.
    pub is_root: Option<bool>,
}

/// The number that is never used again, as statmount(2) wants it, of a number in the list.
pub fn unique(id: u64) -> u64 {
    UNIQUE + id
}

/// Above all that the kernel calls invalid, `MNT_UNIQUE_ID_OFFSET`, and all numbers of its own in practice.
const UNIQUE: u64 = 1 << 40;

/// Numbers of the view's own mounts do not collide with the host's in the same list.
fn shown_id(mount: &Mount) -> u64 {
    100_000 + mount.id
}

/// The numbers of a mount that an object with `stat` is seen through.
pub fn numbers(mount: &Mount, stat: &Stat) -> MountNumbers {
    let is_root = mount.root.id().is_ok_and(|id| id == (stat.dev, stat.ino));
    MountNumbers { id: shown_id(mount), is_root: Some(is_root) }
}

/// The numbers of the host's mount that an object of the host is on.
pub fn numbers_on_host(fd: BorrowedFd<'_>) -> MountNumbers {
    MountNumbers { id: host_id(fd).unwrap_or(0), is_root: None }
}

fn host_id(fd: BorrowedFd<'_>) -> Option<u64> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

/// The number of the mount that a place is seen through.
fn id_at(place: &Location) -> u64 {
    let on_host = place.mount.origin == Origin::Host;
    let host = || host_id(place.inode.host_fd()?);
    on_host.then(host).flatten().unwrap_or_else(|| shown_id(&place.mount))
}

/// Whether two places are on one mount. What the host has mounted in a tree of its own stays apart there.
pub fn share_mount(one: &Location, other: &Location) -> bool {
    if one.mount.id != other.mount.id {
        return false;
    }
    let id = |place: &Location| place.inode.host_fd().and_then(host_id);
    !one.mount.filesystem.as_any().is::<HostFs>() || id(one) == id(other)
}

/// The line of the host's list for the mount that an object of the host is on.
pub fn on_host(inode: &InodeRef) -> Option<Entry> {
    host_line_of(&host_list(), inode).cloned()
}

fn host_line_of<'a>(lines: &'a [Entry], inode: &InodeRef) -> Option<&'a Entry> {
    let id = host_id(inode.host_fd()?)?;
    lines.iter().find(|line| line.id == id)
}

/// The host's own list.
fn host_list() -> Vec<Entry> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

fn parse(line: &[u8]) -> Option<Entry> {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u64>().ok();
    let mut fields = line.split(|b| *b == b' ');
    let mut next = || fields.next().map(<[u8]>::to_vec);
    let (id, parent) = (number(&next()?)?, number(&next()?)?);
    let device = next()?;
    let (major, minor) = std::str::from_utf8(&device).ok()?.split_once(':')?;
    let (root, point, options) = (unescape(&next()?), unescape(&next()?), next()?);
    let mut propagation = Vec::new();
    loop {
        match next()? {
            end if end == b"-" => break,
            field => propagation.push(field),
        }
    }
    Some(Entry {
        id,
        parent,
        device: (major.parse().ok()?, minor.parse().ok()?),
        root,
        point,
        options,
        propagation: propagation.join(&b' '),
        fstype: unescape(&next()?),
        source: unescape(&next()?),
        super_options: next()?,
    })
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) if *first == b'\\' => {
                out.push(byte);
                rest = &tail[3..];
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

/// The mounts that a process with `root` sees: those it can reach from there, of the host's only those that no mount
/// of the view hides. `call` finds out what is hidden.
pub fn of(call: &Call, table: &MountTable, root: &Location) -> Vec<Entry> {
    let host = host_list();
    let mut own = Vec::new();
    for mount in table.mounts().iter().filter(|m| m.origin != Origin::Host) {
        if let Ok(Some(entry)) = entry(table, root, mount, &host) {
            own.push(entry);
        }
    }
    let mut list: Vec<Entry> = host.iter().filter_map(|line| still_seen(call, table, root, line, &own)).collect();
    // A root of the view has no parent in the list, and it is first.
    if let Some(at) = own.iter().position(|e| e.point == b"/") {
        let mut entry = own.remove(at);
        entry.parent = host.iter().find(|line| line.point == b"/").map_or(1, |line| line.parent);
        list.insert(0, entry);
    }
    list.append(&mut own);
    list
}

fn entry(table: &MountTable, root: &Location, mount: &Arc<Mount>, host: &[Entry]) -> Result<Option<Entry>> {
    let Some(point) = path_of(table, root, &Location::root_of(mount))? else { return Ok(None) };
    let stat = mount.root.stat()?;
    let parent = table.attachment(mount).map_or(0, |a| id_at(&a.covered));
    let mut entry = Entry {
        id: shown_id(mount),
        parent,
        device: (rustix::fs::major(stat.dev), rustix::fs::minor(stat.dev)),
        root: [b"/", &mount.root.path()?[..]].concat(),
        point,
        options: options(mount),
        propagation: match mount.propagation() {
            Propagation::Private => Vec::new(),
            Propagation::Shared => format!("shared:{}", shown_id(mount)).into_bytes(),
            Propagation::Unbindable => b"unbindable".to_vec(),
        },
        fstype: mount.fstype.clone(),
        source: if mount.source.is_empty() { b"none".to_vec() } else { mount.source.clone() },
        super_options: super_options(mount),
    };
    // A bind of a tree of the host looks as it does there.
    let is_bind = mount.kind == MountKind::Tree && mount.filesystem.as_any().is::<HostFs>();
    let line = if is_bind || mount.kind == MountKind::Proc { host_line_of(host, &mount.root) } else { None };
    if let (Some(line), None) = (line, mount.module) {
        if is_bind {
            let inside = strip_prefix(relative(&entry.root), relative(&line.point));
            entry.root = join(&line.root, inside.unwrap_or_default());
        }
        if !mount.superblock.flags().contains(MountFlags::READ_ONLY) {
            entry.super_options.clone_from(&line.super_options);
        }
    }
    Ok(Some(entry))
}

fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

fn join(base: &[u8], below: &[u8]) -> Vec<u8> {
    let base = base.strip_suffix(b"/").unwrap_or(base);
    match (base, relative(below)) {
        (b"", b"") => b"/".to_vec(),
        (base, b"") => base.to_vec(),
        (base, below) => [base, b"/", below].concat(),
    }
}

/// The entry of a mount of the host, unless it is hidden.
fn still_seen(call: &Call, table: &MountTable, root: &Location, line: &Entry, own: &[Entry]) -> Option<Entry> {
    let mut entry = line.clone();
    let inside = relative(&line.point);
    entry.point = match root.mount.kind {
        MountKind::Host => {
            let base = root.inode.path().ok()?;
            join(b"/", strip_prefix(inside, &base)?)
        }
        _ => match path_of(table, root, &table.host()) {
            Ok(Some(base)) => join(&base, inside),
            _ => line.point.clone(),
        },
    };
    let covers = |e: &&Entry| match e.point.as_slice() {
        b"/" => true,
        point => strip_prefix(&entry.point, point).is_some(),
    };
    let cover = own.iter().filter(covers).max_by_key(|e| e.point.len());
    if let Some(cover) = cover {
        // Some trees lead on to what the host has mounted in them.
        if !leads_there(call, table, root, &entry) || own.iter().any(|e| e.point == entry.point) {
            return None;
        }
        entry.parent = cover.id;
    } else if root.mount.kind != MountKind::Host {
        return None;
    }
    if table.host().mount.flags().contains(MountFlags::READ_ONLY) && entry.options.starts_with(b"rw") {
        entry.options[..2].copy_from_slice(b"ro");
    }
    Some(entry)
}

/// Whether what is seen at the mount point of a line is still the root of the host's mount.
fn leads_there(call: &Call, table: &MountTable, root: &Location, entry: &Entry) -> bool {
    let Some(path) = entry.point.strip_prefix(b"/").filter(|p| !p.is_empty()) else { return false };
    let found = call.resolve_from(table, root.clone(), path, Last::NoFollow, ResolveFlags::empty());
    let Ok(Lookup::Found(place)) = found else { return false };
    let Ok(stat) = place.inode.stat() else { return false };
    let same_device = (rustix::fs::major(stat.dev), rustix::fs::minor(stat.dev)) == entry.device;
    same_device
        && stat.kind() == FileKind::Directory
        && place.inode.host_fd().and_then(|fd| host_id(fd.as_fd())) == Some(entry.id)
}

/// The options by their names, in the order of `show_mnt_opts` of `fs/proc_namespace.c`.
const OPTIONS: [(MountFlags, &[u8]); 8] = [
    (MountFlags::READ_ONLY, b"ro"),
    (MountFlags::NO_SUID, b"nosuid"),
    (MountFlags::NO_DEV, b"nodev"),
    (MountFlags::NO_EXEC, b"noexec"),
    (MountFlags::NO_ATIME, b"noatime"),
    (MountFlags::NO_DIRATIME, b"nodiratime"),
    (MountFlags::RELATIME, b"relatime"),
    (MountFlags::NO_SYMFOLLOW, b"nosymfollow"),
];

fn options(mount: &Mount) -> Vec<u8> {
    let flags = mount.own_flags();
    let access: &[u8] = if flags.contains(MountFlags::READ_ONLY) { b"ro" } else { b"rw" };
    let others = OPTIONS.iter().skip(1).filter(|(flag, _)| flags.contains(*flag)).map(|(_, name)| *name);
    std::iter::once(access).chain(others).collect::<Vec<_>>().join(&b',')
}

impl Entry {
    /// The flags of the mount.
    pub fn flags(&self) -> MountFlags {
        let named = |option: &[u8]| OPTIONS.iter().find(|(_, name)| *name == option).map(|(flag, _)| *flag);
        self.options.split(|b| *b == b',').filter_map(named).fold(MountFlags::empty(), |all, one| all | one)
    }
}

fn super_options(mount: &Mount) -> Vec<u8> {
    let read_only = mount.superblock.flags().contains(MountFlags::READ_ONLY);
    let mut text = if read_only { b"ro".to_vec() } else { b"rw".to_vec() };
    let own = mount.filesystem.options();
    if !own.is_empty() {
        text.push(b',');
        text.extend_from_slice(&own);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_taken_apart() {
        let entry =
            parse(b"36 35 98:0 /mnt1 /a\\040b rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue");
        let entry = entry.unwrap();
        assert_eq!((entry.id, entry.parent, entry.device), (36, 35, (98, 0)));
        assert_eq!(entry.point, b"/a b");
        assert_eq!(entry.propagation, b"master:1 shared:2");
        assert_eq!(entry.super_options, b"rw,errors=continue");
        assert!(parse(b"").is_none());
        assert!(parse(b"36 35 98:0 /mnt1 /a rw").is_none());
    }

    #[test]
    fn paths_are_joined_with_one_slash() {
        assert_eq!(join(b"/", b""), b"/");
        assert_eq!(join(b"/", b"usr"), b"/usr");
        assert_eq!(join(b"/a", b"/b"), b"/a/b");
    }
}
