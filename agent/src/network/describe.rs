//! Numbers of the kernel to the words and addresses of an event.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nightjar_abi::record::SocketInfo;
use nightjar_proto::{
    text,
    v1::{NetworkActivity, NetworkEndpoint},
};

use crate::decode::padded;

/// Families that are looked at here; [`FAMILIES`] has the others' names.
mod family {
    pub const UNIX: u16 = 1;
    pub const INET: u16 = 2;
    pub const INET6: u16 = 10;
    pub const NETLINK: u16 = 16;
    pub const PACKET: u16 = 17;
    pub const VSOCK: u16 = 40;
}

mod kind {
    pub const DGRAM: u16 = 2;
    pub const RAW: u16 = 3;
}

/// `AF_*`, by the names of the event.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/socket.h#L189-L251>
const FAMILIES: &[(u16, &str)] = &[
    (family::UNIX, "unix"),
    (family::INET, "ipv4"),
    (3, "ax25"),
    (4, "ipx"),
    (5, "appletalk"),
    (9, "x25"),
    (family::INET6, "ipv6"),
    (15, "key"),
    (family::NETLINK, "netlink"),
    (family::PACKET, "packet"),
    (21, "rds"),
    (24, "pppox"),
    (26, "llc"),
    (29, "can"),
    (30, "tipc"),
    (31, "bluetooth"),
    (33, "rxrpc"),
    (38, "alg"),
    (39, "nfc"),
    (family::VSOCK, "vsock"),
    (41, "kcm"),
    (42, "qipcrtr"),
    (43, "smc"),
    (44, "xdp"),
    (45, "mctp"),
];

/// `SOCK_*`
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/net.h#L62-L70>
const KINDS: &[(u16, &str)] = &[
    (1, "stream"),
    (kind::DGRAM, "dgram"),
    (kind::RAW, "raw"),
    (4, "rdm"),
    (5, "seqpacket"),
    (6, "dccp"),
    (10, "packet"),
];

/// `IPPROTO_*`, with whether the protocol has ports.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/in.h#L28-L88>
const PROTOCOLS: &[(u16, &str, bool)] = &[
    (0, "raw", false),
    (1, "icmp", false),
    (2, "igmp", false),
    (6, "tcp", true),
    (17, "udp", true),
    (33, "dccp", true),
    (58, "icmpv6", false),
    (132, "sctp", true),
    (136, "udplite", true),
    (255, "raw", false),
    (262, "mptcp", true),
];

/// `NETLINK_*`
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netlink.h#L9-L31>
const NETLINKS: &[(u16, &str)] = &[
    (0, "route"),
    (2, "usersock"),
    (4, "sock_diag"),
    (5, "nflog"),
    (6, "xfrm"),
    (7, "selinux"),
    (8, "iscsi"),
    (9, "audit"),
    (10, "fib_lookup"),
    (11, "connector"),
    (12, "netfilter"),
    (15, "kobject_uevent"),
    (16, "generic"),
    (18, "scsitransport"),
    (19, "ecryptfs"),
    (20, "rdma"),
    (21, "crypto"),
    (22, "smc"),
];

/// `ETH_P_*`
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/if_ether.h#L52-L133>
const ETHERNETS: &[(u16, &str)] = &[(0x0003, "all"), (0x0800, "ipv4"), (0x0806, "arp"), (0x86dd, "ipv6")];

/// Both ends of a socket, and what kind of socket it is.
pub(super) fn connection(socket: &SocketInfo) -> NetworkActivity {
    let mut body = listener(socket);
    let (local, remote) = (ip(socket, &socket.local), ip(socket, &socket.remote));
    body.ipv4_mapped |= remote.is_some_and(|(_, mapped)| mapped);
    if body.ipv4_mapped {
        "ipv4".clone_into(&mut body.family);
    }
    let same = local.is_some_and(|(ip, _)| !ip.is_unspecified()) && local == remote;
    body.loopback |= same || remote.is_some_and(|(ip, _)| ip.is_loopback());
    if is_zero(&socket.local) && socket.local_port == 0 {
        body.local = None;
    }
    if !(is_zero(&socket.remote) && socket.remote_port == 0) {
        body.remote = endpoint(socket, &socket.remote).map(|end| {
            let port = has_ports(socket).then(|| socket.remote_port.into());
            NetworkEndpoint { port, ..end }
        });
    }
    body
}

