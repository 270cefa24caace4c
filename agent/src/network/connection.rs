//! A socket with states, and what is told of it.

use std::sync::Arc;

use nightjar_abi::{
    network::Flow,
    record::{SocketInfo, SocketState, TaskRef, socket_flags},
};
use nightjar_proto::v1::NetworkActivity;

use super::{
    act::{Actor, Acts, Attribution, Traffic, Who},
    closing::{self, Side},
    describe,
    fold::{Direction, Ended, Key},
};

/// Protocols whose sockets count what goes by: TCP and MPTCP.
const COUNTED: &[u16] = &[6, 262];

/// How far a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// A process is about to connect it.
    Attempted,
    /// It connects.
    Connecting,
    /// It connects no more since then, for no reason that was seen: the call that comes back may tell.
    GivenUp(u64),
    /// Somebody connected to it and nobody accepted that yet.
    Waiting,
    /// There is a connection.
    Open,
    /// It waits for connections.
    Listening,
}

/// What is kept of a socket.
#[derive(Debug)]
pub(super) struct Connection<P> {
    pub(super) socket: SocketInfo,
    /// Name; zero: none.
    pub(super) id: u64,
    pub(super) stage: Stage,
    /// When the call was made that it is told of by, or it was found.
    pub(super) begun: u64,
    /// When the connection was made; `None` where that is not so yet, or was before the agent.
    pub(super) made: Option<u64>,
    pub(super) direction: Option<Direction>,
    pub(super) who: Who<P>,
    pub(super) attribution: Attribution,
    /// It was there before the agent.
    pub(super) is_old: bool,
    /// It was found at the start of the agent and is not told of yet.
    pub(super) is_untold: bool,
    /// It is a repeat of what has this key, and told of by its count if it ends soon.
    pub(super) held: Option<Key>,
    /// The remote end was read from the memory of the process.
    pub(super) is_from_memory: bool,
    /// Who did something to it last that ends it.
    pub(super) acted: Option<TaskRef>,
    pub(super) first_end: Option<Side>,
    /// Call that made it.
    pub(super) call: u32,
    /// Longest queue of a listener.
    pub(super) backlog: u64,
}

impl<P> Connection<P> {
    /// A socket that comes to be known at `time`.
    pub(super) fn new(socket: &SocketInfo, id: u64, stage: Stage, time: u64, who: Who<P>) -> Box<Self> {
        Box::new(Self {
            socket: *socket,
            id,
            stage,
            begun: time,
            made: None,
            direction: None,
            who,
            attribution: Attribution::Opener,
            is_old: false,
            is_untold: false,
            held: None,
            is_from_memory: false,
            acted: None,
            first_end: None,
            call: nightjar_abi::record::socket_call::UNKNOWN,
            backlog: 0,
        })
    }

    /// Takes what a later record knows better; ends that a record has no more stay.
    pub(super) fn refresh(&mut self, socket: &SocketInfo) {
        let known = self.socket;
        self.socket = *socket;
        for (now, before) in [(&mut self.socket.local, known.local), (&mut self.socket.remote, known.remote)]
        {
            if *now == [0; 16] {
                *now = before;
            }
        }
        for (now, before) in [
            (&mut self.socket.local_port, known.local_port),
            (&mut self.socket.remote_port, known.remote_port),
        ] {
            if *now == 0 {
                *now = before;
            }
        }
        if socket.interface == 0 || socket.interface_name == [0; 16] {
            (self.socket.interface, self.socket.interface_name) = (known.interface, known.interface_name);
        }
    }

    /// Whether a record tells of something that was before this socket was found in passing.
    pub(super) fn is_older(&self, time: u64) -> bool {
        self.is_old && time < self.begun
    }

    /// What makes it a repeat of another one.
    pub(super) fn key(&self, made: bool) -> Option<Key> {
        Key::new(&self.who, &self.socket, self.direction?, made)
    }

    /// This, as one of many that ended.
    pub(super) fn ended(&self, time: u64, failed: bool, traffic: Option<Traffic>) -> Ended {
        Ended { begun: self.begun, last: time, failed, traffic }
    }

    /// Tells that it connects, and what came of that.
    pub(super) fn tell_connect(
        &self,
        acts: &mut Acts<P>,
        outcome: &'static str,
        errno: u32,
        ended: Option<u64>,
    ) {
        let is_made = outcome == "established";
        let mut body = self.body(Some(Direction::Outbound));
        body.connection = if is_made { self.name() } else { String::new() };
        outcome.clone_into(&mut body.outcome);
        body.error = acts.error(errno);
        body.call = acts.call(self.call);
        body.snapshot = self.is_untold;
        if self.is_from_memory {
            "user_memory".clone_into(&mut body.source);
        }
        if !self.is_old {
            body.latency = ended.map_or(0, |ended| ended.saturating_sub(self.begun));
        }
        acts.tell("network.connect", self.begun, self.who.clone(), self.attribution.of_deed(), body);
    }

