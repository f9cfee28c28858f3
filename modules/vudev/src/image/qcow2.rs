//! Images of QEMU, versions 2 and 3. Their tables are read and kept by the library imago; here their headers are judged
//! first, and the images found that they stand on, in the view and not on the host.

use std::fs::File;
use std::os::unix::fs::FileExt;

use imago::file::File as HostFile;
use imago::raw::Raw;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder};
use parking_lot::RwLock;
use umvu_driver::{Behind, ImageFile, Storage, Use};
use umvu_interface::{Errno, Result};

use super::{io_errno, ImageError};

/// An open image.
pub struct Qcow2 {
    access: RwLock<FormatAccess<HostFile>>,
    behind: Behind,
    /// Those of the images below.
    _below: Vec<Behind>,
    use_: Use,
    size: u64,
}

/// Finds the file that an image stands on, by the name that the image tells and the path of the image: the file, opened
/// for reading, and its path.
pub type Find<'a> = dyn Fn(&[u8], &[u8]) -> core::result::Result<(ImageFile, Vec<u8>), ImageError> + 'a;

/// An image stands on another one at most so often.
const DEPTH_MOST: usize = 32;

/// What a header tells.
struct Header {
    backing: Option<Backing>,
}

/// The image below.
struct Backing {
    name: Vec<u8>,
    format: Option<Vec<u8>>,
}

impl Qcow2 {
    /// Opens an image at `path`; `find` finds those below.
    ///
    /// # Errors
    /// An [`ImageError`] that names what is wrong.
    pub fn open(image: ImageFile, path: &[u8], use_: Use, find: &Find<'_>) -> core::result::Result<Self, ImageError> {
        let ImageFile { file, behind } = image;
        let mut below = Vec::new();
        let access = open(file, path, use_, find, &mut below)?;
        let size = access.size();
        Ok(Self { access: RwLock::new(access), behind, _below: below, use_, size })
    }
}

fn open(
    file: File,
    path: &[u8],
    use_: Use,
    find: &Find<'_>,
    images: &mut Vec<Behind>,
) -> core::result::Result<FormatAccess<HostFile>, ImageError> {
    let header = read_header(&file)?;
    let backing = match &header.backing {
        Some(backing) => Some(below(backing, path, find, images)?),
        None => None,
    };
    let image = HostFile::try_from(file)?;
    let builder = imago::qcow2::Qcow2::<HostFile, FormatAccess<HostFile>>::builder(image);
    let builder = builder.write(use_ == Use::Write).backing(backing).data_file(None);
    Ok(FormatAccess::new(builder.open(DenyImplicitOpenGate::default())?))
}

/// Opens the image below, which is only read.
fn below(
    backing: &Backing,
    path: &[u8],
    find: &Find<'_>,
    images: &mut Vec<Behind>,
) -> core::result::Result<FormatAccess<HostFile>, ImageError> {
    let name = backing.name.escape_ascii().to_string();
    let wrong = |error: ImageError| ImageError::Backing { name: name.clone(), reason: error.to_string() };
    if images.len() >= DEPTH_MOST {
        return Err(wrong(ImageError::Damaged("it stands on itself".into())));
    }
    let mut open_it = || {
        let (ImageFile { file, behind }, path) = find(&backing.name, path)?;
        images.push(behind);
        let is_qcow2 = match backing.format.as_deref() {
            Some(b"qcow2") => true,
            Some(b"raw") => false,
            Some(other) => return Err(ImageError::Unsupported(format!("format '{}'", other.escape_ascii()))),
            None => has_magic(&file)?,
        };
        if is_qcow2 {
            return open(file, &path, Use::Read, find, images);
        }
        let raw = Raw::builder(HostFile::try_from(file)?).open(DenyImplicitOpenGate::default())?;
        Ok(FormatAccess::new(raw))
    };
    open_it().map_err(wrong)
}

fn has_magic(file: &File) -> core::result::Result<bool, ImageError> {
    let mut magic = [0; 4];
    Ok(file.metadata()?.len() >= 4 && file.read_exact_at(&mut magic, 0).map(|()| magic == MAGIC)?)
}

const MAGIC: [u8; 4] = *b"QFI\xfb";

