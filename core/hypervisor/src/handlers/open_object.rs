//! Opening an object that was found: who may, and what descriptor stands for it. Knows nothing of paths.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_interface::{
    may_access, Access, Capabilities, ClaimedDevice, Errno, FileKind, MountFlags, Opened, Result, SetAttr,
};
use umvu_sys::seccomp::CloseOnExec;
use umvu_table::i386::Abi;

use crate::abi_i386::LARGEST_SMALL_FILE;
use crate::call::{Call, Fail, Outcome, Reply};
use crate::fs::proc::{text, ProcInode};
use crate::handlers::attribute::{without_capabilities, without_set_ids};
use crate::handlers::fifo;
use crate::handlers::open::LARGE_FILE;
use crate::mount::{Location, MountKind, Origin};
use crate::namespace::maps;
use crate::namespace::nsfs::NsInode;
use crate::resolve::ResolveFlags;

/// What is asked of an open.
#[derive(Clone, Copy)]
pub struct How {
    /// Those of the call.
    pub flags: OFlags,
    /// Mode of a new file, before the umask.
    pub mode: u32,
    /// How the path is walked.
    pub resolve: ResolveFlags,
}

impl How {
    fn path(close_on_exec: CloseOnExec) -> Self {
        let cloexec = if close_on_exec == CloseOnExec::Yes { OFlags::CLOEXEC } else { OFlags::empty() };
        Self { flags: OFlags::PATH | cloexec, mode: 0, resolve: ResolveFlags::empty() }
    }

    /// Whether the descriptor goes with an execve.
    pub fn close_on_exec(&self) -> CloseOnExec {
        if self.flags.contains(OFlags::CLOEXEC) {
            CloseOnExec::Yes
        } else {
            CloseOnExec::No
        }
    }

    /// Whether a file may be larger than the offsets of a 32-bit program: `generic_file_open` of `fs/open.c`. Other
    /// programs, and the calls that came later, always say so.
    fn takes_large(&self, call: &Call) -> bool {
        const OPEN: u32 = 2;
        const OPENAT: u32 = 257;
        let says = call.request.abi != Abi::X86_64 && matches!(call.request.number(), Some(OPEN | OPENAT));
        !says || self.flags.contains(LARGE_FILE)
    }

    fn wants(&self) -> Access {
        let mut want = match self.flags & OFlags::ACCMODE {
            OFlags::RDONLY => Access::READ,
            OFlags::WRONLY => Access::WRITE,
            _ => Access::READ | Access::WRITE,
        };
        if self.flags.contains(OFlags::TRUNC) {
            want |= Access::WRITE;
        }
        want
    }
}