    /// Tells that it was accepted.
    pub(super) fn tell_accept(&self, acts: &mut Acts<P>) {
        let body = NetworkActivity {
            connection: self.name(),
            call: acts.call(self.call),
            snapshot: self.is_untold,
            ..self.body(Some(Direction::Inbound))
        };
        acts.tell("network.accept", self.begun, self.who.clone(), self.attribution.of_deed(), body);
    }

    /// Tells that it listens since `time`.
    pub(super) fn tell_listen(&self, acts: &mut Acts<P>, time: u64) {
        let body = NetworkActivity {
            connection: self.name(),
            call: acts.call(self.call),
            snapshot: self.is_untold,
            backlog: self.backlog,
            ..describe::listener(&self.socket)
        };
        acts.tell("network.listen", time, self.who.clone(), self.attribution.of_deed(), body);
    }

    /// Tells of the beginning as itself.
    pub(super) fn tell_begin(&self, acts: &mut Acts<P>) {
        match (self.stage, self.direction) {
            (Stage::Listening, _) => self.tell_listen(acts, self.begun),
            (_, Some(Direction::Inbound)) => self.tell_accept(acts),
            _ => self.tell_connect(acts, "established", 0, self.made),
        }
    }

    /// Tells of the end, of which the record is; without one it was not seen, and found out at `time`.
    pub(super) fn tell_close(&self, acts: &mut Acts<P>, time: u64, record: Option<&SocketState>) {
        let is_listener = self.stage == Stage::Listening;
        let mut body = if is_listener { describe::listener(&self.socket) } else { self.body(self.direction) };
        body.connection = self.name();
        let reason = match record {
            None => "unknown",
            Some(_) if is_listener => "closed",
            Some(record) => closing::reason(record, self.first_end),
        };
        reason.clone_into(&mut body.reason);
        if let Some(record) = record {
            if let Some(made) = self.made {
                body.duration = time.saturating_sub(made);
            }
            fill_end(&mut body, acts, record);
        }
        let (who, opener, attribution) = self.who_ended(record);
        acts.tell("network.close", time, who, attribution, body).opener = opener;
    }

    fn who_ended(&self, record: Option<&SocketState>) -> (Who<P>, Option<Arc<Actor<P>>>, &'static str) {
        let acted = record.and_then(actor_of).or(self.acted);
        match acted.filter(|_| record.is_some()) {
            Some(task) => {
                let (who, opener) = self.who.or_acted(task);
                // Somebody else listened, or had it open; that is not to have opened it.
                let opener = opener.filter(|_| self.attribution != Attribution::Listener);
                (who, opener, "acted")
            }
            None => (self.who.clone(), None, self.attribution.of_bystander()),
        }
    }

    fn body(&self, direction: Option<Direction>) -> NetworkActivity {
        let direction = direction.map_or("", Direction::word).to_owned();
        NetworkActivity { direction, ..describe::connection(&self.socket) }
    }

    /// As the event has it; empty where the table had no room, so that the end will be told without it.
    fn name(&self) -> String {
        if self.id == 0 { String::new() } else { format!("{:016x}", self.id) }
    }
}

/// Who did what the record tells of, if a process did it.
pub(super) fn actor_of(record: &SocketState) -> Option<TaskRef> {
    (record.flags & socket_flags::ACTED != 0).then_some(record.task)
}

/// What went by a socket, where its protocol counts.
pub(super) fn traffic_of(record: &SocketState) -> Option<Traffic> {
    COUNTED.contains(&record.socket.protocol).then(|| Traffic {
        sent: Flow { packets: record.packets_sent.into(), bytes: record.bytes_sent },
        received: Flow { packets: record.packets_received.into(), bytes: record.bytes_received },
    })
}

/// What the record of an end says beside the reason.
pub(super) fn fill_end<P>(body: &mut NetworkActivity, acts: &Acts<P>, record: &SocketState) {
    body.error = acts.error(record.errno);
    if body.remote.is_none() {
        return;
    }
    if let Some(traffic) = traffic_of(record) {
        traffic.tell(body);
    }
    body.retransmits = record.retransmits.into();
    body.round_trip = u64::from(record.rtt_us) * 1000;
}
