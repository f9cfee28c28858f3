//! ports: ports of the network that have other numbers in a view than on the host.
//!
//! Knows nothing of sockets: which calls name a port is the hypervisor's business.

use std::sync::Arc;

use umvu_interface::{LoadError, Module, ModuleDescriptor, OptionHelp, PortMap};

/// The module's entry in the list of modules.
pub static MODULE: ModuleDescriptor = ModuleDescriptor {
    name: "ports",
    aliases: &["vuports"],
    summary: "ports with other numbers than the host's: a server of the view binds 80 and is reached at 8080",
    options: &[OptionHelp {
        syntax: "HOST:GUEST",
        help: "port GUEST of the view is port HOST of the host; may be repeated",
    }],
    mount_options: &[],
    load,
};

fn load(options: &[&[u8]]) -> Result<Arc<dyn Module>, LoadError> {
    let mut ports = Vec::new();
    for option in options {
        let bad = |reason: String| LoadError::BadValue { option: option.escape_ascii().to_string(), reason };
        let Some(port) = Port::parse(option) else { return Err(bad("needs two ports, HOST:GUEST".to_owned())) };
        for (of, same) in [
            ("GUEST", same(&ports, |known| known.guest == port.guest)),
            ("HOST", same(&ports, |known| known.host == port.host)),
        ] {
            if let Some(Port { host, guest }) = same {
                return Err(bad(format!("{of} is taken by {host}:{guest}")));
            }
        }
        ports.push(port);
    }
    Ok(Arc::new(Ports { map: Arc::new(Map { ports: ports.into() }) }))
}

fn same(ports: &[Port], is_it: impl Fn(&Port) -> bool) -> Option<Port> {
    ports.iter().copied().find(is_it)
}

/// One port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    host: u16,
    guest: u16,
}

impl Port {
    fn parse(text: &[u8]) -> Option<Self> {
        let (host, guest) = std::str::from_utf8(text).ok()?.split_once(':')?;
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0 && !text.starts_with('+'));
        Some(Self { host: number(host)?, guest: number(guest)? })
    }
}

/// Whether a text names a port of the host and one of the view, as the module's options do.
pub fn is_option(text: &[u8]) -> bool {
    Port::parse(text).is_some()
}

struct Ports {
    map: Arc<Map>,
}

impl Module for Ports {
    fn ports(&self) -> Option<Arc<dyn PortMap>> {
        Some(self.map.clone())
    }
}

struct Map {
    ports: Box<[Port]>,
}

impl PortMap for Map {
    fn on_host(&self, guest: u16) -> Option<u16> {
        self.ports.iter().find(|port| port.guest == guest).map(|port| port.host)
    }

    fn in_view(&self, host: u16) -> Option<u16> {
        self.ports.iter().find(|port| port.host == host).map(|port| port.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_has_a_number_on_either_side() {
        let map = load(&[b"8080:80", b"5353:53"]).unwrap().ports().unwrap();
        assert_eq!((map.on_host(80), map.on_host(8080), map.on_host(53)), (Some(8080), None, Some(5353)));
        assert_eq!((map.in_view(8080), map.in_view(80)), (Some(80), None));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let refused = |options: &[&[u8]]| load(options).err().unwrap().to_string();
        for option in ["80", "0:80", "80:", ":80", "65536:80", "+80:80", "a:b"] {
            assert_eq!(refused(&[option.as_bytes()]), format!("option '{option}': needs two ports, HOST:GUEST"));
        }
        assert_eq!(refused(&[b"8080:80", b"8081:80"]), "option '8081:80': GUEST is taken by 8080:80");
        assert_eq!(refused(&[b"8080:80", b"8080:81"]), "option '8080:81': HOST is taken by 8080:80");
    }
}
