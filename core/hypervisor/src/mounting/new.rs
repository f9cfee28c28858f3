//! Making file systems and attaching them: those of modules, and those that need none. Knows no options but to pass
//! them on.

use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_interface::{Errno, InnerMounts, InodeRef, MountError, MountFlags, MountRequest, Mounted, World};

use super::world::Below;
use super::{attach, fail, place, same_sort, shown, Result};
use crate::call::Call;
use crate::fs::proc::{ProcFs, ProcInode};
use crate::fs::tmp::TmpFs;
use crate::mount::{Location, Mount, MountKind, NewMount, Origin, Superblock};

/// What file system is wanted.
pub struct Wanted<'a> {
    /// Type.
    pub fstype: &'a [u8],
    /// Source.
    pub source: &'a [u8],
    /// Mount point as given.
    pub target: &'a [u8],
    /// Options of the type.
    pub options: Vec<Vec<u8>>,
    /// Flags of the mount.
    pub flags: MountFlags,
    /// Flags of the file system.
    pub superblock: MountFlags,
}

/// The types that need no module.
const BUILTIN: [&[u8]; 7] = [b"tmpfs", b"ramfs", b"proc", b"sysfs", b"devtmpfs", b"devpts", b"mqueue"];

/// Checks that a type is known: `get_fs_type` of `fs/filesystems.c`.
///
/// # Errors
/// - `ENODEV`: it is not.
pub fn check_type(call: &Call, fstype: &[u8]) -> Result<Maker> {
    if BUILTIN.contains(&fstype) {
        return Ok(Maker::Builtin);
    }
    if call.state.view.filesystem_type(fstype).is_some() {
        return Ok(Maker::Module);
    }
    let message = format!("{}: unknown file system type: is its module loaded?", shown(fstype));
    Err(MountError::new(Errno::NODEV, message))
}

/// Who makes file systems of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The hypervisor.
    Builtin,
    /// A module: it wants to know what will be covered.
    Module,
}

/// A new mount, in no tree yet.
pub struct Made {
    /// The mount.
    pub mount: Arc<Mount>,
    /// What becomes of the mounts in what it will cover.
    pub inner: InnerMounts,
}

/// Makes a file system and a mount of it that is in no tree yet.
///
/// # Errors
/// - `ENODEV`: unknown type
/// - those of the type
pub fn make(call: &Call, wanted: &Wanted<'_>, covered: InodeRef) -> Result<Made> {
    let world = Below { call };
    if check_type(call, wanted.fstype)? == Maker::Builtin {
        let (mounted, kind) = builtin(call, wanted, &world)?;
        let inner = mounted.inner;
        return Ok(Made { mount: made(call, wanted, mounted, kind, None), inner });
    }
    let Some((module, fstype)) = call.state.view.filesystem_type(wanted.fstype) else {
        return Err(fail(wanted.fstype, Errno::NODEV));
    };
    let mounted = call.as_caller(|caller| {
        let request = MountRequest {
            fstype: wanted.fstype,
            source: wanted.source,
            target: wanted.target,
            covered,
            options: wanted.options.clone(),
            flags: wanted.flags,
            caller: *caller,
        };
        fstype.mount(&request, &world)
    })?;
    if call.state.view.identity().is_some() {
        mounted.filesystem.fake_ownership();
    }
    let inner = mounted.inner;
    Ok(Made { mount: made(call, wanted, mounted, MountKind::Tree, Some(module)), inner })
}

fn made(
    call: &Call,
    wanted: &Wanted<'_>,
    mounted: Mounted,
    kind: MountKind,
    module: Option<&'static str>,
) -> Arc<Mount> {
    Mount::new(NewMount {
        id: call.supervisor.next_id(),
        kind,
        origin: Origin::View,
        root: mounted.root,
        filesystem: mounted.filesystem,
        source: wanted.source.to_vec(),
        fstype: mounted.shown_type,
        flags: wanted.flags,
        superblock: Superblock::new(wanted.superblock | mounted.flags),
        module,
        mark: (kind == MountKind::Tree).then(|| call.supervisor.marks.take()),
    })
}

