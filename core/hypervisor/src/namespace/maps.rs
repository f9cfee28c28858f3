//! `/proc/PID/uid_map`, `gid_map` and `setgroups`: what they say, and who may write what, by the rules of `map_write` and
//! `proc_setgroups_write` in `kernel/user_namespace.c`. Knows nothing of descriptors.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use umvu_interface::{
    Caller, Capabilities, Control, Credentials, Errno, Extent, IdMap, Result, TextFile, UserNamespace, World,
};

use crate::call::Call;
use crate::fs::proc::ProcInode;

/// `UID_GID_MAP_MAX_EXTENTS` of linux/user_namespace.h.
const EXTENTS_MAX: usize = 340;

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `uid_map`.
    Users,
    /// `gid_map`.
    Groups,
    /// `setgroups`.
    Setgroups,
}

impl File {
    /// Finds it by its name in `/proc/PID`.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"uid_map" => Some(File::Users),
            b"gid_map" => Some(File::Groups),
            b"setgroups" => Some(File::Setgroups),
            _ => None,
        }
    }

    fn map(self, of: &UserNamespace) -> &IdMap {
        match self {
            File::Users => &of.users,
            File::Groups | File::Setgroups => &of.groups,
        }
    }

    fn capability(self) -> u64 {
        match self {
            File::Users => Capabilities::SETUID,
            File::Groups | File::Setgroups => Capabilities::SETGID,
        }
    }
}

/// A file that is open for writing: what it was opened for stays what is written to.
#[derive(Debug)]
struct OpenMap {
    file: File,
    of: Option<Arc<UserNamespace>>,
    opener: Arc<Credentials>,
}

impl Control for OpenMap {
    fn write(&self, caller: &Caller<'_>, bytes: &[u8], _: &dyn World) -> Result<usize> {
        write(self.file, self.of.as_deref(), &self.opener, caller.credentials, bytes)?;
        Ok(bytes.len())
    }
}

/// Opens an object of `/proc` for writing, if it is such a file and says something else than the host's.
///
/// # Errors
/// - `EACCES`: `setgroups` of a namespace that the caller has no `CAP_SYS_ADMIN` in.
pub fn open(call: &Call, inode: &ProcInode) -> Result<Option<TextFile>> {
    let Some((pid, name)) = inode.of_process() else { return Ok(None) };
    let (Some(file), Some(state)) = (File::named(name), call.supervisor.state_of(pid)) else { return Ok(None) };
    let (of, opener) = (call.supervisor.credentials(&state).namespace.clone(), call.credentials());
    if of.is_none() && opener.namespace.is_none() {
        return Ok(None);
    }
    // proc_setgroups_open.
    if file == File::Setgroups && !opener.capable_in(of.as_ref(), Capabilities::SYS_ADMIN) {
        return Err(Errno::ACCESS);
    }
    let content = text(file, of.as_ref(), opener.namespace.as_ref());
    Ok(Some(TextFile { content, control: Some(Arc::new(OpenMap { file, of, opener })) }))
}

/// What is read from a file of a namespace (`None`: the view's own) by somebody in another.
pub fn text(file: File, of: Option<&Arc<UserNamespace>>, reader: Option<&Arc<UserNamespace>>) -> Vec<u8> {
    if file == File::Setgroups {
        let denied = of.is_some_and(|n| n.setgroups_denied.load(Ordering::Acquire));
        return if denied { b"deny\n".to_vec() } else { b"allow\n".to_vec() };
    }
    // Who reads the map of the own namespace reads the ids of its parent: uid_m_show.
    let lower = match (of, reader) {
        (Some(own), Some(reader)) if own == reader => reader.parent.as_ref(),
        _ => reader,
    };
    let told = |id: u32| lower.map_or(Some(id), |n| file.map(n).to_inside(id)).unwrap_or(u32::MAX);
    let line = |e: &Extent| format!("{:10} {:10} {:10}\n", e.inside, told(e.view), e.count);
    match of {
        None => line(&Extent { inside: 0, view: 0, count: u32::MAX }).into_bytes(),
        Some(of) => file.map(of).extents().iter().flat_map(|e| line(e).into_bytes()).collect(),
    }
}

/// Takes what is written to a file of a namespace by `writer`, who opened it as `opener`.
///
/// # Errors
/// - `EPERM`: the view's own; by somebody who is neither in the namespace nor in its parent
/// - those of [`write_map`] and [`write_setgroups`]
fn write(
    file: File,
    of: Option<&UserNamespace>,
    opener: &Credentials,
    writer: &Credentials,
    bytes: &[u8],
) -> Result<()> {
    if file == File::Setgroups {
        return write_setgroups(of.ok_or(Errno::PERM)?, bytes);
    }
    let of = of.ok_or(Errno::PERM)?;
    let is_near = opener.namespace.as_deref() == Some(of) || opener.namespace == of.parent;
    if !is_near {
        return Err(Errno::PERM);
    }
    write_map(file, of, opener, writer, bytes)
}

