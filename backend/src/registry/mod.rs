//! Who may publish: agents, the tokens by which they become such, and the configuration that they are to have.
//!
//! Kept in `DIR/registry.redb`. What changes with every batch (last seen, lag) is kept in memory and written now and
//! then; what is about access or configuration is durable before anybody hears of it.

pub mod configuration;
mod session;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    future::pending,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use redb::{Database, ReadableTable, TableDefinition};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
pub use session::{End, Kind, Session};

use configuration::{Answer, Configurations};
use session::Sessions;

use crate::{
    hour::{nanoseconds, now},
    locks,
};

/// ID to [`Agent`], in JSON.
const AGENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("agents");
/// Hash to the end of its time, in nanoseconds since 1970. The token itself is nowhere.
const TOKENS: TableDefinition<&str, u64> = TableDefinition::new("tokens");

/// Most characters that are kept of a text that an agent chose.
const LONGEST_TEXT: usize = 1024;

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
    /// When its certificate ends, if this backend gave it one.
    pub certificate_ends: u64,
    /// Version of the configuration that it has from here; empty: its own files.
    pub configuration: String,
    /// What it last said to one.
    pub answer: Answer,
}

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "{path}: {error}; the registry must be readable and writable, whole, and used by one process. Put a damaged one back \
     from a copy, or move it away: then all agents must be enrolled again",
    path = .path.display()
)]
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
    #[error("agent {0:?} is not enrolled; enrol it with a token, by nightjar enrol")]
    Unknown(String),
    /// It was shut out.
    #[error("agent {0:?} was revoked; enrol it again if it is to come back")]
    Revoked(String),
    /// It cannot be written down.
    #[error("{0}")]
    Registry(String),
}

/// See the head of this module. What writes waits for the disk: on a runtime it is called by [`Registry::aside`].
pub struct Registry {
    path: PathBuf,
    database: Database,
    /// Held from when something is read to be changed until that is written and in memory, so that no change is undone by
    /// another. The locks of what is in memory are never held over a write: all that agents do needs them.
    writing: Mutex<()>,
    agents: RwLock<BTreeMap<String, Agent>>,
    sessions: Sessions,
    configurations: Configurations,
}

