//! What it was done to: objects `file`, `network_endpoint`, `network_connection_info` and `network_traffic`.

use std::net::IpAddr;

use nightjar_proto::v1::{self, FileActivity, FileTarget, NetworkActivity, NetworkEndpoint};
use serde::{Serialize, Serializer};

use super::process::User;
use crate::profile::object::{base_name, object, text};

/// Types of files, one row each: ours, `type_id`.
const TYPES: &[(&str, u32)] = &[
    ("regular", 1),
    ("directory", 2),
    ("char_device", 3),
    ("block_device", 4),
    ("socket", 5),
    ("fifo", 6),
    ("symlink", 7),
];

/// Protocols, one row each: ours, number of the IANA.
const PROTOCOLS: &[(&str, u32)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
    ("raw", 255),
    ("mptcp", 6),
];

fn number(rows: &[(&str, u32)], name: &str) -> Option<u32> {
    rows.iter().find(|(row, _)| *row == name).map(|(_, number)| *number)
}

/// The schema has a number for this type of file.
pub(super) fn is_known_type(name: &str) -> bool {
    number(TYPES, name).is_some()
}

/// The file that a process runs.
pub(super) struct ProgramFile<'a>(pub &'a v1::File);

impl Serialize for ProgramFile<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.0;
        object!(serializer, {
            "name": Some(base_name(&file.path)),
            "path": &file.path,
            "type_id": number(TYPES, "regular"),
            "uid": text(file.inode),
            "volume": &file.device,
            "owner": User::of(file.uid, ""),
            "is_deleted": file.deleted,
        })
    }
}

/// The file that something was done to.
pub(super) struct File<'a>(pub &'a FileActivity);

impl Serialize for File<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let file = self.0;
        object!(serializer, {
            "name": Some(base_name(&file.path)),
            "path": &file.path,
            "type_id": Some(number(TYPES, &file.r#type).unwrap_or(0)),
            "size": file.size,
            "uid": text(file.inode),
            "volume": &file.device,
            "owner": User::of(file.uid, &file.user),
            "is_deleted": file.deleted,
        })
    }
}

/// What came of it: the file under its new name, or the one that was written.
pub(super) struct FileResult<'a>(&'a FileTarget, &'a FileActivity);

impl<'a> FileResult<'a> {
    /// None of kinds that have no result, and where it is not known.
    pub(super) fn of(kind: &str, file: &'a FileActivity) -> Option<Self> {
        file.target.as_ref().filter(|_| has_result(kind)).map(|target| Self(target, file))
    }
}

/// The second name of events of this kind is that of a result.
pub(super) fn has_result(kind: &str) -> bool {
    matches!(kind, "file.rename" | "file.copy")
}

impl Serialize for FileResult<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(target, file) = self;
        object!(serializer, {
            "name": Some(base_name(&target.path)),
            "path": &target.path,
            "type_id": Some(number(TYPES, &file.r#type).unwrap_or(0)),
            "size": target.size,
            "uid": text(target.inode),
            "volume": &target.device,
        })
    }
}

/// The end here is the destination: the other side began, or is to begin.
pub(super) fn is_destination(kind: &str, network: &NetworkActivity) -> bool {
    network.direction == "inbound" || kind == "network.listen"
}

/// One end of a connection.
pub(super) struct Endpoint<'a> {
    pub end: Option<&'a NetworkEndpoint>,
    /// Of the end here.
    pub here: Option<Here<'a>>,
}

/// What is known of the end here alone.
pub(super) struct Here<'a> {
    pub host: &'a str,
    pub interface: &'a str,
}

impl Serialize for Endpoint<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.end.map_or("", |end| &end.address);
        let is_ip = address.parse::<IpAddr>().is_ok();
        object!(serializer, {
            "ip": is_ip.then_some(address),
            // The context ID of vsock.
            "uid": if is_ip { "" } else { address },
            "port": self.end.and_then(port),
            "name": self.end.map_or("", |end| &end.path),
            "hostname": self.here.as_ref().map(|here| here.host),
            "interface_name": self.here.as_ref().map_or("", |here| here.interface),
        })
    }
}

/// Ports of vsock have 32 bits, which the schema has no room for.
pub(super) fn port(end: &NetworkEndpoint) -> Option<u32> {
    end.port.filter(|port| u16::try_from(*port).is_ok())
}

/// How the two ends talk.
pub(super) struct Connection<'a>(pub &'a NetworkActivity);

impl Serialize for Connection<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let network = self.0;
        object!(serializer, {
            "uid": &network.connection,
            "direction_id": Some(match &*network.direction {
                "inbound" => 1,
                "outbound" => 2,
                _ => 0,
            }),
            "protocol_name": &network.protocol,
            "protocol_num": number(PROTOCOLS, &network.protocol),
            "protocol_ver_id": match &*network.family {
                "ipv4" => 4_u32,
                "ipv6" => 6,
                _ => 0,
            },
            // Within the host.
            "boundary_id": u32::from(network.loopback),
        })
    }
}

/// How much went each way: in is to the source, whichever side that is.
pub(super) struct Traffic {
    bytes: [Option<u64>; 2],
    packets: [Option<u64>; 2],
}

impl Traffic {
    /// None where nobody counted.
    pub(super) fn of(kind: &str, network: &NetworkActivity) -> Option<Self> {
        let mut traffic = Self {
            bytes: [network.bytes_received, network.bytes_sent],
            packets: [network.packets_received, network.packets_sent],
        };
        if is_destination(kind, network) {
            traffic.bytes.reverse();
            traffic.packets.reverse();
        }
        (traffic.bytes.iter().chain(&traffic.packets).any(Option::is_some)).then_some(traffic)
    }
}

impl Serialize for Traffic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sum = |[a, b]: [Option<u64>; 2]| Some(a?.saturating_add(b?));
        object!(serializer, {
            "bytes": sum(self.bytes),
            "bytes_in": self.bytes[0],
            "bytes_out": self.bytes[1],
            "packets": sum(self.packets),
            "packets_in": self.packets[0],
            "packets_out": self.packets[1],
        })
    }
}
