//! Beginning and end of a view: who outlives whom, what is left behind, and views inside views.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use umvu_tests::runner::HANG;
use umvu_tests::{behaviours, watch, Place, Runner};

behaviours! {
    from_outside at INSIDE {
        a_killed_supervisor_takes_its_guests_along,
        a_supervisor_asked_to_end_asks_its_guests,
        a_supervisor_asked_to_end_asks_children_and_daemons,
        a_supervisor_asked_to_end_kills_who_does_not_listen,
        a_killed_supervisor_loses_nothing_synced,
        a_killed_supervisor_leaves_no_directory,
        a_killed_front_takes_the_view_along,
        a_killed_guard_takes_the_view_along,
        a_killed_supervisor_takes_a_daemon_along,
        a_killed_process_group_takes_a_daemon_along,
        no_call_fails_when_the_supervisor_is_killed,
        a_daemon_holds_nothing_of_who_started_umvu,
        nothing_is_left_running_after_the_last_guest,
        no_zombie_is_left_to_who_does_not_reap,
        a_view_inside_a_view_is_transparent,
        three_views_deep_works,
        the_supervisor_holds_no_guests_descriptor,
        the_supervisor_is_small,
        ten_thousand_processes_leave_the_supervisor_as_it_was,
    }
    from_outside at ORDINARY {
        a_signal_to_the_process_alone_comes,
        two_views_at_once_do_not_meet,
    }
    from_outside at COW {
        a_second_view_on_the_same_upper_is_refused_with_the_holders_pid,
    }
    from_outside at PLAIN {
        starting_a_view_is_quick,
        daemons_keep_a_view_or_end_with_the_command,
        another_release_of_the_kernel_is_told,
    }
}

/// A started command; whatever is left of it ends with the test.
struct Started(Child);

impl Started {
    fn wait(&mut self) -> std::process::ExitStatus {
        assert!(watch::wait_until(&self.0, Instant::now() + HANG), "umvu goes on");
        self.0.wait().expect("wait")
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        watch::kill_tree(&self.0);
        let _ = self.0.wait();
    }
}

/// Starts a bash in the place that says its pid and then waits for its input to end.
fn start(r: &Runner, script: &str) -> (Started, String) {
    let mut command = r.command(["bash", "-euc", script]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("bash");
    let out = child.stdout.as_mut().expect("a pipe");
    let mut line = Vec::new();
    let mut byte = [0; 1];
    while std::io::Read::read(out, &mut byte).expect("a line") == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    (Started(child), String::from_utf8(line).expect("plain text"))
}

/// Finds the child of a process by its name.
fn child_of(parent: i32, name: &str) -> i32 {
    let pids = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("the children");
    let has_name =
        |pid: &&str| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c.trim_end() == name);
    let pid = pids.split_whitespace().find(has_name);
    pid.unwrap_or_else(|| panic!("no {name} among {pids:?}")).parse().expect("a pid")
}

fn pid_of(started: &Started) -> i32 {
    i32::try_from(started.0.id()).expect("a pid")
}

fn guard_of(front: &Started) -> i32 {
    child_of(pid_of(front), "vu-guard")
}

fn supervisor_of(front: &Started) -> i32 {
    child_of(guard_of(front), "umvu-view")
}

fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie that its new parent has not yet collected runs no more.
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with(['Z', 'X']))
}

fn wait_gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_gone(pid) {
        assert!(Instant::now() < deadline, "{pid} goes on");
        std::thread::yield_now();
    }
}

fn daemons_keep_a_view_or_end_with_the_command(r: &Runner) {
    let run = |option: &[&str], script: &str| {
        let line = [&["umvu", "--norc"], option, &["bash", "-c", script]].concat();
        r.outside_text(&line)
    };
    let daemon: i32 = run(&[], "setsid sleep 1000 >/dev/null 2>&1 & echo $!").parse().expect("a pid");
    assert!(!is_gone(daemon));
    kill(Pid::from_raw(daemon), Signal::SIGKILL).expect("kill");
    let stubborn = "setsid bash -c 'trap \"echo asked >asked; exit\" TERM; echo >ready; while :; do sleep 0.1; done' \
        >/dev/null 2>&1 & until [ -e ready ]; do :; done; echo $!";
    let daemon: i32 = run(&["--kill-on-exit"], stubborn).parse().expect("a pid");
    // The front returns when all of it has ended.
    assert!(is_gone(daemon));
    assert_eq!(r.bash("cat asked").line(), "asked");
}

