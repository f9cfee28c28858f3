//! Files whose writes a file system of a view answers, by the example of binfmt's: whatever writes, write(2) says what
//! came of it, and nobody stays traced.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at INSIDE {
        a_shell_is_told_what_is_wrong,
        all_kinds_of_writers_are_answered,
        who_inherits_the_descriptor_writes_too,
        threads_write_to_each_others_descriptors,
        a_program_is_executed_with_the_descriptor,
        nobody_is_traced_when_the_descriptor_is_gone,
        signals_and_job_control_reach_who_has_the_descriptor,
        a_write_that_is_not_seen_fails,
        who_is_traced_is_refused,
        reading_gives_the_text_of_that_moment,
        an_open_file_keeps_the_mount,
    }
    from_outside at ROOT {
        root_writes_as_anybody,
    }
}

const MOUNTED: &str =
    "vu_insmod binfmt; vumount -t vubinfmt none /proc/sys/fs/binfmt_misc; cd /proc/sys/fs/binfmt_misc\n";

/// Runs a script with the module loaded and mounted; where in the script the shell found something wrong is left out.
fn bash(r: &Runner, script: &str) -> String {
    without_places(&r.bash(&format!("{MOUNTED}{script}")).line())
}

fn without_places(said: &str) -> String {
    let place = |line: &str| line.split_once("bash: line ")?.1.split_once(": ").map(|(_, rest)| rest.to_owned());
    said.lines().map(|line| place(line).unwrap_or_else(|| line.to_owned())).collect::<Vec<_>>().join("\n")
}

fn python(r: &Runner, script: &str) -> String {
    bash(r, &format!("exec python3 - <<'END'\nimport os, signal, threading, time\n{script}\nEND"))
}

fn a_shell_is_told_what_is_wrong(r: &Runner) {
    let said = bash(r, "{ echo bad > register || echo failed; } 2>&1; echo ':a:E::x::/bin/true:' > register; ls");
    assert_eq!(said, "echo: write error: Invalid argument\nfailed\na\nregister\nstatus");
}

fn all_kinds_of_writers_are_answered(r: &Runner) {
    let script = "rule() { echo \":$1:E::x::/bin/true:\"; }
        printf ':printf:E::x::/bin/true:' > register; rule append >> register; rule tee | tee register
        rule cat | cat > register; rule dd | dd of=register status=none; { rule dd | dd of=register 2>&1 || true; } | sed -n 1p
        cd ~; rule file > f; cat f > /proc/sys/fs/binfmt_misc/register; cp f /proc/sys/fs/binfmt_misc/register 2>&1 || true
        perl -e 'open(F, \">\", \"/proc/sys/fs/binfmt_misc/register\"); syswrite(F, \"no\") or print \"$!\\n\"'
        ls /proc/sys/fs/binfmt_misc";
    let expected = ":tee:E::x::/bin/true:\ndd: error writing 'register': File exists\n\
                    cp: error writing '/proc/sys/fs/binfmt_misc/register': File exists\nInvalid argument\n\
                    append\ncat\ndd\nfile\nprintf\nregister\nstatus\ntee";
    assert_eq!(bash(r, script), expected);
    let script = r#"
fd = os.open("register", os.O_WRONLY)
print(os.write(fd, b":a:E::x::/bin/true:"), os.pwrite(fd, b":b:E::x::/bin/true:", 7))
print(os.writev(fd, [b":c:E::x::/bin/true:", b":d:E::x::/bin/true:\n"]), os.pwritev(fd, [b":e:E::x::/bin/true:"], 0))
for call in (lambda: os.write(fd, b""), lambda: os.writev(fd, [b":f:E::x::/bin/true:", b"no"]),
             lambda: os.writev(fd, [b"no"]), lambda: os.sendfile(fd, os.open("status", os.O_RDONLY), 0, 9)):
    try: print(call())
    except OSError as e: print(e.strerror)
print(sorted(os.listdir()))"#;
    let expected = "19 19\n39 19\nInvalid argument\n19\nInvalid argument\nInvalid argument\n\
                    ['a', 'b', 'c', 'd', 'e', 'f', 'register', 'status']";
    assert_eq!(python(r, script), expected);
}

fn who_inherits_the_descriptor_writes_too(r: &Runner) {
    let script = "exec 5> register; (echo ':child:E::x::/bin/true:' >&5; (echo no >&5) 2>&1 || true)
        sh -c 'echo :sh:E::x::/bin/true: >&5'; exec 5>&-; ls";
    let said = bash(r, script);
    assert_eq!(said, "echo: write error: Invalid argument\nchild\nregister\nsh\nstatus");
}

fn threads_write_to_each_others_descriptors(r: &Runner) {
    let script = r#"
results = []
ready, opened, done = threading.Event(), threading.Event(), threading.Event()
def other():
    ready.set(); opened.wait()
    for name in (b"one", b"two", b"two"):
        try: results.append(os.write(fd, b":" + name + b":E::x::/bin/true:"))
        except OSError as e: results.append(e.strerror)
    done.set()
threads = [threading.Thread(target=other)] + [threading.Thread(target=done.wait) for _ in range(5)]
for t in threads: t.start()
ready.wait()
fd = os.open("register", os.O_WRONLY); opened.set(); done.wait()
os.close(fd)
for t in threads: t.join()
print(results, sorted(os.listdir()))"#;
    let expected = "[21, 21, 'File exists'] ['one', 'register', 'status', 'two']";
    assert_eq!(python(r, script), expected);
}

