//! What is known of a file beside its bytes: mode, owner, times, extended attributes, statx, statfs.

use std::fs;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

use rustix::fs::{
    chmodat, chownat, futimens, lstat, mkdir, open, stat, statat, statfs, statvfs, statx, utimensat, AtFlags, Mode,
    OFlags, StatxFlags, Timespec, Timestamps, CWD, UTIME_NOW, UTIME_OMIT,
};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        chmod_sets_all_twelve_bits,
        chmod_follows_links,
        chmod_of_a_link_itself_is_eopnotsupp,
        fchmod_works_on_an_unlinked_file,
        chown_to_oneself_works,
        times_are_set_to_the_nanosecond,
        times_can_be_now_or_omitted,
        times_of_a_link_are_its_own,
        times_with_bad_nanoseconds_are_einval,
        times_before_1970_work,
        statx_agrees_with_stat,
        statx_fills_only_what_it_says,
        statx_refuses_unknown_bits,
        statx_of_a_descriptor_sees_growth,
        stat_of_a_link_is_the_target_and_lstat_the_link,
        stat_and_fstat_agree,
        stat_takes_the_flags_of_statx_for_network_file_systems,
        inodes_in_listings_are_those_of_stat,
        truncate_cuts_and_grows,
        truncate_of_what_is_no_file_is_refused,
        truncate_beyond_the_limit_of_sizes_is_efbig_and_a_signal,
        a_file_system_is_told_by_its_device,
        a_write_changes_the_times,
        file_systems_are_told_apart,
        umask_is_returned_and_inherited,
    }
    in_guest at USER {
        chown_to_another_is_eperm,
        a_strangers_times_and_size_are_refused,
    }
    in_guest at ROOT {
        a_device_that_is_open_is_its_node,
    }
    from_outside at EVERYWHERE {
        a_copy_with_all_attributes_is_the_same,
    }
}

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn truncate(path: &str, length: i64) -> Result<(), Errno> {
    nix::unistd::truncate(path, length).map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

fn mode_of(path: &str) -> u32 {
    works(stat(path)).st_mode & 0o7777
}

fn at(seconds: i64, nanoseconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn chmod_sets_all_twelve_bits() {
    file("file");
    for mode in [0, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o7777] {
        works(fs::set_permissions("file", fs::Permissions::from_mode(mode)));
        assert_eq!(mode_of("file"), mode);
    }
    fails(Errno::NOENT, rustix::fs::chmod("missing", Mode::RWXU));
    fails(Errno::NOTDIR, rustix::fs::chmod("file/", Mode::RWXU));
}

fn chmod_follows_links() {
    file("file");
    works(symlink("file", "link"));
    works(rustix::fs::chmod("link", Mode::from_raw_mode(0o600)));
    assert_eq!(mode_of("file"), 0o600);
    assert_eq!(works(lstat("link")).st_mode & 0o7777, 0o777);
}

fn chmod_of_a_link_itself_is_eopnotsupp() {
    file("file");
    works(symlink("file", "link"));
    fails(Errno::OPNOTSUPP, chmodat(CWD, "link", Mode::RWXU, AtFlags::SYMLINK_NOFOLLOW));
}

fn fchmod_works_on_an_unlinked_file() {
    file("file");
    let fd = works(fs::File::open("file"));
    works(fs::remove_file("file"));
    works(rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o4701)));
    assert_eq!(works(fd.metadata()).mode() & 0o7777, 0o4701);
}

