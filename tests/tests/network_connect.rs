//! Connections from here: what came of them, and who made them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{thread, time::Duration};

use nightjar_tests::{
    Event, Expect, TALK, Told, Wire, fits, folder_for_all, network, rawnet_path, run, skip,
    skip_without_kernel, until, watch_network,
};
use serde_json::Value;

const CONFIGURATION: &str =
    "network: {fold: 0s, unix: [/run/nightjar-test-watched.sock, '@nightjar-test-watched']}";
/// In which what nobody accepts or answers is told at the latest.
const PATIENCE: Duration = Duration::from_secs(4);

fn wire() -> Wire {
    watch_network(CONFIGURATION);
    Wire::new()
}

/// The event that tells of a connection that was tried and made.
fn made(line: &Value) -> Expect {
    network("network.connect")
        .of_socket(line)
        .with("network.direction", "outbound")
        .with("network.outcome", "established")
        .with("network.attribution", "acted")
        .with_some("network.connection")
        .with_some("network.latency")
        .without("network.error")
        .without("network.snapshot")
        .without("network.source")
        .without("network.count")
        .without("network.opener")
}

/// The event that tells of a connection that could not be made; its local end may be told or not.
fn failed(line: &Value) -> Expect {
    network("network.connect")
        .with("process.pid", line["pid"].clone())
        .with("network.direction", "outbound")
        .with("network.outcome", "failed")
        .with("network.error", line["error"].clone())
        .with("network.protocol", line["protocol"].clone())
        .with("network.family", line["family"].clone())
        .with("network.namespace", line["namespace"].clone())
        .with("network.remote.address", line["remote"]["address"].clone())
        .with("network.remote.port", line["remote"]["port"].clone())
        .with("network.attribution", "acted")
        .without("network.connection")
}

/// The event that tells of a connection that its process gave up.
fn pending(pid: u32, address: &str) -> Expect {
    network("network.connect")
        .with("process.pid", pid)
        .with("network.outcome", "pending")
        .with("network.remote.address", address)
        .with("network.remote.port", 80)
        .without("network.error")
        .without("network.connection")
}

/// It took no longer than `rawnet` saw, and happened when it did.
fn expect_times(event: &Event, line: &Value) {
    /// Clocks are read one after another.
    const SKEW: i128 = 2_000_000;
    let bound = |name: &str| i128::from(line[name].as_u64().unwrap());
    let time = event.nanos("time");
    assert!((bound("before_ns") - SKEW..=bound("after_ns") + SKEW).contains(&time), "{event} of {line}");
    assert!(
        (1..=line["took_ns"].as_u64().unwrap()).contains(&event.number("network.latency")),
        "{event} of {line}"
    );
}

// Made

#[test]
fn a_connection_is_told_with_both_ends_and_who_made_it() {
    skip_without_kernel!();
    let wire = wire();
    let (client, server) = wire.talk("serve HERE:0", "connect ADDRESS --send 10 --receive 10");
    let told = wire.told(&TALK);
    let line = client.line("connect");
    let connect = told.expect(
        &made(line)
            .exe(rawnet_path())
            .with("network.type", "stream")
            .with("network.interface", wire.a.interface()),
    );
    expect_times(connect, line);
    let close = told.expect(&network("network.close").of_end(client.end()));
    assert_eq!(connect.field("network.connection"), close.field("network.connection"));
    let there = told.expect(&network("network.close").of_end(server.end()));
    assert_ne!(connect.field("network.connection"), there.field("network.connection"));
}

#[test]
fn a_connection_by_ipv6_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve [{}]:0", wire.b.ipv6()));
    let client = wire.a.rawnet(&format!("connect {}", server.address()));
    let server = server.finish();
    let told = wire.told(&TALK);
    told.expect(&made(client.line("connect")).with("network.family", "ipv6"));
    told.expect(&network("network.accept").of_socket(server.line("accept")).with("network.family", "ipv6"));
}

