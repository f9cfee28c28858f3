//! The types of devices: what each is made of. Knows nothing of how devices are used.

use std::fs::File;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;

use umvu_driver::{open_file, open_source, FileStorage, ImageFile, Storage, Use};
use umvu_interface::{
    cause, Errno, FilesystemType, Hold, InnerMounts, InodeRef, MountError, MountFlags, MountRequest, Mounted, Name,
    World,
};

use crate::disk::Disk;
use crate::image::qcow2::Qcow2;
use crate::image::vdi::Vdi;
use crate::image::vhdx::Vhdx;
use crate::image::vmdk::Vmdk;
use crate::image::ImageError;
use crate::loops::Loops;
use crate::node::{Device, DeviceFs, Numbers, Owner, Place};
use crate::options::{self, Access, Options, Table};
use crate::partition::empty_mbr;
use crate::sys::List;

/// All types.
pub fn all() -> Vec<Arc<dyn FilesystemType>> {
    let made = |names, kind| Arc::new(Type { names, kind }) as Arc<dyn FilesystemType>;
    vec![
        made(&["vudevnull"], Kind::Null),
        made(&["vudevramdisk"], Kind::RamDisk),
        made(&["vudevpartx", "vudevraw"], Kind::Raw),
        made(&["vudevqcow2"], Kind::Qcow2),
        made(&["vudevvdi"], Kind::Vdi),
        made(&["vudevvmdk"], Kind::Vmdk),
        made(&["vudevvhdx"], Kind::Vhdx),
        made(&["vudevloop"], Kind::Loops),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    RamDisk,
    Raw,
    Qcow2,
    Vdi,
    Vmdk,
    Vhdx,
    Loops,
}

struct Type {
    names: &'static [&'static str],
    kind: Kind,
}

/// Major number of IDE disks, which today's kernels give to nobody.
const DISK_MAJOR: u32 = 3;

/// Minor numbers that one disk has.
const MINORS: u32 = 256;

impl FilesystemType for Type {
    fn names(&self) -> &'static [&'static str] {
        self.names
    }

    fn needs_no_source(&self) -> bool {
        matches!(self.kind, Kind::Null | Kind::RamDisk | Kind::Loops)
    }

    fn makes_mount_point(&self) -> bool {
        true
    }

    fn mount(&self, request: &MountRequest<'_>, world: &dyn World) -> Result<Mounted, MountError> {
        let options = options::parse(&request.options)?;
        if options.size.is_some() || options.table.is_some() {
            self.check_ramdisk_only()?;
        }
        let device = match self.kind {
            Kind::Null => Device::Null,
            Kind::RamDisk => Device::Disk(Disk::new(ramdisk(&options)?)),
            Kind::Raw => Device::Disk(Disk::new(raw(request, world, &options)?)),
            Kind::Qcow2 | Kind::Vdi | Kind::Vmdk | Kind::Vhdx => {
                Device::Disk(Disk::new(self.image(request, world, &options)?))
            }
            Kind::Loops => Device::Loops(loops(request, world)?),
        };
        if let (Device::Disk(disk), Some(Access::ReadOnly)) = (&device, access(request, &options)) {
            disk.set_read_only(true).map_err(|errno| fail(request.source, errno))?;
        }
        let filesystem = DeviceFs::new(
            device,
            self.numbers(&options, world),
            place(request, world)?,
            owner(request, &options),
            request.options.join(&b','),
        );
        let root: InodeRef = umvu_interface::Filesystem::root(&*filesystem);
        let (flags, inner) = (MountFlags::empty(), InnerMounts::Covered);
        Ok(Mounted { root, filesystem, shown_type: request.fstype.to_vec(), flags, inner })
    }
}

impl Type {
    fn check_ramdisk_only(&self) -> Result<(), MountError> {
        match self.kind {
            Kind::RamDisk => Ok(()),
            _ => {
                let message = "vudev: only a vudevramdisk takes the options 'size' and 'mbr'";
                Err(MountError::new(Errno::INVAL, message))
            }
        }
    }

