//! One notified call: its arguments, the process behind it, and the ways to answer. Knows no particular call.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use umvu_interface::{Caller, Credentials, Errno, Result};
use umvu_sys::seccomp::{CloseOnExec, Notification};

use crate::entry::Request;
use crate::guest;
use crate::mount::{Location, MountTable};
use crate::resolve::{Last, Lookup, ResolveFlags, Resolver};
use crate::state::{ProcessState, WorkingDirectory};
use crate::supervisor::Supervisor;

/// How a call is answered.
pub enum Reply {
    /// A value.
    Value(i64),
    /// A new descriptor of the guest.
    Descriptor(OwnedFd, CloseOnExec),
    /// The kernel executes the call as it stands.
    Continue,
    /// The rest may block: it is done on a thread of its own and ends early when the guest gets a signal.
    Block(Box<dyn FnOnce(&Call) -> Outcome + Send>),
    /// The rest is done on a thread of its own, which signals of the guest do not concern.
    Aside(Box<dyn FnOnce(&Call) -> Outcome + Send>),
    /// Somebody else has answered or will.
    Answered,
}

/// Result of a handler.
pub type Outcome = core::result::Result<Reply, Fail>;

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// The guest sees an errno.
    Errno(Errno),
    /// The guest's system call is interrupted by a signal: `ERESTARTSYS`.
    Interrupted,
    /// The guest is gone: nobody is there to answer to.
    Gone,
}

impl From<Errno> for Fail {
    fn from(errno: Errno) -> Self {
        Fail::Errno(errno)
    }
}

/// A call.
#[derive(Clone)]
pub struct Call {
    /// The supervisor.
    pub supervisor: Arc<Supervisor>,
    /// As notified.
    pub notification: Notification,
    /// What it means.
    pub request: Request,
    /// The process.
    pub state: Arc<ProcessState>,
}

/// Success without a value.
pub const DONE: Outcome = Ok(Reply::Value(0));

impl Call {
    /// Thread id.
    pub fn tid(&self) -> u32 {
        self.notification.tid
    }

    /// An argument as it is.
    pub fn raw(&self, index: usize) -> u64 {
        self.request.arguments[index]
    }

    /// An argument that the kernel takes as `int` or `unsigned int`: its low half.
    pub fn u32(&self, index: usize) -> u32 {
        let low = self.raw(index) & 0xffff_ffff;
        u32::try_from(low).unwrap_or(u32::MAX)
    }

    /// An argument that the kernel takes as a signed `int`.
    pub fn i32(&self, index: usize) -> i32 {
        i32::from_ne_bytes(self.u32(index).to_ne_bytes())
    }

    /// Reads the path an argument points to.
    ///
    /// # Errors
    /// - `EFAULT`: not readable.
    /// - `ENAMETOOLONG`: no end within `PATH_MAX`.
    pub fn path(&self, index: usize) -> Result<Vec<u8>> {
        guest::read_string(self.tid(), self.raw(index), guest::PATH_MAX)
    }

    /// Fails when the guest is gone: its thread id may be another's by now, so what was read from its memory
    /// must not be acted upon.
    pub fn check_alive(&self) -> core::result::Result<(), Fail> {
        if self.supervisor.listener.is_valid(self.notification.id) {
            Ok(())
        } else {
            Err(Fail::Gone)
        }
    }

    /// Takes a duplicate of the guest's descriptor.
    ///
    /// # Errors
    /// - `EBADF`: there is none.
    pub fn take_fd(&self, fd: i32) -> Result<OwnedFd> {
        if fd < 0 {
            return Err(Errno::BADF);
        }
        self.supervisor.threads.take_fd(self.tid(), fd)
    }

    /// The mounts.
    pub fn table(&self) -> Arc<MountTable> {
        self.state.view.mounts.load_full()
    }

    /// The identity by which permissions are judged.
    pub fn credentials(&self) -> Arc<Credentials> {
        self.supervisor.credentials(&self.state)
    }

