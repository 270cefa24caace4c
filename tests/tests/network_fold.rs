//! Repeats that are told as one event with a count.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Event, Hosts, Session, TRUE, Told, Wire, folder_for_all, instance, network, network_agent, nightjar,
    quiet, skip_without_kernel, until, watch_network,
};
use serde_json::Value;

const CONFIGURATION: &str = "network: {fold: 1s}";
/// How long it takes at most until what was counted is told.
const WINDOWS: Duration = Duration::from_millis(2500);
/// How long it may take on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(50);

fn wire() -> Wire {
    watch_network(CONFIGURATION);
    Wire::new()
}

/// How many connections or flows that begin so events tell of.
fn sum(events: &[Event], direction: &str) -> u64 {
    let of_direction = |event: &&Event| event.get("network.direction") == Some(&direction.into());
    let begins = |event: &Event| match event.kind() {
        "network.connect" | "network.accept" => 1,
        "network.flow" => event.number("network.count"),
        _ => 0,
    };
    events.iter().filter(of_direction).map(begins).sum()
}

/// All of this that ends of connections and counts tell of, of this direction.
fn total(events: &[Event], direction: &str, field: &str) -> u64 {
    let of_direction = |event: &&Event| event.get("network.direction") == Some(&direction.into());
    let path = format!("network.{field}");
    events.iter().filter(of_direction).filter_map(|event| event.get(&path)?.as_u64()).sum()
}

/// Waits until events tell of so many, and then of no more; what counts is in order.
fn expect_sums(wire: &Wire, outbound: u64, inbound: u64) -> Told {
    let sums = || {
        let events = wire.events();
        (sum(&events, "outbound"), sum(&events, "inbound"))
    };
    let deadline = Instant::now() + PATIENCE;
    while sums() < (outbound, inbound) && Instant::now() < deadline {
        thread::sleep(LOOK);
    }
    thread::sleep(WINDOWS);
    let told = Told(wire.events());
    assert_eq!((sum(&told.0, "outbound"), sum(&told.0, "inbound")), (outbound, inbound), "{told}");
    for flow in told.all("network.flow") {
        assert!(flow.number("network.count") > 0, "{flow}");
        assert_eq!(flow.field("time"), flow.field("network.first_time"), "{flow}");
        assert!(flow.nanos("network.first_time") <= flow.nanos("network.last_time"), "{flow}");
        for absent in ["network.connection", "network.latency", "network.duration"] {
            assert!(flow.get(absent).is_none(), "{absent}: {flow}");
        }
        // Those that failed are told apart from the others, each error by itself.
        let has_failed = flow.get("network.failed").is_some();
        assert_eq!(flow.get("network.outcome").is_some(), has_failed, "{flow}");
        assert_eq!(flow.get("network.error").is_some(), has_failed, "{flow}");
        let end = if flow.text("network.direction") == "outbound" { "local" } else { "remote" };
        assert!(flow.get(&format!("network.{end}.port")).is_none(), "{flow}");
    }
    told
}

/// Those that are of a process.
fn of_process<'a>(told: &'a Told, kind: &'a str, pid: u32) -> impl Iterator<Item = &'a Event> {
    told.all(kind).filter(move |event| event.get("process.pid") == Some(&pid.into()))
}

#[test]
fn every_connection_is_counted_and_the_first_is_told() {
    const CONNECTIONS: u64 = 500;
    skip_without_kernel!();
    let wire = wire();
    let words = format!("churn ADDRESS --count {CONNECTIONS} --workers 1");
    let (client, server) = wire.talk("serve HERE:0 --quiet", &words);
    let told = expect_sums(&wire, CONNECTIONS, CONNECTIONS);
    assert!(told.0.len() < 60, "{told}");
    let first = of_process(&told, "network.connect", client.pid).next().unwrap();
    let close = of_process(&told, "network.close", client.pid).next().unwrap();
    assert_eq!(first.field("network.connection"), close.field("network.connection"), "{told}");
    let flow = of_process(&told, "network.flow", client.pid).next().unwrap();
    assert_eq!(flow.text("network.remote.address"), wire.b.ipv4(), "{flow}");
    assert_eq!(flow.field("network.remote.port"), first.field("network.remote.port"), "{flow}");
    let there = of_process(&told, "network.flow", server.pid).next().unwrap();
    assert_eq!(there.field("network.local.port"), first.field("network.remote.port"), "{there}");
    assert_eq!(there.text("network.remote.address"), wire.a.ipv4(), "{there}");
    for (said, field) in [("sent", "bytes_sent"), ("received", "bytes_received")] {
        assert_eq!(total(&told.0, "outbound", field), client.number("totals", said), "{told}");
        assert_eq!(total(&told.0, "inbound", field), server.number("totals", said), "{told}");
    }
}

