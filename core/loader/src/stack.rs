//! What the kernel has put on the stack for a new program: arguments, environment, auxiliary vector. Made for the
//! loader, it is told anew for the program. Knows nothing of files and mappings.

use crate::plan::{Plan, ENVIRONMENT, IDS, NONE, PRESERVED_ARGV0};

const WORD: u64 = 8;

/// Room for the loader's own frames, when the arrays move below them.
const OWN_FRAMES: u64 = 64 << 10;

/// `AT_*` of linux/auxvec.h.
pub(crate) mod tag {
    pub(crate) const BINARY: u64 = 2;
    pub(crate) const HEADERS: u64 = 3;
    pub(crate) const HEADER_SIZE: u64 = 4;
    pub(crate) const HEADER_COUNT: u64 = 5;
    pub(crate) const BASE: u64 = 7;
    pub(crate) const FLAGS: u64 = 8;
    pub(crate) const ENTRY: u64 = 9;
    pub(crate) const UID: u64 = 11;
    pub(crate) const SECURE: u64 = 23;
    pub(crate) const EXECUTED: u64 = 31;
    pub(crate) const VDSO: u64 = 33;
}

/// The arrays on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Stack {
    /// Where the number of arguments is, and the stack pointer of a new program.
    pub(crate) pointer: u64,
    arguments: u64,
    environment: u64,
    environment_count: u64,
    auxiliary: u64,
    auxiliary_count: u64,
}

/// Where strings begin and end.
pub(crate) struct Range {
    pub(crate) start: u64,
    pub(crate) end: u64,
}

fn word(address: u64) -> u64 {
    // SAFETY: the address is that of a word which the kernel, or this module, has put on the stack.
    unsafe { (address as *const u64).read() }
}

fn put_word(address: u64, value: u64) {
    // SAFETY: the address is that of a word on the stack that belongs to the arrays, and no reference to it exists.
    unsafe { (address as *mut u64).write(value) }
}

fn put_bytes(address: u64, bytes: &[u8]) {
    // SAFETY: there is room for that many bytes on the stack, which overlap with nothing that is referenced.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) }
}

/// Length of a string, without its end.
fn length(string: u64) -> u64 {
    let mut at = string;
    loop {
        // SAFETY: the kernel has put a string there that ends in a zero, and it is not read past that.
        let byte = unsafe { (at as *const u8).read() };
        if byte == 0 {
            return at - string;
        }
        at += 1;
    }
}

impl Stack {
    /// Finds the arrays from the stack pointer of a new program.
    pub(crate) fn at(pointer: u64) -> Self {
        let count_from = |start: u64, step: u64| {
            let mut count = 0;
            while word(start + count * step) != 0 {
                count += 1;
            }
            count
        };
        let arguments = word(pointer);
        let environment = pointer + WORD * (arguments + 2);
        let environment_count = count_from(environment, WORD);
        let auxiliary = environment + WORD * (environment_count + 1);
        let auxiliary_count = count_from(auxiliary, 2 * WORD);
        Self { pointer, arguments, environment, environment_count, auxiliary, auxiliary_count }
    }

    /// The value of an entry of the auxiliary vector.
    pub(crate) fn get(&self, tag: u64) -> Option<u64> {
        self.entry(tag).map(|at| word(at + WORD))
    }

    /// Changes an entry, where there is one.
    pub(crate) fn set(&self, tag: u64, value: u64) {
        if let Some(at) = self.entry(tag) {
            put_word(at + WORD, value);
        }
    }

    fn entry(&self, tag: u64) -> Option<u64> {
        (0..self.auxiliary_count).map(|i| self.auxiliary + 2 * WORD * i).find(|at| word(*at) == tag)
    }

    /// The auxiliary vector with its end, and its size in bytes.
    pub(crate) fn auxiliary(&self) -> (u64, u64) {
        (self.auxiliary, 2 * WORD * (self.auxiliary_count + 1))
    }

    fn argument(&self, index: u64) -> u64 {
        word(self.pointer + WORD * (1 + index))
    }

    /// Where the strings of the arguments are.
    pub(crate) fn argument_strings(&self) -> Range {
        self.strings(self.pointer + WORD, self.arguments, self.pointer)
    }

    /// Where the strings of the environment are.
    pub(crate) fn environment_strings(&self) -> Range {
        self.strings(self.environment, self.environment_count, self.argument_strings().end)
    }

    fn strings(&self, array: u64, count: u64, otherwise: u64) -> Range {
        if count == 0 {
            return Range { start: otherwise, end: otherwise };
        }
        let last = word(array + WORD * (count - 1));
        Range { start: word(array), end: last + length(last) + 1 }
    }

    /// The end of the stack: behind the path that the kernel was given, its end and a word.
    pub(crate) fn top(&self) -> u64 {
        const PAGE: u64 = 4096;
        let path = self.get(tag::EXECUTED).unwrap_or(self.pointer);
        (path + length(path) + 1 + WORD + PAGE - 1) & !(PAGE - 1)
    }

