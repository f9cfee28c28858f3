//! What the host's `fs.protected_*` settings forbid in directories that many may write to, by the identity and the
//! owners that the view shows. Knows nothing of how objects are found.

use umvu_interface::{Credentials, Errno, FileKind, InodeRef, Result, Stat};

/// `S_ISVTX`.
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;

/// A file of `/proc/sys/fs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Symlinks,
    Hardlinks,
    Regular,
    Fifos,
}

impl Setting {
    /// Reads what the host has now; nothing is protected where it has no such setting.
    fn level(self) -> u32 {
        let path = match self {
            Self::Symlinks => "/proc/sys/fs/protected_symlinks",
            Self::Hardlinks => "/proc/sys/fs/protected_hardlinks",
            Self::Regular => "/proc/sys/fs/protected_regular",
            Self::Fifos => "/proc/sys/fs/protected_fifos",
        };
        std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

/// Whether links to what one does not own are restricted: `may_linkat` of `fs/namei.c`.
pub fn restricts_links() -> bool {
    Setting::Hardlinks.level() > 0
}

/// Checks that a link at the end of a path may be followed: `may_follow_link` of `fs/namei.c`.
///
/// # Errors
/// - `EACCES`: it lies in a sticky directory of everybody's, and is neither the caller's nor the directory's owner's.
pub fn may_follow(who: &Credentials, directory: &InodeRef, link: &InodeRef) -> Result<()> {
    let above = directory.stat()?;
    if above.mode & (STICKY | WRITABLE_BY_OTHERS) != STICKY | WRITABLE_BY_OTHERS {
        return Ok(());
    }
    let owner = link.stat()?.uid;
    // Asked last, because it costs the most.
    if owner == who.uid.fs || owner == above.uid || Setting::Symlinks.level() == 0 {
        return Ok(());
    }
    Err(Errno::ACCESS)
}

/// Checks that an open that would create may open what is there: `may_create_in_sticky` of `fs/namei.c`.
///
/// # Errors
/// - `EACCES`: it lies in a sticky directory, and is neither the caller's nor the directory's owner's.
pub fn may_open_to_create(who: &Credentials, directory: &InodeRef, found: &InodeRef) -> Result<()> {
    let above = directory.stat()?;
    if above.mode & STICKY == 0 {
        return Ok(());
    }
    let found = found.stat()?;
    if found.uid == above.uid || found.uid == who.uid.fs || allows(&above, &found, Setting::level) {
        return Ok(());
    }
    Err(Errno::ACCESS)
}

fn allows(above: &Stat, found: &Stat, level: impl Fn(Setting) -> u32) -> bool {
    let level = match found.kind() {
        FileKind::Regular => Some(level(Setting::Regular)),
        FileKind::Fifo => Some(level(Setting::Fifos)),
        // No setting is about them.
        _ => None,
    };
    match level {
        Some(0) => true,
        _ if above.mode & WRITABLE_BY_OTHERS != 0 => false,
        Some(level) => level < 2 || above.mode & WRITABLE_BY_GROUP == 0,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(mode: u32) -> Stat {
        Stat { mode, ..Stat::default() }
    }

    #[test]
    fn a_level_protects_what_others_or_a_group_may_write_to() {
        let (everybodys, groups, own) = (object(0o041_777), object(0o041_775), object(0o041_755));
        for kind in [FileKind::Regular, FileKind::Fifo] {
            let found = object(kind.bits() | 0o666);
            let allowed = |above: &Stat| [0, 1, 2].map(|level| allows(above, &found, |_| level));
            assert_eq!(allowed(&everybodys), [true, false, false]);
            assert_eq!(allowed(&groups), [true, true, false]);
            assert_eq!(allowed(&own), [true, true, true]);
        }
        let device = object(FileKind::CharDevice.bits() | 0o666);
        assert!(!allows(&everybodys, &device, |_| 0) && allows(&groups, &device, |_| 2));
    }

    #[test]
    fn each_kind_has_its_setting() {
        let above = object(0o041_777);
        let only_fifos = |setting| u32::from(setting == Setting::Fifos);
        assert!(allows(&above, &object(FileKind::Regular.bits()), only_fifos));
        assert!(!allows(&above, &object(FileKind::Fifo.bits()), only_fifos));
    }
}
