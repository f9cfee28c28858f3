//! tmpfs in a view: a private directory of the host that goes when the mount goes. Knows nothing of mounts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use umvu_host::HostFs;
use umvu_interface::{Errno, Filesystem, FsStat, Inode, InodeRef, MountError, Result, SetAttr, Stat};

use crate::call::Call;

/// A mounted tmpfs.
pub struct TmpFs {
    tree: Arc<HostFs>,
    directory: PathBuf,
    size: Mutex<Option<u64>>,
}

/// `TMPFS_MAGIC`.
const MAGIC: u64 = 0x0102_1994;

impl TmpFs {
    /// Makes one with the options of tmpfs(5) that have a meaning here: `mode=`, `uid=`, `gid=`, `size=` (shown,
    /// not enforced); those about memory policy and inodes are accepted.
    ///
    /// # Errors
    /// - `EINVAL`: an unknown option, or a value that is no number.
    pub fn new(call: &Call, options: &[Vec<u8>], device: u64) -> core::result::Result<Arc<Self>, MountError> {
        let (mut attributes, size) = parse(options)?;
        attributes.mode = attributes.mode.or(Some(0o1777));
        let host = |errno: Errno| MountError::new(errno, format!("tmpfs: {}", umvu_interface::cause(errno)));
        let (fd, directory) = call.supervisor.placeholders.make_directory().map_err(host)?;
        let store = call.credentials().is_faked().then(|| Arc::new(umvu_ownership::Store::in_memory()));
        let fs = Arc::new(Self { tree: HostFs::new(fd, store, Some(device)), directory, size: Mutex::new(size) });
        call.as_caller(|caller| {
            if caller.credentials.is_faked() {
                attributes.uid = attributes.uid.or(Some(caller.credentials.uid.fs));
                attributes.gid = attributes.gid.or(Some(caller.credentials.gid.fs));
            }
            fs.tree.root_inode().set_attr(caller, &attributes)
        })
        .map_err(host)?;
        Ok(fs)
    }
}

/// Reads the options: attributes of the root, and the size.
fn parse(options: &[Vec<u8>]) -> core::result::Result<(SetAttr, Option<u64>), MountError> {
    let mut attributes = SetAttr::default();
    let mut size = None;
    for option in options {
        let (name, value) = match option.iter().position(|b| *b == b'=') {
            Some(at) => (&option[..at], std::str::from_utf8(&option[at + 1..]).ok()),
            None => (&option[..], None),
        };
        let bad = || MountError::new(Errno::INVAL, format!("tmpfs: bad option '{}'", option.escape_ascii()));
        let number = |radix| value.and_then(|v| u32::from_str_radix(v, radix).ok()).ok_or_else(bad);
        match name {
            b"mode" => attributes.mode = Some(number(8)? & 0o7777),
            b"uid" => attributes.uid = Some(number(10)?),
            b"gid" => attributes.gid = Some(number(10)?),
            b"size" => size = Some(value.and_then(parse_size).ok_or_else(bad)?),
            b"nr_inodes" | b"nr_blocks" | b"huge" | b"mpol" | b"inode64" | b"inode32" | b"noswap" => {}
            _ => return Err(bad()),
        }
    }
    Ok((attributes, size))
}

/// A size as tmpfs takes it: bytes, with `k`, `m`, `g`, `t`, `p`, `e`, or a percentage of the memory.
fn parse_size(text: &str) -> Option<u64> {
    if let Some(percent) = text.strip_suffix('%') {
        let total = rustix::system::sysinfo().totalram;
        return percent.parse::<u64>().ok()?.checked_mul(total)?.checked_div(100);
    }
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..at].parse().ok()?;
    let suffix = text[at..].to_ascii_lowercase();
    let power = ["", "k", "m", "g", "t", "p", "e"].iter().position(|s| *s == suffix)?;
    number.checked_mul(1u64 << (10 * power))
}

impl Drop for TmpFs {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, directory = ?self.directory, "private directory not removed");
        }
    }
}

impl Filesystem for TmpFs {
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn root(&self) -> InodeRef {
        self.tree.root_inode()
    }

    fn statfs(&self, inode: &dyn Inode) -> Result<FsStat> {
        let mut numbers = self.tree.statfs(inode)?;
        numbers.magic = MAGIC;
        // Without a size it is half of the memory, as for shmem_fill_super of mm/shmem.c.
        let size = self.size.lock().unwrap_or_else(|| rustix::system::sysinfo().totalram / 2);
        let block = numbers.block_size.max(1);
        numbers.blocks = size / block;
        numbers.blocks_free = numbers.blocks_free.min(numbers.blocks);
        numbers.blocks_available = numbers.blocks_available.min(numbers.blocks);
        Ok(numbers)
    }

    fn options(&self) -> Vec<u8> {
        self.size.lock().map(|s| format!("size={}k", s >> 10).into_bytes()).unwrap_or_default()
    }

    fn reconfigure(&self, options: &[Vec<u8>]) -> core::result::Result<(), MountError> {
        // Owner and mode are those of the first mount: shmem_reconfigure of mm/shmem.c.
        if let (_, Some(size)) = parse(options)? {
            *self.size.lock() = Some(size);
        }
        Ok(())
    }

    fn path_of_host(&self, host_path: &[u8]) -> Option<Vec<u8>> {
        self.tree.path_of_host(host_path)
    }

    fn is_own_host_path(&self, host_path: &[u8]) -> bool {
        self.tree.path_of_host(host_path).is_some()
    }

    fn stat_open(&self, host: BorrowedFd<'_>) -> Result<Stat> {
        self.tree.stat_open(host)
    }

    fn inode_of_open(&self, host: OwnedFd) -> Result<InodeRef> {
        let path = crate::guest::proc_path(host.as_fd());
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        Ok(self.tree.inode(fd))
    }

    fn fake_ownership(&self) {
        self.tree.fake_ownership();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_suffixes() {
        assert_eq!(parse_size("64k"), Some(65536));
        assert_eq!(parse_size("1G"), Some(1 << 30));
        assert_eq!(parse_size("1x"), None);
        assert!(parse_size("50%").is_some_and(|s| s > 0));
    }
}
