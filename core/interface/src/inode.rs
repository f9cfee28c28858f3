//! A file tree as the view sees it: objects and what can be done with them.
//!
//! Architecture invariant: an [`Inode`] never resolves paths, follows symbolic links, crosses mounts or judges
//! permissions of a faked identity; the hypervisor does, before it calls. An implementation checks what a file
//! system checks in Linux (types, existence, space) in the order of `fs/namei.c` once the parents are locked.

use std::any::Any;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bitflags::bitflags;
use rustix::fs::OFlags;

use crate::{
    Acl, Attendant, BlockDevice, Caller, Credentials, Ending, Errno, MountError, Name, OpenDevice, Program,
    ProgramClaim, Result, TextFile,
};

/// A shared inode.
pub type InodeRef = Arc<dyn Inode>;

/// Type of a file; the discriminant is the `S_IFMT` part of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum FileKind {
    Fifo = 0o010_000,
    CharDevice = 0o020_000,
    Directory = 0o040_000,
    BlockDevice = 0o060_000,
    Regular = 0o100_000,
    Symlink = 0o120_000,
    Socket = 0o140_000,
}

impl FileKind {
    /// The type in an `st_mode`, if it is one Linux knows.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Some(match mode & 0o170_000 {
            0o010_000 => Self::Fifo,
            0o020_000 => Self::CharDevice,
            0o040_000 => Self::Directory,
            0o060_000 => Self::BlockDevice,
            0o100_000 => Self::Regular,
            0o120_000 => Self::Symlink,
            0o140_000 => Self::Socket,
            _ => return None,
        })
    }

    /// The `S_IFMT` bits.
    pub fn bits(self) -> u32 {
        self as u32
    }

    /// The `d_type` of getdents64(2).
    pub fn dirent_type(self) -> u8 {
        u8::try_from(self.bits() >> 12).unwrap_or(0)
    }
}

/// A point in time: seconds and nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

/// Metadata of an inode, as statx(2) gives it.
#[derive(Clone, Debug, Default)]
pub struct Stat {
    /// Device that holds the inode, as encoded by makedev(3).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Type and permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node, as encoded by makedev(3).
    pub rdev: u64,
    /// Size in bytes.
    pub size: u64,
    /// Preferred I/O size in bytes.
    pub blksize: u32,
    /// Allocated 512-byte units.
    pub blocks: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation, where the file system records it.
    pub btime: Option<Timestamp>,
    /// `STATX_ATTR_*` bits.
    pub attributes: u64,
    /// Which of the `STATX_ATTR_*` bits are supported.
    pub attributes_mask: u64,
}

impl Stat {
    /// The type of the file; a regular file where the bits are none that Linux knows.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode).unwrap_or(FileKind::Regular)
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }
}

/// Numbers of a file system, as statfs(2) gives them.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct FsStat {
    pub magic: u64,
    pub block_size: u64,
    pub blocks: u64,
    pub blocks_free: u64,
    pub blocks_available: u64,
    pub files: u64,
    pub files_free: u64,
    pub fsid: [i32; 2],
    pub name_max: u64,
    pub fragment_size: u64,
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct DirEntry {
    /// Name, without `.` and `..`.
    pub name: Box<[u8]>,
    /// Inode number as [`Inode::stat`] of the entry gives it.
    pub ino: u64,
    /// Type, as `d_type`; 0 when not known.
    pub dirent_type: u8,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Left as it is.
    Keep,
    /// The current time.
    Now,
    /// The time given.
    At(Timestamp),
}

/// What to change about an inode; `None` and [`SetTime::Keep`] leave things as they are.
#[derive(Clone, Copy, Debug)]
pub struct SetAttr {
    /// New permission bits (07777).
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New size in bytes.
    pub size: Option<u64>,
    /// New time of last access.
    pub atime: SetTime,
    /// New time of last modification.
    pub mtime: SetTime,
}

impl SetAttr {
    /// Whether nothing is to change but the time of the last change: chown(2) without ids.
    pub fn is_empty(&self) -> bool {
        let Self { mode, uid, gid, size, atime, mtime } = self;
        let numbers = mode.is_none() && uid.is_none() && gid.is_none() && size.is_none();
        numbers && *atime == SetTime::Keep && *mtime == SetTime::Keep
    }
}

impl Default for SetAttr {
    fn default() -> Self {
        Self { mode: None, uid: None, gid: None, size: None, atime: SetTime::Keep, mtime: SetTime::Keep }
    }
}

