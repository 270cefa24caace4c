//! A file of lines that is rotated.
//!
//! ```text
//! events.json                               current: appended to, mode 0600, locked against another agent
//! events-20260822T101500.123Z.json          rotated at that time (UTC): complete, not changed any more
//! events-20260822T091500.007Z.json.gz       the same, compressed; .zst with Zstandard
//! .events-20260822T101500.123Z.json.gz.tmp  being compressed; removed if it was left by one who was killed
//! ```
//!
//! Names sort as the times do, also where the clock is set back, and an existing file is never written over.
//! Files of other names are left alone.
//!
//! Every file ends with a whole line. What a kill or a power cut left of a line is cut off when the file is
//! opened; what a full disk left of it, at once. Lines that cannot be written are lost, counted by reason, and
//! the next batch is tried again: the thread that writes drains the kernel's ring buffer, and waiting there
//! would lose events of everybody else. For the same reason it never waits for the disk. It creates, renames
//! and writes; a thread of its own flushes, compresses and deletes.
//!
//! To rotate, an empty file is made under the rotated name, and the two files exchange names in one step. So
//! nothing has moved when the disk is too full for another file, and there is always a current file.

mod archive;
mod name;
mod open;
mod stats;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use archive::Archive;
use name::{Names, Stamp};
pub use open::FileError;
use open::{FileId, Taken, create, cut_unfinished, first_line, resolve, take};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};
pub use stats::{Count, Failing, Reason, Stats, Trouble, Written};
use tracing::{info, warn};

/// How long the end may take: a disk that does not answer should not keep the agent from ending.
const LONGEST_CLOSE: Duration = Duration::from_secs(2);
/// After a rotation that failed. The batches until then go on in the same file.
const ROTATE_AGAIN: Duration = Duration::from_secs(10);
/// A disk that is all but full fails now and then; it is told no more often than this.
const TELL_AGAIN: Duration = Duration::from_mins(1);
/// Names that are tried for a rotated file, a millisecond apart.
const NAMES_TRIED: usize = 100;

/// How a rotated file is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// As `.gz`.
    Gzip,
    /// As `.zst`.
    Zstd,
}

/// When a file is rotated, and what becomes of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes that a file may have; 0 for no limit. Only a single longer line makes a larger file.
    pub size: u64,
    /// From the first line of a file to its rotation; zero for no limit.
    pub age: Duration,
    /// Rotated files that are kept; the oldest go first. With 0, a file is deleted when it is rotated.
    pub keep: u32,
    /// What is done with rotated files.
    pub compression: Compression,
}

/// What was found when a file was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The file itself, where the path led to it by symbolic links.
    pub path: PathBuf,
    /// Bytes of an unfinished line that were cut off its end.
    pub cut: u64,
    /// What the reader should mend, in words.
    pub warnings: Vec<String>,
}

/// Appends whole lines to a file and rotates it.
///
/// The process should ignore or handle `SIGXFSZ`: else a limit on file sizes ends it, where otherwise it is
/// counted as [`Reason::FileTooBig`].
pub struct RotatingFile {
    path: PathBuf,
    names: Names,
    rotation: Rotation,
    /// None where it was deleted and cannot be made anew.
    current: Option<Current>,
    /// Of the latest rotated file; the next one is later, whatever the clock says.
    last: Option<Stamp>,
    /// No rotation is tried before.
    rotate_again: Option<SystemTime>,
    /// Whether names are exchanged in one step. Not every file system does.
    exchanges: bool,
    archive: Archive,
    stats: Stats,
    outage: Outage,
    clock: Clock,
}

type Clock = Box<dyn Fn() -> SystemTime + Send>;

/// The file that is written to.
#[derive(Debug)]
struct Current {
    file: File,
    id: FileId,
    /// Else it is one of the devices that keep nothing: never rotated, never cut.
    is_regular: bool,
    /// As it was left; other than that, somebody else has written or cut.
    len: u64,
    /// When the first line of it came.
    first_line: Option<SystemTime>,
}

/// The time since events began to be lost.
#[derive(Debug, Clone, Copy, Default)]
struct Outage {
    lost: u64,
    is_told: bool,
    /// Of this or an earlier one.
    last_told: Option<Instant>,
}

/// Why a batch cannot be written.
struct Failure {
    reason: Reason,
    why: String,
}

/// Why a rotation did not come about.
#[derive(Debug, thiserror::Error)]
enum RotateError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("its name is gone, or is that of another file by now")]
    Replaced,
    #[error("rotated files have all names until the year 10000; delete those of the future")]
    NoName,
}

// === impl Compression ===

impl Compression {
    const ALL: [Self; 3] = [Self::None, Self::Gzip, Self::Zstd];

