//! The spool beside a model of it: whatever is done to the disk, what comes out is what went in less what is counted.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use crate::memory_disk::MemoryDisk;
use bytes::Bytes;
use nightjar::deliver::spool::{Batch, BootId, Content, Entry, Lane, Limits, Position, Reader, Spool};
use proptest::prelude::*;

const DIRECTORY: &str = "/spool";

#[derive(Clone, Debug)]
enum Deed {
    Append {
        lane: Lane,
        count: u8,
        size: u16,
    },
    /// The client sends so many batches.
    Send {
        lane: Lane,
        batches: u8,
    },
    /// The backend stores so many of those that are under way, and acknowledges some of these.
    Store {
        lane: Lane,
        batches: u8,
        acknowledge: bool,
    },
    /// What is under way is lost; the backend says what it has.
    Reconnect,
    Restart,
    NewBoot,
    /// Killed at a later write, of which only so many bytes are done.
    KillAt {
        writes: u8,
        bytes: u16,
    },
    Flip {
        seed: u32,
    },
    Cut {
        seed: u32,
    },
    Delete {
        seed: u32,
    },
    FlipMarks {
        at: u16,
    },
    DeleteDirectory,
    LoseMarks,
    Foreign,
    Full {
        room: u16,
    },
    Roomy,
    FailWrites(u8),
    FailReads(u8),
    FailSyncs(u8),
    FailRemovals(u8),
    ReadOnly(bool),
    Keep,
}

fn lanes() -> impl Strategy<Value = Lane> {
    prop::sample::select(Lane::ALL.to_vec())
}

fn deeds() -> impl Strategy<Value = Deed> {
    prop_oneof![
        20 => (lanes(), any::<u8>(), 0..7000_u16).prop_map(|(lane, count, size)| Deed::Append { lane, count, size }),
        8 => (lanes(), 0..12_u8).prop_map(|(lane, batches)| Deed::Send { lane, batches }),
        8 => (lanes(), 0..12_u8, any::<bool>())
            .prop_map(|(lane, batches, acknowledge)| Deed::Store { lane, batches, acknowledge }),
        3 => Just(Deed::Reconnect),
        3 => Just(Deed::Restart),
        1 => Just(Deed::NewBoot),
        2 => (0..8_u8, 0..4000_u16).prop_map(|(writes, bytes)| Deed::KillAt { writes, bytes }),
        1 => any::<u32>().prop_map(|seed| Deed::Flip { seed }),
        1 => any::<u32>().prop_map(|seed| Deed::Cut { seed }),
        1 => any::<u32>().prop_map(|seed| Deed::Delete { seed }),
        1 => (0..8192_u16).prop_map(|at| Deed::FlipMarks { at }),
        1 => Just(Deed::DeleteDirectory),
        1 => Just(Deed::LoseMarks),
        1 => Just(Deed::Foreign),
        1 => (0..20_000_u16).prop_map(|room| Deed::Full { room }),
        2 => Just(Deed::Roomy),
        1 => (1..4_u8).prop_map(Deed::FailWrites),
        1 => (1..4_u8).prop_map(Deed::FailReads),
        1 => (1..4_u8).prop_map(Deed::FailSyncs),
        1 => (1..4_u8).prop_map(Deed::FailRemovals),
        2 => any::<bool>().prop_map(Deed::ReadOnly),
        3 => Just(Deed::Keep),
    ]
}

/// What the backend has of one numbering.
#[derive(Debug, Default)]
struct Stored {
    last: u64,
    events: u64,
    lost: u64,
}

#[derive(Debug, Default)]
struct LaneModel {
    offered: u64,
    /// Events of batches that were being appended when the process was killed: they may be in or not.
    doubtful: u64,
    /// Sent, in order, and not stored.
    under_way: Vec<Entry>,
    position: Position,
    stored: BTreeMap<u64, Stored>,
    /// Names of the batches that were stored, in order.
    names: Vec<u64>,
}

struct World {
    disk: MemoryDisk,
    boot: u8,
    spool: Spool,
    reader: Reader,
    lanes: [LaneModel; 2],
    next_name: u64,
    /// Something on the disk was damaged. From then on what is sent is stored and acknowledged at once: how many events
    /// there were up to a number that the backend has, short of the last that was sent, is not known if their records are
    /// damaged and the agent was restarted meanwhile.
    is_damaged: bool,
    has_flipped_marks: bool,
    /// Files were deleted. Until that is told, only the marks know of it.
    is_deleted: bool,
}

