//! Access control lists, of which the host's differ from those shown as its modes do: in what the owner may.
//!
//! Knows nothing of who may set one, nor of whom one lets in.

use umvu_interface::{Acl, Caller, Capabilities, Errno, Result, ACCESS_ACL};
use umvu_ownership::Override;

use crate::filesystem::kind;
use crate::inode::owner_bits;
use crate::HostInode;

impl HostInode {
    /// Makes an access control list that the host has agree with the mode shown.
    pub(crate) fn acl_as_shown(&self, value: Vec<u8>) -> Result<Vec<u8>> {
        let host = self.host()?;
        match (self.fs().override_of(self.fd(), &host)?, Acl::parse(&value)) {
            (Some(shown), Ok(mut acl)) => {
                acl.set_mode(shown.mode);
                Ok(acl.bytes())
            }
            _ => Ok(value),
        }
    }

    /// Sets the access control list with `write`, and the permission bits that it gives: `posix_acl_update_mode` of
    /// `fs/posix_acl.c`. The host's gets the bits that this user needs, or nothing would be found out about the object.
    pub(crate) fn write_acl(
        &self,
        caller: &Caller<'_>,
        value: &[u8],
        write: impl Fn(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(store) = self.fs().ownership() else { return write(value) };
        let host = self.host()?;
        let is_recorded = self.fs().override_of(self.fd(), &host)?.is_some();
        let acl = Acl::parse(value).ok().and_then(|acl| Some((acl.mode()?, acl)));
        let (Some((shows, mut acl)), true) = (acl, is_recorded || caller.credentials.is_faked()) else {
            return write(value);
        };
        let needed = owner_bits(kind(&host)) & 0o700;
        if !is_recorded && shows & needed != needed {
            // No moment shows the bits that are added.
            self.fs().update(&store, self.fd(), &host, |shown| shown)?;
        }
        acl.set_mode(shows | needed);
        write(&acl.bytes())?;
        if !is_recorded && shows & needed == needed {
            return Ok(());
        }
        let who = caller.credentials;
        self.fs().update(&store, self.fd(), &host, |shown| {
            let keeps = who.in_group(shown.gid) || who.capable(Capabilities::FSETID);
            let lost = if keeps { 0o777 } else { 0o2777 };
            Override { mode: (shown.mode & !lost) | shows, ..shown }
        })
    }

    /// Gives the list by which the view judges.
    pub(crate) fn judged_acl(&self) -> Result<Option<Acl>> {
        match self.read_attribute(ACCESS_ACL) {
            Ok(value) => Acl::parse(&value).map(Some).map_err(|_| Errno::IO),
            // Symbolic links and file systems without lists.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }
}
