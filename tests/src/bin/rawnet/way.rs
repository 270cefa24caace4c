//! The ways into the kernel.

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rustix::io::Errno;

use crate::{
    address::Address,
    call::{Call, SOCKETCALL},
    memory::Memory,
    operations,
    said::Skipped,
    uring::Ring,
};

/// A way into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The system call of this architecture
    Plain,
    /// The entry for 32-bit programs, by `int 0x80`, with the call's own number
    Int80,
    /// That entry, by the one call that old programs have for all of sockets
    Socketcall,
    /// An `io_uring`
    Uring,
    /// An `io_uring` of which a thread of the kernel takes what is to be done
    UringPoll,
    /// An `io_uring` that leaves it to another thread of the kernel
    UringAsync,
}

/// What came of a call.
pub type Done = Result<usize, Errno>;

/// A way that is open, and memory for what is passed.
#[derive(Debug)]
pub struct Way {
    via: Via,
    ring: Option<Ring>,
    memory: Memory,
}

/// A message, as `sendmsg` takes it.
#[derive(Debug)]
pub struct Message<'a> {
    pub to: Option<Address>,
    pub content: &'a [u8],
}

/// `IOSQE_ASYNC`
const URING_ASYNC: u8 = 1 << 4;
/// Length of `struct mmsghdr`: a message and how much of it was sent.
const MMSGHDR: usize = size_of::<libc::mmsghdr>();

// === impl Via ===

impl Via {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Int80 => "int80",
            Self::Socketcall => "socketcall",
            Self::Uring => "uring",
            Self::UringPoll => "uring-poll",
            Self::UringAsync => "uring-async",
        }
    }
}

// === impl Way ===

impl Way {
    /// Opens a way.
    ///
    /// # Errors
    /// `Skipped` where the kernel does not have it.
    pub fn new(via: Via) -> Result<Self> {
        let ring = match via {
            Via::Uring | Via::UringAsync => Some(Ring::new(false)?),
            Via::UringPoll => Some(Ring::new(true)?),
            Via::Plain | Via::Int80 | Via::Socketcall => None,
        };
        if matches!(via, Via::Int80 | Via::Socketcall) && !int80_is_there() {
            return Err(Skipped("the kernel has no entry for 32-bit programs".into()).into());
        }
        Ok(Self { via, ring, memory: Memory::new()? })
    }

