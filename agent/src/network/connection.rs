//! A socket with states, and what is told of it.

use std::sync::Arc;

use nightjar_abi::{
    network::Flow,
    record::{SocketInfo, SocketState, socket_flags},
};
use nightjar_proto::v1::NetworkActivity;

use super::{
    act::{Actor, Acts, Attribution, Traffic, Who},
    closing::{self, Side},
    describe,
    fold::{Direction, Ended, Key, Outcome},
};

/// Protocols whose sockets count what goes by: TCP. The counts of MPTCP are its subflows', which are sockets of TCP.
const COUNTED: &[u16] = &[6];

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
    /// It waits for connections, if the call that has it do so is not refused after all.
    Unconfirmed,
    /// It was unconfirmed and waits no more: refused, as a rule, which its call tells.
    Withdrawn,
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
    pub(super) acted: Option<Who<P>>,
    pub(super) first_end: Option<Side>,
    /// Call that made it.
    pub(super) call: u32,
    /// Longest queue of a listener.
    pub(super) backlog: u64,
}

impl Stage {
    /// Whether it is one of a socket that waits for connections.
    pub(super) const fn is_of_listener(self) -> bool {
        matches!(self, Self::Unconfirmed | Self::Withdrawn | Self::Listening)
    }
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

    /// Whether it is of the process with this ID.
    pub(super) fn is_of(&self, pid: u32) -> bool {
        self.who.task().is_some_and(|task| task.pid == pid)
    }

    /// Whether a record tells of something that was before this socket was found in passing.
    pub(super) fn is_older(&self, time: u64) -> bool {
        self.is_old && time < self.begun
    }

    /// What makes it a repeat of another one.
    pub(super) fn key(&self, outcome: Outcome) -> Option<Key> {
        Key::new(&self.who, &self.socket, self.direction?, outcome)
    }

    /// This, as one of many that ended.
    pub(super) fn ended(&self, time: u64, traffic: Option<Traffic>) -> Ended {
        Ended { begun: self.begun, last: time, traffic }
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

    /// Tells that it listens.
    pub(super) fn tell_listen(&self, acts: &mut Acts<P>) {
        let body = NetworkActivity {
            connection: self.name(),
            call: acts.call(self.call),
            snapshot: self.is_untold,
            backlog: self.backlog,
            ..describe::listener(&self.socket)
        };
        acts.tell("network.listen", self.begun, self.who.clone(), self.attribution.of_deed(), body);
    }

    /// Tells of the beginning as itself.
    pub(super) fn tell_begin(&self, acts: &mut Acts<P>) {
        match (self.stage, self.direction) {
            (Stage::Listening, _) => self.tell_listen(acts),
            (_, Some(Direction::Inbound)) => self.tell_accept(acts),
            _ => self.tell_connect(acts, "established", 0, self.made),
        }
    }

    /// Tells of the end at `time`, of which the record is, and that `acted` did it, if somebody did. Without a record
    /// it was not seen.
    pub(super) fn tell_close(
        &self,
        acts: &mut Acts<P>,
        time: u64,
        record: Option<&SocketState>,
        acted: Option<Who<P>>,
    ) {
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
        let acted = acted.or_else(|| self.acted.clone()).filter(|_| record.is_some());
        let (who, opener, attribution) = self.who_ended(acted);
        acts.tell("network.close", time, who, attribution, body).opener = opener;
    }

    fn who_ended(&self, acted: Option<Who<P>>) -> (Who<P>, Option<Arc<Actor<P>>>, &'static str) {
        match acted {
            Some(acted) => {
                let (who, opener) = self.who.or_acted(acted);
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

/// Who did what the record tells of, if a process did it: `actor`, where that is known.
pub(super) fn who_acted<P>(record: &SocketState, actor: Option<Arc<Actor<P>>>) -> Option<Who<P>> {
    (record.flags & socket_flags::ACTED != 0).then(|| actor.map_or(Who::Task(record.task), Who::Known))
}

/// What went by a socket, where its protocol counts.
pub(super) fn traffic_of(record: &SocketState) -> Option<Traffic> {
    COUNTED.contains(&record.socket.protocol).then(|| Traffic {
        sent: Flow { packets: record.packets_sent.into(), bytes: record.bytes_sent },
        received: Some(Flow { packets: record.packets_received.into(), bytes: record.bytes_received }),
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
