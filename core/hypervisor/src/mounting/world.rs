//! What a file system type may know of the view while one of its mounts is made. Knows no mount table.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use umvu_host::{HostFs, HostInode};
use umvu_interface::{Errno, HeldProgram, Hold, InodeRef, LayerUse, MountError, Result, World};
use umvu_ownership::Store;

use crate::call::{Call, Fail};
use crate::mounting::fail;
use crate::resolve::Last;

/// The view below a mount that is being made.
pub struct Below<'a> {
    /// The call that mounts.
    pub call: &'a Call,
}

/// Device numbers of file systems of views: major 0, minors the kernel is unlikely to have reached.
static DEVICES: AtomicU64 = AtomicU64::new(0);

impl World for Below<'_> {
    fn resolve(&self, path: &[u8]) -> Result<InodeRef> {
        Ok(self.call.object(libc::AT_FDCWD, path, Last::Follow)?.inode)
    }

    fn hold(&self, path: &[u8]) -> Result<(InodeRef, Hold)> {
        let place = self.call.object(libc::AT_FDCWD, path, Last::Follow)?;
        Ok((place.inode, place.mount.hold()))
    }

    fn layer(
        &self,
        directory: &InodeRef,
        use_: LayerUse,
        state: Option<&InodeRef>,
    ) -> core::result::Result<InodeRef, MountError> {
        let name = directory.path().unwrap_or_default();
        if directory.as_any().downcast_ref::<HostInode>().is_none() {
            return Ok(directory.clone());
        }
        let fd = directory.host_fd().ok_or_else(|| fail(&name, Errno::NOENT))?;
        let copy = rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(|errno| fail(&name, errno))?;
        let refused = |error: umvu_ownership::OpenError| {
            let errno = match &error {
                umvu_ownership::OpenError::Locked { .. } => Errno::BUSY,
                umvu_ownership::OpenError::ReadOnly { .. } => Errno::ROFS,
                _ => Errno::IO,
            };
            MountError::new(errno, error.to_string())
        };
        let store = match use_ {
            LayerUse::Upper => {
                let beside = state.and_then(|s| s.host_fd()).ok_or_else(|| fail(&name, Errno::INVAL))?;
                let beside = host_path(beside).map_err(|errno| fail(&name, errno))?;
                Some(Arc::new(open_store(copy.as_fd(), &beside).map_err(refused)?))
            }
            LayerUse::Lower => {
                let beside = state.and_then(|s| s.host_fd()).and_then(|fd| host_path(fd).ok());
                let store = Store::open_read_only(copy.as_fd(), beside.as_deref()).map_err(refused)?;
                (!store.is_empty_hint()).then(|| Arc::new(store))
            }
        };
        let fs = HostFs::new(copy, store, None);
        Ok(fs.root_inode())
    }

    fn is_inside(&self, inner: &InodeRef, outer: &InodeRef) -> bool {
        let Ok(outer) = outer.id() else { return false };
        let mut at = inner.clone();
        // Deeper than any path is long.
        for _ in 0..4096 {
            let Ok(id) = at.id() else { return false };
            if id == outer {
                return true;
            }
            match at.parent() {
                Ok(above) if above.id().is_ok_and(|a| a != id) => at = above,
                _ => return false,
            }
        }
        false
    }

    fn new_device(&self) -> u64 {
        let minor = 0xf_0000 + (DEVICES.fetch_add(1, Ordering::Relaxed) & 0xffff);
        rustix::fs::makedev(0, u32::try_from(minor).unwrap_or(0))
    }

    fn descriptor(&self, number: i32) -> Result<OwnedFd> {
        self.call.take_fd(number)
    }

    fn parting(&self) -> Arc<dyn umvu_interface::Parting> {
        crate::parting::Farewell::new(&self.call.supervisor)
    }

    fn hold_program(&self, path: &[u8]) -> Result<HeldProgram> {
        let place = self.call.object(libc::AT_FDCWD, path, Last::Follow)?;
        match crate::handlers::exec::may_execute(self.call, &place) {
            Ok(()) => Ok(HeldProgram(Arc::new(place))),
            Err(Fail::Errno(errno)) => Err(errno),
            Err(_) => Err(Errno::SRCH),
        }
    }
}

/// Opens the store of an upper layer. A view that is ending holds it for a moment longer than its front process
/// lives: that long is waited.
fn open_store(
    layer: BorrowedFd<'_>,
    beside: &std::path::Path,
) -> core::result::Result<Store, umvu_ownership::OpenError> {
    let deadline = Instant::now() + Duration::from_secs(1);
    loop {
        match Store::open(layer, beside) {
            Err(umvu_ownership::OpenError::Locked { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn host_path(fd: rustix::fd::BorrowedFd<'_>) -> Result<std::path::PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = rustix::fs::readlink(crate::guest::proc_path(fd), Vec::new())?.into_bytes();
    Ok(std::ffi::OsString::from_vec(bytes).into())
}
