//! The store as a whole.

use std::{fs, ops::ControlFlow, os::unix::fs::FileExt as _};

use nightjar_proto::v1::{Event, Lane, LostBatches};
use prost::Message as _;
use prost_types::Timestamp;

use super::{index::Gap, *};
use crate::hour::Hour;

mod damage;

const LIMITS: Limits = Limits {
    segment_bytes: 1 << 20,
    retention: Duration::from_hours(72),
    reserve_bytes: 0,
    waiting_bytes: 1 << 20,
    slow_disk: Duration::ZERO,
};

/// Three events, which say which batch they are of.
fn batch(sequence: u64) -> Batch {
    let mut events = Vec::new();
    for part in 0..3 {
        let time = Timestamp { seconds: i64::try_from(sequence).unwrap(), nanos: 0 };
        let event = Event {
            id: format!("{sequence}.{part}"),
            kind: if part == 0 { "process.exec" } else { "file.open" }.to_owned(),
            host: "web-1".to_owned(),
            time: Some(time),
            ..Event::default()
        };
        event.encode_length_delimited(&mut events).unwrap();
    }
    Batch {
        agent_id: "a".to_owned(),
        boot_id: "b".to_owned(),
        lane: Lane::Critical.into(),
        sequence,
        count: 3,
        uncompressed_bytes: events.len() as u64,
        events: zstd::bulk::compress(&events, 1).unwrap().into(),
        ..Batch::default()
    }
}

async fn put(store: &Store, batch: Batch) -> Result<Outcome, StoreError> {
    put_after(store, batch, 0).await
}

/// From an agent to which so much was acknowledged.
async fn put_after(store: &Store, batch: Batch, acknowledged: u64) -> Result<Outcome, StoreError> {
    store.append(batch, acknowledged).await?.outcome().await
}

async fn put_all(store: &Store, sequences: impl IntoIterator<Item = u64>) {
    for sequence in sequences {
        assert_eq!(put(store, batch(sequence)).await, Ok(Outcome::Stored));
    }
}

/// What there is to read, and what could not be read.
fn read_with_errors(cursor: &mut Cursor) -> (Vec<String>, Vec<QueryError>) {
    let (mut ids, mut errors) = (Vec::new(), Vec::new());
    loop {
        let mut take = |event| {
            ids.push(Event::decode(event).unwrap().id);
            ControlFlow::Continue(())
        };
        match cursor.read(&mut take) {
            Err(error) => errors.push(error),
            Ok(more) => {
                assert!(more.is_continue());
                return (ids, errors);
            }
        }
    }
}

fn read_on(cursor: &mut Cursor) -> Vec<String> {
    let (ids, errors) = read_with_errors(cursor);
    assert!(errors.is_empty(), "{errors:?}");
    ids
}

fn ids(store: &Store) -> Vec<String> {
    read_on(&mut store.read(Wanted::default()))
}

fn expected(sequences: impl IntoIterator<Item = u64>) -> Vec<String> {
    sequences.into_iter().flat_map(|sequence| (0..3).map(move |part| format!("{sequence}.{part}"))).collect()
}

fn gaps(store: &Store) -> Vec<Gap> {
    let index = store.state.index.read().unwrap();
    index.iter().flat_map(|(_, position)| position.gaps.clone()).collect()
}

fn next_hour() -> Hour {
    Hour(Hour::of(now()).0 + 1)
}

/// What would happen in an hour by which events are dropped.
fn tend_at(store: &Store, hour: Hour) {
    seal::tend(&store.state, LIMITS, hour, hour);
}

/// Makes the writer begin another file.
fn next_file(store: &Store) {
    let sealed =
        || store.state.catalog().segments.values().next_back().is_none_or(|newest| newest.is_sealed());
    store.state.catalog().segments.values().for_each(|segment| segment.seal());
    while sealed() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// What would happen when the hour is over.
fn convert(store: &Store) {
    next_file(store);
    tend_at(store, next_hour());
    assert_eq!(store.state.catalog().partitions.len(), 1);
}

fn wal_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir.join(WAL)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn what_is_acknowledged_can_be_read_at_once_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=5).await;
    assert_eq!(ids(&store), expected(1..=5));
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(ids(&store), expected(1..=5));
}

