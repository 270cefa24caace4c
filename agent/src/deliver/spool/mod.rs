//! The spool: batches on disk from when they are made until the backend has acknowledged them.
//!
//! # What it promises
//!
//! What comes out is what went in, in order and nothing twice, less what is counted as lost: each batch that was
//! appended, or refused, comes out as it is or as part of a loss record that stands in its place.
//!
//! - **The agent is killed** (`kill -9`, a crash): nothing that was appended is lost. The kernel has it.
//! - **Loss of power**: what was appended longer than [`Limits::sync_every`] before is there. What was appended after may
//!   be gone, and since the host boots then and numbers begin again, nothing on the host can tell how much; the backend
//!   may see it as a gap.
//! - **Full**, by its own limit or by that of the disk: the oldest segment of the bulk lane is given up first, then the
//!   oldest of the critical lane, but critical events never for bulk ones. Losses are told in the lane.
//! - **Bits that flip, files that are cut, deleted, moved or foreign**: what is whole is delivered, and what is not is
//!   counted exactly, because each record knows the sum of events before it. Three things are not known: a newest record
//!   that is damaged together with the newest marks; records of the present epoch whose files were deleted, if both slots
//!   of the marks are damaged before the loss is told; and, when the agent was restarted since, how many events were up
//!   to a number that the backend has and has not acknowledged, if the records there are damaged: they may count as lost.
//! - **Reading fails**: it is tried a few times; what cannot be read then is damaged.
//! - **No writable disk**: batches are refused, counted, and told of as soon as something can be written.
//! - It never panics and never ends the program. Only a directory that another process has is an error, at the start.
//!
//! # Design
//!
//! Batches are numbered from 1 in each lane and epoch. An epoch is a boot, or begins when marks were lost or damaged,
//! because then a number could be given twice. If the backend shows that numbers were given twice all the same, the epoch
//! goes by another number from then on (`resume`). Records are appended to segment files, of which each is of one lane and epoch; a
//! file that was there at the start gets no more records, so that its torn end stays its end. A file is removed when all
//! of it is acknowledged.
//!
//! The marks are a file of two slots that are written in turns, in place: the last number of each lane with the sum of
//! its events, what was acknowledged, what was given out, and what was refused without a number yet. They are written
//! with each record. With them it is known, after any damage, how many events there were.
//!
//! A segment that is given up is overwritten with loss records and cut. Numbers that were given out and not acknowledged
//! get a loss record each: the backend may have some of them, and says so when it is connected again; a number that it
//! has is not counted as lost. All others become one record, to which the next segments are added.
//!
//! There is one lock. A reader holds it to find out where to read and to say what it has read, not while it reads; a
//! segment that was changed meanwhile has another generation, and the reader looks again. Making durable is done by a
//! thread of its own ([`Keeper`]), also without the lock.
//!
//! Times are of events only. No decision depends on a clock that can be set, except that a new epoch is at least the time
//! in nanoseconds, and above all known ones.
//!
//! # Format
//!
//! A directory has the files `lock` (flock; the process ID in it is for people), `marks` and segments. Names of segments
//! are `<lane>-<epoch>-<first number>.spool`, numbers in hexadecimal with 16 digits. Others are left alone. A segment is a
//! sequence of records, a record a header of 96 bytes, little-endian, and a payload:
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | `f5 4e 4a 9c` |
//! | 4 | version: 1 |
//! | 5 | kind: 1 events, 2 numbers that are lost, 3 a loss that had no number |
//! | 6 | lane: 1 critical, 2 bulk |
//! | 7 | reason of a loss, see [`Reason`]; else 0 |
//! | 8..24 | boot ID |
//! | 24..32 | epoch |
//! | 32..40 | first number that it stands for; its own, but for kind 2 |
//! | 40..48 | its number, the last that it stands for |
//! | 48..56 | events in all records of the lane and epoch before it |
//! | 56..64 | events in it, or lost |
//! | 64..80 | earliest and latest time, nanoseconds since 1970 |
//! | 80..84 | size of the events before compression |
//! | 84..88 | bytes of payload |
//! | 88..92 | CRC-32C of the payload |
//! | 92..96 | CRC-32C of the bytes before |
//!
//! A record whose number is not above that of the record before it is superseded and skipped: it is what is left when a
//! segment was overwritten and not yet cut. After bytes that are no record the next valid header counts.
//!
//! # Why own code
//!
//! Looked at, with what each lacks of the above:
//!
//! | crate | what is missing |
//! |---|---|
//! | yaque 0.6 | its state is written when the queue is dropped; what a crash leaves is recovered by a call that panics on a file with a foreign name in its folder and on a lock file that it cannot parse; corrupted data is recovered "with loss" that nothing counts |
//! | commitlog 0.2 | a log by offset, without acknowledgements; its indexes are memory-mapped, so a file that is cut is a signal, not an error |
//! | okaywal 0.3 | a log for a store behind it, not a queue; "do not use in any production projects", format unstable |
//! | redb 4 | one file of pages: after one call of the file system that failed, all fail until it is closed and opened again, which a full disk makes happen |
//!
//! What these have in common is that they protect the whole against the part: one bad place and they stop, which is right
//! for a database. A spool must go on.

mod append;
mod core;
pub mod disk;
mod evict;
mod keeper;
mod marks;
mod reader;
mod record;
mod recover;
mod resume;
mod segment;
mod stats;
mod types;
mod upkeep;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use self::{
    core::Core,
    disk::{Disk, HostDisk},
    recover::RECOVERIES,
};
pub use self::{
    keeper::Keeper,
    reader::Reader,
    stats::{Faults, LaneStats, Stats},
    types::{Batch, BootId, Content, Entry, Lane, Loss, NotABootId, Position, Reason},
};

