//! Renaming, in the order and with the marks of `fs/overlayfs/dir.c`, ovl_rename: what guests see changes at one
//! moment, that of a rename in the upper layer.

use std::collections::VecDeque;
use std::sync::Arc;

use umvu_interface::{Caller, Errno, Inode, InodeRef, Name, RemoveKind, RenameFlags, Result, XattrSet};

use super::copy_up::{is_refusal, Data};
use super::inode::{At, Directory, UnionInode};
use super::node::Node;
use super::whiteout::{self, ORIGIN, REDIRECT};
use super::{as_root, Changing, RedirectDir, UnionFs, Writes};

/// How often names are looked up again after something had to be copied up first.
const TRIES: u32 = 16;

/// One end of a rename.
#[derive(Clone, Copy)]
struct End<'a> {
    directory: &'a Directory,
    name: &'a Name,
}

/// Directories that lower layers have elsewhere, as far as they were met lately: their path there, and their node.
pub(crate) type Renamed = VecDeque<(Vec<u8>, Arc<Node>)>;

/// How many of them are remembered.
const RENAMED: usize = 256;

impl UnionFs {
    pub(super) fn rename(
        &self,
        caller: &Caller<'_>,
        (directory, name): (&Directory, &Name),
        (new_directory, new_name): (&Directory, &Name),
        flags: RenameFlags,
    ) -> Result<()> {
        // A whiteout is the union's own business: fs/overlayfs/dir.c, ovl_rename.
        if flags.contains(RenameFlags::WHITEOUT) || flags == RenameFlags::NOREPLACE | RenameFlags::EXCHANGE {
            return Err(Errno::INVAL);
        }
        let old = End { directory, name };
        let new = End { directory: new_directory, name: new_name };
        for _ in 0..TRIES {
            let changing = self.lock();
            let source = self.find_locked(old.directory, name.as_bytes())?;
            let target = match self.find_locked(new.directory, new_name.as_bytes()) {
                Ok(target) => Some(target),
                Err(Errno::NOENT) => None,
                Err(errno) => return Err(errno),
            };
            self.check_rename(old, new, &source, target.as_deref(), flags)?;
            if let Some(target) = &target {
                // Two names of one file, or twice the same name: nothing happens.
                if is_same(&source, target)? {
                    return Ok(());
                }
                self.check_replaced(&source, target, flags)?;
            }
            if let Some(done) = self.rename_direct(caller, old, new, (&source, target.as_deref()), flags, &changing) {
                return done;
            }
            let exchanged = target.as_ref().filter(|_| flags.contains(RenameFlags::EXCHANGE));
            let low = [Some(&source), exchanged].into_iter().flatten().find(|object| object.named_upper().is_none());
            if let Some(low) = low {
                // Data is not copied under the lock.
                let low = Arc::clone(low);
                drop(changing);
                self.check_redirect(&low)?;
                self.raise(caller, &low, Data::All)?;
                continue;
            }
            self.renaming(&changing);
            let done = self.rename_upper(caller, old, new, (&source, target.as_deref()), flags, &changing);
            self.renaming(&changing);
            return done;
        }
        Err(Errno::AGAIN)
    }

    /// Checks what the kernel checks once both names have been looked up: `fs/namei.c`, do_renameat2 and vfs_rename.
    fn check_rename(
        &self,
        old: End<'_>,
        new: End<'_>,
        source: &UnionInode,
        target: Option<&UnionInode>,
        flags: RenameFlags,
    ) -> Result<()> {
        old.directory.node.check_alive()?;
        new.directory.node.check_alive()?;
        match target {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            None if flags.contains(RenameFlags::EXCHANGE) => return Err(Errno::NOENT),
            _ => {}
        }
        if let Ok(moved) = source.as_directory() {
            if moved.node.holds(&new.directory.node) {
                return Err(Errno::INVAL);
            }
        }
        if let Some(Ok(moved)) = target.map(UnionInode::as_directory) {
            if moved.node.holds(&old.directory.node) {
                // Also of a directory that would replace its own parent.
                let exchanges = flags.contains(RenameFlags::EXCHANGE);
                return Err(if exchanges { Errno::INVAL } else { Errno::NOTEMPTY });
            }
        }
        for end in [old, new] {
            if self.is_excepted(&end.directory.node, end.name.as_bytes()) {
                return Err(Errno::BUSY);
            }
            let stack = end.directory.node.stack();
            if stack.is_some_and(|stack| self.is_hidden_in_upper(stack, end.name.as_bytes())) {
                return Err(Errno::INVAL);
            }
        }
        Ok(())
    }

