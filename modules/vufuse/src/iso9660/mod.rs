//! iso9660, read-only: with the names, owners and links of Rock Ridge where there are any, else with the names of Joliet,
//! else as DOS would have them. Files compressed by mkzftree(1) are unpacked. A reader of our own, as the libraries that
//! were tried read paths, and not objects.

mod file;
mod record;
#[cfg(test)]
mod tests;
mod volume;

use std::sync::Arc;

use umvu_driver::{Driver, Found, NodeId, OpenFile, Told, FOREVER, ROOT};
use umvu_interface::{Caller, DirEntry, Errno, FileKind, FsStat, Name, OFlags, Result, Stat};

use crate::image::Image;
use crate::owner::Owner;
use crate::recent::Recent;

use self::file::{Packed, Piece, Plain};
use self::record::{skip_of, Record, RockRidge, DIRECTORY, GOES_ON, HIDDEN};
use self::volume::{Names, Volume, Volumes};

/// What statfs(2) says.
const MAGIC: u64 = 0x9660;
/// Most bytes of a directory.
const LONGEST: u64 = 64 << 20;
/// Directories whose entries are kept.
const KEPT: usize = 64;

/// Which names are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Those of Rock Ridge, if there are any (`norock`).
    pub rock_ridge: bool,
    /// Those of Joliet, if there are any (`nojoliet`).
    pub joliet: bool,
}

/// An iso9660. A node is the place of a record in the image; that of a directory the place of its first record.
pub struct Iso {
    image: Arc<Image>,
    volume: Volume,
    root: Record,
    /// Bytes to pass over before what Rock Ridge says, if it says something.
    rock_ridge: Option<usize>,
    owner: Owner,
    directories: Recent<Vec<Entry>>,
}

/// An entry of a directory.
struct Entry {
    name: Vec<u8>,
    node: NodeId,
    kind: FileKind,
}

/// An object: its record, what Rock Ridge says of it, and the pieces of its content.
struct Object {
    record: Record,
    rock: Option<RockRidge>,
    pieces: Vec<Piece>,
}

impl Iso {
    /// Opens an image.
    ///
    /// # Errors
    /// - `EINVAL`: it is no iso9660.
    /// - `EUCLEAN`: it is damaged.
    pub fn open(image: Arc<Image>, wanted: Wanted, owner: Owner) -> Result<Arc<Self>> {
        let Volumes { primary, joliet } = Volumes::read(&image)?;
        let root = |volume: &Volume| {
            let record = Record::parse(0, &volume.root).filter(|record| record.flags & DIRECTORY != 0);
            record.ok_or_else(|| image.damaged("a root that is no directory"))
        };
        let primary_root = root(&primary)?;
        let first = first_record(&image, &primary, &primary_root)?;
        let rock_ridge = skip_of(&first.system).filter(|_| wanted.rock_ridge);
        let (volume, root) = match (rock_ridge, joliet.filter(|_| wanted.joliet)) {
            (None, Some(joliet)) => {
                let root = root(&joliet)?;
                (joliet, root)
            }
            _ => (primary, primary_root),
        };
        let directories = Recent::new(KEPT);
        Ok(Arc::new(Self { image, volume, root, rock_ridge, owner, directories }))
    }

    fn rock(&self, record: &Record) -> Result<Option<RockRidge>> {
        let read = |skip| RockRidge::read(&self.image, self.volume.block_size, record, skip);
        self.rock_ridge.map(read).transpose()
    }

    /// The place of the first record of a directory.
    fn place(&self, extent: u32) -> NodeId {
        u64::from(extent) * self.volume.block_size
    }

    fn piece(&self, record: &Record) -> Piece {
        Piece { at: self.place(record.extent), length: record.size.into() }
    }

    /// Reads the record of a node.
    fn record_at(&self, at: u64) -> Result<Record> {
        let mut length = [0];
        self.image.read(at, &mut length)?;
        let bytes = self.image.read_piece(at, length[0].into(), 255)?;
        Record::parse(at, &bytes).ok_or_else(|| self.image.damaged(format_args!("a record at {at} that is none")))
    }

    fn object(&self, node: NodeId) -> Result<Object> {
        let record = if node == ROOT { self.record_at(self.place(self.root.extent))? } else { self.record_at(node)? };
        let mut pieces = vec![self.piece(&record)];
        let (mut last, mut at) = (record.clone(), record.at);
        // The records of one file follow each other.
        while last.flags & GOES_ON != 0 {
            at = self.behind(at)?;
            last = self.record_at(at)?;
            if last.name != record.name || pieces.len() > 1024 {
                return Err(self.image.damaged("a file in pieces, of which some are missing"));
            }
            pieces.push(self.piece(&last));
        }
        let rock = self.rock(&record)?;
        Ok(Object { record, rock, pieces })
    }