    /// As on the command line.
    pub fn name(&self) -> &'static str {
        self.via.name()
    }

    /// Addresses and lengths are of 32 bits.
    fn is_narrow(&self) -> bool {
        matches!(self.via, Via::Int80 | Via::Socketcall)
    }

    /// Makes a call. What it points to must be in memory below 4 GiB that lives until this returns.
    ///
    /// # Errors
    /// `Skipped` when this way does not have the call.
    pub fn call(&mut self, call: Call, arguments: &[usize]) -> Result<Done> {
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        let lacks = || Skipped(format!("there is no {} via {}", call.name(), self.via.name()));
        match self.via {
            Via::Plain => Ok(native(call.native().ok_or_else(lacks)?, six)),
            Via::Int80 => Ok(int80(call.i386().ok_or_else(lacks)?, six)),
            Via::Socketcall => match call.socketcall() {
                Some(number) => {
                    let words: Vec<u8> = six.iter().flat_map(|word| narrow(*word).to_ne_bytes()).collect();
                    let words = self.memory.bytes(&words)?;
                    Ok(int80(SOCKETCALL, [number.into(), words, 0, 0, 0, 0]))
                }
                // What is no call of sockets alone is not part of it.
                None => Ok(int80(call.i386().ok_or_else(lacks)?, six)),
            },
            Via::Uring | Via::UringPoll | Via::UringAsync => {
                let mut entry = operations::of(call, six).ok_or_else(lacks)?;
                if self.via == Via::UringAsync {
                    entry.flags |= URING_ASYNC;
                }
                let ring = self.ring.as_mut().expect("made for this way");
                // SAFETY: the caller passes what the call takes, and this waits until it is done.
                unsafe { ring.perform(entry) }
            }
        }
    }

    /// As [`Self::call`], of one that gives a descriptor.
    fn descriptor(&mut self, call: Call, arguments: &[usize]) -> Result<Result<OwnedFd, Errno>> {
        let done = self.call(call, arguments)?;
        done.map_or_else(
            |errno| Ok(Err(errno)),
            |fd| {
                let fd = i32::try_from(fd).context("a descriptor")?;
                // SAFETY: just made, and nobody else has it.
                Ok(Ok(unsafe { OwnedFd::from_raw_fd(fd) }))
            },
        )
    }

    pub fn socket(&mut self, family: i32, kind: i32, protocol: i32) -> Result<Result<OwnedFd, Errno>> {
        let kind = kind | libc::SOCK_CLOEXEC;
        self.descriptor(Call::Socket, &[argument(family), argument(kind), argument(protocol)])
    }

    pub fn bind(&mut self, socket: i32, to: Address) -> Result<Done> {
        self.with_address(Call::Bind, socket, to)
    }

    pub fn connect(&mut self, socket: i32, to: Address) -> Result<Done> {
        self.with_address(Call::Connect, socket, to)
    }

    fn with_address(&mut self, call: Call, socket: i32, address: Address) -> Result<Done> {
        self.memory.clear();
        let address = address.to_bytes();
        let place = self.memory.bytes(&address)?;
        self.call(call, &[argument(socket), place, address.len()])
    }

    pub fn listen(&mut self, socket: i32, backlog: u32) -> Result<Done> {
        self.memory.clear();
        self.call(Call::Listen, &[argument(socket), backlog as usize])
    }

    /// By `accept`, or by `accept4`.
    pub fn accept(&mut self, call: Call, socket: i32) -> Result<Result<OwnedFd, Errno>> {
        self.memory.clear();
        match call {
            Call::Accept => self.descriptor(call, &[argument(socket), 0, 0]),
            _ => self.descriptor(Call::Accept4, &[argument(socket), 0, 0, argument(libc::SOCK_CLOEXEC)]),
        }
    }

    /// Sends by `write`, `sendto`, `sendmsg` or `sendmmsg`; gives how many bytes were taken.
    ///
    /// # Errors
    /// `Skipped` when this way does not have the call.
    pub fn send(&mut self, call: Call, socket: i32, message: &Message<'_>, flags: i32) -> Result<Done> {
        self.memory.clear();
        let (socket, len) = (argument(socket), message.content.len());
        let content = self.memory.bytes(message.content)?;
        let to = message.to.map(Address::to_bytes).unwrap_or_default();
        let to_place = if to.is_empty() { 0 } else { self.memory.bytes(&to)? };
        match call {
            Call::Write => self.call(call, &[socket, content, len]),
            Call::Sendto => self.call(call, &[socket, content, len, argument(flags), to_place, to.len()]),
            _ => {
                let header = self.header([to_place, to.len(), content, len])?;
                if call == Call::Sendmsg {
                    return self.call(call, &[socket, header, argument(flags)]);
                }
                let done = self.call(Call::Sendmmsg, &[socket, header, 1, argument(flags)])?;
                Ok(done.map(|messages| if messages == 1 { len } else { 0 }))
            }
        }
    }

    /// `struct mmsghdr`, whose first part is `struct msghdr`, and the one vector that it points to.
    fn header(&mut self, [to, to_len, content, len]: [usize; 4]) -> Result<usize> {
        if self.is_narrow() {
            // All are of 32 bits: https://github.com/torvalds/linux/blob/v6.12/include/net/compat.h
            let words = |words: &[usize]| -> Vec<u8> {
                words.iter().flat_map(|word| narrow(*word).to_ne_bytes()).collect()
            };
            let vector = self.memory.bytes(&words(&[content, len]))?;
            return self.memory.bytes(&words(&[to, to_len, vector, 1, 0, 0, 0, 0]));
        }
        let words =
            |words: &[usize]| -> Vec<u8> { words.iter().flat_map(|word| word.to_ne_bytes()).collect() };
        let vector = self.memory.bytes(&words(&[content, len]))?;
        let mut header = words(&[to, to_len, vector, 1]);
        header.resize(MMSGHDR, 0);
        self.memory.bytes(&header)
    }

    pub fn shutdown(&mut self, socket: i32, how: i32) -> Result<Done> {
        self.memory.clear();
        self.call(Call::Shutdown, &[argument(socket), argument(how)])
    }

    /// Closes a descriptor, which nobody has from then on.
    pub fn close(&mut self, socket: OwnedFd) -> Result<Done> {
        use std::os::fd::IntoRawFd as _;
        self.memory.clear();
        self.call(Call::Close, &[argument(socket.into_raw_fd())])
    }
}

/// A number as the register it is passed in.
#[expect(clippy::cast_sign_loss, reason = "the kernel takes it back as a signed number")]
pub fn argument(number: i32) -> usize {
    number as usize
}

/// Of what a 32-bit call is told.
#[expect(clippy::cast_possible_truncation, reason = "addresses are below 4 GiB, numbers of 32 bits")]
fn narrow(word: usize) -> u32 {
    word as u32
}

fn native(number: u16, a: [usize; 6]) -> Done {
    // SAFETY: the caller passes what the call takes; pointers are to live values.
    let result = unsafe { libc::syscall(number.into(), a[0], a[1], a[2], a[3], a[4], a[5]) };
    let error = || Errno::from_io_error(&io::Error::last_os_error()).expect("the error of a system call");
    usize::try_from(result).map_err(|_| error())
}

#[cfg(target_arch = "x86_64")]
fn int80_is_there() -> bool {
    crate::int80::is_there()
}

#[cfg(not(target_arch = "x86_64"))]
fn int80_is_there() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
fn int80(number: u16, arguments: [usize; 6]) -> Done {
    // SAFETY: the caller passes what the call takes; pointers are to memory below 4 GiB.
    let result = unsafe { crate::int80::call(number, arguments) };
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_number: u16, _arguments: [usize; 6]) -> Done {
    Err(Errno::NOSYS)
}
