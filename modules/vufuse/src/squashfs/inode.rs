//! Inodes. Follows `fs/squashfs/inode.c`.

use umvu_interface::{FileKind, Result, Stat, Timestamp};

use crate::image::Image;
use umvu_archive::Fields;

use super::metadata::{Metadata, Place};

/// No fragment, no attributes.
const NONE: u32 = u32::MAX;

/// An inode; its owner is still the numbers of the table of ids.
pub struct Inode {
    pub number: u32,
    pub kind: FileKind,
    pub permissions: u32,
    pub uid: u16,
    pub gid: u16,
    pub mtime: u32,
    pub links: u32,
    pub size: u64,
    pub rdev: u64,
    /// Number of its set of attributes.
    pub xattrs: Option<u32>,
    pub what: What,
}

/// What differs between the kinds.
pub enum What {
    Directory(Listing),
    Regular(Content),
    /// Where the target lies.
    Symlink(Place),
    Other,
}

/// Where the entries of a directory lie.
#[derive(Clone, Copy)]
pub struct Listing {
    /// Relative to the table of directories.
    pub block: u32,
    pub offset: u16,
    /// Bytes of entries.
    pub size: u64,
    /// An index by name: how many, and where.
    pub index: Option<(u16, Place)>,
}

/// Where the content of a file lies.
#[derive(Clone, Copy)]
pub struct Content {
    pub start: u64,
    /// Number of the fragment that holds the end of it, and where in it.
    pub fragment: Option<(u32, u32)>,
    /// Bytes of holes.
    pub sparse: u64,
    /// Where the sizes of the blocks lie.
    pub sizes: Place,
}

impl Inode {
    /// Reads the inode at a place.
    pub fn read(image: &Image, metadata: &Metadata, at: Place) -> Result<Self> {
        let mut place = at;
        let head = metadata.piece(&mut place, 16)?;
        let number = Fields(&head).u16().unwrap_or(0);
        let rest = match number {
            1 => 16,
            2 => 16,
            3 | 4 | 5 | 10 => 8,
            6 | 7 => 4,
            8 => 24,
            9 => 40,
            11 | 12 => 12,
            13 | 14 => 8,
            _ => return Err(image.damaged(format_args!("an inode of type {number}"))),
        };
        let body = metadata.piece(&mut place, rest)?;
        let parsed = Self::parse(&head, &body, place);
        let mut inode = parsed.ok_or_else(|| image.damaged("an inode that says nothing sensible"))?;
        if number == 10 {
            // The attributes are behind the target.
            metadata.skip(&mut place, inode.size)?;
            inode.xattrs = some(Fields(&metadata.piece(&mut place, 4)?).u32().unwrap_or(NONE));
        }
        Ok(inode)
    }

    fn parse(head: &[u8], body: &[u8], behind: Place) -> Option<Self> {
        let mut fields = Fields(head);
        let kind = match fields.u16()? {
            1 | 8 => FileKind::Directory,
            2 | 9 => FileKind::Regular,
            3 | 10 => FileKind::Symlink,
            4 | 11 => FileKind::BlockDevice,
            5 | 12 => FileKind::CharDevice,
            6 | 13 => FileKind::Fifo,
            _ => FileKind::Socket,
        };
        let is_long = Fields(head).u16()? > 7;
        let permissions = u32::from(fields.u16()?) & 0o7777;
        let (uid, gid, mtime, number) = (fields.u16()?, fields.u16()?, fields.u32()?, fields.u32()?);
        let mut inode = Self {
            number,
            kind,
            permissions,
            uid,
            gid,
            mtime,
            links: 1,
            size: 0,
            rdev: 0,
            xattrs: None,
            what: What::Other,
        };
        inode.body(Fields(body), is_long, behind)?;
        Some(inode)
    }

    fn body(&mut self, mut fields: Fields<'_>, is_long: bool, behind: Place) -> Option<()> {
        match (self.kind, is_long) {
            (FileKind::Directory, false) => {
                let block = fields.u32()?;
                self.links = fields.u32()?;
                let (size, offset) = (fields.u16()?, fields.u16()?);
                self.directory(block, offset, u32::from(size), None);
            }
            (FileKind::Directory, true) => {
                self.links = fields.u32()?;
                let (size, block, _parent) = (fields.u32()?, fields.u32()?, fields.u32()?);
                let (count, offset) = (fields.u16()?, fields.u16()?);
                self.xattrs = some(fields.u32()?);
                self.directory(block, offset, size, Some((count, behind)).filter(|_| count != 0));
            }
            (FileKind::Regular, false) => {
                let (start, fragment, offset) = (fields.u32()?, fields.u32()?, fields.u32()?);
                self.size = fields.u32()?.into();
                let fragment = some(fragment).map(|fragment| (fragment, offset));
                self.what = What::Regular(Content { start: start.into(), fragment, sparse: 0, sizes: behind });
            }
            (FileKind::Regular, true) => {
                let start = fields.u64()?;
                self.size = fields.u64()?;
                let sparse = fields.u64()?;
                self.links = fields.u32()?;
                let (fragment, offset) = (fields.u32()?, fields.u32()?);
                self.xattrs = some(fields.u32()?);
                let fragment = some(fragment).map(|fragment| (fragment, offset));
                self.what = What::Regular(Content { start, fragment, sparse, sizes: behind });
            }
            (FileKind::Symlink, _) => {
                self.links = fields.u32()?;
                self.size = fields.u32()?.into();
                self.what = What::Symlink(behind);
            }
            (FileKind::BlockDevice | FileKind::CharDevice, _) => {
                self.links = fields.u32()?;
                self.rdev = device(fields.u32()?);
                if is_long {
                    self.xattrs = some(fields.u32()?);
                }
            }
            (FileKind::Fifo | FileKind::Socket, _) => {
                self.links = fields.u32()?;
                if is_long {
                    self.xattrs = some(fields.u32()?);
                }
            }
        }
        Some(())
    }

    fn directory(&mut self, block: u32, offset: u16, size: u32, index: Option<(u16, Place)>) {
        self.size = size.into();
        // `.` and `..` are counted, and are not there.
        self.what = What::Directory(Listing { block, offset, size: u64::from(size).saturating_sub(3), index });
    }

    /// Its metadata, for an owner.
    pub fn stat(&self, uid: u32, gid: u32, block_size: u32) -> Stat {
        let time = Timestamp { seconds: self.mtime.into(), nanoseconds: 0 };
        let sparse = if let What::Regular(content) = &self.what { content.sparse } else { 0 };
        Stat {
            ino: self.number.into(),
            mode: self.kind.bits() | self.permissions,
            nlink: self.links,
            uid,
            gid,
            rdev: self.rdev,
            size: self.size,
            blksize: block_size,
            blocks: self.size.saturating_sub(sparse).div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            ..Stat::default()
        }
    }
}

fn some(number: u32) -> Option<u32> {
    Some(number).filter(|number| *number != NONE)
}

/// `new_decode_dev` of `include/linux/kdev_t.h`.
fn device(number: u32) -> u64 {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    rustix::fs::makedev(major, minor)
}