fn a_device_that_is_open_is_its_node() {
    use rustix::fs::{fchmod, fchown, fstat, mknodat, FileType, Gid, Uid};
    let ids = |uid, gid| (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    works(mknodat(CWD, "node", FileType::CharacterDevice, Mode::from_raw_mode(0o644), rustix::fs::makedev(1, 3)));
    let (uid, gid) = ids(33, 44);
    works(rustix::fs::chown("node", uid, gid));
    let fd = works(open("node", OFlags::WRONLY, Mode::empty()));
    let other = works(open("node", OFlags::RDWR, Mode::empty()));
    for open in [works(fstat(&fd)), works(fstat(&other))] {
        let named = works(stat("node"));
        assert_eq!((open.st_mode, open.st_uid, open.st_gid), (0o20644, 33, 44));
        assert_eq!((open.st_dev, open.st_ino, open.st_rdev), (named.st_dev, named.st_ino, named.st_rdev));
    }
    assert_eq!(rustix::io::write(&fd, b"gone"), Ok(4));
    let (uid, gid) = ids(5, 6);
    works(fchown(&fd, uid, gid));
    works(fchmod(&fd, Mode::from_raw_mode(0o600)));
    works(futimens(&fd, &at(7, 0)));
    let changed = works(stat("node"));
    assert_eq!((changed.st_mode, changed.st_uid, changed.st_gid, changed.st_mtime), (0o20600, 5, 6, 7));
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
    let again = works(open(&link, OFlags::WRONLY, Mode::empty()));
    assert_eq!(works(fstat(&again)).st_ino, changed.st_ino);
    let path = works(std::env::current_dir()).join("node");
    assert_eq!(works(fs::read_link(&link)), path);
    works(fs::remove_file("node"));
    assert_eq!(works(fstat(&fd)).st_nlink, 0);
}

fn chown_to_oneself_works() {
    file("file");
    let me = works(stat("file"));
    assert_eq!(me.st_uid, nix::unistd::geteuid().as_raw());
    assert_eq!(me.st_gid, nix::unistd::getegid().as_raw());
    let (uid, gid) = (rustix::fs::Uid::from_raw(me.st_uid), rustix::fs::Gid::from_raw(me.st_gid));
    works(rustix::fs::chown("file", Some(uid), Some(gid)));
    works(rustix::fs::chown("file", None, None));
    works(symlink("missing", "link"));
    works(chownat(CWD, "link", Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW));
    fails(Errno::NOENT, chownat(CWD, "link", Some(uid), Some(gid), AtFlags::empty()));
    fails(Errno::INVAL, chownat(CWD, "file", None, None, AtFlags::REMOVEDIR));
}

fn times_are_set_to_the_nanosecond() {
    file("file");
    works(utimensat(CWD, "file", &at(1_234_567_890, 123_456_789), AtFlags::empty()));
    let seen = works(fs::metadata("file"));
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (1_234_567_890, 123_456_789));
    assert_eq!((seen.atime(), seen.atime_nsec()), (1_234_567_890, 123_456_789));
    let fd = works(fs::File::options().write(true).open("file"));
    works(futimens(&fd, &at(99, 1)));
    assert_eq!(works(fs::metadata("file")).mtime(), 99);
    fails(Errno::NOENT, utimensat(CWD, "missing", &at(1, 1), AtFlags::empty()));
}

fn times_can_be_now_or_omitted() {
    file("file");
    works(utimensat(CWD, "file", &at(1000, 0), AtFlags::empty()));
    let mixed = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
    };
    works(utimensat(CWD, "file", &mixed, AtFlags::empty()));
    let seen = works(fs::metadata("file"));
    assert_eq!(seen.atime(), 1000);
    assert!(seen.mtime() > 1_600_000_000);
    let neither = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    works(utimensat(CWD, "file", &neither, AtFlags::empty()));
    assert_eq!(works(fs::metadata("file")).mtime(), seen.mtime());
}

fn times_of_a_link_are_its_own() {
    file("file");
    works(symlink("file", "link"));
    works(utimensat(CWD, "link", &at(1000, 0), AtFlags::SYMLINK_NOFOLLOW));
    assert_eq!(works(lstat("link")).st_mtime, 1000);
    assert_ne!(works(stat("file")).st_mtime, 1000);
    works(utimensat(CWD, "link", &at(2000, 0), AtFlags::empty()));
    assert_eq!(works(stat("file")).st_mtime, 2000);
}

