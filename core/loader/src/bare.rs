//! What a program without a runtime needs beside its functions: the first instruction, its own relocation, the end
//! on a panic, and the functions of memory that the compiler calls by itself.

use core::arch::{asm, global_asm};

// The kernel leaves argc at the stack pointer, which is aligned to 16 bytes; a call keeps that as functions expect.
global_asm!(
    ".globl umvu_loader_start",
    "umvu_loader_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "lea rsi, [rip + __ehdr_start]",
    "lea rdx, [rip + _end]",
    "lea rcx, [rip + _DYNAMIC]",
    "and rsp, -16",
    "call {start}",
    "ud2",
    start = sym relocate_and_start,
);

extern "C" fn relocate_and_start(pointer: u64, image_start: u64, image_end: u64, dynamic: *const [u64; 2]) -> ! {
    relocate(image_start, dynamic);
    crate::start::start(pointer, image_start, image_end)
}

/// Adds the place of the image to the words that hold addresses of it. Until that is done, nothing may be called that
/// the compiler does not call directly.
fn relocate(image: u64, dynamic: *const [u64; 2]) {
    const DT_NULL: u64 = 0;
    const DT_RELA: u64 = 7;
    const DT_RELASZ: u64 = 8;
    const R_X86_64_RELATIVE: u64 = 8;
    let (mut table, mut size) = (0, 0);
    let mut at = dynamic;
    loop {
        // SAFETY: the dynamic section is an array of such pairs that ends in DT_NULL.
        let [tag, value] = unsafe { at.read() };
        match tag {
            DT_NULL => break,
            DT_RELA => table = image + value,
            DT_RELASZ => size = value,
            _ => {}
        }
        at = at.wrapping_add(1);
    }
    for index in 0..size / 24 {
        // SAFETY: the table has that many entries of three words.
        let [offset, kind, addend] = unsafe { (table as *const [u64; 3]).add(index as usize).read() };
        if kind == R_X86_64_RELATIVE {
            // SAFETY: the linker made the entry for a word of the image, in a writable segment.
            unsafe { ((image + offset) as *mut u64).write(image + addend) };
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::start::die()
}

/// Named by the compiled core library, which could unwind; nothing here does.
#[no_mangle]
extern "C" fn rust_eh_personality() {}

#[no_mangle]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    // SAFETY: by the contract of memcpy(3); the direction flag is clear, as the ABI has it.
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    to
}

#[no_mangle]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= count {
        // SAFETY: a copy from the front reads each byte before it is overwritten.
        return unsafe { memcpy(to, from, count) };
    }
    // SAFETY: by the contract of memmove(3), from the back; the direction flag is clear again behind it.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") count => _,
            inout("rdi") to.wrapping_add(count).wrapping_sub(1) => _,
            inout("rsi") from.wrapping_add(count).wrapping_sub(1) => _,
            options(nostack),
        );
    }
    to
}

#[no_mangle]
unsafe extern "C" fn memset(to: *mut u8, value: i32, count: usize) -> *mut u8 {
    // SAFETY: by the contract of memset(3); the direction flag is clear, as the ABI has it.
    unsafe {
        asm!(
            "rep stosb",
            inout("rcx") count => _,
            inout("rdi") to => _,
            in("al") value as u8,
            options(nostack, preserves_flags),
        );
    }
    to
}

#[no_mangle]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    for index in 0..count {
        // SAFETY: by the contract of memcmp(3).
        let left = unsafe { a.add(index).read_volatile() };
        // SAFETY: by the contract of memcmp(3).
        let right = unsafe { b.add(index).read_volatile() };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
    }
    0
}

#[no_mangle]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, count: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, count) }
}
