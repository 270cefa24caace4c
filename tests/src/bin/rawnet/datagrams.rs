//! Datagrams: of UDP, ICMP and raw sockets.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, RawFd},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{
    address::Address,
    call::Call,
    namespace,
    protocol::Protocol,
    said::{Line, await_line, errno_of},
    socket::Socket,
    way::{Message, Via, Way},
};

/// Send datagrams from one socket
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Send {
    /// Whom to send to; those of protocols without ports need one all the same
    #[arg(required = true)]
    addresses: Vec<Address>,
    #[arg(long, value_enum, default_value = "udp")]
    protocol: Protocol,
    /// Way into the kernel
    #[arg(long, value_enum, default_value = "plain")]
    via: Via,
    /// Call that sends: write, sendto, sendmsg or sendmmsg
    #[arg(long, value_enum, default_value = "sendto")]
    call: Call,
    /// Connect the socket to the address, which is only one then
    #[arg(long)]
    connected: bool,
    /// Use an IPv6 socket for IPv4 addresses
    #[arg(long)]
    mapped: bool,
    /// Local address and port
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<Address>,
    /// Datagrams to each address
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Content of each, in bytes
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Wait for an answer to each
    #[arg(long)]
    answered: bool,
    /// How often all of it is done, each time by another socket
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Go to another network namespace when the socket is made, which stays in the old one
    #[arg(long)]
    unshare: bool,
    /// Wait for a line before the first, with the socket open
    #[arg(long)]
    hold: bool,
    /// Wait for a line, then send as much again; as often as this is said
    #[arg(long, action = clap::ArgAction::Count)]
    again: u8,
    /// Wait for a line before the socket is closed
    #[arg(long)]
    hold_end: bool,
    /// Name of the error that the call must end with, such as ENETUNREACH
    #[arg(long, value_parser = errno_of, value_name = "ERROR")]
    expect: Option<Errno>,
}

/// Receive datagrams until a line comes, or the end of standard input, and send each back
#[derive(Debug, Args)]
pub struct Answer {
    /// Local addresses; of port 0 the kernel chooses one
    #[arg(required = true)]
    addresses: Vec<Address>,
    #[arg(long, value_enum, default_value = "udp")]
    protocol: Protocol,
    /// Way into the kernel
    #[arg(long, value_enum, default_value = "plain")]
    via: Via,
    /// Send nothing back
    #[arg(long)]
    silent: bool,
}

/// What went between a socket and one address.
#[derive(Debug, Default, Clone, Copy)]
struct Flow {
    packets_sent: u64,
    sent: u64,
    packets_received: u64,
    received: u64,
}

/// How long an answer may take.
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
/// Length of the headers of IPv4, TCP and an echo request.
const IP_HEADER: usize = 20;
const TCP_HEADER: usize = 20;
const ECHO_HEADER: usize = 8;
const ECHO_REQUEST: u8 = 8;
const ECHO_REQUEST_6: u8 = 128;
const SYN: u8 = 2;

// === impl Send ===

impl Send {
    pub fn run(&self) -> Result<()> {
        ensure!(!self.connected || self.addresses.len() == 1, "a socket is connected to one address only");
        let mut way = Way::new(self.via)?;
        (0..self.times).try_for_each(|_| self.once(&mut way))
    }

