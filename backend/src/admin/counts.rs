//! The numbers of `status`: a row each.

use std::sync::atomic::{AtomicU64, Ordering};

use nightjar_proto::backend::v1::Count;

use crate::{
    locks,
    registry::Registry,
    store::{Store, index::Position, state::State},
    tails::Tails,
};

/// What was done since the start.
pub fn counts(state: &State) -> Vec<Count> {
    let counters = &state.counters;
    let rows = [
        ("batches_stored", &counters.batches),
        ("events_stored", &counters.events),
        ("duplicate_batches", &counters.duplicates),
        ("refused_batches", &counters.refused),
        ("log_syncs", &counters.syncs),
        ("log_bytes", &counters.bytes),
        ("torn_bytes", &counters.torn),
        ("foreign_files", &counters.foreign),
        ("damaged_bytes", &counters.damaged),
        ("damaged_partitions", &counters.damaged_partitions),
        ("dropped_partitions", &counters.dropped_partitions),
        ("maintenance_failures", &counters.maintenance_failures),
    ];
    let count = |(name, counter): (&str, &AtomicU64)| Count {
        name: name.to_owned(),
        value: counter.load(Ordering::Relaxed),
    };
    rows.map(count).into()
}

/// How things are now.
pub fn levels(store: &Store, registry: &Registry, tails: &Tails) -> Vec<Count> {
    let catalog = store.state().catalog();
    let index = locks::read(&store.state().index);
    let positions = || index.iter().map(|(_, position)| position);
    let in_log: u64 = catalog.segments.values().map(|segment| segment.events()).sum();
    let stored = in_log + catalog.partitions.iter().map(|partition| partition.rows).sum::<u64>();
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let rows = [
        ("publishing_agents", number(registry.sessions())),
        ("agents", number(registry.agents().len())),
        ("tails", number(tails.count())),
        ("stored_events", stored),
        ("told_lost_events", positions().map(Position::told_lost).sum()),
        ("missing_batches", positions().map(Position::missing).sum()),
        ("waiting_bytes", number(store.waiting_bytes())),
        ("log_files", number(catalog.segments.len())),
        ("live_log_bytes", catalog.segments.values().map(|segment| segment.end()).sum()),
        ("partitions", number(catalog.partitions.len())),
        ("partition_events", catalog.partitions.iter().map(|partition| partition.rows).sum()),
        ("damaged_files", number(locks::lock(&store.state().damages).len())),
        ("partition_bytes", catalog.partitions.iter().map(|partition| partition.bytes).sum()),
    ];
    rows.map(|(name, value)| Count { name: name.to_owned(), value }).into()
}
