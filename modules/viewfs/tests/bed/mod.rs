//! What the tests stand on: a directory of the host as the world, mounts made by the module as a view makes them,
//! and short words for what a program would do.

#![allow(dead_code, unused_imports)] // Each test program uses its part.

pub mod random;
mod tree;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use umvu_host::HostFs;
use umvu_interface::{
    Caller, Capabilities, Credentials, Filesystem, FilesystemType, Ids, InodeRef, LayerUse, MountError, MountFlags,
    MountRequest, Mounted, Name, OFlags, Origin, World,
};

pub use tree::{fd_stat, Tree};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory that is removed at the end.
pub struct Bed {
    path: PathBuf,
    host: Arc<HostFs>,
    /// Whether layers keep owners that the host does not.
    pub faked: bool,
}

impl Bed {
    pub fn new() -> Self {
        // The modes that the interface is given have the guest's umask applied.
        rustix::process::umask(rustix::fs::Mode::empty());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("umvu-viewfs-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let host = HostFs::new(open(&path), None, None);
        Self { path, host, faked: false }
    }

    /// A bed that another process has made, and will remove.
    pub fn of(path: PathBuf) -> std::mem::ManuallyDrop<Self> {
        rustix::process::umask(rustix::fs::Mode::empty());
        let host = HostFs::new(open(&path), None, None);
        std::mem::ManuallyDrop::new(Self { path, host, faked: false })
    }

    /// A bed whose world is the host's whole tree; paths of mounts begin at its root.
    pub fn whole() -> Self {
        let mut bed = Self::new();
        bed.host = HostFs::new(open(Path::new("/")), None, None);
        bed
    }

    pub fn faked() -> Self {
        let mut bed = Self::new();
        bed.faked = true;
        bed
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// Makes directories.
    pub fn dirs(&self, paths: &[&str]) -> &Self {
        for path in paths {
            std::fs::create_dir_all(self.path(path)).unwrap();
        }
        self
    }

    /// Makes a file, and the directories above it, on the host.
    pub fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    pub fn inode(&self, path: &str) -> InodeRef {
        self.resolve(path.as_bytes()).unwrap()
    }

    pub fn try_mount(&self, fstype: &str, source: &str, target: &str, options: &[&str]) -> Result<Mounted, MountError> {
        let module = (umvu_viewfs::MODULE.load)(&[]).unwrap();
        let types = module.filesystem_types();
        let found: &Arc<dyn FilesystemType> =
            types.iter().find(|candidate| candidate.names().contains(&fstype)).expect("a type of that name");
        let credentials = me();
        found.mount(
            &MountRequest {
                fstype: fstype.as_bytes(),
                source: source.as_bytes(),
                target: target.as_bytes(),
                covered: self.inode(target),
                options: options.iter().map(|option| option.as_bytes().to_vec()).collect(),
                flags: MountFlags::empty(),
                caller: Caller { tid: 1, credentials: &credentials, umask: 0o022 },
            },
            self,
        )
    }

    pub fn mount(&self, source: &str, target: &str, options: &[&str]) -> Tree {
        match self.try_mount("viewfs", source, target, options) {
            Ok(mounted) => Tree::new(mounted),
            Err(error) => panic!("{error}"),
        }
    }

    /// A copy-on-write union of `lower` with the changes in `upper`.
    pub fn cow(&self) -> Tree {
        self.dirs(&["lower", "upper"]);
        self.mount("/upper", "/lower", &["cow"])
    }

    pub fn overlay(&self, options: &[&str]) -> Tree {
        match self.try_mount("overlay", "overlay", "/", options) {
            Ok(mounted) => Tree::new(mounted),
            Err(error) => panic!("{error}"),
        }
    }

    fn host_path(&self, inode: &InodeRef) -> PathBuf {
        let fd = inode.host_fd().unwrap().as_raw_fd();
        std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl World for Bed {
    fn resolve(&self, path: &[u8]) -> umvu_interface::Result<InodeRef> {
        let root: InodeRef = self.host.root_inode();
        match path.strip_prefix(b"/").unwrap_or(path) {
            b"" => Ok(root),
            path => root.lookup_path(path),
        }
    }

    fn layer(&self, directory: &InodeRef, how: LayerUse, state: Option<&InodeRef>) -> Result<InodeRef, MountError> {
        assert_eq!(how == LayerUse::Upper, state.is_some());
        let fd = directory.host_fd().unwrap().try_clone_to_owned().unwrap();
        let layer = HostFs::new(fd, None, None);
        if self.faked && how == LayerUse::Upper {
            layer.fake_ownership();
        }
        Ok(layer.root_inode())
    }

    fn is_inside(&self, inner: &InodeRef, outer: &InodeRef) -> bool {
        self.host_path(inner).starts_with(self.host_path(outer))
    }

    fn new_device(&self) -> u64 {
        0xabc0 + NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn hold_program(&self, _: &[u8]) -> umvu_interface::Result<umvu_interface::HeldProgram> {
        Err(umvu_interface::Errno::NOENT)
    }
}

pub fn open(path: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap()
}

pub fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

/// The host's own user.
pub fn me() -> Credentials {
    let uid = rustix::process::geteuid().as_raw();
    let capabilities = if uid == 0 { Capabilities::full() } else { Capabilities::none() };
    let gid = rustix::process::getegid().as_raw();
    Credentials {
        uid: Ids::all(uid),
        gid: Ids::all(gid),
        groups: Arc::from([].as_slice()),
        capabilities,
        securebits: 0,
        origin: Origin::Host,
        namespace: None,
    }
}

/// A user that only the view knows.
pub fn faked(uid: u32) -> Credentials {
    let capabilities = if uid == 0 { Capabilities::full() } else { Capabilities::none() };
    Credentials { uid: Ids::all(uid), gid: Ids::all(uid), capabilities, origin: Origin::Faked, ..me() }
}

/// Everything below a directory of the host: paths with type, mode and content.
pub fn picture(path: &Path) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut lines = Vec::new();
    let mut todo = vec![path.to_path_buf()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.path().symlink_metadata().unwrap();
            let label = entry.path().strip_prefix(path).unwrap().display().to_string();
            let what = if meta.is_dir() {
                todo.push(entry.path());
                String::new()
            } else if meta.is_symlink() {
                std::fs::read_link(entry.path()).unwrap().display().to_string()
            } else if meta.file_type().is_char_device() {
                format!("device {}", meta.rdev())
            } else if meta.is_file() {
                std::fs::read_to_string(entry.path()).unwrap_or_else(|_| "?".into())
            } else {
                String::new()
            };
            lines.push(format!("{label} {:o} {what}", meta.mode()));
        }
    }
    lines.sort();
    lines
}

/// Reads an attribute of an object of the host.
pub fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 512];
    let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

pub fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

pub fn whiteout(path: &Path) {
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::empty(), 0).unwrap();
}

/// A world that is a union: mounts in it are unions of unions.
struct Inside<'a>(&'a Tree);

