//! One flow of datagrams.

use std::{iter, sync::Arc};

use nightjar_abi::{
    network::{Flow, FlowKey},
    record::{SocketInfo, socket_call},
};
use nightjar_proto::v1::NetworkActivity;

use crate::network::{
    act::{Actor, Acts, Attribution, Traffic, Who},
    describe,
    fold::{Direction, Key},
};

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
    /// Process ID of who sent first; zero: nobody did.
    pub(super) sender: u32,
    /// Of others who sent.
    pub(super) senders: Vec<u32>,
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

    /// What the kernel counts it by; zero: what is received.
    pub(super) fn key(&self, pid: u32) -> FlowKey {
        FlowKey {
            socket: self.socket,
            remote: self.remote,
            pid,
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
            sender: 0,
            senders: Vec::new(),
            seen: None,
            changed: time,
        })
    }

    pub(super) fn senders(&self) -> impl Iterator<Item = u32> {
        iter::once(self.sender).filter(|pid| *pid != 0).chain(self.senders.iter().copied())
    }

    pub(super) fn sends(&mut self, pid: u32) {
        if self.sender == 0 {
            self.sender = pid;
        } else if !self.senders().any(|known| known == pid) {
            self.senders.push(pid);
        }
    }

    /// What went by so far; `None` where nobody counted.
    pub(super) fn traffic(
        &self,
        id: &FlowId,
        mut count: impl FnMut(&FlowKey) -> Option<Flow>,
    ) -> Option<Traffic> {
        let received = count(&id.key(0));
        let mut sum = received.map(|received| Traffic { received, sent: Flow::default() });
        for sent in self.senders().filter_map(|pid| count(&id.key(pid))) {
            sum.get_or_insert_default().add(&Traffic { sent, received: Flow::default() });
        }
        sum
    }

    pub(super) fn key(&self) -> Option<Key> {
        Key::new(&self.who, &self.socket, self.direction, true)
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
