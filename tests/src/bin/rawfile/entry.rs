//! The ways into the kernel.

use anyhow::{Result, ensure};
use clap::ValueEnum;
use rustix::io::Errno;

use crate::{
    call::{Abi, Call},
    said::Skipped,
    uring::{self, Ring},
};

/// A way into the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Via {
    /// The system call of this architecture
    Plain,
    /// The entry for 32-bit programs, by `int 0x80`
    Int80,
    /// An `io_uring`
    Uring,
    /// An `io_uring` of which a thread of the kernel takes what is to be done
    UringPoll,
    /// The x32 numbers: those of x86-64 with bit 30 set
    X32,
}

/// What came of a call.
pub type Done = Result<usize, Errno>;

/// A way that is open.
#[derive(Debug)]
pub struct Entry {
    via: Via,
    ring: Option<Ring>,
}

/// `__X32_SYSCALL_BIT`
/// <https://github.com/torvalds/linux/blob/v6.12/arch/x86/include/uapi/asm/unistd.h>
const X32: i64 = 0x4000_0000;

// === impl Via ===

impl Via {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Int80 => "int80",
            Self::Uring => "uring",
            Self::UringPoll => "uring-poll",
            Self::X32 => "x32",
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Opens a way.
    ///
    /// # Errors
    /// `Skipped` where the kernel does not have it.
    pub fn new(via: Via) -> Result<Self> {
        let ring = match via {
            Via::Uring | Via::UringPoll => Some(Ring::new(via == Via::UringPoll)?),
            Via::Plain | Via::Int80 | Via::X32 => None,
        };
        let is_there = match via {
            Via::Plain | Via::Uring | Via::UringPoll => true,
            Via::Int80 => int80_is_there(),
            Via::X32 if cfg!(target_arch = "x86_64") => {
                native(X32 | libc::SYS_getpid, [0; 6]) != Err(Errno::NOSYS)
            }
            Via::X32 => false,
        };
        if is_there { Ok(Self { via, ring }) } else { Err(Skipped("ENOSYS".into()).into()) }
    }

    /// Numbers and lengths are of 32 bits.
    pub fn is_narrow(&self) -> bool {
        self.via == Via::Int80
    }

    /// Whether this call can be made this way.
    pub fn has(&self, call: Call) -> bool {
        match self.via {
            Via::Plain | Via::X32 => call.number(Abi::Native).is_some(),
            Via::Int80 => call.number(Abi::I386).is_some(),
            Via::Uring | Via::UringPoll => uring::Entry::of(call, [0; 6]).is_some(),
        }
    }

    /// Makes a call. What it points to must be in a `Memory` or live until then, and be of the right shape.
    ///
    /// # Errors
    /// `Skipped` when this kernel's `io_uring` cannot do it; else when there is no such call this way.
    pub fn call(&mut self, call: Call, arguments: &[usize]) -> Result<Done> {
        ensure!(self.has(call), "{} cannot be called via {}", call.name(), self.via.name());
        let mut six = [0; 6];
        six[..arguments.len()].copy_from_slice(arguments);
        if let (Some(ring), Some(entry)) = (&mut self.ring, uring::Entry::of(call, six)) {
            // SAFETY: the caller passes what the call takes, and this waits until it is done.
            return unsafe { ring.perform(entry) };
        }
        let number = |abi| call.number(abi).expect("a call that can be made this way has a number");
        Ok(match self.via {
            Via::Int80 => int80(number(Abi::I386), six),
            Via::X32 => native(X32 | i64::from(number(Abi::Native)), six),
            Via::Plain | Via::Uring | Via::UringPoll => native(number(Abi::Native).into(), six),
        })
    }
}

fn native(number: i64, a: [usize; 6]) -> Done {
    // SAFETY: the caller passes what the call takes; pointers are to live values.
    let result = unsafe { libc::syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]) };
    let error =
        || Errno::from_io_error(&std::io::Error::last_os_error()).expect("the error of a system call");
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
