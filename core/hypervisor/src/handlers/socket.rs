//! AF_UNIX addresses that are paths: unix(7), and ports that have other numbers, which `port` knows. Calls of other
//! families go to the kernel.
//!
//! A guest connects and sends by itself, so that credentials, blocking and signals are the kernel's: where the path
//! means something else to the kernel, the call is made again with a path that leads to the object of the view.
//! The memory of such a call is read twice, by us and by the kernel; who changes it in between deceives itself only.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType};
use umvu_interface::{Access, Creation, Errno, Result};

use crate::call::{Call, Fail, Outcome, Reply, DONE};
use crate::escort::escorted;
use crate::guest;
use crate::handlers::exec::is_same_on_host;
use crate::handlers::open::permitted;
use crate::handlers::port::{self, Use};
use crate::handlers::tree;
use crate::mount::MountKind;
use crate::redirect::{Argument, Instead};
use crate::resolve::{path_of, Last};
use crate::socket_name::{self, Unnamed};

const CONNECT: u32 = 42;
/// Offset of `sun_path`.
const PATH_AT: usize = 2;
/// `bind(fd, address, length)`: `unix_bind_bsd` of `net/unix/af_unix.c`.
pub fn bind(call: &Call) -> Outcome {
    if let Some(mapped) = port::mapped(call, call.raw(1), call.i32(2), Use::Bind) {
        call.check_alive()?;
        rustix::net::bind(&call.take_fd(call.i32(0))?, &mapped.address)?;
        return DONE;
    }
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
    if let Some(mapped) = port::mapped(call, call.raw(1), call.i32(2), Use::Reach) {
        let arguments =
            vec![Argument::Word(call.raw(0)), Argument::Bytes(mapped.bytes, Vec::new()), Argument::Word(call.raw(2))];
        return escorted(Instead { nr: CONNECT, arguments }, (), move |call, ()| {
            let socket = call.take_fd(call.i32(0))?;
            Ok(Reply::Block(Box::new(move |_| {
                rustix::net::connect(&socket, &mapped.address)?;
                DONE
            })))
        });
    }
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

/// `getsockname(fd, address, length)`.
pub fn getsockname(call: &Call) -> Outcome {
    tell(call, Use::Bind, |socket| rustix::net::getsockname(socket))
}

/// `getpeername(fd, address, length)`.
pub fn getpeername(call: &Call) -> Outcome {
    tell(call, Use::Reach, |socket| rustix::net::getpeername(socket).map(|peer| peer.ok_or(Errno::NOTCONN))?)
}

/// Tells an address without the mark that the kernel keeps in it, or with the port of the view; `move_addr_to_user` of
/// `net/socket.c`.
fn tell(call: &Call, how: Use, ask: impl FnOnce(&OwnedFd) -> Result<SocketAddrAny>) -> Outcome {
    if is_kernels(call) {
        return Ok(Reply::Continue);
    }
    let Ok(socket) = call.take_fd(call.i32(0)) else { return Ok(Reply::Continue) };
    let Ok(address) = ask(&socket) else { return Ok(Reply::Continue) };
    let full = match SocketAddr::try_from(address.clone()) {
        Ok(address) => port::told(call, address, how),
        Err(_) => path_without_mark(address),
    };
    let Some(full) = full else { return Ok(Reply::Continue) };
    let room = i32::from_ne_bytes(guest::read_array(call.tid(), call.raw(2))?);
    let room = usize::try_from(room).map_err(|_| Errno::INVAL)?;
    call.write(call.raw(1), &full[..full.len().min(room)])?;
    let length = u32::try_from(full.len()).unwrap_or(0);
    call.write(call.raw(2), &length.to_ne_bytes())?;
    DONE
}

/// The address of a path that the kernel keeps with a mark.
fn path_without_mark(address: SocketAddrAny) -> Option<Vec<u8>> {
    let address = SocketAddrUnix::try_from(address).ok()?;
    let kept = address.path_bytes()?;
    let path = socket_name::meant(kept);
    (path.len() != kept.len()).then(|| address_bytes(path))
}

/// Whether all addresses mean what the kernel takes them for.
pub fn is_kernels(call: &Call) -> bool {
    call.state.is_plain() && !call.state.view.maps_ports()
}

/// The path in an address, if it is one and the kernel's own look at it is not the right one.
pub fn path_at(call: &Call, address: u64, length: i32) -> Option<Vec<u8>> {
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

/// A duplicate of the guest's socket and its type, if it is of the family.
pub fn unix_socket(call: &Call) -> Option<(OwnedFd, SocketType)> {
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
pub fn target(call: &Call, given: &[u8]) -> core::result::Result<Option<OwnedFd>, Fail> {
    let path = socket_name::meant(given);
    let place = call.object(libc::AT_FDCWD, path, Last::Follow)?;
    permitted(call, &place, Access::WRITE)?;
    if path.len() == given.len() && is_same_on_host(call, &place, libc::AT_FDCWD, path) {
        return Ok(None);
    }
    let fd = place.inode.host_fd().ok_or(Errno::CONNREFUSED)?;
    Ok(Some(rustix::io::fcntl_dupfd_cloexec(fd, 0)?))
}

fn address_bytes(path: &[u8]) -> Vec<u8> {
    let mut bytes = AddressFamily::UNIX.as_raw().to_ne_bytes().to_vec();
    bytes.extend_from_slice(path);
    bytes.push(0);
    bytes
}

/// An address by which a guest reaches what our descriptor names, and its length.
pub fn address_of(names: &OwnedFd) -> (Vec<u8>, u64) {
    let address = address_bytes(&guest::path_for_guests(names.as_fd()));
    let length = address.len() as u64;
    (address, length)
}
