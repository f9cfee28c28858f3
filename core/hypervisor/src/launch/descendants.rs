//! Signals to all that descends from the calling process. Knows nothing of views.

use nix::sys::wait::{waitid, Id, WaitPidFlag};
use rustix::process::{Pid, Signal};

/// Sends a signal to all children of the calling thread.
pub fn signal_children(signal: Signal) {
    for pid in children_of("thread-self") {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Kills all descendants, and waits for them, until there are none: whoever is killed leaves its children to us.
pub fn kill_all() {
    loop {
        let mut found = children_of("thread-self");
        while let Some(pid) = found.pop() {
            // Before its children are looked for: it makes no more of them.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
            let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
            for thread in threads.into_iter().flatten().flatten() {
                if let Some(tid) = thread.file_name().to_str() {
                    found.extend(children_of(tid));
                }
            }
        }
        match waitid(Id::All, WaitPidFlag::WEXITED) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
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
