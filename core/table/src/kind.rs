//! What an argument can be: enough to judge it, fetch what it points to and show it.
//!
//! It does not know any call; rows name a kind for each of their arguments.

/// What one argument is, so that it can be judged and shown.
///
/// Kinds named `Out...` and `InOut...` are pointers the kernel writes through. The length of a [`Kind::Buffer`] or
/// [`Kind::OutBuffer`] is the argument that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[rustfmt::skip]
pub enum Kind {
    /// A file descriptor.
    Fd,
    /// A directory descriptor that a relative path starts from, or `AT_FDCWD`.
    DirFd,
    /// A pointer to a NUL-terminated file name, judged in the view.
    Path,
    /// A pointer to a NUL-terminated string that names no file of the caller's.
    CString,
    /// A pointer to a NULL-terminated array of pointers to strings.
    Strings,
    /// A pointer to a NULL-terminated array of strings of which the number matters most.
    Environment,
    /// A pointer to bytes the kernel reads, as many as the next argument says.
    Buffer,
    /// A pointer to bytes the kernel writes, at most as many as the next argument says.
    OutBuffer,
    /// A pointer to room for a NUL-terminated file name the kernel writes, as long as the next argument says.
    OutPath,
    /// A pointer to a structure the kernel reads.
    InStruct,
    /// A pointer to a structure the kernel writes.
    OutStruct,
    /// A pointer to a structure the kernel reads and writes.
    InOutStruct,
    /// A pointer to a `struct timespec` the kernel reads.
    InTimespec,
    /// A pointer to a `struct open_how`, as long as the next argument says.
    OpenHow,
    /// A pointer to a socket address the kernel reads, as long as the next argument says.
    SocketAddress,
    /// An address in the caller's memory that is not dereferenced as a structure.
    Address,
    /// A count of bytes or elements, 64 bits.
    Size,
    /// A count of bytes in a C `int`.
    IntSize,
    /// A signed file offset.
    Offset,
    /// A C `int`.
    Int,
    /// A C `long`.
    Long,
    /// A C `unsigned int`.
    U32,
    /// A C `unsigned long`.
    U64,
    /// 32 bits best read in hexadecimal: flags without names here.
    Hex32,
    /// 64 bits best read in hexadecimal.
    Hex,
    /// A process, thread or process group.
    Pid,
    /// A user.
    Uid,
    /// A group.
    Gid,
    /// A signal number.
    Signal,
    /// A device number in the kernel's 32-bit encoding.
    Device,
    /// A clock.
    Clock,
    /// An `RLIMIT_*` resource.
    Resource,
    /// An `F_*` command.
    FcntlCommand,
    /// A `PR_*` option.
    PrctlOption,
    /// An address family.
    SocketDomain,
    /// A socket type with `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
    SocketKind,
    /// `SEEK_*`.
    Whence,
    /// `O_*`.
    OpenFlags,
    /// `O_CLOEXEC` and `O_NONBLOCK`, under whatever name a call gives them.
    DescriptorFlags,
    /// Permission bits.
    Mode,
    /// File type and permission bits.
    NodeMode,
    /// `R_OK`, `W_OK`, `X_OK`, `F_OK`.
    AccessMode,
    /// `AT_*` as most calls take them.
    AtFlags,
    /// `AT_*` of `faccessat2`, where 0x200 is `AT_EACCESS`.
    AccessFlags,
    /// `AT_*` of `unlinkat`, where 0x200 is `AT_REMOVEDIR`.
    UnlinkFlags,
    /// `AT_*` of `name_to_handle_at`, where 0x200 is `AT_HANDLE_FID`.
    HandleFlags,
    /// `OPEN_TREE_*` with `AT_*`.
    OpenTreeFlags,
    /// `RENAME_*`.
    RenameFlags,
    /// `XATTR_*`.
    XattrFlags,
    /// `MS_*`.
    MountFlags,
    /// `MNT_*` and `UMOUNT_*`.
    UmountFlags,
    /// `CLONE_*` of `clone`, with the exit signal in the low byte.
    CloneFlags,
    /// `CLONE_*` of `unshare` and `setns`, where 0x80 is `CLONE_NEWTIME`.
    NamespaceFlags,
    /// `PROT_*`.
    Protection,
    /// `MAP_*`.
    MapFlags,
}
