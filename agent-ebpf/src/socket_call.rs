//! What calls on sockets come to where no change of state tells of it: `network.accept`, `network.socket`, binds and
//! connects that are refused, connections to unix sockets.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{
        bpf_get_current_task,
        generated::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user},
    },
    macros::{btf_tracepoint, map, tracepoint},
    maps::HashMap,
    programs::{BtfTracePointContext, TracePointContext},
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    network::{UNIX_PATH_MAX, UNIX_SOCKETS, UnixName},
    record::{Kind, SocketCall, SocketInfo, Span, socket_act, socket_call, socket_flags},
};

use crate::{
    globals,
    kernel::{Access, Probed, Ptr, Typed, bound, has},
    send::{Claim, Count, Scratch},
    socket::{self, AF_INET, AF_INET6, AF_UNIX, IPPROTO_MPTCP, IPPROTO_TCP, SOCK_RAW, SOCK_STREAM},
    syscall,
    tail::Tail,
    task, watch,
};

const START: usize = size_of::<SocketCall>();
const ROOM: u32 = 0x7FFF;

const SYS_SOCKET: u32 = 41;
const SYS_CONNECT: u32 = 42;
const SYS_ACCEPT: u32 = 43;
const SYS_BIND: u32 = 49;
const SYS_LISTEN: u32 = 50;
const SYS_ACCEPT4: u32 = 288;

const EINTR: i64 = 4;
const EISCONN: i64 = 106;
const EALREADY: i64 = 114;
const EINPROGRESS: i64 = 115;
/// A call that a signal interrupts is made again: <https://github.com/torvalds/linux/blob/v6.12/include/linux/errno.h>
const ERESTARTSYS: i64 = 512;
const ERESTART_RESTARTBLOCK: i64 = 516;

const IPPROTO_UDP: u16 = 17;
const IPPROTO_ICMP: u16 = 1;
const IPPROTO_ICMPV6: u16 = 58;
const IPPROTO_UDPLITE: u16 = 136;
const AF_NETLINK: u16 = 16;
const AF_PACKET: u16 = 17;
const SOCK_DGRAM: u16 = 2;
/// Protocols of netlink that every program uses: routes, the events of devices, the generic one.
const NETLINK_ROUTE: u16 = 0;
const NETLINK_KOBJECT_UEVENT: u16 = 15;
const NETLINK_GENERIC: u16 = 16;

/// `IORING_OP_*`
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/io_uring.h#L211-L275>
const URING_ACCEPT: u8 = 13;
const URING_CONNECT: u8 = 16;
const URING_SOCKET: u8 = 45;

/// Names of unix sockets that connections to are told of.
#[map]
static UNIX_NAMES: HashMap<UnixName, u64> = HashMap::with_max_entries(UNIX_SOCKETS, 0);

/// What came back from where, and what it is about.
#[derive(Clone, Copy)]
struct Call {
    number: u32,
    result: i64,
    /// Address of the `struct sock`.
    sock: u64,
    /// The address that the process gave, and its length.
    given: u64,
    given_len: u64,
    /// The protocol that was asked for, of a new socket.
    protocol: u16,
}

/// A call returned.
#[tracepoint]
pub fn socket_call(ctx: TracePointContext) -> i32 {
    let Some(count) = Count::seen(Hook::SocketCall) else { return 0 };
    let (number, result) = (syscall::number_of(&ctx), syscall::result(&ctx));
    let wanted = match number {
        SYS_ACCEPT | SYS_ACCEPT4 | SYS_SOCKET => result >= 0,
        SYS_CONNECT => is_told(result),
        SYS_BIND | SYS_LISTEN => true,
        _ => false,
    };
    if wanted {
        with_task(count, number, result, 0);
    } else {
        count.filtered();
    }
    0
}

/// Whether what `connect` comes back with may be news: not that it goes on, and not that it was interrupted.
#[inline(always)]
fn is_told(result: i64) -> bool {
    let errno = -result;
    if result == 0 {
        return socket::settings().is_some_and(|settings| settings.unix != 0);
    }
    errno != EINPROGRESS
        && errno != EALREADY
        && errno != EISCONN
        && errno != EINTR
        && !(ERESTARTSYS..=ERESTART_RESTARTBLOCK).contains(&errno)
}

