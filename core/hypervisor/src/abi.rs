//! Kernel structures as guests expect them in memory, byte by byte. Knows nothing of where they come from.

use umvu_interface::{FsStat, Result, Stat, Timestamp};
use umvu_table::i386::{Abi, Form};

use crate::abi_i386;
use crate::listing::MountNumbers;

/// A structure laid out for its reader, at most as long as the longest one.
pub struct Structure {
    bytes: [u8; 144],
    length: usize,
}

impl Structure {
    fn of(bytes: &[u8]) -> Self {
        let mut out = Self { bytes: [0; 144], length: bytes.len() };
        out.bytes[..bytes.len()].copy_from_slice(bytes);
        out
    }

    /// What is to be written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What stat(2) and its relatives write.
///
/// # Errors
/// - `EOVERFLOW`: a number does not fit into the form that a 32-bit program asked for.
pub fn stat_for(abi: Abi, s: &Stat) -> Result<Structure> {
    Ok(match abi {
        Abi::X86_64 => Structure::of(&stat(s)),
        Abi::I386(Form::First) => Structure::of(&abi_i386::first_stat(s)?),
        Abi::I386(Form::Narrow) => Structure::of(&abi_i386::narrow_stat(s)?),
        Abi::I386(Form::Wide) => Structure::of(&abi_i386::wide_stat(s)),
    })
}

/// What statfs(2) and its relatives write; `flags` are `ST_*`.
///
/// # Errors
/// - `EOVERFLOW`: a number does not fit into the form that a 32-bit program asked for.
pub fn statfs_for(abi: Abi, s: &FsStat, flags: u64) -> Result<Structure> {
    const VALID: u64 = 0x20;
    let flags = flags | VALID;
    Ok(match abi {
        Abi::X86_64 => Structure::of(&statfs(s, flags)),
        Abi::I386(Form::First | Form::Narrow) => Structure::of(&abi_i386::narrow_statfs(s, flags)?),
        Abi::I386(Form::Wide) => Structure::of(&abi_i386::wide_statfs(s, flags)?),
    })
}

/// Puts numbers at offsets of a structure of `N` bytes.
pub struct Bytes<const N: usize>(pub [u8; N]);

impl<const N: usize> Bytes<N> {
    /// All zero.
    pub fn new() -> Self {
        Self([0; N])
    }