#[test]
fn connections_that_go_on_for_long_are_counted_in_parts() {
    const CONNECTIONS: u64 = 60;
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --quiet", wire.b.ipv4()));
    let mut client = wire.a.start(&format!("connect {} --times {CONNECTIONS} --hold-end", server.address()));
    let began = Instant::now();
    for number in 1..=CONNECTIONS {
        client.await_lines("connect", usize::try_from(number).unwrap());
        thread::sleep(Duration::from_millis(60));
        client.go_on();
    }
    let windows = began.elapsed().as_secs();
    let client = client.finish();
    drop(server.finish());
    let told = expect_sums(&wire, CONNECTIONS, CONNECTIONS);
    let flows = of_process(&told, "network.flow", client.pid).count() as u64;
    assert!((windows / 2..=windows + 2).contains(&flows), "{flows} in {windows} windows: {told}");
}

#[test]
fn connections_that_are_refused_are_counted_as_failed() {
    const CONNECTIONS: u64 = 50;
    skip_without_kernel!();
    let wire = wire();
    let words = format!("connect {}:1 --times {CONNECTIONS} --expect ECONNREFUSED", wire.b.ipv4());
    let client = wire.a.rawnet(&words);
    let told = expect_sums(&wire, CONNECTIONS, 0);
    let first = of_process(&told, "network.connect", client.pid).next().unwrap();
    assert_eq!(first.text("network.outcome"), "failed", "{first}");
    for flow in told.all("network.flow") {
        assert_eq!(flow.field("network.failed"), flow.field("network.count"), "{flow}");
    }
    assert!(told.0.len() < 10, "{told}");
}

#[test]
fn connections_without_a_way_are_counted_as_failed() {
    skip_without_kernel!();
    let wire = wire();
    wire.a.rawnet("connect 203.0.113.1:80 --times 30 --expect ENETUNREACH");
    let told = expect_sums(&wire, 30, 0);
    assert!(told.0.len() < 10, "{told}");
}

#[test]
fn connections_to_other_ports_are_counted_apart() {
    const PORTS: usize = 10;
    skip_without_kernel!();
    let wire = wire();
    let there = format!("{}:0 ", wire.b.ipv4()).repeat(PORTS);
    let server = wire.b.serve(&format!("serve {there} --quiet"));
    let addresses: Vec<_> = server
        .await_lines("bind", PORTS)
        .iter()
        .map(|line| format!("{}:{}", wire.b.ipv4(), line["local"]["port"]))
        .collect();
    let client = wire.a.rawnet(&format!("churn {} --count 100 --workers 1", addresses.join(" ")));
    drop(server.finish());
    let told = expect_sums(&wire, 100, 100);
    for address in addresses {
        let port: Value = address.rsplit(':').next().unwrap().parse::<u64>().unwrap().into();
        let of_port: Vec<Event> = of_process(&told, "network.connect", client.pid)
            .chain(of_process(&told, "network.flow", client.pid))
            .filter(|event| event.get("network.remote.port") == Some(&port))
            .cloned()
            .collect();
        assert_eq!(sum(&of_port, "outbound"), 10, "{told}");
    }
}

#[test]
fn connections_of_other_processes_are_counted_apart() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --quiet", wire.b.ipv4()));
    let address = server.address();
    let clients = [20, 30, 40]
        .map(|count| (wire.a.rawnet(&format!("churn {address} --count {count} --workers 1")), count));
    drop(server.finish());
    let told = expect_sums(&wire, 90, 90);
    for (client, count) in clients {
        let of_client: Vec<Event> = told
            .0
            .iter()
            .filter(|event| event.get("process.pid") == Some(&client.pid.into()))
            .cloned()
            .collect();
        assert_eq!(sum(&of_client, "outbound"), count, "{told}");
        assert_eq!(total(&of_client, "outbound", "bytes_sent"), client.number("totals", "sent"), "{told}");
    }
}

#[test]
fn connections_of_many_threads_and_workers_are_counted() {
    const CONNECTIONS: u64 = 2000;
    skip_without_kernel!();
    let wire = wire();
    let words = format!("churn ADDRESS --count {CONNECTIONS} --workers 32 --mixed");
    let (client, server) = wire.talk("serve HERE:0 --workers 32 --quiet", &words);
    let told = expect_sums(&wire, CONNECTIONS, CONNECTIONS);
    assert_eq!(total(&told.0, "outbound", "bytes_received"), client.number("totals", "received"), "{told}");
    let received: u64 = server.acts("totals").map(|line| line["received"].as_u64().unwrap()).sum();
    assert_eq!(total(&told.0, "inbound", "bytes_received"), received, "{told}");
}

