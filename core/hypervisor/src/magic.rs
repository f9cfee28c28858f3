//! Where the links of `/proc` lead for a guest: descriptors, current directory, root, program.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use umvu_interface::{Errno, Result, Stat};

use crate::call::Call;
use crate::fs::proc::{Jump, Magic, ProcInode};
use crate::handlers::stat::shown;
use crate::inspect::{may_inspect, By};
use crate::mount::Location;
use crate::namespace::nsfs::NsInode;
use crate::namespace::pid::Init;
use crate::namespace::{linked, Link, Namespace, PidNamespace};
use crate::programs::Program;
use crate::resolve::{path_of, MagicLinks};
use crate::state::ProcessState;

/// Follows links for one call.
pub struct Follower<'a> {
    /// The call.
    pub call: &'a Call,
}

impl MagicLinks for Follower<'_> {
    fn follow(&self, magic: &Magic, tid: u32) -> Result<Jump> {
        self.check_access(magic)?;
        match magic {
            Magic::SelfLink(pids) => Ok(Jump::Text(self.number_in(pids, process_of(tid)?)?.to_string().into_bytes())),
            Magic::ThreadSelf(pids) => {
                let (process, thread) = (self.number_in(pids, process_of(tid)?)?, self.number_in(pids, tid)?);
                Ok(Jump::Text(format!("{process}/task/{thread}").into_bytes()))
            }
            Magic::Cwd(pid) => match self.state_of(*pid) {
                Some(state) => match &state.cwd {
                    Some(cwd) => Ok(Jump::Place(cwd.location.clone())),
                    None => Ok(Jump::Place(self.call.supervisor.host_cwd(self.call, *pid)?)),
                },
                None => self.host_object(*pid, "cwd"),
            },
            Magic::Root(pid) => match self.state_of(*pid) {
                Some(state) => {
                    let table = state.view.mounts.load();
                    Ok(Jump::Place(state.root.as_ref().map_or_else(|| table.root(), |r| (**r).clone())))
                }
                None => self.host_object(*pid, "root"),
            },
            Magic::Exe(pid) => match self.call.supervisor.programs.of_process(*pid) {
                Some(program) => Ok(Jump::Place(program.place.clone())),
                None => self.host_object(*pid, "exe"),
            },
            Magic::Descriptor(pid, fd) => self.descriptor(*pid, *fd),
            Magic::Namespace(pid, link) => match self.namespace(*pid, *link)? {
                Some(namespace) => {
                    let mount = self.call.supervisor.nsfs.clone();
                    Ok(Jump::Place(Location { inode: NsInode::file_of(&mount, namespace), mount }))
                }
                None => self.host_object(*pid, &format!("ns/{}", link.name())),
            },
        }
    }

    fn searched(&self, directory: &ProcInode, tid: u32) -> Result<Option<Stat>> {
        // A process may use its own descriptors whoever it has become: proc_fd_permission of fs/proc/fd.c.
        if let Some((pid, b"fd" | b"fdinfo")) = directory.of_process() {
            if process_of(pid)? == process_of(tid)? {
                return Ok(None);
            }
        }
        shown(self.call, directory).map(Some)
    }
}

