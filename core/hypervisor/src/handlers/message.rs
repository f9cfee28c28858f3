//! Messages to addresses: sendto, sendmsg, sendmmsg. Those to sockets that have paths in the view, or ports with other
//! numbers, are sent by the guest itself, with an address that leads there; all others are the kernel's.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SendFlags, SocketAddrUnix, SocketType};
use umvu_interface::{Errno, Result};
use umvu_table::i386::Abi;

use crate::call::{Call, Fail, Outcome, Reply};
use crate::escort::escorted;
use crate::guest;
use crate::handlers::peer;
use crate::handlers::port::{self, Mapped, Use};
use crate::handlers::socket::{address_of, is_kernels, path_at, target, unix_socket};
use crate::redirect::{word_at, Argument, Instead};

const SENDTO: u32 = 44;
const SENDMSG: u32 = 46;
const SENDMMSG: u32 = 307;

/// Where the parts of a message's header are; its address stands first.
struct Header {
    /// `sizeof(struct msghdr)`.
    size: usize,
    name_length: usize,
    vector: usize,
    vector_length: usize,
    control: usize,
    control_length: usize,
    /// `sizeof(struct mmsghdr)`, and where in it is the count of bytes sent.
    entry: usize,
    sent: usize,
}

/// `struct user_msghdr` of linux/socket.h.
const HEADER: Header = Header {
    size: 56,
    name_length: 8,
    vector: 16,
    vector_length: 24,
    control: 32,
    control_length: 40,
    entry: 64,
    sent: 56,
};
/// `struct compat_msghdr` of net/compat.h.
const SHORT_HEADER: Header = Header {
    size: 28,
    name_length: 4,
    vector: 8,
    vector_length: 12,
    control: 16,
    control_length: 20,
    entry: 32,
    sent: 28,
};

impl Header {
    fn of(abi: Abi) -> &'static Header {
        match abi {
            Abi::X86_64 => &HEADER,
            Abi::I386(_) => &SHORT_HEADER,
        }
    }
}

/// So many messages of one call are taken, which is told to the guest as the kernel tells a full queue.
const MESSAGES: u32 = 16;
/// `UIO_MAXIOV`.
const PIECES: usize = 1024;
/// More than any datagram can have.
const LARGEST: usize = 64 << 20;

/// `sendto(fd, buffer, length, flags, address, address_length)`.
pub fn sendto(call: &Call) -> Outcome {
    let instead = |address: Vec<u8>, length| {
        let mut arguments: Vec<Argument> = (0..4).map(|index| Argument::Word(call.raw(index))).collect();
        arguments.extend([Argument::Bytes(address, Vec::new()), Argument::Word(length)]);
        Instead { nr: SENDTO, arguments }
    };
    let pieces = [(call.raw(1), call.raw(2))];
    if let Some(mapped) = port::mapped(call, call.raw(4), call.i32(5), Use::Reach) {
        let to = To::Port(mapped.address);
        return escorted(instead(mapped.bytes, call.raw(5)), to, move |call, to| {
            send_for(call, to, &pieces, call.u32(3))
        });
    }
    let Some(given) = path_at(call, call.raw(4), call.i32(5)) else { return Ok(Reply::Continue) };
    let Some(names) = target_of_message(call, &given)? else { return Ok(Reply::Continue) };
    call.check_alive()?;
    let (address, length) = address_of(&names);
    escorted(instead(address, length), To::Path(names), move |call, to| send_for(call, to, &pieces, call.u32(3)))
}

