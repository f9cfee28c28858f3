//! From a file or directory to the tree in it: finds out what it is, unpacks it where it must, reads all headers.
//! Knows no mounts.

use std::fs::File;
use std::path::Path;

use umvu_interface::{Errno, MountError};

use crate::cache;
use crate::compressed::unpacked;
use crate::entry::{unreadable, Object, Result};
use crate::format::Format;
use crate::image::{self, Config, Files, Image};
use crate::source::Source;
use crate::tree::{Marks, NodeId, Tree, What, ROOT};
use crate::{cpio, tar, zip};

/// Most bytes that a compressed file may unpack to, if nothing else is said: 32 GiB.
pub const LIMIT: u64 = 32 << 30;
/// Most archives one behind the other, each compressed.
const PARTS_MAX: usize = 64;

/// What is taken for what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An image if it is one, an archive otherwise.
    Any,
    /// An archive of one format, also if it is that of an image.
    Archive(Format),
    /// An image and nothing else.
    Image,
}

/// What is wanted of a source.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// What messages call it.
    pub name: String,
    /// As what.
    pub form: Form,
    /// Which image, where there are several.
    pub tag: Option<String>,
    /// Most bytes that a compressed part may unpack to.
    pub limit: u64,
    /// User and group that have what tells no owner.
    pub owner: (u32, u32),
}

/// What a source holds.
#[derive(Debug)]
pub struct Contents {
    /// The objects.
    pub tree: Tree,
    /// Where the contents of files are, by the number of the layer.
    pub layers: Vec<Source>,
    /// The format; none for an image.
    pub format: Option<Format>,
    /// What an image says of how it is to be run.
    pub config: Option<Config>,
}

/// Reads a file.
///
/// # Errors
/// - `EINVAL`: neither an archive nor an image
/// - those of its parts
pub fn of_file(file: File, wanted: &Wanted) -> Result<Contents> {
    let source = Source::whole(file).map_err(|error| unreadable(&wanted.name, &error))?;
    let source = unpacked(source, &wanted.name, wanted.limit)?;
    let format = match wanted.form {
        Form::Archive(format) => format,
        Form::Any => Format::of(&source, &wanted.name)?,
        Form::Image => Format::Tar,
    };
    let archive = archive(source, format, wanted)?;
    if matches!(wanted.form, Form::Archive(_)) || format != Format::Tar {
        return Ok(archive);
    }
    match image::read(&archive, &wanted.name, wanted.tag.as_deref())? {
        Some(image) => of_image(image, wanted),
        None if wanted.form == Form::Image => Err(no_image(wanted)),
        None => Ok(archive),
    }
}

/// Reads a directory, which holds an image.
///
/// # Errors
/// - `EINVAL`: it does not
/// - those of the image
pub fn of_directory(files: &dyn Files, wanted: &Wanted) -> Result<Contents> {
    match image::read(files, &wanted.name, wanted.tag.as_deref())? {
        Some(image) => of_image(image, wanted),
        None => Err(no_image(wanted)),
    }
}

/// Whether a directory of the host is the layout of an image, and no tree of files.
pub fn is_layout(directory: &Path) -> bool {
    directory.join("oci-layout").is_file() && directory.join("index.json").is_file()
}

/// Reads what an image, or an archive that may be one, says of how it is to be run; all of it is read for that. None
/// for an archive.
///
/// # Errors
/// Those of [`of_file`] and [`of_directory`].
pub fn config_of(path: &Path, wanted: &Wanted) -> Result<Option<Config>> {
    let failed = |error: std::io::Error| unreadable(&wanted.name, &error);
    if path.is_dir() {
        return Ok(of_directory(&HostDirectory { path, name: &wanted.name }, wanted)?.config);
    }
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(MountError::new(Errno::INVAL, format!("{}: neither a file nor a directory", wanted.name)));
    }
    Ok(of_file(file, wanted)?.config)
}

/// Reads an archive, and all that it unpacks to: for fuzzers.
///
/// # Errors
/// Those of [`of_file`].
pub fn examine(file: File, wanted: &Wanted) -> Result<()> {
    let contents = of_file(file, wanted)?;
    for id in 0..contents.tree.len() {
        let node = NodeId::try_from(id).ok().and_then(|id| contents.tree.node(id));
        let Some(What::Regular { layer, size, data: crate::entry::Data::Packed(packed) }) = node.map(|node| &node.what)
        else {
            continue;
        };
        if let Some(layer) = usize::try_from(*layer).ok().and_then(|layer| contents.layers.get(layer)) {
            if *size <= wanted.limit {
                let _ = packed.unpack(layer, &mut std::io::sink());
            }
        }
    }
    Ok(())
}

