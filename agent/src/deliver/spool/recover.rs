//! Finding out at the start what is in the directory.

use std::{collections::VecDeque, io};

use super::{
    core::{Access, Core},
    disk::Open,
    marks::{Mark, Marks, Pending},
    record::Kind,
    segment::{self, Found, Name, Segment},
    types::{Lane, Position},
    upkeep::{LOCK, MARKS},
};

/// Names of segments, marks, and by lane the segments.
type Contents = (Vec<Name>, Option<Marks>, [VecDeque<Segment>; 2]);

/// Another process has the directory.
#[derive(Debug)]
pub(super) struct Locked;

/// How often everything must be readable. After that what cannot be read counts as damaged: a disk with one bad place
/// must not keep the rest from being delivered.
pub(super) const RECOVERIES: u32 = 3;

// === impl Core ===

impl Core {
    /// Reads names, marks, and as many headers as it takes to know the numbers. If the directory cannot be read, nothing
    /// is `ready` and it is tried again later.
    ///
    /// # Errors
    /// When another process has the directory.
    pub(super) fn recover(&mut self) -> Result<(), Locked> {
        // Of what fails here, listing or writing will tell.
        let _ = self.disk.create_directory(&self.directory);
        self.take_lock()?;
        self.access = Access::Unknown;
        let tolerant = self.recoveries >= RECOVERIES;
        self.recoveries += 1;
        match self.look(tolerant) {
            Ok((names, marks, segments)) => self.take(&names, marks.as_ref(), segments),
            Err(_) => self.faults.reads += 1,
        }
        Ok(())
    }

    /// Reads what there is. What cannot be read is an error, or passed over if `tolerant`.
    fn look(&mut self, tolerant: bool) -> io::Result<Contents> {
        let names = self.names()?;
        let marks_path = self.directory.join(MARKS);
        let open =
            self.disk.open(&marks_path, Open::Create).or_else(|_| self.disk.open(&marks_path, Open::Read));
        match open {
            Ok(file) => self.marks_file.open(Some(file)),
            // It is not there and cannot be made.
            Err(_) if names.is_empty() || tolerant => self.marks_file.open(None),
            Err(error) => return Err(error),
        }
        let marks = self.marks_file.read().or_else(|error| if tolerant { Ok(None) } else { Err(error) })?;
        let mut segments = <[VecDeque<Segment>; 2]>::default();
        for name in &names {
            match self.first_record(*name) {
                Ok(Some(segment)) => segments[name.lane.index()].push_back(segment),
                // Nothing in it can be read: numbers will be missing if there was anything.
                Ok(None) => self.garbage.push((*name, 0)),
                Err(error) if !tolerant => return Err(error),
                Err(_) => self.faults.reads += 1,
            }
        }
        for segments in &mut segments {
            // A segment ends where the next begins, so only the last of an epoch has to be read to its end.
            for index in 0..segments.len() {
                let next =
                    segments.get(index + 1).filter(|next| next.name.epoch == segments[index].name.epoch);
                if let Some((first, events, time)) =
                    next.map(|next| (next.first, next.events_before, next.first_time))
                {
                    segments[index].last = first - 1;
                    segments[index].events_after = events;
                    segments[index].last_time = time;
                } else if let Err(error) = self.read_to_end(&mut segments[index])
                    && !tolerant
                {
                    return Err(error);
                }
            }
        }
        Ok((names, marks, segments))
    }

    /// Goes on from there.
    fn take(&mut self, names: &[Name], marks: Option<&Marks>, segments: [VecDeque<Segment>; 2]) {
        self.renumbered = marks.map(|marks| marks.renumbered).unwrap_or_default();
        let uncertain = marks.filter(|_| !self.marks_file.is_certain()).map(|marks| marks.epoch);
        for (lane, segments) in Lane::ALL.into_iter().zip(segments) {
            let state = self.lane(lane);
            state.segments = segments;
            let pending = state.marks.pending;
            state.marks = marks.map(|marks| marks.lanes[lane.index()]).unwrap_or_default();
            if let Some(epoch) = uncertain {
                // More may have been given out since. How many events there were up to here is known all the same.
                state.under_way.push_back(state.marks.given);
                state.marks.given.at = Position { epoch, sequence: u64::MAX };
            }
            // What was refused before the directory could be read.
            for (mark, refused) in state.marks.pending.iter_mut().zip(pending) {
                if refused.events > 0 {
                    mark.add(refused.events, refused.first_time, refused.last_time);
                }
            }
        }
        self.begin(names, marks);
        for lane in Lane::ALL {
            self.restore_ends(lane);
            let state = self.lane(lane);
            state.opened = state.marks.last.at;
        }
        self.access = Access::Ready;
        self.save_marks();
        self.remove_acknowledged();
    }

    /// Names of segments, in order.
    fn names(&mut self) -> io::Result<Vec<Name>> {
        let entries = self.disk.list(&self.directory)?;
        let others = entries.iter().filter(|entry| ![LOCK, MARKS].contains(&entry.name.as_str()));
        let names = others.map(|entry| entry.name.parse().ok().filter(|_: &Name| entry.is_file));
        let (known, foreign): (Vec<_>, Vec<_>) = names.partition(Option::is_some);
        self.faults.foreign = foreign.len() as u64;
        let mut names: Vec<Name> = known.into_iter().flatten().collect();
        names.sort_unstable();
        Ok(names)
    }