impl World {
    fn new() -> Self {
        let disk = MemoryDisk::default();
        let (spool, reader) = open(&disk, 1);
        Self {
            disk,
            boot: 1,
            spool,
            reader,
            lanes: Default::default(),
            next_name: 1,
            is_damaged: false,
            has_flipped_marks: false,
            is_deleted: false,
        }
    }

    fn lane(&mut self, lane: Lane) -> &mut LaneModel {
        &mut self.lanes[lane as usize - 1]
    }

    fn append(&mut self, lane: Lane, count: u64, size: usize) {
        let mut events = self.next_name.to_be_bytes().to_vec();
        events.resize(8 + size, b'z');
        let time = self.next_name;
        self.next_name += 1;
        let batch = Batch {
            first_time: time,
            last_time: time,
            count,
            uncompressed_bytes: 7,
            events: Bytes::from(events),
        };
        let _ = self.spool.append(lane, &batch);
        if self.disk.state().is_dead {
            self.lane(lane).doubtful += count;
            self.restart(self.boot);
        } else {
            self.lane(lane).offered += count;
        }
    }

    fn send(&mut self, lane: Lane, batches: usize) {
        for _ in 0..batches {
            let position = self.lane(lane).position;
            let Some(entry) = self.reader.next_after(lane, position) else { break };
            if self.disk.state().is_dead {
                // Killed before it could be sent.
                return self.restart(self.boot);
            }
            let model = self.lane(lane);
            assert!(entry.at > model.position, "positions rise");
            assert_eq!(entry.lane, lane);
            model.position = entry.at;
            model.under_way.push(entry);
        }
        if self.is_damaged {
            self.store(lane, usize::MAX);
            self.acknowledge(lane);
        }
    }

    fn store(&mut self, lane: Lane, batches: usize) {
        let model = self.lane(lane);
        let count = batches.min(model.under_way.len());
        for entry in model.under_way.drain(..count) {
            let stored = model.stored.entry(entry.at.epoch).or_default();
            if entry.at.sequence <= stored.last {
                continue;
            }
            let covered = match &entry.content {
                Content::Events(batch) => {
                    let name = u64::from_be_bytes(batch.events[..8].try_into().unwrap());
                    assert!(
                        model.names.last().is_none_or(|last| *last < name),
                        "in order, and nothing twice"
                    );
                    assert!(batch.events[8..].iter().all(|byte| *byte == b'z'));
                    assert_eq!(batch.first_time, name);
                    model.names.push(name);
                    stored.events += batch.count;
                    entry.at.sequence
                }
                Content::Lost(loss) => {
                    stored.lost += loss.events;
                    if loss.first_sequence == 0 { entry.at.sequence } else { loss.first_sequence }
                }
            };
            assert!(
                covered <= stored.last + 1,
                "a gap that nothing tells of after {} before {covered}, {:?}",
                stored.last,
                entry.at
            );
            stored.last = entry.at.sequence;
        }
    }

    fn acknowledge(&mut self, lane: Lane) {
        let stored: Vec<_> =
            self.lane(lane).stored.iter().map(|(epoch, stored)| (*epoch, stored.last)).collect();
        for (epoch, sequence) in stored {
            self.reader.acknowledge(lane, Position { epoch, sequence });
        }
    }

    fn reconnect(&mut self) {
        let boot = BootId([self.boot; 16]);
        let known: Vec<_> = Lane::ALL
            .into_iter()
            .zip(&self.lanes)
            .flat_map(|(lane, model)| {
                let at = |(epoch, stored): (&u64, &Stored)| Position { epoch: *epoch, sequence: stored.last };
                model.stored.iter().map(move |stored| (boot, lane, at(stored)))
            })
            .collect();
        assert!(!self.reader.resume(&known), "all of it was given out here");
        for lane in Lane::ALL {
            let position = self.reader.acknowledged(lane);
            let model = self.lane(lane);
            model.under_way.clear();
            model.position = position;
        }
    }