    /// Tells the path that the program was executed by, and the arguments and environment it was really given. The
    /// stack is another one afterwards where there is no room for that.
    pub(crate) fn retell(self, plan: &Plan, path: &[u8], strings: &[u8]) -> Option<Self> {
        let room = self.get(tag::EXECUTED).map_or(0, length);
        let is_as_it_was = plan.prefix_count == 0 && plan.correction_count == 0 && plan.binary == NONE;
        if is_as_it_was && path.len() as u64 <= room {
            self.put_path(self.get(tag::EXECUTED).unwrap_or(0), path);
            return Some(self);
        }
        let (prefix, corrections) = strings.split_at_checked(plan.prefix_size as usize)?;
        let binary = (plan.binary != NONE).then_some(plan.binary);
        Some(self.rebuilt(path, &Told { prefix_count: plan.prefix_count, prefix, corrections, binary }))
    }

    fn put_path(&self, at: u64, path: &[u8]) {
        put_bytes(at, path);
        put_bytes(at + path.len() as u64, &[0]);
        self.set(tag::EXECUTED, at);
    }

    /// Makes the arrays and strings anew, below everything: strings first, arrays under them.
    fn rebuilt(self, path: &[u8], told: &Told<'_>) -> Self {
        let replaced = if told.prefix_count > 0 { 1 } else { 0 };
        let arguments = || (replaced..self.arguments).map(|i| told.string(i, self.argument(i)));
        let environment =
            || (0..self.environment_count).map(|i| told.string(ENVIRONMENT | i, word(self.environment + WORD * i)));
        let strings: usize = arguments().chain(environment()).map(<[u8]>::len).sum();
        let bytes = path.len() as u64 + 1 + (told.prefix.len() + strings) as u64;
        let count = self.arguments - replaced.min(self.arguments) + told.prefix_count;
        let auxiliary_count = self.auxiliary_count + told.binary.map_or(0, |_| 1);
        let words = 1 + count + 1 + self.environment_count + 1 + 2 * (auxiliary_count + 1);
        let pointer = (self.pointer - OWN_FRAMES - bytes - WORD * words) & !15;
        let executed = pointer + WORD * words;
        let mut string = executed + path.len() as u64 + 1;
        let mut slot = pointer;
        let mut put = |value: u64| {
            put_word(slot, value);
            slot += WORD;
        };
        put(count);
        for text in told.prefixes().chain(arguments()) {
            put_bytes(string, text);
            put(string);
            string += text.len() as u64;
        }
        put(0);
        for text in environment() {
            put_bytes(string, text);
            put(string);
            string += text.len() as u64;
        }
        put(0);
        if let Some(binary) = told.binary {
            put(tag::BINARY);
            put(binary);
        }
        for index in 0..2 * (self.auxiliary_count + 1) {
            put(word(self.auxiliary + WORD * index));
        }
        let new = Self::at(pointer);
        new.put_path(executed, path);
        new
    }

    /// Tells where the program and its interpreter are.
    pub(crate) fn tell_objects(&self, plan: &Plan, bias: u64, interpreter_bias: Option<u64>) {
        const HEADER_SIZE: u64 = 56;
        self.set(tag::HEADERS, plan.headers.wrapping_add(bias));
        self.set(tag::HEADER_SIZE, HEADER_SIZE);
        self.set(tag::HEADER_COUNT, plan.header_count);
        self.set(tag::BASE, interpreter_bias.unwrap_or(0));
        self.set(tag::ENTRY, plan.program.entry.wrapping_add(bias));
        if plan.flags & PRESERVED_ARGV0 != 0 {
            const AT_FLAGS_PRESERVE_ARGV0: u64 = 1;
            self.set(tag::FLAGS, AT_FLAGS_PRESERVE_ARGV0);
        }
        if plan.flags & IDS != 0 {
            let [uid, euid, gid, egid, secure] = plan.ids;
            self.set(tag::UID, uid);
            self.set(tag::UID + 1, euid);
            self.set(tag::UID + 2, gid);
            self.set(tag::UID + 3, egid);
            self.set(tag::SECURE, secure);
        }
    }
}

/// What the supervisor tells of the strings.
struct Told<'a> {
    prefix_count: u64,
    prefix: &'a [u8],
    corrections: &'a [u8],
    binary: Option<u64>,
}

impl<'a> Told<'a> {
    /// The strings that come first, each with its end.
    fn prefixes(&self) -> impl Iterator<Item = &'a [u8]> {
        let count = self.prefix_count as usize;
        self.prefix.split_inclusive(|byte| *byte == 0).take(count)
    }

    /// A string with its end: as the supervisor has it, or as the kernel has copied it to an address.
    fn string(&self, index: u64, address: u64) -> &'a [u8] {
        let mut rest = self.corrections;
        while let Some((key, behind)) = rest.split_first_chunk::<8>() {
            let size = behind.iter().position(|byte| *byte == 0).map_or(behind.len(), |end| end + 1);
            let (text, next) = behind.split_at(size);
            if u64::from_ne_bytes(*key) == index {
                return text;
            }
            rest = next;
        }
        let size = length(address) as usize + 1;
        // SAFETY: the kernel has put a string there that ends in a zero; nothing writes to it until the jump.
        unsafe { core::slice::from_raw_parts(address as *const u8, size) }
    }
}
