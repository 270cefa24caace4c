//! The status of the agent as metrics, in the text format of
//! [OpenMetrics 1.0](https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md).
//!
//! `METRICS` has a row for each; the text and its documentation are made of the same rows. A status is a
//! picture of one moment, so nothing is kept between two calls. Series that can be known are there from the
//! start, with 0: a rate over a series that first appears with its first loss would not see that loss.

use std::fmt::{self, Write as _};

use nightjar_proto::{
    KINDS,
    v1::{Delivery, Drops, HookCounts, OutputStatus, Status, TableStatus},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, text},
    metrics::MetricType,
    registry::{Registry, Unit},
};

/// What all names begin with.
const PREFIX: &str = "nightjar";

/// For what reasons kernel programs drop records; see `telemetry.loss`.
const DROPPED: [&str; 5] = ["ring_full", "too_big", "read_fault", "map_full", "nested"];

/// For what reasons an output loses events.
const NOT_WRITTEN: [&str; 5] = ["disk_full", "quota", "file_too_big", "io_error", "gone"];

/// For what reasons events never get to the backend.
const NOT_DELIVERED: [&str; 7] =
    ["spool_full", "disk_full", "unwritable", "damaged", "missing", "refused", "queue_full"];

/// The text that a scrape gets; ends with `# EOF`.
#[must_use]
pub fn openmetrics(status: &Status) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    registry.register_collector(Box::new(Taken(status.clone())));
    let mut page = String::new();
    // Only what is written to can fail, and a String does not.
    let _infallible = text::encode(&mut page, &registry);
    page
}

/// The metrics as a table of Markdown, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut table = "| name | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _infallible = writeln!(
            table,
            "| `{}` | {} | {} | {} |",
            metric.series_name(),
            metric.kind.word(),
            labels.join(", "),
            metric.help
        );
    }
    table
}

/// One metric.
struct Metric {
    /// Without [`PREFIX`], the unit and `_total`.
    name: &'static str,
    kind: Kind,
    unit: Option<Unit>,
    labels: &'static [&'static str],
    help: &'static str,
    series: fn(&Status) -> Vec<Series>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    /// Labels are all that it says; its value is 1.
    Info,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Info => "info",
        }
    }
}

impl Metric {
    /// As a query names it.
    fn series_name(&self) -> String {
        let mut name = format!("{PREFIX}_{}", self.name);
        if let Some(unit) = &self.unit {
            let _infallible = write!(name, "_{}", unit.as_str());
        }
        name + match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        }
    }
}

/// A value, with one text for each label of its metric.
struct Series(Vec<String>, Value);

#[derive(Clone, Copy)]
enum Value {
    Number(u64),
    Real(f64),
}

