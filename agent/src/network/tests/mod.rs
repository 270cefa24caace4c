//! Stories of sockets: records in the order in which the kernel sends them, and what is told.

mod connections;
mod datagrams;
mod folding;
mod random;
mod words;

use std::{collections::HashMap, sync::Arc, time::Duration};

use nightjar_abi::{
    network::{Flow, FlowKey, sender},
    record::{
        Header, SocketCall, SocketInfo, SocketState, Span, TaskInfo, TaskRef, socket_act, socket_call,
        socket_change, socket_flags,
    },
};
use nightjar_proto::v1::NetworkActivity;

use super::{Act, Actor, Counts, Monitor, Options, SECOND, Who, Words, state};

const WORDS: Words = Words {
    error: |number| match number.cast_signed() {
        libc::ECONNREFUSED => "ECONNREFUSED".to_owned(),
        libc::ECONNRESET => "ECONNRESET".to_owned(),
        _ => number.to_string(),
    },
    call: |number| (number == 42).then_some("connect"),
};
const MILLI: u64 = SECOND / 1000;
const REFUSED: u32 = libc::ECONNREFUSED.cast_unsigned();

type Actors = Arc<Actor<&'static str>>;

fn ipv4(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&text.parse::<std::net::Ipv4Addr>().unwrap().octets());
    bytes
}

/// A TCP socket of 192.0.2.1 towards 198.51.100.7:443.
fn tcp(socket: u64) -> SocketInfo {
    SocketInfo {
        socket,
        local: ipv4("192.0.2.1"),
        remote: ipv4("198.51.100.7"),
        local_port: 40_000,
        remote_port: 443,
        family: 2,
        protocol: 6,
        kind: 1,
        own_family: 0,
        netns: 4_026_531_840,
        interface: 0,
        scope: 0,
        interface_name: [0; 16],
        reserved2: 0,
    }
}

/// The other end of such a one, at 198.51.100.7:443.
fn served(socket: u64) -> SocketInfo {
    let there = tcp(socket);
    SocketInfo {
        local: there.remote,
        remote: there.local,
        local_port: there.remote_port,
        remote_port: there.local_port,
        ..there
    }
}

fn listening(socket: u64) -> SocketInfo {
    SocketInfo { local: [0; 16], remote: [0; 16], local_port: 443, remote_port: 0, ..tcp(socket) }
}

/// A UDP socket towards 198.51.100.7:53.
fn udp(cookie: u64) -> SocketInfo {
    SocketInfo { protocol: 17, kind: 2, remote_port: 53, ..tcp(cookie) }
}

fn task(pid: u32) -> TaskRef {
    TaskRef { pid, tid: pid, start: 1000 + u64::from(pid), exec_id: 1 }
}

/// A process that a record tells of: its name tells which.
fn actor(pid: u32, name: &'static str) -> Actors {
    let none = TaskRef { pid: 0, tid: 0, start: 0, exec_id: 0 };
    let creds = nightjar_abi::record::Creds {
        uid: 0,
        gid: 0,
        suid: 0,
        sgid: 0,
        euid: 0,
        egid: 0,
        fsuid: 0,
        fsgid: 0,
        securebits: 0,
        user_ns: 0,
        inheritable: 0,
        permitted: 0,
        effective: 0,
        bounding: 0,
        ambient: 0,
    };
    let namespaces = nightjar_abi::record::Namespaces {
        cgroup: 0,
        ipc: 0,
        mnt: 0,
        net: 0,
        pid: 0,
        pid_for_children: 0,
        time: 0,
        uts: 0,
    };
    let info = TaskInfo {
        task: task(pid),
        parent: none,
        creds,
        namespaces,
        cgroup_id: 0,
        loginuid: 0,
        session: 0,
        ns_pid: pid,
        flags: 0,
        comm: [0; 16],
        tty: [0; 32],
    };
    Arc::new(Actor { info, process: name })
}

fn header(time: u64) -> Header {
    Header { len: 0, abi: 0, kind: 0, time, cpu: 0, hook: 0, reserved: 0 }
}

fn call(time: u64, act: u32, socket: SocketInfo) -> SocketCall {
    SocketCall {
        header: header(time),
        info: actor(1, "").info,
        socket,
        act,
        errno: 0,
        call: socket_call::UNKNOWN,
        flags: socket_flags::ACTED,
        value: 0,
        path: Span { start: 0, len: 0, flags: 0 },
        reserved: 0,
    }
}

fn change(time: u64, change: u32, socket: SocketInfo) -> SocketState {
    SocketState {
        header: header(time),
        socket,
        task: task(999),
        bytes_sent: 0,
        bytes_received: 0,
        packets_sent: 0,
        packets_received: 0,
        retransmits: 0,
        rtt_us: 0,
        change,
        errno: 0,
        old: 0,
        new: 0,
        reserved: 0,
        flags: 0,
    }
}

fn goes(time: u64, socket: SocketInfo, old: u8, new: u8) -> SocketState {
    SocketState { old, new, ..change(time, socket_change::STATE, socket) }
}

fn by(pid: u32, record: SocketState) -> SocketState {
    SocketState { task: task(pid), flags: record.flags | socket_flags::ACTED, ..record }
}

/// The kernel's map of counts.
#[derive(Default)]
struct Kernel {
    flows: HashMap<FlowKey, Flow>,
}

impl Counts for Kernel {
    fn read(&mut self, key: &FlowKey) -> Option<Flow> {
        self.flows.get(key).copied()
    }

    fn take(&mut self, key: &FlowKey) -> Option<Flow> {
        self.flows.remove(key)
    }
}

