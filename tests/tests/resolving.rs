//! What openat2(2) adds: limits to how a path is walked, and no unknown bits.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;

use rustix::fs::{mkdir, open, openat2, Mode, OFlags, ResolveFlags, CWD};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, program, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        open2_refuses_unknown_bits,
        open2_beneath_refuses_what_leaves,
        open2_in_root_keeps_inside,
        open2_no_symlinks_refuses_every_link,
        open2_no_magiclinks_refuses_only_magic,
        open2_no_xdev_stays_on_its_mount,
    }
    from_outside at EVERYWHERE {
        open2_checks_the_size_of_its_structure,
    }
}

fn create(path: &str) -> fs::File {
    works(fs::File::options().read(true).write(true).create(true).truncate(false).open(path))
}

fn resolve(path: &str, how: ResolveFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    openat2(CWD, path, OFlags::RDONLY, Mode::empty(), how)
}

fn open2_refuses_unknown_bits() {
    create("file");
    fails(Errno::INVAL, openat2(CWD, "file", OFlags::from_bits_retain(1 << 29), Mode::empty(), ResolveFlags::empty()));
    fails(Errno::INVAL, resolve("file", ResolveFlags::from_bits_retain(1 << 20)));
    let both = ResolveFlags::BENEATH | ResolveFlags::IN_ROOT;
    fails(Errno::INVAL, resolve("file", both));
    let create = OFlags::CREATE | OFlags::WRONLY;
    works(openat2(CWD, "new", create, Mode::RUSR, ResolveFlags::empty()));
    // open(2), the older, ignores what it does not know.
    works(open("file", OFlags::from_bits_retain(1 << 29), Mode::empty()));
}

fn open2_beneath_refuses_what_leaves() {
    works(mkdir("dir", Mode::RWXU));
    create("dir/file");
    works(symlink("dir/file", "inside"));
    works(symlink("../work/dir", "outside"));
    works(symlink("/etc/passwd", "absolute"));
    works(resolve("dir/file", ResolveFlags::BENEATH));
    works(resolve("dir/../dir/file", ResolveFlags::BENEATH));
    works(resolve("inside", ResolveFlags::BENEATH));
    fails(Errno::XDEV, resolve("..", ResolveFlags::BENEATH));
    fails(Errno::XDEV, resolve("dir/../..", ResolveFlags::BENEATH));
    fails(Errno::XDEV, resolve("/etc/passwd", ResolveFlags::BENEATH));
    fails(Errno::XDEV, resolve("absolute", ResolveFlags::BENEATH));
    fails(Errno::XDEV, resolve("outside", ResolveFlags::BENEATH));
    fails(Errno::XDEV, resolve("/proc/self/cwd", ResolveFlags::BENEATH));
}

fn open2_in_root_keeps_inside() {
    works(fs::create_dir_all("root/etc"));
    works(fs::write("root/etc/passwd", b"inside"));
    works(symlink("/etc/passwd", "root/link"));
    let root = works(open("root", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
    for path in ["/etc/passwd", "link", "../../etc/passwd", "/../link", "etc/../../../etc/passwd"] {
        let fd = works(openat2(&root, path, OFlags::RDONLY, Mode::empty(), ResolveFlags::IN_ROOT));
        let mut text = String::new();
        works(fs::File::from(fd).read_to_string(&mut text));
        assert_eq!(text, "inside", "{path}");
    }
}

fn open2_no_symlinks_refuses_every_link() {
    works(mkdir("dir", Mode::RWXU));
    create("dir/file");
    works(symlink("dir", "link"));
    works(resolve("dir/file", ResolveFlags::NO_SYMLINKS));
    fails(Errno::LOOP, resolve("link/file", ResolveFlags::NO_SYMLINKS));
    fails(Errno::LOOP, resolve("link", ResolveFlags::NO_SYMLINKS));
    fails(Errno::LOOP, resolve("/proc/self/cwd", ResolveFlags::NO_SYMLINKS));
    let itself = OFlags::PATH | OFlags::NOFOLLOW;
    works(openat2(CWD, "link", itself, Mode::empty(), ResolveFlags::NO_SYMLINKS));
}

fn open2_no_magiclinks_refuses_only_magic() {
    create("file");
    works(symlink("file", "link"));
    works(resolve("link", ResolveFlags::NO_MAGICLINKS));
    fails(Errno::LOOP, resolve("/proc/self/cwd", ResolveFlags::NO_MAGICLINKS));
    fails(Errno::LOOP, resolve("/proc/self/exe", ResolveFlags::NO_MAGICLINKS));
    // /proc/self is an ordinary link.
    works(resolve("/proc/self/status", ResolveFlags::NO_MAGICLINKS));
}

fn open2_no_xdev_stays_on_its_mount() {
    create("file");
    works(resolve("file", ResolveFlags::NO_XDEV));
    works(resolve("../work/file", ResolveFlags::NO_XDEV));
    fails(Errno::XDEV, resolve("/proc/self/status", ResolveFlags::NO_XDEV));
    let root = works(open("/", OFlags::RDONLY, Mode::empty()));
    fails(Errno::XDEV, openat2(&root, "proc", OFlags::RDONLY, Mode::empty(), ResolveFlags::NO_XDEV));
}

fn open2_checks_the_size_of_its_structure(r: &Runner) {
    assert_eq!(r.run([program("open_how")]).line(), "sizes checked");
}
