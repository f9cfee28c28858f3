//! Addresses of the internet whose port has another number on the host: ip(7), ipv6(7). Knows nothing of messages, and no
//! protocol: ports of all that have some are meant.
//!
//! A port that is bound is always the view's. One that is reached is only if it is on this machine: those of other
//! machines have the numbers that they have.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};

use rustix::fd::AsFd;
use rustix::net::{AddressFamily, SocketType};

use crate::call::Call;
use crate::guest;

/// Offset of the port in both forms of address.
const PORT_AT: usize = 2;
/// `sizeof(struct sockaddr_in)`.
const V4_LENGTH: usize = 16;
/// `SIN6_LEN_RFC2133`: the scope may be missing.
const V6_LENGTH_MIN: usize = 24;
/// `sizeof(struct sockaddr_in6)`.
const V6_LENGTH: usize = 28;
/// `sizeof(struct sockaddr_storage)`: longer ones are refused.
const LENGTH_MAX: usize = 128;

/// What is done with an address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// It is taken.
    Bind,
    /// It is connected or sent to.
    Reach,
}

/// An address as the kernel is to have it.
pub struct Mapped {
    /// Its bytes, as many as were given.
    pub bytes: Vec<u8>,
    /// What they mean.
    pub address: SocketAddr,
}

/// The address that is meant by one of a guest; `None` where it is just that.
pub fn mapped(call: &Call, at: u64, length: i32, how: Use) -> Option<Mapped> {
    if !call.state.view.maps_ports() {
        return None;
    }
    let length = usize::try_from(length).ok().filter(|length| (V4_LENGTH..=LENGTH_MAX).contains(length))?;
    let mut bytes = guest::read_some(call.tid(), at, length).ok().filter(|bytes| bytes.len() == length)?;
    let address = parse(&bytes, how)?;
    let port = call.state.view.port_on_host(address.port())?;
    if !has_ports(call) || (how == Use::Reach && !is_here(address.ip(), &address)) {
        return None;
    }
    bytes[PORT_AT..PORT_AT + 2].copy_from_slice(&port.to_be_bytes());
    let mut address = address;
    address.set_port(port);
    Some(Mapped { bytes, address })
}

/// The address that a guest is told in place of its own socket's, or of one that it has reached; `None` where it is just
/// that.
pub fn told(call: &Call, address: SocketAddr, how: Use) -> Option<Vec<u8>> {
    let port = call.state.view.port_in_view(address.port())?;
    if how == Use::Reach && !is_here(address.ip(), &address) {
        return None;
    }
    let mut bytes = Vec::with_capacity(V6_LENGTH);
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend_from_slice(&AddressFamily::INET.as_raw().to_ne_bytes());
            bytes.extend_from_slice(&port.to_be_bytes());
            bytes.extend_from_slice(&v4.ip().octets());
            bytes.resize(V4_LENGTH, 0);
        }
        SocketAddr::V6(v6) => {
            bytes.extend_from_slice(&AddressFamily::INET6.as_raw().to_ne_bytes());
            bytes.extend_from_slice(&port.to_be_bytes());
            bytes.extend_from_slice(&v6.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&v6.ip().octets());
            bytes.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    Some(bytes)
}

/// Reads an address, of at least [`V4_LENGTH`] bytes.
fn parse(bytes: &[u8], how: Use) -> Option<SocketAddr> {
    let array = |at: usize| Some(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).unwrap_or_default());
    let family = AddressFamily::from_raw(u16::from_ne_bytes([bytes[0], bytes[1]]));
    let port = u16::from_be_bytes([bytes[PORT_AT], bytes[PORT_AT + 1]]);
    let v4 = Ipv4Addr::from(array(4)?);
    match family {
        AddressFamily::INET => Some(SocketAddrV4::new(v4, port).into()),
        // Taken for the other if it names no address: net/ipv4/af_inet.c, __inet_bind.
        AddressFamily::UNSPEC if how == Use::Bind && v4.is_unspecified() => Some(SocketAddrV4::new(v4, port).into()),
        AddressFamily::INET6 if bytes.len() >= V6_LENGTH_MIN => {
            let ip = Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[8..24]).unwrap_or_default());
            let scope = array(24).map_or(0, u32::from_ne_bytes);
            Some(SocketAddrV6::new(ip, port, u32::from_be_bytes(array(4)?), scope).into())
        }
        _ => None,
    }
}

/// Whether the call's socket is one of the internet that has ports.
fn has_ports(call: &Call) -> bool {
    let Ok(socket) = call.take_fd(call.i32(0)) else { return false };
    let family = rustix::net::sockopt::socket_domain(socket.as_fd());
    let kind = rustix::net::sockopt::socket_type(socket.as_fd());
    matches!(family, Ok(AddressFamily::INET | AddressFamily::INET6)) && kind.is_ok_and(|kind| kind != SocketType::RAW)
}

/// Whether an address is one of this machine.
fn is_here(ip: IpAddr, address: &SocketAddr) -> bool {
    let ip = ip.to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    // Packets to it come from it: there is no other address of which that is true.
    let source = || -> std::io::Result<IpAddr> {
        let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        let mut to = *address;
        to.set_ip(ip);
        socket.connect(to)?;
        Ok(socket.local_addr()?.ip())
    };
    source().is_ok_and(|source| source == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read() {
        let mut v4 = vec![2, 0, 0, 80, 127, 0, 0, 1];
        v4.resize(V4_LENGTH, 0);
        assert_eq!(parse(&v4, Use::Reach).unwrap().to_string(), "127.0.0.1:80");
        let mut v6 = vec![10, 0, 0x1f, 0x90, 0, 0, 0, 0];
        v6.resize(V6_LENGTH_MIN - 1, 0);
        assert_eq!(parse(&v6, Use::Reach), None);
        v6.push(1);
        assert_eq!(parse(&v6, Use::Reach).unwrap().to_string(), "[::1]:8080");
        v4[0] = 0;
        assert_eq!(parse(&v4, Use::Bind), None);
        v4[4..8].fill(0);
        assert_eq!(parse(&v4, Use::Bind).unwrap().to_string(), "0.0.0.0:80");
        assert_eq!(parse(&v4, Use::Reach), None);
    }

    #[test]
    fn other_machines_are_not_here() {
        let here = |text: &str| is_here(text.parse().unwrap(), &SocketAddr::new(text.parse().unwrap(), 80));
        for ip in ["127.0.0.1", "127.3.4.5", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"] {
            assert!(here(ip), "{ip}");
        }
        for ip in ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "224.0.0.1", "255.255.255.255"] {
            assert!(!here(ip), "{ip}");
        }
    }
}
