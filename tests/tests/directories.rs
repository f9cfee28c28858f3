//! Directories as places to stand in and as lists that change: chdir, getcwd, getdents, inotify.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use rustix::fs::{mkdir, mkdirat, open, openat, rename, rmdir, stat, symlinkat, Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{chdir, fchdir, getcwd};
use umvu_tests::{behaviours, fails, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        chdir_moves_and_getcwd_tells,
        chdir_through_a_link_lands_on_the_target,
        chdir_to_what_is_no_directory_is_refused,
        fchdir_takes_directories_alone,
        a_renamed_working_directory_is_told_by_its_new_name,
        a_removed_working_directory_is_enoent,
        a_removed_working_directory_can_be_left,
        the_working_directory_is_inherited_and_private,
        the_working_directory_of_the_root_is_a_slash,
        getcwd_needs_room,
        a_listing_has_dot_and_dot_dot,
        a_listing_can_be_rewound,
        names_that_stay_are_listed_once_while_others_come_and_go,
        removing_while_listing_removes_all,
        a_removed_directory_lists_nothing,
        a_position_in_a_listing_can_be_returned_to,
        a_listing_of_a_file_is_enotdir,
        a_duplicated_directory_shares_its_position,
        inotify_tells_of_names_in_a_directory,
        inotify_tells_of_a_file,
        inotify_of_a_missing_file_is_enoent,
    }
    in_guest at ANYONE {
        nothing_is_made_in_a_removed_directory,
    }
    from_outside at EVERYWHERE {
        tools_agree_on_the_working_directory,
        find_and_ls_agree,
    }
}

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn here() -> String {
    String::from_utf8(works(getcwd(Vec::new())).into_bytes()).expect("a plain path")
}

fn chdir_moves_and_getcwd_tells() {
    works(mkdir("dir", Mode::RWXU));
    let before = here();
    works(chdir("dir"));
    assert_eq!(here(), format!("{before}/dir"));
    works(chdir(".."));
    assert_eq!(here(), before);
    works(chdir("/usr"));
    assert_eq!(here(), "/usr");
    works(stat("share"));
    works(chdir("./share/../share//."));
    assert_eq!(here(), "/usr/share");
}

fn chdir_through_a_link_lands_on_the_target() {
    works(fs::create_dir_all("dir/sub"));
    works(symlink("dir/sub", "link"));
    let before = here();
    works(chdir("link"));
    assert_eq!(here(), format!("{before}/dir/sub"));
    works(chdir(".."));
    assert_eq!(here(), format!("{before}/dir"));
}

fn chdir_to_what_is_no_directory_is_refused() {
    file("file");
    works(symlink("self", "self"));
    fails(Errno::NOTDIR, chdir("file"));
    fails(Errno::NOENT, chdir("missing"));
    fails(Errno::NOENT, chdir(""));
    fails(Errno::LOOP, chdir("self"));
}

fn fchdir_takes_directories_alone() {
    works(mkdir("dir", Mode::RWXU));
    file("file");
    let before = here();
    let dir = works(open("dir", OFlags::RDONLY, Mode::empty()));
    works(fchdir(&dir));
    assert_eq!(here(), format!("{before}/dir"));
    let path = works(open("..", OFlags::PATH, Mode::empty()));
    works(fchdir(&path));
    assert_eq!(here(), before);
    let no_dir = works(open("file", OFlags::RDONLY, Mode::empty()));
    fails(Errno::NOTDIR, fchdir(&no_dir));
}

fn a_renamed_working_directory_is_told_by_its_new_name() {
    works(mkdir("old", Mode::RWXU));
    let before = here();
    works(chdir("old"));
    works(rename("../old", "../new"));
    assert_eq!(here(), format!("{before}/new"));
    file("inside");
    works(stat("../new/inside"));
}

