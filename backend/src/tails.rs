//! Who watches agents live, and how events reach them.
//!
//! An agent sends events of a tail by its control stream. They wait here for who watches, in so many bytes and no more:
//! what does not fit is counted as missed, and neither the agent nor other tails wait for one that is slow.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use nightjar_proto::v1::{BackendMessage, TailEvents, TailStart, TailStop, backend_message::Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tonic::Status;

use crate::{locks, registry::random};

/// Bytes of events that may wait for one who watches.
const MOST_BYTES: usize = 4 << 20;

/// What one event takes beside its bytes, at least.
const EVENT: usize = 64;

/// Most tails at once, of all agents together.
pub const MOST_TAILS: usize = 32;

/// What goes to an agent by its control stream.
pub type ToAgent = mpsc::Sender<Result<BackendMessage, Status>>;

/// Events for who watches.
#[derive(Debug)]
pub struct Part {
    /// Each encoded.
    pub events: Vec<Bytes>,
    /// Events that would have come before these.
    pub missed: u64,
    _room: OwnedSemaphorePermit,
}

/// Why there is no tail, or no more of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TailError {
    /// There is nobody to ask.
    #[error("the agent is not connected")]
    Away,
    /// It does not take what it is sent.
    #[error("the agent does not take requests at the moment; try again")]
    Busy,
    /// There is a bound.
    #[error("{MOST_TAILS} tails are open, which is the most; end one of them")]
    TooMany,
    /// It went away.
    #[error("the connection to the agent ended; what it sees from here on is not shown")]
    Gone,
    /// It said so.
    #[error("the agent ended the tail: {0}")]
    Agent(String),
}

/// What who watches gets: events, and at the end why there are no more. Without a reason all is there that was asked for.
type Item = Result<Part, TailError>;

struct Viewer {
    agent: String,
    items: mpsc::UnboundedSender<Item>,
    /// Of [`MOST_BYTES`].
    room: Arc<Semaphore>,
    missed: AtomicU64,
}

#[derive(Default)]
struct Open {
    /// Control streams, by agent.
    agents: BTreeMap<String, (u64, ToAgent)>,
    /// By the name of the tail.
    viewers: BTreeMap<String, Viewer>,
    last_number: u64,
}

/// All agents that are connected and all tails.
#[derive(Default)]
pub struct Tails(Mutex<Open>);

/// A control stream that can be asked for tails, until this is dropped. Then its tails end.
pub struct Connected {
    tails: Arc<Tails>,
    agent: String,
    number: u64,
}

/// One who watches, until this is dropped.
pub struct Tail {
    tails: Arc<Tails>,
    id: String,
    items: mpsc::UnboundedReceiver<Item>,
}

// === impl Tails ===

impl Tails {
    /// An agent is there.
    pub fn connect(self: &Arc<Self>, agent: &str, to_agent: ToAgent) -> Connected {
        let mut open = locks::lock(&self.0);
        open.last_number += 1;
        let number = open.last_number;
        open.agents.insert(agent.to_owned(), (number, to_agent));
        open.end_of(agent);
        Connected { tails: Arc::clone(self), agent: agent.to_owned(), number }
    }

    /// Begins to watch an agent. `start` needs no name.
    ///
    /// # Errors
    /// When the agent is not connected or busy, or there are too many tails.
    pub fn start(self: &Arc<Self>, agent: &str, start: TailStart) -> Result<Tail, TailError> {
        let mut open = locks::lock(&self.0);
        if open.viewers.len() >= MOST_TAILS {
            return Err(TailError::TooMany);
        }
        let id = random::<8>();
        let message = Message::TailStart(TailStart { id: id.clone(), ..start });
        let (_, to_agent) = open.agents.get(agent).ok_or(TailError::Away)?;
        to_agent.try_send(Ok(BackendMessage { message: Some(message) })).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => TailError::Busy,
            mpsc::error::TrySendError::Closed(_) => TailError::Away,
        })?;
        let (sender, items) = mpsc::unbounded_channel();
        let room = Arc::new(Semaphore::new(MOST_BYTES));
        let viewer = Viewer { agent: agent.to_owned(), items: sender, room, missed: AtomicU64::new(0) };
        open.viewers.insert(id.clone(), viewer);
        Ok(Tail { tails: Arc::clone(self), id, items })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        locks::lock(&self.0).viewers.len()
    }
}

// === impl Open ===

impl Open {
    /// Ends the tails of an agent that went away.
    fn end_of(&mut self, agent: &str) {
        for (_, viewer) in self.viewers.extract_if(.., |_, viewer| viewer.agent == agent) {
            let _nobody_watches = viewer.items.send(Err(TailError::Gone));
        }
    }
}

// === impl Connected ===

impl Connected {
    /// Events came.
    pub fn events(&self, TailEvents { id, events, missed }: TailEvents) {
        let open = locks::lock(&self.tails.0);
        // Of one that has just been stopped there may still be some, and an agent has no say in tails of others.
        if let Some(viewer) = open.viewers.get(&id).filter(|viewer| viewer.agent == self.agent) {
            viewer.take(events, missed);
        }
    }

