//! What `rawnet` says is what has happened.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::BTreeSet,
    io::Read as _,
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use nightjar_tests::{Hosts, skip};
use serde_json::{Value, json};

const VIAS: [&str; 6] = ["plain", "int80", "socketcall", "uring", "uring-poll", "uring-async"];

/// Leaves a test where network namespaces cannot be made.
macro_rules! hosts_or_skip {
    () => {
        if rustix::process::geteuid().is_root() {
            Hosts::new()
        } else {
            return skip("network namespaces need root");
        }
    };
}

/// The end of a connection with an address, as the other side sees it.
fn swapped(line: &Value) -> (Value, Value) {
    (line["remote"].clone(), line["local"].clone())
}

fn ends(line: &Value) -> (Value, Value) {
    (line["local"].clone(), line["remote"].clone())
}

#[test]
fn both_sides_say_the_same_by_each_way() {
    let hosts = hosts_or_skip!();
    for via in VIAS {
        for call in ["accept", "accept4"] {
            let words = format!("serve {}:0 --via {via} --call {call}", hosts.b.ipv4());
            let server = hosts.b.serve(&words);
            let address = format!("{}:{}", hosts.b.ipv4(), server.port());
            if via == "int80" && call == "accept" {
                // There is no such call.
                continue;
            }
            let words = format!("connect {address} --send 70000 --receive 70000 --via {via}");
            let client = hosts.a.rawnet(&words);
            let (connect, close) = (client.line("connect"), client.line("close"));
            assert_eq!(connect["remote"]["address"], hosts.b.ipv4());
            assert_eq!(connect["local"]["address"], hosts.a.ipv4());
            assert_eq!(connect["namespace"], hosts.a.namespace());
            assert_eq!((&close["sent"], &close["received"]), (&json!(70000), &json!(70000)), "{via}");
            let server = server.finish();
            let (accept, end) = (server.line("accept"), server.end());
            assert_eq!(ends(accept), swapped(connect), "{via}");
            assert_eq!(accept["namespace"], hosts.b.namespace());
            assert_eq!((&end["sent"], &end["received"]), (&json!(70000), &json!(70000)), "{via}");
            assert_eq!(connect["via"], via);
        }
    }
}

#[test]
fn what_is_listened_on_is_in_proc() {
    let hosts = hosts_or_skip!();
    for (address, table) in
        [("127.0.0.1:0", "tcp"), ("[::1]:0", "tcp6"), ("0.0.0.0:0", "tcp"), ("[::]:0", "tcp6")]
    {
        let server = hosts.b.serve(&format!("serve {address} --backlog 7"));
        let line = server.await_line("listen");
        let port = format!(":{:04X} ", server.port());
        let proc = hosts.b.proc_net(table);
        // State 0A is that of listeners.
        let listens = |row: &str| row.contains(&port) && row.split_whitespace().nth(3) == Some("0A");
        assert!(proc.lines().any(listens), "{line} is not in {proc}");
        assert_eq!(line["backlog"], 7);
        let _ended = server.finish();
        assert!(!hosts.b.proc_net(table).lines().any(listens));
    }
}

