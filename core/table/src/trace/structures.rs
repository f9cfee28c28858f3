//! The few structures whose contents decide what a call does.
//!
//! Every other structure is shown as its address.

use std::net::{Ipv4Addr, Ipv6Addr};

use linux_raw_sys::net;

use super::memory::{address, exactly, quote, Memory, STRING_LIMIT};
use super::names::{flags, DOMAINS, RESOLVE};
use super::scalars::{creates, mode, named, open_flags};

/// Longest socket address the kernel takes: `struct sockaddr_storage`.
const SOCKET_ADDRESS_LIMIT: usize = 128;
/// `struct open_how` as Linux 5.6 defined it.
const OPEN_HOW_SIZE: u64 = 24;

/// Shows a `struct timespec`.
pub(super) fn timespec(memory: Memory, start: u64) -> String {
    let field = |offset: u64| start.checked_add(offset).and_then(|at| exactly(memory, at)).map(i64::from_ne_bytes);
    match (start, field(0), field(8)) {
        (1.., Some(seconds), Some(nanoseconds)) => format!("{{tv_sec={seconds}, tv_nsec={nanoseconds}}}"),
        _ => address(start),
    }
}

/// Shows a `struct open_how`, as `{flags=O_RDONLY, resolve=RESOLVE_BENEATH}`.
pub(super) fn open_how(memory: Memory, start: u64, size: u64) -> String {
    let field = |offset: u64| start.checked_add(offset).and_then(|at| exactly(memory, at)).map(u64::from_ne_bytes);
    if start == 0 || size < OPEN_HOW_SIZE {
        return address(start);
    }
    let (Some(open), Some(permissions), Some(resolve)) = (field(0), field(8), field(16)) else { return address(start) };
    let mut fields = vec![format!("flags={}", open_flags(open))];
    // Unlike the older calls, this one refuses a mode that it would ignore: fs/open.c, build_open_flags.
    if creates(open) || permissions != 0 {
        fields.push(format!("mode={}", u32::try_from(permissions).map_or_else(|_| format!("{permissions:#o}"), mode)));
    }
    fields.push(format!("resolve={}", flags(resolve, &[RESOLVE])));
    if size > OPEN_HOW_SIZE {
        fields.push("...".to_owned());
    }
    format!("{{{}}}", fields.join(", "))
}

/// Shows a socket address, as `{sa_family=AF_UNIX, sun_path="/run/x"}`.
pub(super) fn socket_address(memory: Memory, start: u64, length: u64) -> String {
    let length = usize::try_from(length).ok().filter(|length| (2..=SOCKET_ADDRESS_LIMIT).contains(length));
    let Some(length) = length.filter(|_| start != 0) else { return address(start) };
    let mut storage = [0; SOCKET_ADDRESS_LIMIT];
    let read = storage.get_mut(..length).and_then(|bytes| memory(start, bytes));
    if read.is_none_or(|read| read < length) {
        return address(start);
    }
    let [low, high, data @ ..] = storage;
    let data = data.get(..length - 2).unwrap_or(&data);
    let family = u16::from_ne_bytes([low, high]);
    let shown = match u32::from(family) {
        net::AF_UNIX => unix(data),
        net::AF_INET => internet(data),
        net::AF_INET6 => internet6(data),
        _ => None,
    };
    let shown = shown.unwrap_or_else(|| format!("sa_data={}", quote(data, STRING_LIMIT)));
    format!("{{sa_family={}, {shown}}}", named(DOMAINS, u64::from(family)))
}

/// A name in the file system, or with `@` in place of the leading NUL one in the abstract name space.
fn unix(data: &[u8]) -> Option<String> {
    match data.split_first() {
        None => None,
        Some((0, [])) => Some("sun_path=\"\"".to_owned()),
        Some((0, name)) => Some(format!("sun_path=@{}", quote(name, SOCKET_ADDRESS_LIMIT))),
        Some(_) => {
            let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
            data.get(..end).map(|name| format!("sun_path={}", quote(name, SOCKET_ADDRESS_LIMIT)))
        }
    }
}

fn internet(data: &[u8]) -> Option<String> {
    let (port, data) = data.split_first_chunk()?;
    let host: [u8; 4] = *data.first_chunk()?;
    let port = u16::from_be_bytes(*port);
    Some(format!("sin_port=htons({port}), sin_addr=inet_addr(\"{}\")", Ipv4Addr::from(host)))
}

fn internet6(data: &[u8]) -> Option<String> {
    let (port, data) = data.split_first_chunk()?;
    let (flow, data) = data.split_first_chunk()?;
    let (host, data) = data.split_first_chunk::<16>()?;
    // The address of RFC 2133, which the kernel still takes, ends here: net/ipv6/af_inet6.c, SIN6_LEN_RFC2133.
    let scope = data.first_chunk().map_or(0, |scope| u32::from_ne_bytes(*scope));
    let (port, flow) = (u16::from_be_bytes(*port), u32::from_be_bytes(*flow));
    let host = Ipv6Addr::from(*host);
    Some(format!(
        "sin6_port=htons({port}), sin6_flowinfo=htonl({flow}), inet_pton(AF_INET6, \"{host}\", &sin6_addr), \
         sin6_scope_id={scope}"
    ))
}