    /// What is appended to the name of a file.
    const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

// === impl RotatingFile ===

impl RotatingFile {
    /// Opens a file, or makes it with mode 0600. A symbolic link is followed only if root or the agent's own
    /// user made it. `/dev/null` is taken too.
    ///
    /// # Errors
    /// When it cannot be written to, or should not be: it is no regular file, holds something else than
    /// JSON, or others may have put it there.
    pub fn open(path: &Path, rotation: Rotation) -> Result<(Self, Opened), FileError> {
        Self::open_at(path, rotation, Box::new(SystemTime::now))
    }

    fn open_at(path: &Path, rotation: Rotation, clock: Clock) -> Result<(Self, Opened), FileError> {
        let path = resolve(path)?;
        let names = Names::of(&path).ok_or_else(|| FileError::Folder(path.clone()))?;
        let Taken { file, facts, cut, warnings } = take(&path)?;
        let listing = names.list().map_err(|source| FileError::Open { path: path.clone(), source })?;
        let last = listing.rotated.last_key_value().map(|(stamp, _)| *stamp);
        let file = Self {
            archive: Archive::start(names.clone(), rotation, last)?,
            path: path.clone(),
            names,
            rotation,
            current: Some(Current::new(file, &facts, last)),
            last,
            rotate_again: None,
            exchanges: true,
            stats: Stats::default(),
            outage: Outage::default(),
            clock,
        };
        Ok((file, Opened { path, cut, warnings }))
    }

    /// Writes whole lines, in one piece where they fit the file; what was lost is counted, and all the next
    /// batch needs is that there is room again. A newline that is missing at the end is added.
    pub fn write(&mut self, lines: &[u8]) -> Written {
        if lines.last().is_some_and(|byte| *byte != b'\n') {
            return self.write(&[lines, b"\n"].concat());
        }
        let mut all = Written::default();
        let mut rest = lines;
        while !rest.is_empty() {
            let (lines, after) = self.split(rest);
            let Written { written, lost } = self.write_batch(lines);
            all.written += written;
            all.lost += lost;
            rest = after;
        }
        all
    }

    /// To be called about once a second: rotates by age also when nothing comes, and looks whether the file
    /// was moved.
    pub fn tick(&mut self) {
        self.reopen();
        let now = (self.clock)();
        if self.is_due(0, now) {
            self.rotate(now);
        }
    }

    /// Opens the file anew if its name stands for another file now, or for none; whether it did.
    pub fn reopen(&mut self) -> bool {
        let is_there = self.current.as_ref().is_some_and(|current| current.is_at(&self.path));
        if is_there {
            return false;
        }
        match take(&self.path) {
            Ok(taken) => {
                self.adopt(taken);
                true
            }
            Err(error) => {
                // Lines still reach the file that was moved. If it was deleted, the next batch finds that out.
                if self.current.is_some() {
                    let error = Failure::of_open(error).why;
                    self.archive.trouble(format!(
                        "{} was moved or deleted and cannot be made anew: {error}",
                        self.path.display()
                    ));
                }
                false
            }
        }
    }

    /// Changes the limits; the file stays open.
    pub fn set_rotation(&mut self, rotation: Rotation) {
        self.rotation = rotation;
        self.rotate_again = None;
        self.archive.set_rotation(rotation);
    }

    /// As of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.stats.clone();
        stats.size = self.current.as_ref().map_or(0, |current| current.len);
        self.archive.fill(&mut stats);
        stats
    }

    /// Waits until the disk has everything, but no longer than two seconds. What is left to compress is
    /// compressed after the next start.
    ///
    /// # Errors
    /// When the disk does not confirm it, or not in time. The lines are in the kernel's hands all the same.
    pub fn close(mut self) -> io::Result<()> {
        // The thread drops it: then the lock is free when this returns.
        let current = self.current.take().filter(|current| current.is_regular);
        self.archive.close(current.map(|current| current.file), LONGEST_CLOSE)
    }

