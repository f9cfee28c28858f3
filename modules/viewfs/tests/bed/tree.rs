//! Short words for what a program does in a mounted tree.

use std::os::fd::AsFd;
use std::sync::Arc;

use umvu_interface::{
    Caller, Creation, Credentials, Errno, FileKind, Filesystem, InodeRef, MountFlags, Mounted, Name, OFlags,
    RemoveKind, RenameFlags, SetAttr, Stat,
};

use super::{me, name};

/// A mounted tree and who uses it.
pub struct Tree {
    pub root: InodeRef,
    pub filesystem: Arc<dyn Filesystem>,
    pub flags: MountFlags,
    pub who: Credentials,
}

impl Tree {
    pub fn new(mounted: Mounted) -> Self {
        Self { root: mounted.root, filesystem: mounted.filesystem, flags: mounted.flags, who: me() }
    }

    /// The same tree for somebody else.
    pub fn again(&self) -> Self {
        let (root, filesystem) = (Arc::clone(&self.root), Arc::clone(&self.filesystem));
        Self { root, filesystem, flags: self.flags, who: self.who.clone() }
    }

    pub fn caller(&self) -> Caller<'_> {
        Caller { tid: 1, credentials: &self.who, umask: 0o022 }
    }

    pub fn find(&self, path: &str) -> Result<InodeRef, Errno> {
        match path {
            "" => Ok(Arc::clone(&self.root)),
            path => self.root.lookup_path(path.as_bytes()),
        }
    }

    /// Finds the directory of a path, and gives the last name.
    fn split(&self, path: &str) -> Result<(InodeRef, Name), Errno> {
        let (directory, last) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(directory)?, name(last)))
    }

    pub fn stat(&self, path: &str) -> Stat {
        self.find(path).unwrap().stat().unwrap()
    }

    pub fn ino(&self, path: &str) -> u64 {
        self.stat(path).ino
    }

    pub fn open(&self, path: &str, flags: OFlags) -> Result<std::fs::File, Errno> {
        let fd = self.find(path)?.open(&self.caller(), flags | OFlags::CLOEXEC)?.into_file()?;
        Ok(fd.into())
    }

    pub fn read(&self, path: &str) -> Result<String, Errno> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.open(path, OFlags::RDONLY)?, &mut text).unwrap();
        Ok(text)
    }

    /// As `echo content > path` does.
    pub fn write(&self, path: &str, content: &str) -> Result<(), Errno> {
        let (directory, last) = self.split(path)?;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let opened = match directory.create_open(&self.caller(), &last, 0o644, flags) {
            Ok((_, opened)) => opened,
            Err(Errno::EXIST) => self.find(path)?.open(&self.caller(), flags | OFlags::TRUNC)?,
            Err(errno) => return Err(errno),
        };
        std::io::Write::write_all(&mut std::fs::File::from(opened.into_file()?), content.as_bytes()).unwrap();
        Ok(())
    }

    /// As `echo content >> path` does.
    pub fn append(&self, path: &str, content: &str) -> Result<(), Errno> {
        let mut file = self.open(path, OFlags::WRONLY | OFlags::APPEND)?;
        std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
        Ok(())
    }

    pub fn create(&self, path: &str, what: Creation<'_>) -> Result<InodeRef, Errno> {
        let (directory, last) = self.split(path)?;
        directory.create(&self.caller(), &last, &what)
    }

    pub fn mkdir(&self, path: &str) -> Result<(), Errno> {
        self.create(path, Creation::Directory { mode: 0o755 }).map(drop)
    }

    pub fn symlink(&self, target: &str, path: &str) -> Result<(), Errno> {
        self.create(path, Creation::Symlink { target: target.as_bytes() }).map(drop)
    }

    pub fn rm(&self, path: &str) -> Result<(), Errno> {
        let (directory, last) = self.split(path)?;
        directory.remove(&self.caller(), &last, RemoveKind::File)
    }

    pub fn rmdir(&self, path: &str) -> Result<(), Errno> {
        let (directory, last) = self.split(path)?;
        directory.remove(&self.caller(), &last, RemoveKind::Directory)
    }

    /// As `rm -r` does.
    pub fn rm_r(&self, path: &str) -> Result<(), Errno> {
        if self.find(path)?.kind()? != FileKind::Directory {
            return self.rm(path);
        }
        for entry in self.find(path)?.read_dir()? {
            self.rm_r(&format!("{path}/{}", String::from_utf8(entry.name.to_vec()).unwrap()))?;
        }
        self.rmdir(path)
    }

    pub fn rename(&self, old: &str, new: &str, flags: RenameFlags) -> Result<(), Errno> {
        let (directory, last) = self.split(old)?;
        let (new_directory, new_last) = self.split(new)?;
        directory.rename(&self.caller(), &last, &new_directory, &new_last, flags)
    }

    pub fn mv(&self, old: &str, new: &str) -> Result<(), Errno> {
        self.rename(old, new, RenameFlags::empty())
    }

    pub fn link(&self, old: &str, new: &str) -> Result<(), Errno> {
        let target = self.find(old)?;
        let (directory, last) = self.split(new)?;
        directory.link(&self.caller(), &last, &target)
    }

    pub fn set(&self, path: &str, change: SetAttr) -> Result<(), Errno> {
        self.find(path)?.set_attr(&self.caller(), &change)
    }

    pub fn chmod(&self, path: &str, mode: u32) -> Result<(), Errno> {
        self.set(path, SetAttr { mode: Some(mode), ..SetAttr::default() })
    }

    pub fn exists(&self, path: &str) -> bool {
        match self.find(path) {
            Ok(_) => true,
            Err(Errno::NOENT | Errno::NOTDIR) => false,
            Err(errno) => panic!("{path}: {errno}"),
        }
    }

    /// The sorted names of a directory; what is listed exists, once, with the number that stat gives.
    pub fn ls(&self, path: &str) -> Result<Vec<String>, Errno> {
        let directory = self.find(path)?;
        let mut names = Vec::new();
        for entry in directory.read_dir()? {
            let inode = directory.lookup(&Name::new(&entry.name).unwrap()).unwrap();
            let stat = inode.stat().unwrap();
            let label = String::from_utf8(entry.name.to_vec()).unwrap();
            assert_eq!(entry.ino, stat.ino, "d_ino of {label}");
            names.push(label);
        }
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a name is listed twice: {names:?}");
        Ok(names)
    }
}

/// The metadata of an open file.
pub fn fd_stat(tree: &Tree, file: &std::fs::File) -> Stat {
    tree.filesystem.stat_open(file.as_fd()).unwrap()
}
