//! What every combination of the `RESOLVE_*` flags of openat2(2) makes of paths that cross mounts, links and the start:
//! one table, which the kernel's own namespaces fill in as views do.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;

use nix::mount::{mount, MsFlags};
use rustix::fs::{fstat, mkdir, open, openat2, stat, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at MOUNTING {
        every_combination_of_flags_is_resolved_as_the_kernel_does,
    }
    in_guest at UNMERGED {
        mounts_of_the_host_are_told_apart,
    }
    in_guest at EVERYWHERE {
        what_is_cached_is_found_at_once,
    }
}

/// The flags, in the order of the bits of a column's number; `BENEATH` and `IN_ROOT` exclude each other.
const FLAGS: [ResolveFlags; 5] = [
    ResolveFlags::NO_XDEV,
    ResolveFlags::NO_MAGICLINKS,
    ResolveFlags::NO_SYMLINKS,
    ResolveFlags::BENEATH,
    ResolveFlags::IN_ROOT,
];

/// A path as it is given with `%` for the absolute path of the start and `*` for a descriptor's number, whether links
/// are followed, and what is found with each combination of flags.
const TABLE: &str = include_str!("resolve_flags.table");

/// What can be found, by one letter.
struct Found {
    known: Vec<(char, (u64, u64))>,
}

impl Found {
    fn letter(&self, result: Result<OwnedFd, Errno>) -> char {
        match result {
            Ok(fd) => {
                let stat = works(fstat(&fd));
                let found = self.known.iter().find(|(_, id)| *id == (stat.st_dev, stat.st_ino));
                found.map_or('?', |(letter, _)| *letter)
            }
            Err(Errno::XDEV) => 'X',
            Err(Errno::LOOP) => 'L',
            Err(Errno::NOENT) => 'N',
            Err(Errno::NOTDIR) => 'D',
            Err(Errno::INVAL) => 'I',
            Err(errno) => panic!("{errno:?}"),
        }
    }
}

/// Makes the tree; the start is the directory `start`.
fn tree(top: &str) -> Found {
    for directory in ["start", "start/dir", "start/m"] {
        works(mkdir(directory, Mode::RWXU));
    }
    works(mount(Some("none"), "start/m", Some("tmpfs"), MsFlags::empty(), None::<&str>));
    works(mkdir("start/m/sub", Mode::RWXU));
    for file in ["out", "start/file", "start/dir/inner", "start/m/in"] {
        works(fs::write(file, file));
    }
    let links = [
        ("dir/inner", "rel"),
        ("../out", "up"),
        ("m/in", "into"),
        ("m", "mount"),
        ("..", "above"),
        ("dir/../file", "dots"),
        ("loop", "loop"),
        ("missing", "dangling"),
        ("/", "root"),
        ("/file", "rooted"),
        ("../file", "m/back"),
        ("in", "m/near"),
        ("/m/in", "m/rooted"),
    ];
    for (text, name) in links {
        works(symlink(text, format!("start/{name}")));
    }
    works(symlink(format!("{top}/start/file"), "start/abs"));
    works(symlink(format!("{top}/start/m/in"), "start/m/abs"));
    let id = |path: &str| {
        let stat = works(stat(path));
        (stat.st_dev, stat.st_ino)
    };
    let link = |path: &str| {
        let stat = works(rustix::fs::lstat(path));
        (stat.st_dev, stat.st_ino)
    };
    let mut known: Vec<_> = [
        ('o', "out"),
        ('s', "start"),
        ('f', "start/file"),
        ('d', "start/dir"),
        ('i', "start/dir/inner"),
        ('m', "start/m"),
        ('u', "start/m/sub"),
        ('n', "start/m/in"),
        ('t', "."),
        ('/', "/"),
        ('p', "/proc/self"),
    ]
    .map(|(letter, path)| (letter, id(path)))
    .into();
    let links = links.map(|(_, name)| format!("start/{name}"));
    known.extend(links.iter().map(|path| ('l', link(path))));
    known.push(('l', link("start/abs")));
    known.push(('l', link("start/m/abs")));
    Found { known }
}

