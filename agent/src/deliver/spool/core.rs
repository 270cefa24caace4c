//! What the writer and the reader share, behind one lock that nobody holds while it reads from a segment or waits for
//! the disk to make something durable.

use std::{collections::VecDeque, io, path::PathBuf, sync::Arc};

use super::{
    Limits,
    disk::{Disk, DiskFile, Lock},
    marks::{LaneMarks, MARKS_BYTES, Mark, Marks, MarksFile, RENUMBERED, Renumbered},
    segment::{self, Name, Segment},
    stats::{Faults, LaneStats, Stats},
    types::{BootId, Lane, Position, Reason},
};

/// Most files that wait open to be made durable. Of more, on a disk that is as slow as that, the oldest is left to the
/// kernel: descriptors are few.
pub(super) const MOST_CLOSED: usize = 128;

/// One lane.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    /// In the order of their names.
    pub segments: VecDeque<Segment>,
    /// The file of the last segment, if it is still written to.
    pub active: Option<Arc<dyn DiskFile>>,
    /// What was given out and not acknowledged, in this order: so the events up to an acknowledgement are known even if
    /// the record is damaged meanwhile. As long as what is under way.
    pub under_way: VecDeque<Mark>,
    pub marks: LaneMarks,
    /// The last record that was there when the spool was opened: the backend may have it although no mark says that it
    /// was given out, if the disk took no marks then.
    pub opened: Position,
    pub stats: LaneStats,
    /// Written since it was last made durable.
    pub dirty: bool,
}

/// Whether the directory may be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    /// It could not be read yet. Nothing is written: a number could be given twice.
    Unknown,
    /// What is in it is known.
    Ready,
    /// Another process has what was put in the place of ours.
    LockedOut,
}

/// All of it.
pub(super) struct Core {
    pub disk: Arc<dyn Disk>,
    pub directory: PathBuf,
    pub limits: Limits,
    pub boot: BootId,
    pub epoch: u64,
    /// As in [`Marks`].
    pub renumbered: [Renumbered; RENUMBERED],
    pub access: Access,
    /// How often that was tried.
    pub recoveries: u32,
    pub lock: Option<Lock>,
    pub marks_file: MarksFile,
    /// Marks were changed and could not be written.
    pub unsaved: bool,
    pub lanes: [LaneState; 2],
    /// Files that are done with and could not be removed yet, with the bytes they take.
    pub garbage: Vec<(Name, u64)>,
    /// Files that get no more records and that were written since they were last made durable. Syncing waits for the
    /// disk, so it is left to [`Core::unsynced`], which is not done under the lock.
    pub closed: Vec<(Name, Arc<dyn DiskFile>)>,
    /// Files that could not be made durable: they are written once more before that is tried again, because the kernel has
    /// forgotten what it could not write.
    pub undurable: VecDeque<(Name, Arc<dyn DiskFile>)>,
    /// The marks are written once more, for the same reason.
    pub marks_undurable: bool,
    pub directory_dirty: bool,
    pub faults: Faults,
}

// === impl LaneState ===

impl LaneState {
    /// Of each segment that has any: events that are not acknowledged, and the earliest time of one.
    fn waiting(&self) -> impl Iterator<Item = (u64, u64)> {
        let acknowledged = self.marks.acknowledged;
        let waits =
            move |segment: &&Segment| !segment.is_tombstone && segment.last_position() > acknowledged.at;
        self.segments.iter().filter(waits).map(move |segment| {
            let first = Position { epoch: segment.name.epoch, sequence: segment.first };
            let (before, since) = if acknowledged.at >= first {
                (acknowledged.events, acknowledged.time.max(segment.first_time))
            } else {
                (segment.events_before, segment.first_time)
            };
            (segment.events_after.saturating_sub(before), since)
        })
    }
}

// === impl Core ===

