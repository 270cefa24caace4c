//! Connections from here.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use rustix::{
    event::{PollFlags, Timespec},
    io::Errno,
};

use crate::{
    address::Address,
    call::Call,
    hand::{self, Hand},
    namespace,
    protocol::Protocol,
    said::{Moment, await_line, errno_of},
    socket::Socket,
    way::{Done, Message, Via, Way},
};

/// Connect, send and receive, and end it
#[derive(Debug, Args)]
pub struct Connect {
    address: Address,
    #[command(flatten)]
    how: How,
    /// How the connection is begun
    #[arg(long, value_enum, default_value = "connect")]
    begin: Begin,
    /// Content to send, in bytes
    #[arg(long, default_value_t = 0)]
    send: u64,
    /// Content to receive, in bytes
    #[arg(long, default_value_t = 0)]
    receive: u64,
    /// How the connection is ended
    #[arg(long, value_enum, default_value = "close")]
    end: End,
    /// Give the connection to another program, which ends it
    #[arg(long, value_enum)]
    hand: Option<Hand>,
    /// Wait for a line when it is connected, before content is sent
    #[arg(long)]
    hold: bool,
    /// Wait for a line before it is ended
    #[arg(long)]
    hold_end: bool,
    /// How often all of it is done, one after another
    #[arg(long, default_value_t = 1)]
    times: u32,
    /// Name of the error that connecting must end with, such as ECONNREFUSED
    #[arg(long, value_parser = errno_of, value_name = "ERROR")]
    expect: Option<Errno>,
}