#[test]
fn a_repeat_that_lasts_is_told_by_itself() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0", wire.b.ipv4()));
    let words = format!("connect {} --times 3 --hold-end", server.address());
    let mut client = wire.a.start(&words);
    // Two that are over soon, and one that is not.
    client.await_line("connect");
    client.go_on();
    client.await_lines("connect", 2);
    client.go_on();
    let last = client.await_lines("connect", 3).pop().unwrap();
    let told_of_last = |kind: &str| {
        let events = wire.events();
        events
            .into_iter()
            .find(|event| event.kind() == kind && event.get("network.local") == Some(&last["local"]))
    };
    let connect = until("the one that lasts", || told_of_last("network.connect"));
    assert_eq!(connect.text("network.outcome"), "established", "{connect}");
    assert!(connect.number("network.latency") > 0, "{connect}");
    client.go_on();
    drop(client.finish());
    drop(server.finish());
    let told = expect_sums(&wire, 3, 3);
    let close = told_of_last("network.close").unwrap();
    assert_eq!(close.field("network.connection"), connect.field("network.connection"), "{told}");
    assert_eq!(
        told.all("network.flow").filter(|flow| flow.text("network.direction") == "outbound").count(),
        1,
        "{told}"
    );
}

#[test]
fn flows_of_datagrams_are_counted() {
    const FLOWS: u64 = 100;
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("answer {}:0", wire.b.ipv4()));
    let words = format!("send {} --times {FLOWS} --count 2 --size 10 --answered", server.address());
    let client = wire.a.rawnet(&words);
    drop(server.finish());
    let told = expect_sums(&wire, FLOWS, FLOWS);
    assert!(told.0.len() < 30, "{told}");
    assert_eq!(client.acts("flow").count() as u64, FLOWS);
    for direction in ["outbound", "inbound"] {
        for field in ["bytes_sent", "bytes_received"] {
            assert_eq!(total(&told.0, direction, field), FLOWS * 20, "{direction} {field}: {told}");
        }
        assert_eq!(total(&told.0, direction, "packets_sent"), FLOWS * 2, "{told}");
    }
}

#[test]
fn listeners_and_binds_are_not_folded() {
    skip_without_kernel!();
    let wire = wire();
    for _ in 0..5 {
        drop(wire.b.serve("serve 127.0.0.1:4747").finish());
    }
    let told = wire.told(&["network.bind", "network.listen", "network.close"].repeat(5));
    assert!(told.all("network.flow").next().is_none());
}

#[test]
fn what_is_counted_when_the_agent_ends_is_told() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let folder = folder_for_all();
    let configuration = folder.path().join("nightjar.yaml");
    std::fs::write(&configuration, "network: {fold: 1m}\nkinds: [process.exec, 'network.*']\n").unwrap();
    let name = instance();
    let config = configuration.to_str().unwrap();
    let agent = Session::start(nightjar(["run", "--json", "-", "--instance", &name, "--config", config]));
    until("the agent watches", || {
        quiet(&[TRUE, &name]);
        agent.output().lines().any(|line| line.contains(&name)).then_some(())
    });
    let server = hosts.b.serve("serve 127.0.0.1:0 --quiet");
    hosts.b.rawnet(&format!("churn {} --count 70 --workers 1", server.address()));
    drop(server.finish());
    thread::sleep(Duration::from_millis(500));
    let output = agent.interrupt();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    nightjar_tests::expect_events(&text);
    let count = |direction: &str| -> u64 {
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .filter(|event| event["network"]["namespace"] == hosts.b.namespace())
            .filter(|event| event["network"]["direction"] == direction && event["kind"] != "network.close")
            .map(|event| event["network"]["count"].as_u64().unwrap_or(1))
            .sum()
    };
    assert_eq!((count("outbound"), count("inbound")), (70, 70));
}

#[test]
fn nothing_is_folded_where_that_is_switched_off() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let agent = network_agent("network: {fold: 0s}");
    let mark = agent.mark();
    let server = hosts.b.serve("serve 127.0.0.1:0 --quiet");
    let client = hosts.b.rawnet(&format!("churn {} --count 40 --workers 1", server.address()));
    drop(server.finish());
    agent.expect_event(&network("network.close").of_process(client.pid), mark);
    let namespace = format!("\"namespace\":{}", hosts.b.namespace());
    let events = until("all are told", || {
        let events = agent.network_events(&namespace, mark);
        (events.iter().filter(|event| event.kind() == "network.close").count() == 81).then_some(events)
    });
    assert_eq!(events.iter().filter(|event| event.kind() == "network.connect").count(), 40);
    assert!(agent.events("network.flow").is_empty());
    agent.stop().expect_nothing_lost();
}
