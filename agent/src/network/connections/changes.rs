//! What becomes of sockets that have states.

use std::sync::Arc;

use nightjar_abi::record::{SocketState, socket_change};
use nightjar_proto::v1::NetworkActivity;

use super::{Closed, Connections, PATIENCE};
use crate::network::{
    act::{Actor, Acts, Attribution, Who},
    closing::{self, side_of},
    connection::{Connection, Stage, fill_end, traffic_of, who_acted},
    describe,
    fold::Direction,
    listeners::Port,
    state,
};

impl<P> Connections<P> {
    /// A process is about to connect a socket.
    pub(in crate::network) fn attempted(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketState,
        actor: Option<Arc<Actor<P>>>,
    ) {
        let (name, time) = (record.socket.socket, record.header.time);
        debug_assert_eq!(record.change, socket_change::ATTEMPT, "other changes go elsewhere");
        self.make_way(acts, name, time);
        self.failures.pop(&name);
        let who = who_acted(record, actor).unwrap_or(Who::Nobody);
        let mut new = Connection::new(&record.socket, 0, Stage::Attempted, time, who);
        new.direction = Some(Direction::Outbound);
        if self.insert(acts, new).is_err() {
            // The connection that follows is told of, if one does.
            acts.lose("attempt_table_full");
        }
    }

    /// A socket went from one state to another.
    pub(in crate::network) fn changed(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketState,
        actor: Option<Arc<Actor<P>>>,
    ) {
        match record.new {
            state::ESTABLISHED => self.made(acts, record),
            state::CLOSE => self.gone(acts, record, who_acted(record, actor)),
            _ => {
                let known = self.table.get_mut(&record.socket.socket);
                if let (Some(side), Some(known)) = (side_of(record.new), known) {
                    known.first_end.get_or_insert(side);
                    if let Some(who) = who_acted(record, actor) {
                        known.acted = Some(who);
                    }
                }
            }
        }
    }

    fn made(&mut self, acts: &mut Acts<P>, record: &SocketState) {
        let (name, time) = (record.socket.socket, record.header.time);
        let known = self.table.get_mut(&name);
        match known {
            Some(known) if known.is_older(time) => {
                let is_outbound = record.old == state::SYN_SENT;
                known.made = Some(time);
                known.direction = Some(if is_outbound { Direction::Outbound } else { Direction::Inbound });
            }
            Some(known) if matches!(known.stage, Stage::Attempted | Stage::Connecting) => {
                known.refresh(&record.socket);
                known.made = Some(time);
                if known.id == 0 {
                    known.id = acts.name(name, known.begun);
                }
                self.opens(acts, name, time);
            }
            // Fast open: it was accepted before it was complete.
            Some(known) if is_same_inbound(known, record) => {}
            _ if record.old == state::SYN_SENT => {
                // Told when it was connected, if there was no room; else that record was lost, which is counted.
            }
            _ => {
                self.make_way(acts, name, time);
                let id = acts.name(name, time);
                let mut new = Connection::new(&record.socket, id, Stage::Waiting, time, Who::Nobody);
                (new.made, new.direction) = (Some(time), Some(Direction::Inbound));
                if self.insert(acts, new).is_err() {
                    // Told when it is accepted.
                    acts.lose("table_full");
                }
            }
        }
    }

    fn gone(&mut self, acts: &mut Acts<P>, record: &SocketState, acted: Option<Who<P>>) {
        let (name, time) = (record.socket.socket, record.header.time);
        let Some(known) = self.table.get_mut(&name).filter(|known| !known.is_older(time)) else {
            self.unknown_gone(acts, record, acted);
            return;
        };
        known.refresh(&record.socket);
        match known.stage {
            Stage::Attempted | Stage::Connecting if record.errno == 0 => {
                known.stage = Stage::GivenUp(time);
                self.pending.push_back((time.saturating_add(PATIENCE), name));
            }
            Stage::Attempted | Stage::Connecting => {
                if let Some(known) = self.remove(name) {
                    self.came_to_nothing(acts, &known, time, record.errno);
                }
            }
            Stage::Unconfirmed => {
                known.stage = Stage::Withdrawn;
                self.listeners.remove(name);
            }
            Stage::GivenUp(_) | Stage::Withdrawn => {}
            Stage::Waiting => {
                match acted.clone().or_else(|| known.acted.clone()) {
                    Some(closer) => self.open_by_closer(acts, name, closer),
                    None => self.open_by_listener(acts, name),
                }
                self.closed(acts, record, acted);
            }
            Stage::Open => self.closed(acts, record, acted),
            Stage::Listening => {
                if let Some(closer) = acted.as_ref().and_then(Who::program) {
                    let closed = Closed { who: known.who.clone(), closer };
                    self.closed.put(Port::of(&known.socket), closed);
                }
                self.closed(acts, record, acted);
            }
        }
    }

    /// Tells of an end, or counts it as that of a repeat.
    fn closed(&mut self, acts: &mut Acts<P>, record: &SocketState, acted: Option<Who<P>>) {
        let (name, time) = (record.socket.socket, record.header.time);
        let Some(known) = self.remove(name) else { return };
        if known.attribution == Attribution::Listener {
            self.told.put(name, ());
        }
        match known.held {
            Some(key) => self.fold.ended(key, name, &known.ended(time, traffic_of(record))),
            None => known.tell_close(acts, time, Some(record), acted),
        }
    }

    /// Tells of the end of what began before the agent, or had no room in the table. What never came to be, or was
    /// never seen to, is nothing to tell of.
    fn unknown_gone(&mut self, acts: &mut Acts<P>, record: &SocketState, acted: Option<Who<P>>) {
        let is_listener = record.old == state::LISTEN;
        if matches!(record.old, state::CLOSE | state::SYN_SENT | state::SYN_RECV) {
            return;
        }
        let mut body = if is_listener {
            describe::listener(&record.socket)
        } else {
            let is_inbound = self.listeners.of(&record.socket).is_some();
            let direction = if is_inbound { Direction::Inbound.word() } else { "" }.to_owned();
            NetworkActivity { direction, ..describe::connection(&record.socket) }
        };
        let reason = if is_listener { "closed" } else { closing::reason(record, None) };
        reason.clone_into(&mut body.reason);
        fill_end(&mut body, acts, record);
        let who = acted.unwrap_or(Who::Nobody);
        acts.tell("network.close", record.header.time, who, "acted", body);
    }
}

/// Whether a connection that comes to be is one that was accepted already.
fn is_same_inbound<P>(known: &Connection<P>, record: &SocketState) -> bool {
    known.stage == Stage::Open
        && known.direction == Some(Direction::Inbound)
        && known.socket.remote == record.socket.remote
        && known.socket.remote_port == record.socket.remote_port
}
