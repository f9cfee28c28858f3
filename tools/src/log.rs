//! The log of umvu: lines on standard error, and in the system's log where that is asked for. Knows levels and
//! where lines go, nothing of what they say.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::Layer;

use crate::report::Failure;

/// Where the system's log listens, syslog(3).
const SYSLOG: &str = "/dev/log";

/// Facility `LOG_USER`, syslog(3).
const FACILITY: u8 = 1 << 3;

/// How much is logged: a word, or a number of syslog(3) from 0, emergency, to 7, debug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(LevelFilter);

impl Default for Amount {
    fn default() -> Self {
        Self(LevelFilter::WARN)
    }
}

impl FromStr for Amount {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Nothing that umvu logs is worse than an error, so 0 to 2 show nothing.
        Ok(Self(match text {
            "0" | "1" | "2" | "off" => LevelFilter::OFF,
            "3" | "error" => LevelFilter::ERROR,
            "4" | "warn" => LevelFilter::WARN,
            "5" | "6" | "info" => LevelFilter::INFO,
            "7" | "debug" => LevelFilter::DEBUG,
            "trace" => LevelFilter::TRACE,
            _ => return Err("not 0 to 7, off, error, warn, info, debug or trace"),
        }))
    }
}

/// Starts the log of this process and of those it forks.
///
/// # Errors
/// There is no system log to write to; a log was started before.
pub fn start(console: Amount, syslog: Option<Amount>) -> Result<(), Failure> {
    let syslog = syslog.map(Syslog::open_for).transpose()?;
    let plain = || fmt::format().without_time().with_ansi(false).with_target(false).with_level(false);
    let to_console = fmt::layer().event_format(plain()).with_writer(Console).with_filter(console.0);
    let to_syslog =
        syslog.map(|(log, amount)| fmt::layer().event_format(plain()).with_writer(log).with_filter(amount.0));
    let started = tracing_subscriber::registry().with(to_console).with(to_syslog).try_init();
    started.map_err(|error| Failure::Failed(format!("log: {error}")))
}

/// Standard error. Each line is one write, so that lines of several threads do not mix.
struct Console;

impl<'a> MakeWriter<'a> for Console {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line { level: *metadata.level() }
    }
}

struct Line {
    level: Level,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stderr().write_all(&console_line(self.level, line)).map(|()| line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a line that says whose it is.
fn console_line(level: Level, line: &[u8]) -> Vec<u8> {
    let head: &[u8] = match level {
        Level::ERROR | Level::INFO => b"umvu: ",
        Level::WARN => b"umvu: warning: ",
        _ => b"umvu: debug: ",
    };
    [head, line.trim_ascii(), b"\n"].concat()
}

/// The system's log.
struct Syslog {
    socket: UnixDatagram,
}

impl Syslog {
    fn open_for(amount: Amount) -> Result<(Self, Amount), Failure> {
        let socket = UnixDatagram::unbound().and_then(|socket| {
            socket.connect(SYSLOG)?;
            // A log that nobody reads must not stop the view.
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        socket.map(|socket| (Self { socket }, amount)).map_err(|error| Failure::of(SYSLOG, &error))
    }
}

impl<'a> MakeWriter<'a> for Syslog {
    type Writer = Message<'a>;

    fn make_writer(&'a self) -> Message<'a> {
        Message { socket: &self.socket, level: Level::INFO }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Message<'a> {
        Message { socket: &self.socket, level: *metadata.level() }
    }
}

struct Message<'a> {
    socket: &'a UnixDatagram,
    level: Level,
}

impl Write for Message<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Lost where the log is full or gone; there is nowhere to say so.
        let _ = self.socket.send(&datagram(self.level, line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes what syslogd reads: priority, program, process, text.
fn datagram(level: Level, line: &[u8]) -> Vec<u8> {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let head = format!("<{}>umvu[{}]: ", FACILITY | severity, std::process::id());
    [head.as_bytes(), line.trim_ascii()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_syslog_and_words_mean_the_same() {
        assert_eq!("4".parse::<Amount>(), Ok(Amount::default()));
        assert_eq!("7".parse::<Amount>(), "debug".parse::<Amount>());
        assert!("8".parse::<Amount>().is_err());
    }

    #[test]
    fn a_line_says_whose_it_is() {
        assert_eq!(console_line(Level::WARN, b" hello\n"), b"umvu: warning: hello\n");
    }

    #[test]
    fn a_syslog_line_has_priority_and_process() {
        let expected = format!("<12>umvu[{}]: hello", std::process::id());
        assert_eq!(datagram(Level::WARN, b" hello\n"), expected.as_bytes());
    }
}
