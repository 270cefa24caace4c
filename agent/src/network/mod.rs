//! What is done with sockets: records to network events.
//!
//! A connection or a flow of datagrams is told of twice, when it begins and when it ends, and what tells of the two
//! comes from different places: the kernel ends connections long after the process that made them is gone. So each
//! is kept in a table from the first record to the last.
//!
//! * [`Monitor`]: takes records in, gives [`Act`]s out, and lets time pass.
//! * `connections`: sockets with states, by the address of the kernel's socket. `listeners` finds who listens on a
//!   port, for connections that nobody was seen to accept.
//! * `datagrams`: flows of sockets without states, by the socket's cookie and the remote end. The kernel counts
//!   their packets, the agent looks now and then whether it still does.
//! * `fold`: repeats of the same within a window become one `network.flow`.
//! * `describe`: numbers of the kernel to the words and addresses of the event.
//!
//! All tables are bounded. What has no room is told at once and counted as lost; nothing that is in a table leaves
//! it but by its end.

mod act;
mod closing;
mod connection;
mod connections;
mod datagrams;
mod describe;
mod fold;
mod listeners;
mod monitor;
#[cfg(test)]
mod tests;

pub use act::{Act, Actor, Who, Words};
pub use datagrams::Counts;
pub use monitor::{Known, Monitor, Options};

/// Nanoseconds of a second: all times here are nanoseconds since boot.
const SECOND: u64 = 1_000_000_000;

/// States of sockets that have them: `TCP_*`, which the other protocols use too.
/// <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp_states.h#L12-L30>
mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
}
