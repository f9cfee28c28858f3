//! What the supervisor does to files by descriptor: the mark of an open file, extended attributes and the mode of
//! what an `O_PATH` descriptor refers to, raw directory entries.
//!
//! What a mark or an attribute means is deliberately unknown here.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{Mode, XattrFlags};

use crate::{check, last_errno, Errno};

/// `F_SETSIG` and `F_GETSIG` of asm-generic/fcntl.h.
const F_SETSIG: libc::c_int = linux_raw_sys::general::F_SETSIG as libc::c_int;
const F_GETSIG: libc::c_int = linux_raw_sys::general::F_GETSIG as libc::c_int;

/// Reads the mark of an open file: the signal that `O_ASYNC` would use, 0 if none was set.
///
/// It belongs to the open file description, so every duplicate has it, in any process.
///
/// # Errors
/// - `EBADF`: the descriptor is `O_PATH`.
pub fn mark(fd: BorrowedFd<'_>) -> Result<i32, Errno> {
    // SAFETY: this command takes no argument.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) })
}

/// Sets the mark of an open file, a number from 0 to 64.
///
/// # Errors
/// - `EBADF`: the descriptor is `O_PATH`.
/// - `EINVAL`: the number is not that of a signal.
pub fn set_mark(fd: BorrowedFd<'_>, mark: i32) -> Result<(), Errno> {
    // SAFETY: this command takes its argument by value.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, mark) }).map(drop)
}

/// Locks one byte at `offset` of an open file for its open file description, for reading where that is open for it: no
/// data need be there, and every duplicate has the lock, in any process, until the last is closed.
///
/// # Errors
/// - `EBADF`: the descriptor is `O_PATH`.
/// - `EINVAL`: the offset is negative.
/// - `EAGAIN`: another lock is in the way.
/// - `ENOLCK`: the host has too many.
pub fn lock_byte(fd: BorrowedFd<'_>, offset: i64) -> Result<(), Errno> {
    let writes_only = rustix::fs::fcntl_getfl(fd)? & rustix::fs::OFlags::RWMODE == rustix::fs::OFlags::WRONLY;
    let kind = if writes_only { libc::F_WRLCK } else { libc::F_RDLCK };
    let (l_type, l_whence) = (kind as libc::c_short, libc::SEEK_SET as libc::c_short);
    let lock = libc::flock { l_type, l_whence, l_start: offset, l_len: 1, l_pid: 0 };
    // SAFETY: the argument of this command points to a lock, which is only read.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock) }).map(drop)
}

/// Says whether anybody has a file open for writing, as far as the kernel tells: it grants the owner of a file a lease
/// for reading only if nobody has (fcntl(2), `F_SETLEASE`). Somebody who opens it for writing meanwhile waits.
///
/// `fd` must be open for reading alone. Of the file of another user nothing is told, and it counts as not open.
pub fn is_open_for_writing(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: this command takes its argument by value.
    let leased = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) });
    if leased.is_ok() {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
    leased == Err(Errno::AGAIN)
}

/// Says whether anybody else has a file open, or mapped, as far as the kernel tells: it grants a lease for writing only if
/// nobody has (fcntl(2), `F_SETLEASE`). A descriptor that is `O_PATH` does not count.
///
/// `fd` must not be open for writing. Of the file of another user nothing is told, and it counts as open.
pub fn is_open_elsewhere(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: this command takes its argument by value.
    let leased = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) });
    if leased.is_ok() {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
    leased.is_err()
}

/// How much memory holds what was sent through a Unix socket and the other end has not taken; 0 where it has taken all.
///
/// # Errors
/// - `ENOTTY`: not a socket.
pub fn untaken_by_peer(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut left: libc::c_int = 0;
    // SAFETY: this command, SIOCOUTQ by another name, writes one int, which `left` is.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &mut left) })?;
    Ok(u64::try_from(left).unwrap_or(0))
}

/// Reads an extended attribute of what a descriptor, `O_PATH` or not, refers to, and returns its length in bytes; an
/// empty buffer asks for the length alone.
///
/// A symbolic link's own attributes are meant if the descriptor is that of a link. The way leads through
/// `/proc/self/fd`, because the `*xattrat` calls of Linux 6.13 refuse `O_PATH` descriptors: fs/xattr.c.
///
/// # Errors
/// - `ENODATA`: there is no such attribute, also for every `user.` attribute of a symbolic link or special file
///   (xattr(7)).
/// - `ERANGE`: the buffer is too small, or the name too long.
/// - `EOPNOTSUPP`: the file system has no such attributes.
/// - `EACCES`: the mode of the object forbids it.
pub fn get_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    let path = SelfFd::new(fd);
    // rustix takes an empty buffer for one that nothing fits into
    match value.is_empty() {
        true => rustix::fs::getxattr_query(path.as_c_str(), name),
        false => rustix::fs::getxattr(path.as_c_str(), name, value),
    }
}

/// Sets an extended attribute of what a descriptor, `O_PATH` or not, refers to; `flags` are those of setxattr(2).
///
/// # Errors
/// - `EINVAL`: an unknown flag.
/// - `ERANGE`: the name is empty or too long.
/// - `E2BIG`: the value is too long.
/// - `EROFS`: the mount is read-only.
/// - `EPERM`: a `user.` attribute of a symbolic link or special file (xattr(7)), or the object is immutable.
/// - `EACCES`: the mode of the object forbids it.
/// - `EOPNOTSUPP`: the file system has no such attributes.
/// - `EEXIST`, `ENODATA`: the flags ask for a new, or an old, attribute.
/// - `ENOSPC`, `EDQUOT`: no room is left.
pub fn set_xattr(fd: BorrowedFd<'_>, name: &CStr, value: &[u8], flags: u32) -> Result<(), Errno> {
    let flags = XattrFlags::from_bits_retain(flags);
    rustix::fs::setxattr(SelfFd::new(fd).as_c_str(), name, value, flags)
}