fn a_removed_working_directory_is_enoent() {
    works(mkdir("dir", Mode::RWXU));
    works(chdir("dir"));
    works(rmdir("../dir"));
    fails(Errno::NOENT, getcwd(Vec::new()));
    fails(Errno::NOENT, open("new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::NOENT, mkdir("new", Mode::RWXU));
    works(stat("."));
    assert_eq!(works(stat(".")).st_nlink, 0);
    let link = works(fs::read_link("/proc/self/cwd"));
    assert!(link.to_string_lossy().ends_with("/dir (deleted)"), "{}", link.display());
}

fn a_removed_working_directory_can_be_left() {
    works(mkdir("dir", Mode::RWXU));
    let before = here();
    works(chdir("dir"));
    works(rmdir("../dir"));
    works(chdir(".."));
    assert_eq!(here(), before);
}

fn the_working_directory_is_inherited_and_private() {
    works(mkdir("dir", Mode::RWXU));
    let before = here();
    works(chdir("dir"));
    let child = works(std::process::Command::new("sh").args(["-c", "/bin/pwd; cd /usr; /bin/pwd"]).output());
    assert_eq!(String::from_utf8_lossy(&child.stdout), format!("{before}/dir\n/usr\n"));
    assert_eq!(here(), format!("{before}/dir"));
}

fn the_working_directory_of_the_root_is_a_slash() {
    works(chdir("/"));
    assert_eq!(here(), "/");
    works(chdir(".."));
    assert_eq!(here(), "/");
}

fn getcwd_needs_room() {
    let length = here().len();
    let got = nix::unistd::getcwd().expect("getcwd");
    assert_eq!(got.as_os_str().len(), length);
}

fn names(dir: &mut Dir) -> Vec<String> {
    let mut names: Vec<_> = dir.map(|entry| works(entry).file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn open_dir(path: &str) -> Dir {
    let fd = works(open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
    works(Dir::read_from(&fd))
}

fn a_listing_has_dot_and_dot_dot() {
    file("file");
    assert_eq!(names(&mut open_dir(".")), [".", "..", "file"]);
    let root = names(&mut open_dir("/"));
    assert!(root.contains(&"..".to_owned()) && root.contains(&"proc".to_owned()), "{root:?}");
}

fn a_listing_can_be_rewound() {
    file("one");
    let mut dir = open_dir(".");
    assert_eq!(names(&mut dir).len(), 3);
    assert_eq!(names(&mut dir).len(), 0);
    file("two");
    dir.rewind();
    assert_eq!(names(&mut dir), [".", "..", "one", "two"]);
}

fn names_that_stay_are_listed_once_while_others_come_and_go() {
    works(mkdir("dir", Mode::RWXU));
    for number in 0..1000 {
        file(&format!("dir/stays{number}"));
        file(&format!("dir/goes{number}"));
    }
    let mut seen = Vec::new();
    for (count, entry) in open_dir("dir").enumerate() {
        seen.push(works(entry).file_name().to_string_lossy().into_owned());
        if count < 1000 {
            works(fs::remove_file(format!("dir/goes{count}")));
            file(&format!("dir/comes{count}"));
        }
    }
    seen.sort();
    let listed = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), listed, "a name was listed twice");
    assert_eq!(seen.iter().filter(|name| name.starts_with("stays")).count(), 1000);
}

fn removing_while_listing_removes_all() {
    works(mkdir("dir", Mode::RWXU));
    for number in 0..3000 {
        file(&format!("dir/{number}"));
    }
    for entry in open_dir("dir") {
        let name = works(entry).file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            works(fs::remove_file(format!("dir/{name}")));
        }
    }
    works(rmdir("dir"));
}

fn a_removed_directory_lists_nothing() {
    works(mkdir("dir", Mode::RWXU));
    let fd = works(open("dir", OFlags::RDONLY, Mode::empty()));
    works(rmdir("dir"));
    let mut buffer = Vec::with_capacity(4096);
    let mut raw = rustix::fs::RawDir::new(&fd, buffer.spare_capacity_mut());
    match raw.next() {
        Some(Err(errno)) => assert_eq!(errno, Errno::NOENT),
        Some(Ok(entry)) => panic!("lists {:?}", entry.file_name()),
        None => panic!("an end, where ENOENT was expected"),
    }
}

fn nothing_is_made_in_a_removed_directory() {
    works(mkdir("dir", Mode::RWXU));
    let fd = works(open("dir", OFlags::RDONLY, Mode::empty()));
    works(rmdir("dir"));
    fails(Errno::NOENT, openat(&fd, "new", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR));
    fails(Errno::NOENT, mkdirat(&fd, "new", Mode::RWXU));
    fails(Errno::NOENT, symlinkat("target", &fd, "new"));
}

fn a_position_in_a_listing_can_be_returned_to() {
    for number in 0..100 {
        file(&format!("name{number}"));
    }
    let fd = works(open(".", OFlags::RDONLY, Mode::empty()));
    let list = || {
        let mut buffer = Vec::with_capacity(32768);
        let mut raw = rustix::fs::RawDir::new(&fd, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = raw.next() {
            let entry = works(entry);
            names.push((entry.file_name().to_owned(), entry.next_entry_cookie()));
        }
        names
    };
    let all = list();
    assert_eq!(all.len(), 102);
    works(rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(all[49].1)));
    assert_eq!(list(), all[50..]);
    works(rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0)));
    assert_eq!(list(), all);
}

