//! Who may publish: agents, and the tokens by which they become such.
//!
//! Kept in `DIR/registry.redb`. What changes with every batch (last seen, lag) is kept in memory and written now and
//! then; what is about access is durable before anybody hears of it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::{
    hour::{nanoseconds, now},
    locks,
};

/// ID to [`Agent`], in JSON.
const AGENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("agents");
/// Hash to the end of its time, in nanoseconds since 1970. The token itself is nowhere.
const TOKENS: TableDefinition<&str, u64> = TableDefinition::new("tokens");

/// What is known of an agent. Times are in nanoseconds since 1970, 0 where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Name of its host.
    pub host: String,
    /// Its version.
    pub version: String,
    /// When it was let in for the first time.
    pub enrolled: u64,
    /// When it last sent something.
    pub last_seen: u64,
    /// When it was shut out.
    pub revoked: u64,
    /// From the last event of its last batch to the arrival of that, in nanoseconds.
    pub lag: u64,
    /// Sensors of its host that a hook serves.
    pub sensors_served: u32,
    /// All sensors that it has.
    pub sensors: u32,
}

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}; the registry must be readable and writable, and used by one process", path = .path.display())]
pub struct RegistryError {
    path: PathBuf,
    error: redb::Error,
}

/// Why a token does not let an agent in.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There is none, or it was used.
    #[error("the token is not valid: it was used, or never given out; make one by nightjar-backend token")]
    Unknown,
    /// Its time is over.
    #[error("the token has expired; make one by nightjar-backend token")]
    Expired,
    /// It could not be looked up.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Why an agent may not publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdmissionError {
    /// It was not enrolled.
    #[error("agent {0:?} is not enrolled; enrol it with a token")]
    Unknown(String),
    /// It was shut out.
    #[error("agent {0:?} was revoked; enrol it again if it is to come back")]
    Revoked(String),
    /// It cannot be written down.
    #[error("{0}")]
    Registry(String),
}

/// See the head of this module.
pub struct Registry {
    path: PathBuf,
    database: Database,
    agents: RwLock<BTreeMap<String, Agent>>,
    sessions: Mutex<BTreeMap<String, usize>>,
    /// Raised when somebody is revoked.
    revocations: watch::Sender<u64>,
}

/// An agent that is connected, until this is dropped.
pub struct Session {
    registry: Arc<Registry>,
    agent: String,
    revocations: watch::Receiver<u64>,
}

/// So many random bytes, in hex.
///
/// # Panics
/// If the kernel gives no random numbers.
#[must_use]
pub fn random<const N: usize>() -> String {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel has random numbers");
    hex(&bytes)
}

/// In two digits a byte.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text takes anything");
        text
    })
}

fn hash(token: &str) -> String {
    hex(digest::digest(&digest::SHA256, token.trim().as_bytes()).as_ref())
}

// === impl Registry ===

impl Registry {
    /// Opens the registry of a data directory, or makes it.
    ///
    /// # Errors
    /// When another process has it, or the file is damaged.
    pub fn open(dir: &Path) -> Result<Self, RegistryError> {
        let path = dir.join("registry.redb");
        let opened = Database::create(&path).map_err(redb::Error::from).and_then(|database| {
            let transaction = database.begin_write()?;
            transaction.open_table(TOKENS)?;
            let agents = all(&transaction.open_table(AGENTS)?)?;
            transaction.commit()?;
            Ok((database, agents))
        });
        let (database, agents) = opened.map_err(|error| RegistryError { path: path.clone(), error })?;
        let (sessions, revocations) = (Mutex::default(), watch::Sender::new(0));
        Ok(Self { path, database, agents: RwLock::new(agents), sessions, revocations })
    }

