//! Kernel structures as 32-bit programs expect them in memory, byte by byte. Knows nothing of where they come from.
//!
//! Numbers that do not fit are `EOVERFLOW`, or cut off, as the kernel does for each.

use umvu_interface::{DirEntry, Errno, FsStat, Result, Stat, Timestamp};
use umvu_table::i386::short_id;

use crate::abi::Bytes;

/// `MAX_NON_LFS` of linux/fs.h: what a file can have without `O_LARGEFILE`, in bytes.
pub const LARGEST_SMALL_FILE: u64 = (1 << 31) - 1;

/// A number of which 32 bits are kept.
fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}

/// A number that must fit.
fn whole(value: u64) -> Result<u32> {
    u32::try_from(value).map_err(|_| Errno::OVERFLOW)
}

fn seconds(time: Timestamp) -> u32 {
    low(u64::from_ne_bytes(time.seconds.to_ne_bytes()))
}

/// `new_encode_dev` of linux/kdev_t.h.
fn device(device: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// `old_encode_dev` of linux/kdev_t.h.
fn old_device(device: u64) -> u16 {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    u16::try_from(((major << 8) | minor) & 0xffff).unwrap_or(0)
}

fn mode(stat: &Stat) -> u16 {
    u16::try_from(stat.mode & 0xffff).unwrap_or(0)
}

/// `struct __old_kernel_stat` of arch/x86/include/uapi/asm/stat.h: `cp_old_stat` of `fs/stat.c`.
///
/// # Errors
/// - `EOVERFLOW`: the inode or link number has more than 16 bits.
pub fn first_stat(s: &Stat) -> Result<[u8; 32]> {
    let short = |value: u64| u16::try_from(value).map_err(|_| Errno::OVERFLOW);
    let mut out = Bytes::<32>::new();
    out.put(0, old_device(s.dev).to_ne_bytes());
    out.put(2, short(s.ino)?.to_ne_bytes());
    out.put(4, mode(s).to_ne_bytes());
    out.put(6, short(u64::from(s.nlink))?.to_ne_bytes());
    out.put(8, short_id(s.uid).to_ne_bytes());
    out.put(10, short_id(s.gid).to_ne_bytes());
    out.put(12, old_device(s.rdev).to_ne_bytes());
    out.put(16, low(s.size).to_ne_bytes());
    out.put(20, seconds(s.atime).to_ne_bytes());
    out.put(24, seconds(s.mtime).to_ne_bytes());
    out.put(28, seconds(s.ctime).to_ne_bytes());
    Ok(out.0)
}

/// `struct compat_stat` of arch/x86/include/asm/compat.h: `cp_compat_stat` of `fs/stat.c`.
///
/// # Errors
/// - `EOVERFLOW`: an inode number of more than 32 bits, more than 65,535 links, or a size above [`LARGEST_SMALL_FILE`].
pub fn narrow_stat(s: &Stat) -> Result<[u8; 64]> {
    let mut out = Bytes::<64>::new();
    out.put(0, device(s.dev).to_ne_bytes());
    out.put(4, whole(s.ino)?.to_ne_bytes());
    out.put(8, mode(s).to_ne_bytes());
    out.put(10, u16::try_from(s.nlink).map_err(|_| Errno::OVERFLOW)?.to_ne_bytes());
    out.put(12, short_id(s.uid).to_ne_bytes());
    out.put(14, short_id(s.gid).to_ne_bytes());
    out.put(16, device(s.rdev).to_ne_bytes());
    if s.size > LARGEST_SMALL_FILE {
        return Err(Errno::OVERFLOW);
    }
    out.put(20, low(s.size).to_ne_bytes());
    out.put(24, s.blksize.to_ne_bytes());
    out.put(28, low(s.blocks).to_ne_bytes());
    times(&mut out, 32, s);
    Ok(out.0)
}

/// `struct stat64` of arch/x86/include/asm/ia32.h: `cp_stat64` of `arch/x86/kernel/sys_ia32.c`.
pub fn wide_stat(s: &Stat) -> [u8; 96] {
    let mut out = Bytes::<96>::new();
    out.put(0, u64::from(device(s.dev)).to_ne_bytes());
    out.put(12, low(s.ino).to_ne_bytes());
    out.put(16, s.mode.to_ne_bytes());
    out.put(20, s.nlink.to_ne_bytes());
    out.put(24, s.uid.to_ne_bytes());
    out.put(28, s.gid.to_ne_bytes());
    out.put(32, u64::from(device(s.rdev)).to_ne_bytes());
    out.put(44, s.size.to_ne_bytes());
    out.put(52, s.blksize.to_ne_bytes());
    out.put(56, s.blocks.to_ne_bytes());
    times(&mut out, 64, s);
    out.put(88, s.ino.to_ne_bytes());
    out.0
}

fn times<const N: usize>(out: &mut Bytes<N>, at: usize, s: &Stat) {
    for (index, time) in [s.atime, s.mtime, s.ctime].into_iter().enumerate() {
        out.put(at + 8 * index, seconds(time).to_ne_bytes());
        out.put(at + 8 * index + 4, time.nanoseconds.to_ne_bytes());
    }
}

/// `struct compat_statfs` of asm-generic/compat.h: `put_compat_statfs` of `fs/statfs.c`.
///
/// # Errors
/// - `EOVERFLOW`: a number has more than 32 bits.
pub fn narrow_statfs(s: &FsStat, flags: u64) -> Result<[u8; 64]> {
    // Unknown numbers of files are all ones.
    let files = |value: u64| if value == u64::MAX { Ok(u32::MAX) } else { whole(value) };
    let mut out = Bytes::<64>::new();
    let words = [
        low(s.magic),
        whole(s.block_size)?,
        whole(s.blocks)?,
        whole(s.blocks_free)?,
        whole(s.blocks_available)?,
        files(s.files)?,
        files(s.files_free)?,
    ];
    for (index, word) in words.into_iter().enumerate() {
        out.put(4 * index, word.to_ne_bytes());
    }
    out.put(28, s.fsid[0].to_ne_bytes());
    out.put(32, s.fsid[1].to_ne_bytes());
    out.put(36, low(s.name_max).to_ne_bytes());
    out.put(40, whole(s.fragment_size)?.to_ne_bytes());
    out.put(44, low(flags).to_ne_bytes());
    Ok(out.0)
}

/// `struct compat_statfs64` of asm-generic/statfs.h, packed: `put_compat_statfs64` of `fs/statfs.c`.
///
/// # Errors
/// - `EOVERFLOW`: a size of blocks has more than 32 bits.
pub fn wide_statfs(s: &FsStat, flags: u64) -> Result<[u8; WIDE_STATFS]> {
    let mut out = Bytes::<WIDE_STATFS>::new();
    out.put(0, low(s.magic).to_ne_bytes());
    out.put(4, whole(s.block_size)?.to_ne_bytes());
    let words = [s.blocks, s.blocks_free, s.blocks_available, s.files, s.files_free];
    for (index, word) in words.into_iter().enumerate() {
        out.put(8 + 8 * index, word.to_ne_bytes());
    }
    out.put(48, s.fsid[0].to_ne_bytes());
    out.put(52, s.fsid[1].to_ne_bytes());
    out.put(56, low(s.name_max).to_ne_bytes());
    out.put(60, whole(s.fragment_size)?.to_ne_bytes());
    out.put(64, low(flags).to_ne_bytes());
    Ok(out.0)
}

/// `sizeof(struct compat_statfs64)`, which statfs64(2) is told.
pub const WIDE_STATFS: usize = 84;

/// A resource limit of 32 bits; a larger one is none: `compat_sys_getrlimit` of `kernel/sys.c`.
pub fn limit(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A resource limit as the first getrlimit(2) tells it, where none is the largest signed number.
pub fn first_limit(value: u64) -> u32 {
    const NONE: u32 = 0x7fff_ffff;
    u32::try_from(value).unwrap_or(NONE).min(NONE)
}

/// Appends a `struct compat_linux_dirent` with its type, if it fits in `size` bytes: `compat_filldir` of
/// `fs/readdir.c`.
///
/// # Errors
/// - `EOVERFLOW`: the inode number has more than 32 bits.
pub fn append_entry(out: &mut Vec<u8>, entry: &DirEntry, next: usize, size: usize) -> Result<bool> {
    const NAME_AT: usize = 10;
    let length = (NAME_AT + entry.name.len() + 2).next_multiple_of(4);
    if out.len() + length > size {
        return Ok(false);
    }
    let start = out.len();
    out.extend_from_slice(&whole(entry.ino)?.to_ne_bytes());
    out.extend_from_slice(&low(next as u64).to_ne_bytes());
    out.extend_from_slice(&u16::try_from(length).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(&entry.name);
    out.resize(start + length, 0);
    out[start + length - 1] = entry.dirent_type;
    Ok(true)
}

/// `struct compat_old_linux_dirent`, one entry: `compat_fillonedir` of `fs/readdir.c`.
///
/// # Errors
/// - `EOVERFLOW`: the inode number has more than 32 bits.
pub fn one_entry(entry: &DirEntry, at: usize) -> Result<Vec<u8>> {
    let mut out = whole(entry.ino)?.to_ne_bytes().to_vec();
    out.extend_from_slice(&low(at as u64).to_ne_bytes());
    out.extend_from_slice(&u16::try_from(entry.name.len()).unwrap_or(0).to_ne_bytes());
    out.extend_from_slice(&entry.name);
    out.push(0);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat() -> Stat {
        let time = Timestamp { seconds: -1, nanoseconds: 7 };
        Stat {
            dev: rustix::fs::makedev(8, 0x12345),
            ino: 0x1_0000_0002,
            mode: 0o100_644,
            nlink: 3,
            uid: 70000,
            gid: 5,
            size: LARGEST_SMALL_FILE,
            atime: time,
            mtime: time,
            ctime: time,
            ..Stat::default()
        }
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let stat = stat();
        assert_eq!(narrow_stat(&stat), Err(Errno::OVERFLOW));
        assert_eq!(first_stat(&stat), Err(Errno::OVERFLOW));
        assert_eq!(narrow_stat(&Stat { ino: 2, size: LARGEST_SMALL_FILE + 1, ..stat.clone() }), Err(Errno::OVERFLOW));
        assert_eq!(narrow_stat(&Stat { ino: 2, nlink: 65536, ..stat }), Err(Errno::OVERFLOW));
    }

    #[test]
    fn numbers_stand_where_32_bit_programs_look() {
        let stat = stat();
        let wide = wide_stat(&stat);
        assert_eq!(wide[0..8], 0x1230_0845_u64.to_ne_bytes());
        assert_eq!((&wide[12..16], &wide[88..96]), (&2_u32.to_ne_bytes()[..], &stat.ino.to_ne_bytes()[..]));
        assert_eq!((wide[24..28].to_vec(), wide[64..68].to_vec()), (70000_u32.to_ne_bytes().into(), vec![0xff; 4]));
        let narrow = narrow_stat(&Stat { ino: 2, ..stat.clone() }).unwrap();
        assert_eq!((&narrow[12..14], &narrow[14..16]), (&65534_u16.to_ne_bytes()[..], &5_u16.to_ne_bytes()[..]));
        assert_eq!((&narrow[20..24], &narrow[36..40]), (&i32::MAX.to_ne_bytes()[..], &7_u32.to_ne_bytes()[..]));
        let first = first_stat(&Stat { ino: 2, ..stat }).unwrap();
        assert_eq!((&first[2..4], &first[16..20]), (&2_u16.to_ne_bytes()[..], &i32::MAX.to_ne_bytes()[..]));
    }

    #[test]
    fn entries_are_aligned_and_end_in_their_type() {
        let entry = DirEntry { name: b"abc".as_slice().into(), ino: 9, dirent_type: 8 };
        let mut out = Vec::new();
        assert_eq!(append_entry(&mut out, &entry, 4, 16), Ok(true));
        assert_eq!(append_entry(&mut out, &entry, 5, 31), Ok(false));
        assert_eq!(
            out,
            [&9_u32.to_ne_bytes()[..], &4_u32.to_ne_bytes(), &16_u16.to_ne_bytes(), b"abc\0\0\x08"].concat()
        );
        let large = DirEntry { ino: 1 << 32, ..entry };
        assert_eq!(append_entry(&mut out, &large, 5, 64), Err(Errno::OVERFLOW));
    }

    #[test]
    fn limits_that_do_not_fit_are_none() {
        assert_eq!((limit(5), limit(u64::MAX), limit(1 << 32)), (5, u32::MAX, u32::MAX));
        assert_eq!((first_limit(5), first_limit(u64::MAX), first_limit(0x8000_0000)), (5, 0x7fff_ffff, 0x7fff_ffff));
    }
}
