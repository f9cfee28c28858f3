//! Finding objects. Knows how layers hide and redirect each other's entries; changes nothing.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use umvu_interface::{Errno, FileKind, InodeRef, Name, Result};

use super::inode::{Directory, UnionInode};
use super::node::{LayerIndex, Node, Stack};
use super::walk::{components, split, walk};
use super::whiteout::{self, Redirect};
use super::{Marks, RedirectDir, UnionFs};

/// How often a lookup starts again before it makes renames wait.
const TRIES: u32 = 8;

/// What the upper layer says of a name.
pub(crate) enum Upper {
    /// Nothing: the lower layers decide.
    Nothing,
    /// That it is not there.
    Whiteout,
    /// That it is this.
    There(InodeRef, FileKind),
}

/// What one step down from a directory with a stack found.
enum Step {
    /// A directory, with the layers that have it.
    Directory(Stack),
    /// Anything else; the layer it is in, or none for the upper one.
    Leaf(InodeRef, FileKind, Option<LayerIndex>),
    /// That this layer alone decides on the name and all below it.
    Sealed(LayerIndex, InodeRef),
}

impl UnionFs {
    /// Finds a descendant of `start`; no prefix of `path` may be a symbolic link.
    pub(crate) fn find(&self, start: &Directory, path: &[u8]) -> Result<Arc<UnionInode>> {
        for _ in 0..TRIES {
            if let Some(found) = self.try_find(start, path)? {
                return Ok(found);
            }
        }
        let _changing = self.lock();
        self.find_locked(start, path)
    }

    /// The same, for those who hold the lock on changes.
    pub(crate) fn find_locked(&self, start: &Directory, path: &[u8]) -> Result<Arc<UnionInode>> {
        self.try_find(start, path)?.ok_or(Errno::AGAIN)
    }

    /// Gives nothing if directories were renamed meanwhile.
    fn try_find(&self, start: &Directory, path: &[u8]) -> Result<Option<Arc<UnionInode>>> {
        let epoch = self.epoch();
        let mut node = Arc::clone(&start.node);
        let mut rest = path;
        loop {
            node.check_alive()?;
            let Some(stack) = node.stack() else {
                let layer = node.pure_layer();
                if Arc::ptr_eq(&node, &start.node) {
                    return self.find_sealed(&node, layer, (start.top(self)?, b""), rest, epoch);
                }
                let (anchor, prefix) = node.anchor();
                let base = anchor.stack().and_then(|stack| stack.lower(layer)).ok_or(Errno::NOENT)?;
                return self.find_sealed(&node, layer, (base, &prefix), rest, epoch);
            };
            let (name, tail) = split(rest);
            let cached = node.child(name);
            if let Some(child) = &cached {
                if child.stack().is_some() || !tail.is_empty() {
                    let child = Arc::clone(child);
                    if tail.is_empty() {
                        return Ok(Some(UnionInode::directory(self.me(), child, None)));
                    }
                    self.keep(&child);
                    node = child;
                    rest = tail;
                    continue;
                }
            }
            // That there is a node without stack says that the upper layer has nothing of that name.
            let knows = cached.is_some() || self.is_excepted(&node, name);
            let upper = if knows { Upper::Nothing } else { self.in_upper(stack, name)? };
            match self.step(stack, name, upper)? {
                Step::Sealed(layer, base) => return self.find_sealed(&node, layer, (&base, b""), rest, epoch),
                Step::Directory(found) => {
                    let Some(child) = node.adopt(name, self.bottom, Some(found), || self.epoch() == epoch) else {
                        return Ok(None);
                    };
                    if let Some(path) = child.stack().and_then(|stack| stack.redirect.clone()) {
                        self.note_redirect(path, &child);
                    }
                    if tail.is_empty() {
                        return Ok(Some(UnionInode::directory(self.me(), child, None)));
                    }
                    self.keep(&child);
                    node = child;
                    rest = tail;
                }
                Step::Leaf(inode, kind, layer) if tail.is_empty() => {
                    let name = Name::new(name)?;
                    return UnionInode::leaf(self.me(), node, name, kind, layer, inode).map(Some);
                }
                Step::Leaf(_, FileKind::Symlink, _) => return Err(Errno::LOOP),
                Step::Leaf(..) => return Err(Errno::NOTDIR),
            }
        }
    }

