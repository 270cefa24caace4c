//! What the parts of the store share.

use std::{
    collections::BTreeMap,
    fmt,
    fs::OpenOptions,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::watch;

use crate::{hour::Hour, locks};

use super::{
    damage::{Damage, ENDING},
    index::Index,
    partition::Partition,
    segment::Segment,
};

/// Whether batches are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// They are.
    Ready,
    /// There is no room on the disk; they are refused until there is.
    Full(String),
    /// The disk cannot be written for another reason; it is tried again with each batch.
    Failing(String),
}

/// All files that hold events. Each event is in one of them.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// In the order of the log files that they were made of.
    pub partitions: Vec<Arc<Partition>>,
    /// By number; all later than those that partitions were made of.
    pub segments: BTreeMap<u64, Arc<Segment>>,
}

/// What the store did since it was opened.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches that were stored.
    pub batches: AtomicU64,
    /// Events in them.
    pub events: AtomicU64,
    /// Batches that came again.
    pub duplicates: AtomicU64,
    /// Batches that could not be written.
    pub refused: AtomicU64,
    /// Times that the disk was told to make the log durable.
    pub syncs: AtomicU64,
    /// Bytes that were written to the log.
    pub bytes: AtomicU64,
    /// Bytes at the ends of log files that a crash had torn: nothing in them had been acknowledged.
    pub torn: AtomicU64,
    /// Bytes in log files that had changed since they were written: they were acknowledged, and are lost.
    pub damaged: AtomicU64,
    /// Files in the directories of log and events that are not of this program; they are left alone.
    pub foreign: AtomicU64,
    /// Parquet files that could not be read, or not all of them.
    pub damaged_partitions: AtomicU64,
    /// Parquet files that were dropped because of their age.
    pub dropped_partitions: AtomicU64,
    /// Why the log could not be turned to Parquet or old partitions not be dropped, so often.
    pub maintenance_failures: AtomicU64,
}

/// What the parts of the store share.
#[derive(Debug)]
pub struct State {
    /// The data directory.
    pub dir: PathBuf,
    /// Where events are.
    pub catalog: RwLock<Catalog>,
    /// What is durable.
    pub index: RwLock<Index>,
    /// Files that were found to be damaged, by their paths.
    pub damages: Mutex<BTreeMap<PathBuf, Damage>>,
    /// Whether batches are taken.
    pub condition: watch::Sender<Condition>,
    /// A thread of the store that panicked.
    pub dead: watch::Sender<Option<&'static str>>,
    /// Raised whenever there is something new to read.
    pub committed: watch::Sender<u64>,
    /// The hour by which events are too old, as the clock of the retention has it.
    pub kept_by: AtomicU64,
    /// What was done.
    pub counters: Counters,
}

/// Adds to a counter.
pub fn count(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

// === impl Catalog ===

impl Catalog {
    /// The latest hour in which something came.
    #[must_use]
    pub fn newest(&self) -> Option<Hour> {
        let segments = self.segments.values().filter(|segment| segment.is_used());
        let hours = self.partitions.iter().map(|partition| partition.hour);
        hours.chain(segments.map(|segment| segment.hour)).max()
    }
}

// === impl State ===

impl State {
    /// All files as they are now.
    #[must_use]
    pub fn catalog(&self) -> Catalog {
        locks::read(&self.catalog).clone()
    }

    /// The hour by which events are too old.
    #[must_use]
    pub fn kept_by(&self) -> Hour {
        Hour(self.kept_by.load(Ordering::Relaxed))
    }

    /// Sets it.
    pub fn keep_by(&self, hour: Hour) {
        self.kept_by.store(hour.0, Ordering::Relaxed);
    }

    /// Lists a file with the ending `.damaged`. Says whether it was not listed before.
    pub fn list_damage(&self, path: &Path) -> bool {
        let Some(damage) = Damage::of(path) else { return false };
        locks::lock(&self.damages).insert(path.to_owned(), damage).is_none()
    }

    /// Takes note of a Parquet file of which a part cannot be read. It stays, for the sake of the others.
    pub fn note_unreadable(&self, partition: &Path) {
        let marker = partition.with_extension(ENDING);
        if locks::lock(&self.damages).contains_key(&marker) {
            return;
        }
        count(&self.counters.damaged_partitions, 1);
        match OpenOptions::new().write(true).create_new(true).open(&marker) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                tracing::error!("gaps cannot list that {} is damaged: {error}", partition.display());
            }
            _ => drop(self.list_damage(&marker)),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => formatter.write_str("ready"),
            Self::Full(why) => write!(formatter, "full: {why}"),
            Self::Failing(why) => write!(formatter, "failing: {why}"),
        }
    }
}
