//! Overrides read from attributes of late, so that the directories on the way to everything are not read each time.
//!
//! Knows nothing of stores: an entry holds until the time of the object's last change, which any change of an
//! attribute moves, is another.

use std::sync::OnceLock;

use parking_lot::Mutex;
use rustix::fs::{Statx, StatxTimestamp};
use rustix::time::{clock_gettime, ClockId};
use umvu_interface::Result;
use umvu_ownership::{Key, Override};

const SLOTS: u64 = 512;

/// How long ago the last change has to be, in seconds, so that a later one has another time on every kernel and
/// file system that count fractions of a second.
const SETTLED: i64 = 2;

/// What the objects that share a slot showed last.
#[derive(Default)]
pub(crate) struct Seen {
    slots: OnceLock<Box<[Mutex<Option<Entry>>]>>,
}

struct Entry {
    key: Key,
    ctime: (i64, u32),
    found: Option<Override>,
}

impl Seen {
    /// Gives what the object showed last or, where that may have changed, what `read` gives. `host` describes it.
    pub(crate) fn get_or_read(
        &self,
        key: &Key,
        host: &Statx,
        read: impl FnOnce() -> Result<Option<Override>>,
    ) -> Result<Option<Override>> {
        let StatxTimestamp { tv_sec, tv_nsec, .. } = host.stx_ctime;
        // Held while reading: whoever changes the object meanwhile forgets it afterwards.
        let mut slot = self.slot(key).lock();
        if let Some(entry) = &*slot {
            if entry.key == *key && entry.ctime == (tv_sec, tv_nsec) {
                return Ok(entry.found);
            }
        }
        let found = read()?;
        // Without a time of birth another object may have the key; without a fraction the file system may count
        // whole seconds.
        let tells = key.btime_ns.is_some() && tv_nsec != 0;
        if tells && clock_gettime(ClockId::RealtimeCoarse).tv_sec - tv_sec >= SETTLED {
            *slot = Some(Entry { key: *key, ctime: (tv_sec, tv_nsec), found });
        }
        Ok(found)
    }

    /// Forgets what an object showed, after it has been made to show something else.
    pub(crate) fn forget(&self, key: &Key) {
        if self.slots.get().is_some() {
            let mut slot = self.slot(key).lock();
            if slot.as_ref().is_some_and(|entry| entry.key == *key) {
                *slot = None;
            }
        }
    }

    fn slot(&self, key: &Key) -> &Mutex<Option<Entry>> {
        let slots = self.slots.get_or_init(|| (0..SLOTS).map(|_| Mutex::new(None)).collect());
        let number = key.ino ^ key.ino.rotate_right(16) ^ key.dev;
        &slots[usize::try_from(number % SLOTS).unwrap_or(0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{statx, AtFlags, StatxFlags, CWD};
    use umvu_interface::Errno;
    use umvu_ownership::FakeKind;

    /// An object that was last changed long ago.
    fn settled() -> (Key, Statx) {
        let mut host = statx(CWD, "/", AtFlags::empty(), StatxFlags::BASIC_STATS).unwrap();
        host.stx_ctime.tv_sec = 1;
        host.stx_ctime.tv_nsec = 5;
        (Key { dev: 1, ino: 2, btime_ns: Some(3) }, host)
    }

    fn owner(uid: u32) -> Option<Override> {
        Some(Override { uid, gid: 0, mode: 0, kind: FakeKind::Same })
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let seen = Seen::default();
        let (key, host) = settled();
        assert_eq!(seen.get_or_read(&key, &host, || Err(Errno::IO)), Err(Errno::IO));
        assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(7))), Ok(owner(7)));
        assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(8))), Ok(owner(7)));
        let other = Key { btime_ns: Some(4), ..key };
        assert_eq!(seen.get_or_read(&other, &host, || Ok(None)), Ok(None));
        assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(9))), Ok(owner(9)));
    }

    #[test]
    fn what_changed_is_read_again() {
        let seen = Seen::default();
        let (key, mut host) = settled();
        assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(7))), Ok(owner(7)));
        seen.forget(&key);
        assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(8))), Ok(owner(8)));
        host.stx_ctime.tv_nsec = 6;
        assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(9))), Ok(owner(9)));
    }

    #[test]
    fn what_may_change_unnoticed_is_always_read() {
        let (key, host) = settled();
        let (mut recent, mut coarse) = (host, host);
        recent.stx_ctime.tv_sec = clock_gettime(ClockId::RealtimeCoarse).tv_sec;
        coarse.stx_ctime.tv_nsec = 0;
        let nameless = Key { btime_ns: None, ..key };
        for (key, host) in [(key, recent), (key, coarse), (nameless, host)] {
            let seen = Seen::default();
            assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(7))), Ok(owner(7)));
            assert_eq!(seen.get_or_read(&key, &host, || Ok(owner(8))), Ok(owner(8)));
        }
    }
}
