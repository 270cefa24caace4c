//! Who talks to whom: alice shows a folder to a colleague with a web server and fetches a file, and root looks at
//! packets.

use nightjar_proto::v1::{Event, NetworkActivity, NetworkEndpoint, Process, event::Body};

use super::{
    at, event,
    files::{as_root, root_shell},
    program, shell, words,
};

const HERE: &str = "192.0.2.10";
/// Inode number of the host's network namespace.
const HOST: u32 = 4_026_531_840;

/// A web server of alice waits on a port, and a colleague gets a file from it.
pub fn serve() -> Vec<Event> {
    let bound = NetworkActivity {
        local: Some(at_port("0.0.0.0", 8000)),
        call: "bind".into(),
        attribution: "acted".into(),
        ..over("tcp", "ipv4")
    };
    let listening = NetworkActivity {
        connection: "b7f60a2d914ce853".into(),
        backlog: 5,
        call: "listen".into(),
        ..bound.clone()
    };
    let accepted = NetworkActivity {
        direction: "inbound".into(),
        local: Some(at_port(HERE, 8000)),
        remote: Some(at_port("192.0.2.77", 51_618)),
        connection: "40e1c95b7ad8263f".into(),
        interface: "eth0".into(),
        call: "accept4".into(),
        attribution: "acted".into(),
        ..over("tcp", "ipv4")
    };
    vec![
        done(1_720_118_402, "network.bind", python(), bound),
        done(1_720_141_977, "network.listen", python(), listening),
        done(1_774_503_661, "network.accept", python(), accepted),
    ]
}

/// alice fetches a file; before that, queries for the address of its host.
pub fn fetch() -> Vec<Event> {
    let connected = NetworkActivity {
        direction: "outbound".into(),
        local: Some(at_port("2001:db8::10", 41_822)),
        remote: Some(at_port("2001:db8:0:7::2", 443)),
        connection: "e53d08b6f1947ac2".into(),
        interface: "eth0".into(),
        outcome: "established".into(),
        latency: 11_274_093,
        attribution: "acted".into(),
        ..over("tcp", "ipv6")
    };
    let closed = NetworkActivity {
        outcome: String::new(),
        latency: 0,
        duration: 89_702_551,
        bytes_sent: Some(1_107),
        bytes_received: Some(182_440),
        packets_sent: Some(61),
        packets_received: Some(138),
        retransmits: 1,
        round_trip: 11_402_000,
        reason: "closed".into(),
        ..connected.clone()
    };
    let asked = NetworkActivity {
        r#type: "dgram".into(),
        direction: "outbound".into(),
        remote: Some(at_port("127.0.0.53", 53)),
        interface: "lo".into(),
        loopback: true,
        bytes_sent: Some(164),
        bytes_received: Some(412),
        packets_sent: Some(4),
        packets_received: Some(4),
        attribution: "opener".into(),
        count: 3,
        first_time: Some(at(1_801_937_440)),
        last_time: Some(at(1_805_266_018)),
        ..over("udp", "ipv4")
    };
    vec![
        done(1_801_937_440, "network.flow", curl(), asked),
        done(1_806_120_735, "network.connect", curl(), connected),
        done(1_907_097_379, "network.close", curl(), closed),
    ]
}

/// root looks at all packets.
pub fn capture() -> Event {
    let socket = NetworkActivity {
        r#type: "raw".into(),
        call: "socket".into(),
        attribution: "acted".into(),
        ..over("all", "packet")
    };
    let tcpdump = Process {
        id: "c8a14f0de36b7925".into(),
        exec_id: "5f72e90bd41c8a36".into(),
        pid: 48_322,
        tid: 48_322,
        ppid: 48_262,
        start_time: Some(at(1_930_552_806)),
        comm: "tcpdump".into(),
        exe: Some(program("/usr/bin/tcpdump", 1_316_047, "0755")),
        args: words(&["tcpdump", "-i", "any", "port", "8000"]),
        ..as_root()
    };
    let mut event = done(1_937_640_219, "network.socket", tcpdump, socket);
    event.parent = Some(root_shell());
    event
}

fn done(nanos: i32, kind: &str, process: Process, network: NetworkActivity) -> Event {
    event(nanos, kind, Some(process), Body::Network(network))
}

/// A socket of the host.
fn over(protocol: &str, family: &str) -> NetworkActivity {
    NetworkActivity {
        protocol: protocol.into(),
        family: family.into(),
        r#type: "stream".into(),
        namespace: HOST,
        ..NetworkActivity::default()
    }
}

fn at_port(address: &str, port: u32) -> NetworkEndpoint {
    NetworkEndpoint { address: address.into(), port: Some(port), ..NetworkEndpoint::default() }
}

fn python() -> Process {
    Process {
        id: "2ed90b7c5f18a463".into(),
        exec_id: "e06c7b3f92a1d584".into(),
        pid: 48_301,
        tid: 48_301,
        start_time: Some(at(1_711_860_294)),
        comm: "python3".into(),
        exe: Some(program("/usr/bin/python3.12", 1_314_802, "0755")),
        args: words(&["python3", "-m", "http.server"]),
        ..shell()
    }
}

fn curl() -> Process {
    Process {
        id: "71f8a3c02be9d564".into(),
        exec_id: "b39d5ef81704ca62".into(),
        pid: 48_314,
        tid: 48_314,
        start_time: Some(at(1_796_004_873)),
        comm: "curl".into(),
        exe: Some(program("/usr/bin/curl", 1_312_871, "0755")),
        args: words(&["curl", "-O", "https://example.org/release.tar.gz"]),
        ..shell()
    }
}
