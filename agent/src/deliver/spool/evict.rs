//! Giving up what is oldest, and leaving word of it in its place.

use super::{
    core::Core,
    disk::{DiskFile, Open},
    record::{HEADER_BYTES, Header, Kind},
    segment::{self, Segment},
    types::{Lane, Position, Reason},
};

impl Core {
    /// Frees the space of the oldest segment, for a record of `lane`: of the bulk lane first, then of the critical one.
    /// Bulk never pushes out what is critical. False if there is nothing that may be dropped.
    pub(super) fn drop_oldest(&mut self, lane: Lane, reason: Reason) -> bool {
        let victims: &[Lane] = match lane {
            Lane::Critical => &[Lane::Bulk, Lane::Critical],
            Lane::Bulk => &[Lane::Bulk],
        };
        victims.iter().any(|victim| {
            let state = self.lane(*victim);
            let oldest = state.segments.iter().position(|segment| !segment.is_tombstone && segment.end > 0);
            let Some(oldest) = oldest else { return false };
            if oldest + 1 == state.segments.len() {
                self.close_active(*victim);
            }
            self.drop_segment(*victim, oldest, reason)
        })
    }

    /// Replaces what is in a segment by loss records. They overwrite its beginning, which takes no room on a full disk,
    /// and then the file is cut.
    fn drop_segment(&mut self, lane: Lane, index: usize, reason: Reason) -> bool {
        let segment = self.lane(lane).segments[index].clone();
        let Ok(file) = self.disk.open(&self.path(segment.name), Open::Write) else {
            let before = self.lane(lane).segments.len();
            self.inspect();
            return self.lane(lane).segments.len() < before;
        };
        let (losses, lost) = self.losses_of(&segment, &*file, reason);
        let done = match losses.as_slice() {
            // All of it was acknowledged.
            [] => true,
            [only] if self.extend_loss_before(lane, index, only) => true,
            _ => {
                let bytes: Vec<u8> = losses.iter().flat_map(Header::encode).collect();
                let end = bytes.len() as u64;
                let written = file.write_at(&bytes, 0).is_ok();
                if written {
                    let state = self.lane(lane);
                    let dropped = &mut state.segments[index];
                    dropped.generation += 1;
                    dropped.is_tombstone = true;
                    dropped.end = end;
                    dropped.open_loss = losses.last().copied();
                    state.stats.lost[reason.index()] += lost;
                    let is_cut = file.truncate(end).is_ok();
                    self.sync_later(segment.name, file);
                    return is_cut;
                }
                return false;
            }
        };
        let state = self.lane(lane);
        state.segments.remove(index);
        state.stats.lost[reason.index()] += lost;
        self.garbage.push((segment.name, segment.bytes()));
        self.remove_garbage();
        done
    }

    /// What is lost with a segment. The backend may have what was given out and not acknowledged: of these, each has a
    /// record of its own, so that a number that turns out to be stored is not counted as lost. The rest is one record.
    /// With them, how many events are lost by this: not those that already were, and whose record is dropped here.
    fn losses_of(&mut self, segment: &Segment, file: &dyn DiskFile, reason: Reason) -> (Vec<Header>, u64) {
        let marks = self.lane(segment.name.lane).marks;
        let epoch = segment.name.epoch;
        let mut next = segment.first;
        let mut events = segment.events_before;
        if marks.acknowledged.at >= (Position { epoch, sequence: next }) {
            next = if marks.acknowledged.at.epoch > epoch {
                u64::MAX
            } else {
                marks.acknowledged.at.sequence + 1
            };
            events = marks.acknowledged.events;
        }
        let loss = |first: u64, last: u64, before: u64, after: u64, times: (u64, u64)| Header {
            kind: Kind::Lost,
            lane: segment.name.lane,
            reason: Some(reason),
            boot: segment.boot,
            epoch,
            first,
            sequence: last,
            events_before: before,
            count: after.saturating_sub(before),
            first_time: times.0,
            last_time: times.1,
            uncompressed_bytes: 0,
            length: 0,
            payload_crc: 0,
        };
        let mut losses = Vec::new();
        let mut newly_lost = 0;
        let mut offset = 0;
        while marks.given.at >= (Position { epoch, sequence: next }) && next <= segment.last {
            let Some(found) = segment::find_now(file, segment.name, offset, segment.end) else { break };
            let Header { first, sequence, events_before, first_time, last_time, .. } = found.header;
            if (Position { epoch, sequence }) > marks.given.at {
                break;
            }
            offset = found.offset + found.header.size();
            if sequence < next {
                continue;
            }
            if first > next {
                let hole = loss(next, first - 1, events, events_before, (segment.first_time, first_time));
                losses.push(Header { reason: Some(Reason::Damaged), ..hole });
            }
            losses.push(match found.header.kind {
                Kind::Events => {
                    newly_lost += found.header.count;
                    let after = found.header.events_after();
                    loss(sequence, sequence, events_before, after, (first_time, last_time))
                }
                Kind::Lost | Kind::Refused => found.header,
            });
            next = sequence + 1;
            events = found.header.events_after();
        }
        if next <= segment.last {
            let times = (segment.first_time, segment.last_time);
            let rest = loss(next, segment.last, events, segment.events_after, times);
            newly_lost += rest.count;
            while let Some(found) = segment::find_now(file, segment.name, offset, segment.end) {
                offset = found.offset + found.header.size();
                if found.header.sequence >= next && found.header.kind != Kind::Events {
                    newly_lost = newly_lost.saturating_sub(found.header.count);
                }
            }
            losses.push(rest);
        }
        (losses, newly_lost)
    }

    /// Adds to the loss that the segment before ends with, unless the backend may have that already. So a long outage
    /// leaves one record, not one for each segment.
    fn extend_loss_before(&mut self, lane: Lane, index: usize, loss: &Header) -> bool {
        let state = &self.lanes[lane.index()];
        let Some(before) = index.checked_sub(1).map(|index| state.segments[index].clone()) else {
            return false;
        };
        let Some(open) = before.open_loss else { return false };
        let may_be_known = before.last_position() <= state.marks.given.at;
        if may_be_known
            || open.epoch != loss.epoch
            || open.reason != loss.reason
            || open.sequence + 1 != loss.first
        {
            return false;
        }
        let extended = Header {
            sequence: loss.sequence,
            count: open.count + loss.count,
            first_time: open.first_time.min(loss.first_time),
            last_time: open.last_time.max(loss.last_time),
            ..open
        };
        let Ok(file) = self.disk.open(&self.path(before.name), Open::Write) else { return false };
        if file.write_at(&extended.encode(), before.end - HEADER_BYTES).is_err() {
            return false;
        }
        let state = self.lane(lane);
        let segment = &mut state.segments[index - 1];
        segment.generation += 1;
        segment.last = extended.sequence;
        segment.events_after = extended.events_after();
        segment.last_time = extended.last_time;
        segment.open_loss = Some(extended);
        self.sync_later(before.name, file);
        true
    }
}
