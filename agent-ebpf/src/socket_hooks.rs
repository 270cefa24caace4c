//! Programs on cgroups that see sockets being connected, bound and closed, by whatever call.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{
        bpf_get_current_task,
        generated::{bpf_get_current_task_btf, bpf_get_socket_cookie},
    },
    macros::{cgroup_sock, cgroup_sock_addr},
    programs::{SockAddrContext, SockContext},
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    record::{
        Kind, SocketCall, SocketInfo, SocketState, socket_act, socket_call, socket_change, socket_flags,
    },
};

use crate::{
    globals,
    kernel::{Access, Probed, Ptr, Typed},
    send::Count,
    socket::{self, IPPROTO_TCP, SOCK_SEQPACKET, SOCK_STREAM},
    task,
};

/// What the kernel is to do: go on.
const ALLOW: i32 = 1;

// ---- connect

#[cgroup_sock_addr(connect4)]
pub fn socket_attempt4(ctx: SockAddrContext) -> i32 {
    attempt(&ctx, false);
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn socket_attempt6(ctx: SockAddrContext) -> i32 {
    attempt(&ctx, true);
    ALLOW
}

/// A socket with connections is about to be connected: the one trace of it if it fails before it changes its state.
#[inline(always)]
fn attempt(ctx: &SockAddrContext, is_v6: bool) {
    let Some(count) = Count::seen(Hook::SocketAttempt) else { return };
    let given = ctx.sock_addr;
    // SAFETY: members of the context, which the kernel gives.
    let kind = unsafe { (&raw const (*given).type_).read_volatile() } as u16;
    if kind != SOCK_STREAM && kind != SOCK_SEQPACKET {
        count.filtered();
        return;
    }
    let Some(mut entry) = count.reserve::<SocketState>() else { return };
    let record = entry.as_mut_ptr();
    // Nearly always a change of state tells the rest: this is as little as the event takes.
    // SAFETY: the reserved record is our own memory, the rest as above.
    unsafe {
        let socket = &raw mut (*record).socket;
        socket::clear(socket);
        socket::clear_state(record);
        // As a number, which its place in memory makes of it.
        let place = &raw mut (*socket).socket;
        place.write_volatile((&raw const (*given).__bindgen_anon_1.sk).read_volatile() as u64);
        if let Some(sock) = Ptr::<Sock, Probed>::new(place.read_volatile() as *const u8) {
            // The parts of a multipath connection are told of as a whole. Other protocols have something else there.
            let protocol = (&raw const (*given).protocol).read_volatile();
            if protocol == u32::from(IPPROTO_TCP) && sock.cast::<TcpSock>().get(TCP_IS_MPTCP) & 1 != 0 {
                entry.discard(0);
                count.filtered();
                return;
            }
            (*socket).netns = sock.follow(SOCK_NET).map_or(0, |net| net.get(NET_INUM));
        }
        let remote = (&raw mut (*socket).remote).cast::<u32>();
        if is_v6 {
            let there = (&raw const (*given).user_ip6).cast::<u32>();
            remote.write_volatile(there.read_volatile());
            remote.add(1).write_volatile(there.add(1).read_volatile());
            remote.add(2).write_volatile(there.add(2).read_volatile());
            remote.add(3).write_volatile(there.add(3).read_volatile());
        } else {
            remote.write_volatile((&raw const (*given).user_ip4).read_volatile());
        }
        (*socket).family = if is_v6 { socket::AF_INET6 } else { socket::AF_INET };
        (*socket).protocol = (&raw const (*given).protocol).read_volatile() as u16;
        (*socket).kind = kind;
        (*socket).remote_port = u16::from_be((&raw const (*given).user_port).read_volatile() as u16);
        if let Some(task) = socket::current() {
            (*record).task = task;
            (*record).flags = socket_flags::ACTED;
        }
        (*record).change = socket_change::ATTEMPT;
        (*record).header = count.header(Kind::SocketState, size_of::<SocketState>() as u64);
    }
    count.submit(entry);
}

// ---- bind

#[cgroup_sock(post_bind4)]
pub fn socket_bind4(ctx: SockContext) -> i32 {
    bind(&ctx);
    ALLOW
}

#[cgroup_sock(post_bind6)]
pub fn socket_bind6(ctx: SockContext) -> i32 {
    bind(&ctx);
    ALLOW
}

#[inline(always)]
fn bind(ctx: &SockContext) {
    let Some(count) = Count::seen(Hook::SocketBind) else { return };
    if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        bind_by(count, ctx, Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()));
    } else {
        // SAFETY: no preconditions.
        bind_by(count, ctx, Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8));
    }
}

