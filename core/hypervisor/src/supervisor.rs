//! The supervisor's shared state, and what handlers ask of it about processes. Knows no particular call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_host::HostFs;
use umvu_interface::{Credentials, Errno, FileKind, Filesystem, InodeRef, ModuleDescriptor, MountFlags, Name, Result};
use umvu_sys::seccomp::Listener;

use crate::call::Call;
use crate::contexts::Contexts;
use crate::fs::proc::{text, ProcFs, ProcInode};
use crate::guest::Threads;
use crate::mount::{Location, Marks, Mount, MountKind, MountTable, NewMount, Origin, Superblock};
use crate::placeholder::Placeholders;
use crate::resolve::{path_from_bottom, strip_prefix};
use crate::state::{ProcessState, States};
use crate::view::View;

/// The number of the mount through which namespaces are seen: above all that are counted up.
const NSFS_MOUNT: u64 = 1 << 30;

/// What all workers share.
pub struct Supervisor {
    /// The notifications.
    pub listener: Listener,
    /// Threads of guests.
    pub threads: Threads,
    /// Records of processes.
    pub states: States,
    /// Descriptors without an object of the host.
    pub placeholders: Arc<Placeholders>,
    /// Device nodes of the view that guests have open.
    pub open_nodes: crate::open_node::OpenNodes,
    /// Texts that guests have open, and who takes what is written to them.
    pub controls: crate::control::Controls,
    /// What guests have descriptors of that is gone.
    pub parted: crate::parting::Parted,
    /// Descriptors of file systems that are being described.
    pub contexts: Contexts,
    /// Marks of open files.
    pub marks: Arc<Marks>,
    /// Modules that can be loaded.
    pub modules: &'static [&'static ModuleDescriptor],
    /// The identity that the kernel knows.
    pub host_credentials: Arc<Credentials>,
    /// Whether views may be stacked.
    pub nesting: crate::Nesting,
    /// Where calls are traced to.
    pub trace: Option<crate::trace::Trace>,
    /// Device of the host's procfs.
    pub proc_device: u64,
    /// Programs that run through the loader.
    pub programs: crate::programs::Programs,
    /// Redirected calls whose next notification is continued.
    pub redirected: dashmap::DashMap<u32, crate::redirect::Pending>,
    /// Shared by those who trace a thread for a moment; held alone by who waits for children. A traced child of ours
    /// is seen by both, and each stop only once (`wait_consider_task` in kernel/exit.c).
    pub tracing: parking_lot::RwLock<()>,
    /// Names of programs that cannot be seen, and of which that was said.
    pub unreadable: dashmap::DashSet<String>,
    /// Calls of ours that block.
    pub watches: crate::interrupt::Watches,
    /// Held while our current directory is one that a socket is given its name from.
    pub naming: parking_lot::Mutex<()>,
    /// Whether processes can be numbered anew.
    pub pids: crate::Pids,
    /// The first view.
    pub first: std::sync::OnceLock<Arc<View>>,
    /// `/proc` of the first view, which descriptors name also when it has been unmounted.
    first_proc: std::sync::OnceLock<Arc<Mount>>,
    /// Through which namespaces are seen.
    pub nsfs: Arc<Mount>,
    /// Whether the main guest has ended.
    pub ended: AtomicBool,
    next_id: AtomicU64,
}

