//! Namespaces of users, names, mounts and the rest: how they are made, told apart, entered and kept.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sched::{setns, unshare, CloneFlags};
use umvu_tests::{behaviours, program, works, Runner};

behaviours! {
    in_guest at MOUNTING {
        unknown_flags_are_einval,
        several_threads_have_no_new_user_namespace,
        what_is_no_namespace_cannot_be_entered,
        the_own_user_namespace_is_not_entered_again,
    }
    from_outside at MOUNTING {
        the_names_of_a_host_are_its_own,
        mounts_are_its_own,
        links_tell_namespaces_apart,
        a_namespace_is_entered_by_its_link,
        a_namespace_is_entered_by_its_process,
        a_namespace_that_is_bound_outlives_its_processes,
        children_by_clone_have_theirs_from_the_beginning,
        bad_flags_of_clone_fail_in_the_order_of_the_kernel,
        lsns_lists_them,
        a_user_namespace_owns_what_is_made_in_it,
    }
    in_guest at UNSHARING {
        who_makes_a_user_namespace_has_every_capability_in_it,
        names_and_mounts_come_with_a_user_namespace,
        maps_are_written_once_and_in_lines,
    }
    from_outside at UNSHARING {
        nothing_is_had_without_a_user_namespace,
        ids_without_a_number_are_shown_as_nobody,
        children_by_clone_are_mighty_in_theirs,
        a_map_makes_its_writer_root,
    }
    from_outside at ROOT {
        root_maps_whole_ranges,
    }
}

fn unknown_flags_are_einval() {
    for bits in [0x1, CloneFlags::CLONE_PTRACE.bits(), CloneFlags::CLONE_NEWUTS.bits() | 0x2] {
        assert_eq!(unshare(CloneFlags::from_bits_retain(bits)), Err(Errno::EINVAL), "{bits:#x}");
    }
}

fn several_threads_have_no_new_user_namespace() {
    let (told, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || wait.recv());
    assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EINVAL));
    assert_eq!(unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_VM), Err(Errno::EINVAL));
    drop(told);
    assert!(thread.join().is_ok_and(|received| received.is_err()));
    works(unshare(CloneFlags::CLONE_NEWUTS));
}

fn what_is_no_namespace_cannot_be_entered() {
    let uts = works(std::fs::File::open("/proc/self/ns/uts"));
    let other = works(std::fs::File::open("/proc/self/status"));
    assert_eq!(setns(other.as_fd(), CloneFlags::empty()), Err(Errno::EINVAL));
    assert_eq!(setns(uts.as_fd(), CloneFlags::CLONE_NEWNS), Err(Errno::EINVAL));
    works(unshare(CloneFlags::CLONE_NEWUTS));
    let own = works(std::fs::File::open("/proc/self/ns/uts"));
    assert_eq!(setns(own.as_fd(), CloneFlags::CLONE_NEWIPC), Err(Errno::EINVAL));
    works(setns(own.as_fd(), CloneFlags::CLONE_NEWUTS));
    works(setns(own.as_fd(), CloneFlags::empty()));
}

fn the_own_user_namespace_is_not_entered_again() {
    let own = works(std::fs::File::open("/proc/self/ns/user"));
    assert_eq!(setns(own.as_fd(), CloneFlags::empty()), Err(Errno::EINVAL));
}

fn the_names_of_a_host_are_its_own(runner: &Runner) {
    let script = r#"
        before=$(hostname)
        unshare --uts sh -euc 'hostname my-container; hostname; uname -n; cat /proc/sys/kernel/hostname'
        unshare --uts sh -euc 'hostname one; unshare --uts hostname two; hostname; sh -c "hostname three"; hostname'
        test "$(hostname)" = "$before""#;
    assert_eq!(runner.bash(script).line(), "my-container\nmy-container\nmy-container\none\nthree");
}

fn mounts_are_its_own(runner: &Runner) {
    let script = r#"
        mkdir m
        unshare --mount sh -euc 'mount -t tmpfs none m; touch m/file; ls m; grep -c "$PWD/m" /proc/self/mounts'
        ls m
        grep -c "$PWD/m" /proc/self/mounts || true
        mount -t tmpfs none m
        touch m/before
        unshare --mount sh -euc 'ls m; umount m; ls m'
        ls m"#;
    assert_eq!(runner.bash(script).line(), "file\n1\n0\nbefore\nbefore");
}

