//! Making, moving and removing names: link, unlink, rename, mkdir, rmdir, symlink, mknod.

use std::fs;
use std::os::unix::fs::{symlink, FileTypeExt, PermissionsExt};

use rustix::fs::{
    linkat, lstat, mkdir, mknodat, open, rename, rmdir, stat, unlink, unlinkat, AtFlags, FileType, Mode, OFlags, CWD,
};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at EVERYWHERE {
        link_makes_a_second_name,
        link_refuses_directories_and_what_exists,
        link_of_a_link_is_the_link_unless_followed,
        unlink_refuses_directories,
        unlink_of_one_name_keeps_the_other,
        rmdir_refuses_what_is_not_an_empty_directory,
        rmdir_of_dot_is_einval_and_of_dot_dot_enotempty,
        unlinkat_removes_directories_if_asked,
        mkdir_refuses_what_exists,
        a_removed_and_made_directory_is_empty,
        a_moved_away_name_is_gone,
        a_directory_counts_its_subdirectories,
        fifos_and_sockets_are_made_by_mknod,
        mknod_of_a_directory_is_refused,
        times_of_the_directory_change_with_its_names,
        a_deep_tree_is_made_and_removed,
        a_thousand_names_are_made_listed_and_removed,
    }
    in_guest at USER {
        names_in_a_write_protected_directory_are_eacces,
        a_device_node_is_eperm,
        the_sticky_directory_of_others_is_respected,
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

fn link_makes_a_second_name() {
    file("one");
    works(fs::hard_link("one", "two"));
    assert_eq!(inode("one"), inode("two"));
    assert_eq!(works(stat("one")).st_nlink, 2);
    works(fs::write("two", b"changed"));
    assert_eq!(contents("one"), "changed");
}

fn link_refuses_directories_and_what_exists() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    let link = |old: &str, new: &str| linkat(CWD, old, CWD, new, AtFlags::empty());
    fails(Errno::PERM, link("dir", "new"));
    fails(Errno::EXIST, link("file", "dir"));
    fails(Errno::EXIST, link("file", "file"));
    fails(Errno::NOENT, link("missing", "new"));
    fails(Errno::NOENT, link("missing", "dir"));
    fails(Errno::NOTDIR, link("file/x", "new"));
    fails(Errno::NOENT, link("file", "new/"));
}

fn link_of_a_link_is_the_link_unless_followed() {
    file("file");
    works(symlink("file", "link"));
    works(linkat(CWD, "link", CWD, "second", AtFlags::empty()));
    assert!(works(fs::symlink_metadata("second")).is_symlink());
    works(linkat(CWD, "link", CWD, "third", AtFlags::SYMLINK_FOLLOW));
    assert_eq!(inode("third"), inode("file"));
}

fn unlink_refuses_directories() {
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::ISDIR, unlink("dir"));
    fails(Errno::ISDIR, unlink("."));
    fails(Errno::ISDIR, unlink("/"));
    fails(Errno::ISDIR, unlink("dir/"));
}

fn unlink_of_one_name_keeps_the_other() {
    file("one");
    works(fs::hard_link("one", "two"));
    works(unlink("one"));
    assert_eq!(works(stat("two")).st_nlink, 1);
    assert_eq!(contents("two"), "one");
    fails(Errno::NOENT, unlink("one"));
}

fn rmdir_refuses_what_is_not_an_empty_directory() {
    file("file");
    works(fs::create_dir_all("full/sub"));
    works(symlink("full/sub", "link"));
    fails(Errno::NOTEMPTY, rmdir("full"));
    fails(Errno::NOTDIR, rmdir("file"));
    fails(Errno::NOTDIR, rmdir("link"));
    fails(Errno::NOTDIR, rmdir("link/"));
    fails(Errno::NOENT, rmdir("missing"));
    fails(Errno::BUSY, rmdir("/"));
    works(rmdir("full/sub/"));
    works(rmdir("full"));
}

