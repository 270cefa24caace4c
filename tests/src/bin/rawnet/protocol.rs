//! The kinds of sockets that there are.

use clap::ValueEnum;

/// What a socket is made of: family comes from the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Tcp,
    Mptcp,
    Udp,
    Udplite,
    /// A socket that sends echo requests and needs no privilege
    Ping,
    /// A raw socket of ICMP
    RawIcmp,
    /// A raw socket whose packets have their header of IP from the process, here TCP that begins a connection
    RawSyn,
}

// === impl Protocol ===

impl Protocol {
    /// `SOCK_*`
    pub fn kind(self) -> i32 {
        match self {
            Self::Tcp | Self::Mptcp => libc::SOCK_STREAM,
            Self::Udp | Self::Udplite | Self::Ping => libc::SOCK_DGRAM,
            Self::RawIcmp | Self::RawSyn => libc::SOCK_RAW,
        }
    }

    /// `IPPROTO_*`, of a family.
    pub fn number(self, family: i32) -> i32 {
        match self {
            Self::Tcp => libc::IPPROTO_TCP,
            Self::Mptcp => libc::IPPROTO_MPTCP,
            Self::Udp => libc::IPPROTO_UDP,
            Self::Udplite => libc::IPPROTO_UDPLITE,
            Self::Ping | Self::RawIcmp if family == libc::AF_INET6 => libc::IPPROTO_ICMPV6,
            Self::Ping | Self::RawIcmp => libc::IPPROTO_ICMP,
            Self::RawSyn => libc::IPPROTO_RAW,
        }
    }

    /// Whether it has connections.
    pub fn has_connections(self) -> bool {
        self.kind() == libc::SOCK_STREAM
    }

    /// Whether what is sent is an echo request.
    pub fn is_icmp(self) -> bool {
        matches!(self, Self::Ping | Self::RawIcmp)
    }

    /// Whether there are ports.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Mptcp | Self::Udp | Self::Udplite)
    }
}

/// Name of a protocol of IP, as events have it.
pub fn name_of(number: i32) -> String {
    let name = match number {
        libc::IPPROTO_ICMP => "icmp",
        libc::IPPROTO_TCP => "tcp",
        libc::IPPROTO_UDP => "udp",
        libc::IPPROTO_ICMPV6 => "icmpv6",
        libc::IPPROTO_SCTP => "sctp",
        libc::IPPROTO_UDPLITE => "udplite",
        libc::IPPROTO_RAW => "raw",
        libc::IPPROTO_MPTCP => "mptcp",
        _ => return number.to_string(),
    };
    name.to_owned()
}
