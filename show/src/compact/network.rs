//! What lines say of sockets.
//!
//! ```text
//! conn    root        4242 curl             tcp 10.0.0.5:41000 -> 192.0.2.7:443  1ms
//! ```
//!
//! The protocol, the end here, an arrow the way that it began, the end there, and what came of it.

use std::fmt::Write as _;

use nightjar_proto::v1::{Event, NetworkActivity, NetworkEndpoint};
use prost_types::Timestamp;

use super::{Colour, Line, amount, duration, shown};

/// The word for a kind of the family `network`, and its colour: what failed is red.
pub fn what(kind: &str, network: &NetworkActivity) -> (&'static str, Colour) {
    let (word, colour) = match kind {
        "network.connect" => ("conn", Colour::Green),
        "network.accept" => ("accept", Colour::Green),
        "network.listen" => ("listen", Colour::Magenta),
        "network.bind" => ("bind", Colour::Yellow),
        "network.socket" => ("socket", Colour::Magenta),
        "network.close" => ("close", Colour::Grey),
        "network.flow" => ("flow", Colour::Green),
        _ => ("net", Colour::Grey),
    };
    // A connection that broke was there: `reason` has a colour of its own.
    let failed = kind != "network.close" && !network.error.is_empty();
    (word, if failed { Colour::Red } else { colour })
}

