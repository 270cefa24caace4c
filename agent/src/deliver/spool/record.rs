//! The records of a segment file, byte by byte. The format is described at the top of [`super`].

use super::types::{BootId, Lane, Loss, Reason};

/// Size of a header, in bytes.
pub(super) const HEADER: usize = 96;

/// The same as a file offset.
pub(super) const HEADER_BYTES: u64 = HEADER as u64;

/// First bytes of each record. It has bytes of no text, so that it is rare in what is not a header.
pub(super) const MAGIC: [u8; 4] = [0xf5, b'N', b'J', 0x9c];

const VERSION: u8 = 1;

/// What a record is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A batch, which follows the header.
    Events = 1,
    /// Batches that had these numbers and are gone.
    Lost = 2,
    /// A loss of events that had no number; the record has one of its own.
    Refused = 3,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Header {
    pub kind: Kind,
    pub lane: Lane,
    /// Of a loss.
    pub reason: Option<Reason>,
    pub boot: BootId,
    pub epoch: u64,
    /// First number that it stands for: its own, but for a loss.
    pub first: u64,
    /// Last number that it stands for.
    pub sequence: u64,
    /// Events in all records of this lane and epoch before it. By this the number of events is known of what cannot
    /// be read any more.
    pub events_before: u64,
    /// Events in it, or lost.
    pub count: u64,
    pub first_time: u64,
    pub last_time: u64,
    pub uncompressed_bytes: u32,
    /// Bytes that follow.
    pub length: u32,
    /// CRC-32C of these.
    pub payload_crc: u32,
}

// === impl Header ===

impl Header {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[6] = self.lane as u8;
        bytes[7] = self.reason.map_or(0, |reason| reason as u8);
        bytes[8..24].copy_from_slice(&self.boot.0);
        let longs = [
            self.epoch,
            self.first,
            self.sequence,
            self.events_before,
            self.count,
            self.first_time,
            self.last_time,
        ];
        for (index, number) in longs.into_iter().enumerate() {
            bytes[24 + index * 8..][..8].copy_from_slice(&number.to_le_bytes());
        }
        for (index, number) in
            [self.uncompressed_bytes, self.length, self.payload_crc].into_iter().enumerate()
        {
            bytes[80 + index * 4..][..4].copy_from_slice(&number.to_le_bytes());
        }
        let crc = crc32c::crc32c(&bytes[..92]);
        bytes[92..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if these bytes are not a header that this build wrote.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let long = |at: usize| {
            let mut number = [0; 8];
            number.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(number)
        };
        let int = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..4] != MAGIC || bytes[4] != VERSION || int(92) != crc32c::crc32c(&bytes[..92]) {
            return None;
        }
        let kind =
            [Kind::Events, Kind::Lost, Kind::Refused].into_iter().find(|kind| *kind as u8 == bytes[5])?;
        let mut boot = [0; 16];
        boot.copy_from_slice(&bytes[8..24]);
        let header = Self {
            kind,
            lane: Lane::from_number(bytes[6])?,
            reason: Reason::from_number(bytes[7]),
            boot: BootId(boot),
            epoch: long(24),
            first: long(32),
            sequence: long(40),
            events_before: long(48),
            count: long(56),
            first_time: long(64),
            last_time: long(72),
            uncompressed_bytes: int(80),
            length: int(84),
            payload_crc: int(88),
        };
        (header.first <= header.sequence && header.first > 0).then_some(header)
    }

    /// Events in all records up to and with this one.
    pub(super) fn events_after(&self) -> u64 {
        self.events_before.saturating_add(self.count)
    }

    /// Bytes on disk, with what follows the header.
    pub(super) fn size(&self) -> u64 {
        HEADER_BYTES + u64::from(self.length)
    }

    /// What it tells, if it is a loss.
    pub(super) fn loss(&self) -> Option<Loss> {
        let (first_sequence, last_sequence) = match self.kind {
            Kind::Events => return None,
            Kind::Lost => (self.first, self.sequence),
            Kind::Refused => (0, 0),
        };
        Some(Loss {
            first_sequence,
            last_sequence,
            events: self.count,
            first_time: self.first_time,
            last_time: self.last_time,
            reason: self.reason.unwrap_or(Reason::Damaged),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Lost,
            lane: Lane::Bulk,
            reason: Some(Reason::SpoolFull),
            boot: BootId([7; 16]),
            epoch: 1,
            first: 2,
            sequence: 3,
            events_before: 4,
            count: 5,
            first_time: 6,
            last_time: 7,
            uncompressed_bytes: 8,
            length: 9,
            payload_crc: 10,
        }
    }

    #[test]
    fn a_header_is_read_as_it_was_written() {
        assert_eq!(Header::decode(&header().encode()), Some(header()));
    }

    #[test]
    fn a_header_with_any_bit_flipped_is_none() {
        for bit in 0..HEADER * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), None, "bit {bit}");
        }
    }
}
