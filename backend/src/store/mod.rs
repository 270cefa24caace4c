//! Keeps events: durable before anybody hears of it, each once, readable at once, dropped by age.
//!
//! ```text
//! DIR/lock                                                    one process at a time
//! DIR/retention                                               the hour by which events are too old
//! DIR/wal/000000000016-2026-11-22T19.wal                      batches as they came
//! DIR/events/2026-11-22T19/000000000012-000000000015.parquet  columns, made of files 12 to 15 of the log
//! ```
//!
//! A batch goes to the log (`record`), which one thread writes (`writer`); the agent is told when an fsync has
//! followed it. Whether it is new is decided by the [`index`]. A file of the log that is complete becomes a Parquet file
//! (`seal`), which takes its place. Readers (`query`) go through both. What is too old by a clock that does not jump
//! (`retention`) is dropped.

mod columns;
pub mod damage;
pub mod index;
mod open;
pub mod partition;
mod position;
mod query;
pub mod record;
mod retention;
mod seal;
mod segment;
mod split;
pub mod state;
pub mod wanted;
mod writer;

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nightjar_proto::v1::Batch;
pub use open::OpenError;
pub use query::{Cursor, QueryError};
use record::Stored;
use retention::RetentionClock;
pub use segment::sync_dir;
use state::{Condition, State};
use tokio::sync::{Semaphore, oneshot};
use wanted::Wanted;
pub use writer::{Outcome, StoreError};
use writer::{Request, Writer};

use crate::{
    hour::{Hour, now},
    locks,
};

/// Directory of the log.
const WAL: &str = "wal";
/// Directory of the Parquet files.
const EVENTS: &str = "events";

/// What the store may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Size at which a file of the log is complete.
    pub segment_bytes: u64,
    /// How long events are kept, by the hour of their arrival, and by a clock that does not jump.
    pub retention: Duration,
    /// Free bytes on the file system below which nothing is taken any more: a Parquet file needs some while the log
    /// that it is made of is still there.
    pub reserve_bytes: u64,
    /// Bytes of batches that may wait to be written.
    pub waiting_bytes: usize,
    /// Waits so long before each fsync, as a slow disk would. For tests, as a disk cannot be made slow.
    pub slow_disk: Duration,
}

/// A data directory that is open.
pub struct Store {
    state: Arc<State>,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    waiting: Arc<Semaphore>,
    limits: Limits,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: Arc<AtomicBool>,
    _lock: File,
}

/// A batch that is on its way to the disk.
pub struct Pending(oneshot::Receiver<Result<Outcome, StoreError>>);

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            retention: Duration::from_hours(72),
            reserve_bytes: 256 << 20,
            waiting_bytes: 64 << 20,
            slow_disk: Duration::ZERO,
        }
    }
}

// === impl Store ===

impl Store {
    /// Opens a data directory, or makes it; what a crash has left is put in order. A disk that is full is no error: see
    /// [`Store::condition`].
    ///
    /// # Errors
    /// When another process has it, or it cannot be read.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, OpenError> {
        let (state, lock, next_number) = open::open(dir)?;
        let state = Arc::new(state);
        let mut clock = RetentionClock::open(dir, state.catalog().newest(), Hour::of(now()));
        state.keep_by(clock.hour());
        let mut writer = Writer::new(Arc::clone(&state), limits, next_number);
        if let Err(error) = writer.prepare() {
            // The first batch tries again.
            tracing::warn!("{error}");
        }
        let (requests, to_write) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let tended = (Arc::clone(&state), Arc::clone(&stop));
        let threads = [
            spawn(&state, "log", move || writer.run(&to_write)),
            spawn(&state, "seal", move || seal::run(&tended.0, limits, &mut clock, &tended.1)),
        ];
        let threads = threads.into_iter().collect::<Result<Vec<_>, _>>().map_err(OpenError::Thread)?;
        Ok(Self {
            state,
            requests: Mutex::new(Some(requests)),
            waiting: Arc::new(Semaphore::new(limits.waiting_bytes)),
            limits,
            threads: Mutex::new(threads),
            stop,
            _lock: lock,
        })
    }

    /// Hands over a batch. Waits as long as too much is under way: who does not read on meanwhile makes the agent wait.
    /// Where nothing is known of its stream, that begins after the number `starts_after`.
    ///
    /// # Errors
    /// When the store was closed.
    pub async fn append(&self, batch: Batch, starts_after: u64) -> Result<Pending, StoreError> {
        let bytes = batch.events.len() + 1024;
        let permits = u32::try_from(bytes.min(self.limits.waiting_bytes)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.waiting).acquire_many_owned(permits).await;
        let room = room.map_err(|_| StoreError::Closed)?;
        let (reply, pending) = oneshot::channel();
        let stored = Stored { received: now(), batch: Some(batch), starts_after };
        let request = Request { stored, reply, room };
        let requests = locks::lock(&self.requests).clone();
        requests.ok_or(StoreError::Closed)?.send(request).map_err(|_| StoreError::Closed)?;
        Ok(Pending(pending))
    }

    /// What is durable, and what was done.
    #[must_use]
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Whether batches are taken.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match *self.state.dead.borrow() {
            Some(name) => Condition::Failing(format!("its thread {name} panicked")),
            None => self.state.condition.borrow().clone(),
        }
    }

    /// Comes back when a thread of the store panicked, with its name. Nothing is stored then until it is opened again.
    pub async fn panicked(&self) -> &'static str {
        let mut dead = self.state.dead.subscribe();
        let name = dead.wait_for(Option::is_some).await.map(|name| *name);
        match name {
            Ok(Some(name)) => name,
            _ => std::future::pending().await,
        }
    }

    /// Bytes of batches that wait to be written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.limits.waiting_bytes - self.waiting.available_permits()
    }

    /// Reads from the first event on.
    #[must_use]
    pub fn read(&self, wanted: Wanted) -> Cursor {
        Cursor::at_start(Arc::clone(&self.state), wanted)
    }

    /// Reads what comes from now on.
    #[must_use]
    pub fn follow(&self, wanted: Wanted) -> Cursor {
        Cursor::at_end(Arc::clone(&self.state), wanted)
    }

    /// Hands over what no caller can, and what the writer cannot take.
    #[cfg(test)]
    pub(crate) fn break_writer(&self) {
        let room = Arc::clone(&self.waiting).try_acquire_many_owned(1).expect("there is room");
        let request = Request { stored: Stored::default(), reply: oneshot::channel().0, room };
        let requests = locks::lock(&self.requests).clone().expect("the store is open");
        drop(requests.send(request));
    }

    /// Writes what waits and closes the files.
    pub fn close(&self) {
        self.waiting.close();
        drop(locks::lock(&self.requests).take());
        self.stop.store(true, Ordering::Release);
        for thread in locks::lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store panicked");
            }
        }
    }
}

/// Says of a thread that it panicked.
struct Alarm(Arc<State>, &'static str);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.dead.send_replace(Some(self.1));
        }
    }
}

fn spawn(
    state: &Arc<State>,
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let alarm = Alarm(Arc::clone(state), name);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _alarm = alarm;
        work();
    })
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

// === impl Pending ===

impl Pending {
    /// Comes back when the batch is durable, or is known not to be.
    ///
    /// # Errors
    /// When it is not.
    pub async fn outcome(self) -> Result<Outcome, StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Closed))
    }
}

#[cfg(test)]
mod tests;
