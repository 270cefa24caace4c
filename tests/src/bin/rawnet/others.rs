//! Sockets that nobody is connected to, and those of unix.

use std::{io, os::fd::AsRawFd as _, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with},
};

use crate::{
    address::Address,
    protocol::Protocol,
    said::{Line, await_line, errno_of, name_of},
    socket::{Socket, own_namespace},
    way::{Via, Way},
};

/// Sockets that nobody is connected to, and those of unix.
#[derive(Debug, Subcommand)]
pub enum Other {
    /// Bind a socket to an address
    Bind {
        address: Address,
        #[arg(long, value_enum, default_value = "tcp")]
        protocol: Protocol,
        /// Way into the kernel
        #[arg(long, value_enum, default_value = "plain")]
        via: Via,
        /// Name of the error that it must end with, such as EADDRINUSE
        #[arg(long, value_parser = errno_of, value_name = "ERROR")]
        expect: Option<Errno>,
    },
    /// Make a socket of a kind that few programs need
    Socket {
        #[arg(value_enum)]
        kind: Kind,
        /// Way into the kernel
        #[arg(long, value_enum, default_value = "plain")]
        via: Via,
    },
    /// Listen on a unix socket, and connect to it when a line comes
    Unix {
        /// Path, or `@` and an abstract name
        path: PathBuf,
        #[arg(long, default_value_t = 1)]
        times: u32,
    },
    /// Connect to a unix socket
    UnixConnect {
        /// Path, or `@` and an abstract name
        path: PathBuf,
        /// Name of the error that it must end with, such as ENOENT
        #[arg(long, value_parser = errno_of, value_name = "ERROR")]
        expect: Option<Errno>,
    },
}

/// Kinds of sockets that see or do what others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// All packets of all interfaces, with their headers
    Packet,
    /// Packets of IPv4, without the headers of the interface
    PacketIpv4,
    /// Tables of routes
    NetlinkRoute,
    /// The records of Linux Audit
    NetlinkAudit,
    /// The firewall
    NetlinkNetfilter,
    /// Whoever runs this virtual machine
    Vsock,
}

// === impl Kind ===

impl Kind {
    /// Family, kind and protocol.
    fn numbers(self) -> [i32; 3] {
        // In the order of the wire, as packets have it.
        let packets = |ethernet: i32| i32::from(u16::try_from(ethernet).expect("16 bits").to_be());
        match self {
            Self::Packet => [libc::AF_PACKET, libc::SOCK_RAW, packets(libc::ETH_P_ALL)],
            Self::PacketIpv4 => [libc::AF_PACKET, libc::SOCK_DGRAM, packets(libc::ETH_P_IP)],
            Self::NetlinkRoute => [libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE],
            Self::NetlinkAudit => [libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT],
            Self::NetlinkNetfilter => [libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER],
            Self::Vsock => [libc::AF_VSOCK, libc::SOCK_STREAM, 0],
        }
    }
}

// === impl Other ===

impl Other {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::Bind { address, protocol, via, expect } => {
                let mut way = Way::new(*via)?;
                let socket = Socket::open(&mut way, address.family(), *protocol)?;
                socket.bind(&mut way, *address, *expect)?;
                way.close(socket.into_fd())?.map(drop).context("close failed")
            }
            Self::Socket { kind, via } => {
                let [family, kind, protocol] = kind.numbers();
                let mut way = Way::new(*via)?;
                let done = way.socket(family, kind, protocol)?;
                let line = Line::new("socket").with("via", way.name()).with("namespace", own_namespace()?);
                line.end(done, None)?;
                Ok(())
            }
            Self::Unix { path, times } => {
                let address = unix_address(path)?;
                let listener =
                    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
                bind(&listener, &address).with_context(|| format!("cannot bind {}", path.display()))?;
                listen(&listener, 128)?;
                Line::new("ready").say()?;
                await_line()?;
                (0..*times).try_for_each(|_| connect_unix(path, None))
            }
            Self::UnixConnect { path, expect } => connect_unix(path, *expect),
        }
    }
}

fn unix_address(path: &PathBuf) -> Result<SocketAddrUnix> {
    let text = path.to_string_lossy();
    let address = match text.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(path),
    };
    address.map_err(io::Error::from).with_context(|| format!("{text} is no name of a socket"))
}

fn connect_unix(path: &PathBuf, expected: Option<Errno>) -> Result<()> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let done = connect(&socket, &unix_address(path)?);
    let line = Line::new("connect").with("path", path.to_string_lossy()).with("fd", socket.as_raw_fd());
    let line = line.with("error", done.err().map(name_of));
    line.end(done, expected)?;
    Ok(())
}
