//! What sockets without connections send and receive: `network.connect`, `network.accept` and the counts of flows.
//!
//! A packet that the kernel made of what a process gave it has the address that it really goes to, whatever call it
//! was and whatever the memory of the process says by now.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{__sk_buff, BPF_NOEXIST, bpf_sock},
    helpers::{
        bpf_get_current_task, bpf_ktime_get_boot_ns,
        generated::{
            bpf_get_current_task_btf, bpf_get_socket_cookie, bpf_map_update_elem, bpf_sk_fullsock,
            bpf_skb_load_bytes,
        },
    },
    macros::{cgroup_skb, map},
    maps::{HashMap, PerCpuArray},
    programs::SkBuffContext,
};
use nightjar_abi::{
    fields::*,
    hook::{DropReason, Hook},
    network::{self, FLOWS as MOST_FLOWS, Flow, FlowKey},
    record::{
        Kind, SocketCall, SocketInfo, SocketState, socket_act, socket_call, socket_change, socket_flags,
    },
};

use crate::{
    globals,
    kernel::{Access, Probed, Ptr, Typed, add, opaque},
    send::Count,
    socket::{self, AF_INET, AF_INET6, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM},
    task,
};

const ALLOW: i32 = 1;
const BPF_F_NO_PREALLOC: u32 = 1;
const ETH_P_IPV6: u16 = 0x86DD;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_UDPLITE: u8 = 136;
const UDP_HEADER: u64 = 8;
/// `EEXIST`
const EXISTS: i64 = -17;

/// Flows that are known, and what went by in each direction. The agent reads and removes them.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(MOST_FLOWS, BPF_F_NO_PREALLOC);

/// The second in which flows were told of that are not counted, and how many.
#[map]
static UNCOUNTED: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

#[cgroup_skb(egress)]
pub fn datagram_sent(ctx: SkBuffContext) -> i32 {
    packet(ctx.skb.skb, true);
    ALLOW
}

#[cgroup_skb(ingress)]
pub fn datagram_received(ctx: SkBuffContext) -> i32 {
    packet(ctx.skb.skb, false);
    ALLOW
}

/// What the headers of a packet say.
struct Packet {
    key: FlowKey,
    local: [u8; 16],
    local_port: u16,
    bytes: u64,
}

#[inline(always)]
fn packet(skb: *mut __sk_buff, sent: bool) {
    // SAFETY: members of the context, which the kernel gives; the helper takes what may be null.
    let sock = unsafe {
        let sock = (&raw const (*skb).__bindgen_anon_2.sk).read_volatile();
        if sock.is_null() {
            return;
        }
        bpf_sk_fullsock(sock)
    };
    if sock.is_null() {
        return;
    }
    // SAFETY: a member of a socket that the verifier knows.
    let kind = unsafe { (&raw const (*sock).type_).read_volatile() } as u16;
    // Raw sockets receive what is meant for others as well.
    if kind == SOCK_STREAM || kind == SOCK_SEQPACKET || (kind == SOCK_RAW && !sent) {
        return;
    }
    let Some(packet) = read(skb, sock, kind, sent) else {
        if let Some(count) = Count::seen(Hook::Datagram) {
            count.dropped(DropReason::ReadFault);
        }
        return;
    };
    // The usual way is short: what a flow that is known has is counted in the flow alone.
    if let Some(flow) = FLOWS.get_ptr_mut(packet.key) {
        count_in(flow, skb, &packet);
        return;
    }
    let Some(count) = Count::seen(Hook::Datagram) else { return };
    let flow = Flow { packets: segments(skb), bytes: packet.bytes };
    // SAFETY: key and value are on the stack, of the types of the map.
    let inserted = unsafe {
        bpf_map_update_elem(
            (&raw const FLOWS).cast_mut().cast(),
            (&raw const packet.key).cast(),
            (&raw const flow).cast(),
            u64::from(BPF_NOEXIST),
        )
    };
    if inserted == EXISTS {
        // Another processor was faster with the first; this is the second.
        if let Some(flow) = FLOWS.get_ptr_mut(packet.key) {
            count_in(flow, skb, &packet);
        }
        count.aggregated();
        return;
    }
    // Where there is no room it is told all the same, but not so often that telling it is a flood of its own.
    let flags = if inserted == 0 { 0 } else { socket_flags::UNCOUNTED };
    if flags != 0 && !may_tell_uncounted() {
        count.dropped(DropReason::MapFull);
        return;
    }
    let told = if sent {
        tell_sent(count, skb, sock.cast(), &packet, flags)
    } else {
        tell_received(count, skb, sock.cast(), &packet, flags)
    };
    if !told && flags == 0 {
        // The next one is a first again.
        let _was_there = FLOWS.remove(packet.key);
    }
}