    /// The agent ended a tail; without a reason, because all was sent.
    pub fn ended(&self, id: &str, reason: String) {
        let mut open = locks::lock(&self.tails.0);
        if open.viewers.get(id).is_some_and(|viewer| viewer.agent == self.agent)
            && let Some(viewer) = open.viewers.remove(id)
            && !reason.is_empty()
        {
            let _nobody_watches = viewer.items.send(Err(TailError::Agent(reason)));
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut open = locks::lock(&self.tails.0);
        if open.agents.get(&self.agent).is_some_and(|(number, _)| *number == self.number) {
            open.agents.remove(&self.agent);
            open.end_of(&self.agent);
        }
    }
}

// === impl Viewer ===

impl Viewer {
    fn take(&self, events: Vec<Bytes>, missed: u64) {
        let missed = self.missed.swap(0, Ordering::Relaxed) + missed;
        let bytes = events.iter().map(|event| event.len() + EVENT).sum::<usize>() + EVENT;
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        match Arc::clone(&self.room).try_acquire_many_owned(permits) {
            Ok(room) => {
                let _nobody_watches = self.items.send(Ok(Part { events, missed, _room: room }));
            }
            Err(_) => drop(self.missed.fetch_add(missed + events.len() as u64, Ordering::Relaxed)),
        }
    }
}

// === impl Tail ===

impl Tail {
    /// What comes next; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Part, TailError>> {
        self.items.recv().await
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let mut open = locks::lock(&self.tails.0);
        let Some(viewer) = open.viewers.remove(&self.id) else { return };
        let stop = Message::TailStop(TailStop { id: std::mem::take(&mut self.id) });
        if let Some((_, to_agent)) = open.agents.get(&viewer.agent) {
            // Where there is no room, what comes for it is passed over.
            let _goes_on_for_nobody = to_agent.try_send(Ok(BackendMessage { message: Some(stop) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Sent = mpsc::Receiver<Result<BackendMessage, Status>>;

    fn connect(tails: &Arc<Tails>, agent: &str) -> (Connected, Sent) {
        let (to_agent, sent) = mpsc::channel(4);
        (tails.connect(agent, to_agent), sent)
    }

    fn id(sent: &mut Sent) -> String {
        match sent.try_recv().unwrap().unwrap().message {
            Some(Message::TailStart(start)) => start.id,
            other => panic!("{other:?}"),
        }
    }

    fn events(id: &str, number: usize, size: usize) -> TailEvents {
        TailEvents { id: id.to_owned(), events: vec![Bytes::from(vec![0; size]); number], missed: 0 }
    }

    #[tokio::test]
    async fn one_who_is_slow_misses_events_which_are_counted_and_another_misses_none() {
        let tails = Arc::new(Tails::default());
        let (connected, mut sent) = connect(&tails, "a");
        let mut slow = tails.start("a", TailStart::default()).unwrap();
        let slow_id = id(&mut sent);
        let mut quick = tails.start("a", TailStart::default()).unwrap();
        let quick_id = id(&mut sent);
        let mut came = 0;
        for _ in 0..50 {
            connected.events(events(&slow_id, 10, 50_000));
            connected.events(events(&quick_id, 10, 50_000));
            let part = quick.next().await.unwrap().unwrap();
            assert_eq!(part.missed, 0);
            came += part.events.len();
        }
        assert_eq!(came, 500);
        let (mut shown, mut missed) = (0, 0);
        while let Ok(Ok(part)) = slow.items.try_recv() {
            (shown, missed) = (shown + part.events.len() as u64, missed + part.missed);
        }
        connected.events(events(&slow_id, 1, 10));
        missed += slow.next().await.unwrap().unwrap().missed;
        assert_eq!(shown + missed, 500);
        assert!(shown * 50_000 <= MOST_BYTES as u64 && missed > 0, "{shown} {missed}");
    }

    #[tokio::test]
    async fn who_watches_is_told_when_the_agent_goes_away_and_the_agent_when_nobody_watches() {
        let tails = Arc::new(Tails::default());
        let (connected, mut sent) = connect(&tails, "a");
        let watching = tails.start("a", TailStart::default()).unwrap();
        let first = id(&mut sent);
        drop(watching);
        match sent.try_recv().unwrap().unwrap().message {
            Some(Message::TailStop(stop)) => assert_eq!(stop.id, first),
            other => panic!("{other:?}"),
        }
        let mut watching = tails.start("a", TailStart::default()).unwrap();
        drop(connected);
        assert_eq!(watching.next().await.unwrap().unwrap_err(), TailError::Gone);
        assert!(watching.next().await.is_none());
        assert_eq!(tails.start("a", TailStart::default()).err(), Some(TailError::Away));
        assert_eq!(tails.count(), 0);
    }

    #[tokio::test]
    async fn an_agent_ends_its_own_tails_and_no_others() {
        let tails = Arc::new(Tails::default());
        let ((one, mut sent), (other, _)) = (connect(&tails, "a"), connect(&tails, "b"));
        let mut watching = tails.start("a", TailStart::default()).unwrap();
        let id = id(&mut sent);
        other.ended(&id, "mischief".to_owned());
        other.events(events(&id, 1, 1));
        one.events(events(&id, 2, 1));
        assert_eq!(watching.next().await.unwrap().unwrap().events.len(), 2);
        one.ended(&id, String::new());
        assert!(watching.next().await.is_none());
    }

    #[test]
    fn there_is_a_most_of_tails() {
        let tails = Arc::new(Tails::default());
        let (to_agent, _sent) = mpsc::channel(MOST_TAILS + 1);
        let _connected = tails.connect("a", to_agent);
        let start = || tails.start("a", TailStart::default());
        let _open: Vec<_> = (0..MOST_TAILS).map(|_| start().unwrap()).collect();
        assert_eq!(start().err(), Some(TailError::TooMany));
    }
}