impl Kernel {
    /// `packets` of 100 bytes went between a socket and its remote end: sent by `pid` in its first program, or
    /// received if that is 0.
    fn counts(&mut self, socket: &SocketInfo, pid: u32, packets: u64) {
        self.counts_of(socket, if pid == 0 { 0 } else { sender(pid, 1) }, packets);
    }

    fn counts_of(&mut self, socket: &SocketInfo, sender: u32, packets: u64) {
        let key = FlowKey {
            socket: socket.socket,
            remote: socket.remote,
            sender,
            remote_port: socket.remote_port,
            protocol: u8::try_from(socket.protocol).unwrap(),
            version: 4,
        };
        let flow = self.flows.entry(key).or_default();
        flow.packets += packets;
        flow.bytes += 100 * packets;
    }
}

/// A monitor and the kernel that it looks at.
struct World {
    monitor: Monitor<&'static str>,
    kernel: Kernel,
}

impl World {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn folding(window: u64) -> Self {
        Self::with(Options { window: Duration::from_secs(window), ..Options::default() })
    }

    fn with(options: Options) -> Self {
        let monitor = Monitor::new(options, WORDS, |socket, time| (socket << 32) | (time / MILLI + 1));
        Self { monitor, kernel: Kernel::default() }
    }

    fn calls(&mut self, who: &Actors, record: &SocketCall) -> &mut Self {
        self.monitor.called(record, &[], Arc::clone(who));
        self
    }

    fn changes(&mut self, record: &SocketState) -> &mut Self {
        self.monitor.changed(record, None);
        self
    }

    /// A process changes a socket that was not seen to act before.
    fn changes_by(&mut self, who: &Actors, record: &SocketState) -> &mut Self {
        self.monitor.changed(&by(who.info.task.pid, *record), Some(Arc::clone(who)));
        self
    }

    fn connects(&mut self, who: &Actors, time: u64, socket: SocketInfo) -> &mut Self {
        self.calls(who, &call(time, socket_act::CONNECT, socket))
    }

    fn fails(&mut self, who: &Actors, time: u64, socket: SocketInfo, errno: u32) -> &mut Self {
        self.calls(who, &SocketCall { errno, ..call(time, socket_act::CONNECT_FAILED, socket) })
    }

    fn establishes(&mut self, time: u64, socket: SocketInfo) -> &mut Self {
        self.changes(&goes(time, socket, state::SYN_SENT, state::ESTABLISHED))
    }

    fn comes_in(&mut self, time: u64, socket: SocketInfo) -> &mut Self {
        self.changes(&goes(time, socket, state::SYN_RECV, state::ESTABLISHED))
    }

    /// The state changes, and the call comes back.
    fn listens(&mut self, who: &Actors, time: u64, socket: SocketInfo) -> &mut Self {
        self.begins_to_listen(who, time, socket).listened(who, time, socket, 0)
    }

    fn begins_to_listen(&mut self, who: &Actors, time: u64, socket: SocketInfo) -> &mut Self {
        self.calls(who, &SocketCall { value: 128, ..call(time, socket_act::LISTEN, socket) })
    }

    fn listened(&mut self, who: &Actors, time: u64, socket: SocketInfo, errno: u32) -> &mut Self {
        let record = call(time, socket_act::LISTEN, socket);
        self.calls(who, &SocketCall { value: 128, call: 50, errno, ..record })
    }

    fn accepts(&mut self, who: &Actors, time: u64, socket: SocketInfo) -> &mut Self {
        self.calls(who, &call(time, socket_act::ACCEPT, socket))
    }

    fn sends(&mut self, who: &Actors, time: u64, socket: SocketInfo) -> &mut Self {
        let TaskRef { pid, exec_id, .. } = who.info.task;
        self.kernel.counts_of(&socket, sender(pid, exec_id), 1);
        self.calls(who, &call(time, socket_act::DATAGRAM, socket))
    }

    fn receives(&mut self, time: u64, socket: SocketInfo) -> &mut Self {
        self.kernel.counts(&socket, 0, 1);
        self.changes(&change(time, socket_change::DATAGRAM, socket))
    }

    /// The process ends its side, and the other one does too.
    fn closes(&mut self, pid: u32, time: u64, socket: SocketInfo) -> &mut Self {
        self.changes(&by(pid, goes(time, socket, state::ESTABLISHED, state::FIN_WAIT1)));
        self.changes(&goes(time, socket, state::FIN_WAIT2, state::CLOSE))
    }

    fn ticks(&mut self, now: u64) -> &mut Self {
        self.monitor.tick(now, &mut self.kernel);
        self
    }

    fn finishes(&mut self, now: u64) -> &mut Self {
        self.monitor.finish(now, &mut self.kernel);
        self
    }

    fn told(&mut self) -> Vec<Act<&'static str>> {
        self.monitor.take_acts()
    }

    /// What is told, as `kind who attribution what`.
    fn story(&mut self) -> Vec<String> {
        self.told().iter().map(line).collect()
    }
}

/// An event in a line: who is a name, a process ID or nobody, what came of it with its details.
fn line(act: &Act<&'static str>) -> String {
    let who = match &act.who {
        Who::Known(actor) => actor.process.to_owned(),
        Who::Task(task) => task.pid.to_string(),
        Who::Nobody => "nobody".to_owned(),
    };
    let NetworkActivity { attribution, outcome, error, reason, direction, .. } = &act.body;
    let opener = act.opener.as_ref().map(|opener| format!("of {}", opener.process)).unwrap_or_default();
    let count = if act.body.count == 0 { String::new() } else { format!("x{}", act.body.count) };
    let words = [act.kind, &who, attribution, direction, outcome, reason, error, &opener, &count];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}