#[tokio::test]
async fn a_batch_that_comes_again_is_stored_once_also_after_a_restart_and_from_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    assert_eq!(put(&store, batch(2)).await, Ok(Outcome::Duplicate));
    convert(&store);
    assert_eq!(put(&store, batch(2)).await, Ok(Outcome::Duplicate));
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(put(&store, batch(3)).await, Ok(Outcome::Duplicate));
    assert_eq!(ids(&store), expected(1..=3));
    drop(store);
    // The Parquet files know it too.
    fs::remove_dir_all(dir.path().join(WAL)).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(put(&store, batch(3)).await, Ok(Outcome::Duplicate));
    assert_eq!(ids(&store), expected(1..=3));
}

#[tokio::test]
async fn a_gap_is_listed_until_the_batch_comes_or_the_loss_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, [1, 5]).await;
    assert_eq!(gaps(&store).len(), 1);
    put_all(&store, [3]).await;
    let loss = LostBatches {
        lane: Lane::Critical.into(),
        first_sequence: 2,
        last_sequence: 2,
        reason: "spool_full".to_owned(),
        ..LostBatches::default()
    };
    put(&store, Batch { losses: vec![loss], ..batch(6) }).await.unwrap();
    let told = |store: &Store| {
        gaps(store).iter().map(|gap| (gap.from, gap.to, gap.reason.clone())).collect::<Vec<_>>()
    };
    let are = [(2, 2, "spool_full".to_owned()), (4, 4, String::new())];
    assert_eq!(told(&store), are);
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(told(&store), are);
    assert_eq!(ids(&store), expected([1, 5, 3, 6]));
}

#[tokio::test]
async fn a_stream_begins_where_the_agent_says_also_after_a_restart_and_from_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_after(&store, batch(481), 480).await.unwrap();
    // It is known now, and what an agent says later does not hide that a batch is missing.
    put_after(&store, batch(483), 482).await.unwrap();
    let missing = |store: &Store| gaps(store).iter().map(|gap| (gap.from, gap.to)).collect::<Vec<_>>();
    assert_eq!(missing(&store), [(482, 482)]);
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(missing(&store), [(482, 482)]);
    assert_eq!(put_after(&store, batch(481), 480).await, Ok(Outcome::Duplicate));
    convert(&store);
    drop(store);
    fs::remove_dir_all(dir.path().join(WAL)).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(missing(&store), [(482, 482)]);
    assert_eq!(ids(&store), expected([481, 483]));
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=2).await;
    drop(store);
    let file = &wal_files(dir.path())[0];
    let length = fs::metadata(file).unwrap().len();
    fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length - 7).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert!(store.state.counters.torn.load(Ordering::Relaxed) > 0);
    assert_eq!(ids(&store), expected([1]));
    put_all(&store, [2]).await;
    assert_eq!(ids(&store), expected(1..=2));
}

#[tokio::test]
async fn a_bit_flipped_in_the_log_costs_one_batch_which_is_then_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, [1]).await;
    let middle = store.state.catalog().segments.values().next().unwrap().end() + 50;
    for sequence in 2..=3 {
        // What was acknowledged to the agent tells nothing of what is still there.
        put_after(&store, batch(sequence), sequence - 1).await.unwrap();
    }
    drop(store);
    let file = fs::OpenOptions::new().read(true).write(true).open(&wal_files(dir.path())[0]).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).unwrap();
    file.write_all_at(&[byte[0] ^ 1], middle).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert!(store.state.counters.damaged.load(Ordering::Relaxed) > 0);
    let (read, errors) = read_with_errors(&mut store.read(Wanted::default()));
    assert_eq!((read, errors.len()), (expected([1, 3]), 1), "{errors:?}");
    assert_eq!((gaps(&store)[0].from, gaps(&store)[0].to), (2, 2));
}

#[tokio::test]
async fn the_log_becomes_parquet_with_the_same_events() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=200).await;
    let before = ids(&store);
    convert(&store);
    assert_eq!(ids(&store), before);
    assert_eq!(wal_files(dir.path()).len(), 1, "only the newest is left");
    let only_execs = Wanted {
        kinds: vec![wildmatch::WildMatch::new("process.*")],
        since: Some(10_000_000_000),
        until: Some(20_000_000_000),
        ..Wanted::default()
    };
    let execs: Vec<_> = (10..20).map(|sequence| format!("{sequence}.0")).collect();
    assert_eq!(read_on(&mut store.read(only_execs)), execs);
}