/// # Errors
/// - `EINVAL`: more than a page
/// - `EPERM`: it was written before, or by who has no `CAP_SYS_ADMIN` in the namespace
/// - `EINVAL`: not lines of three numbers, ranges that overlap or wrap around, none, or too many
/// - `EPERM`: ids that the writer may not give to the namespace, or that its parent does not know
fn write_map(file: File, of: &UserNamespace, opener: &Credentials, writer: &Credentials, bytes: &[u8]) -> Result<()> {
    const PAGE: usize = 4096;
    if bytes.len() >= PAGE {
        return Err(Errno::INVAL);
    }
    let map = file.map(of);
    if !map.extents().is_empty() || !capable_in(opener, of, Capabilities::SYS_ADMIN) {
        return Err(Errno::PERM);
    }
    let wanted = parse(bytes)?;
    if !is_permitted(file, of, opener, writer, &wanted) {
        return Err(Errno::PERM);
    }
    let parent = of.parent.as_ref().map(|p| file.map(p));
    let extents: Option<Vec<Extent>> = wanted.into_iter().map(|extent| in_view(extent, parent)).collect();
    match map.write(extents.ok_or(Errno::PERM)?) {
        true => Ok(()),
        false => Err(Errno::PERM),
    }
}

fn capable_in(who: &Credentials, of: &UserNamespace, capability: u64) -> bool {
    if who.namespace.as_deref() == Some(of) {
        return who.capable(capability);
    }
    let made_it = who.namespace == of.parent && who.uid.effective == of.owner.0;
    made_it || who.capable_in(of.parent.as_ref(), capability)
}

/// `map_id_range_down`: a range of the parent's ids that is one of its ranges, or a part of one, as ids of the view.
fn in_view(extent: Extent, parent: Option<&IdMap>) -> Option<Extent> {
    let Some(parent) = parent else { return Some(extent) };
    let last = extent.view + (extent.count - 1);
    let around = parent.extents().iter().find(|e| extent.view >= e.inside && last - e.inside < e.count)?;
    Some(Extent { view: around.view + (extent.view - around.inside), ..extent })
}

/// `new_idmap_permitted`.
fn is_permitted(file: File, of: &UserNamespace, opener: &Credentials, writer: &Credentials, wanted: &[Extent]) -> bool {
    if let [Extent { view, count: 1, .. }] = wanted {
        let meant = of.parent.as_ref().map_or(Some(*view), |p| file.map(p).to_view(*view));
        let own = match file {
            File::Users => meant == Some(opener.uid.effective),
            _ => meant == Some(opener.gid.effective) && of.setgroups_denied.load(Ordering::Acquire),
        };
        if own && of.owner.0 == opener.uid.effective {
            return true;
        }
    }
    let parent = of.parent.as_ref();
    writer.capable_in(parent, file.capability()) && opener.capable_in(parent, file.capability())
}

fn parse(bytes: &[u8]) -> Result<Vec<Extent>> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Errno::INVAL)?;
    // A newline at the end begins no further line.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut extents: Vec<Extent> = Vec::new();
    for line in text.split('\n') {
        if extents.len() >= EXTENTS_MAX {
            return Err(Errno::INVAL);
        }
        let numbers: Option<Vec<u32>> = line.split_ascii_whitespace().map(number).collect();
        let Some([inside, view, count]) = numbers.as_deref() else { return Err(Errno::INVAL) };
        let extent = Extent { inside: *inside, view: *view, count: *count };
        let wraps = |first: u32| first == u32::MAX || first.wrapping_add(extent.count) <= first;
        let meet = |a: u32, b: u32, other: u32| a < b.saturating_add(other) && b < a.saturating_add(extent.count);
        let overlaps = |e: &Extent| meet(extent.inside, e.inside, e.count) || meet(extent.view, e.view, e.count);
        if wraps(extent.inside) || wraps(extent.view) || extents.iter().any(overlaps) {
            return Err(Errno::INVAL);
        }
        extents.push(extent);
    }
    Ok(extents)
}

/// `simple_strtoul` with base 10.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// # Errors
/// - `EINVAL`: neither `allow` nor `deny`
/// - `EPERM`: `allow` after `deny`, or `deny` when the groups are mapped
fn write_setgroups(of: &UserNamespace, bytes: &[u8]) -> Result<()> {
    const LONGEST: usize = 7;
    let word = bytes.trim_ascii_end();
    if bytes.len() > LONGEST {
        return Err(Errno::INVAL);
    }
    match word {
        b"allow" if of.setgroups_denied.load(Ordering::Acquire) => Err(Errno::PERM),
        b"allow" => Ok(()),
        b"deny" if !of.groups.extents().is_empty() => Err(Errno::PERM),
        b"deny" => {
            of.setgroups_denied.store(true, Ordering::Release);
            Ok(())
        }
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_lines_of_three_numbers() {
        assert_eq!(parse(b"0 1000 1").unwrap(), [Extent { inside: 0, view: 1000, count: 1 }]);
        assert_eq!(parse(b" 0\t5 2 \n2 9 1\n").unwrap().len(), 2);
        for bad in
            [&b""[..], b"\n", b"0 1000", b"0 1000 1 1", b"0 1000 0", b"-1 0 1", b"0 4294967295 1", b"4294967294 0 9"]
        {
            assert_eq!(parse(bad), Err(Errno::INVAL), "{:?}", bad.escape_ascii().to_string());
        }
        assert_eq!(parse(b"0 0 5\n4 10 1"), Err(Errno::INVAL));
        assert_eq!(parse(b"0 0 5\n5 4 1"), Err(Errno::INVAL));
    }

    #[test]
    fn no_more_than_340_ranges_are_taken() {
        let lines = |many: u32| (0..many).map(|n| format!("{n} {n} 1\n")).collect::<String>();
        assert_eq!(parse(lines(340).as_bytes()).unwrap().len(), 340);
        assert_eq!(parse(lines(341).as_bytes()), Err(Errno::INVAL));
    }
}
