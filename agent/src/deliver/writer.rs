//! The way of events into the spool: collected where they are made, compressed and written on a thread of its own.
//!
//! Adding an event copies it into the buffer of its lane and never waits for compression or a disk. The thread takes a
//! buffer when it is full or old, what is critical first. What waits in memory is bounded: beyond that a full batch of the
//! bulk lane is given up, the one that waits longest if the new one is critical. That is a loss with the reason
//! `queue_full`, which the spool tells in the lane.

use std::{
    collections::VecDeque,
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use super::{
    batch::{BatchLimits, Collected, Sealer},
    spool::{Keeper, Lane, NotDurable, Reason, Spool},
    watermark::Watermark,
};

/// How much may be on the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WriterLimits {
    /// When a batch is closed.
    pub batch: BatchLimits,
    /// Most bytes of batches that are full and not written yet. Beside them each lane has a buffer that fills.
    pub queue_bytes: usize,
}

/// Takes encoded events for the spool. Any thread may use it.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    spool: Spool,
    thread: Option<JoinHandle<()>>,
    keeper: Option<Keeper>,
}

/// What the writer has done since it was started. Events that the spool refuses are in its own counters.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct WriterStats {
    /// Batches that were given to the spool.
    pub batches: u64,
    /// Events in them.
    pub events: u64,
    /// Their bytes before compression.
    pub uncompressed_bytes: u64,
    /// Their bytes after it.
    pub compressed_bytes: u64,
    /// Events that were given up because the queue was full.
    pub queue_full: u64,
    /// Bytes that wait now.
    pub queued_bytes: u64,
    /// Events that wait, also for their batch to be full.
    pub pending: u64,
}

/// The batch that an event was added to is full, and there is no place for it. It is counted, and the spool will tell.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{events} events are lost: the queue of the spool is full; its disk is too slow for as many events")]
pub struct QueueFull {
    /// Events of the batch.
    pub events: u64,
}

#[derive(Debug)]
struct Queue {
    limits: WriterLimits,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lanes: [LaneQueue; 2],
    /// Buffers to be used again.
    spare: Vec<Collected>,
    /// Bytes of all that is full, with what is being written.
    queued: usize,
    /// Events of what is being written.
    writing: u64,
    /// All events of before this time are written once nothing waits any more.
    mark: Option<u64>,
    is_stopping: bool,
    stats: WriterStats,
}

#[derive(Debug, Default)]
struct LaneQueue {
    filling: Collected,
    full: VecDeque<Collected>,
    /// Given up, and not told to the spool yet: events, first time, last time.
    lost: Option<(u64, u64, u64)>,
}

/// What the thread does next.
enum Work {
    Write(Lane, Collected),
    Tell(Lane, (u64, u64, u64)),
    Mark(u64),
    Stop,
}

/// Buffers that are kept: as many as fill or are written at a time.
const SPARE: usize = 4;

// === impl WriterLimits ===

impl Default for WriterLimits {
    /// 16 MiB.
    fn default() -> Self {
        Self { batch: BatchLimits::default(), queue_bytes: 16 << 20 }
    }
}

// === impl Writer ===

impl Writer {
    /// Starts the thread, which is named `spool`, and the one that makes durable what it writes.
    ///
    /// # Errors
    /// When the host has no thread to give, or zstd does not take the level.
    pub fn start(spool: Spool, limits: WriterLimits, watermark: Option<Watermark>) -> io::Result<Self> {
        let queue = Arc::new(Queue { limits, state: Mutex::default(), changed: Condvar::new() });
        let mut sealer = Sealer::new(limits.batch.level)?;
        let keeper = Some(Keeper::start(spool.clone())?);
        let (of_thread, into) = (queue.clone(), spool.clone());
        let run = move || of_thread.run(&into, &mut sealer, watermark.as_ref());
        let thread = Some(thread::Builder::new().name("spool".to_owned()).spawn(run)?);
        Ok(Self { queue, spool, thread, keeper })
    }

