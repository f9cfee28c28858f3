//! Keeps `/proc` true inside a new mount that shows the host's: a procfs belongs to whoever reads it, and through a
//! union or a bind it would be the supervisor's. Knows nothing of options and permissions.

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
    let mut inode: InodeRef = mount.root.clone();
    for part in path.split(|b| *b == b'/') {
        inode = inode.lookup(&umvu_interface::Name::new(part)?)?;
    }
    if mount.filesystem.statfs(&*inode)?.magic != PROC {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = ProcFs::new(rustix::fs::open("/proc", flags, Mode::empty())?);
    let own = Mount::carried_proc(call.supervisor.next_id(), proc);
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
    table.attach(own, Location { mount: mount.clone(), inode }, name)
}
