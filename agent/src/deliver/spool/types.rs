//! What goes into the spool and comes out of it.

use std::{fmt, str::FromStr};

use bytes::Bytes;

/// A lane of events. A flood in one cannot push out what is in another that matters more.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Lane {
    /// Process, credential, login and kernel-integrity events.
    Critical = 1,
    /// File and network events.
    Bulk = 2,
}

/// A boot of the host: the UUID in `/proc/sys/kernel/random/boot_id`.
#[derive(Clone, Copy, Eq, Hash, PartialEq)]
pub struct BootId(pub [u8; 16]);

/// Text that is not a boot ID.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("boot ID {0:?} is not a UUID; /proc/sys/kernel/random/boot_id has one")]
pub struct NotABootId(String);

/// A place in a lane. Ordered as batches are delivered.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Position {
    /// Which numbering: numbers begin again at 1 with each boot, and when the spool had to be made anew. The time at
    /// which this one began, in nanoseconds since 1970, or a later number if the clock was set back.
    pub epoch: u64,
    /// Number of a batch, from 1. 0 stands before the first.
    pub sequence: u64,
}

/// Events of one lane, ready to be sent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Batch {
    /// Earliest time of an event, in nanoseconds since 1970.
    pub first_time: u64,
    /// Latest time of one.
    pub last_time: u64,
    /// How many events.
    pub count: u64,
    /// Size of the events before compression, in bytes.
    pub uncompressed_bytes: u32,
    /// One zstd frame; the spool does not look into it.
    pub events: Bytes,
}

/// Events that were handed to the spool and will not come out of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Loss {
    /// Number of the first batch that is gone; 0 where it never had one.
    pub first_sequence: u64,
    /// Number of the last one; 0 where it never had one.
    pub last_sequence: u64,
    /// How many events were in them.
    pub events: u64,
    /// No event was earlier, in nanoseconds since 1970.
    pub first_time: u64,
    /// No event was later.
    pub last_time: u64,
    /// Why.
    pub reason: Reason,
}

/// Why events were lost.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum Reason {
    /// The spool had as many bytes as it may have.
    SpoolFull = 1,
    /// The file system had no room.
    DiskFull = 2,
    /// The file system refused for another reason: it is read-only, broken or gone.
    Unwritable = 3,
    /// What was read is not what was written.
    Damaged = 4,
    /// A file of the spool was deleted by somebody else.
    Missing = 5,
    /// The batch is larger than the spool, or the backend, can take.
    TooLarge = 6,
    /// The backend will never accept the batch.
    Refused = 7,
    /// More events came than could be written, and memory for them was at its limit.
    QueueFull = 8,
}

/// What the reader finds at a position.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Boot in which it was written.
    pub boot: BootId,
    /// Lane that it is of.
    pub lane: Lane,
    /// Where it stands. What follows is at [`super::Reader::next_after`] of this.
    pub at: Position,
    /// Events, or what is known of those that are lost.
    pub content: Content,
}

/// Events, or what is known of those that are lost.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// A batch as it was appended.
    Events(Batch),
    /// It stands for the batches that are gone.
    Lost(Loss),
}

// === impl Lane ===

impl Lane {
    /// All of them, those that matter most first.
    pub const ALL: [Self; 2] = [Self::Critical, Self::Bulk];

    /// `critical` or `bulk`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Bulk => "bulk",
        }
    }

    pub(in crate::deliver) const fn index(self) -> usize {
        self as usize - 1
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| *lane as u8 == number)
    }
}

impl FromStr for Lane {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|lane| lane.as_str() == text).ok_or(())
    }
}

// === impl Reason ===

impl Reason {
    /// All of them, with the word for each.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::SpoolFull, "spool_full"),
        (Self::DiskFull, "disk_full"),
        (Self::Unwritable, "unwritable"),
        (Self::Damaged, "damaged"),
        (Self::Missing, "missing"),
        (Self::TooLarge, "too_large"),
        (Self::Refused, "refused"),
        (Self::QueueFull, "queue_full"),
    ];

    /// The word for it, as in loss records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::ALL[self.index()].1
    }

    pub(in crate::deliver) const fn index(self) -> usize {
        self as usize - 1
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().map(|(reason, _)| *reason).find(|reason| *reason as u8 == number)
    }
}

// === impl BootId ===

impl FromStr for BootId {
    type Err = NotABootId;

    fn from_str(text: &str) -> Result<Self, NotABootId> {
        let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
        number.map(|number| Self(number.to_be_bytes())).ok_or_else(|| NotABootId(text.to_owned()))
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let dash = if matches!(index, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
