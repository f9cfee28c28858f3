//! Copying an object from a lower layer to the upper one, before it changes. A copy is made in the work directory
//! and gets its name when it is whole, so that nobody, not even after a crash, sees half of one.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use umvu_interface::{
    Caller, Creation, Errno, FileKind, InodeRef, Name, OFlags, RenameFlags, Result, SetAttr, SetTime, Stat, XattrSet,
};

use super::inode::{At, Directory, Leaf, UnionInode};
use super::lookup::Upper;
use super::node::{LayerIndex, Node, Stack};
use super::whiteout::{IMPURE, ORIGIN};
use super::{as_root, copy_data, xattr, Changing, Durability, UnionFs, Writes};

/// How much of a file's content is needed in the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    All,
    /// So many bytes: what follows is cut off anyway.
    Begin(u64),
}

/// The files that are being copied.
#[derive(Default)]
pub(crate) struct Copying {
    busy: Mutex<HashSet<(u64, u64)>>,
    left: Condvar,
    /// Those that have been copied: descriptors of the lower ones may still be open.
    done: Mutex<HashSet<(u64, u64)>>,
}

/// The only copying of a file.
struct Turn<'a> {
    copying: &'a Copying,
    key: (u64, u64),
}

impl Copying {
    /// Whether a file of a lower layer, by its device and inode number there, has been copied up.
    pub(super) fn is_done(&self, key: (u64, u64)) -> bool {
        let done = self.done.lock();
        !done.is_empty() && done.contains(&key)
    }

    /// Whether any file has been copied up.
    pub(super) fn has_done(&self) -> bool {
        !self.done.lock().is_empty()
    }

    fn enter(&self, key: (u64, u64)) -> Turn<'_> {
        let mut busy = self.busy.lock();
        while !busy.insert(key) {
            self.left.wait(&mut busy);
        }
        Turn { copying: self, key }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.copying.busy.lock().remove(&self.key);
        self.copying.left.notify_all();
    }
}

/// Whether an operation failed because the object may not be changed where it is.
pub(super) fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM | Errno::ROFS)
}

impl UnionFs {
    /// Does `change` to an object where it may be changed: to a copy, if it is in a lower layer.
    pub(super) fn change_object<T>(
        &self,
        caller: &Caller<'_>,
        inode: &UnionInode,
        data: Data,
        change: impl Fn(&InodeRef) -> Result<T>,
    ) -> Result<T> {
        if let Some(upper) = inode.upper() {
            return change(upper);
        }
        let real = inode.real()?;
        match self.writes_to(inode)? {
            Writes::Through => return change(real),
            Writes::First => match change(real) {
                Err(errno) if is_refusal(errno) => {}
                done => return done,
            },
            Writes::Refused => return Err(Errno::ROFS),
            Writes::Never => {}
        }
        change(self.raise(caller, inode, data)?)
    }

    /// Says what becomes of a change to an object that is not in the upper layer.
    pub(super) fn writes_to(&self, inode: &UnionInode) -> Result<Writes> {
        self.writes_in(inode.layer().ok_or(Errno::IO)?, inode.real()?)
    }

    /// The same for an object of a lower layer.
    pub(super) fn writes_in(&self, layer: LayerIndex, real: &InodeRef) -> Result<Writes> {
        let writes = self.layer(layer)?.writes;
        if writes == Writes::Never && self.devices.of(real, real.id()?.0).is_kernel_state {
            return Ok(Writes::Through);
        }
        Ok(writes)
    }

    /// Gives the object in the upper layer, copying it there if need be.
    pub(super) fn raise<'a>(&self, caller: &Caller<'_>, inode: &'a UnionInode, data: Data) -> Result<&'a InodeRef> {
        match &inode.at {
            At::Leaf(leaf) => self.raise_leaf(caller, leaf, data),
            At::Directory(directory) => {
                self.raise_directory(caller, &directory.node, &self.lock())?;
                directory.upper().ok_or(Errno::IO)
            }
        }
    }

