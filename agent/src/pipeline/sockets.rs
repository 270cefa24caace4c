//! From what is known of sockets to events.

use std::{collections::BTreeMap, sync::Arc};

use aya::maps::MapError;
use nightjar_abi::{
    network::{Flow, FlowKey},
    record::{SocketState, TaskInfo, socket_flags},
};
use nightjar_proto::v1::{self, event::Body};

use super::{Discard, Pipeline, Sink, clock::since_boot, errno_name, event::hex};
use crate::{
    decode::{Record, SocketCallRecord, decode, split},
    kernel::{NetworkControls, socket_call_name},
    network::{Act, Actor, Counts, Known, Monitor, Options, Who, Words},
    process::Process,
};

/// How often what is known of sockets is looked through, in nanoseconds.
const TICK: u64 = 100_000_000;

/// What is known of sockets, and what the kernel counts of them.
pub(super) struct Sockets {
    monitor: Monitor<Process>,
    controls: NetworkControls,
    actors: Actors,
    /// When that was last looked through, nanoseconds since boot.
    looked: u64,
}

/// Those who acted last: a process that opens a thousand sockets is taken down once.
struct Actors([Option<Arc<Actor<Process>>>; 64]);

impl Default for Actors {
    fn default() -> Self {
        Self([const { None }; 64])
    }
}

impl Actors {
    /// A process as it is now.
    fn of(&mut self, info: &TaskInfo, process: &Process) -> Arc<Actor<Process>> {
        let place = &mut self.0[info.task.tid as usize % self.0.len()];
        if let Some(actor) = place
            && actor.info == *info
            && Arc::ptr_eq(&actor.process.image, &process.image)
        {
            return Arc::clone(actor);
        }
        Arc::clone(place.insert(Arc::new(Actor { info: *info, process: process.clone() })))
    }
}

impl Sockets {
    pub(super) fn lost(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
        self.monitor.lost()
    }
}

impl Counts for NetworkControls {
    fn read(&mut self, key: &FlowKey) -> Option<Flow> {
        self.flow(key)
    }

    fn take(&mut self, key: &FlowKey) -> Option<Flow> {
        let flow = self.flow(key)?;
        self.forget(key);
        Some(flow)
    }
}

