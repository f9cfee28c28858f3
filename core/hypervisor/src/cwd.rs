//! The current directories of guests, when mounts come and go over them. Knows nothing of how they are changed.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use rustix::fs::{Mode, OFlags};
use umvu_interface::{FileKind, Result};

use crate::call::Call;
use crate::mount::{Location, MountKind, MountTable, Origin};
use crate::resolve::{Last, Lookup, ResolveFlags};
use crate::supervisor::Supervisor;

impl Supervisor {
    /// The current directory of the caller.
    pub fn cwd(&self, call: &Call) -> Result<Location> {
        let generation = call.state.view.generation.load(Ordering::Acquire);
        let Some(cwd) = &call.state.cwd else {
            let location = self.host_cwd(call, call.tid())?;
            call.set_cwd(location.clone())?;
            return Ok(location);
        };
        if cwd.generation == generation {
            return Ok(cwd.location.clone());
        }
        let mount = &cwd.location.mount;
        let come_to_light = || {
            let gone = mount.left_root.load(Ordering::Relaxed) && !call.table().is_in_tree(mount);
            gone.then(|| self.directory_at(call, &call.table(), cwd.path.as_ref()?)).flatten()
        };
        let location = come_to_light().or_else(|| self.shown_since(call, cwd.path.as_ref()?, cwd.newest));
        let location = location.unwrap_or_else(|| cwd.location.clone());
        if call.state.view.is_plain() && is_kernels_own(&location, call.tid()) {
            // The view is the host again, and so is the process.
            call.change_state(|state| state.cwd = None)?;
        } else {
            call.set_cwd(location.clone())?;
        }
        Ok(location)
    }

    /// What the current directory that the kernel has for a process is in the caller's view.
    pub fn host_cwd(&self, call: &Call, pid: u32) -> Result<Location> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(format!("/proc/{pid}/cwd"), flags, Mode::empty())?;
        let path = umvu_interface::path_of_open(fd.as_fd())?;
        let host = self.place_of(call, fd)?;
        Ok(self.shown_since(call, &path, 0).unwrap_or(host))
    }

    /// The directory at `path`, if a mount that a module made since mount `newest` shows it: such a mount is a new
    /// look of a tree, and who stands in the tree sees it. What else is mounted over a current directory leaves the
    /// process below it, as Linux does, and what is unmounted is kept.
    fn shown_since(&self, call: &Call, path: &[u8], newest: u64) -> Option<Location> {
        let mut table = (*call.table()).clone();
        let (shows, covers): (Vec<_>, Vec<_>) =
            table.mounts().iter().filter(|m| m.id > newest).cloned().partition(|m| m.module.is_some());
        if shows.is_empty() {
            return None;
        }
        for mount in covers.iter().filter(|m| m.origin == Origin::View) {
            table.detach(mount);
        }
        self.directory_at(call, &table, path).filter(|place| place.mount.id > newest)
    }

    fn directory_at(&self, call: &Call, table: &MountTable, path: &[u8]) -> Option<Location> {
        match call.resolve_from(table, table.root(), path, Last::Follow, ResolveFlags::empty()).ok()? {
            Lookup::Found(place) if place.inode.kind().ok()? == FileKind::Directory => Some(place),
            _ => None,
        }
    }
}

/// Whether a place is the current directory that the kernel has for a thread.
fn is_kernels_own(place: &Location, tid: u32) -> bool {
    let kernel = rustix::fs::stat(format!("/proc/{tid}/cwd")).map(|stat| (stat.st_dev, stat.st_ino));
    place.mount.kind == MountKind::Host && kernel.is_ok() && place.inode.id() == kernel
}
