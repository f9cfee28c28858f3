//! Archives and images: whatever a file holds, reading it ends, with a tree or a message, and in bounded memory.
#![no_main]

use std::io::Write;
use std::os::fd::AsRawFd;

use umvu_archive::{config_of, examine, Form, Format, Wanted};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd");
    let mut file = std::fs::File::from(file);
    file.write_all(bytes).expect("room");
    let wanted = Wanted { name: "fuzzed".to_owned(), form: Form::Any, tag: None, limit: 16 << 20, owner: (0, 0) };
    let zip = Wanted { form: Form::Archive(Format::Zip), ..wanted.clone() };
    let _ = file.try_clone().map(|file| examine(file, &zip));
    let _ = config_of(format!("/proc/self/fd/{}", file.as_raw_fd()).as_ref(), &wanted);
});
