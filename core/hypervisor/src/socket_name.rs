//! Names of AF_UNIX sockets: the kernel keeps the text that bind(2) was given and shows it in getsockname(2),
//! getpeername(2), accept(2) and recvfrom(2). Knows nothing of views or guests.
//!
//! A socket of a view lies elsewhere on the host, yet the text to be kept is the one the guest wrote. So the
//! supervisor binds it by that very text, with a current directory from which the text leads to the right place. An
//! absolute text cannot be led elsewhere: it gets the mark [`ROOTED`] in front, which makes it relative.

use std::borrow::Cow;
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::net::SocketAddrUnix;
use umvu_interface::{BindSocket, Errno, Name, Result};

use crate::placeholder::Placeholders;

/// `sizeof(sun_path)`.
pub const LONGEST: usize = 108;
/// What stands before an absolute path that the kernel keeps for a socket of a view.
const ROOTED: &[u8] = b"././";

/// The path that a text kept by the kernel stands for: where guests see the mark, they may hand it back.
pub fn meant(kept: &[u8]) -> &[u8] {
    match kept.strip_prefix(ROOTED) {
        Some(path) if path.first() == Some(&b'/') => path,
        _ => kept,
    }
}

/// The text to be kept for a path, if there is room for it.
pub fn kept(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    let text = match path.first() {
        Some(b'/') => Cow::Owned([ROOTED, path].concat()),
        _ => Cow::Borrowed(path),
    };
    (text.len() <= LONGEST).then_some(text)
}

/// The part of a path before its last component, and that component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..=at], &path[at + 1..]),
        None => (b".", path),
    }
}

/// A guest's socket that is to get a name.
pub struct Unnamed<'a> {
    /// The socket.
    pub socket: OwnedFd,
    /// Texts to be kept, the best first; all have the same last component.
    pub texts: Vec<Vec<u8>>,
    /// Where directories can be made.
    pub placeholders: &'a Placeholders,
    /// Held while the current directory is another.
    pub naming: &'a Mutex<()>,
}

impl fmt::Debug for Unnamed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unnamed").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl BindSocket for Unnamed<'_> {
    fn bind(&self, directory: BorrowedFd<'_>, name: &Name, mode: u32) -> Result<()> {
        let last = split(self.texts.first().ok_or(Errno::INVAL)?).1;
        if name.as_bytes() == last {
            return self.bind_in(directory, mode);
        }
        // It gets its own name first, in a directory of its own, and the wanted one then.
        let room = [name.as_bytes(), b".bind"].concat();
        rustix::fs::mkdirat(directory, &room[..], Mode::RWXU)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let done = rustix::fs::openat(directory, &room[..], flags, Mode::empty()).and_then(|inside| {
            use std::os::fd::AsFd;
            self.bind_in(inside.as_fd(), mode)?;
            let moved = rustix::fs::renameat_with(&inside, last, directory, name.as_bytes(), RenameFlags::NOREPLACE);
            if moved.is_err() {
                let _ = rustix::fs::unlinkat(&inside, last, AtFlags::empty());
            }
            moved
        });
        let _ = rustix::fs::unlinkat(directory, &room[..], AtFlags::REMOVEDIR);
        done
    }
}

impl Unnamed<'_> {
    fn bind_in(&self, directory: BorrowedFd<'_>, mode: u32) -> Result<()> {
        for text in &self.texts {
            if let Some(start) = Start::for_text(text, directory, self.placeholders)? {
                return self.bind_from(&start, text, mode);
            }
        }
        let start = Start::here(directory)?;
        self.bind_from(&start, split(self.texts.first().ok_or(Errno::INVAL)?).1, mode)
    }

    fn bind_from(&self, start: &Start, text: &[u8], mode: u32) -> Result<()> {
        let address = SocketAddrUnix::new(text)?;
        // The new object takes its mode from that of the socket: net/unix/af_unix.c, unix_bind_bsd.
        let own = rustix::fs::fstat(&self.socket)?.st_mode & 0o7777;
        let change = |mode| rustix::fs::fchmod(&self.socket, Mode::from_raw_mode(mode));
        if own != mode {
            change(mode)?;
        }
        let _naming = self.naming.lock();
        let done = rustix::process::fchdir(&start.directory).and_then(|()| {
            let done = rustix::net::bind(&self.socket, &address);
            rustix::process::chdir("/").and(done)
        });
        if own != mode {
            change(own)?;
        }
        match done {
            Err(Errno::ADDRINUSE) => Err(Errno::EXIST),
            done => done,
        }
    }
}

/// A directory from which a text leads to the wanted place.
struct Start {
    directory: OwnedFd,
    /// Made for this, and removed in the end.
    made: Option<PathBuf>,
}

