//! What the tests of all drivers share: a tree on the host, and trees compared.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{symlink, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use umvu_driver::{Contents, Driver, FileStorage, NodeId, OpenFile, ROOT};
use umvu_interface::{Caller, Errno, FileKind, Name, OFlags, Timestamp};

use crate::image::Image;

/// Calls with an identity.
pub fn who<T>(body: impl FnOnce(&Caller<'_>) -> T) -> T {
    crate::examine::call_as(1, 2, body)
}

/// A directory that goes with the test.
pub struct Bed(PathBuf);

impl Bed {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vufuse-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().unwrap()
    }

    /// Makes a small tree with something of most, and gives its path.
    pub fn small_tree(&self) -> PathBuf {
        let root = self.path("small");
        fs::create_dir_all(root.join("a/b/c/d/e/f/g/h/i/j")).unwrap();
        fs::write(root.join("a/b/c/d/e/f/g/h/i/j/deep"), b"deep").unwrap();
        fs::write(root.join("a/text"), b"text ".repeat(3_000)).unwrap();
        fs::write(root.join("a/b/noise"), noise(1, 9_000)).unwrap();
        fs::write(root.join("a/zeros"), [0; 20_000]).unwrap();
        for number in 0..30 {
            fs::write(root.join(format!("a/b/file {number}")), b"x").unwrap();
        }
        symlink("b/noise", root.join("a/link")).unwrap();
        symlink(format!("/{}/y", "long/../".repeat(20)), root.join("long link")).unwrap();
        fs::hard_link(root.join("a/text"), root.join("again")).unwrap();
        rustix::fs::setxattr(root.join("a/text"), "user.x", b"value", rustix::fs::XattrFlags::empty()).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
        for (number, path) in paths(&root).into_iter().enumerate() {
            set_time(&root.join(path), 1_000_000_000 + i64::try_from(number).unwrap() * 86_461);
        }
        root
    }

    /// Makes a tree with something of everything, and gives its path.
    pub fn tree(&self) -> PathBuf {
        let root = self.path("tree");
        fs::create_dir(&root).unwrap();
        let file = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
        file("empty", b"");
        file("one", b"1");
        file("block", &noise(1, 131_072));
        file("noise", &noise(2, 300_001));
        file("zeros", &[0; 400_000]);
        let text = b"the quick brown fox jumps over the lazy dog\n".repeat(12_000);
        file("text", &text);
        for number in 0..20u8 {
            file(&format!("small{number}"), &noise(number.into(), 100 * usize::from(number)));
        }
        let sparse = fs::File::create(root.join("sparse")).unwrap();
        sparse.write_all_at(b"begin", 0).unwrap();
        sparse.write_all_at(b"middle", 2_000_000).unwrap();
        sparse.write_all_at(b"end", 4_999_997).unwrap();
        fs::create_dir_all(root.join("a/b/c/d/e/f/g/h/i/j")).unwrap();
        file("a/b/c/d/e/f/g/h/i/j/deep", b"deep");
        fs::create_dir(root.join("many")).unwrap();
        for number in 0..700 {
            file(&format!("many/a file with a rather long name, and a number at its end: {number:05}"), b"");
        }
        fs::create_dir(root.join("none")).unwrap();
        fs::hard_link(root.join("text"), root.join("a/text too")).unwrap();
        fs::hard_link(root.join("text"), root.join("text three")).unwrap();
        symlink("../one", root.join("a/link")).unwrap();
        symlink(format!("{}y", "x/".repeat(200)), root.join("long link")).unwrap();
        fs::write(root.join(std::ffi::OsString::from_vec(b"n\xc3\xa4me".to_vec())), b"name").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), rustix::fs::FileType::Fifo, 0o640.into(), 0).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap());
        for (name, mode) in [("one", 0o4755), ("empty", 0o600), ("none", 0o1777), ("a", 0o750), ("noise", 0o444)] {
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, attribute, value) in [
            ("one", "user.short", &b"value\0with nul"[..]),
            ("one", "user.empty", b""),
            ("text", "user.long", &noise(9, 700)),
            ("a", "user.of a directory", b"1"),
        ] {
            rustix::fs::setxattr(root.join(name), attribute, value, rustix::fs::XattrFlags::empty()).unwrap();
        }
        for (number, path) in paths(&root).into_iter().enumerate() {
            set_time(&root.join(path), 1_000_000_000 + i64::try_from(number).unwrap() * 86_461);
        }
        set_time(&root, 1_234_567_890);
        root
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn set_time(path: &Path, seconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Bytes that do not compress.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// Runs a program, and gives what it says.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let (is_right, said) = run_any(program, arguments, b"");
    assert!(is_right, "{program} {arguments:?}: {said}");
    said
}

