//! `nightjar-backend config`

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use nightjar_proto::{
    backend::v1::{
        ClearConfigurationRequest, Configuration, ListAgentsRequest, ListConfigurationsRequest,
        SetConfigurationRequest,
    },
    v1::{ConfigurationAnswer, WatchPolicy, configuration_answer::Outcome},
};
use serde_json::json;

use super::{
    client::{connect, told},
    lists::{ago, id},
    table::{Side, Table},
};

/// What to do with the configuration of agents.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Give agents a configuration: those that are connected at once, others when they connect
    Set {
        /// Only this agent, before what is set for all; may be given more than once
        #[arg(long, value_name = "ID")]
        agent: Vec<String>,
        /// File of watch policies; may be given more than once
        #[arg(long, value_name = "FILE")]
        policy: Vec<PathBuf>,
        /// Configuration, as it would lie on the agent's host
        #[arg(value_name = "FILE", required_unless_present = "policy")]
        file: Option<PathBuf>,
    },
    /// Show what agents are to have
    Show {
        /// As JSON, one configuration a line
        #[arg(long)]
        json: bool,
    },
    /// Take away what was set: agents go back to what is set for all, or to their own files
    Clear {
        /// Only of this agent; may be given more than once
        #[arg(long, value_name = "ID")]
        agent: Vec<String>,
    },
    /// List what became of it, agent by agent
    Status {
        /// As JSON, one agent a line
        #[arg(long)]
        json: bool,
    },
}

/// Does it.
///
/// # Errors
/// When a file cannot be read or is refused, or the backend cannot be asked.
pub async fn config(dir: &Path, command: Command) -> Result<()> {
    match command {
        Command::Set { agent, policy, file } => set(dir, &agent, &policy, file.as_deref()).await,
        Command::Show { json } => show(dir, json).await,
        Command::Clear { agent } => {
            let mut client = connect(dir).await?;
            let agents = ids(&mut client, &agent).await?;
            client.clear_configuration(ClearConfigurationRequest { agents }).await.map_err(told)?;
            Ok(())
        }
        Command::Status { json } => status(dir, json).await,
    }
}

async fn ids(client: &mut super::client::Client, agents: &[String]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for agent in agents {
        found.push(id(client, agent).await?);
    }
    Ok(found)
}

async fn set(dir: &Path, agents: &[String], policies: &[PathBuf], file: Option<&Path>) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let configuration_yaml = file.map(read).transpose()?.unwrap_or_default();
    let policy = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(WatchPolicy { name, yaml: read(path)? })
    };
    let policies = policies.iter().map(policy).collect::<Result<Vec<_>>>()?;
    let mut client = connect(dir).await?;
    let agents = ids(&mut client, agents).await?;
    let request = SetConfigurationRequest { agents, configuration_yaml, policies };
    let set = client.set_configuration(request).await.map_err(told)?;
    println!("{}", set.into_inner().version);
    Ok(())
}

async fn show(dir: &Path, as_json: bool) -> Result<()> {
    let mut client = connect(dir).await?;
    let listed = client.list_configurations(ListConfigurationsRequest {}).await.map_err(told)?;
    let configurations = listed.into_inner().configurations;
    if configurations.is_empty() && !as_json {
        eprintln!("nightjar-backend: nothing is set; agents have their own files");
    }
    for Configuration { agent, set, update } in configurations {
        let update = update.unwrap_or_default();
        if as_json {
            let policies: Vec<_> = update
                .policies
                .iter()
                .map(|policy| json!({"name": policy.name, "yaml": policy.yaml}))
                .collect();
            let object = json!({
                "agent": agent, "version": update.version, "set": set,
                "configuration": update.configuration_yaml, "policies": policies,
            });
            println!("{object}");
            continue;
        }
        let whom = if agent.is_empty() { "all agents".to_owned() } else { format!("agent {agent}") };
        println!("# version {} for {whom}, set {}", update.version, ago(set));
        print!("{}", lines(&update.configuration_yaml));
        for policy in update.policies {
            println!("# {}", policy.name);
            print!("{}", lines(&policy.yaml));
        }
    }
    Ok(())
}

/// Ends with the end of a line, if there is anything.
fn lines(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}

async fn status(dir: &Path, as_json: bool) -> Result<()> {
    let agents =
        connect(dir).await?.list_agents(ListAgentsRequest {}).await.map_err(told)?.into_inner().agents;
    let mut table = Table::new([
        ("AGENT", Side::Left),
        ("HOST", Side::Left),
        ("WANTED", Side::Left),
        ("IN FORCE", Side::Left),
        ("ANSWER", Side::Left),
        ("WHEN", Side::Right),
        ("REASON", Side::Left),
    ]);
    for agent in agents.into_iter().filter(|agent| agent.revoked == 0) {
        let answer = agent.answer.clone().unwrap_or_default();
        let word = outcome(agent.answer.as_ref());
        if as_json {
            let object = json!({
                "id": agent.id, "host": agent.host, "wanted": agent.wanted_configuration,
                "in_force": agent.configuration, "connected": agent.connected,
                "answer": {
                    "version": answer.version, "outcome": word, "reason": answer.reason,
                    "pending": answer.pending, "time": agent.answered,
                },
            });
            println!("{object}");
            continue;
        }
        let reason = match (answer.reason.as_str(), answer.pending.as_slice()) {
            ("", []) => String::new(),
            ("", pending) => format!("counts from its next start on: {}", pending.join(", ")),
            (reason, _) => reason.to_owned(),
        };
        let own = |version: &str| if version.is_empty() { "its own".to_owned() } else { version.to_owned() };
        let answered = if word == "none" { word.to_owned() } else { format!("{word} {}", answer.version) };
        let when = if agent.answered == 0 { String::new() } else { ago(agent.answered) };
        let (wanted, has) = (own(&agent.wanted_configuration), own(&agent.configuration));
        table.row([agent.id, agent.host, wanted, has, answered.trim_end().to_owned(), when, reason]);
    }
    if !as_json {
        print!("{}", table.render());
    }
    Ok(())
}

/// A word for what an agent said to a configuration.
pub fn outcome(answer: Option<&ConfigurationAnswer>) -> &'static str {
    match answer.map(ConfigurationAnswer::outcome) {
        Some(Outcome::Applied) => "applied",
        Some(Outcome::Refused) => "refused",
        Some(Outcome::RolledBack) => "rolled back",
        Some(Outcome::Unspecified) | None => "none",
    }
}