/// Judges a header: `docs/interop/qcow2.rst` of QEMU.
fn read_header(file: &File) -> core::result::Result<Header, ImageError> {
    const DIRTY: u64 = 1;
    const CORRUPT: u64 = 2;
    const NAMES: [(u64, &str); 3] =
        [(4, "an external data file"), (8, "compression by zstd"), (16, "extended L2 entries")];
    /// As large as QEMU makes the first table at most.
    const FIRST_TABLE_MOST: u64 = 32 << 20;
    const REFCOUNT_TABLE_MOST: u64 = 8 << 20;
    let length = file.metadata()?.len();
    let mut bytes = [0; 104];
    let known = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    file.read_exact_at(&mut bytes[..known], 0)?;
    let half = |at: usize| bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
    let word = |at: usize| bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes);
    if known < 72 || bytes[..4] != MAGIC {
        return Err(ImageError::Foreign("qcow2"));
    }
    let version = half(4);
    if !matches!(version, 2 | 3) {
        return Err(ImageError::Unsupported(format!("version {version}")));
    }
    if half(32) != 0 {
        return Err(ImageError::Unsupported("encryption".into()));
    }
    let features = if version == 3 { word(72) } else { 0 };
    if let Some((_, name)) = NAMES.iter().find(|(bit, _)| features & bit != 0) {
        return Err(ImageError::Unsupported((*name).into()));
    }
    if features & !(DIRTY | CORRUPT) != 0 {
        return Err(ImageError::Unsupported(format!("feature {features:#x}")));
    }
    if features & (DIRTY | CORRUPT) != 0 {
        let how = if features & CORRUPT != 0 { "marked as corrupt" } else { "not closed when it was last written" };
        return Err(ImageError::Damaged(format!("{how} ('qemu-img check -r all' repairs it)")));
    }
    let damaged = |what: &str| Err(ImageError::Damaged(what.into()));
    let cluster_bits = half(20);
    if !(9..=21).contains(&cluster_bits) {
        return damaged("size of clusters");
    }
    let cluster = 1u64 << cluster_bits;
    if i64::try_from(word(24)).is_err() {
        return damaged("size of the disk");
    }
    let is_inside =
        |at: u64, size: u64| at.checked_add(size).is_some_and(|end| end <= length.next_multiple_of(cluster));
    let first_table = u64::from(half(36)) * 8;
    // One entry of it is one table of as many clusters as have place in a cluster.
    let needed = word(24).div_ceil(cluster * (cluster / 8)).saturating_mul(8);
    if first_table > FIRST_TABLE_MOST || first_table < needed || !is_inside(word(40), first_table) {
        return damaged("first table");
    }
    let refcounts = u64::from(half(56)) * cluster;
    if refcounts > REFCOUNT_TABLE_MOST || !is_inside(word(48), refcounts) {
        return damaged("table of reference counts");
    }
    if version == 3 && half(96) > 6 {
        return damaged("width of reference counts");
    }
    let (name_at, name_length) = (word(8), half(16));
    if name_at == 0 || name_length == 0 {
        return Ok(Header { backing: None });
    }
    if name_length > 1023 || name_at.checked_add(name_length.into()).is_none_or(|end| end > cluster.min(length)) {
        return damaged("name of the backing file");
    }
    let mut name = vec![0; usize::try_from(name_length).unwrap_or(0)];
    file.read_exact_at(&mut name, name_at)?;
    let header_length = if version == 3 { u64::from(half(100)) } else { 72 };
    let format = extension(file, header_length, name_at.min(length), BACKING_FORMAT)?;
    Ok(Header { backing: Some(Backing { name, format }) })
}

const BACKING_FORMAT: u32 = 0xe279_2aca;

/// Finds a header extension between two offsets.
fn extension(file: &File, from: u64, to: u64, wanted: u32) -> core::result::Result<Option<Vec<u8>>, ImageError> {
    let mut at = from;
    while at + 8 <= to {
        let mut head = [0; 8];
        file.read_exact_at(&mut head, at)?;
        let half = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
        let (kind, length) = (half(0), u64::from(half(4)));
        if kind == 0 || at + 8 + length > to {
            return Ok(None);
        }
        if kind == wanted && length < 64 {
            let mut value = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_exact_at(&mut value, at + 8)?;
            return Ok(Some(value));
        }
        at += 8 + length.next_multiple_of(8);
    }
    Ok(None)
}

