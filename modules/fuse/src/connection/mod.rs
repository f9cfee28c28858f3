//! The conversation with a server: one end of a socket, the requests that wait for a reply, and the thread that takes
//! the replies. Knows no file system.
//!
//! The server has the other end in place of a descriptor of `/dev/fuse`: each message is one packet. What cannot be sent
//! at once is queued, so who only tells something never waits; who asks waits for the reply, or for the server's end.
//! `fs/fuse/dev.c` is what it follows.
//!
//! Lock order: `state`, then a slot.

mod end;
mod init;
mod receive;
mod send;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::event::{eventfd, EventfdFlags};
use rustix::net::sockopt::{set_socket_passcred, set_socket_recv_buffer_size, set_socket_send_buffer_size};
use rustix::net::{socketpair, AddressFamily, SocketFlags, SocketType};
use umvu_interface::{Caller, Errno, Result};

use crate::abi::{ForgetOne, InHeader, InterruptIn, Opcode, Wire};

pub use end::End;
pub use init::Negotiated;
pub use receive::Notification;

/// The most that one message carries beside its headers.
pub const PAYLOAD_MAX: usize = 128 << 10;
/// Room for the largest message.
const MESSAGE_MAX: usize = PAYLOAD_MAX + 4096;
/// How long an asker waits before it looks for signals.
const LOOK: Duration = Duration::from_millis(50);
/// The bit of a unique number that tells an interrupt from what it interrupts: `FUSE_INT_REQ_BIT`.
const INTERRUPT_BIT: u64 = 1;

/// On whose behalf something is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Thread id on the host; 0 for nobody.
    pub tid: u32,
}

impl Asker {
    /// A process as a server is told of it.
    pub fn of(who: &Caller<'_>) -> Self {
        Self { uid: who.credentials.uid.fs, gid: who.credentials.gid.fs, tid: who.tid }
    }
}

/// A conversation.
pub struct Connection {
    socket: OwnedFd,
    /// Device and inode of the server's end.
    theirs: (u64, u64),
    /// Tells the thread that there is something to send.
    wake: OwnedFd,
    state: Mutex<State>,
    /// The first reply has come, or the end.
    ready: Condvar,
    negotiated: OnceLock<Negotiated>,
    missing: Mutex<HashSet<Opcode>>,
    /// Processes that have sent something.
    servers: Mutex<Vec<u32>>,
    no_interrupts: AtomicBool,
}

struct State {
    phase: Phase,
    next: u64,
    waiting: HashMap<u64, Arc<Slot>>,
    queue: VecDeque<Vec<u8>>,
    forgets: Vec<ForgetOne>,
    /// Whether nothing need be forgotten any more.
    forgets_all: bool,
    /// What was told and has not been answered.
    owed: HashSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has mounted it.
    Fresh,
    /// `INIT` has been sent, with this unique number.
    Begun(u64),
    /// It has been answered.
    Ready,
    /// It has been answered with something that is of no use: `ECONNREFUSED` for all.
    Refused,
    /// One side has gone: `ENOTCONN` for all.
    Over,
}

/// Where a reply goes.
#[derive(Default)]
struct Slot {
    reply: Mutex<Option<Result<Vec<u8>>>>,
    answered: Condvar,
}

impl Slot {
    fn fill(&self, reply: Result<Vec<u8>>) {
        *self.reply.lock() = Some(reply);
        self.answered.notify_all();
    }
}

