//! Files that are finished: a thread brings them to the disk, compresses them and deletes the oldest.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime},
};

use flate2::write::GzEncoder;
use rustix::fs::{Mode, OFlags, statvfs};
use tracing::warn;

use super::{
    Compression, FileError, Rotation, Stats, Trouble,
    name::{Listing, Names, Stamp},
    open::create,
};

/// How much is compressed before looking whether the agent ends.
const BLOCK: usize = 128 << 10;
/// How much the thread lets others go first. The unit is that of nice(1).
const NICENESS: i32 = 10;

/// Hands files to the thread.
#[derive(Debug)]
pub(super) struct Archive {
    tasks: mpsc::Sender<Task>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
enum Task {
    /// This file and all before it are finished: nobody writes to them any more.
    Finished(Option<Stamp>),
    Rotation(Rotation),
    /// A file that is not among ours any more.
    Sync(File),
    /// The last that is heard.
    Close(Option<File>, mpsc::Sender<io::Result<()>>),
    /// Answers when nothing is left to do.
    #[cfg(test)]
    Settle(mpsc::Sender<()>),
}

#[derive(Debug, Default)]
struct Shared {
    report: Mutex<Report>,
    /// Compressing is to be given up.
    closing: AtomicBool,
    /// Held while a name is changed or removed; true when that is over, because somebody else may look after
    /// the files now.
    over: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Report {
    kept: u64,
    deleted: u64,
    compress_failures: u64,
    sync_failures: u64,
    trouble: Option<Trouble>,
}

struct Worker {
    tasks: mpsc::Receiver<Task>,
    shared: Arc<Shared>,
    names: Names,
    rotation: Rotation,
    /// The latest file that nobody writes to any more.
    finished: Option<Stamp>,
    /// What was left by one who was killed has been seen to.
    cleared: bool,
    /// On the disk for sure.
    synced: BTreeSet<Stamp>,
    /// Could not be compressed; tried again after the next rotation.
    failed: BTreeSet<Stamp>,
    #[cfg(test)]
    settled: Vec<mpsc::Sender<()>>,
}

/// What became of a file that was to be compressed.
enum Compressed {
    Done,
    /// The agent ends.
    GivenUp,
}

// === impl Archive ===

impl Archive {
    /// Starts the thread. Files up to `finished` are looked after at once.
    pub(super) fn start(
        names: Names,
        rotation: Rotation,
        finished: Option<Stamp>,
    ) -> Result<Self, FileError> {
        let (tasks, received) = mpsc::channel();
        let shared = Arc::<Shared>::default();
        let worker = Worker {
            tasks: received,
            shared: Arc::clone(&shared),
            names,
            rotation,
            finished: None,
            cleared: false,
            synced: BTreeSet::new(),
            failed: BTreeSet::new(),
            #[cfg(test)]
            settled: Vec::new(),
        };
        let thread = thread::Builder::new().name("archive".to_owned());
        thread.spawn(move || worker.run()).map_err(FileError::Thread)?;
        let archive = Self { tasks, shared };
        archive.send(Task::Finished(finished));
        Ok(archive)
    }

    pub(super) fn finished(&self, stamp: Stamp) {
        self.send(Task::Finished(Some(stamp)));
    }

    pub(super) fn set_rotation(&self, rotation: Rotation) {
        self.send(Task::Rotation(rotation));
    }

    /// Brings a file to the disk that somebody else has moved away.
    pub(super) fn sync(&self, file: File) {
        self.send(Task::Sync(file));
    }

    pub(super) fn close(&self, current: Option<File>, patience: Duration) -> io::Result<()> {
        self.shared.closing.store(true, Ordering::Relaxed);
        let (done, end) = mpsc::channel();
        self.send(Task::Close(current, done));
        end.recv_timeout(patience).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Remembers a trouble, and tells it if it is not the one that was told last.
    pub(super) fn trouble(&self, text: String) {
        self.shared.trouble(text);
    }

    pub(super) fn fill(&self, stats: &mut Stats) {
        let report = self.shared.report();
        stats.kept = report.kept;
        stats.deleted = report.deleted;
        stats.compress_failures = report.compress_failures;
        stats.sync_failures = report.sync_failures;
        stats.trouble.clone_from(&report.trouble);
    }

    #[cfg(test)]
    pub(super) fn settle(&self) {
        let (done, end) = mpsc::channel();
        self.send(Task::Settle(done));
        end.recv().unwrap();
    }

    /// Fails only if the thread has panicked, which is told by its panic.
    fn send(&self, task: Task) {
        let _ = self.tasks.send(task);
    }
}

impl Drop for Archive {
    /// From here on the thread changes no name: another may look after the files.
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        *self.shared.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }
}

// === impl Shared ===

impl Shared {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self, text: String) {
        let mut report = self.report();
        let is_told = report.trouble.as_ref().is_some_and(|trouble| trouble.text == text);
        if !is_told {
            warn!("{text}");
        }
        report.trouble = Some(Trouble { text, at: SystemTime::now() });
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Changes names, if that is still ours to do.
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if *over { Err(io::ErrorKind::Interrupted.into()) } else { change() }
    }
}

// === impl Worker ===

impl Worker {
    fn run(mut self) {
        // Best effort: without, compressing competes with the host's own work.
        let _ = rustix::process::nice(NICENESS);
        while let Ok(task) = self.tasks.recv() {
            self.take(task);
            self.take_waiting();
            while !self.shared.is_closing() && self.look_after() {
                self.take_waiting();
            }
            #[cfg(test)]
            self.settled.drain(..).for_each(|done| done.send(()).unwrap());
        }
    }