/// What the socket is like.
#[derive(Debug, Args)]
pub struct How {
    #[arg(long, value_enum, default_value = "tcp")]
    protocol: Protocol,
    /// Way into the kernel
    #[arg(long, value_enum, default_value = "plain")]
    via: Via,
    /// Use an IPv6 socket for an IPv4 address
    #[arg(long)]
    mapped: bool,
    /// Local address and port
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<Address>,
    /// Interface that all must go by
    #[arg(long, value_name = "INTERFACE")]
    device: Option<String>,
    /// Give up when nothing comes back for so long
    #[arg(long, value_name = "MS")]
    user_timeout: Option<i32>,
    /// How often the first packet is sent again
    #[arg(long, value_name = "COUNT")]
    syn_retries: Option<i32>,
    /// Go to another network namespace when the socket is made, which stays in the old one
    #[arg(long)]
    unshare: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Begin {
    /// By `connect`, which comes back when it is connected
    Connect,
    /// By `connect` of a socket that does not block, then `poll`
    Nonblocking,
    /// As that, but the socket is closed before anything comes of it
    Abandoned,
    /// By sending the first content to an address that it is not connected to
    Fastopen,
    /// By `connect` of a socket that waits for the first content
    FastopenConnect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum End {
    /// Close it
    Close,
    /// Close it without lingering, which breaks it
    Abort,
    /// Say that no more is sent, receive until the other side ends, close it
    HalfClose,
    /// Receive until the other side ends or it breaks, close it
    Remote,
    /// Leave it open, and end the process
    Exit,
}

/// How long a connection may take that does not block.
const PATIENCE: Duration = Duration::from_mins(1);

// === impl Connect ===

impl Connect {
    pub fn run(&self) -> Result<()> {
        let mut way = Way::new(self.how.via)?;
        (0..self.times).try_for_each(|_| self.once(&mut way))
    }

    fn once(&self, way: &mut Way) -> Result<()> {
        let remote = if self.how.mapped { self.address.mapped() } else { self.address };
        let mut socket = Socket::open(way, remote.family(), self.how.protocol)?;
        self.how.prepare(&socket, way)?;
        let began = Moment::now();
        let done = self.begin(&mut socket, way, remote)?;
        socket.aims_at(remote);
        let line = socket.line("connect").since(began).with("via", way.name());
        if line.end(done, self.expect)?.is_none() || self.begin == Begin::Abandoned {
            return socket.close(way);
        }
        if self.hold {
            await_line()?;
        }
        let (send, receive) = (self.send - socket.sent, self.receive);
        if let Some(hand) = self.hand {
            return hand::over(hand, socket, way, send);
        }
        socket.exchange(way, send, receive)?;
        if self.hold_end {
            await_line()?;
        }
        self.end(socket, way)
    }

    /// Connects; what came of it.
    fn begin(&self, socket: &mut Socket, way: &mut Way, remote: Address) -> Result<Done> {
        match self.begin {
            Begin::Connect => way.connect(socket.number(), remote),
            Begin::FastopenConnect => {
                socket.set_option(libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1)?;
                way.connect(socket.number(), remote)
            }
            Begin::Fastopen => {
                let len = usize::try_from(self.send).context("what is sent by one call")?;
                let content = vec![0x5a; len];
                let message = Message { to: Some(remote), content: &content };
                // Of a ring it is a message that has an address.
                let call = match self.how.via {
                    Via::Plain | Via::Int80 | Via::Socketcall => Call::Sendto,
                    Via::Uring | Via::UringPoll | Via::UringAsync => Call::Sendmsg,
                };
                let done = way.send(call, socket.number(), &message, libc::MSG_FASTOPEN)?;
                socket.sent += done.unwrap_or(0) as u64;
                // A ring does not wait: where there is no cookie, no content was taken.
                Self::after_progress(socket, done)
            }
            Begin::Abandoned => {
                set_nonblocking(socket, true)?;
                let done = way.connect(socket.number(), remote)?;
                ensure!(done == Err(Errno::INPROGRESS), "connected at once: {done:?}");
                Ok(Ok(0))
            }
            Begin::Nonblocking => {
                set_nonblocking(socket, true)?;
                let done = way.connect(socket.number(), remote)?;
                let done = Self::after_progress(socket, done)?;
                set_nonblocking(socket, false)?;
                Ok(done)
            }
        }
    }

    /// What comes of a connection that was only begun.
    fn after_progress(socket: &Socket, done: Done) -> Result<Done> {
        if done != Err(Errno::INPROGRESS) {
            return Ok(done);
        }
        let patience = Timespec::try_from(PATIENCE).expect("a short time");
        if !socket.await_ready(PollFlags::OUT, patience)? {
            bail!("nothing came of a connection for {PATIENCE:?}");
        }
        Ok(socket.pending_error().map_or(Ok(0), Err))
    }

    fn end(&self, mut socket: Socket, way: &mut Way) -> Result<()> {
        match self.end {
            End::Close => {}
            End::Abort => socket.do_not_linger()?,
            End::HalfClose => {
                let done = way.shutdown(socket.number(), libc::SHUT_WR)?;
                socket.line("shutdown").end(done, None)?;
                socket.drain();
            }
            End::Remote => socket.drain(),
            End::Exit => {
                socket.totals("exit").say()?;
                // The kernel closes it, after all of this program is gone.
                std::process::exit(0);
            }
        }
        socket.close(way)
    }
}

// === impl How ===

impl How {
    /// Sets all that is asked for.
    fn prepare(&self, socket: &Socket, way: &mut Way) -> Result<()> {
        if let Some(device) = &self.device {
            socket.bind_to_device(device)?;
        }
        let options = [(libc::TCP_USER_TIMEOUT, self.user_timeout), (libc::TCP_SYNCNT, self.syn_retries)];
        for (option, value) in options {
            if let Some(value) = value {
                socket.set_option(libc::IPPROTO_TCP, option, value)?;
            }
        }
        if let Some(local) = self.bind {
            socket.bind(way, if self.mapped { local.mapped() } else { local }, None)?;
        }
        if self.unshare {
            namespace::leave()?;
        }
        Ok(())
    }
}

fn set_nonblocking(socket: &Socket, nonblocking: bool) -> Result<()> {
    Ok(rustix::io::ioctl_fionbio(socket, nonblocking)?)
}
