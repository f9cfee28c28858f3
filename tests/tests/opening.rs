//! Opening: what the flags of open(2) and openat2(2) mean, each alone and the odd pairs.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};

use rustix::fs::{
    access, fcntl_getfl, fstat, fstatfs, linkat, mkdir, open, openat, stat, Access, AtFlags, Mode, OFlags, CWD,
};
use rustix::io::{fcntl_getfd, Errno, FdFlags};
use umvu_tests::{behaviours, fails, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        a_new_file_gets_its_mode_less_the_umask,
        an_old_file_keeps_its_mode,
        exclusive_creation_refuses_what_exists,
        exclusive_creation_refuses_a_dangling_link,
        creation_through_a_dangling_link_makes_the_target,
        creation_through_a_link_into_nowhere_is_enoent,
        a_read_only_creation_descriptor_of_mode_zero_works,
        truncation_empties_the_file,
        a_directory_opens_only_for_reading,
        creating_a_directory_name_is_eisdir,
        creating_what_ends_in_a_slash_is_eisdir,
        creating_what_ends_in_dots_is_eisdir_or_eexist,
        nofollow_refuses_a_link_at_the_end_alone,
        directory_refuses_a_file,
        close_on_exec_is_kept,
        status_flags_are_kept,
        append_writes_at_the_end,
        path_descriptors_name_and_nothing_more,
        path_descriptors_of_links_name_the_link,
        a_path_descriptor_reopens_through_proc,
        an_unnamed_file_can_be_linked,
        an_exclusive_unnamed_file_cannot_be_linked,
        an_unnamed_file_needs_a_directory_and_write_access,
        two_opens_are_two_offsets_and_one_file,
        an_unlinked_open_file_lives_on,
        the_lowest_free_descriptor_is_taken,
        a_full_descriptor_table_is_emfile,
        a_lock_holds_between_two_opens,
        a_mapped_write_is_read_back,
        sparse_files_stay_sparse,
    }
    in_guest at USER {
        permissions_are_checked_by_open_and_access,
        a_write_protected_file_is_eacces,
    }
    from_outside at EVERYWHERE {
        noatime_of_a_strangers_file_is_eperm,
    }
}

fn create(path: &str) -> fs::File {
    works(fs::File::options().read(true).write(true).create(true).truncate(false).open(path))
}

fn mode_of(path: &str) -> u32 {
    works(stat(path)).st_mode & 0o7777
}

fn a_new_file_gets_its_mode_less_the_umask() {
    for (umask, wanted, got) in [(0o022, 0o666, 0o644), (0, 0o1777, 0o1777), (0o077, 0o755, 0o700), (0o777, 0o777, 0)] {
        rustix::process::umask(Mode::from_raw_mode(umask));
        let name = format!("{umask:o}");
        works(open(name.as_str(), OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(wanted)));
        assert_eq!(mode_of(&name), got, "umask {umask:o}, mode {wanted:o}");
        let dir = format!("{umask:o}.dir");
        works(mkdir(dir.as_str(), Mode::from_raw_mode(wanted & 0o777)));
        assert_eq!(mode_of(&dir) & 0o777, wanted & 0o777 & !umask);
    }
}

fn an_old_file_keeps_its_mode() {
    create("file");
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o640)));
    works(open("file", OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC, Mode::from_raw_mode(0o777)));
    assert_eq!(mode_of("file"), 0o640);
}

fn exclusive_creation_refuses_what_exists() {
    create("file");
    let exclusive = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    fails(Errno::EXIST, open("file", exclusive, Mode::RUSR));
    fails(Errno::EXIST, open(".", exclusive, Mode::RUSR));
    fails(Errno::EXIST, open("/", exclusive, Mode::RUSR));
    // A path that cannot be walked is told first.
    fails(Errno::NOTDIR, open("file/x", exclusive, Mode::RUSR));
    works(open("new", exclusive, Mode::RUSR));
    fails(Errno::EXIST, open("new", exclusive, Mode::RUSR));
}

