//! What the options of a mount say. Knows nothing of trees: paths are only taken apart.

use umvu_interface::{Errno, MountError};

use crate::union::{Durability, RedirectDir};

/// How source and covered directory are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The source is seen at the target.
    Bind,
    /// The source's entries cover those of the target, which takes all changes.
    Merge,
    /// The source takes all changes to the target.
    Cow,
    /// The source takes the changes that the target refuses.
    MinCow,
}

/// What becomes of a change of mode or owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// The file is copied up for it.
    Copies,
    /// It is written down beside the layer; the content stays where it is.
    Recorded,
}

/// The layers of an overlay.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Layers {
    pub(crate) lower: Vec<Vec<u8>>,
    pub(crate) upper: Option<Vec<u8>>,
}

/// All options of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// None for an overlay.
    pub(crate) mode: Option<Mode>,
    pub(crate) layers: Layers,
    pub(crate) work: Option<Vec<u8>>,
    pub(crate) except: Vec<Vec<u8>>,
    pub(crate) ownership: Ownership,
    pub(crate) redirect_dir: RedirectDir,
    pub(crate) durability: Durability,
}

fn invalid(message: String) -> MountError {
    MountError::new(Errno::INVAL, message)
}

/// Takes the options apart.
///
/// # Errors
/// - `EINVAL`: an option that is not known, or that does not go with another; the message names it.
pub(crate) fn parse(options: &[Vec<u8>]) -> Result<Options, MountError> {
    let mut parsed = Options {
        mode: None,
        layers: Layers::default(),
        work: None,
        except: Vec::new(),
        ownership: Ownership::Copies,
        redirect_dir: RedirectDir::On,
        durability: Durability::Synced,
    };
    for option in options {
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option.as_slice(), None),
        };
        take(&mut parsed, name, value, option)?;
    }
    let is_overlay = !parsed.layers.lower.is_empty() || parsed.layers.upper.is_some();
    if is_overlay && parsed.mode.is_some() {
        return Err(invalid("lowerdir and upperdir do not go with bind, move, merge, cow and mincow".into()));
    }
    if is_overlay && parsed.layers.lower.is_empty() {
        return Err(invalid("option 'lowerdir' is missing".into()));
    }
    if !is_overlay {
        let mode = *parsed.mode.get_or_insert(Mode::Bind);
        if parsed.work.is_some() && !matches!(mode, Mode::Cow | Mode::MinCow) {
            return Err(invalid("option 'workdir' goes only with cow, mincow and upperdir".into()));
        }
    }
    Ok(parsed)
}

fn take(parsed: &mut Options, name: &[u8], value: Option<&[u8]>, option: &[u8]) -> Result<(), MountError> {
    let shown = || option.escape_ascii().to_string();
    let plain = |what: &str| match value {
        None => Ok(()),
        Some(_) => Err(invalid(format!("option '{}': {what} takes no value", shown()))),
    };
    let path = || match value {
        Some(value) if !value.is_empty() => Ok(value.to_vec()),
        _ => Err(invalid(format!("option '{}': needs a path", shown()))),
    };
    let mode = match name {
        b"bind" | b"move" => Some(Mode::Bind),
        b"merge" => Some(Mode::Merge),
        b"cow" => Some(Mode::Cow),
        b"mincow" => Some(Mode::MinCow),
        _ => None,
    };
    if let Some(mode) = mode {
        plain("a mode")?;
        if parsed.mode.replace(mode).is_some() {
            return Err(invalid("bind, move, merge, cow and mincow exclude each other".into()));
        }
        return Ok(());
    }
    match (name, value) {
        (b"except", _) => parsed.except.push(except_path(&path()?, &shown())?),
        (b"nochcopy", _) => {
            plain("nochcopy")?;
            parsed.ownership = Ownership::Recorded;
        }
        (b"lowerdir", _) => parsed.layers.lower = lower_paths(&path()?, &shown())?,
        (b"lowerdir+", _) => parsed.layers.lower.push(path()?),
        (b"upperdir", _) => parsed.layers.upper = Some(path()?),
        (b"workdir", _) => parsed.work = Some(path()?),
        (b"redirect_dir", Some(b"on")) => parsed.redirect_dir = RedirectDir::On,
        (b"redirect_dir", Some(b"follow")) => parsed.redirect_dir = RedirectDir::Follow,
        (b"redirect_dir", Some(b"off" | b"nofollow")) => parsed.redirect_dir = RedirectDir::Off,
        (b"volatile", None) => parsed.durability = Durability::Volatile,
        // What overlayfs can be told and a union here always does, or never.
        (b"userxattr" | b"rw", None)
        | (b"xino", Some(b"on" | b"auto" | b"off"))
        | (b"index" | b"metacopy" | b"nfs_export" | b"verity", Some(b"off"))
        | (b"index", Some(b"on"))
        | (b"uuid", Some(b"on" | b"auto" | b"off" | b"null")) => {}
        (b"metacopy" | b"nfs_export" | b"verity" | b"datadir+", _) => {
            return Err(invalid(format!("option '{}': not supported", shown())));
        }
        _ => return Err(invalid(format!("unknown option '{}'", shown()))),
    }
    Ok(())
}

