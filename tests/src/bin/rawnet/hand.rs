//! Connections that another process or another program ends than the one that began them.

use std::{
    env,
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    path::PathBuf,
    process::Command,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

use crate::{
    child::Child,
    said::Line,
    socket::Socket,
    way::{Via, Way},
};

/// How another comes by a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Hand {
    /// It is passed over a unix socket to a child, which does not have it by its birth
    Passed,
    /// A child has it by its birth
    Inherited,
    /// This process runs another program, which has it
    Executed,
}

/// Use a connection that is open already, and end it
#[derive(Debug, Args)]
pub struct Adopt {
    descriptor: RawFd,
    /// Content to send, in bytes
    #[arg(long, default_value_t = 0)]
    send: u64,
}

/// Names the program that is run with a connection, where it is not this one.
const PROGRAM: &str = "RAWNET_PROGRAM";

/// Gives a connection away; whoever has it sends so much and closes it, which is its end.
pub fn over(hand: Hand, socket: Socket, way: &mut Way, send: u64) -> Result<()> {
    match hand {
        Hand::Passed => pass(socket, way, send),
        Hand::Inherited => {
            let number = socket.number();
            let child = Child::start(|_, go_on| {
                // Until its parent has closed it.
                go_on.line()?;
                use_and_close(take(number), send)
            })?;
            drop(socket);
            child.end()
        }
        Hand::Executed => {
            let number = socket.number();
            Line::new("exec").say()?;
            let fd = socket.into_fd();
            fcntl_setfd(&fd, FdFlags::empty())?;
            let program =
                env::var_os(PROGRAM).map_or_else(env::current_exe, |path| Ok(PathBuf::from(path)))?;
            let mut command = Command::new(program);
            command.args(["adopt", &number.to_string(), "--send", &send.to_string()]);
            Err(command.exec()).context("cannot run the other program")
        }
    }
}

fn pass(socket: Socket, way: &mut Way, send: u64) -> Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    let number = socket.number();
    let child = Child::start(|_, go_on| {
        // What it has by its birth.
        drop(take(number));
        let passed = receive(&theirs)?;
        // Until its parent has closed it.
        go_on.line()?;
        use_and_close(passed, send)
    })?;
    give(&ours, socket.as_fd())?;
    socket.line("pass").with("receiver", child.pid()).with("via", way.name()).say()?;
    drop(socket);
    child.end()
}

/// A descriptor that this process was born with or given, where nothing else in it uses it.
fn take(number: RawFd) -> OwnedFd {
    // SAFETY: only this function's caller uses it in that process.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn give(to: &OwnedFd, socket: BorrowedFd<'_>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [socket];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one descriptor");
    sendmsg(to, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).context("sendmsg")?;
    Ok(())
}

fn receive(from: &OwnedFd) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(from, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context("recvmsg")?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().context("no descriptor came")
}

fn use_and_close(fd: OwnedFd, send: u64) -> Result<()> {
    let mut way = Way::new(Via::Plain)?;
    let mut socket = Socket::of(fd);
    socket.send(&mut way, send)?;
    socket.close(&mut way)
}

// === impl Adopt ===

impl Adopt {
    pub fn run(&self) -> Result<()> {
        use_and_close(take(self.descriptor), self.send)
    }
}
