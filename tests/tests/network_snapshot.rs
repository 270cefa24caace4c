//! Sockets that were there before the agent.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::collections::BTreeSet;

use nightjar_tests::{Agent, Event, Expect, Host, Hosts, network, network_agent, skip_without_kernel, until};
use serde_json::Value;

const CONFIGURATION: &str = "network: {fold: 0s}";

fn agent() -> Agent {
    network_agent(CONFIGURATION)
}

/// Events of sockets in these hosts.
fn events(agent: &Agent, hosts: &Hosts) -> Vec<Event> {
    let of_host = |host: &Host| agent.network_events(&format!("\"namespace\":{},", host.namespace()), 0);
    let mut events: Vec<Event> = hosts.both().into_iter().flat_map(of_host).collect();
    events.sort_by_key(|event| event.nanos("time"));
    events
}

/// The only event of a kind and direction.
fn only(events: &[Event], kind: &str, direction: &str) -> Event {
    let found: Vec<&Event> = events
        .iter()
        .filter(|event| event.kind() == kind && event.get("network.direction") == Some(&direction.into()))
        .collect();
    assert_eq!(found.len(), 1, "{kind} {direction}: {events:?}");
    found[0].clone()
}

fn snapshot(kind: &'static str, line: &Value) -> Expect {
    network(kind)
        .of_socket(line)
        .with("network.snapshot", true)
        .with("network.attribution", "owner")
        .with_some("network.connection")
}

#[test]
fn listeners_that_were_there_are_told_once_with_who_listens() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let servers = [
        hosts.b.serve("serve 127.0.0.1:0 --backlog 5"),
        hosts.b.serve("serve [::]:0"),
        hosts.a.serve("serve 0.0.0.0:0 --workers 4"),
    ];
    let agent = agent();
    let found = events(&agent, &hosts);
    let listens: Vec<&Event> = found.iter().filter(|event| event.kind() == "network.listen").collect();
    assert_eq!(listens.len(), servers.len(), "{found:?}");
    for server in &servers {
        let line = server.await_line("listen");
        // Of several that have it open, one is told.
        let workers = server.await_line("ready")["workers"].as_array().unwrap().clone();
        let pids: Vec<Value> = workers.into_iter().chain([server.pid().into()]).collect();
        let is_told = pids.iter().any(|pid| {
            let mut line = line.clone();
            line["pid"] = pid.clone();
            let expect = snapshot("network.listen", &line);
            listens.iter().any(|event| nightjar_tests::fits(&expect, event))
        });
        assert!(is_told, "{line} is not in {listens:?}");
    }
    assert_eq!(found.len(), servers.len(), "{found:?}");
    // Their ends have the names that they were told with.
    for server in servers {
        drop(server.finish());
    }
    let names = |events: &[Event], kind: &str| -> BTreeSet<String> {
        let of_kind = events.iter().filter(|event| event.kind() == kind);
        of_kind.map(|event| event.text("network.connection").to_owned()).collect()
    };
    let all = until("all ends", || {
        let all = events(&agent, &hosts);
        (all.iter().filter(|event| event.kind() == "network.close").count() == 3).then_some(all)
    });
    assert_eq!(names(&all, "network.listen"), names(&all, "network.close"));
    for close in all.iter().filter(|event| event.kind() == "network.close") {
        assert!(close.get("network.duration").is_none(), "{close}");
    }
    assert!(agent.stop().status.success());
}

#[test]
fn a_connection_that_was_there_is_told_and_known_by_its_end() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let server = hosts.b.serve(&format!("serve {}:0", hosts.b.ipv4()));
    let words = format!("connect {} --send 100 --receive 100 --hold-end", server.address());
    let mut client = hosts.a.start(&words);
    let connect = client.await_line("connect");
    let accept = server.await_line("accept");
    // What was sent before counts too: the kernel has counted it.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let agent = agent();
    let found = events(&agent, &hosts);
    let outbound = only(&found, "network.connect", "outbound");
    let inbound = only(&found, "network.accept", "inbound");
    for (event, expect) in [
        (&outbound, snapshot("network.connect", &connect).with("network.outcome", "established")),
        (&inbound, snapshot("network.accept", &accept)),
    ] {
        assert!(nightjar_tests::fits(&expect, event), "{expect}: {event}");
        assert!(event.get("network.latency").is_none(), "{event}");
    }
    client.go_on();
    let client = client.finish();
    let server = server.finish();
    let all = until("all ends", || {
        let all = events(&agent, &hosts);
        (all.iter().filter(|event| event.kind() == "network.close").count() == 3).then_some(all)
    });
    for (direction, line, begin, reason) in [
        ("outbound", client.end(), &outbound, "closed"),
        ("inbound", server.end(), &inbound, "closed_by_remote"),
    ] {
        let close = only(&all, "network.close", direction);
        let expect = network("network.close")
            .of_end(line)
            .with("network.reason", reason)
            .with("network.connection", begin.field("network.connection").clone())
            .without("network.duration")
            .without("network.snapshot");
        assert!(nightjar_tests::fits(&expect, &close), "{expect}: {close}");
    }
    assert!(agent.stop().status.success());
}

