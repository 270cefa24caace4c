//! Those who watch live, and the events of a short while ago for them.
//!
//! An event is encoded once, for the memory of what was and for all readers. Each reader has a queue of bounded
//! size: what does not fit is counted, and the reader is told how much it missed. So nobody who reads, or does
//! not, holds up the thread that drains the kernel's ring.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use nightjar_proto::v1::{self, Event};
use prost::Message as _;
use tokio::sync::Notify;

use crate::pipeline::filter::{Facts, Match};

/// Bytes that wait for one reader at most.
const QUEUE: usize = 4 << 20;
/// What an entry takes beside its bytes, about.
const OVERHEAD: usize = 64;

/// What a reader wants to see.
#[derive(Debug, Clone, Default)]
pub struct Selector {
    /// Conditions on the event.
    pub conditions: Match,
    /// Process IDs, any of which the acting process must have; empty: no condition.
    pub pids: Vec<u32>,
    /// Instead of `pids`: the processes that it must be one of, by [`crate::process::Identity::process`]. Their
    /// children are added as they are born.
    pub tree: Option<HashSet<u64>>,
}

/// Who reads.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    /// Process ID.
    pub pid: u32,
    /// User.
    pub uid: u32,
}

/// A reader's queue.
#[derive(Debug)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Notify,
    who: Who,
    since: SystemTime,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Bytes>,
    bytes: usize,
    /// Missed since the queue was last emptied.
    missed: u64,
    missed_in_all: u64,
    sent: u64,
    /// Nothing more will come.
    ended: bool,
}

/// What a reader gets at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Encoded events.
    pub events: Vec<Bytes>,
    /// Events that would have come after these, but the queue was full.
    pub missed: u64,
}

/// A reader, registered.
#[derive(Debug)]
pub struct Subscription {
    /// Where its events come.
    pub queue: Arc<Queue>,
    /// What was before and is still remembered, not selected yet.
    pub history: Vec<Bytes>,
    /// For `history`: as of now.
    pub selector: Selector,
}

struct Reader {
    selector: Selector,
    queue: Arc<Queue>,
}

/// Readers and history.
pub struct Hub {
    readers: Vec<Reader>,
    history: VecDeque<(SystemTime, Bytes)>,
    history_bytes: usize,
    history_bound: usize,
}

/// An event that is encoded once, when the first asks for that.
pub struct Encoded<'a> {
    /// As it was made.
    pub event: &'a Event,
    bytes: Option<Bytes>,
}

// === impl Encoded ===

impl<'a> Encoded<'a> {
    /// Of an event.
    #[must_use]
    pub fn new(event: &'a Event) -> Self {
        Self { event, bytes: None }
    }

    /// The encoded `nightjar.v1.Event`.
    pub fn bytes(&mut self) -> &Bytes {
        self.bytes.get_or_insert_with(|| Bytes::from(self.event.encode_to_vec()))
    }
}

// === impl Selector ===

impl Selector {
    /// Whether the reader wants this event. What was lost is everybody's concern.
    #[must_use]
    pub fn fits(&self, event: &Event) -> bool {
        let Some(process) = &event.process else { return true };
        let is_wanted_process = match &self.tree {
            Some(tree) => u64::from_str_radix(&process.id, 16).is_ok_and(|name| tree.contains(&name)),
            None => self.pids.is_empty() || self.pids.contains(&process.pid),
        };
        is_wanted_process && self.conditions.fits(&Facts::of(event))
    }

    /// A process was made by another.
    pub fn fork(&mut self, parent: u64, child: u64) {
        if let Some(tree) = &mut self.tree
            && tree.contains(&parent)
        {
            tree.insert(child);
        }
    }

    /// A process ended.
    pub fn exit(&mut self, process: u64) {
        if let Some(tree) = &mut self.tree {
            tree.remove(&process);
        }
    }
}

// === impl Queue ===

impl Queue {
    fn new(who: Who) -> Self {
        Self { waiting: Mutex::default(), ready: Notify::new(), who, since: SystemTime::now() }
    }

    /// What waits, as soon as something does; `None` when nothing more will come.
    pub async fn next(&self) -> Option<Batch> {
        loop {
            let ready = self.ready.notified();
            {
                let mut waiting = self.locked();
                if !waiting.events.is_empty() || waiting.missed > 0 {
                    waiting.bytes = 0;
                    waiting.sent += waiting.events.len() as u64;
                    let missed = mem::take(&mut waiting.missed);
                    return Some(Batch { events: mem::take(&mut waiting.events), missed });
                }
                if waiting.ended {
                    return None;
                }
            }
            ready.await;
        }
    }

