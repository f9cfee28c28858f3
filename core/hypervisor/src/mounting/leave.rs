//! Unmounting, and what keeps a mount from it. Knows no file system type.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use umvu_interface::{Ending, Errno, Filesystem, MountError, OFlags};

use super::{fail, how, may_mount, shown, Result};
use crate::call::Call;
use crate::mount::{Location, Mount, MountTable};
use crate::resolve::Last;

/// Whether umount2(2) knows none of the ways that `flags` ask for.
pub fn refuses(flags: u32) -> bool {
    flags & !(how::FORCE | how::DETACH | how::EXPIRE | how::NOFOLLOW) != 0
}

/// Unmounts: `ksys_umount` and `do_umount` of `fs/namespace.c`.
///
/// # Errors
/// An errno for umount2(2) and a line for people:
/// - `EINVAL`: an unknown flag
/// - those of resolving the target
/// - `EPERM`: not the root of the view
/// - `EINVAL`: not a mount point of the view; `MNT_EXPIRE` with another way, or for the root
/// - `EBUSY`: in use
/// - `EAGAIN`: `MNT_EXPIRE`, and it has been used since the last time
/// - what the file system could not write
pub fn unmount(call: &Call, target: &[u8], flags: u32) -> Result<()> {
    if refuses(flags) {
        return Err(fail(target, Errno::INVAL));
    }
    prune(call);
    // Finding the mount is a use of it that does not count.
    let expiring: Vec<u64> = expiring(&call.table());
    let last = if flags & how::NOFOLLOW != 0 { Last::NoFollow } else { Last::Follow };
    let at = call.object(libc::AT_FDCWD, target, last).map_err(|errno| fail(target, errno))?;
    may_mount(call)?;
    let view = call.state.view.clone();
    let change = view.change.lock();
    let mut table = (*call.table()).clone();
    // LOOKUP_MOUNTPOINT of fs/namei.c: also of a current directory that a root was mounted on, the newest one leaves.
    let at = if at.is_mount_root() { table.top(at) } else { at };
    if !at.is_mount_root() || !table.is_in_tree(&at.mount) {
        return Err(MountError::new(Errno::INVAL, format!("{}: not a mount point", shown(target))));
    }
    let leaving = table.subtree(&at.mount);
    let has_mounts = leaving.iter().skip(1).any(|m| !m.is_carried());
    if flags & how::EXPIRE != 0 {
        let is_root = call.root(&table).mount.id == at.mount.id;
        if is_root || flags & (how::FORCE | how::DETACH) != 0 {
            return Err(fail(target, Errno::INVAL));
        }
        if has_mounts || in_use(call, &at.mount, Place::Anywhere) {
            return Err(busy(target, "it is in use"));
        }
        if !expiring.contains(&at.mount.id) {
            at.mount.expiring.store(true, Ordering::Relaxed);
            return Err(fail(target, Errno::AGAIN));
        }
    }
    // Who waits for it is let go: do_umount of fs/namespace.c.
    let is_forced = flags & how::FORCE != 0;
    if is_forced {
        at.mount.filesystem.abort();
    }
    let Some(attachment) = table.attachment(&at.mount).cloned() else {
        return match flags & how::DETACH {
            0 => Err(busy(target, "it is the root of the view")),
            _ => Err(MountError::new(Errno::INVAL, format!("{}: the root of the view", shown(target)))),
        };
    };
    // Who stands in what is mounted on `/` stands in what comes to light.
    let on_root = attachment.name.is_empty() && table.top(table.lowest_root()).mount.id == at.mount.id;
    if flags & how::DETACH == 0 {
        if has_mounts {
            return Err(busy(target, "something is mounted in it"));
        }
        let counted = if on_root { Place::NotCurrent } else { Place::Anywhere };
        if at.mount.is_held() {
            return Err(busy(target, "something that is mounted uses it"));
        }
        if stays_in_use(call, &at.mount, counted) {
            return Err(busy(target, "a process uses it"));
        }
        if at.mount.filesystem.is_in_use() {
            return Err(busy(target, "something that is mounted uses it"));
        }
    }
    // It may be served by a guest.
    if let (Err(errno), false) = (umvu_interface::blocking(|| at.mount.filesystem.sync()), is_forced) {
        let cause = umvu_interface::cause(errno);
        return Err(MountError::new(errno, format!("{}: not unmounted: {cause}", shown(target))));
    }
    at.mount.left_root.store(on_root, Ordering::Relaxed);
    for mount in leaving.iter().rev() {
        table.detach(mount);
        call.supervisor.programs.forget_mount(mount.id);
        if flags & how::DETACH != 0 && in_use(call, mount, Place::Anywhere) {
            table.keep_detached(mount.clone());
        }
    }
    let ends: Vec<End> = leaving.iter().filter_map(|mount| End::of(&mount.filesystem)).collect();
    view.set_mounts(table);
    drop(change);
    drop((at, leaving, attachment));
    // What it stood on may have been unmounted before.
    prune(call);
    match umvu_interface::blocking(|| ends.into_iter().try_for_each(|end| end.wait(call))) {
        Err(errno) if !is_forced => {
            let cause = umvu_interface::cause(errno);
            Err(MountError::new(errno, format!("{}: unmounted, but not all could be written: {cause}", shown(target))))
        }
        _ => Ok(()),
    }
}

