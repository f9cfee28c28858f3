//! Has the guest itself make another call than the one it was notified for. Knows no particular call but the one that
//! opens an object again, for descriptors that cannot be handed over.
//!
//! The thread is traced for the moment between our answer and its next instruction, its registers are set so that
//! it makes the other call, and it is let go. That call is notified again; then its arguments are written below
//! the red zone of its stack (not earlier: a signal handler could run in between) and it is continued.

use std::os::fd::{AsRawFd, OwnedFd};

use umvu_interface::{Errno, Result};
use umvu_sys::redirect::{reissue, Entry, Redirect, Regs};
use umvu_sys::seccomp::CloseOnExec;
use umvu_table::i386::{self, Abi};

use crate::call::{Call, Outcome, Reply};

const OPENAT: u32 = 257;

/// Bytes below the stack pointer that belong to leaf functions: the x86-64 ABI.
const RED_ZONE: u64 = 128;

/// A call that is to be made instead.
#[derive(Clone)]
pub struct Instead {
    /// Its number in the table of x86_64; a 32-bit program makes the same call by its own number.
    pub nr: u32,
    /// Its arguments.
    pub arguments: Vec<Argument>,
}

/// An argument of a call that is made instead.
#[derive(Clone)]
pub enum Argument {
    /// A number, or an address that is already there.
    Word(u64),
    /// The address of a NUL-terminated string.
    String(Vec<u8>),
    /// The address of some bytes, as the caller lays them out, into which the addresses of others are put at offsets.
    Bytes(Vec<u8>, Vec<(usize, Vec<u8>)>),
    /// The address of an array of strings that ends in a null pointer.
    Strings(Vec<Element>),
}

/// An element of an array of strings.
#[derive(Clone)]
pub enum Element {
    /// A string that is in the guest's memory.
    There(u64),
    /// A new one.
    New(Vec<u8>),
}

/// A call as it is made in registers, and the memory that they point to.
#[derive(Clone)]
pub struct Laid {
    /// The instruction.
    pub entry: Entry,
    /// The number.
    pub nr: i32,
    /// The registers.
    pub args: [u64; 6],
    /// Where the memory is to be.
    pub address: u64,
    /// What is to be in it.
    pub memory: Vec<u8>,
}

impl Laid {
    /// Changes registers such that the thread makes the call.
    pub fn reissue(&self, regs: &mut Regs) {
        reissue(regs, self.entry, i64::from(self.nr), self.args);
    }
}

/// The instruction by which a call was made.
pub fn entry(call: &Call) -> Entry {
    match call.request.abi {
        Abi::X86_64 => Entry::Syscall,
        Abi::I386(_) => Entry::Int80,
    }
}

/// A call that was reissued and not yet notified.
pub struct Pending {
    laid: Laid,
    then: Then,
}

/// What is done when the call that was made instead is over.
enum Then {
    /// Nothing: it does not return, or its program knows that it was another.
    Nothing,
    /// The program sees its own registers again, with the new result, and a descriptor that was needed is let go.
    Restore(Box<Regs>, Option<OwnedFd>, fn(u64) -> u64),
}

/// Arranges for `instead`.
///
/// # Errors
/// - `E2BIG`: the arguments do not fit.
/// - `EPERM`: the thread is traced by somebody else.
/// - `ESRCH`: it is gone.
pub fn redirect(call: &Call, instead: &Instead) -> Outcome {
    arrange(call, instead, |_| Then::Nothing)
}

/// Arranges for `instead`, and that the program sees nothing of it but the result.
///
/// # Errors
/// As [`redirect`].
pub fn redirect_and_restore(call: &Call, instead: &Instead) -> Outcome {
    redirect_and_show(call, instead, same)
}

/// As [`redirect_and_restore`], and the program sees what `shown` makes of the result.
///
/// # Errors
/// As [`redirect`].
pub fn redirect_and_show(call: &Call, instead: &Instead, shown: fn(u64) -> u64) -> Outcome {
    arrange(call, instead, move |regs| Then::Restore(Box::new(*regs), None, shown))
}

