//! Watches on files: inotify(7).

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at ANYONE {
        a_watched_directory_tells_of_new_files,
        a_watched_file_tells_of_writes,
        a_watch_ends_with_its_directory,
        a_watch_for_directories_alone_is_enotdir_for_a_file,
    }
}

fn instance() -> OwnedFd {
    works(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK))
}

/// The events there are, with the names they tell.
fn events(instance: &OwnedFd) -> Vec<(ReadFlags, String)> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(instance, &mut buffer);
    let mut found = Vec::new();
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((event.events(), name));
    }
    found
}

fn a_watched_directory_tells_of_new_files() {
    let instance = instance();
    // In a union, this one is of the lower layer so far.
    works(inotify::add_watch(&instance, ".", WatchFlags::CREATE | WatchFlags::DELETE));
    works(fs::write("file", b""));
    works(fs::create_dir("dir"));
    works(fs::remove_file("file"));
    let expected = [
        (ReadFlags::CREATE, "file".to_owned()),
        (ReadFlags::CREATE | ReadFlags::ISDIR, "dir".to_owned()),
        (ReadFlags::DELETE, "file".to_owned()),
    ];
    assert_eq!(events(&instance), expected);
}

fn a_watched_file_tells_of_writes() {
    works(fs::write("file", b""));
    let instance = instance();
    works(inotify::add_watch(&instance, "file", WatchFlags::MODIFY));
    works(fs::write("file", b"written"));
    assert!(events(&instance).iter().any(|(event, _)| event.contains(ReadFlags::MODIFY)));
}

fn a_watch_ends_with_its_directory() {
    works(fs::create_dir("dir"));
    let instance = instance();
    works(inotify::add_watch(&instance, "dir", WatchFlags::DELETE_SELF));
    works(fs::write("dir/file", b""));
    assert_eq!(works(fs::read_dir("dir")).count(), 1);
    works(fs::remove_file("dir/file"));
    works(fs::remove_dir("dir"));
    let expected = [(ReadFlags::DELETE_SELF, String::new()), (ReadFlags::IGNORED, String::new())];
    assert_eq!(events(&instance), expected);
}

fn a_watch_for_directories_alone_is_enotdir_for_a_file() {
    works(fs::write("file", b""));
    fails(Errno::NOTDIR, inotify::add_watch(instance(), "file", WatchFlags::MODIFY | WatchFlags::ONLYDIR));
    fails(Errno::NOENT, inotify::add_watch(instance(), "missing", WatchFlags::MODIFY));
}
