//! The table of sockets with states.
//!
//! Each step makes do with what there is, as any record may have been lost: a socket that begins anew while it is in
//! the table has ended in between, and a socket that ends and is not in it began before the agent.

mod calls;
mod changes;

use std::{
    collections::{HashMap, VecDeque},
    num::NonZeroUsize,
    sync::Arc,
    time::Duration,
};

use lru::LruCache;
use nightjar_abi::record::{SocketInfo, SocketState};

use super::{
    SECOND,
    act::{Actor, Acts, Attribution, Program, Who},
    closing,
    connection::{Connection, Stage},
    fold::{Direction, Fold, Outcome},
    listeners::{Listeners, Port},
    state,
};

/// How long an attempt may take to become a connection or a failure, and a failure to be told by its call.
const PATIENCE: u64 = SECOND;
/// How long a connection may wait to be accepted before its listener is told of.
const ACCEPTANCE: u64 = 2 * SECOND;
/// How long the call that has a socket listen may take to come back: one that `io_uring` or a 32-bit program made
/// does not tell.
const CONFIRMATION: u64 = SECOND / 5;
/// Listeners that are remembered when they are closed, so that the end of what waited for them is not taken for the
/// work of who accepted it. It follows at once.
const CLOSED: NonZeroUsize = NonZeroUsize::new(256).expect("it is not zero");
/// Connections that are remembered when they end before anybody accepts them, so that whoever accepts what is left of
/// one does not tell of it again. As many as a listener lets wait, by default.
const TOLD: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");
/// Failures that are remembered, so that the call that comes back from one does not tell it again. It comes back at
/// once; what is older is of sockets that nobody waited for.
const FAILURES: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not zero");

/// A connection that came to nothing, as told.
#[derive(Debug, Clone, Copy)]
struct Failure {
    pid: u32,
    /// `None` where what came of it was not known.
    errno: Option<u32>,
}

/// A listener that was closed.
struct Closed<P> {
    /// Who listened.
    who: Who<P>,
    /// What closed it.
    closer: Program,
}

/// Sockets with states, by what the records call them.
pub(super) struct Connections<P> {
    most: usize,
    table: HashMap<u64, Box<Connection<P>>>,
    listeners: Listeners,
    closed: LruCache<Port, Closed<P>>,
    fold: Fold<P, u64>,
    failures: LruCache<u64, Failure>,
    /// What was told of for a listener, and has ended.
    told: LruCache<u64, ()>,
    /// When which attempt or failure is to be looked at again. What has gone on since is passed over.
    pending: VecDeque<(u64, u64)>,
    /// Likewise, connections that wait to be accepted.
    unaccepted: VecDeque<(u64, u64)>,
    /// Likewise, sockets that listen if that is not refused.
    unconfirmed: VecDeque<(u64, u64)>,
    /// What was found at the start and is not told of yet.
    untold: Vec<u64>,
}

impl<P> Connections<P> {
    pub(super) fn new(most: usize, window: Duration) -> Self {
        Self {
            most,
            table: HashMap::new(),
            listeners: Listeners::default(),
            closed: LruCache::new(CLOSED),
            fold: Fold::new(window),
            failures: LruCache::new(FAILURES),
            told: LruCache::new(TOLD),
            pending: VecDeque::new(),
            unaccepted: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            untold: Vec::new(),
        }
    }

