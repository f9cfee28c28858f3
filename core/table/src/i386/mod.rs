//! The calls of 32-bit programs (`int 0x80`, `sysenter`), as calls of x86_64.
//!
//! It knows which x86_64 call one is, and how its words become arguments. It does not know how structures lie in
//! memory, nor what a handler answers.

mod rows;

use std::sync::LazyLock;

pub use rows::ROWS;

use crate::{Condition, Kind, Tier};

/// Which generation of structures and numbers a call takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// That of the first Linux: `struct __old_kernel_stat`, `struct oldold_utsname`, one directory entry at a time.
    First,
    /// 16-bit ids, and sizes, offsets and times of 32 bits: `struct stat`, `struct statfs`, `struct linux_dirent`.
    Narrow,
    /// 32-bit ids, and sizes, offsets and times of 64 bits where there is a form with them: `struct stat64`.
    ///
    /// Pointers and C `long`s in structures are 32 bits all the same.
    Wide,
}

/// How the caller of a system call lays out what its arguments point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// As 64-bit programs do.
    X86_64,
    /// As 32-bit programs do.
    I386(Form),
}

impl Abi {
    /// Bytes of a pointer, a `size_t` and a C `long`.
    pub fn word_size(self) -> usize {
        match self {
            Abi::X86_64 => 8,
            Abi::I386(_) => 4,
        }
    }

    /// Whether users and groups have 16 bits.
    pub fn has_short_ids(self) -> bool {
        matches!(self, Abi::I386(Form::First | Form::Narrow))
    }
}

/// Where an argument of the x86_64 call comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The word of this index.
    One(u8),
    /// Two words, the lower half first.
    Two(u8, u8),
}

/// What an i386 call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The kernel's own.
    Native,
    /// The filter answers it with this errno.
    Refused(i32),
    /// A call of x86_64.
    Call {
        /// Its name.
        name: &'static str,
        /// What its structures look like.
        form: Form,
        /// Its arguments; without a list, the words as they stand.
        words: Option<&'static [Word]>,
    },
    /// One of several calls of x86_64: the first word says which, the second where in memory its words are.
    Multiplexed(&'static [(u32, &'static str)]),
}

/// One i386 system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The number the kernel knows it by.
    pub number: u32,
    /// The kernel's name, without `sys_`.
    pub name: &'static str,
    /// What it is.
    pub meaning: Meaning,
    /// Why it is so, where that needs saying.
    pub note: Option<&'static str>,
}

/// Finds the row of a call, or `None` if no kernel known here has that number.
pub fn row(number: u32) -> Option<&'static Row> {
    let index = ROWS.binary_search_by_key(&number, |row| row.number).ok()?;
    ROWS.get(index)
}

/// Finds the i386 call that is an x86_64 call in its newest form.
///
/// A program that makes the x86_64 call through it needs arguments of 32 bits: [`Row::registers`].
pub fn row_of(number: u32) -> Option<&'static Row> {
    let wanted = crate::row(number)?;
    ROWS.iter()
        .rev()
        .find(|row| matches!(row.meaning, Meaning::Call { name, form: Form::Wide, .. } if name == wanted.name))
}

fn named(name: &str) -> Option<&'static crate::Row> {
    static BY_NAME: LazyLock<Vec<&'static crate::Row>> = LazyLock::new(|| {
        let mut rows: Vec<_> = crate::ROWS.iter().collect();
        rows.sort_unstable_by_key(|row| row.name);
        rows
    });
    let index = BY_NAME.binary_search_by_key(&name, |row| row.name).ok()?;
    BY_NAME.get(index).copied()
}

