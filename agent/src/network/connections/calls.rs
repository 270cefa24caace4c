//! What processes do with sockets that have states.

use std::sync::Arc;

use nightjar_abi::record::{SocketCall, socket_call, socket_flags};
use nightjar_proto::v1::NetworkActivity;

use super::{Connections, Failure};
use crate::network::{
    act::{Actor, Acts, Attribution, Who},
    connection::{Connection, Stage},
    describe,
    fold::Direction,
};

const ECONNABORTED: u32 = libc::ECONNABORTED.cast_unsigned();

/// Errors that a call may come back with while the socket connects on: they are of what the call was given, or of a
/// policy that it did not pass.
const OF_THE_CALL: &[i32] = &[libc::EFAULT, libc::EINVAL, libc::EAFNOSUPPORT, libc::EACCES, libc::EPERM];

impl<P> Connections<P> {
    /// A process connects a socket; what comes of it is told when that is known.
    pub(in crate::network) fn connects(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketCall,
        actor: Arc<Actor<P>>,
    ) {
        let (name, time, pid) = (record.socket.socket, record.header.time, actor.info.task.pid);
        let Some(actor) = self.claims(record, actor) else { return };
        self.failures.pop(&name);
        if self.table.get(&name).is_some_and(|known| known.stage == Stage::Attempted) {
            self.table.remove(&name);
        }
        self.make_way(acts, name, time);
        let id = acts.name(name, time);
        let mut new = Connection::new(&record.socket, id, Stage::Connecting, time, Who::Known(actor));
        (new.direction, new.call) = (Some(Direction::Outbound), record.call);
        if let Err(new) = self.insert(acts, new) {
            acts.lose("table_full");
            new.tell_connect(acts, "unknown", 0, None);
            self.failures.put(name, Failure { pid, errno: None });
        }
    }

    /// A call came back with an error, which a change of state may have told already.
    pub(in crate::network) fn connect_failed(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketCall,
        actor: Arc<Actor<P>>,
    ) {
        let (name, time, pid) = (record.socket.socket, record.header.time, actor.info.task.pid);
        let ends = !OF_THE_CALL.iter().any(|number| number.cast_unsigned() == record.errno);
        let is_of_call = |known: &Connection<P>| match known.stage {
            Stage::Attempted => true,
            // Of one that still connects the change of state was lost.
            Stage::GivenUp(_) => known.is_of(pid),
            Stage::Connecting => ends && known.is_of(pid),
            _ => false,
        };
        if self.table.get(&name).is_some_and(|known| is_of_call(known))
            && let Some(mut known) = self.table.remove(&name)
        {
            let ended = if let Stage::GivenUp(ended) = known.stage { ended } else { time };
            (known.who, known.attribution) = (Who::Known(actor), Attribution::Opener);
            known.call = record.call;
            self.came_to_nothing(acts, &known, ended, record.errno);
        } else if !self.is_told(record, pid) {
            let mut new = Connection::new(&record.socket, 0, Stage::Connecting, time, Who::Known(actor));
            (new.direction, new.call) = (Some(Direction::Outbound), record.call);
            new.is_from_memory = record.flags & socket_flags::USER_MEMORY != 0;
            self.came_to_nothing(acts, &new, time, record.errno);
        }
        // Whatever this socket is told to do next is something new.
        self.failures.pop(&name);
    }

    /// Whether a failure was told by a change of state. The call may say no more than that there was one.
    fn is_told(&self, record: &SocketCall, pid: u32) -> bool {
        self.failures.peek(&record.socket.socket).is_some_and(|told| {
            told.pid == pid && told.errno.is_none_or(|errno| [errno, ECONNABORTED].contains(&record.errno))
        })
    }

    /// A process waits for connections, or was refused that. The change of state tells of it first, when it may still
    /// be refused, and then the call that comes back.
    pub(in crate::network) fn listens(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketCall,
        actor: Arc<Actor<P>>,
    ) {
        let (name, time) = (record.socket.socket, record.header.time);
        let Some(actor) = self.claims(record, actor) else { return };
        if record.call == socket_call::UNKNOWN {
            self.make_way(acts, name, time);
            self.failures.pop(&name);
            self.begins_to_listen(acts, record, actor, Stage::Unconfirmed);
        } else if record.errno != 0 {
            self.refused_to_listen(acts, record, actor);
        } else {
            self.listens_since(acts, record, actor);
        }
    }

