//! How numbers and structures lie in a message: in the order of the machine, padded as declared. Knows no structure.

/// Something of a fixed size in a message.
pub trait Wire: Sized {
    /// Its size in bytes.
    const SIZE: usize;

    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);

    /// Takes it off the front; `None` where that is too short.
    fn take(from: &mut &[u8]) -> Option<Self>;

    /// Gives its bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Self::SIZE);
        self.put(&mut out);
        out
    }

    /// Takes it from bytes that hold it and nothing else.
    fn whole(mut from: &[u8]) -> Option<Self> {
        let value = Self::take(&mut from)?;
        from.is_empty().then_some(value)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Wire for $number {
            const SIZE: usize = size_of::<$number>();

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_ne_bytes());
            }

            fn take(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_ne_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u16, u32, u64, i32, i64);

impl<T: Wire + Copy + Default, const N: usize> Wire for [T; N] {
    const SIZE: usize = T::SIZE * N;

    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|part| part.put(out));
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        let mut parts = [T::default(); N];
        for part in &mut parts {
            *part = T::take(from)?;
        }
        Some(parts)
    }
}

/// Declares structures with the names that the kernel has for them and their fields.
macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident = $kernel:literal { $($field:ident: $kind:ty),* $(,)? })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            #[allow(missing_docs)]
            pub struct $name { $(pub $field: $kind),* }

            impl $crate::abi::Wire for $name {
                const SIZE: usize = 0 $(+ <$kind as $crate::abi::Wire>::SIZE)*;

                fn put(&self, out: &mut Vec<u8>) {
                    $($crate::abi::Wire::put(&self.$field, out);)*
                }

                fn take(from: &mut &[u8]) -> Option<Self> {
                    Some(Self { $($field: $crate::abi::Wire::take(from)?),* })
                }
            }
        )*

        /// All structures: the kernel's name, the size, and the fields with their offsets.
        #[cfg(test)]
        pub fn layout() -> Vec<(&'static str, usize, Vec<(&'static str, usize)>)> {
            vec![$({
                let mut at = 0;
                let fields = vec![$((stringify!($field), {
                    let here = at;
                    at += <$kind as $crate::abi::Wire>::SIZE;
                    here
                })),*];
                ($kernel, at, fields)
            }),*]
        }
    };
}

pub(super) use structures;
