//! What fsopen(2) and fspick(2) begin and fsconfig(2) fills: a file system that is being described. Knows nothing of
//! descriptors.
//!
//! A module makes its file system with what it covers in sight, which is known only when the mount is moved into
//! its place: until then an [`Unmade`] stands for it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_interface::{Errno, Filesystem, FsStat, Inode, InodeRef, MountError, MountFlags, Stat};

use super::new::{check_type, make, Made, Maker, Wanted};
use super::{attributes, shown, Result};
use crate::call::Call;
use crate::mount::{Mount, MountKind, NewMount, Origin, Superblock};

/// A file system that is being described.
pub struct Context {
    described: Mutex<Described>,
    /// Where messages for the guest go: the other end of its descriptor.
    messages: OwnedFd,
}

struct Described {
    phase: Phase,
    fstype: Vec<u8>,
    source: Option<Vec<u8>>,
    options: Vec<Vec<u8>>,
    superblock: MountFlags,
}

/// `enum fs_context_phase`.
enum Phase {
    Describing,
    Made(Arc<Mount>),
    Redescribing(Arc<Mount>),
    Failed,
}

/// A parameter of fsconfig(2).
pub enum Value {
    /// `FSCONFIG_SET_FLAG`.
    Flag,
    /// `FSCONFIG_SET_STRING`.
    Text(Vec<u8>),
}

impl Context {
    /// Begins a new file system.
    ///
    /// # Errors
    /// - `ENODEV`: unknown type.
    pub fn new(call: &Call, fstype: Vec<u8>, messages: OwnedFd) -> Result<Self> {
        check_type(call, &fstype)?;
        Ok(Self::begin(Phase::Describing, fstype, MountFlags::empty(), messages))
    }

    /// Begins to change a file system that is mounted.
    pub fn pick(mount: Arc<Mount>, messages: OwnedFd) -> Self {
        let (fstype, superblock) = (mount.fstype.clone(), mount.superblock.flags());
        Self::begin(Phase::Redescribing(mount), fstype, superblock, messages)
    }

    fn begin(phase: Phase, fstype: Vec<u8>, superblock: MountFlags, messages: OwnedFd) -> Self {
        let described = Described { phase, fstype, source: None, options: Vec::new(), superblock };
        Self { described: Mutex::new(described), messages }
    }