/// Every metric that there is.
const METRICS: &[Metric] = &[
    Metric {
        name: "build",
        kind: Kind::Info,
        unit: None,
        labels: &["version", "instance"],
        help: "Version of the agent, and the name that tells agents on one host apart.",
        series: |status| {
            vec![Series(vec![status.version.clone(), status.instance.clone()], Value::Number(1))]
        },
    },
    Metric {
        name: "start_time",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the agent started, since 1970.",
        series: |status| time(status.started.as_ref()),
    },
    Metric {
        name: "hook_seen",
        kind: Kind::Counter,
        unit: None,
        labels: &["hook"],
        help: "Times that a hook was reached. It is the sum of filtered, aggregated, submitted and dropped.",
        series: |status| hooks(status, |hook| hook.seen),
    },
    Metric {
        name: "hook_filtered",
        kind: Kind::Counter,
        unit: None,
        labels: &["hook"],
        help: "Calls that are no event, by design or by a configured filter.",
        series: |status| hooks(status, |hook| hook.filtered),
    },
    Metric {
        name: "hook_aggregated",
        kind: Kind::Counter,
        unit: None,
        labels: &["hook"],
        help: "Calls that were folded into an earlier event.",
        series: |status| hooks(status, |hook| hook.aggregated),
    },
    Metric {
        name: "hook_submitted",
        kind: Kind::Counter,
        unit: None,
        labels: &["hook"],
        help: "Calls of which a record was handed to the agent.",
        series: |status| hooks(status, |hook| hook.submitted),
    },
    Metric {
        name: "hook_dropped",
        kind: Kind::Counter,
        unit: None,
        labels: &["hook", "reason"],
        help: "Calls of which the record was lost in the kernel.",
        series: |status| {
            let hooks = status.hooks.iter();
            hooks.flat_map(|hook| by_reason(&[&hook.hook], &hook.dropped, &DROPPED)).collect()
        },
    },
    Metric {
        name: "records_received",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Records that the agent read. It is the sum of events exported, records discarded and records refused.",
        series: |status| one(status.flow.as_ref().map(|flow| flow.received)),
    },
    Metric {
        name: "events_exported",
        kind: Kind::Counter,
        unit: None,
        labels: &["kind"],
        help: "Events that were handed to the outputs.",
        series: |status| {
            let exported = status.flow.iter().flat_map(|flow| &flow.exported);
            let exported = exported.map(|kind| (kind.kind.as_str(), kind.count));
            let others = KINDS.iter().map(|kind| (kind.name, 0));
            exported
                .chain(others)
                .map(|(kind, count)| Series(vec![kind.to_owned()], Value::Number(count)))
                .collect()
        },
    },
    Metric {
        name: "records_discarded",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Records that were left out on purpose.",
        series: |status| status.flow.iter().flat_map(|flow| by_reason(&[], &flow.discarded, &[])).collect(),
    },
    Metric {
        name: "records_refused",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Records that could not be made to events. They are lost.",
        series: |status| {
            status.flow.iter().flat_map(|flow| by_reason(&[], &flow.refused, &["undecodable"])).collect()
        },
    },
    Metric {
        name: "events_lost",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Records and events that were lost anywhere: what telemetry.loss events tell of.",
        series: |status| one(Some(status.losses.as_ref().map_or(0, |losses| losses.total))),
    },
    Metric {
        name: "lag",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &["stat"],
        help: "Time from the kernel's time stamp to the hand-over to all outputs, over the last ten seconds: mean and max.",
        series: |status| {
            let stats = status.lag.iter().flat_map(|lag| [("mean", lag.mean_ns), ("max", lag.max_ns)]);
            stats.map(|(stat, ns)| Series(vec![stat.to_owned()], seconds(ns))).collect()
        },
    },
    Metric {
        name: "output_events",
        kind: Kind::Counter,
        unit: None,
        labels: &["output", "target"],
        help: "Events that were written.",
        series: |status| outputs(status, |output| output.events),
    },
    Metric {
        name: "output",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &["output", "target"],
        help: "Bytes that were written.",
        series: |status| outputs(status, |output| output.bytes),
    },
    Metric {
        name: "output_lost",
        kind: Kind::Counter,
        unit: None,
        labels: &["output", "target", "reason"],
        help: "Events that could not be written. They are lost.",
        series: |status| status.outputs.iter().flat_map(output_lost).collect(),
    },
    Metric {
        name: "output_failing",
        kind: Kind::Gauge,
        unit: None,
        labels: &["output", "target"],
        help: "1 while events cannot be written, else 0.",
        series: |status| outputs(status, |output| u64::from(!output.failing.is_empty())),
    },
    Metric {
        name: "output_kept_files",
        kind: Kind::Gauge,
        unit: None,
        labels: &["output", "target"],
        help: "Files that are kept beside the current one.",
        series: |status| outputs(status, |output| u64::from(output.kept_files)),
    },
    Metric {
        name: "delivery_events",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Events that were to be delivered to the backend.",
        series: |status| delivery(status, |delivery| delivery.events),
    },
    Metric {
        name: "delivery_acknowledged",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Events that the backend has, durably; those of before the start of the agent count too.",
        series: |status| delivery(status, |delivery| delivery.acknowledged),
    },
    Metric {
        name: "delivery_waiting",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Events that the backend does not have yet.",
        series: |status| delivery(status, |delivery| delivery.waiting),
    },
    Metric {
        name: "delivery_lost",
        kind: Kind::Counter,
        unit: None,
        labels: &["reason"],
        help: "Events that the backend will never have. It is told.",
        series: |status| {
            let delivery = status.delivery.iter();
            delivery.flat_map(|delivery| by_reason(&[], &delivery.lost, &NOT_DELIVERED)).collect()
        },
    },
    Metric {
        name: "delivery_connected",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "1 while there is a connection to the backend, else 0.",
        series: |status| delivery(status, |delivery| u64::from(delivery.state == "connected")),
    },
    Metric {
        name: "delivery_spool",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Disk space that the spool takes.",
        series: |status| delivery(status, |delivery| delivery.spool_bytes),
    },
    Metric {
        name: "delivery_spool_bound",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Disk space that the spool may take.",
        series: |status| delivery(status, |delivery| delivery.spool_bytes_bound),
    },
    Metric {
        name: "delivery_sent",
        kind: Kind::Counter,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Compressed bytes of events that were sent to the backend.",
        series: |status| delivery(status, |delivery| delivery.sent_bytes),
    },
    Metric {
        name: "sensor_served",
        kind: Kind::Gauge,
        unit: None,
        labels: &["sensor", "hook"],
        help: "1 if a hook serves the sensor, 0 if none does: then there are no such events.",
        series: |status| {
            let sensors = status.sensors.iter().map(|sensor| {
                let served = Value::Number((!sensor.hook.is_empty()).into());
                Series(vec![sensor.name.clone(), sensor.hook.clone()], served)
            });
            sensors.collect()
        },
    },
    Metric {
        name: "identity_holds",
        kind: Kind::Gauge,
        unit: None,
        labels: &["sum", "of"],
        help: "1 if the sum holds, 0 if it does not: then not all losses are known.",
        series: |status| {
            let identities = status.identities.iter();
            let row = |sum: &String, of: &String, holds: bool| {
                Series(vec![sum.clone(), of.clone()], Value::Number(holds.into()))
            };
            identities.map(|identity| row(&identity.sum, &identity.of, identity.holds)).collect()
        },
    },
    Metric {
        name: "table_entries",
        kind: Kind::Gauge,
        unit: None,
        labels: &["table"],
        help: "Entries of a table.",
        series: |status| tables(status, |table| Some(table.entries)),
    },
    Metric {
        name: "table_bound",
        kind: Kind::Gauge,
        unit: None,
        labels: &["table"],
        help: "Most entries that a table may have.",
        series: |status| tables(status, |table| (table.bound > 0).then_some(table.bound)),
    },
    Metric {
        name: "table",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &["table"],
        help: "Memory that the entries of a table take.",
        series: |status| {
            tables(status, |table| (table.bytes > 0 || table.bytes_bound > 0).then_some(table.bytes))
        },
    },
    Metric {
        name: "table_bound",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &["table"],
        help: "Most memory that the entries of a table may take.",
        series: |status| tables(status, |table| (table.bytes_bound > 0).then_some(table.bytes_bound)),
    },
    Metric {
        name: "table_evicted",
        kind: Kind::Counter,
        unit: None,
        labels: &["table"],
        help: "Entries that had to go because a table was full. Later events may say less for it.",
        series: |status| tables(status, |table| Some(table.evicted)),
    },
    Metric {
        name: "tail_readers",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "How many watch by the socket.",
        series: |status| one(u64::try_from(status.tail_readers.len()).ok()),
    },
    Metric {
        name: "tail_readers_missed",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "Events that those who watch now were not sent because they read too slowly. Other outputs have them.",
        series: |status| {
            one(Some(status.tail_readers.iter().map(|reader| reader.missed).fold(0, u64::saturating_add)))
        },
    },
    Metric {
        name: "resident",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Memory of the agent that is resident.",
        series: |status| one(status.resources.as_ref().map(|resources| resources.resident_bytes)),
    },
    Metric {
        name: "cpu",
        kind: Kind::Counter,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "Time of the agent on a processor, that of its kernel programs not included.",
        series: |status| {
            let cpu = status.resources.iter().map(|resources| seconds(resources.cpu_ns));
            cpu.map(|cpu| Series(Vec::new(), cpu)).collect()
        },
    },
    Metric {
        name: "ring",
        kind: Kind::Gauge,
        unit: Some(Unit::Bytes),
        labels: &[],
        help: "Buffers between the kernel programs and the agent.",
        series: |status| one(status.resources.as_ref().map(|resources| resources.ring_bytes)),
    },
    Metric {
        name: "config_loaded_timestamp",
        kind: Kind::Gauge,
        unit: Some(Unit::Seconds),
        labels: &[],
        help: "When the configuration in force was loaded, since 1970.",
        series: |status| {
            time(status.configuration.as_ref().and_then(|configuration| configuration.loaded.as_ref()))
        },
    },
    Metric {
        name: "config_reloads",
        kind: Kind::Counter,
        unit: None,
        labels: &[],
        help: "Times that the configuration was loaded again.",
        series: |status| one(status.configuration.as_ref().map(|configuration| configuration.reloads.into())),
    },
    Metric {
        name: "config_refused",
        kind: Kind::Gauge,
        unit: None,
        labels: &[],
        help: "1 if the last attempt to load the configuration again was refused, else 0.",
        series: |status| {
            one(status.configuration.as_ref().map(|configuration| (!configuration.refused.is_empty()).into()))
        },
    },
];