    fn once(&self, way: &mut Way) -> Result<()> {
        let addresses: Vec<Address> = self
            .addresses
            .iter()
            .map(|address| if self.mapped { address.mapped() } else { *address })
            .collect();
        let mut socket = Socket::open(way, addresses[0].family(), self.protocol)?;
        if let Some(local) = self.bind {
            socket.bind(way, if self.mapped { local.mapped() } else { local }, None)?;
        }
        if self.connected {
            let done = way.connect(socket.number(), addresses[0])?;
            socket.aims_at(addresses[0]);
            let expected = if self.count == 0 { self.expect } else { None };
            if socket.line("connect").with("via", way.name()).end(done, expected)?.is_none() {
                return Ok(());
            }
        }
        if self.unshare {
            namespace::leave()?;
        }
        if self.hold {
            await_line()?;
        }
        let mut flows = vec![Flow::default(); addresses.len()];
        for round in 0..=self.again {
            if round > 0 {
                await_line()?;
            }
            for (address, flow) in addresses.iter().zip(&mut flows) {
                self.send(way, &mut socket, *address, flow)?;
            }
        }
        if self.hold_end {
            await_line()?;
        }
        for (address, flow) in addresses.iter().zip(&flows) {
            socket.aims_at(*address);
            flow.tell("flow", &socket).say()?;
        }
        way.close(socket.into_fd())?.map(drop).context("close failed")
    }

    /// Sends all datagrams of a round to one address, with a line about the first of all.
    fn send(&self, way: &mut Way, socket: &mut Socket, address: Address, flow: &mut Flow) -> Result<()> {
        let to = if self.connected { None } else { Some(self.target(address)) };
        for number in 0..self.count {
            let content = self.content(address, u16::try_from(number % 0x1_0000)?);
            let message = Message { to, content: &content };
            let done = way.send(self.call, socket.number(), &message, libc::MSG_NOSIGNAL)?;
            if flow.packets_sent == 0 {
                socket.aims_at(address);
                let line = socket.line("send").with("call", self.call.name()).with("via", way.name());
                if line.end(done, self.expect)?.is_none() {
                    return Ok(());
                }
            } else {
                done.with_context(|| format!("cannot send datagram {number}"))?;
            }
            flow.packets_sent += 1;
            flow.sent += self.counted(content.len());
            if self.answered {
                let len =
                    receive(socket.number(), true)?.with_context(|| format!("no answer of {number}"))?.0;
                flow.packets_received += 1;
                flow.received += self.counted(len);
            }
        }
        Ok(())
    }

    /// As raw sockets of IPv6 want it, which take no port.
    fn target(&self, address: Address) -> Address {
        if self.protocol.has_ports() { address } else { address.with_port(0) }
    }

    /// Content without a header of IP, which raw sockets of IPv4 see and write too.
    fn counted(&self, len: usize) -> u64 {
        (if self.protocol == Protocol::RawSyn { len - IP_HEADER } else { len }) as u64
    }

    /// What is sent: an echo request of ICMP, a packet of IP that begins a connection of TCP, or anything.
    fn content(&self, to: Address, number: u16) -> Vec<u8> {
        let mut content = vec![0x5a; self.size];
        match self.protocol {
            protocol if protocol.is_icmp() => {
                let kind = if to.is_ipv4_on_the_wire() { ECHO_REQUEST } else { ECHO_REQUEST_6 };
                let mut packet = vec![kind, 0, 0, 0, 0x12, 0x34];
                packet.extend(number.to_be_bytes());
                assert_eq!(packet.len(), ECHO_HEADER);
                packet.append(&mut content);
                if self.protocol == Protocol::RawIcmp && to.is_ipv4_on_the_wire() {
                    let sum = checksum(&packet).to_be_bytes();
                    packet[2..4].copy_from_slice(&sum);
                }
                packet
            }
            Protocol::RawSyn => syn(to),
            _ => content,
        }
    }
}

/// A packet of IPv4 with a SYN to an address. The kernel fills in where it comes from and the sum of its header.
fn syn(to: Address) -> Vec<u8> {
    const TTL: u8 = 64;
    /// Five words, in the upper half.
    const DATA_OFFSET: u8 = 5 << 4;
    let length = u16::try_from(IP_HEADER + TCP_HEADER).expect("small");
    let mut packet = vec![0x45, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, TTL, 6, 0, 0]);
    packet.extend([0; 4]);
    packet.extend(to.octets());
    packet.extend(45_678_u16.to_be_bytes());
    packet.extend(to.port().to_be_bytes());
    packet.extend([0, 0, 0, 1, 0, 0, 0, 0, DATA_OFFSET, SYN, 0x20, 0, 0, 0, 0, 0]);
    assert_eq!(packet.len(), IP_HEADER + TCP_HEADER);
    packet
}

