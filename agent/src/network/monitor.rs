//! Records in, events out.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use nightjar_abi::record::{SocketCall, SocketState, socket_act, socket_change, socket_flags};
use nightjar_proto::v1::{NetworkActivity, NetworkEndpoint};

use super::{
    act::{Act, Actor, Acts, Attribution, Who, Words},
    connections::Connections,
    datagrams::{Counts, Datagrams},
    describe,
};

/// What is asked of network events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How long repeats are counted into one event; zero: not at all.
    pub window: Duration,
    /// How long nothing has to go by for a flow of datagrams to end.
    pub idle: Duration,
    /// Most sockets with states that are known at once.
    pub connections: usize,
    /// Most flows of datagrams that are known at once, and most sockets of datagrams whose owner is.
    pub flows: usize,
}

/// What is known at the moment, and how much may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Known {
    /// Connections, listeners and what is about to be one.
    pub connections: usize,
    /// The most of them.
    pub most_connections: usize,
    /// Flows of datagrams.
    pub flows: usize,
    /// The most of them.
    pub most_flows: usize,
}

/// Makes events of what is done with sockets.
pub struct Monitor<P> {
    options: Options,
    acts: Acts<P>,
    connections: Connections<P>,
    datagrams: Datagrams<P>,
}

impl Default for Options {
    fn default() -> Self {
        Self { window: Duration::ZERO, idle: Duration::from_secs(30), connections: 65_536, flows: 65_536 }
    }
}

impl<P> Monitor<P> {
    /// One that knows of no socket. `name` makes a name of a socket and the time at which its connection began, in
    /// nanoseconds since boot; zero is no name.
    #[must_use]
    pub fn new(options: Options, words: Words, name: impl Fn(u64, u64) -> u64 + Send + 'static) -> Self {
        Self {
            options,
            acts: Acts::new(words, name),
            connections: Connections::new(options.connections, options.window),
            datagrams: Datagrams::new(options.flows, options.idle, options.window),
        }
    }

    /// Takes other options. What is known stays; where the window changes, all that is held is told of.
    pub fn configure(&mut self, options: Options) {
        self.options = options;
        self.connections.configure(&mut self.acts, options.connections, options.window);
        self.datagrams.configure(&mut self.acts, options.flows, options.idle, options.window);
    }

    /// A process did something with a socket. `path` is the name of a unix socket.
    pub fn called(&mut self, record: &SocketCall, path: &[u8], actor: Arc<Actor<P>>) {
        self.turn(record.header.time);
        let acts = &mut self.acts;
        match record.act {
            socket_act::CONNECT => self.connections.connects(acts, record, actor),
            socket_act::CONNECT_FAILED if !path.is_empty() => self.connected_by_path(record, path, actor),
            socket_act::CONNECT_FAILED => self.connections.connect_failed(acts, record, actor),
            socket_act::LISTEN => self.connections.listens(acts, record, actor),
            socket_act::ACCEPT => self.connections.accepts(acts, record, actor),
            socket_act::DATAGRAM => self.datagrams.sent(acts, record, actor),
            socket_act::BIND => self.bound(record, actor),
            socket_act::SOCKET => {
                // It has no end yet, here or there.
                let body =
                    NetworkActivity { local: None, remote: None, ..describe::connection(&record.socket) };
                self.tell_call("network.socket", record, Who::Known(actor), body);
            }
            socket_act::UNIX_CONNECT => self.connected_by_path(record, path, actor),
            unknown => tracing::debug!(unknown, "a record of a socket call is not known"),
        }
    }

    /// A socket changed. `actor` is the task of the record, where that acted and is known.
    pub fn changed(&mut self, record: &SocketState, actor: Option<Arc<Actor<P>>>) {
        self.turn(record.header.time);
        let acts = &mut self.acts;
        match record.change {
            socket_change::STATE => self.connections.changed(acts, record, actor),
            socket_change::ATTEMPT => self.connections.attempted(acts, record, actor),
            socket_change::DATAGRAM => self.datagrams.received(acts, record),
            socket_change::RELEASED => self.datagrams.released(record, actor),
            unknown => tracing::debug!(unknown, "a change of a socket is not known"),
        }
    }

