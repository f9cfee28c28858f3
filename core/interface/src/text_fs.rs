//! A file system of one directory whose files are texts and commands, for modules that are told what to do by their
//! files. Knows nothing of what they say: that is a [`TextFiles`].

use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};

use rustix::fs::OFlags;

use crate::{
    Caller, Control, Creation, DirEntry, Errno, FileKind, Filesystem, FsStat, Inode, InodeRef, Name, Opened, Program,
    ProgramClaim, Result, SetAttr, Stat, TextFile, Timestamp, World,
};

/// One file of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextEntry {
    /// Its name.
    pub name: Vec<u8>,
    /// Its inode number, above [`ROOT`], and never that of another file of the same directory.
    pub number: u64,
    /// Permission bits.
    pub mode: u32,
}

/// The inode number of the directory itself.
pub const ROOT: u64 = 1;

/// The files of a directory, and what they mean.
pub trait TextFiles: Send + Sync + 'static {
    /// Lists them.
    fn entries(&self) -> Vec<TextEntry>;

    /// Gives the text that is read from a file.
    ///
    /// # Errors
    /// - `ENOENT`: it has gone.
    fn content(&self, number: u64) -> Result<Vec<u8>>;

    /// Takes what is written to a file: [`Control::write`].
    fn write(&self, number: u64, caller: &Caller<'_>, bytes: &[u8], world: &dyn World) -> Result<usize>;

    /// Options as `/proc/mounts` shows them: [`Filesystem::options`].
    fn options(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Claims a program: [`Filesystem::claim_program`].
    fn claim_program(&self, program: &Program<'_>) -> Option<ProgramClaim> {
        let _ = program;
        None
    }

    /// Whether it may claim programs: [`Filesystem::claims_programs`].
    fn claims_programs(&self) -> bool {
        false
    }
}

/// Such a file system, owned by who made it.
pub struct TextFs<T> {
    files: T,
    device: u64,
    magic: u64,
    owner: (u32, u32),
    born: Timestamp,
    own: Weak<Self>,
}

impl<T: TextFiles> TextFs<T> {
    /// Makes one with a device number of its own; `magic` is the type that statfs(2) shows.
    pub fn new(files: T, device: u64, magic: u64, maker: &Caller<'_>) -> Arc<Self> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let born =
            Timestamp { seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX), nanoseconds: now.subsec_nanos() };
        let owner = (maker.credentials.uid.fs, maker.credentials.gid.fs);
        Arc::new_cyclic(|own| Self { files, device, magic, owner, born, own: own.clone() })
    }

    /// The files.
    pub fn files(&self) -> &T {
        &self.files
    }

    fn entry(&self, number: u64) -> Result<TextEntry> {
        self.files.entries().into_iter().find(|entry| entry.number == number).ok_or(Errno::NOENT)
    }
}

/// The directory or one of its files.
struct TextInode<T> {
    fs: Arc<TextFs<T>>,
    number: u64,
}

impl<T> TextInode<T> {
    fn is_root(&self) -> bool {
        self.number == ROOT
    }
}

/// An open file of such a file system.
struct TextControl<T> {
    fs: Arc<TextFs<T>>,
    number: u64,
}

impl<T> std::fmt::Debug for TextControl<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextControl({})", self.number)
    }
}

impl<T: TextFiles> Control for TextControl<T> {
    fn write(&self, caller: &Caller<'_>, bytes: &[u8], world: &dyn World) -> Result<usize> {
        self.fs.files.write(self.number, caller, bytes, world)
    }
}

