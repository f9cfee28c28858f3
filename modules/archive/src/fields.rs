//! Numbers and pieces out of bytes of an image or archive, in the order they lie there. A read behind the end is `None`.

/// What has not been read yet.
#[derive(Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

macro_rules! number {
    ($name:ident, $type:ty, $from:ident) => {
        /// Takes a number.
        pub fn $name(&mut self) -> Option<$type> {
            self.bytes(size_of::<$type>()).and_then(|bytes| bytes.try_into().ok()).map(<$type>::$from)
        }
    };
}

impl<'a> Fields<'a> {
    /// Takes so many bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Passes over so many bytes.
    pub fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes(count).map(|_| ())
    }

    number!(u8, u8, from_le_bytes);
    number!(u16, u16, from_le_bytes);
    number!(u32, u32, from_le_bytes);
    number!(u64, u64, from_le_bytes);
    number!(i16, i16, from_le_bytes);
    number!(i32, i32, from_le_bytes);
}