    /// The place of the record behind one; records do not cross sectors.
    fn behind(&self, at: u64) -> Result<u64> {
        let mut length = [0];
        self.image.read(at, &mut length)?;
        let next = at.saturating_add(length[0].into());
        let left = volume::SECTOR - next % volume::SECTOR;
        let mut length = [0];
        if left < 34 || {
            self.image.read(next, &mut length)?;
            length[0] == 0
        } {
            return Ok(next.saturating_add(left));
        }
        Ok(next)
    }

    fn entries(&self, node: NodeId) -> Result<Arc<Vec<Entry>>> {
        self.directories.get(node, || {
            let Object { record, .. } = self.object(node)?;
            if record.flags & DIRECTORY == 0 {
                return Err(Errno::NOTDIR);
            }
            let place = self.place(record.extent);
            let size = u64::from(record.size);
            if size > LONGEST || place.saturating_add(size) > self.image.size() {
                return Err(self.image.damaged(format_args!("a directory of {size} bytes at {place}")));
            }
            let mut entries = Vec::new();
            for start in (0..size).step_by(2048) {
                let sector = self.image.read_piece(place + start, (size - start).min(volume::SECTOR), 2048)?;
                self.sector(place + start, &sector, &mut entries)?;
            }
            Ok(Arc::new(entries))
        })
    }

    /// Reads the records of a sector.
    fn sector(&self, at: u64, sector: &[u8], entries: &mut Vec<Entry>) -> Result<()> {
        let mut offset = 0;
        while let Some(length) = sector.get(offset).copied().filter(|length| *length != 0) {
            let at = at + offset as u64;
            let bytes = sector.get(offset..offset + usize::from(length));
            let record = bytes.and_then(|bytes| Record::parse(at, bytes));
            let record = record.ok_or_else(|| self.image.damaged(format_args!("a record at {at} that is none")))?;
            offset += usize::from(length);
            let is_dot = matches!(record.name[..], [0 | 1]);
            // fs/isofs/dir.c: associated files are not shown; hidden ones are not without the option.
            if is_dot || record.flags & (HIDDEN | 4) != 0 {
                continue;
            }
            let rock = self.rock(&record)?;
            if rock.as_ref().is_some_and(|rock| rock.is_relocated) {
                continue;
            }
            let name = match &rock {
                Some(RockRidge { name: Some(name), .. }) => name.clone(),
                _ => self.plain_name(&record.name),
            };
            if Name::new(&name).is_err() {
                self.image.log(&format_args!("a name that is none, at {at}"));
                continue;
            }
            // A file in pieces has a record for each.
            if entries.last().is_some_and(|last| last.name == name) && record.name == self.name_before(entries)? {
                continue;
            }
            let child = rock.as_ref().and_then(|rock| rock.child);
            let kind = self.kind(&record, rock.as_ref());
            let node = match (kind, child) {
                (_, Some(child)) => self.place(child),
                (FileKind::Directory, None) => self.place(record.extent),
                _ => at,
            };
            let kind = if child.is_some() { FileKind::Directory } else { kind };
            entries.push(Entry { name, node, kind });
        }
        Ok(())
    }

    /// The name in the record of the last entry, if that goes on.
    fn name_before(&self, entries: &[Entry]) -> Result<Vec<u8>> {
        match entries.last() {
            Some(Entry { node, kind: FileKind::Regular, .. }) => {
                let record = self.record_at(*node)?;
                Ok(if record.flags & GOES_ON != 0 { record.name } else { Vec::new() })
            }
            _ => Ok(Vec::new()),
        }
    }

    fn kind(&self, record: &Record, rock: Option<&RockRidge>) -> FileKind {
        let plain = if record.flags & DIRECTORY != 0 { FileKind::Directory } else { FileKind::Regular };
        let said = rock.and_then(|rock| rock.mode).and_then(FileKind::from_mode);
        // What holds entries is a directory, whatever else is said of it.
        match said {
            Some(said) if (said == FileKind::Directory) == (plain == FileKind::Directory) => said,
            _ => plain,
        }
    }

    /// A name as it is shown without Rock Ridge: `isofs_name_translate` of `fs/isofs/dir.c`, and `fs/isofs/joliet.c`.
    fn plain_name(&self, name: &[u8]) -> Vec<u8> {
        let mut shown = match self.volume.names {
            Names::Joliet => {
                let units = name.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
                let text: String = char::decode_utf16(units).map(|unit| unit.unwrap_or('?')).collect();
                text.replace('/', "_").into_bytes()
            }
            Names::Plain => {
                name.iter().map(|byte| if *byte == b'/' { b'_' } else { byte.to_ascii_lowercase() }).collect()
            }
        };
        if shown.ends_with(b";1") {
            shown.truncate(shown.len() - 2);
        }
        if shown.ends_with(b".") && shown.len() > 1 {
            shown.pop();
        }
        shown
    }

