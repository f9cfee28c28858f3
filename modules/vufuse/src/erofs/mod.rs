//! erofs, read-only, by the library erofs-rs: it reads inodes, contents and attributes by number. Directories are read
//! here, as it reads those by path only.

mod directory;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use erofs_rs::backend::AsyncImage;
use erofs_rs::r#async::EroFS;
use erofs_rs::types::Inode;
use erofs_rs::Error;
use umvu_driver::{Driver, Found, NodeId, OpenFile, Told, FOREVER, ROOT};
use umvu_interface::{Caller, DirEntry, Errno, FileKind, FsStat, Name, OFlags, Result, Stat, Timestamp};

use crate::image::Image;

/// What statfs(2) says.
const MAGIC: u64 = 0xe0f5_e1e2;

/// An erofs. A node is the number of its inode and two, as those may begin at 0; the root excepted.
pub struct Erofs {
    me: Weak<Erofs>,
    image: Arc<Image>,
    inner: EroFS<Reader>,
    root: u64,
}

/// The image as the library reads it.
struct Reader(Arc<Image>);

impl AsyncImage for Reader {
    async fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> erofs_rs::Result<()> {
        self.0.read(offset, buf).map_err(|errno| Error::Io(io::Error::from(errno)))
    }
}

/// Runs what never waits.
fn run<T>(future: impl Future<Output = T>) -> Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(Errno::IO),
    }
}

impl Erofs {
    /// Opens an image.
    ///
    /// # Errors
    /// - `EINVAL`: it is no erofs.
    /// - `EOPNOTSUPP`: it has features that are not supported: the log says which.
    /// - `EUCLEAN`: it is damaged.
    pub fn open(image: Arc<Image>) -> Result<Arc<Self>> {
        let mut magic = [0; 4];
        if image.size() < 2048 || image.read(1024, &mut magic).is_err() || u64::from(u32::from_le_bytes(magic)) != MAGIC
        {
            return Err(Errno::INVAL);
        }
        let inner = run(EroFS::new(Reader(image.clone())))?.map_err(|error| match error {
            Error::NotSupported(what) => {
                image.log(&format_args!("{what} is not supported"));
                Errno::OPNOTSUPP
            }
            error => failed(&image, error),
        })?;
        let (root, bits) = (inner.super_block().root_inode_id(), inner.super_block().blk_size_bits);
        let size = inner.super_block().block_count().checked_shl(bits.into()).unwrap_or(u64::MAX);
        if size > image.size() {
            return Err(image.damaged(format_args!("truncated: {size} bytes, of which {} are there", image.size())));
        }
        let erofs = Arc::new_cyclic(|me| Self { me: me.clone(), image, inner, root });
        if !erofs.inode(ROOT)?.is_dir() {
            return Err(erofs.image.damaged("a root that is no directory"));
        }
        Ok(erofs)
    }

    fn call<T>(&self, future: impl Future<Output = erofs_rs::Result<T>>) -> Result<T> {
        run(future)?.map_err(|error| failed(&self.image, error))
    }

    fn number(&self, node: NodeId) -> Result<u64> {
        if node == ROOT {
            return Ok(self.root);
        }
        node.checked_sub(2).ok_or(Errno::STALE)
    }

    fn node(&self, number: u64) -> Result<NodeId> {
        if number == self.root {
            return Ok(ROOT);
        }
        number.checked_add(2).ok_or_else(|| self.image.damaged("an inode whose number is none"))
    }

    fn inode(&self, node: NodeId) -> Result<Inode> {
        self.call(self.inner.get_inode(self.number(node)?))
    }

