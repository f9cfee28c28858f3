//! Programs that guests execute: whatever a file holds, judging it ends, with an object or an errno.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| umvu_hypervisor::judge_program(bytes));
