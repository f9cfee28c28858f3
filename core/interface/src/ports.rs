//! Ports of the network that a module gives other numbers. Knows neither sockets nor protocols.

/// Ports that have other numbers in a view than on the host.
pub trait PortMap: Send + Sync {
    /// The number on the host of a port of the view; none if it is the same.
    fn on_host(&self, guest: u16) -> Option<u16>;

    /// The number in the view of a port of the host; none if it is the same.
    fn in_view(&self, host: u16) -> Option<u16>;
}
