//! Writing records, and making room for them.

use std::{io, sync::Arc};

use super::{
    core::Core,
    disk::{DiskFile, Open},
    marks::{Mark, Pending},
    record::{HEADER_BYTES, Header, Kind},
    segment::{Name, Segment, blocks},
    types::{Batch, Lane, Position, Reason},
};

/// How often room is made for one record on a disk that says it is full. Others may take what was freed.
const ATTEMPTS: usize = 4;

impl Core {
    /// Writes a batch. What is refused is counted, and told in the lane when a record can be written again.
    pub(super) fn append(&mut self, lane: Lane, batch: &Batch) -> Result<Position, Reason> {
        let result = self.try_append(lane, batch);
        match result {
            Ok(_) => {
                let stats = &mut self.lane(lane).stats;
                stats.batches += 1;
                stats.events += batch.count;
            }
            Err(reason) => self.refuse(lane, reason, batch.count, batch.first_time, batch.last_time),
        }
        result
    }

    fn try_append(&mut self, lane: Lane, batch: &Batch) -> Result<Position, Reason> {
        if !self.is_ready() {
            return Err(Reason::Unwritable);
        }
        let length = u32::try_from(batch.events.len()).map_err(|_| Reason::TooLarge)?;
        if HEADER_BYTES + u64::from(length) > self.limits.segment_bytes() {
            return Err(Reason::TooLarge);
        }
        self.write_pending(lane);
        let mut header = self.next_header(lane, Kind::Events);
        header.count = batch.count;
        header.first_time = batch.first_time;
        header.last_time = batch.last_time;
        header.uncompressed_bytes = batch.uncompressed_bytes;
        header.length = length;
        header.payload_crc = crc32c::crc32c(&batch.events);
        self.write(&header, &batch.events)
    }

    /// Gives numbers to what was refused, as far as that can be written.
    pub(super) fn write_pending(&mut self, lane: Lane) {
        for (reason, _) in Reason::ALL {
            let Pending { events, first_time, last_time } = self.lane(lane).marks.pending[reason.index()];
            if events == 0 {
                continue;
            }
            let mut header = self.next_header(lane, Kind::Refused);
            header.reason = Some(reason);
            header.count = events;
            header.first_time = first_time;
            header.last_time = last_time;
            // Taken back before the record is there: marks and record are written as one.
            self.lane(lane).marks.pending[reason.index()] = Pending::default();
            if self.write(&header, &[]).is_err() {
                self.lane(lane).marks.pending[reason.index()].add(events, first_time, last_time);
                return;
            }
        }
    }

    fn next_header(&mut self, lane: Lane, kind: Kind) -> Header {
        let (boot, epoch) = (self.boot, self.epoch);
        let Mark { at, events, .. } = self.lane(lane).marks.last;
        Header {
            kind,
            lane,
            reason: None,
            boot,
            epoch,
            first: at.sequence + 1,
            sequence: at.sequence + 1,
            events_before: events,
            count: 0,
            first_time: 0,
            last_time: 0,
            uncompressed_bytes: 0,
            length: 0,
            payload_crc: 0,
        }
    }

    fn write(&mut self, header: &Header, payload: &[u8]) -> Result<Position, Reason> {
        // A new file may be needed, and its last block is counted whole.
        let needed = blocks(header.size()) + 4096;
        while self.bytes() + needed > self.limits.bytes {
            if !self.drop_oldest(header.lane, Reason::SpoolFull) {
                return Err(Reason::SpoolFull);
            }
        }
        let mut record = header.encode().to_vec();
        record.extend(payload);
        for _ in 0..ATTEMPTS {
            match self.write_once(header, &record) {
                Ok(at) => return Ok(at),
                Err(error) if is_full(&error) => {
                    self.faults.writes += 1;
                    if !self.drop_oldest(header.lane, Reason::DiskFull) {
                        return Err(Reason::DiskFull);
                    }
                }
                Err(_) => {
                    self.faults.writes += 1;
                    self.close_active(header.lane);
                    return Err(Reason::Unwritable);
                }
            }
        }
        Err(Reason::DiskFull)
    }

    fn write_once(&mut self, header: &Header, record: &[u8]) -> io::Result<Position> {
        let file = self.active(header, record.len() as u64)?;
        let state = self.lane(header.lane);
        let segment = state.segments.back_mut().expect("the active file is that of the last segment");
        if let Err(error) = file.write_at(record, segment.end) {
            // What was written of it must not be taken for a record later.
            if file.truncate(segment.end).is_err() {
                self.close_active(header.lane);
            }
            return Err(error);
        }
        if segment.end == 0 {
            segment.first_time = header.first_time;
        }
        segment.end += record.len() as u64;
        segment.last = header.sequence;
        segment.events_after = header.events_after();
        segment.first_time = segment.first_time.min(header.first_time);
        segment.last_time = segment.last_time.max(header.last_time);
        let at = Position { epoch: header.epoch, sequence: header.sequence };
        state.marks.last =
            Mark { at, events: header.events_after(), time: state.marks.last.time.max(header.last_time) };
        state.dirty = true;
        self.save_marks();
        Ok(at)
    }

    /// Not in a directory of another process.
    fn may_write(&self) -> io::Result<()> {
        if self.is_ready() { Ok(()) } else { Err(io::Error::other("another process has the spool")) }
    }

    /// The file that takes the next record: that of the last segment, or a new one when it would grow too large, or is
    /// not where it was.
    fn active(&mut self, header: &Header, size: u64) -> io::Result<Arc<dyn DiskFile>> {
        let segment_bytes = self.limits.segment_bytes();
        let state = self.lane(header.lane);
        if let (Some(file), Some(segment)) = (&state.active, state.segments.back()) {
            let (file, name) = (file.clone(), segment.name);
            let fits = segment.end == 0 || segment.end + size <= segment_bytes;
            if !file.is_at(&self.path(name)) {
                self.inspect();
            } else if fits {
                return Ok(file);
            }
        }
        self.close_active(header.lane);
        self.may_write()?;
        let name = Name { lane: header.lane, epoch: header.epoch, first: header.first };
        let path = self.path(name);
        let file = match self.disk.open(&path, Open::Replace) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.inspect();
                self.may_write()?;
                self.disk.open(&path, Open::Replace)?
            }
            opened => opened?,
        };
        self.directory_dirty = true;
        self.garbage.retain(|(garbage, _)| *garbage != name);
        let boot = self.boot;
        let state = self.lane(header.lane);
        state.segments.retain(|segment| segment.name != name);
        state.segments.push_back(Segment {
            name,
            boot,
            first: header.first,
            last: header.first - 1,
            events_before: header.events_before,
            events_after: header.events_before,
            first_time: header.first_time,
            last_time: 0,
            end: 0,
            generation: 0,
            is_tombstone: false,
            is_gone: false,
            open_loss: None,
        });
        state.active = Some(file.clone());
        Ok(file)
    }
}

/// The disk has no room, or we may not have more of it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
