//! The table of flows of datagrams.
//!
//! A flow is what goes between a socket and one remote end. It begins with the first datagram either way and ends
//! with the socket, or when nothing went by for a while. The kernel tells of the first datagram that each process
//! sends and of the first that comes in, and counts the rest under keys of their own; they are looked at a few at a
//! time, each about twice in the time after which it counts as idle. The duration of an idle flow is as exact as
//! that.
//!
//! What comes in soon after a flow that was begun here ended as idle is an answer all the same: the flow goes on, and
//! another end is told of it.

mod flow;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    num::NonZeroUsize,
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use nightjar_abi::{
    network::{FLOWS, FlowKey},
    record::{SocketCall, SocketState, socket_flags},
};
use nightjar_proto::v1::NetworkActivity;

pub use self::flow::Counts;
use self::flow::{Entry, FlowId, Told};
use super::{
    SECOND,
    act::{Actor, Acts, Attribution, Program, Who},
    connection::who_acted,
    fold::{Direction, Ended, Fold, Key, Outcome},
};

/// How long a flow that came in waits for somebody to send something back, where nobody is known to have the socket.
const PATIENCE: u64 = 2 * SECOND;
/// Most flows that are looked at in one tick, each with two or three system calls.
const MOST_LOOKS: u64 = 8192;
/// Most keys of flows without room that the kernel forgets in one tick, each by two system calls.
const MOST_FORGOTTEN: usize = 16_384;
/// How long what comes in is taken for an answer after its flow ended as idle.
const REST: u64 = 600 * SECOND;
/// Most flows that what comes in is taken for an answer of after they ended: about 2 MiB of them.
const MOST_RESTING: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// Who has a socket.
struct Owner<P> {
    actor: Arc<Actor<P>>,
    attribution: Attribution,
}

/// How a flow ends.
struct End<P> {
    time: u64,
    /// When something went by last, as far as that is known.
    last: u64,
    reason: &'static str,
    /// Who ended it, if a process did.
    acted: Option<Who<P>>,
}

/// A flow begun here that ended as nothing went by.
struct Resting<P> {
    /// Name; zero: none that was told.
    id: u64,
    ended: u64,
    who: Who<P>,
    attribution: Attribution,
}

/// All flows.
pub(super) struct Datagrams<P> {
    most: usize,
    idle: u64,
    flows: BTreeMap<FlowId, Box<Entry<P>>>,
    owners: LruCache<u64, Owner<P>>,
    fold: Fold<P, FlowId>,
    /// When which flow without a process is told of all the same.
    waiting: VecDeque<(u64, FlowId)>,
    /// Keys of flows that there was no room for: the kernel is to forget them, so that it tells of them again.
    refused: VecDeque<FlowKey>,
    /// Flows with more senders than are counted by themselves.
    crowded: BTreeSet<FlowId>,
    /// Flows that may go on, the one that ended first at the end.
    resting: LruCache<FlowId, Resting<P>>,
    /// Sockets that were closed, and how.
    released: Vec<(u64, End<P>)>,
    /// Where looking goes on.
    cursor: Option<FlowId>,
    /// The most flows there were since looking began at the beginning.
    round: usize,
    /// When it was last looked.
    looked: u64,
}

// === impl Datagrams ===

impl<P> Datagrams<P> {
    pub(super) fn new(most: usize, idle: Duration, window: Duration) -> Self {
        Self {
            most,
            idle: nanoseconds(idle),
            flows: BTreeMap::new(),
            owners: LruCache::new(at_least_one(most)),
            fold: Fold::new(window),
            waiting: VecDeque::new(),
            refused: VecDeque::new(),
            crowded: BTreeSet::new(),
            resting: LruCache::new(MOST_RESTING),
            released: Vec::new(),
            cursor: None,
            round: 0,
            looked: 0,
        }
    }