/// Runs a program with something to read; gives whether it says that all is well, and what it says.
pub fn run_any(program: &str, arguments: &[&str], input: &[u8]) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} (README.md lists the packages): {error}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Opens an image, for reading or for both.
pub fn image(path: &Path, is_read_only: bool) -> Arc<Image> {
    let file = fs::File::options().read(true).write(!is_read_only).open(path).unwrap();
    let size = file.metadata().unwrap().len();
    Arc::new(Image::new(Arc::new(FileStorage::new(file, 0, size, is_read_only)), "image"))
}

/// An image of some bytes.
pub fn image_of(bytes: &[u8]) -> Arc<Image> {
    let fd = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let file = fs::File::from(fd);
    file.write_all_at(bytes, 0).unwrap();
    Arc::new(Image::new(Arc::new(FileStorage::new(file, 0, bytes.len() as u64, false)), "image"))
}

/// What is compared of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub mode: u32,
    pub links: u64,
    pub owner: (u32, u32),
    pub size: u64,
    pub rdev: u64,
    pub mtime: Timestamp,
    pub content: Content,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Content, short enough to be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes {:?}...", self.0.len(), self.0[..self.0.len().min(16)].escape_ascii().to_string())
    }
}

pub type Tree = BTreeMap<Vec<u8>, Seen>;

