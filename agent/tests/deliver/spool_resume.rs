//! The spool when a session begins: what the backend says that it has.

use std::{path::Path, sync::Arc, time::Duration};

use nightjar::deliver::spool::{Batch, BootId, Content, Entry, Lane, Limits, Position, Reader, Spool};

use crate::memory_disk::MemoryDisk;

const LANE: Lane = Lane::Bulk;

fn open(disk: &MemoryDisk, boot: u8) -> (Spool, Reader) {
    let limits = Limits { bytes: 128 << 10, sync_every: Duration::from_secs(1) };
    let (spool, reader, _) =
        Spool::open_on(Arc::new(disk.clone()), Path::new("/spool"), BootId([boot; 16]), limits).unwrap();
    (spool, reader)
}

fn append(spool: &Spool, names: std::ops::Range<u8>) {
    for name in names {
        let batch = Batch { count: 1, events: vec![name].into(), ..Batch::default() };
        spool.append(LANE, &batch).unwrap();
    }
}

/// Gives out so many of what is not acknowledged.
fn give(reader: &mut Reader, most: usize) -> Vec<Entry> {
    let mut at = reader.acknowledged(LANE);
    let next = || {
        let entry = reader.next_after(LANE, at)?;
        at = entry.at;
        Some(entry)
    };
    std::iter::from_fn(next).take(most).collect()
}

fn names(entries: &[Entry]) -> Vec<u8> {
    let name = |entry: &Entry| match &entry.content {
        Content::Events(batch) => batch.events[0],
        Content::Lost(loss) => panic!("{loss:?}"),
    };
    entries.iter().map(name).collect()
}

/// The backend of boot 1 has all up to `sequence`.
fn resume(reader: &mut Reader, epoch: u64, sequence: u64) -> bool {
    reader.resume(&[(BootId([1; 16]), LANE, Position { epoch, sequence })])
}

#[test]
fn what_was_given_out_is_acknowledged_though_the_agent_did_not_hear() {
    let (spool, mut reader) = open(&MemoryDisk::default(), 1);
    append(&spool, 0..10);
    let epoch = give(&mut reader, 7)[0].at.epoch;
    assert!(!resume(&mut reader, epoch, 7));
    assert_eq!(names(&give(&mut reader, 9)), [7, 8, 9]);
}

#[test]
fn what_was_given_out_when_no_marks_could_be_written_is_sent_again_with_its_number() {
    let disk = MemoryDisk::default();
    let (spool, mut reader) = open(&disk, 1);
    append(&spool, 0..10);
    disk.state().is_read_only = true;
    let epoch = give(&mut reader, 7)[0].at.epoch;
    disk.state().is_read_only = false;
    drop((spool, reader));
    let (_spool, mut reader) = open(&disk, 1);
    assert!(!resume(&mut reader, epoch, 7));
    assert_eq!(give(&mut reader, 1)[0].at, Position { epoch, sequence: 1 });
}

#[test]
fn what_was_never_given_out_cannot_be_acknowledged_and_goes_out_under_another_epoch() {
    let disk = MemoryDisk::default();
    let (spool, mut reader) = open(&disk, 1);
    append(&spool, 0..10);
    let given = give(&mut reader, 7);
    let epoch = given[0].at.epoch;
    reader.acknowledge(LANE, given[4].at);
    // Eight is not above what there is here, but nobody had it from here.
    assert!(resume(&mut reader, epoch, 8));
    append(&spool, 10..12);
    let check = |reader: &mut Reader| {
        let again = give(reader, 9);
        assert_eq!(names(&again), [5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(
            again.iter().map(|entry| entry.at.sequence).collect::<Vec<_>>(),
            (6..=12).collect::<Vec<_>>()
        );
        again[0].at.epoch
    };
    let other = check(&mut reader);
    assert!(other > epoch && reader.epoch() == other);
    let positions = reader.positions();
    assert!(
        positions.contains(&(BootId([1; 16]), LANE, Position { epoch: other, sequence: 5 })),
        "{positions:?}"
    );
    // The next run knows it, and the boot after that.
    drop((spool, reader));
    let (spool, mut reader) = open(&disk, 1);
    assert!(!resume(&mut reader, epoch, 900), "it has that number no more");
    assert_eq!(check(&mut reader), other);
    drop((spool, reader));
    let (spool, mut reader) = open(&disk, 2);
    assert!(reader.epoch() > other);
    assert_eq!(check(&mut reader), other);
    assert!(!resume(&mut reader, other, 12));
    assert_eq!(give(&mut reader, 1), []);
    append(&spool, 12..13);
    assert_eq!(names(&give(&mut reader, 9)), [12]);
}

#[test]
fn an_epoch_says_nothing_of_the_one_before() {
    let disk = MemoryDisk::default();
    let (spool, reader) = open(&disk, 1);
    append(&spool, 0..3);
    drop((spool, reader));
    let (spool, mut reader) = open(&disk, 2);
    append(&spool, 3..6);
    let given = give(&mut reader, 9);
    let (first, second) = (given[0].at.epoch, given[3].at.epoch);
    let known = |epoch, sequence| (BootId([2; 16]), LANE, Position { epoch, sequence });
    assert!(!reader.resume(&[known(first, 2), known(second, 2)]));
    assert_eq!(names(&give(&mut reader, 9)), [2, 3, 4, 5]);
    assert!(!reader.resume(&[known(first, 3), known(second, 2)]));
    assert_eq!(names(&give(&mut reader, 9)), [5]);
}

#[test]
fn what_a_loss_of_power_took_and_the_backend_has_is_no_other_numbering() {
    let disk = MemoryDisk::default();
    let (spool, mut reader) = open(&disk, 1);
    append(&spool, 0..3);
    let epoch = give(&mut reader, 9)[0].at.epoch;
    drop((spool, reader));
    let (_spool, mut reader) = open(&disk, 2);
    // It has two that were sent and had not been made durable here.
    assert!(!resume(&mut reader, epoch, 5));
    assert_eq!(give(&mut reader, 9), []);
}
