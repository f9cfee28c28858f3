//! Who makes a call. Knows nothing of where the identity comes from.

use std::sync::Arc;

/// The four ids that Linux keeps for a user or a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ids {
    /// Real id.
    pub real: u32,
    /// Effective id.
    pub effective: u32,
    /// Saved set-id.
    pub saved: u32,
    /// Id used for access to files.
    pub fs: u32,
}

impl Ids {
    /// All four ids are `id`.
    pub fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, fs: id }
    }
}

/// Capability sets, one bit per capability as in capabilities(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Capabilities {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub bounding: u64,
    pub ambient: u64,
}

impl Capabilities {
    /// All capabilities that Linux 6.18 knows (0 to 40).
    pub const ALL: u64 = (1 << 41) - 1;
    /// `CAP_CHOWN`.
    pub const CHOWN: u64 = 1 << 0;
    /// `CAP_DAC_OVERRIDE`.
    pub const DAC_OVERRIDE: u64 = 1 << 1;
    /// `CAP_DAC_READ_SEARCH`.
    pub const DAC_READ_SEARCH: u64 = 1 << 2;
    /// `CAP_FOWNER`.
    pub const FOWNER: u64 = 1 << 3;
    /// `CAP_FSETID`.
    pub const FSETID: u64 = 1 << 4;
    /// `CAP_KILL`.
    pub const KILL: u64 = 1 << 5;
    /// `CAP_SETGID`.
    pub const SETGID: u64 = 1 << 6;
    /// `CAP_SETUID`.
    pub const SETUID: u64 = 1 << 7;
    /// `CAP_SETPCAP`.
    pub const SETPCAP: u64 = 1 << 8;
    /// `CAP_SYS_CHROOT`.
    pub const SYS_CHROOT: u64 = 1 << 18;
    /// `CAP_SYS_ADMIN`.
    pub const SYS_ADMIN: u64 = 1 << 21;
    /// `CAP_SYS_RESOURCE`.
    pub const SYS_RESOURCE: u64 = 1 << 24;
    /// `CAP_MKNOD`.
    pub const MKNOD: u64 = 1 << 27;

    /// What root has after boot.
    pub fn full() -> Self {
        Self { effective: Self::ALL, permitted: Self::ALL, inheritable: 0, bounding: Self::ALL, ambient: 0 }
    }

    /// What an ordinary user has.
    pub fn none() -> Self {
        Self { effective: 0, permitted: 0, inheritable: 0, bounding: Self::ALL, ambient: 0 }
    }
}

/// Whether the kernel itself knows the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The host's own identity of the user: the kernel's checks on real objects are the truth.
    Host,
    /// An identity that only the view knows: the view makes the checks.
    Faked,
}

/// The identity of a process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// User ids.
    pub uid: Ids,
    /// Group ids.
    pub gid: Ids,
    /// Supplementary groups.
    pub groups: Arc<[u32]>,
    /// Capability sets.
    pub capabilities: Capabilities,
    /// Secure bits, as in prctl(PR_SET_SECUREBITS); `KEEP_CAPS` is bit 4.
    pub securebits: u32,
    /// Host or faked.
    pub origin: Origin,
}

impl Credentials {
    /// Whether an effective capability (a `Capabilities` bit) is held.
    pub fn capable(&self, capability: u64) -> bool {
        self.capabilities.effective & capability != 0
    }

    /// Whether `gid` is the file-system group or one of the supplementary groups.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid.fs == gid || self.groups.contains(&gid)
    }

    /// Whether only the view knows this identity.
    pub fn is_faked(&self) -> bool {
        self.origin == Origin::Faked
    }
}

/// The process on whose behalf an operation is done.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Thread id on the host.
    pub tid: u32,
    /// Its identity in the view.
    pub credentials: &'a Credentials,
    /// Its file mode creation mask.
    pub umask: u32,
}