fn same(result: u64) -> u64 {
    result
}

/// Gives the guest an `O_PATH` descriptor of what `fd`, one too, names. The kernel does not let such a one be
/// injected (`fget` in `seccomp_notify_addfd`), so the guest opens our own by its name in `/proc`.
///
/// # Errors
/// As [`redirect`].
pub fn hand_over_path(call: &Call, fd: OwnedFd, cloexec: CloseOnExec) -> Outcome {
    let name = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let mut flags = rustix::fs::OFlags::PATH;
    if cloexec == CloseOnExec::Yes {
        flags |= rustix::fs::OFlags::CLOEXEC;
    }
    let arguments = vec![Argument::Word(0), Argument::String(name.into_bytes()), Argument::Word(flags.bits().into())];
    arrange(call, &Instead { nr: OPENAT, arguments }, |regs| Then::Restore(Box::new(*regs), Some(fd), same))
}

fn arrange(call: &Call, instead: &Instead, then: impl FnOnce(&Regs) -> Then + Send + 'static) -> Outcome {
    let (supervisor, tid, instead) = (call.supervisor.clone(), call.tid(), instead.clone());
    let abi = call.request.abi;
    // Whatever the call returns is never seen: the registers are set before the thread runs on.
    let answer = || call.supervisor.listener.answer(call.notification.id, Err(Errno::NOSYS));
    at_return(call, answer, move |now| {
        let then = then(now);
        let Some(laid) = layout(abi, now.rsp, &instead) else {
            tracing::warn!(tid, "refused a 32-bit call of a 64-bit program: its stack is out of the call's reach");
            return *now;
        };
        let mut regs = *now;
        laid.reissue(&mut regs);
        supervisor.redirected.insert(tid, Pending { laid, then });
        regs
    })
}

/// Answers a call and has the thread go on with other registers than it returns with.
///
/// # Errors
/// - `EPERM`: the thread is traced by somebody else.
/// - `ESRCH`: it is gone.
fn at_return(
    call: &Call,
    answer: impl FnOnce() -> Result<()>,
    change: impl FnOnce(&Regs) -> Regs + Send + 'static,
) -> Outcome {
    let told = |answered: Result<()>| {
        if let Err(errno) = answered {
            tracing::debug!(tid = call.tid(), %errno, "guest gone while its call is redirected");
        }
    };
    // One that is watched for its writes has a tracer already.
    let Some(change) = call.supervisor.controls.at_return(call.tid(), change) else {
        told(answer());
        return Ok(Reply::Answered);
    };
    let _tracing = call.supervisor.tracing.read_recursive();
    let mut thread = Redirect::seize(call.tid())?;
    told(answer());
    let Ok(regs) = thread.wait_stop() else { return Ok(Reply::Answered) };
    let set = thread.set_regs(&change(&regs)).and_then(|()| thread.detach());
    if set.is_err() {
        call.supervisor.redirected.remove(&call.tid());
    }
    told(set);
    Ok(Reply::Answered)
}

/// Has the next notification of the guest continued if it is this call, whose arguments somebody else sees to.
pub fn expect(call: &Call, laid: &Laid) {
    let laid = Laid { address: 0, memory: Vec::new(), ..laid.clone() };
    call.supervisor.redirected.insert(call.tid(), Pending { laid, then: Then::Nothing });
}

/// If the call is one that was arranged for, writes its arguments and has it executed.
pub fn resume(call: &Call) -> Option<Outcome> {
    // Another one is of a signal handler that the thread took first; what was arranged comes later.
    let notified = (entry(call), call.notification.nr, call.notification.args);
    let same = |_: &u32, p: &Pending| (p.laid.entry, p.laid.nr, p.laid.args) == notified;
    let (_, pending) = call.supervisor.redirected.remove_if(&call.tid(), same)?;
    if call.write(pending.laid.address, &pending.laid.memory).is_err() {
        return Some(Err(Errno::TOOBIG.into()));
    }
    Some(match pending.then {
        Then::Nothing => Ok(Reply::Continue),
        Then::Restore(regs, lent, shown) => run_and_restore(call, regs, lent, shown),
    })
}

