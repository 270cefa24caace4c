//! What an `io_uring` does for each call.

use crate::{call::Call, uring::Entry};

/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/io_uring.h>, but for the last two:
/// <https://github.com/torvalds/linux/blob/v6.11/include/uapi/linux/io_uring.h>
mod operation {
    pub const SENDMSG: u8 = 9;
    pub const ACCEPT: u8 = 13;
    pub const CONNECT: u8 = 16;
    pub const CLOSE: u8 = 19;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const SEND: u8 = 26;
    pub const SHUTDOWN: u8 = 34;
    pub const SOCKET: u8 = 45;
    pub const BIND: u8 = 56;
    pub const LISTEN: u8 = 57;
}

/// The operation that does what this call does with these arguments, if there is one.
pub fn of(call: Call, a: [usize; 6]) -> Option<Entry> {
    let new = |operation| Entry { operation, fd: int(a[0]).cast_signed(), ..Entry::default() };
    let at = |operation| Entry { address: a[1] as u64, ..new(operation) };
    Some(match call {
        // Family, kind and protocol are where others have their descriptor, offset and length.
        Call::Socket => Entry { offset: a[1] as u64, len: int(a[2]), ..new(operation::SOCKET) },
        Call::Connect => Entry { offset: a[2] as u64, ..at(operation::CONNECT) },
        Call::Bind => Entry { offset: a[2] as u64, ..at(operation::BIND) },
        Call::Listen => Entry { len: int(a[1]), ..new(operation::LISTEN) },
        Call::Accept => Entry { offset: a[2] as u64, ..at(operation::ACCEPT) },
        Call::Accept4 => Entry { offset: a[2] as u64, operation_flags: int(a[3]), ..at(operation::ACCEPT) },
        Call::Sendmsg => Entry { len: 1, operation_flags: int(a[2]), ..at(operation::SENDMSG) },
        // With an address it is known by newer kernels only; `sendmsg` does that.
        Call::Sendto if a[4] == 0 => {
            Entry { len: int(a[2]), operation_flags: int(a[3]), ..at(operation::SEND) }
        }
        // At the place where the descriptor is.
        Call::Read => Entry { len: int(a[2]), offset: u64::MAX, ..at(operation::READ) },
        Call::Write => Entry { len: int(a[2]), offset: u64::MAX, ..at(operation::WRITE) },
        Call::Shutdown => Entry { len: int(a[1]), ..new(operation::SHUTDOWN) },
        Call::Close => new(operation::CLOSE),
        Call::Sendto | Call::Sendmmsg => return None,
    })
}

/// Arguments that the kernel takes as `int` are its low half.
#[expect(clippy::cast_possible_truncation, reason = "the kernel cuts it the same way")]
fn int(argument: usize) -> u32 {
    argument as u32
}