    /// Everything that was given out is stored and acknowledged.
    fn settle(&mut self) {
        self.work();
        for lane in Lane::ALL {
            self.store(lane, usize::MAX);
        }
        self.reconnect();
    }

    fn work(&mut self) {
        let mut state = self.disk.state();
        state.capacity = None;
        state.failing_writes = 0;
        state.failing_reads = 0;
        state.failing_syncs = 0;
        state.failing_removals = 0;
        state.is_read_only = false;
        state.kill_after = None;
    }

    fn restart(&mut self, boot: u8) {
        self.disk.state().is_dead = false;
        self.disk.state().kill_after = None;
        self.boot = boot;
        (self.spool, self.reader) = open(&self.disk, boot);
        self.reconnect();
    }

    /// Nothing that was lost is unknown to the disk.
    fn restart_in_order(&mut self, boot: u8) {
        self.work();
        self.spool.keep();
        self.restart(boot);
    }

    fn some_segment(&self, seed: u32) -> Option<(std::path::PathBuf, usize)> {
        let segments = self.disk.segments();
        let seed = seed as usize;
        (!segments.is_empty()).then(|| (segments[seed % segments.len()].clone(), seed / segments.len()))
    }

    fn deliver_all(&mut self) {
        self.work();
        // The first makes room, the second has what was refused before, and what tells of a gap at the end.
        for _ in 0..3 {
            self.spool.keep();
            for lane in Lane::ALL {
                self.send(lane, usize::MAX);
            }
            self.settle();
            for lane in Lane::ALL {
                self.append(lane, 1, 0);
                self.send(lane, usize::MAX);
            }
            self.settle();
        }
    }

    fn act(&mut self, deed: &Deed) {
        match *deed {
            Deed::Append { lane, count, size } => self.append(lane, u64::from(count), size.into()),
            Deed::Send { lane, batches } => self.send(lane, batches.into()),
            Deed::Store { lane, batches, acknowledge } => {
                self.store(lane, batches.into());
                if acknowledge {
                    self.acknowledge(lane);
                }
            }
            Deed::Reconnect => self.reconnect(),
            Deed::Restart => self.restart_in_order(self.boot),
            Deed::NewBoot => self.restart_in_order(self.boot.wrapping_add(1)),
            Deed::KillAt { writes, bytes } => {
                self.work();
                self.spool.keep();
                // Nothing is refused for want of a disk from here on.
                self.disk.state().kill_after = Some((writes.into(), bytes.into()));
            }
            Deed::Flip { seed } => {
                self.settle();
                if self.has_flipped_marks {
                    return;
                }
                self.is_damaged = true;
                if let Some((path, at)) = self.some_segment(seed) {
                    self.disk.change(&path, |bytes| {
                        let bit = at % (bytes.len().max(1) * 8);
                        bytes.iter_mut().skip(bit / 8).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
                    });
                }
            }
            Deed::Cut { seed } => {
                self.settle();
                if self.has_flipped_marks {
                    return;
                }
                self.is_damaged = true;
                if let Some((path, at)) = self.some_segment(seed) {
                    self.disk.change(&path, |bytes| bytes.truncate(at % (bytes.len() + 1)));
                }
            }
            Deed::Delete { seed } => {
                self.settle();
                if self.has_flipped_marks {
                    return;
                }
                self.is_damaged = true;
                if let Some((path, _)) = self.some_segment(seed) {
                    self.disk.delete(&path);
                }
            }
            // With the newest record and the newest marks both damaged, nothing knows of that record.
            Deed::FlipMarks { .. } if self.is_damaged => {}
            Deed::FlipMarks { at } => {
                if std::mem::take(&mut self.is_deleted) {
                    self.deliver_all();
                }
                self.has_flipped_marks = true;
                self.disk.change(&Path::new(DIRECTORY).join("marks"), |bytes| {
                    bytes.iter_mut().skip(at.into()).take(1).for_each(|byte| *byte ^= 4);
                });
            }
            Deed::DeleteDirectory => {
                self.settle();
                self.is_deleted = true;
                self.disk.delete_all();
                self.work();
                self.spool.keep();
            }
            Deed::LoseMarks => {
                self.deliver_all();
                self.spool.keep();
                self.disk.delete(&Path::new(DIRECTORY).join("marks"));
                self.restart(self.boot);
            }
            Deed::Foreign => self.disk.put(&Path::new(DIRECTORY).join("bulk-notes.spool"), b"not ours"),
            Deed::Full { room } => {
                let used = self.disk.used();
                self.disk.state().capacity = Some(used + usize::from(room));
            }
            Deed::Roomy => self.disk.state().capacity = None,
            Deed::FailWrites(count) => {
                // What is refused while not even that can be written down is forgotten by a kill.
                let mut state = self.disk.state();
                state.kill_after = None;
                state.failing_writes = count.into();
            }
            Deed::FailReads(count) => self.disk.state().failing_reads = count.into(),
            Deed::FailSyncs(count) => self.disk.state().failing_syncs = count.into(),
            Deed::FailRemovals(count) => self.disk.state().failing_removals = count.into(),
            Deed::ReadOnly(is_read_only) => {
                let mut state = self.disk.state();
                state.kill_after = None;
                state.is_read_only = is_read_only;
            }
            Deed::Keep => self.spool.keep(),
        }
        if self.disk.state().is_dead {
            self.restart(self.boot);
        }
        let stats = self.spool.stats();
        assert!(stats.bytes <= stats.limit, "{stats:?}");
    }
}

