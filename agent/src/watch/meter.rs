//! How the agent is doing, in numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use nightjar_abi::hook::{DropReason, Hook};
use nightjar_proto::v1;

use super::drain::Outputs;
use crate::{deliver::Delivery, kernel::Sample, pipeline::Pipeline, process::Bounds};

/// Seconds that rates and lags are told of.
const WINDOW: usize = 10;
/// Calls of a hook that a CPU can be in the middle of.
const UNDER_WAY: u64 = 4;

/// One second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    lag_sum: u128,
    lag_count: u64,
    lag_max: u64,
    /// In all, at its end.
    received: u64,
    exported: u64,
}

/// Keeps what rates, lags and losses are told from.
pub(super) struct Meter {
    /// Which sensors are served, and how.
    pub(super) sensors: Vec<v1::Sensor>,
    bounds: Bounds,
    cpus: u64,
    /// The current second last.
    seconds: VecDeque<Second>,
    /// Records taken since the last flush: number, sum and least of their times.
    taken: (u64, u128, u64),
    losses: BTreeMap<(String, String), v1::Loss>,
    first_loss: Option<SystemTime>,
    last_loss: Option<SystemTime>,
}

/// What there is to look at.
pub(super) struct View<'a> {
    /// Counters before the ring was drained for this.
    pub(super) before: Sample,
    /// Counters after that.
    pub(super) after: Sample,
    /// Whether it was drained to its end.
    pub(super) emptied: bool,
    pub(super) pipeline: &'a Pipeline,
    pub(super) outputs: &'a Outputs,
    pub(super) ring_bytes: u64,
}

