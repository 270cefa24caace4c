//! A status to show.

use nightjar_proto::v1::{
    Configuration, Delivery, Drops, Flow, HookCounts, Identity, KindCount, Lag, Loss, Losses, OutputStatus,
    RefusedHook, Resources, Sensor, Status, TableStatus, TailReader,
};
use prost_types::Timestamp;

/// A status with every field set.
///
/// No `..Default::default()`: a field that is added to the schema is to be added here.
pub fn complete() -> Status {
    Status {
        version: "0.1.0".into(),
        instance: "main".into(),
        pid: 912,
        host: "db1.example.org".into(),
        started: Some(at(0)),
        taken: Some(at(86_400)),
        configuration: Some(Configuration {
            files: strings(&["/etc/nightjar/nightjar.yaml", "/etc/nightjar/conf.d/10-outputs.yaml"]),
            loaded: Some(at(3_600)),
            reloads: 1,
            refused: "kinds: no kind of event is called \"process.exce\"".into(),
            pending: strings(&["kernel.ring_size"]),
            backend_version: "3-5f1c0de".into(),
        }),
        sensors: vec![Sensor {
            name: "process.credentials".into(),
            hook: "passing".into(),
            worth: "at the task's next exec or exit, without the call".into(),
            refused: vec![RefusedHook { hook: "tracepoint".into(), reason: "tracefs is not there".into() }],
        }],
        hooks: vec![HookCounts {
            hook: "exec".into(),
            seen: 1_070,
            filtered: 40,
            aggregated: 13,
            submitted: 1_000,
            dropped: drops("ring_full", 17),
        }],
        identities: vec![Identity {
            sum: "seen = filtered + aggregated + submitted + dropped".into(),
            of: "exec".into(),
            left: 1_070,
            right: 1_069,
            holds: true,
            under_way: 2,
        }],
        flow: Some(Flow {
            received: 1_000,
            exported: vec![KindCount { kind: "process.exec".into(), count: 990 }],
            discarded: drops("not_asked_for", 9),
            refused: drops("undecodable", 1),
            received_rate_milli: 11_500,
            exported_rate_milli: 11_400,
        }),
        outputs: vec![OutputStatus {
            name: "json".into(),
            target: "/var/log/nightjar/events.json".into(),
            events: 985,
            bytes: 2_955_000,
            lost: 5,
            failing: "no space left on device".into(),
            failing_since: Some(at(86_000)),
            kept_files: 4,
            lost_by_reason: drops("write_failed", 5),
        }],
        tail_readers: vec![TailReader {
            pid: 4_242,
            uid: 1000,
            since: Some(at(86_100)),
            sent: 50,
            missed: 3,
        }],
        tables: vec![TableStatus {
            name: "processes".into(),
            entries: 211,
            bound: 16_384,
            bytes: 180_000,
            bytes_bound: 14_680_064,
            evicted: 2,
        }],
        lag: Some(Lag { mean_ns: 900_000, max_ns: 11_000_000 }),
        losses: Some(Losses {
            total: 23,
            first: Some(at(7_200)),
            last: Some(at(86_200)),
            losses: vec![Loss {
                hook: "exec".into(),
                reason: "ring_full".into(),
                count: 17,
                kinds: strings(&["process.exec"]),
            }],
        }),
        resources: Some(Resources {
            resident_bytes: 31_457_280,
            cpu_ns: 120_000_000_000,
            ring_bytes: 8_388_608,
            capabilities: strings(&["bpf", "perfmon"]),
        }),
        delivery: Some(delivery()),
    }
}

/// Of an agent whose backend is away and whose spool is full.
fn delivery() -> Delivery {
    Delivery {
        backend: "https://backend.example.org:4317".into(),
        agent_id: "7d1c0e5b92a44f63b8e0a1d2c3f45566".into(),
        state: "waiting".into(),
        since: Some(at(86_100)),
        error: "connection refused".into(),
        events: 990,
        acknowledged: 900,
        waiting: 83,
        oldest: Some(at(86_050)),
        lost: drops("spool_full", 7),
        spool_bytes: 20_480,
        spool_bytes_bound: 268_435_456,
        spool_error: "no space left on device".into(),
        round_trip_ns: 1_200_000,
        sent_bytes: 46_000,
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.into()).collect()
}

fn drops(reason: &str, count: u64) -> Vec<Drops> {
    vec![Drops { reason: reason.into(), count }]
}

/// So many seconds after the start.
fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds: 1_787_220_000 + seconds, nanos: 0 }
}
