//! The first request and what its answer settles. Knows nothing of how either travels.

use umvu_interface::{Errno, Result};

use super::PAYLOAD_MAX;
use crate::abi::{Init, InitIn, InitOut, Opcode, Wire, MAJOR, MINOR};

/// The oldest minor version that is spoken: all structures have had their sizes since.
const OLDEST_MINOR: u32 = 12;
/// Sizes of the answer in older versions: `FUSE_COMPAT_22_INIT_OUT_SIZE` and the present one.
const SHORT_ANSWER: usize = 24;

/// What both sides have settled.
#[derive(Clone, Copy, Debug)]
pub struct Negotiated {
    /// Minor version that both know.
    pub minor: u32,
    /// What both know.
    pub flags: Init,
    /// The most that one write carries, in bytes.
    pub max_write: usize,
    /// The most that one read carries, in bytes.
    pub max_read: usize,
}

/// What is offered: what the kernel offers, but for what only a kernel can do (splicing, device ioctls) and what the
/// view does itself (locks, access lists, masks).
fn offered() -> Init {
    Init::ASYNC_READ
        | Init::EXPORT_SUPPORT
        | Init::BIG_WRITES
        | Init::AUTO_INVAL_DATA
        | Init::DONT_MASK
        | Init::DO_READDIRPLUS
        | Init::READDIRPLUS_AUTO
        | Init::ASYNC_DIO
        | Init::WRITEBACK_CACHE
        | Init::NO_OPEN_SUPPORT
        | Init::PARALLEL_DIROPS
        | Init::MAX_PAGES
        | Init::CACHE_SYMLINKS
        | Init::NO_OPENDIR_SUPPORT
        | Init::EXPLICIT_INVAL_DATA
        | Init::SETXATTR_EXT
        | Init::INIT_EXT
        | Init::HAS_EXPIRE_ONLY
}

fn halves(flags: u64) -> (u32, u32) {
    let low = u32::try_from(flags & 0xffff_ffff).unwrap_or(0);
    (low, u32::try_from(flags >> 32).unwrap_or(0))
}

/// The request.
pub fn request(unique: u64) -> Vec<u8> {
    let (flags, flags2) = halves(offered().bits());
    let max_readahead = u32::try_from(PAYLOAD_MAX).unwrap_or(u32::MAX);
    let body = InitIn { major: MAJOR, minor: MINOR, max_readahead, flags, flags2, ..InitIn::default() };
    super::message(&super::Asker::default(), Opcode::Init, unique, 0, &[&body.bytes()]).unwrap_or_default()
}

impl Negotiated {
    /// Judges the answer: `process_init_reply` of `fs/fuse/inode.c`.
    ///
    /// # Errors
    /// - `ECONNREFUSED`: the server speaks another version, or none.
    pub fn of(answer: &[u8]) -> Result<Self> {
        let mut padded = answer.to_vec();
        if padded.len() < SHORT_ANSWER {
            return Err(Errno::CONNREFUSED);
        }
        padded.resize(InitOut::SIZE, 0);
        let out = InitOut::whole(&padded).ok_or(Errno::CONNREFUSED)?;
        if out.major != MAJOR || out.minor < OLDEST_MINOR {
            tracing::warn!(major = out.major, minor = out.minor, "a FUSE server speaks another version");
            return Err(Errno::CONNREFUSED);
        }
        let low = u64::from(out.flags);
        let extended = Init::from_bits_truncate(low).contains(Init::INIT_EXT);
        let high = if extended { u64::from(out.flags2) << 32 } else { 0 };
        let flags = Init::from_bits_truncate(low | high) & offered();
        let max_write = usize::try_from(out.max_write).unwrap_or(PAYLOAD_MAX).clamp(4096, PAYLOAD_MAX);
        Ok(Self { minor: out.minor.min(MINOR), flags, max_write, max_read: PAYLOAD_MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_offered_is_settled() {
        let out =
            InitOut { major: 7, minor: 99, flags: u32::MAX, flags2: u32::MAX, max_write: 1, ..InitOut::default() };
        let settled = Negotiated::of(&out.bytes()).unwrap();
        assert_eq!(settled.flags, offered());
        assert_eq!(settled.minor, MINOR);
        assert_eq!(settled.max_write, 4096);
    }

    #[test]
    fn short_answers_of_old_servers_are_understood() {
        let out = InitOut { major: 7, minor: 19, max_write: 1 << 20, ..InitOut::default() };
        let settled = Negotiated::of(&out.bytes()[..SHORT_ANSWER]).unwrap();
        assert_eq!((settled.minor, settled.max_write), (19, PAYLOAD_MAX));
    }

    #[test]
    fn other_versions_are_refused() {
        for (major, minor) in [(6, 40), (8, 0), (7, 8)] {
            let out = InitOut { major, minor, ..InitOut::default() };
            assert_eq!(Negotiated::of(&out.bytes()).err(), Some(Errno::CONNREFUSED));
        }
        assert_eq!(Negotiated::of(&[0; 8]).err(), Some(Errno::CONNREFUSED));
    }
}
