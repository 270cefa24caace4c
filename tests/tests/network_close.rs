//! Ends of connections: why, by whom, after how long and how much.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nightjar_tests::{
    Event, Expect, TALK, Talk, Told, Wire, copy_of, folder_for_all, network, rawnet_path,
    skip_without_kernel, watch_network,
};
use serde_json::Value;

const CONFIGURATION: &str = "network: {fold: 0s}";

fn wire() -> Wire {
    watch_network(CONFIGURATION);
    Wire::new()
}

/// The event that tells of an end, with its reason.
fn closed(line: &Value, reason: &str) -> Expect {
    network("network.close")
        .of_end(line)
        .with("network.reason", reason)
        .with("network.type", "stream")
        .with_some("network.connection")
        .with_some("network.duration")
        .with_some("network.packets_sent")
        .with_some("network.packets_received")
}

/// Talks once; tells how it should end on both sides.
fn expect_reasons(serve: &str, connect: &str, here: &str, there: &str) -> (Talk, Talk, Told) {
    let wire = wire();
    let (client, server) = wire.talk(serve, connect);
    let told = wire.told(&TALK);
    let ours = told.expect(&closed(client.end(), here).with("network.direction", "outbound"));
    let theirs = told.expect(&closed(server.end(), there).with("network.direction", "inbound"));
    for (close, kind, reason) in [(ours, "network.connect", here), (theirs, "network.accept", there)] {
        let connection = close.field("network.connection");
        assert!(told.all(kind).any(|event| event.field("network.connection") == connection), "{told}");
        // What the other side broke was over before this one closed it.
        let attribution = if reason == "reset_by_remote" { "opener" } else { "acted" };
        assert_eq!(close.text("network.attribution"), attribution, "{close}");
    }
    (client, server, told)
}

/// The end of the connection that this process began.
fn end_of(told: &Told, direction: &str) -> Event {
    let mut ends = told
        .all("network.close")
        .filter(|event| event.get("network.direction").and_then(Value::as_str) == Some(direction));
    ends.next().unwrap_or_else(|| panic!("no end: {told}")).clone()
}

// Why

#[test]
fn whoever_closes_first_closed_it() {
    skip_without_kernel!();
    expect_reasons("serve HERE:0", "connect ADDRESS --send 100 --receive 100", "closed", "closed_by_remote");
    expect_reasons(
        "serve HERE:0 --send 70 --behaviour close",
        "connect ADDRESS --receive 70 --end remote",
        "closed_by_remote",
        "closed",
    );
}

#[test]
fn whoever_sends_no_more_first_closed_it() {
    skip_without_kernel!();
    expect_reasons(
        "serve HERE:0",
        "connect ADDRESS --send 100 --end half-close",
        "closed",
        "closed_by_remote",
    );
    expect_reasons(
        "serve HERE:0 --behaviour half-close --send 5",
        "connect ADDRESS --end remote",
        "closed_by_remote",
        "closed",
    );
}

#[test]
fn a_connection_without_content_is_closed_as_any_other() {
    skip_without_kernel!();
    expect_reasons("serve HERE:0", "connect ADDRESS", "closed", "closed_by_remote");
}

#[test]
fn whoever_does_not_linger_resets_it() {
    skip_without_kernel!();
    expect_reasons(
        "serve HERE:0 --send 1 --behaviour sink",
        // Not before it was accepted: what ends before that is told of for the listener.
        "connect ADDRESS --send 100 --receive 1 --end abort",
        "reset",
        "reset_by_remote",
    );
    let (client, _, told) = expect_reasons(
        "serve HERE:0 --receive 10 --behaviour abort",
        "connect ADDRESS --send 10 --end remote",
        "reset_by_remote",
        "reset",
    );
    assert_eq!(client.end()["broken"], "ECONNRESET");
    assert_eq!(end_of(&told, "outbound").text("network.error"), "ECONNRESET");
}

#[test]
fn content_that_nobody_read_resets_it() {
    skip_without_kernel!();
    let wire = wire();
    let (client, server) = wire.talk("serve HERE:0 --behaviour hold", "connect ADDRESS --send 10 --hold-end");
    let told = wire.told(&TALK);
    // The server never reads what came, and closes when the other side has closed already.
    told.expect(&network("network.close").of_socket(client.end()).with("network.bytes_sent", 10));
    let close =
        told.expect(&network("network.close").of_socket(server.end()).with("network.bytes_received", 10));
    assert!(["reset", "closed_by_remote"].contains(&close.text("network.reason")), "{close}");
}