/// Lists the extended attributes of what a descriptor, `O_PATH` or not, refers to, each name followed by a zero byte,
/// and returns the length in bytes; an empty buffer asks for the length alone.
///
/// # Errors
/// - `ERANGE`: the buffer is too small.
/// - `EOPNOTSUPP`: the file system has no extended attributes.
pub fn list_xattr(fd: BorrowedFd<'_>, list: &mut [u8]) -> Result<usize, Errno> {
    let path = SelfFd::new(fd);
    // rustix takes an empty buffer for one that nothing fits into
    match list.is_empty() {
        true => rustix::fs::listxattr_query(path.as_c_str()),
        false => rustix::fs::listxattr(path.as_c_str(), list),
    }
}

/// Removes an extended attribute of what a descriptor, `O_PATH` or not, refers to.
///
/// # Errors
/// - `ERANGE`: the name is empty or too long.
/// - `EROFS`: the mount is read-only.
/// - `EPERM`: a `user.` attribute of a symbolic link or special file (xattr(7)), or the object is immutable.
/// - `EACCES`: the mode of the object forbids it.
/// - `ENODATA`: there is no such attribute.
/// - `EOPNOTSUPP`: the file system has no such attributes.
pub fn remove_xattr(fd: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::fs::removexattr(SelfFd::new(fd).as_c_str(), name)
}

/// Changes the mode of what a descriptor, `O_PATH` or not, refers to.
///
/// # Errors
/// - `EROFS`: the mount is read-only.
/// - `EPERM`: the object is another user's, or immutable.
/// - `EOPNOTSUPP`: the object is a symbolic link.
pub fn change_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    // SAFETY: the path is a C string that outlives the call; the rest is passed by value.
    let returned =
        unsafe { libc::syscall(libc::SYS_fchmodat2, fd.as_raw_fd(), c"".as_ptr(), mode, libc::AT_EMPTY_PATH) };
    match check(returned) {
        // Linux before 6.6, or a filter around us that does not know the call
        Err(Errno::NOSYS) => rustix::fs::chmod(SelfFd::new(fd).as_c_str(), Mode::from_raw_mode(mode)),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// Reads the next entries of an open directory, as `struct linux_dirent64` records, and returns their length in bytes;
/// 0 at the end.
///
/// # Errors
/// - `EBADF`: the descriptor is `O_PATH`.
/// - `ENOTDIR`: it is not that of a directory.
/// - `ENOENT`: the directory has been removed.
/// - `EINVAL`: the buffer is too small for the next entry.
pub fn getdents64(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buf.len()` bytes to `buf` and keeps no pointer to it.
    let returned = unsafe { libc::syscall(libc::SYS_getdents64, fd.as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
    usize::try_from(returned).map_err(|_| last_errno())
}

/// The path of a descriptor of this process in `/proc`, made without allocating.
struct SelfFd([u8; 32]);

impl SelfFd {
    fn new(fd: BorrowedFd<'_>) -> Self {
        let mut path = [0; 32];
        // 14 bytes and at most 10 digits leave a zero byte at the end
        let written = write!(&mut path[..31], "/proc/self/fd/{}", fd.as_raw_fd());
        debug_assert!(written.is_ok());
        Self(path)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// Makes a handle of an object, as name_to_handle_at(2). `handle` begins with the number of bytes that follow its first
/// eight, and is a `struct file_handle` afterwards; with `EOVERFLOW` it begins with the number that is needed.
///
/// # Errors
/// - `EINVAL`: the number that it begins with is not that of its bytes, or more than 128.
/// - `EOPNOTSUPP`: the file system has none.
/// - `EOVERFLOW`: it needs more bytes.
pub fn handle(fd: BorrowedFd<'_>, flags: u32, handle: &mut [u8]) -> Result<(), Errno> {
    let (size, rest) = handle.split_first_chunk::<4>().ok_or(Errno::INVAL)?;
    if u32::from_ne_bytes(*size) as usize + 4 != rest.len() {
        return Err(Errno::INVAL);
    }
    let mut mount: libc::c_int = 0;
    // SAFETY: the kernel writes no more than the eight bytes of the header and the number that they give, which was
    // checked to be what `handle` has, and an int to `mount`; the path is an empty string.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            fd.as_raw_fd(),
            c"".as_ptr(),
            handle.as_mut_ptr(),
            &raw mut mount,
            flags | libc::AT_EMPTY_PATH as u32,
        )
    };
    crate::check(returned).map(drop)
}

/// Marks the object at `path` for a fanotify group, as fanotify_mark(2).
///
/// # Errors
/// Those of fanotify_mark(2); `ENOENT` for a path with a NUL byte.
pub fn fanotify_mark(group: BorrowedFd<'_>, flags: u32, mask: u64, path: &str) -> Result<(), Errno> {
    let path = std::ffi::CString::new(path).map_err(|_| Errno::NOENT)?;
    // SAFETY: `path` is a string that outlives the call, and the kernel checks all numbers.
    let returned = unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) };
    crate::check(returned).map(drop)
}
