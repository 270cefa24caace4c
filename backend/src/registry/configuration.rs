//! The configuration that agents are to have: one of their own, or the one of all.
//!
//! Here it is only looked at as far as to say that it is YAML; the agent says whether it is valid, as that is of its
//! version.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::RwLock,
};

use nightjar_proto::v1::{
    ConfigurationAnswer, ConfigurationUpdate, WatchPolicy, configuration_answer::Outcome,
};
use redb::{ReadableTable, TableDefinition};
use ring::digest;
use saphyr_parser::{Event, Parser};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Registry, RegistryError, all, hex, shortened};
use crate::{hour::now, locks};

/// ID of the agent, or nothing for all that have none of their own, to [`Configuration`] in JSON.
const CONFIGURATIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("configurations");
/// How many were set so far.
const NUMBER: TableDefinition<(), u64> = TableDefinition::new("configuration_number");

/// Most bytes of a configuration, all its files together.
pub const MOST_BYTES: usize = 1 << 20;

/// Most settings that an agent may say to be pending.
const MOST_PENDING: usize = 100;

/// Why a configuration cannot be given to agents.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// There is nothing in it.
    #[error("there is neither a configuration nor a policy in it")]
    Empty,
    /// It is too large.
    #[error("the files have {0} bytes; at most {MOST_BYTES} are given to agents")]
    TooLarge(usize),
    /// A file is no YAML.
    #[error("{name}: line {line}, column {column}: {what}", line = .at.0, column = .at.1)]
    Yaml {
        /// The file.
        name: String,
        /// Line and column, both from 1.
        at: (usize, usize),
        /// What is wrong.
        what: String,
    },
    /// A file is YAML, but something else than settings.
    #[error("{0}: a mapping is wanted, as in `name: value`")]
    NoMapping(String),
    /// A file of policies must have a name that can be one in a directory, and that no other has.
    #[error("{0:?} cannot be the name of a file of policies, or two have it; name it as in 40-web.yaml")]
    Name(String),
    /// There is no such agent.
    #[error("there is no agent {0:?}; see nightjar-backend agents")]
    Unknown(String),
    /// It cannot be written.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// A file of watch policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Policy {
    name: String,
    yaml: String,
}

/// What agents are to have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Configuration {
    /// Number and hash of the content: `7-1f0c6b7e`.
    pub version: String,
    /// When it was set, in nanoseconds since 1970.
    pub set: u64,
    yaml: String,
    policies: Vec<Policy>,
}

/// What an agent said to a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Which one. It has an answer where `outcome` is not 0.
    pub version: String,
    /// As in [`Outcome`].
    pub outcome: i32,
    /// Why it is not in force.
    pub reason: String,
    /// Settings that count from the next start on.
    pub pending: Vec<String>,
    /// When, in nanoseconds since 1970.
    pub at: u64,
}

/// All configurations.
pub struct Configurations {
    current: RwLock<BTreeMap<String, Configuration>>,
    /// Raised when one is set or cleared.
    changes: watch::Sender<u64>,
}

// === impl Configuration ===

impl Configuration {
    /// To be sent.
    #[must_use]
    pub fn update(&self) -> ConfigurationUpdate {
        let policy = |policy: &Policy| WatchPolicy { name: policy.name.clone(), yaml: policy.yaml.clone() };
        ConfigurationUpdate {
            version: self.version.clone(),
            configuration_yaml: self.yaml.clone(),
            policies: self.policies.iter().map(policy).collect(),
        }
    }
}

// === impl Answer ===

impl Answer {
    /// As it came.
    #[must_use]
    pub fn of(answer: &ConfigurationAnswer) -> Self {
        Self {
            version: shortened(&answer.version),
            outcome: answer.outcome,
            reason: shortened(&answer.reason),
            pending: answer.pending.iter().take(MOST_PENDING).map(|setting| shortened(setting)).collect(),
            at: now(),
        }
    }

    /// Whether the configuration is in force.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.outcome == Outcome::Applied as i32
    }

    /// To be shown; `None` where there is none.
    #[must_use]
    pub fn message(&self) -> Option<ConfigurationAnswer> {
        let Self { version, outcome, reason, pending, .. } = self.clone();
        (outcome != 0).then_some(ConfigurationAnswer { version, outcome, reason, pending })
    }
}

// === impl Configurations ===

impl Configurations {
    /// What the registry has.
    pub(super) fn read(transaction: &redb::WriteTransaction) -> Result<Self, redb::Error> {
        transaction.open_table(NUMBER)?;
        let current = RwLock::new(all(&transaction.open_table(CONFIGURATIONS)?)?);
        Ok(Self { current, changes: watch::Sender::new(0) })
    }
}

// === impl Registry ===

