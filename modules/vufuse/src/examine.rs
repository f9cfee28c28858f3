//! Reads what an image shows, as far as that is sensible: for tests and fuzzers of the drivers. Knows no format.

use std::sync::Arc;

use umvu_driver::{Driver, Storage, ROOT};
use umvu_interface::{Caller, Capabilities, Credentials, FileKind, Ids, Name, OFlags, Origin, Result};

use crate::erofs::Erofs;
use crate::ext::{Ext, Mode};
use crate::fat::Fat;
use crate::format::{tell, Format, Told};
use crate::image::Image;
use crate::iso9660::{Iso, Wanted};
use crate::owner::Owner;
use crate::squashfs::Squashfs;

/// Objects that are looked at.
const MOST: usize = 300;

/// Opens what a storage holds by the driver for it, and reads it; panics are the caller's to see.
///
/// # Errors
/// Why it cannot be opened.
pub fn examine(storage: Arc<dyn Storage>) -> Result<()> {
    let image = Arc::new(Image::new(storage, "examined"));
    image.begin_call();
    let Told::Known(format) = tell(&image)? else { return Ok(()) };
    let is_read_only = image.is_read_only();
    let driver: Arc<dyn Driver> = match format {
        Format::Squashfs => Squashfs::open(image.clone())?,
        Format::Iso9660 => Iso::open(image.clone(), Wanted { rock_ridge: true, joliet: true }, Owner::default())?,
        Format::Erofs => Erofs::open(image.clone())?,
        Format::Fat => Fat::open(image.clone(), Owner::default())?,
        Format::Ext => {
            let mode = if is_read_only { Mode::NoReplay } else { Mode::ReadWrite };
            Ext::open(image.clone(), mode).map_err(|(errno, _)| errno)?
        }
    };
    image.begin_call();
    read_all(&*driver);
    Ok(())
}

/// Calls with all capabilities, as a user and a group.
pub(crate) fn call_as<T>(user: u32, group: u32, body: impl FnOnce(&Caller<'_>) -> T) -> T {
    let credentials = Credentials {
        uid: Ids::all(user),
        gid: Ids::all(group),
        groups: Arc::new([]),
        capabilities: Capabilities::full(),
        securebits: 0,
        origin: Origin::Faked,
        namespace: None,
    };
    body(&Caller { tid: 1, credentials: &credentials, umask: 0o022 })
}

fn who<T>(body: impl FnOnce(&Caller<'_>) -> T) -> T {
    call_as(0, 0, body)
}

/// Reads all that a driver shows, as far as that is sensible; panics are told by the driver that is used up.
pub(crate) fn read_all(driver: &dyn Driver) {
    let mut left = vec![(ROOT, 0)];
    let mut seen = 0;
    while let Some((node, depth)) = left.pop() {
        seen += 1;
        if seen > MOST || depth > 12 {
            break;
        }
        let Ok(told) = who(|who| driver.stat(who, node)) else { continue };
        for name in who(|who| driver.list_xattr(who, node)).unwrap_or_default() {
            let _ = who(|who| driver.get_xattr(who, node, &name));
        }
        match told.stat.kind() {
            FileKind::Directory => {
                for entry in who(|who| driver.read_dir(who, node)).unwrap_or_default().iter().take(50) {
                    let Ok(name) = Name::new(&entry.name) else { continue };
                    if let Ok(found) = who(|who| driver.lookup(who, node, &name)) {
                        left.push((found.node, depth + 1));
                    }
                }
            }
            FileKind::Regular => {
                let Ok(file) = who(|who| driver.open(who, node, OFlags::RDONLY)) else { continue };
                let mut buffer = vec![0; 65_536];
                for offset in [0, 65_536, told.stat.size / 2, told.stat.size.saturating_sub(10)] {
                    let _ = file.read_at(offset, &mut buffer);
                    let _ = file.contents_at(offset.min(told.stat.size.saturating_sub(1)));
                }
            }
            FileKind::Symlink => drop(who(|who| driver.readlink(who, node))),
            _ => {}
        }
    }
    let _ = who(|who| driver.statfs(who));
}