impl Supervisor {
    /// Makes a supervisor for a listener.
    ///
    /// # Errors
    /// The host's, where a private directory or `/proc` cannot be had.
    pub fn new(
        listener: Listener,
        modules: &'static [&'static ModuleDescriptor],
        nesting: crate::Nesting,
        pids: crate::Pids,
        trace: Option<crate::trace::Trace>,
    ) -> std::io::Result<Self> {
        let own = rustix::fs::stat("/proc/self/ns/mnt")?;
        Ok(Self {
            listener,
            threads: Threads::default(),
            states: States::default(),
            placeholders: Arc::new(Placeholders::new()?),
            open_nodes: crate::open_node::OpenNodes::default(),
            controls: crate::control::Controls::new()?,
            parted: crate::parting::Parted::default(),
            contexts: Contexts::default(),
            marks: Arc::default(),
            modules,
            host_credentials: Arc::new(crate::credentials::of_host()),
            nesting,
            trace,
            proc_device: rustix::fs::stat("/proc/self")?.st_dev,
            programs: crate::programs::Programs::default(),
            redirected: dashmap::DashMap::new(),
            tracing: parking_lot::RwLock::new(()),
            unreadable: dashmap::DashSet::new(),
            watches: crate::interrupt::Watches::default(),
            naming: parking_lot::Mutex::default(),
            pids,
            first: std::sync::OnceLock::new(),
            first_proc: std::sync::OnceLock::new(),
            nsfs: crate::namespace::nsfs::NsFs::mount(NSFS_MOUNT, own.st_dev),
            ended: AtomicBool::new(false),
            next_id: AtomicU64::new(1),
        })
    }

    /// A number for a new view, mount or device.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes the first view: the host's own tree, and `/proc` with the guests' truth.
    ///
    /// # Errors
    /// `/` or `/proc` cannot be opened.
    pub fn first_view(&self, name: Vec<u8>) -> Result<Arc<View>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let host = HostFs::new(rustix::fs::open("/", flags, Mode::empty())?, None, None);
        let host_root: InodeRef = host.root_inode();
        let of_host = |kind, root: InodeRef, filesystem, name: &[u8], flags| {
            Mount::new(NewMount {
                id: self.next_id(),
                kind,
                origin: Origin::Host,
                root,
                filesystem,
                source: name.to_vec(),
                fstype: name.to_vec(),
                flags,
                superblock: Superblock::new(MountFlags::empty()),
                module: None,
                mark: None,
            })
        };
        let root = of_host(MountKind::Host, host_root.clone(), host.clone(), b"host", MountFlags::empty());
        let mut table = MountTable::new(root.clone());
        let covered = host_root.lookup(&Name::new(b"proc")?)?;
        let proc = ProcFs::new(rustix::fs::open("/proc", flags, Mode::empty())?);
        let flags = MountFlags::NO_SUID | MountFlags::NO_DEV | MountFlags::NO_EXEC | MountFlags::RELATIME;
        let mount = of_host(MountKind::Proc, proc.root(), proc, b"proc", flags);
        let mount = self.first_proc.get_or_init(|| mount).clone();
        table.attach(mount, Location { mount: root, inode: covered }, b"proc")?;
        let view = View::new(self.next_id(), 0, table, Vec::new(), name, self.host_credentials.clone());
        Ok(self.first.get_or_init(|| view).clone())
    }

    /// The identity of a process.
    pub fn credentials(&self, state: &ProcessState) -> Arc<Credentials> {
        let own = state.credentials.as_ref();
        match state.view.initial_credentials() {
            // A user namespace does without a module that fakes identities.
            None => own.filter(|c| c.namespace.is_some()).unwrap_or(&self.host_credentials).clone(),
            Some(initial) => own.cloned().unwrap_or(initial),
        }
    }

    /// The record of any guest by process or thread id.
    pub fn state_of(&self, pid: u32) -> Option<Arc<ProcessState>> {
        // Another process may carry a limit that happens to be one of our numbers.
        if !self.is_guest(pid) {
            return None;
        }
        self.states.get(umvu_sys::guest::state_number(pid).ok()?).ok()
    }

    /// Whether a process descends from us, as all guests do: we adopt their orphans.
    fn is_guest(&self, pid: u32) -> bool {
        let own = std::process::id();
        let mut at = pid;
        while at > 1 && at != own {
            let Some(parent) = crate::guest::parent_of(at) else { return false };
            if parent == own {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Whether a process is in a pid namespace, or in one below it.
    pub fn is_in(&self, namespace: &Arc<crate::namespace::PidNamespace>, pid: u32) -> bool {
        self.state_of(pid).and_then(|s| s.namespaces.pid.clone()).is_some_and(|p| p.is_within(Some(namespace)))
    }

    /// The guests that live, and their records; a zombie has no directory and no files any more.
    pub fn living(&self) -> Vec<(u32, Arc<ProcessState>)> {
        let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
        let pids = processes.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let lives = |pid: &u32| rustix::fs::readlink(format!("/proc/{pid}/cwd"), Vec::new()).is_ok();
        pids.filter(lives).filter_map(|pid| Some((pid, self.state_of(pid)?))).collect()
    }

    /// Whether a guest has a file open that it opened through `mount`, in a mode that `counts`.
    pub fn has_open_file_of(&self, pid: u32, mount: &Mount, counts: fn(OFlags) -> bool) -> bool {
        if mount.mark() == 0 {
            return false;
        }
        let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        descriptors.flatten().any(|entry| {
            let Ok(path) = rustix::fs::readlink(entry.path(), Vec::new()) else { return false };
            let number = entry.file_name().to_str().and_then(|n| n.parse().ok());
            let (Some(_), Some(number)) = (mount.filesystem.path_of_host(path.to_bytes()), number) else {
                return false;
            };
            self.threads.take_fd(pid, number).is_ok_and(|fd| {
                let is_marked = umvu_sys::file::mark(fd.as_fd()) == Ok(mount.mark());
                is_marked && rustix::fs::fcntl_getfl(&fd).is_ok_and(counts)
            })
        })
    }

    /// Whether a guest runs or maps a file of the file system of `mount` that it cannot have reached otherwise: neither
    /// carries a mark.
    pub fn runs_file_of(&self, pid: u32, mount: &Mount) -> bool {
        let is_own = |path: &[u8]| mount.filesystem.is_own_host_path(path.strip_suffix(b" (deleted)").unwrap_or(path));
        if rustix::fs::readlink(format!("/proc/{pid}/exe"), Vec::new()).is_ok_and(|exe| is_own(exe.to_bytes())) {
            return true;
        }
        // The path begins at the only slash that follows five fields: proc_pid_maps(5).
        let maps = std::fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
        let path = |line: &[u8]| line.iter().position(|b| *b == b'/').map(|at| line[at..].to_vec());
        maps.split(|b| *b == b'\n').filter_map(path).any(|path| is_own(&path))
    }

    /// The mount through which a descriptor with a mark was opened.
    pub fn marked(&self, table: &MountTable, fd: BorrowedFd<'_>, mark: i32) -> Option<Arc<Mount>> {
        if mark <= 0 {
            return None;
        }
        let candidates: Vec<&Arc<Mount>> = table.by_mark(mark).collect();
        if let [only] = candidates[..] {
            return Some(only.clone());
        }
        // There are more mounts than marks.
        let path = rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new()).ok()?;
        let has_it = |mount: &&&Arc<Mount>| mount.filesystem.path_of_host(path.to_bytes()).is_some();
        candidates.iter().find(has_it).map(|m| Arc::clone(m))
    }

    /// Gives a new process its own record.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn take_record(&self, pid: u32, state: ProcessState) -> Result<()> {
        state.view.gets_namespaces();
        let _changing = self.states.changing();
        let number = self.states.number(state);
        umvu_sys::guest::set_state_number(pid, number)
    }

    /// Ends the processes of a pid namespace when its init has ended: `zap_pid_ns_processes`.
    ///
    /// # Errors
    /// - `ESRCH`: it has ended already.
    /// - `EAGAIN`: no thread can be made.
    pub fn end_with_init(self: &Arc<Self>, namespace: Arc<crate::namespace::PidNamespace>, init: u32) -> Result<()> {
        use rustix::event::{poll, PollFd, PollFlags};
        let pidfd = umvu_sys::guest::open_thread(init)?;
        namespace.set_init(init);
        let supervisor = self.clone();
        let watch = move || {
            while poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None) == Err(Errno::INTR) {}
            namespace.end();
            let is_in =
                |state: &ProcessState| state.namespaces.pid.as_ref().is_some_and(|p| p.is_within(Some(&namespace)));
            loop {
                let left: Vec<u32> =
                    supervisor.living().into_iter().filter(|(_, s)| is_in(s)).map(|(p, _)| p).collect();
                if left.is_empty() {
                    return;
                }
                left.into_iter().for_each(umvu_sys::guest::kill);
                // They end when they are next scheduled.
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        };
        let thread = std::thread::Builder::new().name("pid namespace".into()).stack_size(128 << 10);
        thread.spawn(watch).map(drop).map_err(|_| Errno::AGAIN)
    }

    /// Drops the records that no guest carries any more.
    pub fn sweep_states(&self) {
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        let pids = processes.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let carried: Vec<u64> = pids.filter_map(|pid| umvu_sys::guest::state_number(pid).ok()).collect();
        self.states.sweep(&carried);
    }

    /// As [`Supervisor::sweep_states`], and does not take the guests of other supervisors, whose numbers may be the same,
    /// for ours: slower.
    pub fn sweep_own_states(&self) {
        let Ok(processes) = std::fs::read_dir("/proc") else { return };
        let pids = processes.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let guests = pids.filter(|pid| self.is_guest(*pid));
        let carried: Vec<u64> = guests.filter_map(|pid| umvu_sys::guest::state_number(pid).ok()).collect();
        self.states.sweep(&carried);
    }

    /// The umask that the kernel has for the calling process.
    pub fn kernel_umask(&self, call: &Call) -> u32 {
        let status = std::fs::read(format!("/proc/{}/status", call.tid())).unwrap_or_default();
        let umask = status
            .split(|b| *b == b'\n')
            .find_map(|line| line.strip_prefix(b"Umask:"))
            .and_then(|text| u32::from_str_radix(std::str::from_utf8(text).ok()?.trim(), 8).ok())
            .unwrap_or(0o022);
        // Read once: the kernel's own stays as it is from now on.
        if let Err(errno) = call.change_state(|state| state.umask = Some(umask)) {
            tracing::debug!(tid = call.tid(), %errno, "umask not recorded");
        }
        umask
    }

    /// Lets go of all mounts, when no guest is left.
    pub fn close_views(&self) {
        for state in self.states.all() {
            state.view.set_mounts(MountTable::new(state.view.mounts.load().host().mount));
        }
        self.states.clear();
        self.programs.clear();
        // They hold mounts too, and file systems clean up as the last mount goes.
        self.placeholders.forget_all();
        self.open_nodes.forget_all();
    }

    /// What a descriptor of the host (taken from the guest, or found in `/proc`) is in the caller's view.
    ///
    /// # Errors
    /// - `ENOENT`: it is of a file system of the view, and no longer there.
    pub fn place_of(&self, call: &Call, fd: OwnedFd) -> Result<Location> {
        let stat = rustix::fs::fstat(&fd)?;
        if let Some(open) = self.placeholders.find(stat.st_dev, stat.st_ino) {
            return Ok(open.location.clone());
        }
        if let Some(place) = self.object_of_text(call, fd.as_fd(), &stat) {
            return Ok(place);
        }
        if let Some(node) = self.open_nodes.find(fd.as_fd(), &stat) {
            return Ok(node);
        }
        let table = call.table();
        let mark = umvu_sys::file::mark(fd.as_fd());
        if let Some(mount) = self.marked(&table, fd.as_fd(), mark.unwrap_or(0)) {
            let copy = rustix::io::fcntl_dupfd_cloexec(&fd, 0)?;
            let inode = match mount.filesystem.inode_of_open(copy) {
                Err(Errno::NOENT) => by_host_path(&mount, &fd)?,
                other => other?,
            };
            return Ok(Location { mount, inode });
        }
        if stat.st_dev == self.proc_device {
            // Directories of others are placeholders where it matters.
            if let Some(mount) = table.hosts_proc().or(self.first_proc.get()) {
                if let Some(inode) = ProcInode::of_open(&mount.filesystem, &fd) {
                    return Ok(Location { mount: mount.clone(), inode });
                }
            }
        }
        // What has no mark was opened on the host's own tree, whatever else shows it; special files may have been opened by
        // the guest itself.
        let kind = FileKind::from_mode(stat.st_mode);
        if mark == Ok(0) && matches!(kind, Some(FileKind::Regular | FileKind::Directory)) {
            return self.host_place(&table, fd);
        }
        // Other trees of the view may have handed it out as O_PATH, which takes no mark.
        if !table.is_host() {
            let path = match umvu_interface::path_of_open(fd.as_fd()) {
                // Nothing tells where a file so deep lies: most likely in what the view has at its root.
                Err(Errno::NAMETOOLONG) => {
                    let mount = table.root().mount;
                    let copy = rustix::io::fcntl_dupfd_cloexec(&fd, 0)?;
                    return match mount.filesystem.inode_of_open(copy) {
                        Ok(inode) => Ok(Location { mount, inode }),
                        Err(_) => self.host_place(&table, fd),
                    };
                }
                path => path?,
            };
            let trees = table.mounts().iter().rev().filter(|m| m.kind == MountKind::Tree);
            let lowest = table.lowest_root().mount;
            // What the host's own tree shows too is taken for that.
            for mount in trees.filter(|m| !Arc::ptr_eq(&m.filesystem, &lowest.filesystem)) {
                if mount.filesystem.path_of_host(&path).is_some() {
                    if let Ok(inode) = mount.filesystem.inode_of_open(fd.try_clone().map_err(|_| Errno::MFILE)?) {
                        return Ok(Location { mount: mount.clone(), inode });
                    }
                }
            }
        }
        self.host_place(&table, fd)
    }

    /// The object (mostly of `/proc`) whose text a descriptor with this `stat` holds, if it does.
    pub fn object_of_text(&self, call: &Call, fd: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> Option<Location> {
        if stat.st_nlink > 0 {
            return None;
        }
        if let Some(text) = self.controls.find(stat.st_dev, stat.st_ino) {
            return Some(text.location.clone());
        }
        let path = rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new()).ok()?;
        let inside = text::object_of(path.to_bytes())?;
        let mount = call.table().mounts().iter().rev().find(|m| m.kind == MountKind::Proc)?.clone();
        let mut inode = mount.root.clone();
        for name in inside.split(|b| *b == b'/') {
            inode = inode.lookup(&Name::new(name).ok()?).ok()?;
        }
        Some(Location { mount, inode })
    }

    /// A descriptor of the host as an object of the host's own tree.
    pub fn host_place(&self, table: &MountTable, fd: OwnedFd) -> Result<Location> {
        let mount = table.host().mount;
        let inode = mount.filesystem.inode_of_open(fd)?;
        Ok(Location { mount, inode })
    }

    /// The path in the caller's view of an object that the host knows as `host_path`; `mark` is that of a
    /// descriptor of it, 0 when it has none. What is not below the caller's root is told from the root of the view, as
    /// `d_path` of `fs/d_path.c` does.
    pub fn view_path(&self, call: &Call, host_path: &[u8], mark: i32) -> Option<Vec<u8>> {
        let table = call.table();
        let found = path_in_trees(&table, host_path, mark);
        if call.state.root.is_none() {
            return found;
        }
        let root = path_from_bottom(&table, &call.root(&table)).ok()?;
        let path = found.unwrap_or_else(|| host_path.to_vec());
        let below = strip_prefix(&path, if root == b"/" { b"" } else { &root });
        Some(match below {
            Some(b"") => b"/".to_vec(),
            // The slash that was taken for a separator.
            Some(below) if below.first() != Some(&b'/') => [b"/", below].concat(),
            Some(below) => below.to_vec(),
            None => path,
        })
    }
}

