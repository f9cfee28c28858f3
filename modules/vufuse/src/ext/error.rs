//! What rsext4 says, as an errno and for people.

use rsext4::{Ext4Error, Ext4ErrorKind};
use umvu_interface::Errno;

/// The errno of Linux for an error.
pub fn errno(error: Ext4Error) -> Errno {
    match error.kind() {
        Ext4ErrorKind::Io | Ext4ErrorKind::JournalAborted | Ext4ErrorKind::Timeout => Errno::IO,
        Ext4ErrorKind::Corrupted
        | Ext4ErrorKind::ChecksumMismatch
        | Ext4ErrorKind::BadSuperblock
        | Ext4ErrorKind::Overflow => Errno::UCLEAN,
        Ext4ErrorKind::UnsupportedFeature | Ext4ErrorKind::UnsupportedCapability | Ext4ErrorKind::Unsupported => {
            Errno::OPNOTSUPP
        }
        Ext4ErrorKind::ReadOnly => Errno::ROFS,
        Ext4ErrorKind::NoSpace => Errno::NOSPC,
        Ext4ErrorKind::NoMemory => Errno::NOMEM,
        Ext4ErrorKind::QuotaExceeded => Errno::DQUOT,
        Ext4ErrorKind::TooManyLinks => Errno::MLINK,
        Ext4ErrorKind::PermissionDenied => Errno::PERM,
        Ext4ErrorKind::NotFound => Errno::NOENT,
        Ext4ErrorKind::AlreadyExists => Errno::EXIST,
        Ext4ErrorKind::NotDirectory => Errno::NOTDIR,
        Ext4ErrorKind::IsDirectory => Errno::ISDIR,
        Ext4ErrorKind::NotEmpty => Errno::NOTEMPTY,
        Ext4ErrorKind::Busy => Errno::BUSY,
        Ext4ErrorKind::BadFileDescriptor => Errno::BADF,
        Ext4ErrorKind::InvalidInput | Ext4ErrorKind::InvalidMagic => Errno::INVAL,
        Ext4ErrorKind::FileTooLarge => Errno::FBIG,
    }
}

/// Says an error for people.
pub fn why(error: Ext4Error) -> String {
    match error.context() {
        Some(context) => format!("{} ({context})", error.kind()),
        None => error.kind().to_string(),
    }
}

/// Names features without which it cannot be mounted.
pub fn incompatible(bits: u32) -> String {
    format!("features that are not supported: {}", names(bits, INCOMPATIBLE))
}

/// The same of those that Linux only needs to know to write.
pub fn incompatible_for_reading(bits: u32) -> String {
    format!("features that are not supported: {}", names(bits, READ_ONLY))
}

/// Names features without which it can be read only.
pub fn unwritten(bits: u32) -> String {
    format!("features that are not supported for writing: {} (it can be mounted ro)", names(bits, READ_ONLY))
}

/// The names that dumpe2fs(8) has for features; those of `fs/ext4/ext4.h`.
const INCOMPATIBLE: &[(u32, &str)] = &[
    (0x1, "compression"),
    (0x8, "journal_dev"),
    (0x10, "meta_bg"),
    (0x400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x1_0000, "encrypt"),
    (0x2_0000, "casefold"),
];
const READ_ONLY: &[(u32, &str)] = &[
    (0x80, "snapshot"),
    (0x100, "quota"),
    (0x200, "bigalloc"),
    (0x800, "replica"),
    (0x1000, "read-only"),
    (0x4000, "shared_blocks"),
    (0x8000, "verity"),
    (0x1_0000, "orphan_present"),
];

fn names(bits: u32, known: &[(u32, &str)]) -> String {
    let mut left = bits;
    let mut names = Vec::new();
    for (bit, name) in known {
        if bits & bit != 0 {
            names.push((*name).to_owned());
            left &= !bit;
        }
    }
    if left != 0 {
        names.push(format!("{left:#x}"));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_named() {
        assert_eq!(incompatible(0x4000_8010), "features that are not supported: meta_bg, inline_data, 0x40000000");
    }
}
