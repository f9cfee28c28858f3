//! Files that are attended to: what a call is going to read is brought before the kernel does it, and what was written
//! is taken away before it closes. Knows nothing of tracing.
//!
//! Where it is not clear what will be read, or by whom, all is brought: before a file is mapped, and before a descriptor
//! goes to another process.

use std::sync::Arc;

use rustix::fs::OFlags;
use umvu_interface::{Attendant, Errno};
use umvu_sys::redirect::Regs;

use super::transfer::{number, At, Role, Transfer, What};
use crate::call::Call;
use crate::guest;

/// What a call needs.
enum Need {
    /// So many bytes of a file, from an offset or from its position.
    Bytes(i32, Option<u64>, u64),
    /// All of a file.
    All(i32),
    /// All of every file that the process has open.
    Everything,
    /// That a descriptor is closed.
    Closed(i32),
    /// That descriptors with these numbers are closed.
    AllClosed(i32, i32),
}

/// What is to be asked of an attendant before a call.
pub struct Asking {
    attendant: Arc<dyn Attendant>,
    what: Asked,
}

impl Asking {
    fn is_needless(&self) -> bool {
        matches!(self.what, Asked::Fill(start, end) if self.attendant.is_there(start, end))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Fill(u64, u64),
    Close,
}

/// What has come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// The kernel may go on; whether a file may need no attendant any more.
    Well(bool),
    /// The call fails.
    Failed(Errno),
    /// The call is made, and fails.
    ClosedBadly(Errno),
}

/// What is to be asked before a call by a thread.
pub fn before(opener: &Call, tid: u32, regs: &Regs) -> Vec<Asking> {
    if opener.supervisor.controls.attended.is_empty() {
        return Vec::new();
    }
    let all = needs(tid, regs).into_iter().flat_map(|need| askings(opener, tid, &need));
    all.filter(|asking| !asking.is_needless()).collect()
}

/// What is to be asked before calls by a thread that are not understood.
pub fn before_anything(opener: &Call, tid: u32) -> Vec<Asking> {
    match opener.supervisor.controls.attended.is_empty() {
        true => Vec::new(),
        false => askings(opener, tid, &Need::Everything),
    }
}

/// Whether asking may wait for a guest.
pub fn may_wait(askings: &[Asking]) -> bool {
    askings.iter().any(|asking| asking.attendant.may_wait())
}

/// Asks all.
pub fn ask(askings: &[Asking]) -> Done {
    let mut is_done = false;
    for asking in askings {
        let ask = || match asking.what {
            Asked::Fill(start, end) => asking.attendant.fill(start, end),
            Asked::Close => asking.attendant.closes(),
        };
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(ask)).unwrap_or_else(|_| {
            tracing::error!("a file could not be attended to, answered EIO");
            Err(Errno::IO)
        });
        match (answer, asking.what) {
            (Ok(()), _) => is_done |= asking.attendant.is_done(),
            (Err(errno), Asked::Fill(..)) => return Done::Failed(errno),
            (Err(errno), Asked::Close) => return Done::ClosedBadly(errno),
        }
    }
    Done::Well(is_done)
}

fn askings(opener: &Call, tid: u32, need: &Need) -> Vec<Asking> {
    let one = |fd: i32, what: Asked| {
        let attendant = of_descriptor(opener, tid, fd)?;
        Some(Asking { attendant, what })
    };
    let close = |fd: i32| if may_write(tid, fd) { one(fd, Asked::Close) } else { None };
    match *need {
        Need::Bytes(fd, offset, length) => {
            let range = |asking: Asking| {
                let start = offset.or_else(|| position(tid, fd)).unwrap_or(0);
                Asking { what: Asked::Fill(start, start.saturating_add(length)), ..asking }
            };
            one(fd, Asked::Fill(0, 0)).map(range).into_iter().collect()
        }
        Need::All(fd) => one(fd, Asked::Fill(0, u64::MAX)).into_iter().collect(),
        Need::Everything => descriptors(tid).into_iter().filter_map(|fd| one(fd, Asked::Fill(0, u64::MAX))).collect(),
        Need::Closed(fd) => close(fd).into_iter().collect(),
        Need::AllClosed(first, last) => {
            descriptors(tid).into_iter().filter(|fd| (first..=last).contains(fd)).filter_map(close).collect()
        }
    }
}

fn descriptors(tid: u32) -> Vec<i32> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{tid}/fd")) else { return Vec::new() };
    descriptors.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn of_descriptor(opener: &Call, tid: u32, fd: i32) -> Option<Arc<dyn Attendant>> {
    let stat = rustix::fs::stat(format!("/proc/{tid}/fd/{fd}")).ok()?;
    opener.supervisor.controls.attended.get(&(stat.st_dev, stat.st_ino)).map(|file| file.clone())
}

/// A field of proc_pid_fdinfo(5).
fn field(tid: u32, fd: i32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/fdinfo/{fd}")).ok()?;
    Some(text.lines().find_map(|line| line.strip_prefix(name))?.trim().to_owned())
}

/// The position of a descriptor.
fn position(tid: u32, fd: i32) -> Option<u64> {
    field(tid, fd, "pos:")?.parse().ok()
}