    /// Adds an encoded `nightjar.v1.Event` of a time in nanoseconds since 1970. It does not wait.
    ///
    /// # Errors
    /// When the batch that is full has no place. All its events are lost.
    pub fn add(&self, lane: Lane, event: &[u8], time: u64) -> Result<(), QueueFull> {
        let limits = &self.queue.limits;
        let mut state = self.queue.state();
        let filling = &state.lanes[index(lane)].filling;
        // An event so large that the backend may not take it takes no others with it.
        let is_too_much = !filling.is_empty() && filling.bytes.len() + event.len() > 2 * limits.batch.bytes;
        let before = if is_too_much { state.enqueue(lane, limits) } else { Ok(()) };
        let filling = &mut state.lanes[index(lane)].filling;
        let is_first = filling.is_empty();
        filling.add(event, time);
        let is_full = filling.bytes.len() >= limits.batch.bytes;
        let with_it = if is_full { state.enqueue(lane, limits) } else { Ok(()) };
        drop(state);
        // For the first it has to wake when that is old.
        if is_first || is_full {
            self.queue.changed.notify_one();
        }
        match (before, with_it) {
            (Err(one), Err(other)) => Err(QueueFull { events: one.events + other.events }),
            (before, with_it) => before.and(with_it),
        }
    }

    /// All events of before a time, in nanoseconds since 1970, were added. That is written down when they are in the
    /// spool.
    pub fn mark(&self, time: u64) {
        let mut state = self.queue.state();
        for lane in Lane::ALL {
            if !state.lanes[index(lane)].filling.is_empty() {
                // What has no place is counted.
                let _counted = state.enqueue(lane, &self.queue.limits);
            }
        }
        state.mark = Some(time);
        drop(state);
        self.queue.changed.notify_one();
    }

    /// What it has done.
    #[must_use]
    pub fn stats(&self) -> WriterStats {
        let state = self.queue.state();
        let of_lane =
            |lane: &LaneQueue| lane.filling.count + lane.full.iter().map(|full| full.count).sum::<u64>();
        let pending = state.writing + state.lanes.iter().map(of_lane).sum::<u64>();
        WriterStats { queued_bytes: state.queued as u64, pending, ..state.stats }
    }

    /// Writes all that was added, and returns when it is durable.
    ///
    /// # Errors
    /// When the disk did not take all of it.
    pub fn close(mut self) -> Result<(), NotDurable> {
        self.stop();
        self.keeper = None;
        self.spool.sync_now()
    }

