//! Whatever way leads to a socket: what is done there is told, with the right address and the right process.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use nightjar_tests::{
    TALK, Told, Wire, network, network_agent, skip, skip_without_kernel, until, watch_network,
};
use serde_json::Value;

const CONFIGURATION: &str = "network: {fold: 0s}";
const VIAS: [&str; 5] = ["int80", "socketcall", "uring", "uring-poll", "uring-async"];
const ROUNDS: usize = 300;

fn wire() -> Wire {
    watch_network(CONFIGURATION);
    Wire::new()
}

/// As many events as the kernel sent packets or connections to each address.
fn expect_race(told: &Told, kind: &str, lines: &[&Value]) {
    let mut happened: BTreeMap<String, usize> = BTreeMap::new();
    for line in lines {
        *happened.entry(line["remote"].to_string()).or_default() += 1;
    }
    let mut heard: BTreeMap<String, usize> = BTreeMap::new();
    for event in told.all(kind).filter(|event| event.get("network.error").is_none()) {
        *heard.entry(event.field("network.remote").to_string()).or_default() += 1;
    }
    let normal = |counts: BTreeMap<String, usize>| -> BTreeMap<String, usize> {
        counts
            .into_iter()
            .map(|(end, count)| (serde_json::from_str::<Value>(&end).unwrap().to_string(), count))
            .collect()
    };
    assert_eq!(normal(heard), normal(happened));
}

/// Each connection of a race is told with the address that it went to.
fn expect_connections(told: &Told, lines: &[&Value]) {
    let ends = |local: &Value, remote: &Value| format!("{} {remote}", local["port"]);
    let mut happened: Vec<String> = lines.iter().map(|line| ends(&line["local"], &line["remote"])).collect();
    let connects = || told.all("network.connect");
    let mut heard: Vec<String> =
        connects().map(|event| ends(event.field("network.local"), event.field("network.remote"))).collect();
    happened.sort_unstable();
    heard.sort_unstable();
    assert_eq!(heard, happened);
    for event in connects() {
        assert_eq!(event.field("process.pid"), &lines[0]["pid"], "{event}");
        assert!(event.get("network.source").is_none(), "{event}");
    }
}

// Ways into the kernel

#[test]
fn connections_by_each_way_are_told() {
    skip_without_kernel!();
    for via in VIAS {
        for call in ["accept", "accept4"] {
            let wire = wire();
            let Some(server) =
                wire.b.serve_unless_skipped(&format!("serve {}:0 --via {via} --call {call}", wire.b.ipv4()))
            else {
                skip(&format!("the kernel has no {via}"));
                continue;
            };
            if (via, call) == ("int80", "accept") {
                // There is no such call.
                continue;
            }
            let words = format!("connect {} --send 70 --receive 70 --via {via}", server.address());
            let client = wire.a.rawnet(&words);
            let server = server.finish();
            let told = wire.told(&TALK);
            told.expect(
                &network("network.connect")
                    .of_socket(client.line("connect"))
                    .with("network.outcome", "established")
                    .with_some("network.latency"),
            );
            told.expect(&network("network.close").of_end(client.end()).with("network.reason", "closed"));
            told.expect(&network("network.bind").of_socket(server.line("bind")));
            told.expect(
                &network("network.listen").of_socket(server.line("listen")).with("network.backlog", 4096),
            );
            told.expect(
                &network("network.close").of_end(server.end()).with("network.reason", "closed_by_remote"),
            );
            // Who accepted is the listener here; where the way is not seen, that is what it is told as.
            let accept = told.expect(&network("network.accept").of_socket(server.line("accept")));
            assert!(["acted", "listener"].contains(&accept.text("network.attribution")), "{via}: {accept}");
        }
    }
}

