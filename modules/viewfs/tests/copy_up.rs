//! Copy-up: what a copy keeps, when it is made, and that nobody sees half of one.

mod bed;

use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

use bed::{attribute, picture, set_attribute, Bed};
use umvu_interface::{Creation, Errno, FileKind, OFlags, SetAttr, SetTime, Timestamp, XattrSet};

const PAST: Timestamp = Timestamp { seconds: 1_000_000_000, nanoseconds: 123_456_789 };

fn in_the_past(bed: &Bed, path: &str) {
    let time = rustix::fs::Timespec { tv_sec: PAST.seconds, tv_nsec: PAST.nanoseconds.into() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, bed.path(path), &times, flags).unwrap();
}

#[test]
fn a_copy_keeps_mode_times_and_attributes() {
    let bed = Bed::new();
    bed.file("lower/dir/file", "content");
    std::fs::set_permissions(bed.path("lower/dir/file"), PermissionsExt::from_mode(0o4751)).unwrap();
    std::fs::set_permissions(bed.path("lower/dir"), PermissionsExt::from_mode(0o1770)).unwrap();
    set_attribute(&bed.path("lower/dir/file"), "user.mine", b"value");
    set_attribute(&bed.path("lower/dir"), "user.mine", b"directory");
    in_the_past(&bed, "lower/dir/file");
    in_the_past(&bed, "lower/dir");
    let tree = bed.cow();
    let before = (tree.stat("dir"), tree.stat("dir/file"));
    tree.find("dir/file").unwrap().make_writable(&tree.caller()).unwrap();
    let upper = bed.path("upper/dir/file");
    assert_eq!(upper.metadata().unwrap().mode() & 0o7777, 0o4751);
    assert_eq!(attribute(&upper, "user.mine"), Some(b"value".to_vec()));
    assert_eq!(attribute(&bed.path("upper/dir"), "user.mine"), Some(b"directory".to_vec()));
    let after = (tree.stat("dir"), tree.stat("dir/file"));
    for (before, after) in [(before.0, after.0), (before.1, after.1)] {
        assert_eq!(before.mode, after.mode);
        assert_eq!((after.mtime, after.atime), (PAST, PAST));
        assert_eq!((before.uid, before.gid, before.ino), (after.uid, after.gid, after.ino));
    }
}

