//! What an `io_uring` does for each call.

use crate::{call::Call, uring::Entry};

mod operation {
    pub const FALLOCATE: u8 = 17;
    pub const OPENAT: u8 = 18;
    pub const CLOSE: u8 = 19;
    pub const WRITE: u8 = 23;
    pub const OPENAT2: u8 = 28;
    pub const RENAMEAT: u8 = 35;
    pub const UNLINKAT: u8 = 36;
    pub const MKDIRAT: u8 = 37;
    pub const SYMLINKAT: u8 = 38;
    pub const LINKAT: u8 = 39;
    pub const FSETXATTR: u8 = 41;
    pub const SETXATTR: u8 = 42;
    pub const FTRUNCATE: u8 = 55;
}

// === impl Entry ===

impl Entry {
    /// The operation that does what this call does with these arguments, if there is one.
    pub fn of(call: Call, a: [usize; 6]) -> Option<Self> {
        let new = |operation, fd: usize| Self { operation, fd: int(fd).cast_signed(), ..Self::default() };
        let at = |operation| Self { address: a[1] as u64, ..new(operation, a[0]) };
        Some(match call {
            Call::Openat => Self { operation_flags: int(a[2]), len: int(a[3]), ..at(operation::OPENAT) },
            Call::Openat2 => Self { offset: a[2] as u64, len: int(a[3]), ..at(operation::OPENAT2) },
            Call::Unlinkat => Self { operation_flags: int(a[2]), ..at(operation::UNLINKAT) },
            Call::Mkdirat => Self { len: int(a[2]), ..at(operation::MKDIRAT) },
            Call::Renameat | Call::Renameat2 => Self {
                len: int(a[2]),
                offset: a[3] as u64,
                operation_flags: int(a[4]),
                ..at(operation::RENAMEAT)
            },
            Call::Linkat => Self {
                len: int(a[2]),
                offset: a[3] as u64,
                operation_flags: int(a[4]),
                ..at(operation::LINKAT)
            },
            Call::Symlinkat => {
                Self { address: a[0] as u64, offset: a[2] as u64, ..new(operation::SYMLINKAT, a[1]) }
            }
            Call::Write => {
                // At the place where the descriptor is.
                Self { len: int(a[2]), offset: u64::MAX, ..at(operation::WRITE) }
            }
            Call::Pwrite64 => Self { len: int(a[2]), offset: a[3] as u64, ..at(operation::WRITE) },
            Call::Ftruncate => Self { offset: a[1] as u64, ..new(operation::FTRUNCATE, a[0]) },
            Call::Fallocate => Self {
                len: int(a[1]),
                offset: a[2] as u64,
                address: a[3] as u64,
                ..new(operation::FALLOCATE, a[0])
            },
            Call::Close => new(operation::CLOSE, a[0]),
            Call::Setxattr => Self {
                address: a[1] as u64,
                offset: a[2] as u64,
                len: int(a[3]),
                operation_flags: int(a[4]),
                address3: a[0] as u64,
                ..new(operation::SETXATTR, 0)
            },
            Call::Fsetxattr => Self {
                offset: a[2] as u64,
                len: int(a[3]),
                operation_flags: int(a[4]),
                ..at(operation::FSETXATTR)
            },
            _ => return None,
        })
    }
}

/// Arguments that the kernel takes as `int` are its low half.
#[expect(clippy::cast_possible_truncation, reason = "the kernel cuts it the same way")]
fn int(argument: usize) -> u32 {
    argument as u32
}