#[inline(always)]
fn bind_by<A: Access>(count: Count, ctx: &SockContext, task: Option<Ptr<Task, A>>) {
    let Some(task) = task else {
        count.dropped(DropReason::ReadFault);
        return;
    };
    let Some(mut entry) = count.reserve::<SocketCall>() else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is our own memory.
    unsafe {
        if task::write_info(&raw mut (*record).info, task).is_none()
            || describe(&raw mut (*record).socket, ctx).is_none()
        {
            entry.discard(0);
            count.dropped(DropReason::ReadFault);
            return;
        }
        // The parts of a multipath connection are told of as a whole.
        let sock = Ptr::<TcpSock, Probed>::new((*record).socket.socket as *const u8);
        if (*record).socket.protocol == IPPROTO_TCP
            && sock.is_some_and(|sock| sock.get(TCP_IS_MPTCP) & 1 != 0)
        {
            entry.discard(0);
            count.filtered();
            return;
        }
        socket::clear_call(record);
        (*record).act = socket_act::BIND;
        (*record).call = socket_call::UNKNOWN;
        (*record).flags = socket_flags::ACTED;
        (*record).header = count.header(Kind::SocketCall, size_of::<SocketCall>() as u64);
    }
    count.submit(entry);
}

// ---- close

/// Nobody has the socket open any more.
#[cgroup_sock(sock_release)]
pub fn socket_release(ctx: SockContext) -> i32 {
    let Some(count) = Count::seen(Hook::SocketRelease) else { return ALLOW };
    if has_connections(&ctx) {
        count.filtered();
        return ALLOW;
    }
    let Some(mut entry) = count.reserve::<SocketState>() else { return ALLOW };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is our own memory.
    unsafe {
        if describe(&raw mut (*record).socket, &ctx).is_none() {
            entry.discard(0);
            count.dropped(DropReason::ReadFault);
            return ALLOW;
        }
        socket::clear_state(record);
        if let Some(task) = socket::current() {
            (*record).task = task;
            (*record).flags = socket_flags::ACTED;
        }
        (*record).change = socket_change::RELEASED;
        (*record).header = count.header(Kind::SocketState, size_of::<SocketState>() as u64);
    }
    count.submit(entry);
    ALLOW
}

#[inline(always)]
fn has_connections(ctx: &SockContext) -> bool {
    // SAFETY: a member of the context, which the kernel gives.
    let kind = unsafe { (&raw const (*ctx.sock).type_).read_volatile() } as u16;
    kind == SOCK_STREAM || kind == SOCK_SEQPACKET
}

/// The context of these programs is the socket itself.
#[inline(always)]
fn describe(to: *mut SocketInfo, ctx: &SockContext) -> Option<()> {
    // SAFETY: `to` points into a record of ours.
    unsafe {
        let place = &raw mut (*to).socket;
        place.write_volatile(ctx.sock as u64);
        let sock = Ptr::<Sock, Probed>::new(place.read_volatile() as *const u8)?;
        let name = if has_connections(ctx) { sock.address() } else { bpf_get_socket_cookie(ctx.sock.cast()) };
        let mut ends = MaybeUninit::uninit();
        socket::write(to, socket::copy(&mut ends, sock)?, name);
    }
    Some(())
}
