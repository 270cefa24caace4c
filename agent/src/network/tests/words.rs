//! What an event says of a socket.

use super::*;
use crate::network::describe;

fn ipv6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

fn end(end: Option<&nightjar_proto::v1::NetworkEndpoint>) -> String {
    let Some(end) = end else { return "-".to_owned() };
    let port = end.port.map_or(String::new(), |port| format!(" {port}"));
    let scope = if end.scope_id == 0 { String::new() } else { format!("%{}", end.scope_id) };
    format!("{}{scope}{port}", end.address)
}

#[test]
fn addresses_are_shown_as_what_they_are() {
    let v6 = |local: &str, remote: &str| SocketInfo {
        family: 10,
        scope: 3,
        local: ipv6(local),
        remote: ipv6(remote),
        ..tcp(1)
    };
    let v4 = |local: &str, remote: &str| SocketInfo { local: ipv4(local), remote: ipv4(remote), ..tcp(1) };
    // Socket; family, local end, remote end; mapped, loopback.
    let cases = [
        (v4("192.0.2.1", "192.0.2.2"), "ipv4 192.0.2.1 40000 192.0.2.2 443", false, false),
        (v4("127.0.0.1", "127.0.0.2"), "ipv4 127.0.0.1 40000 127.0.0.2 443", false, true),
        (v4("192.0.2.1", "192.0.2.1"), "ipv4 192.0.2.1 40000 192.0.2.1 443", false, true),
        (v6("2001:db8::1", "2001:db8::2"), "ipv6 2001:db8::1 40000 2001:db8::2 443", false, false),
        (v6("fe80::1", "fe80::2"), "ipv6 fe80::1%3 40000 fe80::2%3 443", false, false),
        (v6("fe80::1", "ff02::fb"), "ipv6 fe80::1%3 40000 ff02::fb%3 443", false, false),
        (v6("::1", "::1"), "ipv6 ::1 40000 ::1 443", false, true),
        (v6("::ffff:192.0.2.1", "::ffff:192.0.2.2"), "ipv4 192.0.2.1 40000 192.0.2.2 443", true, false),
        (v6("::ffff:127.0.0.1", "::ffff:127.0.0.1"), "ipv4 127.0.0.1 40000 127.0.0.1 443", true, true),
        (v6("::", "::ffff:192.0.2.2"), "ipv4 :: 40000 192.0.2.2 443", true, false),
    ];
    for (socket, expected, mapped, loopback) in cases {
        let body = describe::connection(&socket);
        let line = format!("{} {} {}", body.family, end(body.local.as_ref()), end(body.remote.as_ref()));
        assert_eq!((line.as_str(), body.ipv4_mapped, body.loopback), (expected, mapped, loopback));
    }
    let mut lo = v4("192.0.2.1", "192.0.2.2");
    lo.interface_name[..2].copy_from_slice(b"lo");
    let body = describe::connection(&lo);
    assert_eq!((body.interface.as_str(), body.loopback), ("lo", true));
}

#[test]
fn ends_that_are_none_are_absent() {
    let nothing = SocketInfo { local: [0; 16], remote: [0; 16], local_port: 0, remote_port: 0, ..udp(1) };
    let body = describe::connection(&nothing);
    assert_eq!((body.local, body.remote), (None, None));
    let body = describe::listener(&SocketInfo { local_port: 53, ..nothing });
    assert_eq!(end(body.local.as_ref()), "0.0.0.0 53");
    let body = describe::listener(&SocketInfo { family: 10, local_port: 53, ..nothing });
    assert_eq!(end(body.local.as_ref()), ":: 53");
    let body = describe::connection(&SocketInfo { local_port: 0, ..udp(1) });
    assert_eq!(end(body.local.as_ref()), "192.0.2.1");
}

#[test]
fn protocols_and_kinds_have_their_names() {
    // Family, kind, protocol; names of family, type and protocol; whether it has ports.
    let cases = [
        (2, 1, 6, "ipv4 stream tcp", true),
        (10, 2, 17, "ipv6 dgram udp", true),
        (2, 2, 136, "ipv4 dgram udplite", true),
        (2, 2, 1, "ipv4 dgram icmp", false),
        (10, 3, 58, "ipv6 raw icmpv6", false),
        (2, 3, 255, "ipv4 raw raw", false),
        (2, 3, 6, "ipv4 raw tcp", false),
        (2, 3, 89, "ipv4 raw 89", false),
        (2, 5, 132, "ipv4 seqpacket sctp", true),
        (2, 6, 33, "ipv4 dccp dccp", true),
        (2, 1, 262, "ipv4 stream mptcp", true),
        (16, 3, 9, "netlink raw audit", false),
        (16, 3, 99, "netlink raw 99", false),
        (17, 3, 0x0003, "packet raw all", false),
        (17, 2, 0x88cc, "packet dgram 88cc", false),
        (40, 1, 0, "vsock stream ", true),
        (1, 1, 0, "unix stream ", false),
        (38, 5, 0, "alg seqpacket ", false),
        (99, 1, 0, "99 stream ", false),
    ];
    for (family, kind, protocol, expected, ports) in cases {
        let body = describe::connection(&SocketInfo { family, kind, protocol, ..tcp(1) });
        assert_eq!(format!("{} {} {}", body.family, body.r#type, body.protocol), expected);
        assert_eq!(body.remote.is_some_and(|end| end.port.is_some()), ports, "{expected}");
    }
}

#[test]
fn names_of_unix_sockets_are_text() {
    let cases: [(&[u8], &str); 3] =
        [(b"/run/x.sock", "/run/x.sock"), (b"\0abstract", "@abstract"), (b"/\xff", "/\\xff")];
    for (bytes, text) in cases {
        assert_eq!(describe::unix_path(bytes), text);
    }
    let mut world = World::new();
    let socket = SocketInfo { family: 1, protocol: 0, local: [0; 16], remote: [0; 16], ..tcp(1) };
    world.monitor.called(&call(SECOND, socket_act::UNIX_CONNECT, socket), b"/run/x.sock", actor(7, "docker"));
    let acts = world.told();
    assert_eq!(line(&acts[0]), "network.connect docker acted outbound established");
    let body = &acts[0].body;
    assert_eq!((body.local.as_ref(), body.remote.as_ref().unwrap().path.as_str()), (None, "/run/x.sock"));
}

#[test]
fn a_call_that_is_all_there_is_is_told_with_its_error() {
    let mut world = World::new();
    let bind =
        SocketCall { errno: 13, call: socket_call::IO_URING, ..call(SECOND, socket_act::BIND, listening(1)) };
    world.calls(&actor(7, "nc"), &bind);
    world
        .calls(&actor(7, "nc"), &call(SECOND, socket_act::SOCKET, SocketInfo { family: 17, ..listening(2) }));
    let acts = world.told();
    assert_eq!(line(&acts[0]), "network.bind nc acted 13");
    assert_eq!((acts[0].body.call.as_str(), acts[0].body.connection.as_str()), ("io_uring", ""));
    assert_eq!((acts[1].kind, acts[1].body.local.as_ref()), ("network.socket", None));
}
