//! AF_UNIX addresses that are paths: unix(7). Knows nothing of other families: their calls go to the kernel.
//!
//! A guest connects and sends by itself, so that credentials, blocking and signals are the kernel's: where the path
//! means something else to the kernel, the call is made again with a path that leads to the object of the view.
//! The memory of such a call is read twice, by us and by the kernel; who changes it in between deceives itself only.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketAddrUnix, SocketType};
use umvu_interface::{Access, Creation, Errno, Result};
use umvu_table::i386::Abi;

use crate::call::{Call, Fail, Outcome, Reply, DONE};
use crate::escort::escorted;
use crate::guest;
use crate::handlers::exec::is_same_on_host;
use crate::handlers::open::permitted;
use crate::handlers::tree;
use crate::mount::MountKind;
use crate::redirect::{word_at, Argument, Instead};
use crate::resolve::{path_of, Last};
use crate::socket_name::{self, Unnamed};

const CONNECT: u32 = 42;
const SENDTO: u32 = 44;
const SENDMSG: u32 = 46;
const SENDMMSG: u32 = 307;

/// Offset of `sun_path`.
const PATH_AT: usize = 2;
/// Where the parts of a message's header are; its address stands first.
struct Header {
    /// `sizeof(struct msghdr)`.
    size: usize,
    name_length: usize,
    vector: usize,
    vector_length: usize,
    control_length: usize,
    /// `sizeof(struct mmsghdr)`, and where in it is the count of bytes sent.
    entry: usize,
    sent: usize,
}

/// `struct user_msghdr` of linux/socket.h.
const HEADER: Header =
    Header { size: 56, name_length: 8, vector: 16, vector_length: 24, control_length: 40, entry: 64, sent: 56 };
/// `struct compat_msghdr` of net/compat.h.
const SHORT_HEADER: Header =
    Header { size: 28, name_length: 4, vector: 8, vector_length: 12, control_length: 20, entry: 32, sent: 28 };

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

/// `bind(fd, address, length)`: `unix_bind_bsd` of `net/unix/af_unix.c`.
pub fn bind(call: &Call) -> Outcome {
    let Some(given) = path_at(call, call.raw(1), call.i32(2)) else { return Ok(Reply::Continue) };
    let Some((socket, _)) = unix_socket(call) else { return Ok(Reply::Continue) };
    call.check_alive()?;
    let (directory, name) = tree::parent_and_name(call, socket_name::meant(&given)).map_err(in_use)?;
    let (before, last) = socket_name::split(&given);
    let is_kernels = directory.mount.kind == MountKind::Host && directory.inode.kernel_checks();
    if is_kernels && call.state.umask.is_none() && is_same_on_host(call, &directory, libc::AT_FDCWD, before) {
        return Ok(Reply::Continue);
    }
    let mode = rustix::fs::fstat(&socket)?.st_mode & 0o7777 & !call.umask();
    let table = call.table();
    let mut texts: Vec<Vec<u8>> = Vec::new();
    texts.extend(socket_name::kept(socket_name::meant(&given)).map(|text| text.into_owned()));
    if let Ok(Some(mut path)) = path_of(&table, &call.root(&table), &directory) {
        path.push(b'/');
        path.extend_from_slice(last);
        texts.extend(socket_name::kept(&path).map(|text| text.into_owned()));
    }
    texts.push(last.to_vec());
    let supervisor = &call.supervisor;
    let unnamed = Unnamed { socket, texts, placeholders: &supervisor.placeholders, naming: &supervisor.naming };
    let what = Creation::BoundSocket { mode, bind: &unnamed };
    call.as_caller(|caller| directory.inode.create(caller, &name, &what)).map_err(in_use)?;
    DONE
}

fn in_use(errno: Errno) -> Errno {
    match errno {
        Errno::EXIST => Errno::ADDRINUSE,
        other => other,
    }
}

/// `connect(fd, address, length)`.
pub fn connect(call: &Call) -> Outcome {
    let Some(given) = path_at(call, call.raw(1), call.i32(2)) else { return Ok(Reply::Continue) };
    let names = match target(call, &given) {
        Ok(Some(names)) => names,
        Ok(None) => return Ok(Reply::Continue),
        Err(fail) if unix_socket(call).is_some() => return Err(fail),
        // The kernel looks at the descriptor first.
        Err(_) => return Ok(Reply::Continue),
    };
    call.check_alive()?;
    let (address, length) = address_of(&names);
    let arguments = vec![Argument::Word(call.raw(0)), Argument::Bytes(address, Vec::new()), Argument::Word(length)];
    // Somebody else traces the guest: its peer sees us.
    escorted(Instead { nr: CONNECT, arguments }, names, |call, names| {
        let socket = call.take_fd(call.i32(0))?;
        Ok(Reply::Block(Box::new(move |_| {
            rustix::net::connect(&socket, &SocketAddrUnix::new(guest::proc_path(names.as_fd()))?)?;
            DONE
        })))
    })
}

