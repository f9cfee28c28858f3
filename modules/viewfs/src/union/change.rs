//! Making, linking and opening. Knows how names appear in the upper layer without ever showing a state in between.

use std::sync::Arc;

use umvu_interface::{
    Caller, Creation, Errno, FileKind, InodeRef, Name, OFlags, Opened, RemoveKind, RenameFlags, Result, SetAttr,
    XattrSet,
};

use super::copy_up::{is_refusal, Data};
use super::inode::{At, Directory, UnionInode};
use super::lookup::Upper;
use super::node::{LayerIndex, Stack};
use super::{as_root, Changing, UnionFs, Writes};

const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";

/// How an object becomes visible in a directory of the upper layer.
struct Spot {
    upper: InodeRef,
    /// Whether a 0:0 device stands there.
    is_whiteout: bool,
}

impl UnionFs {
    pub(super) fn create(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        what: &Creation<'_>,
    ) -> Result<Arc<UnionInode>> {
        if let Creation::CharDevice { rdev: 0, .. } = what {
            // It would be taken for a whiteout: fs/overlayfs/dir.c, ovl_mknod.
            return Err(Errno::PERM);
        }
        let kind = match what {
            Creation::Directory { .. } => FileKind::Directory,
            // The exact kind does not matter here.
            _ => FileKind::Regular,
        };
        let make = |at: &InodeRef, name: &Name| Ok((at.create(caller, name, what)?, ()));
        Ok(self.make_entry(caller, directory, name, kind, make)?.0)
    }

    pub(super) fn create_open(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        mode: u32,
        flags: OFlags,
    ) -> Result<(Arc<UnionInode>, Opened)> {
        let make = |at: &InodeRef, name: &Name| at.create_open(caller, name, mode, flags);
        self.make_entry(caller, directory, name, FileKind::Regular, make)
    }

    pub(super) fn tmpfile(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        mode: u32,
        flags: OFlags,
    ) -> Result<Opened> {
        directory.node.check_alive()?;
        if let Some((_, real, writes)) = self.direct(directory)? {
            match real.tmpfile(caller, mode, flags) {
                Err(errno) if writes == Writes::First && is_refusal(errno) => {}
                done => return done,
            }
        }
        let upper = self.raise_directory(caller, &directory.node, &self.lock())?;
        upper.tmpfile(caller, mode, flags)
    }

    fn make_entry<T>(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        kind: FileKind,
        make: impl Fn(&InodeRef, &Name) -> Result<(InodeRef, T)>,
    ) -> Result<(Arc<UnionInode>, T)> {
        let changing = self.lock();
        let is_whiteout = self.check_free(directory, name)?;
        if let Some((_, real, writes)) = self.direct(directory)?.filter(|_| !is_whiteout) {
            match make(&real, name) {
                Ok((_, extra)) => return Ok((self.find_locked(directory, name.as_bytes())?, extra)),
                Err(Errno::NOENT) if writes == Writes::First => {}
                Err(errno) if writes == Writes::First && is_refusal(errno) => {}
                Err(errno) => return Err(errno),
            }
        }
        let spot = self.spot(caller, directory, name, is_whiteout, &changing)?;
        let (inode, extra) = match spot.is_whiteout {
            true => self.make_over_whiteout(caller, &spot.upper, name, kind, make)?,
            false => self.make_in_place(caller, &spot.upper, name, kind, is_whiteout, make)?,
        };
        // Whatever this name has been for those who still hold it.
        directory.node.detach(name.as_bytes());
        let inode = if kind == FileKind::Directory {
            let child = directory.node.adopt(name.as_bytes(), self.bottom, Some(Stack::of_upper(inode)), || true);
            UnionInode::directory(self.me(), child.ok_or(Errno::IO)?, None)
        } else {
            let kind = inode.kind()?;
            UnionInode::leaf(self.me(), Arc::clone(&directory.node), name.clone(), kind, None, inode)?
        };
        Ok((inode, extra))
    }

    /// Checks that a name is free; gives whether it is so because of a whiteout.
    fn check_free(&self, directory: &Directory, name: &Name) -> Result<bool> {
        directory.node.check_alive()?;
        if directory.node.stack().is_some_and(|stack| self.is_hidden_in_upper(stack, name.as_bytes())) {
            return Err(Errno::INVAL);
        }
        if self.is_excepted(&directory.node, name.as_bytes()) {
            return Err(Errno::EXIST);
        }
        let upper = match directory.node.stack() {
            Some(stack) => self.in_upper(stack, name.as_bytes())?,
            None => Upper::Nothing,
        };
        match upper {
            Upper::There(..) => Err(Errno::EXIST),
            Upper::Whiteout => Ok(true),
            Upper::Nothing if self.lower_has(directory, name.as_bytes())? => Err(Errno::EXIST),
            Upper::Nothing => Ok(false),
        }
    }

