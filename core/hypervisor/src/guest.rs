//! The thread that made a call: its memory and descriptors. Knows nothing of views.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use dashmap::DashMap;
use rustix::fd::BorrowedFd;
use umvu_interface::{Errno, Result};
use umvu_sys::guest as sys;

/// Longest path, with its NUL, in bytes.
pub const PATH_MAX: usize = 4096;

/// Threads seen lately, by thread id. An entry whose thread has ended answers `ESRCH` and is replaced, so a
/// recycled id is never mistaken for its former bearer.
#[derive(Default)]
pub struct Threads {
    known: DashMap<u32, Arc<OwnedFd>>,
}

impl Threads {
    const MOST: usize = 256;

    fn pidfd(&self, tid: u32) -> Result<Arc<OwnedFd>> {
        if let Some(known) = self.known.get(&tid) {
            return Ok(known.clone());
        }
        self.open(tid)
    }

    fn open(&self, tid: u32) -> Result<Arc<OwnedFd>> {
        if self.known.len() >= Self::MOST {
            self.known.clear();
        }
        let fd = Arc::new(sys::open_thread(tid)?);
        self.known.insert(tid, fd.clone());
        Ok(fd)
    }

    /// Takes a duplicate of descriptor `fd` of thread `tid`.
    ///
    /// # Errors
    /// - `EBADF`: the thread has no such descriptor.
    /// - `ESRCH`: the thread has ended.
    pub fn take_fd(&self, tid: u32, fd: i32) -> Result<OwnedFd> {
        let pidfd = self.pidfd(tid)?;
        match sys::take_fd(pidfd.as_fd(), fd) {
            Err(Errno::SRCH) => {
                let fresh = self.open(tid)?;
                sys::take_fd(fresh.as_fd(), fd)
            }
            other => other,
        }
    }
}

/// The process that a thread belongs to.
///
/// # Errors
/// - `ESRCH`: the thread has ended.
pub fn leader_of(tid: u32) -> Result<u32> {
    // Quicker than to read what /proc says: only a leader has a pidfd of its process's kind.
    let pid = i32::try_from(tid).ok().and_then(rustix::process::Pid::from_raw).ok_or(Errno::SRCH)?;
    match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        Ok(_) => Ok(tid),
        Err(_) => crate::magic::process_of(tid),
    }
}

/// The parent of a process or thread: the fourth field of proc_pid_stat(5).
pub fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = &stat[stat.iter().rposition(|b| *b == b')')? + 1..];
    let mut fields = behind_name.split(|b| *b == b' ').filter(|f| !f.is_empty());
    std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()
}

/// Reads exactly `N` bytes.
///
/// # Errors
/// - `EFAULT`: not all of them are readable.
pub fn read_array<const N: usize>(tid: u32, address: u64) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    read_exact(tid, address, &mut bytes)?;
    Ok(bytes)
}

/// Fills `buffer`; errors as [`read_array`].
pub fn read_exact(tid: u32, address: u64, buffer: &mut [u8]) -> Result<()> {
    if buffer.is_empty() {
        return Ok(());
    }
    match sys::read_memory(tid, address, buffer) {
        Ok(n) if n == buffer.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(errno) => Err(errno),
    }
}

/// Reads up to `max` bytes; fewer where the readable memory ends.
pub fn read_some(tid: u32, address: u64, max: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; max];
    let n = sys::read_memory(tid, address, &mut buffer)?;
    buffer.truncate(n);
    Ok(buffer)
}

/// Writes all of `bytes`.
///
/// # Errors
/// - `EFAULT`: not all of the memory is writable.
pub fn write(tid: u32, address: u64, bytes: &[u8]) -> Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    match sys::write_memory(tid, address, bytes) {
        Ok(n) if n == bytes.len() => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(errno) => Err(errno),
    }
}

/// Reads a NUL-terminated string of at most `max` bytes, NUL included, without the NUL. Page by page, so that
/// unmapped memory behind the string does no harm.
///
/// # Errors
/// - `EFAULT`: the memory ends before the string.
/// - `ENAMETOOLONG`: no NUL in `max` bytes.
pub fn read_string(tid: u32, address: u64, max: usize) -> Result<Vec<u8>> {
    const PAGE: u64 = 4096;
    if address == 0 {
        return Err(Errno::FAULT);
    }
    let mut out = Vec::new();
    let mut at = address;
    let mut step = 256u64;
    while out.len() < max {
        let to_page_end = PAGE - at % PAGE;
        let left = (max - out.len()) as u64;
        let want = usize::try_from(to_page_end.min(step).min(left)).unwrap_or(1);
        let old = out.len();
        out.resize(old + want, 0);
        match sys::read_memory(tid, at, &mut out[old..]) {
            Ok(n) if n > 0 => {
                out.truncate(old + n);
                if let Some(end) = out[old..].iter().position(|b| *b == 0) {
                    out.truncate(old + end);
                    return Ok(out);
                }
                at = at.wrapping_add(n as u64);
            }
            Ok(_) => return Err(Errno::FAULT),
            Err(errno) => return Err(errno),
        }
        step = PAGE;
    }
    Err(Errno::NAMETOOLONG)
}

/// A descriptor of ours in `/proc/self/fd`, as a path that reopens it.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// A descriptor of ours, as a path by which a guest reaches what it names.
pub fn path_for_guests(fd: BorrowedFd<'_>) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into_bytes()
}