impl Row {
    /// The call of x86_64 that it is, if it is one.
    pub fn call(&self) -> Option<&'static crate::Row> {
        match self.meaning {
            Meaning::Call { name, .. } => named(name),
            _ => None,
        }
    }

    /// The call of x86_64 that it is with this first word, if it is one of several.
    pub fn multiplexed(&self, first: u32) -> Option<&'static crate::Row> {
        let Meaning::Multiplexed(calls) = self.meaning else { return None };
        calls.iter().find(|(value, _)| *value == first).and_then(|(_, name)| named(name))
    }

    /// Who takes the call; a condition is one on its words.
    pub fn tier(&self) -> Tier {
        match self.meaning {
            Meaning::Native => Tier::Allow,
            Meaning::Refused(errno) => Tier::Refuse(errno, self.note.unwrap_or_default()),
            Meaning::Call { name, words, .. } => match named(name).map(|row| row.tier) {
                Some(Tier::Notify(condition)) => Tier::Notify(on_words(condition, words)),
                Some(tier) => tier,
                None => Tier::Notify(Condition::Always),
            },
            Meaning::Multiplexed(_) => Tier::Notify(Condition::In(0, self.notified_values())),
        }
    }

    /// The first words with which one of several calls is notified.
    fn notified_values(&self) -> &'static [u64] {
        static VALUES: LazyLock<Vec<u64>> = LazyLock::new(|| {
            let calls = ROWS.iter().filter_map(|row| match row.meaning {
                Meaning::Multiplexed(calls) => Some(calls),
                _ => None,
            });
            let is_native = |name: &str| named(name).is_some_and(|row| row.tier == Tier::Allow);
            calls.flatten().filter(|(_, name)| !is_native(name)).map(|(value, _)| u64::from(*value)).collect()
        });
        &VALUES
    }

    /// The arguments of the x86_64 call that these words mean.
    ///
    /// Offsets of the older forms are signed; their 16-bit ids become 32-bit ones, and the one that means "none" too.
    pub fn arguments(&self, words: &[u32; 6]) -> [u64; 6] {
        let Meaning::Call { form, words: listed, .. } = self.meaning else { return words.map(u64::from) };
        let kinds = self.call().map_or([].as_slice(), |row| row.arguments);
        let word = |index: u8| words.get(usize::from(index)).copied().unwrap_or(0);
        let mut arguments = [0; 6];
        for (index, argument) in arguments.iter_mut().enumerate() {
            let from = match listed {
                None => u8::try_from(index).ok().map(Word::One),
                Some(listed) => listed.get(index).copied(),
            };
            *argument = match from {
                None => 0,
                Some(Word::Two(low, high)) => u64::from(word(low)) | u64::from(word(high)) << 32,
                Some(Word::One(at)) => widened(kinds.get(index).map(|(_, kind)| *kind), form, word(at)),
            };
        }
        arguments
    }

    /// The words by which a program makes the x86_64 call with these arguments, or `None` where one does not fit.
    pub fn registers(&self, arguments: &[u64; 6]) -> Option<[u32; 6]> {
        let Meaning::Call { words: listed, .. } = self.meaning else { return None };
        let mut words = [0; 6];
        for (index, argument) in arguments.iter().enumerate() {
            let place = match listed {
                None => Word::One(u8::try_from(index).ok()?),
                Some(listed) => match listed.get(index) {
                    Some(place) => *place,
                    None => continue,
                },
            };
            match place {
                Word::One(at) => *words.get_mut(usize::from(at))? = u32::try_from(*argument).ok()?,
                Word::Two(low, high) => {
                    *words.get_mut(usize::from(low))? = u32::try_from(argument & 0xffff_ffff).ok()?;
                    *words.get_mut(usize::from(high))? = u32::try_from(argument >> 32).ok()?;
                }
            }
        }
        Some(words)
    }
}

/// A word as an argument of 64 bits.
fn widened(kind: Option<Kind>, form: Form, word: u32) -> u64 {
    match kind {
        Some(Kind::Uid | Kind::Gid) if Abi::I386(form).has_short_ids() => u64::from(long_id(word & 0xffff)),
        Some(Kind::Offset) => {
            let signed = i64::from(i32::from_ne_bytes(word.to_ne_bytes()));
            u64::from_ne_bytes(signed.to_ne_bytes())
        }
        _ => u64::from(word),
    }
}

/// An id of 16 bits as one of 32: `low2highuid` of linux/highuid.h.
pub fn long_id(short: u32) -> u32 {
    if short == 0xffff {
        u32::MAX
    } else {
        short
    }
}

/// An id of 32 bits as one of 16, which for a larger one is that of "nobody": `high2lowuid` of linux/highuid.h.
pub fn short_id(long: u32) -> u16 {
    const OVERFLOW: u16 = 65534;
    u16::try_from(long).unwrap_or(OVERFLOW)
}

/// A condition on arguments as one on the words they come from.
fn on_words(condition: Condition, words: Option<&'static [Word]>) -> Condition {
    let Some(words) = words else { return condition };
    let word = |index: u8| match words.get(usize::from(index)) {
        Some(Word::One(at)) => Some(*at),
        _ => None,
    };
    let moved = match condition {
        Condition::Always => Some(Condition::Always),
        Condition::NonNull(index) => word(index).map(Condition::NonNull),
        Condition::In(index, values) => word(index).map(|index| Condition::In(index, values)),
        Condition::AnyBits(index, mask) => word(index).map(|index| Condition::AnyBits(index, mask)),
    };
    moved.unwrap_or(Condition::Always)
}
