//! Path resolution in a view, as path_resolution(7): `..`, symbolic links, mount points, search permission.
//! Knows nothing of what is done with the result.

use bitflags::bitflags;
use umvu_interface::{
    may_access, may_access_by_mode, Access, Credentials, Errno, FileKind, MountFlags, Name, Result, Stat,
};

use crate::additions;
use crate::fs::proc::{Jump, ProcInode};
use crate::listing;
use crate::mount::{Location, MountKind, MountTable};
pub use crate::paths::{parent, path_from_bottom, path_of, strip_prefix};
use crate::protected;

bitflags! {
    /// The `RESOLVE_*` flags of openat2(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct ResolveFlags: u64 {
        /// `EXDEV` where a mount is crossed.
        const NO_XDEV = 1;
        /// `ELOOP` where a magic link would be followed.
        const NO_MAGICLINKS = 2;
        /// `ELOOP` where any link would be followed.
        const NO_SYMLINKS = 4;
        /// `EXDEV` where the start would be left.
        const BENEATH = 8;
        /// The start is the root.
        const IN_ROOT = 16;
        /// `EAGAIN` where it could not be done without waiting.
        const CACHED = 32;
    }
}

/// What to do with the last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// A symbolic link is followed.
    Follow,
    /// A symbolic link is the result.
    NoFollow,
    /// The directory and the name are the result, whether the name exists or not.
    Parent,
    /// As `Parent`, but a symbolic link that exists there is followed first (`O_CREAT` without `O_EXCL`).
    ParentFollow,
}

/// Result of a resolution.
pub enum Lookup {
    /// The object.
    Found(Location),
    /// With [`Last::ParentFollow`], an object that has a name, and the directory it has it in.
    Entry {
        /// The directory.
        directory: Location,
        /// The object.
        found: Location,
    },
    /// The directory that has, or would have, the last component.
    AtParent {
        /// The directory.
        directory: Location,
        /// What the last component is.
        last: LastComponent,
        /// Whether a slash followed it.
        slash: TrailingSlash,
    },
}

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastComponent {
    /// An ordinary name.
    Name(Name),
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// None: the path was `/` or only slashes.
    Root,
    /// A name that no directory can have. Who looks it up gets `ENAMETOOLONG`, and not earlier.
    TooLong,
}

/// Whether the path ended in a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum TrailingSlash {
    Yes,
    No,
}

/// Follows at most this many symbolic links: `MAXSYMLINKS` of the kernel.
const LINKS_MAX: u32 = 40;

/// A resolution: where it stands and by which rules.
pub struct Resolver<'a> {
    /// The mounts.
    pub table: &'a MountTable,
    /// Root of the calling process.
    pub root: Location,
    /// Its identity.
    pub credentials: &'a Credentials,
    /// Its thread id, for `/proc/self`.
    pub tid: u32,
    /// Flags of openat2.
    pub flags: ResolveFlags,
    /// Follows the links of `/proc`.
    pub magic: &'a dyn MagicLinks,
}

impl Resolver<'_> {
    /// Resolves `path` from `start`.
    ///
    /// # Errors
    /// - `ENOENT`: empty path, missing or dangling component.
    /// - `ENAMETOOLONG`, `ENOTDIR`, `EACCES`, `ELOOP`: as path_resolution(7).
    /// - `EXDEV`, `EAGAIN`: as openat2(2).
    pub fn resolve(&self, start: Location, path: &[u8], last: Last) -> Result<Lookup> {
        if path.is_empty() {
            return Err(Errno::NOENT);
        }
        let mut walk = Walk {
            resolver: self,
            base: start.clone(),
            root: if self.flags.contains(ResolveFlags::IN_ROOT) { start.clone() } else { self.root.clone() },
            at: start,
            reached_root: self.flags.intersects(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT)
                || path.first() == Some(&b'/'),
            links: 0,
        };
        walk.run(path, last)
    }
}

struct Walk<'a> {
    resolver: &'a Resolver<'a>,
    base: Location,
    root: Location,
    at: Location,
    /// Whether the kernel would know the root by now, which it looks for when a path needs it.
    reached_root: bool,
    links: u32,
}

/// Where a walk goes on after one step.
enum Step {
    /// With the rest of the path, from this offset.
    On(usize),
    /// With another path: a symbolic link was read.
    Instead(Vec<u8>),
    /// It is at its end.
    End(Lookup),
}

