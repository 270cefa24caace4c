//! A relay between an agent and a backend, that can break.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::Backend;

/// Connections through it are reset after some bytes, at another place each time, until it is to hold.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    resets: Arc<AtomicU64>,
    holds: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
}

// === impl Relay ===

impl Relay {
    /// One that breaks from the first connection on.
    pub fn breaking(backend: &Backend) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let relay =
            Self { address, resets: Arc::default(), holds: Arc::default(), connections: Arc::default() };
        let (counted, held, to) = (Arc::clone(&relay.resets), Arc::clone(&relay.holds), backend.address);
        let connections = Arc::clone(&relay.connections);
        thread::spawn(move || {
            for (number, agent) in listener.incoming().enumerate() {
                let (Ok(agent), Ok(backend)) = (agent, TcpStream::connect(to)) else { continue };
                connections.fetch_add(1, Ordering::Relaxed);
                let (mut back, mut answers) =
                    (agent.try_clone().expect("a socket"), backend.try_clone().expect("a socket"));
                thread::spawn(move || io::copy(&mut answers, &mut back));
                let bytes = 20_000 + number as u64 * 7919 % 150_000;
                let (counted, held) = (Arc::clone(&counted), Arc::clone(&held));
                thread::spawn(move || forward(agent, backend, bytes, &held, &counted));
            }
        });
        relay
    }

    /// Where agents find the backend by it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on nothing is reset.
    pub fn hold(&self) {
        self.holds.store(true, Ordering::Relaxed);
    }

    /// How many connections it has broken.
    pub fn resets(&self) -> u64 {
        self.resets.load(Ordering::Relaxed)
    }

    /// How many connections it has carried.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Carries so many bytes, then resets both sides.
fn forward(mut from: TcpStream, mut to: TcpStream, mut bytes: u64, held: &AtomicBool, resets: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(read) = from.read(&mut buffer) else { return };
        if read == 0 {
            let _gone = to.shutdown(Shutdown::Both);
            return;
        }
        let part = (read as u64).min(bytes);
        if held.load(Ordering::Relaxed) {
            if to.write_all(&buffer[..read]).is_err() {
                return;
            }
            continue;
        }
        let sent = to.write_all(&buffer[..usize::try_from(part).expect("it is a part of the buffer")]);
        bytes -= part;
        if sent.is_err() || bytes == 0 {
            resets.fetch_add(1, Ordering::Relaxed);
            // Lingering for no time is what makes the kernel reset it.
            for socket in [&from, &to] {
                let _gone = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
                let _gone = socket.shutdown(Shutdown::Both);
            }
            return;
        }
    }
}
