//! The mount API by descriptors: contexts, detached mounts, attributes, and the calls that list mounts.

use std::fs;
use std::os::fd::AsFd;

use rustix::fs::{access, accessat, mkdir, open, openat, AtFlags, Mode, OFlags, CWD};
use rustix::io::Errno;
use rustix::mount::{
    fsconfig_create, fsconfig_reconfigure, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick, move_mount,
    open_tree, unmount, FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use umvu_tests::{behaviours, fails, program, works, Runner};

behaviours! {
    in_guest at MOUNTING {
        a_described_file_system_is_made_and_moved_into_place,
        a_context_refuses_what_comes_too_late_or_twice,
        a_context_is_told_by_its_descriptor_alone,
        a_picked_mount_changes_its_file_system,
        a_detached_mount_is_used_by_its_descriptor,
        a_cloned_tree_takes_what_is_in_it_only_when_asked,
        a_clone_that_is_closed_is_gone,
        an_opened_tree_is_a_path_descriptor,
        a_bad_move_is_refused,
        a_mount_beneath_is_seen_when_the_upper_one_has_gone,
        nothing_goes_beneath_a_root_or_itself,
    }
    from_outside at MOUNTING {
        attributes_are_set_and_cleared_on_one_mount_or_all,
        bad_attributes_fail_in_the_order_of_the_kernel,
        an_object_tells_the_number_of_its_mount,
        a_mount_is_told_by_its_number,
        mounts_are_listed_below_each_other,
        mounts_out_of_reach_are_eperm,
        a_descriptor_in_proc_is_no_mount_point,
        statfs_tells_that_links_are_not_followed,
    }
}

const INTO: MoveMountFlags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;

fn dirs(names: &[&str]) {
    for name in names {
        works(mkdir(*name, Mode::RWXU));
    }
}

fn exists(path: &str) -> bool {
    access(path, rustix::fs::Access::EXISTS).is_ok()
}

fn has(directory: impl AsFd, path: &str) -> bool {
    accessat(directory, path, rustix::fs::Access::EXISTS, AtFlags::empty()).is_ok()
}

fn create(directory: impl AsFd, path: &str) -> Result<(), Errno> {
    openat(directory, path, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR | Mode::WUSR).map(drop)
}

fn context() -> std::os::fd::OwnedFd {
    let context = works(fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC));
    works(fsconfig_set_string(&context, "source", "nothing"));
    context
}

/// A new tmpfs that is mounted nowhere.
fn detached() -> std::os::fd::OwnedFd {
    let context = context();
    works(fsconfig_create(&context));
    works(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()))
}

fn mounted(at: &str) {
    works(move_mount(detached(), "", CWD, at, INTO));
}

fn a_described_file_system_is_made_and_moved_into_place() {
    dirs(&["m"]);
    let context = context();
    works(fsconfig_set_string(&context, "mode", "0750"));
    works(fsconfig_set_flag(&context, "ro"));
    works(fsconfig_set_flag(&context, "rw"));
    works(fsconfig_create(&context));
    let mount = works(fsmount(&context, FsMountFlags::empty(), MountAttrFlags::MOUNT_ATTR_NOEXEC));
    works(create(&mount, "before"));
    works(move_mount(&mount, "", CWD, "m", INTO));
    assert!(exists("m/before"));
    assert_eq!(works(rustix::fs::stat("m")).st_mode & 0o7777, 0o750);
    works(fs::copy("/bin/true", "m/true"));
    assert!(std::process::Command::new("m/true").status().is_err(), "the mount is noexec");
    works(create(&mount, "after"));
    assert!(exists("m/after"));
    let list = works(fs::read_to_string("/proc/self/mountinfo"));
    let line = list.lines().find(|l| l.contains(" - tmpfs nothing ")).expect("the mount is listed");
    assert!(line.contains("/m rw,noexec,relatime "), "{line}");
}

fn a_context_refuses_what_comes_too_late_or_twice() {
    fails(Errno::NODEV, fsopen("nosuchfs", FsOpenFlags::empty()));
    fails(Errno::INVAL, fsopen("tmpfs", FsOpenFlags::from_bits_retain(2)));
    let context = context();
    let make = |flags, attributes| fsmount(&context, flags, attributes);
    fails(Errno::INVAL, make(FsMountFlags::empty(), MountAttrFlags::empty()));
    fails(Errno::INVAL, fsconfig_set_string(&context, "source", "another"));
    fails(Errno::BUSY, fsconfig_reconfigure(&context));
    works(fsconfig_create(&context));
    fails(Errno::BUSY, fsconfig_create(&context));
    fails(Errno::BUSY, fsconfig_set_string(&context, "size", "1M"));
    fails(Errno::INVAL, make(FsMountFlags::from_bits_retain(2), MountAttrFlags::empty()));
    fails(Errno::INVAL, make(FsMountFlags::empty(), MountAttrFlags::from_bits_retain(0x30)));
    works(make(FsMountFlags::empty(), MountAttrFlags::empty()));
    fails(Errno::BUSY, make(FsMountFlags::empty(), MountAttrFlags::empty()));
}

