//! Lines of the trace, compared with what strace writes for the same call.

use umvu_table::{row, trace, Row, ROWS};

/// Where the memory of these tests begins; pages around it are not there.
const BASE: u64 = 0x10_0000;
const AT_FDCWD: u64 = 0xffff_ff9c;

fn find(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).expect("the call has a row")
}

/// Reads as the kernel does: not at all if the first byte is not there, else what is there.
fn memory(bytes: &[u8]) -> impl Fn(u64, &mut [u8]) -> Option<usize> + '_ {
    move |address, buffer| {
        let there = bytes.get(usize::try_from(address.checked_sub(BASE)?).ok()?..).filter(|there| !there.is_empty())?;
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Some(length)
    }
}

fn line_after(name: &str, arguments: &[u64], bytes: &[u8], result: Option<i64>) -> String {
    let mut registers = [0xdead_beef; 6];
    registers[..arguments.len()].copy_from_slice(arguments);
    trace::call(find(name), &registers, &memory(bytes), result)
}

fn line(name: &str, arguments: &[u64], bytes: &[u8]) -> String {
    line_after(name, arguments, bytes, None)
}

#[test]
fn openat_shows_names_of_flags() {
    let shown = line("openat", &[AT_FDCWD, BASE, 0o2000000], b"/etc/passwd\0");
    assert_eq!(shown, r#"openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC)"#);
}

#[test]
fn a_mode_is_shown_only_if_a_file_may_be_created() {
    assert_eq!(line("open", &[BASE, 0o101, 0o644], b"a\0"), r#"open("a", O_WRONLY|O_CREAT, 0644)"#);
    assert_eq!(line("open", &[BASE, 0o20200002, 0o600], b"a\0"), r#"open("a", O_RDWR|O_TMPFILE, 0600)"#);
    assert_eq!(line("open", &[BASE, 0o200000, 0o600], b"a\0"), r#"open("a", O_RDONLY|O_DIRECTORY)"#);
    assert_eq!(line("creat", &[BASE, 0], b"a\0"), r#"creat("a", 000)"#);
}

#[test]
fn only_the_low_half_of_an_int_counts() {
    let shown = line("openat", &[u64::MAX - 99, BASE, 1 << 32], b"a\0");
    assert_eq!(shown, r#"openat(AT_FDCWD, "a", O_RDONLY)"#);
    assert_eq!(line("close", &[u64::MAX], b""), "close(-1)");
    assert_eq!(line("chown", &[BASE, u64::MAX, 0xffff_ffff], b"a\0"), r#"chown("a", -1, -1)"#);
}

#[test]
fn strings_are_escaped_as_in_c() {
    let shown = line("write", &[1, BASE, 11], b"\"\\\n\t\x01a\x012\xff\x1b.");
    assert_eq!(shown, r#"write(1, "\"\\\n\t\1a\0012\377\33.", 11)"#);
}

#[test]
fn strings_are_cut_at_64_bytes_and_paths_are_not() {
    let long = [vec![b'x'; 65], vec![0]].concat();
    let cut = "x".repeat(64);
    assert_eq!(line("write", &[1, BASE, 65], &long), format!("write(1, \"{cut}\"..., 65)"));
    assert_eq!(line("write", &[1, BASE, 64], &long), format!("write(1, \"{cut}\", 64)"));
    assert_eq!(line("memfd_create", &[BASE, 1], &long), format!("memfd_create(\"{cut}\"..., 0x1)"));
    assert_eq!(line("memfd_create", &[BASE + 1, 1], &long), format!("memfd_create(\"{cut}\", 0x1)"));
    assert_eq!(line("rmdir", &[BASE], &long), format!("rmdir(\"{cut}x\")"));
    let endless = vec![b'y'; 8192];
    assert_eq!(line("rmdir", &[BASE], &endless), format!("rmdir(\"{}\"...)", "y".repeat(4096)));
}

#[test]
fn what_cannot_be_read_is_an_address() {
    assert_eq!(line("rmdir", &[0], b""), "rmdir(NULL)");
    assert_eq!(line("rmdir", &[0x8], b""), "rmdir(0x8)");
    assert_eq!(line("rmdir", &[BASE], b"no end"), format!("rmdir({BASE:#x})"));
    assert_eq!(line("rmdir", &[u64::MAX], b""), "rmdir(0xffffffffffffffff)");
    assert_eq!(line("write", &[1, BASE, 4], b"abc"), format!("write(1, {BASE:#x}, 4)"));
    assert_eq!(line("write", &[1, u64::MAX, u64::MAX], b""), format!("write(1, {:#x}, {})", u64::MAX, u64::MAX));
    assert_eq!(
        line("execve", &[BASE, u64::MAX, u64::MAX - 7], b"a\0"),
        format!("execve(\"a\", {:#x}, {:#x})", u64::MAX, u64::MAX - 7)
    );
}

#[test]
fn a_string_at_the_end_of_its_page_is_read() {
    let reader = |address: u64, buffer: &mut [u8]| {
        assert!(buffer.len() as u64 <= 4096 - address % 4096, "a read crosses a page");
        memory(&[vec![b'.'; 4094], b"a\0".to_vec()].concat())(address, buffer)
    };
    assert_eq!(trace::call(find("rmdir"), &[BASE + 4094, 0, 0, 0, 0, 0], &reader, None), r#"rmdir("a")"#);
}

#[test]
fn an_output_buffer_is_shown_once_it_is_written() {
    assert_eq!(line("read", &[0, BASE, 9], b"abc"), format!("read(0, {BASE:#x}, 9)"));
    assert_eq!(line_after("read", &[0, BASE, 9], b"abc", Some(2)), r#"read(0, "ab", 9)"#);
    assert_eq!(line_after("read", &[0, BASE, 9], b"abc", Some(-5)), format!("read(0, {BASE:#x}, 9)"));
    // recv with MSG_TRUNC returns more than was written.
    assert_eq!(line_after("read", &[0, BASE, 1], b"abc", Some(3)), r#"read(0, "a", 1)"#);
    assert_eq!(line_after("getcwd", &[BASE, 9], b"/a\0", Some(3)), r#"getcwd("/a", 9)"#);
}

#[test]
fn execve_shows_arguments_and_counts_the_environment() {
    let pointers = [BASE + 40, BASE + 43, 0, BASE + 40, 0];
    let mut bytes: Vec<u8> = pointers.iter().flat_map(|pointer: &u64| pointer.to_ne_bytes()).collect();
    bytes.extend(b"ls\0-l\0");
    let shown = line("execve", &[BASE + 40, BASE, BASE + 24], &bytes);
    assert_eq!(shown, format!("execve(\"ls\", [\"ls\", \"-l\"], {:#x} /* 1 var */)", BASE + 24));
}

#[test]
fn open_how_is_decoded() {
    let how = |words: [u64; 3]| [b"a\0......".to_vec(), words.map(u64::to_ne_bytes).concat()].concat();
    let shown = line("openat2", &[AT_FDCWD, BASE, BASE + 8, 24], &how([0o2000000, 0, 8]));
    assert_eq!(shown, r#"openat2(AT_FDCWD, "a", {flags=O_RDONLY|O_CLOEXEC, resolve=RESOLVE_BENEATH}, 24)"#);
    let shown = line("openat2", &[3, BASE, BASE + 8, 24], &how([0o102, 0o600, 0]));
    assert_eq!(shown, r#"openat2(3, "a", {flags=O_RDWR|O_CREAT, mode=0600, resolve=0}, 24)"#);
}

#[test]
fn socket_addresses_are_decoded() {
    let shown = |bytes: &[u8]| line("connect", &[3, BASE, bytes.len() as u64], bytes);
    assert_eq!(shown(b"\x01\0/run/x\0"), r#"connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 9)"#);
    assert_eq!(shown(b"\x01\0\0x\0"), r#"connect(3, {sa_family=AF_UNIX, sun_path=@"x\0"}, 5)"#);
    assert_eq!(
        shown(b"\x02\0\x00\x50\x7f\0\0\x01\0\0\0\0\0\0\0\0"),
        r#"connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16)"#
    );
    let loopback = [b"\x0a\0\x00\x50\0\0\0\0".as_slice(), &[0; 15], &[1], &[2, 0, 0, 0]].concat();
    assert_eq!(
        shown(&loopback),
        "connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), \
         inet_pton(AF_INET6, \"::1\", &sin6_addr), sin6_scope_id=2}, 28)"
    );
    assert_eq!(shown(b"\x10\0ab"), r#"connect(3, {sa_family=AF_NETLINK, sa_data="ab"}, 4)"#);
    assert_eq!(shown(b"\x02\0\x00"), r#"connect(3, {sa_family=AF_INET, sa_data="\0"}, 3)"#);
    assert_eq!(line("connect", &[3, BASE, 1], b"\x01\0"), format!("connect(3, {BASE:#x}, 1)"));
    assert_eq!(line("connect", &[3, BASE, 0xffff_ffff], b"\x01\0"), format!("connect(3, {BASE:#x}, 4294967295)"));
}

#[test]
fn flags_are_named_by_the_call_that_takes_them() {
    let name = b"a\0";
    assert_eq!(line("unlinkat", &[3, BASE, 0x200], name), r#"unlinkat(3, "a", AT_REMOVEDIR)"#);
    assert_eq!(line("faccessat2", &[3, BASE, 6, 0x200], name), r#"faccessat2(3, "a", R_OK|W_OK, AT_EACCESS)"#);
    assert_eq!(line("access", &[BASE, 0], name), r#"access("a", F_OK)"#);
    assert_eq!(
        line("newfstatat", &[3, BASE, 0x40, 0x81100], name),
        r#"newfstatat(3, "a", 0x40, AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH|0x80000)"#
    );
    assert_eq!(line("renameat2", &[3, BASE, 4, BASE, 2], name), r#"renameat2(3, "a", 4, "a", RENAME_EXCHANGE)"#);
    assert_eq!(line("mknod", &[BASE, 0o20644, 0x103], name), r#"mknod("a", S_IFCHR|0644, makedev(0x1, 0x3))"#);
    assert_eq!(line("pipe2", &[0x40, 0o2004000], b""), "pipe2(0x40, O_CLOEXEC|O_NONBLOCK)");
    assert_eq!(line("unshare", &[0x2_0080], b""), "unshare(CLONE_NEWNS|CLONE_NEWTIME)");
    assert_eq!(
        line("clone", &[0x120_0011, 0, 0, 0, 0], b""),
        "clone(CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD, NULL, NULL, NULL, NULL)"
    );
    assert_eq!(
        line("mmap", &[0, 4096, 3, 0x22, u64::MAX, 0], b""),
        "mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)"
    );
    assert_eq!(line("mprotect", &[4096, 1, 0], b""), "mprotect(0x1000, 1, PROT_NONE)");
    assert_eq!(line("socket", &[1, 0o2000001, 0], b""), "socket(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0)");
    assert_eq!(line("kill", &[1, 9], b""), "kill(1, SIGKILL)");
    assert_eq!(line("kill", &[u64::MAX, 34], b""), "kill(-1, SIGRT_2)");
    assert_eq!(line("fcntl", &[3, 10, 64], b""), "fcntl(3, F_SETSIG, 0x40)");
    assert_eq!(line("prlimit64", &[0, 10, 0, 0], b""), "prlimit64(0, RLIMIT_LOCKS, NULL, NULL)");
    assert_eq!(line("umount2", &[BASE, 2], name), r#"umount2("a", MNT_DETACH)"#);
    assert_eq!(
        line("mount", &[BASE, BASE, 0, 0xc0ed_5000, 0], name),
        r#"mount("a", "a", NULL, MS_MGC_VAL|MS_BIND|MS_REC, NULL)"#
    );
}

#[test]
fn a_timespec_is_decoded() {
    let bytes = [1_i64, 500].map(i64::to_ne_bytes).concat();
    assert_eq!(line("nanosleep", &[BASE, 0], &bytes), "nanosleep({tv_sec=1, tv_nsec=500}, NULL)");
}

#[test]
fn errors_are_named_and_explained() {
    assert_eq!(trace::result(find("open"), -2), "-1 ENOENT (No such file or directory)");
    assert_eq!(trace::result(find("read"), -11), "-1 EAGAIN (Resource temporarily unavailable)");
    assert_eq!(trace::result(find("mmap"), -12), "-1 ENOMEM (Cannot allocate memory)");
    assert_eq!(trace::result(find("read"), -4095), "-1 (errno 4095)");
}

#[test]
fn results_are_shown_as_what_they_are() {
    assert_eq!(trace::result(find("open"), 3), "3");
    assert_eq!(trace::result(find("brk"), 0x5555_0000), "0x55550000");
    assert_eq!(trace::result(find("umask"), 0o22), "022");
    assert_eq!(trace::result(find("lseek"), -4096), "-4096");
    assert_eq!(trace::result(find("lseek"), i64::MIN), i64::MIN.to_string());
}

#[test]
fn an_unknown_call_is_shown_by_number() {
    assert!(row(500).is_none());
    assert_eq!(trace::unknown(500, &[1, 2, 0, 0, 0, 0]), "syscall_0x1f4(0x1, 0x2, 0, 0, 0, 0)");
}

#[test]
fn no_arguments_of_any_call_make_the_trace_fail() {
    let bytes = vec![0xff; 300];
    let values = [0, 1, BASE, BASE + 299, u64::MAX, u64::MAX - 7, 1 << 63, 0x8000_0000, 0xffff_ffff, 4096];
    for row in ROWS {
        for first in values {
            for second in values {
                for outcome in [None, Some(0), Some(-1), Some(i64::MAX), Some(i64::MIN)] {
                    let arguments = [first, second, first, second, first, second];
                    let shown = trace::call(row, &arguments, &memory(&bytes), outcome);
                    assert!(shown.starts_with(row.name) && shown.ends_with(')'), "{shown}");
                }
            }
        }
    }
}
