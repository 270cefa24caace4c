//! Calls whose address changes while they are made.
//!
//! A second thread writes one address and the other over it, as fast as it can, while the first thread makes the call.
//! Who reads the address when the call begins may see another than the kernel takes. What really happened is told by
//! the socket itself, or by who received what was sent.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use crate::{
    address::Address,
    call::Call,
    memory::Memory,
    protocol::Protocol,
    said::say,
    socket::Socket,
    way::{Via, Way, argument},
};

/// Race a call against a thread that changes its address
#[derive(Debug, Args)]
pub struct Race {
    #[arg(value_enum)]
    act: Raced,
    /// An address of IPv4, with someone who accepts or receives there
    a: Address,
    /// Another
    b: Address,
    #[arg(long, default_value_t = 100)]
    rounds: u32,
    /// Way into the kernel
    #[arg(long, value_enum, default_value = "plain")]
    via: Via,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Raced {
    /// Connect to one of two listeners that are there
    Connect,
    /// Send to one of two sockets, which this program opens itself
    Send,
    /// Begin a connection by sending to one of two listeners that are there
    Fastopen,
}

// === impl Race ===

impl Race {
    pub fn run(&self) -> Result<()> {
        ensure!(
            [self.a, self.b].iter().all(|address| address.family() == libc::AF_INET),
            "only addresses of IPv4 are written at once"
        );
        let mut way = Way::new(self.via)?;
        let mut memory = Memory::new()?;
        let bytes = [self.a, self.b].map(Address::to_bytes);
        let place = memory.bytes(&bytes[0])?;
        // The family, the port and the address are in the first eight bytes; the rest is zero.
        let words = bytes.map(|bytes| u64::from_ne_bytes(bytes[..8].try_into().expect("sixteen bytes")));
        // SAFETY: eight bytes of that memory, at a multiple of 8, which this process changes only so.
        let word = unsafe { AtomicU64::from_ptr(place as *mut u64) };
        let receivers = if self.act == Raced::Send { self.receivers(&mut way)? } else { Vec::new() };
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for bytes in words {
                        word.store(bytes, Ordering::Relaxed);
                    }
                }
            });
            let raced = self.race(&mut way, place, &receivers);
            stop.store(true, Ordering::Relaxed);
            raced
        })
    }

    fn receivers(&self, way: &mut Way) -> Result<Vec<Socket>> {
        let receivers = [self.a, self.b].into_iter().map(|address| {
            let socket = Socket::open(way, address.family(), Protocol::Udp)?;
            socket.bind(way, address, None)?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            Ok(socket)
        });
        receivers.collect()
    }

    fn race(&self, way: &mut Way, place: usize, receivers: &[Socket]) -> Result<()> {
        const LEN: usize = 16;
        let mut memory = Memory::new()?;
        let content = memory.bytes(b"x")?;
        let mut happened = [0_u32; 2];
        for round in 0..self.rounds {
            let protocol = if self.act == Raced::Send { Protocol::Udp } else { Protocol::Tcp };
            let mut socket = Socket::open(way, libc::AF_INET, protocol)?;
            let number = argument(socket.number());
            let done = match self.act {
                Raced::Connect => way.call(Call::Connect, &[number, place, LEN])?,
                Raced::Send => way.call(Call::Sendto, &[number, content, 1, 0, place, LEN])?,
                Raced::Fastopen => {
                    let flags = argument(libc::MSG_FASTOPEN);
                    way.call(Call::Sendto, &[number, content, 1, flags, place, LEN])?
                }
            };
            done.context("a call whose address changes")?;
            let which = match self.act {
                Raced::Send => received_by(receivers)?,
                Raced::Connect | Raced::Fastopen => {
                    socket.aims_at(Address::any());
                    let remote = socket.remote().expect("just set");
                    [self.a, self.b]
                        .iter()
                        .position(|address| *address == remote)
                        .context("a third address")?
                }
            };
            happened[which] += 1;
            socket.aims_at([self.a, self.b][which]);
            let act = if self.act == Raced::Send { "send" } else { "connect" };
            socket.line(act).with("round", round).with("via", way.name()).say()?;
            way.close(socket.into_fd())?.context("close failed")?;
        }
        say(&json!({"summary": true, "a": happened[0], "b": happened[1]}))?;
        Ok(())
    }
}

/// Which of these sockets has got the one datagram that was sent. By way of the loopback interface it is there when
/// the call that sent it is back.
fn received_by(receivers: &[Socket]) -> Result<usize> {
    let mut byte = [0_u8];
    let got: Vec<usize> = (0..receivers.len())
        .filter(|which| {
            rustix::net::recv(&receivers[*which], &mut byte, rustix::net::RecvFlags::empty()).is_ok()
        })
        .collect();
    ensure!(got.len() == 1, "{} of two sockets received a datagram; it should be one", got.len());
    Ok(got[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_differs_between_two_addresses_is_in_one_word() {
        let [a, b] =
            ["127.0.0.1:80", "192.0.2.77:65535"].map(|text| text.parse::<Address>().unwrap().to_bytes());
        assert_eq!(a.len(), 16);
        assert_ne!(a[..8], b[..8]);
        assert_eq!(a[8..], b[8..]);
    }
}
