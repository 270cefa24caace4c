//! The program under test as a service: with outputs of its own choice, and a manager that it tells how it is.

use std::{
    ops::Deref,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    process::{Command, Output},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    agent::{instance, nightjar, status_of},
    session::Session,
};

/// How long the agent may take for whatever it does, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// `nightjar run`, as systemd starts it.
#[derive(Debug)]
pub struct Service {
    instance: String,
    session: Session,
    manager: UnixDatagram,
}

/// How a service ended.
#[derive(Debug)]
pub struct ServiceEnd {
    /// How, and what it said.
    pub output: Output,
    /// From the signal to the end.
    pub took: Duration,
}

/// What a hook counted, in a status: `seen`, `filtered` and so on.
pub fn hook_count(status: &Value, hook: &str, what: &str) -> u64 {
    entry(&status["hooks"], "hook", hook)[what].as_u64().unwrap_or(0)
}

/// Records that made no event, in a status, for this reason.
pub fn discarded(status: &Value, reason: &str) -> u64 {
    entry(&status["flow"]["discarded"], "reason", reason)["count"].as_u64().unwrap_or(0)
}

/// The object of a list that has this name; null where there is none.
fn entry<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|entry| entry[key] == name));
    found.unwrap_or(&Value::Null)
}

// === impl Service ===

impl Service {
    /// Starts `nightjar run` with more arguments and a name that no other has; comes back when it
    /// says that it watches.
    pub fn start(args: &[&str]) -> Self {
        Self::named(&instance(), args)
    }

    /// As [`start`](Self::start), with a name.
    pub fn named(instance: &str, args: &[&str]) -> Self {
        Self::of(nightjar(["run", "--instance", instance].iter().chain(args)), instance)
    }

    /// Starts a command that is, or becomes, an agent of this name; comes back when that says that it watches.
    pub fn of(command: Command, instance: &str) -> Self {
        Self::with(command, instance, Session::start)
    }

    /// As [`of`](Self::of), but nobody reads its standard output for now.
    pub fn unread(command: Command, instance: &str) -> Self {
        Self::with(command, instance, Session::start_unread)
    }

    fn with(mut command: Command, instance: &str, start: impl FnOnce(Command) -> Session) -> Self {
        // Without a path, so that it can be reached from any mount namespace and by any user.
        let name = format!("nightjar-manager-{instance}");
        let address = SocketAddr::from_abstract_name(&name).expect("a short name");
        let manager = UnixDatagram::bind_addr(&address).expect("a name that nobody has");
        command.env("NOTIFY_SOCKET", format!("@{name}"));
        let service = Self { instance: instance.to_owned(), session: start(command), manager };
        let first = service.message();
        assert!(first.starts_with("READY=1\n"), "{first:?} comes before READY=1");
        service
    }

    /// Name of the agent.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// What it says of itself now.
    pub fn status(&self) -> Value {
        status_of(&self.instance)
    }

    /// The next that it tells its manager.
    pub fn message(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut bytes = [0; 4096];
        self.manager.set_read_timeout(Some(Duration::from_millis(200))).expect("not zero");
        loop {
            if let Ok(length) = self.manager.recv(&mut bytes) {
                return String::from_utf8(bytes[..length].to_vec()).expect("text");
            }
            let goes_on = Instant::now() < deadline && !self.session.has_ended();
            assert!(goes_on, "it told its manager nothing more; it said: {}", self.session.complaints());
        }
    }

    /// The next that it tells its manager and that begins with this.
    pub fn await_message(&self, begin: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let message = self.message();
            if message.starts_with(begin) {
                return message;
            }
            assert!(Instant::now() < deadline, "no {begin} within {PATIENCE:?}");
        }
    }

    /// What it has told its manager and nobody has taken yet.
    pub fn messages(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        self.manager.set_nonblocking(true).expect("a socket");
        let next = || self.manager.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec());
        let all = std::iter::from_fn(next).map(|bytes| String::from_utf8(bytes).expect("text")).collect();
        self.manager.set_nonblocking(false).expect("a socket");
        all
    }

    /// Ends it by a signal. What was not read of its standard output is not read before its end.
    pub fn end(self, signal: Signal) -> ServiceEnd {
        let start = Instant::now();
        self.session.signal(signal);
        assert!(self.session.ends(), "it does not end: {}", self.session.complaints());
        let took = start.elapsed();
        ServiceEnd { output: self.session.finish(), took }
    }

    /// Ends it by a signal that is a reason to end well.
    pub fn end_well(self, signal: Signal) -> ServiceEnd {
        let end = self.end(signal);
        assert!(end.output.status.success(), "{:?}: {}", end.output.status, end.complaints());
        assert!(!end.complaints().contains("defect"), "{}", end.complaints());
        end
    }
}

impl Deref for Service {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

// === impl ServiceEnd ===

impl ServiceEnd {
    /// All of its standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }
}