/// `TP_PROTO(struct io_ring_ctx *ctx, struct io_kiocb *req, ...)`: what follows is another thing in other versions, and
/// before 5.18 there is no request; but where a request keeps its result it is there.
/// <https://github.com/torvalds/linux/blob/v6.16/include/trace/events/io_uring.h#L315-L330>
#[btf_tracepoint(function = "io_uring_complete")]
pub fn socket_uring(ctx: BtfTracePointContext) -> i32 {
    if !has(URING_OPCODE) || !has(URING_RESULT) {
        return 0;
    }
    let Some(request) = Ptr::<UringRequest, Probed>::new(ctx.arg::<u64>(1) as *const u8) else { return 0 };
    let opcode = request.get(URING_OPCODE);
    if opcode != URING_ACCEPT && opcode != URING_CONNECT && opcode != URING_SOCKET {
        return 0;
    }
    // What disks do is not even counted: there can be a million of these a second.
    let Some(count) = Count::seen(Hook::SocketUring) else { return 0 };
    let result = request.get(URING_RESULT);
    let result = i64::from(result.cast_signed());
    let wanted = match opcode {
        URING_CONNECT => is_told(result),
        _ => result >= 0,
    };
    if !wanted {
        count.filtered();
        return 0;
    }
    let file = if opcode == URING_CONNECT { request.address_in(URING_FILE) } else { 0 };
    let number = match opcode {
        URING_CONNECT => URING | SYS_CONNECT,
        URING_SOCKET => URING | SYS_SOCKET,
        _ => URING | SYS_ACCEPT4,
    };
    with_task(count, number, result, file);
    0
}

/// Added to the number of the call that a request of `io_uring` stands for.
const URING: u32 = 1 << 16;

/// `file`: of the socket; zero: it is that of a descriptor.
#[inline(always)]
fn with_task(count: Count, number: u32, result: i64, file: u64) {
    if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        match Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()) {
            Some(task) => returned(count, task, number, result, file),
            None => count.dropped(DropReason::ReadFault),
        }
    } else {
        // SAFETY: no preconditions.
        match Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8) {
            Some(task) => returned(count, task, number, result, file),
            None => count.dropped(DropReason::ReadFault),
        }
    }
}

#[inline(always)]
fn returned<A: Access>(count: Count, task: Ptr<Task, A>, number: u32, result: i64, file: u64) {
    let (mut given, mut given_len, mut protocol, mut fd) = (0, 0, 0, result as u64);
    if number == SYS_CONNECT || number == SYS_BIND || number == SYS_LISTEN || number == SYS_SOCKET {
        // SAFETY: no preconditions.
        let current = unsafe { bpf_get_current_task() } as *const u8;
        let registers = Ptr::<Task, Probed>::new(current).and_then(syscall::registers);
        let Some(registers) = registers else {
            count.dropped(DropReason::ReadFault);
            return;
        };
        if number == SYS_SOCKET {
            protocol = registers.get(REGISTERS_ARG3) as u16;
        } else {
            fd = registers.get(REGISTERS_ARG1) & u64::from(u32::MAX);
        }
        if result < 0 && number != SYS_LISTEN {
            given = registers.get(REGISTERS_ARG2);
            given_len = registers.get(REGISTERS_ARG3) & u64::from(u32::MAX);
        }
    }
    let file = if file == 0 { watch::file_of(task, fd) } else { file };
    let sock = sock_of(file);
    // No descriptor, or none of a socket: no event of sockets.
    let Some(sock) = Ptr::<Sock, Probed>::new(sock as *const u8) else {
        count.filtered();
        return;
    };
    let call = Call { number, result, sock: sock.address(), given, given_len, protocol };
    let family = sock.get(SOCK_FAMILY);
    let Some(act) = act_of(call, family, sock) else {
        count.filtered();
        return;
    };
    let Some(claim) = Claim::take() else {
        count.dropped(DropReason::Nested);
        return;
    };
    match record(count, claim.get(), task, sock, call, act, family) {
        Outcome::Filtered => count.filtered(),
        Outcome::Send(len) => count.output(claim.get(), len),
        Outcome::Fault => count.dropped(DropReason::ReadFault),
    }
    claim.release();
}

enum Outcome {
    /// It is no event.
    Filtered,
    /// A record of this length is to be sent.
    Send(u64),
    /// What it takes could not be read.
    Fault,
}

/// Address of the `struct sock` of a file; zero if it is not the file of a socket: a descriptor may be another file's
/// by now.
#[inline(always)]
fn sock_of(file: u64) -> u64 {
    let Some(file) = Ptr::<File, Probed>::new(file as *const u8) else { return 0 };
    let Some(socket) = file.follow(FILE_SOCKET) else { return 0 };
    if socket.address_in(SOCKET_FILE) != file.address() {
        return 0;
    }
    socket.address_in(SOCKET_SOCK)
}