    fn take_waiting(&mut self) {
        while let Ok(task) = self.tasks.try_recv() {
            self.take(task);
        }
    }

    fn take(&mut self, task: Task) {
        match task {
            Task::Finished(stamp) => {
                self.finished = self.finished.max(stamp);
                self.failed.clear();
            }
            Task::Rotation(rotation) => {
                self.rotation = rotation;
                self.failed.clear();
            }
            Task::Sync(file) => {
                if let Err(error) = file.sync_all() {
                    self.sync_failed("a file that was moved away", &error);
                }
            }
            Task::Close(current, done) => {
                let result = self.sync_everything(current);
                // Nobody hears it where the wait was too long.
                let _ = done.send(result);
            }
            #[cfg(test)]
            Task::Settle(done) => self.settled.push(done),
        }
    }

    /// Does what there is to do, up to one file that is compressed; whether to look again.
    fn look_after(&mut self) -> bool {
        let Some(mut listing) = self.list() else { return false };
        if !self.cleared {
            self.cleared = true;
            self.clear_leftovers(&mut listing);
        }
        self.delete_surplus(&mut listing);
        self.sync(&listing);
        self.shared.report().kept = listing.rotated.len() as u64;
        self.compress_one(&listing)
    }

    fn list(&self) -> Option<Listing> {
        match self.names.list() {
            Ok(mut listing) => {
                listing.rotated.retain(|stamp, _| Some(*stamp) <= self.finished);
                Some(listing)
            }
            Err(error) => {
                self.shared.trouble(format!("cannot list {}: {error}", self.names.folder().display()));
                None
            }
        }
    }

    /// Removes what one who was killed left half done: a compressed file that is not finished, the original
    /// of one that is, and a file that was made for a rotation that did not come.
    fn clear_leftovers(&self, listing: &mut Listing) {
        for partial in &listing.partial {
            self.remove(partial);
        }
        listing.rotated.retain(|stamp, forms| {
            let original = self.names.rotated(*stamp, Compression::None);
            let is_done = forms.iter().any(|form| *form != Compression::None);
            let is_left_over = is_done || fs::symlink_metadata(&original).is_ok_and(|facts| facts.len() == 0);
            if is_left_over && forms.contains(&Compression::None) && self.remove(&original) {
                forms.retain(|form| *form != Compression::None);
            }
            !forms.is_empty()
        });
    }

    fn delete_surplus(&self, listing: &mut Listing) {
        let keep = usize::try_from(self.rotation.keep).unwrap_or(usize::MAX);
        let mut surplus = listing.rotated.len().saturating_sub(keep);
        listing.rotated.retain(|stamp, forms| {
            if surplus == 0 {
                return true;
            }
            surplus -= 1;
            forms.retain(|form| !self.remove(&self.names.rotated(*stamp, *form)));
            self.shared.report().deleted += u64::from(forms.is_empty());
            !forms.is_empty()
        });
    }

    fn remove(&self, path: &Path) -> bool {
        match self.shared.change(|| fs::remove_file(path)) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(_) if self.shared.is_closing() => false,
            Err(error) => {
                self.shared.trouble(format!("cannot delete {}: {error}", path.display()));
                false
            }
        }
    }

    /// Brings rotated files to the disk. Compressed ones are there before they have their name.
    fn sync(&mut self, listing: &Listing) {
        let mut is_new = false;
        self.synced.retain(|stamp| listing.rotated.contains_key(stamp));
        for (stamp, forms) in &listing.rotated {
            if !forms.contains(&Compression::None) || !self.synced.insert(*stamp) {
                continue;
            }
            is_new = true;
            let path = self.names.rotated(*stamp, Compression::None);
            if let Err(error) = open(&path).and_then(|file| file.sync_all()) {
                self.sync_failed(&path.display().to_string(), &error);
            }
        }
        if is_new {
            self.sync_names();
        }
    }

