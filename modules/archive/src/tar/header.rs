//! The fields of a header block. Knows nothing of the blocks around it.

/// Length of a block, in bytes.
pub const BLOCK: usize = 512;

/// Where a field is.
#[derive(Clone, Copy)]
pub struct Field(usize, usize);

/// A header.
pub struct Header([u8; BLOCK]);

impl Header {
    pub const MODE: Field = Field(100, 8);
    pub const UID: Field = Field(108, 8);
    pub const GID: Field = Field(116, 8);
    pub const SIZE: Field = Field(124, 12);
    pub const MTIME: Field = Field(136, 12);
    const SUM: Field = Field(148, 8);
    const MAJOR: Field = Field(329, 8);
    const MINOR: Field = Field(337, 8);
    /// Size of a sparse file with its holes, in GNU's form.
    pub const REAL_SIZE: Field = Field(483, 12);

    /// Takes a block.
    pub fn of(block: [u8; BLOCK]) -> Self {
        Self(block)
    }

    /// The block.
    pub fn bytes(&self) -> &[u8; BLOCK] {
        &self.0
    }

    /// Whether the sum of all bytes, those of the sum itself counted as blanks, is as written; some programs of old
    /// took bytes for signed.
    pub fn checksum_is_right(&self) -> bool {
        let Some(written) = self.number(Self::SUM) else { return false };
        let Field(start, length) = Self::SUM;
        let bytes = |index: usize, byte: u8| if (start..start + length).contains(&index) { b' ' } else { byte };
        let all = || self.0.iter().enumerate().map(|(index, byte)| bytes(index, *byte));
        let unsigned: i64 = all().map(i64::from).sum();
        let signed: i64 = all().map(|byte| i64::from(i8::from_ne_bytes([byte]))).sum();
        written == unsigned || written == signed
    }

    /// What kind of entry it is.
    pub fn typeflag(&self) -> u8 {
        self.0[156]
    }

    /// The size, if it is one.
    pub fn size(&self) -> Option<u64> {
        u64::try_from(self.number(Self::SIZE)?).ok()
    }

    /// A number of the header.
    pub fn number(&self, field: Field) -> Option<i64> {
        number(self.0.get(field.0..field.0 + field.1)?)
    }

    fn is_ustar(&self) -> bool {
        // GNU has blanks where POSIX has a NUL and the version, and other things where POSIX has the prefix.
        &self.0[257..263] == b"ustar\0"
    }

    /// The path.
    pub fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let prefix = text(&self.0[345..500]);
        match self.is_ustar() && !prefix.is_empty() {
            true => [prefix, b"/", name].concat(),
            false => name.to_vec(),
        }
    }

    /// What a link leads to.
    pub fn link(&self) -> Vec<u8> {
        text(&self.0[157..257]).to_vec()
    }

    /// The number of a device, as encoded by makedev(3).
    pub fn device(&self) -> Option<u64> {
        let part = |field| u32::try_from(self.number(field)?).ok();
        Some(rustix::fs::makedev(part(Self::MAJOR)?, part(Self::MINOR)?))
    }
}

/// What stands before the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Reads a number: octal digits between blanks and NULs, or, where the first bit is set, two's complement of the
/// other bits with the highest byte first.
pub fn number(field: &[u8]) -> Option<i64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        // The bit of the sign is the second one.
        let mut value = i128::from(first & 0x3f) - if negative { 0x40 } else { 0 };
        for byte in rest {
            value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
        }
        return i64::try_from(value).ok();
    }
    let is_pad = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !is_pad(byte)).unwrap_or(field.len());
    let digits = field[start..].split(is_pad).next().unwrap_or_default();
    digits.iter().try_fold(0i64, |value, digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b" 644 \0\0\0"), Some(0o644));
        assert_eq!(number(b"\0\0\0\0"), Some(0));
        assert_eq!(number(b"0000689\0"), None);
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(number(&[0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