fn a_context_is_told_by_its_descriptor_alone() {
    let context = context();
    let copy = works(rustix::io::dup(&context));
    drop(context);
    works(fsconfig_create(&copy));
    let other = works(open(".", OFlags::RDONLY, Mode::empty()));
    fails(Errno::INVAL, fsconfig_create(&other));
    fails(Errno::INVAL, fsmount(&other, FsMountFlags::empty(), MountAttrFlags::empty()));
    let mut buffer = [0; 16];
    // Nothing is to be told: the kernel has ENODATA for it, a view EAGAIN.
    assert!(rustix::io::read(&copy, &mut buffer).is_err());
}

fn a_picked_mount_changes_its_file_system() {
    dirs(&["m"]);
    fails(Errno::INVAL, fspick(CWD, "m", FsPickFlags::empty()));
    mounted("m");
    let context = works(fspick(CWD, "m", FsPickFlags::FSPICK_CLOEXEC));
    works(fsconfig_set_flag(&context, "ro"));
    works(fsconfig_reconfigure(&context));
    fails(Errno::ROFS, create(CWD, "m/file"));
    works(fsconfig_set_flag(&context, "rw"));
    works(fsconfig_reconfigure(&context));
    works(create(CWD, "m/file"));
    fails(Errno::BUSY, fsconfig_create(&context));
}

fn a_detached_mount_is_used_by_its_descriptor() {
    let mount = detached();
    works(create(&mount, "file"));
    works(rustix::fs::mkdirat(&mount, "dir", Mode::RWXU));
    works(rustix::process::fchdir(&mount));
    assert!(exists("file") && exists("dir/../file"));
    assert_eq!(works(rustix::process::getcwd(Vec::new())).to_bytes(), b"(unreachable)/");
    assert!(works(rustix::fs::fcntl_getfl(&mount)).contains(OFlags::PATH));
}

fn a_cloned_tree_takes_what_is_in_it_only_when_asked() {
    dirs(&["a", "b"]);
    mounted("a");
    dirs(&["a/sub"]);
    mounted("a/sub");
    works(create(CWD, "a/sub/deep"));
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let one = works(open_tree(CWD, "a", clone));
    let all = works(open_tree(CWD, "a", clone | OpenTreeFlags::AT_RECURSIVE));
    assert!(has(&one, "sub") && !has(&one, "sub/deep"));
    assert!(has(&all, "sub/deep") && has(&all, "sub/../sub/deep"));
    works(move_mount(&all, "", CWD, "b", INTO));
    assert!(exists("b/sub/deep"));
    works(create(CWD, "b/sub/new"));
    assert!(exists("a/sub/new"));
}

fn a_clone_that_is_closed_is_gone() {
    dirs(&["a"]);
    mounted("a");
    let clone = OpenTreeFlags::OPEN_TREE_CLONE;
    for _ in 0..50 {
        drop(works(open_tree(CWD, "a", clone)));
    }
    works(unmount("a", UnmountFlags::empty()));
    assert!(!works(fs::read_to_string("/proc/self/mounts")).contains("tmpfs nothing"));
}

fn an_opened_tree_is_a_path_descriptor() {
    dirs(&["a"]);
    works(create(CWD, "a/file"));
    let tree = works(open_tree(CWD, "a", OpenTreeFlags::OPEN_TREE_CLOEXEC));
    assert!(has(&tree, "file"));
    assert!(works(rustix::fs::fcntl_getfl(&tree)).contains(OFlags::PATH));
    fails(Errno::INVAL, open_tree(CWD, "a", OpenTreeFlags::AT_RECURSIVE));
    fails(Errno::INVAL, open_tree(CWD, "a", OpenTreeFlags::from_bits_retain(4)));
    fails(Errno::NOENT, open_tree(CWD, "missing", OpenTreeFlags::OPEN_TREE_CLONE));
}

