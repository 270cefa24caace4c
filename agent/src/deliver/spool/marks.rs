//! The marks: where each lane has got to. One small file of two slots that are written in turns, so that one is whole
//! at any time. It is written in place, which takes no room on a full disk.

use std::{io, path::Path, sync::Arc};

use super::{
    disk::DiskFile,
    types::{BootId, Position, Reason},
};

/// A place in a lane, with the sum of what is before it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Mark {
    pub at: Position,
    /// Events of this epoch up to and with it.
    pub events: u64,
    /// Latest time of an event in it.
    pub time: u64,
}

/// Events that were refused and have no number yet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Pending {
    pub events: u64,
    pub first_time: u64,
    pub last_time: u64,
}

/// Where one lane has got to.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct LaneMarks {
    /// The last record that was written, of the epoch in [`Marks`].
    pub last: Mark,
    /// The last one that was acknowledged.
    pub acknowledged: Mark,
    /// The last one that was given out: the backend may have what is up to here.
    pub given: Mark,
    /// By reason.
    pub pending: [Pending; Reason::ALL.len()],
    /// Where the epochs before ended, the newest first and each once: nothing that comes after tells of records that are missing at
    /// their end. Of more, in as many boots without a backend, such a loss would not be known.
    pub closed: [Mark; CLOSED],
}

/// Epochs of which the end is remembered.
const CLOSED: usize = 8;

/// An epoch that goes by another number outside of the spool, see [`super::resume`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Renumbered {
    /// As in records and names of files. 0: none.
    pub epoch: u64,
    /// As the backend knows it.
    pub published: u64,
}

/// Epochs of which another number is remembered. Only the present one ever gets one, so these are of so many boots.
pub(super) const RENUMBERED: usize = 4;

/// All that is remembered beside the records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Marks {
    pub boot: BootId,
    pub epoch: u64,
    /// The newest first.
    pub renumbered: [Renumbered; RENUMBERED],
    pub lanes: [LaneMarks; 2],
}

/// The file. Without one, as on a disk that is read-only, marks live in memory alone.
#[derive(Debug, Default)]
pub(super) struct MarksFile {
    file: Option<Arc<dyn DiskFile>>,
    /// How often it was written; the higher of the two slots counts.
    generation: u64,
    /// Both slots are whole; until then both are written.
    has_both: bool,
}

const MAGIC: u64 = u64::from_be_bytes(*b"NJMARKS2");
const SLOT: u64 = 4096;
const WORDS: usize = 1 + 1 + 2 + 1 + 2 * RENUMBERED + 2 * (3 + 4 + 4 + 3 * Reason::ALL.len() + 4 * CLOSED);
const SIZE: usize = WORDS * 8 + 4;

/// Bytes that the file takes on disk.
pub(super) const MARKS_BYTES: u64 = 2 * SLOT;

// === impl MarksFile ===

impl MarksFile {
    /// Uses this file. Its room is taken at once, so that later writing needs none.
    pub(super) fn open(&mut self, file: Option<Arc<dyn DiskFile>>) {
        if let Some(file) = &file
            && file.size().is_ok_and(|size| size < MARKS_BYTES)
        {
            // What cannot be written now may be later.
            let _ = file.write_at(&[0; 2 * 4096], 0);
        }
        self.file = file;
        self.has_both = false;
    }

    /// Reads the newest slot that is whole. `None` if none is.
    ///
    /// If the other is not, it may have been the newer one, and more may have been given out than this one says: see
    /// [`MarksFile::is_certain`].
    ///
    /// # Errors
    /// When the file cannot be read, which says nothing of what is in it.
    pub(super) fn read(&mut self) -> io::Result<Option<Marks>> {
        let Some(file) = &self.file else { return Ok(None) };
        let slot = |number: u64| -> io::Result<_> {
            let mut bytes = [0; SIZE];
            let read = file.read_at(&mut bytes, number * SLOT)?;
            Ok(if read < SIZE { None } else { decode(&bytes) })
        };
        let slots = [slot(0)?, slot(1)?];
        self.has_both = slots.iter().all(Option::is_some);
        let Some((generation, marks)) = slots.into_iter().flatten().max_by_key(|(number, _)| *number) else {
            return Ok(None);
        };
        self.generation = generation;
        Ok(Some(marks))
    }

    pub(super) fn is_at(&self, path: &Path) -> bool {
        self.file.as_ref().is_some_and(|file| file.is_at(path))
    }

    /// Both slots were whole when they were read: the marks are those that were written last.
    pub(super) fn is_certain(&self) -> bool {
        self.has_both
    }

    /// Both slots are written the next time: nobody knows what is on the disk.
    pub(super) fn write_both(&mut self) {
        self.has_both = false;
    }

    pub(super) fn file(&self) -> Option<&Arc<dyn DiskFile>> {
        self.file.as_ref()
    }

    /// # Errors
    /// When it cannot be written; the slot before is whole then.
    pub(super) fn write(&mut self, marks: &Marks) -> io::Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let first = self.generation + 1;
        let last = if self.has_both { first } else { first + 1 };
        for generation in first..=last {
            file.write_at(&encode(generation, marks), (generation % 2) * SLOT)?;
            self.generation = generation;
        }
        self.has_both = true;
        Ok(())
    }
}

