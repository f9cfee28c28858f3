//! Copying the content of a file: shared where the host can, with its holes where it has some. Knows only
//! descriptors.

use std::os::fd::AsFd;

use rustix::fs::SeekFrom;
use umvu_interface::{Errno, Result};

/// Bytes that are copied at a time where the kernel cannot do it.
const CHUNK: usize = 128 * 1024;

/// Copies the first `length` bytes to an empty file.
pub(crate) fn copy(from: impl AsFd, to: impl AsFd, length: u64) -> Result<()> {
    let (from, to) = (from.as_fd(), to.as_fd());
    if is_whole(from, length)? && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => start.min(length),
            // Nothing but a hole follows.
            Err(Errno::NXIO) => break,
            // No holes are known.
            Err(Errno::INVAL) => at,
            Err(errno) => return Err(errno),
        };
        let end = match rustix::fs::seek(from, SeekFrom::Hole(start)) {
            Ok(end) => end.min(length),
            Err(_) => length,
        };
        if start >= end {
            break;
        }
        if !copy_range(from, to, start, end)? {
            break;
        }
        at = end;
    }
    rustix::fs::ftruncate(to, length)
}

fn is_whole(from: impl AsFd, length: u64) -> Result<bool> {
    Ok(u64::try_from(rustix::fs::fstat(from)?.st_size) == Ok(length))
}

/// Copies a range; gives whether all of it was there.
fn copy_range(from: impl AsFd, to: impl AsFd, start: u64, end: u64) -> Result<bool> {
    let (mut source, mut target) = (start, start);
    while source < end {
        let wanted = usize::try_from(end - source).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(&from, Some(&mut source), &to, Some(&mut target), wanted) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            // Across file systems, or where one has no such operation.
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF | Errno::PERM) => break,
            Err(errno) => return Err(errno),
        }
    }
    // Some file systems say that nothing is left where read(2) finds something: those of the kernel's own files.
    let mut buffer = vec![0; if source < end { CHUNK } else { 0 }];
    while source < end {
        let wanted = usize::try_from(end - source).unwrap_or(CHUNK).min(CHUNK);
        let count = match rustix::io::pread(&from, &mut buffer[..wanted], source) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut written = 0;
        while written < count {
            match rustix::io::pwrite(&to, &buffer[written..count], source) {
                Ok(more) => {
                    written += more;
                    source += u64::try_from(more).unwrap_or(0);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom as StdSeek, Write};

    fn file() -> std::fs::File {
        let directory = std::env::temp_dir();
        let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR;
        rustix::fs::open(directory, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap().into()
    }

    #[test]
    fn holes_stay_holes_and_the_end_is_cut() {
        let mut from = file();
        from.seek(StdSeek::Start(8 << 20)).unwrap();
        from.write_all(b"data").unwrap();
        from.set_len(16 << 20).unwrap();
        let mut to = file();
        copy(&from, &to, 16 << 20).unwrap();
        let stat = rustix::fs::fstat(&to).unwrap();
        assert_eq!(stat.st_size, 16 << 20);
        assert!(stat.st_blocks < 1024, "{} blocks", stat.st_blocks);
        let mut content = [0; 4];
        to.seek(StdSeek::Start(8 << 20)).unwrap();
        to.read_exact(&mut content).unwrap();
        assert_eq!(&content, b"data");

        let to = file();
        copy(&from, &to, (8 << 20) + 2).unwrap();
        assert_eq!(rustix::fs::fstat(&to).unwrap().st_size, (8 << 20) + 2);
    }
}
