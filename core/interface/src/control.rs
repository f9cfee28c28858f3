//! Files that are a text when they are read and a command when they are written, as those of `/proc/sys` are. Knows
//! nothing of how a write gets to its file system.

use std::sync::Arc;

use crate::{Caller, Result, World};

/// What a file system opens such a file to.
#[derive(Debug)]
pub struct TextFile {
    /// What is read from the descriptor, whatever is written later.
    pub content: Vec<u8>,
    /// Who takes what is written to it; `None` where it was opened for reading.
    pub control: Option<Arc<dyn Control>>,
}

/// Takes what is written to an open file.
///
/// A guest that has opened a file for writing is watched from call to call for as long as it, or a child, has the
/// descriptor, and each of its writes is answered with what comes of [`Control::write`]. A write that cannot be seen
/// (the descriptor was sent to a process that is not watched, or its writer is traced by a debugger) fails with
/// `EPERM` and does nothing.
pub trait Control: Send + Sync + std::fmt::Debug {
    /// Takes the bytes of one write(2), of which at most [`CONTROL_MAX`] are given. The position in the file means
    /// nothing. Gives the number of bytes taken.
    ///
    /// # Errors
    /// What write(2) is to return.
    fn write(&self, caller: &Caller<'_>, bytes: &[u8], world: &dyn World) -> Result<usize>;
}

/// The most bytes of one write that a [`Control`] sees.
pub const CONTROL_MAX: usize = 64 << 10;
