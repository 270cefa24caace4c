//! Network namespaces.

use std::{io, mem};

use anyhow::{Result, ensure};
use clap::Args;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{
    address::Address,
    protocol::Protocol,
    said::Line,
    socket::{Socket, own_namespace},
    way::{Via, Way},
};

/// Go to a new network namespace, and talk to itself by its loopback interface
#[derive(Debug, Args)]
pub struct Unshare {
    /// Content to send, in bytes
    #[arg(long, default_value_t = 100)]
    send: u64,
}

/// Goes to a new network namespace, whose loopback interface is up.
pub fn leave() -> Result<()> {
    // SAFETY: descriptors stay shared.
    let done = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    let namespace = own_namespace()?;
    Line::new("unshare").with("namespace", namespace).end(done, None)?;
    raise_loopback()
}

fn raise_loopback() -> Result<()> {
    let mut way = Way::new(Via::Plain)?;
    let socket = Socket::open(&mut way, libc::AF_INET, Protocol::Udp)?;
    // SAFETY: zeros are a value of it.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING)?;
    // SAFETY: a request that lives.
    let result = unsafe { libc::ioctl(socket.number(), libc::SIOCSIFFLAGS, &raw const request) };
    ensure!(result == 0, "cannot raise lo: {}", io::Error::last_os_error());
    Ok(())
}

// === impl Unshare ===

impl Unshare {
    pub fn run(&self) -> Result<()> {
        leave()?;
        let mut way = Way::new(Via::Plain)?;
        let any: Address = "127.0.0.1:0".parse().expect("an address");
        let listener = Socket::open(&mut way, any.family(), Protocol::Tcp)?;
        listener.bind(&mut way, any, None)?;
        let done = way.listen(listener.number(), 8)?;
        listener.line("listen").with("backlog", 8).end(done, None)?;

        let mut ours = Socket::open(&mut way, any.family(), Protocol::Tcp)?;
        let done = way.connect(ours.number(), listener.local().expect("bound"))?;
        ours.aims_at(listener.local().expect("bound"));
        ours.line("connect").end(done, None)?;
        let theirs = way.accept(crate::call::Call::Accept4, listener.number())?;
        let mut theirs = Socket::of(theirs.map_err(io::Error::from)?);
        theirs.line("accept").say()?;

        ours.send(&mut way, self.send)?;
        while theirs.received < self.send && theirs.receive(self.send) > 0 {}
        ours.close(&mut way)?;
        theirs.drain();
        theirs.close(&mut way)?;
        listener.close(&mut way)
    }
}
