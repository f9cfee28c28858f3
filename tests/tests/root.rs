//! What root of a view may do, and what it finds again: owners, modes, devices, other identities.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use rustix::fs::{chown, makedev, mknodat, stat, FileType, Gid, Mode, Uid, CWD};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works, Runner};

behaviours! {
    in_guest at ROOT {
        everybody_is_told_to_be_root,
        owners_are_kept_and_told_by_every_call,
        modes_are_kept_whole,
        a_change_of_owner_takes_the_set_id_bits,
        device_nodes_are_kept,
        a_file_without_permissions_is_open_to_root,
        a_directory_without_permissions_is_open_to_root,
        new_files_belong_to_root,
        a_set_group_directory_hands_its_group_down,
        owners_follow_a_rename_and_a_link,
        an_unlinked_name_leaves_no_owner_behind,
        after_dropping_identity_the_rights_are_gone,
        capabilities_are_those_of_root_and_can_be_dropped,
        the_sticky_bit_protects_the_files_of_others,
    }
    in_guest at PLAIN_ROOT {
        a_core_is_dumped_into_the_current_directory,
    }
    from_outside at ROOT {
        id_says_root,
        ids_can_be_dropped_and_a_saved_one_taken_back,
        su_becomes_another_user,
        who_has_become_another_reaches_its_descriptors,
        chroot_takes_an_identity,
        install_sets_owner_and_mode,
        tar_keeps_owners_in_both_directions,
        ls_and_stat_and_find_agree_on_owners,
        the_faked_device_reads_as_its_metadata_says,
        umask_and_sticky_directories_work_as_root,
        mount_and_umount_of_the_system_work,
    }
    from_outside at COW_ROOT {
        owners_modes_and_devices_are_there_in_the_next_view,
        the_host_keeps_what_root_has_removed,
        the_upper_directory_alone_has_changed,
    }
}

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn give(path: &str, uid: u32, gid: u32) {
    works(chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))));
}

fn owner(path: &str) -> (u32, u32) {
    let status = works(fs::symlink_metadata(path));
    (status.uid(), status.gid())
}

fn mode_of(path: &str) -> u32 {
    works(stat(path)).st_mode & 0o7777
}

fn everybody_is_told_to_be_root() {
    let uids = works(nix::unistd::getresuid());
    let gids = works(nix::unistd::getresgid());
    assert!(uids.real.is_root() && uids.effective.is_root() && uids.saved.is_root());
    assert_eq!((gids.real.as_raw(), gids.effective.as_raw(), gids.saved.as_raw()), (0, 0, 0));
    let status = works(fs::read_to_string("/proc/self/status"));
    assert!(status.contains("Uid:\t0\t0\t0\t0\n") && status.contains("Gid:\t0\t0\t0\t0\n"), "{status}");
    assert_eq!(works(fs::metadata("/proc/self")).uid(), 0);
}

fn owners_are_kept_and_told_by_every_call() {
    file("file");
    works(fs::create_dir("dir"));
    works(std::os::unix::fs::symlink("file", "link"));
    works(mknodat(CWD, "fifo", FileType::Fifo, Mode::RUSR, 0));
    give("file", 33, 44);
    give("dir", 1, 2);
    give("fifo", 5, 6);
    works(rustix::fs::chownat(
        CWD,
        "link",
        Some(Uid::from_raw(7)),
        Some(Gid::from_raw(8)),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    ));
    assert_eq!((owner("file"), owner("dir"), owner("fifo"), owner("link")), ((33, 44), (1, 2), (5, 6), (7, 8)));
    let by_descriptor = works(works(fs::File::open("file")).metadata());
    assert_eq!((by_descriptor.uid(), by_descriptor.gid()), (33, 44));
    give("file", u32::MAX - 1, 65_534);
    assert_eq!(owner("file"), (u32::MAX - 1, 65_534));
    works(chown("file", None, Some(Gid::from_raw(9))));
    assert_eq!(owner("file"), (u32::MAX - 1, 9));
}

