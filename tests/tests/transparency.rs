//! What the caller of a command sees: status, pipes, signals, environment, descriptors. The caller is
//! outside, the command in the place.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use umvu_tests::{behaviours, watch, Runner};

behaviours! {
    from_outside at CHANGED {
        landlock_is_not_there_where_it_could_not_hold,
    }
    from_outside at EVERYWHERE {
        the_exit_status_is_the_commands,
        a_killing_signal_is_reported_as_a_shell_does,
        a_missing_command_is_127,
        a_command_without_permission_is_126,
        standard_input_reaches_the_command,
        both_outputs_are_apart,
        large_outputs_arrive_whole,
        arguments_arrive_as_they_are,
        the_environment_arrives_as_it_is,
        a_pipe_that_ends_early_ends_the_command,
        a_closed_standard_input_stays_closed,
        inherited_descriptors_arrive,
        no_other_descriptors_arrive,
        ignored_signals_stay_ignored,
        blocked_signals_stay_blocked,
        limits_stay_as_they_are,
        the_limit_of_locks_is_the_guests_own,
        a_signal_to_the_front_reaches_the_command,
        a_daemon_does_not_delay_the_return,
        the_umask_and_the_directory_are_the_callers,
        ids_are_the_callers,
        the_time_is_read_without_a_system_call,
        the_process_tree_looks_as_it_should,
        proc_mounts_and_mountinfo_agree,
        a_filter_of_calls_needs_no_new_privs_of_the_programs_own,
        no_new_privs_of_the_caller_arrive,
    }
}

fn the_exit_status_is_the_commands(r: &Runner) {
    for status in [0, 1, 2, 77, 125, 126, 127, 255] {
        assert_eq!(r.run(["sh", "-c", &format!("exit {status}")]).shell_status(), status);
    }
}

fn a_killing_signal_is_reported_as_a_shell_does(r: &Runner) {
    for signal in ["HUP", "INT", "QUIT", "KILL", "TERM", "SEGV", "ABRT", "PIPE", "USR1", "ALRM"] {
        let number: i32 = r.outside_text(&["bash", "-c", &format!("kill -l {signal}")]).parse().expect("a number");
        assert_eq!(
            r.run(["sh", "-c", &format!("ulimit -c 0; kill -{signal} $$")]).shell_status(),
            128 + number,
            "{signal}"
        );
    }
}

fn a_missing_command_is_127(r: &Runner) {
    assert_eq!(r.run(["sh", "-c", "exec ./missing"]).shell_status(), 127);
    assert_eq!(r.run(["env", "missing-command"]).shell_status(), 127);
}

fn a_command_without_permission_is_126(r: &Runner) {
    assert_eq!(r.run(["sh", "-c", "echo > file; exec ./file"]).shell_status(), 126);
    assert_eq!(r.run(["sh", "-c", "exec /etc"]).shell_status(), 126);
}

fn standard_input_reaches_the_command(r: &Runner) {
    let input = b"one\ntwo\0three\n".repeat(10_000);
    assert_eq!(r.run_with_input(["cat"], &input).success(), input);
    assert_eq!(r.run(["cat"]).success(), b"", "/dev/null ends at once");
}

