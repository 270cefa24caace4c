//! The one reader of raw memory in the agent.
#![allow(unsafe_code, reason = "the only place where bytes become a structure")]

use super::{
    Anchor, Credentials, Creds, Exec, ExecFailed, Exit, FileCall, FileInfo, FileOpen, Fork, Header,
    Namespaces, NewCgroup, Operand, Snapshot, SocketCall, SocketInfo, SocketState, Span, TaskInfo, TaskRef,
};

/// A layout that any bytes are a valid value of.
///
/// # Safety
/// The type must be `repr(C)` without padding and consist of plain numbers only.
pub(super) unsafe trait Body: Copy {}

macro_rules! bodies {
    ($($name:ty),*) => { $(
        // SAFETY: `nightjar_abi::record` asserts that its layouts have no padding; their fields are numbers,
        // arrays of numbers and each other.
        unsafe impl Body for $name {}
    )* };
}

bodies!(Header, Span, TaskRef, Creds, Namespaces, TaskInfo, FileInfo, Anchor, Operand);
bodies!(Exec, ExecFailed, Fork, Exit, Credentials, Snapshot, NewCgroup, FileOpen, FileCall);
bodies!(SocketInfo, SocketCall, SocketState);

/// The first bytes as a `T`, if there are as many.
pub(super) fn read<T: Body>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: there are as many bytes as a `T` has, any bytes are a `T`, and the read does not ask for
    // alignment.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