impl Follower<'_> {
    /// `proc_fd_access_allowed` of `fs/proc/base.c`.
    fn check_access(&self, magic: &Magic) -> Result<()> {
        let (Magic::Cwd(pid) | Magic::Root(pid) | Magic::Exe(pid) | Magic::Descriptor(pid, _)) = magic else {
            return Ok(());
        };
        if may_inspect(self.call, *pid, By::Files) {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    /// The record of another process, if it is a guest of ours.
    pub fn state_of(&self, pid: u32) -> Option<Arc<ProcessState>> {
        self.call.supervisor.state_of(pid)
    }

    /// The number of a process in the procfs of a pid namespace.
    ///
    /// # Errors
    /// - `ENOENT`: it has none there.
    fn number_in(&self, pids: &Option<Arc<PidNamespace>>, pid: u32) -> Result<u32> {
        match pids {
            None => Ok(pid),
            Some(pids) if self.call.supervisor.is_in(pids, pid) => Ok(pids.shown(pid)),
            Some(_) => Err(Errno::NOENT),
        }
    }

    /// The namespace that a link leads to; `None` where the kernel's own is the right one.
    ///
    /// # Errors
    /// - `EACCES`: the process is in a user namespace that is none of the caller's.
    fn namespace(&self, pid: u32, link: Link) -> Result<Option<Namespace>> {
        let Some(state) = self.state_of(pid) else { return Ok(None) };
        let theirs = self.call.supervisor.credentials(&state).namespace.clone();
        if !crate::handlers::may_look(self.call, theirs.as_ref()) {
            return Err(Errno::ACCESS);
        }
        // Who lists processes meets some that have just ended.
        let process = process_of(pid).map_err(|_| Errno::NOENT)?;
        let found = linked(&state, process, link);
        match &found {
            // pidns_for_children_get: nothing is there before the first child.
            Some(Namespace::Pid(pid)) if pid.init() == Init::None => Err(Errno::NOENT),
            _ => Ok(found),
        }
    }

    /// What a descriptor of a guest is. One that carries no mark was opened on the host's own tree, whatever covers
    /// its path now: it is that object, not the one that the path leads to.
    fn descriptor(&self, pid: u32, fd: i32) -> Result<Jump> {
        let supervisor = &self.call.supervisor;
        if let Ok(open) = supervisor.threads.take_fd(pid, fd) {
            let stat = rustix::fs::fstat(&open)?;
            let mark = umvu_sys::file::mark(open.as_fd());
            if let Some(node) = supervisor.open_nodes.find(open.as_fd(), &stat) {
                return Ok(Jump::Place(node));
            }
            if mark.is_ok_and(|mark| mark > 0) {
                return Ok(Jump::Place(supervisor.place_of(self.call, open)?));
            }
            let is_host = mark == Ok(0)
                && stat.st_dev != supervisor.proc_device
                && supervisor.placeholders.find(stat.st_dev, stat.st_ino).is_none()
                && supervisor.object_of_text(self.call, open.as_fd(), &stat).is_none();
            if is_host {
                let path = crate::guest::proc_path(open.as_fd());
                let object = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                return Ok(Jump::Place(supervisor.host_place(&self.call.table(), object)?));
            }
        }
        self.host_object(pid, &format!("fd/{fd}"))
    }

    /// What the host's own link leads to.
    fn host_object(&self, pid: u32, name: &str) -> Result<Jump> {
        let path = format!("/proc/{pid}/{name}");
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Jump::Place(self.call.supervisor.place_of(self.call, fd)?))
    }

    /// What readlink(2) says of a link.
    pub fn text(&self, magic: &Magic, tid: u32) -> Result<Vec<u8>> {
        self.check_access(magic)?;
        let path = match magic {
            Magic::SelfLink(_) | Magic::ThreadSelf(_) => match self.follow(magic, tid)? {
                Jump::Text(text) => return Ok(text),
                Jump::Place(_) => return Err(Errno::NOENT),
            },
            Magic::Cwd(pid) => format!("/proc/{pid}/cwd"),
            Magic::Root(pid) => format!("/proc/{pid}/root"),
            Magic::Exe(pid) => format!("/proc/{pid}/exe"),
            Magic::Descriptor(pid, fd) => format!("/proc/{pid}/fd/{fd}"),
            Magic::Namespace(pid, link) => match self.namespace(*pid, *link)? {
                Some(namespace) => return Ok(namespace.text()),
                None => format!("/proc/{pid}/ns/{}", link.name()),
            },
        };
        let host = rustix::fs::readlink(&path, Vec::new())?.into_bytes();
        if let Magic::Exe(pid) = magic {
            if let Some(program) = self.call.supervisor.programs.of_process(*pid) {
                return self.program_text(&program);
            }
        }
        if let Magic::Cwd(pid) | Magic::Root(pid) = magic {
            if self.state_of(*pid).is_none() {
                return Ok(host);
            }
            if let Jump::Place(place) = self.follow(magic, tid)? {
                let entered = self.state_of(*pid).and_then(|s| s.cwd.as_ref()?.path.clone());
                let recorded = if matches!(magic, Magic::Cwd(_)) { entered } else { None };
                return self.path_text(&place, recorded.unwrap_or(host));
            }
        }
        if host.first() != Some(&b'/') {
            return Ok(host);
        }
        let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if let Some(open) = self.call.supervisor.placeholders.find(stat.st_dev, stat.st_ino) {
            if let Some(namespace) = NsInode::namespace_of(&open.location.inode) {
                return Ok(namespace.text());
            }
            let former = self.removed_path(&open.location).unwrap_or(host);
            return self.path_text(&open.location, former);
        }
        if let Some(place) = self.call.supervisor.object_of_text(self.call, fd.as_fd(), &stat) {
            return self.path_text(&place, host);
        }
        let open = match magic {
            Magic::Descriptor(pid, n) => self.call.supervisor.threads.take_fd(*pid, *n).ok(),
            _ => None,
        };
        if let Some(node) = open.as_ref().and_then(|open| self.call.supervisor.open_nodes.find(open.as_fd(), &stat)) {
            return self.object_text(&node, host);
        }
        let mark = open.map_or(0, |fd| umvu_sys::file::mark(fd.as_fd()).unwrap_or(0));
        Ok(self.call.supervisor.view_path(self.call, &host, mark).unwrap_or(host))
    }

    /// The path of a program that runs through the loader.
    fn program_text(&self, program: &Program) -> Result<Vec<u8>> {
        self.object_text(&program.place, program.shown.clone())
    }

    /// The path of an object that is open. A tree may know the path that it was found by, and not that it was removed
    /// since; the host does.
    fn object_text(&self, place: &Location, former: Vec<u8>) -> Result<Vec<u8>> {
        let path = self.path_text(place, former)?;
        let host = place.inode.host_fd().map(|fd| rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new()));
        let is_removed = host.is_some_and(|link| link.is_ok_and(|link| link.to_bytes().ends_with(DELETED)));
        if is_removed && !path.ends_with(DELETED) {
            return Ok([&path[..], DELETED].concat());
        }
        Ok(path)
    }

    /// The path that a directory had, which is nowhere any more: the host goes on telling it of its own.
    fn removed_path(&self, place: &Location) -> Option<Vec<u8>> {
        let own = crate::guest::proc_path(place.inode.host_fd()?);
        let host = rustix::fs::readlink(own, Vec::new()).ok()?.into_bytes();
        let path = host.strip_suffix(DELETED)?;
        self.call.supervisor.view_path(self.call, path, place.mount.mark())
    }

    /// The path of a place; `former` is what it was when it was entered.
    fn path_text(&self, place: &Location, former: Vec<u8>) -> Result<Vec<u8>> {
        let table = self.call.table();
        match path_of(&table, &self.call.root(&table), place) {
            Ok(Some(path)) => Ok(path),
            Ok(None) => Ok(b"/".to_vec()),
            Err(_) if former.ends_with(DELETED) => Ok(former),
            Err(_) => Ok([&former[..], DELETED].concat()),
        }
    }
}

/// What the kernel puts behind the path of what has been removed: `d_path` of `fs/d_path.c`.
const DELETED: &[u8] = b" (deleted)";

/// The process a thread belongs to.
pub fn process_of(tid: u32) -> Result<u32> {
    let status = std::fs::read(format!("/proc/{tid}/status")).map_err(|_| Errno::SRCH)?;
    status
        .split(|b| *b == b'\n')
        .find_map(|line| line.strip_prefix(b"Tgid:"))
        .and_then(|n| std::str::from_utf8(n).ok()?.trim().parse().ok())
        .ok_or(Errno::SRCH)
}
