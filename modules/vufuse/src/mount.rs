//! Mounting: the image as the view has it, the format, the driver. Knows nothing of what is in an image.

use std::sync::Arc;

use umvu_cached::{CachedFs, Shown};
use umvu_driver::{open_source, Driver, Storage, Use};
use umvu_interface::{
    cause, Errno, FileKind, Filesystem, Hold, InnerMounts, InodeRef, MountError, MountFlags, MountRequest, Mounted,
    World,
};

use crate::contained::{contain, Contained};
use crate::erofs::Erofs;
use crate::ext::{Ext, Mode, Superblock};
use crate::fat::Fat;
use crate::format::{tell, Format, Told};
use crate::image::Image;
use crate::iso9660::Iso;
use crate::options::Options;
use crate::overlay::Overlay;
use crate::part::Part;
use crate::server::Foreign;
use crate::squashfs::Squashfs;

type Result<T> = core::result::Result<T, MountError>;

/// What is to be mounted: a format, or whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Only(Format),
    Any,
    /// What a program of others serves.
    Served(Foreign),
    /// What the module archive knows by this name.
    Archive(&'static str),
}

/// What an image is in.
struct Source {
    inode: InodeRef,
    hold: Hold,
}

/// What was opened of an image.
struct Opened {
    driver: Arc<dyn Driver>,
    /// The type that it is shown as, where none was asked for.
    fstype: &'static str,
    flags: MountFlags,
}

/// Mounts an image.
pub fn mount(request: &MountRequest<'_>, world: &dyn World, wanted: Wanted) -> Result<Mounted> {
    if let Wanted::Archive(fstype) = wanted {
        return archive(request, world, fstype);
    }
    let name = String::from_utf8_lossy(request.source).into_owned();
    let failed = |errno: Errno| MountError::new(errno, format!("{name}: {}", cause(errno)));
    let credentials = request.caller.credentials;
    let mounter = (credentials.uid.fs, credentials.gid.fs);
    let (inode, hold) = world.hold(request.source).map_err(failed)?;
    let source = Source { inode, hold };
    match source.inode.kind().map_err(failed)? {
        FileKind::Regular | FileKind::BlockDevice => {}
        _ if wanted == Wanted::Any => return archive(request, world, "archive"),
        FileKind::Directory => return Err(failed(Errno::ISDIR)),
        _ => return Err(MountError::new(Errno::NOTBLK, format!("{name}: neither a file nor a block device"))),
    }
    let options = Options::parse(&request.options, mounter, request.caller.umask);
    // It may be an archive's options that are not known here.
    let (options, unknown) = match options {
        Ok(options) => (options, None),
        Err(error) if !matches!(wanted, Wanted::Only(_)) => (Options::parse(&[], mounter, 0)?, Some(error)),
        Err(error) => return Err(error),
    };
    let storage = take(&source, request, &options, Use::Read, &name)?;
    let image = Image::new(storage, name.clone());
    let format = match wanted {
        Wanted::Only(format) => format,
        Wanted::Served(foreign) => return Err(not_ours(&name, foreign, request)),
        Wanted::Archive(_) | Wanted::Any => match tell(&image).map_err(failed)? {
            Told::Known(format) => format,
            Told::Foreign(what) => {
                return Err(MountError::new(Errno::INVAL, format!("{name}: it is {what}; there is no driver for it")))
            }
            Told::Served(foreign) => return Err(not_ours(&name, foreign, request)),
            Told::Unknown => return archive(request, world, "archive").map_err(|error| no_image(error, &name)),
        },
    };
    if let Some(unknown) = unknown {
        return Err(unknown);
    }
    let Opened { driver, fstype, flags } = match format {
        Format::Squashfs => read_only(image, "squashfs", &options, format, |image| Squashfs::open(image).map(driver))?,
        Format::Iso9660 => read_only(image, "iso9660", &options, format, |image| {
            Iso::open(image, options.names, options.owner).map(driver)
        })?,
        Format::Erofs => read_only(image, "erofs", &options, format, |image| Erofs::open(image).map(driver))
            .map_err(|error| or_served(error, Foreign::Erofs, request, &options))?,
        Format::Fat => {
            options.check(format, "vfat")?;
            fat(image, &source, request, &options)?
        }
        Format::Ext => {
            options.check(format, "ext4")?;
            let opened = ext(image, &source, request, &options);
            opened.map_err(|error| or_served(error, Foreign::Ext, request, &options))?
        }
    };
    let mut shown = Shown::new(options.shown.join(&b','), &request.caller);
    shown.limits.all = options.limit.unwrap_or(shown.limits.all);
    shown.limits.memory = options.memory.unwrap_or(shown.limits.memory);
    let filesystem = CachedFs::new(driver, world.new_device(), shown);
    let is_asked = matches!(wanted, Wanted::Only(_));
    Ok(Mounted {
        root: filesystem.root(),
        filesystem,
        shown_type: if is_asked { request.fstype.to_vec() } else { fstype.as_bytes().to_vec() },
        flags,
        inner: InnerMounts::Covered,
    })
}

