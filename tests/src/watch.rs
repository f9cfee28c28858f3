//! Waits for a command and its output, and kills its whole tree when it hangs.
//!
//! Deliberately does not know what the command is.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, PidfdFlags};

use crate::runner::Finished;

/// Runs a command to its end and returns its output.
///
/// # Errors
///
/// A sentence, when it cannot be started, is not finished in time, or leaves its output open.
pub fn finish(mut command: Command, input: &[u8], patience: Duration) -> Result<Finished, String> {
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let label = format!("{command:?}");
    let mut child = command.spawn().map_err(|e| format!("{label}: {e}"))?;
    let deadline = Instant::now() + patience;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A command that ends early closes the pipe; that is its right.
        thread::spawn(move || stdin.write_all(&input));
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let in_time = wait_until(&child, deadline);
    if !in_time {
        kill_tree(&child);
    }
    let status = child.wait().map_err(|e| format!("{label}: wait: {e}"))?;
    let stdout = received(&stdout, deadline).ok_or_else(|| held_open(&label))?;
    let stderr = received(&stderr, deadline).ok_or_else(|| held_open(&label))?;
    let finished = Finished { status, stdout, stderr };
    if in_time {
        Ok(finished)
    } else {
        Err(format!("{label}: hung for {patience:?} and was killed: {finished}"))
    }
}

fn held_open(label: &str) -> String {
    format!("{label}: ended, but something still holds its output open")
}

/// Waits for a child; says whether it ended before the deadline.
///
/// # Panics
///
/// When the child cannot be watched.
#[must_use]
pub fn wait_until(child: &Child, deadline: Instant) -> bool {
    let raw = i32::try_from(child.id()).expect("a pid fits in pid_t");
    let pid = rustix::process::Pid::from_raw(raw).expect("a pid is positive");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("pidfd_open of a child");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("a short time");
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("poll of a pidfd: {e}"),
        }
    }
}

/// Kills a child and everything that descends from it.
pub fn kill_tree(child: &Child) {
    let mut tree = vec![child.id()];
    let parents = parents();
    let mut next = 0;
    while let Some(&parent) = tree.get(next) {
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    // Children first: the supervisor dies last and cannot start anything in between.
    for pid in tree.into_iter().rev() {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Returns every process of the host with its parent.
fn parents() -> Vec<(u32, u32)> {
    let Ok(proc) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    proc.flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything; the fields start after the last one.
            let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
            let fields = std::str::from_utf8(&stat[after_name..]).ok()?;
            Some((pid, fields.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect()
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn received(from: &Receiver<Vec<u8>>, deadline: Instant) -> Option<Vec<u8>> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    from.recv_timeout(left).ok()
}
