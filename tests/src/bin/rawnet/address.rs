//! Addresses of IP with a port, as they are written and as the kernel takes them.

use std::{
    ffi::CString,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    str::FromStr,
};

use serde_json::{Value, json};

/// `192.0.2.1:80`, `[2001:db8::1]:80`, or `[fe80::1%eth0]:80` with the name or the number of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(SocketAddr);

// === impl Address ===

impl Address {
    /// Nothing is known of it: of IPv4, all zero.
    pub fn any() -> Self {
        Self(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
    }

    /// `AF_INET` or `AF_INET6`
    pub fn family(self) -> i32 {
        if self.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 }
    }

    pub fn port(self) -> u16 {
        self.0.port()
    }

    pub fn with_port(mut self, port: u16) -> Self {
        self.0.set_port(port);
        self
    }

    /// An IPv4 address as IPv6 sockets talk to it: `::ffff:192.0.2.1`.
    pub fn mapped(self) -> Self {
        match self.0.ip() {
            IpAddr::V4(ip) => Self(SocketAddr::new(ip.to_ipv6_mapped().into(), self.port())),
            IpAddr::V6(_) => self,
        }
    }

    /// Whether it is an IPv4 address in an IPv6 one.
    pub fn is_mapped(self) -> bool {
        matches!(self.0.ip(), IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some())
    }

    /// What packets to it have.
    pub fn is_ipv4_on_the_wire(self) -> bool {
        self.0.is_ipv4() || self.is_mapped()
    }

    /// Whether both are of the same host, whatever the ports.
    pub fn is_of_host(self, other: Self) -> bool {
        self.0.ip().to_canonical() == other.0.ip().to_canonical()
    }

    /// Both ends of the loopback interface have such an address.
    pub fn is_loopback(self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }

    /// The octets of the address alone.
    pub fn octets(self) -> Vec<u8> {
        match self.0.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        }
    }

    /// As one end of a connection is told.
    pub fn json(self) -> Value {
        let mut end = json!({"address": self.0.ip().to_canonical().to_string(), "port": self.port()});
        if let SocketAddr::V6(six) = self.0
            && six.scope_id() != 0
        {
            end["scope_id"] = six.scope_id().into();
        }
        end
    }

    /// `struct sockaddr_in` or `struct sockaddr_in6`.
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.family_bytes().to_vec();
        bytes.extend(self.port().to_be_bytes());
        match self.0 {
            SocketAddr::V4(four) => {
                bytes.extend(four.ip().octets());
                bytes.extend([0; 8]);
            }
            SocketAddr::V6(six) => {
                bytes.extend(six.flowinfo().to_be_bytes());
                bytes.extend(six.ip().octets());
                bytes.extend(six.scope_id().to_ne_bytes());
            }
        }
        bytes
    }

    fn family_bytes(self) -> [u8; 2] {
        let family = u16::try_from(self.family()).expect("a small number");
        family.to_ne_bytes()
    }

    /// What the kernel gave; nothing of other families.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let family = i32::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
        match family {
            libc::AF_INET => {
                let octets: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
                Some(Self(SocketAddr::new(Ipv4Addr::from(octets).into(), port)))
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
                let scope = u32::from_ne_bytes(bytes.get(24..28)?.try_into().ok()?);
                Some(Self(SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, scope).into()))
            }
            _ => None,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |text: &str| format!("{text} is no address with a port, such as 127.0.0.1:80 or [::1]:80");
        let Some((address, rest)) = text.split_once('%') else {
            return text.parse().map(Self).map_err(|_| wrong(text));
        };
        let (interface, port) = rest.split_once(']').ok_or_else(|| wrong(text))?;
        let index = interface.parse().ok().map_or_else(|| index_of(interface), Ok)?;
        match format!("{address}]{port}").parse() {
            Ok(SocketAddr::V6(mut six)) => {
                six.set_scope_id(index);
                Ok(Self(six.into()))
            }
            _ => Err(wrong(text)),
        }
    }
}

/// Index of an interface in the network namespace of this process.
fn index_of(interface: &str) -> Result<u32, String> {
    let name = CString::new(interface).map_err(|_| "a zero in a name".to_owned())?;
    // SAFETY: a string that ends in zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 { Err(format!("{interface}: {}", io::Error::last_os_error())) } else { Ok(index) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_same_after_they_went_to_the_kernel_and_back() {
        for text in ["127.0.0.1:80", "[2001:db8::1]:443", "[fe80::1%7]:22", "[::ffff:192.0.2.1]:1"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(Address::from_bytes(&address.to_bytes()), Some(address), "{text}");
        }
    }

    #[test]
    fn a_mapped_address_is_shown_as_what_it_is() {
        let mapped = "192.0.2.1:80".parse::<Address>().unwrap().mapped();
        assert!(mapped.is_mapped() && mapped.family() == libc::AF_INET6);
        assert_eq!(mapped.json(), json!({"address": "192.0.2.1", "port": 80}));
    }

    #[test]
    fn an_interface_is_taken_by_its_number() {
        let address: Address = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(address.json(), json!({"address": "fe80::1", "port": 80, "scope_id": 3}));
        assert!("[fe80::1%no-such-interface]:80".parse::<Address>().is_err());
    }
}
