//! Extended attributes, among which the one that carries faked owners is not seen.
//!
//! Attributes of the namespaces that the kernel keeps from ordinary users are kept for faked callers under another
//! name, `user.umvu.` and the name they asked for.

use std::ffi::CString;

use umvu_interface::{Caller, Errno, FileKind, Result, XattrSet, ACCESS_ACL};
use umvu_sys::file;

use crate::set_id::CAPABILITY;
use crate::HostInode;

/// What the names of attributes begin with that stand for those of other namespaces.
const STAND_IN: &[u8] = b"user.umvu.";

/// Room for the value of most attributes, in bytes.
const USUAL: usize = 256;

impl HostInode {
    pub(crate) fn read_attribute(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.check_visible(name, Errno::NODATA)?;
        self.settle_capabilities(name)?;
        let read = |name: &[u8]| {
            let name = c_name(name)?;
            self.permitted(|| whole(|buffer| file::get_xattr(self.fd(), &name, buffer)))
        };
        match read(name) {
            Err(errno @ (Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM)) => match self.stand_in(name) {
                Some(stand_in) => read(&stand_in).map_err(|_| errno),
                None => Err(errno),
            },
            Ok(value) if name == ACCESS_ACL => self.acl_as_shown(value),
            done => done,
        }
    }

    pub(crate) fn write_attribute(&self, caller: &Caller<'_>, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        self.check_visible(name, Errno::PERM)?;
        self.settle_capabilities(name)?;
        let flags = match how {
            XattrSet::Any => 0,
            XattrSet::Create => libc::XATTR_CREATE.unsigned_abs(),
            XattrSet::Replace => libc::XATTR_REPLACE.unsigned_abs(),
        };
        let write_value = |name: &[u8], value: &[u8]| {
            let name = c_name(name)?;
            self.permitted(|| file::set_xattr(self.fd(), &name, value, flags))
        };
        if name == ACCESS_ACL {
            return self.write_acl(caller, value, |value| write_value(name, value));
        }
        let write = |name: &[u8]| write_value(name, value);
        match write(name) {
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP)) if caller.credentials.is_faked() => {
                match self.stand_in(name) {
                    Some(stand_in) => write(&stand_in),
                    None => Err(errno),
                }
            }
            done => done,
        }
    }

    pub(crate) fn list_attributes(&self) -> Result<Vec<Vec<u8>>> {
        self.settle_capabilities(CAPABILITY)?;
        let list = whole(|buffer| file::list_xattr(self.fd(), buffer))?;
        let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        if self.fs().store().is_none() {
            return Ok(names.map(<[u8]>::to_vec).collect());
        }
        let mut shown: Vec<Vec<u8>> = Vec::new();
        for name in names.filter(|name| *name != umvu_ownership::MARK.to_bytes()) {
            let name = name.strip_prefix(STAND_IN).unwrap_or(name);
            if !shown.iter().any(|known| known == name) {
                shown.push(name.to_vec());
            }
        }
        Ok(shown)
    }

    pub(crate) fn remove_attribute(&self, caller: &Caller<'_>, name: &[u8]) -> Result<()> {
        self.check_visible(name, Errno::NODATA)?;
        self.settle_capabilities(name)?;
        let remove = |name: &[u8]| {
            let name = c_name(name)?;
            self.permitted(|| file::remove_xattr(self.fd(), &name))
        };
        match self.stand_in(name).filter(|_| caller.credentials.is_faked()) {
            // Where it was kept under the other name, the real one is not there, as a rule.
            Some(stand_in) => remove(&stand_in).or_else(|errno| match remove(name) {
                Err(Errno::PERM | Errno::OPNOTSUPP) => Err(errno),
                removed => removed,
            }),
            None => remove(name),
        }
    }

    /// Takes away the capabilities of a file that was written to.
    fn settle_capabilities(&self, name: &[u8]) -> Result<()> {
        if name != CAPABILITY || self.host_kind()? != FileKind::Regular {
            return Ok(());
        }
        self.fs().settle_writes(self.fd())
    }

    /// Refuses the names that the store keeps for itself.
    fn check_visible(&self, name: &[u8], refusal: Errno) -> Result<()> {
        let reserved = name == umvu_ownership::MARK.to_bytes() || name.starts_with(STAND_IN);
        if reserved && self.fs().store().is_some() {
            return Err(refusal);
        }
        Ok(())
    }

    /// Gives the name under which an attribute that the kernel refuses is kept, if it is one of those.
    fn stand_in(&self, name: &[u8]) -> Option<Vec<u8>> {
        let refused = name.starts_with(b"security.") || name.starts_with(b"trusted.");
        (refused && self.fs().store().is_some()).then(|| [STAND_IN, name].concat())
    }
}

/// # Errors
/// - `ERANGE`: the name cannot be one, as the kernel says of names that are empty or too long
fn c_name(name: &[u8]) -> Result<CString> {
    CString::new(name).map_err(|_| Errno::RANGE)
}

/// Reads a value of unknown length; `read` gives its length, or needs more room.
fn whole(read: impl Fn(&mut [u8]) -> Result<usize>) -> Result<Vec<u8>> {
    let mut value = vec![0; USUAL];
    loop {
        match read(&mut value) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            // It may grow once more in between.
            Err(Errno::RANGE) => value.resize(read(&mut [])?.max(USUAL), 0),
            Err(errno) => return Err(errno),
        }
    }
}