// === Series of a status ===

fn one(value: Option<u64>) -> Vec<Series> {
    value.map(|value| Series(Vec::new(), Value::Number(value))).into_iter().collect()
}

fn hooks(status: &Status, of: fn(&HookCounts) -> u64) -> Vec<Series> {
    status.hooks.iter().map(|hook| Series(vec![hook.hook.clone()], Value::Number(of(hook)))).collect()
}

/// One series where events are delivered, else none.
fn delivery(status: &Status, value: fn(&Delivery) -> u64) -> Vec<Series> {
    one(status.delivery.as_ref().map(value))
}

fn outputs(status: &Status, of: fn(&OutputStatus) -> u64) -> Vec<Series> {
    let outputs = status.outputs.iter();
    let labels = |output: &OutputStatus| vec![output.name.clone(), output.target.clone()];
    outputs.map(|output| Series(labels(output), Value::Number(of(output)))).collect()
}

fn tables(status: &Status, of: fn(&TableStatus) -> Option<u64>) -> Vec<Series> {
    let tables = status.tables.iter();
    tables.filter_map(|table| Some(Series(vec![table.name.clone()], Value::Number(of(table)?)))).collect()
}

/// By reason; what is lost for none that is told is `unknown`, so that the sum is always that of the output.
fn output_lost(output: &OutputStatus) -> Vec<Series> {
    let told = output.lost_by_reason.iter().map(|drops| drops.count).fold(0, u64::saturating_add);
    let mut drops = output.lost_by_reason.clone();
    if output.lost > told {
        drops.push(Drops { reason: "unknown".to_owned(), count: output.lost - told });
    }
    by_reason(&[&output.name, &output.target], &drops, &NOT_WRITTEN)
}

