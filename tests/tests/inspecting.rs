//! What an identity that only the view knows may do to the processes of others: `__ptrace_may_access` of
//! `kernel/ptrace.c`, setpriority(2), sched_setscheduler(2).

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::unistd::{getpid, setgroups, setresgid, setresuid, Gid, Pid, Uid};
use rustix::io::Errno;
use umvu_tests::{behaviours, works};

behaviours! {
    in_guest at ROOT {
        processes_of_others_keep_their_secrets,
        processes_of_others_are_not_traced,
        processes_of_others_are_not_steered,
    }
    in_guest at ANYONE {
        ones_own_processes_are_open,
    }
}

/// A program that waits until its input ends.
struct Waiting(Child);

impl Waiting {
    fn start(start: impl FnOnce(&mut Command) -> &mut Command) -> Waiting {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = start(&mut command).spawn().expect("cat");
        // It has become what it is once it answers.
        use std::io::{Read, Write};
        child.stdin.as_mut().expect("a pipe").write_all(b"x").expect("write");
        child.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("an answer");
        Waiting(child)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).expect("a pid"))
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        works(self.0.wait());
    }
}

/// Becomes a user, for good.
fn become_user(id: u32) {
    works(setgroups(&[]));
    works(setresgid(Gid::from_raw(id), Gid::from_raw(id), Gid::from_raw(id)));
    works(setresuid(Uid::from_raw(id), Uid::from_raw(id), Uid::from_raw(id)));
}

fn error<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

const LINKS: [&str; 4] = ["cwd", "root", "exe", "fd/0"];

fn processes_of_others_keep_their_secrets() {
    let roots = Waiting::start(|command| command);
    let own = Waiting::start(|command| command.uid(33).gid(33));
    become_user(33);
    let at = |child: &Waiting, name: &str| format!("/proc/{}/{name}", child.pid());
    let refused = Some(Errno::ACCESS.raw_os_error());
    for name in ["environ", "maps", "mem", "auxv", "smaps"] {
        assert_eq!(error(fs::File::open(at(&roots, name))), refused, "{name}");
        works(fs::File::open(at(&own, name)));
    }
    for name in LINKS {
        assert_eq!(error(fs::read_link(at(&roots, name))), refused, "{name}");
        assert_eq!(error(fs::metadata(at(&roots, name))), refused, "{name}");
        works(fs::read_link(at(&own, name)));
    }
    assert_eq!(error(fs::read_dir(at(&roots, "fd"))), refused);
    assert_eq!(error(fs::write(at(&roots, "comm"), "other")), refused);
    for name in ["stat", "status", "cmdline", "comm"] {
        works(fs::read(at(&roots, name)));
    }
    works(fs::read_dir(at(&roots, "")));
    roots.end();
    own.end();
}

fn processes_of_others_are_not_traced() {
    use nix::sys::ptrace;
    let roots = Waiting::start(|command| command);
    let own = Waiting::start(|command| command.uid(33).gid(33));
    become_user(33);
    assert_eq!(ptrace::attach(roots.pid()), Err(nix::Error::EPERM));
    assert_eq!(ptrace::seize(roots.pid(), ptrace::Options::empty()), Err(nix::Error::EPERM));
    works(ptrace::seize(own.pid(), ptrace::Options::empty()));
    roots.end();
    own.end();
}

fn processes_of_others_are_not_steered() {
    use nix::sched::{sched_setaffinity, CpuSet};
    let roots = Waiting::start(|command| command);
    let own = Waiting::start(|command| command.uid(33).gid(33));
    become_user(33);
    let nice = |pid: Pid| rustix::process::setpriority_process(rustix::process::Pid::from_raw(pid.as_raw()), 19);
    assert_eq!(nice(roots.pid()), Err(Errno::PERM));
    works(nice(own.pid()));
    let mut set = CpuSet::new();
    works(set.set(0));
    assert_eq!(sched_setaffinity(roots.pid(), &set), Err(nix::Error::EPERM));
    works(sched_setaffinity(own.pid(), &set));
    works(sched_setaffinity(getpid(), &set));
    roots.end();
    own.end();
}

fn ones_own_processes_are_open() {
    let child = Waiting::start(|command| command);
    for name in ["environ", "maps", "auxv"] {
        assert!(!works(fs::read(format!("/proc/{}/{name}", child.pid()))).is_empty());
    }
    for name in LINKS {
        works(fs::read_link(format!("/proc/{}/{name}", child.pid())));
    }
    works(rustix::process::setpriority_process(rustix::process::Pid::from_raw(child.pid().as_raw()), 5));
    child.end();
}
