//! One flow of datagrams.

use std::{collections::VecDeque, sync::Arc};

use nightjar_abi::{
    network::{Flow, FlowKey, sender},
    record::{SocketInfo, TaskRef, socket_call},
};
use nightjar_proto::v1::NetworkActivity;

use crate::network::{
    act::{Actor, Acts, Attribution, Traffic, Who, add},
    describe,
    fold::{Direction, Key, Outcome},
};

/// Most senders of a flow that the kernel counts by themselves. What the eldest of more than these sent is taken into
/// one sum with what went before; should it send again, the kernel tells of it as of a new one.
pub(super) const SENDERS: usize = 64;

/// What the kernel counted of datagrams.
pub trait Counts {
    /// What went one way so far. `None` where the kernel has no such flow.
    fn read(&mut self, key: &FlowKey) -> Option<Flow>;
    /// Likewise, and has the kernel forget the flow, so that it tells of the next datagram as of a first one.
    fn take(&mut self, key: &FlowKey) -> Option<Flow>;
}

/// What makes a flow: in an order in which those of a socket are together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct FlowId {
    pub(super) socket: u64,
    pub(super) remote: [u8; 16],
    pub(super) remote_port: u16,
    pub(super) protocol: u8,
    pub(super) version: u8,
}

/// How far it is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Not yet, as who it is about is not known.
    No,
    Yes,
    /// It is a repeat of what has this key.
    Held(Key),
}

pub(super) struct Entry<P> {
    pub(super) socket: SocketInfo,
    /// Name; zero: none.
    pub(super) id: u64,
    pub(super) begun: u64,
    pub(super) direction: Direction,
    pub(super) who: Who<P>,
    pub(super) attribution: Attribution,
    pub(super) told: Told,
    pub(super) call: u32,
    /// Who sent, by what the kernel tells them from one another, in the order in which they came.
    pub(super) senders: VecDeque<u32>,
    /// What others sent, whom the kernel counts no more.
    pub(super) sent_before: Flow,
    /// What was counted when it was looked at last.
    pub(super) seen: Option<Traffic>,
    /// When it was last found to have counted something.
    pub(super) changed: u64,
}

// === impl FlowId ===

impl FlowId {
    pub(super) fn of(socket: &SocketInfo) -> Self {
        let (version, remote) = describe::packet_address(socket);
        Self {
            socket: socket.socket,
            remote,
            remote_port: socket.remote_port,
            protocol: u8::try_from(socket.protocol).unwrap_or(u8::MAX),
            version,
        }
    }

    /// What comes before all flows of a socket.
    pub(super) fn first_of(socket: u64) -> Self {
        Self { socket, remote: [0; 16], remote_port: 0, protocol: 0, version: 0 }
    }

    /// What the kernel counts it by of this sender; zero: what is received.
    pub(super) fn key(&self, sender: u32) -> FlowKey {
        FlowKey {
            socket: self.socket,
            remote: self.remote,
            sender,
            remote_port: self.remote_port,
            protocol: self.protocol,
            version: self.version,
        }
    }
}

// === impl Entry ===

impl<P> Entry<P> {
    pub(super) fn new(socket: &SocketInfo, time: u64, direction: Direction, who: Who<P>) -> Box<Self> {
        Box::new(Self {
            socket: *socket,
            id: 0,
            begun: time,
            direction,
            who,
            attribution: Attribution::Opener,
            told: Told::No,
            call: socket_call::UNKNOWN,
            senders: VecDeque::new(),
            sent_before: Flow::default(),
            seen: None,
            changed: time,
        })
    }

    /// A program sends. Whether that makes more senders than are counted by themselves.
    pub(super) fn sends(&mut self, task: &TaskRef) -> bool {
        let sender = sender(task.pid, task.exec_id);
        if !self.senders.contains(&sender) {
            self.senders.push_back(sender);
        }
        self.senders.len() > SENDERS
    }

    /// Takes the eldest senders together until there are no more than are counted by themselves.
    pub(super) fn gather(&mut self, id: &FlowId, mut take: impl FnMut(&FlowKey) -> Option<Flow>) {
        while self.senders.len() > SENDERS {
            if let Some(sent) = self.senders.pop_front().and_then(|eldest| take(&id.key(eldest))) {
                add(&mut self.sent_before, &sent);
            }
        }
    }

    /// What went by so far; `None` where nobody counted.
    pub(super) fn traffic(
        &self,
        id: &FlowId,
        mut count: impl FnMut(&FlowKey) -> Option<Flow>,
    ) -> Option<Traffic> {
        let is_received = !describe::counts_sent_only(&self.socket);
        let received = if is_received { count(&id.key(0)) } else { None };
        let mut sent: Option<Flow> = (self.sent_before != Flow::default()).then_some(self.sent_before);
        for flow in self.senders.iter().filter_map(|sender| count(&id.key(*sender))) {
            add(sent.get_or_insert_default(), &flow);
        }
        (received.is_some() || sent.is_some()).then(|| Traffic {
            sent: sent.unwrap_or_default(),
            received: is_received.then(|| received.unwrap_or_default()),
        })
    }

    pub(super) fn key(&self) -> Option<Key> {
        Key::new(&self.who, &self.socket, self.direction, Outcome::Made)
    }

    pub(super) fn body(&self) -> NetworkActivity {
        NetworkActivity {
            direction: self.direction.word().to_owned(),
            connection: if self.id == 0 { String::new() } else { format!("{:016x}", self.id) },
            ..describe::connection(&self.socket)
        }
    }

    pub(super) fn tell_begin(&self, acts: &mut Acts<P>) {
        let who = self.who.clone();
        match self.direction {
            Direction::Outbound => {
                self.tell_sent(acts, self.begun, who, None, self.call);
            }
            Direction::Inbound => {
                let attribution = self.attribution.of_bystander();
                acts.tell("network.accept", self.begun, who, attribution, self.body());
            }
        }
    }

    pub(super) fn tell_sent(
        &self,
        acts: &mut Acts<P>,
        time: u64,
        who: Who<P>,
        opener: Option<Arc<Actor<P>>>,
        call: u32,
    ) {
        let body = NetworkActivity { outcome: "sent".to_owned(), call: acts.call(call), ..self.body() };
        acts.tell("network.connect", time, who, "acted", body).opener = opener;
    }
}