/// A series for each reason that there is, and one with 0 for each that there can be.
fn by_reason(labels: &[&str], drops: &[Drops], possible: &[&str]) -> Vec<Series> {
    let raised = drops.iter().map(|drops| (drops.reason.as_str(), drops.count));
    let absent = possible.iter().filter(|reason| drops.iter().all(|drops| drops.reason != **reason));
    raised
        .chain(absent.map(|reason| (*reason, 0)))
        .map(|(reason, count)| {
            let labels = labels.iter().copied().chain([reason]).map(str::to_owned).collect();
            Series(labels, Value::Number(count))
        })
        .collect()
}

fn time(time: Option<&prost_types::Timestamp>) -> Vec<Series> {
    #[expect(clippy::cast_precision_loss, reason = "exact to the microsecond for centuries to come")]
    let real = |time: &prost_types::Timestamp| time.seconds as f64 + f64::from(time.nanos) / 1e9;
    time.map(|time| Series(Vec::new(), Value::Real(real(time)))).into_iter().collect()
}

#[expect(clippy::cast_precision_loss, reason = "exact to 2^53 ns, which is a hundred days on a processor")]
fn seconds(nanoseconds: u64) -> Value {
    Value::Real(nanoseconds as f64 / 1e9)
}

// === Writing ===

#[derive(Debug)]
struct Taken(Status);