#[test]
fn who_accepts_by_each_way_is_told_where_it_is_not_who_listens() {
    skip_without_kernel!();
    for via in VIAS {
        let wire = wire();
        let words = format!("serve {}:0 --workers 1 --via {via}", wire.b.ipv4());
        let Some(server) = wire.b.serve_unless_skipped(&words) else {
            skip(&format!("the kernel has no {via}"));
            continue;
        };
        wire.a.rawnet(&format!("connect {} --send 5 --receive 5", server.address()));
        let server = server.finish();
        let line = server.line("accept");
        assert_ne!(line["pid"], Value::from(server.pid));
        let told = wire.told(&TALK);
        let accept = told.all("network.accept").next().unwrap();
        let is_acceptor = accept.field("process.pid") == &line["pid"];
        // Of the one call that old programs have for all, it is known who listens, and who ends the connection.
        let is_lesser = via == "socketcall" && accept.text("network.attribution") == "listener";
        assert!(is_acceptor || is_lesser, "{via}: {accept} of {line}");
        let close = told.expect(&network("network.close").of_end(server.end()));
        assert_eq!(close.text("network.attribution"), "acted", "{via}: {close}");
    }
}

#[test]
fn connections_that_fail_by_each_way_are_told() {
    skip_without_kernel!();
    for via in VIAS {
        for (address, error) in [("127.0.0.1:1", "ECONNREFUSED"), ("203.0.113.1:80", "ENETUNREACH")] {
            let wire = wire();
            let words = format!("connect {address} --expect {error} --via {via}");
            if wire.a.rawnet_unless_skipped(&words).is_none() {
                skip(&format!("the kernel has no {via}"));
                continue;
            }
            let connect = until("it is told", || {
                wire.events().into_iter().find(|event| event.kind() == "network.connect")
            });
            let outcome = connect.text("network.outcome");
            if outcome == "failed" {
                assert_eq!(connect.text("network.error"), error, "{via}: {connect}");
            } else {
                // Where no state changed and no call was seen, the attempt is what is known.
                assert_eq!((outcome, error), ("unknown", "ENETUNREACH"), "{via}: {connect}");
            }
            let (there, port) = address.split_once(':').unwrap();
            assert_eq!(connect.text("network.remote.address"), there, "{via}: {connect}");
            assert_eq!(connect.field("network.remote.port").to_string(), port, "{via}: {connect}");
            thread::sleep(Duration::from_millis(1500));
            wire.told(&["network.connect"]);
        }
    }
}

#[test]
fn fast_open_by_each_way_is_told() {
    skip_without_kernel!();
    for via in VIAS {
        let wire = wire();
        for host in [wire.a, wire.b] {
            host.set("ipv4/tcp_fastopen", "3");
        }
        let server = wire.b.serve(&format!("serve {}:0 --fastopen 16", wire.b.ipv4()));
        let words =
            format!("connect {} --begin fastopen --send 99 --receive 99 --via {via}", server.address());
        let clients: Vec<_> = (0..2).filter_map(|_| wire.a.rawnet_unless_skipped(&words)).collect();
        drop(server.finish());
        if clients.is_empty() {
            skip(&format!("the kernel has no {via}"));
            continue;
        }
        let kinds =
            [&TALK[..], &["network.connect", "network.accept", "network.close", "network.close"]].concat();
        let told = wire.told(&kinds);
        for client in &clients {
            told.expect(
                &network("network.connect")
                    .of_socket(client.line("connect"))
                    .with("network.outcome", "established"),
            );
            told.expect(&network("network.close").of_end(client.end()).with("network.bytes_sent", 99));
        }
    }
}

#[test]
fn datagrams_by_each_way_are_told() {
    skip_without_kernel!();
    for via in VIAS {
        for call in ["sendto", "sendmsg", "sendmmsg", "write"] {
            let wire = wire();
            let connected = if call == "write" { "--connected" } else { "" };
            // Nobody says that nobody is there, which would be an error of the next call.
            let there = wire.a.silent();
            let words = format!("send {there}:5353 --call {call} {connected} --count 3 --via {via}");
            let Some(client) = wire.a.rawnet_unless_skipped(&words) else { continue };
            let told = wire.told(&["network.connect", "network.close"]);
            told.expect(
                &network("network.connect")
                    .of_socket(client.line("send"))
                    .but("network.local.address", wire.a.ipv4())
                    .with("network.outcome", "sent"),
            );
            told.expect(
                &network("network.close")
                    .of_end(client.line("flow"))
                    .but("network.local.address", wire.a.ipv4())
                    .with("network.packets_sent", 3),
            );
        }
    }
}