fn both_outputs_are_apart(r: &Runner) {
    let finished = r.run(["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((&finished.stdout[..], &finished.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
}

fn large_outputs_arrive_whole(r: &Runner) {
    let finished = r.run(["sh", "-c", "head -c 50000000 /dev/zero"]);
    assert_eq!(finished.success().len(), 50_000_000);
}

fn arguments_arrive_as_they_are(r: &Runner) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd: [&[u8]; 7] = [b"-x", b"--", b"a b", b"", b"'\"$`\\", b"\xff\xfe", b"\n"];
    let mut line = vec![OsStr::new("printf"), OsStr::new("%s|"), OsStr::new("start")];
    line.extend(odd.iter().map(|word| OsStr::from_bytes(word)));
    assert_eq!(r.run(line).success(), b"start|-x|--|a b||'\"$`\\|\xff\xfe|\n|");
}

fn the_environment_arrives_as_it_is(r: &Runner) {
    let inside = r.run(["env"]).success();
    let mut command = r.outside(&["env".into()]);
    let outside = command.output().expect("env").stdout;
    let sorted = |bytes: &[u8]| {
        let mut lines: Vec<_> =
            bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).filter(|l| !l.starts_with(b"_=")).collect();
        // A shell stands between umvu and the command in some places, and leaves its marks.
        lines
            .retain(|line| !line.starts_with(b"PWD=") && !line.starts_with(b"OLDPWD=") && !line.starts_with(b"SHLVL="));
        lines.sort();
        lines
    };
    assert_eq!(sorted(&inside), sorted(&outside));
}

fn a_pipe_that_ends_early_ends_the_command(r: &Runner) {
    let mut child = r.command(["find", "/"]).stderr(Stdio::null()).spawn().expect("find");
    let mut out = child.stdout.take().expect("a pipe");
    let mut line = [0; 2];
    std::io::Read::read_exact(&mut out, &mut line).expect("the first line");
    assert_eq!(&line, b"/\n");
    drop(out);
    let in_time = watch::wait_until(&child, Instant::now() + Duration::from_secs(20));
    watch::kill_tree(&child);
    let status = child.wait().expect("wait");
    assert!(in_time, "find goes on although nobody reads");
    assert!(!status.success());
    // The same inside one view, where a descriptor kept by the supervisor would keep it alive.
    assert_eq!(r.run(["bash", "-c", "find / 2>/dev/null | head -1; echo ${PIPESTATUS[0]}"]).line(), "/\n141");
    assert_eq!(r.run(["bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}"]).line(), "y\n141");
}

fn a_closed_standard_input_stays_closed(r: &Runner) {
    assert_eq!(r.run(["sh", "-c", "exec 0<&-; readlink /proc/self/fd/0 || echo closed"]).line(), "closed");
}

fn inherited_descriptors_arrive(r: &Runner) {
    let line = r.command_line(["sh", "-c", "cat <&7; echo written >&8; readlink /proc/self/fd/9"]);
    let mut outer =
        vec!["bash".into(), "-c".into(), r#"exec 7<<<"from seven" 8>out 9</usr; exec "$@""#.into(), "bash".into()];
    outer.extend(line);
    let finished = watch::finish(r.outside(&outer), &[], umvu_tests::runner::HANG).expect("an end");
    assert_eq!(finished.line(), "from seven\n/usr");
    assert_eq!(std::fs::read(r.dir().join("out")).expect("out"), b"written\n", "8 is the host's file");
}

fn no_other_descriptors_arrive(r: &Runner) {
    let list = ["ls", "-v", "/proc/self/fd"];
    assert_eq!(r.run(list).line(), r.outside_text(&list));
}

fn ignored_signals_stay_ignored(r: &Runner) {
    let line = r.command_line(["grep", "SigIgn", "/proc/self/status"]);
    let mut outer = vec!["bash".into(), "-c".into(), r#"trap '' USR1 HUP; exec "$@""#.into(), "bash".into()];
    outer.extend(line);
    let finished = watch::finish(r.outside(&outer), &[], umvu_tests::runner::HANG).expect("an end");
    let mask = u64::from_str_radix(finished.line().trim_start_matches("SigIgn:\t"), 16).expect("a mask");
    assert_eq!(mask & 0x201, 0x201, "{mask:x}: HUP and USR1 are ignored");
    // Signals of ptrace, alarms and children are not.
    assert_eq!(mask & !0x201 & 0x0001_7fff, 0, "{mask:x}");
}

fn blocked_signals_stay_blocked(r: &Runner) {
    assert_eq!(r.run(["grep", "SigBlk", "/proc/self/status"]).line(), "SigBlk:\t0000000000000000");
}

fn limits_stay_as_they_are(r: &Runner) {
    let inside = r.run(["bash", "-c", "ulimit -a -S; ulimit -a -H"]).line();
    let outside = r.outside_text(&["bash", "-c", "ulimit -a -S; ulimit -a -H"]);
    assert_eq!(inside, outside);
}

fn the_limit_of_locks_is_the_guests_own(r: &Runner) {
    let script = "ulimit -S -x 1234; ulimit -S -x; cat /proc/self/limits | grep locks | tr -s ' '; (ulimit -x; ulimit -x 99; ulimit -x); ulimit -x; touch file";
    let told = r.bash(script).line();
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], "1234");
    assert!(lines[1].starts_with("Max file locks 1234 "), "{told}");
    assert_eq!(lines[2..], ["1234", "99", "1234"]);
    let script =
        "import resource as r, os\nL=10\nassert L==10\nr.prlimit(0, L, (5, 50)); print(r.prlimit(0, L)); os.stat('.')";
    assert_eq!(r.run(["python3", "-c", script]).line(), "(5, 50)");
}