    fn sync_names(&self) {
        if let Err(error) = self.sync_folder() {
            self.sync_failed(&self.names.folder().display().to_string(), &error);
        }
    }

    fn sync_everything(&mut self, current: Option<File>) -> io::Result<()> {
        if let Some(listing) = self.list() {
            self.sync(&listing);
        }
        if let Some(file) = current {
            // A child of the agent may have a copy of the file until it has become another program.
            let _ = file.unlock();
            file.sync_all()?;
        }
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(self.names.folder())?.sync_all()
    }

    fn sync_failed(&self, what: &str, error: &io::Error) {
        self.shared.report().sync_failures += 1;
        self.shared.trouble(format!("the disk did not confirm that it has {what}: {error}"));
    }

    /// Compresses the oldest file that is not; whether there may be more.
    fn compress_one(&mut self, listing: &Listing) -> bool {
        let how = self.rotation.compression;
        let mut plain = listing.rotated.iter().filter(|(_, forms)| **forms == [Compression::None]);
        let Some((stamp, _)) = plain.find(|(stamp, _)| !self.failed.contains(*stamp)) else { return false };
        if how == Compression::None {
            return false;
        }
        match self.compress(*stamp, how) {
            Ok(Compressed::Done) => true,
            Ok(Compressed::GivenUp) => false,
            Err(error) => {
                self.failed.insert(*stamp);
                self.shared.report().compress_failures += 1;
                let path = self.names.rotated(*stamp, Compression::None);
                let path = path.display();
                self.shared.trouble(format!("cannot compress {path}: {error}; it is kept as it is"));
                true
            }
        }
    }

    /// The compressed file gets its name when it is whole and on the disk, and only then the original goes.
    fn compress(&self, stamp: Stamp, how: Compression) -> io::Result<Compressed> {
        let original = self.names.rotated(stamp, Compression::None);
        let partial = self.names.partial(stamp, how);
        let mut from = open(&original)?;
        let facts = from.metadata()?;
        self.need_room(facts.len())?;
        match self.shared.change(|| fs::remove_file(&partial)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let done = create(&partial).and_then(|to| self.pack(&mut from, to, how)).and_then(|to| {
            let Some(to) = to else { return Ok(Compressed::GivenUp) };
            // Of the events, for whoever looks for files by time.
            to.set_modified(facts.modified()?)?;
            to.sync_all()?;
            self.shared.change(|| fs::rename(&partial, self.names.rotated(stamp, how)))?;
            Ok(Compressed::Done)
        });
        if matches!(done, Ok(Compressed::Done)) {
            // First, else a power cut could leave neither of the names.
            self.sync_names();
            self.remove(&original);
        } else {
            self.remove(&partial);
        }
        // Names are not changed any more: the agent ends.
        if self.shared.is_closing() && done.is_err() { Ok(Compressed::GivenUp) } else { done }
    }

    /// What room there is, is for events first. At worst a file cannot be made smaller, and as much again
    /// comes meanwhile.
    fn need_room(&self, len: u64) -> io::Result<()> {
        let system = statvfs(self.names.folder())?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        // Some file systems do not know their size.
        if system.f_blocks == 0 || free / 2 >= len {
            return Ok(());
        }
        let text = format!("{free} bytes are left on the disk, and twice its {len} bytes are needed");
        Err(io::Error::new(io::ErrorKind::StorageFull, text))
    }

    /// Gives the file back when all is in it, and none if there was no time.
    fn pack(&self, from: &mut File, to: File, how: Compression) -> io::Result<Option<File>> {
        match how {
            Compression::None => Ok(self.copy(from, &mut &to)?.then_some(to)),
            Compression::Gzip => {
                let mut encoder = GzEncoder::new(to, flate2::Compression::default());
                if self.copy(from, &mut encoder)? { encoder.finish().map(Some) } else { Ok(None) }
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
                encoder.include_checksum(true)?;
                if self.copy(from, &mut encoder)? { encoder.finish().map(Some) } else { Ok(None) }
            }
        }
    }

    /// Whether all was copied.
    fn copy(&self, from: &mut File, to: &mut impl Write) -> io::Result<bool> {
        let mut block = vec![0; BLOCK];
        while !self.shared.is_closing() {
            match from.read(&mut block) {
                Ok(0) => return Ok(true),
                Ok(read) => to.write_all(&block[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Opens a rotated file. What is no regular file was put there by somebody else; a FIFO would block.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}