/// The end of a file system that may have been mounted for the last time.
struct End {
    filesystem: Weak<dyn Filesystem>,
    ending: Arc<Ending>,
}

impl End {
    fn of(filesystem: &Arc<dyn Filesystem>) -> Option<Self> {
        Some(Self { ending: filesystem.ending()?, filesystem: Arc::downgrade(filesystem) })
    }

    /// Waits for it, unless the file system is mounted elsewhere, too, or somebody else holds on to it.
    ///
    /// # Errors
    /// What the file system could not write.
    fn wait(&self, call: &Call) -> std::result::Result<(), Errno> {
        /// Others may be in the middle of a call.
        const HELD: u32 = 100;
        const STEP: Duration = Duration::from_millis(20);
        let is_ours = |mount: &Arc<Mount>| std::ptr::addr_eq(Arc::as_ptr(&mount.filesystem), self.filesystem.as_ptr());
        let is_mounted = call.supervisor.states.all().iter().any(|state| {
            let table = state.view.mounts.load();
            table.mounts().iter().chain(table.detached()).any(is_ours)
        });
        if is_mounted {
            return Ok(());
        }
        let mut held = 0;
        loop {
            // Records of processes that stood there go in the second round that does not see them, once they are buried.
            call.supervisor.sweep_own_states();
            if let Some(outcome) = self.ending.wait(STEP) {
                return outcome;
            }
            held += u32::from(self.filesystem.strong_count() > 0);
            if held > HELD {
                tracing::info!("a file system that was unmounted is still in use");
                return Ok(());
            }
        }
    }
}

fn expiring(table: &MountTable) -> Vec<u64> {
    table.mounts().iter().filter(|m| m.expiring.load(Ordering::Relaxed)).map(|m| m.id).collect()
}

fn busy(target: &[u8], why: &str) -> MountError {
    MountError::new(Errno::BUSY, format!("{}: busy: {why}", shown(target)))
}

/// Forgets the mounts that are in no tree and that nobody uses any more.
pub fn prune(call: &Call) {
    if call.table().detached().is_empty() {
        return;
    }
    let view = call.state.view.clone();
    let _change = view.change.lock();
    let mut table = (*call.table()).clone();
    for loose in table.detached().to_vec() {
        let tree = table.subtree(&loose);
        if tree.iter().any(|m| in_use(call, m, Place::Anywhere)) {
            continue;
        }
        for mount in tree.iter().rev() {
            table.detach(mount);
        }
        table.forget(&loose);
    }
    view.set_mounts(table);
}

/// Which uses of a mount count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// All.
    Anywhere,
    /// All but current directories.
    NotCurrent,
}

/// Whether something stands on a file of a mount, or a process has its root or current directory, an open directory or an
/// open file in it, or runs or maps a file of it. The latter count only where the file can be reached through nothing else, as they carry no mark.
fn in_use(call: &Call, mount: &Arc<Mount>, counted: Place) -> bool {
    let inside = |location: &Location| location.mount.id == mount.id;
    if mount.is_held() {
        return true;
    }
    let guests = call.supervisor.living();
    guests.iter().any(|(_, state)| {
        state.root.as_ref().is_some_and(|r| inside(r))
            || (counted == Place::Anywhere && state.cwd.as_ref().is_some_and(|c| inside(&c.location)))
    }) || (counted == Place::Anywhere && call.supervisor.placeholders.any_in(mount.id))
        || call.supervisor.open_nodes.any_in(mount.id)
        || call.supervisor.controls.any_in(mount.id)
        || guests.iter().any(|(pid, _)| call.supervisor.has_open_file_of(*pid, mount, |_| true))
        || (counted == Place::Anywhere && guests.iter().any(|(pid, _)| call.supervisor.runs_file_of(*pid, mount)))
}

/// As [`in_use`], a moment later if need be: another worker may not yet have let go of its copy of a descriptor that
/// the guest has closed since.
fn stays_in_use(call: &Call, mount: &Arc<Mount>, counted: Place) -> bool {
    const TRIES: u32 = 5;
    const STEP: Duration = Duration::from_millis(5);
    (0..TRIES).all(|_| {
        let is_used = in_use(call, mount, counted);
        if is_used {
            std::thread::sleep(STEP);
        }
        is_used
    })
}

/// Whether a process has a file open for writing that it opened through one of `mounts`.
pub fn is_written(call: &Call, mounts: &[Arc<Mount>]) -> bool {
    let writes = |flags: OFlags| !(flags & OFlags::ACCMODE).is_empty();
    let guests = call.supervisor.living();
    guests.iter().any(|(pid, _)| mounts.iter().any(|m| call.supervisor.has_open_file_of(*pid, m, writes)))
}