impl Registry {
    /// Gives a configuration to these agents, or to all that have none of their own. Gives its version.
    ///
    /// # Errors
    /// When it is no YAML or too large, there is no such agent, or it cannot be written.
    pub fn set_configuration(
        &self,
        agents: &[String],
        yaml: String,
        policies: Vec<WatchPolicy>,
    ) -> Result<String, ConfigurationError> {
        check(&yaml, &policies)?;
        self.know(agents)?;
        let policies: Vec<_> =
            policies.into_iter().map(|WatchPolicy { name, yaml }| Policy { name, yaml }).collect();
        let hash = hex(&digest::digest(&digest::SHA256, &json(&(&yaml, &policies))).as_ref()[..4]);
        let _writing = locks::lock(&self.writing);
        let configuration = self.write(|transaction| {
            let mut numbers = transaction.open_table(NUMBER)?;
            let number = numbers.get(())?.map_or(0, |number| number.value()) + 1;
            numbers.insert((), number)?;
            let version = format!("{number}-{hash}");
            let configuration = Configuration { version, set: now(), yaml, policies };
            let json = json(&configuration);
            let mut table = transaction.open_table(CONFIGURATIONS)?;
            scopes(agents).try_for_each(|scope| table.insert(scope, json.as_slice()).map(drop))?;
            Ok(configuration)
        })?;
        let mut current = locks::write(&self.configurations.current);
        current.extend(scopes(agents).map(|scope| (scope.to_owned(), configuration.clone())));
        drop(current);
        self.configurations.changes.send_modify(|number| *number += 1);
        Ok(configuration.version)
    }

    /// Takes away what these agents were given, or what all were.
    ///
    /// # Errors
    /// When there is no such agent, or it cannot be written.
    pub fn clear_configuration(&self, agents: &[String]) -> Result<(), ConfigurationError> {
        self.know(agents)?;
        let _writing = locks::lock(&self.writing);
        self.write(|transaction| {
            let mut table = transaction.open_table(CONFIGURATIONS)?;
            Ok(scopes(agents).try_for_each(|scope| table.remove(scope).map(drop))?)
        })?;
        let mut current = locks::write(&self.configurations.current);
        scopes(agents).for_each(|scope| drop(current.remove(scope)));
        drop(current);
        self.configurations.changes.send_modify(|number| *number += 1);
        Ok(())
    }

    /// All, by the agent that they are for; that of all others by nothing.
    #[must_use]
    pub fn configurations(&self) -> BTreeMap<String, Configuration> {
        locks::read(&self.configurations.current).clone()
    }

    /// What an agent is to have. With an empty version: its own files.
    #[must_use]
    pub fn wanted_configuration(&self, agent: &str) -> ConfigurationUpdate {
        let current = locks::read(&self.configurations.current);
        let wanted = current.get(agent).or_else(|| current.get(""));
        wanted.map(Configuration::update).unwrap_or_default()
    }

    /// The version of that.
    #[must_use]
    pub fn wanted_version(&self, agent: &str) -> String {
        let current = locks::read(&self.configurations.current);
        let wanted = current.get(agent).or_else(|| current.get(""));
        wanted.map(|wanted| wanted.version.clone()).unwrap_or_default()
    }

    /// Changes when one is set or cleared.
    #[must_use]
    pub fn configuration_changes(&self) -> watch::Receiver<u64> {
        self.configurations.changes.subscribe()
    }

