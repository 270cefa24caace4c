//! Connections to here, and who waits for them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

use nightjar_tests::{
    Event, Expect, TALK, Told, Wire, copy_of, folder_for_all, network, rawnet_path, run, skip_without_kernel,
    until, watch_network,
};
use rustix::process::Signal;
use serde_json::Value;

const CONFIGURATION: &str = "network: {fold: 0s}";
const NOBODY: u32 = 65534;
/// After which a connection is told that nobody accepted.
const UNACCEPTED: Duration = Duration::from_secs(3);

fn wire() -> Wire {
    watch_network(CONFIGURATION);
    Wire::new()
}

/// The event that tells that somebody accepted a connection.
fn accepted(line: &Value) -> Expect {
    network("network.accept")
        .of_socket(line)
        .with("network.type", "stream")
        .with("network.direction", "inbound")
        .with("network.attribution", "acted")
        .with_some("network.connection")
        .without("network.outcome")
        .without("network.error")
        .without("network.snapshot")
        .without("network.opener")
}

/// What a process did, of a kind.
fn of_process<'a>(told: &'a Told, kind: &'a str, pid: u32) -> impl Iterator<Item = &'a Event> {
    told.all(kind).filter(move |event| event.get("process.pid") == Some(&pid.into()))
}

// Accepted

#[test]
fn a_connection_is_told_with_who_accepted_it() {
    skip_without_kernel!();
    for call in ["accept", "accept4"] {
        let wire = wire();
        let (_, server) = wire.talk(&format!("serve HERE:0 --call {call}"), "connect ADDRESS --send 3");
        let told = wire.told(&TALK);
        let accept = told.expect(
            &accepted(server.line("accept"))
                .exe(rawnet_path())
                .with("network.call", call)
                .with("network.interface", wire.b.interface()),
        );
        let close = told.expect(&network("network.close").of_end(server.end()));
        assert_eq!(accept.field("network.connection"), close.field("network.connection"));
    }
}

#[test]
fn an_ipv6_listener_that_takes_ipv4_shows_it_as_such() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve [::]:0");
    wire.a.rawnet(&format!("connect {}:{}", wire.b.ipv4(), server.port()));
    let server = server.finish();
    let told = wire.told(&TALK);
    told.expect(
        &accepted(server.line("accept")).with("network.family", "ipv4").with("network.ipv4_mapped", true),
    );
}

#[test]
fn each_connection_is_told_of_the_worker_that_accepted_it() {
    const CONNECTIONS: usize = 640;
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --workers 32", wire.b.ipv4()));
    let words = format!("churn {} --count {CONNECTIONS} --workers 32 --lines", server.address());
    let client = wire.a.rawnet(&words);
    let server = server.finish();
    let kinds = ["network.connect", "network.accept", "network.close", "network.close"].repeat(CONNECTIONS);
    let told = wire.told(&[&kinds[..], &["network.bind", "network.listen", "network.close"]].concat());
    let by_port = |kind: &str, path: &str| -> BTreeMap<u64, Event> {
        told.all(kind)
            .filter(|event| event.get(path).is_some())
            .map(|event| (event.number(path), event.clone()))
            .collect()
    };
    let accepts = by_port("network.accept", "network.remote.port");
    let closes = by_port("network.close", "network.remote.port");
    let mut workers = BTreeSet::new();
    for line in server.acts("accept") {
        let port = line["remote"]["port"].as_u64().unwrap();
        let accept = &accepts[&port];
        assert_eq!(accept.field("process.pid"), &line["pid"], "{accept} of {line}");
        let close = &closes[&port];
        assert_eq!(close.field("process.pid"), &line["pid"], "{close} of {line}");
        assert_eq!(close.field("network.connection"), accept.field("network.connection"));
        workers.insert(line["pid"].as_u64().unwrap());
    }
    assert!(workers.len() > 4, "{workers:?}");
    for line in client.acts("connection") {
        told.expect(&network("network.close").of_end(line));
    }
}

