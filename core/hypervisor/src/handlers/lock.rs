//! flock. Knows nothing of what directories are made of.

use rustix::fs::{FlockOperation, OFlags};
use umvu_interface::Errno;

use crate::call::{Call, Outcome, Reply, DONE};

/// `flock(fd, operation)`: the kernel's business, unless a placeholder stands for a directory.
pub fn flock(call: &Call) -> Outcome {
    if call.supervisor.placeholders.is_empty() {
        return Ok(Reply::Continue);
    }
    // What else there is the kernel answers before it looks at the descriptor, or does nothing for: fs/locks.c.
    let Some(operation) = operation(call.u32(1)) else { return Ok(Reply::Continue) };
    let fd = call.take_fd(call.i32(0))?;
    let stat = rustix::fs::fstat(&fd)?;
    let Some(open) = call.supervisor.placeholders.find(stat.st_dev, stat.st_ino) else {
        return Ok(Reply::Continue);
    };
    if rustix::fs::fcntl_getfl(&fd)?.contains(OFlags::PATH) {
        return Err(Errno::BADF.into());
    }
    // The guest may close its own while it waits.
    drop(fd);
    let lock = call.supervisor.placeholders.lock_of(&open)?;
    match lock.apply(without_waiting(operation)) {
        Err(Errno::WOULDBLOCK) if without_waiting(operation) != operation => {}
        done => {
            done?;
            return DONE;
        }
    }
    Ok(Reply::Block(Box::new(move |_| {
        lock.apply(operation)?;
        DONE
    })))
}

fn operation(number: u32) -> Option<FlockOperation> {
    const NONBLOCK: u32 = 4;
    Some(match (number & !NONBLOCK, number & NONBLOCK != 0) {
        (1, false) => FlockOperation::LockShared,
        (1, true) => FlockOperation::NonBlockingLockShared,
        (2, false) => FlockOperation::LockExclusive,
        (2, true) => FlockOperation::NonBlockingLockExclusive,
        (8, _) => FlockOperation::Unlock,
        _ => return None,
    })
}

fn without_waiting(operation: FlockOperation) -> FlockOperation {
    match operation {
        FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
        FlockOperation::LockExclusive => FlockOperation::NonBlockingLockExclusive,
        other => other,
    }
}