/// One component of a path.
struct Component<'a> {
    bytes: &'a [u8],
    /// Offset of what comes behind it and its slashes.
    next: usize,
    slash: TrailingSlash,
    is_last: bool,
}

fn component(path: &[u8], from: usize) -> Component<'_> {
    let rest = &path[from..];
    let length = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
    let next = from + length + slashes(&rest[length..]);
    let is_last = next == path.len();
    let slash = if is_last && length < rest.len() { TrailingSlash::Yes } else { TrailingSlash::No };
    Component { bytes: &rest[..length], next, slash, is_last }
}

/// How many slashes `path` starts with.
fn slashes(path: &[u8]) -> usize {
    path.iter().take_while(|b| **b == b'/').count()
}

impl Walk<'_> {
    fn run(&mut self, path: &[u8], last: Last) -> Result<Lookup> {
        let mut replaced: Vec<u8>;
        let mut path = path;
        let mut from = slashes(path);
        if from > 0 {
            // Whatever mount the root is on: nd_jump_root of fs/namei.c.
            if self.resolver.flags.contains(ResolveFlags::BENEATH) {
                return Err(Errno::XDEV);
            }
            self.at = self.root.clone();
        }
        loop {
            if from == path.len() {
                return Ok(self.end(last, LastComponent::Root, TrailingSlash::Yes));
            }
            match self.step(path, from, last)? {
                Step::On(next) => from = next,
                Step::End(found) => return Ok(found),
                Step::Instead(text) => {
                    replaced = text;
                    path = &replaced;
                    from = slashes(path);
                    if from > 0 {
                        self.jump_to_root()?;
                    }
                }
            }
        }
    }

    /// Goes to the root for the text of a link: `nd_jump_root`.
    fn jump_to_root(&mut self) -> Result<()> {
        let flags = self.resolver.flags;
        if flags.contains(ResolveFlags::BENEATH) {
            return Err(Errno::XDEV);
        }
        // A root that has not been looked for yet is on no mount, so none is the same.
        if flags.contains(ResolveFlags::NO_XDEV) && !(self.reached_root && listing::share_mount(&self.at, &self.root)) {
            return Err(Errno::XDEV);
        }
        self.reached_root = true;
        self.at = self.root.clone();
        Ok(())
    }

    fn step(&mut self, path: &[u8], from: usize, last: Last) -> Result<Step> {
        if let Some(step) = self.at_once(path, from, last)? {
            return Ok(step);
        }
        let part = component(path, from);
        self.search()?;
        if matches!(part.bytes, b"." | b"..") {
            self.search_for_dots()?;
        }
        match part.bytes {
            b"." if part.is_last => return Ok(Step::End(self.end(last, LastComponent::Dot, part.slash))),
            b"." => return Ok(Step::On(part.next)),
            b".." => {
                if part.is_last && last == Last::Parent {
                    return Ok(Step::End(self.end(last, LastComponent::DotDot, part.slash)));
                }
                self.up()?;
                if part.is_last {
                    return Ok(Step::End(self.end(last, LastComponent::DotDot, part.slash)));
                }
                return Ok(Step::On(part.next));
            }
            _ => {}
        }
        let name = match Name::new(part.bytes) {
            Err(Errno::NAMETOOLONG) if part.is_last && last == Last::Parent => {
                return Ok(Step::End(self.end(last, LastComponent::TooLong, part.slash)));
            }
            name => name?,
        };
        let at_parent = |directory: &Location, name| {
            Step::End(Lookup::AtParent {
                directory: directory.clone(),
                last: LastComponent::Name(name),
                slash: part.slash,
            })
        };
        // What would be created cannot be a directory, so the name is not looked at: open_last_lookups.
        let creates_no_directory = last == Last::ParentFollow && part.slash == TrailingSlash::Yes;
        if part.is_last && (last == Last::Parent || creates_no_directory) {
            return Ok(at_parent(&self.at, name));
        }
        let child = match self.child(&name) {
            Err(Errno::NOENT) if part.is_last && last == Last::ParentFollow => return Ok(at_parent(&self.at, name)),
            other => other?,
        };
        let kind = child.inode.kind()?;
        let follows = matches!(last, Last::Follow | Last::ParentFollow) || part.slash == TrailingSlash::Yes;
        if kind == FileKind::Symlink && (!part.is_last || follows) {
            return self.follow(child, path, &part);
        }
        if kind != FileKind::Directory && (!part.is_last || part.slash == TrailingSlash::Yes) {
            return Err(Errno::NOTDIR);
        }
        if part.is_last && last == Last::ParentFollow {
            return Ok(Step::End(Lookup::Entry { directory: self.at.clone(), found: child }));
        }
        if part.is_last {
            return Ok(Step::End(Lookup::Found(child)));
        }
        self.at = child;
        Ok(Step::On(part.next))
    }

    /// The result of a path that ends in `.`, `..` or a slash.
    fn end(&self, last: Last, component: LastComponent, slash: TrailingSlash) -> Lookup {
        if last == Last::Parent {
            Lookup::AtParent { directory: self.at.clone(), last: component, slash }
        } else {
            Lookup::Found(self.at.clone())
        }
    }

    /// Takes as many plain components at once as the tree and the mounts allow; `None`: one by one, then.
    fn at_once(&mut self, path: &[u8], from: usize, last: Last) -> Result<Option<Step>> {
        let is_admitted = self.at.mount.filesystem.admits(self.resolver.credentials);
        if !self.resolver.flags.is_empty() || self.checks_search() || !is_admitted {
            return Ok(None);
        }
        let mut rest = &path[from..];
        let trailing = rest.iter().rev().take_while(|b| **b == b'/').count();
        rest = &rest[..rest.len() - trailing];
        let wants_parent = matches!(last, Last::Parent | Last::ParentFollow);
        if wants_parent {
            let Some(cut) = rest.iter().rposition(|b| *b == b'/') else { return Ok(None) };
            rest = &rest[..cut];
        }
        let uncrossed = self.resolver.table.is_uncrossed(&self.at.mount);
        let mut count = 0;
        for part in rest.split(|b| *b == b'/') {
            if matches!(part, b"" | b"." | b"..") {
                return Ok(None);
            }
            if !uncrossed && self.resolver.table.may_be_covered(&self.at.mount, part) {
                return Ok(None);
            }
            count += 1;
        }
        if count < 2 && !(wants_parent && count == 1) && trailing == 0 && last != Last::NoFollow && last != Last::Follow
        {
            return Ok(None);
        }
        let inode = match self.at.inode.lookup_path(rest) {
            Err(Errno::LOOP) => return Ok(None),
            // A mount may add one of the names.
            Err(Errno::NOENT) if !self.resolver.table.adding().is_empty() => return Ok(None),
            other => other?,
        };
        let kind = inode.kind()?;
        let found = Location { mount: self.at.mount.clone(), inode };
        if wants_parent {
            if kind == FileKind::Symlink {
                return Ok(None);
            }
            if kind != FileKind::Directory {
                return Err(Errno::NOTDIR);
            }
            self.at = found;
            let next = from + rest.len() + slashes(&path[from + rest.len()..]);
            return Ok(Some(Step::On(next)));
        }
        if kind == FileKind::Symlink && (last == Last::Follow || trailing > 0) {
            return Ok(None);
        }
        if trailing > 0 && kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok(Some(Step::End(Lookup::Found(found))))
    }

    /// Whether search permission has to be checked here: the kernel does it where its own tree is walked with
    /// the host's identity, and who overrides permissions needs no check.
    fn checks_search(&self) -> bool {
        use umvu_interface::Capabilities as C;
        let who = self.resolver.credentials;
        let overrides = who.capable(C::DAC_OVERRIDE) || who.capable(C::DAC_READ_SEARCH);
        // The power of who is in a user namespace ends at objects of others.
        let overrides = overrides && who.namespace.is_none();
        // Processes are all the user's, whoever they run as: of theirs the kernel judges.
        let fakes = who.is_faked() && self.at.mount.kind != MountKind::Proc;
        !overrides && (fakes || !self.at.inode.kernel_checks())
    }

    /// The current place must be a directory that may be searched.
    fn search(&self) -> Result<()> {
        if self.at.inode.kind()? != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        if !self.at.mount.filesystem.admits(self.resolver.credentials) {
            return Err(Errno::ACCESS);
        }
        if !self.checks_search() {
            return Ok(());
        }
        self.judge_search()
    }

    /// Search permission where no lookup follows that the kernel would check.
    fn search_for_dots(&self) -> Result<()> {
        if !self.at.inode.kernel_checks() || self.resolver.credentials.is_faked() {
            return Ok(());
        }
        // A driver that judges by itself does so when it is asked.
        let Some(fd) = self.at.inode.host_fd() else { return Ok(()) };
        rustix::fs::access(crate::guest::proc_path(fd), rustix::fs::Access::EXEC_OK)
    }

    fn judge_search(&self) -> Result<()> {
        let (who, inode) = (self.resolver.credentials, &*self.at.inode);
        match inode.as_any().downcast_ref::<ProcInode>() {
            Some(directory) => match self.resolver.magic.searched(directory, self.resolver.tid)? {
                Some(stat) => may_access_by_mode(who, &stat, Access::EXEC),
                None => Ok(()),
            },
            None => may_access(who, inode, &inode.stat()?, Access::EXEC),
        }
    }

    fn child(&self, name: &Name) -> Result<Location> {
        let table = self.resolver.table;
        let entered = match self.at.inode.lookup(name) {
            Err(Errno::NOENT) => additions::find(table, &self.at, name.as_bytes())?,
            found => table.enter(Location { mount: self.at.mount.clone(), inode: found? }, name.as_bytes())?,
        };
        self.crossed(&entered)?;
        Ok(entered)
    }

    fn crossed(&self, to: &Location) -> Result<()> {
        if self.resolver.flags.contains(ResolveFlags::NO_XDEV) && !listing::share_mount(&self.at, to) {
            return Err(Errno::XDEV);
        }
        Ok(())
    }

    fn up(&mut self) -> Result<()> {
        let flags = self.resolver.flags;
        self.reached_root = true;
        if flags.contains(ResolveFlags::BENEATH) && self.at.same(&self.base)? {
            return Err(Errno::XDEV);
        }
        if self.at.same(&self.root)? {
            return Ok(());
        }
        let above = parent(self.resolver.table, &self.at)?;
        self.crossed(&above)?;
        self.at = above;
        Ok(())
    }

    fn follow(&mut self, link: Location, path: &[u8], part: &Component<'_>) -> Result<Step> {
        let flags = self.resolver.flags;
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP);
        }
        // The order of pick_link in fs/namei.c.
        if part.is_last {
            protected::may_follow(self.resolver.credentials, &self.at.inode, &link.inode)?;
        }
        let refused = link.mount.flags().contains(MountFlags::NO_SYMFOLLOW);
        if refused || flags.contains(ResolveFlags::NO_SYMLINKS) {
            return Err(Errno::LOOP);
        }
        if link.mount.kind == MountKind::Proc {
            if let Some(magic) = link.inode.as_any().downcast_ref::<ProcInode>().and_then(ProcInode::magic) {
                match self.resolver.magic.follow(&magic, self.resolver.tid)? {
                    Jump::Text(text) => return Ok(Step::Instead(join(text, path, part))),
                    Jump::Place(place) => {
                        if flags.intersects(ResolveFlags::NO_MAGICLINKS) {
                            return Err(Errno::LOOP);
                        }
                        if flags.intersects(ResolveFlags::BENEATH | ResolveFlags::IN_ROOT) {
                            return Err(Errno::XDEV);
                        }
                        self.crossed(&place)?;
                        if part.is_last {
                            if part.slash == TrailingSlash::Yes && place.inode.kind()? != FileKind::Directory {
                                return Err(Errno::NOTDIR);
                            }
                            return Ok(Step::End(Lookup::Found(place)));
                        }
                        self.at = place;
                        return Ok(Step::On(part.next));
                    }
                }
            }
        }
        let text = link.inode.readlink()?;
        if text.is_empty() {
            return Err(Errno::NOENT);
        }
        Ok(Step::Instead(join(text, path, part)))
    }
}

/// The text of a link followed by what stood behind the link.
fn join(mut text: Vec<u8>, path: &[u8], part: &Component<'_>) -> Vec<u8> {
    if !part.is_last || part.slash == TrailingSlash::Yes {
        text.push(b'/');
        text.extend_from_slice(&path[part.next..]);
    }
    text
}

/// Follows the links of `/proc` that are no text.
pub trait MagicLinks {
    /// Gives what `magic` leads to for thread `tid`.
    fn follow(&self, magic: &crate::fs::proc::Magic, tid: u32) -> Result<Jump>;

    /// Gives by what thread `tid` is judged that searches a directory; `None`: it may, as it is its own process's.
    fn searched(&self, directory: &ProcInode, tid: u32) -> Result<Option<Stat>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_know_what_follows_them() {
        let first = component(b"a//b/", 0);
        assert_eq!((first.bytes, first.next, first.is_last), (b"a".as_slice(), 3, false));
        let second = component(b"a//b/", 3);
        assert_eq!((second.bytes, second.slash, second.is_last), (b"b".as_slice(), TrailingSlash::Yes, true));
    }
}