fn modes_are_kept_whole() {
    file("file");
    works(fs::create_dir("dir"));
    for mode in [0o000, 0o111, 0o7777, 0o4755, 0o2711, 0o1000] {
        works(fs::set_permissions("file", fs::Permissions::from_mode(mode)));
        works(fs::set_permissions("dir", fs::Permissions::from_mode(mode)));
        assert_eq!((mode_of("file"), mode_of("dir")), (mode, mode));
    }
}

fn a_change_of_owner_takes_the_set_id_bits() {
    file("file");
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o6755)));
    give("file", 33, 33);
    assert_eq!(mode_of("file"), 0o755);
    // Without group execution the set-group bit means locking, and stays: fs/attr.c, setattr_should_drop_sgid.
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o2745)));
    give("file", 34, 33);
    assert_eq!(mode_of("file"), 0o2745);
    works(fs::create_dir("dir"));
    works(fs::set_permissions("dir", fs::Permissions::from_mode(0o6755)));
    give("dir", 33, 33);
    assert_eq!(mode_of("dir"), 0o6755, "a directory keeps its bits");
}

fn device_nodes_are_kept() {
    works(mknodat(CWD, "null", FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)));
    works(mknodat(CWD, "disk", FileType::BlockDevice, Mode::from_raw_mode(0o660), makedev(259, 70_000)));
    let (null, disk) = (works(fs::metadata("null")), works(fs::metadata("disk")));
    assert!(null.file_type().is_char_device() && disk.file_type().is_block_device());
    assert_eq!((null.rdev(), disk.rdev()), (makedev(1, 3), makedev(259, 70_000)));
    assert_eq!((null.uid(), null.len()), (0, 0));
    fails(Errno::EXIST, mknodat(CWD, "null", FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)));
    for entry in works(fs::read_dir(".")).flatten() {
        let kind = works(entry.file_type());
        assert_eq!(kind, works(entry.metadata()).file_type(), "the listing tells another type");
    }
    works(fs::rename("null", "renamed"));
    assert_eq!(works(fs::metadata("renamed")).rdev(), makedev(1, 3));
    works(fs::remove_file("renamed"));
    works(fs::remove_file("disk"));
}

fn a_file_without_permissions_is_open_to_root() {
    file("file");
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o000)));
    assert_eq!(works(fs::read("file")), b"file");
    works(fs::write("file", b"written"));
    works(rustix::fs::access("file", rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK));
    // But executing needs one x at least.
    fails(Errno::ACCESS, rustix::fs::access("file", rustix::fs::Access::EXEC_OK));
}

fn a_directory_without_permissions_is_open_to_root() {
    works(fs::create_dir_all("dir/sub"));
    works(fs::set_permissions("dir", fs::Permissions::from_mode(0o000)));
    file("dir/file");
    assert_eq!(works(fs::read_dir("dir")).count(), 2);
    works(fs::remove_dir_all("dir"));
}

fn new_files_belong_to_root() {
    file("file");
    works(fs::create_dir("dir"));
    works(std::os::unix::fs::symlink("x", "link"));
    assert_eq!((owner("file"), owner("dir"), owner("link")), ((0, 0), (0, 0), (0, 0)));
}

fn a_set_group_directory_hands_its_group_down() {
    works(fs::create_dir("dir"));
    give("dir", 0, 44);
    works(fs::set_permissions("dir", fs::Permissions::from_mode(0o2775)));
    file("dir/file");
    works(fs::create_dir("dir/sub"));
    assert_eq!((owner("dir/file"), owner("dir/sub")), ((0, 44), (0, 44)));
    assert_eq!(mode_of("dir/sub") & 0o2000, 0o2000);
    assert_eq!(mode_of("dir/file") & 0o2000, 0);
}

fn owners_follow_a_rename_and_a_link() {
    file("one");
    give("one", 33, 33);
    works(fs::hard_link("one", "two"));
    works(fs::rename("one", "three"));
    assert_eq!((owner("two"), owner("three")), ((33, 33), (33, 33)));
    give("two", 44, 44);
    assert_eq!(owner("three"), (44, 44));
    works(fs::create_dir("dir"));
    give("dir", 5, 5);
    works(fs::rename("dir", "moved"));
    assert_eq!(owner("moved"), (5, 5));
}