    /// Whether the guest has closed its descriptors.
    pub fn is_closed(&self) -> bool {
        use rustix::event::{poll, PollFd, PollFlags};
        let mut asked = [PollFd::new(&self.messages, PollFlags::OUT)];
        poll(&mut asked, Some(&rustix::time::Timespec::default())).is_ok()
            && asked[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Leaves a line for who reads the descriptor.
    fn tell(&self, error: MountError) -> MountError {
        let line = format!("e {error}");
        if let Err(errno) = rustix::io::write(&self.messages, line.as_bytes()) {
            tracing::debug!(%errno, "message not taken");
        }
        error
    }

    /// Sets a parameter: `vfs_parse_fs_param` of `fs/fs_context.c`.
    ///
    /// # Errors
    /// - `EBUSY`: made already
    /// - `EINVAL`: an empty name, a second source
    pub fn set(&self, key: &[u8], value: Value) -> Result<()> {
        let mut described = self.described.lock();
        if !matches!(described.phase, Phase::Describing | Phase::Redescribing(_)) {
            return Err(MountError::new(Errno::BUSY, format!("{}: too late", shown(key))));
        }
        let bad = |why: &str| self.tell(MountError::new(Errno::INVAL, format!("{}: {why}", shown(key))));
        match (key, value) {
            (b"", _) => return Err(bad("unnamed parameter")),
            (b"ro", Value::Flag) => described.superblock |= MountFlags::READ_ONLY,
            (b"rw", Value::Flag) => described.superblock &= !MountFlags::READ_ONLY,
            (b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime" | b"mand" | b"nomand", Value::Flag) => {}
            (b"source", Value::Flag) => return Err(bad("non-string source")),
            (b"source", Value::Text(_)) if described.source.is_some() => return Err(bad("multiple sources")),
            (b"source", Value::Text(text)) => described.source = Some(text),
            (_, Value::Flag) => described.options.push(key.to_vec()),
            (_, Value::Text(text)) => described.options.push([key, b"=", &text].concat()),
        }
        Ok(())
    }

    /// Makes what is described: `FSCONFIG_CMD_CREATE`.
    ///
    /// # Errors
    /// - `EBUSY`: made already
    /// - those of the type
    pub fn create(&self, call: &Call) -> Result<()> {
        let mut described = self.described.lock();
        if !matches!(described.phase, Phase::Describing) {
            return Err(MountError::new(Errno::BUSY, "made already"));
        }
        let root = call.root(&call.table()).inode;
        let made = match check_type(call, &described.fstype) {
            Ok(Maker::Builtin) => described.make(call, root, b"", MountFlags::empty()).map(|made| made.mount),
            Ok(Maker::Module) => Ok(described.promise(call, root)),
            Err(error) => Err(error),
        };
        match made {
            Ok(mount) => {
                described.phase = Phase::Made(mount);
                Ok(())
            }
            Err(error) => {
                described.phase = Phase::Failed;
                Err(self.tell(error))
            }
        }
    }

    /// Changes what is mounted: `FSCONFIG_CMD_RECONFIGURE`.
    ///
    /// # Errors
    /// - `EBUSY`: nothing is being changed
    /// - `EBUSY`: it shall be read-only, and a file in it is open for writing
    /// - `EINVAL`: an option that the file system does not take
    pub fn reconfigure(&self, call: &Call) -> Result<()> {
        let mut described = self.described.lock();
        let Phase::Redescribing(mount) = &described.phase else {
            return Err(MountError::new(Errno::BUSY, "nothing to change"));
        };
        attributes::reconfigure(call, mount, &described.options, described.superblock)
            .map_err(|error| self.tell(error))?;
        described.options.clear();
        Ok(())
    }

    /// Takes the mount that was made, for fsmount(2).
    ///
    /// # Errors
    /// - `EINVAL`: nothing has been made
    /// - `EBUSY`: it has been taken, or is mounted
    pub fn take(&self, flags: MountFlags) -> core::result::Result<Arc<Mount>, Errno> {
        let mut described = self.described.lock();
        match &described.phase {
            Phase::Describing | Phase::Failed => Err(Errno::INVAL),
            Phase::Redescribing(_) => Err(Errno::BUSY),
            Phase::Made(mount) => {
                let mount = mount.clone();
                mount.set_flags(flags);
                described.options.clear();
                described.phase = Phase::Redescribing(mount.clone());
                Ok(mount)
            }
        }
    }
}

impl Described {
    fn make(&self, call: &Call, covered: InodeRef, target: &[u8], flags: MountFlags) -> Result<Made> {
        let wanted = Wanted {
            fstype: &self.fstype,
            source: self.source.as_deref().unwrap_or(b"none"),
            target,
            options: self.options.clone(),
            flags,
            superblock: self.superblock,
        };
        make(call, &wanted, covered)
    }

    fn promise(&self, call: &Call, root: InodeRef) -> Arc<Mount> {
        let described = Described {
            phase: Phase::Describing,
            fstype: self.fstype.clone(),
            source: self.source.clone(),
            options: self.options.clone(),
            superblock: self.superblock,
        };
        Mount::new(NewMount {
            id: call.supervisor.next_id(),
            kind: MountKind::Tree,
            origin: Origin::View,
            root: root.clone(),
            filesystem: Arc::new(Unmade { described, root }),
            source: self.source.clone().unwrap_or_default(),
            fstype: self.fstype.clone(),
            flags: MountFlags::empty(),
            superblock: Superblock::new(self.superblock),
            module: None,
            mark: None,
        })
    }
}

/// Stands for a file system that is made when its mount point is known; until then it shows the root of the view.
pub struct Unmade {
    described: Described,
    root: InodeRef,
}

impl Unmade {
    /// Makes the file system.
    ///
    /// # Errors
    /// Those of the type.
    pub fn make(&self, call: &Call, covered: InodeRef, target: &[u8], flags: MountFlags) -> Result<Made> {
        self.described.make(call, covered, target, flags)
    }
}

impl Filesystem for Unmade {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn root(&self) -> InodeRef {
        self.root.clone()
    }

    fn statfs(&self, inode: &dyn Inode) -> umvu_interface::Result<FsStat> {
        self.root.filesystem().statfs(inode)
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> umvu_interface::Result<Stat> {
        self.root.filesystem().stat_open(host)
    }
}
