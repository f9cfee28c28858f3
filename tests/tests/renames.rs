//! Moving names: rename(2) and the flags of renameat2(2).

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt};

use rustix::fs::{linkat, lstat, mkdir, rename, renameat_with, stat, AtFlags, Mode, RenameFlags, CWD};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at EVERYWHERE {
        rename_moves_a_file_with_its_inode,
        rename_replaces_a_file_at_once,
        rename_to_another_link_of_the_file_changes_nothing,
        rename_of_a_directory_keeps_what_is_inside,
        rename_replaces_an_empty_directory_alone,
        rename_of_a_file_over_a_directory_is_eisdir,
        rename_of_a_directory_over_a_file_is_enotdir,
        rename_into_itself_is_einval,
        rename_of_dot_is_ebusy,
        rename_of_a_link_moves_the_link,
        rename_with_trailing_slashes_wants_directories,
        rename_across_file_systems_is_exdev,
        rename_noreplace_refuses_what_exists,
        rename_exchange_swaps_any_two,
        rename_flags_are_checked_in_order,
        a_name_that_is_too_long_counts_after_the_directories,
    }
}

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn contents(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn inode(path: &str) -> u64 {
    works(lstat(path)).st_ino
}

fn listed(path: &str) -> Vec<String> {
    let mut names: Vec<_> =
        works(fs::read_dir(path)).flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn rename_moves_a_file_with_its_inode() {
    file("old");
    let before = inode("old");
    works(rename("old", "new"));
    assert_eq!(inode("new"), before);
    assert_eq!(contents("new"), "old");
    fails(Errno::NOENT, stat("old"));
    assert_eq!(listed("."), ["new"]);
    fails(Errno::NOENT, rename("old", "new"));
    fails(Errno::NOENT, rename("new", "missing/new"));
}

fn rename_replaces_a_file_at_once() {
    file("one");
    file("two");
    let replaced = works(fs::File::open("two"));
    works(rename("one", "two"));
    assert_eq!(contents("two"), "one");
    assert_eq!(works(replaced.metadata()).nlink(), 0);
    assert_eq!(listed("."), ["two"]);
}

fn rename_to_another_link_of_the_file_changes_nothing() {
    file("one");
    works(fs::hard_link("one", "two"));
    works(rename("one", "two"));
    assert_eq!(listed("."), ["one", "two"]);
    works(rename("one", "one"));
    assert_eq!(works(stat("one")).st_nlink, 2);
}

fn rename_of_a_directory_keeps_what_is_inside() {
    works(fs::create_dir_all("old/sub"));
    file("old/sub/file");
    works(mkdir("other", Mode::RWXU));
    works(rename("old", "other/new"));
    assert_eq!(contents("other/new/sub/file"), "old/sub/file");
    assert_eq!(inode("other/new/.."), inode("other"));
    fails(Errno::NOENT, stat("old"));
}

fn rename_replaces_an_empty_directory_alone() {
    works(mkdir("dir", Mode::RWXU));
    works(mkdir("empty", Mode::RWXU));
    works(fs::create_dir_all("full/sub"));
    fails(Errno::NOTEMPTY, rename("dir", "full"));
    works(rename("dir", "empty"));
    assert_eq!(listed("."), ["empty", "full"]);
    // The parent of what is moved is never empty.
    fails(Errno::NOTEMPTY, rename("full/sub", "full"));
}

fn rename_of_a_file_over_a_directory_is_eisdir() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::ISDIR, rename("file", "dir"));
}

fn rename_of_a_directory_over_a_file_is_enotdir() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::NOTDIR, rename("dir", "file"));
    fails(Errno::NOTDIR, rename("dir", "file/x"));
}

fn rename_into_itself_is_einval() {
    works(fs::create_dir_all("dir/sub"));
    fails(Errno::INVAL, rename("dir", "dir/sub/new"));
    fails(Errno::INVAL, rename("dir", "dir/new"));
    works(rename("dir", "dir"));
}

fn rename_of_dot_is_ebusy() {
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::BUSY, rename(".", "new"));
    fails(Errno::BUSY, rename("dir/..", "new"));
    fails(Errno::BUSY, rename("dir", "."));
    fails(Errno::BUSY, rename("/", "new"));
}

