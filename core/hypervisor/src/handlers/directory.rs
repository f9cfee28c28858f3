//! getdents, the current directory, the root directory, umask. Knows nothing of what trees are made of.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use umvu_interface::{Access, Capabilities, DirEntry, Errno, FileKind, Result};
use umvu_table::i386::{self, Abi};

use crate::abi_i386;
use crate::additions;
use crate::call::{Call, Outcome, Reply, DONE};
use crate::guest::PATH_MAX;
use crate::handlers::open::permitted;
use crate::mount::{Location, MountKind};
use crate::placeholder::OpenDirectory;
use crate::resolve::{path_from_bottom, path_of, Last};

/// `getdents(fd, entries, size)`: the type is the last byte of a record.
pub fn getdents(call: &Call) -> Outcome {
    list(
        call,
        match call.request.abi {
            Abi::X86_64 => Form::Old,
            Abi::I386(i386::Form::First) => Form::One,
            Abi::I386(_) => Form::Short,
        },
    )
}

/// `getdents64(fd, entries, size)`.
pub fn getdents64(call: &Call) -> Outcome {
    list(call, Form::Wide)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// readdir(2) of 32-bit programs: one entry at a time.
    One,
    /// getdents(2) of 32-bit programs.
    Short,
    /// getdents(2).
    Old,
    /// getdents64(2).
    Wide,
}

fn list(call: &Call, form: Form) -> Outcome {
    if call.state.is_plain() && call.supervisor.placeholders.is_empty() {
        return Ok(Reply::Continue);
    }
    let fd = call.take_fd(call.i32(0))?;
    let numbers = rustix::fs::fstat(&fd)?;
    let Some(open) = call.supervisor.placeholders.find(numbers.st_dev, numbers.st_ino) else {
        return list_host(call, &fd, form);
    };
    if rustix::fs::fcntl_getfl(&fd)?.contains(rustix::fs::OFlags::PATH) {
        return Err(Errno::BADF.into());
    }
    let size = usize::try_from(call.u32(2)).unwrap_or(0);
    let position = rustix::fs::seek(&fd, rustix::fs::SeekFrom::Current(0))?;
    let mut at = usize::try_from(position).map_err(|_| Errno::INVAL)?;
    let entries = listing(call, &open, at)?;
    if form == Form::One {
        let Some(entry) = entries.get(at) else { return DONE };
        call.write(call.raw(1), &abi_i386::one_entry(entry, at)?)?;
        rustix::fs::seek(fd.as_fd(), rustix::fs::SeekFrom::Start(at as u64 + 1))?;
        return Ok(Reply::Value(1));
    }
    let mut out = Vec::with_capacity(size.min(64 << 10));
    while at < entries.len() {
        let next = at + 1;
        let fits = match form {
            Form::Short => abi_i386::append_entry(&mut out, &entries[at], next, size),
            _ => Ok(append(&mut out, &entries[at], next, size, form)),
        };
        match fits {
            Ok(true) => at = next,
            Ok(false) => break,
            Err(errno) if out.is_empty() => return Err(errno.into()),
            Err(_) => break,
        }
    }
    if out.is_empty() && at < entries.len() {
        return Err(Errno::INVAL.into());
    }
    call.write(call.raw(1), &out)?;
    rustix::fs::seek(fd.as_fd(), rustix::fs::SeekFrom::Start(at as u64))?;
    Ok(Reply::Value(i64::try_from(out.len()).unwrap_or(i64::MAX)))
}

/// Lists a directory of the host. The kernel does, whatever happened to the descriptor since, unless regular files
/// may stand for faked devices: then we read in the guest's place and leave their types open.
fn list_host(call: &Call, fd: &OwnedFd, form: Form) -> Outcome {
    let host = call.table().lowest_root().mount;
    let store = host.filesystem.as_any().downcast_ref::<umvu_host::HostFs>().and_then(umvu_host::HostFs::ownership);
    let uncertain = store.is_some_and(|store| store.may_have_other_types());
    // The kernel tells 32-bit programs other positions than us.
    if !uncertain || form != Form::Wide || call.request.abi != Abi::X86_64 {
        return Ok(Reply::Continue);
    }
    const NAME: usize = 19;
    let regular = FileKind::Regular.dirent_type();
    let size = usize::try_from(call.u32(2)).unwrap_or(0).min(64 << 10);
    let mut buffer = vec![0; size];
    let length = umvu_sys::file::getdents64(fd.as_fd(), &mut buffer)?;
    let mut at = 0;
    while at + NAME <= length {
        if buffer[at + NAME - 1] == regular {
            buffer[at + NAME - 1] = 0;
        }
        at += usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]])).max(NAME);
    }
    call.write(call.raw(1), &buffer[..length])?;
    Ok(Reply::Value(i64::try_from(length).unwrap_or(0)))
}

/// The listing of a descriptor: taken anew at its beginning, as after rewinddir(3).
fn listing(call: &Call, open: &OpenDirectory, at: usize) -> Result<Arc<Vec<DirEntry>>> {
    let mut kept = open.listing.lock();
    if at > 0 {
        if let Some(listing) = &*kept {
            return Ok(listing.clone());
        }
    }
    let mut entries = Vec::new();
    let own = open.location.inode.stat()?;
    // Without links are also directories of those who do not count them.
    if own.nlink == 0 && open.location.inode.path().is_err() {
        return Err(Errno::NOENT);
    }
    let above = crate::resolve::parent(&call.table(), &open.location).and_then(|p| p.inode.id());
    let directory = FileKind::Directory.dirent_type();
    let dot = |name: &[u8], ino| DirEntry { name: name.into(), ino, dirent_type: directory };
    entries.push(dot(b".", own.ino));
    entries.push(dot(b"..", above.map_or(own.ino, |(_, ino)| ino)));
    entries.extend(open.location.inode.read_dir()?);
    let mut added = additions::entries(&call.table(), &open.location);
    added.retain(|new| !entries.iter().any(|entry| entry.name == new.name));
    entries.extend(added);
    let listing = Arc::new(entries);
    *kept = Some(listing.clone());
    Ok(listing)
}