impl Meter {
    pub(super) fn new(sensors: Vec<v1::Sensor>, bounds: Bounds) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        Self {
            sensors,
            bounds,
            cpus,
            seconds: VecDeque::from([Second::default()]),
            taken: (0, 0, u64::MAX),
            losses: BTreeMap::new(),
            first_loss: None,
            last_loss: None,
        }
    }

    /// A record was taken that was made then (nanoseconds since boot).
    pub(super) fn taken(&mut self, made: Option<u64>) {
        let Some(made) = made else { return };
        let (count, sum, least) = &mut self.taken;
        *count += 1;
        *sum += u128::from(made);
        *least = made.min(*least);
    }

    /// All that was taken was handed to the outputs by `now` (nanoseconds since boot).
    pub(super) fn flushed(&mut self, now: u64) {
        let (count, sum, least) = std::mem::replace(&mut self.taken, (0, 0, u64::MAX));
        if count == 0 {
            return;
        }
        let second = self.seconds.back_mut().expect("there is always a current second");
        second.lag_count += count;
        second.lag_sum += (u128::from(now) * u128::from(count)).saturating_sub(sum);
        second.lag_max = second.lag_max.max(now.saturating_sub(least));
    }

    /// A second is over.
    pub(super) fn tick(&mut self, received: u64, exported: u64) {
        let second = self.seconds.back_mut().expect("there is always a current second");
        (second.received, second.exported) = (received, exported);
        if self.seconds.len() > WINDOW {
            self.seconds.pop_front();
        }
        self.seconds.push_back(Second::default());
    }

    /// Something was lost.
    pub(super) fn lost(&mut self, telemetry: &v1::Telemetry) {
        let now = SystemTime::now();
        self.first_loss.get_or_insert(now);
        self.last_loss = Some(now);
        for loss in &telemetry.losses {
            let key = (loss.hook.clone(), loss.reason.clone());
            let sum = self.losses.entry(key).or_insert_with(|| v1::Loss { count: 0, ..loss.clone() });
            sum.count += loss.count;
        }
    }

    /// All that the draining thread knows of itself.
    pub(super) fn status(&self, view: &View<'_>) -> v1::Status {
        let stats = view.pipeline.stats();
        v1::Status {
            taken: Some(SystemTime::now().into()),
            sensors: self.sensors.clone(),
            hooks: Hook::ALL.iter().map(|hook| hook_counts(*hook, &view.after)).collect(),
            identities: self.identities(view),
            flow: Some(self.flow(stats)),
            outputs: view.outputs.status(),
            delivery: view.outputs.delivery.as_ref().map(Delivery::status),
            tail_readers: view.outputs.hub.readers(),
            tables: self.tables(view),
            lag: Some(self.lag()),
            losses: Some(v1::Losses {
                total: self.losses.values().map(|loss| loss.count).sum(),
                first: self.first_loss.map(Into::into),
                last: self.last_loss.map(Into::into),
                losses: self.losses.values().cloned().collect(),
            }),
            resources: Some(v1::Resources { ring_bytes: view.ring_bytes, ..v1::Resources::default() }),
            ..v1::Status::default()
        }
    }

    fn identities(&self, view: &View<'_>) -> Vec<v1::Identity> {
        let under_way = self.cpus * UNDER_WAY;
        let mut identities = Vec::new();
        for hook in Hook::ALL {
            let counters = view.after.hook(*hook);
            let right =
                counters.filtered + counters.aggregated + counters.submitted + counters.dropped_total();
            identities.push(v1::Identity {
                sum: "seen = filtered + aggregated + submitted + dropped".to_owned(),
                of: hook.name().to_owned(),
                left: counters.seen,
                right,
                // A call is first seen, then decided.
                holds: (right..=right + under_way).contains(&counters.seen),
                under_way,
            });
        }
        let stats = view.pipeline.stats();
        let sent = (view.before.submitted(), view.after.submitted());
        let received = stats.records();
        let waiting = if view.emptied { 0 } else { sent.1.saturating_sub(received) };
        identities.push(v1::Identity {
            sum: "submitted = received".to_owned(),
            of: "agent".to_owned(),
            left: sent.1,
            right: received,
            holds: received <= sent.1 + under_way && (!view.emptied || sent.0 <= received),
            under_way: (sent.1 - sent.0).max(waiting) + under_way,
        });
        identities.push(v1::Identity {
            sum: "received = exported + discarded + refused".to_owned(),
            of: "agent".to_owned(),
            left: stats.received,
            right: stats.accounted(),
            holds: stats.balances(),
            under_way: 0,
        });
        identities
    }

    fn flow(&self, stats: &crate::pipeline::Stats) -> v1::Flow {
        let (received, exported) = self.rates();
        v1::Flow {
            received: stats.received,
            exported: stats
                .exported
                .iter()
                .map(|(kind, count)| v1::KindCount { kind: (*kind).to_owned(), count: *count })
                .collect(),
            discarded: stats
                .discarded
                .iter()
                .map(|(reason, count)| v1::Drops { reason: reason.name().to_owned(), count: *count })
                .collect(),
            refused: (stats.refused > 0)
                .then(|| v1::Drops { reason: "undecodable".to_owned(), count: stats.refused })
                .into_iter()
                .collect(),
            received_rate_milli: received,
            exported_rate_milli: exported,
        }
    }

    /// Records received and events exported, in thousandths a second, over the window.
    fn rates(&self) -> (u64, u64) {
        // The current second has no end yet.
        let ended = self.seconds.len() - 1;
        let (Some(first), Some(last)) = (self.seconds.front(), ended.checked_sub(1).map(|n| self.seconds[n]))
        else {
            return (0, 0);
        };
        let span = (ended as u64).saturating_sub(1);
        if span == 0 {
            return (last.received * 1000, last.exported * 1000);
        }
        ((last.received - first.received) * 1000 / span, (last.exported - first.exported) * 1000 / span)
    }

    fn lag(&self) -> v1::Lag {
        let sum: u128 = self.seconds.iter().map(|second| second.lag_sum).sum();
        let count: u64 = self.seconds.iter().map(|second| second.lag_count).sum();
        v1::Lag {
            mean_ns: u64::try_from(sum / u128::from(count.max(1))).unwrap_or(u64::MAX),
            max_ns: self.seconds.iter().map(|second| second.lag_max).max().unwrap_or(0),
        }
    }

    fn tables(&self, view: &View<'_>) -> Vec<v1::TableStatus> {
        let processes = view.pipeline.table_stats();
        let (cgroups, cgroups_bound) = view.pipeline.cgroups_known();
        let (history, history_bytes, history_bound) = view.outputs.hub.history();
        let sockets = view.pipeline.sockets_known().into_iter().flat_map(|known| {
            [
                ("connections", known.connections, known.most_connections),
                ("flows", known.flows, known.most_flows),
            ]
        });
        let sockets = sockets.map(|(name, entries, bound)| v1::TableStatus {
            name: name.to_owned(),
            entries: entries as u64,
            bound: bound as u64,
            ..v1::TableStatus::default()
        });
        let mut tables = vec![
            v1::TableStatus {
                name: "processes".to_owned(),
                entries: processes.processes as u64,
                bound: self.bounds.processes as u64,
                bytes: processes.bytes as u64,
                bytes_bound: self.bounds.bytes as u64,
                evicted: processes.evicted,
            },
            v1::TableStatus {
                name: "ended_processes".to_owned(),
                entries: processes.exited as u64,
                bound: self.bounds.exited as u64,
                ..v1::TableStatus::default()
            },
            v1::TableStatus {
                name: "cgroups".to_owned(),
                entries: cgroups as u64,
                bound: cgroups_bound as u64,
                ..v1::TableStatus::default()
            },
            v1::TableStatus {
                name: "history".to_owned(),
                entries: history as u64,
                bytes: history_bytes as u64,
                bytes_bound: history_bound as u64,
                ..v1::TableStatus::default()
            },
        ];
        tables.extend(sockets);
        tables
    }
}