impl Connection {
    /// Makes a connection, and the descriptor for the server.
    ///
    /// # Errors
    /// - `EMFILE`, `ENFILE`, `ENOBUFS`: the host's.
    pub fn open(flags: SocketFlags) -> Result<(Arc<Self>, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | flags, None)?;
        for end in [&ours, &theirs] {
            set_socket_send_buffer_size(end, 2 * MESSAGE_MAX)?;
            set_socket_recv_buffer_size(end, 2 * MESSAGE_MAX)?;
        }
        set_socket_passcred(&ours, true)?;
        let stat = rustix::fs::fstat(&theirs)?;
        let state = State {
            phase: Phase::Fresh,
            next: 2,
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            forgets: Vec::new(),
            forgets_all: false,
            owed: HashSet::new(),
        };
        let connection = Self {
            socket: ours,
            theirs: (stat.st_dev, stat.st_ino),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            state: Mutex::new(state),
            ready: Condvar::new(),
            negotiated: OnceLock::new(),
            missing: Mutex::default(),
            servers: Mutex::default(),
            no_interrupts: AtomicBool::new(false),
        };
        Ok((Arc::new(connection), theirs))
    }

    /// Device and inode of the server's end, as fstat(2) tells them.
    pub fn theirs(&self) -> (u64, u64) {
        self.theirs
    }

    /// Whether the server has closed its end.
    pub fn is_closed(&self) -> bool {
        receive::is_hung_up(self.socket.as_fd())
    }

    /// Begins the conversation: `INIT` is sent, and answered whenever the server likes.
    ///
    /// # Errors
    /// - `EINVAL`: it has begun.
    /// - `EAGAIN`: no thread can be made.
    pub fn begin(self: &Arc<Self>, notified: impl Fn(Notification) + Send + 'static) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Fresh {
            return Err(Errno::INVAL);
        }
        let unique = state.unique();
        state.phase = Phase::Begun(unique);
        let request = init::request(unique);
        self.transmit(&mut state, request);
        drop(state);
        receive::start(self, notified)
    }

    /// Asks, and waits for the answer; gives what follows its header.
    ///
    /// # Errors
    /// - `ENOTCONN`: one side has gone.
    /// - `ECONNREFUSED`: the server speaks another language.
    /// - `ECONNABORTED`: one side has gone before the answer came.
    /// - `EIO`: the answer made no sense.
    /// - the server's.
    pub fn ask(&self, asker: &Asker, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Result<Vec<u8>> {
        let slot = Arc::new(Slot::default());
        let unique = {
            let mut state = self.state.lock();
            while matches!(state.phase, Phase::Begun(_) | Phase::Fresh) {
                self.ready.wait(&mut state);
            }
            state.phase.check()?;
            let unique = state.unique();
            state.waiting.insert(unique, slot.clone());
            self.transmit(&mut state, message(asker, opcode, unique, node, parts)?);
            unique
        };
        self.wait(&slot, unique, asker)
    }

    /// Asks what not every server understands.
    ///
    /// # Errors
    /// - `ENOSYS`: it does not, now or ever.
    /// - those of [`Connection::ask`]
    pub fn ask_if_known(&self, asker: &Asker, opcode: Opcode, node: u64, parts: &[&[u8]]) -> Result<Vec<u8>> {
        if self.lacks(opcode) {
            return Err(Errno::NOSYS);
        }
        let answer = self.ask(asker, opcode, node, parts);
        if matches!(answer, Err(Errno::NOSYS)) {
            self.missing.lock().insert(opcode);
        }
        answer
    }

    /// Whether the server has said that it does not know a request.
    pub fn lacks(&self, opcode: Opcode) -> bool {
        self.missing.lock().contains(&opcode)
    }

    /// Sends a request whose answer is of no interest.
    pub fn tell(&self, asker: &Asker, opcode: Opcode, node: u64, parts: &[&[u8]]) {
        let mut state = self.state.lock();
        if state.phase.check().is_err() {
            return;
        }
        let unique = state.unique();
        if let Ok(message) = message(asker, opcode, unique, node, parts) {
            state.owed.insert(unique);
            self.transmit(&mut state, message);
        }
    }

    /// From now on nothing need be forgotten.
    pub fn forgets_all(&self) {
        self.state.lock().forgets_all = true;
    }

    /// Answers a notification that wants an answer, which has a number of its own.
    pub fn answer(&self, asker: &Asker, opcode: Opcode, unique: u64, node: u64, parts: &[&[u8]]) {
        let mut state = self.state.lock();
        if let (Ok(()), Ok(message)) = (state.phase.check(), message(asker, opcode, unique, node, parts)) {
            self.transmit(&mut state, message);
        }
    }

    /// Says that `lookups` of an object are not needed any more.
    pub fn forget(&self, node: u64, lookups: u64) {
        let mut state = self.state.lock();
        if state.phase.check().is_err() || state.forgets_all || node == umvu_driver::ROOT || lookups == 0 {
            return;
        }
        state.forgets.push(ForgetOne { nodeid: node, nlookup: lookups });
        // While others wait to be sent, these are collected.
        if state.queue.is_empty() {
            self.send_forgets(&mut state);
        }
    }

    /// What was negotiated, when it was.
    ///
    /// # Errors
    /// Those of [`Connection::ask`] that concern all.
    pub fn negotiated(&self) -> Result<&Negotiated> {
        let mut state = self.state.lock();
        while matches!(state.phase, Phase::Begun(_) | Phase::Fresh) {
            self.ready.wait(&mut state);
        }
        state.phase.check()?;
        self.negotiated.get().ok_or(Errno::IO)
    }

    /// Whether one of these processes serves it, or has done so.
    pub fn is_served_by(&self, processes: &[u32]) -> bool {
        self.servers.lock().iter().any(|server| processes.contains(server))
    }

    /// Whether both sides can talk.
    pub fn is_ready(&self) -> bool {
        self.state.lock().phase == Phase::Ready
    }

    /// Whether nobody has mounted it.
    pub fn is_fresh(&self) -> bool {
        self.state.lock().phase == Phase::Fresh
    }

    /// Whether one side has gone.
    pub fn is_over(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Over | Phase::Refused)
    }

    /// Waits for an answer: `request_wait_answer`. A signal is told to the server, which owes an answer all the same.
    fn wait(&self, slot: &Slot, unique: u64, asker: &Asker) -> Result<Vec<u8>> {
        let mut is_watched = asker.tid != 0;
        let mut reply = slot.reply.lock();
        loop {
            if let Some(reply) = reply.take() {
                return reply;
            }
            if !is_watched || self.no_interrupts.load(Ordering::Relaxed) {
                slot.answered.wait(&mut reply);
            } else if slot.answered.wait_for(&mut reply, LOOK).timed_out() && umvu_interface::has_signal(asker.tid) {
                is_watched = false;
                drop(reply);
                self.interrupt(unique);
                reply = slot.reply.lock();
            }
        }
    }

    fn interrupt(&self, unique: u64) {
        let mut state = self.state.lock();
        if state.phase.check().is_err() || !state.waiting.contains_key(&unique) {
            return;
        }
        let body = InterruptIn { unique }.bytes();
        let number = unique | INTERRUPT_BIT;
        if let Ok(message) = message(&Asker::default(), Opcode::Interrupt, number, 0, &[&body]) {
            self.transmit(&mut state, message);
        }
    }
}

impl State {
    /// A number for a request: even, `FUSE_REQ_ID_STEP`.
    fn unique(&mut self) -> u64 {
        self.next = self.next.wrapping_add(2).max(2);
        self.next
    }
}

impl Phase {
    fn check(self) -> Result<()> {
        match self {
            Self::Ready => Ok(()),
            Self::Refused => Err(Errno::CONNREFUSED),
            Self::Fresh | Self::Begun(_) | Self::Over => Err(Errno::NOTCONN),
        }
    }
}

/// A request as it is sent.
///
/// # Errors
/// - `E2BIG`: it is too long.
fn message(asker: &Asker, opcode: Opcode, unique: u64, node: u64, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let size = InHeader::SIZE + parts.iter().map(|part| part.len()).sum::<usize>();
    if size > MESSAGE_MAX {
        return Err(Errno::TOOBIG);
    }
    let mut out = Vec::with_capacity(size);
    let header = InHeader {
        len: u32::try_from(size).map_err(|_| Errno::TOOBIG)?,
        opcode: opcode.number(),
        unique,
        nodeid: node,
        uid: asker.uid,
        gid: asker.gid,
        pid: asker.tid,
        ..InHeader::default()
    };
    header.put(&mut out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Ok(out)
}
