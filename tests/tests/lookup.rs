//! How paths are walked: what each wrong path is told, in Linux's order (path_resolution(7)).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use rustix::fs::{
    access, lstat, mkdir, mkdirat, open, openat, readlink, stat, statat, unlink, Access, AtFlags, Mode, OFlags, CWD,
};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, program, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        a_missing_file_is_enoent,
        a_missing_directory_on_the_way_is_enoent,
        an_empty_path_is_enoent,
        a_file_on_the_way_is_enotdir,
        a_trailing_slash_wants_a_directory,
        a_trailing_slash_follows_a_link,
        repeated_slashes_count_as_one,
        dot_and_dot_dot_are_walked,
        dot_dot_of_the_root_is_the_root,
        dot_dot_after_a_link_is_the_parent_of_its_target,
        forty_links_are_followed_and_one_more_is_eloop,
        a_link_to_itself_is_eloop,
        a_dangling_link_is_enoent,
        a_name_of_255_bytes_works_and_of_256_is_enametoolong,
        a_path_of_4095_bytes_works_and_of_4096_is_enametoolong,
        too_long_is_told_before_missing,
        a_link_target_of_4095_bytes_works,
        names_are_bytes,
        relative_paths_start_at_the_descriptor,
        absolute_paths_ignore_the_descriptor,
        a_file_as_directory_descriptor_is_enotdir,
        an_empty_path_means_the_descriptor_if_asked,
        unknown_flags_are_einval,
        readlink_of_what_is_no_link_is_einval,
        links_of_proc_lead_to_the_guest,
        device_files_are_found,
    }
    in_guest at USER {
        a_directory_without_search_permission_is_eacces,
        search_permission_is_checked_before_existence,
    }
    from_outside at EVERYWHERE {
        bad_pointers_are_efault,
    }
}

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn exists(path: &str) -> bool {
    stat(path).is_ok()
}

fn a_missing_file_is_enoent() {
    fails(Errno::NOENT, stat("missing"));
    fails(Errno::NOENT, lstat("missing"));
    fails(Errno::NOENT, open("missing", OFlags::RDONLY, Mode::empty()));
    fails(Errno::NOENT, access("missing", Access::EXISTS));
    fails(Errno::NOENT, unlink("missing"));
    fails(Errno::NOENT, readlink("missing", Vec::new()));
}