    /// Gives the real directory of a lower layer that takes new entries itself, if there is one.
    pub(super) fn direct(&self, directory: &Directory) -> Result<Option<(LayerIndex, InodeRef, Writes)>> {
        let Some(stack) = directory.node.stack() else {
            let layer = directory.node.pure_layer();
            let real = directory.top(self)?;
            return match self.writes_in(layer, real)? {
                Writes::Refused => Err(Errno::ROFS),
                Writes::Never => Ok(None),
                writes => Ok(Some((layer, Arc::clone(real), writes))),
            };
        };
        for (layer, real) in &stack.lowers {
            // Of a directory that has an upper one, kernel state is long ruled out.
            let writes = match stack.upper.get() {
                Some(_) => self.layer(*layer)?.writes,
                None => self.writes_in(*layer, real)?,
            };
            if writes == Writes::Refused {
                return Err(Errno::ROFS);
            }
            if writes != Writes::Never {
                return Ok(Some((*layer, Arc::clone(real), writes)));
            }
        }
        Ok(None)
    }

    /// Makes sure of the upper directory.
    fn spot(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        is_whiteout: bool,
        changing: &Changing<'_>,
    ) -> Result<Spot> {
        self.work()?;
        let upper = self.raise_directory(caller, &directory.node, changing)?;
        // A whiteout of the OCI form does not stand in the way.
        let is_whiteout = is_whiteout && super::whiteout::has(&upper, name.as_bytes())?;
        Ok(Spot { upper, is_whiteout })
    }

    fn make_in_place<T>(
        &self,
        caller: &Caller<'_>,
        upper: &InodeRef,
        name: &Name,
        kind: FileKind,
        has_oci_whiteout: bool,
        make: impl Fn(&InodeRef, &Name) -> Result<(InodeRef, T)>,
    ) -> Result<(InodeRef, T)> {
        let (inode, extra) = make(upper, name)?;
        if kind == FileKind::Directory && has_oci_whiteout {
            if let Err(errno) = self.set_opaque(&as_root(caller), &inode) {
                upper.remove(caller, name, RemoveKind::Directory)?;
                return Err(errno);
            }
        }
        if has_oci_whiteout {
            self.clear_oci_whiteout(&as_root(caller), upper, name)?;
        }
        Ok((inode, extra))
    }

    fn make_over_whiteout<T>(
        &self,
        caller: &Caller<'_>,
        upper: &InodeRef,
        name: &Name,
        kind: FileKind,
        make: impl Fn(&InodeRef, &Name) -> Result<(InodeRef, T)>,
    ) -> Result<(InodeRef, T)> {
        let work = self.work()?;
        let (room, room_name) = self.room_like(caller, upper)?;
        let temporary = work.new_name()?;
        let made = make(&room, &temporary).and_then(|(inode, extra)| {
            let flags = match kind {
                FileKind::Directory => {
                    self.set_opaque(&as_root(caller), &inode)?;
                    RenameFlags::EXCHANGE
                }
                _ => RenameFlags::empty(),
            };
            self.rename_over(caller, (&room, &temporary), (upper, name), flags)?;
            Ok((inode, extra))
        });
        if made.is_err() || kind == FileKind::Directory {
            work.purge_in(&room, &temporary);
        }
        if let Some(room_name) = room_name {
            work.purge(&room_name);
        }
        made
    }

    /// Gives a directory in which new objects come out as in `upper`: group and default ACL are inherited.
    fn room_like(&self, caller: &Caller<'_>, upper: &InodeRef) -> Result<(InodeRef, Option<Name>)> {
        let work = self.work()?;
        let stat = upper.stat()?;
        let acl = upper.get_xattr(DEFAULT_ACL).ok();
        if stat.mode & 0o2000 == 0 && acl.is_none() {
            return Ok((Arc::clone(&work.directory), None));
        }
        let root = as_root(caller);
        let name = work.new_name()?;
        let room = work.directory.create(&root, &name, &Creation::Directory { mode: 0o700 })?;
        let owner = SetAttr { gid: Some(stat.gid), ..SetAttr::default() };
        let mode = SetAttr { mode: Some(0o700 | stat.mode & 0o2000), ..SetAttr::default() };
        let done = match room.set_attr(&root, &owner) {
            Err(Errno::PERM) => Ok(()),
            done => done,
        };
        let done = done.and_then(|()| room.set_attr(&root, &mode)).and_then(|()| match acl {
            Some(acl) => room.set_xattr(&root, DEFAULT_ACL, &acl, XattrSet::Any),
            None => Ok(()),
        });
        match done {
            Ok(()) => Ok((room, Some(name))),
            Err(errno) => {
                work.purge(&name);
                Err(errno)
            }
        }
    }

