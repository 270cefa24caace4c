//! What is found in a data directory after a mishap, and sums that hold through it.

use super::*;

#[tokio::test]
async fn files_that_are_not_of_this_program_are_left_alone_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    convert(&store);
    drop(store);
    let hour = fs::read_dir(dir.path().join(EVENTS)).unwrap().next().unwrap().unwrap().path();
    let foreign = [
        dir.path().join(WAL).join("notes.txt"),
        dir.path().join(WAL).join("x-2026-11-22T19.wal"),
        hour.join("copy.parquet"),
        hour.join("notes.damaged"),
        dir.path().join(WAL).join("x-2026-11-22T19-1.damaged"),
        dir.path().join(EVENTS).join("README"),
    ];
    for path in &foreign {
        fs::write(path, "anything").unwrap();
    }
    fs::create_dir(dir.path().join(WAL).join("000000000900-2026-11-22T19.wal")).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(store.state.counters.foreign.load(Ordering::Relaxed), 7);
    assert_eq!(damages(&store), []);
    assert!(foreign.iter().all(|path| path.exists()));
    assert_eq!(ids(&store), expected(1..=3));
    put_all(&store, [4]).await;
}

#[tokio::test]
async fn a_log_file_of_anything_costs_its_bytes_and_not_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    drop(store);
    let hour = Hour::of(now());
    for (number, content) in [(800, vec![]), (801, vec![0; 5000]), (802, vec![0xff; 5000])] {
        fs::write(dir.path().join(WAL).join(format!("{number:012}-{hour}.wal")), content).unwrap();
    }
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(store.state.counters.torn.load(Ordering::Relaxed), 10_000);
    assert_eq!(ids(&store), expected(1..=3));
    put_all(&store, [4]).await;
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(ids(&store), expected(1..=4));
}

#[tokio::test]
async fn one_batch_sent_at_once_by_many_is_stored_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(dir.path(), LIMITS).unwrap());
    let senders: Vec<_> = (0..50)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { put(&store, batch(1)).await.unwrap() })
        })
        .collect();
    let mut outcomes = Vec::new();
    for sender in senders {
        outcomes.push(sender.await.unwrap());
    }
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == Outcome::Stored).count(), 1);
    assert_eq!(ids(&store), expected([1]));
}

#[tokio::test]
async fn stored_and_told_to_be_lost_are_all_that_was_made_after_restarts_and_without_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), LIMITS).unwrap();
    let loss = |first_sequence, last_sequence, events| LostBatches {
        lane: Lane::Critical.into(),
        first_sequence,
        last_sequence,
        events,
        reason: "spool_full".to_owned(),
        ..LostBatches::default()
    };
    let sums = |store: &Store| {
        let index = store.state.index.read().unwrap();
        let told: u64 = index.iter().map(|(_, position)| position.told_lost()).sum();
        (ids(store).len() as u64 + told, index.iter().map(|(_, position)| position.missing()).sum::<u64>())
    };
    // 30 batches of three events each and one event that got no number: 7 to 12 and 20 are lost; of 6 the agent thinks so.
    put_all(&store, (1..=6).chain(13..=19)).await;
    put(&store, Batch { losses: vec![loss(6, 9, 12), loss(0, 0, 1)], ..batch(21) }).await.unwrap();
    assert_eq!(sums(&store).1, 4);
    drop(store);
    store = Store::open(dir.path(), LIMITS).unwrap();
    put(&store, Batch { losses: vec![loss(10, 12, 9), loss(20, 20, 3)], ..batch(22) }).await.unwrap();
    put_all(&store, 23..=30).await;
    assert_eq!(sums(&store), (91, 0));
    let known = |store: &Store| {
        let index = store.state.index.read().unwrap();
        let rows = index.iter().flat_map(|(_, position)| position.rows().cloned());
        rows.map(|row| (row.from, row.to, row.events)).collect::<Vec<_>>()
    };
    assert_eq!(known(&store), [(0, 0, 1), (7, 12, 18), (20, 20, 3)]);
    convert(&store);
    drop(store);
    fs::remove_dir_all(dir.path().join(WAL)).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(sums(&store), (91, 0));
    assert_eq!(known(&store).len(), 3);
}