    fn raise_leaf<'a>(&self, caller: &Caller<'_>, leaf: &'a Leaf, data: Data) -> Result<&'a InodeRef> {
        if let Some(upper) = leaf.named_upper() {
            return Ok(upper);
        }
        let (layer, lower) = leaf.lower.as_ref().ok_or(Errno::IO)?;
        self.work()?;
        let stat = self.stat_lower(lower)?;
        let _turn = self.copying.enter((stat.dev, stat.ino));
        let directory = self.raise_directory(caller, &leaf.parent, &self.lock())?;
        let upper = match self.raised_by_others(leaf)? {
            Some(upper) => upper,
            None if self.is_shared(*layer, &stat) => {
                let copy = self.shared_copy(caller, lower, &stat)?;
                self.finish(leaf, &directory, |changing| {
                    self.placed(caller, &leaf.parent, &directory, || {
                        self.name_copy(caller, &copy, leaf, &directory, changing)
                    })
                })?
            }
            None => {
                let copy = self.copy(caller, lower, &stat, data)?;
                let done =
                    self.finish(leaf, &directory, |_| self.place(caller, &copy, &leaf.parent, &directory, &leaf.name));
                if done.is_err() {
                    self.work()?.purge(&copy);
                }
                done?
            }
        };
        self.forget_owner(caller, (stat.dev, stat.ino), &self.origin_of(&stat));
        self.copying.done.lock().insert((stat.dev, stat.ino));
        let upper = leaf.upper.get_or_init(|| upper);
        leaf.is_named.store(true, Ordering::Release);
        Ok(upper)
    }

