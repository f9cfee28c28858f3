//! The calls that move bytes through a descriptor, or its position, as their registers say, and the bytes in the memory
//! of who calls. Knows nothing of tracing, nor of what is behind a descriptor.

use umvu_interface::{Errno, Result};
use umvu_sys::redirect::Regs;

use super::{device, text, Served};
use crate::call::Call;
use crate::guest;

/// A call that moves bytes.
pub struct Transfer {
    what: What,
    /// The descriptors that it names.
    ends: [Option<End>; 2],
}

/// One descriptor of a call.
#[derive(Clone, Copy)]
struct End {
    argument: Argument,
    fd: u64,
    role: Role,
}

/// Which argument a descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// The first.
    First,
    /// The second.
    Second,
    /// The third.
    Third,
    /// The fifth.
    Fifth,
}

impl Argument {
    /// The register that holds it.
    pub fn of<'r>(&self, regs: &'r mut Regs) -> &'r mut u64 {
        match self {
            Self::First => &mut regs.rdi,
            Self::Second => &mut regs.rsi,
            Self::Third => &mut regs.rdx,
            Self::Fifth => &mut regs.r8,
        }
    }
}

/// What a call does with a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Bytes come from it.
    From,
    /// Bytes go to it.
    To,
    /// Neither, or both.
    Own,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Reads, with `RWF_*` flags.
    Read(Data, At, u64),
    /// Writes, with `RWF_*` flags.
    Write(Data, At, u64),
    /// Moves the position: offset and whence.
    Seek(i64, u64),
    /// Waits for the storage.
    Sync,
    /// Maps it.
    Map,
    /// Makes room or holes.
    Allocate,
    /// Sets its size.
    Truncate,
    /// Moves bytes from one descriptor to another.
    Splice,
}

/// Where bytes are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Address and length.
    Bytes(u64, u64),
    /// Address and length of an array of `struct iovec`.
    Vectors(u64, u64),
}

/// Where bytes are in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// At its position, which moves.
    Position,
    /// At an offset.
    Offset(i64),
}

fn signed(register: u64) -> i64 {
    i64::from_ne_bytes(register.to_ne_bytes())
}

/// preadv2(2): -1 stands for the position.
fn at_or_position(register: u64) -> At {
    match signed(register) {
        -1 => At::Position,
        offset => At::Offset(offset),
    }
}

/// The number of a descriptor in a register, of which the kernel takes the low half.
pub fn number(register: u64) -> Option<i32> {
    Some(i32::from_ne_bytes(u32::try_from(register & 0xffff_ffff).ok()?.to_ne_bytes()))
}

impl Transfer {
    /// Reads the registers of a thread that begins a call; `None` for one that does nothing of this.
    pub fn of(regs: &Regs) -> Option<Self> {
        let (one, two, three, four, six) = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r9);
        let bytes = Data::Bytes(two, three);
        let vectors = Data::Vectors(two, three);
        let at = At::Offset(signed(four));
        let what = match regs.orig_rax {
            0 => What::Read(bytes, At::Position, 0),
            1 => What::Write(bytes, At::Position, 0),
            8 => What::Seek(signed(two), three & 0xffff_ffff),
            17 => What::Read(bytes, at, 0),
            18 => What::Write(bytes, at, 0),
            19 => What::Read(vectors, At::Position, 0),
            20 => What::Write(vectors, At::Position, 0),
            // fsync, fdatasync, sync_file_range
            74 | 75 | 277 => What::Sync,
            77 => What::Truncate,
            285 => What::Allocate,
            // preadv, pwritev, and both with flags
            295 => What::Read(vectors, at, 0),
            296 => What::Write(vectors, at, 0),
            327 => What::Read(vectors, at_or_position(four), six & 0xffff_ffff),
            328 => What::Write(vectors, at_or_position(four), six & 0xffff_ffff),
            number => return Self::of_two(number, regs),
        };
        let role = match what {
            What::Read(..) => Role::From,
            What::Write(..) => Role::To,
            _ => Role::Own,
        };
        Some(Self { what, ends: [Some(End { argument: Argument::First, fd: one, role }), None] })
    }

    /// The calls that name their descriptors elsewhere.
    fn of_two(number: u64, regs: &Regs) -> Option<Self> {
        const MAP_ANONYMOUS: u64 = 0x20;
        let first = |role| Some(End { argument: Argument::First, fd: regs.rdi, role });
        let (what, ends) = match number {
            9 if regs.r10 & MAP_ANONYMOUS == 0 => {
                (What::Map, [Some(End { argument: Argument::Fifth, fd: regs.r8, role: Role::Own }), None])
            }
            // sendfile
            40 => {
                let from = End { argument: Argument::Second, fd: regs.rsi, role: Role::From };
                (What::Splice, [first(Role::To), Some(from)])
            }
            // splice, copy_file_range
            275 | 326 => {
                let to = End { argument: Argument::Third, fd: regs.rdx, role: Role::To };
                (What::Splice, [first(Role::From), Some(to)])
            }
            _ => return None,
        };
        Some(Self { what, ends })
    }

    /// The descriptors that it names, and what it does with each.
    pub fn descriptors(&self) -> impl Iterator<Item = (i32, Role)> + '_ {
        let named = self.ends.iter().flatten();
        named.filter_map(|end| Some((number(end.fd)?, end.role)))
    }

    /// What it does.
    pub fn what(&self) -> &What {
        &self.what
    }

    /// Answers the call by a thread if that is done here: what it returns, and which argument must lead nowhere for
    /// the kernel to do nothing.
    pub fn answer(&self, opener: &Call, tid: u32) -> Option<(u64, Argument)> {
        self.ends.iter().flatten().find_map(|end| Some((self.answer_for(opener, tid, *end)?, end.argument)))
    }

    fn answer_for(&self, opener: &Call, tid: u32, end: End) -> Option<u64> {
        let fd = number(end.fd)?;
        let stat = rustix::fs::stat(format!("/proc/{tid}/fd/{fd}")).ok()?;
        let open = opener.supervisor.controls.find(stat.st_dev, stat.st_ino)?;
        let takes = match &open.served {
            Served::Kernel => false,
            Served::Control(_) => end.role == Role::To,
            Served::Device(_) => true,
        };
        if !takes {
            return None;
        }
        let done = caller(opener, tid).and_then(|call| {
            let all = || match &open.served {
                Served::Kernel => Err(Errno::IO),
                Served::Control(control) => text::answer(&call, &**control, &self.what),
                Served::Device(file) => device::answer(&call, file, fd, &self.what),
            };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).unwrap_or_else(|_| {
                tracing::error!(tid, "handler of a transfer failed, answered EIO");
                Err(Errno::IO)
            })
        });
        Some(match done {
            Ok(value) => value,
            Err(errno) => u64::from_ne_bytes((-i64::from(errno.raw_os_error())).to_ne_bytes()),
        })
    }
}