/// What the call comes to; `None`: no event.
#[inline(always)]
fn act_of(call: Call, family: u16, sock: Ptr<Sock, Probed>) -> Option<u32> {
    let is_inet = family == AF_INET || family == AF_INET6;
    match call.number & !URING {
        SYS_CONNECT if call.result < 0 => {
            if is_inet || family == AF_UNIX {
                Some(socket_act::CONNECT_FAILED)
            } else {
                None
            }
        }
        SYS_CONNECT => (family == AF_UNIX).then_some(socket_act::UNIX_CONNECT),
        SYS_ACCEPT4 | SYS_ACCEPT => is_inet.then_some(socket_act::ACCEPT),
        // The state told of it, but not which port it got, and whether it was refused after that.
        SYS_LISTEN => {
            let protocol = sock.get(SOCK_PROTOCOL);
            (is_inet && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)).then_some(socket_act::LISTEN)
        }
        SYS_BIND => {
            let (kind, protocol) = (sock.get(SOCK_TYPE), sock.get(SOCK_PROTOCOL));
            // Of what was bound well another hook tells, where the protocol leaves that to the family's common code.
            let is_common =
                kind != SOCK_RAW && matches!(protocol, IPPROTO_TCP | IPPROTO_UDP | IPPROTO_UDPLITE);
            let by_call = !is_common || socket::settings().is_some_and(|settings| settings.bind_by_call != 0);
            (is_inet && (call.result < 0 || by_call)).then_some(socket_act::BIND)
        }
        _ => is_unusual(family, sock).then_some(socket_act::SOCKET),
    }
}

/// Whether a socket is one that few programs make.
#[inline(always)]
fn is_unusual(family: u16, sock: Ptr<Sock, Probed>) -> bool {
    let (kind, protocol) = (sock.get(SOCK_TYPE), sock.get(SOCK_PROTOCOL));
    match family {
        AF_UNIX => false,
        AF_INET | AF_INET6 => {
            let usual = (kind == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP))
                || (kind == SOCK_DGRAM
                    && (protocol == IPPROTO_UDP
                        || protocol == IPPROTO_UDPLITE
                        || protocol == IPPROTO_ICMP
                        || protocol == IPPROTO_ICMPV6));
            !usual
        }
        AF_NETLINK => {
            protocol != NETLINK_ROUTE && protocol != NETLINK_KOBJECT_UEVENT && protocol != NETLINK_GENERIC
        }
        _ => true,
    }
}

#[inline(always)]
fn record<A: Access>(
    count: Count,
    scratch: *mut Scratch,
    task: Ptr<Task, A>,
    sock: Ptr<Sock, Probed>,
    call: Call,
    act: u32,
    family: u16,
) -> Outcome {
    // SAFETY: the record begins with room for a `SocketCall`, at a multiple of eight.
    let record: *mut SocketCall = unsafe { (&raw mut (*scratch).record).cast() };
    let mut tail = Tail::<START, ROOM>::new(scratch);
    // SAFETY: `record` is our own memory.
    unsafe {
        if family == AF_UNIX {
            let name = if call.result < 0 { given_name(&mut tail, call) } else { unix_name(&mut tail, sock) };
            match name {
                Some(path) => {
                    socket::clear_call(record);
                    (*record).path = path;
                }
                None => return Outcome::Filtered,
            }
        } else {
            socket::clear_call(record);
        }
        if task::write_info(&raw mut (*record).info, task).is_none() {
            return Outcome::Fault;
        }
        let name = if is_of_datagrams(sock) { sock.get(SOCK_COOKIE) } else { call.sock };
        let mut ends = MaybeUninit::uninit();
        let Some(copy) = socket::copy(&mut ends, sock) else { return Outcome::Fault };
        socket::write(&raw mut (*record).socket, copy, name);
        if family == AF_PACKET {
            // The socket has it where only its own code knows.
            (*record).socket.protocol = u16::from_be(call.protocol);
        }
        (*record).flags = socket_flags::ACTED;
        if call.result < 0 {
            (*record).errno = -call.result as u32;
            if family == AF_UNIX {
                (*record).flags = socket_flags::ACTED | socket_flags::USER_MEMORY;
            } else if call.given_len != 0 {
                take_given(record, call, act);
            }
        }
        (*record).act = act;
        if act == socket_act::LISTEN {
            (*record).value = u64::from(sock.get(SOCK_BACKLOG));
        }
        (*record).call = if call.number & URING != 0 { socket_call::IO_URING } else { call.number };
        let len = START as u64 + bound::<{ u16::MAX as u32 }>(tail.len());
        (*record).header = count.header(Kind::SocketCall, len);
        Outcome::Send(len)
    }
}

#[inline(always)]
fn is_of_datagrams(sock: Ptr<Sock, Probed>) -> bool {
    let kind = sock.get(SOCK_TYPE);
    kind == SOCK_DGRAM || kind == SOCK_RAW
}

