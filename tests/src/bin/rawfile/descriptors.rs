//! Descriptors that outlive the moment or the process that opened them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use rustix::{
    fs::OFlags,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
    process::getpid,
};
use serde_json::json;

use crate::{child::Child, opened::Opened, said::say};

/// Acts with descriptors.
#[derive(Debug, Subcommand)]
pub enum Descriptor {
    /// Open a file for writing and pass it to a child, which writes and closes it
    PassedDescriptor { path: PathBuf },
    /// Open a file for writing; write and close it when a line comes for each
    HeldDescriptor { path: PathBuf },
}

const FLAGS: OFlags = OFlags::WRONLY.union(OFlags::CREATE);
const TEXT: &[u8] = b"written\n";

// === impl Descriptor ===

impl Descriptor {
    pub fn run(&self) -> Result<()> {
        match self {
            Self::PassedDescriptor { path } => passed(path),
            Self::HeldDescriptor { path } => held(path),
        }
    }
}

fn passed(path: &Path) -> Result<()> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .context("socketpair")?;
    // The child is there before the file is open, so that it does not have it by its birth.
    let child = Child::start(|_, go_on| {
        let file = Opened::received(receive(&theirs)?)?;
        // Until its parent has closed it: the child's is the last descriptor of the file then.
        go_on.line()?;
        file.write(TEXT)?;
        file.close()
    })?;
    let file = Opened::new(path, FLAGS)?;
    send(&ours, &file)?;
    file.tell("pass")?.with("receiver", child.pid()).say()?;
    file.close()?;
    child.end()
}

fn send(socket: &OwnedFd, file: &Opened) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = [file.fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one descriptor");
    sendmsg(socket, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).context("sendmsg")?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)
        .context("recvmsg")?;
    let descriptors = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().context("no descriptor came")
}

fn held(path: &Path) -> Result<()> {
    let file = Opened::new(path, FLAGS)?;
    say(&json!({"ready": true, "pid": getpid().as_raw_nonzero().get()}))?;
    await_line()?;
    file.write(TEXT)?;
    await_line()?;
    file.close()
}

/// Waits for a line on standard input, or its end.
fn await_line() -> Result<()> {
    io::stdin().read_line(&mut String::new())?;
    Ok(())
}