fn an_unlinked_name_leaves_no_owner_behind() {
    // Inode numbers are used again at once on most file systems.
    for _ in 0..50 {
        works(mknodat(CWD, "name", FileType::Fifo, Mode::RUSR, 0));
        give("name", 33, 33);
        works(fs::remove_file("name"));
        works(mknodat(CWD, "name", FileType::Fifo, Mode::RUSR, 0));
        assert_eq!(owner("name"), (0, 0));
        works(fs::remove_file("name"));
    }
}

fn after_dropping_identity_the_rights_are_gone() {
    file("roots");
    file("theirs");
    works(fs::set_permissions("roots", fs::Permissions::from_mode(0o600)));
    works(fs::set_permissions("theirs", fs::Permissions::from_mode(0o600)));
    give("theirs", 1234, 1234);
    works(fs::create_dir("open"));
    works(fs::set_permissions("open", fs::Permissions::from_mode(0o777)));
    let nobody = nix::unistd::Uid::from_raw(1234);
    works(nix::unistd::setgroups(&[]));
    works(nix::unistd::setgid(nix::unistd::Gid::from_raw(1234)));
    works(nix::unistd::setuid(nobody));
    fails(Errno::ACCESS, rustix::fs::open("roots", rustix::fs::OFlags::RDONLY, Mode::empty()));
    assert_eq!(works(fs::read("theirs")), b"theirs");
    fails(Errno::PERM, chown("theirs", Some(Uid::ROOT), None));
    fails(Errno::PERM, rustix::fs::chmod("roots", Mode::RWXU));
    works(rustix::fs::chmod("theirs", Mode::RWXU));
    fails(Errno::ACCESS, rustix::fs::unlink("theirs"));
    fails(Errno::PERM, mknodat(CWD, "open/null", FileType::CharacterDevice, Mode::RUSR, makedev(1, 3)));
    file("open/file");
    assert_eq!(owner("open/file"), (1234, 1234));
    assert_eq!(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)), Err(nix::errno::Errno::EPERM));
    assert_eq!(nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0)]), Err(nix::errno::Errno::EPERM));
}

fn capabilities_are_those_of_root_and_can_be_dropped() {
    use rustix::thread::{capabilities, set_capabilities, CapabilitySet, CapabilitySets};
    let all = works(capabilities(None));
    assert!(all.effective.contains(CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE | CapabilitySet::MKNOD));
    file("file");
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o000)));
    give("file", 33, 33);
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: all.permitted,
        inheritable: CapabilitySet::empty(),
    };
    works(set_capabilities(None, none));
    fails(Errno::ACCESS, rustix::fs::open("file", rustix::fs::OFlags::RDONLY, Mode::empty()));
    fails(Errno::PERM, chown("file", Some(Uid::ROOT), None));
    works(set_capabilities(None, all));
    works(fs::read("file"));
}

fn the_sticky_bit_protects_the_files_of_others() {
    works(fs::create_dir("tmp"));
    works(fs::set_permissions("tmp", fs::Permissions::from_mode(0o1777)));
    file("tmp/roots");
    file("tmp/theirs");
    give("tmp/theirs", 1234, 1234);
    works(nix::unistd::setgid(nix::unistd::Gid::from_raw(1234)));
    works(nix::unistd::setuid(nix::unistd::Uid::from_raw(1234)));
    fails(Errno::PERM, rustix::fs::unlink("tmp/roots"));
    fails(Errno::PERM, rustix::fs::rename("tmp/roots", "tmp/mine"));
    works(rustix::fs::unlink("tmp/theirs"));
}

fn id_says_root(r: &Runner) {
    assert_eq!(r.run(["id", "-u"]).line(), "0");
    assert!(r.run(["id"]).line().starts_with("uid=0(root) gid=0(root) groups=0(root)"));
    assert_eq!(r.run(["whoami"]).line(), "root");
}