/// The path, from the root of the view, of what a tree of the view shows of the host.
fn path_in_trees(table: &MountTable, host_path: &[u8], mark: i32) -> Option<Vec<u8>> {
    // Of what was unmounted, too, a descriptor has a path, which begins at the mount.
    let detached = table.detached().iter().rev().filter(|_| mark != 0);
    let trees = table.mounts().iter().rev().chain(detached).filter(|m| m.kind == MountKind::Tree);
    for mount in trees.filter(|m| mark == 0 || m.mark() == mark) {
        let Some(inside) = mount.filesystem.path_of_host(host_path) else { continue };
        let base = mount.root.path().ok()?;
        let Some(below) = strip_prefix(&inside, &base) else { continue };
        let mut path = path_from_bottom(table, &Location::root_of(mount)).ok()?;
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(below);
        if below.is_empty() && path.len() > 1 {
            path.pop();
        }
        return Some(path);
    }
    None
}

/// Finds what a descriptor names in a tree by the path that the host has for it now.
fn by_host_path(mount: &Mount, fd: &OwnedFd) -> Result<InodeRef> {
    let path = umvu_interface::path_of_open(fd.as_fd())?;
    let inside = mount.filesystem.path_of_host(&path).ok_or(Errno::NOENT)?;
    if inside.is_empty() {
        return Ok(mount.filesystem.root());
    }
    mount.filesystem.root().lookup_path(&inside)
}
