//! The supervisor as a tool sees it: a request goes out by the virtual system call, a reply or a reason comes back.
//! Knows no tool; what requests mean is the protocol's business.

use nix::errno::Errno;
use umvu_protocol::{decode, encode, Reply, Request, REQUEST_MAX, VERSION};

use crate::report::{Failure, Reason};

/// Largest reply that is awaited, in bytes.
const REPLY_MAX: usize = 256 * 1024;

/// Whoever answers for the caller's view.
pub trait View {
    /// Sends a request.
    ///
    /// # Errors
    /// - [`Failure::OutsideView`]: nobody answers.
    /// - [`Failure::Refused`]: the answer is no.
    /// - [`Failure::Mismatch`]: the answer is not understood.
    fn ask(&self, request: &Request) -> Result<Reply, Failure>;

    /// Sends a request that has nothing to tell but that it is done.
    ///
    /// # Errors
    /// Those of [`View::ask`].
    fn order(&self, request: &Request) -> Result<(), Failure> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }
}

/// Functions answer for a view in the tests of the tools.
impl<F: Fn(&Request) -> Result<Reply, Failure>> View for F {
    fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        self(request)
    }
}

/// The supervisor that the caller runs under.
#[derive(Debug)]
pub struct Supervisor {
    /// Whether it lets views be nested in the caller's.
    pub nesting: bool,
}

impl Supervisor {
    /// Finds the supervisor and agrees with it on the protocol.
    ///
    /// # Errors
    /// - [`Failure::OutsideView`]: there is none.
    /// - [`Failure::Mismatch`]: it is from another version.
    pub fn connect() -> Result<Self, Failure> {
        match exchange(&Request::Hello { version: VERSION })? {
            Reply::Hello { version: VERSION, nesting, .. } => Ok(Self { nesting }),
            Reply::Hello { version, umvu, .. } => {
                Err(Failure::Mismatch(format!("umvu {umvu} speaks protocol {version}, this tool {VERSION}")))
            }
            other => Err(unexpected(&other)),
        }
    }
}

impl View for Supervisor {
    fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        exchange(request)
    }
}

fn exchange(request: &Request) -> Result<Reply, Failure> {
    let bytes = encode(request).map_err(|error| Failure::Failed(format!("request: {error}")))?;
    if bytes.len() > REQUEST_MAX {
        return Err(Failure::Failed(format!(
            "request too long: {} bytes, of which the supervisor takes {REQUEST_MAX}",
            bytes.len()
        )));
    }
    let mut reply = vec![0; REPLY_MAX];
    let length = match umvu_sys::view_call(umvu_table::VU_CALL, &bytes, &mut reply) {
        Ok(length) => length,
        Err(error) => return Err(refusal(Errno::from_raw(error.raw_os_error()))),
    };
    let reply = reply.get(..length).ok_or_else(|| Failure::Mismatch(format!("a reply of {length} bytes")))?;
    match decode(reply).map_err(|error| Failure::Mismatch(error.to_string()))? {
        Reply::Failed { message, errno } if message.is_empty() => {
            Err(Failure::Refused { message: Reason::from(Errno::from_raw(errno)).to_string(), errno })
        }
        Reply::Failed { message, errno } => Err(Failure::Refused { message, errno }),
        done => Ok(done),
    }
}

fn refusal(errno: Errno) -> Failure {
    match errno {
        Errno::ENOSYS => Failure::OutsideView,
        // A supervisor that cannot read the request says so, umvu_protocol.
        Errno::EINVAL => Failure::Mismatch("it cannot read the request".to_owned()),
        other => Failure::of("supervisor of the view", other),
    }
}

/// Makes the failure for a reply that does not belong to the request.
pub fn unexpected(reply: &Reply) -> Failure {
    Failure::Mismatch(format!("unexpected reply {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enosys_means_outside_a_view() {
        assert_eq!(refusal(Errno::ENOSYS).to_string(), "not inside a view: start one with 'umvu'");
    }

    #[test]
    fn an_order_answered_with_something_else_is_a_mismatch() {
        let view = |_: &Request| Ok(Reply::Text(Vec::new()));
        assert!(matches!(view.order(&Request::List), Err(Failure::Mismatch(_))));
    }
}