/// `sendto(fd, buffer, length, flags, address, address_length)`.
pub fn sendto(call: &Call) -> Outcome {
    let Some(given) = path_at(call, call.raw(4), call.i32(5)) else { return Ok(Reply::Continue) };
    let Some(names) = target_of_message(call, &given)? else { return Ok(Reply::Continue) };
    call.check_alive()?;
    let (address, length) = address_of(&names);
    let arguments = vec![
        Argument::Word(call.raw(0)),
        Argument::Word(call.raw(1)),
        Argument::Word(call.raw(2)),
        Argument::Word(call.raw(3)),
        Argument::Bytes(address, Vec::new()),
        Argument::Word(length),
    ];
    let pieces = [(call.raw(1), call.raw(2))];
    escorted(Instead { nr: SENDTO, arguments }, names, move |call, names| send_for(call, names, &pieces, call.u32(3)))
}

/// `sendmsg(fd, message, flags)`.
pub fn sendmsg(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    // The kernel says what is wrong with memory that cannot be read.
    let mut header = vec![0; Header::of(call.request.abi).size];
    if guest::read_exact(call.tid(), call.raw(1), &mut header).is_err() {
        return Ok(Reply::Continue);
    }
    let Some(given) = path_in(call, &header) else { return Ok(Reply::Continue) };
    let Some(names) = target_of_message(call, &given)? else { return Ok(Reply::Continue) };
    call.check_alive()?;
    let (address, length) = address_of(&names);
    put_length(call, &mut header, length);
    let flags = call.u32(2);
    let arguments = vec![
        Argument::Word(call.raw(0)),
        Argument::Bytes(header.clone(), vec![(0, address)]),
        Argument::Word(flags.into()),
    ];
    escorted(Instead { nr: SENDMSG, arguments }, names, move |call, names| {
        if word(call, &header, Header::of(call.request.abi).control_length) != 0 {
            return Err(Errno::PERM.into());
        }
        send_for(call, names, &pieces_of(call, &header)?, flags)
    })
}

/// `sendmmsg(fd, messages, count, flags)`.
pub fn sendmmsg(call: &Call) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let count = usize::try_from(call.u32(2).min(MESSAGES)).unwrap_or(0);
    let Header { entry: size, sent: sent_at, .. } = *Header::of(call.request.abi);
    let Ok(mut entries) = guest::read_some(call.tid(), call.raw(1), count * size) else {
        return Ok(Reply::Continue);
    };
    entries.truncate(entries.len() / size * size);
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
    for (number, entry) in entries.chunks_exact_mut(size).enumerate() {
        put_length(call, entry, length);
        // A datagram is sent whole or not at all: what the kernel will count is known before.
        let bytes = pieces_of(call, entry)?.iter().fold(0u64, |sum, (_, length)| sum.saturating_add(*length));
        let sent = u32::try_from(bytes).unwrap_or(u32::MAX).to_ne_bytes();
        let at = call.raw(1).wrapping_add((number * size + sent_at) as u64);
        call.write(at, &sent)?;
    }
    let pointers = (0..same).map(|number| (number * size, address.clone())).collect();
    let arguments = vec![
        Argument::Word(call.raw(0)),
        Argument::Bytes(entries, pointers),
        Argument::Word(same as u64),
        Argument::Word(call.raw(3)),
    ];
    escorted(Instead { nr: SENDMMSG, arguments }, names, |_, _| Err(Errno::PERM.into()))
}

/// `getsockname(fd, address, length)`.
pub fn getsockname(call: &Call) -> Outcome {
    tell(call, |socket| rustix::net::getsockname(socket))
}

/// `getpeername(fd, address, length)`.
pub fn getpeername(call: &Call) -> Outcome {
    tell(call, |socket| rustix::net::getpeername(socket).map(|peer| peer.ok_or(Errno::NOTCONN))?)
}