    /// Checks that one object can take the place of another.
    fn check_replaced(&self, source: &UnionInode, target: &UnionInode, flags: RenameFlags) -> Result<()> {
        match (source.is_directory(), target.is_directory()) {
            _ if flags.contains(RenameFlags::EXCHANGE) => Ok(()),
            (true, false) => Err(Errno::NOTDIR),
            (false, true) => Err(Errno::ISDIR),
            (true, true) if !self.read_locked(target.as_directory()?)?.is_empty() => Err(Errno::NOTEMPTY),
            _ => Ok(()),
        }
    }

    /// Does a rename in a lower layer that takes changes itself; gives nothing if it is not one.
    fn rename_direct(
        &self,
        caller: &Caller<'_>,
        old: End<'_>,
        new: End<'_>,
        (source, target): (&UnionInode, Option<&UnionInode>),
        flags: RenameFlags,
        changing: &Changing<'_>,
    ) -> Option<Result<()>> {
        let attempt = || -> Result<Option<()>> {
            let writes = if source.upper().is_none() { self.writes_to(source)? } else { Writes::Never };
            let onto = self.direct(new.directory)?;
            match (&onto, writes) {
                (_, Writes::Refused) => return Err(Errno::ROFS),
                (Some((layer, ..)), Writes::Through) if source.layer() == Some(*layer) => {}
                (Some((layer, _, Writes::First)), Writes::First) if source.layer() == Some(*layer) => {}
                (_, Writes::Never) if source.upper().is_none() && self.work.is_none() => return Err(Errno::ROFS),
                // What cannot be copied cannot leave its layer, and nothing else can come there.
                (Some((.., Writes::Through)), _) | (_, Writes::Through) => return Err(Errno::XDEV),
                _ => return Ok(None),
            }
            let Some((layer, to, _)) = onto else { return Ok(None) };
            if target.is_some_and(|target| target.upper().is_some() || target.layer() != Some(layer)) {
                return if self.work.is_none() { Err(Errno::ROFS) } else { Ok(None) };
            }
            match self.real_parent(old.directory, source)?.rename(caller, old.name, &to, new.name, flags) {
                Err(errno) if writes == Writes::First && is_refusal(errno) => Ok(None),
                done => done.map(Some),
            }
        };
        match attempt() {
            Ok(None) => None,
            Ok(Some(())) => {
                self.renaming(changing);
                move_nodes(old, new, flags);
                self.renaming(changing);
                Some(Ok(()))
            }
            Err(errno) => Some(Err(errno)),
        }
    }

    /// # Errors
    /// - `EXDEV`: a directory that a lower layer has may not be renamed.
    fn check_redirect(&self, object: &UnionInode) -> Result<()> {
        let At::Directory(directory) = &object.at else { return Ok(()) };
        let has_lowers = directory.node.stack().is_none_or(|stack| !stack.lowers.is_empty());
        match has_lowers && self.redirect_dir != RedirectDir::On {
            true => Err(Errno::XDEV),
            false => Ok(()),
        }
    }