#[test]
fn a_mapped_address_is_shown_as_what_it_is() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve [::]:0");
    let client = wire.a.rawnet(&format!("connect {}:{} --mapped", wire.b.ipv4(), server.port()));
    let server = server.finish();
    let told = wire.told(&TALK);
    for (kind, line) in
        [("network.connect", client.line("connect")), ("network.accept", server.line("accept"))]
    {
        told.expect(
            &network(kind).of_socket(line).with("network.family", "ipv4").with("network.ipv4_mapped", true),
        );
    }
    let listen = told.all("network.listen").next().unwrap();
    assert_eq!(listen.text("network.local.address"), "::");
}

#[test]
fn a_link_local_address_has_its_interface() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve("serve [::]:0");
    let (address, interface) = (wire.b.link_local(), wire.a.interface());
    let client = wire.a.rawnet(&format!("connect [{address}%{interface}]:{}", server.port()));
    let server = server.finish();
    let told = wire.told(&TALK);
    let connect = told.expect(&made(client.line("connect")).with("network.interface", interface));
    assert_eq!(connect.number("network.remote.scope_id"), wire.a.interface_index());
    let accept = told.expect(&network("network.accept").of_socket(server.line("accept")));
    assert_eq!(accept.number("network.remote.scope_id"), wire.b.interface_index());
}

#[test]
fn a_connection_that_does_not_leave_the_host_is_marked() {
    skip_without_kernel!();
    for address in ["127.0.0.1:0", "127.1.2.3:0", "[::1]:0", "OWN4:0", "[OWN6]:0"] {
        let wire = wire();
        let address = address.replace("OWN4", &wire.b.ipv4()).replace("OWN6", &wire.b.ipv6());
        let server = wire.b.serve(&format!("serve {address}"));
        let client = wire.b.rawnet(&format!("connect {}", server.address()));
        let server = server.finish();
        let told = wire.told(&TALK);
        told.expect(&made(client.line("connect")).with("network.loopback", true));
        told.expect(
            &network("network.accept").of_socket(server.line("accept")).with("network.loopback", true),
        );
        for event in told.0.iter().filter(|event| event.get("network.interface").is_some()) {
            assert_eq!(event.text("network.interface"), "lo", "{event}");
        }
    }
}

#[test]
fn a_connection_between_hosts_is_not_marked_as_loopback() {
    skip_without_kernel!();
    let wire = wire();
    wire.talk("serve HERE:0", "connect ADDRESS");
    let told = wire.told(&TALK);
    assert!(told.0.iter().all(|event| event.get("network.loopback").is_none()), "{told}");
}

#[test]
fn a_local_port_that_was_chosen_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let connect = format!("connect ADDRESS --bind {}:4242 --device wire-a", wire.a.ipv4());
    let (client, _) = wire.talk("serve HERE:0", &connect);
    let told = wire.told(&[&TALK[..], &["network.bind"]].concat());
    told.expect(&made(client.line("connect")).with("network.local.port", 4242));
    told.expect(&network("network.bind").of_socket(client.line("bind")));
}

#[test]
fn a_connection_in_progress_is_told_when_it_is_made() {
    skip_without_kernel!();
    let wire = wire();
    let (client, _) = wire.talk("serve HERE:0", "connect ADDRESS --begin nonblocking --send 5");
    let told = wire.told(&TALK);
    expect_times(told.expect(&made(client.line("connect"))), client.line("connect"));
}

#[test]
fn fast_open_is_told_as_one_connection() {
    skip_without_kernel!();
    for begin in ["fastopen", "fastopen-connect"] {
        let wire = wire();
        for host in [wire.a, wire.b] {
            host.set("ipv4/tcp_fastopen", "3");
        }
        let server = wire.b.serve(&format!("serve {}:0 --fastopen 16", wire.b.ipv4()));
        // The second has a cookie, and content in its first packet.
        let words = format!("connect {} --begin {begin} --send 77 --receive 77", server.address());
        let clients = [wire.a.rawnet(&words), wire.a.rawnet(&words)];
        let server = server.finish();
        let told = wire.told(
            &[&TALK[..], &["network.connect", "network.accept", "network.close", "network.close"]].concat(),
        );
        for client in &clients {
            told.expect(&made(client.line("connect")));
            told.expect(&network("network.close").of_end(client.end()).with("network.bytes_sent", 77));
        }
        for accept in server.acts("accept") {
            told.expect(&network("network.accept").of_socket(accept));
        }
        for end in server.acts("close").filter(|line| !line["remote"].is_null()) {
            told.expect(&network("network.close").of_end(end).with("network.bytes_received", 77));
        }
    }
}