fn times_with_bad_nanoseconds_are_einval() {
    file("file");
    fails(Errno::INVAL, utimensat(CWD, "file", &at(0, 1_000_000_000), AtFlags::empty()));
    fails(Errno::INVAL, utimensat(CWD, "file", &at(0, -1), AtFlags::empty()));
    // The path is walked before the times are judged: fs/utimes.c, do_utimes_path.
    fails(Errno::NOENT, utimensat(CWD, "missing", &at(0, -1), AtFlags::empty()));
    fails(Errno::INVAL, utimensat(CWD, "file", &at(0, 0), AtFlags::REMOVEDIR));
}

fn times_before_1970_work() {
    file("file");
    works(utimensat(CWD, "file", &at(-1000, 5), AtFlags::empty()));
    assert_eq!(works(fs::metadata("file")).mtime(), -1000);
}

fn statx_agrees_with_stat() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    for path in ["file", "dir", "/", "/proc", "/dev/null"] {
        let old = works(stat(path));
        let new = works(statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS));
        assert_eq!(u32::from(new.stx_mode), old.st_mode, "{path}");
        assert_eq!(new.stx_ino, old.st_ino, "{path}");
        // /proc counts processes.
        assert!(u64::from(new.stx_nlink) == old.st_nlink || path == "/proc", "{path}");
        assert_eq!((new.stx_uid, new.stx_gid), (old.st_uid, old.st_gid), "{path}");
        assert_eq!(rustix::fs::makedev(new.stx_dev_major, new.stx_dev_minor), old.st_dev, "{path}");
        assert_eq!(rustix::fs::makedev(new.stx_rdev_major, new.stx_rdev_minor), old.st_rdev, "{path}");
        assert_eq!(new.stx_mtime.tv_sec, old.st_mtime, "{path}");
    }
}

fn statx_fills_only_what_it_says() {
    file("file");
    let seen = works(statx(CWD, "file", AtFlags::empty(), StatxFlags::ALL));
    let told = StatxFlags::from_bits_retain(seen.stx_mask);
    assert!(told.contains(StatxFlags::BASIC_STATS), "{told:?}");
    if told.contains(StatxFlags::BTIME) {
        assert!(seen.stx_btime.tv_sec > 1_600_000_000);
    }
    let root = works(statx(CWD, "/", AtFlags::empty(), StatxFlags::MNT_ID));
    assert!(root.stx_attributes.bits() & 0x2000 != 0, "/ is the root of a mount");
}

fn statx_refuses_unknown_bits() {
    file("file");
    let reserved = StatxFlags::from_bits_retain(0x8000_0000);
    fails(Errno::INVAL, statx(CWD, "file", AtFlags::empty(), reserved));
    fails(Errno::INVAL, statx(CWD, "file", AtFlags::from_bits_retain(0x6000), StatxFlags::BASIC_STATS));
    fails(Errno::NOENT, statx(CWD, "missing", AtFlags::empty(), StatxFlags::BASIC_STATS));
}

fn statx_of_a_descriptor_sees_growth() {
    file("file");
    let fd = works(fs::File::options().append(true).open("file"));
    works(rustix::io::write(&fd, &[0; 96]));
    let seen = works(statx(&fd, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE));
    assert_eq!(seen.stx_size, 100);
}

fn stat_of_a_link_is_the_target_and_lstat_the_link() {
    file("file");
    works(symlink("file", "link"));
    assert_eq!(works(stat("link")).st_ino, works(stat("file")).st_ino);
    let link = works(lstat("link"));
    assert_eq!(link.st_mode, libc::S_IFLNK | 0o777);
    assert_eq!(link.st_size, 4);
}