    /// A new token and when it ends, in nanoseconds since 1970. It is good for one agent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create_token(&self, valid: Duration) -> Result<(String, u64), RegistryError> {
        let token = random::<32>();
        let now = now();
        let expires = now.saturating_add(nanoseconds(valid));
        self.write(|transaction| {
            let mut tokens = transaction.open_table(TOKENS)?;
            tokens.retain(|_, expires| expires > now)?;
            tokens.insert(hash(&token).as_str(), expires)?;
            Ok(())
        })?;
        Ok((token, expires))
    }

    /// Lets an agent in for a token, which is used up by that. Gives its name.
    ///
    /// # Errors
    /// When the token is not valid.
    pub fn enrol(&self, token: &str, host: &str, version: &str) -> Result<String, TokenError> {
        let (id, now) = (random::<16>(), now());
        let agent =
            Agent { host: host.to_owned(), version: version.to_owned(), enrolled: now, ..Agent::default() };
        let expires = self.write(|transaction| {
            let expires =
                transaction.open_table(TOKENS)?.remove(hash(token).as_str())?.map(|value| value.value());
            if expires.is_some_and(|expires| expires > now) {
                put(transaction, &id, &agent)?;
            }
            Ok(expires)
        })?;
        match expires {
            None => Err(TokenError::Unknown),
            Some(expires) if expires <= now => Err(TokenError::Expired),
            Some(_) => {
                locks::write(&self.agents).insert(id.clone(), agent);
                Ok(id)
            }
        }
    }

    /// Begins a session of an agent. Where `anybody` is set it need not be enrolled, but not be revoked either.
    ///
    /// # Errors
    /// When it may not publish.
    pub fn admit(
        self: &Arc<Self>,
        id: &str,
        host: &str,
        version: &str,
        anybody: bool,
    ) -> Result<Session, AdmissionError> {
        // Taken first: a revocation from here on is noticed.
        let revocations = self.revocations.subscribe();
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
        (agent.host, agent.version, agent.last_seen) = (host.to_owned(), version.to_owned(), now());
        drop(agents);
        *locks::lock(&self.sessions).entry(id.to_owned()).or_default() += 1;
        Ok(Session { registry: Arc::clone(self), agent: id.to_owned(), revocations })
    }

    /// Shuts an agent out, now and until it is enrolled again under another name.
    ///
    /// # Errors
    /// When there is no such agent, or it cannot be written.
    pub fn revoke(&self, id: &str) -> Result<(), AdmissionError> {
        let mut agents = locks::write(&self.agents);
        let agent = agents.get_mut(id).ok_or_else(|| AdmissionError::Unknown(id.to_owned()))?;
        let revoked = Agent { revoked: now(), ..agent.clone() };
        let written = self.write(|transaction| put(transaction, id, &revoked));
        written.map_err(|error| AdmissionError::Registry(error.to_string()))?;
        *agent = revoked;
        drop(agents);
        self.revocations.send_modify(|number| *number += 1);
        Ok(())
    }

    /// All agents, and whether each is connected.
    #[must_use]
    pub fn agents(&self) -> Vec<(String, Agent, bool)> {
        let sessions = locks::lock(&self.sessions).clone();
        let agents = locks::read(&self.agents);
        agents.iter().map(|(id, agent)| (id.clone(), agent.clone(), sessions.contains_key(id))).collect()
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        locks::lock(&self.sessions).values().sum()
    }

    /// Writes what was only in memory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&self) -> Result<(), RegistryError> {
        let agents = locks::read(&self.agents);
        self.write(|transaction| agents.iter().try_for_each(|(id, agent)| put(transaction, id, agent)))
    }

    fn is_revoked(&self, id: &str) -> bool {
        locks::read(&self.agents).get(id).is_none_or(|agent| agent.revoked > 0)
    }

    fn write<T>(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, RegistryError> {
        let written = || {
            let transaction = self.database.begin_write()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        written().map_err(|error| RegistryError { path: self.path.clone(), error })
    }

    /// Whether the file can be read.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.database.begin_read().is_ok()
    }
}

fn put(transaction: &redb::WriteTransaction, id: &str, agent: &Agent) -> Result<(), redb::Error> {
    let json = serde_json::to_vec(agent).expect("an agent has a JSON form");
    transaction.open_table(AGENTS)?.insert(id, json.as_slice())?;
    Ok(())
}