    /// The call came back without an error.
    fn listens_since(&mut self, acts: &mut Acts<P>, record: &SocketCall, actor: Arc<Actor<P>>) {
        let (name, time, pid) = (record.socket.socket, record.header.time, actor.info.task.pid);
        if let Some(known) = self.table.get_mut(&name).filter(|known| known.stage.is_of_listener()) {
            known.refresh(&record.socket);
            if record.value != 0 {
                known.backlog = record.value;
            }
            match known.stage {
                Stage::Unconfirmed => {
                    known.call = record.call;
                    let socket = known.socket;
                    self.listens_at(&socket);
                    self.confirm(acts, name);
                }
                // Closed by another thread before the call came back.
                Stage::Withdrawn => {
                    (known.call, known.stage) = (record.call, Stage::Listening);
                    known.tell_listen(acts);
                    self.ends_unseen(acts, name, time);
                }
                // It was told; perhaps before it was known where it listens.
                _ => self.listeners.add(&known.socket),
            }
        } else if !self.failures.pop(&name).is_some_and(|told| told.pid == pid && told.errno.is_none()) {
            self.make_way(acts, name, time);
            self.begins_to_listen(acts, record, actor, Stage::Listening);
        }
    }

    /// The call came back with an error. What listens all the same had been told to before.
    fn refused_to_listen(&mut self, acts: &mut Acts<P>, record: &SocketCall, actor: Arc<Actor<P>>) {
        let name = record.socket.socket;
        if self.table.get(&name).is_some_and(|known| known.stage == Stage::Withdrawn) {
            self.remove(name);
        }
        self.failures.pop(&name);
        let body = NetworkActivity {
            error: acts.error(record.errno),
            call: acts.call(record.call),
            backlog: record.value,
            ..describe::listener(&record.socket)
        };
        acts.tell("network.listen", record.header.time, Who::Known(actor), "acted", body);
    }

    /// Takes a listener in, and tells of it unless its call is to tell more.
    fn begins_to_listen(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketCall,
        actor: Arc<Actor<P>>,
        stage: Stage,
    ) {
        let (name, time, pid) = (record.socket.socket, record.header.time, actor.info.task.pid);
        let id = acts.name(name, time);
        let mut new = Connection::new(&record.socket, id, stage, time, Who::Known(actor));
        (new.made, new.call, new.backlog) = (Some(time), record.call, record.value);
        match self.insert(acts, new) {
            Ok(()) if stage == Stage::Listening => self.table[&name].tell_listen(acts),
            Ok(()) => {}
            Err(mut new) => {
                acts.lose("table_full");
                new.id = 0;
                new.tell_listen(acts);
                if stage == Stage::Unconfirmed {
                    self.failures.put(name, Failure { pid, errno: None });
                }
            }
        }
    }

    /// A process took a connection.
    pub(in crate::network) fn accepts(
        &mut self,
        acts: &mut Acts<P>,
        record: &SocketCall,
        actor: Arc<Actor<P>>,
    ) {
        let (name, time) = (record.socket.socket, record.header.time);
        let Some(actor) = self.claims(record, actor) else { return };
        match self.table.get_mut(&name) {
            Some(known) if known.stage == Stage::Waiting => {
                known.refresh(&record.socket);
                (known.who, known.call, known.begun) = (Who::Known(actor), record.call, time);
                self.opens(acts, name, time);
            }
            Some(known) if known.stage == Stage::Open && known.attribution == Attribution::Listener => {
                // It was told as taken by the listener, or counted for it.
                (known.who, known.attribution) = (Who::Known(actor), Attribution::Opener);
                known.refresh(&record.socket);
                (known.call, known.begun) = (record.call, time);
                if let Some(key) = known.held.take() {
                    self.fold.release(key, name);
                    self.opens(acts, name, time);
                } else {
                    known.tell_accept(acts);
                }
            }
            // Only what has ended has no port any more.
            None if record.socket.local_port == 0 && self.told.pop(&name).is_some() => {}
            _ => {
                self.make_way(acts, name, time);
                let id = acts.name(name, time);
                let mut new = Connection::new(&record.socket, id, Stage::Open, time, Who::Known(actor));
                (new.made, new.direction, new.call) = (Some(time), Some(Direction::Inbound), record.call);
                match self.insert(acts, new) {
                    Ok(()) => self.opens(acts, name, time),
                    Err(mut new) => {
                        acts.lose("table_full");
                        new.id = 0;
                        new.tell_accept(acts);
                    }
                }
            }
        }
    }

    /// A call from before the time at which its socket was found open tells who made it, and nothing new: `None`
    /// then, else the actor again.
    fn claims(&mut self, record: &SocketCall, actor: Arc<Actor<P>>) -> Option<Arc<Actor<P>>> {
        let older = |known: &&mut Box<Connection<P>>| known.is_older(record.header.time);
        let Some(known) = self.table.get_mut(&record.socket.socket).filter(older) else { return Some(actor) };
        (known.who, known.attribution) = (Who::Known(actor), Attribution::Opener);
        None
    }
}