fn stat_takes_the_flags_of_statx_for_network_file_systems() {
    file("file");
    for synchronised in [0x2000, 0x4000, 0x6000] {
        works(statat(CWD, "file", AtFlags::from_bits_retain(synchronised)));
    }
    fails(Errno::INVAL, statat(CWD, "file", AtFlags::from_bits_retain(0x8000)));
}

fn stat_and_fstat_agree() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    for path in ["file", "dir", ".", "/", "/etc", "/etc/passwd", "/usr/share", "/dev/null", "/proc/self"] {
        let fd = works(open(path, OFlags::RDONLY, Mode::empty()));
        let (by_path, by_fd) = (works(stat(path)), works(rustix::fs::fstat(&fd)));
        assert_eq!((by_path.st_dev, by_path.st_ino), (by_fd.st_dev, by_fd.st_ino), "{path}");
        assert_eq!(by_path.st_mode, by_fd.st_mode, "{path}");
        assert_eq!(by_path.st_nlink, by_fd.st_nlink, "{path}");
        assert_eq!((by_path.st_uid, by_path.st_size), (by_fd.st_uid, by_fd.st_size), "{path}");
    }
}

fn inodes_in_listings_are_those_of_stat() {
    file("file");
    works(mkdir("dir", Mode::RWXU));
    works(symlink("x", "link"));
    for dir in [".", "/etc"] {
        for entry in works(fs::read_dir(dir)).flatten() {
            use std::os::unix::fs::DirEntryExt;
            let name = entry.path();
            // A mount point is listed with the inode below it.
            let seen = works(fs::symlink_metadata(&name));
            if seen.dev() == works(fs::metadata(dir)).dev() {
                assert_eq!(entry.ino(), seen.ino(), "{}", name.display());
                assert_eq!(works(entry.file_type()), seen.file_type(), "{}", name.display());
            }
        }
    }
}

fn truncate_cuts_and_grows() {
    works(fs::write("file", b"abcdef"));
    works(truncate("file", 3));
    assert_eq!(works(fs::read("file")), b"abc");
    works(truncate("file", 6));
    assert_eq!(works(fs::read("file")), b"abc\0\0\0");
    let fd = works(fs::File::open("file"));
    fails(Errno::INVAL, rustix::fs::ftruncate(&fd, 0));
}

fn truncate_of_what_is_no_file_is_refused() {
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::ISDIR, truncate("dir", 0));
    fails(Errno::NOENT, truncate("missing", 0));
    fails(Errno::INVAL, truncate("/dev/null", 0));
}

fn a_write_changes_the_times() {
    file("file");
    works(utimensat(CWD, "file", &at(1000, 0), AtFlags::empty()));
    works(fs::write("file", b"x"));
    assert!(works(stat("file")).st_mtime > 1000);
}

fn file_systems_are_told_apart() {
    assert_eq!(works(statfs("/proc")).f_type, 0x9fa0);
    assert_ne!(works(stat("/proc")).st_dev, works(stat("/")).st_dev);
    let here = works(statvfs("."));
    assert!(here.f_blocks > 0 && here.f_namemax == 255);
    fails(Errno::NOENT, statfs("missing"));
}

fn umask_is_returned_and_inherited() {
    rustix::process::umask(Mode::from_raw_mode(0o027));
    assert_eq!(rustix::process::umask(Mode::from_raw_mode(0o027)).bits(), 0o027);
    let child = works(std::process::Command::new("sh").args(["-c", "umask; umask 077; umask"]).output());
    assert_eq!(child.stdout, b"0027\n0077\n");
    assert_eq!(rustix::process::umask(Mode::empty()).bits(), 0o027);
    let status = works(fs::read_to_string("/proc/self/status"));
    assert!(status.contains("Umask:\t0000"), "{status}");
}

