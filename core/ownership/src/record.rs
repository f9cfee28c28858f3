//! The bytes of one record in the journal and in the database: a key of 33 and a value of 22.
//!
//! Numbers are little endian, so that a layer can be carried to another machine.

use rustix::fs::FileType;

use crate::object::{FakeKind, Key, Override};

pub(crate) const KEY_LEN: usize = 33;
pub(crate) const VALUE_LEN: usize = 22;

/// An override together with the host's type of the object it was set on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) shown: Override,
    pub(crate) host_type: FileType,
}

pub(crate) fn encode_key(key: &Key) -> [u8; KEY_LEN] {
    let mut bytes = [0; KEY_LEN];
    bytes[0..8].copy_from_slice(&key.dev.to_le_bytes());
    bytes[8..16].copy_from_slice(&key.ino.to_le_bytes());
    if let Some(btime) = key.btime_ns {
        bytes[16..32].copy_from_slice(&btime.to_le_bytes());
        bytes[32] = 1;
    }
    bytes
}

/// Reads a key back; `None` when the bytes are not one.
pub(crate) fn decode_key(bytes: &[u8]) -> Option<Key> {
    let (dev, rest) = bytes.split_first_chunk()?;
    let (ino, rest) = rest.split_first_chunk()?;
    let (btime, rest) = rest.split_first_chunk()?;
    let btime_ns = match rest {
        [0] => None,
        [1] => Some(i128::from_le_bytes(*btime)),
        _ => return None,
    };
    Some(Key { dev: u64::from_le_bytes(*dev), ino: u64::from_le_bytes(*ino), btime_ns })
}

const TYPES: [FileType; 7] = [
    FileType::RegularFile,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::CharacterDevice,
    FileType::BlockDevice,
];

pub(crate) fn encode_value(record: &Record) -> [u8; VALUE_LEN] {
    let shown = &record.shown;
    let (kind, major, minor) = match shown.kind {
        FakeKind::Same => (0, 0, 0),
        FakeKind::CharDevice { major, minor } => (1, major, minor),
        FakeKind::BlockDevice { major, minor } => (2, major, minor),
        FakeKind::Fifo => (3, 0, 0),
        FakeKind::Socket => (4, 0, 0),
    };
    // A type outside the table is none that the kernel has; it reads back as damaged.
    let host_type = (0u8..).zip(TYPES).find(|(_, known)| *known == record.host_type);
    let mut bytes = [0; VALUE_LEN];
    bytes[0] = kind;
    bytes[1] = host_type.map_or(u8::MAX, |(number, _)| number);
    let numbers = [shown.uid, shown.gid, shown.mode, major, minor];
    for (place, number) in bytes[2..].chunks_exact_mut(4).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

/// Reads a value back; `None` when the bytes are not one.
pub(crate) fn decode_value(bytes: &[u8]) -> Option<Record> {
    let bytes: &[u8; VALUE_LEN] = bytes.try_into().ok()?;
    let [kind, host_type, numbers @ ..] = bytes;
    let mut fields = [0u32; 5];
    for (field, number) in fields.iter_mut().zip(numbers.chunks_exact(4)) {
        *field = u32::from_le_bytes(number.try_into().ok()?);
    }
    let [uid, gid, mode, major, minor] = fields;
    let kind = match kind {
        0 => FakeKind::Same,
        1 => FakeKind::CharDevice { major, minor },
        2 => FakeKind::BlockDevice { major, minor },
        3 => FakeKind::Fifo,
        4 => FakeKind::Socket,
        _ => return None,
    };
    let host_type = *TYPES.get(usize::from(*host_type))?;
    (mode <= 0o7777).then_some(Record { shown: Override { uid, gid, mode, kind }, host_type })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_read_back() {
        for btime_ns in [None, Some(0), Some(-1), Some(i128::from(i64::MAX) * 1_000_000_000)] {
            let key = Key { dev: 3, ino: u64::MAX, btime_ns };
            assert_eq!(decode_key(&encode_key(&key)), Some(key));
        }
        for host_type in TYPES {
            for kind in [
                FakeKind::Same,
                FakeKind::CharDevice { major: 1, minor: u32::MAX },
                FakeKind::BlockDevice { major: 8, minor: 1 },
                FakeKind::Fifo,
                FakeKind::Socket,
            ] {
                let shown = Override { uid: u32::MAX, gid: 5, mode: 0o7777, kind };
                let record = Record { shown, host_type };
                assert_eq!(decode_value(&encode_value(&record)), Some(record));
            }
        }
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let key = encode_key(&Key { dev: 1, ino: 2, btime_ns: None });
        assert_eq!(decode_key(&key[1..]), None);
        let mut flagged = key;
        flagged[32] = 2;
        assert_eq!(decode_key(&flagged), None);
        let shown = Override { uid: 0, gid: 0, mode: 0, kind: FakeKind::Same };
        let value = encode_value(&Record { shown, host_type: FileType::Symlink });
        assert_eq!(decode_value(&value[1..]), None);
        for (at, byte) in [(0, 5), (1, 7), (11, 0x80)] {
            let mut damaged = value;
            damaged[at] = byte;
            assert_eq!(decode_value(&damaged), None, "byte {at}");
        }
    }
}
