//! squashfs 4.0: read-only, compressed. Nothing is read before it is asked for: mounting an image of a million files
//! takes as long as mounting an empty one. A reader of our own, as the library that was tried reads all inodes to mount,
//! has no attributes, and reads files from their start only.

mod decompress;
mod directory;
mod file;
mod inode;
mod metadata;
mod superblock;
#[cfg(test)]
mod tests;
mod xattr;

use std::sync::{Arc, Weak};

use umvu_driver::{Driver, Found, NodeId, OpenFile, Told, FOREVER, ROOT};
use umvu_interface::{Caller, DirEntry, Errno, FileKind, FsStat, Name, OFlags, Result};

use crate::image::Image;
use crate::recent::Recent;
use umvu_archive::Fields;

use self::inode::{Inode, Listing, What};
use self::metadata::{Metadata, Place};
use self::superblock::Superblock;
use self::xattr::Xattrs;

/// Bytes of blocks that are kept unpacked.
const KEPT: usize = 8 << 20;
/// Says of the size of a block that it is not compressed.
const PLAIN: u32 = 1 << 24;
/// The longest target of a symbolic link.
const PATH_MAX: u64 = 4096;

/// A squashfs. A node is the reference of its inode.
pub struct Squashfs {
    me: Weak<Squashfs>,
    image: Arc<Image>,
    superblock: Superblock,
    metadata: Metadata,
    blocks: Recent<Vec<u8>>,
    ids: Vec<u32>,
    xattrs: Option<Xattrs>,
}

impl Squashfs {
    /// Opens an image.
    ///
    /// # Errors
    /// - `EINVAL`: it is no squashfs, or one that is not supported: the log says why.
    /// - `EUCLEAN`: it is damaged.
    pub fn open(image: Arc<Image>) -> Result<Arc<Self>> {
        let superblock = Superblock::read(&image)?;
        let metadata = Metadata::new(image.clone(), superblock.compression);
        let ids = ids(&image, &metadata, &superblock)?;
        let xattrs = superblock.xattr_table.map(|table| Xattrs::read(&image, table)).transpose()?;
        let kept = KEPT / usize::try_from(superblock.block_size).unwrap_or(KEPT);
        let squashfs = Arc::new_cyclic(|me| Self {
            me: me.clone(),
            image,
            superblock,
            metadata,
            blocks: Recent::new(kept),
            ids,
            xattrs,
        });
        if squashfs.inode(ROOT)?.kind != FileKind::Directory {
            return Err(squashfs.image.damaged("a root that is no directory"));
        }
        Ok(squashfs)
    }

    fn inode(&self, node: NodeId) -> Result<Inode> {
        let reference = if node == ROOT { self.superblock.root } else { node };
        let place = Place::of_reference(self.superblock.inode_table, reference);
        let place = place.filter(|place| place.block < self.superblock.directory_table);
        let place = place.ok_or_else(|| self.image.damaged("an inode outside of their table"))?;
        Inode::read(&self.image, &self.metadata, place)
    }

    fn told(&self, inode: &Inode) -> Result<Told> {
        let id = |number: u16| {
            let found = self.ids.get(usize::from(number)).copied();
            found.ok_or_else(|| self.image.damaged("an owner that is not in the table of ids"))
        };
        let stat = inode.stat(id(inode.uid)?, id(inode.gid)?, self.superblock.block_size);
        Ok(Told { stat, valid: FOREVER })
    }

    fn listing(&self, node: NodeId) -> Result<Listing> {
        match self.inode(node)?.what {
            What::Directory(listing) => Ok(listing),
            _ => Err(Errno::NOTDIR),
        }
    }

    fn walk(&self, listing: &Listing, wanted: Option<&[u8]>, each: impl FnMut(directory::Entry) -> bool) -> Result<()> {
        directory::walk(&self.image, &self.metadata, self.superblock.directory_table, listing, wanted, each)
    }

    /// Gives a block of data unpacked.
    fn block(&self, at: u64, size: u32) -> Result<Arc<Vec<u8>>> {
        self.blocks.get(at, || {
            let most = usize::try_from(self.superblock.block_size).unwrap_or(0);
            let packed = self.image.read_piece(at, u64::from(size & (PLAIN - 1)), most)?;
            if size & PLAIN != 0 {
                return Ok(Arc::new(packed));
            }
            let unpacked = self.superblock.compression.unpack(&packed, most);
            unpacked.map(Arc::new).map_err(|error| self.image.damaged(format_args!("a block at {at}: {error}")))
        })
    }

    fn fragment(&self, number: u32) -> Result<Arc<Vec<u8>>> {
        let nonsense = || self.image.damaged("a fragment that is not there");
        let table = self.superblock.fragment_table.filter(|_| number < self.superblock.fragments);
        let pointer = table.ok_or_else(nonsense)?.saturating_add(u64::from(number) / 512 * 8);
        let block = Fields(&self.image.read_piece(pointer, 8, 8)?).u64().ok_or_else(nonsense)?;
        let mut place = Place { block, offset: usize::try_from(number % 512).unwrap_or(0) * 16 };
        let entry = self.metadata.piece(&mut place, 16)?;
        let mut fields = Fields(&entry);
        let (Some(at), Some(size)) = (fields.u64(), fields.u32()) else { return Err(nonsense()) };
        self.block(at, size)
    }