#[test]
fn a_connection_that_nobody_accepts_is_told_of_the_listener() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour ignore", wire.b.ipv4()));
    let mut client = wire.a.start(&format!("connect {} --hold", server.address()));
    let connect = client.await_line("connect");
    let accept =
        until("it is told", || wire.events().into_iter().find(|event| event.kind() == "network.accept"));
    assert_eq!(accept.field("process.pid"), &Value::from(server.pid()), "{accept}");
    assert_eq!(accept.text("network.attribution"), "listener", "{accept}");
    assert_eq!(accept.field("network.remote.port"), &connect["local"]["port"], "{accept}");
    client.go_on();
    client.finish();
    drop(server.finish());
    wire.told(&TALK);
}

#[test]
fn a_connection_that_ends_before_anybody_accepts_it_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour ignore", wire.b.ipv4()));
    let client = wire.a.rawnet(&format!("connect {} --send 5 --end abort", server.address()));
    thread::sleep(UNACCEPTED);
    let server = server.finish();
    let told = wire.told(&TALK);
    let accept = told.all("network.accept").next().unwrap();
    assert_eq!(accept.text("network.attribution"), "listener", "{accept}");
    assert_eq!(accept.field("process.pid"), &Value::from(server.pid), "{accept}");
    assert_eq!(accept.field("network.remote"), &client.line("connect")["local"], "{accept}");
}

#[test]
fn a_connection_that_ends_before_it_is_accepted_is_told_once() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour close", wire.b.ipv4()));
    server.signal(Signal::STOP);
    let client = wire.a.rawnet(&format!("connect {} --send 5 --end abort", server.address()));
    server.signal(Signal::CONT);
    let server = server.finish();
    assert_eq!(server.line("totals")["connections"], 1);
    let told = wire.told(&TALK);
    let accept = told.all("network.accept").next().unwrap();
    assert_eq!(accept.text("network.attribution"), "listener", "{accept}");
    assert_eq!(accept.field("network.remote"), &client.line("connect")["local"], "{accept}");
}

#[test]
fn connections_that_wait_when_the_listener_goes_are_told() {
    const CONNECTIONS: usize = 5;
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour ignore", wire.b.ipv4()));
    let mut client = wire.a.start(&format!("many {} --count {CONNECTIONS}", server.address()));
    client.await_line("ready");
    drop(server.finish());
    client.go_on();
    client.finish();
    let kinds = ["network.connect", "network.accept", "network.close", "network.close"].repeat(CONNECTIONS);
    let told = wire.told(&[&kinds[..], &["network.bind", "network.listen", "network.close"]].concat());
    let reasons: BTreeSet<&str> = told
        .all("network.close")
        .filter(|event| event.get("network.direction").and_then(Value::as_str) == Some("outbound"))
        .map(|event| event.text("network.reason"))
        .collect();
    assert_eq!(reasons, BTreeSet::from(["reset_by_remote"]), "{told}");
}

// Listening

#[test]
fn a_listener_is_told_from_its_beginning_to_its_end() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve 0.0.0.0:0 [::1]:0 --backlog 17");
    let lines = server.await_lines("listen", 2);
    let server = server.finish();
    let told = wire.told(&["network.bind", "network.listen", "network.close"].repeat(2));
    for line in &lines {
        let listen = told.expect(
            &network("network.listen")
                .of_socket(line)
                .exe(rawnet_path())
                .with("network.type", "stream")
                .with("network.backlog", 17)
                .with("network.attribution", "acted")
                .with_some("network.connection")
                .without("network.direction")
                .without("network.remote"),
        );
        let close = told.expect(
            &network("network.close")
                .with("process.pid", server.pid)
                .with("network.connection", listen.field("network.connection").clone())
                .with("network.reason", "closed")
                .with("network.local", listen.field("network.local").clone())
                .with_some("network.duration")
                .without("network.remote")
                .without("network.bytes_sent"),
        );
        let lasted = close.nanos("time") - listen.nanos("time");
        assert!((lasted - i128::from(close.number("network.duration"))).abs() < 1_000_000, "{close}");
    }
}