fn open(disk: &MemoryDisk, boot: u8) -> (Spool, Reader) {
    let limits = Limits { bytes: 128 << 10, sync_every: Duration::from_secs(1) };
    let opened = Spool::open_on(Arc::new(disk.clone()), Path::new(DIRECTORY), BootId([boot; 16]), limits);
    let (spool, reader, _) = opened.unwrap();
    (spool, reader)
}

fn run(deeds: &[Deed]) {
    let mut world = World::new();
    for deed in deeds {
        world.act(deed);
    }
    world.deliver_all();
    for lane in Lane::ALL {
        let model = world.lane(lane);
        let out: u64 = model.stored.values().map(|stored| stored.events + stored.lost).sum();
        let LaneModel { offered, doubtful, .. } = *model;
        assert!(
            (offered..=offered + doubtful).contains(&out),
            "{lane:?}: {offered} events went in, and {doubtful} perhaps; {out} came out or are counted: {:?}",
            model.stored
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn what_comes_out_is_what_went_in_less_what_is_counted(deeds in prop::collection::vec(deeds(), 1..150)) {
        run(&deeds);
    }
}

#[test]
fn what_is_on_disk_when_the_marks_are_damaged_is_missed_if_it_goes() {
    let append = Deed::Append { lane: Lane::Critical, count: 7, size: 10 };
    // One slot is flipped and the other is being written when the process is killed; which is which depends on `at`.
    for at in [0, 4096] {
        for opened in [Deed::Restart, Deed::NewBoot] {
            let killed = Deed::KillAt { writes: 1, bytes: 16 };
            let damaged = [Deed::FlipMarks { at }, killed, append.clone()];
            run(&[&[append.clone(), opened], &damaged[..], &[Deed::DeleteDirectory]].concat());
        }
    }
}

#[test]
fn what_was_given_out_before_the_marks_were_torn_is_not_taken_for_more() {
    let append = |lane, count, size| Deed::Append { lane, count, size };
    // The first record is cut and told as lost; the kill is at the acknowledgement of that.
    for count in [0, 5] {
        run(&[
            append(Lane::Bulk, count, 1593),
            append(Lane::Bulk, 1, 257),
            Deed::Restart,
            Deed::Cut { seed: 96 },
            Deed::KillAt { writes: 5, bytes: 16 },
            append(Lane::Bulk, 0, 0),
            append(Lane::Critical, 0, 0),
            Deed::Send { lane: Lane::Bulk, batches: 1 },
        ]);
    }
}

#[test]
fn what_the_backend_has_of_a_segment_is_not_lost_with_it_though_reading_fails_meanwhile() {
    let append = |lane, count, size| Deed::Append { lane, count, size };
    for failures in 1..4 {
        run(&[
            append(Lane::Bulk, 5, 0),
            append(Lane::Bulk, 7, 0),
            Deed::Send { lane: Lane::Bulk, batches: 2 },
            Deed::Store { lane: Lane::Bulk, batches: 1, acknowledge: false },
            Deed::Full { room: 0 },
            Deed::FailReads(failures),
            // There is room for this only in the place of the others.
            append(Lane::Critical, 1, 0),
            Deed::Restart,
        ]);
    }
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2_000)
}

fn batch(size: usize) -> Batch {
    Batch { count: 1, first_time: 1, last_time: 1, uncompressed_bytes: 1, events: vec![1; size].into() }
}

#[test]
fn appending_waits_for_no_disk_and_what_was_closed_is_made_durable_later() {
    let disk = MemoryDisk::default();
    let (spool, _reader) = open(&disk, 1);
    while disk.segments().len() < 3 {
        spool.append(Lane::Bulk, &batch(4000)).unwrap();
    }
    assert_eq!(disk.state().syncs, 0);
    spool.sync_now().unwrap();
    // Three segments and the marks.
    assert_eq!(disk.state().syncs, 4);
    spool.sync_now().unwrap();
    assert_eq!(disk.state().syncs, 4, "nothing was written since");
}

#[test]
fn what_was_written_before_a_failed_write_is_made_durable() {
    let disk = MemoryDisk::default();
    let (spool, _reader) = open(&disk, 1);
    spool.append(Lane::Bulk, &batch(100)).unwrap();
    disk.state().failing_writes = 1;
    assert!(spool.append(Lane::Bulk, &batch(100)).is_err());
    disk.state().failing_syncs = 1;
    // The segment is synced although it gets no more records, and that this fails is noticed.
    assert!(spool.sync_now().is_err());
    assert_eq!(spool.stats().faults.syncs, 1);
}

#[test]
fn what_could_not_be_made_durable_is_written_once_more_and_tried_again() {
    let disk = MemoryDisk::default();
    let (spool, mut reader) = open(&disk, 1);
    let mut appended = 0;
    while disk.segments().len() < 3 {
        spool.append(Lane::Bulk, &batch(4000)).unwrap();
        appended += 1;
    }
    // Two that are closed, the one that is written to, and the marks.
    disk.state().failing_syncs = 4;
    assert!(spool.sync_now().is_err());
    assert_eq!((disk.forgotten(), spool.stats().faults.syncs), (4, 4));
    // One file at a time, so that nobody waits long.
    for forgotten in [2, 1] {
        assert!(spool.sync_now().is_err());
        assert_eq!(disk.forgotten(), forgotten);
    }
    let before = disk.state().syncs;
    spool.sync_now().unwrap();
    assert_eq!((disk.forgotten(), disk.state().syncs), (0, before + 2));
    spool.sync_now().unwrap();
    assert_eq!(disk.state().syncs, before + 2, "there is nothing left to do");
    let mut at = reader.acknowledged(Lane::Bulk);
    for _ in 0..appended {
        let entry = reader.next_after(Lane::Bulk, at).unwrap();
        assert!(matches!(entry.content, Content::Events(_)), "{entry:?}");
        at = entry.at;
    }
}

#[test]
fn each_loss_counts_once_however_often_the_spool_is_opened() {
    let disk = MemoryDisk::default();
    let mut counted = 0;
    let mut told = 0;
    let mut refused = 0;
    for _ in 0..4 {
        let (spool, mut reader) = open(&disk, 1);
        // Of the first some are given out and not acknowledged, so their loss records stay one by one.
        let mut at = reader.acknowledged(Lane::Bulk);
        for _ in 0..3 {
            at = reader.next_after(Lane::Bulk, at).map_or(at, |entry| entry.at);
        }
        for _ in 0..60 {
            refused += u64::from(spool.append(Lane::Bulk, &batch(1 << 20)).is_err());
            spool.append(Lane::Bulk, &batch(6000)).unwrap();
        }
        counted += spool.stats().lanes[1].lost.iter().sum::<u64>();
    }
    let (_spool, mut reader) = open(&disk, 1);
    let mut at = reader.acknowledged(Lane::Bulk);
    let mut delivered = 0;
    while let Some(entry) = reader.next_after(Lane::Bulk, at) {
        match entry.content {
            Content::Events(batch) => delivered += batch.count,
            Content::Lost(loss) => told += loss.events,
        }
        at = entry.at;
    }
    assert_eq!((refused, delivered + told), (240, 480));
    assert_eq!(counted, told);
}