/// Appends a record if it fits: `struct linux_dirent` or `struct linux_dirent64`.
fn append(out: &mut Vec<u8>, entry: &DirEntry, next: usize, size: usize, form: Form) -> bool {
    let name_at = if form == Form::Wide { 19 } else { 18 };
    let tail = if form == Form::Wide { 1 } else { 2 };
    let length = (name_at + entry.name.len() + tail).next_multiple_of(8);
    if out.len() + length > size {
        return false;
    }
    let start = out.len();
    out.extend_from_slice(&entry.ino.to_ne_bytes());
    out.extend_from_slice(&(next as u64).to_ne_bytes());
    out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_ne_bytes());
    if form == Form::Wide {
        out.push(entry.dirent_type);
    }
    out.extend_from_slice(&entry.name);
    out.resize(start + length, 0);
    if form == Form::Old {
        out[start + length - 1] = entry.dirent_type;
    }
    true
}

/// `getcwd(buffer, size)`.
pub fn getcwd(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let cwd = call.cwd()?;
    let table = call.table();
    let mut path = match path_of(&table, &call.root(&table), &cwd)? {
        Some(path) => path,
        // Outside the root: seq_path's prefix, which the C library understands.
        None => {
            let mut path = b"(unreachable)".to_vec();
            path.extend(path_from_bottom(&table, &cwd)?);
            path
        }
    };
    path.push(0);
    // Judged before the room that the caller has: getcwd of fs/d_path.c.
    if path.len() > PATH_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    if (path.len() as u64) > call.raw(1) {
        return Err(Errno::RANGE.into());
    }
    call.write(call.raw(0), &path)?;
    Ok(Reply::Value(i64::try_from(path.len()).unwrap_or(i64::MAX)))
}

/// `chdir(path)`.
pub fn chdir(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    let way = if text.first() == Some(&b'/') { "root" } else { "cwd" };
    let kernels = [format!("/proc/{}/{way}/", call.tid()).as_bytes(), &text].concat();
    enter(call, place, rustix::fs::stat(kernels.as_slice()))
}

/// `fchdir(fd)`.
pub fn fchdir(call: &Call) -> Outcome {
    if call.state.is_plain() && call.supervisor.placeholders.is_empty() {
        return Ok(Reply::Continue);
    }
    let fd = call.take_fd(call.i32(0))?;
    let kernels = rustix::fs::fstat(&fd);
    let place = call.supervisor.place_of(call, fd)?;
    enter(call, place, kernels)
}

/// Makes a place the current directory; `kernels` is what the kernel would enter. Where that is the same, it does so:
/// it puts core files there, and tells others of the host.
fn enter(call: &Call, place: Location, kernels: Result<rustix::fs::Stat>) -> Outcome {
    searchable(call, &place)?;
    call.check_alive()?;
    let is_kernels = place.mount.kind == MountKind::Host
        && kernels.is_ok_and(|stat| place.inode.id() == Ok((stat.st_dev, stat.st_ino)))
        && host_permits(&place);
    call.set_cwd(place)?;
    // Should the path be another by now, the kernel's directory is too, and nothing of the view hangs on that one.
    if is_kernels {
        return Ok(Reply::Continue);
    }
    DONE
}

/// Whether the host lets its user into a directory of its own.
fn host_permits(place: &Location) -> bool {
    let access = |fd| rustix::fs::access(crate::guest::proc_path(fd), rustix::fs::Access::EXEC_OK);
    place.inode.host_fd().is_some_and(|fd| access(fd).is_ok())
}

fn searchable(call: &Call, place: &Location) -> core::result::Result<(), crate::call::Fail> {
    if place.inode.kind()? != FileKind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    if !place.inode.kernel_checks() {
        return permitted(call, place, Access::EXEC);
    }
    // A driver that judges by itself does so when it is asked.
    let Some(fd) = place.inode.host_fd() else { return Ok(()) };
    Ok(rustix::fs::access(crate::guest::proc_path(fd), rustix::fs::Access::EXEC_OK)?)
}

/// `chroot(path)`: needs only the view's own root.
pub fn chroot(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let text = call.path(0)?;
    let place = call.object(libc::AT_FDCWD, &text, Last::Follow)?;
    searchable(call, &place)?;
    if !call.credentials().capable(Capabilities::SYS_CHROOT) {
        return Err(Errno::PERM.into());
    }
    call.check_alive()?;
    // The current directory stays what it is, even outside the new root.
    let cwd = call.cwd()?;
    let cwd = call.standing_at(cwd);
    call.change_state(|state| {
        state.cwd = Some(cwd);
        state.root = Some(Arc::new(place));
    })?;
    DONE
}

/// `umask(mask)`.
pub fn umask(call: &Call) -> Outcome {
    if call.state.is_plain() && call.state.umask.is_none() {
        return Ok(Reply::Continue);
    }
    let old = call.umask();
    let new = call.u32(0) & 0o777;
    call.change_state(|state| state.umask = Some(new))?;
    Ok(Reply::Value(i64::from(old)))
}