    /// A socket was there before the agent, and `actor` has it open. To be called once for each record of the
    /// snapshot, then [`Self::snapshot_ends`].
    pub fn found(&mut self, record: &SocketState, actor: Arc<Actor<P>>) {
        let (acts, socket) = (&mut self.acts, &record.socket);
        if !describe::is_datagram(socket) {
            self.connections.found(acts, record, actor);
        } else if !self.datagrams.has_owner(socket.socket) {
            self.datagrams.owned(acts, socket.socket, actor, Attribution::Owner);
        }
    }

    /// The snapshot is complete: what was found is told of.
    pub fn snapshot_ends(&mut self, now: u64) {
        self.turn(now);
        self.connections.snapshot_ends(&mut self.acts);
    }

    /// Time passes until `now`, nanoseconds since boot, up to which all records were handed over: windows end,
    /// attempts become what they are, and flows that nothing goes by end.
    pub fn tick(&mut self, now: u64, counts: &mut dyn Counts) {
        self.connections.tick(&mut self.acts, now);
        self.datagrams.tick(&mut self.acts, now, counts);
    }

    /// The agent stops: what is held or pending is told of, and flows of datagrams end, as nobody counts on.
    pub fn finish(&mut self, now: u64, counts: &mut dyn Counts) {
        self.connections.finish(&mut self.acts);
        self.datagrams.finish(&mut self.acts, now, counts);
    }

    /// The events made since the last time, in the order in which they are to be told.
    pub fn take_acts(&mut self) -> Vec<Act<P>> {
        self.acts.take()
    }

    /// How often what could not be kept, by area and reason: numbers that only grow.
    #[must_use]
    pub fn lost(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
        self.acts.lost()
    }

    /// How much is known.
    #[must_use]
    pub fn known(&self) -> Known {
        Known {
            connections: self.connections.len(),
            most_connections: self.options.connections,
            flows: self.datagrams.len(),
            most_flows: self.options.flows,
        }
    }

    /// Whether nothing is left of what was once known.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.datagrams.is_empty()
    }

    fn turn(&mut self, now: u64) {
        self.connections.turn(&mut self.acts, now);
        self.datagrams.turn(&mut self.acts, now);
    }

    fn bound(&mut self, record: &SocketCall, actor: Arc<Actor<P>>) {
        let body = describe::listener(&record.socket);
        self.tell_call("network.bind", record, Who::Known(Arc::clone(&actor)), body);
        if record.errno == 0 && describe::is_datagram(&record.socket) {
            self.datagrams.owned(&mut self.acts, record.socket.socket, actor, Attribution::Opener);
        }
    }

    fn connected_by_path(&mut self, record: &SocketCall, path: &[u8], actor: Arc<Actor<P>>) {
        let remote = NetworkEndpoint { path: describe::unix_path(path), ..NetworkEndpoint::default() };
        let body = NetworkActivity {
            direction: "outbound".to_owned(),
            outcome: if record.errno == 0 { "established" } else { "failed" }.to_owned(),
            remote: Some(remote),
            source: if record.flags & socket_flags::USER_MEMORY == 0 { "" } else { "user_memory" }.to_owned(),
            ..describe::connection(&record.socket)
        };
        self.tell_call("network.connect", record, Who::Known(actor), body);
    }

    /// Tells of a call that is all that there is to tell of.
    fn tell_call(&mut self, kind: &'static str, record: &SocketCall, who: Who<P>, body: NetworkActivity) {
        let (error, call) = (self.acts.error(record.errno), self.acts.call(record.call));
        self.acts.tell(kind, record.header.time, who, "acted", NetworkActivity { error, call, ..body });
    }
}

impl<P> fmt::Debug for Monitor<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("options", &self.options)
            .field("known", &self.known())
            .finish_non_exhaustive()
    }
}