/// Lets the kernel execute the call, and gives the program its registers back: system calls change no register but
/// that of the result, and compilers rely on it.
fn run_and_restore(call: &Call, own: Box<Regs>, lent: Option<OwnedFd>, shown: fn(u64) -> u64) -> Outcome {
    let answer = || call.supervisor.listener.answer_continue(call.notification.id);
    at_return(call, answer, move |result| {
        drop(lent);
        // Not to be taken for a call that wants a restart.
        Regs { rax: shown(result.rax), orig_rax: u64::MAX, ..*own }
    })
}

/// Lays the memory of the arguments out below the stack; `None` where a 32-bit call cannot reach it.
pub fn layout(abi: Abi, stack: u64, instead: &Instead) -> Option<Laid> {
    let size = abi.word_size();
    let mut memory: Vec<u8> = Vec::new();
    // Offsets in `memory` that hold offsets, to become addresses.
    let mut relative: Vec<usize> = Vec::new();
    let mut words: Vec<(u64, bool)> = Vec::new();
    for argument in &instead.arguments {
        match argument {
            Argument::Word(word) => words.push((*word, false)),
            Argument::String(text) => {
                words.push((memory.len() as u64, true));
                memory.extend_from_slice(text);
                memory.push(0);
            }
            Argument::Bytes(bytes, pointers) => {
                let mut addresses = Vec::new();
                for (_, target) in pointers {
                    addresses.push(memory.len() as u64);
                    memory.extend_from_slice(target);
                    memory.resize(memory.len().next_multiple_of(8), 0);
                }
                let start = memory.len();
                words.push((start as u64, true));
                memory.extend_from_slice(bytes);
                memory.resize(memory.len().next_multiple_of(8), 0);
                for ((at, _), address) in pointers.iter().zip(addresses) {
                    memory[start + at..start + at + size].copy_from_slice(&address.to_ne_bytes()[..size]);
                    relative.push(start + at);
                }
            }
            Argument::Strings(elements) => {
                let mut pointers = Vec::new();
                for element in elements {
                    match element {
                        Element::There(address) => pointers.push((*address, false)),
                        Element::New(text) => {
                            pointers.push((memory.len() as u64, true));
                            memory.extend_from_slice(text);
                            memory.push(0);
                        }
                    }
                }
                memory.resize(memory.len().next_multiple_of(8), 0);
                words.push((memory.len() as u64, true));
                for (value, is_relative) in pointers {
                    if is_relative {
                        relative.push(memory.len());
                    }
                    memory.extend_from_slice(&value.to_ne_bytes()[..size]);
                }
                memory.extend_from_slice(&[0; 8]);
            }
        }
    }
    let address = stack.wrapping_sub(RED_ZONE).wrapping_sub(memory.len() as u64) & !15;
    for at in relative {
        let offset = word_at(abi, &memory[at..]);
        memory[at..at + size].copy_from_slice(&address.wrapping_add(offset).to_ne_bytes()[..size]);
    }
    let mut args = [0; 6];
    for (slot, (value, is_relative)) in args.iter_mut().zip(words) {
        *slot = if is_relative { address.wrapping_add(value) } else { value };
    }
    let nr = i32::try_from(instead.nr).unwrap_or(i32::MAX);
    match abi {
        Abi::X86_64 => Some(Laid { entry: Entry::Syscall, nr, args, address, memory }),
        Abi::I386(_) => {
            u32::try_from(address).ok()?;
            let row = i386::row_of(instead.nr)?;
            let args = row.registers(&args)?.map(u64::from);
            Some(Laid { entry: Entry::Int80, nr: i32::try_from(row.number).ok()?, args, address, memory })
        }
    }
}