impl<T: TextFiles> Inode for TextInode<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn filesystem(&self) -> Arc<dyn Filesystem> {
        self.fs.clone()
    }

    fn stat(&self) -> Result<Stat> {
        let (mode, nlink) = match self.is_root() {
            true => (FileKind::Directory.bits() | 0o755, 2),
            // One that has gone is still open somewhere.
            false => match self.fs.entry(self.number) {
                Ok(entry) => (FileKind::Regular.bits() | entry.mode, 1),
                Err(_) => (FileKind::Regular.bits() | 0o644, 0),
            },
        };
        let (uid, gid) = self.fs.owner;
        let born = self.fs.born;
        let (dev, ino, blksize) = (self.fs.device, self.number, 4096);
        let shown = Stat { dev, ino, mode, nlink, uid, gid, blksize, ..Stat::default() };
        Ok(Stat { atime: born, mtime: born, ctime: born, ..shown })
    }

    fn kind(&self) -> Result<FileKind> {
        Ok(if self.is_root() { FileKind::Directory } else { FileKind::Regular })
    }

    fn id(&self) -> Result<(u64, u64)> {
        Ok((self.fs.device, self.number))
    }

    fn lookup(&self, name: &Name) -> Result<InodeRef> {
        if !self.is_root() {
            return Err(Errno::NOTDIR);
        }
        let mut entries = self.fs.files.entries().into_iter();
        let entry = entries.find(|entry| entry.name == name.as_bytes()).ok_or(Errno::NOENT)?;
        Ok(Arc::new(Self { fs: self.fs.clone(), number: entry.number }))
    }

    fn parent(&self) -> Result<InodeRef> {
        Ok(self.fs.root())
    }

    fn path(&self) -> Result<Vec<u8>> {
        if self.is_root() {
            return Ok(Vec::new());
        }
        self.fs.entry(self.number).map(|entry| entry.name)
    }

    fn open(&self, _: &Caller<'_>, flags: OFlags) -> Result<Opened> {
        let content = self.fs.files.content(self.number)?;
        let writes = flags & OFlags::ACCMODE != OFlags::RDONLY;
        let control = || Arc::new(TextControl { fs: self.fs.clone(), number: self.number });
        let control = writes.then(|| control() as Arc<dyn Control>);
        Ok(Opened::Text(TextFile { content, control }))
    }

    fn create(&self, _: &Caller<'_>, _: &Name, what: &Creation<'_>) -> Result<InodeRef> {
        // vfs_create and the others of fs/namei.c, for a directory without these operations.
        Err(match what {
            Creation::Regular { .. } => Errno::ACCESS,
            _ => Errno::PERM,
        })
    }

    fn create_open(&self, _: &Caller<'_>, _: &Name, _: u32, _: OFlags) -> Result<(InodeRef, Opened)> {
        Err(Errno::ACCESS)
    }

    fn set_attr(&self, _: &Caller<'_>, change: &SetAttr) -> Result<()> {
        // A size means nothing here: open(2) with O_TRUNC is how a shell writes.
        let beside = SetAttr { size: None, ..*change };
        if beside.is_empty() {
            Ok(())
        } else {
            Err(Errno::PERM)
        }
    }

    fn read_dir(&self) -> Result<Vec<DirEntry>> {
        if !self.is_root() {
            return Err(Errno::NOTDIR);
        }
        let shown = |entry: TextEntry| DirEntry {
            name: entry.name.into(),
            ino: entry.number,
            dirent_type: FileKind::Regular.dirent_type(),
        };
        Ok(self.fs.files.entries().into_iter().map(shown).collect())
    }
}

impl<T: TextFiles> Filesystem for TextFs<T> {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn root(&self) -> InodeRef {
        match self.own.upgrade() {
            Some(fs) => Arc::new(TextInode { fs, number: ROOT }),
            None => unreachable!("whoever has a reference to it has the Arc that it is in"),
        }
    }

    fn statfs(&self, _: &dyn Inode) -> Result<FsStat> {
        // simple_statfs of fs/libfs.c.
        Ok(FsStat { magic: self.magic, block_size: 4096, fragment_size: 4096, name_max: 255, ..FsStat::default() })
    }

    fn options(&self) -> Vec<u8> {
        self.files.options()
    }

    fn stat_open(&self, _: BorrowedFd<'_>) -> Result<Stat> {
        // Open texts are known to who has opened them.
        Err(Errno::NOENT)
    }

    fn claim_program(&self, program: &Program<'_>) -> Option<ProgramClaim> {
        self.files.claim_program(program)
    }

    fn claims_programs(&self) -> bool {
        self.files.claims_programs()
    }
}
