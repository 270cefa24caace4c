//! Turns files of the log to Parquet, and drops what is too old.
//!
//! A Parquet file has the numbers of the files that it was made of in its name, and gets the name in one step when it is
//! durable. From then on these files count no more, whether they could be removed or not: so a crash at any point leaves
//! each event in one place. A file of the log of which a part has changed on the disk becomes Parquet without that part,
//! and is kept aside ([`super::damage`]).

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::{
    EVENTS, Limits,
    damage::Damage,
    index::Stream,
    partition::{Partition, PartitionError, PartitionWriter},
    record::Record,
    retention::RetentionClock,
    segment::Segment,
    state::{State, count},
};
use crate::{
    hour::{Hour, now},
    locks,
};

/// How often is looked whether there is something to do.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often is looked whether to stop.
const STEP: Duration = Duration::from_millis(100);

/// Looks after the files until `stop`.
pub fn run(state: &State, limits: Limits, clock: &mut RetentionClock, stop: &AtomicBool) {
    let mut last: Option<Duration> = None;
    while !stop.load(Ordering::Acquire) {
        let elapsed = last.map_or(INTERVAL, |last| since_boot().saturating_sub(last));
        if elapsed >= INTERVAL {
            last = Some(since_boot());
            let wall = Hour::of(now());
            let kept_by = clock.tick(wall, elapsed);
            state.keep_by(kept_by);
            tend(state, limits, wall, kept_by);
        }
        std::thread::sleep(STEP);
    }
}

/// Counts on while the host is suspended.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Does what there is to do in an hour of the wall clock, and in one by which events are dropped.
pub fn tend(state: &State, limits: Limits, hour: Hour, kept_by: Hour) {
    drop_old(state, limits, kept_by);
    while let Some(segments) = due(state, limits, hour) {
        if let Err(error) = convert(state, &segments) {
            count(&state.counters.maintenance_failures, 1);
            tracing::warn!("the log is not turned to Parquet for now: {error}");
            return;
        }
    }
}

/// The oldest files of the log, of one hour, if they are to be turned to Parquet now: when the hour is over or they are
/// enough for a file. The newest file never is, as it has the index.
fn due(state: &State, limits: Limits, now: Hour) -> Option<Vec<Arc<Segment>>> {
    let catalog = state.catalog();
    let newest = *catalog.segments.keys().next_back()?;
    let hour = catalog.segments.values().next()?.hour;
    let mut segments = Vec::new();
    let mut bytes = 0;
    let mut over = hour < now;
    for segment in catalog.segments.values() {
        if segment.hour != hour {
            over = true;
            break;
        }
        // No more than one file's worth: what is begun is soon done, and a crash costs little of the work.
        if bytes >= limits.segment_bytes || !segment.is_sealed() || segment.number == newest {
            break;
        }
        bytes += segment.end();
        segments.push(Arc::clone(segment));
    }
    let due = over || bytes >= limits.segment_bytes;
    (due && !segments.is_empty()).then_some(segments)
}

fn convert(state: &State, segments: &[Arc<Segment>]) -> Result<(), PartitionError> {
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else { return Ok(()) };
    let partition = if segments.iter().any(|segment| segment.is_used()) {
        Some(Arc::new(write(state, segments, first, last.number)?))
    } else {
        None
    };
    let mut catalog = locks::write(&state.catalog);
    catalog.partitions.extend(partition);
    catalog.segments.retain(|number, _| *number > last.number);
    drop(catalog);
    for segment in segments {
        if let Err(error) = segment.remove() {
            // The name of the Parquet file says at the next start that it is not needed.
            tracing::warn!("file {} of the log stays on the disk: {error}", segment.number);
        }
    }
    Ok(())
}

fn write(
    state: &State,
    segments: &[Arc<Segment>],
    first: &Segment,
    last: u64,
) -> Result<Partition, PartitionError> {
    let events = state.dir.join(EVENTS);
    let mut writer = PartitionWriter::create(&events, first.hour, first.number, last)?;
    let mut streams = BTreeSet::new();
    for segment in segments {
        let mut reader = segment.read(0);
        let mut added = 0;
        let failed = |error| PartitionError::Io { path: state.dir.join(super::WAL), error };
        while let Some(record) = reader.next(segment.end()).map_err(failed)? {
            if let Record::Batch(stored) = record {
                streams.extend(stored.batch.as_ref().map(Stream::of));
                added += writer.add(segment.number, &stored)?;
            }
        }
        let damaged = reader.damaged() + (segment.end() - reader.whole());
        let missing = segment.events().saturating_sub(added);
        if damaged > 0 || missing > 0 {
            // Before the Parquet file has its name: then the log is not looked at any more.
            keep_damaged(state, segment, damaged, missing).map_err(failed)?;
        }
    }
    let mut index = locks::read(&state.index).clone();
    index.retain(&streams);
    writer.finish(&index)
}

/// That it is damaged must be written down before the file goes; else it is tried again later.
fn keep_damaged(state: &State, segment: &Segment, damaged: u64, lost: u64) -> io::Result<()> {
    let number = segment.number;
    let kept = segment.keep_damaged(lost)?;
    if !state.list_damage(&kept) {
        // This is not the first attempt.
        return Ok(());
    }
    count(&state.counters.damaged, damaged.saturating_sub(segment.damaged()));
    tracing::error!(
        "file {number} of the log has {damaged} bytes that are not as they were written; {lost} events are lost; it is kept as {}, and gaps lists it",
        kept.display()
    );
    Ok(())
}

fn drop_old(state: &State, limits: Limits, kept_by: Hour) {
    let oldest = Hour(kept_by.0.saturating_sub(limits.retention.as_secs() / 3600));
    let mut catalog = locks::write(&state.catalog);
    let (old, kept) = catalog.partitions.drain(..).partition(|partition| partition.hour < oldest);
    catalog.partitions = kept;
    drop(catalog);
    let old: Vec<Arc<Partition>> = old;
    for partition in old {
        match partition.remove() {
            Ok(()) => count(&state.counters.dropped_partitions, 1),
            Err(error) => {
                count(&state.counters.maintenance_failures, 1);
                tracing::warn!("{} is too old but stays: {error}", partition.path().display());
            }
        }
    }
    let mut damages = locks::lock(&state.damages);
    let old: Vec<Damage> =
        damages.extract_if(.., |_, damage| damage.hour < oldest).map(|(_, old)| old).collect();
    drop(damages);
    for damage in old {
        if let Err(error) = damage.remove() {
            count(&state.counters.maintenance_failures, 1);
            tracing::warn!("{} is too old but stays: {error}", damage.path.display());
        }
    }
}
