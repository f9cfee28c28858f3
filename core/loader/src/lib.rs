//! The loader: a freestanding program that a guest executes in place of one that the kernel would not find by
//! itself. It asks the supervisor for a plan and two descriptors, maps program and interpreter as `fs/binfmt_elf.c`
//! does, tells the kernel and the new program the truth about both, removes itself and jumps.
//!
//! The crate is compiled twice from the same sources: as a library, which holds the [`plan`] that the supervisor
//! writes and the compiled [`IMAGE`], and by `build.rs` as that image, with the cfg `freestanding`.
//!
//! Architecture invariant: nothing is judged here. What the supervisor did not find good has failed before the old
//! program was lost; what fails here ends the process with `SIGSEGV`, as a late failure of execve(2) does.
//!
//! Rules of the image, which runs before any runtime does:
//!
//! - No allocation, no floating point, no thread-local variables, no panic on any path that can be reached.
//! - Nothing before `bare::relocate` that goes through an address in data.
//! - Memory other than the stack and the one buffer of the plan is touched through raw pointers alone, each in a block
//!   of its own that says why the address is good; the addresses come from the kernel or the supervisor.
//! - Every system call is made in `calls`; the rest is arithmetic that wraps where the kernel's would be checked.

#![no_std]
#![cfg_attr(freestanding, no_main)]
#![cfg_attr(not(freestanding), allow(dead_code))]
#![deny(unsafe_op_in_unsafe_fn)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![warn(missing_docs)]

#[cfg(freestanding)]
mod bare;
mod calls;
mod leave;
mod map;
pub mod plan;
mod stack;
mod start;

/// The loader as an ELF executable.
#[cfg(not(freestanding))]
pub const IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/image"));

#[cfg(test)]
mod tests {
    use super::*;

    fn word(at: usize, size: usize) -> u64 {
        IMAGE[at..at + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    #[test]
    fn the_image_is_what_the_kernel_runs_by_itself() {
        const ET_DYN: u64 = 3;
        const PT_INTERP: u64 = 3;
        const PT_GNU_STACK: u64 = 0x6474_e551;
        assert_eq!((&IMAGE[..4], word(16, 2)), (&b"\x7fELF"[..], ET_DYN));
        let headers = (0..word(56, 2)).map(|i| (word(32, 8) + 56 * i) as usize);
        for header in headers {
            assert_ne!(word(header, 4), PT_INTERP);
            let is_executable = word(header + 4, 4) & 1 != 0;
            assert!(word(header, 4) != PT_GNU_STACK || !is_executable);
        }
    }

    #[test]
    fn the_image_is_small() {
        // There is one for each program that runs.
        assert!(IMAGE.len() < 16 << 10, "{} bytes", IMAGE.len());
    }
}
