//! What the supervisor reads and sets of other processes, by thread number: memory, descriptors, the state number.
//!
//! A thread number says nothing about whose it is by now: after each use the caller asks the listener whether the
//! call it serves still waits. What the numbers and bytes mean is deliberately unknown here.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::sys::uio::{process_vm_readv, process_vm_writev, RemoteIoVec};
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};

use crate::{check, from_nix, Errno};

/// `PIDFD_THREAD` of linux/pidfd.h: the descriptor stands for the thread, not for its thread group.
const PIDFD_THREAD: u32 = libc::O_EXCL as u32;

/// Copies bytes out of a guest's memory and returns how many; fewer than asked for when the rest is not readable.
///
/// # Errors
/// - `ESRCH`: there is no such thread.
/// - `EPERM`: the caller may not trace the guest (it is not dumpable, or has another user's identity).
/// - `EFAULT`: not one byte is readable.
pub fn read_memory(tid: u32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let pid = nix_pid(tid)?;
    let remote = [remote(address, buffer.len())?];
    process_vm_readv(pid, &mut [IoSliceMut::new(buffer)], &remote).map_err(from_nix)
}

/// Copies several pieces of a guest's memory, given as address and length in bytes, one after the other into a
/// buffer, and returns how many bytes; fewer than asked for when a piece is not readable.
///
/// # Errors
/// - `EINVAL`: more than 1024 pieces.
/// - `ESRCH`: there is no such thread.
/// - `EPERM`: the caller may not trace the guest (it is not dumpable, or has another user's identity).
/// - `EFAULT`: not one byte is readable.
pub fn read_memory_vec(tid: u32, pieces: &[(u64, usize)], buffer: &mut [u8]) -> Result<usize, Errno> {
    let pid = nix_pid(tid)?;
    let remote: Vec<RemoteIoVec> =
        pieces.iter().map(|&(address, len)| remote(address, len)).collect::<Result<_, _>>()?;
    process_vm_readv(pid, &mut [IoSliceMut::new(buffer)], &remote).map_err(from_nix)
}

/// Copies bytes into a guest's memory and returns how many; fewer than given when the rest is not writable.
///
/// Protections hold: memory that the guest cannot write is not written.
///
/// # Errors
/// - `ESRCH`: there is no such thread, or it is one of the caller's own, whose memory is not for others to change.
/// - `EPERM`: the caller may not trace the guest (it is not dumpable, or has another user's identity).
/// - `EFAULT`: not one byte is writable.
pub fn write_memory(tid: u32, address: u64, bytes: &[u8]) -> Result<usize, Errno> {
    let pid = nix_pid(tid)?;
    if is_our_thread(tid) {
        return Err(Errno::SRCH);
    }
    let remote = [remote(address, bytes.len())?];
    process_vm_writev(pid, &[IoSlice::new(bytes)], &remote).map_err(from_nix)
}

/// Opens a pidfd of a thread.
///
/// Linux before 6.9 knows no pidfd of a thread that is no leader; there it is the pidfd of the thread group, which is
/// the same for all but threads that have their own table of descriptors.
///
/// # Errors
/// - `ESRCH`: there is no such thread.
/// - `EMFILE`, `ENFILE`: no descriptor is free.
pub fn open_thread(tid: u32) -> Result<OwnedFd, Errno> {
    let pid = rustix_pid(tid)?;
    match pidfd_open(pid, PidfdFlags::from_bits_retain(PIDFD_THREAD)) {
        Err(Errno::INVAL) => pidfd_open(thread_group(tid)?, PidfdFlags::empty()),
        result => result,
    }
}

