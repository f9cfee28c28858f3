//! A file that is attended to while guests have it open. Knows nothing of what for.

use crate::Result;

/// Who attends to an open file: its content is not all there, or is to be elsewhere when it is closed.
///
/// A guest that has opened one is watched from call to call until that is no longer needed; before a call that reads the
/// file, writes to it or closes it, the attendant is asked, and the kernel does the rest.
pub trait Attendant: Send + Sync + std::fmt::Debug {
    /// Sees to it that the bytes from `start` to before `end` are there, which may lie behind the end of the file.
    fn fill(&self, start: u64, end: u64) -> Result<()>;

    /// Whether these bytes are there already. Does not wait, and may not know.
    fn is_there(&self, start: u64, end: u64) -> bool {
        let _ = (start, end);
        false
    }

    /// Takes what was written to where it belongs: a descriptor that is open for writing is about to be closed. What it
    /// fails with close(2) returns.
    fn closes(&self) -> Result<()> {
        Ok(())
    }

    /// Whether it may have to wait for a guest.
    fn may_wait(&self) -> bool {
        false
    }

    /// Whether it is no longer needed. Does not wait.
    fn is_done(&self) -> bool;
}