/// Attaches a new mount: `do_add_mount` of `fs/namespace.c`.
///
/// # Errors
/// - `ENOENT`: the mount point is in no tree, or has been removed
/// - `EBUSY`: the same file system is mounted there already
/// - `ENOTDIR`: one is a directory and the other is not
/// - `ENOSPC`: too many mounts
pub fn add(call: &Call, made: Made, covered: Location, target: &[u8]) -> Result<()> {
    let Made { mount, inner } = made;
    let mut table = (*call.table()).clone();
    if !table.is_in_tree(&covered.mount) {
        return Err(fail(target, Errno::NOENT));
    }
    if is_already_there(&mount, &covered) {
        return Err(MountError::new(Errno::BUSY, format!("{}: the same is mounted there already", shown(target))));
    }
    let fits = same_sort(&covered.inode, &mount.root);
    if !fits.map_err(|errno| fail(target, errno))? {
        return Err(fail(target, Errno::NOTDIR));
    }
    attach(&mut table, mount.clone(), covered.clone()).map_err(|errno| fail(target, errno))?;
    if mount.kind == MountKind::Tree {
        let source = place(call, &mount.source).ok();
        crate::carried::cover(call, &mut table, &mount, &covered, source.as_ref());
    }
    if inner == InnerMounts::Shown {
        crate::carried::show_inner(call, &mut table, &mount, &covered).map_err(|errno| fail(target, errno))?;
    }
    call.state.view.set_mounts(table);
    Ok(())
}

/// Whether a mount point is the root of a mount of the same file system.
fn is_already_there(mount: &Mount, covered: &Location) -> bool {
    /// `STATX_ATTR_MOUNT_ROOT`.
    const MOUNT_ROOT: u64 = 0x2000;
    // A bind by a module is no file system of its own, and who serves a new one may not be ready to be asked.
    if mount.module.is_some() {
        return false;
    }
    let (Ok(new), Ok(old)) = (mount.root.stat(), covered.inode.stat()) else { return false };
    let is_root = match covered.mount.kind {
        MountKind::Host => old.attributes & MOUNT_ROOT != 0,
        MountKind::Proc | MountKind::Tree => covered.is_mount_root(),
    };
    // The procfs of a pid namespace is another one than that of the next.
    let pids = |inode: &InodeRef| inode.as_any().downcast_ref::<ProcInode>().and_then(|p| p.namespace().cloned());
    pids(&mount.root) == pids(&covered.inode) && is_root && (new.dev, new.ino) == (old.dev, old.ino)
}

/// Makes a file system that needs no module.
fn builtin(call: &Call, wanted: &Wanted<'_>, world: &Below<'_>) -> Result<(Mounted, MountKind)> {
    let of_host = |path: &[u8]| host_directory(call, path).map(|i| (i.clone(), i.filesystem(), MountKind::Tree));
    let (root, filesystem, kind) = match wanted.fstype {
        b"proc" => {
            let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open("/proc", path, Mode::empty()).map_err(|errno| fail(b"/proc", errno))?;
            let fs = match &call.state.namespaces.pid {
                Some(namespace) => ProcFs::of_namespace(fd, namespace.clone(), &call.supervisor),
                None => ProcFs::new(fd),
            };
            (umvu_interface::Filesystem::root(&*fs), fs as Arc<dyn umvu_interface::Filesystem>, MountKind::Proc)
        }
        b"sysfs" => of_host(b"/sys")?,
        b"devtmpfs" => of_host(b"/dev")?,
        b"devpts" => of_host(b"/dev/pts")?,
        b"mqueue" => of_host(b"/dev/mqueue")?,
        _ => {
            let fs = TmpFs::new(call, &wanted.options, world.new_device())?;
            (umvu_interface::Filesystem::root(&*fs), fs as Arc<dyn umvu_interface::Filesystem>, MountKind::Tree)
        }
    };
    let mounted = Mounted {
        root,
        filesystem,
        shown_type: wanted.fstype.to_vec(),
        flags: MountFlags::empty(),
        inner: InnerMounts::Covered,
    };
    Ok((mounted, kind))
}

/// A directory of the host's own tree.
fn host_directory(call: &Call, path: &[u8]) -> Result<InodeRef> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| fail(path, errno))?;
    let found = call.supervisor.host_place(&call.table(), fd).map_err(|errno| fail(path, errno))?;
    Ok(found.inode)
}
