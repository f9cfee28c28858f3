//! Directories deeper than `PATH_MAX`, which only relative steps reach: no call may need their whole path.

use std::fs;

use nix::mount::{mount, MsFlags};
use rustix::fs::{fchmod, fstat, mkdir, open, openat, stat, statat, unlinkat, AtFlags, Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::process::{chdir, fchdir, getcwd};
use umvu_tests::{behaviours, fails, works, Runner};

behaviours! {
    in_guest at ANYONE {
        a_deep_directory_is_named_by_the_library_alone,
        what_is_deep_is_used_by_descriptor,
        the_way_back_leads_through_descriptors,
    }
    from_outside at EVERYWHERE {
        a_deep_tree_of_the_host_is_searched,
    }
    in_guest at MOUNTING {
        a_deep_tree_is_used_through_a_bind,
    }
}

/// So many names of this length are more than the kernel has room for.
const DEPTH: usize = 40;

fn name() -> String {
    "d".repeat(200)
}

/// Makes the tree in the current directory and goes to its bottom.
fn descend() {
    for _ in 0..DEPTH {
        works(mkdir(name(), Mode::RWXU));
        works(chdir(name()));
    }
}

/// Removes the tree from its bottom.
fn ascend() {
    for _ in 0..DEPTH {
        works(chdir(".."));
        works(unlinkat(CWD, name(), AtFlags::REMOVEDIR));
    }
}

fn a_deep_directory_is_named_by_the_library_alone() {
    descend();
    // The kernel gives up here; the C library then walks upwards.
    fails(Errno::NAMETOOLONG, getcwd(Vec::new()));
    let long = works(std::env::current_dir());
    assert!(long.as_os_str().len() > DEPTH * 200);
    assert!(long.ends_with(name()));
    ascend();
}

fn what_is_deep_is_used_by_descriptor() {
    descend();
    works(fs::write("file", "deep"));
    let bottom = works(open(".", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()));
    let by_path = works(open("..", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()));
    let file = works(openat(&bottom, "file", OFlags::RDWR, Mode::empty()));
    let file_by_path = works(openat(&bottom, "file", OFlags::PATH, Mode::empty()));
    assert_eq!(works(fstat(&file)).st_ino, works(stat("file")).st_ino);
    assert_eq!(works(fstat(&file_by_path)).st_ino, works(stat("file")).st_ino);
    assert_eq!(works(statat(&by_path, name(), AtFlags::empty())).st_ino, works(stat(".")).st_ino);
    works(fchmod(&file, Mode::RUSR));
    assert_eq!(works(stat("file")).st_mode & 0o777, 0o400);
    works(fchdir(&by_path));
    works(fchdir(&bottom));
    works(unlinkat(&bottom, "file", AtFlags::empty()));
    ascend();
}

/// As fts(3) goes back to what it keeps no descriptor of.
fn the_way_back_leads_through_descriptors() {
    descend();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let mut at = works(open(".", flags, Mode::empty()));
    for _ in 0..DEPTH {
        let above = works(openat(&at, "..", flags, Mode::empty()));
        assert_eq!(works(statat(&above, name(), AtFlags::empty())).st_ino, works(fstat(&at)).st_ino);
        at = above;
    }
    ascend();
    assert_eq!(works(fstat(&at)).st_ino, works(stat(".")).st_ino);
}

fn a_deep_tree_of_the_host_is_searched(r: &Runner) {
    let make = format!("for i in {{1..{DEPTH}}}; do mkdir {0}; cd {0}; done; echo deep > file", name());
    r.outside_text(&["bash", "-c", &make]);
    let search = r"find . -type d | wc -l; find . -type f -execdir cat {} \;; find . -mindepth 1 -delete; ls";
    assert_eq!(r.bash(search).line(), format!("{}\ndeep", DEPTH + 1));
}

fn a_deep_tree_is_used_through_a_bind() {
    works(mkdir("source", Mode::RWXU));
    works(mkdir("target", Mode::RWXU));
    works(mount(Some("source"), "target", None::<&str>, MsFlags::MS_BIND, None::<&str>));
    works(chdir("target"));
    what_is_deep_is_used_by_descriptor();
    a_deep_directory_is_named_by_the_library_alone();
    assert!(works(std::env::current_dir()).ends_with("target"));
}
