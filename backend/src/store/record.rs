//! Records of the write-ahead log.
//!
//! ```text
//! 0   magic    "NJW1"
//! 4   kind     1: index or a part of it, 2: batch
//! 5   0 0 0
//! 8   length   of the payload, u32 little endian
//! 12  crc32c   of the payload
//! 16  crc32c   of the sixteen bytes before
//! 20  payload  an encoded message, [`Checkpoint`] or [`Stored`]
//! ```
//!
//! A record that is not whole, or not as it was written, is passed over: reading goes on at the next bytes that are a
//! header by their checksum.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use nightjar_proto::v1::Batch;
use prost::Message;

use super::index::Checkpoint;

const MAGIC: [u8; 4] = *b"NJW1";
const HEADER: usize = 20;

/// Largest payload, far above what is written: a batch as large as is accepted, or a part of the index ([`PART`]), to which
/// the last stream may add 2 MiB.
///
/// [`PART`]: super::index::PART
const LARGEST: u32 = 64 << 20;

/// A batch as it is kept: what came, when, and from where.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stored {
    /// When it came, in nanoseconds since 1970.
    #[prost(uint64, tag = "1")]
    pub received: u64,
    /// The batch itself.
    #[prost(message, optional, tag = "2")]
    pub batch: Option<Batch>,
    /// The number after which its stream begins, see [`super::index::Index::begin`]; 0 where it had begun before.
    #[prost(uint64, tag = "3")]
    pub starts_after: u64,
}

/// What a record holds.
#[derive(Debug, PartialEq)]
pub enum Record {
    /// What was known when the file was begun.
    Checkpoint(Checkpoint),
    /// A batch.
    Batch(Stored),
}

/// Appends a record.
///
/// # Panics
/// If it is larger than what is read; batches and parts of the index are bounded far below.
pub fn encode(record: &Record, to: &mut Vec<u8>) {
    let (kind, length) = match record {
        Record::Checkpoint(checkpoint) => (1, checkpoint.encoded_len()),
        Record::Batch(stored) => (2, stored.encoded_len()),
    };
    let start = to.len();
    to.reserve(HEADER + length);
    to.extend_from_slice(&MAGIC);
    to.extend_from_slice(&[kind, 0, 0, 0]);
    let length = u32::try_from(length).ok().filter(|length| *length <= LARGEST);
    to.extend_from_slice(&length.expect("batches and parts of the index are bounded").to_le_bytes());
    to.extend_from_slice(&[0; 8]);
    match record {
        Record::Checkpoint(checkpoint) => checkpoint.encode_raw(to),
        Record::Batch(stored) => stored.encode_raw(to),
    }
    let payload = crc32c::crc32c(&to[start + HEADER..]);
    to[start + 12..start + 16].copy_from_slice(&payload.to_le_bytes());
    let header = crc32c::crc32c(&to[start..start + 16]);
    to[start + 16..start + HEADER].copy_from_slice(&header.to_le_bytes());
}

/// Reads the records of a file, as far as it was written.
pub struct Reader {
    file: Arc<File>,
    /// Where the next record begins.
    at: u64,
    /// Where the last whole record ended.
    whole: u64,
    damaged: u64,
}

impl Reader {
    /// Begins at a record.
    #[must_use]
    pub fn new(file: Arc<File>, at: u64) -> Self {
        Self { file, at, whole: at, damaged: 0 }
    }

    /// Where the next record begins.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Where the last whole record ended: what follows is a torn tail.
    #[must_use]
    pub fn whole(&self) -> u64 {
        self.whole
    }

