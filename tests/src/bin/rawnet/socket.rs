//! A socket, and what is true of it.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use serde_json::{Value, json};

use crate::{
    address::Address,
    call::Call,
    protocol::{Protocol, name_of},
    said::{self, Line, Skipped},
    way::{Message, Way},
};

/// An open socket, and how much content went through it so far.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    /// The other end, which the kernel forgets when the connection is broken.
    remote: Option<Address>,
    pub sent: u64,
    pub received: u64,
    /// The error that ended it.
    broken: Option<Errno>,
}

/// As much as is sent or received at once.
pub const CHUNK: usize = 1 << 14;

// === impl Socket ===

impl Socket {
    /// Makes one.
    ///
    /// # Errors
    /// `Skipped` where the kernel has no such sockets.
    pub fn open(way: &mut Way, family: i32, protocol: Protocol) -> Result<Self> {
        let made = way.socket(family, protocol.kind(), protocol.number(family))?;
        match made {
            Ok(fd) => Ok(Self::of(fd)),
            Err(errno @ (Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::NOPROTOOPT)) => {
                Err(Skipped(format!("no sockets of {protocol:?}: {}", said::name_of(errno))).into())
            }
            Err(errno) => Err(io::Error::from(errno)).with_context(|| format!("no socket of {protocol:?}")),
        }
    }

    /// One that was opened elsewhere.
    pub fn of(fd: OwnedFd) -> Self {
        let remote = name(fd.as_raw_fd(), libc::getpeername);
        Self { fd, remote, sent: 0, received: 0, broken: None }
    }

    pub fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub fn local(&self) -> Option<Address> {
        name(self.number(), libc::getsockname)
    }

    pub fn remote(&self) -> Option<Address> {
        self.remote
    }

    /// The other end, as it was asked for: the kernel does not tell it of what failed.
    pub fn aims_at(&mut self, remote: Address) {
        self.remote = name(self.number(), libc::getpeername).or(Some(remote));
    }

    /// Binds it, with a line about that.
    pub fn bind(&self, way: &mut Way, to: Address, expected: Option<Errno>) -> Result<Option<()>> {
        let done = way.bind(self.number(), to)?;
        let mut line = Line::new("bind").all(self.facts()).with("via", way.name());
        if done.is_err() {
            line = line.with("local", to.json());
        }
        Ok(line.end(done, expected)?.map(drop))
    }

    /// A line about it.
    pub fn line(&self, act: &str) -> Line {
        Line::new(act).all(self.facts())
    }

    /// Both ends and what kind it is; what is not there is `null`.
    pub fn facts(&self) -> Value {
        let local = self.local();
        let family = match (local.or(self.remote), self.remote) {
            (_, Some(remote)) if remote.is_ipv4_on_the_wire() => "ipv4",
            (Some(local), _) if local.is_ipv4_on_the_wire() => "ipv4",
            (Some(_), _) => "ipv6",
            (None, _) => "other",
        };
        let protocol = self.number_option(libc::SOL_SOCKET, libc::SO_PROTOCOL).unwrap_or_default();
        let has_ports = matches!(
            protocol,
            libc::IPPROTO_TCP | libc::IPPROTO_MPTCP | libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE
        );
        let end = |address: Address| {
            let mut end = address.json();
            if !has_ports {
                end.as_object_mut().expect("made as one").remove("port");
            }
            end
        };
        // The other end is on this host as well.
        let is_own = |local: Address| self.remote.is_some_and(|remote| remote.is_of_host(local));
        let is_loopback =
            self.remote.or(local).is_some_and(Address::is_loopback) || local.is_some_and(is_own);
        json!({
            "fd": self.number(),
            "family": family,
            "protocol": name_of(protocol),
            "loopback": is_loopback,
            "mapped": self.remote.or(local).is_some_and(Address::is_mapped),
            "local": local.map(end),
            "remote": self.remote.map(end),
            "namespace": self.namespace(),
        })
    }

