//! mount(2) and umount2(2) as the root of a namespace knows them: what covers what, who is in the way, which errno.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;

use nix::errno::Errno as NixErrno;
use nix::mount::{mount, umount, umount2, MntFlags, MsFlags};
use rustix::fs::{
    access, fstat, mkdir, open, openat, readlink, readlinkat, rename, rmdir, stat, unlink, Access, Mode, OFlags,
};
use rustix::io::Errno;
use rustix::process::{chdir, getcwd};
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at MOUNTING {
        a_mount_covers_and_uncovers,
        the_newest_mount_wins_and_leaves_first,
        a_bind_shows_one_mount_and_a_recursive_one_all,
        a_file_is_a_mount_point,
        files_and_directories_do_not_cover_each_other,
        a_mount_moves_with_what_is_in_it,
        what_cannot_move_is_einval_and_into_itself_eloop,
        a_bind_can_be_read_only_alone,
        a_remount_reaches_all_mounts_of_a_file_system,
        nothing_becomes_read_only_while_it_is_written,
        a_mount_without_execution_or_links_has_none,
        what_is_used_is_busy,
        a_lazy_unmount_leaves_its_users_at_work,
        an_expiring_mount_goes_the_second_time,
        mount_points_keep_their_names,
        a_mount_point_stays_through_every_mount,
        a_descriptor_of_procfs_stays_with_its_mount,
        what_has_gone_keeps_its_path,
        a_mount_has_its_own_device_and_edge,
        a_mount_over_the_current_directory_leaves_it_below,
        an_unbindable_mount_is_not_bound,
        bad_mounts_fail_in_the_order_of_the_kernel,
        bad_unmounts_fail_in_the_order_of_the_kernel,
        the_root_can_be_changed,
    }
}

const NONE: Option<&str> = None;

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn tmpfs(target: &str) -> Result<(), Errno> {
    told(mount(Some("none"), target, Some("tmpfs"), MsFlags::empty(), NONE))
}

fn bind(source: &str, target: &str, flags: MsFlags) -> Result<(), Errno> {
    told(mount(Some(source), target, NONE, MsFlags::MS_BIND | flags, NONE))
}

fn change(target: &str, flags: MsFlags) -> Result<(), Errno> {
    told(mount(NONE, target, NONE, flags, NONE))
}

fn shift(source: &str, target: &str) -> Result<(), Errno> {
    told(mount(Some(source), target, NONE, MsFlags::MS_MOVE, NONE))
}

fn off(target: &str, flags: MntFlags) -> Result<(), Errno> {
    told(umount2(target, flags))
}

