//! Connections to here.

use std::{io, os::fd::AsFd as _, thread};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use crate::{
    address::Address,
    call::Call,
    child::Child,
    hand::{self, Hand},
    protocol::Protocol,
    said::{Line, await_line},
    socket::Socket,
    way::{Via, Way},
};

/// Listen and accept until a line comes, or the end of standard input
#[derive(Debug, Args)]
pub struct Serve {
    /// Local addresses; of port 0 the kernel chooses one
    #[arg(required = true)]
    addresses: Vec<Address>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    treatment: Treatment,
    /// Processes that accept, made by this one; none: this one accepts
    #[arg(long, default_value_t = 0)]
    workers: u32,
    /// Threads of each that accept
    #[arg(long, default_value_t = 1)]
    threads: u32,
}

/// What the listener is like.
#[derive(Debug, Args)]
struct How {
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// Way into the kernel
    #[arg(long, value_enum, default_value = "plain")]
    via: Via,
    /// Call that accepts: accept or accept4
    #[arg(long, value_enum, default_value = "accept4")]
    call: Call,
    /// Most connections that wait to be accepted
    #[arg(long, default_value_t = 4096)]
    backlog: u32,
    /// Most connections that may bring content with their first packet
    #[arg(long, value_name = "COUNT")]
    fastopen: Option<i32>,
}

/// What becomes of connections.
#[derive(Debug, Clone, Copy, Args)]
struct Treatment {
    /// What is done with each
    #[arg(long, value_enum, default_value = "echo")]
    behaviour: Behaviour,
    /// Content to send before that, in bytes
    #[arg(long, default_value_t = 0)]
    send: u64,
    /// Content to receive before that, in bytes
    #[arg(long, default_value_t = 0)]
    receive: u64,
    /// Give each to another program, which ends it
    #[arg(long, value_enum)]
    hand: Option<Hand>,
    /// Give up when nothing comes back for so long
    #[arg(long, value_name = "MS")]
    user_timeout: Option<i32>,
    /// Say nothing of each, but how many there were
    #[arg(long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Behaviour {
    /// Send back what comes until the other side ends it, close it
    Echo,
    /// Receive until the other side ends it, close it
    Sink,
    /// Close it at once
    Close,
    /// Close it at once without lingering, which breaks it
    Abort,
    /// Say that no more is sent, receive until the other side ends it, close it
    HalfClose,
    /// Keep it open, and close all at the end
    Hold,
    /// Accept none
    Ignore,
}

/// Connections that one thread took, and content of them.
#[derive(Debug, Default)]
struct Totals {
    connections: u64,
    sent: u64,
    received: u64,
}

/// More than tests have open at once.
const OPEN_FILES: u64 = 200_000;

/// Lets this process have as many sockets open as tests want, or at least as many as it may allow itself.
pub fn allow_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map(|maximum| maximum.max(OPEN_FILES));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum: wanted });
    let allowed = Rlimit { current: limit.maximum, maximum: limit.maximum };
    raised.or_else(|_| setrlimit(Resource::Nofile, allowed)).context("cannot allow more open files")
}

// === impl Serve ===

impl Serve {
    pub fn run(&self) -> Result<()> {
        ensure!(self.how.protocol.has_connections(), "there are no connections of {:?}", self.how.protocol);
        ensure!(self.treatment.hand.is_none() || self.threads == 1, "one thread alone can give away");
        if self.treatment.behaviour == Behaviour::Hold {
            allow_many_files()?;
        }
        let mut way = Way::new(self.how.via)?;
        let listeners = self.addresses.iter().map(|address| self.listen(&mut way, *address));
        let listeners = listeners.collect::<Result<Vec<_>>>()?;
        let workers = (0..self.workers).map(|_| Child::start(|_, _| self.work(&listeners)));
        let workers = workers.collect::<Result<Vec<_>>>()?;
        Line::new("ready").with("workers", workers.iter().map(Child::pid).collect::<Vec<_>>()).say()?;
        if workers.is_empty() {
            self.work(&listeners)?;
        } else {
            await_line()?;
        }
        workers.into_iter().try_for_each(Child::end)?;
        listeners.into_iter().try_for_each(|listener| listener.close(&mut way))
    }