    /// Bytes between whole records that are none.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next record before `end`. `None`: there is no more.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self, end: u64) -> io::Result<Option<Record>> {
        let mut from = self.at;
        loop {
            match self.read(from, end)? {
                Read::Record(record, next) => {
                    self.damaged += from - self.at;
                    self.at = next;
                    self.whole = next;
                    return Ok(Some(record));
                }
                Read::Damaged => match self.find(from + 1, end)? {
                    Some(next) => from = next,
                    None => return Ok(None),
                },
                Read::End => return Ok(None),
            }
        }
    }

    fn read(&self, at: u64, end: u64) -> io::Result<Read> {
        let left = end.saturating_sub(at);
        if left == 0 {
            return Ok(Read::End);
        }
        let mut header = [0; HEADER];
        if left < HEADER as u64 || !read_at(&self.file, &mut header, at)? {
            return Ok(Read::Damaged);
        }
        let Some((kind, length, checksum)) = parse(&header) else { return Ok(Read::Damaged) };
        if left - (HEADER as u64) < u64::from(length) {
            return Ok(Read::Damaged);
        }
        let mut payload = vec![0; length as usize];
        if !read_at(&self.file, &mut payload, at + HEADER as u64)? || crc32c::crc32c(&payload) != checksum {
            return Ok(Read::Damaged);
        }
        let payload = Bytes::from(payload);
        let record = match kind {
            1 => Checkpoint::decode(payload).map(Record::Checkpoint),
            _ => Stored::decode(payload).map(Record::Batch),
        };
        let next = at + HEADER as u64 + u64::from(length);
        Ok(record.map_or(Read::Damaged, |record| Read::Record(record, next)))
    }

    /// The first place from `from` on that looks like a header.
    fn find(&self, mut from: u64, end: u64) -> io::Result<Option<u64>> {
        let mut window = vec![0; 64 << 10];
        while from + (HEADER as u64) <= end {
            let length = usize::try_from(end - from).unwrap_or(usize::MAX).min(window.len());
            if !read_at(&self.file, &mut window[..length], from)? {
                return Ok(None);
            }
            let header = |at: &usize| window[*at..at + HEADER].first_chunk().and_then(parse).is_some();
            if let Some(at) = (0..=length - HEADER).find(header) {
                return Ok(Some(from + at as u64));
            }
            from += (length - HEADER + 1) as u64;
        }
        Ok(None)
    }
}

enum Read {
    Record(Record, u64),
    Damaged,
    End,
}

/// Kind, length and checksum of the payload.
fn parse(header: &[u8; HEADER]) -> Option<(u8, u32, u32)> {
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if header[..4] != MAGIC || number(16) != crc32c::crc32c(&header[..16]) {
        return None;
    }
    let (kind, length) = (header[4], number(8));
    (matches!(kind, 1 | 2) && length <= LARGEST).then(|| (kind, length, number(12)))
}

/// Whether the file had that many bytes.
fn read_at(file: &File, to: &mut [u8], at: u64) -> io::Result<bool> {
    match file.read_exact_at(to, at) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn batch(sequence: u64) -> Record {
        let batch = Batch { sequence, events: Bytes::from(vec![b'x'; 100]), ..Batch::default() };
        Record::Batch(Stored { received: 7, batch: Some(batch), starts_after: 0 })
    }

    fn three() -> Vec<u8> {
        let mut bytes = Vec::new();
        (1..=3).for_each(|sequence| encode(&batch(sequence), &mut bytes));
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<u64>, Reader) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut reader = Reader::new(Arc::new(file), 0);
        let mut sequences = Vec::new();
        while let Some(Record::Batch(stored)) = reader.next(bytes.len() as u64).unwrap() {
            sequences.push(stored.batch.unwrap().sequence);
        }
        (sequences, reader)
    }

    #[test]
    fn what_was_written_is_read() {
        let bytes = three();
        let (sequences, reader) = read(&bytes);
        assert_eq!(sequences, [1, 2, 3]);
        assert_eq!((reader.whole(), reader.damaged()), (bytes.len() as u64, 0));
    }

    #[test]
    fn a_tail_torn_at_any_byte_leaves_the_records_before_it() {
        let bytes = three();
        let one = bytes.len() / 3;
        for length in one * 2..bytes.len() {
            let (sequences, reader) = read(&bytes[..length]);
            assert_eq!(sequences, [1, 2], "cut at {length}");
            assert_eq!(reader.whole(), (one * 2) as u64);
        }
    }

    #[test]
    fn a_bit_flipped_anywhere_costs_one_record_and_no_other() {
        let bytes = three();
        let one = bytes.len() / 3;
        for at in one..one * 2 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 4;
            let (sequences, reader) = read(&bytes);
            assert_eq!(sequences, [1, 3], "flipped at {at}");
            assert_eq!(reader.damaged(), one as u64);
        }
    }

    #[test]
    fn a_file_of_anything_has_no_records() {
        assert_eq!(read(&vec![0xff; 200_000]).0, [0; 0]);
        assert_eq!(read(&[0; 19]).0, [0; 0]);
    }
}