    /// Gives the call as if it came from somebody with other credentials.
    pub fn judged_by(&self, credentials: &Credentials) -> Call {
        if !credentials.is_faked() || *credentials == *self.credentials() {
            return self.clone();
        }
        let state = ProcessState { credentials: Some(Arc::new(credentials.clone())), ..(*self.state).clone() };
        Call { state: Arc::new(state), ..self.clone() }
    }

    /// Runs `body` with the caller as the file trees want to know it.
    pub fn as_caller<T>(&self, body: impl FnOnce(&Caller<'_>) -> T) -> T {
        let credentials = self.credentials();
        body(&Caller { tid: self.tid(), credentials: &credentials, umask: self.umask() })
    }

    /// The file mode creation mask.
    pub fn umask(&self) -> u32 {
        match self.state.umask {
            Some(umask) => umask,
            None => self.supervisor.kernel_umask(self),
        }
    }

    /// The root directory.
    pub fn root(&self, table: &MountTable) -> Location {
        match &self.state.root {
            Some(root) => table.top((**root).clone()),
            None => table.root(),
        }
    }

    /// The current directory.
    pub fn cwd(&self) -> Result<Location> {
        self.supervisor.cwd(self)
    }

    /// Where a relative path with this `dirfd` starts.
    ///
    /// # Errors
    /// - `EBADF`: no such descriptor.
    /// - `ENOTDIR`: not a directory (found by the resolver).
    pub fn directory(&self, dirfd: i32) -> Result<Location> {
        if dirfd == libc::AT_FDCWD {
            return self.cwd();
        }
        let fd = self.take_fd(dirfd)?;
        self.supervisor.place_of(self, fd)
    }

    /// Resolves a path relative to `dirfd`.
    pub fn resolve(&self, dirfd: i32, path: &[u8], last: Last, flags: ResolveFlags) -> Result<Lookup> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let table = self.table();
        // An absolute path says nothing of `dirfd`, unless that is the root: path_init of fs/namei.c.
        let is_absolute = path.first() == Some(&b'/') && !flags.contains(ResolveFlags::IN_ROOT);
        let start = if is_absolute { self.root(&table) } else { self.directory(dirfd)? };
        if !self.state.view.claims_devices() {
            return self.resolve_from(&table, start, path, last, flags);
        }
        match self.resolve_from(&table, start.clone(), path, last, flags) {
            Err(Errno::NOENT) => crate::claimed::find(self, &table, start, path, flags).map(Lookup::Found),
            found => found,
        }
    }

    /// Resolves a path from a place.
    pub fn resolve_from(
        &self,
        table: &MountTable,
        start: Location,
        path: &[u8],
        last: Last,
        flags: ResolveFlags,
    ) -> Result<Lookup> {
        let credentials = self.credentials();
        let resolver = Resolver {
            table,
            root: self.root(table),
            credentials: &credentials,
            tid: self.tid(),
            flags,
            magic: &crate::magic::Follower { call: self },
        };
        resolver.resolve(start, path, last)
    }

    /// Resolves a path to an object.
    pub fn object(&self, dirfd: i32, path: &[u8], last: Last) -> Result<Location> {
        match self.resolve(dirfd, path, last, ResolveFlags::empty())? {
            Lookup::Found(found) | Lookup::Entry { found, .. } => Ok(found),
            Lookup::AtParent { .. } => Err(Errno::INVAL),
        }
    }

    /// Resolves a path, or, for an empty path with `AT_EMPTY_PATH`, finds what the descriptor names.
    pub fn object_at(&self, dirfd: i32, path: &[u8], last: Last, empty: EmptyPath) -> Result<Location> {
        if path.is_empty() && empty == EmptyPath::Allowed {
            return self.directory(dirfd);
        }
        self.object(dirfd, path, last)
    }