/// Takes a path below the mount point, with or without a leading slash.
fn except_path(path: &[u8], shown: &str) -> Result<Vec<u8>, MountError> {
    let names: Vec<_> = path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b".")).collect();
    if names.is_empty() || names.contains(&b"..".as_slice()) {
        return Err(invalid(format!("option '{shown}': not a path below the mount point")));
    }
    Ok(names.join(&b'/'))
}

/// Splits at colons; `\:` is one that belongs to a path.
fn lower_paths(list: &[u8], shown: &str) -> Result<Vec<Vec<u8>>, MountError> {
    let mut paths = vec![Vec::new()];
    let mut bytes = list.iter().copied();
    while let Some(byte) = bytes.next() {
        let Some(path) = paths.last_mut() else { break };
        match byte {
            b'\\' => path.extend(bytes.next()),
            b':' => paths.push(Vec::new()),
            _ => path.push(byte),
        }
    }
    match paths.iter().any(Vec::is_empty) {
        true => Err(invalid(format!("option '{shown}': an empty path"))),
        false => Ok(paths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Result<Options, String> {
        let options: Vec<_> = options.iter().map(|option| option.as_bytes().to_vec()).collect();
        parse(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn without_options_it_is_a_bind() {
        assert_eq!(of(&[]).unwrap().mode, Some(Mode::Bind));
    }

    #[test]
    fn modes_exclude_each_other() {
        assert!(of(&["cow", "merge"]).unwrap_err().contains("exclude"));
        assert!(of(&["cow", "lowerdir=/a"]).unwrap_err().contains("do not go with"));
    }

    #[test]
    fn unknown_options_are_named() {
        assert_eq!(of(&["cow", "cwo"]).unwrap_err(), "unknown option 'cwo'");
        assert_eq!(of(&["redirect_dir=yes"]).unwrap_err(), "unknown option 'redirect_dir=yes'");
        assert_eq!(of(&["metacopy=on"]).unwrap_err(), "option 'metacopy=on': not supported");
        assert!(of(&["cow=1"]).unwrap_err().contains("takes no value"));
    }

    #[test]
    fn lower_directories_may_have_colons_in_their_names() {
        let parsed = of(&["lowerdir=/a\\:b:/c", "upperdir=/u"]).unwrap();
        assert_eq!(parsed.layers.lower, [b"/a:b".to_vec(), b"/c".to_vec()]);
        assert_eq!(parsed.mode, None);
        assert!(of(&["lowerdir=/a::/b"]).is_err());
        assert!(of(&["upperdir=/u"]).unwrap_err().contains("lowerdir"));
    }

    #[test]
    fn excepted_paths_are_below_the_mount() {
        assert_eq!(of(&["except=/a//b/", "except=c"]).unwrap().except, [b"a/b".to_vec(), b"c".to_vec()]);
        assert!(of(&["except=/a/../.."]).is_err());
        assert!(of(&["except"]).unwrap_err().contains("needs a path"));
    }
}
