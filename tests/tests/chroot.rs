//! A changed root: who may change it, what is seen from in it, and how one gets out.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{open, OFlag};
use nix::sched::{unshare, CloneFlags};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, getcwd};
use umvu_tests::{behaviours, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        a_user_does_not_change_the_root,
    }
    in_guest at MOUNTING {
        the_root_has_no_parent,
        a_root_in_a_root_is_found_from_there,
        the_current_directory_stays_outside,
        a_descriptor_that_was_kept_leads_out,
        links_begin_at_the_changed_root,
        bad_roots_fail_in_the_order_of_the_kernel,
        no_user_namespace_is_made_in_a_changed_root,
    }
    from_outside at MOUNTING {
        programs_of_the_tree_run_in_it,
        others_see_where_the_root_is,
        the_root_can_be_swapped_for_a_mount_and_let_go,
    }
}

fn tree() {
    works(std::fs::create_dir_all("tree/inner/innermost"));
    works(std::fs::write("tree/file", "in the tree"));
    works(std::fs::write("tree/inner/file", "in the inner tree"));
    works(std::fs::write("file", "outside"));
    works(std::os::unix::fs::symlink("/file", "tree/link"));
}

fn read(path: &str) -> String {
    works(std::fs::read_to_string(path))
}

fn a_user_does_not_change_the_root() {
    works(std::fs::create_dir("tree"));
    assert_eq!(chroot("tree"), Err(Errno::EPERM));
}

fn the_root_has_no_parent() {
    tree();
    works(chroot("tree"));
    works(chdir("/"));
    assert_eq!(read("/file"), "in the tree");
    assert_eq!(read("/../../file"), "in the tree");
    works(chdir("../.."));
    assert_eq!(works(getcwd()).to_str(), Some("/"));
    works(chdir("inner"));
    assert_eq!(works(getcwd()).to_str(), Some("/inner"));
    assert_eq!(read("../file"), "in the tree");
    assert!(!std::path::Path::new("/proc/self").exists());
}

fn a_root_in_a_root_is_found_from_there() {
    tree();
    works(chroot("tree"));
    works(chroot("/inner"));
    works(chdir("/"));
    assert_eq!(read("/file"), "in the inner tree");
    assert_eq!(works(std::fs::read_dir("/..")).count(), 2);
}

fn the_current_directory_stays_outside() {
    tree();
    let before = works(getcwd());
    works(chroot("tree"));
    assert_eq!(read("file"), "outside");
    assert_eq!(read("/file"), "in the tree");
    let told = works(rustix::process::getcwd(Vec::new()));
    assert_eq!(told.to_str(), Ok(&format!("(unreachable){}", before.display())[..]));
    // The way up does not meet the new root: it ends at the real one.
    for _ in 0..64 {
        works(chdir(".."));
    }
    works(chroot("."));
    assert_eq!(read(before.join("file").to_str().expect("a path in this test is ASCII")), "outside");
}

fn a_descriptor_that_was_kept_leads_out() {
    tree();
    let kept = works(open(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()));
    works(chroot("tree"));
    works(chdir("/"));
    assert_eq!(read("file"), "in the tree");
    let found = works(nix::fcntl::openat(kept.as_fd(), "file", OFlag::O_RDONLY, Mode::empty()));
    assert_eq!(works(std::io::read_to_string(std::fs::File::from(found))), "outside");
    works(fchdir(kept.as_fd()));
    assert_eq!(read("file"), "outside");
    assert_eq!(read("tree/file"), "in the tree");
}

fn links_begin_at_the_changed_root() {
    tree();
    assert!(!std::path::Path::new("tree/link").exists());
    works(chroot("tree"));
    assert_eq!(read("/link"), "in the tree");
    assert_eq!(read("tree/link"), "in the tree");
}

fn bad_roots_fail_in_the_order_of_the_kernel() {
    tree();
    assert_eq!(chroot("file"), Err(Errno::ENOTDIR));
    assert_eq!(chroot("missing"), Err(Errno::ENOENT));
    assert_eq!(chroot(""), Err(Errno::ENOENT));
    assert_eq!(chroot("file/below"), Err(Errno::ENOTDIR));
}

fn no_user_namespace_is_made_in_a_changed_root() {
    tree();
    works(chroot("tree"));
    assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
    works(unshare(CloneFlags::CLONE_NEWUTS));
}

/// A tree with a shell that needs nothing else.
const TREE: &str = r#"
    mkdir -p tree/bin tree/proc tree/tmp
    cp "$(command -v busybox)" tree/bin/
    for name in sh ls cat mount umount hostname readlink pwd; do ln -s busybox tree/bin/$name; done
    echo here >tree/tmp/file
"#;

fn programs_of_the_tree_run_in_it(runner: &Runner) {
    let script = r#"
        chroot tree /bin/sh -euc 'ls /; pwd; cat /tmp/file; echo $0'
        chroot tree /bin/busybox sh -c 'exec ls /tmp'
        chroot tree /bin/bash -c true 2>&1 || echo $?"#;
    let told = runner.bash(&format!("{TREE}{script}")).line();
    assert!(told.starts_with("bin\nproc\ntmp\n/\nhere\n/bin/sh\nfile\n") && told.ends_with("127"), "{told}");
}

fn others_see_where_the_root_is(runner: &Runner) {
    let script = r#"
        chroot tree /bin/sh -c :
        mkfifo tree/tmp/goes began
        chroot tree /bin/sh -euc 'echo began >&5; read line </tmp/goes' 5>began &
        read line <began
        readlink /proc/$!/root /proc/$!/cwd | sed "s:^$PWD::"
        cat /proc/$!/root/tmp/file
        cat /proc/$!/mounts | wc -l
        mount -t tmpfs none tree/tmp
        grep -c ' /tmp ' /proc/$!/mountinfo
        umount tree/tmp
        echo go >tree/tmp/goes
        wait"#;
    let told = runner.bash(&format!("{TREE}{script}")).line();
    assert_eq!(told, "/tree\n/tree\nhere\n0\n1");
}

fn the_root_can_be_swapped_for_a_mount_and_let_go(runner: &Runner) {
    // The trick of pivot_root(2): both names are the same, and the old root is unmounted from over the new one.
    let script = r#"
        unshare --mount sh -euc '
            mount --bind tree tree
            mount --rbind /proc tree/proc
            cd tree
            pivot_root . .
            exec ./bin/busybox sh -euc "
                umount -l .
                cd /
                ls /
                readlink /proc/self/root
                cat /proc/self/mounts >/tmp/mounts
                cat /tmp/file"'
        grep -c ' / ' tree/tmp/mounts
        grep -c '^proc /proc proc' tree/tmp/mounts
        grep -c "$PWD" tree/tmp/mounts || true
        ls tree/proc"#;
    let told = runner.bash(&format!("{TREE}{script}")).line();
    assert_eq!(told, "bin\nproc\ntmp\n/\nhere\n1\n1\n0");
}
