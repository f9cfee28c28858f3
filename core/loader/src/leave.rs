//! The end of the loader: it unmaps itself and jumps, which takes a `syscall` instruction in memory that is not its
//! own. The vDSO has some, each followed by the end of a function; the stack is laid out such that this end returns
//! into the program.

use core::arch::asm;

use crate::calls::MUNMAP;

/// How the code behind a `syscall` instruction ends.
struct Ending {
    /// Where the instruction is.
    address: u64,
    /// Stack pointer and frame pointer to have there, so that the end returns to what lies just below the wanted one.
    stack: u64,
    frame: u64,
}

/// Jumps to `entry` with the stack pointer of the program, without the memory of the image if that can be done.
pub(crate) fn leave(entry: u64, stack: u64, vdso: Option<u64>, image: (u64, u64)) -> ! {
    let ending = vdso.and_then(|vdso| find(vdso, stack));
    match ending {
        None => jump(0, [0, 0], entry, stack, 0),
        Some(ending) => {
            // SAFETY: the word below the stack pointer is no frame's that is still returned to.
            unsafe { ((stack - 8) as *mut u64).write(entry) };
            jump(MUNMAP as u64, [image.0, image.1 - image.0], ending.address, ending.stack, ending.frame)
        }
    }
}

/// Sets all registers and jumps: to a program, or to a `syscall` instruction whose arguments are given.
fn jump(number: u64, arguments: [u64; 2], to: u64, stack: u64, frame: u64) -> ! {
    // SAFETY: nothing of the loader is used after this; the registers are those of a new program but for the two
    // arguments, which no program reads: the ABI gives a meaning to rsp, rdx and the flags alone.
    unsafe {
        asm!(
            "mov rsp, r8",
            "mov rbp, r9",
            "xor ebx, ebx",
            "xor r8d, r8d",
            "xor r9d, r9d",
            "xor r10d, r10d",
            "xor r11d, r11d",
            "xor r12d, r12d",
            "xor r13d, r13d",
            "xor r14d, r14d",
            "xor r15d, r15d",
            "jmp rcx",
            in("rax") number,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") 0u64,
            in("rcx") to,
            in("r8") stack,
            in("r9") frame,
            options(noreturn),
        )
    }
}

fn byte(address: u64) -> u8 {
    // SAFETY: the address is within a readable segment of the vDSO, as its own headers say.
    unsafe { (address as *const u8).read() }
}

fn half(address: u64) -> u64 {
    u64::from(byte(address)) | u64::from(byte(address + 1)) << 8
}

fn long(address: u64) -> u64 {
    (0..8).map(|i| u64::from(byte(address + i)) << (8 * i)).sum()
}

/// Looks for a `syscall` instruction with an end that can be used.
fn find(vdso: u64, stack: u64) -> Option<Ending> {
    const LOAD: u64 = 1;
    const HEADER_SIZE: u64 = 56;
    let headers = vdso + long(vdso + 32);
    let count = half(vdso + 56);
    let load = (0..count).map(|i| headers + HEADER_SIZE * i).find(|h| half(*h) == LOAD)?;
    let end = vdso + long(load + 32);
    // What is read behind an instruction must be in the object, too.
    const LONGEST: u64 = 72;
    (vdso..end.saturating_sub(LONGEST))
        .filter(|at| byte(*at) == 0x0f && byte(*at + 1) == 0x05)
        .find_map(|at| ending(at, stack))
}

/// Reads the instructions behind `syscall`: an adjustment of the stack pointer, pops, clearing of registers, a return.
fn ending(address: u64, stack: u64) -> Option<Ending> {
    const MOST: u64 = 20;
    // The return takes the word below the program's stack pointer.
    let mut before = stack - 8;
    let signed = |at: u64| i64::from(i8::from_ne_bytes([byte(at)])) as u64;
    let is_clearing = |operands: u8| {
        let (to, from) = ((operands >> 3) & 7, operands & 7);
        operands >= 0xc0 && to == from && to != 4
    };
    let mut at = address + 2;
    let adjustment = match (byte(at), byte(at + 1), byte(at + 2)) {
        // lea rsp, [rbp + disp8]
        (0x48, 0x8d, 0x65) => {
            at += 4;
            Some((true, signed(at - 1)))
        }
        // add rsp, imm8
        (0x48, 0x83, 0xc4) => {
            at += 4;
            Some((false, signed(at - 1)))
        }
        // leave
        (0xc9, _, _) => {
            at += 1;
            before -= 8;
            Some((true, 0))
        }
        _ => None,
    };
    for _ in 0..MOST {
        match (byte(at), byte(at + 1), byte(at + 2)) {
            // ret
            (0xc3, _, _) => {
                let (stack, frame) = match adjustment {
                    None => (before, 0),
                    Some((true, displacement)) => (before, before.wrapping_sub(displacement)),
                    Some((false, amount)) => (before.wrapping_sub(amount), 0),
                };
                return Some(Ending { address, stack, frame });
            }
            // pop of a high register
            (0x41, 0x58..=0x5f, _) => {
                at += 2;
                before -= 8;
            }
            // pop of another one, but the stack pointer
            (0x58..=0x5b | 0x5d..=0x5f, _, _) => {
                at += 1;
                before -= 8;
            }
            // xor of a high register with itself
            (0x45, 0x31, operands) if operands >= 0xc0 && (operands >> 3) & 7 == operands & 7 => at += 3,
            // xor of another one with itself
            (0x31, operands, _) if is_clearing(operands) => at += 2,
            _ => return None,
        }
    }
    None
}
