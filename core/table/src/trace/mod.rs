//! A call and its result as one line, the way strace writes them.
//!
//! It does not know which calls exist (a [`Row`] says what the arguments are), how guest memory is read, or
//! where the line goes.

mod memory;
mod names;
mod scalars;
mod structures;

pub use memory::{Memory, STRING_LIMIT};

use crate::i386::Abi;
use crate::{Kind, Row};
use names::{flags, name};
use scalars::{creates, hexadecimal, int, low, named, typed};

/// Formats a call, as `openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC)`.
///
/// What the kernel writes is shown if `result` says that it has been written, and as an address before. File names
/// are shown whole, other strings up to [`STRING_LIMIT`] bytes. What cannot be read is shown as its address.
pub fn call(row: &Row, arguments: &[u64; 6], memory: Memory, result: Option<i64>) -> String {
    format!("{}({})", row.name, shown(Call { row, abi: Abi::X86_64, arguments, memory, result }))
}

/// As [`call`], for a call of a 32-bit program, which has a name of its own: `i386:stat64("/etc/passwd", 0xff8f3c40)`.
pub fn call_of_i386(
    name: &str,
    abi: Abi,
    row: &Row,
    arguments: &[u64; 6],
    memory: Memory,
    result: Option<i64>,
) -> String {
    format!("i386:{name}({})", shown(Call { row, abi, arguments, memory, result }))
}

fn shown(call: Call) -> String {
    let shown: Vec<String> = (0..call.row.arguments.len()).filter_map(|index| call.argument(index)).collect();
    shown.join(", ")
}

/// Formats a call that no row declares, as `syscall_0x1f4(0x1, 0x2, 0x3, 0, 0, 0)`.
pub fn unknown(number: u32, arguments: &[u64; 6]) -> String {
    format!("syscall_{number:#x}({})", arguments.map(hexadecimal).join(", "))
}

/// Formats what a call returned, as `3`, `0x7f0012345000` or `-1 ENOENT (No such file or directory)`.
pub fn result(row: &Row, value: i64) -> String {
    if let Ok(errno @ 1..=4095) = i32::try_from(value.saturating_neg()) {
        return match errno_name(errno) {
            Some(name) => format!("-1 {name} ({})", errno_message(errno)),
            None => format!("-1 (errno {errno})"),
        };
    }
    match row.name {
        "mmap" | "mremap" | "brk" | "shmat" | "map_shadow_stack" => format!("{value:#x}"),
        "umask" => format!("0{value:02o}"),
        _ => value.to_string(),
    }
}

/// Returns the kernel's name of an error, as `ENOENT`.
pub fn errno_name(errno: i32) -> Option<&'static str> {
    name(names::ERRORS, u64::try_from(errno).ok()?)
}

/// Returns what libc says of an error, as `No such file or directory`.
fn errno_message(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let suffix = format!(" (os error {errno})");
    text.strip_suffix(&suffix).unwrap_or(&text).to_owned()
}

/// One call on its way into text.
struct Call<'a> {
    row: &'a Row,
    abi: Abi,
    arguments: &'a [u64; 6],
    memory: Memory<'a>,
    result: Option<i64>,
}