/// A new object; `mode` holds permission bits (07777) with the umask already applied unless the parent has a
/// default ACL, in which case the kernel applies the ACL instead.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Creation<'a> {
    Regular {
        mode: u32,
    },
    Directory {
        mode: u32,
    },
    Symlink {
        target: &'a [u8],
    },
    Fifo {
        mode: u32,
    },
    Socket {
        mode: u32,
    },
    /// A socket that somebody holds: the object is made by `bind`, and is the end that others connect to.
    BoundSocket {
        mode: u32,
        bind: &'a dyn BindSocket,
    },
    /// `rdev` as encoded by makedev(3). Character device 0:0 is a whiteout, which every user may make.
    CharDevice {
        mode: u32,
        rdev: u64,
    },
    BlockDevice {
        mode: u32,
        rdev: u64,
    },
}

/// Binds a socket to a new name: what makes the object of [`Creation::BoundSocket`].
pub trait BindSocket: Sync + std::fmt::Debug {
    /// Binds it to `name` in a directory of the host; `mode` holds permission bits (07777).
    ///
    /// # Errors
    /// - `EEXIST`: the name exists.
    /// - `EINVAL`: the socket has a name.
    /// - others as mknod(2).
    fn bind(&self, directory: BorrowedFd<'_>, name: &Name, mode: u32) -> Result<()>;
}

/// What kind of entry a removal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveKind {
    /// unlink(2): `EISDIR` for a directory.
    File,
    /// rmdir(2): `ENOTDIR` for anything else.
    Directory,
}

bitflags! {
    /// Flags of renameat2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RenameFlags: u32 {
        /// `EEXIST` if the new name exists.
        const NOREPLACE = 1;
        /// The two objects change places.
        const EXCHANGE = 2;
        /// A whiteout is left at the old name.
        const WHITEOUT = 4;
    }
}

/// How an extended attribute is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSet {
    /// Created or replaced.
    Any,
    /// `EEXIST` if it exists.
    Create,
    /// `ENODATA` if it does not.
    Replace,
}

/// An opened object that is not a directory.
#[derive(Debug)]
pub enum Opened {
    /// A real descriptor, handed to the guest as it is.
    File(OwnedFd),
    /// A text that was made for the one who opens it.
    Text(TextFile),
    /// A device whose calls are answered one by one.
    Device(Arc<dyn OpenDevice>),
    /// A real descriptor of a file that is attended to.
    Attended(OwnedFd, Arc<dyn Attendant>),
}

impl Opened {
    /// Gives the descriptor of a file, when all of it is there.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: it is none.
    /// - what its content could not be brought for.
    pub fn into_file(self) -> Result<OwnedFd> {
        match self {
            Self::File(fd) => Ok(fd),
            Self::Attended(fd, attendant) => {
                attendant.fill(0, u64::MAX)?;
                Ok(fd)
            }
            Self::Text(_) | Self::Device(_) => Err(Errno::OPNOTSUPP),
        }
    }
}

/// One object of a file tree. What a kind of objects cannot do has a default that says so, and what would change one
/// is refused with its [`Inode::refusal`].
pub trait Inode: Send + Sync + Any {
    /// For an implementation to find its own kind again (rename and link take two inodes).
    fn as_any(&self) -> &dyn Any;

    /// The file system it belongs to.
    fn filesystem(&self) -> Arc<dyn Filesystem>;

    /// Gives the metadata that guests see.
    fn stat(&self) -> Result<Stat>;

    /// Gives the type; implementations override it where it is cheaper than [`Inode::stat`].
    fn kind(&self) -> Result<FileKind> {
        Ok(self.stat()?.kind())
    }

    /// Gives (device, inode number) as [`Inode::stat`] shows them; two inodes are the same iff these are equal.
    fn id(&self) -> Result<(u64, u64)> {
        let stat = self.stat()?;
        Ok((stat.dev, stat.ino))
    }

    /// Finds an entry of a directory. Symbolic links are not followed.
    ///
    /// # Errors
    /// - `ENOTDIR`: not a directory.
    /// - `ENOENT`: no such entry.
    fn lookup(&self, name: &Name) -> Result<InodeRef>;

    /// What a change of an object that takes none is refused with.
    fn refusal(&self) -> Errno {
        Errno::PERM
    }

    /// Finds a descendant of a directory at once: `path` is relative, has no empty, `.` or `..` components, and
    /// no prefix of it (the whole path excepted) may be a symbolic link.
    ///
    /// # Errors
    /// - `ELOOP`: a component other than the last is a symbolic link, or the implementation has no fast way:
    ///   the caller walks the components instead.
    /// - `ENOTDIR`, `ENOENT`, `EACCES`, `ENAMETOOLONG`: as path_resolution(7).
    fn lookup_path(&self, path: &[u8]) -> Result<InodeRef> {
        let _ = path;
        Err(Errno::LOOP)
    }

    /// Gives the parent of a directory; a root of a file system gives itself.
    fn parent(&self) -> Result<InodeRef>;