fn rmdir_of_dot_is_einval_and_of_dot_dot_enotempty() {
    works(fs::create_dir_all("dir/sub"));
    fails(Errno::INVAL, rmdir("."));
    fails(Errno::INVAL, rmdir("dir/sub/."));
    fails(Errno::NOTEMPTY, rmdir("dir/sub/.."));
    fails(Errno::NOTEMPTY, rmdir(".."));
}

fn unlinkat_removes_directories_if_asked() {
    works(mkdir("dir", Mode::RWXU));
    file("file");
    fails(Errno::ISDIR, unlinkat(CWD, "dir", AtFlags::empty()));
    fails(Errno::NOTDIR, unlinkat(CWD, "file", AtFlags::REMOVEDIR));
    works(unlinkat(CWD, "dir", AtFlags::REMOVEDIR));
    assert_eq!(listed("."), ["file"]);
}

fn mkdir_refuses_what_exists() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    for path in ["file", "dir", "dir/", ".", "..", "/", "dir/.."] {
        fails(Errno::EXIST, mkdir(path, Mode::RWXU));
    }
    fails(Errno::NOENT, mkdir("missing/.", Mode::RWXU));
    fails(Errno::NOENT, mkdir("new/..", Mode::RWXU));
}

fn a_removed_and_made_directory_is_empty() {
    works(fs::create_dir_all("dir/sub"));
    file("dir/file");
    works(fs::remove_dir_all("dir"));
    works(mkdir("dir", Mode::RWXU));
    assert!(listed("dir").is_empty());
    works(rmdir("dir"));
}

fn a_moved_away_name_is_gone() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    works(fs::write("file", b"changed"));
    works(rename("file", "dir/file"));
    fails(Errno::NOENT, stat("file"));
    assert_eq!(listed("."), ["dir"]);
    works(open("file", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR));
}

fn a_directory_counts_its_subdirectories() {
    works(mkdir("dir", Mode::RWXU));
    // Some file systems (btrfs) always say 1; then they must say so all along.
    let alone = works(stat("dir")).st_nlink;
    works(mkdir("dir/one", Mode::RWXU));
    works(mkdir("dir/two", Mode::RWXU));
    let with_two = works(stat("dir")).st_nlink;
    assert!(with_two == alone + 2 || (alone, with_two) == (1, 1), "{alone}, then {with_two}");
    works(rename("dir/two", "moved"));
    assert_eq!(works(stat("dir")).st_nlink, if alone == 1 { 1 } else { alone + 1 });
}

fn fifos_and_sockets_are_made_by_mknod() {
    works(mknodat(CWD, "fifo", FileType::Fifo, Mode::from_raw_mode(0o640), 0));
    works(mknodat(CWD, "socket", FileType::Socket, Mode::from_raw_mode(0o600), 0));
    works(mknodat(CWD, "file", FileType::RegularFile, Mode::from_raw_mode(0o600), 0));
    assert!(works(fs::metadata("fifo")).file_type().is_fifo());
    assert!(works(fs::metadata("socket")).file_type().is_socket());
    assert!(works(fs::metadata("file")).is_file());
    fails(Errno::EXIST, mknodat(CWD, "fifo", FileType::Fifo, Mode::RUSR, 0));
    fails(Errno::NXIO, open("socket", OFlags::RDONLY, Mode::empty()));
    fails(Errno::NOENT, mknodat(CWD, "new/", FileType::Fifo, Mode::RUSR, 0));
}

fn mknod_of_a_directory_is_refused() {
    fails(Errno::PERM, mknodat(CWD, "dir", FileType::Directory, Mode::RWXU, 0));
    fails(Errno::INVAL, mknodat(CWD, "link", FileType::Symlink, Mode::RWXU, 0));
}