    fn stop(&mut self) {
        self.queue.state().is_stopping = true;
        self.queue.changed.notify_one();
        // A panic there has been told by the panic itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

// === impl Queue ===

impl Queue {
    /// Nothing in there is left half done by a panic: counts and buffers are changed together.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, spool: &Spool, sealer: &mut Sealer, watermark: Option<&Watermark>) {
        let mut done = None;
        loop {
            match self.next(done.take()) {
                Work::Write(lane, collected) => {
                    let (events, bytes) = (collected.count, collected.bytes.len() as u64);
                    let batch = sealer.seal(&collected);
                    let compressed = batch.as_ref().map_or(0, |batch| batch.events.len() as u64);
                    match batch {
                        // What it refuses it counts and tells itself.
                        Ok(batch) => drop(spool.append(lane, &batch)),
                        Err(error) => {
                            tracing::error!(%error, events, "cannot compress a batch: it is lost");
                            let Collected { first_time, last_time, .. } = collected;
                            spool.lose(lane, Reason::TooLarge, events, first_time, last_time);
                        }
                    }
                    let mut shared = self.state();
                    shared.writing = 0;
                    let stats = &mut shared.stats;
                    stats.batches += 1;
                    stats.events += events;
                    stats.uncompressed_bytes += bytes;
                    stats.compressed_bytes += compressed;
                    done = Some(collected);
                }
                Work::Tell(lane, (events, first_time, last_time)) => {
                    spool.lose(lane, Reason::QueueFull, events, first_time, last_time);
                }
                Work::Mark(time) => {
                    // What was refused meanwhile may be known to nobody after the end of this process.
                    let written = watermark.filter(|_| spool.is_saved()).map(|watermark| watermark.set(time));
                    if let Some(Err(error)) = written {
                        tracing::debug!(%error, "cannot write down how far the spool is complete");
                    }
                }
                Work::Stop => return,
            }
        }
    }

    /// Gives back the buffer that is done with, and waits for the next thing to do.
    fn next(&self, done: Option<Collected>) -> Work {
        let mut state = self.state();
        if let Some(mut done) = done {
            state.queued -= done.bytes.len();
            if state.spare.len() < SPARE {
                done.clear(2 * self.limits.batch.bytes);
                state.spare.push(done);
            }
        }
        loop {
            if let Some(work) = state.work(&self.limits.batch) {
                if let Work::Write(_, collected) = &work {
                    state.writing = collected.count;
                }
                return work;
            }
            if let Some(time) = state.mark.take() {
                return Work::Mark(time);
            }
            if state.is_stopping {
                return Work::Stop;
            }
            let due = state.lanes.iter().filter_map(|lane| lane.filling.since).min();
            state = match due {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(since) => {
                    let wait = (since + self.limits.batch.age).saturating_duration_since(Instant::now());
                    let waited = self.changed.wait_timeout(state, wait);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

// === impl State ===

impl State {
    /// Closes the batch that fills. If there is no place for it, room is made at the cost of bulk, or it is lost.
    fn enqueue(&mut self, lane: Lane, limits: &WriterLimits) -> Result<(), QueueFull> {
        let bytes = self.lanes[index(lane)].filling.bytes.len();
        while self.queued + bytes > limits.queue_bytes {
            let oldest = match lane {
                Lane::Critical => self.lanes[index(Lane::Bulk)].full.pop_front(),
                Lane::Bulk => None,
            };
            let Some(oldest) = oldest else {
                let mut filling = mem::take(&mut self.lanes[index(lane)].filling);
                let events = filling.count;
                self.lose(lane, &filling);
                filling.clear(2 * limits.batch.bytes);
                self.lanes[index(lane)].filling = filling;
                return Err(QueueFull { events });
            };
            self.queued -= oldest.bytes.len();
            self.lose(Lane::Bulk, &oldest);
        }
        self.queued += bytes;
        let spare = self.spare.pop().unwrap_or_default();
        let lane = &mut self.lanes[index(lane)];
        lane.full.push_back(mem::replace(&mut lane.filling, spare));
        Ok(())
    }

    fn lose(&mut self, lane: Lane, collected: &Collected) {
        let &Collected { count, first_time, last_time, .. } = collected;
        self.stats.queue_full += count;
        let to_tell = &mut self.lanes[index(lane)].lost;
        let (events, first, last) = to_tell.unwrap_or((0, u64::MAX, 0));
        *to_tell = Some((events + count, first.min(first_time), last.max(last_time)));
    }

    /// What is critical first. Batches that wait are older than what was given up, so they go before it is told.
    fn work(&mut self, limits: &BatchLimits) -> Option<Work> {
        let is_stopping = self.is_stopping;
        Lane::ALL.into_iter().find_map(|lane| {
            let of_lane = &mut self.lanes[index(lane)];
            if let Some(full) = of_lane.full.pop_front() {
                return Some(Work::Write(lane, full));
            }
            if let Some(lost) = of_lane.lost.take() {
                return Some(Work::Tell(lane, lost));
            }
            let is_old =
                of_lane.filling.since.is_some_and(|since| is_stopping || since.elapsed() >= limits.age);
            if !is_old {
                return None;
            }
            let spare = self.spare.pop().unwrap_or_default();
            let old = mem::replace(&mut of_lane.filling, spare);
            self.queued += old.bytes.len();
            Some(Work::Write(lane, old))
        })
    }
}

fn index(lane: Lane) -> usize {
    match lane {
        Lane::Critical => 0,
        Lane::Bulk => 1,
    }
}