fn a_signal_to_the_front_reaches_the_command(r: &Runner) {
    // Not `read -t`: bash 5.2 can lose a signal that comes while it sets that up.
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done";
    let mut child = r.command(["bash", "-c", script]).spawn().expect("bash");
    let mut out = child.stdout.take().expect("a pipe");
    let mut line = [0; 6];
    std::io::Read::read_exact(&mut out, &mut line).expect("ready");
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("kill");
    let in_time = watch::wait_until(&child, Instant::now() + Duration::from_secs(20));
    watch::kill_tree(&child);
    assert!(in_time, "the signal did not arrive");
    assert_eq!(child.wait().expect("wait").code(), Some(3));
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).expect("the rest");
    assert_eq!(rest, "got it\n");
}

fn a_daemon_does_not_delay_the_return(r: &Runner) {
    // It keeps serving after the command has ended: it answers by removing the file it is given.
    let script =
        "mkfifo ask; setsid sh -c 'read name < ask; echo answered > $name' </dev/null >/dev/null 2>&1 & echo started";
    assert_eq!(r.run(["sh", "-c", script]).line(), "started");
    if r.place().is_union() {
        return; // its fifo and its answer are in the union, out of reach from here
    }
    let mut ask = std::fs::File::options().write(true).open(r.dir().join("ask")).expect("the daemon reads");
    ask.write_all(b"answer\n").expect("the daemon reads");
    drop(ask);
    let answer = r.dir().join("answer");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read(&answer).unwrap_or_default() != b"answered\n" {
        assert!(Instant::now() < deadline, "the daemon is gone");
        std::thread::yield_now();
    }
}