fn links_tell_namespaces_apart(runner: &Runner) {
    let script = r#"
        for kind in uts mnt ipc cgroup user time; do
            case $kind in
            mnt) how=mount ;;
            *) how=$kind ;;
            esac
            outside=$(readlink /proc/self/ns/$kind)
            unshare --$how sh -euc '
                inside=$(readlink /proc/self/ns/'$kind')
                child=$(readlink /proc/self/ns/'$kind')
                test "$inside" != "$1"
                test "$inside" = "$child"
                test "'$kind':[$(stat -L -c %i /proc/self/ns/'$kind')]" = "$inside"
                exec 5</proc/self/ns/'$kind'
                test "$(readlink /proc/self/fd/5)" = "$inside"
                ' sh "$outside"
            test "$(readlink /proc/self/ns/$kind)" = "$outside"
        done
        ls /proc/self/ns"#;
    let told = runner.bash(script).line();
    assert_eq!(told, "cgroup\nipc\nmnt\nnet\npid\npid_for_children\ntime\ntime_for_children\nuser\nuts");
}

/// Starts a process with names and mounts of its own, `$held`, that waits for a line in `goes`.
const HELD: &str = r#"
    unshare --uts --mount true
    mkdir m
    mkfifo began goes
    unshare --uts --mount sh -euc 'hostname held; mount -t tmpfs none m; touch m/theirs
        echo began >began; read line <goes; hostname; ls m' &
    held=$!
    read line <began
"#;

fn a_namespace_is_entered_by_its_link(runner: &Runner) {
    let script = r#"
        nsenter --target $held --uts hostname
        nsenter --uts=/proc/$held/ns/uts hostname
        nsenter --target $held --uts hostname changed
        nsenter --target $held --mount ls "$PWD/m"
        exec 5</proc/$held/ns/uts
        nsenter --uts=/proc/self/fd/5 hostname
        ls m
        echo go >goes
        wait
        nsenter --uts=/proc/self/fd/5 hostname"#;
    assert_eq!(runner.bash(&format!("{HELD}{script}")).line(), "held\nheld\ntheirs\nchanged\nchanged\ntheirs\nchanged");
}

fn a_namespace_is_entered_by_its_process(runner: &Runner) {
    let script = r#"
        python3 - $held <<-'END'
	import ctypes, os, sys
	libc = ctypes.CDLL(None, use_errno=True)
	fd = os.pidfd_open(int(sys.argv[1]))
	NEWUTS, NEWNS = 0x04000000, 0x00020000
	assert libc.setns(fd, 0) == -1 and ctypes.get_errno() == 22
	before = os.getcwd()
	assert libc.setns(fd, NEWUTS | NEWNS) == 0, os.strerror(ctypes.get_errno())
	print(os.uname().nodename, os.getcwd(), os.listdir(before + "/m"))
	END
        echo go >goes
        wait"#;
    assert_eq!(runner.bash(&format!("{HELD}{script}")).line(), "held / ['theirs']\nheld\ntheirs");
}

fn a_namespace_that_is_bound_outlives_its_processes(runner: &Runner) {
    let script = r#"
        touch name
        unshare --uts=name hostname kept
        nsenter --uts=name hostname
        stat -f -c %T name
        umount name
        nsenter --uts=name hostname 2>&1 || true"#;
    let told = runner.bash(script).line();
    assert!(told.starts_with("kept\nnsfs\n") && told.ends_with("Invalid argument"), "{told}");
}

fn children_by_clone_have_theirs_from_the_beginning(runner: &Runner) {
    let program = program("namespaces");
    assert_eq!(runner.run([program.as_os_str(), "children".as_ref()]).line(), "");
}

fn bad_flags_of_clone_fail_in_the_order_of_the_kernel(runner: &Runner) {
    let program = program("namespaces");
    assert_eq!(runner.run([program.as_os_str(), "mistakes".as_ref()]).line(), "");
}

fn lsns_lists_them(runner: &Runner) {
    // lsns gives up, and lists nothing, when a process of the machine ends while it reads about it.
    let script = r#"
        list() { until lsns "$@" | grep .; do :; done; }
        export -f list
        unshare --uts bash -euc '
            inside=$(readlink /proc/self/ns/uts | tr -dc 0-9)
            list -n -t uts -o NS | grep -c "$inside"
            list -n -p $$ -o TYPE,NS | grep -c "uts *$inside"
            list -n -p $$ -o TYPE | wc -l'"#;
    assert_eq!(
        runner.bash(script).line(),
        "1
1
8"
    );
}