#[test]
fn unusual_sockets_by_each_way_but_32_bit_calls_are_told() {
    skip_without_kernel!();
    // No hook of this tier sees a 32-bit program make one: docs/architecture.md says so.
    for via in VIAS.into_iter().filter(|via| !["int80", "socketcall"].contains(via)) {
        let wire = wire();
        let Some(talk) = wire.a.rawnet_unless_skipped(&format!("socket packet --via {via}")) else {
            skip(&format!("the kernel has no {via}"));
            continue;
        };
        let told = wire.told(&["network.socket"]);
        told.expect(
            &network("network.socket").with("process.pid", talk.pid).with("network.family", "packet"),
        );
    }
}

// Addresses that change

#[test]
fn a_connection_whose_address_is_rewritten_meanwhile_is_told_as_it_was() {
    skip_without_kernel!();
    for via in ["plain"].into_iter().chain(VIAS) {
        for act in ["connect", "fastopen"] {
            let wire = wire();
            // Without cookies, so that content is taken at once.
            wire.b.set("ipv4/tcp_fastopen", "1027");
            let server = wire.b.serve("serve 127.0.0.1:0 127.0.0.2:0 --behaviour sink --quiet --fastopen 64");
            let binds = server.await_lines("bind", 2);
            let there: Vec<_> = binds
                .iter()
                .map(|line| {
                    format!("{}:{}", line["local"]["address"].as_str().unwrap(), line["local"]["port"])
                })
                .collect();
            let words = format!("race {act} {} --rounds {ROUNDS} --via {via}", there.join(" "));
            let Some(client) = wire.b.rawnet_unless_skipped(&words) else { continue };
            drop(server.finish());
            let kinds =
                ["network.connect", "network.accept", "network.close", "network.close"].repeat(ROUNDS);
            let others = ["network.bind", "network.listen", "network.close"].repeat(2);
            let told = wire.told(&[kinds, others].concat());
            let lines: Vec<&Value> = client.acts("connect").collect();
            assert_eq!(lines.len(), ROUNDS);
            expect_race(&told, "network.connect", &lines);
            expect_connections(&told, &lines);
            println!("{act} via {via}: {}", client.lines.last().unwrap());
        }
    }
}

#[test]
fn a_datagram_whose_address_is_rewritten_meanwhile_is_told_as_it_was() {
    skip_without_kernel!();
    for via in ["plain"].into_iter().chain(VIAS) {
        let wire = wire();
        let words = format!("race send 127.0.0.1:7001 127.0.0.2:7002 --rounds {ROUNDS} --via {via}");
        let Some(client) = wire.b.rawnet_unless_skipped(&words) else { continue };
        let lines: Vec<&Value> = client.acts("send").collect();
        assert_eq!(lines.len(), ROUNDS);
        // Both ends are of this one host. A port that the kernel chooses again is the same flow for who receives.
        let received: BTreeSet<String> =
            lines.iter().map(|line| format!("{} {}", line["local"]["port"], line["remote"])).collect();
        let sent = ["network.connect", "network.close"].repeat(ROUNDS);
        let received = ["network.accept", "network.close"].repeat(received.len());
        let told = wire.told(&[sent, received, vec!["network.bind"; 2]].concat());
        expect_race(&told, "network.connect", &lines);
        for event in told.all("network.connect") {
            assert_eq!(event.get("process.pid"), Some(&client.pid.into()), "{event}");
        }
    }
}

// From elsewhere

#[test]
fn a_socket_that_was_connected_before_exec_is_told_of_both_programs() {
    skip_without_kernel!();
    let wire = wire();
    let (client, _) = wire.talk("serve HERE:0 --behaviour sink", "connect ADDRESS --hand executed --send 12");
    let told = wire.told(&TALK);
    let connect = told.expect(&network("network.connect").of_socket(client.line("connect")));
    let close = told.expect(&network("network.close").of_end(client.end()));
    assert_eq!(connect.field("process.id"), close.field("process.id"));
    assert_ne!(connect.field("process.exec_id"), close.field("process.exec_id"));
    assert_eq!(close.field("network.opener.exec_id"), connect.field("process.exec_id"));
}