/// Whether one more flow may be told of that is not counted: a thousand a second on each processor.
#[inline(always)]
fn may_tell_uncounted() -> bool {
    const MOST: u64 = 1000;
    const SECOND: u64 = 1_000_000_000;
    let Some(told) = UNCOUNTED.get_ptr_mut(0) else { return false };
    // SAFETY: no preconditions.
    let second = unsafe { bpf_ktime_get_boot_ns() } / SECOND;
    // SAFETY: the map's own memory.
    unsafe {
        if (*told)[0] != second {
            *told = [second, 0];
        }
        (*told)[1] += 1;
        (*told)[1] <= MOST
    }
}

#[inline(always)]
fn count_in(flow: *mut Flow, skb: *mut __sk_buff, packet: &Packet) {
    // SAFETY: the map's own memory.
    unsafe {
        add(&raw mut (*flow).packets, segments(skb));
        add(&raw mut (*flow).bytes, packet.bytes);
    }
}

/// Packets that this one stands for until the interface takes it apart.
#[inline(always)]
fn segments(skb: *mut __sk_buff) -> u64 {
    // SAFETY: a member of the context.
    u64::from(unsafe { (&raw const (*skb).gso_segs).read_volatile() }).max(1)
}

/// Reads the headers.
#[inline(always)]
fn read(skb: *mut __sk_buff, sock: *mut bpf_sock, kind: u16, sent: bool) -> Option<Packet> {
    let mut packet = Packet {
        key: FlowKey { socket: 0, remote: [0; 16], sender: 0, remote_port: 0, protocol: 0, version: 4 },
        local: [0; 16],
        local_port: 0,
        bytes: 0,
    };
    // SAFETY: members of the context; the verifier holds what is read of the packet against its end.
    unsafe {
        let len = u64::from((&raw const (*skb).len).read_volatile());
        let protocol = (&raw const (*skb).protocol).read_volatile();
        let data = u64::from((&raw const (*skb).data).read_volatile()) as *const u8;
        let end = u64::from((&raw const (*skb).data_end).read_volatile()) as *const u8;
        let local = (&raw mut packet.local).cast::<u32>();
        let remote = (&raw mut packet.key.remote).cast::<u32>();
        let (header_len, next, mut ports);
        if protocol == u32::from(ETH_P_IPV6.to_be()) {
            if data.add(IPV6_HEADER) > end {
                return None;
            }
            let (source, destination) = (data.add(8).cast::<u32>(), data.add(24).cast::<u32>());
            let (here, there) = if sent { (source, destination) } else { (destination, source) };
            let mut n = 0;
            while n < 4 {
                local.add(n).write_unaligned(here.add(n).read_volatile());
                remote.add(n).write_unaligned(there.add(n).read_volatile());
                n += 1;
            }
            packet.key.version = 6;
            (header_len, next, ports) = (IPV6_HEADER as u64, data.add(6).read_volatile(), 0);
            if data.add(IPV6_HEADER + 4) <= end {
                ports = data.add(IPV6_HEADER).cast::<u32>().read_volatile();
            }
        } else {
            if data.add(IPV4_HEADER) > end {
                return None;
            }
            let (source, destination) = (data.add(12).cast::<u32>(), data.add(16).cast::<u32>());
            let (here, there) = if sent { (source, destination) } else { (destination, source) };
            local.write_unaligned(here.read_volatile());
            remote.write_unaligned(there.read_volatile());
            (header_len, next, ports) =
                (u64::from(data.read_volatile() & 0xF) * 4, data.add(9).read_volatile(), 0);
            if header_len == IPV4_HEADER as u64 && data.add(IPV4_HEADER + 4) <= end {
                ports = data.add(IPV4_HEADER).cast::<u32>().read_volatile();
            } else {
                // Options: rare, and where the ports are is not known beforehand.
                let ports = &raw mut ports;
                bpf_skb_load_bytes(skb.cast(), header_len as u32, ports.cast(), 4);
            }
        }
        // Behind headers of IPv6 that come in between there is what the socket is of.
        let next = if kind == SOCK_RAW { next } else { (&raw const (*sock).protocol).read_volatile() as u8 };
        packet.key.protocol = next;
        packet.bytes = len.saturating_sub(header_len);
        if next == IPPROTO_UDP || next == IPPROTO_UDPLITE {
            let (source, destination) = ((ports as u16).to_be(), ((ports >> 16) as u16).to_be());
            (packet.local_port, packet.key.remote_port) =
                if sent { (source, destination) } else { (destination, source) };
            packet.bytes = packet.bytes.saturating_sub(UDP_HEADER);
        }
        // A connected socket knows whom it talks to; what is sent may have another address by now, if that is translated
        // on this host.
        let port = (&raw const (*sock).dst_port).read_volatile();
        if port != 0 && kind != SOCK_RAW {
            packet.key.remote_port = u16::from_be(port);
            if packet.key.version == 4 {
                remote.write_unaligned((&raw const (*sock).dst_ip4).read_volatile());
            } else {
                let there = (&raw const (*sock).dst_ip6).cast::<u32>();
                remote.write_unaligned(there.read_volatile());
                remote.add(1).write_unaligned(there.add(1).read_volatile());
                remote.add(2).write_unaligned(there.add(2).read_volatile());
                remote.add(3).write_unaligned(there.add(3).read_volatile());
            }
        }
        packet.key.socket = bpf_get_socket_cookie(skb.cast());
    }
    if sent {
        packet.key.sender = sender();
    }
    Some(packet)
}