    fn put(&self, event: &Bytes) {
        let mut waiting = self.locked();
        // Once something is missed it stays so until the reader has come: the gap has one place.
        if waiting.missed > 0 || waiting.bytes + event.len() + OVERHEAD > QUEUE {
            waiting.missed += 1;
            waiting.missed_in_all += 1;
            return;
        }
        waiting.bytes += event.len() + OVERHEAD;
        waiting.events.push(event.clone());
    }

    fn end(&self) {
        self.locked().ended = true;
        self.ready.notify_one();
    }

    fn locked(&self) -> MutexGuard<'_, Waiting> {
        // Held for a few instructions that do not panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Hub ===

impl Hub {
    /// Remembers events in this many bytes.
    #[must_use]
    pub fn new(history_bound: usize) -> Self {
        Self { readers: Vec::new(), history: VecDeque::new(), history_bytes: 0, history_bound }
    }

    /// Remembers in as many bytes from now on.
    pub fn remember(&mut self, history_bound: usize) {
        self.history_bound = history_bound;
        self.forget();
    }

    /// Registers a reader, who gets what comes from now on; what is at most `back` old is in the history.
    pub fn subscribe(&mut self, selector: Selector, who: Who, back: Duration) -> Subscription {
        let queue = Arc::new(Queue::new(who));
        let oldest = SystemTime::now().checked_sub(back).unwrap_or(SystemTime::UNIX_EPOCH);
        let history = self.history.iter().filter(|(at, _)| *at >= oldest && !back.is_zero());
        let history = history.map(|(_, event)| event.clone()).collect();
        self.readers.push(Reader { selector: selector.clone(), queue: Arc::clone(&queue) });
        Subscription { queue, history, selector }
    }

    /// Takes an event, for those who want it and for later.
    pub fn event(&mut self, encoded: &mut Encoded<'_>) {
        let event = encoded.event;
        let mut encode = || encoded.bytes().clone();
        if self.history_bound > 0 {
            let bytes = encode();
            self.history_bytes += bytes.len() + OVERHEAD;
            self.history.push_back((SystemTime::now(), bytes));
            self.forget();
        }
        for reader in self.readers.iter().filter(|reader| reader.selector.fits(event)) {
            reader.queue.put(&encode());
        }
    }

    /// A process was made by another.
    pub fn fork(&mut self, parent: u64, child: u64) {
        self.readers.iter_mut().for_each(|reader| reader.selector.fork(parent, child));
    }

    /// A process ended.
    pub fn exit(&mut self, process: u64) {
        self.readers.iter_mut().for_each(|reader| reader.selector.exit(process));
    }

    /// Wakes the readers for whom something has come. Called when nothing more is at hand, so that they are not
    /// woken for each event.
    pub fn flush(&mut self) {
        // Whoever went away has let go of its end.
        self.readers.retain(|reader| Arc::strong_count(&reader.queue) > 1);
        for reader in &self.readers {
            let is_waiting = {
                let waiting = reader.queue.locked();
                !waiting.events.is_empty() || waiting.missed > 0
            };
            if is_waiting {
                reader.queue.ready.notify_one();
            }
        }
    }

    /// Who reads.
    #[must_use]
    pub fn readers(&self) -> Vec<v1::TailReader> {
        let status = |reader: &Reader| {
            let waiting = reader.queue.locked();
            v1::TailReader {
                pid: reader.queue.who.pid,
                uid: reader.queue.who.uid,
                since: Some(reader.queue.since.into()),
                sent: waiting.sent,
                missed: waiting.missed_in_all,
            }
        };
        self.readers.iter().map(status).collect()
    }

    /// What is remembered: events, bytes, and the bound of these.
    #[must_use]
    pub fn history(&self) -> (usize, usize, usize) {
        (self.history.len(), self.history_bytes, self.history_bound)
    }

    fn forget(&mut self) {
        while self.history_bytes > self.history_bound
            && let Some((_, oldest)) = self.history.pop_front()
        {
            self.history_bytes -= oldest.len() + OVERHEAD;
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.readers.iter().for_each(|reader| reader.queue.end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::Kinds;
    use nightjar_proto::v1::Process;

    const WHO: Who = Who { pid: 1, uid: 0 };

    fn exec(pid: u32, id: u64) -> Event {
        let process = Process { pid, id: format!("{id:016x}"), ..Process::default() };
        Event { kind: "process.exec".to_owned(), process: Some(process), ..Event::default() }
    }

    fn next(queue: &Queue) -> Option<Batch> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(50), queue.next()).await.ok().flatten()
        })
    }

