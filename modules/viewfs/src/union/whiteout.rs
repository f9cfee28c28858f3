//! How layers write down what is missing: whiteouts, opaque directories, redirects, in the forms of overlayfs
//! and of OCI images. Knows no policy: only how each is recognised and made.

use std::sync::atomic::Ordering;

use umvu_interface::{Caller, Creation, Errno, FileKind, InodeRef, Name, RemoveKind, Result, XattrSet};

use super::walk::walk;
use super::UnionFs;

/// What the names of all attributes begin with that belong to unions.
pub(crate) const PREFIX: &[u8] = b"user.overlay.";
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";
pub(crate) const REDIRECT: &[u8] = b"user.overlay.redirect";
pub(crate) const IMPURE: &[u8] = b"user.overlay.impure";
/// On an empty regular file, in a directory whose `opaque` is `x`: a whiteout that can itself lie in a union.
const WHITEOUT: &[u8] = b"user.overlay.whiteout";
/// Where a copied-up file came from; the kernel's `user.overlay.origin` is a file handle, which not all layers have.
pub(crate) const ORIGIN: &[u8] = b"user.overlay.umvu.origin";

/// On a file with several names: how many of them the upper layer does not have.
pub(crate) const NLINK: &[u8] = b"user.overlay.nlink";

/// On the root of a layer that takes changes: names in it that begin with `.wh.` are names.
pub(crate) const PLAIN_NAMES: &[u8] = b"user.overlay.umvu.names";

/// Before the name of what is missing, in OCI layers (image-spec, `layer.md`).
pub(crate) const OCI_PREFIX: &[u8] = b".wh.";
/// In a directory that hides what lower layers have of it.
pub(crate) const OCI_OPAQUE: &[u8] = b".wh..wh..opq";
/// Holds work in progress in an upper layer; tools for OCI layers leave such names out.
pub(crate) const WORK_NAME: &[u8] = b".wh..wh.umvu";

/// What a directory of a layer says about those below it.
#[derive(Debug, Default)]
pub(crate) struct DirectoryMarks {
    pub(crate) opaque: bool,
    pub(crate) impure: bool,
    pub(crate) redirect: Option<Redirect>,
}

/// Where lower layers have a directory that has been renamed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// Under another name in the same directory.
    Sibling(Name),
    /// At a path from the root of the layer.
    Path(Vec<u8>),
}

impl Redirect {
    /// Reads the attribute; one that could lead elsewhere is not followed.
    fn parse(value: &[u8]) -> Option<Self> {
        match value.strip_prefix(b"/") {
            Some(path) => {
                path.split(|byte| *byte == b'/').all(|name| Name::new(name).is_ok()).then(|| Self::Path(path.to_vec()))
            }
            None => Name::new(value).ok().map(Self::Sibling),
        }
    }
}

/// Whether an object of the kind `kind` is a whiteout: character device 0:0.
pub(crate) fn is_whiteout(inode: &InodeRef, kind: FileKind) -> Result<bool> {
    Ok(kind == FileKind::CharDevice && inode.stat()?.rdev == 0)
}

/// Whether it is a whiteout of either kind; `directory` is where it lies, in a layer that may hold them.
pub(crate) fn is_marked_whiteout(directory: &InodeRef, inode: &InodeRef, kind: FileKind) -> Result<bool> {
    match kind {
        FileKind::CharDevice => is_whiteout(inode, kind),
        FileKind::Regular => {
            Ok(inode.get_xattr(WHITEOUT).is_ok() && directory.get_xattr(OPAQUE).is_ok_and(|value| value == b"x"))
        }
        _ => Ok(false),
    }
}

/// Gives the name that hides `name` in an OCI layer; none where it would be too long to exist.
pub(crate) fn oci_name(name: &[u8]) -> Option<Name> {
    Name::new(&[OCI_PREFIX, name].concat()).ok()
}

/// Whether an entry exists.
pub(crate) fn has(directory: &InodeRef, name: &[u8]) -> Result<bool> {
    match walk(directory, name) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Reads what a directory of a layer says about those below it.
pub(crate) fn directory_marks(directory: &InodeRef) -> Result<DirectoryMarks> {
    let names = match directory.list_xattr() {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => Vec::new(),
        Err(errno) => return Err(errno),
    };
    let value = |name: &[u8]| match names.iter().any(|known| known == name) {
        true => directory.get_xattr(name).ok(),
        false => None,
    };
    let opaque = value(OPAQUE).is_some_and(|value| value == b"y");
    let redirect = match value(REDIRECT) {
        None => None,
        Some(value) => {
            let parsed = Redirect::parse(&value);
            if parsed.is_none() {
                tracing::warn!(redirect = %value.escape_ascii(), "a redirect that is no path is not followed");
            }
            parsed
        }
    };
    Ok(DirectoryMarks { opaque, impure: value(IMPURE).is_some(), redirect })
}

impl UnionFs {
    /// Makes a directory of the upper layer hide what lower layers have at its name.
    pub(crate) fn set_opaque(&self, caller: &Caller<'_>, directory: &InodeRef) -> Result<()> {
        match directory.set_xattr(caller, OPAQUE, b"y", XattrSet::Any) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                let marker = Name::new(OCI_OPAQUE)?;
                match directory.create(caller, &marker, &Creation::Regular { mode: 0o600 }) {
                    Ok(_) | Err(Errno::EXIST) => self.hide_by_oci_names(caller),
                    Err(errno) => Err(errno),
                }
            }
            done => done,
        }
    }

    /// Makes a whiteout where the upper directory has no entry of that name.
    pub(crate) fn make_whiteout(&self, caller: &Caller<'_>, directory: &InodeRef, name: &Name) -> Result<()> {
        if !self.hides_by_oci_names() {
            let mut last = self.work()?.whiteout.lock();
            // All are one object as far as it has room for names: a link costs half of what a device does.
            if let Some(device) = &*last {
                match directory.link(caller, name, device) {
                    Ok(()) => return Ok(()),
                    Err(errno @ (Errno::EXIST | Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::NAMETOOLONG)) => {
                        return Err(errno);
                    }
                    Err(_) => *last = None,
                }
            }
            match directory.create(caller, name, &Creation::CharDevice { mode: 0, rdev: 0 }) {
                Ok(device) => {
                    *last = Some(device);
                    return Ok(());
                }
                Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => {}
                Err(errno) => return Err(errno),
            }
        }
        let marker = oci_name(name.as_bytes()).ok_or(Errno::NAMETOOLONG)?;
        self.hide_by_oci_names(caller)?;
        match directory.create(caller, &marker, &Creation::Regular { mode: 0o600 }) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Goes over to the OCI form of whiteouts, in this mount and all later ones of the layer.
    fn hide_by_oci_names(&self, caller: &Caller<'_>) -> Result<()> {
        if !self.upper_has_oci_names.load(Ordering::Relaxed) {
            self.work()?.note_oci_names(caller)?;
            self.upper_has_oci_names.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Whether the upper layer hides names as OCI layers do.
    pub(crate) fn hides_by_oci_names(&self) -> bool {
        self.upper_has_oci_names.load(Ordering::Relaxed)
    }

    /// Takes away the OCI form of a whiteout, if the upper layer uses it.
    pub(crate) fn clear_oci_whiteout(&self, caller: &Caller<'_>, directory: &InodeRef, name: &Name) -> Result<()> {
        if !self.hides_by_oci_names() {
            return Ok(());
        }
        let Some(marker) = oci_name(name.as_bytes()) else { return Ok(()) };
        match directory.remove(caller, &marker, RemoveKind::File) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        }
    }
}
