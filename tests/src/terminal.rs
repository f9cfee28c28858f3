//! A pseudo-terminal with a command on it, driven as a person would: type, then wait for an answer.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use nix::pty::{openpty, Winsize};

use crate::runner::{Runner, HANG};
use crate::watch;

/// A running command that has a terminal of its own as its controlling terminal.
pub struct Terminal {
    child: Child,
    master: File,
    output: Receiver<Vec<u8>>,
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
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("openpty");
        let mut line: Vec<OsString> = ["setsid", "--ctty", "--wait"].map(OsString::from).into();
        line.extend(runner.command_line(command));
        let mut command = runner.outside(&line);
        let end = || Stdio::from(pty.slave.try_clone().expect("dup of a terminal"));
        // setsid forks when it leads a process group, so it must start in ours.
        std::os::unix::process::CommandExt::process_group(&mut command, nix::unistd::getpgrp().as_raw());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("setsid");
        drop(command);
        drop(pty.slave);
        let master = File::from(pty.master);
        let output = read_all(master.try_clone().expect("dup of a terminal"));
        Self { child, master, output, unread: Vec::new() }
    }

    /// Types bytes.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("write to a terminal");
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
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.unread.extend(bytes),
                Err(why) => self.give_up(wanted, why),
            }
        }
    }

    fn give_up(&mut self, wanted: &str, why: RecvTimeoutError) -> ! {
        watch::kill_tree(&self.child);
        let seen = String::from_utf8_lossy(&self.unread);
        panic!("no {wanted:?} on the terminal ({why}), but:\n{seen}");
    }

    /// Changes the size of the window, as a terminal emulator does.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).expect("TIOCSWINSZ");
    }

    /// Waits for the end of the command.
    ///
    /// # Panics
    ///
    /// When it hangs.
    pub fn wait(&mut self) -> ExitStatus {
        if !watch::wait_until(&self.child, Instant::now() + HANG) {
            self.give_up("end of the command", RecvTimeoutError::Timeout);
        }
        self.child.wait().expect("wait")
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

fn read_all(mut master: File) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The last close of the other end is EIO here, not an end of file.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}