/// `sendmsg(fd, message, flags)`.
pub fn sendmsg(call: &Call) -> Outcome {
    if is_kernels(call) {
        return Ok(Reply::Continue);
    }
    // The kernel says what is wrong with memory that cannot be read.
    let mut header = vec![0; Header::of(call.request.abi).size];
    if guest::read_exact(call.tid(), call.raw(1), &mut header).is_err() {
        return Ok(Reply::Continue);
    }
    let found = match port_in(call, &header) {
        Some(mapped) => Some((mapped.bytes, To::Port(mapped.address))),
        None => match path_in(call, &header) {
            Some(given) => target_of_message(call, &given)?.map(|names| {
                let (address, length) = address_of(&names);
                put_length(call, &mut header, length);
                (address, To::Path(names))
            }),
            None => None,
        },
    };
    let layout = Header::of(call.request.abi);
    let control = match word(call, &header, layout.control_length) {
        0 => None,
        _ if unix_socket(call).is_none() => None,
        size => peer::control_for_host(call, word(call, &header, layout.control), size)?,
    };
    if found.is_none() && control.is_none() {
        return Ok(Reply::Continue);
    }
    call.check_alive()?;
    let (mut pointers, mut to) = (Vec::new(), None);
    if let Some((address, place)) = found {
        pointers.push((0, address));
        to = Some(place);
    }
    pointers.extend(control.map(|control| (layout.control, control)));
    let flags = call.u32(2);
    let arguments =
        vec![Argument::Word(call.raw(0)), Argument::Bytes(header.clone(), pointers), Argument::Word(flags.into())];
    escorted(Instead { nr: SENDMSG, arguments }, to, move |call, to| match to {
        Some(to) if word(call, &header, layout.control_length) == 0 => {
            send_for(call, to, &pieces_of(call, &header)?, flags)
        }
        _ => Err(Errno::PERM.into()),
    })
}

/// `sendmmsg(fd, messages, count, flags)`.
pub fn sendmmsg(call: &Call) -> Outcome {
    if is_kernels(call) {
        return Ok(Reply::Continue);
    }
    let count = usize::try_from(call.u32(2).min(MESSAGES)).unwrap_or(0);
    let size = Header::of(call.request.abi).entry;
    let Ok(mut entries) = guest::read_some(call.tid(), call.raw(1), count * size) else {
        return Ok(Reply::Continue);
    };
    entries.truncate(entries.len() / size * size);
    let mapped: Vec<Option<Mapped>> = entries.chunks_exact(size).map(|entry| port_in(call, entry)).collect();
    if mapped.iter().any(Option::is_some) {
        call.check_alive()?;
        put_sent(call, &entries)?;
        let pointer = |(number, mapped): (usize, Option<Mapped>)| Some((number * size, mapped?.bytes));
        let pointers = mapped.into_iter().enumerate().filter_map(pointer).collect();
        return escorted(sent_by(call, entries, pointers), (), |_, ()| Err(Errno::PERM.into()));
    }
    let given: Vec<Option<Vec<u8>>> = entries.chunks_exact(size).map(|entry| path_in(call, entry)).collect();
    if given.iter().all(Option::is_none) {
        return Ok(Reply::Continue);
    }
    // One path for each call: a message for another is sent by the next call, as after a full queue.
    let same = given.iter().take_while(|path| **path == given[0]).count();
    let Some(first) = given[0].as_deref() else {
        let arguments = vec![
            Argument::Word(call.raw(0)),
            Argument::Word(call.raw(1)),
            Argument::Word(same as u64),
            Argument::Word(call.raw(3)),
        ];
        return escorted(Instead { nr: SENDMMSG, arguments }, (), |_, ()| Err(Errno::PERM.into()));
    };
    let Some(names) = target_of_message(call, first)? else { return Ok(Reply::Continue) };
    call.check_alive()?;
    entries.truncate(same * size);
    let (address, length) = address_of(&names);
    for entry in entries.chunks_exact_mut(size) {
        put_length(call, entry, length);
    }
    put_sent(call, &entries)?;
    let pointers = (0..same).map(|number| (number * size, address.clone())).collect();
    escorted(sent_by(call, entries, pointers), names, |_, _| Err(Errno::PERM.into()))
}

/// The call that sends the messages of some entries, whose addresses are where `pointers` says.
fn sent_by(call: &Call, entries: Vec<u8>, pointers: Vec<(usize, Vec<u8>)>) -> Instead {
    let count = entries.len() / Header::of(call.request.abi).entry;
    let arguments = vec![
        Argument::Word(call.raw(0)),
        Argument::Bytes(entries, pointers),
        Argument::Word(count as u64),
        Argument::Word(call.raw(3)),
    ];
    Instead { nr: SENDMMSG, arguments }
}

