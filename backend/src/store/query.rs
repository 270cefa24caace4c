//! Reads the store: all there is, and what comes.
//!
//! Events come in the order in which they arrived: first the Parquet files, then the log. A reader goes from file to
//! file by number at its own pace and keeps nothing in memory, so one that is slow costs nobody anything.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;

use super::{
    partition::PartitionError,
    record::{Reader, Record, Stored},
    segment::Segment,
    split,
    state::{Catalog, State},
    wanted::Wanted,
};
use crate::check;

/// Why reading ended early.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A Parquet file cannot be read.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// A file of the log cannot be read.
    #[error("file {number} of the log cannot be read: {error}")]
    Log {
        /// Its number.
        number: u64,
        /// What the system said.
        error: std::io::Error,
    },
    /// A part of a file of the log is not as it was written. All else in it was handed over.
    #[error(
        "file {number} of the log has {bytes} bytes that are not as they were written; their events are lost"
    )]
    Damaged {
        /// Its number.
        number: u64,
        /// How many.
        bytes: u64,
    },
}

/// Takes an encoded event, and says whether it wants more.
pub type Take<'a> = dyn FnMut(Bytes) -> ControlFlow<()> + 'a;

/// A place in the store.
pub struct Cursor {
    state: Arc<State>,
    wanted: Wanted,
    /// All files of the log up to this number were read, by themselves or as Parquet.
    done: u64,
    /// The one that is being read.
    reading: Option<(Arc<Segment>, Reader)>,
}

// === impl Cursor ===

impl Cursor {
    /// Before the first event.
    #[must_use]
    pub fn at_start(state: Arc<State>, wanted: Wanted) -> Self {
        Self { state, wanted, done: 0, reading: None }
    }

    /// After the last one.
    #[must_use]
    pub fn at_end(state: Arc<State>, wanted: Wanted) -> Self {
        let catalog = state.catalog();
        let last = catalog.segments.values().next_back().cloned();
        let partition = catalog.partitions.iter().map(|partition| partition.last).max().unwrap_or(0);
        let done = last.as_ref().map_or(partition, |segment| segment.number - 1);
        let reading = last.map(|segment| (Arc::clone(&segment), segment.read(segment.end())));
        Self { state, wanted, done, reading }
    }

    /// Hands over all that there is now and was not handed over before.
    ///
    /// # Errors
    /// When a file, or a part of it, cannot be read. What follows is handed over by the next call.
    pub fn read(&mut self, take: &mut Take<'_>) -> Result<ControlFlow<()>, QueryError> {
        loop {
            if self.reading.is_some() {
                if self.read_log(take)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                if self.reading.is_some() {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            let catalog = self.state.catalog();
            if self.read_partitions(&catalog, take)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            // One that a Parquet file was made of meanwhile is still there for whoever has the catalog of before.
            let next = catalog.segments.range(self.done + 1..).next();
            let Some((_, segment)) = next else { return Ok(ControlFlow::Continue(())) };
            self.reading = Some((Arc::clone(segment), segment.read(0)));
        }
    }

    fn read_partitions(
        &mut self,
        catalog: &Catalog,
        take: &mut Take<'_>,
    ) -> Result<ControlFlow<()>, QueryError> {
        for partition in &catalog.partitions {
            if partition.last > self.done {
                let after = std::mem::replace(&mut self.done, partition.last);
                let read = partition.read(after, &self.wanted, take);
                if matches!(read, Err(PartitionError::Damaged { .. })) {
                    self.state.note_unreadable(partition.path());
                }
                if read?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Reads on in the current file of the log, and leaves it when it is sealed and read to its end.
    fn read_log(&mut self, take: &mut Take<'_>) -> Result<ControlFlow<()>, QueryError> {
        let Some((segment, reader)) = &mut self.reading else { return Ok(ControlFlow::Continue(())) };
        let number = segment.number;
        // Asked before the end is: what is sealed does not grow any more.
        let sealed = segment.is_sealed();
        let end = segment.end();
        let result = loop {
            match reader.next(end) {
                Ok(Some(Record::Batch(stored))) => {
                    if hand_over(&stored, &self.wanted, take).is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                Ok(Some(Record::Checkpoint(_))) => {}
                Ok(None) => break Ok(ControlFlow::Continue(())),
                Err(error) => break Err(QueryError::Log { number, error }),
            }
        };
        let bytes = reader.damaged() + (end - reader.whole().min(end));
        if sealed || result.is_err() {
            self.done = number;
            self.reading = None;
            if bytes > 0 {
                return result.and(Err(QueryError::Damaged { number, bytes }));
            }
        }
        result
    }
}

fn hand_over(stored: &Stored, wanted: &Wanted, take: &mut Take<'_>) -> ControlFlow<()> {
    let Some(batch) = stored.batch.as_ref().filter(|batch| wanted.agent(&batch.agent_id)) else {
        return ControlFlow::Continue(());
    };
    let mut result = ControlFlow::Continue(());
    let read = check::each_event(batch, |event| {
        let fits = split::head(event).is_some_and(|head| wanted.event(head.kind, head.host, head.time));
        if fits {
            result = take(Bytes::copy_from_slice(event));
        }
        result
    });
    if let Err(error) = read {
        tracing::error!("batch {} of {} cannot be read: {error}", batch.sequence, batch.agent_id);
    }
    result
}
