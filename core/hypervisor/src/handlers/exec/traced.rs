//! execve of a view's program by a process that somebody else traces: its registers are not ours to change, so the
//! path it gave is overwritten in place, and the strings that lie there with it. Knows nothing of formats and
//! permissions.

use std::os::unix::fs::FileExt;

use umvu_interface::{Errno, Result};
use umvu_loader::plan::ENVIRONMENT;

use crate::call::Call;
use crate::guest;
use crate::redirect::read_pointers;

/// A string that was overwritten: its index as the loader knows it, and what it was.
pub type Correction = (u64, Vec<u8>);

/// Whether strings of the arguments and the environment may be overwritten with the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strings {
    /// No: the kernel passes them on as they are.
    Kept,
    /// Yes: somebody corrects them in the new program.
    Corrected,
    /// Yes: they are put below the stack first, and the kernel finds them there.
    Moved,
}

/// A string that is in the way.
struct Touched {
    /// Its index as the loader knows it.
    index: u64,
    /// Address of the pointer to it.
    pointer: u64,
    text: Vec<u8>,
}

/// Overwrites the path of an execve with another one, and gives the strings that were overwritten with it. If the
/// process shares its memory with its parent, as after vfork(2), the parent finds its own again when it goes on.
///
/// # Errors
/// - `EPERM`: the path does not fit without touching strings that are kept, or their arrays.
pub fn put_path(call: &Call, path: &[u8], strings: Strings) -> Result<Vec<Correction>> {
    let address = call.raw(path_argument(call));
    let room = guest::read_string(call.tid(), address, guest::PATH_MAX)?.len();
    let parent = waiting_parent(call.tid());
    let end = address.saturating_add(path.len() as u64 + 1);
    if path.len() > room && parent.is_some() && strings != Strings::Corrected {
        return Err(Errno::PERM);
    }
    let touched = touched_strings(call, &(address..end))?;
    if strings == Strings::Kept && !touched.is_empty() {
        return Err(Errno::PERM);
    }
    let memory = std::fs::File::options().read(true).write(true).open(format!("/proc/{}/mem", call.tid()));
    let memory = memory.map_err(|_| Errno::PERM)?;
    // What is written where, the path last: without it, nothing has changed.
    let mut pieces = if strings == Strings::Moved { moved(call, &touched)? } else { Vec::new() };
    pieces.push((address, [path, b"\0"].concat()));
    let mut old = Vec::new();
    for (address, bytes) in &pieces {
        let mut there = vec![0; bytes.len()];
        memory.read_exact_at(&mut there, *address).map_err(|_| Errno::PERM)?;
        old.push((*address, there));
    }
    call.check_alive().map_err(|_| Errno::SRCH)?;
    // Not by process_vm_writev: a path in read-only data is private to the process, too.
    for (address, bytes) in &pieces {
        memory.write_all_at(bytes, *address).map_err(|_| Errno::PERM)?;
    }
    if let Some(parent) = parent {
        give_back(parent, memory, old);
    }
    Ok(touched.into_iter().map(|touched| (touched.index, touched.text)).collect())
}

/// What is to be written to have strings below the stack of a thread that is in a call: nothing of the program runs before
/// the kernel has read them.
fn moved(call: &Call, touched: &[Touched]) -> Result<Vec<(u64, Vec<u8>)>> {
    /// Bytes below the stack pointer that belong to leaf functions: the x86-64 ABI.
    const RED_ZONE: u64 = 128;
    if touched.is_empty() {
        return Ok(Vec::new());
    }
    let size: u64 = touched.iter().map(|touched| touched.text.len() as u64 + 1).sum();
    let mut at = stack_pointer(call.tid()).ok_or(Errno::PERM)?.wrapping_sub(RED_ZONE + size);
    let mut pieces = Vec::new();
    for touched in touched {
        pieces.push((at, [&touched.text[..], b"\0"].concat()));
        pieces.push((touched.pointer, at.to_ne_bytes()[..call.request.abi.word_size()].to_vec()));
        at = at.wrapping_add(touched.text.len() as u64 + 1);
    }
    Ok(pieces)
}

/// The stack pointer of a thread that is in a call: proc_pid_syscall(5).
fn stack_pointer(tid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?;
    u64::from_str_radix(text.split_whitespace().nth(7)?.strip_prefix("0x")?, 16).ok()
}

/// Which argument the path is: that of execveat follows a descriptor, which an absolute path has no use for.
fn path_argument(call: &Call) -> usize {
    usize::from(call.request.number() != Some(super::EXECVE))
}

/// The parent, if it waits for the end of a vfork(2) of `tid`.
fn waiting_parent(tid: u32) -> Option<u32> {
    let parent: u32 = stat_field(tid, 1)?.parse().ok()?;
    (stat_field(parent, 0)? == "D").then_some(parent)
}

/// A field of `/proc/PID/stat`, counted from behind the name.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind = text.rsplit(')').next()?;
    behind.split_whitespace().nth(index).map(str::to_owned)
}

/// Writes back what the parent had, once it goes on; the open memory is that of both.
fn give_back(parent: u32, memory: std::fs::File, old: Vec<(u64, Vec<u8>)>) {
    /// How often the parent is looked at in a row: it goes on when the program is there, and that is soon.
    const AT_ONCE: u32 = 1_000;
    let spawned = std::thread::Builder::new().name("give back".into()).stack_size(128 << 10).spawn(move || {
        for round in 0..10_000 {
            if stat_field(parent, 0).is_none_or(|state| state != "D") {
                break;
            }
            if round > AT_ONCE {
                std::thread::sleep(std::time::Duration::from_micros(100));
            }
        }
        for (address, bytes) in old {
            if let Err(error) = memory.write_all_at(&bytes, address) {
                tracing::debug!(parent, %error, "path not given back");
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(parent, %error, "path not given back");
    }
}

/// The arguments and the strings of the environment that lie in `range`.
///
/// # Errors
/// - `EPERM`: one of their arrays does.
/// - `EFAULT`, `E2BIG`: they cannot be read, or passed on.
fn touched_strings(call: &Call, range: &std::ops::Range<u64>) -> Result<Vec<Touched>> {
    let meets = |start: u64, length: u64| start < range.end && range.start < start.saturating_add(length);
    let path = path_argument(call);
    let mut touched = Vec::new();
    for (array, kind) in [(call.raw(path + 1), 0), (call.raw(path + 2), ENVIRONMENT)] {
        let pointers = read_pointers(call, array)?;
        let word = call.request.abi.word_size() as u64;
        if meets(array, word * (pointers.len() as u64 + 1)) {
            return Err(Errno::PERM);
        }
        for (index, pointer) in (0u64..).zip(pointers) {
            // Only what begins before the range's end can reach into it.
            if pointer >= range.end {
                continue;
            }
            let text = guest::read_string(call.tid(), pointer, 128 << 10)?;
            if meets(pointer, text.len() as u64 + 1) {
                touched.push(Touched { index: kind | index, pointer: array.wrapping_add(word * index), text });
            }
        }
    }
    Ok(touched)
}
