//! The mounts that nobody asked for, which come with a new one that shows what they are in. `/proc` must stay true
//! there: a procfs belongs to whoever reads it, and through a union or a bind it would be the supervisor's. Knows
//! nothing of options and permissions.

use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_interface::{InodeRef, Result};

use crate::call::Call;
use crate::fs::proc::ProcFs;
use crate::mount::{Location, Mount, MountKind, MountTable};
use crate::resolve::{path_of, strip_prefix};

/// `PROC_SUPER_MAGIC` of linux/magic.h.
const PROC: u64 = 0x9fa0;

/// Covers what `mount` shows of the host's procfs with the view's own.
///
/// `mount` is attached at `covered` in `table`, and `source` is what it was made of, where it was made of a place.
pub fn cover(call: &Call, table: &mut MountTable, mount: &Arc<Mount>, covered: &Location, source: Option<&Location>) {
    let root = table.lowest_root();
    let bases = [Some(covered), source];
    let bases: Vec<Vec<u8>> = bases.into_iter().flatten().filter_map(|b| path_of(table, &root, b).ok()?).collect();
    let procs: Vec<Location> = table
        .mounts()
        .iter()
        .filter(|m| m.kind == MountKind::Proc)
        .map(|m| Location { mount: m.clone(), inode: m.root.clone() })
        .collect();
    let mut inside: Vec<Vec<u8>> = Vec::new();
    for proc in procs {
        let Ok(Some(path)) = path_of(table, &root, &proc) else { continue };
        for base in &bases {
            let base = if base == b"/" { b"" } else { base.as_slice() };
            if let Some(rest) = strip_prefix(&path, base).filter(|r| !r.is_empty()) {
                inside.push(rest.iter().copied().skip_while(|b| *b == b'/').collect());
            }
        }
    }
    inside.sort();
    inside.dedup();
    for path in inside {
        if let Err(errno) = cover_one(call, table, mount, &path) {
            tracing::debug!(%errno, path = %path.escape_ascii(), "no procfs inside the new mount");
        }
    }
}

fn cover_one(call: &Call, table: &mut MountTable, mount: &Arc<Mount>, path: &[u8]) -> Result<()> {
    let inode = walk(&mount.root, path)?;
    if mount.filesystem.statfs(&*inode)?.magic != PROC {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = ProcFs::new(rustix::fs::open("/proc", flags, Mode::empty())?);
    let own = Mount::carried_proc(call.supervisor.next_id(), proc);
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let covered = table.enter(Location { mount: mount.clone(), inode }, name)?;
    if covered.mount.kind == MountKind::Proc {
        return Ok(());
    }
    table.attach(own, covered, name)
}

/// Shows the mounts inside a covered tree at their places in the mount that covers it, which shows that tree.
///
/// # Errors
/// Those of looking at the trees; a mount whose place the new tree does not have is left out.
pub fn show_inner(call: &Call, table: &mut MountTable, mount: &Arc<Mount>, covered: &Location) -> Result<()> {
    let base = covered.inode.path()?;
    // Every procfs is covered anew, wherever it is.
    let direct = |m: &&Arc<Mount>| table.attachment(m).is_some_and(|a| a.covered.mount.id == covered.mount.id);
    let inside: Vec<Arc<Mount>> =
        table.mounts().iter().filter(direct).filter(|m| m.kind != MountKind::Proc).cloned().collect();
    for inner in inside {
        let Some(at) = table.attachment(&inner).cloned() else { continue };
        let path = at.covered.inode.path()?;
        let Some(below) = strip_prefix(&path, &base).filter(|b| !b.is_empty()) else { continue };
        let Ok(place) = walk(&mount.root, below) else { continue };
        let copy = inner.carried_copy(call.supervisor.next_id(), &call.supervisor.marks);
        table.attach(copy.clone(), Location { mount: mount.clone(), inode: place }, &at.name)?;
        show_inner(call, table, &copy, &Location::root_of(&inner))?;
    }
    Ok(())
}

fn walk(root: &InodeRef, path: &[u8]) -> Result<InodeRef> {
    let mut inode = root.clone();
    for name in path.split(|b| *b == b'/') {
        inode = inode.lookup(&umvu_interface::Name::new(name)?)?;
    }
    Ok(inode)
}
