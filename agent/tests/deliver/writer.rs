//! The writer with a real spool, and with a disk that does not answer.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use crate::memory_disk::MemoryDisk;
use nightjar::deliver::{
    batch::BatchLimits,
    spool::{
        BootId, Content, Lane, Limits, Reader, Reason, Spool,
        disk::{Disk, DiskFile, Entry, Lock, Open},
    },
    writer::{Writer, WriterLimits},
};

const LIMITS: Limits = Limits { bytes: 64 << 20, sync_every: Duration::from_secs(1) };

/// A disk whose writes wait as long as somebody holds this.
#[derive(Debug)]
struct StuckDisk(MemoryDisk, Arc<Mutex<()>>);

#[derive(Debug)]
struct StuckFile(Arc<dyn DiskFile>, Arc<Mutex<()>>);

impl Disk for StuckDisk {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.0.create_directory(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Option<Lock>> {
        self.0.lock(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.0.list(path)
    }
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(StuckFile(self.0.open(path, how)?, self.1.clone())))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.0.sync_directory(path)
    }
}

impl DiskFile for StuckFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _waits = self.1.lock().unwrap();
        self.0.write_at(bytes, offset)
    }
    fn truncate(&self, length: u64) -> io::Result<()> {
        self.0.truncate(length)
    }
    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn is_at(&self, _: &Path) -> bool {
        true
    }
}

/// Everything in a lane: events, and events told as lost, with the reason.
fn drain(reader: &mut Reader, lane: Lane) -> (u64, Vec<(u64, Reason)>) {
    let (mut events, mut losses) = (0, Vec::new());
    let mut at = reader.acknowledged(lane);
    while let Some(entry) = reader.next_after(lane, at) {
        at = entry.at;
        match entry.content {
            Content::Events(batch) => events += batch.count,
            Content::Lost(loss) => losses.push((loss.events, loss.reason)),
        }
    }
    (events, losses)
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn events_are_in_the_spool_when_their_batch_is_old_without_a_further_call() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader, _) = Spool::open(directory.path(), BootId([1; 16]), LIMITS).unwrap();
    let writer = Writer::start(spool.clone(), WriterLimits::default(), None).unwrap();
    let start = Instant::now();
    writer.add(Lane::Bulk, b"event", 7).unwrap();
    wait_for("a batch", || spool.stats().lanes[1].events == 1);
    let age = start.elapsed();
    assert!(age >= Duration::from_millis(200) && age < Duration::from_secs(2), "{age:?}");
    let entry = reader.next_after(Lane::Bulk, reader.acknowledged(Lane::Bulk)).unwrap();
    let Content::Events(batch) = entry.content else { panic!("{entry:?}") };
    assert_eq!(zstd::bulk::decompress(&batch.events, 100).unwrap(), b"\x05event");
}

#[test]
fn closing_writes_all_that_was_added() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader, _) = Spool::open(directory.path(), BootId([1; 16]), LIMITS).unwrap();
    let writer = Writer::start(spool, WriterLimits::default(), None).unwrap();
    for time in 0..10_000 {
        let lane = if time % 10 == 0 { Lane::Critical } else { Lane::Bulk };
        writer.add(lane, &[7; 300], time).unwrap();
    }
    writer.close().unwrap();
    assert_eq!(drain(&mut reader, Lane::Critical), (1000, vec![]));
    assert_eq!(drain(&mut reader, Lane::Bulk), (9000, vec![]));
}

#[test]
fn an_event_that_may_be_too_large_for_the_backend_has_a_batch_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader, _) = Spool::open(directory.path(), BootId([1; 16]), LIMITS).unwrap();
    let writer = Writer::start(spool, WriterLimits::default(), None).unwrap();
    for size in [300, 300, 3 << 20, 300, 300_000] {
        writer.add(Lane::Bulk, &vec![7; size], 1).unwrap();
    }
    writer.close().unwrap();
    let mut counts = Vec::new();
    let mut at = reader.acknowledged(Lane::Bulk);
    while let Some(entry) = reader.next_after(Lane::Bulk, at) {
        at = entry.at;
        let Content::Events(batch) = entry.content else { panic!("{entry:?}") };
        counts.push(batch.count);
    }
    assert_eq!(counts, [2, 1, 2]);
}

#[test]
fn a_stuck_disk_costs_counted_bulk_events_and_never_keeps_the_caller_waiting() {
    let gate = Arc::new(Mutex::new(()));
    let disk = Arc::new(StuckDisk(MemoryDisk::default(), gate.clone()));
    let (spool, mut reader, _) = Spool::open_on(disk, Path::new("/spool"), BootId([1; 16]), LIMITS).unwrap();
    let batch = BatchLimits { bytes: 10_000, ..BatchLimits::default() };
    let writer = Writer::start(spool, WriterLimits { batch, queue_bytes: 100_000 }, None).unwrap();
    let stuck = gate.lock().unwrap();
    let (mut refused, mut slowest) = (0, Duration::ZERO);
    for time in 1..=5000 {
        let start = Instant::now();
        refused += writer.add(Lane::Bulk, &[7; 998], time).map_or_else(|full| full.events, |()| 0);
        slowest = slowest.max(start.elapsed());
    }
    // One batch may be with the thread, and nine or ten wait.
    assert!((4850..=4920).contains(&refused), "{refused}");
    assert!(writer.stats().queued_bytes <= 110_000);
    // What is critical takes the place of bulk.
    for time in 1..=50 {
        writer.add(Lane::Critical, &[7; 998], time).unwrap();
    }
    let lost = writer.stats().queue_full;
    assert!(lost > refused, "{lost} {refused}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    drop(stuck);
    writer.close().unwrap();
    assert_eq!(drain(&mut reader, Lane::Critical), (50, vec![]));
    let (events, losses) = drain(&mut reader, Lane::Bulk);
    assert_eq!(events + lost, 5000);
    assert_eq!(losses, [(lost, Reason::QueueFull)]);
}