impl Core {
    pub(super) fn new(disk: Arc<dyn Disk>, directory: PathBuf, boot: BootId, limits: Limits) -> Self {
        Self {
            disk,
            directory,
            limits,
            boot,
            epoch: 0,
            renumbered: Default::default(),
            access: Access::Unknown,
            recoveries: 0,
            lock: None,
            marks_file: MarksFile::default(),
            unsaved: false,
            lanes: Default::default(),
            garbage: Vec::new(),
            closed: Vec::new(),
            undurable: VecDeque::new(),
            marks_undurable: false,
            directory_dirty: false,
            faults: Faults::default(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.access == Access::Ready
    }

    pub(super) fn lane(&mut self, lane: Lane) -> &mut LaneState {
        &mut self.lanes[lane.index()]
    }

    pub(super) fn path(&self, name: Name) -> PathBuf {
        self.directory.join(name.to_string())
    }

    /// Bytes that the spool takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        let segments: u64 = self.lanes.iter().flat_map(|lane| &lane.segments).map(Segment::bytes).sum();
        MARKS_BYTES + segments + self.garbage.iter().map(|(_, bytes)| bytes).sum::<u64>()
    }

    pub(super) fn stats(&self) -> Stats {
        let lanes = self.lanes.each_ref().map(|lane| {
            let LaneMarks { last, acknowledged, .. } = lane.marks;
            let behind = if acknowledged.at.epoch == last.at.epoch { acknowledged.at.sequence } else { 0 };
            LaneStats {
                segments: lane.segments.len(),
                unacknowledged: last.at.sequence.saturating_sub(behind),
                acknowledged_time: acknowledged.time,
                waiting_events: lane.waiting().map(|(events, _)| events).sum(),
                waiting_since: lane.waiting().map(|(_, since)| since).min().unwrap_or(0),
                last_time: last.time,
                ..lane.stats.clone()
            }
        });
        Stats {
            bytes: self.bytes(),
            limit: self.limits.bytes,
            is_ready: self.is_ready(),
            is_locked_out: self.access == Access::LockedOut,
            lanes,
            faults: self.faults.clone(),
        }
    }

    /// The last segment of a lane gets no more records.
    pub(super) fn close_active(&mut self, lane: Lane) {
        let state = self.lane(lane);
        let active = state.active.take();
        if let (Some(file), Some(segment)) = (active, state.segments.back())
            && std::mem::take(&mut state.dirty)
        {
            let name = segment.name;
            self.sync_later(name, file);
        }
    }

    /// Makes a file durable with the next [`Core::unsynced`], for which it stays open.
    pub(super) fn sync_later(&mut self, name: Name, file: Arc<dyn DiskFile>) {
        self.closed.retain(|(closed, _)| *closed != name);
        if self.closed.len() == MOST_CLOSED {
            self.closed.remove(0);
            self.faults.syncs += 1;
        }
        self.closed.push((name, file));
    }

    /// Writes the marks. A failure is remembered, and tried again with the next change.
    pub(super) fn save_marks(&mut self) {
        let lanes = self.lanes.each_ref().map(|lane| lane.marks);
        let &mut Self { boot, epoch, renumbered, .. } = self;
        let saved = self.marks_file.write(&Marks { boot, epoch, renumbered, lanes });
        self.unsaved = saved.is_err();
        self.faults.writes += u64::from(self.unsaved);
    }

    /// Remembers that events were refused. They get a number with the next record that can be written.
    pub(super) fn refuse(
        &mut self,
        lane: Lane,
        reason: Reason,
        events: u64,
        first_time: u64,
        last_time: u64,
    ) {
        let state = self.lane(lane);
        state.stats.lost[reason.index()] += events;
        state.marks.pending[reason.index()].add(events, first_time, last_time);
        if self.is_ready() {
            self.save_marks();
        }
    }

    /// Takes that the backend has all up to `at`, and removes the files that are done with. What was never given out
    /// cannot be acknowledged: nothing of an epoch of which nothing was.
    pub(super) fn acknowledge(&mut self, lane: Lane, at: Position) {
        let state = self.lane(lane);
        let given = state.marks.given;
        let at = if at.epoch == given.at.epoch { at.min(given.at) } else { at };
        if at <= state.marks.acknowledged.at || at > given.at {
            return;
        }
        let known = state.under_way.iter().chain([&given]).find(|mark| mark.at == at).copied();
        let mark = known.unwrap_or_else(|| self.mark_at(lane, at));
        let state = self.lane(lane);
        state.under_way.retain(|mark| mark.at > at);
        state.marks.acknowledged = Mark { time: mark.time.max(state.marks.acknowledged.time), ..mark };
        self.save_marks();
        self.remove_acknowledged();
    }

    /// Removes the files of which all is acknowledged. Not before that is written down: they would look lost.
    pub(super) fn remove_acknowledged(&mut self) {
        if self.unsaved {
            return;
        }
        for state in &mut self.lanes {
            let keep = usize::from(state.active.is_some());
            let done = |first: &Segment| first.last_position() <= state.marks.acknowledged.at;
            while state.segments.len() > keep && state.segments.front().is_some_and(done) {
                self.garbage
                    .extend(state.segments.pop_front().map(|segment| (segment.name, segment.bytes())));
            }
        }
        self.remove_garbage();
    }

    /// Removes files that are done with; what fails stays in the list.
    pub(super) fn remove_garbage(&mut self) {
        for (name, bytes) in std::mem::take(&mut self.garbage) {
            self.closed.retain(|(closed, _)| *closed != name);
            self.undurable.retain(|(undurable, _)| *undurable != name);
            match self.disk.remove(&self.path(name)) {
                Ok(()) => self.directory_dirty = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => {
                    self.faults.removals += 1;
                    self.garbage.push((name, bytes));
                }
            }
        }
    }

    /// The sum of events up to `at`, from the records.
    fn mark_at(&self, lane: Lane, at: Position) -> Mark {
        let state = &self.lanes[lane.index()];
        let mut mark = Mark { at, ..Mark::default() };
        let Some(segment) = state.segments.iter().find(|segment| segment.last_position() >= at) else {
            let last = state.marks.last;
            return if last.at == at { last } else { mark };
        };
        if segment.last_position() == at {
            return segment.end_mark();
        }
        mark.events = segment.events_before;
        mark.time = segment.first_time;
        let Ok(file) = self.disk.open(&self.path(segment.name), super::disk::Open::Read) else { return mark };
        let mut offset = 0;
        while let Some(found) = segment::find_now(&*file, segment.name, offset, segment.end) {
            if found.header.sequence > at.sequence {
                break;
            }
            mark.events = found.header.events_after();
            mark.time = found.header.last_time;
            offset = found.offset + found.header.size();
        }
        mark
    }
}