    /// Gives the path of this object from the root of its file system: no leading slash, empty for the root.
    ///
    /// # Errors
    /// - `ENOENT`: the object has been removed.
    fn path(&self) -> Result<Vec<u8>>;

    /// Opens an object that is not a directory and not a symbolic link, without creating. `flags` has no
    /// `O_CREAT` and `O_PATH`, and `O_EXCL` only for a block device, which it claims for who opens it; the descriptor is
    /// close-on-exec on the supervisor's side.
    fn open(&self, caller: &Caller<'_>, flags: OFlags) -> Result<Opened>;

    /// Makes a new entry in a directory.
    ///
    /// # Errors
    /// - `EEXIST`: the name exists.
    /// - `ENOENT`: the directory has been removed.
    /// - `EROFS`, `ENOSPC`, `EDQUOT`, `EPERM`: as mknod(2), mkdir(2), symlink(2).
    fn create(&self, caller: &Caller<'_>, name: &Name, what: &Creation<'_>) -> Result<InodeRef> {
        let _ = (caller, name, what);
        Err(self.refusal())
    }

    /// Makes a new regular file and opens it, at once; [`Inode::create`]'s errors.
    fn create_open(&self, caller: &Caller<'_>, name: &Name, mode: u32, flags: OFlags) -> Result<(InodeRef, Opened)> {
        let _ = (caller, name, mode, flags);
        Err(self.refusal())
    }

    /// Makes an unnamed regular file (`O_TMPFILE`) in a directory and opens it.
    ///
    /// # Errors
    /// - `EOPNOTSUPP`: not supported.
    fn tmpfile(&self, caller: &Caller<'_>, mode: u32, flags: OFlags) -> Result<Opened> {
        let _ = (caller, mode, flags);
        Err(Errno::OPNOTSUPP)
    }

    /// Reads the target of a symbolic link.
    ///
    /// # Errors
    /// - `EINVAL`: not a symbolic link.
    fn readlink(&self) -> Result<Vec<u8>> {
        Err(Errno::INVAL)
    }

    /// Makes a hard link `name` in this directory to `target`.
    ///
    /// # Errors
    /// - `EEXIST`: the name exists.
    /// - `EXDEV`: `target` is of another file system.
    /// - `EPERM`: `target` is a directory.
    fn link(&self, caller: &Caller<'_>, name: &Name, target: &InodeRef) -> Result<()> {
        let _ = (caller, name, target);
        Err(self.refusal())
    }

    /// Removes an entry of this directory.
    fn remove(&self, caller: &Caller<'_>, name: &Name, kind: RemoveKind) -> Result<()> {
        let _ = (caller, name, kind);
        Err(self.refusal())
    }

    /// Renames an entry of this directory to `new_name` in `new_directory`.
    ///
    /// # Errors
    /// - `EXDEV`: `new_directory` is of another file system.
    /// - others as rename(2).
    fn rename(
        &self,
        caller: &Caller<'_>,
        name: &Name,
        new_directory: &InodeRef,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        let _ = (caller, name, new_directory, new_name, flags);
        Err(self.refusal())
    }

    /// Changes mode, owner, size or times. Set-id bits that Linux drops on a change of owner are the caller's
    /// business and are part of `change`.
    fn set_attr(&self, caller: &Caller<'_>, change: &SetAttr) -> Result<()> {
        let _ = (caller, change);
        Err(self.refusal())
    }

    /// Reads an extended attribute whole.
    ///
    /// # Errors
    /// - `ENODATA`: no such attribute.
    /// - `ENOTSUP`: not supported.
    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let _ = name;
        Err(Errno::OPNOTSUPP)
    }

    /// Sets an extended attribute.
    fn set_xattr(&self, caller: &Caller<'_>, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let _ = (caller, name, value, how);
        Err(Errno::OPNOTSUPP)
    }

    /// Gives the names of the extended attributes.
    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    /// Removes an extended attribute; [`Inode::get_xattr`]'s errors.
    fn remove_xattr(&self, caller: &Caller<'_>, name: &[u8]) -> Result<()> {
        let _ = (caller, name);
        Err(Errno::OPNOTSUPP)
    }

    /// Gives the access control list by which others than the owner are judged, if there is one and the view is to
    /// judge by it.
    fn access_acl(&self) -> Result<Option<Acl>> {
        Ok(None)
    }

    /// Lists a directory: a snapshot without `.` and `..`.
    ///
    /// # Errors
    /// - `ENOTDIR`: not a directory.
    /// - `ENOENT`: the directory has been removed.
    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        Err(Errno::NOTDIR)
    }

    /// Gives the `O_PATH` descriptor of the host's object that now stands behind this inode, if there is one:
    /// what is executed, connected to, watched, or handed out for `O_PATH`.
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Makes the object one of the host's, in a writable place, before something changes it behind the view's
    /// back (bind of a socket, a shared mapping): what copy-up is in a union. Nothing to do for most.
    fn make_writable(&self, caller: &Caller<'_>) -> Result<()> {
        let _ = caller;
        Ok(())
    }

    /// Whether the kernel's own checks on the host's objects answer for the permissions of a caller with the
    /// host's identity; otherwise the view checks the metadata shown.
    fn kernel_checks(&self) -> bool {
        false
    }
}