fn a_program_is_executed_with_the_descriptor(r: &Runner) {
    // By a path that is a script, and one of the view's own where it has its own tree.
    let script = "cp /bin/echo ~/echo; printf '#!/bin/sh\\necho :script:E::x::/bin/true:' > ~/script; chmod +x ~/script
        ~/script > register; (exec ~/echo ':program:E::x::/bin/true:' > register)
        (exec env ~/echo ':twice:E::x::/bin/true:' > register); (~/echo no > register) 2>&1 || true; ls";
    assert_eq!(
        bash(r, script).lines().skip(1).collect::<Vec<_>>(),
        ["program", "register", "script", "status", "twice"]
    );
}

fn nobody_is_traced_when_the_descriptor_is_gone(r: &Runner) {
    let script = "exec 5> register; grep -c 'TracerPid:.0$' /proc/$$/status || true; exec 5>&-
        grep TracerPid: /proc/$$/status; (sleep 0 5> register); sleep 60 5> register 5>&- & pid=$!
        until grep -q '^sleep$' /proc/$pid/comm; do :; done; grep TracerPid: /proc/$pid/status; kill $pid
        exec 6> register 7> status; exec 6>&-; exec 7>&-; strace -o /dev/null true; grep TracerPid: /proc/$$/status";
    assert_eq!(bash(r, script), "0\nTracerPid:\t0\nTracerPid:\t0\nTracerPid:\t0");
}

fn signals_and_job_control_reach_who_has_the_descriptor(r: &Runner) {
    let script = r#"
fd = os.open("register", os.O_WRONLY)
seen = []
signal.signal(signal.SIGUSR1, lambda *_: seen.append("handled"))
signal.signal(signal.SIGRTMIN + 3, lambda *_: seen.append("real-time"))
os.kill(os.getpid(), signal.SIGUSR1); os.kill(os.getpid(), signal.SIGRTMIN + 3)
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    os.write(fd, b":late:E::x::/bin/true:")
    os._exit(7)
_, status = os.waitpid(child, os.WUNTRACED); seen.append(os.WIFSTOPPED(status))
os.kill(child, signal.SIGCONT)
_, status = os.waitpid(child, 0); seen.append(os.WEXITSTATUS(status))
child = os.fork()
if child == 0:
    signal.pause()
os.kill(child, signal.SIGKILL)
_, status = os.waitpid(child, 0); seen.append(os.WTERMSIG(status))
print(seen, sorted(os.listdir()))"#;
    assert_eq!(python(r, script), "['handled', 'real-time', True, 7, 9] ['late', 'register', 'status']");
}

fn a_write_that_is_not_seen_fails(r: &Runner) {
    let script = r#"
import socket
one, two = socket.socketpair()
child = os.fork()
if child == 0:
    _, fds, _, _ = socket.recv_fds(one, 10, 1)
    try: print(os.write(fds[0], b":sent:E::x::/bin/true:"))
    except OSError as e: print(e.strerror, flush=True)
    os._exit(0)
fd = os.open("register", os.O_WRONLY)
socket.send_fds(two, [b"x"], [fd])
os.waitpid(child, 0)
print(sorted(os.listdir()))"#;
    let expected = "Operation not permitted\n['register', 'status']";
    assert_eq!(python(r, script), expected);
}

fn who_is_traced_is_refused(r: &Runner) {
    let script = "strace -f -o /dev/null bash -c 'echo x > register' 2>&1 || true; cat status";
    assert_eq!(bash(r, script), "register: Operation not permitted\nenabled");
}

fn reading_gives_the_text_of_that_moment(r: &Runner) {
    let script = "exec 5< status; echo 0 > status; cat <&5; cat status; stat -L -c '%A %s %h %n' /proc/self/fd/5 register .
        readlink /proc/self/fd/5; stat -f -c %T .; touch new 2>&1 || true; mkdir new 2>&1 || true; rm status 2>&1 || true";
    let expected = "enabled\ndisabled\n-rw-r--r-- 0 1 /proc/self/fd/5\n--w------- 0 1 register\ndrwxr-xr-x 0 2 .\n\
                    /proc/sys/fs/binfmt_misc/status\nbinfmt_misc\ntouch: cannot touch 'new': Permission denied\n\
                    mkdir: cannot create directory ‘new’: Operation not permitted\n\
                    rm: cannot remove 'status': Operation not permitted";
    assert_eq!(bash(r, script), expected);
}

fn an_open_file_keeps_the_mount(r: &Runner) {
    let script = "cd /; m=/proc/sys/fs/binfmt_misc; exec 5< $m/status; vuumount $m 2>/dev/null || echo busy
        exec 5<&-; exec 5> $m/register; vuumount $m 2>/dev/null || echo busy; exec 5>&-; vuumount $m; vu_rmmod binfmt; ls $m";
    assert_eq!(bash(r, script), "busy\nbusy");
}

fn root_writes_as_anybody(r: &Runner) {
    let script = "vu_insmod binfmt; mount -t vubinfmt none /proc/sys/fs/binfmt_misc; cd /proc/sys/fs/binfmt_misc
        stat -c %u register; { echo bad > register; } 2>&1 || true; echo ':a:E::x::/bin/true:' > register; ls
        vusu -c 'echo -1 > a' root; ls; vusu -s /bin/bash -c 'echo 0 > status' nobody 2>&1 || true; cat status";
    let expected = "0\necho: write error: Invalid argument\na\nregister\nstatus\nregister\nstatus\n\
                    status: Permission denied\nenabled";
    assert_eq!(without_places(&r.bash(script).line()), expected);
}
