//! A pseudo-terminal with a command on it, driven as a person would: type, then wait for an answer.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{openpt, ptsname, unlockpt, OpenptFlags};
use rustix::termios::{tcsetwinsize, Winsize};

use crate::runner::{Runner, HANG};
use crate::watch;

/// A running command that has a terminal of its own as its controlling terminal.
pub struct Terminal {
    child: Child,
    /// The side of the person; `None` once the window is closed.
    master: Option<File>,
    unread: Vec<u8>,
}

impl Terminal {
    /// Starts a command in the runner's place, as leader of a session on a terminal of 24 x 80.
    ///
    /// # Panics
    ///
    /// When no terminal can be had or the command cannot be started.
    #[must_use]
    pub fn start(runner: &Runner, command: &[&str]) -> Self {
        Self::start_line(runner, runner.command_line(command))
    }

    /// Starts a command outside of the runner's place, on a terminal.
    ///
    /// # Panics
    ///
    /// When no terminal can be had or the command cannot be started.
    #[must_use]
    pub fn start_outside(runner: &Runner, command: &[&str]) -> Self {
        Self::start_line(runner, command.iter().map(OsString::from).collect())
    }

    fn start_line(runner: &Runner, words: Vec<OsString>) -> Self {
        let (master, slave) = open_pair();
        // Without --fork: what is started here is itself the leader of the session.
        let mut line: Vec<OsString> = ["setsid", "--ctty"].map(OsString::from).into();
        line.extend(words);
        let mut command = runner.outside(&line);
        // setsid forks when it leads a process group, so it must start in ours, which another pid namespace may hide.
        if nix::unistd::getpgrp().as_raw() == 0 {
            nix::unistd::setpgid(nix::unistd::Pid::this(), nix::unistd::Pid::from_raw(0)).expect("setpgid");
        }
        command.process_group(nix::unistd::getpgrp().as_raw());
        let end = || Stdio::from(slave.try_clone().expect("dup of a terminal"));
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid");
        Self { child, master: Some(master), unread: Vec::new() }
    }

    fn master(&mut self) -> &mut File {
        self.master.as_mut().expect("an open window")
    }

    /// Types bytes.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master().write_all(bytes).expect("write to a terminal");
    }

    /// Waits until the output holds `wanted` and forgets everything up to its end.
    ///
    /// # Panics
    ///
    /// When it does not come.
    pub fn expect(&mut self, wanted: &str) {
        let deadline = Instant::now() + HANG;
        loop {
            if let Some(at) = find(&self.unread, wanted.as_bytes()) {
                self.unread.drain(..at + wanted.len());
                return;
            }
            if !self.read_more(deadline) {
                self.give_up(wanted);
            }
        }
    }

    /// Waits until a program of the terminal's session has stopped.
    ///
    /// # Panics
    ///
    /// Panics if it goes on for ten seconds.
    pub fn wait_stopped(&self, program: &str) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let session = self.child.id().to_string();
        let wanted = format!("({program}) T ");
        let has_stopped = || {
            let stats = std::fs::read_dir("/proc").expect("/proc").flatten();
            stats.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok()).any(|stat| {
                // pid (comm) state ppid pgrp session: proc_pid_stat(5).
                stat.contains(&wanted) && stat.rsplit(')').next().and_then(|s| s.split(' ').nth(4)) == Some(&session)
            })
        };
        while !has_stopped() {
            assert!(std::time::Instant::now() < deadline, "{program} goes on");
            std::thread::yield_now();
        }
    }

    /// Reads what is there, or waits for it; says whether something came.
    fn read_more(&mut self, deadline: Instant) -> bool {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).expect("a short time");
        let master = self.master();
        match poll(&mut [PollFd::new(master, PollFlags::IN)], Some(&left)) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return true,
            Err(e) => panic!("poll of a terminal: {e}"),
        }
        let mut buffer = [0; 4096];
        // The last close of the other end is EIO here, not an end of file.
        let Ok(length @ 1..) = master.read(&mut buffer) else { return false };
        self.unread.extend_from_slice(&buffer[..length]);
        true
    }

    fn give_up(&mut self, wanted: &str) -> ! {
        watch::kill_tree(&self.child);
        let seen = String::from_utf8_lossy(&self.unread);
        panic!("no {wanted:?} on the terminal, but:\n{seen}");
    }

    /// Changes the size of the window, as a terminal emulator does.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        tcsetwinsize(self.master(), window(rows, columns)).expect("TIOCSWINSZ");
    }

    /// Waits for the end of the command.
    ///
    /// # Panics
    ///
    /// When it hangs.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + HANG;
        // Nobody ends on a terminal that nobody reads.
        while self.master.is_some() && self.read_more(deadline) {}
        if !watch::wait_until(&self.child, deadline) {
            self.give_up("end of the command");
        }
        self.child.wait().expect("wait")
    }

    /// Closes the window, and returns the status of the command as a shell reports it.
    ///
    /// # Panics
    ///
    /// When the command goes on all the same.
    #[must_use]
    pub fn hang_up(mut self) -> Option<i32> {
        self.master = None;
        let status = self.wait();
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            watch::kill_tree(&self.child);
            let _ = self.child.wait();
        }
    }
}

/// Opens a terminal: the side of the person and the side of the command. Neither is inherited by
/// accident, or the window could not be closed.
fn open_pair() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("openpt");
    unlockpt(&master).expect("unlockpt");
    let name = ptsname(&master, Vec::new()).expect("ptsname");
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty()).expect("the side of the command");
    tcsetwinsize(&master, window(24, 80)).expect("TIOCSWINSZ");
    (File::from(master), File::from(slave))
}

fn window(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}