/// The call as one of the thread that makes it.
fn caller(opener: &Call, tid: u32) -> Result<Call> {
    let mut call = opener.clone();
    call.notification.tid = tid;
    call.state = umvu_sys::guest::state_number(tid).and_then(|n| call.supervisor.states.get(n))?;
    Ok(call)
}

impl Data {
    /// The pieces of memory, address and length.
    ///
    /// # Errors
    /// - `EINVAL`: too many, or longer than anything is.
    /// - `EFAULT`: the array is not readable.
    pub fn pieces(&self, call: &Call) -> Result<Vec<(u64, usize)>> {
        self.pieces_of(call.tid())
    }

    /// As [`Data::pieces`], in the memory of a thread.
    pub fn pieces_of(&self, tid: u32) -> Result<Vec<(u64, usize)>> {
        /// `UIO_MAXIOV`.
        const MOST: u64 = 1024;
        /// `MAX_RW_COUNT`.
        const LONGEST: usize = 0x7fff_f000;
        let length = |length: u64| match signed(length) {
            negative if negative < 0 => Err(Errno::INVAL),
            _ => Ok(usize::try_from(length).unwrap_or(usize::MAX)),
        };
        let mut pieces = match *self {
            Self::Bytes(address, size) => vec![(address, length(size)?)],
            Self::Vectors(address, count) => {
                let count = usize::try_from(count).ok().filter(|n| *n as u64 <= MOST).ok_or(Errno::INVAL)?;
                let mut vectors = vec![0; count * 16];
                guest::read_exact(tid, address, &mut vectors)?;
                let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
                let piece = |vector: &[u8]| Ok((word(&vector[..8]), length(word(&vector[8..]))?));
                vectors.chunks_exact(16).map(piece).collect::<Result<_>>()?
            }
        };
        let mut left = LONGEST;
        for (_, size) in &mut pieces {
            *size = (*size).min(left);
            left -= *size;
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs(number: u64) -> Regs {
        Regs {
            r15: 0,
            r14: 0,
            r13: 0,
            r12: 0,
            rbp: 0,
            rbx: 0,
            r11: 0,
            r10: 40,
            r9: 60,
            r8: 50,
            rax: 0,
            rcx: 0,
            rdx: 30,
            rsi: 20,
            rdi: 10,
            orig_rax: number,
            rip: 0,
            cs: 0,
            eflags: 0,
            rsp: 0,
            ss: 0,
            fs_base: 0,
            gs_base: 0,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    #[test]
    fn each_call_says_where_its_bytes_are() {
        let what = |number| Transfer::of(&regs(number)).map(|transfer| transfer.what);
        assert_eq!(what(0), Some(What::Read(Data::Bytes(20, 30), At::Position, 0)));
        assert_eq!(what(18), Some(What::Write(Data::Bytes(20, 30), At::Offset(40), 0)));
        assert_eq!(what(20), Some(What::Write(Data::Vectors(20, 30), At::Position, 0)));
        assert_eq!(what(328), Some(What::Write(Data::Vectors(20, 30), At::Offset(40), 60)));
        assert_eq!(what(39), None);
    }

    #[test]
    fn a_call_with_two_descriptors_has_two_ends() {
        let ends = Transfer::of(&regs(40)).unwrap().ends;
        let roles: Vec<_> = ends.iter().flatten().map(|end| (end.argument, end.fd, end.role)).collect();
        assert_eq!(roles, [(Argument::First, 10, Role::To), (Argument::Second, 20, Role::From)]);
    }
}