    fn told(&self, inode: &Inode) -> Told {
        let (seconds, nanoseconds) = inode.modified_unix();
        let time = Timestamp { seconds, nanoseconds };
        let size = inode.data_size();
        let rdev = inode.device().map_or(0, |(major, minor)| rustix::fs::makedev(major, minor));
        let block = 1u32.checked_shl(self.inner.super_block().blk_size_bits.into()).unwrap_or(4096);
        let stat = Stat {
            ino: inode.id(),
            mode: inode.file_type().as_raw_mode() | (inode.permissions().mode() & 0o7777),
            nlink: inode.nlink(),
            uid: inode.uid(),
            gid: inode.gid(),
            rdev,
            size,
            blksize: block,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            ..Stat::default()
        };
        Told { stat, valid: FOREVER }
    }
}

/// The errno for what the library says.
fn failed(image: &Image, error: Error) -> Errno {
    match error {
        Error::Io(error) => Errno::from_io_error(&error).unwrap_or(Errno::IO),
        Error::NotSupported(what) => {
            image.log(&format_args!("{what} is not supported"));
            Errno::OPNOTSUPP
        }
        Error::NotAFile(_) => Errno::ISDIR,
        Error::NotASymlink(_) => Errno::INVAL,
        error => image.damaged(error),
    }
}

struct File {
    filesystem: Arc<Erofs>,
    inode: Inode,
}

impl OpenFile for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let erofs = &self.filesystem;
        let file = erofs.inner.open_inode_file(self.inode).map_err(|error| failed(&erofs.image, error))?;
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.saturating_add(done as u64);
            match erofs.call(file.read_at(&mut buffer[done..], at))? {
                0 => break,
                count => done += count,
            }
        }
        Ok(done)
    }
}

impl Driver for Erofs {
    fn lookup(&self, _: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let number = self.find(directory, name.as_bytes())?.ok_or(Errno::NOENT)?;
        let node = self.node(number)?;
        let told = self.told(&self.inode(node)?);
        Ok(Found { node, generation: 0, told, name_valid: FOREVER })
    }

    fn stat(&self, _: &Caller<'_>, node: NodeId) -> Result<Told> {
        Ok(self.told(&self.inode(node)?))
    }

    fn readlink(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        let inode = self.inode(node)?;
        if inode.is_symlink() && inode.data_size() > 4096 {
            return Err(self.image.damaged("a symbolic link that is too long"));
        }
        Ok(self.call(self.inner.read_link_inode(inode))?.into_vec())
    }

    fn read_dir(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        self.walk(node, |name, number, kind| {
            if name != b"." && name != b".." {
                entries.push(DirEntry { name: name.into(), ino: number, dirent_type: dirent_type(kind) });
            }
        })?;
        Ok(entries)
    }

    fn open(&self, _: &Caller<'_>, node: NodeId, _: OFlags) -> Result<Box<dyn OpenFile>> {
        let inode = self.inode(node)?;
        match (inode.is_file(), inode.is_dir()) {
            (true, _) => Ok(Box::new(File { filesystem: self.me.upgrade().ok_or(Errno::IO)?, inode })),
            (_, true) => Err(Errno::ISDIR),
            _ => Err(Errno::INVAL),
        }
    }

    fn get_xattr(&self, _: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        let mut all = self.call(self.inner.xattrs_inode(self.inode(node)?))?;
        all.remove(name).ok_or(Errno::NODATA)
    }

    fn list_xattr(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<Vec<u8>>> {
        Ok(self.call(self.inner.xattrs_inode(self.inode(node)?))?.into_keys().collect())
    }

    fn statfs(&self, _: &Caller<'_>) -> Result<FsStat> {
        let superblock = self.inner.super_block();
        let block_size = 1u64.checked_shl(superblock.blk_size_bits.into()).unwrap_or(4096);
        Ok(FsStat {
            magic: MAGIC,
            block_size,
            fragment_size: block_size,
            blocks: superblock.block_count(),
            files: superblock.inos,
            name_max: 255,
            ..FsStat::default()
        })
    }
}

/// `d_type` of an entry's type, `fs_ftype_to_dtype`.
fn dirent_type(kind: u8) -> u8 {
    let kind = match kind {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::CharDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::Symlink,
        _ => return 0,
    };
    kind.dirent_type()
}
