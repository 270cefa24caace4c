//! Files of the write-ahead log: `wal/000000000012-2026-11-22T19.wal`, the number and the hour in which its batches
//! came. The first records are the index as it was when the file was begun, so that older files are not needed for it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    damage::Damage,
    index::Checkpoint,
    record::{self, Reader, Record, Stored},
};
use crate::hour::Hour;

/// One file of the log.
#[derive(Debug)]
pub struct Segment {
    /// Files are numbered in the order of their making.
    pub number: u64,
    /// When its batches came.
    pub hour: Hour,
    path: PathBuf,
    file: Arc<File>,
    /// Bytes that are durable.
    end: AtomicU64,
    /// Nothing is written to it any more.
    sealed: AtomicBool,
    /// It has more bytes than are durable, which nobody was told are stored.
    overhangs: AtomicBool,
    /// It has batches.
    used: AtomicBool,
    /// How many events are in them.
    events: AtomicU64,
    /// Bytes that were damaged when it was opened.
    damaged: u64,
}

/// What was found in a file.
#[derive(Debug, Default)]
pub struct Found {
    /// Bytes at the end that were not written to the end, and are cut off.
    pub torn: u64,
    /// Bytes between records that are none.
    pub damaged: u64,
}

/// Makes a change of names in a directory durable.
///
/// # Errors
/// When the directory cannot be opened or synchronised.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Number and hour, from the name of a file.
#[must_use]
pub fn name_of(path: &Path) -> Option<(u64, Hour)> {
    let (number, hour) = path.file_name()?.to_str()?.strip_suffix(".wal")?.split_once('-')?;
    Some((number.parse().ok()?, hour.parse().ok()?))
}

// === impl Segment ===

impl Segment {
    /// Begins a file with what is known so far. It is durable when this returns.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left of it then.
    pub fn create(dir: &Path, number: u64, hour: Hour, index: Vec<Checkpoint>) -> io::Result<Self> {
        let path = dir.join(format!("{number:012}-{hour}.wal"));
        let mut bytes = Vec::new();
        for part in index {
            record::encode(&Record::Checkpoint(part), &mut bytes);
        }
        let write = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
            sync_dir(dir)?;
            Ok(file)
        };
        let file = write().inspect_err(|_: &io::Error| drop(fs::remove_file(&path)))?;
        Ok(Self {
            number,
            hour,
            path,
            file: Arc::new(file),
            end: AtomicU64::new(bytes.len() as u64),
            sealed: AtomicBool::new(false),
            overhangs: AtomicBool::new(false),
            used: AtomicBool::new(false),
            events: AtomicU64::new(0),
            damaged: 0,
        })
    }

    /// Opens a file that is there, hands its records to `take` and cuts off a torn tail. It is sealed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: PathBuf, mut take: impl FnMut(Record)) -> io::Result<(Self, Found)> {
        let (number, hour) = name_of(&path).ok_or_else(|| io::Error::other("not the name of a log file"))?;
        let file = Arc::new(OpenOptions::new().read(true).write(true).open(&path)?);
        let length = file.metadata()?.len();
        let mut reader = Reader::new(Arc::clone(&file), 0);
        let (mut used, mut events) = (false, 0);
        while let Some(record) = reader.next(length)? {
            if let Record::Batch(Stored { batch: Some(batch), .. }) = &record {
                used = true;
                events += batch.count;
            }
            take(record);
        }
        let found = Found { torn: length - reader.whole(), damaged: reader.damaged() };
        if found.torn > 0 {
            // Where the disk takes no change, the end that is remembered keeps readers off the tail as well.
            let _kept_in_mind = file.set_len(reader.whole());
        }
        let segment = Self {
            number,
            hour,
            path,
            file,
            end: AtomicU64::new(reader.whole()),
            sealed: AtomicBool::new(true),
            overhangs: AtomicBool::new(false),
            used: AtomicBool::new(used),
            events: AtomicU64::new(events),
            damaged: found.damaged,
        };
        Ok((segment, found))
    }

    /// Writes whole records with so many events; they are durable when this returns.
    ///
    /// # Errors
    /// When they are not. The file takes no more then, and is to be cut back to what it was: see [`Segment::cut`].
    pub fn append(&self, records: &[u8], events: u64) -> io::Result<()> {
        let end = self.end();
        let written = self.file.write_all_at(records, end);
        // After a failed fsync the kernel forgets which pages were not written: this file is not to be trusted with
        // more. <https://lwn.net/Articles/752063/>
        let result = written.and_then(|()| self.file.sync_data()).inspect_err(|_| {
            self.seal();
            self.overhangs.store(true, Ordering::Release);
            let _tried_again_by_the_writer = self.cut();
        });
        result?;
        self.used.store(true, Ordering::Release);
        self.events.fetch_add(events, Ordering::Relaxed);
        self.end.store(end + records.len() as u64, Ordering::Release);
        Ok(())
    }

    /// Cuts off what was written and could not be made durable. Readers stop before it, but after a restart it would count,
    /// beside what the agents sent again meanwhile: until it is cut off no other file is to be begun.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn cut(&self) -> io::Result<()> {
        if self.overhangs.load(Ordering::Acquire) {
            self.file.set_len(self.end())?;
            self.file.sync_all()?;
            self.overhangs.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// Bytes that are durable: readers go so far and no further.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Nothing is to be written to it any more.
    pub fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// Whether nothing is written to it any more.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    /// Whether it has batches.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.used.load(Ordering::Acquire)
    }

    /// How many events it has.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Reads from a record on.
    #[must_use]
    pub fn read(&self, at: u64) -> Reader {
        Reader::new(Arc::clone(&self.file), at)
    }

    /// The same file as after a failed fsync, open in this way.
    #[cfg(test)]
    pub(super) fn overhanging(&self, file: File) -> Self {
        Self {
            number: self.number,
            hour: self.hour,
            path: self.path.clone(),
            file: Arc::new(file),
            end: AtomicU64::new(self.end()),
            sealed: AtomicBool::new(true),
            overhangs: AtomicBool::new(true),
            used: AtomicBool::new(true),
            events: AtomicU64::new(0),
            damaged: 0,
        }
    }

    /// Bytes that were damaged when it was opened, and counted then.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// Gives the file a second name, by which it is kept and listed when it has become Parquet without so many of its
    /// events. Where a file cannot have two names an empty one says it.
    ///
    /// # Errors
    /// When neither can be made.
    pub fn keep_damaged(&self, lost: u64) -> io::Result<PathBuf> {
        let kept = Damage::name_of_log(&self.path, lost);
        let named = match fs::hard_link(&self.path, &kept) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                OpenOptions::new().write(true).create_new(true).open(&kept).map(drop)
            }
            _ => Ok(()),
        };
        named.and_then(|()| self.path.parent().map_or(Ok(()), sync_dir)).map(|()| kept)
    }

    /// Takes it off the disk. Who reads it can go on doing so.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
