//! Reading in order, past what is damaged or gone, which is told as a loss.

use std::{collections::HashMap, io, sync::Arc};

use bytes::Bytes;

use super::{
    Shared,
    core::Core,
    disk::{DiskFile, Open},
    marks::Mark,
    record::{HEADER_BYTES, Header, Kind},
    segment::{self, Found, Name, READ_FAILURES, Segment},
    types::{Batch, BootId, Content, Entry, Lane, Loss, Position, Reason},
};

/// How often a place that another thread changes meanwhile is looked at again before the caller is told that there is
/// nothing yet.
const ATTEMPTS: usize = 16;

/// Reads from the spool and acknowledges. There is one; it never keeps the writer waiting.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    cursors: [Option<Cursor>; 2],
    read_failures: u32,
    /// The last batch that was not sent, or refused by the backend.
    not_taken: HashMap<(Lane, Reason), Position>,
}

/// Where the last entry ended, so that the next need not be searched for.
#[derive(Debug)]
struct Cursor {
    mark: Mark,
    name: Name,
    generation: u32,
    file: Option<Arc<dyn DiskFile>>,
    offset: u64,
}

/// Bytes that are no record.
#[derive(Default)]
struct Damage {
    bytes: u64,
}

/// What is at a position, and the cursor after it.
struct Next {
    entry: Entry,
    after: Cursor,
    damage: Damage,
    /// That it is lost was found out by this reading: no record says so.
    is_new_loss: bool,
}

