//! Counters of the agent, as Prometheus takes them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which Clippy does not know as such")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use nightjar_tests::{Agent, TRUE, skip_without_kernel, socket_of, status_of, workload};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    code: u16,
    /// Names in lower case.
    headers: BTreeMap<String, String>,
    body: String,
}

/// Sends a request and reads the answer to its end.
fn ask(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let (first, headers) = head.split_once("\r\n").unwrap();
    let headers = headers.lines().map(|line| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_lowercase(), value.to_owned())
    });
    let code = first.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { code, headers: headers.collect(), body: body.to_owned() }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: nightjar\r\nConnection: close\r\n\r\n")
}

fn over_socket(instance: &str, path: &str) -> Answer {
    let stream = UnixStream::connect(socket_of(instance)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(stream, &get(path))
}

fn over_tcp(address: SocketAddr, request: &str) -> Answer {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ask(stream, request)
}

/// Samples by what stands before the value: name and labels. Checks the form of the page.
fn samples(answer: &Answer) -> BTreeMap<String, String> {
    assert_eq!(answer.code, 200, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let page = answer.body.strip_suffix("# EOF\n").unwrap_or_else(|| panic!("no end: {:?}", answer.body));
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    for line in page.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let [word, name, rest] = comment.splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(name.starts_with("nightjar_") && !rest.is_empty(), "{line}");
            if word == "TYPE" {
                assert!(families.insert(name.to_owned()), "two families of one name: {line}");
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let family = ["", "_total", "_info"].iter().filter_map(|suffix| name.strip_suffix(suffix));
        assert!(family.into_iter().any(|family| families.contains(family)), "of no family: {line}");
        assert!(value.parse().is_ok_and(f64::is_finite), "no number: {line}");
        assert!(samples.insert(series.to_owned(), value.to_owned()).is_none(), "twice: {line}");
    }
    samples
}

/// A whole number.
fn count(samples: &BTreeMap<String, String>, series: &str) -> u64 {
    let value = samples.get(series).unwrap_or_else(|| panic!("no {series} in {samples:#?}"));
    value.parse().unwrap_or_else(|error| panic!("{series} {value}: {error}"))
}

#[test]
fn the_socket_serves_them() {
    skip_without_kernel!();
    let instance = Agent::shared_instance();
    let samples = samples(&over_socket(&instance, "/metrics"));
    let build = samples.keys().find(|series| series.starts_with("nightjar_build_info{")).unwrap();
    assert!(build.contains(&format!("instance=\"{instance}\"")), "{build}");
    let sums: Vec<_> =
        samples.iter().filter(|(series, _)| series.starts_with("nightjar_identity_holds")).collect();
    assert!(sums.len() > 3 && sums.iter().all(|(_, holds)| *holds == "1"), "{sums:?}");
    // That of files has the size that it has unless another is asked for.
    assert_eq!(count(&samples, "nightjar_ring_bytes"), (64 + 8) << 20);
    assert_eq!(count(&samples, "nightjar_events_lost_total"), 0);
    // Whoever looks at how fast it grows sees the first loss.
    assert_eq!(count(&samples, r#"nightjar_hook_dropped_total{hook="exec",reason="ring_full"}"#), 0);
    // As gRPC says that there is no such thing.
    assert_eq!(over_socket(&instance, "/").headers["grpc-status"], "12");
}

#[test]
fn they_grow_with_what_is_run_and_are_those_of_the_status() {
    const PROGRAMS: u64 = 100;
    const EXECS: &str = r#"nightjar_events_exported_total{kind="process.exec"}"#;
    const SEEN: &str = r#"nightjar_hook_seen_total{hook="exec"}"#;
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.exec", "--ring-size", "64MiB"]);
    let scrape = || samples(&over_socket(agent.instance(), "/metrics"));
    let exported = |status: &Value| {
        let kinds = status["flow"]["exported"].as_array().unwrap();
        kinds.iter().find(|entry| entry["kind"] == "process.exec").unwrap()["count"].as_u64().unwrap()
    };
    let before = scrape();
    let _ran = workload(&["spawn-many", &PROGRAMS.to_string(), TRUE]).succeed();
    agent.catch_up();
    let least = exported(&status_of(agent.instance()));
    let after = scrape();
    let most = exported(&status_of(agent.instance()));

    // The workload itself and the one that was waited for are programs as well.
    assert!(count(&after, EXECS) - count(&before, EXECS) > PROGRAMS);
    assert!(count(&after, SEEN) - count(&before, SEEN) > PROGRAMS);
    assert!((least..=most).contains(&count(&after, EXECS)), "{least} {most} {}", count(&after, EXECS));
    let name = |series: &String| series.split('{').next().unwrap().to_owned();
    for (series, value) in before.iter().filter(|(series, _)| name(series).ends_with("_total")) {
        let number = |text: &str| text.parse::<f64>().unwrap();
        let later = &after[series];
        assert!(number(later) >= number(value), "{series} went back from {value} to {later}");
    }
    agent.stop().expect_nothing_lost();
}

/// Addresses on TCP that a process listens on, as the kernel writes them.
fn listens_on(pid: u32) -> Vec<String> {
    const LISTEN: &str = "0A";
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let sockets: BTreeSet<String> = descriptors
        .filter_map(|to| Some(to.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(!sockets.is_empty(), "it has its unix socket at least");
    let tables = ["tcp", "tcp6"].map(|name| format!("/proc/{pid}/net/{name}"));
    let tables = tables.iter().filter(|path| Path::new(path).exists());
    let lines = tables.flat_map(|path| {
        fs::read_to_string(path).unwrap().lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    });
    let mine = lines.filter_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields[3] == LISTEN && sockets.contains(fields[9])).then(|| fields[1].to_owned())
    });
    mine.collect()
}

#[test]
fn no_port_is_open_unless_asked_for() {
    skip_without_kernel!();
    let agent = Agent::start(&["--kind", "process.exec", "--ring-size", "64MiB"]);
    assert_eq!(listens_on(agent.pid()), [] as [&str; 0]);
    agent.stop().expect_nothing_lost();
}

#[test]
fn a_port_that_was_asked_for_serves_them_and_nothing_else() {
    skip_without_kernel!();
    // Free at this moment; another takes it in the next one with little likelihood.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = Agent::configured(
        &format!("metrics: {{listen: \"{address}\"}}\nkinds: [process.exec]\n"),
        &["--ring-size", "64MiB"],
    );
    assert_eq!(listens_on(agent.pid()), [format!("0100007F:{:04X}", address.port())]);

    let by_tcp = samples(&over_tcp(address, &get("/metrics")));
    let by_socket = samples(&over_socket(agent.instance(), "/metrics"));
    // There may be one more by now, for a reason that was none before.
    assert!(by_tcp.keys().all(|series| by_socket.contains_key(series)), "{by_tcp:#?} {by_socket:#?}");

    let call = "/nightjar.agent.v1.Agent/GetStatus";
    for path in ["/", "/metrics/", "/status", call, "/nightjar.agent.v1.Agent/Tail"] {
        let answer = over_tcp(address, &get(path));
        assert_eq!((answer.code, answer.body.as_str()), (404, ""), "{path}");
    }
    let post = format!(
        "POST {call} HTTP/1.1\r\nHost: nightjar\r\nContent-Type: application/grpc\r\nContent-Length: 5\r\n\
         Connection: close\r\n\r\n\0\0\0\0\0"
    );
    assert_eq!(over_tcp(address, &post).code, 404);
    let post = "POST /metrics HTTP/1.1\r\nHost: nightjar\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(over_tcp(address, post).code, 405);
    agent.stop().expect_nothing_lost();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn who_says_nothing_sensible_does_no_harm() {
    skip_without_kernel!();
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let agent = Agent::configured(
        &format!("metrics: {{listen: \"{address}\"}}\nkinds: [process.exec]\n"),
        &["--ring-size", "64MiB"],
    );
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut garbage = TcpStream::connect(address).unwrap();
    garbage.set_read_timeout(Some(PATIENCE)).unwrap();
    garbage.write_all(&[0xFF; 4096]).unwrap();
    // Refused, or just closed.
    let _closed = garbage.read_to_end(&mut Vec::new());
    let mut endless = TcpStream::connect(address).unwrap();
    endless.set_write_timeout(Some(PATIENCE)).unwrap();
    endless.write_all(b"GET /metrics HTTP/1.1\r\nX: ").unwrap();
    let closed = loop {
        if let Err(error) = endless.write_all(&[b'x'; 4096]) {
            break error;
        }
    };
    assert_ne!(closed.kind(), ErrorKind::WouldBlock, "neither read nor closed");

    assert!(!samples(&over_tcp(address, &get("/metrics"))).is_empty());
    drop(silent);
    agent.catch_up();
    agent.stop().expect_nothing_lost();
}
