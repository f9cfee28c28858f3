//! Making a mount of what its options say: finds the layers, checks that they go together, says why not.

use std::sync::Arc;

use umvu_interface::{
    cause, Creation, Errno, FileKind, InnerMounts, InodeRef, LayerUse, MountError, MountFlags, MountRequest, Mounted,
    Name, SetAttr, World,
};

use crate::options::{self, Mode, Options, Ownership};
use crate::union::{Layer, Marks, Setup, UnionFs, Work, Writes, STATE_NAME, WORK_NAME};

/// Mounts; `shown` is the type that `/proc/mounts` shows.
pub(crate) fn mount(request: &MountRequest<'_>, world: &dyn World, shown: &'static str) -> Result<Mounted, MountError> {
    let options = options::parse(&request.options)?;
    let mounting = Mounting { request, world, options: &options };
    let setup = match options.mode {
        Some(Mode::Bind) if options.except.is_empty() => return mounting.bind(shown),
        Some(Mode::Bind) => mounting.bind_with_exceptions()?,
        Some(Mode::Merge) => mounting.merge()?,
        Some(mode @ (Mode::Cow | Mode::MinCow)) => mounting.cow(mode)?,
        None => mounting.overlay()?,
    };
    let inner = match options.mode {
        Some(Mode::Merge | Mode::Cow | Mode::MinCow) => InnerMounts::Shown,
        Some(Mode::Bind) | None => InnerMounts::Covered,
    };
    let is_read_only = setup.upper.is_none() && setup.lowers.iter().all(|layer| layer.writes == Writes::Never);
    let union = UnionFs::new(setup)
        .map_err(|errno| MountError::new(errno, format!("{}: {}", quoted(request.target), cause(errno))))?;
    let flags = if is_read_only { MountFlags::READ_ONLY } else { MountFlags::empty() };
    let root = umvu_interface::Filesystem::root(&*union);
    Ok(Mounted { root, filesystem: union, shown_type: shown.into(), flags, inner })
}

struct Mounting<'a> {
    request: &'a MountRequest<'a>,
    world: &'a dyn World,
    options: &'a Options,
}

