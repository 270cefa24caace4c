//! Connections of agents, as long as they last.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::{AdmissionError, Agent, Registry, shortened};
use crate::{hour::now, locks};

/// What a connection is for. An agent has one of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Events come by it.
    Publishing,
    /// The agent is steered by it.
    Control,
}

/// Why a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The agent was shut out.
    #[error("the agent was revoked; enrol it again if it is to come back")]
    Revoked,
    /// The agent has another one.
    #[error(
        "a later connection of this agent took the place of this one; where the agent did not make it, two hosts have \
         the same certificate, and one is to be enrolled again"
    )]
    Replaced,
}

/// All connections.
#[derive(Default)]
pub struct Sessions(Mutex<Open>);

#[derive(Default)]
struct Open {
    last_number: u64,
    sessions: BTreeMap<(String, Kind), Entry>,
}

/// A number that tells it from the one before, and what says that it is to end.
type Entry = (u64, watch::Sender<Option<End>>);

/// An agent that is connected, until this is dropped.
pub struct Session {
    registry: Arc<Registry>,
    agent: String,
    kind: Kind,
    number: u64,
    end: watch::Receiver<Option<End>>,
}

// === impl Sessions ===

impl Sessions {
    fn begin(&self, agent: &str, kind: Kind) -> (u64, watch::Receiver<Option<End>>) {
        let mut open = locks::lock(&self.0);
        open.last_number += 1;
        let number = open.last_number;
        let (sender, end) = watch::channel(None);
        if let Some((_, before)) = open.sessions.insert((agent.to_owned(), kind), (number, sender)) {
            before.send_replace(Some(End::Replaced));
        }
        (number, end)
    }

    /// Ends what an agent has open.
    pub fn end(&self, agent: &str, end: End) {
        let open = locks::lock(&self.0);
        for kind in [Kind::Publishing, Kind::Control] {
            if let Some((_, session)) = open.sessions.get(&(agent.to_owned(), kind)) {
                session.send_replace(Some(end));
            }
        }
    }

    /// Whether an agent has anything open.
    pub fn is_connected(&self, agent: &str) -> bool {
        let open = locks::lock(&self.0);
        [Kind::Publishing, Kind::Control]
            .into_iter()
            .any(|kind| open.sessions.contains_key(&(agent.to_owned(), kind)))
    }

    /// How many agents publish.
    pub fn publishing(&self) -> usize {
        locks::lock(&self.0).sessions.keys().filter(|(_, kind)| *kind == Kind::Publishing).count()
    }
}

// === impl Registry ===

impl Registry {
    /// Begins a session of an agent; one of the same kind that it has ends. Where `anybody` is set it need not be
    /// enrolled, but not be revoked either.
    ///
    /// # Errors
    /// When it may not connect.
    pub fn admit(
        self: &Arc<Self>,
        id: &str,
        host: &str,
        version: &str,
        anybody: bool,
        kind: Kind,
    ) -> Result<Session, AdmissionError> {
        let mut agents = locks::write(&self.agents);
        let agent = match agents.get_mut(id) {
            Some(agent) if agent.revoked > 0 => return Err(AdmissionError::Revoked(id.to_owned())),
            Some(agent) => agent,
            None if anybody => {
                agents.entry(id.to_owned()).or_insert(Agent { enrolled: now(), ..Agent::default() })
            }
            None => return Err(AdmissionError::Unknown(id.to_owned())),
        };
        // Written with the next flush: a thousand agents that come at once do not wait for the disk.
        (agent.host, agent.version, agent.last_seen) = (shortened(host), shortened(version), now());
        // Under the lock: a revocation comes before, and is seen above, or after, and ends it.
        let (number, end) = self.sessions.begin(id, kind);
        drop(agents);
        Ok(Session { registry: Arc::clone(self), agent: id.to_owned(), kind, number, end })
    }
}

// === impl Session ===

impl Session {
    /// The agent's name.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// Comes back when it is to end.
    pub async fn ended(&self) -> End {
        match self.end.clone().wait_for(Option::is_some).await.map(|end| *end) {
            Ok(Some(end)) => end,
            _ => std::future::pending().await,
        }
    }

    /// Takes note of what the agent sent.
    pub fn note(&self, change: impl FnOnce(&mut Agent)) {
        if let Some(agent) = locks::write(&self.registry.agents).get_mut(&self.agent) {
            agent.last_seen = now();
            change(agent);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut open = locks::lock(&self.registry.sessions.0);
        let key = (std::mem::take(&mut self.agent), self.kind);
        if open.sessions.get(&key).is_some_and(|(number, _)| *number == self.number) {
            open.sessions.remove(&key);
        }
    }
}
