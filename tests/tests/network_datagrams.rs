//! Flows of datagrams: told with their first one, counted until their end.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Event, Expect, Hosts, Told, Wire, network, network_agent, rawnet_path, skip, skip_without_kernel, until,
    watch_network,
};
use serde_json::Value;

const CONFIGURATION: &str = "network: {fold: 0s}";
/// How long a flow of an agent that calls it idle after a second may take to be idle.
const PATIENCE: Duration = Duration::from_secs(20);
/// What is told of one flow between two hosts.
const FLOW: [&str; 5] =
    ["network.bind", "network.connect", "network.accept", "network.close", "network.close"];
/// What is told of a flow where nobody listens.
const ONE_WAY: [&str; 2] = ["network.connect", "network.close"];

/// The same of a raw socket, which few programs need.
const RAW: [&str; 3] = ["network.socket", "network.connect", "network.close"];

fn wire() -> Wire {
    watch_network(CONFIGURATION);
    Wire::new()
}

/// The event that tells of the first datagram of a flow, which went from this address: sockets that nobody bound know
/// of none.
fn sent(line: &Value, from: &str) -> Expect {
    network("network.connect")
        .of_socket(line)
        .but("network.local.address", from)
        .with("network.direction", "outbound")
        .with("network.outcome", "sent")
        .with("network.attribution", "acted")
        .with_some("network.connection")
        .without("network.latency")
        .without("network.error")
        .without("network.snapshot")
        .without("network.opener")
}

/// The event that tells of the end of a flow, with all that went both ways.
fn ended(line: &Value, from: &str) -> Expect {
    network("network.close")
        .of_end(line)
        .but("network.local.address", from)
        .with("network.packets_sent", line["packets_sent"].clone())
        .with("network.packets_received", line["packets_received"].clone())
        .with("network.reason", "closed")
        .with_some("network.connection")
        .with_some("network.duration")
}

/// The beginning and the end have the same name.
fn expect_pair(told: &Told, begin: &Expect, end: &Expect) {
    let (begin, end) = (told.expect(begin), told.expect(end));
    assert_eq!(begin.field("network.connection"), end.field("network.connection"), "{told}");
}

// Calls

#[test]
fn the_first_datagram_by_each_call_is_told_and_the_rest_counted() {
    skip_without_kernel!();
    for (call, more) in [
        ("sendto", ""),
        ("sendmsg", ""),
        ("sendmmsg", ""),
        ("sendto", "--connected"),
        ("write", "--connected"),
    ] {
        let wire = wire();
        let from = wire.a.ipv4();
        // Nobody says that nobody is there, which would be an error of the next call.
        let words = format!("send {}:9999 --call {call} {more} --count 25 --size 33", wire.a.silent());
        let client = wire.a.rawnet(&words);
        let told = wire.told(&ONE_WAY);
        let flow = client.line("flow");
        assert_eq!(flow["sent"], 25 * 33);
        let begin = sent(client.line("send"), &from)
            .exe(rawnet_path())
            .with("network.protocol", "udp")
            .with("network.type", "dgram")
            .with("network.interface", wire.a.interface());
        expect_pair(&told, &begin, &ended(flow, &from));
    }
}

#[test]
fn a_flow_is_told_on_both_sides_with_what_went_both_ways() {
    skip_without_kernel!();
    for address in ["HERE4:0", "[HERE6]:0", "0.0.0.0:0"] {
        let wire = wire();
        let address = address.replace("HERE4", &wire.b.ipv4()).replace("HERE6", &wire.b.ipv6());
        let server = wire.b.serve(&format!("answer {address}"));
        let target = server.address().replace("0.0.0.0", &wire.b.ipv4());
        let client = wire.a.rawnet(&format!("send {target} --count 7 --size 50 --answered"));
        let server = server.finish();
        let told = wire.told(&FLOW);
        let from = if target.starts_with('[') { wire.a.ipv6() } else { wire.a.ipv4() };
        expect_pair(&told, &sent(client.line("send"), &from), &ended(client.line("flow"), &from));
        let (receive, flow) = (server.line("receive"), server.line("flow"));
        let accept = network("network.accept")
            .with("process.pid", receive["pid"].clone())
            .with("network.direction", "inbound")
            .with("network.protocol", "udp")
            .with("network.local.port", receive["local"]["port"].clone())
            .with("network.remote", receive["remote"].clone())
            .with(
                "network.local.address",
                if target.starts_with('[') { wire.b.ipv6() } else { wire.b.ipv4() },
            )
            .with("network.interface", wire.b.interface())
            .with("network.namespace", wire.b.namespace())
            .without("network.outcome");
        let close = network("network.close")
            .with("process.pid", server.pid)
            .with("network.remote", flow["remote"].clone())
            .with("network.bytes_sent", 350)
            .with("network.bytes_received", 350)
            .with("network.packets_sent", 7)
            .with("network.packets_received", 7)
            .with("network.reason", "closed");
        expect_pair(&told, &accept, &close);
    }
}