    /// As many whole lines as a file may have, at least one; and the rest.
    fn split<'a>(&self, lines: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let is_newline = |byte: &u8| *byte == b'\n';
        let limit = usize::try_from(self.rotation.size).unwrap_or(usize::MAX);
        let is_regular = self.current.as_ref().is_none_or(|current| current.is_regular);
        if limit == 0 || lines.len() <= limit || !is_regular {
            return (lines, &[]);
        }
        let fitting = lines[..limit].iter().rposition(is_newline);
        let end = fitting.or_else(|| lines.iter().position(is_newline)).map_or(lines.len(), |end| end + 1);
        lines.split_at(end)
    }

    fn write_batch(&mut self, lines: &[u8]) -> Written {
        let now = (self.clock)();
        let (written, failure) = match self.ready(lines.len(), now) {
            Ok(current) => current.append(lines, now),
            Err(failure) => (0, Some(failure)),
        };
        let (written, lost) = lines.split_at(written);
        let done = Written { written: Count::of(written), lost: Count::of(lost) };
        self.stats.written += done.written;
        match failure {
            Some(failure) => self.failed(failure, done.lost, now),
            None => self.succeeded(now),
        }
        done
    }

    /// The file that a batch of so many bytes goes to.
    fn ready(&mut self, bytes: usize, now: SystemTime) -> Result<&mut Current, Failure> {
        self.find()?;
        if self.is_due(bytes, now) {
            self.rotate(now);
            self.find()?;
        }
        Ok(self.current.as_mut().expect("it was found"))
    }

    /// Sees to it that there is a current file, that it has a name, and that it ends with a whole line.
    fn find(&mut self) -> Result<(), Failure> {
        match self.current.as_mut().map_or(Ok(false), Current::settle) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                let failure = Failure::of(&error);
                // A file that its server has forgotten does not come back.
                if failure.reason != Reason::Gone {
                    return Err(failure);
                }
            }
        }
        self.current = None;
        let taken = take(&self.path).map_err(Failure::of_open)?;
        self.adopt(taken);
        Ok(())
    }

    /// Goes on with a file that was opened because the one before is not there any more.
    fn adopt(&mut self, taken: Taken) {
        let Taken { file, facts, cut, warnings } = taken;
        let path = self.path.display();
        info!("{path} was moved or deleted; events go to a new file of that name");
        if cut > 0 {
            warn!("{cut} bytes of an unfinished line were cut off the end of {path}");
        }
        for warning in warnings {
            warn!("{warning}");
        }
        self.stats.reopened += 1;
        if let Some(moved) = self.current.replace(Current::new(file, &facts, self.last)) {
            self.archive.sync(moved.file);
        }
    }

    fn is_due(&mut self, bytes: usize, now: SystemTime) -> bool {
        let Some(current) = self.current.as_mut().filter(|current| current.is_regular) else {
            return false;
        };
        // A file without lines has no age, and rotating it would only make another.
        if current.len == 0 {
            return false;
        }
        // A clock that was set back starts the age anew: else it would stand still until then.
        let first = current.first_line.get_or_insert(now);
        *first = now.min(*first);
        let age = now.duration_since(*first).unwrap_or_default();
        let Rotation { size, age: oldest, .. } = self.rotation;
        let is_large = size != 0 && current.len.saturating_add(bytes as u64) > size;
        let is_old = !oldest.is_zero() && age >= oldest;
        let may_try = self.rotate_again.is_none_or(|again| now >= again || again > now + ROTATE_AGAIN);
        (is_large || is_old) && may_try
    }

    fn rotate(&mut self, now: SystemTime) {
        match self.try_rotate(now) {
            Ok(stamp) => {
                self.rotate_again = None;
                self.stats.rotations += 1;
                self.archive.finished(stamp);
            }
            Err(RotateError::Replaced) if self.reopen() => {}
            Err(error) => {
                self.rotate_again = Some(now + ROTATE_AGAIN);
                self.stats.rotation_failures += 1;
                let path = self.path.display();
                self.archive.trouble(format!("cannot rotate {path}: {error}; events go on in it"));
            }
        }
    }

    fn try_rotate(&mut self, now: SystemTime) -> Result<Stamp, RotateError> {
        if !self.current.as_ref().is_some_and(|current| current.is_at(&self.path)) {
            return Err(RotateError::Replaced);
        }
        let (stamp, next) = self.create_rotated(now)?;
        let rotated = self.names.rotated(stamp, Compression::None);
        match self.exchange(&rotated) {
            Ok(true) => self.current = Some(next),
            Ok(false) => self.current = self.rename_and_create(&rotated)?,
            Err(error) => {
                // Empty, and under a name of ours: if it stays, the next start removes it.
                let _ = fs::remove_file(&rotated);
                return Err(error.into());
            }
        }
        Ok(stamp)
    }

    /// Makes an empty file under a name that no file has, later than all others.
    fn create_rotated(&mut self, now: SystemTime) -> Result<(Stamp, Current), RotateError> {
        let mut stamp = Stamp::of(now);
        for _ in 0..NAMES_TRIED {
            if let Some(last) = self.last {
                stamp = stamp.max(last.next().ok_or(RotateError::NoName)?);
            }
            match create(&self.names.rotated(stamp, Compression::None)) {
                Ok(file) => {
                    self.last = Some(stamp);
                    let facts = file.metadata()?;
                    return Ok((stamp, Current::new(file, &facts, None)));
                }
                // Of somebody else, who may have made it after our last look.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.last = Some(stamp),
                Err(error) => return Err(error.into()),
            }
        }
        Err(RotateError::Io(io::ErrorKind::AlreadyExists.into()))
    }

    /// Lets the current and an empty file exchange their names; false where the file system cannot.
    fn exchange(&mut self, rotated: &Path) -> io::Result<bool> {
        if !self.exchanges {
            return Ok(false);
        }
        match renameat_with(CWD, &self.path, CWD, rotated, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                self.exchanges = false;
                Ok(false)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// The same in two steps, with a moment in between when there is no current file. None where that lasts.
    fn rename_and_create(&self, rotated: &Path) -> io::Result<Option<Current>> {
        if let Err(error) = fs::rename(&self.path, rotated) {
            let _ = fs::remove_file(rotated);
            return Err(error);
        }
        let created = create(&self.path).and_then(|file| {
            let facts = file.metadata()?;
            Ok(Current::new(file, &facts, None))
        });
        match created {
            Ok(current) => Ok(Some(current)),
            // It is rotated all the same if it cannot get its name back, or somebody else has that by now.
            Err(_) if fs::symlink_metadata(&self.path).is_ok() => Ok(None),
            Err(error) => fs::rename(rotated, &self.path).map_or(Ok(None), |()| Err(error)),
        }
    }

    fn failed(&mut self, failure: Failure, lost: Count, now: SystemTime) {
        let Failure { reason, why } = failure;
        *self.stats.lost.entry(reason).or_default() += lost;
        let since = self.stats.failing.take().map_or(now, |failing| failing.since);
        self.outage.lost += lost.events;
        if self.outage.last_told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
            self.outage.last_told = Some(Instant::now());
            self.outage.is_told = true;
            let path = self.path.display();
            warn!("cannot write events to {path}, they are lost: {why}; {}", reason.mend());
        }
        self.stats.failing = Some(Failing { reason, why, since });
    }

    fn succeeded(&mut self, now: SystemTime) {
        if self.stats.failing.take().is_none() {
            return;
        }
        self.stats.recovered = Some(now);
        let Outage { lost, is_told, .. } = self.outage;
        if is_told {
            info!("events are written to {} again; {lost} were lost", self.path.display());
        }
        self.outage = Outage { lost: 0, is_told: false, ..self.outage };
    }
}