    /// Renames objects that the upper layer has.
    fn rename_upper(
        &self,
        caller: &Caller<'_>,
        old: End<'_>,
        new: End<'_>,
        (source, target): (&UnionInode, Option<&UnionInode>),
        flags: RenameFlags,
        changing: &Changing<'_>,
    ) -> Result<()> {
        let exchanges = flags.contains(RenameFlags::EXCHANGE);
        self.check_redirect(source)?;
        let from = self.raise_directory(caller, &old.directory.node, changing)?;
        let to = self.raise_directory(caller, &new.directory.node, changing)?;
        let old_covers = self.lower_has(old.directory, old.name.as_bytes())?;
        let new_covers = self.lower_has(new.directory, new.name.as_bytes())?;
        self.mark_moved(caller, source, new_covers)?;
        self.carry_impurity(caller, source, new, &to)?;
        if let Some(target) = target.filter(|_| exchanges) {
            self.check_redirect(target)?;
            self.mark_moved(caller, target, old_covers)?;
            self.carry_impurity(caller, target, old, &from)?;
        } else if let Some(Ok(replaced)) = target.map(UnionInode::as_directory) {
            self.empty_really(caller, replaced)?;
        }
        self.rename_names(caller, (&from, old.name), (&to, new.name), (source, target), flags, old_covers)?;
        move_nodes(old, new, flags);
        self.note_moved(source, (old.directory, old.name), (new.directory, new.name));
        if let Some(target) = target.filter(|_| exchanges) {
            self.note_moved(target, (new.directory, new.name), (old.directory, old.name));
        }
        if let Some(replaced) = target.filter(|target| !exchanges && !target.is_directory()) {
            if let Some(copy) = replaced.upper() {
                if replaced.named_upper().is_none() {
                    self.drop_lower_name(caller, copy)?;
                }
                self.drop_copy_without_names(caller, copy);
            }
        }
        Ok(())
    }

    fn rename_names(
        &self,
        caller: &Caller<'_>,
        (from, name): (&InodeRef, &Name),
        (to, new_name): (&InodeRef, &Name),
        (source, target): (&UnionInode, Option<&UnionInode>),
        flags: RenameFlags,
        old_covers: bool,
    ) -> Result<()> {
        if flags.contains(RenameFlags::EXCHANGE) {
            return from.rename(caller, name, to, new_name, RenameFlags::EXCHANGE);
        }
        if self.hides_by_oci_names() {
            if old_covers {
                self.make_whiteout(caller, from, name)?;
            }
            from.rename(caller, name, to, new_name, RenameFlags::empty())?;
            return self.clear_oci_whiteout(&as_root(caller), to, new_name);
        }
        let stands_whiteout = target.is_none() && whiteout::has(to, new_name.as_bytes())?;
        if source.is_directory() && stands_whiteout {
            // A directory does not replace a device; they change places, and the whiteout is where it is needed.
            self.rename_over(caller, (from, name), (to, new_name), RenameFlags::EXCHANGE)?;
            return match old_covers {
                true => self.put_whiteout_if_missing(caller, from, name),
                false => match from.remove(caller, name, RemoveKind::File) {
                    Err(Errno::NOENT) => Ok(()),
                    done => done,
                },
            };
        }
        let flags = if old_covers { RenameFlags::WHITEOUT } else { RenameFlags::empty() };
        from.rename(caller, name, to, new_name, flags)
    }

    fn put_whiteout_if_missing(&self, caller: &Caller<'_>, directory: &InodeRef, name: &Name) -> Result<()> {
        match whiteout::has(directory, name.as_bytes())? {
            true => Ok(()),
            false => self.make_whiteout(caller, directory, name),
        }
    }