fn another_release_of_the_kernel_is_told(r: &Runner) {
    let script = "uname -r; cat /proc/sys/kernel/osrelease; unshare -Uru uname -r";
    let line = ["umvu", "--norc", "-k", "4.19.0-other", "bash", "-c", script];
    assert_eq!(r.outside_text(&line), "4.19.0-other\n4.19.0-other\n4.19.0-other");
}

fn a_killed_supervisor_takes_its_guests_along(r: &Runner) {
    let (mut child, pids) = start(r, "sleep 1000 & sleeper=$!; setsid sleep 1000 & echo $$ $sleeper $!; read line");
    let guests: Vec<i32> = pids.split(' ').map(|pid| pid.parse().expect("a pid")).collect();
    kill(Pid::from_raw(supervisor_of(&child)), Signal::SIGKILL).expect("kill");
    for guest in guests {
        wait_gone(guest);
    }
    assert!(!child.wait().success());
}

fn a_supervisor_asked_to_end_asks_its_guests(r: &Runner) {
    let (mut child, told) = start(r, "trap 'echo asked >asked; exit 3' TERM; echo ready; while :; do sleep 0.1; done");
    assert_eq!(told, "ready");
    kill(Pid::from_raw(supervisor_of(&child)), Signal::SIGTERM).expect("kill");
    assert_eq!(child.wait().code(), Some(3));
    assert_eq!(r.bash("cat asked").line(), "asked");
}

fn a_supervisor_asked_to_end_asks_children_and_daemons(r: &Runner) {
    let inner = r#"trap "echo asked >asked; exit" TERM; echo $PPID $1 $$; while :; do sleep 0.1; done"#;
    let (mut child, pids) = start(r, &format!("setsid sleep 1000 & bash -c '{inner}' - $!; :"));
    let supervisor = supervisor_of(&child);
    kill(Pid::from_raw(supervisor), Signal::SIGTERM).expect("kill");
    // The front returns when all of it has ended.
    child.wait();
    for pid in pids.split(' ').map(|pid| pid.parse().expect("a pid")) {
        assert!(is_gone(pid), "{pid} goes on");
    }
    wait_gone(supervisor);
    assert_eq!(r.bash("cat asked").line(), "asked");
}

fn a_supervisor_asked_to_end_kills_who_does_not_listen(r: &Runner) {
    let (mut child, pids) = start(r, "trap '' TERM; sleep 1000 & echo $$ $!; wait");
    let supervisor = supervisor_of(&child);
    kill(Pid::from_raw(supervisor), Signal::SIGTERM).expect("kill");
    for pid in pids.split(' ').map(|pid| pid.parse().expect("a pid")).chain([supervisor]) {
        wait_gone(pid);
    }
    assert_eq!(child.wait().code(), Some(137));
}

fn a_killed_supervisor_loses_nothing_synced(r: &Runner) {
    let script = "mkdir d; echo contents > d/file; chmod 640 d/file; sync d/file d .; echo done; read line";
    let (mut child, told) = start(r, script);
    assert_eq!(told, "done");
    kill(Pid::from_raw(supervisor_of(&child)), Signal::SIGKILL).expect("kill");
    child.wait();
    // The same upper directory, another view.
    assert_eq!(r.bash("cat d/file; stat -c %a d/file").line(), "contents\n640");
}

fn a_killed_supervisor_leaves_no_directory(r: &Runner) {
    let (mut child, _) = start(r, "echo ready; read line");
    let supervisor = supervisor_of(&child);
    let left = || {
        let prefix = format!(".umvu-{supervisor}-");
        let entries = std::fs::read_dir("/dev/shm").expect("/dev/shm");
        entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).count()
    };
    assert_eq!(left(), 1);
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("kill");
    assert_eq!(child.wait().code(), Some(137));
    assert_eq!(left(), 0);
}

fn a_killed_front_takes_the_view_along(r: &Runner) {
    let (mut child, pids) = start(r, "sleep 1000 & echo $$ $!; read line");
    let supervisor = supervisor_of(&child);
    child.0.kill().expect("kill");
    child.wait();
    for pid in pids.split(' ').map(|pid| pid.parse().expect("a pid")).chain([supervisor]) {
        wait_gone(pid);
    }
}

fn a_killed_guard_takes_the_view_along(r: &Runner) {
    let (mut child, pids) = start(r, "sleep 1000 & echo $$ $!; read line");
    let supervisor = supervisor_of(&child);
    kill(Pid::from_raw(guard_of(&child)), Signal::SIGKILL).expect("kill");
    for pid in pids.split(' ').map(|pid| pid.parse().expect("a pid")).chain([supervisor]) {
        wait_gone(pid);
    }
    assert_eq!(child.wait().code(), Some(137));
}