/// Who runs, as the key of a flow has it.
#[inline(always)]
fn sender() -> u32 {
    let of = |pid: u32, exec_id: u64| network::sender(pid, exec_id);
    if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast())
            .map_or(0, |task| of(task.get(TASK_TGID), task.get(TASK_EXEC_ID)))
    } else {
        // SAFETY: no preconditions.
        Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8)
            .map_or(0, |task| of(task.get(TASK_TGID), task.get(TASK_EXEC_ID)))
    }
}

/// What became of the description of a socket.
#[derive(PartialEq)]
enum Described {
    /// It is there.
    Whole,
    /// No process has the socket, but the kernel itself: what it answers with.
    OfKernel,
    /// It could not be read.
    Fault,
}

/// Both ends as the packet has them, the rest from the socket, but for the interface.
#[inline(always)]
fn describe(to: *mut SocketInfo, skb: *mut __sk_buff, sock: *const u8, packet: &Packet) -> Described {
    // SAFETY: `to` points into a record of ours.
    unsafe {
        // Addresses that the verifier knows more of become numbers by their place in memory. The context of these
        // programs is the packet itself.
        let place = &raw mut (*to).socket;
        place.write_volatile(skb as u64);
        // A number, not an option: the compiler keeps what is in none of these, which the verifier takes amiss.
        let device = opaque(
            Ptr::<nightjar_abi::fields::Packet, Probed>::new(place.read_volatile() as *const u8)
                .map_or(0, |packet| packet.address_in(PACKET_DEVICE)),
        );
        place.write_volatile(sock as u64);
        let Some(sock) = Ptr::<Sock, Probed>::new(place.read_volatile() as *const u8) else {
            return Described::Fault;
        };
        let socket = sock.follow(SOCK_SOCKET);
        if socket.is_none_or(|socket| socket.address_in(SOCKET_FILE) == 0) {
            return Described::OfKernel;
        }
        let mut ends = MaybeUninit::uninit();
        let Some(copy) = socket::copy(&mut ends, sock) else { return Described::Fault };
        socket::write(to, copy, packet.key.socket);
        (*to).local = packet.local;
        (*to).remote = packet.key.remote;
        (*to).local_port = packet.local_port;
        (*to).remote_port = packet.key.remote_port;
        (*to).family = if packet.key.version == 4 { AF_INET } else { AF_INET6 };
        (*to).protocol = u16::from(packet.key.protocol);
        if let Some(device) = Ptr::<NetDevice, Probed>::new(device as *const u8) {
            (*to).interface = device.get(DEVICE_INDEX);
            let name = (&raw mut (*to).interface_name).cast::<[u64; 2]>();
            name.write_unaligned([device.word(DEVICE_NAME, 0), device.word(DEVICE_NAME, 8)]);
        }
    }
    Described::Whole
}