/// Whether a descriptor is open for writing.
fn may_write(tid: u32, fd: i32) -> bool {
    let flags = field(tid, fd, "flags:").and_then(|flags| u32::from_str_radix(&flags, 8).ok());
    flags.is_some_and(|flags| !(OFlags::from_bits_retain(flags) & OFlags::ACCMODE).is_empty())
}

/// What a call needs, as its registers say.
fn needs(tid: u32, regs: &Regs) -> Vec<Need> {
    /// `SEEK_DATA` and `SEEK_HOLE` of linux/fs.h, which tell of what is there.
    const LOOKS: std::ops::RangeInclusive<u64> = 3..=4;
    let Some(transfer) = Transfer::of(regs) else { return others(tid, regs) };
    let mut needs = Vec::new();
    for (fd, role) in transfer.descriptors() {
        match (transfer.what(), role) {
            (What::Read(data, at, _) | What::Write(data, at, _), _) => {
                // A call with bad arguments fails whatever is there.
                let Ok(pieces) = data.pieces_of(tid) else { continue };
                let length = pieces.iter().map(|(_, length)| *length as u64).sum();
                let offset = match at {
                    At::Position => None,
                    At::Offset(offset) => Some(u64::try_from(*offset).unwrap_or(0)),
                };
                needs.push(Need::Bytes(fd, offset, length));
            }
            (What::Splice, role) => needs.push(spliced(tid, regs, fd, role)),
            (What::Seek(_, whence), _) if LOOKS.contains(whence) => needs.push(Need::All(fd)),
            (What::Map | What::Allocate | What::Truncate, _) => needs.push(Need::All(fd)),
            (What::Seek(..) | What::Sync, _) => {}
        }
    }
    needs
}

/// What sendfile, splice and copy_file_range need of one of their files.
fn spliced(tid: u32, regs: &Regs, fd: i32, role: Role) -> Need {
    const SENDFILE: u64 = 40;
    let (pointer, length) = match (regs.orig_rax, role) {
        (SENDFILE, Role::From) => (regs.rdx, regs.r10),
        (SENDFILE, _) => (0, regs.r10),
        (_, Role::From) => (regs.rsi, regs.r8),
        (_, _) => (regs.r10, regs.r8),
    };
    let offset = match pointer {
        0 => None,
        pointer => guest::read_array::<8>(tid, pointer).ok().map(u64::from_ne_bytes),
    };
    Need::Bytes(fd, offset, length)
}

/// What calls need that move no bytes themselves.
fn others(tid: u32, regs: &Regs) -> Vec<Need> {
    const IOCTL: u64 = 16;
    const MREMAP: u64 = 25;
    const SENDMSG: u64 = 46;
    const IO_SUBMIT: u64 = 209;
    const REMAP_FILE_PAGES: u64 = 216;
    const SENDMMSG: u64 = 307;
    const CLOSE: u64 = 3;
    const DUP2: u64 = 33;
    const DUP3: u64 = 292;
    const CLOSE_RANGE: u64 = 436;
    const CLOSE_RANGE_CLOEXEC: u64 = 4;
    /// execve, exit, exit_group, execveat.
    const ENDS: [u64; 4] = [59, 60, 231, 322];
    /// `FICLONE`, `FICLONERANGE`, `FIDEDUPERANGE` and `FS_IOC_FIEMAP` of linux/fs.h.
    const SHARES: [u64; 4] = [0x4004_9409, 0x4020_940d, 0xc018_9436, 0xc020_660b];
    let low = |register: u64| number(register).unwrap_or(-1);
    let closes = match regs.orig_rax {
        CLOSE => Some(Need::Closed(low(regs.rdi))),
        DUP2 | DUP3 if low(regs.rdi) != low(regs.rsi) => Some(Need::Closed(low(regs.rsi))),
        CLOSE_RANGE if regs.rdx & CLOSE_RANGE_CLOEXEC == 0 => {
            let end = |register: u64| i32::try_from(register & 0xffff_ffff).unwrap_or(i32::MAX);
            Some(Need::AllClosed(end(regs.rdi), end(regs.rsi)))
        }
        number if ENDS.contains(&number) => Some(Need::AllClosed(0, i32::MAX)),
        _ => None,
    };
    if let Some(closes) = closes {
        return vec![closes];
    }
    let everything = match regs.orig_rax {
        IOCTL => SHARES.contains(&(regs.rsi & 0xffff_ffff)),
        SENDMSG => sends_descriptors(tid, regs.rsi, 1),
        SENDMMSG => sends_descriptors(tid, regs.rsi, regs.rdx & 0xffff_ffff),
        MREMAP | IO_SUBMIT | REMAP_FILE_PAGES => true,
        _ => false,
    };
    if everything {
        vec![Need::Everything]
    } else {
        Vec::new()
    }
}

/// Whether one of some messages carries anything but bytes.
fn sends_descriptors(tid: u32, at: u64, count: u64) -> bool {
    /// `sizeof(struct mmsghdr)`, and where in it `msg_controllen` is.
    const SIZE: u64 = 64;
    const CONTROL_LENGTH: u64 = 40;
    // `UIO_MAXIOV`: sendmmsg(2) takes no more.
    let count = count.min(1024);
    (0..count).any(|index| {
        let at = at.saturating_add(index * SIZE + CONTROL_LENGTH);
        guest::read_array::<8>(tid, at).is_ok_and(|length| u64::from_ne_bytes(length) != 0)
    })
}
