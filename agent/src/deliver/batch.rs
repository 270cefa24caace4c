//! Events on their way into a batch.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::encoding::encode_varint;
use zstd::bulk::Compressor;

use crate::deliver::spool::Batch;

/// Most bytes of a batch that may be sent, after compression: so `Batch.events` of the protocol says.
pub(crate) const MOST_COMPRESSED: usize = 1 << 20;

/// When a batch is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BatchLimits {
    /// Bytes of encoded events. The last event may go beyond, up to twice as many; a larger one has a batch of its own.
    pub bytes: usize,
    /// Time since its first event was added.
    pub age: Duration,
    /// Level of zstd, 1 to 3: more costs more than it saves here.
    pub level: i32,
}

/// Encoded events of one lane, each after its length as a varint.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub bytes: Vec<u8>,
    pub count: u64,
    pub first_time: u64,
    pub last_time: u64,
    /// When the first was added.
    pub since: Option<Instant>,
}

/// Makes batches of what was collected. Its tables are used again for each.
pub(crate) struct Sealer {
    compressor: Compressor<'static>,
}

// === impl BatchLimits ===

impl Default for BatchLimits {
    /// 256 KiB, 200 ms, level 1.
    fn default() -> Self {
        Self { bytes: 256 << 10, age: Duration::from_millis(200), level: 1 }
    }
}

// === impl Collected ===

impl Collected {
    /// Adds an event of a time in nanoseconds since 1970.
    pub(crate) fn add(&mut self, event: &[u8], time: u64) {
        if self.count == 0 {
            self.since = Some(Instant::now());
            self.first_time = time;
            self.last_time = time;
        }
        encode_varint(event.len() as u64, &mut self.bytes);
        self.bytes.extend_from_slice(event);
        self.count += 1;
        self.first_time = self.first_time.min(time);
        self.last_time = self.last_time.max(time);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Nothing is in it any more, but its memory is kept for the next, up to so many bytes: one huge event must not hold
    /// its memory for ever.
    pub(crate) fn clear(&mut self, most: usize) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.shrink_to(most);
        *self = Self { bytes, ..Self::default() };
    }
}

// === impl Sealer ===

impl Sealer {
    /// # Errors
    /// When zstd does not take the level.
    pub(crate) fn new(level: i32) -> io::Result<Self> {
        Ok(Self { compressor: Compressor::new(level)? })
    }

    /// # Errors
    /// When there is no memory.
    pub(crate) fn seal(&mut self, collected: &Collected) -> io::Result<Batch> {
        Ok(Batch {
            first_time: collected.first_time,
            last_time: collected.last_time,
            count: collected.count,
            uncompressed_bytes: u32::try_from(collected.bytes.len()).unwrap_or(u32::MAX),
            events: Bytes::from(self.compressor.compress(&collected.bytes)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use nightjar_proto::v1::Event;
    use prost::Message;

    use super::*;

    #[test]
    fn a_batch_has_the_events_in_their_order_and_knows_count_and_times() {
        let mut collected = Collected::default();
        for time in [5, 3, 9] {
            let event = Event { kind: format!("kind.{time}"), ..Event::default() };
            collected.add(&event.encode_to_vec(), time);
        }
        let batch = Sealer::new(1).unwrap().seal(&collected).unwrap();
        assert_eq!((batch.count, batch.first_time, batch.last_time), (3, 3, 9));
        let bytes = zstd::bulk::decompress(&batch.events, batch.uncompressed_bytes as usize).unwrap();
        let mut bytes = Bytes::from(bytes);
        let kinds = std::iter::from_fn(|| {
            (!bytes.is_empty()).then(|| Event::decode_length_delimited(&mut bytes).unwrap().kind)
        });
        assert_eq!(kinds.collect::<Vec<_>>(), ["kind.5", "kind.3", "kind.9"]);
    }
}
