//! Seccomp user notification: installing a filter, receiving the calls it reports and answering them.
//!
//! What a call means, and which calls a filter reports, is deliberately unknown here.
//! Follows seccomp_unotify(2) and `kernel/seccomp.c`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::event::{poll, PollFd, PollFlags};

use crate::{check, last_errno, Errno};

/// What a filter is installed with: a listener, and guests that only a fatal signal can take out of a call that
/// was received (so a signal never makes the same call arrive twice).
const INSTALL_FLAGS: libc::c_ulong =
    libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;

/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` of linux/seccomp.h.
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// One system call of a guest that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// Names this call towards the listener until it is answered; never used twice.
    pub id: u64,
    /// The calling thread, as numbered in the receiver's pid namespace; 0 if it has no number there.
    pub tid: u32,
    /// The number of the system call in the table of `arch`.
    pub nr: i32,
    /// `AUDIT_ARCH_*` of the entry that the guest used.
    pub arch: u32,
    /// The address after the guest's `syscall` instruction.
    pub instruction_pointer: u64,
    /// The six argument registers as the guest left them.
    pub args: [u64; 6],
}

/// What a [`Listener`] has received.
#[derive(Clone, Copy, Debug)]
pub enum Received {
    /// A guest waits for the answer to this call.
    Call(Notification),
    /// A signal interrupted the wait, or the guest died before its call was read: receive again.
    Interrupted,
    /// No process uses the filter any more, so nothing will ever be received.
    Gone,
}

/// Whether a descriptor is closed when the guest executes another program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOnExec {
    /// The descriptor gets `FD_CLOEXEC`.
    Yes,
    /// The descriptor stays open.
    No,
}

impl CloseOnExec {
    fn bits(self) -> u32 {
        match self {
            // O_CLOEXEC is a small positive constant
            Self::Yes => libc::O_CLOEXEC as u32,
            Self::No => 0,
        }
    }
}

/// The sizes that the running kernel gives to the structures of this interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotificationSizes {
    /// `struct seccomp_notif`, in bytes.
    pub notification: u16,
    /// `struct seccomp_notif_resp`, in bytes.
    pub response: u16,
    /// `struct seccomp_data`, in bytes.
    pub data: u16,
}

/// The receiving end of a filter's notifications.
///
/// Any number of threads may receive from and answer through one listener.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Gives the descriptor back.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Waits for the next call of any guest.
    ///
    /// The end of the last guest ends the wait: Linux 6.11 and later return from the receiving call itself; before,
    /// the wait is a poll(2). There, a guest that is killed between that poll and the receiving call leaves the
    /// thread waiting for the next notification. Linux before 6.11 also counts dead guests until they are waited for.
    ///
    /// # Errors
    /// Any error of the ioctl but `EINTR` and `ENOENT`: `EBADF` or `ENOTTY` for a descriptor that is no listener.
    pub fn receive(&self) -> io::Result<Received> {
        if !receiving_sees_the_end() {
            match self.poll(PollFlags::IN, None) {
                Ok(seen) if seen.contains(PollFlags::IN) => {}
                Ok(seen) if seen.contains(PollFlags::HUP) => return Ok(Received::Gone),
                Ok(_) | Err(Errno::INTR) => return Ok(Received::Interrupted),
                Err(error) => return Err(error.into()),
            }
        }
        // SAFETY: the structure consists of integers only, for which all zeroes are a value; the kernel insists on them.
        let mut raw: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one seccomp_notif, which `raw` is, and keeps no pointer to it.
        match check(unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut raw) }) {
            Ok(_) => Ok(Received::Call(Notification {
                id: raw.id,
                tid: raw.pid,
                nr: raw.data.nr,
                arch: raw.data.arch,
                instruction_pointer: raw.data.instruction_pointer,
                args: raw.data.args,
            })),
            Err(Errno::INTR) => Ok(Received::Interrupted),
            // Both "the guest died first" and "there is no guest" look like this; only poll tells them apart:
            // kernel/seccomp.c, recv_wait_event and seccomp_notify_poll.
            Err(Errno::NOENT) => {
                let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
                match self.poll(PollFlags::empty(), Some(&now)) {
                    Ok(seen) if seen.contains(PollFlags::HUP) => Ok(Received::Gone),
                    _ => Ok(Received::Interrupted),
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether a call still waits for its answer, so that what was read of its guest was read of the right one.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel reads the eight bytes of `id` and keeps no pointer to them.
        let returned = unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &id) };
        returned == 0
    }

    /// Lets a call return a value or an error.
    ///
    /// # Errors
    /// - `ENOENT`: the guest is gone.
    /// - `EINPROGRESS`: the call has been answered already.
    pub fn answer(&self, id: u64, result: Result<i64, Errno>) -> Result<(), Errno> {
        match result {
            Ok(val) => self.send(id, val, 0, 0),
            Err(error) => self.answer_raw_error(id, error.raw_os_error()),
        }
    }

    /// Lets a call return an error given as a positive number, also one of those that the kernel keeps to itself: 512
    /// (`ERESTARTSYS`) makes the call again after a signal handler with `SA_RESTART`, and is `EINTR` after others.
    ///
    /// Those errors have their meaning only while a signal is pending that the guest does not block; without one the
    /// guest would see the number itself.
    ///
    /// # Errors
    /// - `ENOENT`: the guest is gone.
    /// - `EINPROGRESS`: the call has been answered already.
    pub fn answer_raw_error(&self, id: u64, errno: i32) -> Result<(), Errno> {
        self.send(id, 0, -errno, 0)
    }

    /// Lets the kernel do a call as if it had not been reported.
    ///
    /// What the arguments point to is read by the kernel after this, so another thread of the guest can still change it.
    ///
    /// # Errors
    /// - `ENOENT`: the guest is gone.
    /// - `EINPROGRESS`: the call has been answered already.
    pub fn answer_continue(&self, id: u64) -> Result<(), Errno> {
        // the flag is 1 in a type wider than its field
        self.send(id, 0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32)
    }

    /// Gives the guest a copy of a descriptor, at its lowest free number, and lets its call return that number.
    ///
    /// A caller with signal handlers must block their signals: an interrupted answer makes the call return 0.
    ///
    /// # Errors
    /// The call still waits for its answer after these, in the order they are checked:
    /// - `ENOENT`: the guest is gone.
    /// - `EINPROGRESS`: the call has been answered already.
    /// - `EBUSY`: another descriptor is just being added for this call.
    /// - `EMFILE`, `ENFILE`: the guest has no free number.
    pub fn answer_with_fd(&self, id: u64, fd: BorrowedFd<'_>, cloexec: CloseOnExec) -> Result<i32, Errno> {
        self.inject(id, fd, cloexec, libc::SECCOMP_ADDFD_FLAG_SEND, 0)
    }

    /// Gives the guest a copy of a descriptor, at its lowest free number or `at` a number whose file it replaces,
    /// and returns the number; the call still waits for its answer.
    ///
    /// # Errors
    /// In the order they are checked:
    /// - `ENOENT`: the guest is gone.
    /// - `EINPROGRESS`: the call has been answered already.
    /// - `EINTR`: a signal came before the guest had taken the descriptor.
    /// - `EMFILE`, `ENFILE`: the guest has no free number.
    /// - `EBADF`: `at` is above the guest's `RLIMIT_NOFILE`.
    /// - `EBUSY`: `at` is just being opened by another thread of the guest.
    pub fn add_fd(&self, id: u64, fd: BorrowedFd<'_>, cloexec: CloseOnExec, at: Option<u32>) -> Result<i32, Errno> {
        match at {
            None => self.inject(id, fd, cloexec, 0, 0),
            Some(number) => self.inject(id, fd, cloexec, libc::SECCOMP_ADDFD_FLAG_SETFD, number),
        }
    }

    /// Makes receiver and guest wake each other on the processor they are on, which is right when one waits
    /// while the other works.
    ///
    /// # Errors
    /// - `EINVAL`: Linux before 6.6.
    pub fn set_sync_wake_up(&self) -> Result<(), Errno> {
        // SAFETY: this ioctl takes its argument by value.
        let returned = unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        check(returned).map(drop)
    }

    fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn poll(&self, events: PollFlags, timeout: Option<&rustix::time::Timespec>) -> Result<PollFlags, Errno> {
        let mut fds = [PollFd::new(self, events)];
        poll(&mut fds, timeout)?;
        Ok(fds[0].revents())
    }

    fn send(&self, id: u64, val: i64, error: i32, flags: u32) -> Result<(), Errno> {
        let mut response = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the kernel reads one seccomp_notif_resp, which `response` is, and keeps no pointer to it.
        let returned = unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response) };
        check(returned).map(drop)
    }

    fn inject(
        &self,
        id: u64,
        fd: BorrowedFd<'_>,
        cloexec: CloseOnExec,
        flags: libc::c_ulong,
        newfd: u32,
    ) -> Result<i32, Errno> {
        let request = libc::seccomp_notif_addfd {
            id,
            // the flags are 1 and 2 in a type wider than their field
            flags: flags as u32,
            // a descriptor that is borrowed is not negative
            srcfd: fd.as_raw_fd() as u32,
            newfd,
            newfd_flags: cloexec.bits(),
        };
        // SAFETY: the kernel reads one seccomp_notif_addfd, which `request` is, and keeps no pointer to it.
        check(unsafe { libc::ioctl(self.raw(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &request) })
    }
}

/// Tells whether `SECCOMP_IOCTL_NOTIF_RECV` returns when the last guest ends, as it does since Linux 6.11.
fn receiving_sees_the_end() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| is_at_least(rustix::system::uname().release().to_bytes(), (6, 11)))
}

/// Compares a kernel release as uname(2) spells it (`6.11.0-rc1`); what cannot be read counts as old.
fn is_at_least(release: &[u8], wanted: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map_while(|digits| std::str::from_utf8(digits).ok()?.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= wanted,
        _ => false,
    }
}

/// Installs a filter for the calling thread and all it will fork or execute, after giving up the right to gain
/// privilege (`PR_SET_NO_NEW_PRIVS`), and returns the descriptor of its [`Listener`].
///
/// Meant for a process with one thread: other threads go on without the filter. From here on each reported call of
/// this thread waits until somebody answers, so the way by which the listener is handed over must not be reported.
///
/// # Errors
/// - `EINVAL`: the program is empty, longer than 4096 instructions or malformed; or the kernel lacks a flag, which
///   [`check_support`] tells apart.
/// - `EBUSY`: a filter that is already in force has a listener.
/// - `ENOMEM`: all filters together are too long.
pub fn install(program: &[libc::sock_filter]) -> Result<OwnedFd, Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    rustix::thread::set_no_new_privs(true)?;
    // the kernel only reads the program, whatever the type in its header says
    let header = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: `header` describes exactly the memory of `program`, both outlive the call, and the kernel copies them.
    let returned = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, INSTALL_FLAGS, &header) };
    let fd = RawFd::try_from(check(returned)?).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just opened this descriptor for us and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Asks whether the kernel knows every flag that [`install`] uses, without installing anything.
///
/// # Errors
/// - `ENOSYS`: the kernel has no seccomp(2), or something forbids it.
/// - `EINVAL`: the kernel lacks filters or one of the flags; Linux 5.19 has them all.
pub fn check_support() -> Result<(), Errno> {
    // SAFETY: a null program is read by nobody: flags are checked first, then copying the program fails with EFAULT.
    let returned = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            INSTALL_FLAGS,
            std::ptr::null::<libc::sock_fprog>(),
        )
    };
    match check(returned) {
        Err(Errno::FAULT) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(Errno::INVAL),
    }
}

/// Asks the kernel for the sizes of its notification structures.
///
/// # Errors
/// - `ENOSYS`: the kernel has no seccomp(2), or something forbids it.
/// - `EINVAL`: Linux before 5.0.
pub fn notification_sizes() -> Result<NotificationSizes, Errno> {
    let mut raw = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel writes one seccomp_notif_sizes, which `raw` is, and keeps no pointer to it.
    let returned = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &mut raw) };
    if returned != 0 {
        return Err(last_errno());
    }
    Ok(NotificationSizes { notification: raw.seccomp_notif, response: raw.seccomp_notif_resp, data: raw.seccomp_data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_the_kernel_gives_them() {
        let sizes = notification_sizes().unwrap();
        assert_eq!(usize::from(sizes.notification), size_of::<libc::seccomp_notif>());
        assert_eq!(usize::from(sizes.response), size_of::<libc::seccomp_notif_resp>());
        assert_eq!(usize::from(sizes.data), size_of::<libc::seccomp_data>());
    }

    #[test]
    fn fields_stand_where_the_kernel_header_puts_them() {
        use memoffset::offset_of;
        assert_eq!(offset_of!(libc::seccomp_notif, pid), 8);
        assert_eq!(offset_of!(libc::seccomp_notif, data), 16);
        assert_eq!(offset_of!(libc::seccomp_data, arch), 4);
        assert_eq!(offset_of!(libc::seccomp_data, instruction_pointer), 8);
        assert_eq!(offset_of!(libc::seccomp_data, args), 16);
        assert_eq!(offset_of!(libc::seccomp_notif_resp, val), 8);
        assert_eq!(offset_of!(libc::seccomp_notif_resp, error), 16);
        assert_eq!(offset_of!(libc::seccomp_notif_resp, flags), 20);
        assert_eq!(size_of::<libc::seccomp_notif_addfd>(), 24);
        assert_eq!(offset_of!(libc::seccomp_notif_addfd, srcfd), 12);
        assert_eq!(offset_of!(libc::seccomp_notif_addfd, newfd), 16);
    }

    #[test]
    fn this_kernel_has_every_flag() {
        assert_eq!(check_support(), Ok(()));
    }

    #[test]
    fn kernel_releases_compare_by_number() {
        assert!(is_at_least(b"6.11.0-rc1", (6, 11)));
        assert!(is_at_least(b"7.0", (6, 11)));
        assert!(is_at_least(b"6.18.44-fc-v657", (6, 11)));
        assert!(!is_at_least(b"6.9.12", (6, 11)));
        assert!(!is_at_least(b"5.19", (6, 11)));
        assert!(!is_at_least(b"unknown", (6, 11)));
    }
}