// === impl Reader ===

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cursors: [None, None], read_failures: 0, not_taken: HashMap::new() }
    }

    /// Where reading begins: the last position that is acknowledged.
    #[must_use]
    pub fn acknowledged(&self, lane: Lane) -> Position {
        let core = self.shared.core();
        outside(&core, core.lanes[lane.index()].marks.acknowledged.at)
    }

    /// The numbering that the writer is in.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let core = self.shared.core();
        core.published(core.epoch)
    }

    /// The boot that it was opened in.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.shared.core().boot
    }

    /// For each boot, epoch and lane that there is something of: the last number that is acknowledged.
    #[must_use]
    pub fn positions(&self) -> Vec<(BootId, Lane, Position)> {
        let core = self.shared.core();
        let mut positions = Vec::new();
        for lane in Lane::ALL {
            let state = &core.lanes[lane.index()];
            let of_segments = state.segments.iter().map(|segment| (segment.boot, segment.name.epoch));
            let mut epochs: Vec<_> = of_segments.chain([(core.boot, core.epoch)]).collect();
            epochs.dedup();
            positions.extend(epochs.into_iter().map(|(boot, epoch)| {
                let acknowledged = state.marks.acknowledged.at;
                let sequence = if acknowledged.epoch == epoch { acknowledged.sequence } else { 0 };
                (boot, lane, outside(&core, Position { epoch, sequence }))
            }));
        }
        positions
    }

    /// What comes after a position, which is one that an entry had or [`Reader::acknowledged`]. `None` if nothing does
    /// yet. It may be asked for again as long as it is not acknowledged.
    pub fn next_after(&mut self, lane: Lane, after: Position) -> Option<Entry> {
        let after = inside(&self.shared.core(), after);
        for _ in 0..ATTEMPTS {
            let (segment, base) = self.segment_after(lane, after)?;
            match self.read(&segment, base) {
                Ok(next) => {
                    self.read_failures = 0;
                    if let Some(entry) = self.give(lane, &segment, next) {
                        return Some(entry);
                    }
                }
                Err(error) => {
                    self.read_failures += 1;
                    let mut core = self.shared.core();
                    core.faults.reads += 1;
                    if error.kind() == io::ErrorKind::NotFound {
                        core.inspect();
                    }
                }
            }
        }
        None
    }

    /// Takes that the backend has everything of a lane up to a position, durably. The files that hold nothing else are
    /// removed.
    pub fn acknowledge(&mut self, lane: Lane, at: Position) {
        let mut core = self.shared.core();
        let at = inside(&core, at);
        core.acknowledge(lane, at);
    }

    /// Takes what the backend says that it has when a session begins: for a boot, an epoch and a lane the last number.
    /// True if it has what was never given out here, because this spool was set back as by a snapshot. Then nothing of
    /// this epoch is acknowledged, and from now on it has another number, which the backend does not know: say hello again.
    #[must_use]
    pub fn resume(&mut self, known: &[(BootId, Lane, Position)]) -> bool {
        self.shared.core().resume(known)
    }

    /// Counts events of a batch that the backend will never accept. That they are lost is told under the number of the
    /// batch by who sends it; it stays here until it is acknowledged, and if it comes to that again it does not count again:
    /// false.
    pub fn count_not_taken(&mut self, lane: Lane, at: Position, reason: Reason, events: u64) -> bool {
        let last = self.not_taken.entry((lane, reason)).or_default();
        let is_new = at > *last;
        if is_new {
            *last = at;
            self.shared.core().lane(lane).stats.lost[reason.index()] += events;
        }
        is_new
    }

    /// Returns when something was appended since it was last asked for. It may have been seen already.
    pub async fn appended(&self) {
        self.shared.appended.notified().await;
    }

    /// The segment with what comes next, and the sum of events before that if it is known.
    fn segment_after(&self, lane: Lane, after: Position) -> Option<(Segment, Mark)> {
        let core = self.shared.core();
        let state = &core.lanes[lane.index()];
        let acknowledged = state.marks.acknowledged;
        let after = after.max(acknowledged.at);
        let index = state.segments.partition_point(|segment| segment.last_position() <= after);
        let segment = state.segments.get(index).filter(|segment| segment.end > 0 || segment.is_gone)?.clone();
        let epoch = segment.name.epoch;
        let cursor = self.cursors[lane.index()].as_ref().map(|cursor| cursor.mark);
        let known = [cursor, Some(acknowledged)].into_iter().flatten().find(|mark| mark.at == after);
        let base = if after.epoch < epoch {
            Mark { at: Position { epoch, sequence: 0 }, ..Mark::default() }
        } else {
            // Where the place is not known any more, as after a restart, it is counted from the segment's beginning.
            known.unwrap_or(Mark { at: after, events: u64::MAX, time: 0 })
        };
        Some((segment, base))
    }

    /// Reads what comes after `base`.
    fn read(&self, segment: &Segment, mut base: Mark) -> io::Result<Next> {
        if segment.is_gone {
            let name = segment.name;
            let mark = segment.end_mark();
            base.events = if base.events == u64::MAX { segment.events_before } else { base.events };
            let after = Cursor { mark, name, generation: segment.generation, file: None, offset: 0 };
            let entry = hole(segment, base, &mark, Reason::Missing);
            return Ok(Next { entry, after, damage: Damage::default(), is_new_loss: true });
        }
        let cursor = self.cursors[segment.name.lane.index()].as_ref().filter(|cursor| {
            cursor.name == segment.name && cursor.generation == segment.generation && cursor.mark == base
        });
        let (file, mut offset) = match cursor.and_then(|cursor| Some((cursor.file.clone()?, cursor.offset))) {
            Some(known) => known,
            None => (self.shared.disk.open(&self.shared.core().path(segment.name), Open::Read)?, 0),
        };
        let mut found;
        let mut before = segment.events_before;
        loop {
            found = match segment::find(&*file, segment.name, offset, segment.end) {
                Err(error) if self.read_failures < READ_FAILURES => return Err(error),
                result => result.ok().flatten(),
            };
            match found {
                Some(Found { header, offset: at, .. }) if header.sequence <= base.at.sequence => {
                    before = header.events_after();
                    offset = at + header.size();
                }
                _ => break,
            }
        }
        if base.events == u64::MAX {
            base.events = before;
        }
        let after = |mark, offset| Cursor {
            mark,
            name: segment.name,
            generation: segment.generation,
            file: Some(file.clone()),
            offset,
        };
        let expected = base.at.sequence + 1;
        let Some(Found { header, offset: at, skipped }) = found else {
            let mark = segment.end_mark();
            let damage = Damage { bytes: segment.end.saturating_sub(offset) };
            let entry = hole(segment, base, &mark, Reason::Damaged);
            return Ok(Next { entry, after: after(mark, segment.end), damage, is_new_loss: true });
        };
        let damage = Damage { bytes: skipped };
        if header.first > expected {
            let mark = Mark {
                at: Position { epoch: header.epoch, sequence: header.first - 1 },
                events: header.events_before,
                time: header.first_time,
            };
            let reason = if skipped > 0 { Reason::Damaged } else { Reason::Missing };
            let entry = hole(segment, base, &mark, reason);
            return Ok(Next { entry, after: after(mark, at), damage, is_new_loss: true });
        }
        let mark = Mark {
            at: Position { epoch: header.epoch, sequence: header.sequence },
            events: header.events_after(),
            time: header.last_time,
        };
        let content = content(&*file, &header, at, &base)?;
        let is_new_loss = header.kind == Kind::Events && matches!(content, Content::Lost(_));
        let entry = Entry { boot: header.boot, lane: header.lane, at: mark.at, content };
        Ok(Next { entry, after: after(mark, at + header.size()), damage, is_new_loss })
    }

    /// Gives an entry out, unless what it was read from was changed meanwhile. That it was given is written down first:
    /// from then on the backend may have it.
    fn give(&mut self, lane: Lane, segment: &Segment, next: Next) -> Option<Entry> {
        let mut core = self.shared.core();
        let Next { entry, after, damage, is_new_loss } = next;
        let state = core.lane(lane);
        let is_same = |now: &Segment| now.name == segment.name && now.generation == segment.generation;
        if !state.segments.iter().any(is_same) {
            return None;
        }
        if entry.at > state.marks.given.at {
            state.marks.given = after.mark;
            if let Content::Lost(Loss { reason, events, .. }) = entry.content
                && is_new_loss
            {
                state.stats.lost[reason.index()] += events;
            }
            core.faults.damaged += u64::from(damage.bytes > 0);
            core.faults.damaged_bytes += damage.bytes;
            core.save_marks();
        }
        let state = core.lane(lane);
        if state.under_way.back().is_none_or(|last| last.at < entry.at) {
            state.under_way.push_back(after.mark);
        }
        self.cursors[lane.index()] = Some(after);
        let at = outside(&core, entry.at);
        Some(Entry { at, ..entry })
    }
}