impl Collector for Taken {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in METRICS {
            let series = distinct((metric.series)(&self.0));
            if series.is_empty() {
                continue;
            }
            let kind = match metric.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
            };
            let mut family =
                encoder.encode_descriptor(metric.name, metric.help, metric.unit.as_ref(), kind)?;
            for Series(values, value) in &series {
                let labels: Vec<(&str, &str)> =
                    metric.labels.iter().copied().zip(values.iter().map(String::as_str)).collect();
                if metric.kind == Kind::Info {
                    family.encode_info(&labels)?;
                } else if labels.is_empty() {
                    // An empty set of labels would be written as `{}`.
                    write(metric.kind, *value, &mut family)?;
                } else {
                    write(metric.kind, *value, &mut family.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }
}

/// The first series of each set of labels: two of the same would make the whole page invalid.
fn distinct(series: Vec<Series>) -> Vec<Series> {
    let mut kept: Vec<Series> = Vec::with_capacity(series.len());
    for one in series {
        if kept.iter().all(|other| other.0 != one.0) {
            kept.push(one);
        }
    }
    kept
}

fn write(kind: Kind, value: Value, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Number(number)) => {
            encoder.encode_counter::<[(&str, &str); 0], _, f64>(&number, None)
        }
        (Kind::Counter, Value::Real(real)) => {
            encoder.encode_counter::<[(&str, &str); 0], _, f64>(&real, None)
        }
        (Kind::Gauge | Kind::Info, Value::Number(number)) => encoder.encode_gauge(&number),
        (Kind::Gauge | Kind::Info, Value::Real(real)) => encoder.encode_gauge(&real),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use nightjar_proto::v1::{
        Configuration, Flow, Identity, KindCount, Lag, Losses, Resources, Sensor, TailReader,
    };
    use prost_types::Timestamp;

    use super::*;

    fn drops(reason: &str, count: u64) -> Vec<Drops> {
        vec![Drops { reason: reason.to_owned(), count }]
    }

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            instance: "default".to_owned(),
            started: Some(Timestamp { seconds: 1_787_220_000, nanos: 500_000_000 }),
            configuration: Some(Configuration {
                loaded: Some(Timestamp { seconds: 1_787_220_100, nanos: 0 }),
                reloads: 2,
                refused: "no".to_owned(),
                ..Configuration::default()
            }),
            sensors: vec![
                Sensor { name: "process.exec".to_owned(), hook: "tp_btf".to_owned(), ..Sensor::default() },
                Sensor { name: "process.fork".to_owned(), ..Sensor::default() },
            ],
            hooks: vec![
                HookCounts {
                    hook: "exec".to_owned(),
                    seen: 1_070,
                    filtered: 40,
                    aggregated: 13,
                    submitted: 1_000,
                    dropped: drops("ring_full", 17),
                },
                HookCounts { hook: "exit".to_owned(), ..HookCounts::default() },
            ],
            identities: vec![Identity {
                sum: "a = \"b\"".to_owned(),
                of: "exec".to_owned(),
                ..Identity::default()
            }],
            flow: Some(Flow {
                received: 1_000,
                exported: vec![
                    KindCount { kind: "process.exec".to_owned(), count: 990 },
                    KindCount { kind: "process.unknown".to_owned(), count: 1 },
                ],
                discarded: drops("rule", 8),
                refused: drops("undecodable", 1),
                ..Flow::default()
            }),
            delivery: Some(Delivery { events: 3, state: "connected".to_owned(), ..Delivery::default() }),
            outputs: vec![OutputStatus {
                name: "json".to_owned(),
                target: "/var/log/\\x\n.json".to_owned(),
                events: 985,
                bytes: 2_955_000,
                lost: 7,
                failing: "no space left on device".to_owned(),
                lost_by_reason: drops("disk_full", 5),
                ..OutputStatus::default()
            }],
            tail_readers: vec![
                TailReader { missed: 3, ..TailReader::default() },
                TailReader { missed: 4, ..TailReader::default() },
            ],
            tables: vec![
                TableStatus {
                    name: "processes".to_owned(),
                    entries: 211,
                    bound: 16_384,
                    bytes: 180_000,
                    bytes_bound: 14_680_064,
                    evicted: 2,
                },
                TableStatus { name: "cgroups".to_owned(), entries: 5, bound: 10, ..TableStatus::default() },
            ],
            lag: Some(Lag { mean_ns: 900_000, max_ns: 11_000_000 }),
            losses: Some(Losses { total: 25, ..Losses::default() }),
            resources: Some(Resources {
                resident_bytes: 31_457_280,
                cpu_ns: 120_500_000_000,
                ring_bytes: 8_388_608,
                ..Resources::default()
            }),
            ..Status::default()
        }
    }

    /// What a reader of the text makes of it: series and their values. Panics where the text is not valid.
    fn read(page: &str) -> BTreeMap<String, f64> {
        let lines: Vec<&str> = page.lines().collect();
        assert_eq!(lines.last(), Some(&"# EOF"));
        assert!(page.ends_with("# EOF\n"));
        let mut series = BTreeMap::new();
        let (mut families, mut family, mut kind, mut helped) = (BTreeSet::new(), "", "", "");
        for line in &lines[..lines.len() - 1] {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                assert!(help.ends_with('.') && !help.contains(['"', '\\', '|']), "{line}");
                assert!(families.insert(name), "{name} comes twice");
                helped = name;
            } else if let Some(declared) = line.strip_prefix("# TYPE ") {
                (family, kind) = declared.split_once(' ').unwrap();
                assert_eq!(family, helped);
            } else if let Some(unit) = line.strip_prefix("# UNIT ") {
                let (name, unit) = unit.split_once(' ').unwrap();
                assert_eq!(name, family);
                assert!(name.ends_with(&format!("_{unit}")), "{line}");
            } else {
                let (labels, value) = line.rsplit_once(' ').unwrap();
                let name = labels.split('{').next().unwrap();
                assert!(name.starts_with("nightjar_"), "{line}");
                let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
                assert_eq!(
                    suffix,
                    match kind {
                        "counter" => "_total",
                        "info" => "_info",
                        _ => "",
                    },
                    "{line}"
                );
                if let Some(labels) = labels.split_once('{') {
                    assert!(labels.1.len() > 1 && labels.1.ends_with("\"}"), "{line}");
                }
                let value: f64 = value.parse().unwrap();
                assert!(value >= 0.0, "{line}");
                assert!(series.insert(labels.to_owned(), value).is_none(), "{line} comes twice");
            }
        }
        series
    }

    #[track_caller]
    fn has(page: &str, series: &str, value: f64) {
        let all = read(page);
        let found = all.get(series).unwrap_or_else(|| panic!("no {series} in {page}"));
        assert!((found - value).abs() < 1e-9, "{series} is {found}");
    }

    #[test]
    fn every_family_is_valid_and_described() {
        let page = openmetrics(&status());
        let series = read(&page);
        assert!(series.len() > 60, "{}", series.len());
        for metric in METRICS {
            let name = metric.series_name();
            assert!(series.keys().any(|key| key.split('{').next() == Some(&name)), "{name}");
        }
    }

    #[test]
    fn numbers_of_the_status_are_there_in_base_units() {
        let page = openmetrics(&status());
        for (series, value) in [
            ("nightjar_build_info{version=\"0.1.0\",instance=\"default\"}", 1.0),
            ("nightjar_start_time_seconds", 1_787_220_000.5),
            ("nightjar_hook_seen_total{hook=\"exec\"}", 1_070.0),
            ("nightjar_hook_dropped_total{hook=\"exec\",reason=\"ring_full\"}", 17.0),
            ("nightjar_records_received_total", 1_000.0),
            ("nightjar_events_exported_total{kind=\"process.exec\"}", 990.0),
            ("nightjar_records_discarded_total{reason=\"rule\"}", 8.0),
            ("nightjar_records_refused_total{reason=\"undecodable\"}", 1.0),
            ("nightjar_events_lost_total", 25.0),
            ("nightjar_lag_seconds{stat=\"mean\"}", 0.0009),
            ("nightjar_lag_seconds{stat=\"max\"}", 0.011),
            ("nightjar_sensor_served{sensor=\"process.fork\",hook=\"\"}", 0.0),
            ("nightjar_sensor_served{sensor=\"process.exec\",hook=\"tp_btf\"}", 1.0),
            ("nightjar_table_entries{table=\"processes\"}", 211.0),
            ("nightjar_table_bound{table=\"processes\"}", 16_384.0),
            ("nightjar_table_bytes{table=\"processes\"}", 180_000.0),
            ("nightjar_table_bound_bytes{table=\"processes\"}", 14_680_064.0),
            ("nightjar_table_evicted_total{table=\"cgroups\"}", 0.0),
            ("nightjar_tail_readers", 2.0),
            ("nightjar_tail_readers_missed", 7.0),
            ("nightjar_resident_bytes", 31_457_280.0),
            ("nightjar_cpu_seconds_total", 120.5),
            ("nightjar_ring_bytes", 8_388_608.0),
            ("nightjar_config_loaded_timestamp_seconds", 1_787_220_100.0),
            ("nightjar_config_refused", 1.0),
        ] {
            has(&page, series, value);
        }
        assert!(!page.contains("nightjar_table_bytes{table=\"cgroups\"}"), "it does not count its bytes");
    }

    #[test]
    fn what_became_of_the_calls_of_a_hook_adds_up_to_those_seen() {
        let series = read(&openmetrics(&status()));
        let sum = |name: &str| -> f64 {
            let of = |key: &&String| key.starts_with(&format!("nightjar_hook_{name}_total{{hook=\"exec\""));
            series.keys().filter(of).map(|key| series[key]).sum()
        };
        let parts: f64 = ["filtered", "aggregated", "submitted", "dropped"].map(sum).iter().sum();
        assert!((sum("seen") - parts).abs() < 1e-9);
    }

    #[test]
    fn counters_that_were_never_raised_are_there_with_0() {
        let page = openmetrics(&status());
        for reason in DROPPED {
            has(&page, &format!("nightjar_hook_dropped_total{{hook=\"exit\",reason=\"{reason}\"}}"), 0.0);
        }
        for kind in KINDS.iter().filter(|kind| kind.name != "process.exec") {
            has(&page, &format!("nightjar_events_exported_total{{kind=\"{}\"}}", kind.name), 0.0);
        }
        let mut quiet = status();
        quiet.losses = None;
        quiet.flow.as_mut().unwrap().refused.clear();
        let page = openmetrics(&quiet);
        has(&page, "nightjar_events_lost_total", 0.0);
        has(&page, "nightjar_records_refused_total{reason=\"undecodable\"}", 0.0);
        assert!(page.contains("reason=\"quota\"} 0\n"));
    }

    #[test]
    fn what_an_output_lost_is_told_by_reason_and_adds_up() {
        let page = openmetrics(&status());
        let target = r"/var/log/\\x\n.json";
        for (reason, value) in [("disk_full", 5.0), ("unknown", 2.0), ("gone", 0.0)] {
            let labels = format!("output=\"json\",target=\"{target}\",reason=\"{reason}\"");
            has(&page, &format!("nightjar_output_lost_total{{{labels}}}"), value);
        }
        has(&page, &format!("nightjar_output_failing{{output=\"json\",target=\"{target}\"}}"), 1.0);
        has(
            &page,
            &format!("nightjar_output_bytes_total{{output=\"json\",target=\"{target}\"}}"),
            2_955_000.0,
        );
    }

    #[test]
    fn text_from_outside_cannot_make_a_line_or_a_label() {
        let page = openmetrics(&status());
        has(&page, r#"nightjar_identity_holds{sum="a = \"b\"",of="exec"}"#, 0.0);
        let mut plain = status();
        plain.outputs[0].target = "x".to_owned();
        assert_eq!(page.lines().count(), openmetrics(&plain).lines().count());
    }

    #[test]
    fn two_rows_of_the_same_name_do_not_make_the_page_invalid() {
        let mut status = status();
        status.hooks.push(status.hooks[0].clone());
        status.outputs.push(status.outputs[0].clone());
        status.tables.push(status.tables[0].clone());
        status.outputs[0].lost_by_reason.extend(drops("disk_full", 1));
        assert!(read(&openmetrics(&status)).len() > 60);
    }

    #[test]
    fn an_empty_status_and_one_of_extremes_are_valid() {
        assert!(!read(&openmetrics(&Status::default())).is_empty());
        let mut extreme = status();
        extreme.started = Some(Timestamp { seconds: i64::MAX, nanos: i32::MAX });
        extreme.resources.as_mut().unwrap().cpu_ns = u64::MAX;
        extreme.tail_readers[0].missed = u64::MAX;
        extreme.outputs[0].lost_by_reason = [drops("a", u64::MAX), drops("b", u64::MAX)].concat();
        read(&openmetrics(&extreme));
    }

    #[test]
    fn the_documentation_has_a_row_for_each_metric() {
        let table = markdown();
        assert_eq!(table.lines().count(), METRICS.len() + 2);
        assert!(table.lines().all(|line| line.matches('|').count() == 5), "{table}");
        let row = "| `nightjar_hook_dropped_total` | counter | `hook`, `reason` | Calls of which the record was lost \
                   in the kernel. |";
        assert!(table.lines().any(|line| line == row), "{table}");
    }
}