fn times_of_the_directory_change_with_its_names() {
    works(mkdir("dir", Mode::RWXU));
    file("dir/file");
    let old = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1000, tv_nsec: 0 },
    };
    let changes: [(&str, fn()); 5] = [
        ("create", || file("dir/new")),
        ("rename", || works(rename("dir/new", "dir/renamed"))),
        ("unlink", || works(unlink("dir/renamed"))),
        ("mkdir", || works(mkdir("dir/sub", Mode::RWXU))),
        ("symlink", || works(symlink("x", "dir/link"))),
    ];
    for (name, change) in changes {
        works(rustix::fs::utimensat(CWD, "dir", &old, AtFlags::empty()));
        change();
        assert!(works(stat("dir")).st_mtime > 1000, "{name}");
    }
    works(rustix::fs::utimensat(CWD, "dir", &old, AtFlags::empty()));
    works(fs::write("dir/file", b"changed"));
    assert_eq!(works(stat("dir")).st_mtime, 1000, "writing is no change of names");
}

fn a_deep_tree_is_made_and_removed() {
    // Deeper than PATH_MAX: only relative steps reach the bottom.
    let name = "d".repeat(200);
    let top = works(open(".", OFlags::RDONLY, Mode::empty()));
    for _ in 0..40 {
        works(mkdir(name.as_str(), Mode::RWXU));
        works(rustix::process::chdir(name.as_str()));
    }
    file("file");
    assert_eq!(contents("file"), "file");
    // The kernel gives up here; libc may then walk upwards.
    let long = works(std::env::current_dir());
    assert!(long.as_os_str().len() > 8000);
    works(unlink("file"));
    for _ in 0..40 {
        works(rustix::process::chdir(".."));
        works(rmdir(name.as_str()));
    }
    assert_eq!(works(stat(".")).st_ino, works(rustix::fs::fstat(&top)).st_ino);
}

fn a_thousand_names_are_made_listed_and_removed() {
    for number in 0..1000 {
        file(&format!("name{number:04}"));
    }
    let names = listed(".");
    assert_eq!(names.len(), 1000);
    assert_eq!((names[0].as_str(), names[999].as_str()), ("name0000", "name0999"));
    for name in names {
        works(unlink(name));
    }
    assert!(listed(".").is_empty());
}

fn names_in_a_write_protected_directory_are_eacces() {
    works(mkdir("dir", Mode::RWXU));
    file("dir/file");
    file("file");
    works(fs::set_permissions("dir", fs::Permissions::from_mode(0o500)));
    fails(Errno::ACCESS, unlink("dir/file"));
    fails(Errno::ACCESS, mkdir("dir/new", Mode::RWXU));
    fails(Errno::ACCESS, rename("file", "dir/new"));
    fails(Errno::ACCESS, rename("dir/file", "new"));
    fails(Errno::ACCESS, rustix::fs::symlink("x", "dir/new"));
    fails(Errno::ACCESS, linkat(CWD, "file", CWD, "dir/new", AtFlags::empty()));
    // Existence is told before permission, and a missing source before both.
    fails(Errno::EXIST, mkdir("dir/file", Mode::RWXU));
    fails(Errno::NOENT, unlink("dir/missing"));
    works(fs::set_permissions("dir", fs::Permissions::from_mode(0o700)));
}

fn a_device_node_is_eperm() {
    let null = rustix::fs::makedev(1, 3);
    fails(Errno::PERM, mknodat(CWD, "null", FileType::CharacterDevice, Mode::RUSR, null));
    fails(Errno::PERM, mknodat(CWD, "disk", FileType::BlockDevice, Mode::RUSR, rustix::fs::makedev(8, 0)));
    // A whiteout is a device anyone may make.
    works(mknodat(CWD, "whiteout", FileType::CharacterDevice, Mode::empty(), 0));
}

fn the_sticky_directory_of_others_is_respected() {
    assert_eq!(works(stat("/tmp")).st_mode & 0o1000, 0o1000);
    let name = format!("/tmp/umvu-tests.{}", std::process::id());
    file(&name);
    works(unlink(name.as_str()));
}
