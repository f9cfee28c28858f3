//! The formats, and how an image tells which one it is. Knows nothing of what is in them.

use umvu_interface::Result;

use crate::image::Image;
use crate::server::Foreign;

/// A format that there is a driver for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Ext,
    Squashfs,
    Iso9660,
    Fat,
    Erofs,
}

/// What an image is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// There is a driver.
    Known(Format),
    /// There is none, but this is what it is.
    Foreign(&'static str),
    /// There is none, but a program of others.
    Served(Foreign),
    /// Nothing that is known.
    Unknown,
}

/// Where a format has which bytes, and what it is called.
const FOREIGN: &[(u64, &[u8], &str)] = &[
    (0, b"XFSB", "an xfs"),
    (0x10040, b"_BHRfS_M", "a btrfs"),
    (0x400, b"\x10\x20\xf5\xf2", "an f2fs"),
    (0, b"LUKS\xba\xbe", "encrypted (LUKS)"),
    (0, b"QFI\xfb", "a disk in the format qcow2: vudev shows what is in it"),
    (0, b"KDMV", "a disk in the format VMDK: vudev shows what is in it"),
    (0, b"vhdxfile", "a disk in the format VHDX: vudev shows what is in it"),
    (0x40, b"\x7f\x10\xda\xbe", "a disk in the format VDI: vudev shows what is in it"),
    (4086, b"SWAPSPACE2", "swap space"),
];

/// The same of what programs of others serve.
const SERVED: &[(u64, &[u8], Foreign)] = &[(3, b"NTFS    ", Foreign::Ntfs), (3, b"EXFAT   ", Foreign::Exfat)];

/// Tells what an image is.
///
/// # Errors
/// Those of reading it.
pub fn tell(image: &Image) -> Result<Told> {
    let has = |at: u64, magic: &[u8]| -> Result<bool> {
        if at + magic.len() as u64 > image.size() {
            return Ok(false);
        }
        Ok(image.read_piece(at, magic.len() as u64, 64)? == magic)
    };
    // Those that say it plainly come first; the first sector of an iso9660 or an ext may look like a FAT's.
    if has(0, b"hsqs")? {
        return Ok(Told::Known(Format::Squashfs));
    }
    if has(1024, &0xe0f5_e1e2_u32.to_le_bytes())? {
        return Ok(Told::Known(Format::Erofs));
    }
    if has(1080, &[0x53, 0xef])? {
        return Ok(Told::Known(Format::Ext));
    }
    if has(32_769, b"CD001")? {
        return Ok(Told::Known(Format::Iso9660));
    }
    for (at, magic, foreign) in SERVED {
        if has(*at, magic)? {
            return Ok(Told::Served(*foreign));
        }
    }
    for (at, magic, name) in FOREIGN {
        if has(*at, magic)? {
            return Ok(Told::Foreign(name));
        }
    }
    if !has(510, &[0x55, 0xaa])? {
        return Ok(Told::Unknown);
    }
    let sector = image.read_piece(0, 512, 512)?;
    Ok(if crate::fat::is_boot_sector(&sector) {
        Told::Known(Format::Fat)
    } else {
        Told::Foreign("a disk with partitions: vudev shows them, and offset= finds one")
    })
}