    /// Puts a number at an offset; one that does not fit is the mistake of who declares the structure.
    pub fn put<const W: usize>(&mut self, at: usize, value: [u8; W]) {
        self.0[at..at + W].copy_from_slice(&value);
    }
}

fn time<const N: usize>(out: &mut Bytes<N>, at: usize, t: Timestamp) {
    out.put(at, t.seconds.to_ne_bytes());
    out.put(at + 8, u64::from(t.nanoseconds).to_ne_bytes());
}

/// `struct stat` of x86_64: `arch/x86/include/uapi/asm/stat.h`.
fn stat(s: &Stat) -> [u8; 144] {
    let mut out = Bytes::<144>::new();
    out.put(0, s.dev.to_ne_bytes());
    out.put(8, s.ino.to_ne_bytes());
    out.put(16, u64::from(s.nlink).to_ne_bytes());
    out.put(24, s.mode.to_ne_bytes());
    out.put(28, s.uid.to_ne_bytes());
    out.put(32, s.gid.to_ne_bytes());
    out.put(40, s.rdev.to_ne_bytes());
    out.put(48, s.size.to_ne_bytes());
    out.put(56, u64::from(s.blksize).to_ne_bytes());
    out.put(64, s.blocks.to_ne_bytes());
    time(&mut out, 72, s.atime);
    time(&mut out, 88, s.mtime);
    time(&mut out, 104, s.ctime);
    out.0
}

/// `struct statx` of `include/uapi/linux/stat.h`, with the basic fields, the birth time and the mount id, which is the
/// one that is never used again where `wanted` asks for that.
pub fn statx(s: &Stat, mount: MountNumbers, wanted: u32) -> [u8; 256] {
    const BASIC: u32 = 0x7ff;
    const BTIME: u32 = 0x800;
    const MNT_ID: u32 = 0x1000;
    const MNT_ID_UNIQUE: u32 = 0x4000;
    const MOUNT_ROOT: u64 = 0x2000;
    let mut out = Bytes::<256>::new();
    let (id_mask, mount_id) = match wanted & MNT_ID_UNIQUE {
        0 => (MNT_ID, mount.id),
        _ => (MNT_ID_UNIQUE, crate::listing::unique(mount.id)),
    };
    let mask = BASIC | id_mask | if s.btime.is_some() { BTIME } else { 0 };
    let attributes = match mount.is_root {
        Some(true) => s.attributes | MOUNT_ROOT,
        Some(false) => s.attributes & !MOUNT_ROOT,
        None => s.attributes,
    };
    out.put(0, mask.to_ne_bytes());
    out.put(4, s.blksize.to_ne_bytes());
    out.put(8, attributes.to_ne_bytes());
    out.put(16, s.nlink.to_ne_bytes());
    out.put(20, s.uid.to_ne_bytes());
    out.put(24, s.gid.to_ne_bytes());
    out.put(28, u16::try_from(s.mode & 0xffff).unwrap_or(0).to_ne_bytes());
    out.put(32, s.ino.to_ne_bytes());
    out.put(40, s.size.to_ne_bytes());
    out.put(48, s.blocks.to_ne_bytes());
    out.put(56, (s.attributes_mask | MOUNT_ROOT).to_ne_bytes());
    let mut stamp = |at: usize, t: Timestamp| {
        out.put(at, t.seconds.to_ne_bytes());
        out.put(at + 8, t.nanoseconds.to_ne_bytes());
    };
    stamp(64, s.atime);
    stamp(80, s.btime.unwrap_or_default());
    stamp(96, s.ctime);
    stamp(112, s.mtime);
    out.put(128, rustix::fs::major(s.rdev).to_ne_bytes());
    out.put(132, rustix::fs::minor(s.rdev).to_ne_bytes());
    out.put(136, rustix::fs::major(s.dev).to_ne_bytes());
    out.put(140, rustix::fs::minor(s.dev).to_ne_bytes());
    out.put(144, mount_id.to_ne_bytes());
    out.0
}

/// `struct statfs` of `include/uapi/asm-generic/statfs.h`.
fn statfs(s: &FsStat, flags: u64) -> [u8; 120] {
    let mut out = Bytes::<120>::new();
    let words = [s.magic, s.block_size, s.blocks, s.blocks_free, s.blocks_available, s.files, s.files_free];
    for (i, word) in words.into_iter().enumerate() {
        out.put(i * 8, word.to_ne_bytes());
    }
    out.put(56, s.fsid[0].to_ne_bytes());
    out.put(60, s.fsid[1].to_ne_bytes());
    out.put(64, s.name_max.to_ne_bytes());
    out.put(72, s.fragment_size.to_ne_bytes());
    out.put(80, flags.to_ne_bytes());
    out.0
}

#[cfg(test)]
mod tests {
    use std::mem::{offset_of, size_of};

    #[test]
    fn the_sizes_and_offsets_are_the_kernels() {
        assert_eq!(size_of::<libc::stat>(), 144);
        assert_eq!(offset_of!(libc::stat, st_mode), 24);
        assert_eq!(offset_of!(libc::stat, st_ctime), 104);
        assert_eq!(size_of::<libc::statx>(), 256);
        assert_eq!(offset_of!(libc::statx, stx_mode), 28);
        assert_eq!(offset_of!(libc::statx, stx_mtime), 112);
        assert_eq!(offset_of!(libc::statx, stx_dev_major), 136);
        assert_eq!(offset_of!(libc::statx, stx_mnt_id), 144);
        assert_eq!(size_of::<libc::statfs>(), 120);
    }
}
