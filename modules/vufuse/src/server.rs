//! The programs of others that serve what there is no driver for. Knows no format but by its name.

use umvu_interface::{MountFlags, MountRequest, Server};

/// What such programs serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    Ntfs,
    Exfat,
    /// An ext4 with features that the driver lacks.
    Ext,
    /// An erofs with features that the driver lacks.
    Erofs,
}

impl Foreign {
    /// What a message calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ntfs => "an ntfs",
            Self::Exfat => "an exfat",
            Self::Ext => "an ext4",
            Self::Erofs => "an erofs",
        }
    }

    /// The program, with the options that a mount asks for. Those that are not its own, it refuses itself.
    pub fn server(self, request: &MountRequest<'_>) -> Server {
        let (programs, package): (&'static [&'static str], _) = match self {
            Self::Ntfs => (&["ntfs-3g", "mount.ntfs-3g"], "ntfs-3g"),
            Self::Exfat => (&["mount.exfat-fuse", "exfat-fuse"], "exfat-fuse"),
            Self::Ext => (&["fuse2fs"], "fuse2fs"),
            Self::Erofs => (&["erofsfuse"], "erofsfuse"),
        };
        let read = if request.flags.contains(MountFlags::READ_ONLY) { "ro" } else { "rw" };
        // erofsfuse(1) takes none but its own.
        let mut options = if self == Self::Erofs { Vec::new() } else { vec![read.as_bytes().to_vec()] };
        let is_ours = |option: &[u8]| matches!(option, b"loop" | b"ro" | b"rw" | b"defaults" | b"");
        options.extend(request.options.iter().filter(|option| !is_ours(option)).cloned());
        for (flag, name) in
            [(MountFlags::NO_SUID, "nosuid"), (MountFlags::NO_DEV, "nodev"), (MountFlags::NO_EXEC, "noexec")]
        {
            if request.flags.contains(flag) {
                options.push(name.as_bytes().to_vec());
            }
        }
        Server { programs, package, options }
    }
}
