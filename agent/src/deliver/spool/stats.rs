//! What the spool tells of itself.

use super::types::Reason;

/// How the spool is. Counters begin at 0 each time that a spool is opened, and what a run before has counted is not
/// counted again: the sum over all runs is what happened.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Bytes on disk, in whole blocks.
    pub bytes: u64,
    /// Most that it may take.
    pub limit: u64,
    /// The directory could be read. Until then batches are refused.
    pub is_ready: bool,
    /// Another process has the directory that is at our path now. Batches are refused until it is gone.
    pub is_locked_out: bool,
    /// By lane, in the order of [`super::Lane::ALL`].
    pub lanes: [LaneStats; 2],
    /// What went wrong, and was survived.
    pub faults: Faults,
}

/// How one lane is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LaneStats {
    /// Segment files.
    pub segments: usize,
    /// Batches of this epoch that are not acknowledged; of epochs before, those of their files are not counted.
    pub unacknowledged: u64,
    /// Events in these files that are not acknowledged, and those that were refused and not told yet.
    pub waiting_events: u64,
    /// Earliest time of an event that waits, in nanoseconds since 1970, as far as files tell; 0 if none does.
    pub waiting_since: u64,
    /// Latest time of an event that was acknowledged, in nanoseconds since 1970; 0 if none was.
    pub acknowledged_time: u64,
    /// Latest time of an event that was appended; what lies between is how far the backend is behind.
    pub last_time: u64,
    /// Batches that were appended since this spool was opened.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Events that were lost since this spool was opened, by reason, in the order of [`Reason::ALL`]. Each counts once,
    /// when it is lost: what is refused, at once; what is given up, when its segment is; what cannot be read any more,
    /// when the reader comes to it. A loss of a run before that is told only now does not count here.
    pub lost: [u64; Reason::ALL.len()],
}

/// What went wrong since this spool was opened, and was survived.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    /// Writes that failed.
    pub writes: u64,
    /// Reads that failed.
    pub reads: u64,
    /// Calls to make something durable that failed: a loss of power would have lost what was written before.
    pub syncs: u64,
    /// Files that could not be removed; it is tried again.
    pub removals: u64,
    /// Places where bytes were found that are no record.
    pub damaged: u64,
    /// How many bytes they were.
    pub damaged_bytes: u64,
    /// Files in the directory that are not ours. They are left alone.
    pub foreign: u64,
    /// Times that files of ours were gone.
    pub missing: u64,
    /// Times that the directory had to be made anew.
    pub recreated: u64,
    /// Times that the lock of the directory could not be taken anew, as on a disk that is read-only: a second agent is
    /// not kept out.
    pub locks: u64,
    /// Times that another process had the directory that was put in the place of ours.
    pub locked_out: u64,
    /// Times that the marks could not be read: what was sent before may be sent again.
    pub marks_lost: u64,
}