fn encode(generation: u64, marks: &Marks) -> Vec<u8> {
    let mut words = vec![MAGIC, generation];
    let (high, low) = marks.boot.0.split_at(8);
    words.extend([high, low].map(|half| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))));
    words.push(marks.epoch);
    words.extend(marks.renumbered.iter().flat_map(|renumbered| [renumbered.epoch, renumbered.published]));
    for lane in &marks.lanes {
        let LaneMarks { last, acknowledged, given, pending, closed } = lane;
        words.extend([last.at.sequence, last.events, last.time]);
        words.extend(acknowledged.words());
        words.extend(given.words());
        words.extend(
            pending.iter().flat_map(|pending| [pending.events, pending.first_time, pending.last_time]),
        );
        words.extend(closed.iter().flat_map(Mark::words));
    }
    debug_assert_eq!(words.len(), WORDS, "the layout has as many words as are written");
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
    let crc = crc32c::crc32c(&bytes);
    bytes.extend(crc.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; SIZE]) -> Option<(u64, Marks)> {
    let (body, crc) = bytes.split_at(SIZE - 4);
    if crc != crc32c::crc32c(body).to_be_bytes() {
        return None;
    }
    let (words, _) = body.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_be_bytes(*word));
    let mut next = || words.next().unwrap_or_default();
    if next() != MAGIC {
        return None;
    }
    let generation = next();
    let mut boot = [0; 16];
    boot[..8].copy_from_slice(&next().to_be_bytes());
    boot[8..].copy_from_slice(&next().to_be_bytes());
    let epoch = next();
    let renumbered = [(); RENUMBERED].map(|()| Renumbered { epoch: next(), published: next() });
    let lanes = [(); 2].map(|()| LaneMarks {
        last: Mark { at: Position { epoch, sequence: next() }, events: next(), time: next() },
        acknowledged: Mark::read(&mut next),
        given: Mark::read(&mut next),
        pending: [(); Reason::ALL.len()].map(|()| Pending {
            events: next(),
            first_time: next(),
            last_time: next(),
        }),
        closed: [(); CLOSED].map(|()| Mark::read(&mut next)),
    });
    Some((generation, Marks { boot: BootId(boot), epoch, renumbered, lanes }))
}

// === impl Mark ===

impl Mark {
    fn words(&self) -> [u64; 4] {
        [self.at.epoch, self.at.sequence, self.events, self.time]
    }

    fn read(next: &mut impl FnMut() -> u64) -> Self {
        Self { at: Position { epoch: next(), sequence: next() }, events: next(), time: next() }
    }
}

// === impl LaneMarks ===

impl LaneMarks {
    /// Ends the epoch and begins another.
    pub(super) fn begin(&mut self, epoch: u64) {
        self.close(self.last);
        self.last = Mark { at: Position { epoch, sequence: 0 }, events: 0, time: self.last.time };
    }

    /// Remembers that an epoch got to `end`, or further if that is known already.
    pub(super) fn close(&mut self, end: Mark) {
        let index = self.closed.partition_point(|closed| closed.at.epoch > end.at.epoch);
        let from_there = &mut self.closed[index..];
        if let Some(known) = from_there.first().copied()
            && end.at.sequence > 0
            && end.at > known.at
        {
            if end.at.epoch > known.at.epoch {
                from_there.rotate_right(1);
            }
            from_there[0] = end;
        }
    }
}

// === impl Pending ===

impl Pending {
    pub(super) fn add(&mut self, events: u64, first_time: u64, last_time: u64) {
        self.first_time = if self.events == 0 { first_time } else { self.first_time.min(first_time) };
        self.last_time = self.last_time.max(last_time);
        self.events += events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(number: u64) -> Marks {
        let mut lane = LaneMarks::default();
        lane.last = Mark { at: Position { epoch: 9, sequence: number }, events: 2, time: 3 };
        lane.acknowledged = Mark { at: Position { epoch: 4, sequence: 5 }, events: 6, time: 7 };
        lane.given = lane.last;
        lane.pending[3].add(10, 11, 12);
        lane.closed[7] = lane.acknowledged;
        let renumbered = [8, 6, 4, 2].map(|epoch| Renumbered { epoch, published: epoch + 1 });
        Marks { boot: BootId(*b"0123456789abcdef"), epoch: 9, renumbered, lanes: [lane; 2] }
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut written = MarksFile { file: Some(file.clone()), ..MarksFile::default() };
        for number in 1..=3 {
            written.write(&marks(number)).unwrap();
        }
        let mut read = MarksFile { file: Some(file.clone()), ..MarksFile::default() };
        assert_eq!(read.read().unwrap(), Some(marks(3)));
        // Numbers 1 and 2 were written with the first, then 3 and 4.
        file.write_at(&[0xff], 100).unwrap();
        let second = read.read().unwrap().unwrap();
        assert_eq!(second.lanes[0].last, marks(2).lanes[0].last, "the third was written to the first slot");
        assert!(!read.is_certain(), "more may have been given out since");
        file.write_at(&[0xff], SLOT + 100).unwrap();
        assert_eq!(read.read().unwrap(), None);
    }
    #[test]
    fn ends_of_epochs_are_kept_in_order_each_at_its_furthest_and_the_oldest_is_forgotten() {
        let end = |epoch, sequence| Mark { at: Position { epoch, sequence }, events: 1, time: 1 };
        let mut lane = LaneMarks::default();
        for (epoch, sequence) in [(3, 1), (5, 2), (4, 7), (3, 6), (5, 1), (9, 0)] {
            lane.close(end(epoch, sequence));
        }
        assert_eq!(lane.closed[..4], [end(5, 2), end(4, 7), end(3, 6), Mark::default()]);
        for epoch in 11..11 + CLOSED as u64 {
            lane.close(end(epoch, 1));
        }
        lane.close(end(5, 2));
        assert_eq!(lane.closed.map(|closed| closed.at.epoch), [18, 17, 16, 15, 14, 13, 12, 11]);
    }
}
