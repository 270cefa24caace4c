//! Why a connection ended.

use nightjar_abi::record::{SocketState, socket_flags};

use super::state;

/// Who said first that it sends no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Local,
    Remote,
}

/// Errors that tell who broke a connection, and how.
const BROKEN: &[(i32, &str)] =
    &[(libc::ECONNRESET, "reset_by_remote"), (libc::EPIPE, "reset_by_remote"), (libc::ETIMEDOUT, "timeout")];

/// Who said first that it sends no more, of a connection in this state.
pub(super) fn side_of(state: u8) -> Option<Side> {
    match state {
        state::FIN_WAIT1 | state::FIN_WAIT2 | state::CLOSING | state::TIME_WAIT => Some(Side::Local),
        state::CLOSE_WAIT | state::LAST_ACK => Some(Side::Remote),
        _ => None,
    }
}

/// The reason of a connection's end, of which `first` was seen before.
pub(super) fn reason(record: &SocketState, first: Option<Side>) -> &'static str {
    if record.errno != 0 {
        let known = BROKEN.iter().find(|(number, _)| number.cast_unsigned() == record.errno);
        return known.map_or("error", |(_, reason)| reason);
    }
    let by_flag = || (record.flags & socket_flags::REMOTE_ENDED != 0).then_some(Side::Remote);
    match first.or_else(|| side_of(record.old)).or_else(by_flag) {
        Some(Side::Local) => "closed",
        Some(Side::Remote) => "closed_by_remote",
        None => "reset",
    }
}
