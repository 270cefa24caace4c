//! What is told, and of whom.

use std::{collections::BTreeMap, fmt, mem, sync::Arc};

use nightjar_abi::{
    network::Flow,
    record::{TaskInfo, TaskRef, socket_call},
};
use nightjar_proto::v1::NetworkActivity;

/// A process as it was when it acted: shared by all that it did.
#[derive(Debug)]
pub struct Actor<P> {
    /// What the record said of it.
    pub info: TaskInfo,
    /// What was known of it then.
    pub process: P,
}

/// Who did something.
#[derive(Debug)]
pub enum Who<P> {
    /// A process that was taken down when it acted.
    Known(Arc<Actor<P>>),
    /// A task that a record names and says no more of.
    Task(TaskRef),
    /// Nobody in particular, or nobody knows.
    Nobody,
}

/// An event.
#[derive(Debug)]
pub struct Act<P> {
    /// Its kind: `network.connect` and its kin.
    pub kind: &'static str,
    /// When, nanoseconds since boot.
    pub time: u64,
    /// Who.
    pub who: Who<P>,
    /// Who opened the socket, where that is another program than `who`.
    pub opener: Option<Arc<Actor<P>>>,
    /// When the first of those that it counts began, nanoseconds since boot: of `network.flow` only.
    pub first: Option<u64>,
    /// When the last of those that it counts ended, likewise.
    pub last: Option<u64>,
    /// What.
    pub body: NetworkActivity,
}

/// Words for numbers that other parts of the agent know too.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Name of an error: `ECONNREFUSED`, or the number.
    pub error: fn(u32) -> String,
    /// Name of a system call, as the machine counts.
    pub call: fn(u32) -> Option<&'static str>,
}

/// A process image: what has another one of these is another program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Program {
    pid: u32,
    start: u64,
    exec_id: u64,
}

/// Why the process of a connection is the one that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attribution {
    /// It connected, accepted or first used the socket.
    Opener,
    /// It listens where the connection came in.
    Listener,
    /// It had the socket open when the agent started.
    Owner,
}

/// What went both ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) sent: Flow,
    /// `None` where only what is sent is counted.
    pub(super) received: Option<Flow>,
}

/// The events made so far, with what making one takes.
pub(super) struct Acts<P> {
    made: Vec<Act<P>>,
    lost: BTreeMap<(&'static str, &'static str), u64>,
    words: Words,
    name: Box<dyn Fn(u64, u64) -> u64 + Send>,
}

// === impl Who ===

impl<P> Clone for Who<P> {
    fn clone(&self) -> Self {
        match self {
            Self::Known(actor) => Self::Known(Arc::clone(actor)),
            Self::Task(task) => Self::Task(*task),
            Self::Nobody => Self::Nobody,
        }
    }
}

impl<P> Who<P> {
    /// The program, if there is somebody.
    pub(super) fn program(&self) -> Option<Program> {
        self.task().map(Program::from)
    }

    /// The task, if there is somebody.
    pub(super) fn task(&self) -> Option<&TaskRef> {
        match self {
            Self::Known(actor) => Some(&actor.info.task),
            Self::Task(task) => Some(task),
            Self::Nobody => None,
        }
    }

    /// The process, where it was taken down.
    pub(super) fn actor(&self) -> Option<&Arc<Actor<P>>> {
        match self {
            Self::Known(actor) => Some(actor),
            Self::Task(_) | Self::Nobody => None,
        }
    }

    /// Who acted on what this one opened, and this one's process where that is another program. Of the same program
    /// what was taken down first is kept.
    pub(super) fn or_acted(&self, acted: Self) -> (Self, Option<Arc<Actor<P>>>) {
        match self.actor() {
            Some(_) if self.program() == acted.program() => (self.clone(), None),
            Some(actor) => (acted, Some(Arc::clone(actor))),
            None => (acted, None),
        }
    }
}

// === impl Program ===

impl From<&TaskRef> for Program {
    fn from(task: &TaskRef) -> Self {
        Self { pid: task.pid, start: task.start, exec_id: task.exec_id }
    }
}

// === impl Attribution ===

impl Attribution {
    /// The word for what the process did itself, if it was seen to do something.
    pub(super) const fn of_deed(self) -> &'static str {
        match self {
            Self::Opener => "acted",
            Self::Listener | Self::Owner => self.of_bystander(),
        }
    }

    /// The word for what the kernel or the other side did.
    pub(super) const fn of_bystander(self) -> &'static str {
        match self {
            Self::Opener => "opener",
            Self::Listener => "listener",
            Self::Owner => "owner",
        }
    }
}

// === impl Traffic ===

impl Traffic {
    /// Adds what went over another connection.
    pub(super) fn add(&mut self, other: &Self) {
        add(&mut self.sent, &other.sent);
        if let Some(received) = &other.received {
            add(self.received.get_or_insert_default(), received);
        }
    }

    /// Puts this in an event.
    pub(super) fn tell(&self, body: &mut NetworkActivity) {
        body.bytes_sent = Some(self.sent.bytes);
        body.bytes_received = self.received.map(|received| received.bytes);
        body.packets_sent = Some(self.sent.packets);
        body.packets_received = self.received.map(|received| received.packets);
    }
}

/// Adds what went the same way.
pub(super) fn add(sum: &mut Flow, other: &Flow) {
    sum.packets = sum.packets.saturating_add(other.packets);
    sum.bytes = sum.bytes.saturating_add(other.bytes);
}

// === impl Acts ===

impl<P> Acts<P> {
    pub(super) fn new(words: Words, name: impl Fn(u64, u64) -> u64 + Send + 'static) -> Self {
        Self { made: Vec::new(), lost: BTreeMap::new(), words, name: Box::new(name) }
    }

    /// An event of one connection, socket or flow. `attribution` is left out where there is nobody.
    pub(super) fn tell(
        &mut self,
        kind: &'static str,
        time: u64,
        who: Who<P>,
        attribution: &'static str,
        body: NetworkActivity,
    ) -> &mut Act<P> {
        let attribution = if matches!(who, Who::Nobody) { "" } else { attribution };
        let body = NetworkActivity { attribution: attribution.to_owned(), ..body };
        self.made.push(Act { kind, time, who, opener: None, first: None, last: None, body });
        self.made.last_mut().expect("one was pushed just now")
    }

    /// The events made since the last time, in the order in which they are to be told.
    pub(super) fn take(&mut self) -> Vec<Act<P>> {
        mem::take(&mut self.made)
    }

    /// Name of a connection that began at `time`.
    pub(super) fn name(&self, socket: u64, time: u64) -> u64 {
        (self.name)(socket, time)
    }

    /// Name of an error; empty for none.
    pub(super) fn error(&self, number: u32) -> String {
        if number == 0 { String::new() } else { (self.words.error)(number) }
    }

    /// Name of the call that did something; empty where that is not known.
    pub(super) fn call(&self, number: u32) -> String {
        let name = match number {
            socket_call::UNKNOWN => None,
            socket_call::IO_URING => Some("io_uring"),
            number => (self.words.call)(number),
        };
        name.unwrap_or_default().to_owned()
    }

    /// Something could not be kept.
    pub(super) fn lose(&mut self, reason: &'static str) {
        *self.lost.entry(("network", reason)).or_default() += 1;
    }

    pub(super) fn lost(&self) -> &BTreeMap<(&'static str, &'static str), u64> {
        &self.lost
    }
}

impl<P> fmt::Debug for Acts<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acts")
            .field("made", &self.made.len())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}