fn all<T: DeserializeOwned + Default>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<BTreeMap<String, T>, redb::Error> {
    let entry = |entry: Result<(redb::AccessGuard<&str>, redb::AccessGuard<&[u8]>), redb::StorageError>| {
        let (id, json) = entry?;
        // What a newer version wrote in a way that this one cannot read is as good as nothing.
        Ok((id.value().to_owned(), serde_json::from_slice(json.value()).unwrap_or_default()))
    };
    table.iter()?.map(entry).collect()
}

// === impl Session ===

impl Session {
    /// The agent's name.
    #[must_use]
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// Comes back when the agent is revoked.
    pub async fn revoked(&mut self) {
        while !self.registry.is_revoked(&self.agent) {
            if self.revocations.changed().await.is_err() {
                return std::future::pending().await;
            }
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
        let mut sessions = locks::lock(&self.registry.sessions);
        if let Some(number) = sessions.get_mut(&self.agent) {
            *number -= 1;
            if *number == 0 {
                sessions.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> (tempfile::TempDir, Arc<Registry>) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(dir.path()).unwrap());
        (dir, registry)
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_token_lets_one_agent_in_once() {
        let (dir, registry) = registry();
        let (token, _) = registry.create_token(HOUR).unwrap();
        let id = registry.enrol(&token, "web-1", "0.1.0").unwrap();
        assert!(matches!(registry.enrol(&token, "web-1", "0.1.0"), Err(TokenError::Unknown)));
        drop(registry);
        let registry = Arc::new(Registry::open(dir.path()).unwrap());
        assert!(matches!(registry.enrol(&token, "web-1", "0.1.0"), Err(TokenError::Unknown)));
        assert!(registry.admit(&id, "web-1", "0.1.0", false).is_ok());
    }

    #[test]
    fn an_expired_token_lets_nobody_in() {
        let (_dir, registry) = registry();
        let (token, _) = registry.create_token(Duration::ZERO).unwrap();
        assert!(matches!(registry.enrol(&token, "web-1", "0.1.0"), Err(TokenError::Expired)));
        assert_eq!(registry.agents(), []);
    }

    #[test]
    fn the_token_itself_is_not_on_the_disk() {
        let (dir, registry) = registry();
        let (token, _) = registry.create_token(HOUR).unwrap();
        drop(registry);
        let file = std::fs::read(dir.path().join("registry.redb")).unwrap();
        assert!(!file.windows(token.len()).any(|bytes| bytes == token.as_bytes()));
    }

    #[tokio::test]
    async fn a_revoked_agent_is_out_at_once_and_after_a_restart() {
        let (dir, registry) = registry();
        let (token, _) = registry.create_token(HOUR).unwrap();
        let id = registry.enrol(&token, "web-1", "0.1.0").unwrap();
        let mut session = registry.admit(&id, "web-1", "0.1.0", false).unwrap();
        registry.revoke(&id).unwrap();
        tokio::time::timeout(Duration::from_secs(1), session.revoked()).await.unwrap();
        let refused = Some(AdmissionError::Revoked(id.clone()));
        assert_eq!(registry.admit(&id, "web-1", "0.1.0", true).err(), refused);
        drop((session, registry));
        let registry = Arc::new(Registry::open(dir.path()).unwrap());
        assert_eq!(registry.admit(&id, "web-1", "0.1.0", true).err(), refused);
    }

    #[test]
    fn who_is_not_enrolled_is_let_in_only_where_anybody_is() {
        let (_dir, registry) = registry();
        assert_eq!(registry.admit("x", "h", "1", false).err(), Some(AdmissionError::Unknown("x".to_owned())));
        let session = registry.admit("x", "h", "1", true).unwrap();
        assert_eq!((registry.agents()[0].2, registry.sessions()), (true, 1));
        drop(session);
        assert_eq!((registry.agents()[0].2, registry.sessions()), (false, 0));
    }
}
