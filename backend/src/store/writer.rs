//! The one thread that writes the log.
//!
//! Batches that wait are written together and made durable by one fsync; while it lasts the next ones gather. So a slow
//! disk makes groups larger rather than the queue longer: what may wait is bounded in bytes where batches come in.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Limits,
    index::Index,
    record::{self, Record, Stored},
    segment::Segment,
    state::{Condition, State, count},
};
use crate::{
    hour::{Hour, nanoseconds, now},
    locks,
};

/// Most bytes and batches that are written at once.
const GROUP_BYTES: usize = 8 << 20;
const GROUP_BATCHES: usize = 4096;

/// How often is looked whether the hour is over, or whether there is room again.
const TICK: Duration = Duration::from_millis(500);

/// Streams that were silent for so many times the retention are forgotten.
const SILENCE: u64 = 10;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable now.
    Stored,
    /// It was durable before.
    Duplicate,
}

/// Why a batch was not stored. It can be tried again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no room.
    #[error("the store has no room: {0}; free some, or add to the file system of the data directory")]
    Full(String),
    /// The disk refuses.
    #[error("the store cannot be written: {0}; see to the disk of the data directory")]
    Failing(String),
    /// The store was closed.
    #[error("the store is closed; start the backend again")]
    Closed,
}

/// A batch that is to be stored.
pub struct Request {
    /// What came.
    pub stored: Stored,
    /// Who waits for it.
    pub reply: oneshot::Sender<Result<Outcome, StoreError>>,
    /// Its share of the bytes that may wait.
    pub room: OwnedSemaphorePermit,
}

/// See the head of this module.
pub struct Writer {
    state: Arc<State>,
    limits: Limits,
    /// With what is under way; where that fails, what is durable is taken again.
    pending: Index,
    current: Option<Arc<Segment>>,
    next_number: u64,
}

// === impl Writer ===

impl Writer {
    /// Goes on after the files that there are.
    #[must_use]
    pub fn new(state: Arc<State>, limits: Limits, next_number: u64) -> Self {
        let pending = locks::read(&state.index).clone();
        Self { state, limits, pending, current: None, next_number }
    }

    /// Makes sure that there is a file to write to, of this hour and not too large.
    ///
    /// # Errors
    /// When none can be made.
    pub fn prepare(&mut self) -> Result<Arc<Segment>, StoreError> {
        let hour = Hour::of(now());
        if let Some(segment) = &self.current
            && !segment.is_sealed()
            && segment.end() < self.limits.segment_bytes
            && (segment.hour == hour || !segment.is_used())
        {
            return Ok(Arc::clone(segment));
        }
        if let Some(segment) = &self.current {
            segment.cut().map_err(|error| refused(&error))?;
        }
        self.forget();
        let segment = Segment::create(&self.wal(), self.next_number, hour, self.pending.checkpoints());
        // The number may be taken by what could not be removed.
        self.next_number += 1;
        let segment = Arc::new(segment.map_err(|error| refused(&error))?);
        let mut catalog = locks::write(&self.state.catalog);
        catalog.segments.insert(segment.number, Arc::clone(&segment));
        drop(catalog);
        if let Some(before) = self.current.replace(Arc::clone(&segment)) {
            before.seal();
        }
        Ok(segment)
    }

