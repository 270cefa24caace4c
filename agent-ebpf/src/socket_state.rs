//! `network.connect`, `network.listen`, `network.close`: sockets with connections, by their changes of state.
//!
//! The kernel changes it whatever led to it: a system call of either size, `io_uring`, a packet. Only some changes
//! are made while the process runs that wants them; who runs at the others is nobody in particular.

use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_skc_to_tcp_sock},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{Kind, SocketCall, SocketState, socket_act, socket_change, socket_flags},
};

use crate::{
    globals,
    kernel::{Access, Probed, Ptr, Typed, has},
    send::Count,
    socket::{self, IPPROTO_MPTCP, IPPROTO_TCP},
    task,
};

/// <https://github.com/torvalds/linux/blob/v6.12/include/net/tcp_states.h#L12-L28>
pub const ESTABLISHED: u32 = 1;
const SYN_SENT: u32 = 2;
const SYN_RECV: u32 = 3;
const FIN_WAIT1: u32 = 4;
pub const CLOSE: u32 = 7;
const CLOSE_WAIT: u32 = 8;
const LAST_ACK: u32 = 9;
pub const LISTEN: u32 = 10;
/// `SOCK_DONE`: the other side sent its end.
const SOCK_DONE: u64 = 1 << 1;

/// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`, called before the change.
/// <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sock.h#L141-L145>
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn socket_state(ctx: BtfTracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::SocketState) else { return 0 };
    let (old, new) = (ctx.arg::<i32>(1) as u32, ctx.arg::<i32>(2) as u32);
    let Some(sock) = Ptr::<Sock, Typed>::new(ctx.arg::<*const u8>(0)) else {
        count.dropped(DropReason::ReadFault);
        return 0;
    };
    if is_of_others(sock) {
        count.filtered();
        return 0;
    }
    match new {
        SYN_SENT => begin(count, sock, socket_act::CONNECT),
        LISTEN => begin(count, sock, socket_act::LISTEN),
        ESTABLISHED | FIN_WAIT1 | LAST_ACK | CLOSE if old != new => change(count, sock, old, new),
        _ => count.filtered(),
    }
    0
}

/// Whether nobody has this socket for itself: the part of a multipath connection, which is told of as a whole. And sockets
/// whose states mean other things, as those of SCTP.
#[inline(always)]
fn is_of_others(sock: Ptr<Sock, Typed>) -> bool {
    match sock.get(SOCK_PROTOCOL) {
        IPPROTO_TCP if has(TCP_IS_MPTCP) => {
            // SAFETY: a typed pointer to a socket; null where it is not of TCP.
            let tcp = unsafe { bpf_skc_to_tcp_sock(sock.address() as *mut _) };
            Ptr::<TcpSock, Typed>::new(tcp.cast()).is_some_and(|tcp| tcp.get(TCP_IS_MPTCP) & 1 != 0)
        }
        IPPROTO_TCP | IPPROTO_MPTCP => false,
        _ => true,
    }
}

/// A process connects or listens.
#[inline(always)]
fn begin(count: Count, sock: Ptr<Sock, Typed>, act: u32) {
    if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        begin_by(count, sock, act, Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()));
    } else {
        // SAFETY: no preconditions.
        begin_by(count, sock, act, Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8));
    }
}

#[inline(always)]
fn begin_by<A: Access>(count: Count, sock: Ptr<Sock, Typed>, act: u32, task: Option<Ptr<Task, A>>) {
    let Some(task) = task else {
        count.dropped(DropReason::ReadFault);
        return;
    };
    let Some(mut entry) = count.reserve::<SocketCall>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is our own memory.
    unsafe {
        if task::write_info(&raw mut (*record).info, task).is_none() {
            entry.discard(0);
            count.dropped(DropReason::ReadFault);
            return;
        }
        socket::clear_call(record);
        socket::write(&raw mut (*record).socket, sock, sock.address());
        (*record).act = act;
        (*record).flags = socket_flags::ACTED;
        if act == socket_act::LISTEN {
            (*record).value = u64::from(sock.get(SOCK_BACKLOG));
        }
        (*record).header = count.header(Kind::SocketCall, size_of::<SocketCall>() as u64);
    }
    count.submit(entry);
}

#[inline(always)]
fn change(count: Count, sock: Ptr<Sock, Typed>, old: u32, new: u32) {
    let Some(mut entry) = count.reserve::<SocketState>() else { return };
    let record = entry.as_mut_ptr();
    let errno = sock.get(SOCK_ERROR);
    // A process sends its end, or ends without one; what packets and timers end they give a reason.
    let acted = match new {
        FIN_WAIT1 | LAST_ACK => true,
        CLOSE => errno == 0 && matches!(old, ESTABLISHED | SYN_SENT | SYN_RECV | CLOSE_WAIT | LISTEN),
        _ => false,
    };
    let remote_ended = sock.get(SOCK_FLAGS) & SOCK_DONE != 0;
    // SAFETY: the reserved record is our own memory.
    unsafe {
        socket::clear_state(record);
        if new == FIN_WAIT1 || new == LAST_ACK {
            // Who ends it is all that is news.
            socket::clear(&raw mut (*record).socket);
            (*record).socket.socket = sock.address();
        } else {
            socket::write(&raw mut (*record).socket, sock, sock.address());
            if new == CLOSE && (*record).socket.local_port == 0 {
                // Given back by now, but not forgotten. Behind the end of the type that the verifier knows.
                let place = &raw mut (*record).socket.socket;
                if let Some(sock) = Ptr::<Sock, Probed>::new(place.read_volatile() as *const u8) {
                    (*record).socket.local_port = u16::from_be(sock.get(INET_LOCAL_PORT));
                }
            }
        }
        let mut flags = if remote_ended { socket_flags::REMOTE_ENDED } else { 0 };
        if acted && let Some(task) = socket::current() {
            (*record).task = task;
            flags |= socket_flags::ACTED;
        }
        if new == CLOSE && sock.get(SOCK_PROTOCOL) == IPPROTO_TCP {
            // SAFETY: a typed pointer to a socket; null where it is not of TCP.
            let tcp = bpf_skc_to_tcp_sock(sock.address() as *mut _);
            if let Some(tcp) = Ptr::<TcpSock, Typed>::new(tcp.cast()) {
                totals(record, tcp, remote_ended);
            }
        }
        (*record).change = socket_change::STATE;
        (*record).errno = errno;
        (*record).old = old as u8;
        (*record).new = new as u8;
        (*record).flags = flags;
        (*record).header = count.header(Kind::SocketState, size_of::<SocketState>() as u64);
    }
    count.submit(entry);
}

/// What went to and fro. The end of the other side takes a place among the bytes received.
#[inline(always)]
fn totals(record: *mut SocketState, tcp: Ptr<TcpSock, Typed>, remote_ended: bool) {
    // SAFETY: `record` is our own memory.
    unsafe {
        (*record).bytes_sent = tcp.get(TCP_BYTES_SENT).saturating_sub(tcp.get(TCP_BYTES_RETRANSMITTED));
        (*record).bytes_received = tcp.get(TCP_BYTES_RECEIVED).saturating_sub(u64::from(remote_ended));
        (*record).packets_sent = tcp.get(TCP_SEGMENTS_SENT);
        (*record).packets_received = tcp.get(TCP_SEGMENTS_RECEIVED);
        (*record).retransmits = tcp.get(TCP_RETRANSMITS);
        (*record).rtt_us = tcp.get(TCP_ROUND_TRIP) >> 3;
    }
}