#[test]
fn a_flow_that_nobody_answers_is_told_of_who_has_the_socket() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("answer {}:0 --silent", wire.b.ipv4()));
    let client = wire.a.rawnet(&format!("send {} --count 3", server.address()));
    let server = server.finish();
    let told = wire.told(&FLOW);
    let accept = told.expect(
        &network("network.accept").with("network.remote.port", client.line("send")["local"]["port"].clone()),
    );
    assert_eq!(accept.get("process.pid"), Some(&server.pid.into()), "{accept}");
    told.expect(
        &network("network.close")
            .with("process.pid", server.pid)
            .with("network.bytes_received", 300)
            .with("network.bytes_sent", 0),
    );
}

#[test]
fn a_socket_that_is_connected_but_sends_nothing_is_not_told() {
    skip_without_kernel!();
    let wire = wire();
    wire.a.rawnet("send 192.0.2.2:53 --connected --count 0");
    wire.told(&[]);
}

#[test]
fn one_socket_that_sends_to_many_has_a_flow_for_each() {
    const ADDRESSES: usize = 20;
    skip_without_kernel!();
    let wire = wire();
    let from = wire.a.ipv4();
    let words: Vec<_> = (0..ADDRESSES).map(|number| format!("192.0.2.2:{}", 6000 + number)).collect();
    let words = format!("send {} --bind {}:4545 --count 3", words.join(" "), wire.a.ipv4());
    let client = wire.a.rawnet(&words);
    let told = wire.told(&[&["network.bind"][..], &ONE_WAY.repeat(ADDRESSES)].concat());
    for (send, flow) in client.acts("send").zip(client.acts("flow")) {
        assert_eq!(send["local"]["port"], 4545);
        expect_pair(&told, &sent(send, &from), &ended(flow, &from));
    }
}

#[test]
fn a_mapped_address_of_a_datagram_is_shown_as_what_it_is() {
    skip_without_kernel!();
    let wire = wire();
    let from = wire.a.ipv4();
    let server = wire.b.serve("answer [::]:0");
    let client = wire.a.rawnet(&format!("send {}:{} --mapped --answered", wire.b.ipv4(), server.port()));
    server.finish();
    let told = wire.told(&FLOW);
    let begin =
        sent(client.line("send"), &from).with("network.family", "ipv4").with("network.ipv4_mapped", true);
    expect_pair(&told, &begin, &ended(client.line("flow"), &from));
    let accept = told.all("network.accept").next().unwrap();
    assert_eq!(accept.field("network.ipv4_mapped"), &Value::Bool(true), "{accept}");
    assert_eq!(accept.text("network.remote.address"), wire.a.ipv4(), "{accept}");
}

#[test]
fn a_datagram_to_a_link_local_address_has_its_interface() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet(&format!("send [{}%wire-a]:7777", wire.b.link_local()));
    let told = wire.told(&ONE_WAY);
    let connect = told.all("network.connect").next().unwrap();
    assert_eq!(connect.number("network.remote.scope_id"), wire.a.interface_index(), "{connect}");
    assert_eq!(connect.text("network.interface"), "wire-a", "{connect}");
    assert_eq!(connect.get("process.pid"), Some(&client.pid.into()), "{connect}");
}