    /// Finds what only one layer can have: at once, however long the path. `from` is at `prefix` below `base`.
    fn find_sealed(
        &self,
        from: &Arc<Node>,
        layer: LayerIndex,
        (base, prefix): (&InodeRef, &[u8]),
        path: &[u8],
        epoch: u64,
    ) -> Result<Option<Arc<UnionInode>>> {
        let marks = self.layer(layer)?.marks;
        if marks != Marks::None && components(path).any(|name| marks.hides(name)) {
            return Err(Errno::NOENT);
        }
        let found = match prefix {
            b"" => walk(base, path),
            prefix => walk(base, &[prefix, b"/", path].concat()),
        };
        let inode = found.map_err(|errno| self.unseen(errno))?;
        let kind = inode.kind()?;
        let mut node = Arc::clone(from);
        let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&path[..0], path),
        };
        for name in components(directory) {
            let Some(child) = node.adopt(name, layer, None, || self.epoch() == epoch) else { return Ok(None) };
            self.keep(&child);
            node = child;
        }
        if kind == FileKind::Directory {
            let Some(child) = node.adopt(name, layer, None, || self.epoch() == epoch) else { return Ok(None) };
            return Ok(Some(UnionInode::directory(self.me(), child, Some(inode))));
        }
        if kind == FileKind::CharDevice && whiteout::is_whiteout(&inode, kind)? {
            return Err(Errno::NOENT);
        }
        UnionInode::leaf(self.me(), node, Name::new(name)?, kind, Some(layer), inode).map(Some)
    }

    /// Looks into the upper directory of a stack.
    pub(crate) fn in_upper(&self, stack: &Stack, name: &[u8]) -> Result<Upper> {
        let Some(upper) = stack.upper.get() else { return Ok(Upper::Nothing) };
        if self.is_hidden_in_upper(stack, name) {
            return Err(Errno::NOENT);
        }
        match walk(upper, name) {
            Ok(inode) => {
                let kind = inode.kind()?;
                match whiteout::is_whiteout(&inode, kind)? {
                    true => Ok(Upper::Whiteout),
                    false => Ok(Upper::There(inode, kind)),
                }
            }
            Err(Errno::NOENT) => {
                if self.hides_by_oci_names() {
                    if let Some(marker) = whiteout::oci_name(name) {
                        if whiteout::has(upper, marker.as_bytes())? {
                            return Ok(Upper::Whiteout);
                        }
                    }
                }
                Ok(Upper::Nothing)
            }
            Err(errno) => Err(errno),
        }
    }

    /// Whether a name in the upper layer is the union's own.
    pub(crate) fn is_hidden_in_upper(&self, stack: &Stack, name: &[u8]) -> bool {
        if !name.starts_with(whiteout::OCI_PREFIX) {
            return false;
        }
        let is_root = || self.root.stack().is_some_and(|root| std::ptr::eq(root, stack));
        self.hides_by_oci_names() || name == whiteout::WORK_NAME && is_root()
    }

    fn step(&self, stack: &Stack, name: &[u8], upper: Upper) -> Result<Step> {
        if let Some((layer, inode)) = stack.excepted.get().and_then(|excepted| excepted.get(name)) {
            let kind = inode.kind()?;
            if kind != FileKind::Directory {
                return Ok(Step::Leaf(Arc::clone(inode), kind, Some(*layer)));
            }
            let lowers = vec![(*layer, Arc::clone(inode))];
            return Ok(Step::Directory(Stack { lowers, ..Stack::default() }));
        }
        match upper {
            Upper::Whiteout => Err(Errno::NOENT),
            Upper::There(inode, FileKind::Directory) => {
                let marks = self.upper_marks(&inode)?;
                let redirect = match &marks.redirect {
                    Some(Redirect::Path(path)) => Some(path.clone()),
                    _ => None,
                };
                let lowers = match marks.opaque {
                    true => Vec::new(),
                    false => self.in_lowers(stack, name, marks.redirect)?.0,
                };
                let impure = AtomicBool::new(marks.impure);
                let upper = OnceLock::from(inode);
                Ok(Step::Directory(Stack { upper, lowers, redirect, impure, excepted: OnceLock::new() }))
            }
            Upper::There(inode, kind) => Ok(Step::Leaf(inode, kind, None)),
            Upper::Nothing => {
                if let [(layer, inode)] = stack.lowers.as_slice() {
                    if self.is_sealed(*layer) {
                        return Ok(Step::Sealed(*layer, Arc::clone(inode)));
                    }
                }
                let (lowers, leaf) = self.in_lowers(stack, name, None)?;
                if let Some((layer, inode, kind)) = leaf {
                    return Ok(Step::Leaf(inode, kind, Some(layer)));
                }
                match lowers.as_slice() {
                    [] => Err(Errno::NOENT),
                    [(layer, _)] if self.is_sealed(*layer) => {
                        let base = stack.lower(*layer).ok_or(Errno::IO)?;
                        Ok(Step::Sealed(*layer, Arc::clone(base)))
                    }
                    _ => Ok(Step::Directory(Stack { lowers, ..Stack::default() })),
                }
            }
        }
    }

    /// Reads what a directory of the upper layer says about lower ones, by this union's rules.
    pub(crate) fn upper_marks(&self, directory: &InodeRef) -> Result<whiteout::DirectoryMarks> {
        let mut marks = whiteout::directory_marks(directory)?;
        if self.hides_by_oci_names() && !marks.opaque {
            marks.opaque = whiteout::has(directory, whiteout::OCI_OPAQUE)?;
        }
        if self.redirect_dir == RedirectDir::Off {
            marks.redirect = None;
        }
        Ok(marks)
    }

    /// Collects the lower directories behind a name or, where the topmost object of that name is none, gives that.
    #[allow(clippy::type_complexity)]
    fn in_lowers(
        &self,
        stack: &Stack,
        name: &[u8],
        redirect: Option<Redirect>,
    ) -> Result<(Vec<(LayerIndex, InodeRef)>, Option<(LayerIndex, InodeRef, FileKind)>)> {
        let is_redirected = redirect.is_some();
        let mut found: Vec<(LayerIndex, InodeRef)> = Vec::new();
        let mut at = redirect.unwrap_or(Redirect::Sibling(Name::new(name)?));
        for (index, layer) in self.layers.iter().enumerate().take(self.bottom + 1) {
            let marks = layer.marks;
            let looked_up = match &at {
                Redirect::Sibling(name) => match stack.lowers.iter().find(|(known, _)| *known == index) {
                    Some((_, directory)) => self.look(directory, name.as_bytes(), marks),
                    None => continue,
                },
                Redirect::Path(path) => self.look(&layer.root, path, marks),
            }?;
            let (inode, kind) = match looked_up {
                Looked::Nothing => continue,
                Looked::Whiteout => break,
                Looked::There(inode, kind) => (inode, kind),
            };
            if kind != FileKind::Directory {
                let is_first = found.is_empty() && !is_redirected;
                return Ok((found, is_first.then_some((index, inode, kind))));
            }
            if marks != Marks::None && index < self.bottom {
                let says = whiteout::directory_marks(&inode)?;
                let has_oci_names = marks == Marks::OverlayOrOci;
                let opaque = says.opaque
                    || has_oci_names && whiteout::has(&inode, whiteout::OCI_OPAQUE)?
                    || has_oci_names && self.is_renewed(stack, index, &at)?;
                found.push((index, inode));
                if opaque {
                    break;
                }
                if let (Some(redirect), false) = (says.redirect, self.redirect_dir == RedirectDir::Off) {
                    at = redirect;
                }
            } else {
                found.push((index, inode));
            }
        }
        Ok((found, None))
    }

    /// Whether an OCI layer that has a directory says that lower ones of that name are gone.
    fn is_renewed(&self, stack: &Stack, layer: LayerIndex, at: &Redirect) -> Result<bool> {
        let Redirect::Sibling(name) = at else { return Ok(false) };
        match (stack.lower(layer), whiteout::oci_name(name.as_bytes())) {
            (Some(directory), Some(marker)) => whiteout::has(directory, marker.as_bytes()),
            _ => Ok(false),
        }
    }

    /// Whether a lower layer has something that would show if the upper one had nothing of that name.
    pub(super) fn lower_has(&self, directory: &Directory, name: &[u8]) -> Result<bool> {
        let Some(stack) = directory.node.stack() else {
            let marks = self.layer(directory.node.pure_layer())?.marks;
            return Ok(matches!(self.look(directory.top(self)?, name, marks)?, Looked::There(..)));
        };
        if stack.lowers.is_empty() {
            return Ok(false);
        }
        let (directories, leaf) = self.in_lowers(stack, name, None)?;
        Ok(!directories.is_empty() || leaf.is_some())
    }

    /// Whether an entry shows the covered tree and is not the union's to change.
    pub(super) fn is_excepted(&self, node: &Node, name: &[u8]) -> bool {
        node.stack().and_then(|stack| stack.excepted.get()).is_some_and(|excepted| excepted.contains_key(name))
    }

    /// Gives the inode, in the only layer that has it, of a directory without stack.
    pub(crate) fn only_inode(&self, node: &Arc<Node>) -> Result<InodeRef> {
        let (anchor, path) = node.anchor();
        let layer = node.pure_layer();
        let base = anchor.stack().and_then(|stack| stack.lower(layer)).ok_or(Errno::NOENT)?;
        match walk(base, &path) {
            Err(Errno::LOOP | Errno::NOTDIR) => Err(Errno::NOENT),
            done => done,
        }
    }
}

