//! What records say of a socket, and what programs of sockets share.

use core::mem::MaybeUninit;

use aya_ebpf::{
    helpers::{bpf_get_current_task, generated::bpf_get_current_task_btf},
    macros::map,
    maps::Array,
};
use nightjar_abi::{
    fields::*,
    network::NetworkSettings,
    record::{SocketCall, SocketInfo, SocketState, Span, TaskRef},
};

use crate::{
    globals,
    kernel::{Access, Copied, Fields, Probed, Ptr, Typed},
    task,
};

pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
pub const SOCK_STREAM: u16 = 1;
pub const SOCK_RAW: u16 = 3;
pub const SOCK_SEQPACKET: u16 = 5;
pub const IPPROTO_TCP: u16 = 6;
pub const IPPROTO_MPTCP: u16 = 262;

/// The second half of an IPv6 address that stands for an IPv4 one begins so, in the order of the network.
const MAPPED: u64 = 0xFFFF_0000;

/// Bytes of a socket that have its ends and its state: what is copied in one go where each read costs a call.
pub const ENDS: usize = 144;
/// Room for such a copy.
pub type Ends = [u64; ENDS / 8];

/// Copies the beginning of a socket.
#[inline(always)]
pub fn copy(to: &mut MaybeUninit<Ends>, sock: Ptr<Sock, Probed>) -> Option<Copied<Sock, ENDS>> {
    Copied::read(to.as_mut_ptr().cast(), sock.address())
}

/// Nobody.
pub const NO_TASK: TaskRef = TaskRef { pid: 0, tid: 0, start: 0, exec_id: 0 };

#[map]
static NETWORK_SETTINGS: Array<NetworkSettings> = Array::with_max_entries(1, 0);

/// The settings. `None` is impossible; the verifier wants to hear of it.
#[inline(always)]
pub fn settings() -> Option<&'static NetworkSettings> {
    NETWORK_SETTINGS.get(0)
}

/// Who runs now, unless that is a thread of the kernel, which does what others began.
#[inline(always)]
pub fn current() -> Option<TaskRef> {
    if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        process(Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast())?)
    } else {
        // SAFETY: no preconditions.
        process(Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8)?)
    }
}

#[inline(always)]
fn process<A: Access>(task: Ptr<Task, A>) -> Option<TaskRef> {
    if task.get(TASK_FLAGS) & task::PF_KTHREAD != 0 {
        return None;
    }
    task::task_ref(task)
}

/// Fills a [`SocketInfo`] from the socket itself, whose name is `name`.
#[inline(always)]
pub fn write(to: *mut SocketInfo, sock: impl Fields<Sock>, name: u64) {
    let family = sock.get(SOCK_FAMILY);
    // SAFETY: `to` points into a record of ours, whose members are aligned; addresses are bytes.
    unsafe {
        let (local, remote) =
            ((&raw mut (*to).local).cast::<[u64; 2]>(), (&raw mut (*to).remote).cast::<[u64; 2]>());
        local.write_unaligned([0, 0]);
        remote.write_unaligned([0, 0]);
        if family == AF_INET {
            local.cast::<u32>().write_unaligned(sock.get(SOCK_LOCAL));
            remote.cast::<u32>().write_unaligned(sock.get(SOCK_REMOTE));
        } else if family == AF_INET6 {
            let there = [sock.word(SOCK_REMOTE6, 0), sock.word(SOCK_REMOTE6, 8)];
            remote.write_unaligned(there);
            if there[0] == 0 && there[1] & 0xFFFF_FFFF == MAPPED {
                // While it connects only the IPv4 address is set.
                let here = u64::from(sock.get(SOCK_LOCAL));
                local.write_unaligned([0, MAPPED | here << 32]);
            } else {
                local.write_unaligned([sock.word(SOCK_LOCAL6, 0), sock.word(SOCK_LOCAL6, 8)]);
            }
        }
        let is_inet = family == AF_INET || family == AF_INET6;
        (*to).local_port = if is_inet { sock.get(SOCK_LOCAL_PORT) } else { 0 };
        (*to).remote_port = if is_inet { u16::from_be(sock.get(SOCK_REMOTE_PORT)) } else { 0 };
        (*to).family = family;
        (*to).protocol = sock.get(SOCK_PROTOCOL);
        (*to).kind = sock.get(SOCK_TYPE);
        (*to).own_family = family;
        (*to).netns = sock.follow(SOCK_NET).map_or(0, |net| net.get(NET_INUM));
        (*to).scope = sock.get(SOCK_BOUND_INTERFACE);
        (*to).reserved2 = 0;
        (*to).interface = (*to).scope;
        let interface = (&raw mut (*to).interface_name).cast::<[u64; 2]>();
        interface.write_unaligned([0, 0]);
        if is_inet && let Some(device) = sock.follow(SOCK_ROUTE).and_then(|route| route.follow(ROUTE_DEVICE))
        {
            (*to).interface = device.get(DEVICE_INDEX);
            interface.write_unaligned([device.word(DEVICE_NAME, 0), device.word(DEVICE_NAME, 8)]);
        }
        (*to).socket = name;
    }
}

/// Fills a [`SocketInfo`] with nothing.
#[inline(always)]
pub fn clear(to: *mut SocketInfo) {
    // SAFETY: `to` points into a record of ours; it consists of numbers, as many as this.
    unsafe { to.cast::<[u64; size_of::<SocketInfo>() / 8]>().write([0; size_of::<SocketInfo>() / 8]) };
}

/// Fills what a [`SocketCall`] has none of: errors, numbers, texts.
#[inline(always)]
pub fn clear_call(record: *mut SocketCall) {
    // SAFETY: `record` is our own memory.
    unsafe {
        (*record).errno = 0;
        (*record).call = 0;
        (*record).flags = 0;
        (*record).value = 0;
        (*record).path = Span { start: size_of::<SocketCall>() as u16, len: 0, flags: 0 };
        (*record).reserved = 0;
    }
}

/// Fills what a [`SocketState`] has none of.
#[inline(always)]
pub fn clear_state(record: *mut SocketState) {
    // SAFETY: `record` is our own memory.
    unsafe {
        (*record).task = NO_TASK;
        (*record).bytes_sent = 0;
        (*record).bytes_received = 0;
        (*record).packets_sent = 0;
        (*record).packets_received = 0;
        (*record).retransmits = 0;
        (*record).rtt_us = 0;
        (*record).errno = 0;
        (*record).old = 0;
        (*record).new = 0;
        (*record).reserved = 0;
        (*record).flags = 0;
    }
}