#[test]
fn many_connections_that_were_there_are_told_once_each() {
    const CONNECTIONS: usize = 3000;
    skip_without_kernel!();
    let hosts = Hosts::new();
    let server = hosts.b.serve("serve 127.0.0.1:0 --behaviour hold --quiet");
    let mut client = hosts.b.start(&format!("many {} --count {CONNECTIONS}", server.address()));
    client.await_line("ready");
    let agent = agent();
    let found = events(&agent, &hosts);
    let count = |kind: &str| found.iter().filter(|event| event.kind() == kind).count();
    let names: BTreeSet<&str> = found.iter().map(|event| event.text("network.connection")).collect();
    assert_eq!(
        (count("network.connect"), count("network.accept"), count("network.listen")),
        (CONNECTIONS, CONNECTIONS, 1)
    );
    assert_eq!(names.len(), 2 * CONNECTIONS + 1);
    assert!(found.iter().all(|event| event.get("network.snapshot") == Some(&true.into())));
    client.go_on();
    drop(client.finish());
    drop(server.finish());
    until("all ends", || {
        let all = events(&agent, &hosts);
        let ends = all.iter().filter(|event| event.kind() == "network.close");
        (ends.count() == 2 * CONNECTIONS + 1).then_some(())
    });
    agent.stop().expect_nothing_lost();
}

#[test]
fn a_datagram_socket_that_was_there_is_known_by_its_owner() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let server = hosts.b.serve(&format!("answer {}:0 --silent", hosts.b.ipv4()));
    let agent = agent();
    let client = hosts.a.rawnet(&format!("send {} --count 3", server.address()));
    let accept = until("the flow", || {
        events(&agent, &hosts).into_iter().find(|event| event.kind() == "network.accept")
    });
    assert_eq!(accept.get("process.pid"), Some(&server.pid().into()), "{accept}");
    assert_eq!(accept.field("network.remote.port"), &client.line("send")["local"]["port"], "{accept}");
    drop(server.finish());
    let closes = until("both ends", || {
        let mut all = events(&agent, &hosts);
        all.retain(|event| event.kind() == "network.close");
        (all.len() == 2).then_some(all)
    });
    let close = only(&closes, "network.close", "inbound");
    assert_eq!(close.number("network.bytes_received"), 300, "{close}");
    assert!(agent.stop().status.success());
}

#[test]
fn a_connection_that_was_there_is_ended_by_whoever_has_it() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let server = hosts.b.serve(&format!("serve {}:0 --behaviour sink", hosts.b.ipv4()));
    let mut client = hosts.a.start(&format!("connect {} --hold --hand inherited --send 8", server.address()));
    client.await_line("connect");
    let agent = agent();
    client.go_on();
    let client = client.finish();
    let close = until("its end", || {
        let all = events(&agent, &hosts);
        all.into_iter().find(|event| {
            event.kind() == "network.close" && event.get("network.direction") == Some(&"outbound".into())
        })
    });
    let expect = network("network.close").of_end(client.end()).with("network.opener.pid", client.pid);
    assert!(nightjar_tests::fits(&expect, &close), "{expect}: {close}");
    drop(server.finish());
    assert!(agent.stop().status.success());
}

#[test]
fn a_program_that_listens_is_what_proc_says() {
    skip_without_kernel!();
    let hosts = Hosts::new();
    let servers: Vec<_> = (0..5).map(|_| hosts.b.serve("serve 127.0.0.1:0 [::1]:0")).collect();
    let agent = agent();
    let found = events(&agent, &hosts);
    let mut told: Vec<u64> = found
        .iter()
        .filter(|event| event.kind() == "network.listen")
        .map(|event| event.number("network.local.port"))
        .collect();
    // State 0A is that of listeners.
    let tables = ["tcp", "tcp6"].map(|table| hosts.b.proc_net(table));
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    let mut there: Vec<u64> = rows
        .filter(|row| row.split_whitespace().nth(3) == Some("0A"))
        .map(|row| {
            let local = row.split_whitespace().nth(1).unwrap();
            u64::from_str_radix(local.rsplit(':').next().unwrap(), 16).unwrap()
        })
        .collect();
    told.sort_unstable();
    there.sort_unstable();
    assert_eq!(told, there);
    drop(servers);
    assert!(agent.stop().status.success());
}