    fn pids(batch: &Batch) -> Vec<u32> {
        let pid = |event: &Bytes| Event::decode(event.clone()).unwrap().process.unwrap().pid;
        batch.events.iter().map(pid).collect()
    }

    #[test]
    fn a_reader_gets_what_it_selects_from_then_on() {
        let mut hub = Hub::new(0);
        hub.event(&mut Encoded::new(&exec(1, 1)));
        let selector = Selector { pids: vec![2], ..Selector::default() };
        let reader = hub.subscribe(selector, WHO, Duration::MAX);
        assert!(reader.history.is_empty(), "nothing is remembered");
        hub.event(&mut Encoded::new(&exec(3, 3)));
        hub.event(&mut Encoded::new(&exec(2, 2)));
        hub.flush();
        assert_eq!(pids(&next(&reader.queue).unwrap()), [2]);
        assert_eq!(next(&reader.queue), None);
    }

    #[test]
    fn kinds_are_selected_but_losses_are_always_told() {
        let kinds = Some(Kinds::of(&["process.exit".to_owned()]).unwrap());
        let selector = Selector { conditions: Match { kinds, ..Match::default() }, ..Selector::default() };
        assert!(!selector.fits(&exec(1, 1)));
        assert!(selector.fits(&Event { kind: "telemetry.loss".to_owned(), ..Event::default() }));
    }

    #[test]
    fn a_tree_grows_with_its_forks_and_loses_what_ended() {
        let mut hub = Hub::new(0);
        let selector = Selector { tree: Some(HashSet::from([10])), ..Selector::default() };
        let reader = hub.subscribe(selector, WHO, Duration::ZERO);
        hub.fork(10, 11);
        hub.fork(11, 12);
        hub.fork(99, 98);
        for id in [10, 11, 12, 98] {
            hub.event(&mut Encoded::new(&exec(u32::try_from(id).unwrap(), id)));
        }
        hub.exit(12);
        hub.event(&mut Encoded::new(&exec(12, 12)));
        hub.flush();
        assert_eq!(pids(&next(&reader.queue).unwrap()), [10, 11, 12]);
    }

    #[test]
    fn what_a_slow_reader_misses_is_counted_once_and_the_gap_is_after_what_it_got() {
        let mut hub = Hub::new(0);
        let reader = hub.subscribe(Selector::default(), WHO, Duration::ZERO);
        let event = exec(7, 7);
        let fit = QUEUE / (event.encoded_len() + OVERHEAD);
        for _ in 0..fit + 5 {
            hub.event(&mut Encoded::new(&event));
        }
        assert_eq!(hub.readers()[0].missed, 5);
        let batch = next(&reader.queue).unwrap();
        assert_eq!((batch.events.len(), batch.missed), (fit, 5));
        hub.event(&mut Encoded::new(&event));
        assert_eq!(
            next(&reader.queue).unwrap(),
            Batch { events: vec![event.encode_to_vec().into()], missed: 0 }
        );
        assert_eq!(hub.readers()[0].sent, fit as u64 + 1);
    }

    #[test]
    fn the_history_is_bounded_by_bytes_and_forgets_the_oldest() {
        let mut hub = Hub::new(10 * (exec(1, 1).encoded_len() + OVERHEAD));
        for pid in 1..=15 {
            hub.event(&mut Encoded::new(&exec(pid, 1)));
        }
        let reader = hub.subscribe(Selector::default(), WHO, Duration::from_mins(1));
        let batch = Batch { events: reader.history, missed: 0 };
        assert_eq!(pids(&batch), (6..=15).collect::<Vec<_>>());
        assert!(hub.subscribe(Selector::default(), WHO, Duration::ZERO).history.is_empty());
        hub.remember(0);
        assert_eq!(hub.history(), (0, 0, 0));
    }

    #[test]
    fn readers_that_went_away_are_forgotten_and_those_that_stay_hear_of_the_end() {
        let mut hub = Hub::new(0);
        let (gone, stays) = (
            hub.subscribe(Selector::default(), WHO, Duration::ZERO),
            hub.subscribe(Selector::default(), WHO, Duration::ZERO),
        );
        drop(gone);
        hub.flush();
        assert_eq!(hub.readers().len(), 1);
        hub.event(&mut Encoded::new(&exec(1, 1)));
        drop(hub);
        assert!(next(&stays.queue).is_some(), "what was there is still given");
        assert_eq!(next(&stays.queue), None);
    }
}
