//! The command line.

mod client;
mod config;
mod events;
mod lists;
mod printer;
mod serve;
mod table;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use nightjar_proto::backend::v1::{CreateTokenRequest, CreateTokenResponse, RevokeRequest};
use rustix::{fs::Mode, process::umask};
use tracing_subscriber::EnvFilter;

use crate::{ca, hour::nanoseconds, server};

/// Where data are, if it is not said.
const DATA: &str = "/var/lib/nightjar-backend";

/// Takes the events of Nightjar agents, keeps them and shows them.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Directory with events, agents and certificates
    #[arg(long, global = true, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority and a certificate for this backend, as serve does by itself when there are none
    Init {
        /// Name or address that agents reach this backend by, besides the host's own; may be given more than once
        #[arg(long = "name", value_name = "HOST")]
        names: Vec<String>,
    },
    /// Take events from agents
    Serve(serve::Arguments),
    /// Make a token by which one agent can be enrolled, once
    Token {
        /// How long it is good for: 30m, 24h, 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
        valid: Duration,
    },
    /// List agents, or show one of them
    Agents {
        /// ID of the agent, the beginning of it, or the name of its host
        agent: Option<String>,
        /// As JSON, one agent a line
        #[arg(long)]
        json: bool,
    },
    /// Shut an agent out, at once
    Revoke {
        /// Its ID, as agents shows it
        agent: String,
    },
    /// Show stored events of all agents
    Events(events::Arguments),
    /// Show what one agent sees just now, also what it does not deliver
    Tail(events::Tail),
    /// Give agents their configuration
    #[command(subcommand)]
    Config(config::Command),
    /// List batches that did not come, and losses that agents told of
    Gaps {
        /// As JSON, one gap a line
        #[arg(long)]
        json: bool,
    },
    /// Show how the backend does
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    // All that is made is for its owner alone, whatever the shell or the service manager says. Before there are threads.
    umask(Mode::RWXG | Mode::RWXO);
    let filter = EnvFilter::try_from_env("NIGHTJAR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(io::stderr).init();
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nightjar-backend: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let dir = cli.data;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start threads")?;
    match cli.command {
        Command::Init { names } => {
            let (tls, names) = (server::tls_dir(&dir), ca::all_names(&names));
            ca::create(&tls, &names)?;
            println!("Certificates for {} are in {}. Next:", names.join(", "), tls.display());
            println!("  {}", command(&dir, "serve"));
            println!("  {}", command(&dir, "token"));
            Ok(())
        }
        Command::Serve(arguments) => runtime.block_on(serve::serve(dir, arguments)),
        Command::Token { valid } => runtime.block_on(async {
            let request = CreateTokenRequest { valid: nanoseconds(valid) };
            let created = client::connect(&dir).await?.create_token(request).await.map_err(client::told)?;
            let CreateTokenResponse { token, address, .. } = created.into_inner();
            println!("{token}");
            eprintln!("On the agent's host:\n  nightjar enrol --backend {address} {token}");
            Ok(())
        }),
        Command::Revoke { agent } => runtime.block_on(async {
            client::connect(&dir).await?.revoke(RevokeRequest { agent }).await.map_err(client::told)?;
            Ok(())
        }),
        Command::Agents { agent: None, json } => runtime.block_on(lists::agents(&dir, json)),
        Command::Agents { agent: Some(agent), json } => runtime.block_on(lists::agent(&dir, agent, json)),
        Command::Tail(arguments) => runtime.block_on(events::tail(&dir, arguments)),
        Command::Config(command) => runtime.block_on(config::config(&dir, command)),
        Command::Gaps { json } => runtime.block_on(lists::gaps(&dir, json)),
        Command::Status { json } => runtime.block_on(lists::status(&dir, json)),
        Command::Events(arguments) => runtime.block_on(events::events(&dir, arguments)),
    }
}

/// A command line for this backend.
fn command(dir: &Path, subcommand: &str) -> String {
    if dir == Path::new(DATA) {
        format!("nightjar-backend {subcommand}")
    } else {
        format!("nightjar-backend --data {} {subcommand}", dir.display())
    }
}

/// A number and a unit: `90s`, `30m`, `72h`, `7d`.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 24 * 3600)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(Duration::from_secs(number.checked_mul(*seconds)?))
    });
    parsed.ok_or_else(|| "a time is a number and a unit, as in 90s, 30m, 72h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(duration("72h"), Ok(Duration::from_hours(72)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        for wrong in ["", "h", "7", "-1s", "1.5h", "99999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