/// Starts a view in which a daemon outlives the command, and returns the supervisor and the daemon.
fn start_daemon(r: &Runner, daemon: &str) -> (i32, i32) {
    let script = format!(
        "setsid sh -c 'echo $$ > pid; {daemon}' <&- >&- 2>&- & until [ -s pid ]; do :; done; cat pid; read line"
    );
    let (mut child, pid) = start(r, &script);
    let supervisor = supervisor_of(&child);
    let guard = guard_of(&child);
    std::io::Write::write_all(child.0.stdin.as_mut().expect("a pipe"), b"go\n").expect("a reader");
    assert!(child.wait().success());
    // The front has returned, and both go on without it.
    assert!(!is_gone(guard) && !is_gone(supervisor));
    (supervisor, pid.parse().expect("a pid"))
}

fn no_zombie_is_left_to_who_does_not_reap(r: &Runner) {
    // As the first process of a container that never waits for what it inherits.
    let adopter = "import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
print([subprocess.call(sys.argv[1:]) for _ in range(3)])
try:
    print(os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT))
except ChildProcessError:
    print('none')";
    let mut line = vec!["python3".into(), "-c".into(), adopter.into()];
    line.extend(r.command_line(["true"]));
    let told = watch::finish(r.outside(&line), &[], HANG).unwrap_or_else(|why| panic!("{why}")).line();
    assert_eq!(told, "[0, 0, 0]\nnone");
}

fn a_killed_supervisor_takes_a_daemon_along(r: &Runner) {
    let (supervisor, daemon) = start_daemon(r, "sleep 1000 & while :; do sleep 0.1; done");
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("kill");
    wait_gone(daemon);
}

fn a_killed_process_group_takes_a_daemon_along(r: &Runner) {
    let (mut child, pid) = start(r, "setsid sleep 1000 <&- >&- 2>&- & echo $!; read line");
    let supervisor = supervisor_of(&child);
    nix::sys::signal::killpg(Pid::from_raw(pid_of(&child)), Signal::SIGKILL).expect("kill");
    child.wait();
    wait_gone(pid.parse().expect("a pid"));
    wait_gone(supervisor);
}

fn no_call_fails_when_the_supervisor_is_killed(r: &Runner) {
    // The shell itself makes the calls, and writes to a pipe what a failure looks like.
    let script = "echo there > file; echo ready; while :; do [ -e file ] || echo failed; done";
    let (mut child, _) = start(r, script);
    let mut out = child.0.stdout.take().expect("a pipe");
    kill(Pid::from_raw(supervisor_of(&child)), Signal::SIGKILL).expect("kill");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut out, &mut said).expect("what it says");
    assert_eq!(said, "");
    assert!(!child.wait().success());
}

fn a_daemon_holds_nothing_of_who_started_umvu(r: &Runner) {
    let daemon = "setsid sleep 1000 <&- >&- 2>&- 3>&- & echo $! 1>&3";
    let mut line = vec!["sh".into(), "-c".into(), "exec 3>&1 >/dev/null; exec \"$@\"".into(), "sh".into()];
    line.extend(r.command_line(["sh", "-c", daemon]));
    // To its end means: until nobody holds the pipe.
    let daemon = watch::finish(r.outside(&line), &[], HANG).unwrap_or_else(|why| panic!("{why}")).line();
    let daemon = daemon.parse().expect("a pid");
    assert!(!is_gone(daemon));
    kill(Pid::from_raw(daemon), Signal::SIGKILL).expect("kill");
    wait_gone(daemon);
}

/// A bash that counts signals, one line for each, until its input ends. It looks with `-t 0`, which does not wait: bash 5.2
/// can lose a signal that comes while it sets up the waiting of `read -t`.
const COUNTING: &str = "trap 'echo usr1 >> got' USR1; trap 'echo term >> got' TERM; \
     echo ready; until read -t 0 line; do sleep 0.05; done; cat got";

fn counted(mut child: Started) -> String {
    drop(child.0.stdin.take());
    let mut said = String::new();
    std::io::Read::read_to_string(child.0.stdout.as_mut().expect("a pipe"), &mut said).expect("what it got");
    child.wait();
    said
}

fn wait_for_file(path: &std::path::Path, lines: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while std::fs::read_to_string(path).unwrap_or_default().lines().count() < lines {
        assert!(Instant::now() < deadline, "{lines} signals, but {:?}", std::fs::read_to_string(path));
        std::thread::yield_now();
    }
}