fn flip(path: &Path, at: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn damages(store: &Store) -> Vec<(String, u64)> {
    let damages = store.state.damages.lock().unwrap();
    let name = |path: &Path| path.strip_prefix(&store.state.dir).unwrap().to_str().unwrap().to_owned();
    damages.values().map(|damage| (name(&damage.path), damage.events)).collect()
}

#[tokio::test]
async fn what_rots_in_the_log_before_it_becomes_parquet_is_listed_and_the_file_kept_until_it_is_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, [1]).await;
    let segment = store.state.catalog().segments.values().next().unwrap().clone();
    let middle = segment.end() + 50;
    put_all(&store, 2..=3).await;
    let path = wal_files(dir.path()).remove(0);
    let before = fs::read(&path).unwrap();
    flip(&path, middle);
    convert(&store);
    assert_eq!(ids(&store), expected([1, 3]));
    assert!(store.state.counters.damaged.load(Ordering::Relaxed) > 0);
    let hour = segment.hour;
    let kept = format!("wal/{:012}-{hour}-3.damaged", segment.number);
    assert_eq!(damages(&store), [(kept.clone(), 3)]);
    assert!(!path.exists());
    assert_eq!(fs::read(dir.path().join(&kept)).unwrap().len(), before.len());
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(damages(&store), [(kept.clone(), 3)]);
    assert_eq!(store.state.counters.foreign.load(Ordering::Relaxed), 0);
    tend_at(&store, Hour(hour.0 + 72));
    assert!(dir.path().join(&kept).exists());
    tend_at(&store, Hour(hour.0 + 73));
    assert!(!dir.path().join(&kept).exists());
    assert_eq!(damages(&store), []);
}

/// So many events that two such batches are more than a row group.
fn large_batch(sequence: u64) -> Batch {
    let mut events = Vec::new();
    for part in 0..70_000 {
        let event = Event { id: format!("{sequence}.{part}"), ..Event::default() };
        event.encode_length_delimited(&mut events).unwrap();
    }
    Batch {
        count: 70_000,
        uncompressed_bytes: events.len() as u64,
        events: zstd::bulk::compress(&events, 1).unwrap().into(),
        ..batch(sequence)
    }
}

#[tokio::test]
async fn a_row_group_that_cannot_be_read_is_told_and_listed_and_all_else_is_handed_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    for sequence in 1..=3 {
        assert_eq!(put(&store, large_batch(sequence)).await, Ok(Outcome::Stored));
    }
    convert(&store);
    put_all(&store, [4]).await;
    let parquet = store.state.catalog().partitions[0].path().to_owned();
    // The first page follows the magic number.
    let file = fs::OpenOptions::new().write(true).open(&parquet).unwrap();
    file.write_all_at(&[0xff; 64], 4).unwrap();

    let (read, errors) = read_with_errors(&mut store.read(Wanted::default()));
    assert_eq!(errors.len(), 1, "{errors:?}");
    let of = |sequence: &str| read.iter().filter(|id| id.starts_with(sequence)).count();
    let rest = 140_000 - columns::GROUP_ROWS;
    assert_eq!((of("1."), of("2."), of("3."), of("4.")), (0, rest, 70_000, 3));
    let listed = damages(&store);
    assert!(listed.len() == 1 && listed[0].0.starts_with("events/"), "{listed:?}");
    assert_eq!(store.state.counters.damaged_partitions.load(Ordering::Relaxed), 1);
    drop(store);
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!((damages(&store), store.state.catalog().partitions.len()), (listed, 1));
}

#[tokio::test]
async fn what_is_missing_at_the_end_of_a_file_is_known_by_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    put_all(&store, 1..=3).await;
    next_file(&store);
    drop(store);
    let first = &wal_files(dir.path())[0];
    let length = fs::metadata(first).unwrap().len();
    fs::OpenOptions::new().write(true).open(first).unwrap().set_len(length - 7).unwrap();
    let store = Store::open(dir.path(), LIMITS).unwrap();
    assert_eq!(ids(&store), expected(1..=2));
    assert_eq!(gaps(&store).iter().map(|gap| (gap.from, gap.to)).collect::<Vec<_>>(), [(3, 3)]);
}