#[inline(always)]
fn tell_sent(count: Count, skb: *mut __sk_buff, sock: *mut u8, packet: &Packet, flags: u32) -> bool {
    if globals::HAVE_TASK_PT_REGS.load() != 0 {
        // SAFETY: no preconditions.
        sent_by(
            count,
            skb,
            sock,
            packet,
            flags,
            Ptr::<Task, Typed>::new(unsafe { bpf_get_current_task_btf() }.cast()),
        )
    } else {
        // SAFETY: no preconditions.
        sent_by(
            count,
            skb,
            sock,
            packet,
            flags,
            Ptr::<Task, Probed>::new(unsafe { bpf_get_current_task() } as *const u8),
        )
    }
}

#[inline(always)]
fn sent_by<A: Access>(
    count: Count,
    skb: *mut __sk_buff,
    sock: *mut u8,
    packet: &Packet,
    flags: u32,
    task: Option<Ptr<Task, A>>,
) -> bool {
    let Some(task) = task else {
        count.dropped(DropReason::ReadFault);
        return false;
    };
    let Some(mut entry) = count.reserve::<SocketCall>() else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is our own memory.
    unsafe {
        let mut described = describe(&raw mut (*record).socket, skb, sock, packet);
        if described == Described::Whole && task::write_info(&raw mut (*record).info, task).is_none() {
            described = Described::Fault;
        }
        match described {
            Described::Whole => {}
            Described::OfKernel => {
                entry.discard(0);
                count.filtered();
                return false;
            }
            Described::Fault => {
                entry.discard(0);
                count.dropped(DropReason::ReadFault);
                return false;
            }
        }
        socket::clear_call(record);
        (*record).act = socket_act::DATAGRAM;
        (*record).call = socket_call::UNKNOWN;
        (*record).flags = socket_flags::ACTED | flags;
        (*record).value = packet.bytes;
        (*record).header = count.header(Kind::SocketCall, size_of::<SocketCall>() as u64);
    }
    count.submit(entry);
    true
}

#[inline(always)]
fn tell_received(count: Count, skb: *mut __sk_buff, sock: *mut u8, packet: &Packet, flags: u32) -> bool {
    let Some(mut entry) = count.reserve::<SocketState>() else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record is our own memory.
    unsafe {
        match describe(&raw mut (*record).socket, skb, sock, packet) {
            Described::Whole => {}
            Described::OfKernel => {
                entry.discard(0);
                count.filtered();
                return false;
            }
            Described::Fault => {
                entry.discard(0);
                count.dropped(DropReason::ReadFault);
                return false;
            }
        }
        socket::clear_state(record);
        (*record).flags = flags;
        (*record).change = socket_change::DATAGRAM;
        (*record).header = count.header(Kind::SocketState, size_of::<SocketState>() as u64);
    }
    count.submit(entry);
    true
}