fn told<T>(result: Result<T, NixErrno>) -> Result<T, Errno> {
    result.map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

fn dirs(names: &[&str]) {
    for name in names {
        works(mkdir(*name, Mode::RWXU));
    }
}

fn exists(path: &str) -> bool {
    access(path, Access::EXISTS).is_ok()
}

fn create(path: &str) -> Result<(), Errno> {
    open(path, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).map(drop)
}

fn a_mount_covers_and_uncovers() {
    dirs(&["m"]);
    file("m/below");
    works(tmpfs("m"));
    assert!(!exists("m/below"));
    file("m/above");
    works(off("m", MntFlags::empty()));
    assert!(exists("m/below") && !exists("m/above"));
    fails(Errno::INVAL, off("m", MntFlags::empty()));
}

fn the_newest_mount_wins_and_leaves_first() {
    dirs(&["m"]);
    for name in ["m/first", "m/second", "m/third"] {
        works(tmpfs("m"));
        file(name);
    }
    assert!(exists("m/third") && !exists("m/second"));
    works(off("m", MntFlags::empty()));
    assert!(exists("m/second") && !exists("m/first"));
    works(off("m", MntFlags::empty()));
    works(off("m", MntFlags::empty()));
    assert!(!exists("m/first"));
}

fn a_bind_shows_one_mount_and_a_recursive_one_all() {
    dirs(&["a", "one", "all"]);
    works(tmpfs("a"));
    dirs(&["a/b"]);
    works(tmpfs("a/b"));
    dirs(&["a/b/c"]);
    works(tmpfs("a/b/c"));
    file("a/b/c/deep");
    works(bind("a", "one", MsFlags::empty()));
    works(bind("a", "all", MsFlags::MS_REC));
    assert!(exists("one/b") && !exists("one/b/c"));
    assert!(exists("all/b/c/deep"));
    file("all/b/c/new");
    assert!(exists("a/b/c/new"));
    // What is mounted later is seen at its own place alone.
    dirs(&["a/later"]);
    works(tmpfs("a/later"));
    file("a/later/x");
    assert!(!exists("all/later/x"));
    // A bind of a part takes what is in that part.
    dirs(&["part"]);
    works(bind("a/b", "part", MsFlags::MS_REC));
    assert!(exists("part/c/deep"));
}

fn a_file_is_a_mount_point() {
    file("a");
    file("b");
    works(bind("a", "b", MsFlags::empty()));
    assert_eq!(works(fs::read("b")), b"a");
    works(fs::write("b", "through"));
    assert_eq!(works(fs::read("a")), b"through");
    fails(Errno::BUSY, unlink("b"));
    works(off("b", MntFlags::empty()));
    assert_eq!(works(fs::read("b")), b"b");
}

fn files_and_directories_do_not_cover_each_other() {
    dirs(&["dir", "m"]);
    file("file");
    fails(Errno::NOTDIR, bind("file", "dir", MsFlags::empty()));
    fails(Errno::NOTDIR, bind("dir", "file", MsFlags::empty()));
    fails(Errno::NOTDIR, tmpfs("file"));
    works(tmpfs("m"));
    fails(Errno::INVAL, shift("m", "file"));
}

fn a_mount_moves_with_what_is_in_it() {
    dirs(&["from", "to"]);
    works(tmpfs("from"));
    dirs(&["from/sub"]);
    works(tmpfs("from/sub"));
    file("from/sub/deep");
    works(shift("from", "to"));
    assert!(exists("to/sub/deep") && !exists("from/sub"));
    fails(Errno::BUSY, off("to", MntFlags::empty()));
    works(off("to/sub", MntFlags::empty()));
    works(off("to", MntFlags::empty()));
}

fn what_cannot_move_is_einval_and_into_itself_eloop() {
    dirs(&["m", "dir"]);
    works(tmpfs("m"));
    dirs(&["m/sub"]);
    fails(Errno::INVAL, shift("dir", "m"));
    fails(Errno::INVAL, shift("m/sub", "dir"));
    fails(Errno::LOOP, shift("m", "m/sub"));
    fails(Errno::NOENT, shift("missing", "m"));
}

fn a_bind_can_be_read_only_alone() {
    dirs(&["a", "b"]);
    works(bind("a", "b", MsFlags::empty()));
    works(change("b", MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY));
    fails(Errno::ROFS, create("b/file"));
    fails(Errno::ROFS, mkdir("b/dir", Mode::RWXU));
    works(create("a/file"));
    fails(Errno::ROFS, unlink("b/file"));
    fails(Errno::ROFS, rename("b/file", "b/other"));
    fails(Errno::ROFS, access("b/file", Access::WRITE_OK));
    works(change("b", MsFlags::MS_REMOUNT | MsFlags::MS_BIND));
    works(create("b/other"));
}

fn a_remount_reaches_all_mounts_of_a_file_system() {
    dirs(&["a", "b"]);
    works(tmpfs("a"));
    works(bind("a", "b", MsFlags::empty()));
    works(change("a", MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY));
    fails(Errno::ROFS, create("a/file"));
    fails(Errno::ROFS, create("b/file"));
    works(change("b", MsFlags::MS_REMOUNT));
    works(create("b/file"));
    fails(Errno::ROFS, create("a/file2"));
    works(told(mount(NONE, "a", NONE, MsFlags::MS_REMOUNT, Some("size=64k"))));
    works(create("a/file2"));
    fails(Errno::INVAL, told(mount(NONE, "a", NONE, MsFlags::MS_REMOUNT, Some("nonsense"))));
}

fn nothing_becomes_read_only_while_it_is_written() {
    dirs(&["m"]);
    works(tmpfs("m"));
    let writer = works(open("m/file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::BUSY, change("m", MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY));
    fails(Errno::BUSY, change("m", MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY));
    drop(writer);
    let _reader = works(open("m/file", OFlags::RDONLY, Mode::empty()));
    works(change("m", MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY));
}

fn a_mount_without_execution_or_links_has_none() {
    dirs(&["m"]);
    works(tmpfs("m"));
    works(fs::copy("/bin/true", "m/true"));
    works(symlink("true", "m/link"));
    assert!(works(std::process::Command::new("m/link").status()).success());
    let nosymfollow = MsFlags::from_bits_retain(256);
    works(change("m", MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOEXEC | nosymfollow));
    let refused = std::process::Command::new("m/true").status().expect_err("no execution");
    assert_eq!(refused.raw_os_error(), Some(Errno::ACCESS.raw_os_error()));
    fails(Errno::ACCESS, access("m/true", Access::EXEC_OK));
    fails(Errno::LOOP, open("m/link", OFlags::RDONLY, Mode::empty()));
    works(fs::read_link("m/link"));
}

fn what_is_used_is_busy() {
    dirs(&["m"]);
    works(tmpfs("m"));
    dirs(&["m/sub"]);
    file("m/file");
    let reader = works(open("m/file", OFlags::RDONLY, Mode::empty()));
    fails(Errno::BUSY, off("m", MntFlags::empty()));
    fails(Errno::BUSY, off("m", MntFlags::MNT_FORCE));
    drop(reader);
    let directory = works(open("m/sub", OFlags::RDONLY, Mode::empty()));
    fails(Errno::BUSY, off("m", MntFlags::empty()));
    drop(directory);
    works(tmpfs("m/sub"));
    fails(Errno::BUSY, off("m", MntFlags::empty()));
    works(off("m/sub", MntFlags::empty()));
    works(chdir("m/sub"));
    fails(Errno::BUSY, off("../../m", MntFlags::empty()));
    works(chdir("../.."));
    // Somebody who stood in it has ended.
    assert!(works(std::process::Command::new("true").current_dir("m").status()).success());
    works(off("m", MntFlags::empty()));
}

fn a_lazy_unmount_leaves_its_users_at_work() {
    dirs(&["m"]);
    works(tmpfs("m"));
    dirs(&["m/sub"]);
    let writer = works(open("m/file", OFlags::CREATE | OFlags::RDWR, Mode::RUSR));
    let inode = works(fstat(&writer)).st_ino;
    let outside = works(open(".", OFlags::RDONLY, Mode::empty()));
    works(chdir("m/sub"));
    works(off("../../m", MntFlags::MNT_DETACH));
    assert_eq!(works(rustix::io::write(&writer, b"still")), 5);
    assert_eq!((works(fstat(&writer)).st_size, works(fstat(&writer)).st_ino), (5, inode));
    file("here");
    assert_eq!(works(stat("../file")).st_ino, inode);
    // The way up ends where the mount does.
    assert_eq!(works(stat("..")).st_ino, works(stat("../..")).st_ino);
    assert_eq!(works(getcwd(Vec::new())).to_bytes(), b"(unreachable)/sub");
    works(rustix::process::fchdir(&outside));
    assert!(!exists("m/file"));
    fails(Errno::INVAL, off("m", MntFlags::MNT_DETACH));
}

fn an_expiring_mount_goes_the_second_time() {
    dirs(&["m"]);
    works(tmpfs("m"));
    fails(Errno::INVAL, off("m", MntFlags::MNT_EXPIRE | MntFlags::MNT_DETACH));
    fails(Errno::INVAL, off("m", MntFlags::MNT_EXPIRE | MntFlags::MNT_FORCE));
    fails(Errno::AGAIN, off("m", MntFlags::MNT_EXPIRE));
    assert!(!exists("m/used"));
    fails(Errno::AGAIN, off("m", MntFlags::MNT_EXPIRE));
    works(off("m", MntFlags::MNT_EXPIRE));
    fails(Errno::INVAL, off("m", MntFlags::MNT_EXPIRE));
}

fn mount_points_keep_their_names() {
    dirs(&["m", "other"]);
    works(tmpfs("m"));
    fails(Errno::BUSY, rmdir("m"));
    fails(Errno::BUSY, rename("m", "n"));
    fails(Errno::BUSY, rename("other", "m"));
    works(off("m", MntFlags::empty()));
    works(rename("other", "m"));
    works(rmdir("m"));
}

fn a_mount_has_its_own_device_and_edge() {
    dirs(&["a", "b"]);
    works(tmpfs("a"));
    works(tmpfs("b"));
    file("a/file");
    assert_ne!(works(stat("a")).st_dev, works(stat("b")).st_dev);
    assert_ne!(works(stat("a")).st_dev, works(stat(".")).st_dev);
    fails(Errno::XDEV, rename("a/file", "b/file"));
    fails(Errno::XDEV, rustix::fs::link("a/file", "b/file"));
    // Two mounts of one file system are two all the same.
    works(bind("a", "b", MsFlags::empty()));
    assert_eq!(works(stat("a")).st_dev, works(stat("b")).st_dev);
    fails(Errno::XDEV, rename("a/file", "b/other"));
    assert_eq!(works(stat("a/..")).st_ino, works(stat(".")).st_ino);
}

fn a_mount_over_the_current_directory_leaves_it_below() {
    dirs(&["m"]);
    works(chdir("m"));
    works(tmpfs("."));
    file("below");
    assert!(!exists("../m/below"));
    works(umount("../m").map_err(|errno| Errno::from_raw_os_error(errno as i32)));
    assert!(exists("../m/below"));
}

fn an_unbindable_mount_is_not_bound() {
    dirs(&["a", "b"]);
    works(tmpfs("a"));
    works(change("a", MsFlags::MS_UNBINDABLE));
    fails(Errno::INVAL, bind("a", "b", MsFlags::empty()));
    works(change("a", MsFlags::MS_PRIVATE | MsFlags::MS_REC));
    works(bind("a", "b", MsFlags::empty()));
}

fn bad_mounts_fail_in_the_order_of_the_kernel() {
    dirs(&["dir"]);
    fails(Errno::NOENT, tmpfs("missing"));
    fails(Errno::NODEV, told(mount(Some("none"), "dir", Some("nosuchfs"), MsFlags::empty(), NONE)));
    fails(Errno::NODEV, told(mount(Some("none"), "dir", Some(""), MsFlags::empty(), NONE)));
    fails(Errno::INVAL, told(mount(Some("none"), "dir", NONE, MsFlags::empty(), NONE)));
    fails(Errno::NOENT, told(mount(Some("none"), "missing", Some("nosuchfs"), MsFlags::empty(), NONE)));
    fails(Errno::INVAL, told(mount(Some("none"), "dir", Some("tmpfs"), MsFlags::empty(), Some("nonsense=1"))));
    fails(Errno::INVAL, told(mount(Some("none"), "dir", Some("tmpfs"), MsFlags::empty(), Some("size=much"))));
    fails(Errno::INVAL, change("dir", MsFlags::MS_BIND));
    fails(Errno::INVAL, bind("", "dir", MsFlags::empty()));
    fails(Errno::NOENT, bind("missing", "dir", MsFlags::empty()));
    fails(Errno::INVAL, change("dir", MsFlags::MS_REMOUNT));
    fails(Errno::INVAL, change("dir", MsFlags::MS_REMOUNT | MsFlags::MS_BIND));
    fails(Errno::INVAL, change("dir", MsFlags::MS_SHARED));
    fails(Errno::INVAL, change("dir", MsFlags::MS_MOVE));
    works(tmpfs("dir"));
    fails(Errno::INVAL, change("dir", MsFlags::MS_SHARED | MsFlags::MS_PRIVATE));
    fails(Errno::INVAL, change("dir", MsFlags::MS_PRIVATE | MsFlags::MS_NOSUID));
    works(change("dir", MsFlags::MS_SLAVE | MsFlags::MS_REC));
    fails(Errno::NAMETOOLONG, tmpfs(&"x".repeat(5000)));
}

fn bad_unmounts_fail_in_the_order_of_the_kernel() {
    dirs(&["dir"]);
    works(symlink("dir", "link"));
    fails(Errno::INVAL, off("missing", MntFlags::from_bits_retain(64)));
    fails(Errno::NOENT, off("missing", MntFlags::empty()));
    fails(Errno::INVAL, off("dir", MntFlags::empty()));
    works(tmpfs("dir"));
    dirs(&["dir/sub"]);
    fails(Errno::INVAL, off("dir/sub", MntFlags::MNT_DETACH));
    fails(Errno::INVAL, off("link", MntFlags::UMOUNT_NOFOLLOW));
    works(off("link", MntFlags::empty()));
}

fn a_mount_point_stays_through_every_mount() {
    dirs(&["t"]);
    works(tmpfs("t"));
    works(chdir("t"));
    dirs(&["c", "c/x", "c/e", "d"]);
    file("c/f");
    works(fs::hard_link("c/f", "c/other"));
    works(bind("c", "d", MsFlags::empty()));
    works(tmpfs("d/x"));
    works(bind("d/f", "d/f", MsFlags::empty()));
    fails(Errno::BUSY, rename("c/x", "c/y"));
    fails(Errno::BUSY, rename("c/e", "c/x"));
    fails(Errno::BUSY, rmdir("c/x"));
    fails(Errno::BUSY, rename("c/f", "c/g"));
    fails(Errno::BUSY, unlink("c/f"));
    // Nothing is mounted on the file's other name.
    works(unlink("c/other"));
    works(off("d/x", MntFlags::empty()));
    works(off("d/f", MntFlags::MNT_DETACH));
    works(rmdir("c/x"));
    works(unlink("c/f"));
}

fn a_descriptor_of_procfs_stays_with_its_mount() {
    let oom = |proc: &OwnedFd| openat(proc, "self/oom_score_adj", OFlags::RDWR, Mode::empty());
    let first = works(open("/proc", OFlags::PATH, Mode::empty()));
    dirs(&["new"]);
    works(tmpfs("new"));
    dirs(&["new/old", "new/proc"]);
    works(bind("/proc", "new/proc", MsFlags::MS_REC));
    let kept = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    works(change("new/proc", MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | kept));
    works(oom(&first));
    works(told(nix::unistd::pivot_root("new", "new/old")));
    works(chdir("/"));
    works(off("/old", MntFlags::MNT_DETACH));
    works(oom(&first));
    let own = works(readlinkat(&first, "self", Vec::new())).into_string();
    assert_eq!(own, Ok(std::process::id().to_string()), "and it is the view's");
    fails(Errno::ROFS, open("/proc/self/oom_score_adj", OFlags::RDWR, Mode::empty()));
}

fn what_has_gone_keeps_its_path() {
    let path = |fd: &OwnedFd| works(readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())).into_string();
    let here = works(getcwd(Vec::new())).into_string().expect("a path of letters");
    dirs(&["d", "t"]);
    works(tmpfs("t"));
    dirs(&["t/d"]);
    file("t/f");
    let [own, other, file] = ["d", "t/d", "t/f"].map(|path| works(open(path, OFlags::RDONLY, Mode::empty())));
    works(rmdir("d"));
    works(rmdir("t/d"));
    assert_eq!(path(&own), Ok(format!("{here}/d (deleted)")));
    assert_eq!(path(&other), Ok(format!("{here}/t/d (deleted)")));
    works(off("t", MntFlags::MNT_DETACH));
    assert_eq!(path(&file), Ok("/f".to_owned()));
}

fn the_root_can_be_changed() {
    dirs(&["new"]);
    works(tmpfs("new"));
    dirs(&["new/old", "new/plain"]);
    fails(Errno::INVAL, told(nix::unistd::pivot_root("new/old", "new/old")));
    fails(Errno::BUSY, told(nix::unistd::pivot_root("new", "/")));
    fails(Errno::NOENT, told(nix::unistd::pivot_root("new", "new/missing")));
    works(told(nix::unistd::pivot_root("new", "new/old")));
    assert!(exists("/plain") && exists("/old/etc/passwd"));
    works(chdir("/"));
    works(off("/old", MntFlags::MNT_DETACH));
    assert!(!exists("/old/etc") && !exists("/etc"));
    works(create("/file"));
    assert_eq!(works(getcwd(Vec::new())).to_bytes(), b"/");
}