    /// Inode number of its network namespace.
    fn namespace(&self) -> Option<u64> {
        /// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/sockios.h>
        const SIOCGSKNS: libc::Ioctl = 0x894c;
        // SAFETY: it takes nothing and gives a descriptor.
        let fd = unsafe { libc::ioctl(self.number(), SIOCGSKNS) };
        if fd < 0 {
            return None;
        }
        // SAFETY: just opened, and nobody else has it.
        let namespace = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) };
        rustix::fs::fstat(namespace).ok().map(|stat| stat.st_ino)
    }

    /// What the kernel counts of a TCP connection.
    fn counted(&self) -> Option<Value> {
        // SAFETY: zeros are a value of it.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut len = libc::socklen_t::try_from(size_of_val(&info)).expect("small");
        // SAFETY: as much room as is told.
        let result = unsafe {
            libc::getsockopt(
                self.number(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut len,
            )
        };
        (result == 0).then(|| {
            json!({
                "state": info.tcpi_state,
                "retransmits": info.tcpi_total_retrans,
                "rtt_us": info.tcpi_rtt,
            })
        })
    }

    /// Sets an option that is a number.
    pub fn set_option(&self, level: i32, name: i32, value: i32) -> Result<()> {
        // SAFETY: as many bytes as are told.
        let result = unsafe {
            libc::setsockopt(self.number(), level, name, (&raw const value).cast(), option_len::<i32>())
        };
        ensure!(result == 0, "setsockopt {level} {name}: {}", io::Error::last_os_error());
        Ok(())
    }

    /// An option that is a number.
    pub fn number_option(&self, level: i32, name: i32) -> Option<i32> {
        let (mut value, mut len) = (0_i32, option_len::<i32>());
        // SAFETY: as much room as is told.
        let result =
            unsafe { libc::getsockopt(self.number(), level, name, (&raw mut value).cast(), &raw mut len) };
        (result == 0).then_some(value)
    }

    /// Lets it go by one interface only.
    pub fn bind_to_device(&self, interface: &str) -> Result<()> {
        let len = libc::socklen_t::try_from(interface.len()).context("a short name")?;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
        // SAFETY: as many bytes as are told.
        let result = unsafe { libc::setsockopt(self.number(), level, name, interface.as_ptr().cast(), len) };
        ensure!(result == 0, "SO_BINDTODEVICE {interface}: {}", io::Error::last_os_error());
        Ok(())
    }

    /// Closing it breaks the connection.
    pub fn do_not_linger(&self) -> Result<()> {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let (level, name) = (libc::SOL_SOCKET, libc::SO_LINGER);
        // SAFETY: as many bytes as are told.
        let result = unsafe {
            libc::setsockopt(
                self.number(),
                level,
                name,
                (&raw const linger).cast(),
                option_len::<libc::linger>(),
            )
        };
        ensure!(result == 0, "SO_LINGER: {}", io::Error::last_os_error());
        Ok(())
    }

    /// The error that it has for whoever asks next.
    pub fn pending_error(&self) -> Option<Errno> {
        let number = self.number_option(libc::SOL_SOCKET, libc::SO_ERROR)?;
        (number != 0).then(|| Errno::from_raw_os_error(number))
    }

    /// Waits until something can be done with it.
    pub fn await_ready(&self, flags: PollFlags, patience: Timespec) -> Result<bool> {
        let mut polled = [PollFd::from_borrowed_fd(self.fd.as_fd(), flags)];
        Ok(poll(&mut polled, Some(&patience))? > 0)
    }

    /// Sends so much content, one call after another. An error ends it, and is told at the end.
    pub fn send(&mut self, way: &mut Way, mut len: u64) -> Result<()> {
        let content = [0x5a; CHUNK];
        while len > 0 && self.broken.is_none() {
            let part = usize::try_from(len).unwrap_or(CHUNK).min(CHUNK);
            let message = Message { to: None, content: &content[..part] };
            match way.send(Call::Sendto, self.number(), &message, libc::MSG_NOSIGNAL)? {
                Ok(sent) => {
                    self.sent += sent as u64;
                    len -= sent as u64;
                }
                Err(errno) => self.broken = Some(errno),
            }
        }
        Ok(())
    }

    /// Receives at most so much content; 0 at the end. An error is an end too.
    pub fn receive(&mut self, most: u64) -> usize {
        let mut content = [0_u8; CHUNK];
        let most = usize::try_from(most).unwrap_or(CHUNK).min(CHUNK);
        // SAFETY: as much room as is told.
        let result = unsafe { libc::recv(self.number(), content.as_mut_ptr().cast(), most, 0) };
        let Ok(len) = usize::try_from(result) else {
            self.broken = Errno::from_io_error(&io::Error::last_os_error());
            return 0;
        };
        self.received += len as u64;
        len
    }

    /// Sends and receives by turns, as if whoever is there sends back what it gets.
    pub fn exchange(&mut self, way: &mut Way, mut send: u64, mut receive: u64) -> Result<()> {
        while send > 0 || receive > 0 {
            let part = send.min(CHUNK as u64);
            self.send(way, part)?;
            send -= part;
            let mut expected = if send > 0 { part.min(receive) } else { receive };
            while expected > 0 {
                let len = self.receive(expected) as u64;
                if len == 0 {
                    return Ok(());
                }
                expected -= len;
                receive -= len;
            }
            if self.broken.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Receives until the other side ends it, or it breaks.
    pub fn drain(&mut self) {
        while self.receive(u64::MAX) > 0 {}
    }

    /// The line about its end, which is still to come.
    pub fn totals(&self, act: &str) -> Line {
        let line = self.line(act).with("sent", self.sent).with("received", self.received);
        line.with("broken", self.broken.map(said::name_of)).with("tcp", self.counted())
    }

    /// Closes it, with a line about all that it was.
    pub fn close(self, way: &mut Way) -> Result<()> {
        let line = self.totals("close");
        let done = way.close(self.fd)?;
        line.end(done, None)?;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Inode number of the network namespace of this thread.
pub fn own_namespace() -> Result<u64> {
    let link = fs::read_link("/proc/thread-self/ns/net")?;
    let text = link.to_string_lossy();
    let number = text.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).with_context(|| format!("{text} is no namespace"))
}

fn option_len<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).expect("small")
}

/// Asks for one of the two names of a socket.
fn name(
    socket: RawFd,
    ask: unsafe extern "C" fn(i32, *mut libc::sockaddr, *mut libc::socklen_t) -> i32,
) -> Option<Address> {
    let mut bytes = [0_u8; size_of::<libc::sockaddr_storage>()];
    let mut len = libc::socklen_t::try_from(bytes.len()).expect("small");
    // SAFETY: as much room as is told; the kernel asks for no alignment.
    let result = unsafe { ask(socket, bytes.as_mut_ptr().cast(), &raw mut len) };
    (result == 0).then(|| Address::from_bytes(&bytes[..len as usize])).flatten()
}