fn no_image(wanted: &Wanted) -> MountError {
    MountError::new(Errno::INVAL, format!("{}: not the image of a container", wanted.name))
}

fn archive(source: Source, format: Format, wanted: &Wanted) -> Result<Contents> {
    let mut tree = Tree::default();
    let mut layers = Vec::new();
    let name = &wanted.name;
    let take = |tree: &mut Tree, entry| tree.add(name, entry, Marks::None);
    match format {
        Format::Tar => tar::read(&source, name, &mut |entry| take(&mut tree, entry))?,
        Format::Zip => zip::read(&source, name, wanted.owner, &mut |entry| take(&mut tree, entry))?,
        Format::Cpio => {
            let mut part = source.clone();
            while let Some(at) = cpio::read(&part, name, &mut |entry| take(&mut tree, entry))? {
                let Some(next) = part_behind(&part, at, wanted)?.filter(|_| layers.len() < PARTS_MAX) else { break };
                layers.push(std::mem::replace(&mut part, next));
                tree.next_layer();
            }
            layers.push(part);
        }
    }
    if layers.is_empty() {
        layers.push(source);
    }
    tree.finish();
    Ok(Contents { tree, layers, format: Some(format), config: None })
}

/// What follows an archive of an initramfs, unpacked: Documentation/driver-api/early-userspace/buffer-format.rst.
fn part_behind(source: &Source, at: u64, wanted: &Wanted) -> Result<Option<Source>> {
    let Some(rest) = source.length().checked_sub(at).and_then(|length| source.part(at, length)) else {
        return Ok(None);
    };
    let rest = unpacked(rest, &wanted.name, wanted.limit)?;
    if Format::of(&rest, &wanted.name)? == Format::Cpio {
        return Ok(Some(rest));
    }
    tracing::warn!("{}: what follows the archive at byte {at} is none, and is left out", wanted.name);
    Ok(None)
}

fn of_image(image: Image, wanted: &Wanted) -> Result<Contents> {
    let mut tree = Tree::default();
    let mut layers = Vec::new();
    for image::Layer { name, source: packed, digest } in image.layers {
        let source = unpacked(packed.clone(), &name, wanted.limit)?;
        if let Some(digest) = digest {
            // What is unpacked is known by what it was unpacked from.
            digest.verify(&source, &packed, &name).inspect_err(|_| cache::forget(&packed))?;
        }
        if !layers.is_empty() {
            tree.next_layer();
        }
        tar::read(&source, &name, &mut |entry| tree.add(&name, entry, Marks::Oci))?;
        layers.push(source);
    }
    tree.finish();
    Ok(Contents { tree, layers, format: None, config: Some(image.config) })
}

impl Contents {
    /// Makes sure that something can be mounted at a path.
    ///
    /// # Errors
    /// What is on the way there is no directory.
    pub fn add_mount_point(&mut self, path: &[u8], what: Object) -> Result<()> {
        self.tree.add_mount_point(path, what)?;
        self.tree.finish();
        Ok(())
    }

    fn part(&self, id: NodeId) -> Option<Source> {
        let What::Regular { layer, size, data } = &self.tree.node(id)?.what else { return None };
        let crate::entry::Data::Whole(at) = data else { return None };
        self.layers.get(usize::try_from(*layer).ok()?)?.part(*at, *size)
    }
}

/// An archive holds the files of an image.
impl Files for Contents {
    fn open(&self, path: &str) -> Result<Option<Source>> {
        // `docker save` of old has symbolic links for layers that it has seen before.
        let found = self.tree.find(path.as_bytes()).filter(|id| *id != ROOT);
        Ok(found.and_then(|id| self.part(id)))
    }
}

/// A directory of the host, as whoever asks sees it.
struct HostDirectory<'a> {
    path: &'a Path,
    name: &'a str,
}

impl Files for HostDirectory<'_> {
    fn open(&self, path: &str) -> Result<Option<Source>> {
        // What manifests name is not trusted to stay inside.
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Ok(None);
        }
        match File::open(self.path.join(path)).and_then(Source::whole) {
            Ok(source) => Ok(Some(source)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&format!("{}/{path}", self.name), &error)),
        }
    }
}