    /// Renames inside the upper layer, over a whiteout or to the place of one.
    pub(super) fn rename_over(
        &self,
        caller: &Caller<'_>,
        (from, name): (&InodeRef, &Name),
        (to, new_name): (&InodeRef, &Name),
        flags: RenameFlags,
    ) -> Result<()> {
        match from.rename(caller, name, to, new_name, flags) {
            // A file system that cannot exchange shows, for a moment, what the whiteout hides.
            Err(Errno::INVAL) if flags == RenameFlags::EXCHANGE => {
                to.remove(caller, new_name, RemoveKind::File)?;
                from.rename(caller, name, to, new_name, RenameFlags::empty())
            }
            done => done,
        }
    }

    pub(super) fn link(
        &self,
        caller: &Caller<'_>,
        directory: &Directory,
        name: &Name,
        target: &InodeRef,
    ) -> Result<()> {
        let target = UnionInode::of(self, target)?;
        let is_whiteout = self.check_free(directory, name)?;
        let At::Leaf(leaf) = &target.at else { return Err(Errno::PERM) };
        {
            let _changing = self.lock();
            let direct = self.direct(directory)?.filter(|_| !is_whiteout);
            let onto = if leaf.upper.get().is_none() { self.writes_to(target)? } else { Writes::Never };
            match (direct, onto) {
                (Some((layer, real, writes)), onto) if onto == writes && target.layer() == Some(layer) => {
                    match real.link(caller, name, leaf.real()?) {
                        Err(errno) if writes == Writes::First && is_refusal(errno) => {}
                        done => return done,
                    }
                }
                (_, Writes::Refused) => return Err(Errno::ROFS),
                (Some((.., Writes::Through)), _) | (_, Writes::Through) => return Err(Errno::XDEV),
                _ => {}
            }
        }
        let object = match target.upper() {
            Some(upper) => Arc::clone(upper),
            None => Arc::clone(self.raise(caller, target, Data::All)?),
        };
        let changing = self.lock();
        let is_whiteout = self.check_free(directory, name)?;
        let spot = self.spot(caller, directory, name, is_whiteout, &changing)?;
        if object.get_xattr(super::whiteout::ORIGIN).is_ok() {
            self.set_impure(caller, &directory.node, &spot.upper)?;
        }
        if !spot.is_whiteout {
            spot.upper.link(caller, name, &object)?;
            return match is_whiteout {
                true => self.clear_oci_whiteout(&as_root(caller), &spot.upper, name),
                false => Ok(()),
            };
        }
        let work = self.work()?;
        let temporary = work.new_name()?;
        work.directory.link(caller, &temporary, &object)?;
        let over = (&spot.upper, name);
        let placed = self.rename_over(caller, (&work.directory, &temporary), over, RenameFlags::empty());
        if placed.is_err() {
            work.purge(&temporary);
        }
        placed
    }

    /// Gives the real directory that an object of a lower layer is an entry of.
    pub(super) fn real_parent(&self, directory: &Directory, object: &UnionInode) -> Result<InodeRef> {
        let layer = object.layer().ok_or(Errno::IO)?;
        match directory.node.stack() {
            Some(stack) => stack.lower(layer).cloned().ok_or(Errno::IO),
            None => directory.top(self).cloned(),
        }
    }

    pub(super) fn open(&self, caller: &Caller<'_>, inode: &UnionInode, flags: OFlags) -> Result<Opened> {
        let At::Leaf(leaf) = &inode.at else { return Err(Errno::ISDIR) };
        let truncates = flags.contains(OFlags::TRUNC);
        // Special files are not changed by what is written to them: fs/overlayfs/copy_up.c.
        if leaf.kind != FileKind::Regular || !(truncates || flags.intersects(OFlags::WRONLY | OFlags::RDWR)) {
            return leaf.real()?.open(caller, flags);
        }
        let data = if truncates { Data::Begin(0) } else { Data::All };
        self.change_object(caller, inode, data, |real| real.open(caller, flags))
    }
}