fn chown_to_another_is_eperm() {
    file("file");
    let root = Some(rustix::fs::Uid::ROOT);
    fails(Errno::PERM, rustix::fs::chown("file", root, None));
    fails(Errno::PERM, rustix::fs::chown("file", None, Some(rustix::fs::Gid::ROOT)));
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o6755)));
    works(rustix::fs::chown("file", None, Some(rustix::fs::Gid::from_raw(nix::unistd::getgid().as_raw()))));
    // A change of owner takes the set-id bits, also one that changes nothing.
    assert_eq!(mode_of("file"), 0o755);
}

fn a_strangers_times_and_size_are_refused() {
    fails(Errno::ACCESS, utimensat(CWD, "/etc/passwd", &at_now(), AtFlags::empty()));
    fails(Errno::PERM, utimensat(CWD, "/etc/passwd", &at(1, 1), AtFlags::empty()));
    fails(Errno::ACCESS, truncate("/etc/passwd", 0));
}

fn at_now() -> Timestamps {
    at(0, UTIME_NOW)
}

fn a_copy_with_all_attributes_is_the_same(r: &Runner) {
    let script =
        "echo x > one; setfattr -n user.a -v b one; chmod 4711 one; touch -d @1000.5 one; ln -s one two; mkfifo three
        mkdir copy; cp -a one two three copy; cd copy
        stat -c '%n %a %s %Y %F' *; getfattr --only-values -n user.a one; readlink two";
    let want = "one 4711 2 1000 regular file\nthree 644 0 N fifo\ntwo 777 3 N symbolic link\nbone";
    let got = r.bash(script).line();
    let got: Vec<_> = got.lines().map(|l| l.split(' ').collect::<Vec<_>>()).collect();
    let want: Vec<_> = want.lines().map(|l| l.split(' ').collect::<Vec<_>>()).collect();
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (got, want) in got.iter().zip(&want) {
        for (got, want) in got.iter().zip(want).filter(|(_, want)| **want != "N") {
            assert_eq!(got, want);
        }
    }
}

fn truncate_beyond_the_limit_of_sizes_is_efbig_and_a_signal() {
    use nix::sys::resource::{setrlimit, Resource};
    use nix::sys::signal::{SigSet, SigmaskHow, Signal};
    fs::write("long", [0; 3000]).expect("a new file");
    fs::write("short", "short").expect("a new file");
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    works(nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None));
    works(setrlimit(Resource::RLIMIT_FSIZE, 1000, 1000));
    works(nix::unistd::truncate("short", 1000));
    works(nix::unistd::truncate("long", 2000));
    assert!(!pending(Signal::SIGXFSZ));
    assert_eq!(nix::unistd::truncate("short", 1001), Err(nix::Error::EFBIG));
    assert!(pending(Signal::SIGXFSZ));
    assert_eq!(works(fs::metadata("short")).len(), 1000);
}

/// Whether a blocked signal waits for this process or this thread.
fn pending(signal: nix::sys::signal::Signal) -> bool {
    let status = works(fs::read_to_string("/proc/thread-self/status"));
    let masks = status.lines().filter_map(|line| line.strip_prefix("SigPnd:").or(line.strip_prefix("ShdPnd:")));
    let number = signal as i32 - 1;
    masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask >> number & 1 == 1)
}

fn a_file_system_is_told_by_its_device() {
    let script = "import ctypes, errno, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        out = ctypes.create_string_buffer(32)\n\
        d = os.stat('/').st_dev\n\
        device = os.minor(d) & 0xff | os.major(d) << 8 | (os.minor(d) & ~0xff) << 12\n\
        def ustat(d, p): return 'works' if libc.syscall(136, d, p) == 0 else errno.errorcode[ctypes.get_errno()]\n\
        print(ustat(device, out), ustat(device, None), ustat(0xfffffff0, out))";
    let said = works(std::process::Command::new("python3").args(["-c", script]).output());
    assert_eq!(String::from_utf8_lossy(&said.stdout), "works EFAULT EINVAL\n");
}
