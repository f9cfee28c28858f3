//! What the supervisor tells the front: a pipe of messages of five bytes.

use std::io::Read;
use std::os::fd::OwnedFd;

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The first guest begins; its process id.
    Begun(i32),
    /// It has stopped; by which signal.
    Stopped(i32),
    /// It has ended; as a shell reports it. Others may go on.
    Ended(i32),
    /// The same, and no guest is left: the supervisor and the guard end, too.
    Over(i32),
}

impl Status {
    /// Sends it.
    ///
    /// # Errors
    /// - `EPIPE`: the front has been killed.
    pub fn tell(self, pipe: &OwnedFd) -> rustix::io::Result<()> {
        let (what, value) = match self {
            Self::Begun(pid) => (b'b', pid),
            Self::Stopped(signal) => (b's', signal),
            Self::Ended(status) => (b'e', status),
            Self::Over(status) => (b'o', status),
        };
        let mut message = [what, 0, 0, 0, 0];
        message[1..].copy_from_slice(&value.to_ne_bytes());
        rustix::io::write(pipe, &message).map(drop)
    }

    /// Waits for the next; `None` when the supervisor has ended without one.
    pub fn receive(pipe: &mut std::fs::File) -> Option<Self> {
        let mut message = [0; 5];
        pipe.read_exact(&mut message).ok()?;
        let value = i32::from_ne_bytes([message[1], message[2], message[3], message[4]]);
        Some(match message[0] {
            b'b' => Self::Begun(value),
            b's' => Self::Stopped(value),
            b'o' => Self::Over(value),
            _ => Self::Ended(value),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_received() {
        let (input, output) = rustix::pipe::pipe().unwrap();
        let mut input = std::fs::File::from(input);
        for status in [Status::Begun(7), Status::Stopped(20), Status::Ended(137), Status::Over(3)] {
            status.tell(&output).unwrap();
            assert_eq!(Status::receive(&mut input), Some(status));
        }
        drop(output);
        assert_eq!(Status::receive(&mut input), None);
    }
}
