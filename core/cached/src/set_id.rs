//! Set-id bits that go when somebody without power over a file writes to it: `file_remove_privs` of `fs/inode.c`. Guests
//! write to backings natively, so it is the kernel that tells: where the bits of an object are at stake, its backing has
//! one, and has lost it once it was written to.

use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Mode};
use umvu_interface::{Caller, Capabilities, Credentials, Result, SetAttr, Stat};

use crate::fs::CachedFs;
use crate::node::Node;

/// `S_ISUID`.
const SET_UID: u32 = 0o4000;
/// `S_ISGID`.
const SET_GID: u32 = 0o2000;
/// `S_IXGRP`.
const GROUP_EXECUTES: u32 = 0o10;

/// The bits of a mode that go when a caller writes: `setattr_should_drop_suidgid` of `fs/attr.c`.
fn at_stake(stat: &Stat, who: &Credentials) -> u32 {
    if who.capable(Capabilities::FSETID) {
        return 0;
    }
    let is_set_gid = stat.mode & GROUP_EXECUTES != 0 || !who.in_group(stat.gid);
    stat.mode & (SET_UID | if is_set_gid { SET_GID } else { 0 })
}

impl CachedFs {
    /// The content was opened for writing by a caller.
    pub(crate) fn watch_set_id(&self, node: &Node, caller: &Caller<'_>) -> Result<()> {
        let bits = at_stake(&node.stat()?, caller.credentials);
        if bits != 0 {
            node.content.set_id_at_stake.fetch_or(bits, Ordering::SeqCst);
            self.mark(node)?;
        }
        Ok(())
    }

    fn mark(&self, node: &Node) -> Result<()> {
        let mode = Mode::RWXU | Mode::SUID;
        self.shelf.at(node.serial, |directory, name| rustix::fs::chmodat(directory, name, mode, AtFlags::empty()))
    }

    /// The mode was changed: what was written before does not count any more.
    pub(crate) fn set_id_changed(&self, node: &Node) -> Result<()> {
        match node.content.set_id_at_stake.load(Ordering::SeqCst) {
            0 => Ok(()),
            _ => self.mark(node),
        }
    }

    /// The mode of an object, by what it was and the metadata of its backing.
    pub(crate) fn mode_after_writes(&self, node: &Node, mode: u32, backing: &rustix::fs::Stat) -> u32 {
        match backing.st_mode & SET_UID {
            0 => mode & !node.content.set_id_at_stake.load(Ordering::SeqCst),
            _ => mode,
        }
    }

    /// Has the driver drop the bits, if they are gone.
    pub(crate) fn bring_set_id(&self, node: &Node, backing: &rustix::fs::Stat) -> Result<()> {
        if node.content.set_id_at_stake.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        let mode = node.stat()?.mode;
        let left = self.mode_after_writes(node, mode, backing);
        if left != mode {
            let change = SetAttr { mode: Some(left & 0o7777), ..SetAttr::default() };
            self.asked.any(|driver, who| driver.set_attr(who, node.id, &change))?;
            node.expire();
        }
        Ok(())
    }
}