fn a_user_namespace_owns_what_is_made_in_it(runner: &Runner) {
    let script = r#"
        python3 - <<-'END'
	import ctypes, fcntl, os, socket
	libc = ctypes.CDLL(None, use_errno=True)
	def unshare(flags):
	    return 0 if libc.unshare(flags) == 0 else ctypes.get_errno()
	NEWUSER, NEWUTS, NEWNS = 0x10000000, 0x04000000, 0x00020000
	outer = os.open("/proc/self/ns/user", os.O_RDONLY)
	outer_uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
	assert unshare(NEWUSER) == 0
	inner = os.open("/proc/self/ns/user", os.O_RDONLY)
	# The names and mounts of before belong to who was before.
	try:
	    socket.sethostname("no")
	    assert False
	except PermissionError:
	    pass
	assert libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == -1 and ctypes.get_errno() == 1
	assert libc.setns(outer_uts, 0) == -1 and ctypes.get_errno() == 1
	assert libc.setns(outer, 0) == -1 and ctypes.get_errno() == 1
	assert unshare(NEWUTS) == 0
	socket.sethostname("yes")
	uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
	NS_GET_USERNS, NS_GET_PARENT, NS_GET_NSTYPE, NS_GET_OWNER_UID = 0xb701, 0xb702, 0xb703, 0xb704
	same = lambda a, b: os.fstat(a).st_ino == os.fstat(b).st_ino
	assert same(fcntl.ioctl(uts, NS_GET_USERNS), inner)
	assert fcntl.ioctl(uts, NS_GET_NSTYPE) == NEWUTS and fcntl.ioctl(inner, NS_GET_NSTYPE) == NEWUSER
	def fails(fd, request):
	    try:
	        return fcntl.ioctl(fd, request) and 0
	    except OSError as error:
	        return error.errno
	assert fails(uts, NS_GET_PARENT) == 22
	assert fails(inner, NS_GET_PARENT) == 1
	assert fails(uts, NS_GET_OWNER_UID) == 22
	owner = ctypes.c_uint(0)
	assert fcntl.ioctl(inner, NS_GET_OWNER_UID, owner) == 0 and owner.value == 65534
	print(socket.gethostname())
	END"#;
    assert_eq!(runner.bash(script).line(), "yes");
}

fn effective_capabilities() -> u64 {
    let status = works(std::fs::read_to_string("/proc/self/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or_default();
    u64::from_str_radix(line.trim(), 16).unwrap_or(0)
}

fn who_makes_a_user_namespace_has_every_capability_in_it() {
    assert_eq!(effective_capabilities(), 0);
    works(unshare(CloneFlags::CLONE_NEWUSER));
    assert_eq!(effective_capabilities().count_ones(), 41);
    assert_eq!(nix::unistd::getuid().as_raw(), 65534);
    assert_eq!(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)), Err(Errno::EINVAL));
    assert_eq!(nix::unistd::setgroups(&[]), Err(Errno::EPERM));
    // Without a number, who made it makes no other.
    assert_eq!(unshare(CloneFlags::CLONE_NEWUSER), Err(Errno::EPERM));
    works(std::fs::write("file", "theirs"));
    let root = rustix::fs::chown("file", Some(rustix::fs::Uid::ROOT), None);
    assert_eq!(root, Err(rustix::io::Errno::INVAL));
}

fn names_and_mounts_come_with_a_user_namespace() {
    works(unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWNS));
    works(nix::unistd::sethostname("inside"));
    assert_eq!(works(nix::unistd::gethostname()), "inside");
    works(std::fs::create_dir("m"));
    let none: Option<&str> = None;
    let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    works(nix::mount::mount(none, "/", none, private, none));
    works(nix::mount::mount(Some("none"), "m", Some("tmpfs"), nix::mount::MsFlags::empty(), none));
    let mounted = || {
        let mounts = works(std::fs::read_to_string("/proc/self/mounts"));
        mounts.lines().any(|line| line.starts_with("none ") && line.contains("/m tmpfs"))
    };
    assert!(mounted());
    works(nix::mount::umount("m"));
    assert!(!mounted());
}

fn nothing_is_had_without_a_user_namespace(runner: &Runner) {
    let script = r"
        for kind in uts mount ipc cgroup pid time; do
            unshare --$kind true 2>&1 || true
        done";
    let told = runner.bash(script).line();
    assert_eq!(told.lines().filter(|line| line.ends_with("Operation not permitted")).count(), 6, "{told}");
}

fn ids_without_a_number_are_shown_as_nobody(runner: &Runner) {
    let script = r"
        touch file
        unshare --user sh -euc 'id -u; id -g; stat -c %u:%g file /; grep ^Uid: /proc/self/status; cat /proc/self/uid_map
            cat /proc/self/setgroups'
        stat -c %u file | grep -qx $(id -u)";
    let told = runner.bash(script).line();
    let uid = "Uid:\t65534\t65534\t65534\t65534";
    assert_eq!(told, format!("65534\n65534\n65534:65534\n65534:65534\n{uid}\nallow"));
}

