//! Owners and permissions that a mount gives to what has none: the options uid, gid, umask, fmask, dmask, mode, dmode.
//! Knows no format.

use umvu_interface::Stat;

/// What the options say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    /// `uid=`.
    pub uid: Option<u32>,
    /// `gid=`.
    pub gid: Option<u32>,
    /// `fmask=`, `umask=`: permissions that files have not.
    pub file_mask: Option<u32>,
    /// `dmask=`, `umask=`: permissions that directories have not.
    pub directory_mask: Option<u32>,
    /// `mode=`: the permissions of files.
    pub file_mode: Option<u32>,
    /// `dmode=`: the permissions of directories.
    pub directory_mode: Option<u32>,
    /// Who mounts.
    pub mounter: (u32, u32),
    /// What takes the place of masks that are not given, for objects without an owner of their own.
    pub default_mask: u32,
}

impl Owner {
    /// Gives an object without an owner of its own one: the one who mounts, if nothing else is said.
    pub fn apply(&self, stat: &mut Stat) {
        (stat.uid, stat.gid) = self.mounter;
        let mask = |mask: Option<u32>| Some(mask.unwrap_or(self.default_mask));
        let masked = Self { file_mask: mask(self.file_mask), directory_mask: mask(self.directory_mask), ..*self };
        masked.override_owner(stat);
    }

    /// Does what the options say to an object that has an owner.
    pub fn override_owner(&self, stat: &mut Stat) {
        stat.uid = self.uid.unwrap_or(stat.uid);
        stat.gid = self.gid.unwrap_or(stat.gid);
        let (mode, mask) = match stat.is_dir() {
            true => (self.directory_mode, self.directory_mask),
            false => (self.file_mode, self.file_mask),
        };
        let permissions = mode.unwrap_or(stat.mode & 0o7777) & !mask.unwrap_or(0);
        stat.mode = (stat.mode & !0o7777) | (permissions & 0o7777);
    }
}