#[test]
fn a_datagram_that_does_not_leave_the_host_is_marked() {
    skip_without_kernel!();
    for (address, from) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let wire = wire();
        let server = wire.b.serve(&format!("answer {address}"));
        let client = wire.b.rawnet(&format!("send {} --answered", server.address()));
        server.finish();
        let told = wire.told(&FLOW);
        expect_pair(
            &told,
            &sent(client.line("send"), from).with("network.loopback", true).with("network.interface", "lo"),
            &ended(client.line("flow"), from).with("network.loopback", true),
        );
    }
}

#[test]
fn datagrams_to_a_group_are_a_flow_as_any_other() {
    skip_without_kernel!();
    let wire = wire();
    let from = wire.a.ipv4();
    let client = wire.a.rawnet("send 239.1.2.3:5000 --count 4");
    let told = wire.told(&ONE_WAY);
    expect_pair(&told, &sent(client.line("send"), &from), &ended(client.line("flow"), &from));
}

#[test]
fn datagrams_of_udp_lite_are_told_as_such() {
    skip_without_kernel!();
    let wire = wire();
    let from = wire.a.ipv4();
    let Some(client) = wire.a.rawnet_unless_skipped("send 192.0.2.2:5000 --protocol udplite --count 4")
    else {
        return skip("the kernel has no UDP-Lite");
    };
    let told = wire.told(&ONE_WAY);
    expect_pair(
        &told,
        &sent(client.line("send"), &from).with("network.protocol", "udplite"),
        &ended(client.line("flow"), &from),
    );
}

// ICMP and raw

#[test]
fn an_echo_request_is_told() {
    skip_without_kernel!();
    for (address, protocol) in [("192.0.2.2:0", "icmp"), ("[2001:db8::2]:0", "icmpv6")] {
        let wire = wire();
        wire.a.set("ipv4/ping_group_range", "0 0");
        let client = wire.a.rawnet(&format!("send {address} --protocol ping --count 3 --answered"));
        let told = wire.told(&ONE_WAY);
        let begin = network("network.connect")
            .with("process.pid", client.pid)
            .with("network.protocol", protocol)
            .with("network.type", "dgram")
            .with("network.outcome", "sent")
            .with("network.remote.address", address.split([']', ':']).next().unwrap().trim_start_matches('['))
            .without("network.remote.port")
            .without("network.local.port");
        let begin =
            if protocol == "icmp" { begin } else { begin.but("network.remote.address", wire.b.ipv6()) };
        // Eight bytes of header and a hundred of content each.
        let end = network("network.close")
            .with("process.pid", client.pid)
            .with("network.packets_sent", 3)
            .with("network.bytes_sent", 324)
            .with("network.packets_received", 3)
            .with("network.bytes_received", 324);
        expect_pair(&told, &begin, &end);
    }
}

#[test]
fn a_raw_echo_request_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet("send 192.0.2.2:0 --protocol raw-icmp --count 3");
    let told = wire.told(&RAW);
    let begin = network("network.connect")
        .with("process.pid", client.pid)
        .with("network.protocol", "icmp")
        .with("network.type", "raw")
        .with("network.outcome", "sent")
        .with("network.remote.address", "192.0.2.2")
        .without("network.remote.port")
        .without("network.local.port");
    let end = network("network.close")
        .with("process.pid", client.pid)
        .with("network.packets_sent", 3)
        .with("network.bytes_sent", 324);
    expect_pair(&told, &begin, &end);
}

#[test]
fn a_raw_packet_that_begins_a_connection_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet("send 192.0.2.2:80 --protocol raw-syn");
    let told = wire.told(&RAW);
    let begin = network("network.connect")
        .with("process.pid", client.pid)
        .with("network.type", "raw")
        .with("network.outcome", "sent")
        .with("network.remote.address", "192.0.2.2");
    let end = network("network.close")
        .with("process.pid", client.pid)
        .with("network.packets_sent", 1)
        .with("network.bytes_sent", 20);
    expect_pair(&told, &begin, &end);
}

// Counting

#[test]
fn datagrams_of_a_known_flow_are_counted_and_not_told() {
    const COUNT: u64 = 50_000;
    skip_without_kernel!();
    let from = "127.0.0.1";
    let wire = wire();
    let client = wire.a.rawnet(&format!("send 127.0.0.1:7 --count {COUNT} --size 9"));
    let told = wire.told(&ONE_WAY);
    let end = ended(client.line("flow"), from)
        .with("network.packets_sent", COUNT)
        .with("network.bytes_sent", COUNT * 9);
    expect_pair(&told, &sent(client.line("send"), from), &end);
}

