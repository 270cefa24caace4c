//! Many connections: one after another, and at once.

use std::{
    io::{self, Write as _},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    address::Address,
    protocol::Protocol,
    said::{Line, Moment, await_line},
    serve::allow_many_files,
    socket::Socket,
    way::{Via, Way},
};

/// Connect, send, receive as much back, and end it, many times in many threads
#[derive(Debug, Args)]
pub struct Churn {
    /// Whom to connect to, by turns
    #[arg(required = true)]
    addresses: Vec<Address>,
    /// Connections
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Threads
    #[arg(long, default_value_t = 32)]
    workers: u64,
    /// Most content of one, in bytes; each has another amount
    #[arg(long, default_value_t = 2000)]
    most: u64,
    /// End some of them otherwise than by closing them
    #[arg(long)]
    mixed: bool,
    /// Say a line about each when all is done
    #[arg(long)]
    lines: bool,
}

/// Open many connections, keep all open until a line comes, and close them
#[derive(Debug, Args)]
pub struct Many {
    /// Whom to connect to, by turns
    #[arg(required = true)]
    addresses: Vec<Address>,
    /// Connections
    #[arg(long, default_value_t = 1000)]
    count: usize,
    /// Content that is sent by each, in bytes
    #[arg(long, default_value_t = 1)]
    send: u64,
    /// Say a line about each when all is done
    #[arg(long)]
    lines: bool,
}

/// What one thread did.
#[derive(Debug, Default)]
struct Done {
    connections: u64,
    sent: u64,
    received: u64,
    lines: Vec<Value>,
}

// === impl Churn ===

impl Churn {
    pub fn run(&self) -> Result<()> {
        let began = Moment::now();
        let work = |worker| move || self.work(worker);
        let done: Result<Vec<Done>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..self.workers).map(|worker| scope.spawn(work(worker))).collect();
            threads.into_iter().map(|thread| thread.join().expect("threads do not panic")).collect()
        });
        tell(&done?, began)
    }

    /// Every so many-th connection.
    fn work(&self, worker: u64) -> Result<Done> {
        let (mut way, mut done) = (Way::new(Via::Plain)?, Done::default());
        let step = usize::try_from(self.workers)?;
        for number in (worker..self.count).step_by(step) {
            let address = self.addresses[usize::try_from(number)? % self.addresses.len()];
            let len = 1 + number * 7919 % self.most;
            let end = match number % 4 {
                1 if self.mixed => "half-close",
                2 if self.mixed => "abort",
                _ => "close",
            };
            let mut socket = connect(&mut way, address).with_context(|| format!("connection {number}"))?;
            socket.exchange(&mut way, len, len)?;
            ensure!(socket.received == len, "{} of {len} bytes came back", socket.received);
            match end {
                "half-close" => {
                    way.shutdown(socket.number(), libc::SHUT_WR)?.context("shutdown")?;
                    socket.drain();
                }
                "abort" => socket.do_not_linger()?,
                _ => {}
            }
            done.count(&socket);
            if self.lines {
                let line = socket.line("connection").with("sent", socket.sent);
                let line = line.with("received", socket.received).with("number", number).with("end", end);
                done.lines.push(line.into_value());
            }
            way.close(socket.into_fd())?.context("close")?;
        }
        Ok(done)
    }
}

fn connect(way: &mut Way, address: Address) -> Result<Socket> {
    let mut socket = Socket::open(way, address.family(), Protocol::Tcp)?;
    way.connect(socket.number(), address)?.context("connect")?;
    socket.aims_at(address);
    Ok(socket)
}

fn tell(done: &[Done], began: Moment) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in done.iter().flat_map(|done| &done.lines) {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    drop(out);
    let sum = |of: fn(&Done) -> u64| done.iter().map(of).sum::<u64>();
    Line::new("totals")
        .with("connections", sum(|done| done.connections))
        .with("sent", sum(|done| done.sent))
        .with("received", sum(|done| done.received))
        .since(began)
        .say()?;
    Ok(())
}

// === impl Many ===

impl Many {
    pub fn run(&self) -> Result<()> {
        allow_many_files()?;
        let (began, mut way) = (Moment::now(), Way::new(Via::Plain)?);
        let mut sockets = Vec::with_capacity(self.count);
        for number in 0..self.count {
            let address = self.addresses[number % self.addresses.len()];
            let mut socket = connect(&mut way, address).with_context(|| format!("connection {number}"))?;
            socket.send(&mut way, self.send)?;
            sockets.push(socket);
        }
        Line::new("ready").with("connections", sockets.len()).since(began).say()?;
        await_line()?;
        let mut done = Done::default();
        for socket in sockets {
            done.count(&socket);
            if self.lines {
                let line = socket.line("connection").with("sent", socket.sent).with("received", 0);
                done.lines.push(line.into_value());
            }
            way.close(socket.into_fd())?.context("close")?;
        }
        tell(&[done], began)
    }
}

// === impl Done ===

impl Done {
    fn count(&mut self, socket: &Socket) {
        self.connections += 1;
        self.sent += socket.sent;
        self.received += socket.received;
    }
}