    /// Gives the process another record from now on.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn change_state(&self, change: impl FnOnce(&mut ProcessState)) -> Result<()> {
        // Another thread of the process may have changed the record since this call began.
        let _changing = self.supervisor.states.changing();
        let current = umvu_sys::guest::state_number(self.tid()).and_then(|n| self.supervisor.states.get(n))?;
        let mut state = (*current).clone();
        change(&mut state);
        let number = self.supervisor.states.number(state);
        umvu_sys::guest::set_state_number(self.tid(), number)
    }

    /// Gives the process the namespaces of another record, and what depends on them.
    ///
    /// # Errors
    /// - `ESRCH`: it is gone.
    pub fn change_namespaces(&self, new: ProcessState) -> Result<()> {
        // What was never recorded is read while the kernel's answer still is the view's.
        let umask = self.umask();
        let cwd = if self.state.is_plain() { Some(self.standing_at(self.cwd()?)) } else { None };
        let ProcessState { view, credentials, namespaces, root, cwd: new_cwd, .. } = new;
        let entered = !Arc::ptr_eq(&view, &self.state.view) && new_cwd.is_some();
        view.gets_namespaces();
        self.state.view.gets_namespaces();
        self.change_state(|state| {
            (state.view, state.credentials, state.namespaces) = (view, credentials, namespaces);
            state.umask = Some(umask);
            if entered {
                (state.root, state.cwd) = (root, new_cwd);
            } else {
                state.cwd = state.cwd.take().or(cwd);
            }
        })
    }

    /// A record of a current directory as the mounts are now.
    pub fn standing_at(&self, location: Location) -> Arc<WorkingDirectory> {
        let generation = self.state.view.generation.load(std::sync::atomic::Ordering::Acquire);
        let table = self.table();
        let path = crate::resolve::path_of(&table, &table.root(), &location).ok().flatten();
        let newest = table.mounts().iter().map(|m| m.id).max().unwrap_or(0);
        Arc::new(WorkingDirectory { location, generation, path, newest })
    }

    /// Records the current directory.
    pub fn set_cwd(&self, location: Location) -> Result<()> {
        let cwd = self.standing_at(location);
        self.change_state(|state| state.cwd = Some(cwd))
    }

    /// Writes to the guest's memory.
    ///
    /// # Errors
    /// - `EFAULT`: not writable.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        guest::write(self.tid(), address, bytes)
    }

    /// Sends the answer.
    pub fn answer(&self, outcome: Outcome) {
        let id = self.notification.id;
        let listener = &self.supervisor.listener;
        let sent = match outcome {
            Ok(Reply::Value(value)) => listener.answer(id, Ok(value)),
            Ok(Reply::Descriptor(fd, cloexec)) if counts_its_openers(&fd) => {
                // Ours is closed before the guest goes on: it may close its own at once and expect the end.
                let given = listener.add_fd(id, fd.as_fd(), cloexec, None);
                drop(fd);
                listener.answer(id, given.map(i64::from))
            }
            Ok(Reply::Descriptor(fd, cloexec)) => match listener.answer_with_fd(id, fd.as_fd(), cloexec) {
                Ok(_) => Ok(()),
                // The guest's table is full, or it is gone: the call fails as open(2) would.
                Err(Errno::NOENT) => Ok(()),
                Err(errno) => listener.answer(id, Err(errno)),
            },
            Ok(Reply::Continue) => listener.answer_continue(id),
            Ok(Reply::Answered | Reply::Block(_) | Reply::Aside(_)) => Ok(()),
            Err(Fail::Errno(errno)) => listener.answer(id, Err(errno)),
            Err(Fail::Interrupted) => listener.answer_raw_error(id, 512),
            Err(Fail::Gone) => Ok(()),
        };
        if let Err(errno) = sent {
            if errno != Errno::NOENT && errno != Errno::INPROGRESS {
                tracing::debug!(tid = self.tid(), %errno, "answer not taken");
            }
        }
    }
}

/// Whether others are told when the last descriptor is closed: all but directories and files open for reading. A
/// program is busy for as long as it is open for writing.
fn counts_its_openers(fd: &OwnedFd) -> bool {
    use rustix::fs::{FileType, OFlags};
    rustix::fs::fstat(fd).is_ok_and(|stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => false,
        FileType::RegularFile => rustix::fs::fcntl_getfl(fd).is_ok_and(|f| (f & OFlags::ACCMODE) != OFlags::RDONLY),
        _ => true,
    })
}

/// Whether an empty path names the descriptor itself (`AT_EMPTY_PATH`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum EmptyPath {
    Allowed,
    Refused,
}