/// Tells an address without the mark that the kernel keeps in it; `move_addr_to_user` of `net/socket.c`.
fn tell(call: &Call, ask: impl FnOnce(&OwnedFd) -> Result<SocketAddrAny>) -> Outcome {
    if call.state.is_plain() {
        return Ok(Reply::Continue);
    }
    let Ok(socket) = call.take_fd(call.i32(0)) else { return Ok(Reply::Continue) };
    let address = ask(&socket).ok().and_then(|address| SocketAddrUnix::try_from(address).ok());
    let Some(kept) = address.as_ref().and_then(SocketAddrUnix::path_bytes) else { return Ok(Reply::Continue) };
    let path = socket_name::meant(kept);
    if path.len() == kept.len() {
        return Ok(Reply::Continue);
    }
    let full = address_bytes(path);
    let room = i32::from_ne_bytes(guest::read_array(call.tid(), call.raw(2))?);
    let room = usize::try_from(room).map_err(|_| Errno::INVAL)?;
    call.write(call.raw(1), &full[..full.len().min(room)])?;
    let length = u32::try_from(full.len()).unwrap_or(0);
    call.write(call.raw(2), &length.to_ne_bytes())?;
    DONE
}

/// The path in an address, if it is one and the kernel's own look at it is not the right one.
fn path_at(call: &Call, address: u64, length: i32) -> Option<Vec<u8>> {
    if call.state.is_plain() {
        return None;
    }
    let length = usize::try_from(length).ok().filter(|l| (PATH_AT + 1..=PATH_AT + socket_name::LONGEST).contains(l))?;
    let bytes = guest::read_some(call.tid(), address, length).ok().filter(|b| b.len() == length)?;
    let family = u16::from_ne_bytes([bytes[0], bytes[1]]);
    if AddressFamily::from_raw(family) != AddressFamily::UNIX {
        return None;
    }
    let path = &bytes[PATH_AT..];
    let end = path.iter().position(|b| *b == 0).unwrap_or(path.len());
    (end > 0).then(|| path[..end].to_vec())
}

/// The path in a message's header.
fn path_in(call: &Call, header: &[u8]) -> Option<Vec<u8>> {
    let at = Header::of(call.request.abi).name_length;
    let length = i32::from_ne_bytes(header[at..at + 4].try_into().ok()?);
    path_at(call, word(call, header, 0), length)
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

/// A duplicate of the guest's socket and its type, if it is of the family.
fn unix_socket(call: &Call) -> Option<(OwnedFd, SocketType)> {
    let socket = call.take_fd(call.i32(0)).ok()?;
    let family = rustix::net::sockopt::socket_domain(&socket).ok()?;
    let kind = rustix::net::sockopt::socket_type(&socket).ok()?;
    (family == AddressFamily::UNIX).then_some((socket, kind))
}

/// The object that an address names; `None` where the kernel finds the same. `unix_find_bsd` of
/// `net/unix/af_unix.c`.
///
/// # Errors
/// - those of path_resolution(7).
/// - `EACCES`: no write permission.
/// - `ECONNREFUSED`: no object of the host stands there.
fn target(call: &Call, given: &[u8]) -> core::result::Result<Option<OwnedFd>, Fail> {
    let path = socket_name::meant(given);
    let place = call.object(libc::AT_FDCWD, path, Last::Follow)?;
    permitted(call, &place, Access::WRITE)?;
    if path.len() == given.len() && is_same_on_host(call, &place, libc::AT_FDCWD, path) {
        return Ok(None);
    }
    let fd = place.inode.host_fd().ok_or(Errno::CONNREFUSED)?;
    Ok(Some(rustix::io::fcntl_dupfd_cloexec(fd, 0)?))
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

fn address_bytes(path: &[u8]) -> Vec<u8> {
    let mut bytes = AddressFamily::UNIX.as_raw().to_ne_bytes().to_vec();
    bytes.extend_from_slice(path);
    bytes.push(0);
    bytes
}

/// An address by which a guest reaches what our descriptor names, and its length.
fn address_of(names: &OwnedFd) -> (Vec<u8>, u64) {
    let address = address_bytes(&guest::path_for_guests(names.as_fd()));
    let length = address.len() as u64;
    (address, length)
}

/// Sends what a guest held by a debugger cannot send itself: the receiver sees us as the sender.
fn send_for(call: &Call, names: OwnedFd, pieces: &[(u64, u64)], flags: u32) -> Outcome {
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
        let address = SocketAddrUnix::new(guest::proc_path(names.as_fd()))?;
        let sent = rustix::net::sendto(&socket, &data, flags, &address)?;
        Ok(Reply::Value(i64::try_from(sent).unwrap_or(i64::MAX)))
    })))
}