/// The address that the process gave: there where it wanted to connect, here where it wanted to bind.
#[inline(always)]
fn take_given(record: *mut SocketCall, call: Call, act: u32) {
    /// `struct sockaddr_in6`: family, port, flow, address, scope.
    const LEN: usize = 28;
    let mut given = [0_u8; LEN];
    let len = if call.given_len >= LEN as u64 { LEN as u32 } else { 16 };
    // SAFETY: the helper checks the address and fills with zeros what it cannot read.
    let read = unsafe { bpf_probe_read_user(given.as_mut_ptr().cast(), len, call.given as *const _) };
    if read != 0 {
        return;
    }
    let family = u16::from_ne_bytes([given[0], given[1]]);
    let port = u16::from_be_bytes([given[2], given[3]]);
    // SAFETY: `record` is our own memory.
    let socket: *mut SocketInfo = unsafe { &raw mut (*record).socket };
    // SAFETY: as above.
    unsafe {
        let address =
            if act == socket_act::BIND { &raw mut (*socket).local } else { &raw mut (*socket).remote };
        let address = address.cast::<u8>();
        if family == AF_INET {
            // Told as what it is, by a socket of either family.
            address.cast::<[u64; 2]>().write_unaligned([0, 0]);
            address.cast::<u32>().write_unaligned(given.as_ptr().add(4).cast::<u32>().read_unaligned());
            (*socket).family = AF_INET;
        } else if family == AF_INET6 && len as usize == LEN {
            address
                .cast::<[u64; 2]>()
                .write_unaligned(given.as_ptr().add(8).cast::<[u64; 2]>().read_unaligned());
            (*socket).scope = given.as_ptr().add(24).cast::<u32>().read_unaligned();
        } else {
            return;
        }
        if act == socket_act::BIND {
            (*socket).local_port = port;
        } else {
            (*socket).remote_port = port;
        }
        (*record).flags = socket_flags::ACTED | socket_flags::USER_MEMORY;
    }
}

/// The name of the unix socket that this one is connected to, if connections to it are told of.
#[inline(always)]
fn unix_name(tail: &mut Tail<START, ROOM>, sock: Ptr<Sock, Probed>) -> Option<Span> {
    let address = sock.cast::<UnixSock>().follow(UNIX_PEER)?.follow(UNIX_ADDRESS)?;
    let len = name_len(u64::from(address.get(UNIX_ADDRESS_LEN)))?;
    let from = address.embedded(UNIX_ADDRESS_NAME)?.address() + BEFORE_NAME;
    let place = clear_place(tail);
    // SAFETY: 128 bytes from `place` on are inside the scratch buffer.
    unsafe { bpf_probe_read_kernel(place.cast(), len as u32, from as *const _) };
    watched_name(tail, place, len)
}

/// The name that the process gave, if connections to it are told of.
#[inline(always)]
fn given_name(tail: &mut Tail<START, ROOM>, call: Call) -> Option<Span> {
    let len = name_len(call.given_len)?;
    let place = clear_place(tail);
    // SAFETY: 128 bytes from `place` on are inside the scratch buffer.
    unsafe { bpf_probe_read_user(place.cast(), len as u32, (call.given + BEFORE_NAME) as *const _) };
    watched_name(tail, place, len)
}

/// Bytes of a `struct sockaddr_un` before the name: the family.
const BEFORE_NAME: u64 = 2;

/// Length of the name in an address of this length, which no unix socket without a name has.
#[inline(always)]
fn name_len(address_len: u64) -> Option<u64> {
    let len = address_len.checked_sub(BEFORE_NAME)?;
    if len == 0 || len > UNIX_PATH_MAX as u64 {
        return None;
    }
    Some(bound::<127>(len))
}

/// Where a name goes: more zeros than the longest has bytes, as a mask that bounds its length lets more through.
#[inline(always)]
fn clear_place(tail: &Tail<START, ROOM>) -> *mut u8 {
    let place = tail.place();
    // SAFETY: 128 bytes from `place` on are inside the scratch buffer.
    unsafe { place.cast::<[u64; 16]>().write_unaligned([0; 16]) };
    place
}

/// Takes a name into the record if it is one of those that are watched.
#[inline(always)]
fn watched_name(tail: &mut Tail<START, ROOM>, place: *const u8, len: u64) -> Option<Span> {
    let mut name: UnixName = [0; 14];
    // SAFETY: as many bytes are there; the map's own memory.
    unsafe {
        name.copy_from_slice(core::slice::from_raw_parts(place.cast::<u64>(), 14));
        UNIX_NAMES.get(name)?;
    }
    Some(tail.span(len, 0))
}