/// Writes how much of each message is sent. A datagram is sent whole or not at all: what the kernel will count is known
/// before.
fn put_sent(call: &Call, entries: &[u8]) -> Result<()> {
    let Header { entry: size, sent: sent_at, .. } = *Header::of(call.request.abi);
    for (number, entry) in entries.chunks_exact(size).enumerate() {
        let bytes = pieces_of(call, entry)?.iter().fold(0u64, |sum, (_, length)| sum.saturating_add(*length));
        let sent = u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes();
        call.write(call.raw(1).wrapping_add((number * size + sent_at) as u64), &sent)?;
    }
    Ok(())
}

/// The path in a message's header.
fn path_in(call: &Call, header: &[u8]) -> Option<Vec<u8>> {
    let at = Header::of(call.request.abi).name_length;
    let length = i32::from_ne_bytes(header[at..at + 4].try_into().ok()?);
    path_at(call, word(call, header, 0), length)
}

/// The address in a message's header, if its port has another number.
fn port_in(call: &Call, header: &[u8]) -> Option<Mapped> {
    let at = Header::of(call.request.abi).name_length;
    let length = i32::from_ne_bytes(header[at..at + 4].try_into().ok()?);
    port::mapped(call, word(call, header, 0), length, Use::Reach)
}

fn word(call: &Call, bytes: &[u8], at: usize) -> u64 {
    word_at(call.request.abi, bytes.get(at..).unwrap_or_default())
}

fn put_length(call: &Call, header: &mut [u8], length: u64) {
    let length = u32::try_from(length).unwrap_or(0);
    let at = Header::of(call.request.abi).name_length;
    header[at..at + 4].copy_from_slice(&length.to_ne_bytes());
}

/// The buffers of a message: address and length of each.
fn pieces_of(call: &Call, header: &[u8]) -> Result<Vec<(u64, u64)>> {
    let layout = Header::of(call.request.abi);
    let size = call.request.abi.word_size();
    let count = usize::try_from(word(call, header, layout.vector_length)).ok().filter(|count| *count <= PIECES);
    let mut bytes = vec![0; count.ok_or(Errno::MSGSIZE)? * 2 * size];
    guest::read_exact(call.tid(), word(call, header, layout.vector), &mut bytes)?;
    Ok(bytes.chunks_exact(2 * size).map(|piece| (word(call, piece, 0), word(call, piece, size))).collect())
}

/// As [`target`]; only datagram sockets look at the address of a message.
fn target_of_message(call: &Call, given: &[u8]) -> core::result::Result<Option<OwnedFd>, Fail> {
    match target(call, given) {
        Err(fail) => match unix_socket(call) {
            Some((_, SocketType::DGRAM)) => Err(fail),
            _ => Ok(None),
        },
        found => found,
    }
}

/// Whom a message is for.
enum To {
    /// Whose socket this names.
    Path(OwnedFd),
    /// Who has this address.
    Port(SocketAddr),
}

/// Sends what a guest held by a debugger cannot send itself: the receiver sees us as the sender.
fn send_for(call: &Call, to: To, pieces: &[(u64, u64)], flags: u32) -> Outcome {
    let socket = call.take_fd(call.i32(0))?;
    let mut data = Vec::new();
    for (address, length) in pieces {
        let length = usize::try_from(*length).ok().filter(|l| *l <= LARGEST - data.len()).ok_or(Errno::MSGSIZE)?;
        let start = data.len();
        data.resize(start + length, 0);
        guest::read_exact(call.tid(), *address, &mut data[start..])?;
    }
    let flags = SendFlags::from_bits_retain(flags) | SendFlags::NOSIGNAL;
    Ok(Reply::Block(Box::new(move |_| {
        let sent = match to {
            To::Path(names) => {
                let address = SocketAddrUnix::new(guest::proc_path(names.as_fd()))?;
                rustix::net::sendto(&socket, &data, flags, &address)?
            }
            To::Port(address) => rustix::net::sendto(&socket, &data, flags, &address)?,
        };
        Ok(Reply::Value(i64::try_from(sent).unwrap_or(i64::MAX)))
    })))
}
