//! Segment files: their names, and finding records in them, past what is damaged.

use std::{fmt, io, str::FromStr};

use super::{
    disk::DiskFile,
    marks::Mark,
    record::{HEADER, HEADER_BYTES, Header, MAGIC},
    types::{BootId, Lane, Position},
};

/// The name of a segment file: `bulk-18a2f00000000000-0000000000000001.spool`. Sorted as text, those of a lane are in
/// the order in which they are delivered.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) struct Name {
    pub lane: Lane,
    pub epoch: u64,
    /// Number of the first record that was written to it.
    pub first: u64,
}

/// What is known of a segment without reading it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub name: Name,
    pub boot: BootId,
    /// First number in it; above that in its name if its head is damaged.
    pub first: u64,
    /// Last number in it, or that was in it. Below `first` as long as it is empty.
    pub last: u64,
    /// Events of this lane and epoch before it.
    pub events_before: u64,
    /// The same, with those in it.
    pub events_after: u64,
    pub first_time: u64,
    pub last_time: u64,
    /// Where its records end, in bytes.
    pub end: u64,
    /// Raised when what is in it is replaced: a reader that was at it has to look again.
    pub generation: u32,
    /// It has nothing but losses: dropping it would free nothing.
    pub is_tombstone: bool,
    /// There is no file: it stands for records that are known to have been there, at the end of an epoch.
    pub is_gone: bool,
    /// Its last record, where that is a loss that may still be extended.
    pub open_loss: Option<Header>,
}

/// A record that was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub header: Header,
    pub offset: u64,
    /// Bytes before it that were no record.
    pub skipped: u64,
}

/// How often reading may fail before what cannot be read counts as damaged.
pub(super) const READ_FAILURES: u32 = 3;

/// Bytes that are searched for a header at a time.
const STRIDE: usize = 64 << 10;

// === impl Name ===

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}-{:016x}.spool", self.lane.as_str(), self.epoch, self.first)
    }
}

impl FromStr for Name {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_suffix(".spool").ok_or(())?.split('-');
        let mut part = || parts.next().ok_or(());
        let (lane, epoch, first) = (part()?, part()?, part()?);
        let number = |text| u64::from_str_radix(text, 16).map_err(|_| ());
        let name = Self { lane: lane.parse()?, epoch: number(epoch)?, first: number(first)? };
        (name.to_string() == text).then_some(name).ok_or(())
    }
}

// === impl Segment ===

impl Segment {
    /// Bytes that it takes on disk, in whole blocks of 4 KiB.
    pub(super) fn bytes(&self) -> u64 {
        blocks(self.end)
    }

    /// Where its last record stands.
    pub(super) fn last_position(&self) -> Position {
        Position { epoch: self.name.epoch, sequence: self.last }
    }

    /// The same, with the sum of events up to there.
    pub(super) fn end_mark(&self) -> Mark {
        Mark { at: self.last_position(), events: self.events_after, time: self.last_time }
    }
}

/// The bytes that a file of this size takes on disk.
pub(super) fn blocks(size: u64) -> u64 {
    size.next_multiple_of(4096)
}

/// Finds the next record of the segment at or after `offset` that is whole and ends at or before `end`. What is
/// damaged is passed over: after a header that is not valid, the next that is counts.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn find(file: &dyn DiskFile, name: Name, offset: u64, end: u64) -> io::Result<Option<Found>> {
    if let Some(found) = record_at(file, name, offset, end)? {
        return Ok(Some(found));
    }
    let mut at = offset + 1;
    let mut buffer = vec![0; STRIDE];
    while at + HEADER_BYTES <= end {
        let wanted = usize::try_from(end - at).unwrap_or(STRIDE).min(STRIDE);
        let read = file.read_at(&mut buffer[..wanted], at)?;
        if read < HEADER {
            break;
        }
        let magics = memchr::memmem::find_iter(&buffer[..read], &MAGIC);
        for candidate in magics {
            let candidate = at + candidate as u64;
            if let Some(found) = record_at(file, name, candidate, end)? {
                return Ok(Some(Found { skipped: candidate - offset, ..found }));
            }
        }
        // A magic may lie across the border of two strides.
        at += (read - MAGIC.len() + 1) as u64;
    }
    Ok(None)
}

/// The same for who cannot come back later: reading is tried again, as often as the reader does, and then what cannot be
/// read is damaged.
pub(super) fn find_now(file: &dyn DiskFile, name: Name, offset: u64, end: u64) -> Option<Found> {
    let mut attempts = (0..=READ_FAILURES).map(|_| find(file, name, offset, end));
    attempts.find_map(Result::ok).flatten()
}

fn record_at(file: &dyn DiskFile, name: Name, offset: u64, end: u64) -> io::Result<Option<Found>> {
    let mut bytes = [0; HEADER];
    if offset + HEADER_BYTES > end || file.read_at(&mut bytes, offset)? < HEADER {
        return Ok(None);
    }
    let header = Header::decode(&bytes).filter(|header| {
        header.lane == name.lane
            && header.epoch == name.epoch
            && header.sequence >= name.first
            && offset + header.size() <= end
    });
    Ok(header.map(|header| Found { header, offset, skipped: 0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = Name { lane: Lane::Critical, epoch: 0x18a2_f000_0000_0000, first: 77 };
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn other_names_are_foreign() {
        for name in ["", "lock", "bulk-1-1.spool", "bulk-0000000000000001-000000000000000A.spool", "x.spool"]
        {
            assert_eq!(name.parse::<Name>(), Err(()), "{name}");
        }
    }
}