/// Duplicates a descriptor of the process or thread that a pidfd stands for; the copy closes on exec.
///
/// # Errors
/// - `ESRCH`: the guest is gone.
/// - `EPERM`: the caller may not trace the guest.
/// - `EBADF`: the guest has no such descriptor.
/// - `EMFILE`, `ENFILE`: no descriptor is free here.
pub fn take_fd(thread: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Errno> {
    pidfd_getfd(thread, fd, PidfdGetfdFlags::empty())
}

/// Reads the state number of a thread's process, which is its soft `RLIMIT_LOCKS`.
///
/// # Errors
/// - `ESRCH`: there is no such thread.
/// - `EPERM`: the guest has another user's identity.
pub fn state_number(tid: u32) -> Result<u64, Errno> {
    limit(tid, libc::RLIMIT_LOCKS).map(|limit| limit.rlim_cur)
}

/// Sets the state number of a thread's process; the hard limit keeps its value.
///
/// # Errors
/// - `ESRCH`: there is no such thread.
/// - `EPERM`: the guest has another user's identity.
/// - `EINVAL`: the number is above the hard limit.
pub fn set_state_number(tid: u32, number: u64) -> Result<(), Errno> {
    let limit = libc::rlimit64 { rlim_cur: number, ..limit(tid, libc::RLIMIT_LOCKS)? };
    set_limit(tid, libc::RLIMIT_LOCKS, &limit)
}

/// Reads how large a thread's process may make files, in bytes: its soft `RLIMIT_FSIZE`.
///
/// # Errors
/// - `ESRCH`: there is no such thread.
/// - `EPERM`: the guest has another user's identity.
pub fn file_size_limit(tid: u32) -> Result<u64, Errno> {
    limit(tid, libc::RLIMIT_FSIZE).map(|limit| limit.rlim_cur)
}

/// Does something while a thread's process may open as many files as its hard limit says.
///
/// # Errors
/// - `ESRCH`: there is no such thread.
/// - `EPERM`: the guest has another user's identity.
/// - those of `action`.
pub fn with_more_files<T>(tid: u32, action: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    let old = limit(tid, libc::RLIMIT_NOFILE)?;
    set_limit(tid, libc::RLIMIT_NOFILE, &libc::rlimit64 { rlim_cur: old.rlim_max, ..old })?;
    let done = action();
    set_limit(tid, libc::RLIMIT_NOFILE, &old)?;
    done
}

fn limit(tid: u32, resource: libc::__rlimit_resource_t) -> Result<libc::rlimit64, Errno> {
    let pid = raw_pid(tid)?;
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel writes one rlimit64, which `limit` is, and the place for a new one may be null.
    check(unsafe { libc::prlimit64(pid, resource, std::ptr::null(), &mut limit) })?;
    Ok(limit)
}

fn set_limit(tid: u32, resource: libc::__rlimit_resource_t, limit: &libc::rlimit64) -> Result<(), Errno> {
    let pid = raw_pid(tid)?;
    // SAFETY: the kernel reads one rlimit64, which `limit` is, and the place for the old one may be null.
    check(unsafe { libc::prlimit64(pid, resource, limit, std::ptr::null_mut()) }).map(drop)
}

/// Checks that a number can be a thread's: 0 would mean the caller itself to some calls.
fn raw_pid(tid: u32) -> Result<libc::pid_t, Errno> {
    match libc::pid_t::try_from(tid) {
        Ok(pid) if pid > 0 => Ok(pid),
        _ => Err(Errno::SRCH),
    }
}

/// Sends a signal to a process, if both are there.
pub fn signal(pid: u32, number: u32) {
    let signal = i32::try_from(number).ok().and_then(rustix::process::Signal::from_named_raw);
    if let (Ok(pid), Some(signal)) = (rustix_pid(pid), signal) {
        // gone is as good as told
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Kills a process, if it is still there.
pub fn kill(pid: u32) {
    if let Ok(pid) = rustix_pid(pid) {
        // gone is as good as killed
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

pub(crate) fn nix_pid(tid: u32) -> Result<nix::unistd::Pid, Errno> {
    raw_pid(tid).map(nix::unistd::Pid::from_raw)
}

pub(crate) fn rustix_pid(tid: u32) -> Result<Pid, Errno> {
    Pid::from_raw(raw_pid(tid)?).ok_or(Errno::SRCH)
}

fn remote(address: u64, len: usize) -> Result<RemoteIoVec, Errno> {
    Ok(RemoteIoVec { base: usize::try_from(address).map_err(|_| Errno::FAULT)?, len })
}

/// Tells whether a thread belongs to the calling process, in which case changing memory by address would be unsound.
fn is_our_thread(tid: u32) -> bool {
    let our_pid = rustix::process::getpid();
    // tgkill finds a thread only in its own group: kernel/signal.c, do_send_specific; signal 0 only looks
    rustix_pid(tid).is_ok_and(|pid| {
        // SAFETY: signal 0 is sent to nobody, and the numbers are passed by value.
        let returned =
            unsafe { libc::syscall(libc::SYS_tgkill, our_pid.as_raw_nonzero().get(), pid.as_raw_nonzero().get(), 0) };
        returned == 0
    })
}

/// Reads which thread group a thread belongs to.
fn thread_group(tid: u32) -> Result<Pid, Errno> {
    status_number(tid, b"Tgid:").and_then(|number| Pid::from_raw(number).ok_or(Errno::SRCH))
}

/// Reads a number that stands after a word in `/proc/TID/status`: proc_pid_status(5).
pub(crate) fn status_number(tid: u32, word: &[u8]) -> Result<i32, Errno> {
    let status = std::fs::read(format!("/proc/{tid}/status")).map_err(|_| Errno::SRCH)?;
    status
        .split(|&byte| byte == b'\n')
        .find_map(|line| line.strip_prefix(word))
        .and_then(|number| std::str::from_utf8(number).ok()?.trim().parse().ok())
        .ok_or(Errno::SRCH)
}
