//! Who listens on a port.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nightjar_abi::record::SocketInfo;

use super::describe::ip;

/// Listening sockets by network namespace, protocol and port.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Address that each is bound to and what it is called by: few have one port in common.
    ports: HashMap<Port, Vec<(IpAddr, u64)>>,
    /// Which port a socket was added with: what later records say of its port does not matter.
    sockets: HashMap<u64, Port>,
}

/// What those that listen for the same connections have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Port {
    namespace: u32,
    protocol: u16,
    number: u16,
}

impl Port {
    /// That of a socket's end here.
    pub(super) fn of(socket: &SocketInfo) -> Self {
        Self { namespace: socket.netns, protocol: socket.protocol, number: socket.local_port }
    }
}

impl Listeners {
    /// A socket listens, or is known better than before.
    pub(super) fn add(&mut self, socket: &SocketInfo) {
        if let Some((address, _)) = ip(socket, &socket.local) {
            self.remove(socket.socket);
            let port = Port::of(socket);
            self.ports.entry(port).or_default().push((address, socket.socket));
            self.sockets.insert(socket.socket, port);
        }
    }

    /// A socket listens no more.
    pub(super) fn remove(&mut self, socket: u64) {
        let Some(port) = self.sockets.remove(&socket) else { return };
        if let Some(listeners) = self.ports.get_mut(&port) {
            listeners.retain(|(_, known)| *known != socket);
            if listeners.is_empty() {
                self.ports.remove(&port);
            }
        }
    }

    /// The listener that a connection with this local end came in by: one that is bound to the address, else one
    /// that takes all of its family, else one that takes all. Of several that share a port, the first.
    pub(super) fn of(&self, socket: &SocketInfo) -> Option<u64> {
        let (address, _) = ip(socket, &socket.local)?;
        let all_of_family = match address {
            IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listeners = self.ports.get(&Port::of(socket))?;
        [address, all_of_family, Ipv6Addr::UNSPECIFIED.into()].iter().find_map(|bound| {
            listeners.iter().find(|(address, _)| address == bound).map(|(_, socket)| *socket)
        })
    }

    /// Whether nobody listens.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.sockets.is_empty()
    }
}