fn the_umask_and_the_directory_are_the_callers(r: &Runner) {
    let line = r.command_line(["sh", "-c", "umask; pwd -P"]);
    let mut outer = vec!["bash".into(), "-c".into(), r#"umask 0137; cd /usr/share; exec "$@""#.into(), "bash".into()];
    outer.extend(line);
    let finished = watch::finish(r.outside(&outer), &[], umvu_tests::runner::HANG).expect("an end");
    assert_eq!(finished.line(), "0137\n/usr/share");
}

fn ids_are_the_callers(r: &Runner) {
    assert_eq!(r.run(["id"]).line(), r.outside_text(&["id"]));
    let grep = ["grep", "-E", "^(Uid|Gid|Groups|CapEff|CapBnd|CapInh)", "/proc/self/status"];
    assert_eq!(r.run(grep).line(), r.outside_text(&grep));
}

fn the_time_is_read_without_a_system_call(r: &Runner) {
    // A million readings take seconds when each is a notified call, and milliseconds in the vDSO.
    let script =
        "import time\nt=time.process_time()\nfor _ in range(300000): time.time()\nprint(int(time.process_time()-t))";
    assert_eq!(r.run(["python3", "-c", script]).line(), "0");
}

fn the_process_tree_looks_as_it_should(r: &Runner) {
    let script = "sleep 100 & pid=$!; ps -o ppid=,comm= -p $pid | tr -s ' '; echo $$; kill $pid; wait $pid || :";
    let told = r.bash(script).line();
    let (child, parent) = told.split_once('\n').expect("two lines");
    assert_eq!(child.trim(), format!("{} sleep", parent.trim()));
}

fn proc_mounts_and_mountinfo_agree(r: &Runner) {
    let script =
        "wc -l < /proc/self/mounts; wc -l < /proc/self/mountinfo; wc -l < /proc/mounts; grep -c ' / ' /proc/mounts";
    let told = r.bash(script).line();
    let counts: Vec<_> = told.lines().map(|line| line.parse::<u32>().expect("a number")).collect();
    assert!(counts[0] == counts[1] && counts[1] == counts[2] && counts[0] > 0, "{told}");
}

/// Prints `no_new_privs`, tries to install a filter that allows everything, and prints that again.
const FILTER: &str = "import ctypes, errno, os\n\
    libc = ctypes.CDLL(None, use_errno=True)\n\
    def prctl(*a): return libc.prctl(*map(ctypes.c_ulong, a)) if len(a) == 5 else None\n\
    code = ctypes.create_string_buffer(bytes([6, 0, 0, 0, 0, 0, 0xff, 0x7f]), 8)\n\
    program = ctypes.create_string_buffer(bytes([1, 0, 0, 0, 0, 0, 0, 0]) + ctypes.addressof(code).to_bytes(8, 'little'), 16)\n\
    def name(r): return 'works' if r == 0 else errno.errorcode[ctypes.get_errno()]\n\
    def by_prctl(p): return name(prctl(22, 2, p, 0, 0))\n\
    def by_seccomp(p): return name(libc.syscall(317, 1, 0, ctypes.c_void_p(p)))\n\
    p = ctypes.addressof(program)\n\
    print(prctl(39, 0, 0, 0, 0), by_prctl(p), by_seccomp(p), by_prctl(0), by_seccomp(0), name(prctl(38, 1, 1, 0, 0)), name(prctl(39, 1, 0, 0, 0)))\n\
    print(prctl(38, 1, 0, 0, 0), prctl(39, 0, 0, 0, 0), by_prctl(p), by_seccomp(p))\n\
    import sys; sys.stdout.flush(); pid = os.fork()\n\
    if pid == 0: print(prctl(39, 0, 0, 0, 0), flush=True); os._exit(0)\n\
    os.waitpid(pid, 0)";

fn a_filter_of_calls_needs_no_new_privs_of_the_programs_own(r: &Runner) {
    let said = r.run(["python3", "-c", FILTER]).success();
    let has_already = r.outside_text(&["sh", "-c", "grep NoNewPrivs /proc/self/status"]).ends_with('1');
    let first = if has_already { "1 works works" } else { "0 EACCES EACCES" };
    let all = format!("{first} EFAULT EFAULT EINVAL EINVAL\n0 1 works works\n1\n");
    assert_eq!(String::from_utf8_lossy(&said), all);
}

fn no_new_privs_of_the_caller_arrive(r: &Runner) {
    let mut line: Vec<std::ffi::OsString> = vec!["setpriv".into(), "--no-new-privs".into()];
    line.extend(r.command_line(["python3", "-c", FILTER]));
    let said = r.outside(&line).output().expect("setpriv");
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.starts_with("1 works works "), "{said}");
}

fn landlock_is_not_there_where_it_could_not_hold(r: &Runner) {
    let script = "import ctypes, errno\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        print(libc.syscall(444, 0, 0, 1), errno.errorcode[ctypes.get_errno()])";
    assert_eq!(r.run(["python3", "-c", script]).line(), "-1 ENOTSUP");
}