#[test]
fn a_listener_whose_process_is_killed_ends_with_it() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve 127.0.0.1:0");
    let server = server.kill();
    let told = wire.told(&["network.bind", "network.listen", "network.close"]);
    assert_eq!(of_process(&told, "network.close", server.pid).count(), 1, "{told}");
}

#[test]
fn a_listener_whose_workers_live_on_ends_with_the_last() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve 127.0.0.1:0 --workers 3");
    let server = server.finish();
    let told = wire.told(&["network.bind", "network.listen", "network.close"]);
    let listen = of_process(&told, "network.listen", server.pid).next().unwrap();
    let close = told.all("network.close").next().unwrap();
    assert_eq!(listen.field("network.connection"), close.field("network.connection"), "{told}");
}

// Bound

#[test]
fn a_socket_that_is_bound_is_told() {
    skip_without_kernel!();
    for (address, protocol, type_) in [
        ("127.0.0.1:0", "tcp", "stream"),
        ("[::]:0", "tcp", "stream"),
        ("0.0.0.0:5353", "udp", "dgram"),
        ("[::1]:0", "udp", "dgram"),
    ] {
        let wire = wire();
        let talk = wire.a.rawnet(&format!("bind {address} --protocol {protocol}"));
        let told = wire.told(&["network.bind"]);
        told.expect(
            &network("network.bind")
                .of_socket(talk.line("bind"))
                .with("network.type", type_)
                .with("network.attribution", "acted")
                .without("network.error")
                .without("network.connection")
                .without("network.remote"),
        );
    }
}

#[test]
fn a_bind_that_is_refused_is_told_with_its_error() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve 127.0.0.1:0");
    let address = server.address();
    for protocol in ["tcp", "udp"] {
        let expected = if protocol == "tcp" { " --expect EADDRINUSE" } else { "" };
        wire.b.rawnet(&format!("bind {address} --protocol {protocol}{expected}"));
    }
    let port = server.port();
    let pid = server.finish().pid;
    let told =
        wire.told(&["network.bind", "network.bind", "network.bind", "network.listen", "network.close"]);
    let refused: Vec<_> =
        told.all("network.bind").filter(|event| event.get("network.error").is_some()).collect();
    assert_eq!(refused.len(), 1, "{told}");
    assert_eq!(refused[0].text("network.error"), "EADDRINUSE");
    assert_eq!(refused[0].number("network.local.port"), port);
    assert_eq!(refused[0].text("network.local.address"), "127.0.0.1");
    assert_ne!(refused[0].number("process.pid"), u64::from(pid));
}

#[test]
fn a_port_that_needs_privileges_is_told_as_refused() {
    skip_without_kernel!();
    watch_network(CONFIGURATION);
    let folder = folder_for_all();
    let program = copy_of(rawnet_path(), folder.path().join("rawnet"), 0o755);
    let ran =
        run(&program).args(["bind", "127.0.0.1:81", "--expect", "EACCES"]).as_user(NOBODY, NOBODY).succeed();
    ran.expect_event(
        network("network.bind")
            .exe(&program)
            .with("process.uid", NOBODY)
            .with("network.error", "EACCES")
            .with("network.local.address", "127.0.0.1")
            .with("network.local.port", 81)
            .without("network.connection"),
    );
}

#[test]
fn a_port_that_the_kernel_chooses_is_no_bind() {
    skip_without_kernel!();
    let wire = wire();
    wire.talk("serve HERE:0", "connect ADDRESS");
    let told = wire.told(&TALK);
    assert_eq!(told.all("network.bind").count(), 1, "{told}");
}