fn children_by_clone_are_mighty_in_theirs(runner: &Runner) {
    let program = program("namespaces");
    assert_eq!(runner.run([program.as_os_str(), "without-privilege".as_ref()]).line(), "");
}

fn a_map_makes_its_writer_root(runner: &Runner) {
    let script = r#"
        touch file
        unshare --map-root-user sh -euc '
            id -u; id -g; stat -c %u:%g file
            cat /proc/self/uid_map /proc/self/gid_map /proc/self/setgroups
            grep ^CapEff: /proc/self/status
            chown 0:0 file
            chown 1:1 file 2>&1 || true
            stat -c %u:%g /usr
            hostname no 2>&1 || true'
        unshare --map-root-user --uts hostname yes
        unshare --user --map-current-user id -u | grep -qx $(id -u)"#;
    let told = runner.bash(script).line();
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let line = |id| format!("{:>10} {id:>10} {:>10}", 0, 1);
    let expected = [
        "0",
        "0",
        "0:0",
        &line(uid),
        &line(gid),
        "deny",
        "CapEff:\t000001ffffffffff",
        "chown: changing ownership of 'file': Invalid argument",
        "65534:65534",
        "hostname: you must be root to change the host name",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
}

fn write_to(path: &str, text: &str) -> Result<(), rustix::io::Errno> {
    let file = rustix::fs::open(path, rustix::fs::OFlags::WRONLY, rustix::fs::Mode::empty())?;
    rustix::io::write(file, text.as_bytes()).map(drop)
}

fn maps_are_written_once_and_in_lines() {
    use rustix::io::Errno as E;
    let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
    assert_eq!(write_to("/proc/self/uid_map", "0 0 1"), Err(E::PERM));
    works(unshare(CloneFlags::CLONE_NEWUSER));
    for bad in ["0", "0 1", "0 x 1", "0 0 0", "0 0 1 1", "-1 0 1", "4294967295 0 1", "0 0 2\n1 5 1"] {
        assert_eq!(write_to("/proc/self/uid_map", bad), Err(E::INVAL), "{bad:?}");
    }
    assert_eq!(write_to("/proc/self/uid_map", "0 0 1"), Err(E::PERM));
    assert_eq!(write_to("/proc/self/uid_map", &format!("0 {uid} 2")), Err(E::PERM));
    works(write_to("/proc/self/uid_map", &format!("5 {uid} 1\n")));
    assert_eq!(write_to("/proc/self/uid_map", &format!("5 {uid} 1\n")), Err(E::PERM));
    assert_eq!(nix::unistd::getuid().as_raw(), 5);
    works(nix::unistd::setuid(nix::unistd::Uid::from_raw(5)));
    assert_eq!(nix::unistd::setuid(nix::unistd::Uid::from_raw(0)), Err(Errno::EINVAL));
    // Groups need a denial first.
    assert_eq!(write_to("/proc/self/gid_map", &format!("0 {gid} 1")), Err(E::PERM));
    assert_eq!(write_to("/proc/self/setgroups", "perhaps"), Err(E::INVAL));
    works(write_to("/proc/self/setgroups", "allow"));
    works(write_to("/proc/self/setgroups", "deny\n"));
    assert_eq!(write_to("/proc/self/setgroups", "allow"), Err(E::PERM));
    works(write_to("/proc/self/gid_map", &format!("0 {gid} 1")));
    assert_eq!(write_to("/proc/self/setgroups", "deny"), Err(E::PERM));
    assert_eq!(nix::unistd::getgid().as_raw(), 0);
    assert_eq!(nix::unistd::setgroups(&[]), Err(Errno::EPERM));
    // One who is root of nothing may still make a namespace in this one.
    works(unshare(CloneFlags::CLONE_NEWUSER));
    assert_eq!(nix::unistd::getuid().as_raw(), 65534);
    works(write_to("/proc/self/uid_map", "0 5 1"));
    assert_eq!(nix::unistd::getuid().as_raw(), 0);
}

fn root_maps_whole_ranges(runner: &Runner) {
    let script = r#"
        unshare --user true
        mkfifo began goes
        unshare --user sh -euc 'echo began >began; read line <goes; id -u; touch file; chown 7:7 file; stat -c %u:%g file
            cat /proc/self/uid_map | tr -s " "' &
        read line <began
        echo "0 0 100" >/proc/$!/uid_map
        echo "0 0 100" >/proc/$!/gid_map
        echo go >goes
        wait
        stat -c %u:%g file"#;
    assert_eq!(runner.bash(script).line(), "0\n7:7\n 0 0 100\n7:7");
}