fn a_missing_directory_on_the_way_is_enoent() {
    fails(Errno::NOENT, stat("missing/file"));
    fails(Errno::NOENT, mkdir("missing/dir", Mode::RWXU));
    fails(Errno::NOENT, open("missing/file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
}

fn an_empty_path_is_enoent() {
    fails(Errno::NOENT, stat(""));
    fails(Errno::NOENT, open("", OFlags::RDONLY, Mode::empty()));
    fails(Errno::NOENT, mkdir("", Mode::RWXU));
    fails(Errno::NOENT, unlink(""));
    fails(Errno::NOENT, statat(CWD, "", AtFlags::empty()));
}

fn a_file_on_the_way_is_enotdir() {
    file("file");
    fails(Errno::NOTDIR, stat("file/x"));
    fails(Errno::NOTDIR, stat("file/."));
    fails(Errno::NOTDIR, stat("file/.."));
    fails(Errno::NOTDIR, open("file/x", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::NOTDIR, mkdir("file/x", Mode::RWXU));
    fails(Errno::NOTDIR, unlink("file/x"));
    fails(Errno::NOTDIR, open("file", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
}

fn a_trailing_slash_wants_a_directory() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    works(stat("dir/"));
    works(stat("dir//"));
    works(stat("dir/."));
    fails(Errno::NOTDIR, stat("file/"));
    fails(Errno::NOTDIR, lstat("file/"));
    fails(Errno::NOTDIR, open("file/", OFlags::RDONLY, Mode::empty()));
    fails(Errno::NOTDIR, unlink("file/"));
    // Creating a file with a trailing slash is EISDIR whether or not it exists: fs/namei.c, open_last_lookups.
    fails(Errno::ISDIR, open("new/", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    works(mkdir("newdir/", Mode::RWXU));
    fails(Errno::NOENT, rustix::fs::symlink("target", "newlink/"));
}

fn a_trailing_slash_follows_a_link() {
    works(mkdir("dir", Mode::RWXU));
    file("file");
    works(symlink("dir", "to_dir"));
    works(symlink("file", "to_file"));
    assert_eq!(works(lstat("to_dir/")).st_ino, works(stat("dir")).st_ino);
    fails(Errno::NOTDIR, lstat("to_file/"));
    fails(Errno::INVAL, readlink("to_dir/", Vec::new()));
}

fn repeated_slashes_count_as_one() {
    works(mkdir("dir", Mode::RWXU));
    file("dir/file");
    assert_eq!(works(stat("dir///file")).st_ino, works(stat("dir/file")).st_ino);
    assert_eq!(works(stat("///")).st_ino, works(stat("/")).st_ino);
}

fn dot_and_dot_dot_are_walked() {
    works(mkdir("a", Mode::RWXU));
    works(mkdir("a/b", Mode::RWXU));
    assert_eq!(works(stat("a/b/..")).st_ino, works(stat("a")).st_ino);
    assert_eq!(works(stat("./a/./b/../.")).st_ino, works(stat("a")).st_ino);
    fails(Errno::NOENT, stat("a/missing/.."));
}

fn dot_dot_of_the_root_is_the_root() {
    let (root, above) = (works(stat("/")), works(stat("/../..")));
    assert_eq!((root.st_dev, root.st_ino), (above.st_dev, above.st_ino));
    assert_eq!(works(stat("/../etc")).st_ino, works(stat("/etc")).st_ino);
}

fn dot_dot_after_a_link_is_the_parent_of_its_target() {
    works(fs::create_dir_all("a/b/c"));
    works(symlink("a/b/c", "link"));
    assert_eq!(works(stat("link/..")).st_ino, works(stat("a/b")).st_ino);
}

fn forty_links_are_followed_and_one_more_is_eloop() {
    file("l0");
    for number in 1..=41 {
        works(symlink(format!("l{}", number - 1), format!("l{number}")));
    }
    works(stat("l40"));
    fails(Errno::LOOP, stat("l41"));
    works(lstat("l41"));
    fails(Errno::LOOP, open("l41", OFlags::RDONLY, Mode::empty()));
    // Links on the way count too.
    works(mkdir("d0", Mode::RWXU));
    for number in 1..=41 {
        works(symlink(format!("d{}", number - 1), format!("d{number}")));
    }
    file("d0/file");
    works(stat("d40/file"));
    fails(Errno::LOOP, stat("d41/file"));
    // ... and together: 20 on the way and 21 at the end.
    works(symlink("../l20", "d0/out"));
    fails(Errno::LOOP, stat("d20/out"));
    works(stat("d19/out"));
}

fn a_link_to_itself_is_eloop() {
    works(symlink("self", "self"));
    fails(Errno::LOOP, stat("self"));
    fails(Errno::LOOP, stat("self/x"));
    fails(Errno::LOOP, open("self", OFlags::RDONLY, Mode::empty()));
    fails(Errno::LOOP, open("self", OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()));
    works(lstat("self"));
}

fn a_dangling_link_is_enoent() {
    works(symlink("missing", "dangling"));
    fails(Errno::NOENT, stat("dangling"));
    works(lstat("dangling"));
    fails(Errno::NOENT, open("dangling", OFlags::RDONLY, Mode::empty()));
    fails(Errno::EXIST, mkdir("dangling", Mode::RWXU));
    fails(Errno::EXIST, rustix::fs::symlink("x", "dangling"));
}

fn a_name_of_255_bytes_works_and_of_256_is_enametoolong() {
    let longest = "n".repeat(255);
    file(&longest);
    works(stat(longest.as_str()));
    let longer = "n".repeat(256);
    fails(Errno::NAMETOOLONG, stat(longer.as_str()));
    fails(Errno::NAMETOOLONG, stat(format!("{longer}/x")));
    fails(Errno::NAMETOOLONG, open(longer.as_str(), OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::NAMETOOLONG, mkdir(longer.as_str(), Mode::RWXU));
    fails(Errno::NAMETOOLONG, unlink(longer.as_str()));
    fails(Errno::NAMETOOLONG, rustix::fs::symlink("x", longer.as_str()));
    fails(Errno::NAMETOOLONG, rustix::fs::rename(longest.as_str(), longer.as_str()));
}

fn a_path_of_4095_bytes_works_and_of_4096_is_enametoolong() {
    // "./././x": every even length; a leading "//" makes the odd ones.
    let longest = format!("{}.", "./".repeat(2047));
    assert_eq!(longest.len(), 4095);
    works(stat(longest.as_str()));
    let longer = format!("/{longest}");
    assert_eq!(longer.len(), 4096);
    fails(Errno::NAMETOOLONG, stat(longer.as_str()));
    fails(Errno::NAMETOOLONG, mkdir(longer.as_str(), Mode::RWXU));
    fails(Errno::NAMETOOLONG, unlink(longer.as_str()));
    fails(
        Errno::NAMETOOLONG,
        std::env::set_current_dir(longer.as_str()).map_err(|e| Errno::from_io_error(&e).expect("an errno")),
    );
}

fn too_long_is_told_before_missing() {
    let longer = format!("missing/{}", "x/".repeat(2048));
    fails(Errno::NAMETOOLONG, stat(longer.as_str()));
    // But a component that is too long is met only when the walk comes to it.
    fails(Errno::NOENT, stat(format!("missing/{}", "x".repeat(256))));
}

fn a_link_target_of_4095_bytes_works() {
    file("file");
    let target = format!("{}file", "./".repeat(2045));
    assert_eq!(target.len(), 4094);
    works(rustix::fs::symlink(target.as_str(), "link"));
    assert_eq!(works(readlink("link", Vec::new())).as_bytes(), target.as_bytes());
    works(stat("link"));
    fails(Errno::NAMETOOLONG, rustix::fs::symlink("t".repeat(4096).as_str(), "longer"));
    fails(Errno::NOENT, rustix::fs::symlink("", "empty"));
}

fn names_are_bytes() {
    use std::ffi::OsStr;
    for name in [&b"\xff\xfe"[..], b"\x01\x02", b"a\nb", b"\xc3(", b" ", b"\\", b"\x7f"] {
        let path = Path::new(OsStr::from_bytes(name));
        works(fs::write(path, name));
        assert_eq!(works(fs::read(path)), name);
    }
    let mut seen: Vec<_> = works(fs::read_dir(".")).flatten().map(|entry| entry.file_name()).collect();
    seen.sort();
    assert_eq!(seen.len(), 7);
    assert!(seen.iter().any(|name| name.as_bytes() == b"\xff\xfe"));
    works(symlink(OsStr::from_bytes(b"\xff\xfe"), "link"));
    assert_eq!(works(readlink("link", Vec::new())).as_bytes(), b"\xff\xfe");
}

fn relative_paths_start_at_the_descriptor() {
    works(fs::create_dir_all("dir/sub"));
    file("dir/file");
    let dir = works(open("dir", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
    works(statat(&dir, "file", AtFlags::empty()));
    fails(Errno::NOENT, statat(&dir, "dir", AtFlags::empty()));
    works(mkdirat(&dir, "made", Mode::RWXU));
    assert!(exists("dir/made"));
    assert_eq!(works(statat(&dir, "..", AtFlags::empty())).st_ino, works(stat(".")).st_ino);
    // A descriptor follows its directory when that is renamed.
    works(rustix::fs::rename("dir", "moved"));
    works(statat(&dir, "file", AtFlags::empty()));
    let path = works(open("moved", OFlags::PATH, Mode::empty()));
    works(openat(&path, "file", OFlags::RDONLY, Mode::empty()));
}

fn absolute_paths_ignore_the_descriptor() {
    works(mkdir("dir", Mode::RWXU));
    let dir = works(open("dir", OFlags::RDONLY, Mode::empty()));
    assert_eq!(works(statat(&dir, "/", AtFlags::empty())).st_ino, works(stat("/")).st_ino);
    file("file");
    let no_dir = works(open("file", OFlags::RDONLY, Mode::empty()));
    works(statat(&no_dir, "/", AtFlags::empty()));
}

fn a_file_as_directory_descriptor_is_enotdir() {
    file("file");
    let no_dir = works(open("file", OFlags::RDONLY, Mode::empty()));
    fails(Errno::NOTDIR, statat(&no_dir, "x", AtFlags::empty()));
    fails(Errno::NOTDIR, statat(&no_dir, ".", AtFlags::empty()));
    fails(Errno::NOTDIR, openat(&no_dir, "x", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
}

fn an_empty_path_means_the_descriptor_if_asked() {
    file("file");
    let fd = works(open("file", OFlags::RDONLY, Mode::empty()));
    assert_eq!(works(statat(&fd, "", AtFlags::EMPTY_PATH)).st_ino, works(stat("file")).st_ino);
    assert_eq!(works(statat(CWD, "", AtFlags::EMPTY_PATH)).st_ino, works(stat(".")).st_ino);
    fails(Errno::NOENT, statat(&fd, "", AtFlags::empty()));
    // EMPTY_PATH does not keep a path from being walked.
    works(statat(CWD, "file", AtFlags::EMPTY_PATH));
}

fn unknown_flags_are_einval() {
    file("file");
    fails(Errno::INVAL, statat(CWD, "file", AtFlags::REMOVEDIR));
    fails(Errno::INVAL, rustix::fs::unlinkat(CWD, "file", AtFlags::EMPTY_PATH));
    fails(Errno::INVAL, rustix::fs::linkat(CWD, "file", CWD, "new", AtFlags::REMOVEDIR));
    fails(Errno::INVAL, rustix::fs::accessat(CWD, "file", Access::EXISTS, AtFlags::SYMLINK_FOLLOW));
    // Flags are checked before the path is walked.
    fails(Errno::INVAL, statat(CWD, "missing", AtFlags::REMOVEDIR));
    fails(Errno::INVAL, rustix::fs::unlinkat(CWD, "missing", AtFlags::EMPTY_PATH));
}

fn readlink_of_what_is_no_link_is_einval() {
    file("file");
    fails(Errno::INVAL, readlink("file", Vec::new()));
    fails(Errno::INVAL, readlink(".", Vec::new()));
}

fn links_of_proc_lead_to_the_guest() {
    let exe = works(fs::read_link("/proc/self/exe"));
    assert_eq!(works(stat(&exe)).st_ino, works(stat("/proc/self/exe")).st_ino);
    assert_eq!(exe.file_name(), works(std::env::current_exe()).file_name());
    let cwd = works(fs::read_link("/proc/self/cwd"));
    assert_eq!(cwd, works(std::env::current_dir()));
    assert_eq!(works(stat("/proc/self/cwd")).st_ino, works(stat(".")).st_ino);
    assert_eq!(works(fs::read_link("/proc/self/root")), Path::new("/"));
    assert_eq!(works(fs::read_link("/proc/self")), Path::new(&std::process::id().to_string()));
    file("file");
    let fd = works(fs::File::open("file"));
    use std::os::fd::AsRawFd;
    for dir in ["/proc/self/fd", "/dev/fd", "/proc/thread-self/fd"] {
        let name = format!("{dir}/{}", fd.as_raw_fd());
        assert_eq!(works(fs::read_link(&name)), cwd.join("file"), "{name}");
        assert_eq!(works(fs::read(&name)), b"file");
    }
    works(fs::write("/proc/self/cwd/through", b"x"));
    assert!(exists("through"));
}

fn device_files_are_found() {
    works(fs::write("/dev/null", b"gone"));
    assert_eq!(works(fs::read("/dev/null")), b"");
    let mut zeros = [1; 16];
    let zero = works(fs::File::open("/dev/zero"));
    assert_eq!(works(rustix::io::read(&zero, &mut zeros)), 16);
    assert_eq!(zeros, [0; 16]);
    let (major, minor) = {
        let rdev = works(stat("/dev/null")).st_rdev;
        (rustix::fs::major(rdev), rustix::fs::minor(rdev))
    };
    assert_eq!((major, minor), (1, 3));
}

fn a_directory_without_search_permission_is_eacces() {
    works(mkdir("shut", Mode::RWXU));
    file("shut/file");
    works(fs::set_permissions("shut", fs::Permissions::from_mode(0o600)));
    fails(Errno::ACCESS, stat("shut/file"));
    fails(Errno::ACCESS, open("shut/file", OFlags::RDONLY, Mode::empty()));
    fails(Errno::ACCESS, stat("shut/."));
    fails(Errno::ACCESS, unlink("shut/file"));
    works(stat("shut"));
    // Names may be listed, but not more.
    assert_eq!(works(fs::read_dir("shut")).count(), 1);
    works(fs::set_permissions("shut", fs::Permissions::from_mode(0o700)));
}

fn search_permission_is_checked_before_existence() {
    works(mkdir("shut", Mode::RWXU));
    works(fs::set_permissions("shut", fs::Permissions::from_mode(0o000)));
    fails(Errno::ACCESS, stat("shut/missing"));
    fails(Errno::ACCESS, stat(format!("shut/{}", "x".repeat(256))));
    works(fs::set_permissions("shut", fs::Permissions::from_mode(0o700)));
}

fn bad_pointers_are_efault(r: &Runner) {
    assert_eq!(r.run([program("bad_pointers")]).line(), "all EFAULT");
}
