//! The end of what descriptors of guests stand for. Knows no device, and nothing of how a guest is told.

use crate::Errno;

/// Has guests told that what they have a descriptor of is gone.
pub trait Parting: Send + Sync {
    /// Has these processes' reads through descriptors of the file with these `stat` numbers, those that wait and those
    /// that are to come, fail with `errno` where the kernel would tell of the end. `cut` makes that end, and is called
    /// before this returns. A process that somebody else traces may see the end itself.
    fn part(&self, processes: &[u32], file: (u64, u64), errno: Errno, cut: &mut dyn FnMut());
}

/// Tells nobody: guests see the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsaid;

impl Parting for Unsaid {
    fn part(&self, _: &[u32], _: (u64, u64), _: Errno, cut: &mut dyn FnMut()) {
        cut();
    }
}