#[tokio::test]
async fn a_crash_before_the_log_is_dropped_leaves_each_event_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=9).await;
    let saved: Vec<_> =
        wal_files(dir.path()).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    convert(&store);
    drop(store);
    for (content, path) in saved {
        fs::write(path, content).unwrap();
    }
    // One more that was being written.
    let hour = fs::read_dir(dir.path().join(EVENTS)).unwrap().next().unwrap().unwrap().path();
    fs::write(hour.join("000000000900-000000000901.tmp"), b"PAR1").unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(ids(&store), expected(1..=9));
    assert_eq!(fs::read_dir(hour).unwrap().count(), 1);
}

#[tokio::test]
async fn a_torn_parquet_file_is_made_again_where_the_log_is_there_and_else_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=9).await;
    let saved: Vec<_> =
        wal_files(dir.path()).into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    convert(&store);
    let parquet = store.state.catalog().partitions[0].path().to_owned();
    drop(store);
    let length = fs::metadata(&parquet).unwrap().len();
    fs::OpenOptions::new().write(true).open(&parquet).unwrap().set_len(length / 2).unwrap();
    for (content, path) in saved {
        fs::write(path, content).unwrap();
    }
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(ids(&store), expected(1..=9));
    convert(&store);
    let parquet = store.state.catalog().partitions[0].path().to_owned();
    drop(store);
    fs::write(&parquet, b"PAR1").unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(store.state.counters.damaged_partitions.load(Ordering::Relaxed), 1);
    assert!(parquet.with_extension("damaged").exists());
    assert_eq!(ids(&store), expected([]));
    let listed: Vec<_> = store.state.damages.lock().unwrap().keys().cloned().collect();
    assert_eq!(listed, [parquet.with_extension("damaged")]);
    put_all(&store, [10]).await;
}

#[tokio::test]
async fn who_follows_misses_nothing_while_the_log_becomes_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    let mut follower = store.follow(Wanted::default());
    let mut slow = store.read(Wanted::default());
    assert_eq!(read_on(&mut follower), expected([]));
    put_all(&store, 4..=5).await;
    assert_eq!(read_on(&mut follower), expected(4..=5));
    put_all(&store, 6..=7).await;
    convert(&store);
    put_all(&store, 8..=9).await;
    assert_eq!(read_on(&mut follower), expected(6..=9));
    assert_eq!(read_on(&mut slow), expected(1..=9));
    assert_eq!(read_on(&mut slow), expected([]));
}

#[tokio::test]
async fn partitions_are_dropped_when_they_are_too_old_and_no_earlier() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    convert(&store);
    let hour = store.state.catalog().partitions[0].hour;
    tend_at(&store, Hour(hour.0 + 72));
    assert_eq!(ids(&store), expected(1..=3));
    tend_at(&store, Hour(hour.0 + 73));
    assert_eq!(ids(&store), expected([]));
    assert_eq!(put(&store, batch(3)).await, Ok(Outcome::Duplicate));
}

#[tokio::test]
async fn what_is_old_by_the_wall_clock_alone_is_not_dropped_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    convert(&store);
    let parquet = store.state.catalog().partitions[0].path().to_owned();
    drop(store);
    // As if the clock had been a month behind then, or were a month ahead now.
    let hour = Hour(Hour::of(now()).0 - 31 * 24);
    fs::rename(parquet.parent().unwrap(), dir.path().join(EVENTS).join(hour.to_string())).unwrap();
    fs::remove_dir_all(dir.path().join(WAL)).unwrap();
    fs::remove_file(dir.path().join("retention")).unwrap();
    for next in 4..=5 {
        let store = Store::open(dir.path(), LIMITS).unwrap();
        put_all(&store, [next]).await;
        // The thread that drops has been there.
        while !dir.path().join("retention").exists() {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(Duration::from_millis(100));
        assert_eq!(store.state.kept_by(), hour);
        assert_eq!(ids(&store), expected(1..=next));
    }
}

#[tokio::test]
async fn without_room_batches_are_refused_and_taken_again_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Limits { reserve_bytes: u64::MAX, ..LIMITS }).unwrap();
    assert!(matches!(put(&store, batch(1)).await, Err(StoreError::Full(_))));
    assert!(matches!(store.condition(), Condition::Full(_)));
    assert_eq!(ids(&store), expected([]));
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, [1]).await;
    assert_eq!(store.condition(), Condition::Ready);
}

#[tokio::test]
async fn two_processes_cannot_have_the_same_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _store = Store::open(dir.path(), LIMITS).unwrap();
    assert!(matches!(Store::open(dir.path(), LIMITS), Err(OpenError::InUse(_))));
}
