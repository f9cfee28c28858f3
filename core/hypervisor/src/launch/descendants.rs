//! Signals to all that descends from the calling process. Knows nothing of views.

use nix::sys::wait::{waitid, Id, WaitPidFlag};
use rustix::process::{Pid, Signal};

/// The children of the calling thread, and theirs, parents first.
pub fn descendants() -> Vec<Pid> {
    let mut found = children_of("thread-self");
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        next += 1;
        found.extend(children_of_threads(pid));
    }
    found
}

/// Kills all descendants, and waits for them, until there are none: whoever is killed leaves its children to us.
pub fn kill_all() {
    loop {
        let mut found = children_of("thread-self");
        while let Some(pid) = found.pop() {
            // Before its children are looked for: it makes no more of them.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            found.extend(children_of_threads(pid));
        }
        match waitid(Id::All, WaitPidFlag::WEXITED) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// The children of all threads of a process.
fn children_of_threads(pid: Pid) -> Vec<Pid> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let tids = threads.into_iter().flatten().flatten().filter_map(|thread| thread.file_name().into_string().ok());
    tids.flat_map(|tid| children_of(&tid)).collect()
}

/// The children of a thread.
fn children_of(thread: &str) -> Vec<Pid> {
    // A thread has a directory of its own, which only the list of all processes leaves out.
    let path = match thread {
        "thread-self" => "/proc/thread-self/children".to_owned(),
        tid => format!("/proc/{tid}/task/{tid}/children"),
    };
    let children = std::fs::read_to_string(path).unwrap_or_default();
    children.split_whitespace().filter_map(|p| p.parse().ok()).filter_map(Pid::from_raw).collect()
}