fn driver<D: Driver + 'static>(driver: Arc<D>) -> Arc<dyn Driver> {
    driver
}

fn storage_of(image: Image) -> Result<Arc<dyn Storage>> {
    image.into_storage().ok_or_else(|| MountError::new(Errno::IO, "the image is closed"))
}

/// Opens the source, for one use, and takes the part of it that is asked for.
fn take(
    source: &Source,
    request: &MountRequest<'_>,
    options: &Options,
    use_: Use,
    name: &str,
) -> Result<Arc<dyn Storage>> {
    let storage = open_source(&source.inode, source.hold.clone(), &request.caller, use_).map_err(|errno| {
        let message = match (errno, use_) {
            (Errno::BUSY, Use::Read) => format!("{name}: somebody writes it: {}", cause(errno)),
            (Errno::BUSY, Use::Write) => format!("{name}: somebody else has it mounted: {}", cause(errno)),
            (_, Use::Write) => format!("{name}: cannot be written, mount it ro: {}", cause(errno)),
            (_, Use::Read) => format!("{name}: {}", cause(errno)),
        };
        MountError::new(errno, message)
    })?;
    if options.offset == 0 && options.size_limit.is_none() {
        return Ok(storage);
    }
    let part = Part::new(storage, options.offset, options.size_limit);
    let part =
        part.map_err(|errno| MountError::new(errno, format!("{name}: offset={} is behind its end", options.offset)))?;
    Ok(Arc::new(part))
}

/// Opens an image of a format that is never written.
fn read_only(
    image: Image,
    fstype: &'static str,
    options: &Options,
    format: Format,
    open: impl FnOnce(Arc<Image>) -> umvu_interface::Result<Arc<dyn Driver>>,
) -> Result<Opened> {
    options.check(format, fstype)?;
    let image = Arc::new(image);
    let opened = contain(&image, || open(image.clone()));
    let driver = opened.map_err(|errno| {
        let why = image.last_reason().unwrap_or_else(|| match errno {
            Errno::INVAL => format!("not an image of {fstype}"),
            errno => cause(errno),
        });
        MountError::new(errno, format!("{}: {why}", image.name()))
    })?;
    Ok(Opened { driver: Arc::new(Contained::new(image, driver)), fstype, flags: MountFlags::READ_ONLY })
}