    /// Lets a copy appear, unless the name has changed its meaning meanwhile.
    fn finish(
        &self,
        leaf: &Leaf,
        directory: &InodeRef,
        appear: impl FnOnce(&Changing<'_>) -> Result<()>,
    ) -> Result<InodeRef> {
        let changing = self.lock();
        leaf.parent.check_alive()?;
        if self.raised_by_others(leaf)?.is_some() {
            // Only who has the turn copies this object: it is another one.
            return Err(Errno::NOENT);
        }
        appear(&changing)?;
        directory.lookup(&leaf.name)
    }

    /// Looks whether somebody else has copied the object up since it was looked up.
    ///
    /// # Errors
    /// - `ENOENT`: it was removed.
    fn raised_by_others(&self, leaf: &Leaf) -> Result<Option<InodeRef>> {
        let Some(stack) = leaf.parent.stack() else { return Ok(None) };
        match self.in_upper(stack, leaf.name.as_bytes())? {
            Upper::Nothing => Ok(None),
            Upper::There(inode, kind) if kind == leaf.kind => Ok(Some(inode)),
            Upper::There(..) | Upper::Whiteout => Err(Errno::NOENT),
        }
    }

    /// Gives the upper directory of a node, making it and those above it if need be.
    pub(super) fn raise_directory(
        &self,
        caller: &Caller<'_>,
        node: &Arc<Node>,
        changing: &Changing<'_>,
    ) -> Result<InodeRef> {
        let mut missing = Vec::new();
        let mut at = Arc::clone(node);
        let mut upper = loop {
            at.check_alive()?;
            if let Some(upper) = at.stack().and_then(|stack| stack.upper.get()) {
                break Arc::clone(upper);
            }
            let (parent, name) = at.place().ok_or(Errno::ROFS)?;
            missing.push((at, name));
            at = parent;
        };
        while let Some((at, name)) = missing.pop() {
            let parent = at.parent().ok_or(Errno::IO)?;
            upper = self.copy_directory(caller, &at, (&parent, &upper), &Name::new(&name)?, changing)?;
        }
        Ok(upper)
    }

    fn copy_directory(
        &self,
        caller: &Caller<'_>,
        node: &Arc<Node>,
        (parent, upper_parent): (&Arc<Node>, &InodeRef),
        name: &Name,
        _changing: &Changing<'_>,
    ) -> Result<InodeRef> {
        let directory = Directory::of(Arc::clone(node));
        let lower = directory.top(self)?;
        let layer = match node.stack() {
            Some(stack) => stack.lowers.first().map(|(layer, _)| *layer).ok_or(Errno::IO)?,
            None => node.pure_layer(),
        };
        let stat = self.stat_lower(lower)?;
        let copy = self.copy(caller, lower, &stat, Data::All)?;
        if let Err(errno) = self.place(caller, &copy, parent, upper_parent, name) {
            self.work()?.purge(&copy);
            return Err(errno);
        }
        self.forget_owner(caller, (stat.dev, stat.ino), &self.origin_of(&stat));
        let upper = upper_parent.lookup(name)?;
        match node.stack() {
            Some(stack) => {
                let _ = stack.upper.set(Arc::clone(&upper));
            }
            None => {
                let lowers = vec![(layer, Arc::clone(lower))];
                let stack = Stack { upper: OnceLock::from(Arc::clone(&upper)), lowers, ..Stack::default() };
                node.promote(stack);
            }
        }
        Ok(upper)
    }

    /// Gives a finished copy its name.
    fn place(&self, caller: &Caller<'_>, copy: &Name, node: &Node, directory: &InodeRef, name: &Name) -> Result<()> {
        let work = self.work()?;
        self.placed(caller, node, directory, || {
            work.directory.rename(caller, copy, directory, name, RenameFlags::empty())
        })
    }

    /// Lets a copy appear in a directory, which looks as if nothing had happened: nothing has, for guests.
    fn placed(
        &self,
        caller: &Caller<'_>,
        node: &Node,
        directory: &InodeRef,
        place: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let before = directory.stat()?;
        self.set_impure(caller, node, directory)?;
        place()?;
        let times =
            SetAttr { atime: SetTime::At(before.atime), mtime: SetTime::At(before.mtime), ..SetAttr::default() };
        let _ = directory.set_attr(&as_root(caller), &times);
        Ok(())
    }

    /// Notes that an upper directory holds objects whose inode numbers are those of others.
    pub(super) fn set_impure(&self, caller: &Caller<'_>, node: &Node, directory: &InodeRef) -> Result<()> {
        let Some(stack) = node.stack() else { return Ok(()) };
        if stack.impure.load(Ordering::Acquire) {
            return Ok(());
        }
        match directory.set_xattr(&as_root(caller), IMPURE, b"y", XattrSet::Any) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
        stack.impure.store(true, Ordering::Release);
        Ok(())
    }

    /// Makes a copy in the work directory and gives its name there.
    pub(super) fn copy(&self, caller: &Caller<'_>, lower: &InodeRef, stat: &Stat, data: Data) -> Result<Name> {
        let work = self.work()?;
        let name = work.new_name()?;
        let made = self.copy_as(caller, lower, stat, data, &name);
        if let Err(errno) = made {
            work.purge(&name);
            return Err(errno);
        }
        Ok(name)
    }

    fn copy_as(&self, caller: &Caller<'_>, lower: &InodeRef, stat: &Stat, data: Data, name: &Name) -> Result<()> {
        let work = &self.work()?.directory;
        let mode = stat.mode & 0o700;
        let copy = match stat.kind() {
            FileKind::Regular => {
                let (copy, to) = work.create_open(caller, name, 0o600, OFlags::WRONLY)?;
                let to = to.into_file()?;
                let length = match data {
                    Data::All => stat.size,
                    Data::Begin(length) => length.min(stat.size),
                };
                if length > 0 {
                    let from = lower.open(caller, OFlags::RDONLY)?.into_file()?;
                    copy_data::copy(&from, &to, length)?;
                    if self.durability == Durability::Synced {
                        rustix::fs::fsync(&to)?;
                    }
                }
                copy
            }
            FileKind::Directory => work.create(caller, name, &Creation::Directory { mode: 0o700 })?,
            FileKind::Symlink => work.create(caller, name, &Creation::Symlink { target: &lower.readlink()? })?,
            FileKind::Fifo => work.create(caller, name, &Creation::Fifo { mode })?,
            FileKind::Socket => work.create(caller, name, &Creation::Socket { mode })?,
            FileKind::CharDevice => work.create(caller, name, &Creation::CharDevice { mode, rdev: stat.rdev })?,
            FileKind::BlockDevice => work.create(caller, name, &Creation::BlockDevice { mode, rdev: stat.rdev })?,
        };
        copy_attributes(caller, lower, stat, &copy)?;
        if stat.kind() == FileKind::Regular {
            match copy.set_xattr(&as_root(caller), ORIGIN, &self.origin_of(stat), XattrSet::Any) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        let times = SetAttr { atime: SetTime::At(stat.atime), mtime: SetTime::At(stat.mtime), ..SetAttr::default() };
        copy.set_attr(&as_root(caller), &times)
    }
}

/// Copies attributes, owner and mode.
fn copy_attributes(caller: &Caller<'_>, from: &InodeRef, stat: &Stat, to: &InodeRef) -> Result<()> {
    let names = match from.list_xattr() {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => Vec::new(),
        Err(errno) => return Err(errno),
    };
    let root = &as_root(caller);
    let (acls, others): (Vec<_>, Vec<_>) = names
        .into_iter()
        .filter(|name| xattr::shown(name).is_some())
        .partition(|name| name.starts_with(b"system.posix_acl_"));
    copy_xattrs(root, from, to, &others)?;
    let made = to.stat()?;
    let is_owned = (made.uid, made.gid) == (stat.uid, stat.gid);
    // Where the host keeps the owner, it keeps the mode too: set-id bits that are only shown would neither be
    // inherited nor be lost by writing, which the host alone sees to for who is not faked. A mode that shuts out the
    // owner would shut out the union.
    let needed = if stat.kind() == FileKind::Directory { 0o700 } else { 0o600 };
    let is_kept = is_owned && stat.mode & needed == needed;
    let maker = if is_kept && !caller.credentials.is_faked() { caller } else { root };
    if !is_owned {
        let owner = SetAttr { uid: Some(stat.uid), gid: Some(stat.gid), ..SetAttr::default() };
        match to.set_attr(root, &owner) {
            Ok(()) => {}
            // A layer without faked owners keeps what the host gives.
            Err(Errno::PERM | Errno::INVAL) => tracing::debug!(uid = stat.uid, "a copy keeps its maker's owner"),
            Err(errno) => return Err(errno),
        }
    }
    if stat.kind() != FileKind::Symlink && (!is_owned || made.mode != stat.mode) {
        to.set_attr(maker, &SetAttr { mode: Some(stat.mode & 0o7777), ..SetAttr::default() })?;
    }
    // After the mode, whose group bits are the mask of the list.
    copy_xattrs(root, from, to, &acls)
}

fn copy_xattrs(caller: &Caller<'_>, from: &InodeRef, to: &InodeRef, names: &[Vec<u8>]) -> Result<()> {
    for name in names {
        let value = match from.get_xattr(name) {
            Ok(value) => value,
            // Listed, but not ours to read, or gone.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => continue,
            Err(errno) => return Err(errno),
        };
        match to.set_xattr(caller, name, &value, XattrSet::Any) {
            Ok(()) => {}
            Err(errno @ (Errno::OPNOTSUPP | Errno::PERM)) => {
                tracing::debug!(name = %name.escape_ascii(), %errno, "an attribute is not copied up");
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

impl Stack {
    /// What an upper directory without lower ones is.
    pub(super) fn of_upper(upper: InodeRef) -> Self {
        Self { upper: OnceLock::from(upper), impure: AtomicBool::new(false), ..Self::default() }
    }
}