impl Storage for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }

    fn is_read_only(&self) -> bool {
        self.use_ == Use::Read
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        offset.checked_add(buffer.len() as u64).filter(|end| *end <= self.size).ok_or(Errno::IO)?;
        self.access.read().read(buffer, offset).map_err(|error| io_errno(&error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        self.access.read().write(bytes, offset).map_err(|error| io_errno(&error))
    }

    fn flush(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        let access = self.access.read();
        access.flush().and_then(|()| access.sync()).map_err(|error| io_errno(&error))?;
        drop(access);
        self.behind.sync()
    }

    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        self.access.write().discard_to_any(offset, length).map_err(|error| io_errno(&error))
    }

    fn zero(&self, offset: u64, length: u64) -> Result<()> {
        if self.is_read_only() {
            return Err(Errno::ROFS);
        }
        self.access.read().write_zeroes(offset, length).map_err(|error| io_errno(&error))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The header of an image of 1 MiB, with its tables, as QEMU makes it.
    fn image() -> File {
        let fd = rustix::fs::memfd_create("qcow2", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        let mut header = [0; 104];
        header[..4].copy_from_slice(&MAGIC);
        let halves = [(4, 3u32), (20, 16), (36, 1), (56, 1), (96, 4), (100, 104)];
        halves.iter().for_each(|(at, value)| header[*at..at + 4].copy_from_slice(&value.to_be_bytes()));
        for (at, value) in [(24, 1u64 << 20), (40, 3 << 16), (48, 1 << 16)] {
            header[at..at + 8].copy_from_slice(&value.to_be_bytes());
        }
        file.write_all_at(&header, 0).unwrap();
        file.write_all_at(&(2u64 << 16).to_be_bytes(), 1 << 16).unwrap();
        (0..4).for_each(|n| file.write_all_at(&1u16.to_be_bytes(), (2 << 16) + 2 * n).unwrap());
        file.set_len(4 << 16).unwrap();
        file
    }

    fn open_it(file: &File, use_: Use) -> core::result::Result<Qcow2, ImageError> {
        let none = |_: &[u8], _: &[u8]| Err(ImageError::Host(Errno::NOENT));
        let image = ImageFile { file: file.try_clone().unwrap(), behind: Behind::nothing() };
        Qcow2::open(image, b"image", use_, &none)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let file = image();
        let first = open_it(&file, Use::Write).unwrap();
        first.write_at(100_000, b"some bytes").unwrap();
        first.flush().unwrap();
        let again = open_it(&file, Use::Read).unwrap();
        let mut bytes = [0; 12];
        again.read_at(99_999, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0some bytes\0");
        assert_eq!(again.read_at((1 << 20) - 1, &mut bytes), Err(Errno::IO));
        assert_eq!(again.write_at(0, b"x"), Err(Errno::ROFS));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let file = image();
        let said = |use_| open_it(&file, use_).err().map(|error| error.to_string()).unwrap_or_default();
        let feature = |bit: u64| file.write_all_at(&bit.to_be_bytes(), 72).unwrap();
        feature(4);
        assert_eq!(said(Use::Read), "an external data file is not supported");
        feature(1 << 40);
        assert_eq!(said(Use::Read), "feature 0x10000000000 is not supported");
        feature(1);
        assert!(said(Use::Write).starts_with("a damaged image: not closed when it was last written"));
        feature(0);
        file.write_all_at(&1u32.to_be_bytes(), 32).unwrap();
        assert_eq!(said(Use::Read), "encryption is not supported");
        file.write_all_at(b"QFI!", 0).unwrap();
        assert_eq!(said(Use::Read), "not a qcow2 image");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_header_is_too_much(fields in proptest::collection::vec((4u64..104, any::<u32>()), 1..4)) {
            let file = image();
            for (at, value) in fields {
                file.write_all_at(&value.to_be_bytes(), at).unwrap();
            }
            if let Ok(image) = open_it(&file, Use::Write) {
                let mut some = [0; 512];
                let _ = image.read_at(image.size().saturating_sub(512), &mut some);
                let _ = image.write_at(0, b"x");
            }
        }

        #[test]
        fn no_table_is_too_much(entries in proptest::collection::vec((0u64..512, any::<u64>()), 1..4)) {
            let file = image();
            for (at, value) in entries {
                // In the first table, and in those of reference counts.
                file.write_all_at(&value.to_be_bytes(), (1 << 16) + ((at % 3) << 16) + at / 3 % 4 * 8).unwrap();
            }
            if let Ok(image) = open_it(&file, Use::Write) {
                let mut some = [0; 512];
                let _ = image.read_at(0, &mut some);
                let _ = image.write_at(0, b"x");
            }
        }
    }
}