    fn know(&self, agents: &[String]) -> Result<(), ConfigurationError> {
        let known = locks::read(&self.agents);
        match agents.iter().find(|agent| !known.contains_key(*agent)) {
            Some(unknown) => Err(ConfigurationError::Unknown(unknown.clone())),
            None => Ok(()),
        }
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers have a JSON form")
}

fn scopes(agents: &[String]) -> impl Iterator<Item = &str> {
    agents.iter().map(String::as_str).chain(agents.is_empty().then_some(""))
}

fn check(yaml: &str, policies: &[WatchPolicy]) -> Result<(), ConfigurationError> {
    if yaml.is_empty() && policies.is_empty() {
        return Err(ConfigurationError::Empty);
    }
    let bytes =
        yaml.len() + policies.iter().map(|policy| policy.name.len() + policy.yaml.len()).sum::<usize>();
    if bytes > MOST_BYTES {
        return Err(ConfigurationError::TooLarge(bytes));
    }
    if !yaml.is_empty() {
        mapping("the configuration", yaml)?;
    }
    let mut names = BTreeSet::new();
    for WatchPolicy { name, yaml } in policies {
        let is_plain = name.strip_suffix(".yaml").is_some_and(|stem| !stem.is_empty())
            && !name.starts_with('.')
            && name.len() <= 255;
        if !is_plain || name.contains(['/', '\0']) || !names.insert(name) {
            return Err(ConfigurationError::Name(name.clone()));
        }
        mapping(name, yaml)?;
    }
    Ok(())
}

/// Whether a text is YAML with a mapping at its top. What is in it the agent will judge.
fn mapping(name: &str, yaml: &str) -> Result<(), ConfigurationError> {
    let mut is_mapping = None;
    for event in Parser::new_from_str(yaml) {
        let (event, _) = event.map_err(|error| {
            let at = (error.marker().line(), error.marker().col() + 1);
            ConfigurationError::Yaml { name: name.to_owned(), at, what: error.info().to_owned() }
        })?;
        if !matches!(event, Event::Nothing | Event::StreamStart | Event::DocumentStart(_)) {
            is_mapping.get_or_insert(matches!(event, Event::MappingStart(..)));
        }
    }
    if is_mapping == Some(true) { Ok(()) } else { Err(ConfigurationError::NoMapping(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::Kind;

    fn registry() -> (tempfile::TempDir, Arc<Registry>) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(dir.path()).unwrap());
        for agent in ["a", "b"] {
            registry.admit(agent, "host", "1", true, Kind::Control).unwrap();
        }
        registry.flush().unwrap();
        (dir, registry)
    }

    fn yaml(registry: &Registry, agent: &str) -> String {
        registry.wanted_configuration(agent).configuration_yaml
    }

    #[test]
    fn an_agent_has_its_own_configuration_before_that_of_all_also_after_a_restart() {
        let (dir, registry) = registry();
        assert_eq!(registry.wanted_version("a"), "");
        let all = registry.set_configuration(&[], "x: 1".to_owned(), vec![]).unwrap();
        let one = registry.set_configuration(&["a".to_owned()], "x: 2".to_owned(), vec![]).unwrap();
        assert_eq!((yaml(&registry, "a"), yaml(&registry, "b")), ("x: 2".to_owned(), "x: 1".to_owned()));
        drop(registry);
        let registry = Registry::open(dir.path()).unwrap();
        assert_eq!((registry.wanted_version("a"), registry.wanted_version("b")), (one, all));
        registry.clear_configuration(&["a".to_owned()]).unwrap();
        assert_eq!(yaml(&registry, "a"), "x: 1");
        registry.clear_configuration(&[]).unwrap();
        assert_eq!(registry.wanted_version("a"), "");
    }

    #[test]
    fn no_two_configurations_have_one_version() {
        let (_dir, registry) = registry();
        let set = |yaml: &str| registry.set_configuration(&[], yaml.to_owned(), vec![]).unwrap();
        let versions = [set("x: 1"), set("x: 2"), set("x: 1")];
        let (first, last) = (versions[0].split_once('-').unwrap(), versions[2].split_once('-').unwrap());
        assert_eq!((first.0, last.0), ("1", "3"));
        assert_eq!(first.1, last.1, "the same content has the same hash");
        assert_ne!(versions[0].split_once('-').unwrap().1, versions[1].split_once('-').unwrap().1);
    }

    #[test]
    fn what_no_agent_could_read_is_refused_with_the_place() {
        let (_dir, registry) = registry();
        let set = |yaml: &str, policies: &[(&str, &str)]| {
            let policy = |(name, yaml): &(&str, &str)| WatchPolicy {
                name: (*name).to_owned(),
                yaml: (*yaml).to_owned(),
            };
            let policies = policies.iter().map(policy).collect();
            registry.set_configuration(&[], yaml.to_owned(), policies).map_err(|error| error.to_string())
        };
        let refused = set("a: 1\nb: [", &[]).unwrap_err();
        assert!(refused.starts_with("the configuration: line "), "{refused}");
        assert!(set("", &[]).unwrap_err().contains("neither"));
        assert!(set("- a", &[]).unwrap_err().contains("mapping"));
        assert!(set("# nothing", &[]).unwrap_err().contains("mapping"));
        assert!(set(&format!("a: {}", "x".repeat(MOST_BYTES)), &[]).unwrap_err().contains("at most"));
        for name in ["../x.yaml", "x", ".x.yaml", "x/y.yaml"] {
            assert!(set("", &[(name, "a: 1")]).unwrap_err().contains("name"), "{name}");
        }
        assert!(set("", &[("a.yaml", "a: 1"), ("a.yaml", "a: 1")]).unwrap_err().contains("name"));
        assert!(set("", &[("a.yaml", "a: 1")]).is_ok());
        let unknown = registry.set_configuration(&["z".to_owned()], "a: 1".to_owned(), vec![]);
        assert!(unknown.unwrap_err().to_string().contains("no agent"));
    }
}