/// A mounted file system.
pub trait Filesystem: Send + Sync + Any {
    /// For an implementation to find its own kind again.
    fn as_any(&self) -> &dyn Any;

    /// Gives the root.
    fn root(&self) -> InodeRef;

    /// Gives the numbers that statfs(2) shows for `inode`.
    fn statfs(&self, inode: &dyn Inode) -> Result<FsStat>;

    /// Options as `/proc/mounts` shows them beside the mount flags, without a leading comma.
    fn options(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Finds the path, from the root of this file system, of a host object that it handed out: what
    /// `/proc/PID/fd/N` and `/proc/PID/exe` show for it. `host_path` is the host's own path of it.
    fn path_of_host(&self, host_path: &[u8]) -> Option<Vec<u8>> {
        let _ = host_path;
        None
    }

    /// Whether what lies at a path of the host can only have been reached through this file system: whoever runs or maps
    /// it uses this one.
    fn is_own_host_path(&self, host_path: &[u8]) -> bool {
        let _ = host_path;
        false
    }

    /// Gives, for a regular file that was opened through this file system, the metadata guests see: `host` is
    /// an open descriptor of it.
    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat>;

    /// Finds the inode of a host object that is open or `O_PATH`: what fchmod(2) and the like act upon, also when
    /// the object has no name any more.
    ///
    /// # Errors
    /// - `ENOENT`: it is not, or no longer, an object of this file system.
    fn inode_of_open(&self, host: OwnedFd) -> Result<InodeRef> {
        drop(host);
        Err(Errno::NOENT)
    }

    /// Whether a user may look at anything in it at all.
    fn admits(&self, who: &Credentials) -> bool {
        let _ = who;
        true
    }

    /// Writes back what is not on the host yet.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Whether what guests write reaches it only later: then [`Filesystem::sync_object`] is called for fsync(2).
    fn writes_back(&self) -> bool {
        false
    }

    /// Writes back what is not where it belongs yet of an object; returns when it outlasts a crash.
    fn sync_object(&self, inode: &dyn Inode) -> Result<()> {
        let _ = inode;
        Ok(())
    }

    /// Gives up what it waits for, and fails all that is asked of it from now on: `umount_begin` of a super block. Those
    /// that can be unmounted at any time do nothing.
    fn abort(&self) {}

    /// What tells its end, when nobody uses it any more; none for one that has nothing to do then.
    fn ending(&self) -> Option<Arc<Ending>> {
        None
    }

    /// Takes the options of a remount; those of a file system that cannot change any mean nothing.
    ///
    /// # Errors
    /// - `EINVAL`: an option that it does not take.
    fn reconfigure(&self, options: &[Vec<u8>]) -> core::result::Result<(), MountError> {
        let _ = options;
        Ok(())
    }

    /// Claims a program that is about to be executed in a view where this file system is mounted: another one, its
    /// interpreter, is executed instead. Asked before the formats that the kernel has, the newest mount first.
    fn claim_program(&self, program: &Program<'_>) -> Option<ProgramClaim> {
        let _ = program;
        None
    }

    /// Whether it may claim programs: only then it is asked.
    fn claims_programs(&self) -> bool {
        false
    }

    /// Whether it shows objects outside of its own tree: only then it is asked for them.
    fn has_outposts(&self) -> bool {
        false
    }

    /// Finds an object that it shows under a name in a directory outside of its tree, which is given by device and inode
    /// number and has no such name itself.
    ///
    /// [`Inode::path`] of such an object is an absolute path, or, if it is beside a mount point that is no directory, what
    /// is appended to the name of that.
    fn outpost(&self, directory: (u64, u64), name: &[u8]) -> Option<InodeRef> {
        let _ = (directory, name);
        None
    }

    /// Lists the objects that it shows in a directory outside of its tree.
    fn outposts(&self, directory: (u64, u64)) -> Vec<DirEntry> {
        let _ = directory;
        Vec::new()
    }

    /// Lists the block devices that it brings, for `/proc/partitions` and for nodes made by mknod(2).
    fn block_devices(&self) -> Vec<BlockDevice> {
        Vec::new()
    }

    /// Whether something that no process has open keeps it from being unmounted, as a file system on a device does.
    fn is_in_use(&self) -> bool {
        false
    }

    /// Starts to keep owners, modes and device numbers that the host does not take from this user: an identity
    /// has been claimed in the view.
    fn fake_ownership(&self) {}
}