fn a_signal_to_the_process_alone_comes(r: &Runner) {
    let (child, _) = start(r, COUNTING);
    let pid = Pid::from_raw(pid_of(&child));
    for (signal, lines) in [(Signal::SIGUSR1, 1), (Signal::SIGTERM, 2)] {
        kill(pid, signal).expect("kill");
        wait_for_file(&r.dir().join("got"), lines);
    }
    assert_eq!(counted(child), "usr1\nterm\n");
}

fn nothing_is_left_running_after_the_last_guest(r: &Runner) {
    let (mut child, _) = start(r, "echo ready; read line || :");
    let supervisor = supervisor_of(&child);
    drop(child.0.stdin.take());
    assert!(child.wait().success());
    wait_gone(supervisor);
}

fn a_view_inside_a_view_is_transparent(r: &Runner) {
    let script = "echo outer > file; umvu -N -- sh -c 'cat file; echo inner > file; exit 7' || echo $?; cat file";
    assert_eq!(r.bash(script).line(), "outer\n7\ninner");
    // What the inner view mounts is not seen in the outer.
    let script =
        "mkdir m u; umvu -N -m viewfs -- sh -c 'vumount -t viewfs -o bind /usr m; ls -d m/share'; ls m | wc -l";
    assert_eq!(r.bash(script).line(), "m/share\n0");
}

fn three_views_deep_works(r: &Runner) {
    let script = "umvu -N -- umvu -N -- sh -c 'echo deep | cat; exit 3'";
    let finished = r.run(["sh", "-c", script]);
    assert_eq!(finished.shell_status(), 3);
    assert_eq!(finished.stdout, b"deep\n");
}

fn the_supervisor_holds_no_guests_descriptor(r: &Runner) {
    let (child, _) = start(r, "exec 7<> unusual-name; mkfifo p; cat p & ls >/dev/null; echo ready; read line; kill $!");
    let fds = format!("/proc/{}/fd", supervisor_of(&child));
    let held: Vec<_> = std::fs::read_dir(fds)
        .expect("its descriptors")
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .filter(|target| target.to_string_lossy().contains("unusual-name"))
        .collect();
    assert!(held.is_empty(), "{held:?}");
}

fn resident_kib(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

fn the_supervisor_is_small(r: &Runner) {
    let (child, _) = start(r, "ls /usr >/dev/null; echo ready; read line");
    let resident = resident_kib(supervisor_of(&child));
    assert!(resident < 16 * 1024, "{resident} KiB");
}

fn ten_thousand_processes_leave_the_supervisor_as_it_was(r: &Runner) {
    let script = "many() { for i in {1..5000}; do (cd /usr; umask 0$((i % 8))) ; done; }; many; echo warm; read line; many; echo done; read line";
    let mut command = r.command(["bash", "-c", script]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("bash");
    let mut out = child.stdout.take().expect("a pipe");
    let mut five = [0; 5];
    std::io::Read::read_exact(&mut out, &mut five).expect("warm");
    let mut child = Started(child);
    let supervisor = supervisor_of(&child);
    let before = resident_kib(supervisor);
    std::io::Write::write_all(child.0.stdin.as_mut().expect("a pipe"), b"go\n").expect("a reader");
    std::io::Read::read_exact(&mut out, &mut five).expect("done");
    let after = resident_kib(supervisor);
    assert!(after <= before + 1024, "{before} KiB, then {after}");
}

fn two_views_at_once_do_not_meet(r: &Runner) {
    let (mut one, _) = start(r, "echo ready; read line || :");
    assert_eq!(r.run(["sh", "-c", "echo second"]).line(), "second");
    drop(one.0.stdin.take());
    assert!(one.wait().success());
}

fn a_second_view_on_the_same_upper_is_refused_with_the_holders_pid(r: &Runner) {
    let (one, _) = start(r, "echo ready; read line");
    let second = r.run(["true"]);
    assert!(!second.status.success());
    let message = String::from_utf8_lossy(&second.stderr);
    assert!(message.starts_with("vumount: ") && message.contains(&supervisor_of(&one).to_string()), "{message}");
}

/// The target is 5 ms over the bare command; the limit here is what no loaded machine excuses.
fn starting_a_view_is_quick(r: &Runner) {
    assert_eq!(r.place(), Place::Plain);
    let mut times: Vec<Duration> = (0..11)
        .map(|_| {
            let start = Instant::now();
            assert_eq!(r.run(["true"]).success(), b"");
            start.elapsed()
        })
        .collect();
    times.sort();
    assert!(times[5] < Duration::from_millis(100), "{times:?}");
}