// === impl Current ===

impl Current {
    fn new(file: File, facts: &Metadata, last_rotation: Option<Stamp>) -> Self {
        let len = if facts.is_file() { facts.len() } else { 0 };
        let first_line =
            first_line(facts.created().ok(), facts.modified().ok(), last_rotation.map(Stamp::time));
        Self {
            file,
            id: FileId::of(facts),
            is_regular: facts.is_file(),
            len,
            first_line: first_line.filter(|_| len > 0),
        }
    }

    /// Whether this is the file that the path leads to.
    fn is_at(&self, path: &Path) -> bool {
        !self.is_regular || fs::symlink_metadata(path).is_ok_and(|facts| FileId::of(&facts) == self.id)
    }

    /// Makes sure that what others did to the file costs no line of ours; false if it has no name any more.
    fn settle(&mut self) -> io::Result<bool> {
        if !self.is_regular {
            return Ok(true);
        }
        let facts = self.file.metadata()?;
        if facts.nlink() == 0 {
            return Ok(false);
        }
        if facts.len() != self.len {
            self.len = facts.len() - cut_unfinished(&self.file, facts.len())?;
        }
        if self.len == 0 {
            self.first_line = None;
        }
        Ok(true)
    }

    /// Appends whole lines; how many bytes of them are in the file, which still ends with a whole line.
    fn append(&mut self, lines: &[u8], now: SystemTime) -> (usize, Option<Failure>) {
        let mut done = 0;
        let error = loop {
            match self.file.write(&lines[done..]) {
                Ok(0) => break io::ErrorKind::WriteZero.into(),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break error,
            }
            if done == lines.len() {
                self.grow(done, now);
                return (done, None);
            }
        };
        let whole = lines[..done].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.grow(whole, now);
        if whole < done && self.is_regular {
            // If that fails, the file is longer than we know, and is settled before the next batch.
            let _ = self.file.set_len(self.len);
        }
        (whole, Some(Failure::of(&error)))
    }

    fn grow(&mut self, bytes: usize, now: SystemTime) {
        if self.is_regular && bytes > 0 {
            self.len += bytes as u64;
            self.first_line.get_or_insert(now);
        }
    }
}

// === impl Failure ===

impl Failure {
    fn of(error: &io::Error) -> Self {
        Self { reason: Reason::of(error, Reason::IoError), why: error.to_string() }
    }

    fn of_open(error: FileError) -> Self {
        match error {
            FileError::Open { source, .. } => {
                Self { reason: Reason::of(&source, Reason::Gone), why: source.to_string() }
            }
            error => Self { reason: Reason::Gone, why: error.to_string() },
        }
    }
}
