//! The calls that write to a descriptor, as their registers say, and their answers. Knows nothing of tracing.

use umvu_interface::{Control, Errno, Result, CONTROL_MAX};
use umvu_sys::redirect::Regs;

use crate::call::Call;
use crate::guest;
use crate::mounting::Below;

/// A call that writes.
pub struct Writing {
    /// Which argument the descriptor is.
    target: Target,
    fd: u64,
    what: What,
}

/// The argument that names the descriptor.
#[derive(Clone, Copy)]
enum Target {
    First,
    Third,
}

enum What {
    /// Some bytes: address and length.
    Bytes(u64, u64),
    /// An array of them, and its length.
    Vectors(u64, u64),
    /// A write that files without a position do not take.
    Refused(Errno),
}

impl Writing {
    /// Reads the registers of a thread that begins a call; `None` for one that does not write.
    pub fn of(regs: &Regs) -> Option<Self> {
        let (first, third) = ((Target::First, regs.rdi), (Target::Third, regs.rdx));
        let ((target, fd), what) = match regs.orig_rax {
            // write, pwrite64
            1 | 18 => (first, What::Bytes(regs.rsi, regs.rdx)),
            // writev, pwritev
            20 | 296 => (first, What::Vectors(regs.rsi, regs.rdx)),
            // pwritev2: do_loop_readv_writev of fs/read_write.c takes no flags but RWF_HIPRI
            328 if regs.r9 & !1 != 0 => (first, What::Refused(Errno::OPNOTSUPP)),
            328 => (first, What::Vectors(regs.rsi, regs.rdx)),
            // sendfile, splice, copy_file_range: there is no way to splice into it
            40 => (first, What::Refused(Errno::INVAL)),
            275 | 326 => (third, What::Refused(Errno::INVAL)),
            _ => return None,
        };
        Some(Self { target, fd, what })
    }

    /// The register that holds the descriptor.
    pub fn descriptor_of<'r>(&self, regs: &'r mut Regs) -> &'r mut u64 {
        match self.target {
            Target::First => &mut regs.rdi,
            Target::Third => &mut regs.rdx,
        }
    }
}

/// Answers a write by a thread if it is one to a control: what the call returns.
pub fn answer(opener: &Call, tid: u32, writing: &Writing) -> Option<u64> {
    // The kernel takes the low half.
    let fd = writing.fd & 0xffff_ffff;
    let stat = rustix::fs::stat(format!("/proc/{tid}/fd/{fd}")).ok()?;
    let open = opener.supervisor.controls.find(stat.st_dev, stat.st_ino)?;
    let control = open.control.as_ref()?;
    let written = writer(opener, tid).and_then(|call| {
        let all = || take(&call, &**control, &writing.what);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).unwrap_or_else(|_| {
            tracing::error!(tid, "handler of a write failed, answered EIO");
            Err(Errno::IO)
        })
    });
    Some(match written {
        Ok(count) => count as u64,
        Err(errno) => u64::from_ne_bytes((-i64::from(errno.raw_os_error())).to_ne_bytes()),
    })
}

/// The call as one of the thread that writes.
fn writer(opener: &Call, tid: u32) -> Result<Call> {
    let mut call = opener.clone();
    call.notification.tid = tid;
    call.state = umvu_sys::guest::state_number(tid).and_then(|n| call.supervisor.states.get(n))?;
    Ok(call)
}

fn take(call: &Call, control: &dyn Control, what: &What) -> Result<usize> {
    match *what {
        What::Refused(errno) => Err(errno),
        What::Bytes(address, length) => one(call, control, address, length),
        What::Vectors(address, count) => {
            /// `UIO_MAXIOV`.
            const MOST: u64 = 1024;
            let count = usize::try_from(count).ok().filter(|n| *n as u64 <= MOST).ok_or(Errno::INVAL)?;
            let mut vectors = vec![0; count * 16];
            guest::read_exact(call.tid(), address, &mut vectors)?;
            let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
            let mut written = 0;
            // Each is a write of its own: do_loop_readv_writev of fs/read_write.c.
            for vector in vectors.chunks_exact(16) {
                let length = word(&vector[8..]);
                match one(call, control, word(&vector[..8]), length) {
                    Err(errno) if written == 0 => return Err(errno),
                    Err(_) => break,
                    Ok(count) => {
                        written += count;
                        if count as u64 != length {
                            break;
                        }
                    }
                }
            }
            Ok(written)
        }
    }
}

fn one(call: &Call, control: &dyn Control, address: u64, length: u64) -> Result<usize> {
    let length = usize::try_from(length).unwrap_or(CONTROL_MAX).min(CONTROL_MAX);
    let mut bytes = vec![0; length];
    guest::read_exact(call.tid(), address, &mut bytes)?;
    call.as_caller(|caller| control.write(caller, &bytes, &Below { call }))
}

/// Whether a thread has a descriptor of a control.
pub fn has_control(call: &Call, tid: u32) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{tid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        let Ok(stat) = rustix::fs::stat(entry.path()) else { return false };
        call.supervisor.controls.find(stat.st_dev, stat.st_ino).is_some_and(|open| open.control.is_some())
    })
}
