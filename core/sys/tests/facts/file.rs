//! Facts about marks, attributes, modes and directory entries.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};
use umvu_sys::file::{change_mode, get_xattr, getdents64, list_xattr, mark, remove_xattr, set_mark, set_xattr};
use umvu_sys::seccomp::CloseOnExec;
use umvu_sys::Errno;

use crate::guest::{call, file_from, readable, Guest, Scratch};

crate::facts![
    a_file_has_no_mark_at_first,
    a_mark_is_seen_through_duplicates_and_in_guests,
    a_mark_is_not_shared_by_another_opening,
    a_mark_is_the_number_of_a_signal,
    an_attribute_of_an_o_path_descriptor_is_kept,
    a_symbolic_link_has_no_user_attributes,
    the_attribute_of_a_link_is_not_that_of_its_target,
    the_mode_of_an_o_path_descriptor_is_changed,
    directory_entries_are_listed_to_the_end,
];

fn o_path(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn a_file_has_no_mark_at_first() {
    assert_eq!(mark(readable(b"").as_fd()), Ok(0));
}

fn a_mark_is_seen_through_duplicates_and_in_guests() {
    let file = readable(b"");
    set_mark(file.as_fd(), 33).unwrap();
    assert_eq!(mark(file.try_clone().unwrap().as_fd()), Ok(33));
    let guest = Guest::start(&[libc::SYS_getppid], || {
        let injected = file_from(call(libc::SYS_getppid, [0; 6]).unwrap());
        let duplicate = injected.try_clone().unwrap();
        i32::from(mark(injected.as_fd()) != Ok(33) || mark(duplicate.as_fd()) != Ok(33))
    });
    guest.listener.answer_with_fd(guest.next().id, file.as_fd(), CloseOnExec::Yes).unwrap();
    guest.ends_well();
    set_mark(file.as_fd(), 0).unwrap();
    assert_eq!(mark(file.as_fd()), Ok(0));
}

fn a_mark_is_not_shared_by_another_opening() {
    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    let (marked, other) = (File::create(&path).unwrap(), File::create(&path).unwrap());
    set_mark(marked.as_fd(), 64).unwrap();
    assert_eq!(mark(marked.as_fd()), Ok(64));
    assert_eq!(mark(other.as_fd()), Ok(0));
}

fn a_mark_is_the_number_of_a_signal() {
    let file = readable(b"");
    for number in [65, -1, i32::MAX, i32::MIN] {
        assert_eq!(set_mark(file.as_fd(), number), Err(Errno::INVAL), "{number}");
    }
    let scratch = Scratch::new();
    assert_eq!(mark(o_path(&scratch.0).as_fd()), Err(Errno::BADF));
    assert_eq!(set_mark(o_path(&scratch.0).as_fd(), 1), Err(Errno::BADF));
}

fn an_attribute_of_an_o_path_descriptor_is_kept() {
    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    let opened = File::create(&path).unwrap();
    for fd in [o_path(&path), o_path(&scratch.0), opened.into()] {
        let fd = fd.as_fd();
        let name = c"user.umvu.test";
        let mut buffer = [0; 64];
        assert_eq!(remove_xattr(fd, name).err().filter(|error| *error != Errno::NODATA), None);
        assert_eq!(get_xattr(fd, name, &mut buffer), Err(Errno::NODATA));
        set_xattr(fd, name, b"va\0lue", 0).unwrap();
        assert_eq!(get_xattr(fd, name, &mut buffer), Ok(6));
        assert_eq!(&buffer[..6], b"va\0lue");
        assert_eq!(get_xattr(fd, name, &mut []), Ok(6), "an empty buffer asks for the length");
        assert_eq!(get_xattr(fd, name, &mut [0; 5]), Err(Errno::RANGE));
        assert_eq!(set_xattr(fd, name, b"", XattrFlags::CREATE.bits()), Err(Errno::EXIST));
        assert_eq!(set_xattr(fd, name, b"", 1 << 30), Err(Errno::INVAL));
        let length = list_xattr(fd, &mut buffer).unwrap();
        assert!(buffer[..length].split(|&byte| byte == 0).any(|listed| listed == name.to_bytes()));
        assert_eq!(list_xattr(fd, &mut []), Ok(length));
        remove_xattr(fd, name).unwrap();
        assert_eq!(remove_xattr(fd, name), Err(Errno::NODATA));
    }
}

fn a_symbolic_link_has_no_user_attributes() {
    let scratch = Scratch::new();
    let path = scratch.0.join("link");
    symlink("nowhere", &path).unwrap();
    let link = o_path(&path);
    assert_eq!(set_xattr(link.as_fd(), c"user.umvu.test", b"x", 0), Err(Errno::PERM));
    assert_eq!(remove_xattr(link.as_fd(), c"user.umvu.test"), Err(Errno::PERM));
    assert_eq!(get_xattr(link.as_fd(), c"user.umvu.test", &mut [0; 9]), Err(Errno::NODATA));
}

fn the_attribute_of_a_link_is_not_that_of_its_target() {
    let scratch = Scratch::new();
    let (target, path) = (scratch.0.join("target"), scratch.0.join("link"));
    File::create(&target).unwrap();
    symlink("target", &path).unwrap();
    set_xattr(o_path(&target).as_fd(), c"user.umvu.test", b"x", 0).unwrap();
    assert_eq!(get_xattr(o_path(&path).as_fd(), c"user.umvu.test", &mut [0; 9]), Err(Errno::NODATA));
}

fn the_mode_of_an_o_path_descriptor_is_changed() {
    let scratch = Scratch::new();
    let path = scratch.0.join("file");
    File::create(&path).unwrap();
    let file = o_path(&path);
    // a mode of 0 must not lock us out either
    for mode in [0o640, 0, 0o1755, 0o600] {
        change_mode(file.as_fd(), mode).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
    let link = scratch.0.join("link");
    symlink("file", &link).unwrap();
    assert_eq!(change_mode(o_path(&link).as_fd(), 0o777), Err(Errno::OPNOTSUPP));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

fn directory_entries_are_listed_to_the_end() {
    let scratch = Scratch::new();
    let wanted: BTreeSet<Vec<u8>> = (0..100).map(|number| format!("entry-{number}").into_bytes()).collect();
    for name in &wanted {
        File::create(scratch.0.join(std::str::from_utf8(name).unwrap())).unwrap();
    }
    let directory = File::open(&scratch.0).unwrap();
    assert_eq!(getdents64(directory.as_fd(), &mut [0; 8]), Err(Errno::INVAL));
    let mut seen = BTreeSet::new();
    let mut buffer = [0; 512];
    loop {
        let length = getdents64(directory.as_fd(), &mut buffer).unwrap();
        if length == 0 {
            break;
        }
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            // struct linux_dirent64: d_reclen at 16, d_name at 19
            let record = usize::from(u16::from_ne_bytes([rest[16], rest[17]]));
            let name = rest[19..record].split(|&byte| byte == 0).next().unwrap().to_vec();
            assert!(seen.insert(name), "an entry is listed once");
            rest = &rest[record..];
        }
    }
    assert!(seen.remove(&b"."[..]) && seen.remove(&b".."[..]));
    assert_eq!(seen, wanted);
    assert_eq!(getdents64(readable(b"").as_fd(), &mut buffer), Err(Errno::NOTDIR));
    assert_eq!(getdents64(o_path(&scratch.0).as_fd(), &mut buffer), Err(Errno::BADF));
}