/// Opens what is there: the checks of `may_open` and `do_open` in `fs/namei.c`, in their order.
pub fn open_place(call: &Call, place: &Location, how: How, path: &[u8]) -> Outcome {
    let kind = place.inode.kind()?;
    let flags = how.flags;
    if flags.contains(OFlags::DIRECTORY) && kind != FileKind::Directory {
        return Err(Errno::NOTDIR.into());
    }
    if flags.contains(OFlags::PATH) {
        return open_path(call, place, how, kind);
    }
    let want = how.wants();
    match kind {
        FileKind::Symlink => return Err(Errno::LOOP.into()),
        FileKind::Directory if want.contains(Access::WRITE) => return Err(Errno::ISDIR.into()),
        FileKind::CharDevice | FileKind::BlockDevice
            if place.mount.kind == MountKind::Tree && place.mount.flags().contains(MountFlags::NO_DEV) =>
        {
            return Err(Errno::ACCESS.into());
        }
        _ => {}
    }
    // Whoever may load the module may use what it claims, whatever the node of the host says.
    if let Some(device) = claimed(call, place, kind)? {
        if let Some(fstype) = device.mounts() {
            let device = crate::mounting::device(call, place, fstype)?;
            return open_place(call, &device, how, path);
        }
        let fd = call.as_caller(|caller| device.open(caller, flags))?;
        return Ok(Reply::Descriptor(fd, how.close_on_exec()));
    }
    permitted(call, place, want)?;
    if NsInode::namespace_of(&place.inode).is_some() {
        let fd = call.supervisor.placeholders.make(place.clone(), flags)?;
        return Ok(Reply::Descriptor(fd, how.close_on_exec()));
    }
    if flags.contains(OFlags::NOATIME) && !place.inode.kernel_checks() {
        let stat = place.inode.stat()?;
        let who = call.credentials();
        if who.uid.fs != stat.uid && !who.capable_over(Capabilities::FOWNER, &stat) {
            return Err(Errno::PERM.into());
        }
    }
    let writes = want.contains(Access::WRITE) && kind == FileKind::Regular;
    if writes && place.mount.flags().contains(MountFlags::READ_ONLY) {
        return Err(Errno::ROFS.into());
    }
    if writes {
        call.supervisor.programs.may_be_written(&place.inode)?;
    }
    match kind {
        FileKind::Socket => return Err(Errno::NXIO.into()),
        FileKind::Directory => return open_directory(call, place, how),
        FileKind::CharDevice if is_own_terminal(place, path)? => return Ok(Reply::Continue),
        _ => {}
    }
    if kind == FileKind::Regular && !how.takes_large(call) && place.inode.stat()?.size > LARGEST_SMALL_FILE {
        return Err(Errno::OVERFLOW.into());
    }
    if let (Some(proc), false) = (place.inode.as_any().downcast_ref::<ProcInode>(), want.contains(Access::WRITE)) {
        if let Some(text) = text::of(call, proc)? {
            return Ok(Reply::Descriptor(text::readable(proc, &text)?, how.close_on_exec()));
        }
    }
    if let (Some(proc), true) = (place.inode.as_any().downcast_ref::<ProcInode>(), want.contains(Access::WRITE)) {
        if let Some(text) = maps::open(call, proc)? {
            return crate::control::open(call, place, &text, flags, how.close_on_exec());
        }
    }
    let truncates = writes && flags.contains(OFlags::TRUNC);
    let strips = if truncates { stripped_mode(call, place)? } else { None };
    // Of a block device it is a claim: blkdev_open of block/fops.c.
    let exclusive = if kind == FileKind::BlockDevice { OFlags::empty() } else { OFlags::EXCL };
    let flags = flags & !(OFlags::CREATE | OFlags::NOFOLLOW | OFlags::DIRECTORY | exclusive);
    if kind == FileKind::Fifo && fifo::waits(flags) {
        return fifo::open(place, flags, move |place, opened| hand_out(place, opened, how));
    }
    let by_number;
    let place = if kind == FileKind::BlockDevice {
        // What is closed claims nothing any more.
        call.supervisor.controls.collect();
        by_number = crate::additions::by_number(&call.table(), place)?;
        &by_number
    } else {
        place
    };
    let opened = match call.as_caller(|caller| place.inode.open(caller, flags))? {
        Opened::Text(text) => return crate::control::open(call, place, &text, flags, how.close_on_exec()),
        Opened::Device(device) => {
            return crate::control::open_device(call, place, device, flags, how.close_on_exec());
        }
        opened @ (Opened::File(_) | Opened::Attended(..)) => opened,
    };
    if truncates {
        without_capabilities(call, place)?;
    }
    if let (Opened::File(fd), FileKind::CharDevice | FileKind::BlockDevice) = (&opened, kind) {
        call.supervisor.open_nodes.remember(place, fd.as_fd());
    }
    if strips.is_some() {
        let change = SetAttr { mode: strips, ..SetAttr::default() };
        call.as_caller(|caller| place.inode.set_attr(caller, &change))?;
    }
    give(call, place, opened, how)
}

/// Gives the guest what it has opened, and has it watched if that is attended to.
pub fn give(call: &Call, place: &Location, opened: Opened, how: How) -> Outcome {
    match opened {
        Opened::Attended(fd, attendant) => {
            mark(place, &fd)?;
            crate::control::open_attended(call, fd, attendant, how.close_on_exec())
        }
        opened => hand_out(place, opened, how),
    }
}

/// The module's device whose numbers a node has.
fn claimed(call: &Call, place: &Location, kind: FileKind) -> Result<Option<Arc<dyn ClaimedDevice>>> {
    if !matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) {
        return Ok(None);
    }
    let number = place.inode.stat()?.rdev;
    let device = call.state.view.device(|device| device.kind() == kind && device.number() == number);
    // What a device mounts is its file system's already.
    let is_mounted = |device: &Arc<dyn ClaimedDevice>| device.mounts() == Some(&place.mount.fstype[..]);
    Ok(device.filter(|device| !is_mounted(device)))
}

/// The mode without the set-id bits that a truncation by a faked identity takes away: `do_truncate` of `fs/open.c`.
fn stripped_mode(call: &Call, place: &Location) -> Result<Option<u32>> {
    let who = call.credentials();
    if place.inode.kernel_checks() || who.capable(Capabilities::FSETID) {
        return Ok(None);
    }
    Ok(without_set_ids(&who, &place.inode.stat()?))
}

/// A terminal that could become the caller's controlling one must be opened by the caller itself, and
/// `/dev/tty` is a different one for everybody: such a call is continued where the path means the same to the
/// kernel. No permission hangs on the path that was read, so a change of it in between gains nothing.
fn is_own_terminal(place: &Location, path: &[u8]) -> Result<bool> {
    let major = rustix::fs::major(place.inode.stat()?.rdev);
    if !matches!(major, 4 | 5 | 136..=143) || path.first() != Some(&b'/') {
        return Ok(false);
    }
    let Some(fd) = place.inode.host_fd() else { return Ok(false) };
    let ours = rustix::fs::fstat(fd)?;
    Ok(rustix::fs::stat(path).is_ok_and(|host| (host.st_dev, host.st_ino) == (ours.st_dev, ours.st_ino)))
}