impl Drop for Start {
    fn drop(&mut self) {
        if let Some(made) = &self.made {
            if let Err(error) = std::fs::remove_dir_all(made) {
                tracing::debug!(%error, "directory of a socket's name not removed");
            }
        }
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Start {
    fn here(directory: BorrowedFd<'_>) -> Result<Self> {
        Ok(Self { directory: rustix::io::fcntl_dupfd_cloexec(directory, 0)?, made: None })
    }

    /// Finds or makes one; `None` where the text goes up from the wanted place or below it.
    fn for_text(text: &[u8], to: BorrowedFd<'_>, placeholders: &Placeholders) -> Result<Option<Self>> {
        let before = split(text).0;
        let walk = Walk::along(before);
        if walk.nodes.len() == 1 {
            return Self::here(to).map(Some);
        }
        if walk.is_passed(walk.end) {
            // `dir/../name`: good where there is such a `dir`.
            if walk.end != 0 {
                return Ok(None);
            }
            let id = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|s| (s.st_dev, s.st_ino));
            let Ok(reached) = rustix::fs::openat(to, before, DIRECTORY, Mode::empty()) else { return Ok(None) };
            let start = Self::here(to)?;
            return Ok((id(&reached)? == id(&start.directory)?).then_some(start));
        }
        let (_, base) = placeholders.make_directory()?;
        let mut paths: Vec<(usize, PathBuf)> = (0..walk.nodes.len()).map(|n| (n, walk.path(n, &base))).collect();
        let start = paths[0].1.clone();
        let made = Some(base);
        paths.sort_by_key(|(_, path)| path.components().count());
        for (node, path) in paths.into_iter().skip(1) {
            if node == walk.end {
                rustix::fs::symlink(format!("/proc/self/fd/{}", to.as_raw_fd()), path)?;
            } else {
                rustix::fs::mkdir(path, Mode::RWXU)?;
            }
        }
        Ok(Some(Self { directory: rustix::fs::open(start, DIRECTORY, Mode::empty())?, made }))
    }
}

/// The directories that a relative path passes, as far as its text tells; the first is where it starts.
struct Walk<'a> {
    nodes: Vec<Node<'a>>,
    end: usize,
}

struct Node<'a> {
    parent: Option<usize>,
    name: &'a [u8],
}

impl<'a> Walk<'a> {
    fn along(path: &'a [u8]) -> Self {
        let mut walk = Self { nodes: vec![Node { parent: None, name: b"" }], end: 0 };
        for part in path.split(|b| *b == b'/') {
            walk.end = match part {
                b"" | b"." => walk.end,
                b".." => walk.above(),
                name => walk.below(name),
            };
        }
        walk
    }

    fn above(&mut self) -> usize {
        let above = self.nodes[self.end].parent.unwrap_or(self.nodes.len());
        if above == self.nodes.len() {
            self.nodes.push(Node { parent: None, name: b"" });
            // A name that no text has.
            self.nodes[self.end] = Node { parent: Some(above), name: b"\x01" };
        }
        above
    }

    fn below(&mut self, name: &'a [u8]) -> usize {
        let parent = Some(self.end);
        let known = self.nodes.iter().position(|n| n.parent == parent && n.name == name);
        known.unwrap_or_else(|| {
            self.nodes.push(Node { parent, name });
            self.nodes.len() - 1
        })
    }

    /// Whether the path goes through something below a node.
    fn is_passed(&self, node: usize) -> bool {
        self.nodes.iter().any(|n| n.parent == Some(node))
    }

    fn path(&self, node: usize, base: &Path) -> PathBuf {
        let Node { parent: Some(parent), name } = &self.nodes[node] else { return base.to_owned() };
        self.path(*parent, base).join(std::ffi::OsStr::from_bytes(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_kept_behind_a_mark() {
        let text = kept(b"/tmp/s").unwrap();
        assert_eq!(text.as_ref(), b"././/tmp/s");
        assert_eq!((meant(&text), meant(b"././s"), meant(b"s")), (&b"/tmp/s"[..], &b"././s"[..], &b"s"[..]));
        assert_eq!(kept(&[b'a'; LONGEST]).unwrap().len(), LONGEST);
        assert!(kept(&[b"/".as_slice(), &[b'a'; LONGEST - 1]].concat()).is_none());
    }

    #[test]
    fn a_walk_knows_what_it_passes() {
        let walk = Walk::along(b"../a//b/./../c");
        let base = Path::new("/t");
        assert_eq!(walk.path(0, base), Path::new("/t/\x01"));
        assert_eq!(walk.path(walk.end, base), Path::new("/t/a/c"));
        assert!(!walk.is_passed(walk.end));
        assert!(Walk::along(b"../a/..").end != 0);
        let back = Walk::along(b"dir/..");
        assert!(back.end == 0 && back.is_passed(0));
        assert_eq!(Walk::along(b".//.").nodes.len(), 1);
    }
}