    fn listen(&self, way: &mut Way, address: Address) -> Result<Socket> {
        let socket = Socket::open(way, address.family(), self.how.protocol)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        socket.bind(way, address, None)?;
        if let Some(most) = self.how.fastopen {
            socket.set_option(libc::IPPROTO_TCP, libc::TCP_FASTOPEN, most)?;
        }
        let done = way.listen(socket.number(), self.how.backlog)?;
        socket.line("listen").with("backlog", self.how.backlog).with("via", way.name()).end(done, None)?;
        // Of several that wait for one connection, one gets it.
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }

    fn work(&self, listeners: &[Socket]) -> Result<()> {
        let accept = || {
            let mut way = Way::new(self.how.via)?;
            self.accept_all(listeners, &mut way)
        };
        if self.threads == 1 {
            return accept();
        }
        thread::scope(|scope| {
            let threads: Vec<_> = (0..self.threads).map(|_| scope.spawn(accept)).collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("threads do not panic"))
        })
    }

    fn accept_all(&self, listeners: &[Socket], way: &mut Way) -> Result<()> {
        let stdin = io::stdin();
        let (mut totals, mut held) = (Totals::default(), Vec::new());
        let treats = self.treatment.behaviour != Behaviour::Ignore;
        loop {
            let mut polled = vec![PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
            if treats {
                let polled_for = |socket| PollFd::from_borrowed_fd(Socket::as_fd(socket), PollFlags::IN);
                polled.extend(listeners.iter().map(polled_for));
            }
            poll(&mut polled, None)?;
            let mut is_idle = true;
            for (listener, polled) in listeners.iter().zip(&polled[1..]) {
                if polled.revents().is_empty() {
                    continue;
                }
                is_idle = false;
                let accepted = match way.accept(self.how.call, listener.number())? {
                    Ok(fd) => Socket::of(fd),
                    // Another was faster, or whoever connected has gone.
                    Err(Errno::AGAIN | Errno::CONNABORTED) => continue,
                    Err(errno) => return Err(io::Error::from(errno)).context("accept failed"),
                };
                self.treatment.say(|| {
                    accepted.line("accept").with("call", self.how.call.name()).with("via", way.name())
                })?;
                held.extend(self.treatment.treat(accepted, way, &mut totals)?);
            }
            // Whatever came before the end of it all is treated.
            if is_idle && !polled[0].revents().is_empty() {
                break;
            }
        }
        for socket in held {
            self.treatment.close(socket, way, &mut totals)?;
        }
        Line::new("totals")
            .with("connections", totals.connections)
            .with("sent", totals.sent)
            .with("received", totals.received)
            .say()?;
        Ok(())
    }
}

// === impl Treatment ===

impl Treatment {
    fn say(&self, line: impl FnOnce() -> Line) -> Result<()> {
        if !self.quiet {
            line().say()?;
        }
        Ok(())
    }

    /// Does all that is done with a connection; gives it back if it is to be kept.
    fn treat(&self, mut socket: Socket, way: &mut Way, totals: &mut Totals) -> Result<Option<Socket>> {
        totals.connections += 1;
        if let Some(timeout) = self.user_timeout {
            socket.set_option(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, timeout)?;
        }
        if let Some(hand) = self.hand {
            hand::over(hand, socket, way, self.send)?;
            return Ok(None);
        }
        socket.send(way, self.send)?;
        let mut left = self.receive;
        while left > 0 {
            match socket.receive(left) {
                0 => break,
                len => left -= len as u64,
            }
        }
        match self.behaviour {
            Behaviour::Hold | Behaviour::Ignore => return Ok(Some(socket)),
            Behaviour::Echo => loop {
                match socket.receive(u64::MAX) {
                    0 => break,
                    len => socket.send(way, len as u64)?,
                }
            },
            Behaviour::Sink => socket.drain(),
            Behaviour::Close => {}
            Behaviour::Abort => socket.do_not_linger()?,
            Behaviour::HalfClose => {
                let done = way.shutdown(socket.number(), libc::SHUT_WR)?;
                let line = socket.line("shutdown");
                match (done, self.quiet) {
                    (Ok(_), true) => {}
                    (done, _) => drop(line.end(done, None)?),
                }
                socket.drain();
            }
        }
        self.close(socket, way, totals)?;
        Ok(None)
    }

    fn close(&self, socket: Socket, way: &mut Way, totals: &mut Totals) -> Result<()> {
        totals.sent += socket.sent;
        totals.received += socket.received;
        if !self.quiet {
            return socket.close(way);
        }
        let done = way.close(socket.into_fd())?;
        done.map(drop).context("close failed")
    }
}