/// The sum that headers of IP and ICMP have: <https://www.rfc-editor.org/rfc/rfc1071>.
fn checksum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to sixteen bits")
}

/// Receives a datagram: how long it is and where it comes from. Nothing if none came in time.
fn receive(socket: RawFd, waits: bool) -> Result<Option<(usize, Address)>> {
    let mut content = vec![0_u8; 1 << 16];
    let mut name = [0_u8; size_of::<libc::sockaddr_storage>()];
    let mut name_len = libc::socklen_t::try_from(name.len()).expect("small");
    if waits {
        // SAFETY: the caller has it open.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(socket) };
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE))?;
    }
    // SAFETY: as much room as is told, twice.
    let len = unsafe {
        libc::recvfrom(
            socket,
            content.as_mut_ptr().cast(),
            content.len(),
            libc::MSG_DONTWAIT,
            name.as_mut_ptr().cast(),
            &raw mut name_len,
        )
    };
    let Ok(len) = usize::try_from(len) else {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error.into()) };
    };
    let from = Address::from_bytes(&name[..name_len as usize]).unwrap_or_else(Address::any);
    Ok(Some((len, from)))
}

// === impl Answer ===

impl Answer {
    pub fn run(&self) -> Result<()> {
        if !self.protocol.has_ports() || self.protocol.has_connections() {
            bail!("nobody answers for {:?}", self.protocol);
        }
        let mut way = Way::new(self.via)?;
        let sockets = self.addresses.iter().map(|address| {
            let socket = Socket::open(&mut way, address.family(), self.protocol)?;
            socket.bind(&mut way, *address, None)?;
            Ok(socket)
        });
        let mut sockets = sockets.collect::<Result<Vec<_>>>()?;
        Line::new("ready").say()?;
        let mut flows: Vec<BTreeMap<Address, Flow>> = vec![BTreeMap::new(); sockets.len()];
        let stdin = io::stdin();
        loop {
            let mut polled = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
            polled.extend(sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)));
            poll(&mut polled, None)?;
            let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();
            let mut is_idle = true;
            for (number, _) in ready[1..].iter().enumerate().filter(|(_, ready)| **ready) {
                is_idle = false;
                self.answer(&mut way, &mut sockets[number], &mut flows[number])?;
            }
            if is_idle && ready[0] {
                break;
            }
        }
        for (mut socket, flows) in sockets.into_iter().zip(flows) {
            for (remote, flow) in flows {
                socket.aims_at(remote);
                flow.tell("flow", &socket).say()?;
            }
            way.close(socket.into_fd())?.map(drop).context("close failed")?;
        }
        Ok(())
    }

    fn answer(&self, way: &mut Way, socket: &mut Socket, flows: &mut BTreeMap<Address, Flow>) -> Result<()> {
        let Some((len, from)) = receive(socket.number(), false)? else { return Ok(()) };
        let flow = flows.entry(from).or_default();
        flow.packets_received += 1;
        flow.received += len as u64;
        if flow.packets_received == 1 {
            socket.aims_at(from);
            socket.line("receive").say()?;
        }
        if !self.silent {
            let content = vec![0x5a; len];
            let message = Message { to: Some(from), content: &content };
            let done = way.send(Call::Sendmsg, socket.number(), &message, libc::MSG_NOSIGNAL)?;
            done.context("cannot answer")?;
            flow.packets_sent += 1;
            flow.sent += len as u64;
        }
        Ok(())
    }
}

// === impl Flow ===

impl Flow {
    fn tell(&self, act: &str, socket: &Socket) -> Line {
        socket
            .line(act)
            .with("packets_sent", self.packets_sent)
            .with("sent", self.sent)
            .with("packets_received", self.packets_received)
            .with("received", self.received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_as_in_the_example_of_rfc_1071() {
        assert_eq!(!checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }
}
