//! Every system call of the kernel, its arguments as data and the tier that takes it.
//!
//! [`for_each_syscall!`] is the only list of calls in the project; [`ROWS`] is the same list as plain data. [`i386`] says
//! which of them the calls of 32-bit programs are.
//! This crate knows names, numbers and shapes. It does not know what a handler answers, how a seccomp
//! program is encoded, or how guest memory is read.

pub mod i386;
mod kind;
pub mod page;
mod rows;
pub mod trace;

pub use kind::Kind;

/// The virtual system call by which the tools speak to the supervisor: outside a view it is `ENOSYS`.
///
/// Its arguments are request pointer, request length, reply buffer and reply capacity; its result is the
/// reply's length or a negated errno.
pub const VU_CALL: u32 = 0x7675;

/// What seccomp calls the entry of 64-bit programs: `AUDIT_ARCH_X86_64` of linux/audit.h.
pub const ARCH_X86_64: u32 = 0xc000_003e;
/// What seccomp calls the entry of 32-bit programs: `AUDIT_ARCH_I386` of linux/audit.h.
pub const ARCH_I386: u32 = 0x4000_0003;

/// Whose numbers the processes of a view have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pids {
    /// The host's alone: the calls that tell them cost what they cost on the host.
    Host,
    /// Those of pid namespaces, too, which a view can make then.
    Namespaces,
}

/// Who takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// The kernel, without leaving it.
    Allow,
    /// The supervisor, if the condition holds; the kernel otherwise.
    Notify(Condition),
    /// The supervisor where processes can be numbered anew; the kernel in all other views.
    Number,
    /// The filter, with this errno, for this reason.
    Refuse(i32, &'static str),
}

/// On which calls a notified row leaves the kernel; the first number is the argument's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// On every call.
    Always,
    /// If the argument, a pointer, is not null.
    NonNull(u8),
    /// If the low 32 bits of the argument are one of these values.
    ///
    /// The kernel's prototypes have an `int` there and ignore the upper half of the register. A filter that compared all 64
    /// bits would let a call slip whose upper half is not zero.
    In(u8, &'static [u64]),
    /// If the argument has any of these bits.
    AnyBits(u8, u64),
}

impl Condition {
    /// Says whether a call with these arguments is notified.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let argument = |index: u8| arguments.get(usize::from(index)).copied().unwrap_or(0);
        match *self {
            Condition::Always => true,
            Condition::NonNull(index) => argument(index) != 0,
            Condition::In(index, values) => values.contains(&(argument(index) & 0xffff_ffff)),
            Condition::AnyBits(index, mask) => argument(index) & mask != 0,
        }
    }
}

/// One system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The number the kernel knows it by.
    pub number: u32,
    /// The kernel's name, without `sys_`.
    pub name: &'static str,
    /// Names and kinds of the arguments, first to last; at most six.
    pub arguments: &'static [(&'static str, Kind)],
    /// Who takes the call.
    pub tier: Tier,
    /// The file of handlers that has the function of this name, for notified calls.
    pub family: Option<&'static str>,
    /// Why the tier is as it is, where that needs saying.
    pub note: Option<&'static str>,
}

/// Finds the row of a call, or `None` if no kernel known here has that number.
pub fn row(number: u32) -> Option<&'static Row> {
    let index = ROWS.binary_search_by_key(&number, |row| row.number).ok()?;
    ROWS.get(index)
}

macro_rules! tier {
    (allow) => {
        Tier::Allow
    };
    (notify $family:ident) => {
        Tier::Notify(Condition::Always)
    };
    (notify $family:ident when_nonnull $index:literal) => {
        Tier::Notify(Condition::NonNull($index))
    };
    (notify $family:ident when_in $index:literal $values:tt) => {
        Tier::Notify(Condition::In($index, &$values))
    };
    (notify $family:ident when_any_bits $index:literal [$mask:literal]) => {
        Tier::Notify(Condition::AnyBits($index, $mask))
    };
    (number $family:ident) => {
        Tier::Number
    };
    (refuse $errno:ident $reason:literal) => {
        Tier::Refuse(linux_raw_sys::errno::$errno as i32, $reason)
    };
    // The note of a row that is not refused is no part of its tier.
    (allow $note:literal) => {
        Tier::Allow
    };
    (notify $family:ident $note:literal) => {
        Tier::Notify(Condition::Always)
    };
}

macro_rules! family {
    (notify $family:ident) => {
        Some(stringify!($family))
    };
    (number $family:ident) => {
        Some(stringify!($family))
    };
    ($tier:ident $($errno:ident)?) => {
        None
    };
}

macro_rules! note {
    () => {
        None
    };
    ($note:literal) => {
        Some($note)
    };
}

macro_rules! rows {
    ($($number:literal $name:ident($($argument:ident: $kind:ident),*) =>
        $tier:ident $($subject:ident)?
        $(when_nonnull $pointer:literal)?
        $(when_in $index:literal [$($value:literal),*])?
        $(when_any_bits $word:literal [$mask:literal])?
        $($note:literal)?;)*
    ) => {
        /// Every call, in ascending order of number.
        pub static ROWS: &[Row] = &[$(Row {
            number: $number,
            name: stringify!($name),
            arguments: &[$((stringify!($argument), Kind::$kind)),*],
            tier: tier!($tier $($subject)?
                $(when_nonnull $pointer)?
                $(when_in $index [$($value),*])?
                $(when_any_bits $word [$mask])?
                $($note)?),
            family: family!($tier $($subject)?),
            note: note!($($note)?),
        }),*];
    };
}

for_each_syscall!(rows);