/// A socket and its end here, which is shown where it is no address in particular too (`0.0.0.0`).
pub(super) fn listener(socket: &SocketInfo) -> NetworkActivity {
    let local = ip(socket, &socket.local);
    let ipv4_mapped = local.is_some_and(|(_, mapped)| mapped)
        || (socket.family == family::INET && socket.own_family == family::INET6);
    NetworkActivity {
        protocol: protocol(socket),
        family: if ipv4_mapped { "ipv4".to_owned() } else { family_name(socket.family) },
        r#type: lookup(KINDS, socket.kind).unwrap_or_default().to_owned(),
        local: endpoint(socket, &socket.local).map(|end| {
            let port = (has_ports(socket) && socket.local_port != 0).then(|| socket.local_port.into());
            NetworkEndpoint { port, ..end }
        }),
        namespace: socket.netns,
        interface: text::from_bytes(interface(socket)),
        loopback: local.is_some_and(|(ip, _)| ip.is_loopback()) || interface(socket) == b"lo",
        ipv4_mapped,
        ..NetworkActivity::default()
    }
}

/// Name of a unix socket; an abstract one begins with `@`.
pub(super) fn unix_path(path: &[u8]) -> String {
    match path {
        [0, name @ ..] => format!("@{}", text::from_bytes(name)),
        // The kernel counts the zero at its end.
        path => text::from_bytes(padded(path)),
    }
}

/// Address of an end, and whether it is an IPv4 one that is written as an IPv6 one. `None` of other families.
pub(super) fn ip(socket: &SocketInfo, bytes: &[u8; 16]) -> Option<(IpAddr, bool)> {
    match socket.family {
        family::INET => {
            let [a, b, c, d, ..] = *bytes;
            Some((Ipv4Addr::new(a, b, c, d).into(), false))
        }
        family::INET6 => {
            let ip = Ipv6Addr::from(*bytes);
            Some(ip.to_ipv4_mapped().map_or((ip.into(), false), |ip| (ip.into(), true)))
        }
        _ => None,
    }
}

/// Whether the socket sends datagrams, to whomever it likes: such ones have cookies and no states.
pub(super) fn is_datagram(socket: &SocketInfo) -> bool {
    matches!(socket.kind, kind::DGRAM | kind::RAW)
}

/// Whether only what it sends is counted, as it receives what is for others too.
pub(super) fn counts_sent_only(socket: &SocketInfo) -> bool {
    socket.kind == kind::RAW
}

/// The remote end as the key of a flow has it: IP version and address, IPv4 in the first four bytes.
pub(super) fn packet_address(socket: &SocketInfo) -> (u8, [u8; 16]) {
    match ip(socket, &socket.remote) {
        Some((IpAddr::V4(ip), _)) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            (4, bytes)
        }
        _ => (6, socket.remote),
    }
}

fn endpoint(socket: &SocketInfo, bytes: &[u8; 16]) -> Option<NetworkEndpoint> {
    let address = match (ip(socket, bytes), socket.family) {
        (Some((ip, _)), _) => ip.to_string(),
        (None, family::VSOCK) => {
            let [a, b, c, d, ..] = *bytes;
            u32::from_ne_bytes([a, b, c, d]).to_string()
        }
        _ => return None,
    };
    // A socket that is bound to no interface has the one that its packets take.
    let scope = if socket.scope == 0 { socket.interface } else { socket.scope };
    let scope_id = if is_of_link(socket, bytes) { scope } else { 0 };
    Some(NetworkEndpoint { address, scope_id, ..NetworkEndpoint::default() })
}

/// Whether an address means something on one link only: `fe80::/10`, and groups of a link or an interface.
fn is_of_link(socket: &SocketInfo, bytes: &[u8; 16]) -> bool {
    socket.family == family::INET6
        && match *bytes {
            [0xfe, second, ..] => second & 0xc0 == 0x80,
            [0xff, second, ..] => matches!(second & 0x0f, 1 | 2),
            _ => false,
        }
}

fn has_ports(socket: &SocketInfo) -> bool {
    match socket.family {
        family::VSOCK => true,
        family::INET | family::INET6 if socket.kind != kind::RAW => {
            PROTOCOLS.iter().any(|(number, _, ports)| *number == socket.protocol && *ports)
        }
        _ => false,
    }
}

fn protocol(socket: &SocketInfo) -> String {
    let number = socket.protocol;
    match socket.family {
        family::INET | family::INET6 => {
            let known = PROTOCOLS.iter().find(|(known, ..)| *known == number);
            known.map_or_else(|| number.to_string(), |(_, name, _)| (*name).to_owned())
        }
        family::NETLINK => lookup(NETLINKS, number).map_or_else(|| number.to_string(), str::to_owned),
        // Not known of one that io_uring made.
        family::PACKET if number == 0 => String::new(),
        family::PACKET => lookup(ETHERNETS, number).map_or_else(|| format!("{number:04x}"), str::to_owned),
        _ => String::new(),
    }
}

fn family_name(number: u16) -> String {
    lookup(FAMILIES, number).map_or_else(|| number.to_string(), str::to_owned)
}

fn interface(socket: &SocketInfo) -> &[u8] {
    let name = &socket.interface_name;
    &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())]
}

fn is_zero(address: &[u8; 16]) -> bool {
    *address == [0; 16]
}

fn lookup(table: &'static [(u16, &str)], number: u16) -> Option<&'static str> {
    table.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}