    fn ino(&self, node: NodeId) -> u64 {
        // fs/isofs/isofs.h, isofs_get_ino
        let place = if node == ROOT { self.place(self.root.extent) } else { node };
        place >> 5
    }

    fn told(&self, node: NodeId) -> Result<Told> {
        let object = self.object(node)?;
        let kind = self.kind(&object.record, object.rock.as_ref());
        let plain: u64 = object.pieces.iter().fold(0, |sum, piece| sum.saturating_add(piece.length));
        let time = object.record.time;
        let mut stat = Stat {
            ino: self.ino(node),
            mode: kind.bits() | if kind == FileKind::Directory { 0o555 } else { 0o444 },
            nlink: 1,
            size: plain,
            blksize: 2048,
            blocks: plain.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            ..Stat::default()
        };
        match object.rock {
            Some(rock) if rock.mode.is_some() => {
                stat.mode = kind.bits() | (rock.mode.unwrap_or(0) & 0o7777);
                (stat.nlink, stat.uid, stat.gid) = (rock.links, rock.uid, rock.gid);
                stat.mtime = rock.mtime.unwrap_or(time);
                stat.atime = rock.atime.unwrap_or(stat.mtime);
                stat.ctime = rock.ctime.unwrap_or(stat.mtime);
                stat.btime = rock.creation;
                match kind {
                    FileKind::CharDevice | FileKind::BlockDevice => stat.rdev = rock.rdev,
                    FileKind::Symlink => stat.size = rock.target.map_or(0, |target| target.len() as u64),
                    FileKind::Regular => stat.size = rock.zisofs.map_or(plain, |(_, _, size)| size.into()),
                    _ => {}
                }
                self.owner.override_owner(&mut stat);
            }
            _ => self.owner.apply(&mut stat),
        }
        Ok(Told { stat, valid: FOREVER })
    }
}

/// Reads the first record of a directory.
fn first_record(image: &Image, volume: &Volume, root: &Record) -> Result<Record> {
    let at = u64::from(root.extent) * volume.block_size;
    let bytes = image.read_piece(at, 255, 255)?;
    Record::parse(at, &bytes).ok_or_else(|| image.damaged("a root without records"))
}

impl Driver for Iso {
    fn lookup(&self, _: &Caller<'_>, directory: NodeId, name: &Name) -> Result<Found> {
        let entries = self.entries(directory)?;
        let entry = entries.iter().find(|entry| entry.name == name.as_bytes()).ok_or(Errno::NOENT)?;
        let node = if entry.node == self.place(self.root.extent) { ROOT } else { entry.node };
        Ok(Found { node, generation: 0, told: self.told(node)?, name_valid: FOREVER })
    }

    fn stat(&self, _: &Caller<'_>, node: NodeId) -> Result<Told> {
        self.told(node)
    }

    fn readlink(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<u8>> {
        let Object { record, rock, .. } = self.object(node)?;
        if self.kind(&record, rock.as_ref()) != FileKind::Symlink {
            return Err(Errno::INVAL);
        }
        rock.and_then(|rock| rock.target).ok_or_else(|| self.image.damaged("a symbolic link without a target"))
    }

    fn read_dir(&self, _: &Caller<'_>, node: NodeId) -> Result<Vec<DirEntry>> {
        let entry = |entry: &Entry| DirEntry {
            name: entry.name.clone().into(),
            ino: self.ino(entry.node),
            dirent_type: entry.kind.dirent_type(),
        };
        Ok(self.entries(node)?.iter().map(entry).collect())
    }

    fn open(&self, _: &Caller<'_>, node: NodeId, _: OFlags) -> Result<Box<dyn OpenFile>> {
        let Object { record, rock, pieces } = self.object(node)?;
        match self.kind(&record, rock.as_ref()) {
            FileKind::Regular => {}
            FileKind::Directory => return Err(Errno::ISDIR),
            _ => return Err(Errno::INVAL),
        }
        if record.is_interleaved {
            self.image.log(&"a file that is interleaved, which is not supported");
            return Err(Errno::OPNOTSUPP);
        }
        let plain = Plain { image: self.image.clone(), pieces };
        if plain.pieces.iter().any(|piece| piece.at.saturating_add(piece.length) > self.image.size()) {
            return Err(self.image.damaged(format_args!("a file of {} bytes that is not all there", plain.size())));
        }
        match rock.and_then(|rock| rock.zisofs) {
            Some((_, _, size)) => Ok(match Packed::open(plain, size)? {
                Ok(packed) => Box::new(packed),
                Err(plain) => Box::new(plain),
            }),
            None => Ok(Box::new(plain)),
        }
    }

    fn statfs(&self, _: &Caller<'_>) -> Result<FsStat> {
        Ok(FsStat {
            magic: MAGIC,
            block_size: self.volume.block_size,
            fragment_size: self.volume.block_size,
            blocks: self.volume.blocks,
            name_max: 255,
            ..FsStat::default()
        })
    }
}
