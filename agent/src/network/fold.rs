//! Repeats of the same: a process that connects to the same port again and again, or is connected to.
//!
//! The first of its kind begins a window and is told of as itself. Those that begin before the window ends are held:
//! one that ends within it is counted, one that is still there at its end is told of after all. So every connection
//! is told of by its own event or by the `count` of one `network.flow`, and never by both.
//!
//! There are at most [`MOST`] windows. Where there is no room for another one, nothing is held.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
    mem,
    time::Duration,
};

use nightjar_abi::record::SocketInfo;

use super::{
    act::{Acts, Attribution, Program, Traffic, Who},
    describe,
};

/// Most windows at once: about 4 MiB of them.
const MOST: usize = 16384;

/// What makes one connection a repeat of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    program: Program,
    remote: [u8; 16],
    port: u16,
    protocol: u16,
    family: u16,
    kind: u16,
    namespace: u32,
    direction: Direction,
    outcome: Outcome,
}

/// What came of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Outcome {
    /// There was a connection, or a datagram.
    Made,
    /// Nothing had come of it when the process or the agent gave it up.
    Pending,
    /// It failed for this error.
    Failed(u32),
}

/// Who began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    Outbound,
    Inbound,
}

/// One that has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// When it began.
    pub(super) begun: u64,
    /// When it ended.
    pub(super) last: u64,
    /// What went by it, where somebody counted.
    pub(super) traffic: Option<Traffic>,
}

/// The repeats of a window that is over.
#[derive(Debug)]
pub(super) struct Repeats<P, H> {
    who: Who<P>,
    attribution: Attribution,
    socket: SocketInfo,
    direction: Direction,
    outcome: Outcome,
    count: u64,
    traffic: Option<Traffic>,
    first: u64,
    last: u64,
    open: HashSet<H>,
}

/// All windows. `H` is what its user calls a connection by.
pub(super) struct Fold<P, H> {
    window: u64,
    /// What was repeated since the first, if anything was.
    windows: HashMap<Key, Option<Box<Repeats<P, H>>>>,
    /// When which window ends, the first one first. Windows leave both at once.
    turns: VecDeque<(u64, Key)>,
}

// === impl Key ===

impl Key {
    /// Of a connection of `who`; `None` where there is nobody, as that tells nothing of whose they are.
    pub(super) fn new<P>(
        who: &Who<P>,
        socket: &SocketInfo,
        direction: Direction,
        outcome: Outcome,
    ) -> Option<Self> {
        Some(Self {
            program: who.program()?,
            remote: socket.remote,
            port: match direction {
                Direction::Outbound => socket.remote_port,
                Direction::Inbound => socket.local_port,
            },
            protocol: socket.protocol,
            family: socket.family,
            kind: socket.kind,
            namespace: socket.netns,
            direction,
            outcome,
        })
    }
}

// === impl Direction ===

impl Direction {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Of a connection that was not made, for an error or, if that is zero, for none.
    pub(super) const fn of_error(errno: u32) -> Self {
        if errno == 0 { Self::Pending } else { Self::Failed(errno) }
    }

    /// The word for what was not made and its error; empty and zero of what was.
    const fn not_made(self) -> (&'static str, u32) {
        match self {
            Self::Made => ("", 0),
            Self::Pending => ("pending", 0),
            Self::Failed(errno) => ("failed", errno),
        }
    }
}

// === impl Repeats ===

impl<P, H: Ord> Repeats<P, H> {
    fn new(who: Who<P>, attribution: Attribution, socket: SocketInfo, key: Key) -> Self {
        Self {
            who,
            attribution,
            socket,
            direction: key.direction,
            outcome: key.outcome,
            count: 0,
            traffic: None,
            first: u64::MAX,
            last: 0,
            open: HashSet::new(),
        }
    }

    fn count(&mut self, ended: &Ended) {
        self.count += 1;
        self.first = self.first.min(ended.begun);
        self.last = self.last.max(ended.last);
        if let Some(traffic) = &ended.traffic {
            self.traffic.get_or_insert_default().add(traffic);
        }
    }

    /// Takes another one in, which may be from another address or by another interface than the first.
    fn widen(&mut self, socket: &SocketInfo) {
        if self.socket.local != socket.local {
            (self.socket.local, self.socket.scope) = ([0; 16], 0);
        }
        if self.socket.interface != socket.interface {
            (self.socket.interface, self.socket.interface_name) = (0, [0; 16]);
        }
    }