impl World for Inside<'_> {
    fn resolve(&self, path: &[u8]) -> umvu_interface::Result<InodeRef> {
        match path.strip_prefix(b"/").unwrap_or(path) {
            b"" => Ok(Arc::clone(&self.0.root)),
            path => self.0.root.lookup_path(path),
        }
    }

    fn layer(&self, directory: &InodeRef, _: LayerUse, _: Option<&InodeRef>) -> Result<InodeRef, MountError> {
        Ok(Arc::clone(directory))
    }

    fn is_inside(&self, inner: &InodeRef, outer: &InodeRef) -> bool {
        let (inner, outer) = (inner.path().unwrap(), outer.path().unwrap());
        inner.starts_with(&outer) && (outer.is_empty() || matches!(inner.get(outer.len()), None | Some(b'/')))
    }

    fn new_device(&self) -> u64 {
        0xabc0 + NEXT.fetch_add(1, Ordering::Relaxed)
    }

    fn hold_program(&self, _: &[u8]) -> umvu_interface::Result<umvu_interface::HeldProgram> {
        Err(umvu_interface::Errno::NOENT)
    }
}

/// A copy-on-write union inside another one.
pub fn nested(outer: &Tree, source: &str, target: &str) -> Tree {
    let module = (umvu_viewfs::MODULE.load)(&[]).unwrap();
    let request = MountRequest {
        fstype: b"viewfs",
        source: source.as_bytes(),
        target: target.as_bytes(),
        covered: outer.find(target).unwrap(),
        options: vec![b"cow".to_vec()],
        flags: MountFlags::empty(),
        caller: outer.caller(),
    };
    match module.filesystem_types()[0].mount(&request, &Inside(outer)) {
        Ok(mounted) => Tree::new(mounted),
        Err(error) => panic!("{error}"),
    }
}