    fn numbers(&self, options: &Options, world: &dyn World) -> Numbers {
        /// How many disks there are before numbers come again.
        const DISKS: u32 = (1 << 20) / MINORS;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (major, minor) = match self.kind {
            // As /dev/null has.
            Kind::Null => (1, 3),
            // As /dev/loop-control has.
            Kind::Loops => (10, 237),
            _ => (DISK_MAJOR, NEXT.fetch_add(1, Ordering::Relaxed) % DISKS * MINORS),
        };
        Numbers {
            filesystem: world.new_device(),
            sysfs: world.new_device(),
            major: options.major.unwrap_or(major),
            minor: options.minor.unwrap_or(minor),
        }
    }
}

fn access(request: &MountRequest<'_>, options: &Options) -> Option<Access> {
    let is_read_only = request.flags.contains(MountFlags::READ_ONLY);
    options.access.or(is_read_only.then_some(Access::ReadOnly))
}

fn fail(path: &[u8], errno: Errno) -> MountError {
    MountError::new(errno, format!("{}: {}", path.escape_ascii(), cause(errno)))
}

fn owner(request: &MountRequest<'_>, options: &Options) -> Owner {
    let maker = request.caller.credentials;
    Owner {
        mode: options.mode.unwrap_or(0o660),
        uid: options.uid.unwrap_or(maker.uid.fs),
        gid: options.gid.unwrap_or(maker.gid.fs),
    }
}

fn split(target: &[u8]) -> (&[u8], &[u8]) {
    match target.iter().rposition(|b| *b == b'/') {
        Some(0) => (b"/", &target[1..]),
        Some(at) => (&target[..at], &target[at + 1..]),
        None => (b".", target),
    }
}

/// The directory and the name of the mount point.
fn place(request: &MountRequest<'_>, world: &dyn World) -> Result<Place, MountError> {
    let (directory, name) = split(request.target);
    let found = world.resolve(directory).and_then(|inode| inode.id());
    let lists = List::ALL.into_iter().filter_map(|list| Some((list, world.resolve(list.path().as_bytes()).ok()?)));
    let directory = found.map_err(|errno| fail(directory, errno))?;
    Ok(Place { directory, name: name.to_vec(), lists: lists.collect() })
}

/// The control device of loop devices: those that the host has beside the mount point keep their numbers.
fn loops(request: &MountRequest<'_>, world: &dyn World) -> Result<Arc<Loops>, MountError> {
    let (directory, _) = split(request.target);
    let directory = world.resolve(directory).map_err(|errno| fail(directory, errno))?;
    Ok(Loops::new(move |index| {
        let name = Name::new(format!("loop{index}").as_bytes());
        name.is_ok_and(|name| directory.lookup(&name).is_ok())
    }))
}

/// The storage of a disk in memory.
fn ramdisk(options: &Options) -> Result<Arc<dyn Storage>, MountError> {
    /// As a floppy disk.
    const SIZE: u64 = 1440 << 10;
    let size = options.size.unwrap_or(SIZE);
    let made = || {
        let fd = rustix::fs::memfd_create("umvu:ramdisk", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&fd, size)?;
        let storage = FileStorage::new(File::from(fd), 0, size, false);
        if options.table == Some(Table::Mbr) {
            let mut signature = [0; 4];
            rustix::rand::getrandom(&mut signature, rustix::rand::GetRandomFlags::empty())?;
            storage.write_at(0, &empty_mbr(signature))?;
        }
        Ok(storage)
    };
    let storage = made().map_err(|errno| fail(b"vudevramdisk", errno))?;
    Ok(Arc::new(storage))
}

