//! Strings and structures in a guest's memory, fetched for show and written as C would write them.
//!
//! It does not know how memory is read, and it never fails: what cannot be read is shown as its address.

use std::fmt::Write;

use crate::i386::Abi;

/// Reads guest memory at an address into the buffer and says how much it got, or `None` if the address is bad.
pub type Memory<'a> = &'a dyn Fn(u64, &mut [u8]) -> Option<usize>;

/// Longest string or buffer shown.
pub const STRING_LIMIT: usize = 64;
/// Longest file name the kernel takes, with its NUL; names are shown whole.
const PATH_LIMIT: usize = 4096;
/// Reads never cross a multiple of this, so that an unmapped page spoils only itself.
const PAGE: u64 = 4096;
/// Most bytes read at once in search of a string's end: most strings are short.
const STEP: usize = 256;
/// Most elements of an array of strings shown.
const STRINGS_LIMIT: u64 = 32;
/// Most elements of an array of strings counted.
const COUNT_LIMIT: u64 = 65536;

/// Shows an address, null as `NULL`.
pub(super) fn address(address: u64) -> String {
    if address == 0 {
        return "NULL".to_owned();
    }
    format!("{address:#x}")
}

/// Reads as much as is there of so many bytes.
fn read(memory: Memory, start: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let Some(at) = after(start, filled) else { break };
        let to_page_end = usize::try_from(PAGE - at % PAGE).unwrap_or(length);
        let end = length.min(filled + to_page_end);
        let Some(chunk) = bytes.get_mut(filled..end) else { break };
        let wanted = chunk.len();
        // A reader that claims more than it was asked for is not believed.
        let got = memory(at, chunk).unwrap_or(0).min(wanted);
        filled += got;
        if got < wanted {
            break;
        }
    }
    bytes.truncate(filled);
    bytes
}

/// The address so many bytes further, or `None` past the end of all addresses.
fn after(start: u64, offset: usize) -> Option<u64> {
    start.checked_add(u64::try_from(offset).ok()?)
}

/// Reads exactly so many bytes.
pub(super) fn exactly<const N: usize>(memory: Memory, start: u64) -> Option<[u8; N]> {
    read(memory, start, N).try_into().ok()
}

/// Shows a NUL-terminated file name whole.
pub(super) fn path(memory: Memory, start: u64) -> String {
    terminated(memory, start, PATH_LIMIT)
}

/// Shows a NUL-terminated string, cut at [`STRING_LIMIT`].
pub(super) fn string(memory: Memory, start: u64) -> String {
    terminated(memory, start, STRING_LIMIT)
}

/// Shows a NUL-terminated string, cut at the limit.
fn terminated(memory: Memory, start: u64, limit: usize) -> String {
    let mut bytes = Vec::new();
    while start != 0 && bytes.len() <= limit {
        let wanted = STEP.min(limit + 1 - bytes.len());
        let chunk = after(start, bytes.len()).map(|at| read(memory, at, wanted)).unwrap_or_default();
        if let Some(end) = chunk.iter().position(|byte| *byte == 0) {
            bytes.extend(chunk.iter().take(end));
            return quote(&bytes, limit);
        }
        if chunk.len() < wanted {
            return address(start);
        }
        bytes.extend(chunk);
    }
    if start == 0 {
        return address(start);
    }
    quote(&bytes, limit)
}

/// Shows so many bytes, cut at [`STRING_LIMIT`].
pub(super) fn buffer(memory: Memory, start: u64, length: u64) -> String {
    let wanted = usize::try_from(length).unwrap_or(usize::MAX).min(STRING_LIMIT + 1);
    if start == 0 {
        return address(start);
    }
    let bytes = read(memory, start, wanted);
    if bytes.len() < wanted {
        return address(start);
    }
    quote(&bytes, STRING_LIMIT)
}

/// Shows a NULL-terminated array of strings.
pub(super) fn strings(memory: Memory, abi: Abi, start: u64) -> String {
    if start == 0 {
        return address(start);
    }
    let mut shown = Vec::new();
    for index in 0..STRINGS_LIMIT {
        match element(memory, abi, start, index) {
            Some(0) => return format!("[{}]", shown.join(", ")),
            Some(pointer) => shown.push(string(memory, pointer)),
            None if index == 0 => return address(start),
            None => break,
        }
    }
    format!("[{}, ...]", shown.join(", "))
}

/// Shows the address of a NULL-terminated array and how many elements it has.
pub(super) fn count(memory: Memory, abi: Abi, start: u64) -> String {
    let shown = address(start);
    if start == 0 {
        return shown;
    }
    for index in 0..COUNT_LIMIT {
        match element(memory, abi, start, index) {
            Some(0) if index == 1 => return format!("{shown} /* 1 var */"),
            Some(0) => return format!("{shown} /* {index} vars */"),
            Some(_) => {}
            None => break,
        }
    }
    shown
}

/// Reads one pointer of an array.
fn element(memory: Memory, abi: Abi, start: u64, index: u64) -> Option<u64> {
    let size = u64::try_from(abi.word_size()).ok()?;
    let at = start.checked_add(index.checked_mul(size)?)?;
    match abi {
        Abi::X86_64 => exactly(memory, at).map(u64::from_ne_bytes),
        Abi::I386(_) => exactly(memory, at).map(u32::from_ne_bytes).map(u64::from),
    }
}

/// Writes bytes as a C string literal; of more than the limit, the first ones and `...`.
pub(super) fn quote(bytes: &[u8], limit: usize) -> String {
    let mut text = String::from("\"");
    let shown = bytes.get(..limit).unwrap_or(bytes);
    for (index, byte) in shown.iter().enumerate() {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\r' => text.push_str("\\r"),
            0x0b => text.push_str("\\v"),
            0x0c => text.push_str("\\f"),
            b' '..=b'~' => text.push(char::from(*byte)),
            // The short octal form, unless a digit follows and would be read as part of it.
            _ => {
                let digit_follows = shown.get(index + 1).is_some_and(u8::is_ascii_digit);
                let written = if digit_follows { write!(text, "\\{byte:03o}") } else { write!(text, "\\{byte:o}") };
                written.expect("writing to a string does not fail");
            }
        }
    }
    text.push('"');
    if bytes.len() > limit {
        text.push_str("...");
    }
    text
}