fn rename_of_a_link_moves_the_link() {
    file("file");
    works(symlink("file", "link"));
    works(rename("link", "moved"));
    assert!(works(fs::symlink_metadata("moved")).is_symlink());
    works(rename("file", "moved"));
    assert!(works(fs::symlink_metadata("moved")).is_file());
}

fn rename_with_trailing_slashes_wants_directories() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::NOTDIR, rename("file", "new/"));
    fails(Errno::NOTDIR, rename("file/", "new"));
    works(rename("dir/", "newdir/"));
    assert_eq!(listed("."), ["file", "newdir"]);
}

fn rename_across_file_systems_is_exdev() {
    file("file");
    let elsewhere = format!("/dev/shm/umvu-tests.{}", std::process::id());
    fails(Errno::XDEV, rename("file", elsewhere.as_str()));
    fails(Errno::XDEV, linkat(CWD, "file", CWD, elsewhere.as_str(), AtFlags::empty()));
    // Both parents are walked first; a missing source is told after them.
    fails(Errno::XDEV, rename("missing", elsewhere.as_str()));
    fails(Errno::NOENT, rename("file", "/dev/shm/missing/new"));
}

fn rename_noreplace_refuses_what_exists() {
    file("one");
    file("two");
    fails(Errno::EXIST, renameat_with(CWD, "one", CWD, "two", RenameFlags::NOREPLACE));
    fails(Errno::EXIST, renameat_with(CWD, "one", CWD, "one", RenameFlags::NOREPLACE));
    works(renameat_with(CWD, "one", CWD, "three", RenameFlags::NOREPLACE));
    assert_eq!(listed("."), ["three", "two"]);
}

fn rename_exchange_swaps_any_two() {
    file("file");
    works(fs::create_dir_all("dir/sub"));
    let (file_inode, dir_inode) = (inode("file"), inode("dir"));
    works(renameat_with(CWD, "file", CWD, "dir", RenameFlags::EXCHANGE));
    assert_eq!((inode("dir"), inode("file")), (file_inode, dir_inode));
    assert_eq!(listed("file"), ["sub"]);
    fails(Errno::NOENT, renameat_with(CWD, "file", CWD, "missing", RenameFlags::EXCHANGE));
    fails(Errno::INVAL, renameat_with(CWD, "file", CWD, "file/sub", RenameFlags::EXCHANGE));
}

fn rename_flags_are_checked_in_order() {
    file("file");
    let both = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    fails(Errno::INVAL, renameat_with(CWD, "missing", CWD, "new", both));
    fails(Errno::INVAL, renameat_with(CWD, "missing", CWD, "new", RenameFlags::from_bits_retain(8)));
    fails(Errno::INVAL, renameat_with(CWD, "missing", CWD, "new", RenameFlags::EXCHANGE | RenameFlags::WHITEOUT));
    fails(Errno::NOENT, renameat_with(CWD, "missing", CWD, "new", RenameFlags::empty()));
}

fn a_name_that_is_too_long_counts_after_the_directories() {
    let long = "x".repeat(256);
    file("f");
    works(mkdir("d", Mode::RWXU));
    for (from, to, errno) in [
        ("f", long.as_str(), Errno::NAMETOOLONG),
        (long.as_str(), "f", Errno::NAMETOOLONG),
        ("missing", long.as_str(), Errno::NOENT),
        (long.as_str(), "missing/x", Errno::NOENT),
        ("missing/x", long.as_str(), Errno::NOENT),
        ("d/.", long.as_str(), Errno::BUSY),
        (long.as_str(), "d/..", Errno::BUSY),
    ] {
        fails(errno, rename(from, to));
    }
    fails(Errno::EXIST, renameat_with(CWD, &long, CWD, "d/.", RenameFlags::NOREPLACE));
    fails(Errno::NAMETOOLONG, linkat(CWD, "f", CWD, &long, AtFlags::empty()));
    fails(Errno::NAMETOOLONG, mkdir(&long, Mode::RWXU));
    fails(Errno::NAMETOOLONG, rustix::fs::rmdir(&long));
    fails(Errno::NAMETOOLONG, rustix::fs::unlink(&long));
    let create = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::WRONLY;
    fails(Errno::NAMETOOLONG, rustix::fs::open(&long, create, Mode::RUSR));
}