fn a_bad_move_is_refused() {
    dirs(&["a", "b"]);
    works(create(CWD, "file"));
    let mount = detached();
    fails(Errno::NOENT, move_mount(&mount, "", CWD, "a", MoveMountFlags::empty()));
    fails(Errno::INVAL, move_mount(&mount, "", CWD, "a", INTO | MoveMountFlags::from_bits_retain(0x10000)));
    fails(Errno::INVAL, move_mount(&mount, "", CWD, "file", INTO));
    fails(Errno::NOENT, move_mount(&mount, "", CWD, "missing", INTO));
    fails(Errno::INVAL, move_mount(CWD, "a", CWD, "b", MoveMountFlags::empty()));
    works(move_mount(&mount, "", CWD, "a", INTO));
    fails(Errno::LOOP, move_mount(CWD, "a", CWD, "a", MoveMountFlags::empty()));
    works(move_mount(CWD, "a", CWD, "b", MoveMountFlags::empty()));
}

/// Not in rustix yet.
const BENEATH: MoveMountFlags = MoveMountFlags::from_bits_retain(0x200);

fn mount_with(at: &str, file: &str) {
    works(move_mount(detached(), "", CWD, at, INTO));
    works(create(CWD, &format!("{at}/{file}")));
}

fn a_mount_beneath_is_seen_when_the_upper_one_has_gone() {
    dirs(&["a", "b"]);
    mount_with("a", "upper");
    let inside = works(open("a", OFlags::DIRECTORY | OFlags::PATH, Mode::empty()));
    let below = detached();
    works(create(&below, "below"));
    works(move_mount(&below, "", CWD, "a", INTO | BENEATH));
    assert!(exists("a/upper") && !exists("a/below") && has(&inside, "upper"));
    drop((below, inside));
    // One that is attached already, and lands in the middle.
    mount_with("b", "middle");
    works(move_mount(CWD, "b", CWD, "a", BENEATH));
    assert!(exists("a/upper") && !exists("b/middle"));
    for file in ["a/middle", "a/below"] {
        works(unmount("a", UnmountFlags::empty()));
        assert!(exists(file));
    }
    works(unmount("a", UnmountFlags::empty()));
    fails(Errno::INVAL, unmount("a", UnmountFlags::empty()));
}

fn nothing_goes_beneath_a_root_or_itself() {
    dirs(&["a", "b", "a/sub"]);
    works(create(CWD, "file"));
    let mount = detached();
    fails(Errno::INVAL, move_mount(&mount, "", CWD, "a/sub", INTO | BENEATH));
    fails(Errno::INVAL, move_mount(&mount, "", CWD, "file", INTO | BENEATH));
    fails(Errno::NOENT, move_mount(&mount, "", CWD, "missing", INTO | BENEATH));
    fails(Errno::INVAL, move_mount(&mount, "", CWD, "/", INTO | BENEATH));
    mount_with("a", "one");
    works(mkdir("a/in", Mode::RWXU));
    mount_with("a/in", "two");
    fails(Errno::INVAL, move_mount(CWD, "a", CWD, "a", BENEATH));
    fails(Errno::INVAL, move_mount(CWD, "a/in", CWD, "a", BENEATH));
    mount_with("b", "low");
    let low = works(open("b", OFlags::DIRECTORY | OFlags::PATH, Mode::empty()));
    mount_with("b", "high");
    fails(Errno::INVAL, move_mount(&low, "", CWD, "a", INTO | BENEATH));
}

/// Runs a script in which `calls` is the program that makes the calls, after mounting `m` and `m/sub`.
fn with_mounts(r: &Runner, script: &str) -> String {
    let calls = program("mount_calls");
    let before = "mkdir m n; mount -t tmpfs one m; mkdir m/sub; mount -t tmpfs two m/sub";
    r.bash(&format!("calls() {{ '{}' \"$@\"; }}; {before}; {script}", calls.display())).line()
}

fn attributes_are_set_and_cleared_on_one_mount_or_all(r: &Runner) {
    let told = with_mounts(
        r,
        "calls setattr m 0 1 0 0 32; touch m/x 2>/dev/null || echo ro; touch m/sub/x && echo rw
         calls setattr m 0x8000 9 0 0 32; touch m/sub/y 2>/dev/null || echo ro
         calls setattr m 0x8000 0 1 0 32; touch m/x m/sub/y && echo rw; findmnt -no OPTIONS m/sub
         calls setattr m 0 0x10 0x70 0 32; findmnt -no VFS-OPTIONS m
         calls setattr m 0 0 0 0x100000 32; findmnt -no PROPAGATION m",
    );
    assert!(told.starts_with("done\nro\nrw\ndone\nro\ndone\nrw\nrw,noexec,relatime"), "{told}");
    assert!(told.ends_with("done\nrw,noexec,noatime\ndone\nshared"), "{told}");
}

