//! Trace lines: one per notified call, as strace prints them, with tier and decision. Knows no particular call.

use std::io::Write;
use std::path::PathBuf;

use parking_lot::Mutex;
use umvu_table::i386::{self, Abi};

use crate::call::{Call, Fail, Outcome, Reply};
use crate::StartError;

/// Where trace lines go.
#[derive(Clone, Debug)]
pub enum TraceTarget {
    /// To the standard error of `umvu`.
    Stderr,
    /// To a file, which is created or emptied.
    File(PathBuf),
}

/// Debug tags: letter and what it shows.
pub const TAGS: &[(u8, &str)] = &[(b's', "notified system calls, in the log")];

/// Finds a letter that is no tag.
pub fn unknown_tag(letters: &[u8]) -> Option<u8> {
    letters.iter().copied().find(|letter| !TAGS.iter().any(|tag| tag.0 == *letter))
}

/// An open trace.
pub struct Trace {
    out: Mutex<Box<dyn Write + Send>>,
}

impl Trace {
    /// Opens a trace.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn open(target: &TraceTarget) -> Result<Self, StartError> {
        let out: Box<dyn Write + Send> = match target {
            TraceTarget::Stderr => Box::new(std::io::stderr()),
            TraceTarget::File(path) => match std::fs::File::create(path) {
                Ok(file) => Box::new(file),
                Err(error) => {
                    let why = rustix::io::Errno::from_io_error(&error).map_or(error.to_string(), umvu_interface::cause);
                    return Err(StartError::Message(format!("{}: {why}", path.display())));
                }
            },
        };
        Ok(Self { out: Mutex::new(out) })
    }

    /// Writes the line of a call.
    pub fn line(&self, call: &Call, outcome: &Outcome) {
        let line = format!("{} {}\n", call.tid(), describe(call, outcome));
        if let Err(error) = self.out.lock().write_all(line.as_bytes()) {
            tracing::debug!(%error, "trace line lost");
        }
    }
}

/// A call and its outcome as one line.
pub fn describe(call: &Call, outcome: &Outcome) -> String {
    let tid = call.tid();
    let read = |address: u64, buffer: &mut [u8]| umvu_sys::guest::read_memory(tid, address, buffer).ok();
    let (result, decision) = match outcome {
        Ok(Reply::Value(value)) => (Some(*value), "answered"),
        Ok(Reply::Descriptor(..)) => (None, "descriptor"),
        Ok(Reply::Continue) => (None, "native"),
        Ok(Reply::Block(_) | Reply::Aside(_)) => (None, "may block"),
        Ok(Reply::Answered) => (None, "redirected"),
        Err(Fail::Errno(errno)) => (Some(-i64::from(errno.raw_os_error())), "answered"),
        Err(Fail::Interrupted) => (Some(-512), "interrupted"),
        Err(Fail::Gone) => (None, "gone"),
    };
    let row = call.request.number().and_then(umvu_table::row);
    let arguments = &call.request.arguments;
    let number = u32::from_ne_bytes(call.notification.nr.to_ne_bytes());
    let text = match (call.request.abi, row) {
        (Abi::X86_64, Some(row)) => umvu_table::trace::call(row, arguments, &read, result),
        (Abi::X86_64, None) => umvu_table::trace::unknown(number, arguments),
        (abi, row) => match (i386::row(number), row) {
            (Some(own), Some(row)) => umvu_table::trace::call_of_i386(own.name, abi, row, arguments, &read, result),
            _ => format!("i386:{}", umvu_table::trace::unknown(number, arguments)),
        },
    };
    match (result, row) {
        (Some(value), Some(row)) => format!("{text} = {} <{decision}>", umvu_table::trace::result(row, value)),
        _ => format!("{text} <{decision}>"),
    }
}