/// With the number that its epoch has outside of the spool.
fn outside(core: &Core, at: Position) -> Position {
    Position { epoch: core.published(at.epoch), ..at }
}

/// As it is in the spool.
fn inside(core: &Core, at: Position) -> Position {
    Position { epoch: core.written(at.epoch), ..at }
}

/// The batches between two marks.
fn hole(segment: &Segment, before: Mark, last: &Mark, reason: Reason) -> Entry {
    let loss = Loss {
        first_sequence: before.at.sequence + 1,
        last_sequence: last.at.sequence,
        events: last.events.saturating_sub(before.events),
        first_time: if before.time == 0 { segment.first_time } else { before.time },
        last_time: last.time,
        reason,
    };
    Entry { boot: segment.boot, lane: segment.name.lane, at: last.at, content: Content::Lost(loss) }
}

fn content(file: &dyn DiskFile, header: &Header, at: u64, base: &Mark) -> io::Result<Content> {
    if let Some(mut loss) = header.loss() {
        if header.kind == Kind::Lost && header.first <= base.at.sequence {
            loss.first_sequence = base.at.sequence + 1;
            loss.events = header.events_after().saturating_sub(base.events.max(header.events_before));
        }
        return Ok(Content::Lost(loss));
    }
    let mut payload = vec![0; header.length as usize];
    let read = file.read_at(&mut payload, at + HEADER_BYTES)?;
    if read < payload.len() || crc32c::crc32c(&payload) != header.payload_crc {
        return Ok(Content::Lost(Loss {
            first_sequence: header.sequence,
            last_sequence: header.sequence,
            events: header.count,
            first_time: header.first_time,
            last_time: header.last_time,
            reason: Reason::Damaged,
        }));
    }
    Ok(Content::Events(Batch {
        first_time: header.first_time,
        last_time: header.last_time,
        count: header.count,
        uncompressed_bytes: header.uncompressed_bytes,
        events: Bytes::from(payload),
    }))
}