fn every_combination_of_flags_is_resolved_as_the_kernel_does() {
    let top = works(std::env::current_dir());
    let top = top.to_str().expect("a name of ours");
    let found = tree(top);
    let path_only = OFlags::PATH;
    let start = works(open("start", path_only, Mode::empty()));
    let file = works(open("start/file", path_only, Mode::empty()));
    // Where the tests lie on another mount than `/`, it is crossed by absolute paths.
    let is_one_mount = works(stat("/")).st_dev == works(stat(".")).st_dev;
    let is_absolute = |line: &&str| line.starts_with('%') || line.contains("abs");
    let rows = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rows = rows.filter(|line| is_one_mount || !is_absolute(line));
    let mut seen = Vec::new();
    for row in rows.clone() {
        let mut words = row.split_whitespace();
        let (Some(text), Some(how)) = (words.next(), words.next()) else { panic!("{row}: a path and a way") };
        let path = text
            .replace('%', &format!("{top}/start"))
            .replace("*f", &format!("/proc/self/fd/{}", file.as_raw_fd()))
            .replace("*s", &format!("/proc/self/fd/{}", start.as_raw_fd()));
        let follows = match how {
            "follow" => OFlags::empty(),
            _ => OFlags::NOFOLLOW,
        };
        let letters: String = (0..1u32 << FLAGS.len())
            .map(|number| {
                let chosen = FLAGS.iter().enumerate().filter(|(bit, _)| number >> bit & 1 != 0);
                let resolve = chosen.fold(ResolveFlags::empty(), |all, (_, flag)| all | *flag);
                found.letter(openat2(start.as_fd(), &*path, path_only | follows, Mode::empty(), resolve))
            })
            .collect();
        seen.push(format!("{text:16}{how:9}{letters}"));
    }
    let wrong: Vec<_> = rows.zip(&seen).filter(|(row, seen)| row != seen).collect();
    let shown: Vec<_> = wrong.iter().map(|(row, seen)| format!("table {row}\nseen  {seen}\n")).collect();
    assert!(wrong.is_empty(), "\n{}", shown.concat());
}

fn mounts_of_the_host_are_told_apart() {
    let root = works(open("/", OFlags::PATH, Mode::empty()));
    let find = |path: &str, resolve| openat2(&root, path, OFlags::PATH, Mode::empty(), resolve);
    for mount in ["dev", "proc", "sys", "/dev", "dev/null", "dev/.."] {
        works(find(mount, ResolveFlags::empty()));
        fails(Errno::XDEV, find(mount, ResolveFlags::NO_XDEV));
    }
    works(find("etc", ResolveFlags::NO_XDEV));
    works(find("/etc/passwd", ResolveFlags::NO_XDEV));
}

fn what_is_cached_is_found_at_once() {
    works(fs::write("file", "x"));
    works(mkdir("dir", Mode::RWXU));
    let find = |path: &str, flags, mode| openat2(rustix::fs::CWD, path, flags, mode, ResolveFlags::CACHED);
    works(find("file", OFlags::RDONLY, Mode::empty()));
    works(find("dir/../file", OFlags::RDWR, Mode::empty()));
    fails(Errno::AGAIN, find("new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::AGAIN, find("file", OFlags::TRUNC | OFlags::WRONLY, Mode::empty()));
    fails(Errno::AGAIN, find("dir", OFlags::TMPFILE | OFlags::WRONLY, Mode::RUSR));
    // What contradicts itself is told before.
    fails(Errno::INVAL, find("dir", OFlags::TMPFILE | OFlags::RDONLY, Mode::RUSR));
    fails(Errno::INVAL, find("new", OFlags::CREATE | OFlags::DIRECTORY, Mode::RUSR));
    fails(Errno::INVAL, find("file", OFlags::PATH | OFlags::TRUNC, Mode::empty()));
}