    pub(super) fn configure(&mut self, acts: &mut Acts<P>, most: usize, window: Duration) {
        self.most = most;
        if self.fold.configure(window) {
            self.turn(acts, u64::MAX);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether nothing is left of what was once known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let turns = [&self.pending, &self.unaccepted, &self.unconfirmed];
        self.table.is_empty()
            && self.listeners.is_empty()
            && self.fold.is_empty()
            && turns.iter().all(|turns| turns.is_empty())
    }

    /// A socket was there before the agent.
    pub(super) fn found(&mut self, acts: &mut Acts<P>, record: &SocketState, actor: Arc<Actor<P>>) {
        let (name, time) = (record.socket.socket, record.header.time);
        let stage = match record.new {
            state::SYN_SENT => Stage::Connecting,
            state::LISTEN => Stage::Listening,
            state::CLOSE => return,
            _ => Stage::Open,
        };
        if self.table.contains_key(&name) {
            // Of several that have it open the first is told of; or a record was faster.
            return;
        }
        let id = acts.name(name, time);
        let mut new = Connection::new(&record.socket, id, stage, time, Who::Known(actor));
        (new.attribution, new.is_old, new.is_untold) = (Attribution::Owner, true, true);
        new.first_end = closing::side_of(record.new);
        if stage == Stage::Connecting {
            (new.direction, new.is_untold) = (Some(Direction::Outbound), false);
        } else {
            self.untold.push(name);
        }
        if self.insert(acts, new).is_err() {
            // It is told of by its end.
            acts.lose("table_full");
        }
    }

    /// All that was there before the agent was found. Who connected shows only now, by what listens.
    pub(super) fn snapshot_ends(&mut self, acts: &mut Acts<P>) {
        for name in std::mem::take(&mut self.untold) {
            let Some(known) = self.table.get_mut(&name).filter(|known| known.is_untold) else { continue };
            if known.stage == Stage::Open && known.direction.is_none() {
                let is_inbound = self.listeners.of(&known.socket).is_some();
                known.direction = Some(if is_inbound { Direction::Inbound } else { Direction::Outbound });
            }
            known.tell_begin(acts);
            known.is_untold = false;
        }
    }

    /// Time passes.
    pub(super) fn tick(&mut self, acts: &mut Acts<P>, now: u64) {
        while let Some((_, name)) = self.pending.pop_front_if(|(when, _)| *when <= now) {
            let over = |since: u64| since.saturating_add(PATIENCE) <= now;
            let is_over = self.table.get(&name).is_some_and(|known| match known.stage {
                Stage::Attempted => over(known.begun),
                Stage::GivenUp(since) => over(since),
                _ => false,
            });
            if is_over {
                self.settle(acts, name);
            }
        }
        while let Some((_, name)) = self.unaccepted.pop_front_if(|(when, _)| *when <= now) {
            let waits = |known: &Connection<P>| {
                let since = known.made.unwrap_or(known.begun);
                known.stage == Stage::Waiting && since.saturating_add(ACCEPTANCE) <= now
            };
            if self.table.get(&name).is_some_and(|known| waits(known)) {
                self.open_by_listener(acts, name);
            }
        }
        while let Some((_, name)) = self.unconfirmed.pop_front_if(|(when, _)| *when <= now) {
            let is_over = |known: &Connection<P>| known.begun.saturating_add(CONFIRMATION) <= now;
            if self.table.get(&name).is_some_and(|known| is_over(known)) {
                self.confirm(acts, name);
            }
        }
        self.turn(acts, now);
    }

    /// The agent stops.
    pub(super) fn finish(&mut self, acts: &mut Acts<P>) {
        let mut names: Vec<u64> = self.table.keys().copied().collect();
        names.sort_unstable_by_key(|name| (self.table[name].begun, *name));
        for name in names {
            match self.table[&name].stage {
                Stage::Attempted | Stage::Connecting | Stage::GivenUp(_) => self.settle(acts, name),
                Stage::Waiting => self.open_by_listener(acts, name),
                Stage::Unconfirmed | Stage::Withdrawn => self.confirm(acts, name),
                Stage::Open | Stage::Listening => {}
            }
        }
        self.turn(acts, u64::MAX);
        self.table.clear();
        self.listeners = Listeners::default();
        self.closed.clear();
        self.pending.clear();
        self.unaccepted.clear();
        self.unconfirmed.clear();
    }

    /// Tells of windows that are over, and of what was held in them and is still there.
    pub(super) fn turn(&mut self, acts: &mut Acts<P>, now: u64) {
        while let Some(repeats) = self.fold.turn(now) {
            for name in repeats.tell(acts) {
                if let Some(known) = self.table.get_mut(&name) {
                    known.held = None;
                    known.tell_begin(acts);
                }
            }
        }
    }

    /// Takes one in, or gives it back where there is no room.
    fn insert(&mut self, acts: &mut Acts<P>, new: Box<Connection<P>>) -> Result<(), Box<Connection<P>>> {
        let (name, stage, begun) = (new.socket.socket, new.stage, new.begun);
        self.told.pop(&name);
        if self.table.len() >= self.most {
            return Err(new);
        }
        match stage {
            Stage::Listening => self.listens_at(&new.socket),
            Stage::Unconfirmed => {
                self.listens_at(&new.socket);
                self.unconfirmed.push_back((begun.saturating_add(CONFIRMATION), name));
            }
            Stage::Attempted => self.pending.push_back((begun.saturating_add(PATIENCE), name)),
            Stage::Waiting => self.unaccepted.push_back((begun.saturating_add(ACCEPTANCE), name)),
            _ => {}
        }
        if let Some(before) = self.table.insert(name, new) {
            debug_assert!(false, "way is made before something is inserted");
            before.tell_close(acts, begun, None, None);
        }
        Ok(())
    }

    /// A socket listens at the address that is known of it now.
    fn listens_at(&mut self, socket: &SocketInfo) {
        self.listeners.add(socket);
        self.closed.pop(&Port::of(socket));
    }

    fn remove(&mut self, name: u64) -> Option<Box<Connection<P>>> {
        let known = self.table.remove(&name)?;
        self.listeners.remove(name);
        Some(known)
    }

    /// A socket begins anew at `time`: if it is known, its end was not seen.
    fn make_way(&mut self, acts: &mut Acts<P>, name: u64, time: u64) {
        match self.table.get(&name).map(|known| known.stage) {
            None => {}
            Some(Stage::Attempted | Stage::GivenUp(_)) => self.settle(acts, name),
            Some(Stage::Connecting) => {
                if let Some(known) = self.remove(name) {
                    known.tell_connect(acts, "unknown", 0, None);
                }
            }
            Some(Stage::Waiting) => {
                self.open_by_listener(acts, name);
                self.ends_unseen(acts, name, time);
            }
            Some(Stage::Unconfirmed) => {
                self.confirm(acts, name);
                self.ends_unseen(acts, name, time);
            }
            Some(Stage::Withdrawn) => self.confirm(acts, name),
            Some(Stage::Open | Stage::Listening) => self.ends_unseen(acts, name, time),
        }
    }

    /// The call that has a socket listen will not tell any more what came of it: it listens if it still does, and
    /// was refused if it does not.
    fn confirm(&mut self, acts: &mut Acts<P>, name: u64) {
        let Some(known) = self.table.get_mut(&name) else { return };
        match known.stage {
            Stage::Unconfirmed => {
                known.stage = Stage::Listening;
                known.tell_listen(acts);
            }
            Stage::Withdrawn => {
                self.remove(name);
            }
            _ => {}
        }
    }

    fn ends_unseen(&mut self, acts: &mut Acts<P>, name: u64, time: u64) {
        let Some(known) = self.remove(name) else { return };
        if let Some(key) = known.held {
            self.fold.release(key, name);
            known.tell_begin(acts);
        }
        known.tell_close(acts, time, None, None);
    }

    /// Tells what is known of one that never came to be, now that no more will be known.
    fn settle(&mut self, acts: &mut Acts<P>, name: u64) {
        let Some(known) = self.remove(name) else { return };
        match known.stage {
            Stage::Attempted => known.tell_connect(acts, "unknown", 0, None),
            Stage::GivenUp(ended) => self.came_to_nothing(acts, &known, ended, 0),
            _ => known.tell_connect(acts, "pending", 0, None),
        }
    }

    /// Tells that no connection was made, for an error or for none.
    fn came_to_nothing(&mut self, acts: &mut Acts<P>, known: &Connection<P>, ended: u64, errno: u32) {
        let key = known.key(Outcome::of_error(errno));
        if let Some(key) = self.fold.repeated(key, ended) {
            let ended = known.ended(ended, None);
            self.fold.count(key, &ended, &known.who, known.attribution, &known.socket);
        } else {
            let outcome = if errno == 0 { "pending" } else { "failed" };
            known.tell_connect(acts, outcome, errno, Some(ended));
        }
        if let Some(task) = known.who.task() {
            self.failures.put(known.socket.socket, Failure { pid: task.pid, errno: Some(errno) });
        }
    }

    /// A connection is there: tells of it, or holds it as a repeat.
    fn opens(&mut self, acts: &mut Acts<P>, name: u64, time: u64) {
        let Some(known) = self.table.get_mut(&name) else { return };
        known.stage = Stage::Open;
        match self.fold.repeated(known.key(Outcome::Made), time) {
            Some(key) => {
                known.held = Some(key);
                self.fold.hold(key, name, &known.who, known.attribution, &known.socket);
            }
            None => known.tell_begin(acts),
        }
    }

    /// Nobody was seen to accept a connection: tells of who ended it, who has accepted it then; or of who listened,
    /// if that was closed with it.
    fn open_by_closer(&mut self, acts: &mut Acts<P>, name: u64, closer: Who<P>) {
        let Some(known) = self.table.get(&name) else { return };
        let with = self.closed.peek(&Port::of(&known.socket));
        let (who, attribution) = match with.filter(|with| Some(with.closer) == closer.program()) {
            Some(with) => (with.who.clone(), Attribution::Listener),
            // The listener, as a rule, of which more is known.
            None => (self.listener_of(known).or_acted(closer).0, Attribution::Opener),
        };
        let known = self.table.get_mut(&name).expect("it was there just now");
        (known.who, known.attribution) = (who, attribution);
        let time = known.begun;
        self.opens(acts, name, time);
    }

    /// Nobody was seen to accept a connection: tells of who listens.
    fn open_by_listener(&mut self, acts: &mut Acts<P>, name: u64) {
        let Some(known) = self.table.get(&name) else { return };
        let who = self.listener_of(known);
        let known = self.table.get_mut(&name).expect("it was there just now");
        (known.who, known.attribution) = (who, Attribution::Listener);
        let time = known.begun;
        self.opens(acts, name, time);
    }

    fn listener_of(&self, known: &Connection<P>) -> Who<P> {
        let listener = self.listeners.of(&known.socket).and_then(|listener| self.table.get(&listener));
        listener.map_or(Who::Nobody, |listener| listener.who.clone())
    }
}
