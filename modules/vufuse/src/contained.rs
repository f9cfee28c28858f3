//! A driver whose panics end in it: a parser that meets what its author did not think of fails its call with `EIO`, and
//! all that come after it, as its state may be half a change. Knows no format.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use umvu_driver::{Contents, Driver, Found, Keep, NewNode, NodeId, OpenFile, Range, Told};
use umvu_interface::{
    Caller, DirEntry, Errno, FsStat, Name, OFlags, RemoveKind, RenameFlags, Result, SetAttr, XattrSet,
};

use crate::image::Image;

/// Calls one's parser; a panic is told and becomes `EIO`.
pub fn contain<T>(image: &Image, call: impl FnOnce() -> Result<T>) -> Result<T> {
    image.begin_call();
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|_| {
        image.log(&"the driver failed on it: every call is EIO from now on");
        Err(Errno::IO)
    })
}

/// What the driver and its open files share.
struct Wall {
    image: Arc<Image>,
    is_broken: AtomicBool,
}

impl Wall {
    fn call<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        if self.is_broken.load(Ordering::Acquire) {
            return Err(Errno::IO);
        }
        let mut is_through = false;
        let result = contain(&self.image, || {
            let result = call();
            is_through = true;
            result
        });
        if !is_through {
            self.is_broken.store(true, Ordering::Release);
        }
        result
    }
}

/// A driver behind a wall.
pub struct Contained {
    driver: Arc<dyn Driver>,
    wall: Arc<Wall>,
}

impl Contained {
    /// Puts a driver behind a wall.
    pub fn new(image: Arc<Image>, driver: Arc<dyn Driver>) -> Self {
        Self { driver, wall: Arc::new(Wall { image, is_broken: AtomicBool::new(false) }) }
    }

    /// Whether it has panicked.
    #[cfg(test)]
    pub fn is_broken(&self) -> bool {
        self.wall.is_broken.load(Ordering::Acquire)
    }

    fn file(&self, file: Box<dyn OpenFile>) -> Box<dyn OpenFile> {
        Box::new(ContainedFile { file: Some(file), wall: self.wall.clone() })
    }
}

impl Driver for Contained {
    fn lookup(&self, who: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        self.wall.call(|| self.driver.lookup(who, directory, name))
    }

    fn forget(&self, node: NodeId, lookups: u64) {
        let _ = self.wall.call(|| {
            self.driver.forget(node, lookups);
            Ok(())
        });
    }

    fn stat(&self, who: &Caller<'_>, node: NodeId) -> Result<Told> {
        self.wall.call(|| self.driver.stat(who, node))
    }

    fn set_attr(&self, who: &Caller<'_>, node: NodeId, change: &SetAttr) -> Result<Told> {
        self.wall.call(|| self.driver.set_attr(who, node, change))
    }

    fn readlink(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        self.wall.call(|| self.driver.readlink(who, node))
    }

    fn read_dir(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        self.wall.call(|| self.driver.read_dir(who, node))
    }

    fn open(&self, who: &Caller<'_>, node: NodeId, flags: OFlags) -> Result<Box<dyn OpenFile>> {
        self.wall.call(|| self.driver.open(who, node, flags)).map(|file| self.file(file))
    }

    fn create(&self, who: &Caller<'_>, directory: NodeId, name: &Name, what: &NewNode<'_>) -> Result<Found> {
        self.wall.call(|| self.driver.create(who, directory, name, what))
    }

    fn create_open(
        &self,
        who: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        mode: u32,
        flags: OFlags,
    ) -> Result<(Found, Box<dyn OpenFile>)> {
        let made = self.wall.call(|| self.driver.create_open(who, directory, name, mode, flags));
        made.map(|(found, file)| (found, self.file(file)))
    }

    fn link(&self, who: &Caller<'_>, node: NodeId, directory: NodeId, name: &Name) -> Result<Found> {
        self.wall.call(|| self.driver.link(who, node, directory, name))
    }

    fn remove(&self, who: &Caller<'_>, directory: NodeId, name: &Name, kind: RemoveKind) -> Result<()> {
        self.wall.call(|| self.driver.remove(who, directory, name, kind))
    }

    fn rename(
        &self,
        who: &Caller<'_>,
        directory: NodeId,
        name: &Name,
        new_directory: NodeId,
        new_name: &Name,
        flags: RenameFlags,
    ) -> Result<()> {
        self.wall.call(|| self.driver.rename(who, directory, name, new_directory, new_name, flags))
    }

    fn get_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<Vec<u8>> {
        self.wall.call(|| self.driver.get_xattr(who, node, name))
    }

    fn list_xattr(&self, who: &Caller<'_>, node: NodeId) -> Result<Vec<Vec<u8>>> {
        self.wall.call(|| self.driver.list_xattr(who, node))
    }

    fn set_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        self.wall.call(|| self.driver.set_xattr(who, node, name, value, how))
    }

    fn remove_xattr(&self, who: &Caller<'_>, node: NodeId, name: &[u8]) -> Result<()> {
        self.wall.call(|| self.driver.remove_xattr(who, node, name))
    }

    fn statfs(&self, who: &Caller<'_>) -> Result<FsStat> {
        self.wall.call(|| self.driver.statfs(who))
    }

    fn sync(&self) -> Result<()> {
        self.wall.call(|| self.driver.sync())
    }

    fn unmount(&self) -> Result<()> {
        let result = self.wall.call(|| self.driver.unmount());
        // Somebody may still hold an inode; the image is free for others.
        self.wall.image.close();
        result
    }
}

struct ContainedFile {
    /// Taken when it is dropped.
    file: Option<Box<dyn OpenFile>>,
    wall: Arc<Wall>,
}

impl ContainedFile {
    fn call<T>(&self, call: impl FnOnce(&dyn OpenFile) -> Result<T>) -> Result<T> {
        self.wall.call(|| call(self.file.as_deref().ok_or(Errno::BADF)?))
    }
}

impl OpenFile for ContainedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.call(|file| file.read_at(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.call(|file| file.write_at(offset, bytes))
    }

    fn contents_at(&self, offset: u64) -> Result<Contents> {
        self.call(|file| file.contents_at(offset))
    }

    fn allocate(&self, mode: u32, range: Range) -> Result<()> {
        self.call(|file| file.allocate(mode, range))
    }

    fn flush(&self) -> Result<()> {
        self.call(|file| file.flush())
    }

    fn sync(&self) -> Result<()> {
        self.call(|file| file.sync())
    }

    fn keep(&self) -> Keep {
        self.call(|file| Ok(file.keep())).unwrap_or(Keep::Never)
    }
}

impl Drop for ContainedFile {
    fn drop(&mut self) {
        let file = self.file.take();
        let _ = self.wall.call(|| {
            drop(file);
            Ok(())
        });
    }
}
