//! What it was done to: `file`, `source`, `destination` and `network`.

use std::net::IpAddr;

use nightjar_proto::v1::{FileActivity, NetworkActivity, NetworkEndpoint};
use serde::{Serialize, Serializer};

use crate::profile::object::{Present, Text, base_name, object, text};

/// Types of files that the schema has a word for, one row each: ours, its.
const TYPES: &[(&str, &str)] = &[("regular", "file"), ("directory", "dir"), ("symlink", "symlink")];

/// The schema's word for a type of file. Empty where it has none.
pub(super) fn type_of(file: &FileActivity) -> &'static str {
    TYPES.iter().find(|(name, _)| *name == file.r#type).map_or("", |(_, word)| word)
}

/// The file that something was done to.
pub(super) struct File<'a> {
    pub kind: &'a str,
    pub file: &'a FileActivity,
}

/// The path that the file has now: after a rename the new one. With it, the old one has no place.
pub(super) fn renamed<'a>(kind: &str, file: &'a FileActivity) -> Option<&'a str> {
    let target = file.target.as_ref().filter(|_| kind == "file.rename")?;
    (!target.path.is_empty()).then_some(&target.path)
}

impl Serialize for File<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { kind, file } = self;
        let path = renamed(kind, file).unwrap_or(&file.path);
        let name = if path.is_empty() { "" } else { base_name(path) };
        object!(serializer, {
            "path": path,
            "name": name,
            "directory": path.rsplit_once('/').map_or("", |(directory, _)| directory),
            "extension": name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map_or("", |(_, last)| last),
            "type": type_of(file),
            "inode": text(file.inode),
            "device": &file.device,
            "mode": &file.mode,
            "uid": file.uid.map(Text),
            "gid": file.gid.map(Text),
            "owner": &file.user,
            "group": &file.group,
            "size": file.size,
            "target_path": file.target.as_ref().filter(|_| file.symbolic).map_or("", |target| &target.path),
        })
    }
}

impl Present for File<'_> {
    fn is_present(&self) -> bool {
        true
    }
}

/// Who began, and whom with.
pub(super) struct Ends<'a> {
    pub source: Option<End<'a>>,
    pub destination: Option<End<'a>>,
}

impl<'a> Ends<'a> {
    /// The end here is the source, unless the other one began. What waits for connections is a destination.
    pub(super) fn of(kind: &str, network: &'a NetworkActivity) -> Self {
        let here = End::of(network.local.as_ref(), network.bytes_sent, network.packets_sent);
        let there = End::of(network.remote.as_ref(), network.bytes_received, network.packets_received);
        if network.direction == "inbound" || kind == "network.listen" {
            Self { source: there, destination: here }
        } else {
            Self { source: here, destination: there }
        }
    }
}

/// One end of a connection, with what it sent.
pub(super) struct End<'a> {
    of: Option<&'a NetworkEndpoint>,
    bytes: Option<u64>,
    packets: Option<u64>,
}

impl<'a> End<'a> {
    fn of(end: Option<&'a NetworkEndpoint>, bytes: Option<u64>, packets: Option<u64>) -> Option<Self> {
        (end.is_some() || bytes.is_some() || packets.is_some()).then_some(Self { of: end, bytes, packets })
    }
}

impl Serialize for End<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let address = self.of.map_or("", |end| &*end.address);
        object!(serializer, {
            "address": if address.is_empty() { self.of.map_or("", |end| &end.path) } else { address },
            "ip": address.parse::<IpAddr>().is_ok().then_some(address),
            "port": self.of.and_then(|end| end.port),
            "bytes": self.bytes,
            "packets": self.packets,
        })
    }
}

/// How the two ends talk.
pub(super) struct Network<'a>(pub &'a NetworkActivity);

impl Serialize for Network<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let network = self.0;
        let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        object!(serializer, {
            "type": &network.family,
            "transport": &network.protocol,
            "direction": match &*network.direction {
                "outbound" => "egress",
                "inbound" => "ingress",
                _ => "",
            },
            "bytes": sum(network.bytes_sent, network.bytes_received),
            "packets": sum(network.packets_sent, network.packets_received),
        })
    }
}
