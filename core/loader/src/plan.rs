//! What the supervisor tells the loader: a [`Plan`], its segments and its strings, one after the other. All numbers
//! are words of 64 bits in the byte order of the machine, so that any bytes are a plan, if a senseless one.

/// First argument of the execve(2) by which the loader asks for its plan: no address, so the kernel knows nothing
/// by it, and a filter that lets programs be executed lets it through. The other arguments are the address of a
/// buffer and its size; the result is the size of the plan.
pub const ASK: u64 = 0x756d_7675_706c_616e;

/// Bytes in the loader's buffer: as many segments as two objects can have, and some strings.
pub const CAPACITY: usize = 256 << 10;

/// In place of a descriptor: there is none.
pub const NONE: u64 = u64::MAX;

/// Bit of [`Plan::flags`]: the program wants its stack to be executable.
pub const EXECUTABLE_STACK: u64 = 1;
/// Bit of [`Plan::flags`]: addresses are chosen at random where the process does not forbid it.
pub const RANDOMIZE: u64 = 2;
/// Bit of [`Plan::flags`]: [`Plan::ids`] replace those of the kernel.
pub const IDS: u64 = 4;
/// Bit of [`Plan::flags`]: the kernel would have found too late that the program cannot be loaded.
pub const DOOMED: u64 = 8;
/// Bit of [`Plan::flags`]: the interpreter of a foreign format gets the program's own first argument.
pub const PRESERVED_ARGV0: u64 = 32;
/// Bit of [`Plan::flags`]: the break is randomized too (`kernel.randomize_va_space` is 2).
pub const RANDOMIZE_BREAK: u64 = 16;

/// Bit of the index of a corrected string: it is one of the environment.
pub const ENVIRONMENT: u64 = 1 << 63;

/// Where an object is put.
pub mod placement {
    /// At the addresses it names.
    pub const FIXED: u64 = 0;
    /// Where the kernel puts position-independent programs that have an interpreter.
    pub const PROGRAM: u64 = 1;
    /// Where there is room: interpreters, and position-independent programs without one.
    pub const ANYWHERE: u64 = 2;
}

/// An ELF object. Addresses are those that its headers name.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// One of [`placement`].
    pub placement: u64,
    /// Descriptor, or [`NONE`] for no object.
    pub fd: u64,
    /// Number of its segments.
    pub segments: u64,
    /// Where it begins to run.
    pub entry: u64,
    /// Lowest address, rounded down to a page.
    pub low: u64,
    /// Highest address, rounded up to a page.
    pub high: u64,
    /// Largest alignment of a segment, at least a page.
    pub alignment: u64,
}

/// A part of an object that is mapped.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Address.
    pub address: u64,
    /// Offset in the file; the same as the address within a page.
    pub offset: u64,
    /// Bytes from the file.
    pub file_size: u64,
    /// Bytes in memory; what is behind those of the file is zero.
    pub memory_size: u64,
    /// `PROT_*`.
    pub protection: u64,
}

/// What to load, and what to tell of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// [`EXECUTABLE_STACK`] and others.
    pub flags: u64,
    /// The program.
    pub program: Object,
    /// Its interpreter.
    pub interpreter: Object,
    /// Descriptor, or [`NONE`], of what the program is the interpreter of: `AT_EXECFD`.
    pub binary: u64,
    /// Address of the program headers.
    pub headers: u64,
    /// Their number.
    pub header_count: u64,
    /// Start of the code, as `fs/binfmt_elf.c` has it.
    pub start_code: u64,
    /// Its end.
    pub end_code: u64,
    /// Start of the data.
    pub start_data: u64,
    /// Its end.
    pub end_data: u64,
    /// End of everything, rounded up to a page: where the break is without randomization.
    pub start_break: u64,
    /// Random numbers: for the place of the program, and of the break.
    pub random: [u64; 2],
    /// `AT_UID`, `AT_EUID`, `AT_GID`, `AT_EGID`, `AT_SECURE`.
    pub ids: [u64; 5],
    /// Name of the process, ended by zeroes.
    pub name: [u64; 2],
    /// Bytes of the path the program was executed by, which follows the segments, without its end.
    pub path_size: u64,
    /// Number of strings that follow the path and come in place of the first argument; 0: it stays.
    pub prefix_count: u64,
    /// Their bytes, each with a zero behind it.
    pub prefix_size: u64,
    /// Number of strings that follow those and come in place of others: each is a word, the index of an argument, or
    /// that of a string of the environment with [`ENVIRONMENT`], and the string with a zero behind it.
    pub correction_count: u64,
}

macro_rules! words {
    ($type:ty) => {
        impl $type {
            /// Gives it as bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8] {
                let length = core::mem::size_of::<Self>();
                // SAFETY: the structure is made of 64-bit words alone, so all of its bytes are initialized.
                unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), length) }
            }
        }
    };
}

words!(Plan);
words!(Segment);
