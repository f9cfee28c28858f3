//! Waiting for the supervisor's children beside those of its threads that trace some of them. Knows nothing of what
//! their ends mean.

use nix::sys::wait::{waitid, Id, WaitPidFlag, WaitStatus};
use umvu_sys::process::{peek_child, ChildChange};

use crate::supervisor::Supervisor;

/// Takes what has happened with a child. A stop of one that another thread of ours traces is left to that thread: the
/// kernel shows it to both.
pub fn next(supervisor: &Supervisor) -> nix::Result<WaitStatus> {
    loop {
        {
            // Nobody begins to trace the child between the look and the wait.
            let _nobody_begins = supervisor.tracing.write();
            let found = peek_child().map_err(|errno| nix::errno::Errno::from_raw(errno.raw_os_error()))?;
            match found {
                None => return Ok(WaitStatus::StillAlive),
                Some((pid, ChildChange::Ended | ChildChange::Stopped)) => {
                    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX));
                    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
                    return waitid(Id::Pid(pid), flags | WaitPidFlag::__WNOTHREAD);
                }
                Some((_, ChildChange::Traced)) => {}
            }
        }
        // It hides what others may have to tell, until it is taken.
        std::thread::sleep(std::time::Duration::from_micros(50));
    }
}