    pub(super) fn configure(&mut self, acts: &mut Acts<P>, most: usize, idle: Duration, window: Duration) {
        (self.most, self.idle) = (most, nanoseconds(idle));
        self.owners.resize(at_least_one(most));
        if self.fold.configure(window) {
            self.turn(acts, u64::MAX);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether nothing is left of what was once known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let lists = [self.refused.len(), self.crowded.len(), self.released.len(), self.resting.len()];
        self.flows.is_empty() && self.owners.is_empty() && self.fold.is_empty() && lists == [0; 4]
    }

    /// A process has a socket of datagrams.
    pub(super) fn owned(&mut self, acts: &mut Acts<P>, socket: u64, actor: Arc<Actor<P>>, why: Attribution) {
        let owner = Owner { actor, attribution: why };
        if self.owners.push(socket, owner).is_some_and(|(forgotten, _)| forgotten != socket) {
            acts.lose("owner_forgotten");
        }
    }

    /// Whether somebody is known to have it.
    pub(super) fn has_owner(&self, socket: u64) -> bool {
        self.owners.contains(&socket)
    }

    /// A process sent the first of its datagrams of a flow.
    pub(super) fn sent(&mut self, acts: &mut Acts<P>, record: &SocketCall, actor: Arc<Actor<P>>) {
        let (id, time) = (FlowId::of(&record.socket), record.header.time);
        let is_counted = is_counted(acts, record.flags);
        self.owned(acts, id.socket, Arc::clone(&actor), Attribution::Opener);
        let Some(known) = self.flows.get_mut(&id) else {
            let mut new =
                Entry::new(&record.socket, time, Direction::Outbound, Who::Known(Arc::clone(&actor)));
            new.call = record.call;
            self.resting.pop(&id);
            if is_counted {
                new.sends(&actor.info.task);
                self.begins(acts, new);
            } else {
                self.tell_alone(acts, &new);
            }
            return;
        };
        if is_counted && known.sends(&actor.info.task) {
            self.crowded.insert(id);
        }
        match known.direction {
            // An answer.
            Direction::Inbound => {
                (known.who, known.attribution) = (Who::Known(actor), Attribution::Opener);
                if known.told == Told::No {
                    self.opens(acts, id);
                }
            }
            // The socket was passed on or inherited.
            Direction::Outbound if known.who.program() != Some(Program::from(&actor.info.task)) => {
                if let Told::Held(key) = known.told {
                    self.fold.release(key, id);
                    known.told = Told::Yes;
                    known.tell_begin(acts);
                }
                let (opener, who) = (known.who.actor().cloned(), Who::Known(actor));
                // One of many may be told of again and again, as the kernel forgets it.
                let key = Key::new(&who, &known.socket, known.direction, Outcome::Made);
                if let Some(key) = self.fold.repeated(key, time) {
                    let ended = Ended { begun: time, last: time, traffic: None };
                    self.fold.count(key, &ended, &who, Attribution::Opener, &known.socket);
                } else {
                    known.tell_sent(acts, time, who, opener, record.call);
                }
            }
            // The kernel forgot it, as others do.
            Direction::Outbound => {}
        }
    }

    /// The first datagram of a flow came in.
    pub(super) fn received(&mut self, acts: &mut Acts<P>, record: &SocketState) {
        let (id, time) = (FlowId::of(&record.socket), record.header.time);
        let is_counted = is_counted(acts, record.flags);
        if self.flows.contains_key(&id) || self.goes_on(acts, record, is_counted) {
            return;
        }
        let new = Entry::new(&record.socket, time, Direction::Inbound, Who::Nobody);
        if is_counted {
            self.begins(acts, new);
        } else {
            let new = self.with_owner(new);
            self.tell_alone(acts, &new);
        }
    }

    /// Takes what came in for an answer, if its flow was begun here and ended as idle not long ago.
    fn goes_on(&mut self, acts: &mut Acts<P>, record: &SocketState, is_counted: bool) -> bool {
        let (id, time) = (FlowId::of(&record.socket), record.header.time);
        let Some(resting) = self.resting.peek(&id) else { return false };
        if time.saturating_sub(resting.ended) > REST {
            self.resting.pop(&id);
            return false;
        }
        let mut new = Entry::new(&record.socket, time, Direction::Outbound, resting.who.clone());
        (new.id, new.attribution, new.told) = (resting.id, resting.attribution, Told::Yes);
        if self.flows.len() < self.most {
            self.flows.insert(id, new);
            self.resting.pop(&id);
        } else {
            acts.lose("table_full");
            if is_counted {
                self.refuse(id.key(0));
            }
        }
        true
    }

    /// A socket was closed for good: its flows end when they are counted next.
    pub(super) fn released(&mut self, record: &SocketState, actor: Option<Arc<Actor<P>>>) {
        let (socket, time) = (record.socket.socket, record.header.time);
        if self.owners.contains(&socket) || self.first_of(socket).is_some() {
            let acted = who_acted(record, actor);
            self.released.push((socket, End { time, last: time, reason: "closed", acted }));
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, acts: &mut Acts<P>, now: u64, counts: &mut dyn Counts) {
        while let Some((_, id)) = self.waiting.pop_front_if(|(when, _)| *when <= now) {
            let waits =
                |known: &Entry<P>| known.told == Told::No && known.begun.saturating_add(PATIENCE) <= now;
            if self.flows.get(&id).is_some_and(|known| waits(known)) {
                self.opens(acts, id);
            }
        }
        let forgotten = self.refused.len().min(MOST_FORGOTTEN);
        for key in self.refused.drain(..forgotten) {
            let _ = counts.take(&key);
        }
        for id in mem::take(&mut self.crowded) {
            if let Some(known) = self.flows.get_mut(&id) {
                known.gather(&id, |key| counts.take(key));
            }
        }
        while self.resting.peek_lru().is_some_and(|(_, resting)| resting.ended.saturating_add(REST) <= now) {
            self.resting.pop_lru();
        }
        self.end_released(acts, counts);
        self.look(acts, now, counts);
        self.turn(acts, now);
    }

    /// The agent stops, and with it the counting.
    pub(super) fn finish(&mut self, acts: &mut Acts<P>, now: u64, counts: &mut dyn Counts) {
        self.end_released(acts, counts);
        while let Some((id, _)) = self.flows.first_key_value() {
            let id = *id;
            self.ends(acts, counts, id, &End { time: now, last: now, reason: "unknown", acted: None });
        }
        self.turn(acts, u64::MAX);
        self.waiting.clear();
        self.owners.clear();
        self.refused.clear();
        self.crowded.clear();
        self.resting.clear();
    }

    /// Tells of windows that are over, and of what was held in them and is still there.
    pub(super) fn turn(&mut self, acts: &mut Acts<P>, now: u64) {
        while let Some(repeats) = self.fold.turn(now) {
            for id in repeats.tell(acts) {
                if let Some(known) = self.flows.get_mut(&id) {
                    known.told = Told::Yes;
                    known.tell_begin(acts);
                }
            }
        }
    }

    /// One of which nobody is known is of who has the socket.
    fn with_owner(&mut self, mut new: Box<Entry<P>>) -> Box<Entry<P>> {
        if let (Who::Nobody, Some(owner)) = (&new.who, self.owners.get(&new.socket.socket)) {
            (new.who, new.attribution) = (Who::Known(Arc::clone(&owner.actor)), owner.attribution);
        }
        new
    }

    /// Tells of the beginning of one that is not kept, so that it is all that will be told of it.
    fn tell_alone(&mut self, acts: &mut Acts<P>, new: &Entry<P>) {
        if let Some(key) = self.fold.repeated(new.key(), new.begun) {
            let ended = Ended { begun: new.begun, last: new.begun, traffic: None };
            self.fold.count(key, &ended, &new.who, new.attribution, &new.socket);
        } else {
            new.tell_begin(acts);
        }
    }

    /// Has the kernel forget a key at the next tick. There are no more keys than the kernel has room for, as it tells
    /// of none twice before it forgot it.
    fn refuse(&mut self, key: FlowKey) {
        if self.refused.len() < (FLOWS as usize).max(self.most.saturating_mul(2)) {
            self.refused.push_back(key);
        }
    }

    fn begins(&mut self, acts: &mut Acts<P>, new: Box<Entry<P>>) {
        let id = FlowId::of(&new.socket);
        let mut new = self.with_owner(new);
        if self.flows.len() >= self.most {
            acts.lose("table_full");
            self.tell_alone(acts, &new);
            self.refuse(id.key(new.senders.front().copied().unwrap_or(0)));
            return;
        }
        new.id = acts.name(id.socket, new.begun);
        let (is_known, waits_until) = (new.who.task().is_some(), new.begun.saturating_add(PATIENCE));
        self.flows.insert(id, new);
        if is_known {
            self.opens(acts, id);
        } else {
            self.waiting.push_back((waits_until, id));
        }
    }

    fn end_released(&mut self, acts: &mut Acts<P>, counts: &mut dyn Counts) {
        for (socket, end) in mem::take(&mut self.released) {
            while let Some(id) = self.first_of(socket) {
                if let Some(who) = &end.acted
                    && let Some(known) = self.flows.get_mut(&id).filter(|known| known.told == Told::No)
                {
                    known.who = who.clone();
                }
                self.ends(acts, counts, id, &end);
            }
            self.owners.pop(&socket);
        }
    }

    /// Tells of a flow, or holds it as a repeat.
    fn opens(&mut self, acts: &mut Acts<P>, id: FlowId) {
        let Some(known) = self.flows.get_mut(&id) else { return };
        known.told = if let Some(key) = self.fold.repeated(known.key(), known.begun) {
            self.fold.hold(key, id, &known.who, known.attribution, &known.socket);
            Told::Held(key)
        } else {
            known.tell_begin(acts);
            Told::Yes
        };
    }

    /// Looks whether flows are idle: so many that all had their turn in half of the time that makes them so.
    fn look(&mut self, acts: &mut Acts<P>, now: u64, counts: &mut dyn Counts) {
        let turn = (self.idle / 2).max(1);
        let passed = now.saturating_sub(self.looked).min(turn);
        self.round = self.round.max(self.flows.len());
        let flows = u64::try_from(self.round).unwrap_or(u64::MAX);
        let looks = (u128::from(flows) * u128::from(passed)).div_ceil(turn.into());
        let looks = u64::try_from(looks).unwrap_or(u64::MAX).min(MOST_LOOKS);
        self.looked = self.looked.max(now);
        let mut idle = Vec::new();
        for _ in 0..looks {
            let after = self.cursor.map_or(Bound::Unbounded, Bound::Excluded);
            let mut next = self.flows.range_mut((after, Bound::Unbounded));
            let Some((id, known)) = next.next() else {
                // The end; it goes on at the beginning next time.
                (self.cursor, self.round) = (None, 0);
                break;
            };
            self.cursor = Some(*id);
            let traffic = known.traffic(id, |key| counts.read(key));
            if traffic != known.seen {
                (known.seen, known.changed) = (traffic, now);
            } else if now.saturating_sub(known.changed) >= self.idle {
                idle.push(*id);
            }
        }
        for id in idle {
            let last = self.flows[&id].changed;
            self.ends(acts, counts, id, &End { time: now, last, reason: "idle", acted: None });
        }
    }

    fn ends(&mut self, acts: &mut Acts<P>, counts: &mut dyn Counts, id: FlowId, end: &End<P>) {
        if self.flows.get(&id).is_some_and(|known| known.told == Told::No) {
            self.opens(acts, id);
        }
        let Some(known) = self.flows.remove(&id) else { return };
        let traffic = known.traffic(&id, |key| counts.take(key));
        if end.reason == "idle" && known.direction == Direction::Outbound {
            let id_told = if known.told == Told::Yes { known.id } else { 0 };
            let (who, attribution) = (known.who.clone(), known.attribution);
            self.resting.put(id, Resting { id: id_told, ended: end.time, who, attribution });
        }
        if let Told::Held(key) = known.told {
            self.fold.ended(key, id, &Ended { begun: known.begun, last: end.last, traffic });
            return;
        }
        let mut body = NetworkActivity {
            reason: end.reason.to_owned(),
            duration: end.last.saturating_sub(known.begun),
            ..known.body()
        };
        if let Some(traffic) = traffic {
            traffic.tell(&mut body);
        }
        let (who, opener, attribution) = if let Some(acted) = &end.acted {
            let (who, opener) = known.who.or_acted(acted.clone());
            (who, opener, "acted")
        } else {
            (known.who.clone(), None, known.attribution.of_bystander())
        };
        acts.tell("network.close", end.time, who, attribution, body).opener = opener;
    }

    fn first_of(&self, socket: u64) -> Option<FlowId> {
        let first = self.flows.range(FlowId::first_of(socket)..).next().map(|(id, _)| *id);
        first.filter(|id| id.socket == socket)
    }
}

/// Whether the kernel counts the flow that a record tells of. Where it had no room, that is a loss.
fn is_counted<P>(acts: &mut Acts<P>, flags: u32) -> bool {
    let is_counted = flags & socket_flags::UNCOUNTED == 0;
    if !is_counted {
        acts.lose("flows_full");
    }
    is_counted
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn at_least_one(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN)
}