    /// Writes into a directory what lower layers have of it, before it gets another name.
    fn mark_moved(&self, caller: &Caller<'_>, moved: &UnionInode, covers: bool) -> Result<()> {
        let At::Directory(directory) = &moved.at else { return Ok(()) };
        let (Some(stack), Some(upper)) = (directory.node.stack(), directory.upper()) else { return Ok(()) };
        let Some((layer, lower)) = stack.lowers.first() else {
            return if covers { self.set_opaque(&as_root(caller), upper) } else { Ok(()) };
        };
        let root = self.layer(*layer)?.root.path()?;
        let path = lower.path()?;
        let path = path.strip_prefix(root.as_slice()).ok_or(Errno::XDEV)?;
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let value = [b"/", path].concat();
        match upper.set_xattr(&as_root(caller), REDIRECT, &value, XattrSet::Any) {
            Ok(()) => {}
            // Programs copy instead.
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::OPNOTSUPP | Errno::PERM) => {
                return Err(Errno::XDEV);
            }
            Err(errno) => return Err(errno),
        }
        self.note_redirect(path.to_vec(), &directory.node);
        Ok(())
    }

    /// Lets the new directory know that numbers of entries are not the layer's own.
    fn carry_impurity(&self, caller: &Caller<'_>, moved: &UnionInode, new: End<'_>, to: &InodeRef) -> Result<()> {
        let keeps_number = match &moved.at {
            At::Directory(directory) => directory.node.stack().is_some_and(|stack| !stack.lowers.is_empty()),
            At::Leaf(leaf) => leaf.upper.get().is_some_and(|upper| upper.get_xattr(ORIGIN).is_ok()),
        };
        match keeps_number {
            true => self.set_impure(caller, &new.directory.node, to),
            false => Ok(()),
        }
    }

    /// Makes a directory that is about to be replaced, and looks empty, one that a rename can replace.
    fn empty_really(&self, caller: &Caller<'_>, directory: &Directory) -> Result<()> {
        let Some(upper) = directory.upper() else { return Ok(()) };
        let entries = upper.read_dir()?;
        if entries.is_empty() {
            return Ok(());
        }
        // Without its whiteouts, it must go on hiding what they hid.
        self.set_opaque(&as_root(caller), upper)?;
        for entry in entries {
            upper.remove(&as_root(caller), &Name::new(&entry.name)?, RemoveKind::File)?;
        }
        Ok(())
    }

    /// Remembers where lower layers have a directory.
    pub(super) fn note_redirect(&self, path: Vec<u8>, node: &Arc<Node>) {
        if self.renamed.read().iter().any(|(known, held)| *known == path && Arc::ptr_eq(held, node)) {
            return;
        }
        let mut forgotten = Vec::new();
        let mut renamed = self.renamed.write();
        for (known, held) in std::mem::take(&mut *renamed) {
            if known == path || held.is_gone() {
                forgotten.push(held);
            } else {
                renamed.push_back((known, held));
            }
        }
        renamed.push_back((path, Arc::clone(node)));
        if renamed.len() > RENAMED {
            forgotten.extend(renamed.pop_front().map(|(_, node)| node));
        }
    }

    /// Gives the union's path of what lower layers have at `path`.
    pub(super) fn renamed_path(&self, path: Vec<u8>) -> Vec<u8> {
        let renamed = self.renamed.read();
        let found = renamed
            .iter()
            .filter_map(|(old, node)| {
                let rest = path.strip_prefix(old.as_slice())?;
                (rest.is_empty() || rest.starts_with(b"/")).then_some((old.len(), node, rest))
            })
            .max_by_key(|(length, ..)| *length);
        match found {
            Some((_, node, rest)) => [node.path().as_slice(), rest].concat(),
            None => path,
        }
    }
}

fn is_same(source: &UnionInode, target: &UnionInode) -> Result<bool> {
    match (&source.at, &target.at) {
        (At::Directory(source), At::Directory(target)) => Ok(Arc::ptr_eq(&source.node, &target.node)),
        (At::Leaf(_), At::Leaf(_)) => Ok(source.id()? == target.id()?),
        _ => Ok(false),
    }
}

/// Makes the nodes follow the names.
fn move_nodes(old: End<'_>, new: End<'_>, flags: RenameFlags) {
    let (from, to) = (&old.directory.node, &new.directory.node);
    let (name, new_name) = (old.name.as_bytes(), new.name.as_bytes());
    if flags.contains(RenameFlags::EXCHANGE) {
        from.swap(name, to, new_name, from);
    } else {
        to.detach(new_name);
        from.relink(name, to, new_name);
    }
}