/// How the source of a disk is to be used.
fn use_of(request: &MountRequest<'_>, options: &Options) -> Use {
    match access(request, options) {
        Some(Access::ReadOnly) => Use::Read,
        Some(Access::ReadWrite) | None => Use::Write,
    }
}

/// What the source names.
fn source(request: &MountRequest<'_>, world: &dyn World) -> Result<(InodeRef, Hold), MountError> {
    if request.source.is_empty() {
        return Err(MountError::new(Errno::INVAL, "vudev: no file named that the disk is in"));
    }
    world.hold(request.source).map_err(|errno| fail(request.source, errno))
}

/// Why a source cannot be opened.
fn refused(source: &[u8], errno: Errno, use_: Use) -> MountError {
    let name = source.escape_ascii();
    let message = match errno {
        Errno::NOTBLK => format!("{name}: neither a file nor a block device"),
        Errno::BUSY => format!("{name}: busy: in use by another device or file system"),
        Errno::ACCESS | Errno::PERM | Errno::ROFS if use_ == Use::Write => {
            format!("{name}: cannot be written: {}: use option 'ro'", cause(errno))
        }
        _ => return fail(source, errno),
    };
    MountError::new(errno, message)
}

/// The storage of a disk in a file, or on another device, as it lies there.
fn raw(request: &MountRequest<'_>, world: &dyn World, options: &Options) -> Result<Arc<dyn Storage>, MountError> {
    let use_ = use_of(request, options);
    let (inode, hold) = source(request, world)?;
    open_source(&inode, hold, &request.caller, use_).map_err(|errno| refused(request.source, errno, use_))
}

impl Type {
    /// The storage of a disk in an image.
    fn image(
        &self,
        request: &MountRequest<'_>,
        world: &dyn World,
        options: &Options,
    ) -> Result<Arc<dyn Storage>, MountError> {
        let use_ = if self.kind == Kind::Vhdx { Use::Read } else { use_of(request, options) };
        let (inode, hold) = source(request, world)?;
        let file = open_file(&inode, hold, &request.caller, use_).map_err(|errno| match errno {
            Errno::NOTBLK => MountError::new(errno, format!("{}: not a file", request.source.escape_ascii())),
            errno => refused(request.source, errno, use_),
        })?;
        let opened: Result<Arc<dyn Storage>, ImageError> = match self.kind {
            Kind::Vdi => Vdi::open(file, use_).map(|image| Arc::new(image) as Arc<dyn Storage>),
            Kind::Vmdk => Vmdk::open(file, use_).map(|image| Arc::new(image) as Arc<dyn Storage>),
            Kind::Vhdx => Vhdx::open(file, use_).map(|image| Arc::new(image) as Arc<dyn Storage>),
            _ => {
                let find = |name: &[u8], from: &[u8]| find(name, from, request, world);
                Qcow2::open(file, request.source, use_, &find).map(|image| Arc::new(image) as Arc<dyn Storage>)
            }
        };
        opened.map_err(|error| {
            let message = format!("{}: {error}", request.source.escape_ascii());
            MountError::new(error.errno(), message)
        })
    }
}

/// Opens the image that another one stands on: its name is relative to the directory of that one.
fn find(
    name: &[u8],
    from: &[u8],
    request: &MountRequest<'_>,
    world: &dyn World,
) -> Result<(ImageFile, Vec<u8>), ImageError> {
    let name = name.strip_prefix(b"file:").unwrap_or(name);
    let before_slash = name.split(|b| *b == b'/').next().unwrap_or_default();
    if before_slash.contains(&b':') {
        return Err(ImageError::Unsupported("a place that is no file".into()));
    }
    let path = if name.first() == Some(&b'/') { name.to_vec() } else { [split(from).0, b"/", name].concat() };
    let (inode, hold) = world.hold(&path).map_err(ImageError::Host)?;
    let file = open_file(&inode, hold, &request.caller, Use::Read).map_err(ImageError::Host)?;
    Ok((file, path))
}