/// What was done with which socket.
pub fn about(line: &mut Line, event: &Event, network: &NetworkActivity) {
    line.text(&protocol(network));
    if event.kind == "network.socket" && network.r#type != network.protocol {
        line.text(&format!(" {}", network.r#type));
    }
    ends(line, network);
    match &*event.kind {
        "network.connect" => outcome(line, network),
        "network.listen" => line.part(&format!("  backlog {}", network.backlog), Some(Colour::Grey)),
        "network.close" => ending(line, network),
        "network.flow" => repeats(line, network),
        _ => error(line, network),
    }
    if network.source == "user_memory" {
        line.part("  not proven", Some(Colour::Yellow));
    }
    if network.attribution == "listener" {
        line.part("  accepted unseen", Some(Colour::Grey));
    }
    if let Some(opener) = &network.opener {
        let name = if opener.exe.is_empty() { &opener.comm } else { &opener.exe };
        line.part(&format!("  opened by {} {}", opener.pid, shown(name)), Some(Colour::Yellow));
    }
    if network.snapshot {
        line.part("  there before", Some(Colour::Grey));
    }
}

/// The family too, where it is not one of IP.
fn protocol(network: &NetworkActivity) -> String {
    let protocol = &*network.protocol;
    match &*network.family {
        family if protocol.is_empty() => family.to_owned(),
        "ipv4" | "ipv6" => protocol.to_owned(),
        family => format!("{family} {protocol}"),
    }
}

fn ends(line: &mut Line, network: &NetworkActivity) {
    if let Some(local) = &network.local {
        line.text(&format!(" {}", end(local)));
    }
    if let Some(remote) = &network.remote {
        let arrow = match &*network.direction {
            "outbound" => "->",
            "inbound" => "<-",
            _ => "--",
        };
        line.text(&format!(" {arrow} {}", end(remote)));
    }
}

/// `192.0.2.1:80`, `[fe80::1%2]:80`, `192.0.2.1` of a protocol without ports, `*:68` where it is bound to no address.
fn end(end: &NetworkEndpoint) -> String {
    if !end.path.is_empty() {
        return shown(&end.path);
    }
    let mut text = if end.address.is_empty() { "*".to_owned() } else { shown(&end.address) };
    if end.scope_id != 0 {
        let _infallible = write!(text, "%{}", end.scope_id);
    }
    match end.port {
        Some(port) if text.contains(':') => format!("[{text}]:{port}"),
        Some(port) => format!("{text}:{port}"),
        None => text,
    }
}

fn outcome(line: &mut Line, network: &NetworkActivity) {
    error(line, network);
    match &*network.outcome {
        // Said by the error.
        "failed" | "established" | "sent" => {}
        "pending" => line.part("  no answer", Some(Colour::Yellow)),
        _ => line.part("  outcome unknown", Some(Colour::Yellow)),
    }
    if network.latency > 0 {
        line.part(&format!("  {}", duration(network.latency)), Some(Colour::Grey));
    }
}

fn error(line: &mut Line, network: &NetworkActivity) {
    if !network.error.is_empty() {
        line.part(&format!("  {}", shown(&network.error)), Some(Colour::Red));
    }
}

fn ending(line: &mut Line, network: &NetworkActivity) {
    let mut parts = Vec::new();
    if network.duration > 0 {
        parts.push(format!("after {}", duration(network.duration)));
    }
    parts.extend(amounts(network));
    if !parts.is_empty() {
        line.part(&format!("  {}", parts.join(", ")), Some(Colour::Grey));
    }
    if network.retransmits > 0 {
        line.part(&format!("  {} sent again", network.retransmits), Some(Colour::Yellow));
    }
    match &*network.reason {
        "" => error(line, network),
        "error" => {
            line.part(&format!("  error {}", shown(&network.error)), Some(Colour::Red));
        }
        reason @ ("reset" | "reset_by_remote" | "timeout") => {
            line.part(&format!("  {reason}"), Some(Colour::Yellow));
        }
        reason => line.part(&format!("  {reason}"), Some(Colour::Grey)),
    }
}

fn repeats(line: &mut Line, network: &NetworkActivity) {
    line.part(&format!("  x{}", network.count), Some(Colour::Yellow));
    if network.failed > 0 {
        line.part(&format!(", {} failed", network.failed), Some(Colour::Red));
    }
    let mut text = amounts(network).fold(String::new(), |text, part| text + ", " + &part);
    if let (Some(first), Some(last)) = (&network.first_time, &network.last_time) {
        let _infallible = write!(text, " in {}", duration(between(first, last)));
    }
    line.part(&text, Some(Colour::Grey));
}

/// Of what was counted.
fn amounts(network: &NetworkActivity) -> impl Iterator<Item = String> {
    let both = [("sent", network.bytes_sent), ("received", network.bytes_received)];
    both.into_iter().filter_map(|(word, bytes)| Some(format!("{word} {}", amount(bytes?))))
}

/// Nanoseconds from one to the other; zero where the clock was set back in between.
fn between(first: &Timestamp, last: &Timestamp) -> u64 {
    let nanoseconds = |time: &Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    u64::try_from(nanoseconds(last) - nanoseconds(first)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::{NetworkOpener, Process, event::Body};

    use super::*;
    use crate::compact::{Style, line};

    /// What stands after who did it.
    fn said(kind: &str, network: NetworkActivity) -> String {
        let process =
            Process { pid: 4242, user: "root".to_owned(), comm: "curl".to_owned(), ..Process::default() };
        let text = whole(kind, Some(process), network, Style::default());
        text.split_once("curl             ").unwrap().1.trim_end_matches('\n').to_owned()
    }

    fn whole(kind: &str, process: Option<Process>, network: NetworkActivity, style: Style) -> String {
        let event =
            Event { kind: kind.to_owned(), process, body: Some(Body::Network(network)), ..Event::default() };
        let mut text = String::new();
        line(&event, style, &mut text);
        text
    }

    fn at(address: &str, port: u32) -> NetworkEndpoint {
        let port = (port != 0).then_some(port);
        NetworkEndpoint { address: address.to_owned(), port, ..NetworkEndpoint::default() }
    }

    fn named(path: &str) -> NetworkEndpoint {
        NetworkEndpoint { path: path.to_owned(), ..NetworkEndpoint::default() }
    }

    fn of(protocol: &str, family: &str) -> NetworkActivity {
        NetworkActivity {
            protocol: protocol.to_owned(),
            family: family.to_owned(),
            ..NetworkActivity::default()
        }
    }

    fn outbound() -> NetworkActivity {
        NetworkActivity {
            direction: "outbound".to_owned(),
            local: Some(at("10.0.0.5", 41_000)),
            remote: Some(at("192.0.2.7", 443)),
            ..of("tcp", "ipv4")
        }
    }

    fn inbound() -> NetworkActivity {
        NetworkActivity { direction: "inbound".to_owned(), ..outbound() }
    }

    #[test]
    fn a_connection_tells_both_ends_and_how_long_it_took() {
        let made = NetworkActivity { outcome: "established".to_owned(), latency: 11_204_118, ..outbound() };
        assert_eq!(said("network.connect", made), "tcp 10.0.0.5:41000 -> 192.0.2.7:443  11ms");
        let accepted = said("network.accept", inbound());
        assert_eq!(accepted, "tcp 10.0.0.5:41000 <- 192.0.2.7:443");
        let unknown = NetworkActivity { direction: String::new(), ..outbound() };
        assert_eq!(said("network.close", unknown), "tcp 10.0.0.5:41000 -- 192.0.2.7:443");
    }

    #[test]
    fn what_came_of_a_connection_is_told_unless_all_is_well() {
        let udp =
            NetworkActivity { local: None, ..NetworkActivity { protocol: "udp".to_owned(), ..outbound() } };
        let table = [
            ("established", "", 0, ""),
            ("sent", "", 0, ""),
            ("failed", "ECONNREFUSED", 84_000, "  ECONNREFUSED  84us"),
            ("failed", "ETIMEDOUT", 130_000_000_000, "  ETIMEDOUT  130s"),
            ("pending", "", 0, "  no answer"),
            ("unknown", "", 0, "  outcome unknown"),
        ];
        for (outcome, error, latency, expected) in table {
            let (outcome, error) = (outcome.to_owned(), error.to_owned());
            let network = NetworkActivity { outcome, error, latency, ..udp.clone() };
            assert_eq!(said("network.connect", network), format!("udp -> 192.0.2.7:443{expected}"));
        }
    }

    #[test]
    fn what_failed_is_red() {
        let style = Style { colour: true, width: None };
        let failed = |error: &str| {
            let network =
                NetworkActivity { outcome: "failed".to_owned(), error: error.to_owned(), ..outbound() };
            whole("network.connect", None, network, style)
        };
        assert!(failed("EHOSTUNREACH").contains("\u{1B}[31mconn  \u{1B}[0m"));
        assert!(failed("EHOSTUNREACH").contains("\u{1B}[31m  EHOSTUNREACH\u{1B}[0m"));
        assert!(failed("").contains("\u{1B}[32mconn  \u{1B}[0m"));
        let broken = NetworkActivity {
            reason: "reset_by_remote".to_owned(),
            error: "ECONNRESET".to_owned(),
            ..outbound()
        };
        let broken = whole("network.close", None, broken, style);
        assert!(
            broken.contains("\u{1B}[90mclose") && broken.contains("\u{1B}[33m  reset_by_remote"),
            "{broken}"
        );
    }

    #[test]
    fn an_end_tells_how_long_how_much_and_why() {
        let closed = NetworkActivity {
            duration: 1_204_118_000,
            bytes_sent: Some(512),
            bytes_received: Some(3 << 10),
            reason: "reset_by_remote".to_owned(),
            ..outbound()
        };
        assert_eq!(
            said("network.close", closed.clone()),
            "tcp 10.0.0.5:41000 -> 192.0.2.7:443  after 1204ms, sent 512 B, received 3.0 KiB  reset_by_remote"
        );
        let broken = NetworkActivity {
            reason: "error".to_owned(),
            error: "ENETDOWN".to_owned(),
            retransmits: 7,
            bytes_received: Some(0),
            ..closed
        };
        assert_eq!(
            said("network.close", broken),
            "tcp 10.0.0.5:41000 -> 192.0.2.7:443  after 1204ms, sent 512 B, received 0 B  7 sent again  error ENETDOWN"
        );
        let listener = NetworkActivity {
            local: Some(at("0.0.0.0", 80)),
            reason: "closed".to_owned(),
            duration: 1_000_000,
            ..of("tcp", "ipv4")
        };
        assert_eq!(said("network.close", listener), "tcp 0.0.0.0:80  after 1ms  closed");
    }

    #[test]
    fn repeats_tell_how_many_there_were_how_many_failed_and_how_much_went() {
        let time = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let flow = NetworkActivity {
            local: None,
            count: 412,
            failed: 3,
            bytes_sent: Some(1 << 20),
            bytes_received: Some(5_000),
            first_time: time(9, 900_000_000),
            last_time: time(14, 100_000_000),
            ..outbound()
        };
        assert_eq!(
            said("network.flow", flow.clone()),
            "tcp -> 192.0.2.7:443  x412, 3 failed, sent 1.0 MiB, received 4.8 KiB in 4200ms"
        );
        let set_back = NetworkActivity { last_time: time(1, 0), failed: 0, bytes_sent: None, ..flow };
        assert_eq!(said("network.flow", set_back), "tcp -> 192.0.2.7:443  x412, received 4.8 KiB in 0us");
    }

    #[test]
    fn an_end_is_written_as_one_would_type_it() {
        let scoped = NetworkEndpoint { scope_id: 2, ..at("fe80::1", 80) };
        let table = [
            (at("192.0.2.1", 80), "192.0.2.1:80"),
            (at("192.0.2.1", 0), "192.0.2.1"),
            (at("::1", 80), "[::1]:80"),
            (at("::1", 0), "::1"),
            (scoped, "[fe80::1%2]:80"),
            (at("", 68), "*:68"),
            (at("2", 1024), "2:1024"),
            (named("@name"), "@name"),
            (named("/run/a\n\u{202E}b"), r"/run/a\n\u{202e}b"),
        ];
        for (local, text) in table {
            let bound = NetworkActivity { local: Some(local), ..of("udp", "ipv4") };
            assert_eq!(said("network.bind", bound), format!("udp {text}"));
        }
    }

    #[test]
    fn sockets_that_are_not_of_ip_tell_their_family() {
        let table = [
            (("all", "packet", "raw"), "packet all raw"),
            (("audit", "netlink", "raw"), "netlink audit raw"),
            (("", "vsock", "stream"), "vsock stream"),
            (("sctp", "ipv6", "seqpacket"), "sctp seqpacket"),
            (("raw", "ipv4", "raw"), "raw"),
        ];
        for ((protocol, family, kind), text) in table {
            let network = NetworkActivity { r#type: kind.to_owned(), ..of(protocol, family) };
            assert_eq!(said("network.socket", network), text);
        }
        let docker = NetworkActivity {
            direction: "outbound".to_owned(),
            remote: Some(named("/run/docker.sock")),
            outcome: "established".to_owned(),
            ..of("", "unix")
        };
        assert_eq!(said("network.connect", docker), "unix -> /run/docker.sock");
    }

    #[test]
    fn a_listener_tells_its_queue_and_one_that_was_refused_its_port_why() {
        let bound = NetworkActivity { local: Some(at("0.0.0.0", 80)), ..of("tcp", "ipv4") };
        let listening = NetworkActivity { backlog: 4096, snapshot: true, ..bound.clone() };
        assert_eq!(said("network.listen", listening), "tcp 0.0.0.0:80  backlog 4096  there before");
        let refused = NetworkActivity { error: "EADDRINUSE".to_owned(), ..bound };
        assert_eq!(said("network.bind", refused), "tcp 0.0.0.0:80  EADDRINUSE");
    }

    #[test]
    fn whoever_has_a_socket_of_another_program_is_told_with_that() {
        let opener = NetworkOpener { pid: 812, comm: "systemd".to_owned(), ..NetworkOpener::default() };
        let passed = NetworkActivity { opener: Some(opener.clone()), ..inbound() };
        assert_eq!(
            said("network.accept", passed.clone()),
            "tcp 10.0.0.5:41000 <- 192.0.2.7:443  opened by 812 systemd"
        );
        let opener = NetworkOpener { exe: "/usr/sbin/in\tetd".to_owned(), ..opener };
        let of_listener = NetworkActivity {
            attribution: "listener".to_owned(),
            source: "user_memory".to_owned(),
            opener: Some(opener),
            ..passed
        };
        assert_eq!(
            said("network.accept", of_listener),
            r"tcp 10.0.0.5:41000 <- 192.0.2.7:443  not proven  accepted unseen  opened by 812 /usr/sbin/in\tetd"
        );
    }

    #[test]
    fn who_did_it_can_be_unknown() {
        let text = whole("network.close", None, inbound(), Style::default());
        assert_eq!(
            text,
            "00:00:00.000  close   ?              ? ?                tcp 10.0.0.5:41000 <- 192.0.2.7:443\n"
        );
    }

    #[test]
    fn every_kind_of_the_family_has_a_word() {
        let kinds = nightjar_proto::KINDS.iter().map(|kind| kind.name);
        let kinds = kinds.filter(|kind| kind.starts_with("network."));
        let mut words: Vec<_> = kinds.map(|kind| what(kind, &NetworkActivity::default()).0).collect();
        assert!(!words.contains(&"net") && words.iter().all(|word| word.len() <= 6), "{words:?}");
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 7);
    }
}