fn ids_can_be_dropped_and_a_saved_one_taken_back(r: &Runner) {
    let script = "import os\n\
        os.setresgid(1, 2, 3); print(os.getresgid()); os.setresuid(10, 20, 0); print(os.getresuid())\n\
        os.seteuid(0); print(os.geteuid()); os.setresuid(10, 10, 10)\n\
        try: os.setuid(0)\n\
        except PermissionError: print('refused')\n\
        os.setregid(-1, 1); print(os.getegid())\n\
        pid = os.fork()\n\
        if pid == 0: os.execvp('id', ['id', '-ur'])\n\
        os.waitpid(pid, 0)";
    assert_eq!(r.run(["python3", "-uc", script]).line(), "(1, 2, 3)\n(10, 20, 0)\n0\nrefused\n1\n10");
}

fn who_has_become_another_reaches_its_descriptors(r: &Runner) {
    let told = "setpriv --reuid=5 --regid=5 --clear-groups stat -Lc %F /proc/self/fd/0 /proc/thread-self/fd/0 < /";
    assert_eq!(r.bash(told).line(), "directory\ndirectory");
}

fn su_becomes_another_user(r: &Runner) {
    assert_eq!(r.bash("vusu -s /bin/sh -c 'id -un; id -u' daemon").line(), "daemon\n1");
    assert_eq!(r.bash("setpriv --reuid=1 --regid=1 --clear-groups id -u").line(), "1");
}

fn chroot_takes_an_identity(r: &Runner) {
    assert_eq!(r.bash("chroot --userspec=1:1 / id -u").line(), "1");
}

fn install_sets_owner_and_mode(r: &Runner) {
    let script = "echo x > a; install -o daemon -g bin -m 4711 a b; stat -c '%U %G %a' b; install -d -o 33 -g 44 d; stat -c '%u %g' d";
    assert_eq!(r.bash(script).line(), "daemon bin 4711\n33 44");
}

fn tar_keeps_owners_in_both_directions(r: &Runner) {
    let script =
        "mkdir t; echo x > t/f; chown 33:44 t/f; mknod t/n c 1 3; ln -s f t/l; chown -h 5:6 t/l; chmod 4755 t/f
        tar cf t.tar t; tar tvf t.tar --numeric-owner | awk '{print $1, $2}' | sort
        mkdir u; tar xpf t.tar -C u; stat -c '%n %u:%g %a %F' u/t/f u/t/l; stat -c '%t:%T' u/t/n";
    let want = "crw-r--r-- 0/0\ndrwxr-xr-x 0/0\n-rwsr-xr-x 33/44\nlrwxrwxrwx 5/6\n\
        u/t/f 33:44 4755 regular file\nu/t/l 5:6 777 symbolic link\n1:3";
    let got = r.bash(script).line();
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&got), sorted(want));
}

fn ls_and_stat_and_find_agree_on_owners(r: &Runner) {
    let script = "touch f; chown 33:44 f; ls -n f | cut -d' ' -f3,4; stat -c '%u %g' f; find f -printf '%U %G\\n'; find . -uid 33 -gid 44";
    assert_eq!(r.bash(script).line(), "33 44\n33 44\n33 44\n./f");
    assert_eq!(r.bash("stat -c %u / /etc/passwd | sort -u").line(), "0");
}

fn the_faked_device_reads_as_its_metadata_says(r: &Runner) {
    // 1:3 is a device that everybody may open; its like in the view is the real one.
    assert_eq!(
        r.bash("mknod n c 1 3; echo gone > n; wc -c < n; mknod z c 1 5; head -c 4 z | od -An -tx1").line(),
        "0\n 00 00 00 00"
    );
}

fn umask_and_sticky_directories_work_as_root(r: &Runner) {
    assert_eq!(
        r.bash("umask 027; touch f; mkdir d; stat -c %a f d; mkdir -m 1777 t; stat -c %a t").line(),
        "640\n750\n1777"
    );
}