#[test]
fn a_fast_open_that_waits_for_its_content_is_told_as_one_connection() {
    skip_without_kernel!();
    let wire = wire();
    for host in [wire.a, wire.b] {
        host.set("ipv4/tcp_fastopen", "3");
    }
    let server = wire.b.serve(&format!("serve {}:0 --fastopen 16", wire.b.ipv4()));
    let words = format!("connect {} --begin fastopen-connect --send 7 --receive 7", server.address());
    let _has_a_cookie = wire.a.rawnet(&words);
    let mut client = wire.a.start(&format!("{words} --hold"));
    client.await_line("connect");
    thread::sleep(Duration::from_secs(2));
    client.go_on();
    let client = client.finish();
    drop(server.finish());
    // An attempt may be told as such in the meantime.
    let established = until("both", || {
        let events = wire.events();
        let of_client = |event: &&Event| event.number("process.pid") == u64::from(client.pid);
        events.iter().filter(of_client).any(|event| event.kind() == "network.close").then_some(events)
    });
    let told = Told(established);
    told.expect(&made(client.line("connect")));
    let attempts =
        told.all("network.connect").filter(|event| event.number("process.pid") == u64::from(client.pid));
    let outcomes: Vec<_> = attempts.map(|event| event.text("network.outcome")).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "established").count(), 1, "{told}");
    assert!(outcomes.iter().all(|outcome| ["established", "unknown"].contains(outcome)), "{told}");
}

#[test]
fn a_multipath_connection_is_told_by_who_made_it() {
    skip_without_kernel!();
    let wire = wire();
    let Some(server) = wire.b.serve_unless_skipped(&format!("serve {}:0 --protocol mptcp", wire.b.ipv4()))
    else {
        return skip("the kernel has no MPTCP");
    };
    let client =
        wire.a.rawnet(&format!("connect {} --protocol mptcp --send 9 --receive 9", server.address()));
    let server = server.finish();
    until("all ends", || {
        let ends = wire
            .events()
            .into_iter()
            .filter(|event| event.kind() == "network.close" && event.get("network.direction").is_some());
        (ends.count() >= 2).then_some(())
    });
    wire.settle();
    let told = Told(wire.events());
    // It is told as a whole, not the sockets of TCP that it consists of.
    for kind in ["network.connect", "network.accept", "network.listen"] {
        let pid = if kind == "network.connect" { client.pid } else { server.pid };
        let line = if kind == "network.connect" { client.line("connect") } else { server.line("listen") };
        let mut protocols = Vec::new();
        for event in told.all(kind) {
            assert_eq!(event.get("process.pid"), Some(&pid.into()), "{event}");
            let (path, end) =
                if kind == "network.connect" { ("remote", "remote") } else { ("local", "local") };
            assert_eq!(event.field(&format!("network.{path}.port")), &line[end]["port"], "{event}");
            protocols.push(event.text("network.protocol").to_owned());
        }
        protocols.sort_unstable();
        assert_eq!(protocols, ["mptcp"], "{kind}: {told}");
    }
    for close in told.all("network.close").filter(|event| event.get("network.direction").is_some()) {
        // Where nobody counted, nothing is told; never a number that is wrong.
        for field in ["network.bytes_sent", "network.bytes_received"] {
            assert!(close.get(field).is_none_or(|bytes| *bytes == 9), "{close}");
        }
    }
}

// Failed