#[test]
fn a_datagram_without_content_is_one() {
    skip_without_kernel!();
    let from = "127.0.0.1";
    let wire = wire();
    let client = wire.a.rawnet("send 127.0.0.1:7 --size 0 --count 2");
    let told = wire.told(&ONE_WAY);
    expect_pair(
        &told,
        &sent(client.line("send"), from),
        &ended(client.line("flow"), from).with("network.bytes_sent", 0),
    );
}

#[test]
fn a_datagram_that_is_taken_apart_on_its_way_counts_as_its_content() {
    const SIZE: u64 = 9000;
    skip_without_kernel!();
    let wire = wire();
    let from = wire.a.ipv4();
    let server = wire.b.serve(&format!("answer {}:0", wire.b.ipv4()));
    let client = wire.a.rawnet(&format!("send {} --size {SIZE} --count 2 --answered", server.address()));
    server.finish();
    let told = wire.told(&FLOW);
    expect_pair(&told, &sent(client.line("send"), &from), &ended(client.line("flow"), &from));
}

#[test]
fn a_socket_that_another_process_sends_by_is_told_of_that_one() {
    skip_without_kernel!();
    for hand in ["inherited", "passed"] {
        let wire = wire();
        let client = wire.a.rawnet(&format!("connect 192.0.2.2:4000 --protocol udp --hand {hand} --send 21"));
        let told = wire.told(&ONE_WAY);
        let end = client.end();
        assert_ne!(end["pid"], Value::from(client.pid));
        let connect = told.expect(&network("network.connect").of_socket(end).with("network.outcome", "sent"));
        let close = told.expect(&network("network.close").of_socket(end).with("network.bytes_sent", 21));
        assert_eq!(connect.field("network.connection"), close.field("network.connection"));
    }
}

#[test]
fn a_process_that_is_killed_ends_its_flows() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.start("send 192.0.2.2:4000 192.0.2.2:4001 --count 2 --hold-end");
    client.await_lines("send", 2);
    thread::sleep(Duration::from_millis(300));
    let client = client.kill();
    let told = wire.told(&ONE_WAY.repeat(2));
    for close in told.all("network.close") {
        assert_eq!(close.get("process.pid"), Some(&client.pid.into()), "{close}");
        assert_eq!(close.number("network.bytes_sent"), 200, "{close}");
    }
}

#[test]
fn what_begins_again_after_it_was_idle_is_another_flow() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let agent = network_agent("network: {fold: 0s, idle: 1s}");
    let mark = agent.mark();
    let mut client = hosts.a.start("send 192.0.2.2:4000 --count 5 --again");
    let events = |kind: &str| -> Vec<Event> {
        let namespace = format!("\"namespace\":{}", hosts.a.namespace());
        let mut events = agent.network_events(&namespace, mark);
        events.retain(|event| event.kind() == kind);
        events
    };
    let deadline = Instant::now() + PATIENCE;
    while events("network.close").is_empty() && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    let idle = events("network.close").pop();
    let idle = idle.unwrap_or_else(|| {
        panic!("it is not idle: {:?} {:?}", events("network.connect"), agent.events("telemetry.loss"))
    });
    assert_eq!(idle.text("network.reason"), "idle", "{idle}");
    assert_eq!((idle.number("network.packets_sent"), idle.number("network.bytes_sent")), (5, 500), "{idle}");
    assert_eq!(idle.get("process.pid"), Some(&client.pid().into()), "{idle}");
    client.go_on();
    drop(client.finish());
    let closes =
        until("both have ended", || Some(events("network.close")).filter(|events| events.len() == 2));
    let connects = events("network.connect");
    assert_eq!(connects.len(), 2);
    let names = |events: &[Event]| -> BTreeMap<String, u64> {
        let name = |event: &Event| {
            (
                event.text("network.connection").to_owned(),
                event.get("network.packets_sent").and_then(Value::as_u64).unwrap_or(5),
            )
        };
        events.iter().map(name).collect()
    };
    assert_eq!(names(&connects), names(&closes));
    assert_eq!(names(&connects).len(), 2);
    assert!(agent.stop().status.success());
}