fn mount_and_umount_of_the_system_work(r: &Runner) {
    let script = "mkdir m; mount -t tmpfs none m; echo x > m/f; findmnt -no FSTYPE m; mountpoint -q m && echo is one; umount m; ls m | wc -l
        mkdir a b; echo y > a/f; mount --bind a b; cat b/f; umount b; ls b | wc -l";
    assert_eq!(r.bash(script).line(), "tmpfs\nis one\n0\ny\n0");
}

fn owners_modes_and_devices_are_there_in_the_next_view(r: &Runner) {
    let make = "mkdir d; echo x > d/f; chown 33:44 d/f; chmod 4755 d/f; mknod d/n b 8 1; ln -s f d/l; chown -h 5:6 d/l; mkfifo d/p; chown 7:8 d/p; chown 9:10 /etc/hosts";
    r.bash(make).success();
    let tell = "stat -c '%n %u:%g %a %t:%T' d/f d/l d/n d/p; stat -c %u:%g /etc/hosts";
    let want = "d/f 33:44 4755 0:0\nd/l 5:6 777 0:0\nd/n 0:0 644 8:1\nd/p 7:8 644 0:0\n9:10";
    assert_eq!(r.bash(tell).line(), want);
    // ... and once more after a change.
    r.bash("mv d/f d/g; rm d/n; chown 1:1 d/g").success();
    assert_eq!(r.bash("ls d; stat -c %u:%g d/g").line(), "g\nl\np\n1:1");
}

fn the_host_keeps_what_root_has_removed(r: &Runner) {
    let before = r.outside_text(&["sh", "-c", "ls -a /etc; ls -li /etc/passwd; sha256sum /etc/passwd"]);
    r.bash("rm -rf /usr/share/doc; echo broken > /etc/passwd; rm /etc/hostname || :; mv /etc/fstab /etc/other || :")
        .success();
    assert_eq!(r.bash("ls /usr/share | grep -c '^doc$' || true; cat /etc/passwd").line(), "0\nbroken");
    assert_eq!(r.outside_text(&["sh", "-c", "ls -a /etc; ls -li /etc/passwd; sha256sum /etc/passwd"]), before);
    assert!(std::path::Path::new("/usr/share/doc").exists());
}

fn the_upper_directory_alone_has_changed(r: &Runner) {
    r.bash("echo x > file; mkdir -p /opt/new; echo y > /opt/new/file").success();
    r.assert_host_is_as_the_place_promises();
    assert_eq!(fs::read(r.upper().join("opt/new/file")).expect("the upper copy"), b"y\n");
}

fn a_core_is_dumped_into_the_current_directory() {
    use nix::sys::resource::{getrlimit, setrlimit, Resource};
    use std::os::unix::process::ExitStatusExt;
    works(fs::create_dir("dir"));
    let (_, hard) = works(getrlimit(Resource::RLIMIT_CORE));
    works(setrlimit(Resource::RLIMIT_CORE, hard, hard));
    if hard == 0 {
        return;
    }
    let crashed = |way: &str| {
        let script = format!("import os; {way}; os.abort()");
        let status = works(std::process::Command::new("python3").args(["-c", &script]).status());
        assert_eq!(status.signal(), Some(libc::SIGABRT), "{way}");
        assert!(status.core_dumped(), "{way}");
    };
    crashed("os.chdir('dir')");
    crashed(&format!("os.chdir({:?}); os.chdir('dir')", works(std::env::current_dir())));
    crashed("os.fchdir(os.open('dir', os.O_RDONLY))");
    if works(fs::read_to_string("/proc/sys/kernel/core_pattern")).trim() == "core" {
        let uses_pid = works(fs::read_to_string("/proc/sys/kernel/core_uses_pid")).trim() != "0";
        let cores =
            works(fs::read_dir("dir")).flatten().filter(|e| e.file_name().to_string_lossy().starts_with("core"));
        assert_eq!(cores.count(), if uses_pid { 3 } else { 1 });
    }
}
