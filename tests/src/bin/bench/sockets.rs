//! Connections and datagrams over the loopback interface, one after another.

use std::{
    fs,
    io::{self, Read as _},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::{Shutdown, shutdown};

use crate::sys;

/// Where servers listen, each in a network of its own. What is told of it is told from all else by it.
pub const PORT: u16 = 4710;
/// As long as a small question or answer of DNS.
const LENGTH: usize = 64;
/// Longer than anything takes on the loopback interface.
const PATIENCE: Duration = Duration::from_secs(5);

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);

/// A client and a server of TCP. The server, a thread, accepts and closes at once; the client connects, waits for the
/// end and closes too.
pub struct Connector {
    listener: Arc<TcpListener>,
    server: Option<JoinHandle<io::Error>>,
}

/// A sender and a receiver of UDP in one thread.
pub struct Datagrams {
    sender: UdpSocket,
    receiver: UdpSocket,
}

/// Puts this thread, and those that it starts, in a network of their own, where a port is free, no filter of the host
/// is in the way, and connections leave nothing behind.
pub fn isolate() -> Result<()> {
    sys::own_network()?;
    // A port is else not free again for a minute, and the table of those that are not slows what is measured.
    // <https://github.com/torvalds/linux/blob/v6.12/net/ipv4/inet_timewait_sock.c#L178-L185>
    fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0").context("TIME_WAIT cannot be switched off")
}

// === impl Connector ===

impl Connector {
    pub fn new() -> Result<Self> {
        let listener = Arc::new(TcpListener::bind(SERVER)?);
        let own = Arc::clone(&listener);
        let server = thread::spawn(move || {
            loop {
                // Dropped, it is closed.
                if let Err(error) = own.accept() {
                    // Whoever connects now is refused.
                    let _ = shutdown(&*own, Shutdown::Both);
                    return error;
                }
            }
        });
        Ok(Self { listener, server: Some(server) })
    }

    /// A connection is made, accepted, closed by the server, and closed by the client.
    pub fn connect(&mut self) -> Result<()> {
        let outcome = TcpStream::connect(SERVER).and_then(|mut stream| stream.read(&mut [0]));
        match outcome {
            Ok(read) => {
                ensure!(read == 0, "the server sent something");
                Ok(())
            }
            Err(error) => Err(error).context(match self.stop() {
                Some(server) => format!("the server ended: {server}"),
                None => "no connection".to_owned(),
            }),
        }
    }

    /// Ends the server; tells why it ended.
    fn stop(&mut self) -> Option<anyhow::Error> {
        let server = self.server.take()?;
        // Wakes it up: who listens no more cannot accept.
        let _ = shutdown(&*self.listener, Shutdown::Both);
        Some(server.join().map_or_else(|_| anyhow!("the server panicked"), anyhow::Error::from))
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Datagrams ===

impl Datagrams {
    pub fn new() -> Result<Self> {
        let receiver = UdpSocket::bind(SERVER)?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        sender.connect(SERVER)?;
        Ok(Self { sender, receiver })
    }

    /// So many are sent, then received: few enough to fit in the buffer of the receiver.
    pub fn exchange(&self, count: u32) -> Result<()> {
        for _ in 0..count {
            self.sender.send(&[0; LENGTH])?;
        }
        for _ in 0..count {
            self.receiver.recv(&mut [0; LENGTH]).context("a datagram is missing")?;
        }
        Ok(())
    }
}