    /// Writes what comes until nobody can send any more.
    pub fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(TICK) {
                Ok(first) => self.group(first, requests),
                Err(RecvTimeoutError::Timeout) => self.tick(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tick(&mut self) {
        let prepared = self.room().and_then(|()| self.prepare());
        self.tell(prepared.err().as_ref());
    }

    fn group(&mut self, first: Request, requests: &Receiver<Request>) {
        let mut group = Vec::new();
        let (mut bytes, mut events) = (Vec::new(), 0);
        let mut next = Some(first);
        let possible = self.room().and_then(|()| self.prepare());
        while let Some(mut request) = next {
            let batch = request.stored.batch.as_ref().expect("the store makes no request without a batch");
            let is_new = self.pending.is_new(batch);
            if is_new && possible.is_ok() {
                let begins = self.pending.begin(batch, request.stored.starts_after);
                self.pending.add(batch, request.stored.received);
                events += batch.count;
                if !begins {
                    // So that a record before it that rots is missed.
                    request.stored.starts_after = 0;
                }
                // The request goes on without its content.
                let record = Record::Batch(request.stored);
                record::encode(&record, &mut bytes);
                let Record::Batch(stored) = record else { unreachable!("it was made a line above") };
                group.push((is_new, Request { stored, ..request }));
            } else {
                group.push((is_new, request));
            }
            let more = bytes.len() < GROUP_BYTES && group.len() < GROUP_BATCHES;
            next = if more { requests.try_recv().ok() } else { None };
        }
        let result = possible.and_then(|segment| {
            std::thread::sleep(self.limits.slow_disk);
            if bytes.is_empty() {
                Ok(())
            } else {
                segment.append(&bytes, events).map_err(|error| refused(&error))
            }
        });
        self.tell(result.as_ref().err());
        if result.is_ok() {
            self.publish(&group, bytes.len());
        } else {
            count(&self.state.counters.refused, group.len() as u64);
            self.pending = locks::read(&self.state.index).clone();
        }
        for (is_new, request) in group {
            let outcome = match (&result, is_new) {
                (Ok(()), true) => Ok(Outcome::Stored),
                (Ok(()), false) => Ok(Outcome::Duplicate),
                (Err(error), _) => Err(error.clone()),
            };
            // Who waited may be gone; the agent will hear of it when it comes back.
            let _nobody_waits = request.reply.send(outcome);
            drop(request.room);
        }
    }

    /// Leaves out streams that were silent for long: what is older than the retention is not asked for any more.
    fn forget(&mut self) {
        let now = self.state.kept_by().begin();
        let silent = now.saturating_sub(nanoseconds(self.limits.retention).saturating_mul(SILENCE));
        self.pending.forget_before(silent);
        locks::write(&self.state.index).forget_before(silent);
    }

    /// Shows to readers what is durable now.
    fn publish(&self, group: &[(bool, Request)], bytes: usize) {
        let counters = &self.state.counters;
        let mut index = locks::write(&self.state.index);
        for (is_new, request) in group {
            let Some(batch) = request.stored.batch.as_ref().filter(|_| *is_new) else {
                count(&counters.duplicates, 1);
                continue;
            };
            index.begin(batch, request.stored.starts_after);
            index.add(batch, request.stored.received);
            count(&counters.batches, 1);
            count(&counters.events, batch.count);
        }
        drop(index);
        if bytes > 0 {
            count(&counters.syncs, 1);
            count(&counters.bytes, bytes as u64);
            self.state.committed.send_modify(|number| *number += 1);
        }
    }

    /// Whether there is room on the disk, with what is needed to turn the log to Parquet.
    fn room(&self) -> Result<(), StoreError> {
        let stat = rustix::fs::statvfs(&self.state.dir).map_err(|error| refused(&error.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        if free >= self.limits.reserve_bytes {
            return Ok(());
        }
        let (free, reserve) = (free >> 10, self.limits.reserve_bytes >> 10);
        Err(StoreError::Full(format!(
            "{free} KiB are free, {reserve} KiB are kept for turning the log to Parquet"
        )))
    }

    fn tell(&self, error: Option<&StoreError>) {
        let condition = match error {
            None => Condition::Ready,
            Some(StoreError::Full(why)) => Condition::Full(why.clone()),
            Some(error) => Condition::Failing(error.to_string()),
        };
        self.state.condition.send_if_modified(|before| {
            let kind = std::mem::discriminant(before) != std::mem::discriminant(&condition);
            if kind {
                tracing::warn!("the store was {before} and is {condition}");
            }
            let changed = *before != condition;
            *before = condition;
            changed
        });
    }

    fn wal(&self) -> PathBuf {
        self.state.dir.join(super::WAL)
    }
}

fn refused(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(error.to_string()),
        _ => StoreError::Failing(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;

    #[test]
    fn no_file_is_begun_while_the_one_before_has_more_than_was_made_durable() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _lock, next_number) = super::super::open::open(dir.path()).unwrap();
        let limits = Limits { reserve_bytes: 0, ..Limits::default() };
        let mut writer = Writer::new(Arc::new(state), limits, next_number);
        let files = || fs::read_dir(dir.path().join(super::super::WAL)).unwrap().flatten();
        let segment = writer.prepare().unwrap();
        let path = files().next().unwrap().path();
        fs::write(&path, [fs::read(&path).unwrap(), b"not durable".to_vec()].concat()).unwrap();
        // It cannot be cut.
        let read_only = OpenOptions::new().read(true).open(&path).unwrap();
        writer.current = Some(Arc::new(segment.overhanging(read_only)));
        assert!(matches!(writer.prepare(), Err(StoreError::Failing(_))));
        assert_eq!(files().count(), 1);
        let writable = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        writer.current = Some(Arc::new(segment.overhanging(writable)));
        writer.prepare().unwrap();
        assert_eq!((files().count(), fs::metadata(&path).unwrap().len()), (2, segment.end()));
    }
}