#[test]
fn a_copy_keeps_access_lists() {
    // Version 2, then user::rwx, user:1234:rw-, group::r--, mask::rw-, other::---.
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, bits, id) in
        [(1u16, 7u16, u32::MAX), (2, 6, 1234), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 0, u32::MAX)]
    {
        acl.extend(tag.to_le_bytes());
        acl.extend(bits.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let bed = Bed::new();
    bed.file("lower/dir/file", "x");
    set_attribute(&bed.path("lower/dir/file"), "system.posix_acl_access", &acl);
    set_attribute(&bed.path("lower/dir"), "system.posix_acl_default", &acl);
    let tree = bed.cow();
    tree.append("dir/file", "y").unwrap();
    assert_eq!(attribute(&bed.path("upper/dir/file"), "system.posix_acl_access"), Some(acl.clone()));
    assert_eq!(attribute(&bed.path("upper/dir"), "system.posix_acl_default"), Some(acl.clone()));
    // A new file inherits the list, also where a whiteout has stood.
    tree.rm("dir/file").unwrap();
    for path in ["dir/new", "dir/file"] {
        tree.write(path, "z").unwrap();
        assert!(tree.find(path).unwrap().get_xattr(b"system.posix_acl_access").is_ok(), "{path}");
    }
}

#[test]
fn a_directory_with_set_group_id_gives_its_group() {
    let bed = Bed::faked();
    bed.file("lower/dir/file", "x");
    let mut tree = bed.cow();
    tree.who = bed::faked(0);
    tree.set("dir", SetAttr { gid: Some(77), mode: Some(0o2775), ..SetAttr::default() }).unwrap();
    tree.rm("dir/file").unwrap();
    tree.write("dir/file", "x").unwrap();
    assert_eq!(tree.stat("dir/file").gid, 77);
    tree.rm("dir/file").unwrap();
    tree.mkdir("dir/file").unwrap();
    assert_eq!((tree.stat("dir/file").gid, tree.stat("dir/file").mode & 0o7777), (77, 0o2755));
}

#[test]
fn owners_that_are_faked_are_kept() {
    let bed = Bed::faked();
    bed.file("lower/file", "x");
    let mut tree = bed.cow();
    tree.who = bed::faked(0);
    let me = tree.stat("file").uid;
    tree.append("file", "y").unwrap();
    assert_eq!(tree.stat("file").uid, me, "the owner that the lower layer shows");
    tree.set("file", SetAttr { uid: Some(33), gid: Some(44), ..SetAttr::default() }).unwrap();
    assert_eq!((tree.stat("file").uid, tree.stat("file").gid), (33, 44));
    tree.mv("file", "moved").unwrap();
    assert_eq!(tree.stat("moved").uid, 33);
    tree.create("dev", Creation::CharDevice { mode: 0o666, rdev: rustix::fs::makedev(1, 3) }).unwrap();
    assert_eq!(tree.find("dev").unwrap().kind(), Ok(FileKind::CharDevice));
    assert_eq!(tree.ls("").unwrap(), ["dev", "moved"]);
}

#[test]
fn reading_copies_nothing_and_writing_only_what_is_written() {
    let bed = Bed::new();
    bed.file("lower/a/b/file", "content").file("lower/a/b/other", "x");
    let tree = bed.cow();
    assert_eq!(tree.read("a/b/file").unwrap(), "content");
    assert!(!bed.path("upper/a").exists());
    tree.open("a/b/file", OFlags::RDWR).unwrap();
    assert_eq!(std::fs::read_to_string(bed.path("upper/a/b/file")).unwrap(), "content");
    assert!(!bed.path("upper/a/b/other").exists());
}

#[test]
fn truncation_copies_no_more_than_is_kept() {
    let bed = Bed::new();
    bed.file("lower/trunc", "content").file("lower/short", "content");
    let tree = bed.cow();
    tree.open("trunc", OFlags::WRONLY | OFlags::TRUNC).unwrap();
    assert_eq!(tree.read("trunc").unwrap(), "");
    tree.set("short", SetAttr { size: Some(3), ..SetAttr::default() }).unwrap();
    assert_eq!(tree.read("short").unwrap(), "con");
    tree.set("short", SetAttr { size: Some(5), ..SetAttr::default() }).unwrap();
    assert_eq!(tree.read("short").unwrap(), "con\0\0");
}

#[test]
fn holes_stay_holes() {
    let bed = Bed::new();
    bed.dirs(&["lower"]);
    std::fs::File::create(bed.path("lower/sparse")).unwrap().set_len(64 << 20).unwrap();
    let tree = bed.cow();
    tree.append("sparse", "end").unwrap();
    let meta = bed.path("upper/sparse").metadata().unwrap();
    assert_eq!(meta.size(), (64 << 20) + 3);
    assert!(meta.blocks() < 1024);
}

#[test]
fn special_files_and_links_are_copied_as_what_they_are() {
    let bed = Bed::new();
    bed.dirs(&["lower"]);
    symlink("to/where", bed.path("lower/link")).unwrap();
    in_the_past(&bed, "lower/link");
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, bed.path("lower/fifo"), fifo, 0o640.into(), 0).unwrap();
    let tree = bed.cow();
    tree.mv("link", "moved").unwrap();
    tree.chmod("fifo", 0o600).unwrap();
    assert_eq!(tree.find("moved").unwrap().readlink().unwrap(), b"to/where");
    assert_eq!(tree.stat("moved").mtime, PAST);
    assert_eq!(tree.stat("fifo").mode, 0o010_600);
}