#[test]
fn a_connection_ends_as_it_is_told_to() {
    let hosts = hosts_or_skip!();
    let listener = hosts.b.inside(|| TcpListener::bind((hosts.b.ipv4(), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    for (end, expected) in [
        ("close", Ok(10)),
        ("half-close", Ok(10)),
        ("abort", Err("reset")),
        ("exit", Ok(10)),
        ("remote", Ok(10)),
    ] {
        let words = format!("connect {}:{port} --send 10 --hold-end --end {end}", hosts.b.ipv4());
        let mut client = hosts.a.start(&words);
        let (mut accepted, _) = listener.accept().unwrap();
        let mut content = [0; 10];
        accepted.read_exact(&mut content).unwrap();
        if end == "remote" {
            accepted.shutdown(std::net::Shutdown::Both).unwrap();
        }
        client.go_on();
        let mut rest = Vec::new();
        match (accepted.read_to_end(&mut rest), expected) {
            (Ok(0), Ok(_)) => {}
            (Err(error), Err(_)) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            (result, _) => panic!("{end}: {result:?}"),
        }
        drop(accepted);
        let client = client.finish();
        let act = if end == "exit" { "exit" } else { "close" };
        assert_eq!(client.line(act)["sent"], 10, "{end}");
    }
}

#[test]
fn a_server_ends_a_connection_as_it_is_told_to() {
    let hosts = hosts_or_skip!();
    for (behaviour, expected) in [("close", Ok(5)), ("half-close", Ok(5)), ("abort", Err(()))] {
        let server = hosts.b.serve(&format!("serve 127.0.0.1:0 --send 5 --behaviour {behaviour}"));
        let port = u16::try_from(server.port()).unwrap();
        let mut client = hosts.b.inside(|| TcpStream::connect(("127.0.0.1", port)).unwrap());
        let mut content = Vec::new();
        match (client.read_to_end(&mut content), expected) {
            (Ok(read), Ok(sent)) => assert_eq!(read, sent),
            (Err(error), Err(())) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            (result, _) => panic!("{behaviour}: {result:?}"),
        }
        drop(client);
        assert_eq!(server.finish().end()["sent"], 5);
    }
}

#[test]
fn a_connection_that_cannot_be_made_fails_as_expected() {
    let hosts = hosts_or_skip!();
    let silent = hosts.a.silent();
    for (address, error, more) in [
        ("127.0.0.1:1", "ECONNREFUSED", ""),
        ("127.0.0.1:1", "ECONNREFUSED", "--begin nonblocking"),
        ("203.0.113.1:80", "ENETUNREACH", ""),
        ("198.51.100.1:80", "EACCES", ""),
        ("198.51.100.2:80", "EHOSTUNREACH", ""),
        ("198.51.100.3:80", "EINVAL", ""),
        (&format!("{silent}:80"), "ETIMEDOUT", "--user-timeout 500 --syn-retries 1"),
    ] {
        for via in VIAS {
            if error == "ETIMEDOUT" && via != "plain" {
                continue;
            }
            let began = Instant::now();
            let talk = hosts.a.rawnet(&format!("connect {address} --expect {error} --via {via} {more}"));
            assert_eq!(talk.line("connect")["error"], error);
            println!("{error} via {via} {more}: {:?}", began.elapsed());
        }
    }
}

#[test]
fn a_connection_that_is_given_up_is_given_up_before_anything_came_of_it() {
    let hosts = hosts_or_skip!();
    let talk = hosts.a.rawnet(&format!("connect {}:80 --begin abandoned", hosts.a.silent()));
    assert_eq!(talk.line("close")["tcp"]["state"], 2, "SYN_SENT");
}

#[test]
fn fast_open_sends_content_with_the_first_packet() {
    let hosts = hosts_or_skip!();
    hosts.both().iter().for_each(|host| host.set("ipv4/tcp_fastopen", "3"));
    for via in VIAS {
        let server = hosts.b.serve(&format!("serve {}:0 --fastopen 16", hosts.b.ipv4()));
        let counted = || {
            let text = hosts.b.proc_net("netstat");
            let mut rows = text.lines().filter(|row| row.starts_with("TcpExt:")).map(str::split_whitespace);
            let (names, mut values) = (rows.next().unwrap(), rows.next().unwrap());
            values
                .nth(names.take_while(|name| *name != "TCPFastOpenPassive").count())
                .unwrap()
                .parse::<u32>()
                .unwrap()
        };
        let words = format!(
            "connect {}:{} --begin fastopen --send 99 --receive 99 --via {via}",
            hosts.b.ipv4(),
            server.port()
        );
        // The first one asks for a cookie, where it does not have one already.
        assert_eq!(hosts.a.rawnet(&words).line("close")["received"], 99);
        let before = counted();
        assert_eq!(hosts.a.rawnet(&words).line("close")["received"], 99);
        assert_eq!(counted(), before + 1, "{via}");
        let words = words.replace("fastopen ", "fastopen-connect ");
        assert_eq!(hosts.a.rawnet(&words).line("close")["received"], 99);
        assert_eq!(counted(), before + 2, "{via}");
        assert_eq!(server.finish().acts("accept").count(), 3);
    }
}

#[test]
fn addresses_of_all_kinds_are_told() {
    let hosts = hosts_or_skip!();
    let (a, b) = (&hosts.a, &hosts.b);
    let server = b.serve("serve [::]:0");
    let port = server.port();
    for (address, more, family, local) in [
        (b.ipv4(), "", "ipv4", a.ipv4()),
        (b.ipv4(), "--mapped", "ipv4", a.ipv4()),
        (format!("[{}]", b.ipv6()), "", "ipv6", a.ipv6()),
        (format!("[{}%{}]", b.link_local(), a.interface()), "", "ipv6", a.link_local()),
    ] {
        let talk = a.rawnet(&format!("connect {address}:{port} {more}"));
        let connect = talk.line("connect");
        assert_eq!((&connect["family"], &connect["local"]["address"]), (&json!(family), &json!(local)));
        assert_eq!(connect["mapped"], more == "--mapped");
        if address.contains('%') {
            assert_eq!(connect["remote"]["scope_id"], a.interface_index());
        }
    }
    let server = server.finish();
    let mapped: Vec<_> = server.acts("accept").map(|line| line["mapped"].as_bool().unwrap()).collect();
    assert_eq!(mapped, [true, true, false, false]);
}

#[test]
fn a_socket_is_bound_where_it_is_told_to() {
    let hosts = hosts_or_skip!();
    let listener = hosts.b.inside(|| TcpListener::bind((hosts.b.ipv4(), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let words = format!("connect {}:{port} --bind {}:4567 --device wire-a", hosts.b.ipv4(), hosts.a.ipv4());
    let talk = hosts.a.rawnet(&words);
    assert_eq!(talk.line("bind")["local"]["port"], 4567);
    assert_eq!(listener.accept().unwrap().1.to_string(), format!("{}:4567", hosts.a.ipv4()));
    for via in VIAS {
        hosts.b.rawnet(&format!("bind {}:{port} --expect EADDRINUSE --via {via}", hosts.b.ipv4()));
        hosts.b.rawnet(&format!("bind 203.0.113.1:1 --expect EADDRNOTAVAIL --via {via}"));
        assert_eq!(hosts.b.rawnet(&format!("bind 127.0.0.1:0 --via {via}")).acts("bind").count(), 1);
    }
}

#[test]
fn another_process_ends_a_connection_that_was_handed_over() {
    let hosts = hosts_or_skip!();
    for hand in ["passed", "inherited", "executed"] {
        let server = hosts.b.serve("serve 127.0.0.1:0 --behaviour sink");
        let words = format!("connect 127.0.0.1:{} --hand {hand} --send 55", server.port());
        let client = hosts.b.rawnet(&words);
        let end = client.end();
        assert_eq!(end["sent"], 55);
        assert_eq!(end["pid"] == client.pid, hand == "executed");
        let server = server.finish();
        assert_eq!(server.end()["received"], 55);
        assert!(server.end()["broken"].is_null());

        let server = hosts.b.serve(&format!("serve 127.0.0.1:0 --hand {hand} --send 66"));
        if hand != "executed" {
            let words = format!("connect 127.0.0.1:{} --receive 66 --end remote", server.port());
            assert_eq!(hosts.b.rawnet(&words).end()["received"], 66);
            let server = server.finish();
            assert_ne!(server.end()["pid"], server.pid);
        }
    }
}

#[test]
fn each_connection_is_accepted_by_one_of_many_workers() {
    let hosts = hosts_or_skip!();
    let server = hosts.b.serve("serve 127.0.0.1:0 --workers 32");
    let client =
        hosts.b.rawnet(&format!("churn 127.0.0.1:{} --count 500 --workers 32 --lines", server.port()));
    let server = server.finish();
    let pids: BTreeSet<u64> = server.acts("accept").map(|line| line["pid"].as_u64().unwrap()).collect();
    assert!(pids.len() > 4, "{pids:?}");
    let mut ports: Vec<_> =
        server.acts("accept").map(|line| line["remote"]["port"].as_u64().unwrap()).collect();
    let mut there: Vec<_> =
        client.acts("connection").map(|line| line["local"]["port"].as_u64().unwrap()).collect();
    ports.sort_unstable();
    there.sort_unstable();
    assert_eq!(ports, there);
    let sum = |name: &str| server.acts("totals").map(|line| line[name].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("received"), client.number("totals", "sent"));
    assert_eq!(sum("connections"), 500);
}

#[test]
fn datagrams_arrive_by_each_call_and_way() {
    let hosts = hosts_or_skip!();
    for protocol in ["udp", "udplite"] {
        for via in VIAS {
            let Some(server) =
                hosts.b.serve_unless_skipped(&format!("answer {}:0 --protocol {protocol}", hosts.b.ipv4()))
            else {
                continue;
            };
            let mut expected = 0;
            for call in ["sendto", "sendmsg", "sendmmsg", "write"] {
                let connected = if call == "write" { "--connected" } else { "" };
                let words = format!(
                    "send {}:{} --protocol {protocol} --call {call} {connected} --via {via} --count 3 --answered",
                    hosts.b.ipv4(),
                    server.port()
                );
                let Some(talk) = hosts.a.rawnet_unless_skipped(&words) else { continue };
                let flow = talk.line("flow");
                assert_eq!((&flow["packets_sent"], &flow["received"]), (&json!(3), &json!(300)), "{words}");
                expected += 1;
            }
            assert!(expected > 1, "{via}");
            let server = server.finish();
            assert_eq!(server.acts("flow").count(), expected);
            assert!(server.acts("flow").all(|flow| flow["packets_received"] == 3 && flow["sent"] == 300));
        }
    }
}

#[test]
fn echo_requests_are_answered() {
    let hosts = hosts_or_skip!();
    hosts.a.set("ipv4/ping_group_range", "0 0");
    for protocol in ["ping", "raw-icmp"] {
        let words = format!("send {}:0 --protocol {protocol} --count 2", hosts.b.ipv4());
        let answered = if protocol == "ping" { "--answered" } else { "" };
        let flow = hosts.a.rawnet(&format!("{words} {answered}")).line("flow").clone();
        assert_eq!((&flow["sent"], &flow["protocol"]), (&json!(216), &json!("icmp")));
        assert!(flow["remote"]["port"].is_null());
        let words = format!("send [{}]:0 --protocol {protocol}", hosts.b.ipv6());
        assert_eq!(hosts.a.rawnet(&words).line("flow")["protocol"], "icmpv6");
    }
    let echoes = hosts.b.proc_net("snmp");
    assert!(echoes.contains("Icmp:"));
}

#[test]
fn a_raw_packet_begins_a_connection() {
    let hosts = hosts_or_skip!();
    let passive = || {
        let text = hosts.b.proc_net("snmp");
        let mut rows = text.lines().filter(|row| row.starts_with("Tcp:")).map(str::split_whitespace);
        let (names, mut values) = (rows.next().unwrap(), rows.next().unwrap());
        values.nth(names.take_while(|name| *name != "InSegs").count()).unwrap().parse::<u32>().unwrap()
    };
    let before = passive();
    let talk = hosts.a.rawnet(&format!("send {}:80 --protocol raw-syn", hosts.b.ipv4()));
    assert_eq!(talk.line("flow")["sent"], 20);
    // The sum of the header is left to whoever checks it.
    assert!(passive() > before);
}

#[test]
fn one_socket_sends_to_many() {
    let hosts = hosts_or_skip!();
    let server = hosts.b.serve("answer 127.0.0.1:0 127.0.0.1:0 127.0.0.1:0 --silent");
    let ports: Vec<_> =
        server.await_lines("bind", 3).iter().map(|line| line["local"]["port"].clone()).collect();
    let words = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(" ");
    let client = hosts.b.rawnet(&format!("send {words} --bind 127.0.0.1:0 --count 4"));
    assert_eq!(client.acts("flow").count(), 3);
    let bound = &client.line("bind")["local"];
    let server = server.finish();
    assert!(server.acts("flow").all(|flow| flow["remote"] == *bound && flow["packets_received"] == 4));
}

#[test]
fn races_are_told_as_they_went() {
    let hosts = hosts_or_skip!();
    hosts.b.set("ipv4/tcp_fastopen", "1027");
    for via in VIAS {
        for act in ["connect", "fastopen"] {
            let server = hosts.b.serve("serve 127.0.0.1:0 127.0.0.2:0 --behaviour sink --fastopen 16");
            let binds = server.await_lines("bind", 2);
            let address = |line: &Value| {
                format!("{}:{}", line["local"]["address"].as_str().unwrap(), line["local"]["port"])
            };
            let words =
                format!("race {act} {} {} --rounds 200 --via {via}", address(&binds[0]), address(&binds[1]));
            let Some(client) = hosts.b.rawnet_unless_skipped(&words) else {
                assert!(act == "fastopen", "{words}");
                continue;
            };
            let server = server.finish();
            for bind in &binds {
                let there = server.acts("accept").filter(|line| line["local"] == bind["local"]).count();
                let here = client.acts("connect").filter(|line| line["remote"] == bind["local"]).count();
                assert_eq!(there, here, "{words}");
            }
            println!("{via} {act}: {}", client.lines.last().unwrap());
        }
        let Some(client) = hosts.b.rawnet_unless_skipped(&format!(
            "race send 127.0.0.1:7001 127.0.0.2:7002 --rounds 200 --via {via}"
        )) else {
            continue;
        };
        println!("{via} send: {}", client.lines.last().unwrap());
        assert_eq!(client.acts("send").count(), 200);
    }
}

#[test]
fn many_connections_are_open_at_once() {
    let hosts = hosts_or_skip!();
    let server = hosts.b.serve("serve 0.0.0.0:0 --behaviour hold --quiet");
    let port = server.port();
    let mut client = hosts.b.start(&format!("many 127.0.0.1:{port} 127.0.0.2:{port} --count 3000 --lines"));
    client.await_line("ready");
    // State 01 is that of connections.
    let open =
        hosts.b.proc_net("tcp").lines().filter(|row| row.split_whitespace().nth(3) == Some("01")).count();
    assert_eq!(open, 6000);
    client.go_on();
    assert_eq!(client.finish().acts("connection").count(), 3000);
    assert_eq!(server.finish().number("totals", "connections"), 3000);
}

#[test]
fn a_socket_stays_in_the_namespace_that_it_was_made_in() {
    let hosts = hosts_or_skip!();
    let listener = hosts.b.inside(|| TcpListener::bind((hosts.b.ipv4(), 0)).unwrap());
    let port = listener.local_addr().unwrap().port();
    let talk = hosts.a.rawnet(&format!("connect {}:{port} --unshare", hosts.b.ipv4()));
    assert_eq!(talk.line("connect")["namespace"], hosts.a.namespace());
    assert_ne!(talk.line("unshare")["namespace"], hosts.a.namespace());
    let talk = hosts.a.rawnet("unshare --send 44");
    let namespace = talk.line("unshare")["namespace"].clone();
    assert!(talk.acts("close").all(|line| line["namespace"] == namespace));
    assert!(talk.acts("close").any(|line| line["received"] == 44));
}

#[test]
fn what_is_not_answered_breaks_in_time() {
    let hosts = hosts_or_skip!();
    let server = hosts.b.serve(&format!("serve {}:0 --user-timeout 600", hosts.b.ipv4()));
    let words = format!(
        "connect {}:{} --hold --send 10 --end remote --user-timeout 600",
        hosts.b.ipv4(),
        server.port()
    );
    let mut client = hosts.a.start(&words);
    client.await_line("connect");
    hosts.a.is_cut_off_from(&hosts.b);
    client.go_on();
    let client = client.finish();
    assert_eq!(client.line("close")["broken"], "ETIMEDOUT");
    hosts.a.is_joined_to(&hosts.b);
    let again = hosts.a.rawnet(&words.replace("--hold ", "").replace("--end remote", ""));
    assert_eq!(again.acts("close").count(), 1);
    drop(server);
}

#[test]
fn a_listener_that_accepts_nobody_has_connections_all_the_same() {
    let hosts = hosts_or_skip!();
    let server = hosts.b.serve("serve 127.0.0.1:0 --behaviour ignore");
    let client = hosts.b.rawnet(&format!("connect 127.0.0.1:{} --send 5", server.port()));
    assert_eq!(client.line("close")["sent"], 5);
    assert_eq!(server.finish().acts("accept").count(), 0);
}

#[test]
fn unix_sockets_are_connected_to() {
    let hosts = hosts_or_skip!();
    let folder = nightjar_tests::folder_for_all();
    for path in [folder.path().join("socket").to_str().unwrap().to_owned(), "@rawnet-test".to_owned()] {
        let mut server = hosts.b.serve(&format!("unix {path} --times 2"));
        let other = hosts.b.rawnet(&format!("unix-connect {path}"));
        assert_eq!(other.line("connect")["path"], path);
        server.go_on();
        assert_eq!(server.finish().acts("connect").count(), 2);
        hosts.b.rawnet("unix-connect /nothing/there --expect ENOENT");
    }
}

#[test]
fn sockets_of_other_kinds_are_made() {
    let hosts = hosts_or_skip!();
    for kind in ["packet", "packet-ipv4", "netlink-route", "netlink-audit", "netlink-netfilter", "vsock"] {
        for via in ["plain", "int80", "socketcall", "uring"] {
            let talk = hosts.a.rawnet(&format!("socket {kind} --via {via}"));
            assert_eq!(talk.line("socket")["namespace"], hosts.a.namespace());
        }
    }
}

#[test]
fn a_datagram_of_a_test_gets_an_answer() {
    let hosts = hosts_or_skip!();
    let server = hosts.b.serve("answer 127.0.0.1:0");
    let port = u16::try_from(server.port()).unwrap();
    let answer = hosts.b.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        socket.recv(&mut [0; 16]).unwrap()
    });
    assert_eq!(answer, 5);
    assert_eq!(server.finish().line("flow")["sent"], 5);
}