    fn first_record(&self, name: Name) -> io::Result<Option<Segment>> {
        let file = self.disk.open(&self.path(name), Open::Read)?;
        let end = file.size()?;
        let Some(Found { header, .. }) = segment::find(&*file, name, 0, end)? else { return Ok(None) };
        Ok(Some(Segment {
            name,
            boot: header.boot,
            first: header.first,
            last: header.sequence,
            events_before: header.events_before,
            events_after: header.events_after(),
            first_time: header.first_time,
            last_time: header.last_time,
            end,
            generation: 0,
            is_tombstone: false,
            is_gone: false,
            open_loss: None,
        }))
    }

    fn read_to_end(&self, segment: &mut Segment) -> io::Result<()> {
        let mut offset = 0;
        let file = self.disk.open(&self.path(segment.name), Open::Read)?;
        while let Some(found) = segment::find(&*file, segment.name, offset, segment.end)? {
            offset = found.offset + found.header.size();
            if found.header.sequence >= segment.last {
                segment.last = found.header.sequence;
                segment.events_after = found.header.events_after();
                segment.last_time = segment.last_time.max(found.header.last_time);
            }
        }
        Ok(())
    }

    /// Goes on with the numbers of this boot, or begins new ones: in another boot, and when the marks are lost, because
    /// numbers could have been given that are not on disk any more.
    fn begin(&mut self, names: &[Name], marks: Option<&Marks>) {
        let known = names.iter().map(|name| name.epoch).chain(marks.map(|marks| marks.epoch)).max();
        self.faults.marks_lost = u64::from(marks.is_none() && !names.is_empty());
        let is_certain = self.marks_file.is_certain();
        let continued =
            marks.filter(|marks| is_certain && marks.boot == self.boot && Some(marks.epoch) == known);
        if let Some(marks) = marks {
            self.epoch = marks.epoch;
            for lane in Lane::ALL {
                self.take_later_records(lane);
            }
        }
        if continued.is_some() {
            return;
        }
        self.epoch = self.new_epoch(known.unwrap_or(0));
        for lane in Lane::ALL {
            let epoch = self.epoch;
            let state = self.lane(lane);
            if marks.is_none() {
                // All of it may have been given out. It is sent again, what the backend does not know to have before it
                // is told as missing, and the backend stores it once.
                state.marks.given.at = state.segments.back().map(Segment::last_position).unwrap_or_default();
            }
            // Lost marks do not tell of the epochs on disk, and older ones not of the last. If these go, they are missed.
            for segment in &state.segments {
                state.marks.close(segment.end_mark());
            }
            state.marks.begin(epoch);
        }
    }

    /// The last record may have been written and the marks not.
    fn take_later_records(&mut self, lane: Lane) {
        let epoch = self.epoch;
        let state = self.lane(lane);
        let Some(segment) = state.segments.back().filter(|segment| segment.name.epoch == epoch) else {
            return;
        };
        if segment.last <= state.marks.last.at.sequence {
            return;
        }
        let (name, end, after) = (segment.name, segment.end, state.marks.last.at.sequence);
        state.marks.last = Mark {
            at: segment.last_position(),
            events: segment.events_after,
            time: state.marks.last.time.max(segment.last_time),
        };
        let Ok(file) = self.disk.open(&self.path(name), Open::Read) else { return };
        let mut offset = 0;
        while let Some(found) = segment::find_now(&*file, name, offset, end) {
            offset = found.offset + found.header.size();
            if found.header.sequence > after
                && found.header.kind == Kind::Refused
                && let Some(reason) = found.header.reason
            {
                // It has its number, so it waits for none.
                self.lane(lane).marks.pending[reason.index()] = Pending::default();
            }
        }
    }

    /// Finds out what is missing at the end of epochs that are over: the next epoch counts anew, so nothing after it
    /// tells.
    pub(super) fn restore_ends(&mut self, lane: Lane) {
        let boot = self.boot;
        let state = self.lane(lane);
        let acknowledged = state.marks.acknowledged;
        for closed in state.marks.closed.into_iter().filter(|closed| closed.at > acknowledged.at) {
            let epoch = closed.at.epoch;
            let end = state.segments.iter().rfind(|segment| segment.name.epoch == epoch);
            let boot = end.map_or(boot, |segment| segment.boot);
            let end = end.map(Segment::end_mark);
            let start = Mark { at: Position { epoch, sequence: 0 }, events: 0, time: acknowledged.time };
            let before =
                [Some(start), Some(acknowledged), end].into_iter().flatten().max_by_key(|mark| mark.at);
            let Some(before) = before.filter(|before| before.at < closed.at) else { continue };
            let name = Name { lane, epoch, first: before.at.sequence + 1 };
            let segment = Segment {
                name,
                boot,
                first: name.first,
                last: closed.at.sequence,
                events_before: before.events,
                events_after: closed.events,
                first_time: before.time,
                last_time: closed.time,
                end: 0,
                generation: 0,
                is_tombstone: true,
                is_gone: true,
                open_loss: None,
            };
            let at = state.segments.partition_point(|segment| segment.name < name);
            state.segments.insert(at, segment);
        }
    }
}