#[test]
fn a_network_namespace_of_ones_own_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let mark = nightjar_tests::events_of_shared(&network("network.connect")).len();
    let talk = wire.a.rawnet("unshare --send 44");
    let namespace = talk.line("unshare")["namespace"].clone();
    assert_ne!(namespace, Value::from(wire.a.namespace()));
    wire.settle();
    wire.told(&[]);
    for (kind, line) in [
        ("network.connect", talk.line("connect")),
        ("network.accept", talk.line("accept")),
        ("network.listen", talk.line("listen")),
        ("network.bind", talk.line("bind")),
    ] {
        let expect = network(kind).of_socket(line).with("network.namespace", namespace.clone());
        assert_eq!(nightjar_tests::events_of_shared(&expect).len(), 1, "{kind}: {line}");
    }
    for line in talk.acts("close").filter(|line| !line["remote"].is_null()) {
        assert_eq!(
            nightjar_tests::events_of_shared(&network("network.close").of_end(line)).len(),
            1,
            "{line}"
        );
    }
    assert!(nightjar_tests::events_of_shared(&network("network.connect")).len() > mark);
}

#[test]
fn a_socket_is_told_with_the_namespace_that_it_was_made_in() {
    skip_without_kernel!();
    let wire = wire();
    let (client, _) = wire.talk("serve HERE:0", "connect ADDRESS --unshare --send 5");
    let told = wire.told(&TALK);
    told.expect(
        &network("network.connect")
            .of_socket(client.line("connect"))
            .with("network.namespace", wire.a.namespace()),
    );
    let wire = self::wire();
    let client = wire.a.rawnet("send 192.0.2.2:53 --unshare");
    let told = wire.told(&["network.connect", "network.close"]);
    told.expect(
        &network("network.connect")
            .of_socket(client.line("send"))
            .but("network.local.address", wire.a.ipv4())
            .with("network.namespace", wire.a.namespace()),
    );
}

#[test]
fn a_bound_datagram_socket_that_sends_elsewhere_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet("send 192.0.2.2:53 --bind 192.0.2.1:5353");
    let told = wire.told(&["network.bind", "network.connect", "network.close"]);
    told.expect(&network("network.connect").of_socket(client.line("send")).with("network.local.port", 5353));
}

#[test]
fn a_connection_that_the_other_side_does_not_know_of_any_more_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour hold", wire.b.ipv4()));
    let mut client = wire.a.start(&format!("connect {} --hold --send 10 --end remote", server.address()));
    let connect = client.await_line("connect");
    server.await_line("accept");
    // What the server says at its end is lost; it does not know the connection afterwards.
    wire.b.is_cut_off_from(wire.a);
    wire.b.ip("link set wire-b down");
    drop(server.kill());
    thread::sleep(Duration::from_millis(200));
    wire.b.ip("link set wire-b up");
    wire.b.is_joined_to(wire.a);
    wire.b.set("ipv4/tcp_abort_on_overflow", "0");
    client.go_on();
    let ends = until("both ends", || {
        let events = wire.events();
        let ends = events
            .iter()
            .filter(|event| event.kind() == "network.close" && event.get("network.remote").is_some());
        (ends.count() == 2).then_some(events)
    });
    let told = Told(ends);
    let client = client.finish();
    let close = told.expect(
        &network("network.close")
            .of_ends(&connect)
            .with("process.pid", client.pid)
            .with_some("network.reason"),
    );
    // The client may have read the end of a server that was killed before the reset came.
    let broken = client.end()["broken"].as_str().map(str::to_owned);
    if let Some(broken) = broken {
        assert_eq!(close.get("network.error").and_then(Value::as_str), Some(&*broken), "{close}");
    }
}

#[test]
fn a_process_that_was_there_before_the_agent_is_told_as_well() {
    skip_without_kernel!();
    let hosts = nightjar_tests::Hosts::new();
    let server = hosts.b.serve(&format!("serve {}:0", hosts.b.ipv4()));
    let mut client = hosts.a.start(&format!("connect {} --hold-end --times 2", server.address()));
    client.await_line("connect");
    let agent = network_agent(CONFIGURATION);
    let mark = agent.mark();
    client.go_on();
    let second = client.await_lines("connect", 2).pop().unwrap();
    agent.expect_event(
        &network("network.connect").of_process(client.pid()).of_socket(&second).without("network.snapshot"),
        mark,
    );
    drop(client.finish());
    drop(server.finish());
    assert!(agent.stop().status.success());
}