impl Mounting<'_> {
    fn bind(&self, shown: &str) -> Result<Mounted, MountError> {
        let root = self.resolve(self.request.source)?;
        let filesystem = root.filesystem();
        let (flags, inner) = (MountFlags::empty(), InnerMounts::Covered);
        Ok(Mounted { root, filesystem, shown_type: shown.into(), flags, inner })
    }

    fn bind_with_exceptions(&self) -> Result<Setup, MountError> {
        let source = self.directory(self.request.source)?;
        self.setup(None, vec![self.made_layer(source, Marks::None, Writes::Through)?], Vec::new())
    }

    fn merge(&self) -> Result<Setup, MountError> {
        let source = self.directory(self.request.source)?;
        let covered = self.covered()?;
        self.check_distinct(&source, self.request.source, &covered, self.request.target)?;
        let source = self.world.layer(&source, LayerUse::Lower, None)?;
        let lowers = vec![self.lower_layer(source)?, self.made_layer(covered, Marks::None, Writes::Through)?];
        self.setup(None, lowers, Vec::new())
    }

    fn cow(&self, mode: Mode) -> Result<Setup, MountError> {
        let (source, target) = (self.request.source, self.request.target);
        let upper = self.directory(source)?;
        let covered = self.covered()?;
        self.check_distinct(&upper, source, &covered, target)?;
        if self.world.is_inside(&covered, &upper) {
            return Err(overlap(target, "lies inside", source));
        }
        if self.world.is_inside(&upper, &covered) && !self.is_everything(&covered) {
            return Err(overlap(source, "lies inside", target));
        }
        let (root, writes) = match mode {
            Mode::MinCow => (covered, Writes::First),
            _ => (self.world.layer(&covered, LayerUse::Lower, None)?, Writes::Never),
        };
        let state = self.state(&upper, source)?;
        // The union's own directories, where they lie in it, are seen as they are and change only as it does.
        let covered = self.covered()?;
        let mut frozen: Vec<_> = path_in(&upper, &covered).into_iter().collect();
        if !self.world.is_inside(&state, &upper) {
            frozen.extend(path_in(&state, &covered));
        }
        let upper = self.upper(&upper, &state, source)?;
        self.dress(&upper.0)?;
        self.setup(Some(upper), vec![self.made_layer(root, Marks::None, writes)?], frozen)
    }

    /// Gives a fresh upper directory the owner and mode of what it covers: it is what the mount point shows.
    fn dress(&self, upper: &InodeRef) -> Result<(), MountError> {
        let caller = &self.request.caller;
        if !caller.credentials.is_faked() {
            return Ok(());
        }
        let copy = || {
            let is_fresh =
                upper.read_dir()?.iter().all(|entry| *entry.name == *STATE_NAME || *entry.name == *WORK_NAME);
            if is_fresh {
                let shown = self.request.covered.stat()?;
                let (mode, uid, gid) = (Some(shown.mode & 0o7777), Some(shown.uid), Some(shown.gid));
                upper.set_attr(caller, &SetAttr { mode, uid, gid, ..SetAttr::default() })?;
            }
            Ok(())
        };
        let source = self.request.source;
        copy().map_err(|errno: Errno| MountError::new(errno, format!("{}: {}", quoted(source), cause(errno))))
    }

    fn overlay(&self) -> Result<Setup, MountError> {
        let mut paths: Vec<(&[u8], InodeRef)> = Vec::new();
        for path in &self.options.layers.lower {
            paths.push((path, self.directory(path)?));
        }
        let upper = match &self.options.layers.upper {
            Some(path) => Some((path.as_slice(), self.directory(path)?)),
            None => None,
        };
        for (position, (path, lower)) in paths.iter().enumerate() {
            let others = paths.iter().skip(position + 1).chain(&upper);
            for (other_path, other) in others {
                self.check_distinct(lower, path, other, other_path)?;
                if self.world.is_inside(lower, other) {
                    return Err(overlap(path, "lies inside", other_path));
                }
                if self.world.is_inside(other, lower) {
                    return Err(overlap(other_path, "lies inside", path));
                }
            }
        }
        let mut lowers = Vec::new();
        for (_, lower) in &paths {
            let root = self.world.layer(lower, LayerUse::Lower, None)?;
            lowers.push(self.lower_layer(root)?);
        }
        let upper = match upper {
            Some((path, upper)) => Some(self.upper(&upper, &self.state(&upper, path)?, path)?),
            None => None,
        };
        self.setup(upper, lowers, Vec::new())
    }

    fn setup(
        &self,
        upper: Option<(InodeRef, Work)>,
        lowers: Vec<Layer>,
        frozen: Vec<Vec<u8>>,
    ) -> Result<Setup, MountError> {
        if self.options.ownership == Ownership::Recorded && upper.is_none() {
            return Err(MountError::new(Errno::INVAL, "option 'nochcopy' goes only with cow, mincow and upperdir"));
        }
        Ok(Setup {
            upper,
            lowers,
            covered: self.covered()?,
            excepted: self.options.except.clone(),
            frozen,
            device: self.world.new_device(),
            redirect_dir: self.options.redirect_dir,
            durability: self.options.durability,
            records_owners: self.options.ownership == Ownership::Recorded,
            options: self.request.options.join(&b','),
        })
    }

    /// Makes a layer of a directory that may have been written by a union, or come from an image.
    fn lower_layer(&self, root: InodeRef) -> Result<Layer, MountError> {
        let marks = Marks::of(&root);
        self.made_layer(root, marks, Writes::Never)
    }

    fn made_layer(&self, root: InodeRef, marks: Marks, writes: Writes) -> Result<Layer, MountError> {
        Layer::new(root, marks, writes).map_err(|errno| of(self.request.source, errno))
    }

    /// Makes a directory the layer that takes the changes.
    fn upper(&self, directory: &InodeRef, state: &InodeRef, path: &[u8]) -> Result<(InodeRef, Work), MountError> {
        let upper = self.world.layer(directory, LayerUse::Upper, Some(state))?;
        let work = Work::prepare(&upper, &self.request.caller).map_err(|errno| no_changes(path, errno))?;
        Ok((upper, work))
    }

    /// Finds or makes the directory for what the layer itself cannot hold.
    fn state(&self, upper: &InodeRef, path: &[u8]) -> Result<InodeRef, MountError> {
        match &self.options.work {
            Some(work) => self.given_state(upper, path, work),
            None => self.own_state(upper, path),
        }
    }

    fn given_state(&self, upper: &InodeRef, path: &[u8], work_path: &[u8]) -> Result<InodeRef, MountError> {
        let work = self.directory(work_path)?;
        self.check_distinct(&work, work_path, upper, path)?;
        if self.world.is_inside(&work, upper) || self.world.is_inside(upper, &work) {
            return Err(overlap(work_path, "overlaps", path));
        }
        let dev = |inode: &InodeRef, path: &[u8]| inode.stat().map(|stat| stat.dev).map_err(|errno| of(path, errno));
        if dev(&work, work_path)? != dev(upper, path)? {
            let message = format!("{}: not on the file system of {}", quoted(work_path), quoted(path));
            return Err(MountError::new(Errno::INVAL, message));
        }
        Ok(work)
    }

    /// Makes it beside the layer or, where that is not possible, inside.
    fn own_state(&self, upper: &InodeRef, path: &[u8]) -> Result<InodeRef, MountError> {
        let beside = || -> umvu_interface::Result<InodeRef> {
            let own_path = upper.path()?;
            let own_name = own_path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let name = Name::new(&[own_name, b".work"].concat())?;
            let parent = upper.parent()?;
            if own_name.is_empty() || parent.stat()?.dev != upper.stat()?.dev {
                return Err(Errno::XDEV);
            }
            self.make_directory(&parent, &name)
        };
        let inside = || -> umvu_interface::Result<InodeRef> {
            let work = self.make_directory(upper, &Name::new(WORK_NAME)?)?;
            self.make_directory(&work, &Name::new(STATE_NAME)?)
        };
        match beside() {
            Ok(state) => Ok(state),
            Err(errno) => {
                tracing::debug!(%errno, "no work directory beside the upper layer: it goes inside");
                inside().map_err(|errno| no_changes(path, errno))
            }
        }
    }

    fn make_directory(&self, parent: &InodeRef, name: &Name) -> umvu_interface::Result<InodeRef> {
        match parent.create(&self.request.caller, name, &Creation::Directory { mode: 0o700 }) {
            Err(Errno::EXIST) => {}
            made => return made,
        }
        let found = parent.lookup(name)?;
        match found.kind()? {
            FileKind::Directory => Ok(found),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn resolve(&self, path: &[u8]) -> Result<InodeRef, MountError> {
        self.world.resolve(path).map_err(|errno| of(path, errno))
    }

    fn directory(&self, path: &[u8]) -> Result<InodeRef, MountError> {
        let inode = self.resolve(path)?;
        match inode.kind().map_err(|errno| of(path, errno))? {
            FileKind::Directory => Ok(inode),
            _ => Err(of(path, Errno::NOTDIR)),
        }
    }

    fn covered(&self) -> Result<InodeRef, MountError> {
        let covered = &self.request.covered;
        match covered.kind().map_err(|errno| of(self.request.target, errno))? {
            FileKind::Directory => Ok(Arc::clone(covered)),
            _ => Err(of(self.request.target, Errno::NOTDIR)),
        }
    }

    /// Whether a directory is the root of the world, which the upper layer cannot but lie in.
    fn is_everything(&self, directory: &InodeRef) -> bool {
        let id = |inode: &InodeRef| inode.id().ok();
        self.world.resolve(b"/").is_ok_and(|root| id(&root).is_some() && id(&root) == id(directory))
    }

    fn check_distinct(
        &self,
        one: &InodeRef,
        path: &[u8],
        other: &InodeRef,
        other_path: &[u8],
    ) -> Result<(), MountError> {
        let id = |inode: &InodeRef, path: &[u8]| inode.id().map_err(|errno| of(path, errno));
        match id(one, path)? == id(other, other_path)? {
            true => Err(overlap(path, "is the same directory as", other_path)),
            false => Ok(()),
        }
    }
}

/// Gives the path of a directory from another one of the same file system that it lies in.
fn path_in(inner: &InodeRef, outer: &InodeRef) -> Option<Vec<u8>> {
    if !Arc::ptr_eq(&inner.filesystem(), &outer.filesystem()) {
        return None;
    }
    let (inner, outer) = (inner.path().ok()?, outer.path().ok()?);
    let rest = inner.strip_prefix(outer.as_slice())?;
    let rest = if outer.is_empty() { rest } else { rest.strip_prefix(b"/")? };
    (!rest.is_empty()).then(|| rest.to_vec())
}

/// `ELOOP`, as overlayfs has it: fs/overlayfs/super.c, ovl_check_layer.
fn overlap(path: &[u8], how: &str, other: &[u8]) -> MountError {
    MountError::new(Errno::LOOP, format!("{}: {how} {}, another layer", quoted(path), quoted(other)))
}

fn no_changes(path: &[u8], errno: Errno) -> MountError {
    MountError::new(errno, format!("{}: cannot take changes: {}", quoted(path), cause(errno)))
}

fn of(path: &[u8], errno: Errno) -> MountError {
    MountError::new(errno, format!("{}: {}", quoted(path), cause(errno)))
}

fn quoted(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