fn bad_attributes_fail_in_the_order_of_the_kernel(r: &Runner) {
    let told = with_mounts(
        r,
        "calls setattr m 1 1 0 0 32; calls setattr m 0 1 0 0 16; calls setattr m 0 1 0 0 5000
         calls setattr m 0 0x10 0 0 32; calls setattr m 0 0x30 0x70 0 32; calls setattr m 0 2048 0 0 32
         calls setattr m 0 0 0 3 32; calls setattr missing 0 1 0 0 32; calls setattr n 0 1 0 0 32
         calls setattr missing 0 0 0 0 32",
    );
    let expected = ["EINVAL", "EINVAL", "E2BIG", "EINVAL", "EINVAL", "EINVAL", "EINVAL", "ENOENT", "EINVAL", "done"];
    assert_eq!(told, expected.join("\n"));
}

fn an_object_tells_the_number_of_its_mount(r: &Runner) {
    let told = with_mounts(
        r,
        "touch m/sub/f; mount --bind m n
         for path in m m/sub m/sub/f n /proc /proc/version .; do
             set -- $(calls id $path); [ $1 = $(findmnt -no ID -T $path | tail -1) ] && echo same $2
         done",
    );
    let expected = ["root", "root", "inside", "root", "root", "inside", "inside"].map(|what| format!("same {what}"));
    assert_eq!(told, expected.join("\n"));
}

fn a_mount_is_told_by_its_number(r: &Runner) {
    let here = r.dir();
    let here = here.display();
    let told = with_mounts(
        r,
        "mount --options-source=disable -o remount,ro m/sub; calls tell m; calls tell m/sub
         calls wrong 32 0 5 0; calls wrong 8 0 5 0; calls wrong 32 1 0x80000001 0; calls wrong 32 0 0x7fffffffffff 0
         calls wrong 32 0 0x7fffffffffff 1",
    );
    let expected = format!(
        "one on {here}/m type tmpfs flags 0\ntwo on {here}/m/sub type tmpfs flags 1\nEINVAL\nEINVAL\nEINVAL\nENOENT\nEINVAL"
    );
    assert_eq!(told, expected);
}

fn mounts_are_listed_below_each_other(r: &Runner) {
    let told = with_mounts(
        r,
        "mkdir m/sub/deep m/other; mount -t tmpfs three m/sub/deep; mount -t tmpfs four m/other
         calls count m; calls count m/sub; calls count m/other",
    );
    assert_eq!(told, "3\n1\n0");
}

fn mounts_out_of_reach_are_eperm(r: &Runner) {
    let script = "import ctypes, errno, os, struct\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        x = ctypes.create_string_buffer(256)\n\
        assert libc.syscall(332, -100, b'/', 0, 0x4000, x) == 0\n\
        root = struct.unpack_from('Q', x, 144)[0]\n\
        out = ctypes.create_string_buffer(4096)\n\
        def ask(nr, id): return 'works' if libc.syscall(nr, struct.pack('IIQQ', 24, 0, id, 0 if nr == 458 else 2), out, 512 if nr == 458 else 4096, 0) >= 0 else errno.errorcode[ctypes.get_errno()]\n\
        os.mkdir('new'); os.chroot('new')\n\
        print(ask(457, root), ask(458, root), ask(458, 1 << 60))\n\
        libc.prctl(8, 0, 0, 0, 0)\n\
        libc.syscall(126, struct.pack('II', 0x20080522, 0), bytes(24))\n\
        print(ask(457, root), ask(458, root), ask(458, 1 << 60))";
    let said = r.run(["python3", "-c", script]).success();
    assert_eq!(String::from_utf8_lossy(&said), "works works ENOENT\nEPERM EPERM ENOENT\n");
}

fn a_descriptor_in_proc_is_no_mount_point(r: &Runner) {
    let script = "import ctypes, errno, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        for name in 'ab': open(name, 'w').close()\n\
        fd = os.open('a', os.O_RDONLY)\n\
        link = os.open(f'/proc/{os.getpid()}/fd/{fd}', os.O_PATH | os.O_NOFOLLOW)\n\
        r = libc.mount(b'b', f'/proc/{os.getpid()}/fd/{link}'.encode(), b'', 4096, 0)\n\
        print(r, errno.errorcode[ctypes.get_errno()])";
    assert_eq!(r.run(["python3", "-c", script]).line(), "-1 ENOENT");
}

fn statfs_tells_that_links_are_not_followed(r: &Runner) {
    let script = "import ctypes, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        os.mkdir('m'); assert libc.mount(b'none', b'm', b'tmpfs', 256, 0) == 0\n\
        print(os.statvfs('m').f_flag & 8192)";
    assert_eq!(r.run(["python3", "-c", script]).line(), "8192");
}