#[test]
fn a_connection_that_nothing_comes_back_from_times_out() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour sink", wire.b.ipv4()));
    let words = "--hold --send 10 --end remote --user-timeout 600";
    let mut client = wire.a.start(&format!("connect {} {words}", server.address()));
    client.await_line("connect");
    wire.a.is_cut_off_from(wire.b);
    client.go_on();
    let client = client.finish();
    let line = client.end();
    assert_eq!(line["broken"], "ETIMEDOUT");
    let told =
        wire.told(&["network.bind", "network.listen", "network.connect", "network.accept", "network.close"]);
    let close = told.expect(
        &network("network.close")
            .with("process.pid", client.pid)
            .with("network.reason", "timeout")
            .with("network.error", "ETIMEDOUT")
            .with("network.local", line["local"].clone())
            .with("network.remote", line["remote"].clone()),
    );
    assert!(close.number("network.retransmits") > 0, "{close}");
    // What nobody said to have got counts as not sent, or as sent: the kernel knows no better.
    assert!(close.number("network.bytes_sent") <= 10, "{close}");
    drop(server.kill());
}

// By whom

#[test]
fn a_process_that_ends_closes_its_connections() {
    skip_without_kernel!();
    let wire = wire();
    let (client, _) = wire.talk("serve HERE:0", "connect ADDRESS --send 9 --receive 9 --end exit");
    let told = wire.told(&TALK);
    told.expect(&closed(client.line("exit"), "closed").with("network.attribution", "acted"));
}

#[test]
fn a_process_that_is_killed_closes_its_connections() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0", wire.b.ipv4()));
    let client = wire.a.start(&format!("connect {} --send 9 --receive 9 --hold-end", server.address()));
    let connect = client.await_line("connect");
    // It has its answer by then.
    thread::sleep(Duration::from_millis(500));
    let client = client.kill();
    drop(server.finish());
    let told = wire.told(&TALK);
    let close = told.expect(
        &network("network.close")
            .of_socket(&connect)
            .with("network.reason", "closed")
            .with("network.bytes_sent", 9)
            .with("network.bytes_received", 9),
    );
    assert_eq!(close.number("process.pid"), u64::from(client.pid));
}

#[test]
fn a_connection_that_was_passed_is_ended_by_who_has_it() {
    skip_without_kernel!();
    for hand in ["passed", "inherited"] {
        let wire = wire();
        let (client, _) =
            wire.talk("serve HERE:0 --behaviour sink", &format!("connect ADDRESS --hand {hand} --send 44"));
        let told = wire.told(&TALK);
        let end = client.end();
        assert_ne!(end["pid"], Value::from(client.pid));
        told.expect(&network("network.connect").of_socket(client.line("connect")).without("network.opener"));
        told.expect(
            &closed(end, "closed")
                .with("network.attribution", "acted")
                .with("network.opener.pid", client.pid)
                .with("network.opener.comm", "rawnet")
                .with_some("network.opener.id"),
        );
    }
}

#[test]
fn a_connection_that_was_accepted_and_passed_is_ended_by_who_has_it() {
    skip_without_kernel!();
    for hand in ["passed", "inherited"] {
        let wire = wire();
        let (_, server) = wire.talk(
            &format!("serve HERE:0 --hand {hand} --send 44"),
            "connect ADDRESS --receive 44 --end remote",
        );
        let told = wire.told(&TALK);
        let end = server.end();
        assert_ne!(end["pid"], Value::from(server.pid));
        told.expect(&network("network.accept").of_socket(server.line("accept")).without("network.opener"));
        told.expect(&closed(end, "closed").with("network.opener.pid", server.pid));
    }
}

#[test]
fn a_connection_that_stays_open_over_an_exec_is_ended_by_the_new_program() {
    skip_without_kernel!();
    let folder = folder_for_all();
    let program = copy_of(rawnet_path(), folder.path().join("successor"), 0o755);
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour sink", wire.b.ipv4()));
    let words = format!("connect {} --hand executed --send 44", server.address());
    let client = wire.a.start_with(&words, &[("RAWNET_PROGRAM", program.to_str().unwrap())]).finish();
    drop(server.finish());
    let told = wire.told(&TALK);
    told.expect(&network("network.connect").of_socket(client.line("connect")).exe(rawnet_path()));
    let close =
        told.expect(&closed(client.end(), "closed").exe(&program).with("network.opener.pid", client.pid));
    assert_eq!(Path::new(close.text("network.opener.exe")), rawnet_path(), "{close}");
    assert_ne!(close.text("network.opener.exec_id"), close.text("process.exec_id"), "{close}");
}