fn paths(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![PathBuf::new()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(root.join(&directory)).unwrap() {
            let path = directory.join(entry.unwrap().file_name());
            if root.join(&path).symlink_metadata().unwrap().is_dir() {
                left.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A tree of the host.
pub fn host_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    for path in paths(root).into_iter().chain([PathBuf::new()]) {
        let full = root.join(&path);
        let stat = full.symlink_metadata().unwrap();
        let kind = FileKind::from_mode(stat.mode()).unwrap();
        let content = match kind {
            FileKind::Regular => fs::read(&full).unwrap(),
            FileKind::Symlink => fs::read_link(&full).unwrap().into_os_string().into_vec(),
            _ => Vec::new(),
        };
        let mut xattrs = BTreeMap::new();
        let mut names = vec![0; 4096];
        let count = rustix::fs::llistxattr(&full, &mut names).unwrap_or(0);
        for name in names[..count].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
            let mut value = vec![0; 4096];
            let count = rustix::fs::lgetxattr(&full, name, &mut value[..]).unwrap();
            xattrs.insert(name.to_vec(), value[..count].to_vec());
        }
        let seen = Seen {
            mode: stat.mode(),
            links: stat.nlink(),
            owner: (stat.uid(), stat.gid()),
            size: stat.size(),
            rdev: stat.rdev(),
            mtime: Timestamp { seconds: stat.mtime(), nanoseconds: u32::try_from(stat.mtime_nsec()).unwrap() },
            content: Content(content),
            xattrs,
        };
        tree.insert(path.as_os_str().as_bytes().to_vec(), seen);
    }
    tree
}

/// Finds an object by its path.
pub fn find(driver: &dyn Driver, path: &str) -> Result<NodeId, Errno> {
    let mut node = ROOT;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        node = who(|who| driver.lookup(who, node, &Name::new(part.as_bytes())?))?.node;
    }
    Ok(node)
}

/// Reads a file whole, in pieces.
pub fn read_whole(file: &dyn OpenFile, size: u64, piece: usize) -> Result<Vec<u8>, Errno> {
    let mut content = Vec::new();
    let mut buffer = vec![0xee; piece];
    loop {
        let count = file.read_at(content.len() as u64, &mut buffer)?;
        content.extend_from_slice(&buffer[..count]);
        if count < piece || content.len() as u64 > size {
            return Ok(content);
        }
    }
}

/// Checks what a file says of its holes against its content.
fn check_holes(file: &dyn OpenFile, content: &[u8]) {
    let mut at = 0;
    while at < content.len() as u64 {
        let (range, is_hole) = match file.contents_at(at) {
            Ok(Contents::Data(range)) => (range, false),
            Ok(Contents::Hole(range)) => (range, true),
            Err(Errno::OPNOTSUPP) => return,
            Err(errno) => panic!("contents at {at}: {errno}"),
        };
        assert!(range.start == at && range.end > at && range.end <= content.len() as u64, "{at}: {range:?}");
        if is_hole {
            let piece = &content[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
            assert!(piece.iter().all(|byte| *byte == 0), "a hole with something in it at {at}");
        }
        at = range.end;
    }
}

/// The tree that a driver shows.
pub fn driver_tree(driver: &dyn Driver) -> Tree {
    let mut tree = Tree::new();
    let mut left = vec![(Vec::new(), ROOT)];
    while let Some((path, node)) = left.pop() {
        let stat = who(|who| driver.stat(who, node)).unwrap().stat;
        assert!(path.len() < 2000, "it goes round in circles: {}", path.escape_ascii());
        let mut content = Vec::new();
        match stat.kind() {
            FileKind::Directory => {
                let entries = who(|who| driver.read_dir(who, node)).unwrap();
                for entry in entries {
                    let found = who(|who| driver.lookup(who, node, &Name::new(&entry.name).unwrap()));
                    let found = found.unwrap_or_else(|errno| panic!("{}: {errno}", entry.name.escape_ascii()));
                    let kind = found.told.stat.kind().dirent_type();
                    assert!(entry.dirent_type == 0 || entry.dirent_type == kind, "{}", entry.name.escape_ascii());
                    assert_eq!(entry.ino, found.told.stat.ino, "{}", entry.name.escape_ascii());
                    let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
                    left.push(([&path[..], slash, &entry.name].concat(), found.node));
                }
            }
            FileKind::Regular => {
                let file = who(|who| driver.open(who, node, OFlags::RDONLY)).unwrap();
                content = read_whole(&*file, stat.size, 128 << 10).unwrap();
                check_holes(&*file, &content);
            }
            FileKind::Symlink => content = who(|who| driver.readlink(who, node)).unwrap(),
            _ => {}
        }
        let names = who(|who| driver.list_xattr(who, node)).unwrap();
        let value = |name: &Vec<u8>| who(|who| driver.get_xattr(who, node, name)).unwrap();
        let xattrs = names.iter().map(|name| (name.clone(), value(name))).collect();
        let seen = Seen {
            mode: stat.mode,
            links: stat.nlink.into(),
            owner: (stat.uid, stat.gid),
            size: stat.size,
            rdev: stat.rdev,
            mtime: stat.mtime,
            content: Content(content),
            xattrs,
        };
        tree.insert(path, seen);
    }
    tree
}

/// Compares two trees; `differ` makes what the format cannot say the same.
pub fn compare(mut host: Tree, mut image: Tree, differ: impl Fn(&[u8], &mut Seen)) {
    for tree in [&mut host, &mut image] {
        for (path, seen) in tree.iter_mut() {
            if seen.mode & 0o170_000 == FileKind::Directory.bits() {
                // Each file system has its own of these.
                seen.size = 0;
            }
            differ(path, seen);
        }
    }
    let names = |tree: &Tree| tree.keys().map(|path| path.escape_ascii().to_string()).collect::<Vec<_>>();
    assert_eq!(names(&host), names(&image));
    for (path, seen) in &host {
        assert_eq!(seen, &image[path], "{}", path.escape_ascii());
    }
}