    /// Tells of those that ended; the others, in the order of what they are called by, are to be told of one by one.
    pub(super) fn tell(mut self, acts: &mut Acts<P>) -> Vec<H> {
        let mut open: Vec<H> = mem::take(&mut self.open).into_iter().collect();
        open.sort_unstable();
        if self.count > 0 {
            match self.direction {
                Direction::Outbound => self.socket.local_port = 0,
                Direction::Inbound => self.socket.remote_port = 0,
            }
            let mut body = describe::connection(&self.socket);
            match (self.direction, &mut body.local, &mut body.remote) {
                (Direction::Outbound, Some(end), _) | (Direction::Inbound, _, Some(end)) => end.port = None,
                _ => {}
            }
            self.direction.word().clone_into(&mut body.direction);
            body.count = self.count;
            let (outcome, errno) = self.outcome.not_made();
            (body.outcome, body.error) = (outcome.to_owned(), acts.error(errno));
            body.failed = if errno == 0 { 0 } else { self.count };
            if let Some(traffic) = self.traffic {
                traffic.tell(&mut body);
            }
            // Datagrams that come in are nobody's deed here.
            let came_by_itself = self.direction == Direction::Inbound && describe::is_datagram(&self.socket);
            let attribution =
                if came_by_itself { self.attribution.of_bystander() } else { self.attribution.of_deed() };
            let act = acts.tell("network.flow", self.first, self.who, attribution, body);
            (act.first, act.last) = (Some(self.first), Some(self.last));
        }
        open
    }
}

// === impl Fold ===

impl<P, H: Copy + Ord + Hash> Fold<P, H> {
    /// Folds within `window`; zero: nothing.
    pub(super) fn new(window: Duration) -> Self {
        Self { window: nanoseconds(window), windows: HashMap::new(), turns: VecDeque::new() }
    }

    /// Takes another window; true where it differs, so that those that run have to be turned at once.
    pub(super) fn configure(&mut self, window: Duration) -> bool {
        mem::replace(&mut self.window, nanoseconds(window)) != nanoseconds(window)
    }

    /// One begins. Its key, where it is a repeat, of which [`Self::hold`] or [`Self::count`] is to be called; `None`
    /// where it is to be told of as itself.
    pub(super) fn repeated(&mut self, key: Option<Key>, now: u64) -> Option<Key> {
        let key = key.filter(|_| self.window > 0)?;
        if self.windows.contains_key(&key) {
            return Some(key);
        }
        if self.windows.len() < MOST {
            let ends = now.saturating_add(self.window);
            self.windows.insert(key, None);
            self.turns.push_back((ends, key));
        }
        None
    }

    /// Holds a repeat until it ends or its window does.
    pub(super) fn hold(&mut self, key: Key, held: H, who: &Who<P>, why: Attribution, socket: &SocketInfo) {
        if let Some(repeats) = self.repeats(key, who, why, socket) {
            repeats.open.insert(held);
        }
    }

    /// Counts a repeat that ended as it began.
    pub(super) fn count(
        &mut self,
        key: Key,
        ended: &Ended,
        who: &Who<P>,
        why: Attribution,
        socket: &SocketInfo,
    ) {
        if let Some(repeats) = self.repeats(key, who, why, socket) {
            repeats.count(ended);
        }
    }

    /// Counts one that is held.
    pub(super) fn ended(&mut self, key: Key, held: H, ended: &Ended) {
        if let Some(repeats) = self.held(key, held) {
            repeats.count(ended);
        }
    }

    /// Lets one go that is held: it is told of as itself.
    pub(super) fn release(&mut self, key: Key, held: H) {
        let _ = self.held(key, held);
    }

    /// A window that is over at `now`, with what was repeated in it.
    pub(super) fn turn(&mut self, now: u64) -> Option<Repeats<P, H>> {
        while let Some((_, key)) = self.turns.pop_front_if(|(ends, _)| *ends <= now) {
            let repeats = self.windows.remove(&key).flatten();
            if let Some(repeats) = repeats {
                return Some(*repeats);
            }
        }
        None
    }

    /// Whether no window runs.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn repeats(
        &mut self,
        key: Key,
        who: &Who<P>,
        why: Attribution,
        socket: &SocketInfo,
    ) -> Option<&mut Repeats<P, H>> {
        let repeats = self.windows.get_mut(&key)?;
        let new = || Box::new(Repeats::new(who.clone(), why, *socket, key));
        let repeats = repeats.get_or_insert_with(new);
        repeats.widen(socket);
        Some(repeats)
    }

    fn held(&mut self, key: Key, held: H) -> Option<&mut Repeats<P, H>> {
        let repeats = self.windows.get_mut(&key)?.as_mut()?;
        repeats.open.remove(&held).then_some(repeats)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