#[test]
fn a_connection_that_is_refused_is_told_once_with_its_error() {
    skip_without_kernel!();
    for (address, more) in [
        ("127.0.0.1:1", ""),
        ("[::1]:1", ""),
        ("THERE:1", ""),
        ("THERE:1", "--begin nonblocking"),
        ("127.0.0.1:1", "--mapped"),
    ] {
        let wire = wire();
        let address = address.replace("THERE", &wire.b.ipv4());
        let client = wire.a.rawnet(&format!("connect {address} --expect ECONNREFUSED {more}"));
        let told = wire.told(&["network.connect"]);
        let line = client.line("connect");
        let connect = told.expect(&failed(line).with_or_default("network.ipv4_mapped", more == "--mapped"));
        expect_times(connect, line);
        assert!(connect.get("network.source").is_none(), "{connect}");
    }
}

#[test]
fn a_connection_without_a_way_is_told_with_its_error() {
    skip_without_kernel!();
    for (address, error) in [
        ("203.0.113.1:80", "ENETUNREACH"),
        ("[2001:db8:ffff::1]:80", "ENETUNREACH"),
        ("198.51.100.1:80", "EACCES"),
        ("198.51.100.2:80", "EHOSTUNREACH"),
        ("198.51.100.3:80", "EINVAL"),
        ("192.0.2.255:80", "ENETUNREACH"),
    ] {
        let wire = wire();
        let client = wire.a.rawnet(&format!("connect {address} --expect {error}"));
        let told = wire.told(&["network.connect"]);
        told.expect(&failed(client.line("connect")).with("network.call", "connect"));
    }
}

#[test]
fn a_connection_whose_host_is_not_there_is_told_with_its_error() {
    skip_without_kernel!();
    let wire = wire();
    // Nobody answers who has this address.
    let client = wire.a.rawnet("connect 192.0.2.98:80 --expect EHOSTUNREACH");
    let told = wire.told(&["network.connect"]);
    expect_times(told.expect(&failed(client.line("connect"))), client.line("connect"));
}

#[test]
fn a_connection_that_times_out_is_told_with_how_long_it_took() {
    skip_without_kernel!();
    let wire = wire();
    let words = "--expect ETIMEDOUT --syn-retries 1 --user-timeout 800";
    let client = wire.a.rawnet(&format!("connect {}:80 {words}", wire.a.silent()));
    let told = wire.told(&["network.connect"]);
    let line = client.line("connect");
    let connect = told.expect(&failed(line));
    expect_times(connect, line);
    assert!(connect.number("network.latency") > line["took_ns"].as_u64().unwrap() / 2, "{connect} of {line}");
}

#[test]
fn a_connection_that_is_in_progress_and_then_fails_is_told_once() {
    skip_without_kernel!();
    let wire = wire();
    let words = "--begin nonblocking --expect ETIMEDOUT --syn-retries 1 --user-timeout 800";
    let client = wire.a.rawnet(&format!("connect {}:80 {words}", wire.a.silent()));
    wire.told(&["network.connect"]).expect(&failed(client.line("connect")));
}

#[test]
fn a_connection_that_is_closed_before_anything_came_of_it_is_pending() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet(&format!("connect {}:80 --begin abandoned", wire.a.silent()));
    let told = wire.told(&["network.connect"]);
    told.expect(&pending(client.pid, &wire.a.silent()));
}

#[test]
fn a_connection_whose_process_is_killed_meanwhile_is_pending() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.start(&format!("connect {}:80", wire.a.silent()));
    let syn_sent = format!(":{:04X} 02 ", 80);
    until("it connects", || wire.a.proc_net("tcp").contains(&syn_sent).then_some(()));
    let client = client.kill();
    assert!(client.lines.is_empty());
    let told = wire.told(&["network.connect"]);
    told.expect(&pending(client.pid, &wire.a.silent()));
}

#[test]
fn a_connection_from_an_address_that_is_not_ones_own_is_refused_as_a_bind() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet("bind 203.0.113.7:1234 --expect EADDRNOTAVAIL");
    let told = wire.told(&["network.bind"]);
    let line = client.line("bind");
    told.expect(
        &network("network.bind")
            .with("process.pid", client.pid)
            .with("network.error", "EADDRNOTAVAIL")
            .with("network.local.address", line["local"]["address"].clone())
            .with("network.local.port", 1234),
    );
}

