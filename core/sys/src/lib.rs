//! The only crate with unsafe code: typed, safe functions over the kernel interfaces that rustix and nix lack.
