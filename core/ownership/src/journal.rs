//! The journal `ownership.log`: changes since the database was last written, 64 bytes each.
//!
//! A change is in the page cache when its one write(2) has returned, so a killed process loses
//! nothing; a power cut loses at most what was not synced, and the checksum ends the journal there.
//! The checksum is seeded with the generation of the database the journal belongs to: what is left
//! of a journal that the database has taken in already never counts again.

use std::io::{self, Read};

use crate::object::Key;
use crate::record::{self, Record, KEY_LEN, VALUE_LEN};

pub(crate) const CHANGE_LEN: usize = 1 + KEY_LEN + VALUE_LEN + CHECKSUM_LEN;
const CHECKSUM_LEN: usize = 8;
const SET: u8 = 1;
const DELETE: u8 = 2;

/// One change. The same change twice is the change once, so a journal may be replayed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Set(Key, Record),
    Delete(Key),
}

/// Where the changes end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replayed {
    /// Bytes of whole changes.
    pub(crate) len: u64,
    pub(crate) tail: Tail,
}

/// What follows the last whole change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Clean,
    /// A torn change, or those of an earlier generation.
    Debris,
}

/// Hands all changes of `generation` to `each`, in order.
pub(crate) fn replay(mut file: impl Read, generation: u64, mut each: impl FnMut(Change)) -> io::Result<Replayed> {
    let mut len = 0;
    let mut bytes = Vec::with_capacity(CHANGE_LEN);
    loop {
        bytes.clear();
        let got = file.by_ref().take(64).read_to_end(&mut bytes)?;
        let tail = match bytes.first_chunk().and_then(|bytes| decode(bytes, generation)) {
            Some(change) => {
                each(change);
                len += 64;
                continue;
            }
            None if got == 0 => Tail::Clean,
            None => Tail::Debris,
        };
        return Ok(Replayed { len, tail });
    }
}

pub(crate) fn encode(change: &Change, generation: u64) -> [u8; CHANGE_LEN] {
    let (operation, key, value) = match change {
        Change::Set(key, record) => (SET, key, record::encode_value(record)),
        Change::Delete(key) => (DELETE, key, [0; VALUE_LEN]),
    };
    let mut bytes = [0; CHANGE_LEN];
    bytes[0] = operation;
    bytes[1..1 + KEY_LEN].copy_from_slice(&record::encode_key(key));
    bytes[1 + KEY_LEN..CHANGE_LEN - CHECKSUM_LEN].copy_from_slice(&value);
    let checksum = checksum(&bytes[..CHANGE_LEN - CHECKSUM_LEN], generation);
    bytes[CHANGE_LEN - CHECKSUM_LEN..].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; CHANGE_LEN], generation: u64) -> Option<Change> {
    let (body, sum) = bytes.split_last_chunk::<CHECKSUM_LEN>()?;
    if u64::from_le_bytes(*sum) != checksum(body, generation) {
        return None;
    }
    let (operation, body) = body.split_first()?;
    let (key, value) = body.split_at(KEY_LEN);
    let key = record::decode_key(key)?;
    match *operation {
        SET => Some(Change::Set(key, record::decode_value(value)?)),
        DELETE => Some(Change::Delete(key)),
        _ => None,
    }
}

/// 64-bit FNV-1a over the generation and the bytes.
fn checksum(bytes: &[u8], generation: u64) -> u64 {
    let seed = generation.to_le_bytes();
    seed.iter()
        .chain(bytes)
        .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{FakeKind, Override};
    use rustix::fs::FileType;

    fn changes() -> Vec<Change> {
        let shown = Override { uid: 1, gid: 2, mode: 0o777, kind: FakeKind::Same };
        let record = Record { shown, host_type: FileType::Symlink };
        let key = |ino| Key { dev: 0, ino, btime_ns: Some(1) };
        vec![Change::Set(key(1), record), Change::Set(key(2), record), Change::Delete(key(1))]
    }

    fn read(bytes: &[u8], generation: u64) -> (Vec<Change>, Replayed) {
        let mut read = Vec::new();
        let replayed = replay(bytes, generation, |change| read.push(change)).unwrap();
        (read, replayed)
    }

    #[test]
    fn a_journal_ends_at_the_first_damaged_change() {
        let written: Vec<u8> = changes().iter().flat_map(|change| encode(change, 4)).collect();
        assert_eq!(read(&written, 4), (changes(), Replayed { len: 192, tail: Tail::Clean }));
        for len in 0..written.len() {
            let whole = len / CHANGE_LEN;
            let (read, replayed) = read(&written[..len], 4);
            assert_eq!(read, changes()[..whole]);
            assert_eq!(replayed.tail == Tail::Clean, len % CHANGE_LEN == 0);
        }
        for at in 0..written.len() {
            let mut damaged = written.clone();
            damaged[at] ^= 0x10;
            let (read, replayed) = read(&damaged, 4);
            assert_eq!(read, changes()[..at / CHANGE_LEN], "byte {at}");
            assert_eq!(replayed.tail, Tail::Debris);
        }
    }

    #[test]
    fn a_journal_of_another_generation_does_not_count() {
        let written: Vec<u8> = changes().iter().flat_map(|change| encode(change, 4)).collect();
        assert_eq!(read(&written, 5), (vec![], Replayed { len: 0, tail: Tail::Debris }));
    }

    #[test]
    fn a_file_of_zeros_holds_no_changes() {
        assert_eq!(read(&[0; 640], 0).0, vec![]);
    }
}