/// Gives the guest an `O_PATH` descriptor of a place.
pub fn give_path(call: &Call, place: &Location, close_on_exec: CloseOnExec) -> Outcome {
    open_path(call, place, How::path(close_on_exec), place.inode.kind()?)
}

/// Gives the guest an `O_PATH` placeholder of a place.
pub fn give_placeholder(call: &Call, place: &Location, fd: OwnedFd, close_on_exec: CloseOnExec) -> Outcome {
    hand_over_path(call, place, fd, How::path(close_on_exec))
}

fn open_path(call: &Call, place: &Location, how: How, kind: FileKind) -> Outcome {
    if !is_placeholder(call, place) || kind != FileKind::Directory {
        if let Some(fd) = place.inode.host_fd() {
            return hand_over_path(call, place, rustix::io::fcntl_dupfd_cloexec(fd, 0)?, how);
        }
    }
    let fd = call.supervisor.placeholders.make(place.clone(), how.flags)?;
    hand_over_path(call, place, fd, how)
}

fn hand_over_path(call: &Call, place: &Location, fd: OwnedFd, how: How) -> Outcome {
    match crate::redirect::hand_over_path(call, fd, how.close_on_exec()) {
        // Traced by somebody else: a descriptor that stands for the object, but is not O_PATH by its flags.
        Err(Fail::Errno(Errno::PERM)) => {
            let fd = call.supervisor.placeholders.make(place.clone(), OFlags::empty())?;
            Ok(Reply::Descriptor(fd, how.close_on_exec()))
        }
        other => other,
    }
}

/// Whether the descriptor of a directory is no real one: the kernel would list other names.
fn is_placeholder(call: &Call, place: &Location) -> bool {
    let proc = place.inode.as_any().downcast_ref::<ProcInode>();
    place.mount.kind == MountKind::Tree
        || proc.is_some_and(|inode| inode.namespace().is_some() || is_other_proc(call, place))
        || crate::additions::has(&call.table(), place)
}

/// Whether a real descriptor would be taken for one of another mount of procfs: nothing tells through which one it was
/// opened. What came along with a union stands for the host's own as long as that is there.
fn is_other_proc(call: &Call, place: &Location) -> bool {
    match place.mount.origin {
        Origin::Host => false,
        Origin::Carried => call.table().hosts_proc().is_none(),
        Origin::View => true,
    }
}

fn open_directory(call: &Call, place: &Location, how: How) -> Outcome {
    if is_placeholder(call, place) {
        let fd = call.supervisor.placeholders.make(place.clone(), how.flags)?;
        return Ok(Reply::Descriptor(fd, how.close_on_exec()));
    }
    let fd = place.inode.host_fd().ok_or(Errno::IO)?;
    let flags = (how.flags | OFlags::CLOEXEC | OFlags::DIRECTORY) & !(OFlags::NOFOLLOW | OFlags::CREATE);
    // Not by ".", which would need search permission.
    let fd = rustix::fs::open(crate::guest::proc_path(fd), flags, Mode::empty())?;
    Ok(Reply::Descriptor(fd, how.close_on_exec()))
}

/// Gives the guest a descriptor, marked with the mount it came through.
pub fn hand_out(place: &Location, opened: Opened, how: How) -> Outcome {
    let fd = opened.into_file()?;
    mark(place, &fd)?;
    Ok(Reply::Descriptor(fd, how.close_on_exec()))
}

/// Marks a descriptor with the mount that it came through.
fn mark(place: &Location, fd: &OwnedFd) -> Result<()> {
    match place.mount.mark() {
        mark if mark > 0 => umvu_sys::file::set_mark(fd.as_fd(), mark),
        _ => Ok(()),
    }
}

/// Checks access where the kernel's own check does not answer for it.
///
/// # Errors
/// - `EACCES`: not permitted.
pub fn permitted(call: &Call, place: &Location, want: Access) -> core::result::Result<(), Fail> {
    let credentials = call.credentials();
    if !place.mount.filesystem.admits(&credentials) {
        return Err(Errno::ACCESS.into());
    }
    if let Some(object) = place.inode.as_any().downcast_ref::<ProcInode>() {
        return Ok(crate::inspect::may_use(call, object, want)?);
    }
    if place.inode.kernel_checks() {
        return Ok(());
    }
    let overrides = credentials.namespace.is_none() && credentials.capable(Capabilities::DAC_OVERRIDE);
    if credentials.is_faked() && overrides && !want.contains(Access::EXEC) {
        return Ok(());
    }
    Ok(may_access(&credentials, &*place.inode, &place.inode.stat()?, want)?)
}
