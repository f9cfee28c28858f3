//! Mounting: the options, and the source as the view has it. Knows nothing of formats.

use std::fs::File;

use umvu_interface::{
    cause, Errno, FileKind, InnerMounts, InodeRef, MountError, MountFlags, MountRequest, Mounted, Name, OFlags, World,
};

use crate::entry::{shown, unreadable, Data, Object, Result};
use crate::format::Format;
use crate::fs::ArchiveFs;
use crate::image::Files;
use crate::open::{of_directory, of_file, Form, Wanted, LIMIT};
use crate::source::Source;

/// What the options say.
struct Options {
    tag: Option<String>,
    limit: u64,
    /// What must be there to be mounted on.
    points: Vec<(Vec<u8>, Object)>,
}

/// Mounts a source, taken for what `form` says.
pub(crate) fn mount(request: &MountRequest<'_>, world: &dyn World, form: Form) -> Result<Mounted> {
    let Options { tag, limit, points } = parse(&request.options)?;
    let name = shown(request.source);
    let owner = (request.caller.credentials.uid.fs, request.caller.credentials.gid.fs);
    let wanted = Wanted { name: name.clone(), form, tag, limit, owner };
    let failed = |errno: Errno| MountError::new(errno, format!("{name}: {}", cause(errno)));
    let source = world.resolve(request.source).map_err(failed)?;
    let mut contents = match source.kind().map_err(failed)? {
        FileKind::Regular => of_file(open(&source, request).map_err(failed)?, &wanted)?,
        FileKind::Directory if !matches!(form, Form::Archive(_)) => of_directory(&InView { source, request }, &wanted)?,
        FileKind::Directory => return Err(failed(Errno::ISDIR)),
        _ => return Err(MountError::new(Errno::INVAL, format!("{name}: neither a file nor a directory"))),
    };
    for (path, what) in points {
        contents.add_mount_point(&path, what)?;
    }
    let is_point = |option: &&Vec<u8>| option.starts_with(b"dir=") || option.starts_with(b"file=");
    let shown: Vec<_> = request.options.iter().filter(|option| !is_point(option)).cloned().collect();
    // Who leaves the format to us is told what it is.
    let told = contents.format.filter(|_| request.fstype == b"auto").map(Format::name);
    let filesystem = ArchiveFs::new(contents, world.new_device(), shown.join(&b','), limit);
    Ok(Mounted {
        root: umvu_interface::Filesystem::root(&*filesystem),
        filesystem,
        shown_type: told.map_or_else(|| request.fstype.to_vec(), |name| name.as_bytes().to_vec()),
        flags: MountFlags::READ_ONLY,
        inner: InnerMounts::Covered,
    })
}

fn open(inode: &InodeRef, request: &MountRequest<'_>) -> umvu_interface::Result<File> {
    let fd = inode.open(&request.caller, OFlags::RDONLY | OFlags::CLOEXEC)?.into_file()?;
    Ok(fd.into())
}

fn parse(options: &[Vec<u8>]) -> Result<Options> {
    let mut parsed = Options { tag: None, limit: LIMIT, points: Vec::new() };
    for option in options {
        let bad = |why: &str| MountError::new(Errno::INVAL, format!("option '{}': {why}", shown(option)));
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], &option[at + 1..]),
            None => (&option[..], &b""[..]),
        };
        match name {
            b"ro" => {}
            b"image" => {
                let tag = std::str::from_utf8(value).ok().filter(|tag| !tag.is_empty());
                parsed.tag = Some(tag.ok_or_else(|| bad("needs a tag"))?.to_owned());
            }
            b"limit" => parsed.limit = size(value).ok_or_else(|| bad("needs a size"))?,
            b"dir" => parsed.points.push((value.to_vec(), Object::Directory)),
            b"file" => parsed.points.push((value.to_vec(), Object::Regular { size: 0, data: Data::Whole(0) })),
            _ => return Err(MountError::new(Errno::INVAL, format!("unknown option '{}'", shown(option)))),
        }
    }
    Ok(parsed)
}

/// Reads a size: bytes, or with `k`, `M`, `G`, `T` behind it.
fn size(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let power = ["", "k", "m", "g", "t"].iter().position(|unit| *unit == text[at..].to_ascii_lowercase())?;
    text[..at].parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

/// A directory of the view.
struct InView<'a> {
    source: InodeRef,
    request: &'a MountRequest<'a>,
}

impl Files for InView<'_> {
    fn open(&self, path: &str) -> Result<Option<Source>> {
        let found = || -> umvu_interface::Result<File> {
            let mut at = self.source.clone();
            for part in path.split('/') {
                at = at.lookup(&Name::new(part.as_bytes())?)?;
            }
            match at.kind()? {
                FileKind::Regular => open(&at, self.request),
                _ => Err(Errno::NOENT),
            }
        };
        let name = || format!("{}/{path}", shown(self.request.source));
        match found() {
            Ok(file) => Source::whole(file).map(Some).map_err(|error| unreadable(&name(), &error)),
            Err(Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(MountError::new(errno, format!("{}: {}", name(), cause(errno)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size(b"64"), Some(64));
        assert_eq!(size(b"2G"), Some(2 << 30));
        assert_eq!(size(b"99999999999T"), None);
        assert_eq!(size(b"1x"), None);
    }

    #[test]
    fn options_that_are_not_known_are_named() {
        let error = parse(&[b"dir=/a".to_vec(), b"lim=1".to_vec()]).err().unwrap();
        assert_eq!(error.message, "unknown option 'lim=1'");
    }
}
