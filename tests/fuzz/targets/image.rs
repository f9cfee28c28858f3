//! Images of file systems: whatever an image holds, what there is a driver for is read to an end. Panics of the libraries
//! rsext4 and erofs-rs are contained where images are mounted, and are no finding here.
#![no_main]

use std::io::Write;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Once};

use umvu_driver::FileStorage;

static QUIET: Once = Once::new();

/// Where ext has its magic number, and erofs.
const OF_LIBRARIES: [(usize, &[u8]); 2] = [(1080, &[0x53, 0xef]), (1024, &[0xe2, 0xe1, 0xf5, 0xe0])];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // libFuzzer's own hook ends the process at a panic that would be caught.
    QUIET.call_once(|| drop(std::panic::take_hook()));
    let file = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).expect("room");
    let size = bytes.len() as u64;
    let is_contained = OF_LIBRARIES.iter().any(|(at, magic)| bytes.get(*at..).is_some_and(|b| b.starts_with(magic)));
    let storage = Arc::new(FileStorage::new(file, 0, size, true));
    match catch_unwind(AssertUnwindSafe(|| umvu_vufuse::examine(storage))) {
        Err(_) if !is_contained => std::process::abort(),
        _ => {}
    }
});