    fn xattrs_of(&self, node: NodeId) -> Result<Option<(&Xattrs, u32)>> {
        Ok(self.xattrs.as_ref().zip(self.inode(node)?.xattrs))
    }
}

/// Reads the table of ids.
fn ids(image: &Image, metadata: &Metadata, superblock: &Superblock) -> Result<Vec<u32>> {
    let count = usize::from(superblock.ids);
    let blocks = (count * 4).div_ceil(8192);
    let pointers = image.read_piece(superblock.id_table, blocks as u64 * 8, blocks * 8)?;
    let mut pointers = Fields(&pointers);
    let mut ids = Vec::with_capacity(count);
    while let (true, Some(block)) = (ids.len() < count, pointers.u64()) {
        let size = ((count - ids.len()) * 4).min(8192);
        let piece = metadata.piece(&mut Place { block, offset: 0 }, size)?;
        let mut fields = Fields(&piece);
        ids.extend(std::iter::from_fn(|| fields.u32()));
    }
    Ok(ids)
}

/// `d_type` of a short inode's type.
fn dirent_type(kind: u16) -> u8 {
    let kind = match kind {
        1 => FileKind::Directory,
        2 => FileKind::Regular,
        3 => FileKind::Symlink,
        4 => FileKind::BlockDevice,
        5 => FileKind::CharDevice,
        6 => FileKind::Fifo,
        7 => FileKind::Socket,
        _ => return 0,
    };
    kind.dirent_type()
}

impl Driver for Squashfs {
    fn lookup(&self, _: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let listing = self.listing(directory)?;
        let mut reference = None;
        self.walk(&listing, Some(name.as_bytes()), |entry| {
            if entry.name == name.as_bytes() {
                reference = Some(entry.reference);
            }
            // They are sorted.
            entry.name.as_slice() < name.as_bytes()
        })?;
        let reference = reference.ok_or(Errno::NOENT)?;
        let node = if reference == self.superblock.root { ROOT } else { reference };
        let told = self.told(&self.inode(node)?)?;
        Ok(Found { node, generation: 0, told, name_valid: FOREVER })
    }

    fn stat(&self, _: &Caller<'_>, node: NodeId) -> Result<Told> {
        self.told(&self.inode(node)?)
    }

    fn readlink(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        match inode.what {
            What::Symlink(mut place) => self.metadata.long_piece(&mut place, inode.size, PATH_MAX),
            _ => Err(Errno::INVAL),
        }
    }

    fn read_dir(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        self.walk(&self.listing(node)?, None, |entry| {
            let dirent_type = dirent_type(entry.kind);
            entries.push(DirEntry { name: entry.name.into(), ino: entry.number.into(), dirent_type });
            true
        })?;
        Ok(entries)
    }

    fn open(&self, _: &Caller<'_>, node: NodeId, _: OFlags) -> Result<Box<dyn OpenFile>> {
        let inode = self.inode(node)?;
        let me = self.me.upgrade().ok_or(Errno::IO)?;
        match inode.what {
            What::Regular(content) => Ok(Box::new(file::File::new(me, content, inode.size)?)),
            What::Directory(_) => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    fn get_xattr(&self, _: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let mut found = None;
        if let Some((xattrs, set)) = self.xattrs_of(node)? {
            xattrs.walk(&self.image, &self.metadata, set, |one, value| {
                if one == name {
                    found = Some(value()?);
                }
                Ok(found.is_none())
            })?;
        }
        found.ok_or(Errno::NODATA)
    }

    fn list_xattr(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<Vec<u8>>> {
        /// The longest list that Linux gives (`XATTR_LIST_MAX`).
        const LONGEST: usize = 64 << 10;
        let (mut names, mut length) = (Vec::new(), 0);
        if let Some((xattrs, set)) = self.xattrs_of(node)? {
            xattrs.walk(&self.image, &self.metadata, set, |one, _| {
                length += one.len() + 1;
                names.push(one.to_vec());
                if length > LONGEST {
                    return Err(Errno::TOOBIG);
                }
                Ok(true)
            })?;
        }
        Ok(names)
    }

    fn statfs(&self, _: &Caller<'_>) -> Result<FsStat> {
        // fs/squashfs/super.c, squashfs_statfs
        let block_size = u64::from(self.superblock.block_size);
        Ok(FsStat {
            magic: superblock::MAGIC.into(),
            block_size,
            fragment_size: block_size,
            blocks: self.superblock.bytes_used.div_ceil(block_size),
            files: self.superblock.inodes.into(),
            name_max: 256,
            ..FsStat::default()
        })
    }
}
