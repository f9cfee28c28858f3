//! The thread that takes what a server sends, and sends what had to wait. Judges messages as `fuse_dev_do_write` of
//! `fs/fuse/dev.c` does; knows nothing of what they mean.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{sync_channel, SyncSender, TrySendError};
use std::sync::Arc;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::net::{recvmsg, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use umvu_interface::{Errno, Result};

use super::{Connection, Negotiated, Phase, Slot, INTERRUPT_BIT};
use crate::abi::{OutHeader, Wire};

/// Room for the largest packet that the other end can send.
const PACKET_MAX: usize = 1 << 20;
/// Notifications that may wait to be heeded.
const NOTIFICATIONS_MAX: usize = 4096;

/// What a server says unasked: a code and what belongs to it.
pub struct Notification {
    /// `enum fuse_notify_code`.
    pub code: i32,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// Whether the other end is closed.
pub fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut asked = [PollFd::new(&socket, PollFlags::RDHUP)];
    poll(&mut asked, Some(&rustix::time::Timespec::default())).is_ok()
        && asked[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
}

/// Starts the thread.
pub fn start(connection: &Arc<Connection>, notified: impl Fn(Notification) + Send + 'static) -> Result<()> {
    let connection = connection.clone();
    let receive = move || {
        let mut receiver = Receiver { connection: &connection, notified: Some(notified), notifications: None };
        receiver.run();
        connection.over();
    };
    let thread = std::thread::Builder::new().name("fuse".into()).stack_size(128 << 10);
    thread.spawn(receive).map(drop).map_err(|_| Errno::AGAIN)
}

/// A packet, of which `kept` bytes had room.
struct Received {
    kept: usize,
    whole: usize,
    /// The process that has sent it.
    sender: Option<u32>,
}

fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::TRUNC | RecvFlags::CMSG_CLOEXEC;
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    let (whole, kept) = (message.bytes, message.bytes.min(buffer.len()));
    // Descriptors that come along are closed.
    let sender = control.drain().find_map(|said| match said {
        RecvAncillaryMessage::ScmCredentials(who) => u32::try_from(who.pid.as_raw_nonzero().get()).ok(),
        _ => None,
    });
    Ok(Received { kept, whole, sender })
}

struct Receiver<'a, F> {
    connection: &'a Connection,
    notified: Option<F>,
    notifications: Option<SyncSender<Notification>>,
}

impl<F: Fn(Notification) + Send + 'static> Receiver<'_, F> {
    /// Until one side is gone.
    fn run(&mut self) {
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            let connection = self.connection;
            let wanted = if connection.has_queued() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            let mut asked = [PollFd::new(&connection.socket, wanted), PollFd::new(&connection.wake, PollFlags::IN)];
            match poll(&mut asked, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return tracing::error!(%errno, "a FUSE server is no longer heard"),
            }
            let (socket, wake) = (asked[0].revents(), asked[1].revents());
            if wake.contains(PollFlags::IN) {
                // It only wakes.
                let _ = rustix::io::read(&connection.wake, &mut [0; 8]);
            }
            if socket.contains(PollFlags::OUT) || (wake.contains(PollFlags::IN) && connection.has_queued()) {
                connection.send_queued();
            }
            if !socket.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                continue;
            }
            match receive(connection.socket.as_fd(), &mut buffer) {
                // A packet without bytes looks like the end.
                Ok(Received { whole: 0, .. }) if is_hung_up(connection.socket.as_fd()) => return,
                Ok(Received { kept, whole, sender }) => {
                    if let Some(sender) = sender {
                        connection.served_by(sender);
                    }
                    self.take(buffer.get(..kept).unwrap_or_default(), whole);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return tracing::debug!(%errno, "a FUSE server is gone"),
            }
        }
    }

    /// Takes one packet, of which `packet` was kept.
    fn take(&mut self, packet: &[u8], whole: usize) {
        let mut rest = packet;
        let Some(header) = OutHeader::take(&mut rest) else {
            return tracing::debug!(whole, "a FUSE server says nothing");
        };
        let is_whole = packet.len() == whole && usize::try_from(header.len) == Ok(whole);
        if header.unique == 0 {
            if is_whole {
                self.notice(Notification { code: header.error, body: rest.to_vec() });
            }
            return;
        }
        if header.unique & INTERRUPT_BIT != 0 {
            if header.error == -Errno::NOSYS.raw_os_error() {
                self.connection.no_interrupts.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            return;
        }
        let reply = judged(is_whole, header.error, rest);
        match self.connection.taken(header.unique) {
            Taken::Asked(slot) => slot.fill(reply),
            Taken::Init => self.connection.settle(reply),
            // What was told, or what nobody waits for: ENOENT in the kernel.
            Taken::Unknown => {}
        }
    }

    /// Has a notification heeded on a thread of its own: heeding may need answers, which are taken here.
    fn notice(&mut self, notification: Notification) {
        if let Some(notified) = self.notified.take() {
            let (sender, receiver) = sync_channel(NOTIFICATIONS_MAX);
            let heed = move || receiver.into_iter().for_each(notified);
            match std::thread::Builder::new().name("fuse notices".into()).stack_size(256 << 10).spawn(heed) {
                Ok(_) => self.notifications = Some(sender),
                Err(error) => tracing::warn!(%error, "notifications of a FUSE server are not heeded"),
            }
        }
        let Some(sender) = &self.notifications else { return };
        if let Err(TrySendError::Full(_)) = sender.try_send(notification) {
            tracing::warn!("a FUSE server sends more notifications than can be heeded");
        }
    }
}

/// What the asker gets.
fn judged(is_whole: bool, error: i32, body: &[u8]) -> Result<Vec<u8>> {
    if !is_whole {
        return Err(Errno::IO);
    }
    match error {
        0 => Ok(body.to_vec()),
        -511..=-1 if body.is_empty() => Err(Errno::from_raw_os_error(-error)),
        _ => Err(Errno::IO),
    }
}

enum Taken {
    Asked(Arc<Slot>),
    Init,
    Unknown,
}

impl Connection {
    /// Takes note of a process that serves it.
    fn served_by(&self, process: u32) {
        /// A server is one process; more than these are not known.
        const MOST: usize = 8;
        let mut servers = self.servers.lock();
        if !servers.contains(&process) && servers.len() < MOST {
            servers.push(process);
        }
    }

    fn taken(&self, unique: u64) -> Taken {
        let mut state = self.state.lock();
        if state.phase == Phase::Begun(unique) {
            return Taken::Init;
        }
        if state.owed.remove(&unique) {
            self.ready.notify_all();
        }
        state.waiting.remove(&unique).map_or(Taken::Unknown, Taken::Asked)
    }

    /// The answer to `INIT` has come.
    fn settle(&self, reply: Result<Vec<u8>>) {
        let settled = reply.and_then(|body| Negotiated::of(&body));
        let phase = match settled {
            Ok(negotiated) => {
                tracing::debug!(?negotiated, "a FUSE server is ready");
                let _ = self.negotiated.set(negotiated);
                Phase::Ready
            }
            Err(_) => Phase::Refused,
        };
        self.state.lock().phase = phase;
        self.ready.notify_all();
    }
}