fn a_listing_of_a_file_is_enotdir() {
    file("file");
    let fd = works(open("file", OFlags::RDONLY, Mode::empty()));
    let mut buffer = Vec::with_capacity(4096);
    let mut raw = rustix::fs::RawDir::new(&fd, buffer.spare_capacity_mut());
    fails(Errno::NOTDIR, raw.next().expect("an answer"));
}

fn a_duplicated_directory_shares_its_position() {
    for number in 0..10 {
        file(&format!("name{number}"));
    }
    let one = works(open(".", OFlags::RDONLY, Mode::empty()));
    let two = works(rustix::io::dup(&one));
    let mut buffer = Vec::with_capacity(4096);
    let mut raw = rustix::fs::RawDir::new(&one, buffer.spare_capacity_mut());
    while let Some(entry) = raw.next() {
        works(entry);
    }
    let mut buffer = Vec::with_capacity(4096);
    let mut raw = rustix::fs::RawDir::new(&two, buffer.spare_capacity_mut());
    assert!(raw.next().is_none(), "the duplicate starts anew");
    assert_ne!(one.as_raw_fd(), two.as_raw_fd());
}

fn inotify_tells_of_names_in_a_directory() {
    works(mkdir("dir", Mode::RWXU));
    let inotify = works(Inotify::init(InitFlags::IN_NONBLOCK));
    let all = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVE | AddWatchFlags::IN_DELETE;
    works(inotify.add_watch("dir", all));
    file("dir/one");
    works(rename("dir/one", "dir/two"));
    works(fs::remove_file("dir/two"));
    let told: Vec<_> = works(inotify.read_events())
        .into_iter()
        .map(|event| (event.mask, event.name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()))
        .collect();
    let name = |name: &str| name.to_owned();
    assert_eq!(
        told,
        [
            (AddWatchFlags::IN_CREATE, name("one")),
            (AddWatchFlags::IN_MOVED_FROM, name("one")),
            (AddWatchFlags::IN_MOVED_TO, name("two")),
            (AddWatchFlags::IN_DELETE, name("two")),
        ]
    );
}

fn inotify_tells_of_a_file() {
    file("file");
    let inotify = works(Inotify::init(InitFlags::IN_NONBLOCK));
    works(inotify.add_watch("file", AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB));
    let one = works(fs::File::options().append(true).open("file"));
    works(rustix::io::write(&one, b"more"));
    works(rustix::fs::fchmod(&one, Mode::RUSR));
    let told: Vec<_> = works(inotify.read_events()).into_iter().map(|event| event.mask).collect();
    assert_eq!(told, [AddWatchFlags::IN_MODIFY, AddWatchFlags::IN_ATTRIB]);
}

fn inotify_of_a_missing_file_is_enoent() {
    let inotify = works(Inotify::init(InitFlags::empty()));
    assert_eq!(inotify.add_watch("missing", AddWatchFlags::IN_MODIFY).err(), Some(nix::errno::Errno::ENOENT));
    file("file");
    let only_dirs = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ONLYDIR;
    assert_eq!(inotify.add_watch("file", only_dirs).err(), Some(nix::errno::Errno::ENOTDIR));
    assert_eq!(inotify.add_watch("file", AddWatchFlags::empty()).err(), Some(nix::errno::Errno::EINVAL));
}

fn tools_agree_on_the_working_directory(r: &Runner) {
    let script = "mkdir -p a/b; cd a/b; for way in '/bin/pwd -P' 'readlink /proc/self/cwd' 'realpath .' \
                  'python3 -c \"import os; print(os.getcwd())\"'; do eval $way; done | sort -u";
    assert_eq!(r.bash(script).line(), format!("{}/a/b", r.dir().display()));
}

fn find_and_ls_agree(r: &Runner) {
    let script = "find /usr/share/zoneinfo /usr/include 2>/dev/null | wc -l
        for d in /usr/share/zoneinfo /usr/include; do [ -d $d ] && ls -AR $d | grep -v -e ':$' -e '^$' ; [ -d $d ] && echo top; done | wc -l";
    let counted = r.bash(script).line();
    let (find, ls) = counted.split_once('\n').expect("two lines");
    assert_eq!(find, ls);
    assert!(find.trim().parse::<u32>().is_ok_and(|count| count > 100), "{find}");
}