fn exclusive_creation_refuses_a_dangling_link() {
    works(symlink("missing", "dangling"));
    fails(Errno::EXIST, open("dangling", OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::NOENT, stat("missing"));
}

fn creation_through_a_dangling_link_makes_the_target() {
    works(mkdir("dir", Mode::RWXU));
    works(symlink("dir/target", "dangling"));
    works(open("dangling", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR));
    assert!(works(fs::symlink_metadata("dangling")).is_symlink());
    assert!(works(fs::symlink_metadata("dir/target")).is_file());
    fails(Errno::LOOP, open("dangling", OFlags::CREATE | OFlags::NOFOLLOW | OFlags::WRONLY, Mode::RUSR));
}

fn creation_through_a_link_into_nowhere_is_enoent() {
    works(symlink("missing/target", "dangling"));
    fails(Errno::NOENT, open("dangling", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
}

fn a_read_only_creation_descriptor_of_mode_zero_works() {
    // The mode given at creation binds later opens, not this one.
    let fd = works(open("file", OFlags::CREATE | OFlags::RDWR, Mode::empty()));
    assert_eq!(works(rustix::io::write(&fd, b"x")), 1);
    assert_eq!(mode_of("file"), 0);
}

fn truncation_empties_the_file() {
    works(fs::write("file", b"contents"));
    works(open("file", OFlags::WRONLY | OFlags::TRUNC, Mode::empty()));
    assert_eq!(works(stat("file")).st_size, 0);
}

fn a_directory_opens_only_for_reading() {
    works(mkdir("dir", Mode::RWXU));
    let fd = works(open("dir", OFlags::RDONLY, Mode::empty()));
    fails(Errno::ISDIR, rustix::io::read(&fd, &mut [0; 8]));
    fails(Errno::ISDIR, open("dir", OFlags::WRONLY, Mode::empty()));
    fails(Errno::ISDIR, open("dir", OFlags::RDWR, Mode::empty()));
    fails(Errno::ISDIR, open("dir", OFlags::RDONLY | OFlags::TRUNC, Mode::empty()));
    works(mkdir("dir/sub", Mode::RWXU));
}

fn creating_a_directory_name_is_eisdir() {
    works(mkdir("dir", Mode::RWXU));
    fails(Errno::ISDIR, open("dir", OFlags::CREATE | OFlags::RDONLY, Mode::RUSR));
    fails(Errno::ISDIR, open(".", OFlags::CREATE | OFlags::RDONLY, Mode::RUSR));
    fails(Errno::INVAL, open("new", OFlags::CREATE | OFlags::DIRECTORY | OFlags::RDONLY, Mode::RUSR));
    fails(Errno::NOENT, stat("new"));
}

fn creating_what_ends_in_a_slash_is_eisdir() {
    fs::write("file", "x").expect("a file");
    symlink("file", "link").expect("a link");
    for path in ["missing/", "file/", "link/"] {
        fails(Errno::ISDIR, open(path, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
        fails(Errno::ISDIR, open(path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR));
    }
    fails(Errno::NOTDIR, open("file/", OFlags::WRONLY, Mode::empty()));
}

fn creating_what_ends_in_dots_is_eisdir_or_eexist() {
    for path in [".", "..", "/", "./."] {
        fails(Errno::ISDIR, open(path, OFlags::CREATE | OFlags::RDONLY, Mode::RUSR));
        fails(Errno::EXIST, open(path, OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR));
    }
}

fn nofollow_refuses_a_link_at_the_end_alone() {
    works(mkdir("dir", Mode::RWXU));
    create("dir/file");
    works(symlink("dir", "link"));
    works(symlink("dir/file", "filelink"));
    fails(Errno::LOOP, open("filelink", OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()));
    works(open("link/file", OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()));
    // The slash makes the kernel follow; DIRECTORY alone does not.
    works(open("link/", OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()));
    fails(Errno::NOTDIR, open("link", OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty()));
}

fn directory_refuses_a_file() {
    create("file");
    works(symlink(".", "link"));
    fails(Errno::NOTDIR, open("file", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
    works(open("link", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
}

fn close_on_exec_is_kept() {
    create("file");
    for path in ["file", ".", "/dev/null"] {
        let with = works(open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()));
        assert_eq!(works(fcntl_getfd(&with)), FdFlags::CLOEXEC, "{path}");
        let without = works(open(path, OFlags::RDONLY, Mode::empty()));
        assert_eq!(works(fcntl_getfd(&without)), FdFlags::empty(), "{path}");
    }
}

fn status_flags_are_kept() {
    create("file");
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NONBLOCK;
    let fd = works(open("file", flags, Mode::empty()));
    assert_eq!(works(fcntl_getfl(&fd)) & (OFlags::RWMODE | OFlags::APPEND | OFlags::NONBLOCK), flags);
    let fd = works(open("file", OFlags::RDONLY, Mode::empty()));
    assert_eq!(works(fcntl_getfl(&fd)) & OFlags::RWMODE, OFlags::RDONLY);
    fails(Errno::BADF, rustix::io::write(&fd, b"x"));
}

fn append_writes_at_the_end() {
    works(fs::write("file", b"one "));
    let mut file = works(fs::File::options().append(true).open("file"));
    works(fs::File::options().append(true).open("file").and_then(|mut other| other.write_all(b"two ")));
    works(file.write_all(b"three"));
    assert_eq!(works(fs::read("file")), b"one two three");
}

fn path_descriptors_name_and_nothing_more() {
    works(fs::write("file", b"x"));
    let fd = works(open("file", OFlags::PATH, Mode::empty()));
    assert!(works(fcntl_getfl(&fd)).contains(OFlags::PATH));
    fails(Errno::BADF, rustix::io::read(&fd, &mut [0; 1]));
    fails(Errno::BADF, rustix::io::write(&fd, b"y"));
    fails(Errno::BADF, rustix::fs::fchmod(&fd, Mode::RWXU));
    fails(Errno::BADF, rustix::fs::ftruncate(&fd, 0));
    assert_eq!(works(fstat(&fd)).st_ino, works(stat("file")).st_ino);
    works(fstatfs(&fd));
    // No permission on the file itself is needed.
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o000)));
    works(open("file", OFlags::PATH, Mode::empty()));
    let dir = works(open(".", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()));
    works(rustix::process::fchdir(&dir));
    fails(Errno::NOTDIR, open("file", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()));
}

fn path_descriptors_of_links_name_the_link() {
    works(symlink("missing", "link"));
    let fd = works(open("link", OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()));
    assert_eq!(works(fstat(&fd)).st_mode & libc::S_IFMT, libc::S_IFLNK);
    let target = works(rustix::fs::readlinkat(&fd, "", Vec::new()));
    assert_eq!(target.as_bytes(), b"missing");
}

fn a_path_descriptor_reopens_through_proc() {
    works(fs::write("file", b"x"));
    let fd = works(open("file", OFlags::PATH, Mode::empty()));
    let through = format!("/proc/self/fd/{}", fd.as_raw_fd());
    assert_eq!(works(fs::read(&through)), b"x");
    works(fs::write(&through, b"y"));
    assert_eq!(works(fs::read("file")), b"y");
    fails(Errno::LOOP, open(through.as_str(), OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty()));
}

fn an_unnamed_file_can_be_linked() {
    let fd = works(open(".", OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o640)));
    assert_eq!(works(fs::read_dir(".")).count(), 0);
    assert_eq!(works(fstat(&fd)).st_nlink, 0);
    works(rustix::io::write(&fd, b"contents"));
    let through = format!("/proc/self/fd/{}", fd.as_raw_fd());
    works(linkat(CWD, through.as_str(), CWD, "named", AtFlags::SYMLINK_FOLLOW));
    assert_eq!(works(fs::read("named")), b"contents");
    assert_eq!(works(stat("named")).st_nlink, 1);
    assert_eq!(works(stat("named")).st_ino, works(fstat(&fd)).st_ino);
}

fn an_exclusive_unnamed_file_cannot_be_linked() {
    let fd = works(open(".", OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR, Mode::RUSR));
    let through = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fails(Errno::NOENT, linkat(CWD, through.as_str(), CWD, "named", AtFlags::SYMLINK_FOLLOW));
}

fn an_unnamed_file_needs_a_directory_and_write_access() {
    create("file");
    fails(Errno::INVAL, open(".", OFlags::TMPFILE | OFlags::RDONLY, Mode::RUSR));
    let bare = OFlags::TMPFILE.difference(OFlags::DIRECTORY);
    fails(Errno::INVAL, open(".", bare | OFlags::RDWR, Mode::RUSR));
    fails(Errno::INVAL, open(".", OFlags::TMPFILE | OFlags::CREATE | OFlags::RDWR, Mode::RUSR));
    fails(Errno::NOTDIR, open("file", OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR));
    fails(Errno::NOENT, open("missing", OFlags::TMPFILE | OFlags::RDWR, Mode::RUSR));
}

fn two_opens_are_two_offsets_and_one_file() {
    works(fs::write("file", b"abcdef"));
    let (mut one, mut two) = (create("file"), create("file"));
    let mut byte = [0; 2];
    works(one.read_exact(&mut byte));
    works(two.read_exact(&mut byte));
    assert_eq!(&byte, b"ab");
    works(one.write_all(b"XX"));
    works(two.read_exact(&mut byte));
    assert_eq!(&byte, b"XX");
    let mut duplicate = works(one.try_clone());
    works(duplicate.seek(SeekFrom::Start(0)));
    works(one.read_exact(&mut byte));
    assert_eq!(&byte, b"ab");
}

fn an_unlinked_open_file_lives_on() {
    works(fs::write("file", b"contents"));
    let mut file = create("file");
    let inode = works(file.metadata()).ino();
    works(fs::remove_file("file"));
    let after = works(file.metadata());
    assert_eq!((after.nlink(), after.ino(), after.len()), (0, inode, 8));
    let mut text = String::new();
    works(file.read_to_string(&mut text));
    assert_eq!(text, "contents");
    works(file.write_all(b" and more"));
    let link = works(fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())));
    assert!(link.to_string_lossy().ends_with("/file (deleted)"), "{}", link.display());
}

fn the_lowest_free_descriptor_is_taken() {
    create("file");
    let fds: Vec<_> = (0..5).map(|_| works(open("file", OFlags::RDONLY, Mode::empty()))).collect();
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    assert_eq!(numbers, (numbers[0]..numbers[0] + 5).collect::<Vec<_>>());
    let hole = numbers[1];
    let mut fds = fds;
    drop(fds.remove(1));
    let again = works(openat(CWD, "file", OFlags::RDONLY, Mode::empty()));
    assert_eq!(again.as_raw_fd(), hole);
}

fn a_full_descriptor_table_is_emfile() {
    use nix::sys::resource::{setrlimit, Resource};
    create("file");
    works(setrlimit(Resource::RLIMIT_NOFILE, 32, 32));
    let mut fds = Vec::new();
    let full = loop {
        match open("file", OFlags::RDONLY, Mode::empty()) {
            Ok(fd) => fds.push(fd),
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, Errno::MFILE);
    fails(Errno::MFILE, open("file", OFlags::PATH, Mode::empty()));
    fds.pop();
    works(open("file", OFlags::RDONLY, Mode::empty()));
}

fn a_lock_holds_between_two_opens() {
    use rustix::fs::{flock, FlockOperation};
    let (one, two) = (create("file"), create("file"));
    works(flock(&one, FlockOperation::LockExclusive));
    fails(Errno::WOULDBLOCK, flock(&two, FlockOperation::NonBlockingLockExclusive));
    works(flock(&one, FlockOperation::Unlock));
    works(flock(&two, FlockOperation::NonBlockingLockExclusive));
}

fn a_mapped_write_is_read_back() {
    // mmap needs unsafe code, so python does it.
    let script = "import mmap\nf=open('file','w+b'); f.write(b'x'*4096); f.flush()\n\
                  m=mmap.mmap(f.fileno(),4096); m[0:3]=b'abc'; m.flush()\nassert open('file','rb').read(3)==b'abc'";
    assert!(works(std::process::Command::new("python3").args(["-c", script]).status()).success());
}

fn sparse_files_stay_sparse() {
    let file = create("file");
    works(file.set_len(1 << 30));
    works(rustix::io::pwrite(&file, b"end", (1 << 30) - 3));
    let metadata = works(fs::metadata("file"));
    assert_eq!(metadata.len(), 1 << 30);
    assert!(metadata.blocks() < 1000, "{} blocks", metadata.blocks());
    assert!(works(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0))) > 0);
}

fn permissions_are_checked_by_open_and_access() {
    create("file");
    for mode in 0..8_u32 {
        works(fs::set_permissions("file", fs::Permissions::from_mode(mode << 6)));
        for (bit, flags, wish) in [(4, OFlags::RDONLY, Access::READ_OK), (2, OFlags::WRONLY, Access::WRITE_OK)] {
            let allowed = mode & bit != 0;
            assert_eq!(open("file", flags, Mode::empty()).err(), (!allowed).then_some(Errno::ACCESS), "{mode:o}");
            assert_eq!(access("file", wish).err(), (!allowed).then_some(Errno::ACCESS), "{mode:o}");
        }
        assert_eq!(access("file", Access::EXEC_OK).is_ok(), mode & 1 != 0);
        works(access("file", Access::EXISTS));
    }
}

fn a_write_protected_file_is_eacces() {
    fails(Errno::ACCESS, open("/etc/passwd", OFlags::WRONLY, Mode::empty()));
    fails(Errno::ACCESS, open("/etc/shadow", OFlags::RDONLY, Mode::empty()));
    fails(Errno::ACCESS, open("/etc/new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::ACCESS, rustix::fs::unlink("/etc/passwd"));
    fails(Errno::ACCESS, mkdir("/etc/new", Mode::RWXU));
    // What exists is told before the directory's permission.
    fails(Errno::EXIST, mkdir("/etc/passwd", Mode::RWXU));
    fails(Errno::PERM, rustix::fs::chmod("/etc/passwd", Mode::RWXU));
    fails(Errno::PERM, rustix::fs::chown("/etc/passwd", Some(rustix::fs::Uid::from_raw(1000)), None));
}

fn noatime_of_a_strangers_file_is_eperm(r: &Runner) {
    let script = "import os\n\
                  open('mine','w'); os.close(os.open('mine', os.O_RDONLY | os.O_NOATIME))\n\
                  try: os.open('/etc/passwd', os.O_RDONLY | os.O_NOATIME)\n\
                  except PermissionError as e: print(e.errno)";
    assert_eq!(r.run(["python3", "-c", script]).line(), "1");
}
