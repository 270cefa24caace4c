//! Whether a batch is what it says it is. Nothing that does not pass is stored.

use std::{cell::RefCell, io, ops::ControlFlow};

use nightjar_proto::v1::{Batch, Lane};

use crate::wire::{Delimited, Fields};

/// Largest content of a batch, before compression.
pub const MOST_UNCOMPRESSED: usize = 4 << 20;

/// Largest content of a batch as it comes.
pub const MOST_COMPRESSED: usize = 1 << 20;

/// Most losses that one batch may tell of.
const MOST_LOSSES: usize = 1024;

/// Longest name of an agent or a boot.
const LONGEST_NAME: usize = 128;

/// What is wrong with a batch. It will not be better when it comes again.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The ID of the boot is empty or too long, the lane unknown, or the number 0.
    #[error("the batch has no valid boot, lane or number")]
    Name,
    /// Larger than it may be.
    #[error(
        "the batch has {0} bytes uncompressed, or as many as cannot be told; at most {MOST_UNCOMPRESSED} are taken"
    )]
    TooLarge(u64),
    /// It says too much of losses.
    #[error("the batch tells of {0} losses; at most {MOST_LOSSES} are taken")]
    TooManyLosses(usize),
    /// Not what zstd wrote.
    #[error("the events cannot be decompressed: {0}")]
    Compression(#[from] io::Error),
    /// The size is not what it says.
    #[error("the events have {found} bytes; the batch says {said}")]
    Size {
        /// What the batch says.
        said: u64,
        /// What there is.
        found: usize,
    },
    /// The number is not what it says.
    #[error("there are {found} events; the batch says {said}")]
    Count {
        /// What the batch says.
        said: u64,
        /// What there is.
        found: u64,
    },
    /// An event is no message.
    #[error("event {0} of the batch is no protobuf message")]
    Event(u64),
}

struct Scratch {
    decompressor: zstd::bulk::Decompressor<'static>,
    events: Vec<u8>,
}

thread_local! {
    /// What decompresses batches: bounded by the largest one, and kept from one to the next.
    static SCRATCH: RefCell<Option<Scratch>> = const { RefCell::new(None) };
}

/// Looks through a whole batch.
///
/// # Errors
/// Says what is wrong with it.
pub fn check(batch: &Batch) -> Result<(), BatchError> {
    let lane = Lane::try_from(batch.lane).unwrap_or_default();
    let boot = batch.boot_id.len();
    if batch.sequence == 0 || lane == Lane::Unspecified || boot == 0 || boot > LONGEST_NAME {
        return Err(BatchError::Name);
    }
    if batch.losses.len() > MOST_LOSSES {
        return Err(BatchError::TooManyLosses(batch.losses.len()));
    }
    let mut found = 0;
    let mut wrong = None;
    each_event(batch, |event| {
        found += 1;
        if Fields::of(event).any(|field| field.is_err()) {
            wrong = Some(found);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    match wrong {
        Some(number) => Err(BatchError::Event(number)),
        None if found != batch.count => Err(BatchError::Count { said: batch.count, found }),
        None => Ok(()),
    }
}

/// Hands each encoded event of a batch to `take`.
///
/// # Errors
/// When the content of the batch cannot be decompressed, or is no sequence of messages.
pub fn each_event(batch: &Batch, mut take: impl FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), BatchError> {
    if batch.events.is_empty() {
        return if batch.count == 0 {
            Ok(())
        } else {
            Err(BatchError::Count { said: batch.count, found: 0 })
        };
    }
    let length = usize::try_from(batch.uncompressed_bytes).ok().filter(|length| *length <= MOST_UNCOMPRESSED);
    let length = length.ok_or(BatchError::TooLarge(batch.uncompressed_bytes))?;
    // What a reader does with an event may lead here again: the memory is taken away meanwhile.
    let scratch = SCRATCH.with_borrow_mut(Option::take);
    let mut scratch = match scratch {
        Some(scratch) => scratch,
        None => Scratch { decompressor: zstd::bulk::Decompressor::new()?, events: Vec::new() },
    };
    let result = scratch.each_event(batch, length, &mut take);
    SCRATCH.with_borrow_mut(|place| *place = Some(scratch));
    result
}

// === impl Scratch ===

impl Scratch {
    fn each_event(
        &mut self,
        batch: &Batch,
        length: usize,
        take: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), BatchError> {
        if self.events.len() < length {
            self.events.resize(length, 0);
        }
        let events = &mut self.events[..length];
        // What is larger than it says is refused by zstd itself, before it is written.
        let found = self.decompressor.decompress_to_buffer(&batch.events, events)?;
        if found != length {
            return Err(BatchError::Size { said: batch.uncompressed_bytes, found });
        }
        for (number, event) in (1..).zip(Delimited(&self.events[..length])) {
            let event = event.map_err(|_| BatchError::Event(number))?;
            if take(event).is_break() {
                break;
            }
        }
        Ok(())
    }
}