fn ext(image: Image, source: &Source, request: &MountRequest<'_>, options: &Options) -> Result<Opened> {
    let name = image.name().to_owned();
    let said = |image: &Image, errno: Errno, why: String| {
        MountError::new(errno, format!("{name}: {}", image.last_reason().unwrap_or(why)))
    };
    let superblock = contain(&image, || Superblock::read(&image))
        .map_err(|errno| said(&image, errno, "not an image of ext2, ext3 or ext4".to_owned()))?;
    let is_read_only = request.flags.contains(MountFlags::READ_ONLY) || options.no_load;
    let mode = match (is_read_only, options.no_load) {
        (false, _) => Mode::ReadWrite,
        (true, false) => Mode::ReadOnly,
        (true, true) => Mode::NoReplay,
    };
    if let Some(why) = superblock.unsupported(mode) {
        return Err(MountError::new(Errno::OPNOTSUPP, format!("{name}: {why}")));
    }
    let storage: Arc<dyn Storage> = match mode {
        Mode::ReadWrite => {
            // The lock for reading would be in the way.
            drop(image);
            take(source, request, options, Use::Write, &name)?
        }
        Mode::ReadOnly if superblock.needs_recovery() => Arc::new(Overlay::new(storage_of(image)?)),
        Mode::ReadOnly | Mode::NoReplay => storage_of(image)?,
    };
    let image = Arc::new(Image::new(storage, name.clone()));
    let mut why = String::new();
    let opened = contain(&image, || {
        Ext::open(image.clone(), mode).map_err(|(errno, text)| {
            why = text;
            errno
        })
    });
    let driver =
        opened.map_err(|errno| said(&image, errno, if why.is_empty() { cause(errno) } else { why.clone() }))?;
    let flags = if mode == Mode::ReadWrite { MountFlags::empty() } else { MountFlags::READ_ONLY };
    Ok(Opened { driver: Arc::new(Contained::new(image, driver)), fstype: superblock.fstype(), flags })
}

fn fat(image: Image, source: &Source, request: &MountRequest<'_>, options: &Options) -> Result<Opened> {
    let name = image.name().to_owned();
    let is_read_only = request.flags.contains(MountFlags::READ_ONLY);
    let storage = if is_read_only {
        storage_of(image)?
    } else {
        drop(image);
        take(source, request, options, Use::Write, &name)?
    };
    let image = Arc::new(Image::new(storage, name.clone()));
    let opened = contain(&image, || Fat::open(image.clone(), options.owner));
    let driver = opened.map_err(|errno| {
        let why = image.last_reason().unwrap_or_else(|| match errno {
            Errno::INVAL => "not an image of FAT".to_owned(),
            errno => cause(errno),
        });
        MountError::new(errno, format!("{name}: {why}"))
    })?;
    let flags = if is_read_only { MountFlags::READ_ONLY } else { MountFlags::empty() };
    Ok(Opened { driver: Arc::new(Contained::new(image, driver)), fstype: "vfat", flags })
}

/// What is said of a format that there is no driver for.
fn not_ours(name: &str, foreign: Foreign, request: &MountRequest<'_>) -> MountError {
    let why = format!("{name}: it is {}; there is no driver for it", foreign.name());
    MountError::new(Errno::INVAL, why).served_by(foreign.server(request))
}

/// Has a program serve what a driver refuses for what it is.
fn or_served(error: MountError, foreign: Foreign, request: &MountRequest<'_>, options: &Options) -> MountError {
    if error.errno != Errno::OPNOTSUPP {
        return error;
    }
    // fs/ext4/super.c, ext4_feature_set_ok
    let error = MountError { errno: Errno::INVAL, ..error };
    // They know a file system by its file alone.
    match options.offset == 0 && options.size_limit.is_none() {
        true => error.served_by(foreign.server(request)),
        false => error,
    }
}

/// Mounts what the module archive knows.
fn archive(request: &MountRequest<'_>, world: &dyn World, fstype: &str) -> Result<Mounted> {
    let module = (umvu_archive::MODULE.load)(&[]);
    let module = module.map_err(|error| MountError::new(Errno::INVAL, error.to_string()))?;
    let types = module.filesystem_types();
    match types.iter().find(|one| one.names().contains(&fstype)) {
        Some(archive) => archive.mount(request, world),
        None => Err(MountError::new(Errno::NODEV, "there is no module for archives")),
    }
}

/// What is said if neither an image nor an archive is there.
fn no_image(error: MountError, name: &str) -> MountError {
    if error.errno != Errno::INVAL || error.message.contains("option") {
        return error;
    }
    MountError::new(Errno::INVAL, format!("{name}: neither an image of a file system that is known nor an archive"))
}
