//! Who makes a call. Knows nothing of where the identity comes from.

use std::sync::Arc;

use crate::user_namespace::{to_inside, to_view, IdMap, UserNamespace, OVERFLOW_ID};
use crate::Stat;

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
    /// `CAP_SYS_PTRACE`.
    pub const SYS_PTRACE: u64 = 1 << 19;
    /// `CAP_SYS_ADMIN`.
    pub const SYS_ADMIN: u64 = 1 << 21;
    /// `CAP_SYS_NICE`.
    pub const SYS_NICE: u64 = 1 << 23;
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
    /// The user namespace that the capabilities are good for; `None` for the view's own.
    pub namespace: Option<Arc<UserNamespace>>,
}

impl Credentials {
    /// Whether an effective capability (a `Capabilities` bit) is held.
    pub fn capable(&self, capability: u64) -> bool {
        self.capabilities.effective & capability != 0
    }

    /// Whether an effective capability is held that is good for an object: who is in a user namespace has power over
    /// what belongs to those whom it knows. `capable_wrt_inode_uidgid` of `kernel/capability.c`.
    pub fn capable_over(&self, capability: u64, stat: &Stat) -> bool {
        let is_known = || self.user_inside(stat.uid).is_some() && self.group_inside(stat.gid).is_some();
        self.capable(capability) && is_known()
    }

    /// Whether an effective capability is held in a user namespace (`None`: the view's own): `cap_capable` of
    /// `security/commoncap.c`.
    pub fn capable_in(&self, namespace: Option<&Arc<UserNamespace>>, capability: u64) -> bool {
        let own_level = self.namespace.as_ref().map_or(0, |n| n.level);
        let mut at = namespace;
        loop {
            if at == self.namespace.as_ref() {
                return self.capable(capability);
            }
            let Some(here) = at.filter(|here| here.level > own_level) else { return false };
            // Who made a namespace has every capability in it.
            if here.parent == self.namespace && here.owner.0 == self.uid.effective {
                return true;
            }
            at = here.parent.as_ref();
        }
    }

    fn users(&self) -> Option<&IdMap> {
        self.namespace.as_ref().map(|n| &n.users)
    }

    fn groups_map(&self) -> Option<&IdMap> {
        self.namespace.as_ref().map(|n| &n.groups)
    }

    /// The number by which the process knows a user of the view, if it does.
    pub fn user_inside(&self, uid: u32) -> Option<u32> {
        to_inside(self.users(), uid)
    }

    /// The number by which the process knows a group of the view, if it does.
    pub fn group_inside(&self, gid: u32) -> Option<u32> {
        to_inside(self.groups_map(), gid)
    }

    /// The user of the view who is root for the process; nobody is before there is a map.
    pub fn root(&self) -> Option<u32> {
        self.user_meant(0)
    }

    /// The number by which the process knows a user of the view: `from_kuid_munged`.
    pub fn user_shown(&self, uid: u32) -> u32 {
        self.user_inside(uid).unwrap_or(OVERFLOW_ID)
    }

    /// The number by which the process knows a group of the view.
    pub fn group_shown(&self, gid: u32) -> u32 {
        self.group_inside(gid).unwrap_or(OVERFLOW_ID)
    }

    /// The user of the view whom the process means by a number: `make_kuid`.
    pub fn user_meant(&self, uid: u32) -> Option<u32> {
        to_view(self.users(), uid)
    }

    /// The group of the view that the process means by a number.
    pub fn group_meant(&self, gid: u32) -> Option<u32> {
        to_view(self.groups_map(), gid)
    }

    /// An object's metadata with the ids by which the process knows them.
    pub fn shown(&self, stat: Stat) -> Stat {
        if self.namespace.is_none() {
            return stat;
        }
        Stat { uid: self.user_shown(stat.uid), gid: self.group_shown(stat.gid), ..stat }
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