/// What the spool may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Most bytes on disk, at least 64 KiB.
    pub bytes: u64,
    /// What was appended longer ago than this survives a loss of power.
    pub sync_every: Duration,
}

/// Takes batches. Clones are the same spool; batches of several threads are appended one after the other.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

/// What was found when the spool was opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Recovered {
    /// Segment files of earlier runs that are still to be delivered.
    pub segments: usize,
    /// The marks could not be read although there were segments: what was sent before may be sent again.
    pub marks_lost: bool,
    /// Files in the directory that are not ours. They were left alone.
    pub foreign: u64,
    /// The directory can be read. If not, batches are refused until it can.
    pub ready: bool,
}

/// Why a spool is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Two agents would give the same number twice.
    #[error("the spool {} is in use by {holder}; stop that agent or give this one another directory", directory.display())]
    Locked {
        /// The directory.
        directory: PathBuf,
        /// Who has it.
        holder: String,
    },
}

/// The batch was not taken. It is counted, and a loss record will tell of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the spool refused a batch: {}", .0.as_str())]
pub struct Refused(pub Reason);

/// The disk did not take all that was appended.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the spool {} is not durable; its disk is full, read-only or broken, see the log of the kernel", .0.display())]
pub struct NotDurable(PathBuf);

struct Shared {
    disk: Arc<dyn Disk>,
    core: Mutex<Core>,
    /// Something was appended that the reader may not have seen.
    appended: Notify,
}

// === impl Limits ===

impl Limits {
    /// Size at which a segment is closed, so that a few of them fit: an eighth, between 8 KiB and 4 MiB. A batch larger
    /// than this is refused.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        (self.bytes / 8).clamp(8 << 10, 4 << 20)
    }
}

impl Default for Limits {
    /// 512 MiB, and a second.
    fn default() -> Self {
        Self { bytes: 512 << 20, sync_every: Duration::from_secs(1) }
    }
}

// === impl Spool ===

impl Spool {
    /// Opens the spool in a directory, which is made if need be.
    ///
    /// # Errors
    /// Only if another process has it. A directory that cannot be used is no error: batches are refused until it can.
    pub fn open(
        directory: &Path,
        boot: BootId,
        limits: Limits,
    ) -> Result<(Self, Reader, Recovered), OpenError> {
        Self::open_on(Arc::new(HostDisk), directory, boot, limits)
    }

    /// The same on another file system.
    ///
    /// # Errors
    /// As [`Spool::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        directory: &Path,
        boot: BootId,
        limits: Limits,
    ) -> Result<(Self, Reader, Recovered), OpenError> {
        let limits = Limits { bytes: limits.bytes.max(64 << 10), ..limits };
        let mut core = Core::new(disk.clone(), directory.to_owned(), boot, limits);
        for _ in 0..=RECOVERIES {
            if !core.is_ready() {
                core.recover().map_err(|_| OpenError::Locked {
                    directory: directory.to_owned(),
                    holder: disk::holder(&directory.join(upkeep::LOCK)),
                })?;
            }
        }
        let recovered = Recovered {
            segments: core.lanes.iter().map(|lane| lane.segments.len()).sum(),
            marks_lost: core.faults.marks_lost > 0,
            foreign: core.faults.foreign,
            ready: core.is_ready(),
        };
        let shared = Arc::new(Shared { disk, core: Mutex::new(core), appended: Notify::new() });
        Ok((Self { shared: shared.clone() }, Reader::new(shared), recovered))
    }

    /// Appends a batch and returns where it stands. It survives the end of this process when this returns.
    ///
    /// # Errors
    /// When it cannot be taken, for want of room or because the disk does not take it.
    pub fn append(&self, lane: Lane, batch: &Batch) -> Result<Position, Refused> {
        let result = self.shared.core().append(lane, batch);
        self.shared.appended.notify_one();
        result.map_err(Refused)
    }

    /// Counts events of a lane that were lost on their way here; a loss record will tell of them.
    pub fn lose(&self, lane: Lane, reason: Reason, events: u64, first_time: u64, last_time: u64) {
        self.shared.core().refuse(lane, reason, events, first_time, last_time);
    }

    /// Makes durable what was appended, looks whether the files are where they were, and tries again what failed. The
    /// [`Keeper`] does this every [`Limits::sync_every`].
    pub fn keep(&self) {
        // What failed is counted, and tried again the next time.
        let _ = self.sync_now();
    }

    /// The same at an orderly stop: when it returns, all that was appended survives a loss of power. It waits for the
    /// disk, but keeps nobody else waiting.
    ///
    /// # Errors
    /// When the disk did not take all of it. What was appended is there as long as the host keeps its power.
    pub fn sync_now(&self) -> Result<(), NotDurable> {
        let (unsynced, directory) = {
            let mut core = self.shared.core();
            core.retry();
            (core.unsynced(), core.directory.clone())
        };
        let failed = unsynced.sync(&*self.shared.disk, &directory);
        let mut core = self.shared.core();
        let is_durable = failed.is_empty();
        core.synced(failed);
        if is_durable && core.undurable.is_empty() && core.is_ready() && !core.unsaved {
            return Ok(());
        }
        Err(NotDurable(directory))
    }

    /// Whether all that was appended or refused so far would be known to the next run.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        let core = self.shared.core();
        core.access == core::Access::Ready && !core.unsaved
    }

    /// How it is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.core().stats()
    }

    /// How often [`Spool::keep`] is to be called.
    #[must_use]
    pub fn sync_every(&self) -> Duration {
        self.shared.core().limits.sync_every
    }
}

// === impl Shared ===

impl Shared {
    /// Nothing in there is left half done by a panic that would not be found out by its checksums.
    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("disk", &self.disk).finish_non_exhaustive()
    }
}