/// The pointer at the beginning of some bytes; 0 if there are too few.
pub fn word_at(abi: Abi, bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let size = abi.word_size();
    if let Some(bytes) = bytes.get(..size) {
        word[..size].copy_from_slice(bytes);
    }
    u64::from_le_bytes(word)
}

/// Reads an array of string addresses that ends in a null pointer.
///
/// # Errors
/// - `EFAULT`: not readable.
/// - `E2BIG`: more than a program can be given.
pub fn read_pointers(call: &Call, address: u64) -> Result<Vec<u64>> {
    const MOST: usize = 1 << 18;
    let abi = call.request.abi;
    let size = abi.word_size();
    let mut out = Vec::new();
    if address == 0 {
        return Ok(out);
    }
    let mut at = address;
    loop {
        let page = usize::try_from(4096 - at % 4096).unwrap_or(4096).max(size);
        let bytes = crate::guest::read_some(call.tid(), at, page)?;
        if bytes.len() < size {
            return Err(Errno::FAULT);
        }
        for word in bytes.chunks_exact(size) {
            let pointer = word_at(abi, word);
            if pointer == 0 {
                return Ok(out);
            }
            out.push(pointer);
            at = at.wrapping_add(size as u64);
        }
        if out.len() > MOST {
            return Err(Errno::TOOBIG);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_arrays_are_laid_out_below_the_red_zone() {
        let instead = Instead {
            nr: 59,
            arguments: vec![
                Argument::String(b"/x".to_vec()),
                Argument::Strings(vec![Element::New(b"a".to_vec()), Element::There(7)]),
                Argument::Word(9),
            ],
        };
        let stack = 0x7fff_0000_0000u64;
        let Laid { args, address, memory, .. } = layout(Abi::X86_64, stack, &instead).unwrap();
        assert!(address + memory.len() as u64 + 128 <= stack && address % 16 == 0);
        assert_eq!(args[0], address);
        assert_eq!(args[2], 9);
        let array = usize::try_from(args[1] - address).unwrap();
        let word = |i: usize| u64::from_ne_bytes(memory[array + 8 * i..array + 8 * i + 8].try_into().unwrap());
        assert_eq!((word(0), word(1), word(2)), (address + 3, 7, 0));
        assert_eq!(&memory[..5], b"/x\0a\0");
    }
    #[test]
    fn structures_point_to_what_lies_beside_them() {
        let mut header = vec![0; 24];
        header[16] = 5;
        let instead = Instead {
            nr: 46,
            arguments: vec![Argument::Word(3), Argument::Bytes(header, vec![(8, b"name".to_vec())])],
        };
        let Laid { args, address, memory, .. } = layout(Abi::X86_64, 0x7fff_0000_0000, &instead).unwrap();
        assert_eq!(args[0], 3);
        let header = usize::try_from(args[1] - address).unwrap();
        let pointer = u64::from_ne_bytes(memory[header + 8..header + 16].try_into().unwrap());
        let name = usize::try_from(pointer - address).unwrap();
        assert_eq!((&memory[name..name + 4], memory[header + 16]), (b"name".as_slice(), 5));
    }

    #[test]
    fn calls_of_32_bit_programs_have_their_own_numbers_and_pointers() {
        let instead = Instead {
            nr: 59,
            arguments: vec![
                Argument::String(b"/x".to_vec()),
                Argument::Strings(vec![Element::New(b"a".to_vec()), Element::There(7)]),
                Argument::Word(9),
            ],
        };
        let abi = Abi::I386(i386::Form::Wide);
        let Laid { entry, nr, args, address, memory } = layout(abi, 0xfff0_0000, &instead).unwrap();
        assert_eq!((entry, nr, args[0], args[2]), (Entry::Int80, 11, address, 9));
        let array = usize::try_from(args[1] - address).unwrap();
        let word = |i: usize| word_at(abi, &memory[array + 4 * i..]);
        assert_eq!((word(0), word(1), word(2)), (address + 3, 7, 0));
        assert!(layout(abi, 0x7fff_0000_0000, &instead).is_none());
    }
}
