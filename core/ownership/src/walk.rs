//! Walks the tree of a layer by descriptor, for saving, loading and sweeping.
//!
//! Knows nothing of overrides. Symlinks are not followed; mounts below are walked too.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{openat, statx, AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::object::Key;

/// Calls `visit` with an `O_PATH` descriptor of each object and its statx(2) answer: type, mode,
/// link count and [`Key::MASK`]. An object with several links is visited once for each.
///
/// # Errors
/// Those of `visit`, and those of openat(2), statx(2) and getdents64(2) but for objects that
/// vanish meanwhile and directories that may not be read.
pub(crate) fn walk<E: From<Errno>>(
    root: BorrowedFd<'_>,
    visit: &mut dyn FnMut(BorrowedFd<'_>, &Statx) -> Result<(), E>,
) -> Result<(), E> {
    let root = Rc::new(openat(root, c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
    let stat = look(root.as_fd())?;
    visit(root.as_fd(), &stat)?;
    let mut waiting = Vec::new();
    list(&root, &mut waiting)?;
    while let Some((directory, name)) = waiting.pop() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = match openat(&*directory, &name, flags, Mode::empty()) {
            Err(Errno::NOENT) => continue,
            object => Rc::new(object?),
        };
        let stat = look(object.as_fd())?;
        visit(object.as_fd(), &stat)?;
        if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory {
            list(&object, &mut waiting)?;
        }
    }
    Ok(())
}

fn look(object: BorrowedFd<'_>) -> Result<Statx, Errno> {
    let mask = Key::MASK | StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::NLINK;
    statx(object, c"", AtFlags::EMPTY_PATH, mask)
}

fn list(directory: &Rc<OwnedFd>, waiting: &mut Vec<(Rc<OwnedFd>, CString)>) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = match openat(&**directory, c".", flags, Mode::empty()) {
        Err(Errno::NOENT | Errno::ACCESS) => return Ok(()),
        entries => entries?,
    };
    for entry in Dir::new(entries)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            waiting.push((Rc::clone(directory), entry.file_name().to_owned()));
        }
    }
    Ok(())
}