/// Why a name fits no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// There is none.
    #[error("there is no agent {0:?}; see nightjar-backend agents")]
    Nobody(String),
    /// There is more than one.
    #[error("{0:?} may be {1} agents; give more of the ID")]
    Many(String, usize),
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
            let configurations = Configurations::read(&transaction)?;
            transaction.commit()?;
            Ok((database, agents, configurations))
        });
        let (database, agents, configurations) =
            opened.map_err(|error| RegistryError { path: path.clone(), error })?;
        let (agents, sessions) = (RwLock::new(agents), Sessions::default());
        Ok(Self { path, database, writing: Mutex::default(), agents, sessions, configurations })
    }

    /// Does something that waits for the disk on a thread where nobody else waits.
    pub async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> T {
        let registry = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&registry)).await {
            Ok(value) => value,
            Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
            // The runtime ends, and with it who waits here.
            Err(_) => pending().await,
        }
    }

    /// A new secret for a token, and when it ends, in nanoseconds since 1970. It is good for one agent.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create_token(&self, valid: Duration) -> Result<(String, u64), RegistryError> {
        let token = random::<16>();
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

    /// Lets an agent in for a token, which is used up by that; of the token only the part before the dot counts. Gives
    /// the agent's name.
    ///
    /// # Errors
    /// When the token is not valid.
    pub fn enrol(&self, token: &str, host: &str, version: &str) -> Result<String, TokenError> {
        let token = token.split('.').next().unwrap_or_default();
        let (id, now) = (random::<16>(), now());
        let (host, version) = (shortened(host), shortened(version));
        let agent = Agent { host, version, enrolled: now, ..Agent::default() };
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

    /// Shuts an agent out, now and until it is enrolled again under another name. It is out at once, whatever the disk does.
    ///
    /// # Errors
    /// When there is no such agent. When it cannot be written: then it is out as long as this process runs, and
    /// [`flush`](Self::flush) tries to write it again.
    pub fn revoke(&self, id: &str) -> Result<(), AdmissionError> {
        let revoke = |agent: &mut Agent| {
            if agent.revoked == 0 {
                agent.revoked = now();
            }
            Ok(())
        };
        let unknown = || AdmissionError::Unknown(id.to_owned());
        locks::write(&self.agents).get_mut(id).ok_or_else(unknown).and_then(revoke)?;
        self.sessions.end(id, End::Revoked);
        self.change(id, revoke)
    }

    /// Takes note of when the certificate ends that an agent was given, in nanoseconds since 1970.
    ///
    /// # Errors
    /// When there is no such agent, it was revoked, or it cannot be written.
    pub fn certify(&self, id: &str, ends: u64) -> Result<(), AdmissionError> {
        self.change(id, |agent| {
            if agent.revoked > 0 {
                return Err(AdmissionError::Revoked(id.to_owned()));
            }
            agent.certificate_ends = ends;
            Ok(())
        })
    }

    /// Changes what is known of an agent: first on the disk, then in memory.
    fn change(
        &self,
        id: &str,
        change: impl Fn(&mut Agent) -> Result<(), AdmissionError>,
    ) -> Result<(), AdmissionError> {
        let _writing = locks::lock(&self.writing);
        let found = locks::read(&self.agents).get(id).cloned();
        let mut agent = found.ok_or_else(|| AdmissionError::Unknown(id.to_owned()))?;
        change(&mut agent)?;
        let written = self.write(|transaction| put(transaction, id, &agent));
        written.map_err(|error| AdmissionError::Registry(error.to_string()))?;
        // Not what was written: it may have sent something meanwhile.
        locks::write(&self.agents).get_mut(id).map_or(Ok(()), change)
    }

    /// The ID of the one agent that is meant: by its ID, the beginning of that, or the name of its host.
    ///
    /// # Errors
    /// When it is none, or may be more than one.
    pub fn find(&self, text: &str) -> Result<String, FindError> {
        let agents = locks::read(&self.agents);
        if agents.contains_key(text) {
            return Ok(text.to_owned());
        }
        let fits = |(id, agent): &(&String, &Agent)| {
            !text.is_empty() && (id.starts_with(text) || agent.host == text && agent.revoked == 0)
        };
        let found: Vec<_> = agents.iter().filter(fits).map(|(id, _)| id).collect();
        match found[..] {
            [] => Err(FindError::Nobody(text.to_owned())),
            [id] => Ok(id.clone()),
            _ => Err(FindError::Many(text.to_owned(), found.len())),
        }
    }

    /// What is known of one agent, and whether it is connected.
    #[must_use]
    pub fn agent(&self, id: &str) -> Option<(Agent, bool)> {
        Some((locks::read(&self.agents).get(id)?.clone(), self.sessions.is_connected(id)))
    }

    /// All agents, and whether each is connected.
    #[must_use]
    pub fn agents(&self) -> Vec<(String, Agent, bool)> {
        let agents = locks::read(&self.agents);
        let agents = agents.iter();
        agents.map(|(id, agent)| (id.clone(), agent.clone(), self.sessions.is_connected(id))).collect()
    }

    /// How many agents publish.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.publishing()
    }

    /// Writes what was only in memory.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&self) -> Result<(), RegistryError> {
        let _writing = locks::lock(&self.writing);
        let agents = locks::read(&self.agents).clone();
        self.write(|transaction| agents.iter().try_for_each(|(id, agent)| put(transaction, id, agent)))
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
}

/// Agents choose their words; none may be as long as to fill the registry.
fn shortened(text: &str) -> String {
    text.chars().take(LONGEST_TEXT).collect()
}

fn put(transaction: &redb::WriteTransaction, id: &str, agent: &Agent) -> Result<(), redb::Error> {
    let json = serde_json::to_vec(agent).expect("an agent has a JSON form");
    let mut table = transaction.open_table(AGENTS)?;
    let is_known = table.get(id)?.is_some_and(|row| row.value() == json);
    if !is_known {
        table.insert(id, json.as_slice())?;
    }
    Ok(())
}

fn all<T: DeserializeOwned>(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<BTreeMap<String, T>, redb::Error> {
    let entry = |entry: Result<(redb::AccessGuard<&str>, redb::AccessGuard<&[u8]>), redb::StorageError>| {
        let (id, json) = entry?;
        // To go on without it could let in an agent that was revoked.
        let row = serde_json::from_slice(json.value()).map_err(|error| {
            redb::Error::Corrupted(format!("the row of {} is not one of this version: {error}", id.value()))
        })?;
        Ok((id.value().to_owned(), row))
    };
    table.iter()?.map(entry).collect()
}

#[cfg(test)]
mod tests;