enum Looked {
    Nothing,
    Whiteout,
    There(InodeRef, FileKind),
}

impl UnionFs {
    /// Looks for a path in a lower layer, where what the host hides may count as missing.
    fn look(&self, directory: &InodeRef, path: &[u8], marks: Marks) -> Result<Looked> {
        match look(directory, path, marks) {
            Err(errno) if self.unseen(errno) == Errno::NOENT => Ok(Looked::Nothing),
            other => other,
        }
    }
}

/// Looks for a path, mostly one name, in a directory of a lower layer.
fn look(directory: &InodeRef, path: &[u8], marks: Marks) -> Result<Looked> {
    if marks != Marks::None && components(path).any(|name| marks.hides(name)) {
        return Ok(Looked::Nothing);
    }
    match walk(directory, path) {
        Ok(inode) => {
            let kind = inode.kind()?;
            let is_whiteout = match marks {
                Marks::None => whiteout::is_whiteout(&inode, kind)?,
                Marks::Overlay | Marks::OverlayOrOci => whiteout::is_marked_whiteout(directory, &inode, kind)?,
            };
            Ok(if is_whiteout { Looked::Whiteout } else { Looked::There(inode, kind) })
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
            if marks == Marks::OverlayOrOci {
                if let Some(marker) = whiteout::oci_name(path).filter(|_| !path.contains(&b'/')) {
                    if whiteout::has(directory, marker.as_bytes())? {
                        return Ok(Looked::Whiteout);
                    }
                }
            }
            Ok(Looked::Nothing)
        }
        Err(errno) => Err(errno),
    }
}
