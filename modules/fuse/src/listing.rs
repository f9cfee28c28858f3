//! How a directory is listed: names alone, or with what each is (`fs/fuse/readdir.c`). Knows nothing of what is kept.

use umvu_driver::{Listing, NodeId};
use umvu_interface::{Caller, Errno, OFlags, Result};

use crate::abi::{Init, Opcode, ReadIn, ReleaseIn, Wire};
use crate::driver::Served;
use crate::reply;

/// Names of a directory that are kept at once, in bytes: more is no directory.
const LISTING_MAX: usize = 256 << 20;
/// What the kernel asks for at once is between a page and this.
const AT_ONCE: u32 = 32 << 10;

impl Served {
    /// Lists a directory to its end.
    ///
    /// # Errors
    /// - `EIO`: a piece that makes no sense.
    /// - the server's.
    pub(crate) fn list(&self, who: &Caller<'_>, node: NodeId) -> Result<Listing> {
        let asker = self.asker(who)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let handle = self.open_handle(&asker, node, flags, Opcode::OpenDir)?;
        let mut listing = Listing::default();
        let outcome = self.pieces(&asker, node, handle.number, &mut listing);
        let body = ReleaseIn { fh: handle.number, flags: flags.bits(), ..ReleaseIn::default() }.bytes();
        if !self.connection.lacks(Opcode::OpenDir) {
            self.connection.tell(&asker, Opcode::ReleaseDir, node, &[&body]);
        }
        match outcome {
            Ok(()) => Ok(listing),
            Err(errno) => {
                listing.found.iter().for_each(|(_, found)| self.connection.forget(found.node, 1));
                Err(errno)
            }
        }
    }

    fn pieces(&self, asker: &crate::connection::Asker, node: NodeId, fh: u64, listing: &mut Listing) -> Result<()> {
        let flags = self.connection.negotiated()?.flags;
        let mut asks_more = flags.contains(Init::DO_READDIRPLUS);
        let (mut offset, mut size) = (0, 0);
        loop {
            let body = ReadIn { fh, offset, size: AT_ONCE, ..ReadIn::default() }.bytes();
            let opcode = if asks_more { Opcode::ReadDirPlus } else { Opcode::ReadDir };
            let piece = self.connection.ask(asker, opcode, node, &[&body])?;
            size += piece.len();
            if size > LISTING_MAX || piece.len() > AT_ONCE as usize {
                return Err(Errno::IO);
            }
            let next = match asks_more {
                true => reply::entries_found(&piece, listing, |node| self.connection.forget(node, 1))?,
                false => reply::entries(&piece, &mut listing.entries)?,
            };
            match next {
                Some(next) => offset = next,
                None => return Ok(()),
            }
            // fuse_use_readdirplus: the first piece, and more where somebody looks at what is in it, which is later here.
            asks_more &= !flags.contains(Init::READDIRPLUS_AUTO);
        }
    }
}