fn hook_counts(hook: Hook, sample: &Sample) -> v1::HookCounts {
    let counters = sample.hook(hook);
    let drops = DropReason::ALL.iter().map(|reason| (reason, counters.dropped[*reason as usize]));
    v1::HookCounts {
        hook: hook.name().to_owned(),
        seen: counters.seen,
        filtered: counters.filtered,
        aggregated: counters.aggregated,
        submitted: counters.submitted,
        dropped: drops
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| v1::Drops { reason: reason.name().to_owned(), count })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter() -> Meter {
        Meter::new(Vec::new(), Bounds::default())
    }

    #[test]
    fn rates_are_of_the_last_seconds() {
        let mut meter = meter();
        assert_eq!(meter.rates(), (0, 0));
        for second in 1..=30 {
            // A hundred a second at first, ten later.
            let received = if second <= 10 { second * 100 } else { 1000 + (second - 10) * 10 };
            meter.tick(received, received / 2);
        }
        assert_eq!(meter.rates(), (10_000, 5_000));
    }

    #[test]
    fn the_lag_is_that_of_the_slowest_and_of_all() {
        let mut meter = meter();
        meter.taken(Some(100));
        meter.taken(Some(300));
        meter.taken(None);
        meter.flushed(500);
        assert_eq!((meter.lag().mean_ns, meter.lag().max_ns), (300, 400));
        for _ in 0..WINDOW {
            meter.tick(0, 0);
        }
        assert_eq!(meter.lag().max_ns, 400);
        meter.tick(0, 0);
        assert_eq!(meter.lag().max_ns, 0, "it is forgotten");
    }

    #[test]
    fn losses_are_summed_by_hook_and_reason() {
        let mut meter = meter();
        let loss =
            v1::Loss { hook: "exec".to_owned(), reason: "ring_full".to_owned(), count: 2, kinds: Vec::new() };
        for _ in 0..2 {
            meter.lost(&v1::Telemetry { losses: vec![loss.clone()], ..v1::Telemetry::default() });
        }
        assert_eq!(meter.losses.len(), 1);
        assert_eq!(meter.losses.values().next().unwrap().count, 4);
        assert!(meter.first_loss <= meter.last_loss && meter.first_loss.is_some());
    }
}
