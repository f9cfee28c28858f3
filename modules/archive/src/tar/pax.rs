//! The records of extended headers: `LENGTH KEY=VALUE`, a newline behind each. Knows only some of the keys.

use umvu_interface::Timestamp;

use crate::entry::Xattr;

/// Under these keys stand extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

/// Records in their order.
#[derive(Clone, Debug, Default)]
pub struct Records(Vec<Xattr>);

impl Records {
    /// Takes them apart; none where a length is wrong.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !bytes.is_empty() {
            let blank = bytes.iter().position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
            let record = bytes.get(blank.checked_add(1)?..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            records.push((record[..equals].into(), record[equals + 1..].into()));
            bytes = &bytes[length..];
        }
        Some(Self(records))
    }

    /// Adds later ones.
    pub fn merge(&mut self, later: Self) {
        self.0.retain(|(key, _)| !later.0.iter().any(|(other, _)| other == key));
        self.0.extend(later.0);
    }

    /// The value of a key: the last one, and none where that is empty.
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let value = self.0.iter().rev().find(|(known, _)| **known == *key).map(|(_, value)| &**value);
        value.filter(|value| !value.is_empty())
    }

    /// All values of all keys, in their order.
    pub fn all(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The extended attributes.
    pub fn xattrs(&self) -> impl Iterator<Item = Xattr> + '_ {
        self.0.iter().filter_map(|(key, value)| {
            let name = key.strip_prefix(XATTR)?;
            // Names as xattr(7) has them.
            let is_name = name.contains(&b'.') && name.len() <= 255 && !name.contains(&0);
            is_name.then(|| (name.into(), value.clone()))
        })
    }
}

/// Reads a decimal number, of which a fraction does not count.
pub fn number(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    text.split('.').next()?.parse().ok()
}

/// Reads a time: seconds and a fraction.
pub fn time(text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    // A fraction of a time before 1970 goes further back.
    match whole.starts_with('-') && nanoseconds > 0 {
        true => Some(Timestamp { seconds: seconds.checked_sub(1)?, nanoseconds: 1_000_000_000 - nanoseconds }),
        false => Some(Timestamp { seconds, nanoseconds }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_newlines() {
        let records = Records::parse(b"27 SCHILY.xattr.user.a=1\n2\n12 path=abc\n").unwrap();
        assert_eq!(records.get(b"path"), Some(b"abc".as_slice()));
        let xattrs: Vec<_> = records.xattrs().collect();
        assert_eq!(xattrs, [(b"user.a".as_slice().into(), b"1\n2".as_slice().into())]);
    }

    #[test]
    fn wrong_lengths_are_noticed() {
        for bytes in ["99 path=a\n", "3 path=a\n", "x path=a\n", "0 a=b\n", "18446744073709551615 a=b\n", "5 a\n", "7"]
        {
            assert!(Records::parse(bytes.as_bytes()).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn times_have_fractions_and_may_be_before_1970() {
        assert_eq!(time(b"1.5"), Some(Timestamp { seconds: 1, nanoseconds: 500_000_000 }));
        assert_eq!(time(b"-1.25"), Some(Timestamp { seconds: -2, nanoseconds: 750_000_000 }));
        assert_eq!(time(b"7.0000000019"), Some(Timestamp { seconds: 7, nanoseconds: 1 }));
        assert_eq!(time(b"1.x"), None);
    }
}