impl Call<'_> {
    /// The register of an argument; a row has no more than there are registers.
    fn value(&self, index: usize) -> u64 {
        self.arguments.get(index).copied().unwrap_or(0)
    }

    /// The length that follows a pointer argument.
    fn length_after(&self, index: usize) -> u64 {
        match self.row.arguments.get(index + 1) {
            Some((_, Kind::IntSize | Kind::U32)) => u64::from(low(self.value(index + 1))),
            _ => self.value(index + 1),
        }
    }

    /// How much of an output buffer the call has filled, or `None` if it has not.
    fn written(&self, index: usize) -> Option<u64> {
        let result = u64::try_from(self.result?).ok()?;
        Some(result.min(self.length_after(index)))
    }

    /// Shows an argument, or `None` if the call does not look at it.
    fn argument(&self, index: usize) -> Option<String> {
        let (_, kind) = self.row.arguments.get(index)?;
        let value = self.value(index);
        let word = u64::from(low(value));
        Some(match kind {
            Kind::Path => memory::path(self.memory, value),
            Kind::CString => memory::string(self.memory, value),
            Kind::Strings => memory::strings(self.memory, self.abi, value),
            Kind::Environment => memory::count(self.memory, self.abi, value),
            Kind::Buffer => memory::buffer(self.memory, value, self.length_after(index)),
            Kind::OutBuffer => match self.written(index) {
                Some(length) => memory::buffer(self.memory, value, length),
                None => memory::address(value),
            },
            Kind::OutPath if self.written(index).is_some() => memory::path(self.memory, value),
            Kind::OutPath | Kind::InStruct | Kind::OutStruct | Kind::InOutStruct | Kind::Address => {
                memory::address(value)
            }
            Kind::InTimespec => structures::timespec(self.memory, value),
            Kind::OpenHow => structures::open_how(self.memory, value, self.length_after(index)),
            Kind::SocketAddress => structures::socket_address(self.memory, value, self.length_after(index)),
            Kind::Fd | Kind::Int | Kind::Pid | Kind::IntSize => int(value).to_string(),
            Kind::DirFd => scalars::directory(value),
            Kind::Size | Kind::U64 => value.to_string(),
            Kind::Offset | Kind::Long => i64::from_ne_bytes(value.to_ne_bytes()).to_string(),
            Kind::U32 => word.to_string(),
            Kind::Hex32 => hexadecimal(word),
            Kind::Hex => hexadecimal(value),
            Kind::Uid | Kind::Gid => scalars::identity(value),
            Kind::Signal => scalars::signal(low(value)),
            Kind::Device => scalars::device(low(value)),
            Kind::Clock => named(names::CLOCKS, value),
            Kind::Resource => named(names::RESOURCES, value),
            Kind::FcntlCommand => named(names::FCNTL, value),
            Kind::PrctlOption => named(names::PRCTL, value),
            Kind::SocketDomain => named(names::DOMAINS, value),
            Kind::Whence => named(names::WHENCE, value),
            Kind::SocketKind => typed(word, names::SOCKET_KINDS, names::SOCKET_FLAGS),
            Kind::OpenFlags => scalars::open_flags(word),
            Kind::DescriptorFlags => flags(word, &[names::DESCRIPTOR]),
            Kind::Mode if self.mode_is_ignored(index) => return None,
            Kind::Mode => scalars::mode(low(value)),
            Kind::NodeMode => scalars::node_mode(low(value)),
            Kind::AccessMode => scalars::access_mode(word),
            Kind::AtFlags => flags(word, &[names::AT]),
            Kind::AccessFlags => flags(word, &[names::AT, names::AT_ACCESS]),
            Kind::UnlinkFlags => flags(word, &[names::AT, names::AT_UNLINK]),
            Kind::HandleFlags => flags(word, &[names::AT, names::AT_HANDLE]),
            Kind::OpenTreeFlags => flags(word, &[names::AT, names::OPEN_TREE]),
            Kind::RenameFlags => flags(word, &[names::RENAME]),
            Kind::XattrFlags => flags(word, &[names::XATTR]),
            Kind::MountFlags => scalars::mount_flags(value),
            Kind::UmountFlags => flags(word, &[names::UMOUNT]),
            Kind::CloneFlags => scalars::clone_flags(value),
            Kind::NamespaceFlags => flags(word, &[names::CLONE, names::NAMESPACE_TIME]),
            Kind::Protection => scalars::protection(value),
            Kind::MapFlags => typed(value, names::MAP_TYPES, names::MAP),
        })
    }

    /// The kernel looks at the mode of an open call only if it may create a file: fs/open.c, build_open_how.
    fn mode_is_ignored(&self, index: usize) -> bool {
        let Some(before) = index.checked_sub(1) else { return false };
        let follows_flags = matches!(self.row.arguments.get(before), Some((_, Kind::OpenFlags)));
        follows_flags && !creates(u64::from(low(self.value(before))))
    }
}
