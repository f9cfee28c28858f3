//! The system calls that the loader makes: each returns what the kernel does, errors as small negative numbers.

use core::arch::asm;

const PREAD: usize = 17;
const MMAP: usize = 9;
const MPROTECT: usize = 10;
pub(crate) const MUNMAP: usize = 11;
const CLOSE: usize = 3;
const EXECVE: usize = 59;
const PERSONALITY: usize = 135;
const PRCTL: usize = 157;

pub(crate) const PROT_NONE: u64 = 0;
pub(crate) const PROT_READ: u64 = 1;
pub(crate) const PROT_WRITE: u64 = 2;
pub(crate) const PROT_EXEC: u64 = 4;
pub(crate) const PROT_GROWSDOWN: u64 = 0x0100_0000;
pub(crate) const MAP_PRIVATE: u64 = 0x02;
pub(crate) const MAP_FIXED: u64 = 0x10;
pub(crate) const MAP_ANONYMOUS: u64 = 0x20;
pub(crate) const MAP_NORESERVE: u64 = 0x4000;
pub(crate) const MAP_FIXED_NOREPLACE: u64 = 0x10_0000;

pub(crate) const EPERM: u64 = 1;

/// Makes a system call.
///
/// # Safety
/// The call must touch no memory that Rust relies on.
unsafe fn call(number: usize, arguments: [u64; 6]) -> u64 {
    let [a, b, c, d, e, f] = arguments;
    let result: u64;
    // SAFETY: the kernel changes rax, rcx and r11, and the memory that the caller vouches for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The errno of a result, if it is one.
pub(crate) fn error(result: u64) -> Option<u64> {
    let errno = result.wrapping_neg();
    (1..4096).contains(&errno).then_some(errno)
}

/// Asks the supervisor for the plan: execve(2) with [`crate::plan::ASK`].
pub(crate) fn ask(buffer: *mut u8, capacity: u64) -> u64 {
    // SAFETY: the supervisor writes to the buffer, whose owner looks at it only afterwards.
    unsafe { call(EXECVE, [crate::plan::ASK, buffer as u64, capacity, 0, 0, 0]) }
}

/// mmap(2).
///
/// # Safety
/// With `MAP_FIXED`, nothing in the range may be in use.
pub(crate) unsafe fn map(address: u64, length: u64, protection: u64, flags: u64, fd: u64, offset: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe { call(MMAP, [address, length, protection, flags, fd, offset]) }
}

/// munmap(2).
///
/// # Safety
/// Nothing in the range may be in use.
pub(crate) unsafe fn unmap(address: u64, length: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe { call(MUNMAP, [address, length, 0, 0, 0, 0]) }
}

/// mprotect(2).
///
/// # Safety
/// What the loader still does with the range must be allowed by the new protection.
pub(crate) unsafe fn protect(address: u64, length: u64, protection: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe { call(MPROTECT, [address, length, protection, 0, 0, 0]) }
}

/// pread64(2).
///
/// # Safety
/// The memory is writable, and no reference to it exists.
pub(crate) unsafe fn read(fd: u64, address: u64, length: u64, offset: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe { call(PREAD, [fd, address, length, offset, 0, 0]) }
}

/// close(2).
pub(crate) fn close(fd: u64) {
    // SAFETY: the number is passed by value; a mapping of the file stays.
    unsafe { call(CLOSE, [fd, 0, 0, 0, 0, 0]) };
}

/// What personality(2) says without changing it; nothing if it is refused.
pub(crate) fn personality() -> u64 {
    const ASK_ONLY: u64 = 0xffff_ffff;
    // SAFETY: the number is passed by value.
    let told = unsafe { call(PERSONALITY, [ASK_ONLY, 0, 0, 0, 0, 0]) };
    if error(told).is_some() {
        0
    } else {
        told
    }
}

/// prctl(2) with an option that reads memory at most.
pub(crate) fn control(option: u64, arguments: [u64; 4]) -> u64 {
    let [a, b, c, d] = arguments;
    // SAFETY: the kernel writes to none of our memory.
    unsafe { call(PRCTL, [option, a, b, c, d, 0]) }
}