#[test]
fn what_the_kernel_ends_long_after_the_process_is_told_of_that_process() {
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour sink", wire.b.ipv4()));
    let words = "--hold --send 10 --end exit --user-timeout 1500";
    let mut client = wire.a.start(&format!("connect {} {words}", server.address()));
    client.await_line("connect");
    wire.a.is_cut_off_from(wire.b);
    client.go_on();
    let client = client.finish();
    let exited = Instant::now();
    let close = nightjar_tests::until("its end", || {
        wire.events().into_iter().find(|event| {
            event.kind() == "network.close" && event.get("network.direction") == Some(&"outbound".into())
        })
    });
    assert!(exited.elapsed() > Duration::from_millis(700), "{close}");
    assert_eq!(close.get("process.pid"), Some(&client.pid.into()), "{close}");
    assert_eq!(Path::new(close.text("process.exe.path")), rawnet_path(), "{close}");
    assert_eq!(close.field("network.local"), &client.line("exit")["local"], "{close}");
    drop(server.kill());
}

// How much

#[test]
fn much_content_is_counted_to_the_byte() {
    const LEN: u64 = 50_000_000;
    skip_without_kernel!();
    let connect = format!("connect ADDRESS --send {LEN} --receive {LEN}");
    let (_, _, told) = expect_reasons("serve HERE:0", &connect, "closed", "closed_by_remote");
    for direction in ["outbound", "inbound"] {
        let close = end_of(&told, direction);
        assert_eq!(close.number("network.bytes_sent"), LEN, "{close}");
        assert_eq!(close.number("network.bytes_received"), LEN, "{close}");
        assert!(close.number("network.round_trip") > 0, "{close}");
    }
    let (ours, theirs) = (end_of(&told, "outbound"), end_of(&told, "inbound"));
    // Segments may be joined on their way, but not taken apart.
    assert!(ours.number("network.packets_sent") >= theirs.number("network.packets_received") / 2, "{told}");
}

#[test]
fn a_connection_without_content_has_counts_of_zero() {
    skip_without_kernel!();
    let (_, _, told) = expect_reasons("serve HERE:0", "connect ADDRESS", "closed", "closed_by_remote");
    for direction in ["outbound", "inbound"] {
        let close = end_of(&told, direction);
        assert_eq!(
            (close.number("network.bytes_sent"), close.number("network.bytes_received")),
            (0, 0),
            "{close}"
        );
        // Three to begin, at most four to end, whoever sends them.
        let packets = close.number("network.packets_sent") + close.number("network.packets_received");
        assert!((3..=8).contains(&packets), "{close}");
        assert!(close.get("network.retransmits").is_none(), "{close}");
    }
}

#[test]
fn content_that_is_sent_again_is_counted_once() {
    const LEN: u64 = 60_000;
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0 --behaviour sink", wire.b.ipv4()));
    let mut client = wire.a.start(&format!("connect {} --hold --send {LEN} --hold-end", server.address()));
    client.await_line("connect");
    wire.a.is_cut_off_from(wire.b);
    client.go_on();
    thread::sleep(Duration::from_millis(700));
    wire.a.is_joined_to(wire.b);
    client.go_on();
    let client = client.finish();
    let server = server.finish();
    assert_eq!(server.end()["received"], LEN);
    let told = wire.told(&TALK);
    let close = told.expect(&closed(client.end(), "closed"));
    assert!(close.number("network.retransmits") > 0, "{close}");
    told.expect(&closed(server.end(), "closed_by_remote"));
}

#[test]
fn a_connection_lasts_from_when_it_was_made() {
    const HELD: Duration = Duration::from_millis(1200);
    skip_without_kernel!();
    let wire = wire();
    let server = wire.b.serve(&format!("serve {}:0", wire.b.ipv4()));
    let mut client = wire.a.start(&format!("connect {} --hold-end", server.address()));
    client.await_line("connect");
    thread::sleep(HELD);
    client.go_on();
    let client = client.finish();
    drop(server.finish());
    let told = wire.told(&TALK);
    for direction in ["outbound", "inbound"] {
        let duration = Duration::from_nanos(end_of(&told, direction).number("network.duration"));
        assert!((HELD..HELD * 3).contains(&duration), "{duration:?}");
    }
    let connect = told.expect(&network("network.connect").of_socket(client.line("connect")));
    let close = end_of(&told, "outbound");
    let made = connect.nanos("time") + i128::from(connect.number("network.latency"));
    let lasted = close.nanos("time") - made;
    assert!((lasted - i128::from(close.number("network.duration"))).abs() < 1_000_000, "{told}");
}