#[test]
fn a_udp_connect_that_fails_is_told() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet("connect 203.0.113.1:53 --protocol udp --expect ENETUNREACH");
    wire.told(&["network.connect"]).expect(&failed(client.line("connect")).with("network.protocol", "udp"));
}

// Unix sockets

#[test]
fn a_connection_to_a_unix_socket_that_is_watched_is_told() {
    skip_without_kernel!();
    for path in ["/run/nightjar-test-watched.sock", "@nightjar-test-watched"] {
        let wire = wire();
        // Of a test that failed.
        let _not_there = std::fs::remove_file(path);
        let mut server = wire.b.serve(&format!("unix {path} --times 2"));
        let client = wire.b.rawnet(&format!("unix-connect {path}"));
        server.go_on();
        let server = server.finish();
        let told = wire.told(&["network.connect"; 3]);
        for (pid, times) in [(client.pid, 1), (server.pid, 2)] {
            let expect = network("network.connect")
                .with("process.pid", pid)
                .with("network.family", "unix")
                .with("network.type", "stream")
                .with("network.direction", "outbound")
                .with("network.outcome", "established")
                .with("network.remote.path", path)
                .without("network.remote.address")
                .without("network.remote.port")
                .exe(rawnet_path());
            told.expect(&expect);
            assert_eq!(told.0.iter().filter(|event| fits(&expect, event)).count(), times, "{told}");
        }
        let _abstract = std::fs::remove_file(path);
    }
}

#[test]
fn a_connection_to_a_watched_unix_socket_that_nobody_serves_is_told_as_failed() {
    skip_without_kernel!();
    let wire = wire();
    let client = wire.a.rawnet("unix-connect @nightjar-test-watched --expect ECONNREFUSED");
    let told = wire.told(&["network.connect"]);
    told.expect(
        &network("network.connect")
            .with("process.pid", client.pid)
            .with("network.family", "unix")
            .with("network.outcome", "failed")
            .with("network.error", "ECONNREFUSED")
            .with("network.remote.path", "@nightjar-test-watched"),
    );
}

#[test]
fn a_connection_to_another_unix_socket_is_not_told() {
    skip_without_kernel!();
    let wire = wire();
    let folder = folder_for_all();
    let path = folder.path().join("socket").to_str().unwrap().to_owned();
    let server = wire.b.serve(&format!("unix {path}"));
    let program = run(rawnet_path()).args(["unix-connect", &path]).succeed();
    drop(server.finish());
    wire.settle();
    program.expect_no(&network("network.connect"));
}

// Unusual sockets

#[test]
fn sockets_of_unusual_kinds_are_told_when_they_are_made() {
    skip_without_kernel!();
    for (kind, family, protocol, type_) in [
        ("packet", "packet", Some("all"), "raw"),
        ("packet-ipv4", "packet", Some("ipv4"), "dgram"),
        ("netlink-audit", "netlink", Some("audit"), "raw"),
        ("netlink-netfilter", "netlink", Some("netfilter"), "raw"),
        ("vsock", "vsock", None, "stream"),
    ] {
        let wire = wire();
        let talk = wire.a.rawnet(&format!("socket {kind}"));
        let told = wire.told(&["network.socket"]);
        let expect = network("network.socket")
            .with("process.pid", talk.pid)
            .with("network.family", family)
            .with("network.type", type_)
            .with("network.namespace", wire.a.namespace())
            .without("network.remote")
            .without("network.connection");
        let expect = match protocol {
            Some(protocol) => expect.with("network.protocol", protocol),
            None => expect,
        };
        told.expect(&expect);
    }
}

#[test]
fn sockets_that_every_program_makes_are_not_told() {
    skip_without_kernel!();
    let wire = wire();
    wire.a.rawnet("socket netlink-route");
    wire.a.rawnet("send 127.0.0.1:53 --connected --count 0");
    thread::sleep(PATIENCE);
    wire.told(&[]);
}