#[test]
fn opening_a_fifo_to_write_copies_nothing() {
    let bed = Bed::new();
    bed.dirs(&["lower"]);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, bed.path("lower/fifo"), fifo, 0o640.into(), 0).unwrap();
    let tree = bed.cow();
    tree.open("fifo", OFlags::RDWR | OFlags::NONBLOCK).unwrap();
    assert!(!bed.path("upper/fifo").exists());
}

#[test]
fn a_change_that_fails_copies_nothing() {
    let bed = Bed::new();
    bed.file("lower/file", "x");
    let tree = bed.cow();
    let file = tree.find("file").unwrap();
    assert_eq!(file.remove_xattr(&tree.caller(), b"user.none").err(), Some(Errno::NODATA));
    assert_eq!(file.set_xattr(&tree.caller(), b"user.none", b"", XattrSet::Replace).err(), Some(Errno::NODATA));
    assert!(!bed.path("upper/file").exists());
}

#[test]
fn a_reader_keeps_what_it_opened() {
    let bed = Bed::new();
    bed.file("lower/file", "old");
    let tree = bed.cow();
    let mut reader = tree.open("file", OFlags::RDONLY).unwrap();
    tree.write("file", "new").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).unwrap();
    assert_eq!(text, "old");
    assert_eq!(tree.read("file").unwrap(), "new");
}

#[test]
fn times_can_be_set_on_what_is_only_below() {
    let bed = Bed::new();
    bed.file("lower/file", "x");
    let tree = bed.cow();
    tree.set("file", SetAttr { mtime: SetTime::At(PAST), ..SetAttr::default() }).unwrap();
    assert_eq!(tree.stat("file").mtime, PAST);
    assert_eq!(tree.read("file").unwrap(), "x");
}

#[test]
fn what_a_crash_left_is_neither_seen_nor_kept() {
    let bed = Bed::new();
    bed.file("lower/file", "x");
    drop(bed.cow());
    // What a supervisor leaves that is killed while it copies: a file, and a directory, under names of the union.
    bed.file("upper/.wh..wh.umvu/#0", "half").file("upper/.wh..wh.umvu/#1/#2", "half");
    let tree = bed.cow();
    assert_eq!(tree.ls("").unwrap(), ["file"]);
    assert!(!tree.exists(".wh..wh.umvu"));
    assert_eq!(std::fs::read_dir(bed.path("upper/.wh..wh.umvu")).unwrap().count(), 0);
    tree.append("file", "y").unwrap();
    assert_eq!(tree.read("file").unwrap(), "xy");
    drop(tree);
    assert_eq!(picture(&bed.path("upper")).len(), 1, "only the file");
}

/// Runs the test of this name again in a process of its own, which survives files that grow too large.
fn in_own_process(name: &str, test: impl FnOnce()) {
    if std::env::var_os("UMVU_TEST_INNER").is_some() {
        return test();
    }
    let status = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("UMVU_TEST_INNER", "1")
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn a_copy_for_which_there_is_no_room_leaves_nothing() {
    in_own_process("a_copy_for_which_there_is_no_room_leaves_nothing", || {
        let bed = Bed::new();
        bed.file("lower/dir/big", &"0123456789".repeat(10_000)).file("lower/small", "x");
        let tree = bed.cow();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Fsize);
        let small = rustix::process::Rlimit { current: Some(50_000), ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, small).unwrap();
        assert_eq!(tree.append("dir/big", "more"), Err(Errno::FBIG));
        assert_eq!(tree.mv("dir/big", "moved"), Err(Errno::FBIG));
        assert_eq!(tree.chmod("dir/big", 0o600), Err(Errno::FBIG));
        assert_eq!(tree.ls("dir").unwrap(), ["big"]);
        assert_eq!(std::fs::read_dir(bed.path("upper/.wh..wh.umvu")).unwrap().count(), 0);
        assert!(!bed.path("upper/dir/big").exists() && !bed.path("upper/moved").exists());
        tree.append("small", "y").unwrap();
        assert_eq!(tree.read("small").unwrap(), "xy");
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
        tree.append("dir/big", "more").unwrap();
        assert_eq!(tree.stat("dir/big").size, 100_004);
    });
}