impl Pipeline {
    /// Watches sockets from now on; those that are there were `found`.
    pub fn watch_sockets(&mut self, options: Options, controls: NetworkControls, found: &[u8]) {
        let words = Words { error: errno_name, call: socket_call_name };
        let identity = self.identity;
        let name = move |socket, time| identity.socket(socket, time);
        let monitor = Monitor::new(options, words, name);
        let mut sockets = Sockets { monitor, controls, actors: Actors::default(), looked: 0 };
        for record in split(found) {
            match record.and_then(decode) {
                Ok(Record::SocketState(record)) => {
                    // One that ended since it was found is known by the end of its sockets.
                    if let Some(process) = self.table.found(&record.task, record.header.time) {
                        let actor = sockets.actors.of(&process.info, process);
                        sockets.monitor.found(&record, actor);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::error!("a socket that was there could not be decoded: {error}"),
            }
        }
        sockets.monitor.snapshot_ends(since_boot());
        self.sockets = Some(sockets);
    }

    /// Watches them in another way.
    ///
    /// # Errors
    /// When the kernel takes no other unix sockets.
    pub fn change_sockets(&mut self, options: Options, unix: &[String]) -> Result<(), MapError> {
        let Some(sockets) = &mut self.sockets else { return Ok(()) };
        sockets.monitor.configure(options);
        sockets.controls.watch_unix(unix.iter().map(String::as_str))
    }

    /// How many sockets are known, if they are watched.
    #[must_use]
    pub fn sockets_known(&self) -> Option<Known> {
        self.sockets.as_ref().map(|sockets| sockets.monitor.known())
    }

    /// Tells what comes of sockets by the time that passes. All records until `drained`, in nanoseconds since boot, have
    /// been here.
    pub fn notice_sockets(&mut self, drained: u64, sink: &mut impl Sink) {
        let Some(Sockets { monitor, controls, looked, .. }) = &mut self.sockets else { return };
        if drained >= *looked + TICK {
            *looked = drained;
            monitor.tick(drained, controls);
        }
        self.tell_of_sockets(sink);
    }

    /// Tells all that is left to tell of sockets: no more records will come.
    pub fn finish_sockets(&mut self, sink: &mut impl Sink) {
        let Some(Sockets { monitor, controls, .. }) = &mut self.sockets else { return };
        monitor.finish(since_boot(), controls);
        self.tell_of_sockets(sink);
    }

    pub(super) fn socket_called(&mut self, record: &SocketCallRecord<'_>) -> Discard {
        let Some(sockets) = &mut self.sockets else { return Discard::NotAsked };
        let (info, now) = (record.body.info, record.body.header.time);
        let process = self.table.act(&info, now);
        let actor = sockets.actors.of(&info, process);
        sockets.monitor.called(&record.body, record.path.bytes, actor);
        Discard::Gathered
    }

    pub(super) fn socket_changed(&mut self, record: &SocketState) -> Discard {
        let Some(sockets) = &mut self.sockets else { return Discard::NotAsked };
        // Who ends a connection may be gone before the connection is.
        let actor = (record.flags & socket_flags::ACTED != 0)
            .then(|| self.table.get(&record.task))
            .flatten()
            .map(|process| {
                let mut info = process.info;
                info.task.tid = record.task.tid;
                sockets.actors.of(&info, process)
            });
        sockets.monitor.changed(record, actor);
        Discard::Gathered
    }

    /// Hands on what was made of records by now.
    pub(super) fn tell_of_sockets(&mut self, sink: &mut impl Sink) {
        let Some(sockets) = &mut self.sockets else { return };
        for act in sockets.monitor.take_acts() {
            self.stats.received += 1;
            self.stats.noticed += 1;
            match self.socket_event(act).and_then(|(kind, event)| sink.event(&event).map(|()| kind)) {
                Ok(kind) => *self.stats.exported.entry(kind).or_default() += 1,
                Err(reason) => self.discard(reason),
            }
        }
    }

    fn socket_event(&mut self, act: Act<Process>) -> Result<(&'static str, v1::Event), Discard> {
        let Act { kind, time, who, opener, first, last, mut body } = act;
        body.first_time = first.map(|first| self.clock.wall(first));
        body.last_time = last.map(|last| self.clock.wall(last));
        body.opener = opener.map(|opener| self.opener(&opener));
        match who {
            Who::Known(actor) => self.make(kind, time, &actor.info, &actor.process, |_| Body::Network(body)),
            Who::Task(task) => {
                let Some(process) = self.table.get(&task).cloned() else {
                    body.attribution.clear();
                    return self.of_nobody(kind, time, body);
                };
                let mut info = process.info;
                info.task.tid = task.tid;
                self.make(kind, time, &info, &process, |_| Body::Network(body))
            }
            Who::Nobody => self.of_nobody(kind, time, body),
        }
    }

    fn of_nobody(
        &mut self,
        kind: &'static str,
        time: u64,
        body: v1::NetworkActivity,
    ) -> Result<(&'static str, v1::Event), Discard> {
        if !self.asked.kinds.include(kind) {
            return Err(Discard::NotAsked);
        }
        Ok((kind, self.finish(kind, time, None, None, Body::Network(body))))
    }

    fn opener(&self, opener: &Actor<Process>) -> v1::NetworkOpener {
        v1::NetworkOpener {
            id: hex(self.identity.process(&opener.info.task)),
            exec_id: hex(self.identity.image(&opener.info.task)),
            pid: opener.info.task.pid,
            comm: opener.process.comm.clone(),
            exe: opener.process.image.exe.as_ref().map_or_else(String::new, |exe| exe.path.clone()),
        }
    }
}
