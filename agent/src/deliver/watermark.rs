//! Up to when all events are in the spool, on disk: so that an agent that was killed can say, when it starts again, from
//! when on events are missing.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

/// Bytes of the file: the time in nanoseconds since 1970, and the CRC-32C of that.
const BYTES: usize = 12;

/// How much older than the file what it says may be.
const AGE: Duration = Duration::from_secs(15);

/// The file. It is written in place, without waiting for the disk: after a loss of power it
/// may say an earlier time, and then more is told as missing than is.
#[derive(Debug)]
pub struct Watermark {
    file: File,
}

// === impl Watermark ===

impl Watermark {
    /// Opens it, and gives what an earlier run has left.
    ///
    /// # Errors
    /// When it can neither be read nor made.
    pub fn open(path: &Path) -> io::Result<(Self, Option<u64>)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let mut bytes = [0; BYTES];
        let read = file.read_at(&mut bytes, 0)?;
        let (time, crc) = bytes.split_at(8);
        let is_whole = read == BYTES && crc == crc32c::crc32c(time).to_le_bytes();
        let time = u64::from_le_bytes(time.try_into().expect("it is split at eight bytes"));
        let before = if read > 0 && !is_whole {
            // What it said is gone, but not when that was.
            let written = file.metadata()?.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            Some(u64::try_from(written.saturating_sub(AGE).as_nanos()).unwrap_or_default())
        } else {
            is_whole.then_some(time)
        };
        Ok((Self { file }, before))
    }

    /// All events of before this time, in nanoseconds since 1970, are in the spool.
    ///
    /// # Errors
    /// When it cannot be written. Then more is told as missing than is.
    pub fn set(&self, time: u64) -> io::Result<()> {
        let time = time.to_le_bytes();
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&time);
        bytes[8..].copy_from_slice(&crc32c::crc32c(&time).to_le_bytes());
        self.file.write_all_at(&bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_run_knows_how_far_the_last_one_came() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("complete");
        let (mark, before) = Watermark::open(&path).unwrap();
        assert_eq!(before, None);
        mark.set(7).unwrap();
        mark.set(1_795_374_000_123_456_789).unwrap();
        assert_eq!(Watermark::open(&path).unwrap().1, Some(1_795_374_000_123_456_789));
    }

    #[test]
    fn what_is_not_whole_is_not_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("complete");
        Watermark::open(&path).unwrap().0.set(7).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            let told = Watermark::open(&path).unwrap().1.unwrap();
            assert!(told > 1_700_000_000_000_000_000, "byte {at}: the time of the file, not {told}");
        }
        std::fs::write(&path, &whole[..11]).unwrap();
        assert_ne!(Watermark::open(&path).unwrap().1, Some(7));
    }
}
