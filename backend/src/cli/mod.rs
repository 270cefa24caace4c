//! The command line.

mod client;
mod events;
mod lists;
mod serve;

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use nightjar_proto::backend::v1::{CreateTokenRequest, RevokeRequest};
use tracing_subscriber::EnvFilter;

use crate::{ca, hour::nanoseconds, server};

/// Takes the events of Nightjar agents, keeps them and shows them.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    /// Directory with events, agents and certificates
    #[arg(long, global = true, value_name = "DIR", default_value = "/var/lib/nightjar-backend")]
    data: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a certificate authority and a certificate for this backend
    Init {
        /// Name or address that agents reach this backend by; may be given more than once
        #[arg(long = "name", value_name = "HOST", default_values_t = ["localhost".to_owned(), "127.0.0.1".to_owned()])]
        names: Vec<String>,
    },
    /// Take events
    Serve(serve::Arguments),
    /// Make a token by which one agent can be enrolled, once
    Token {
        /// How long it is good for: 30m, 24h, 7d
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = duration)]
        valid: Duration,
    },
    /// List agents
    Agents {
        /// As JSON, one agent a line
        #[arg(long)]
        json: bool,
    },
    /// Shut an agent out, at once
    Revoke {
        /// Its ID, as agents shows it
        agent: String,
    },
    /// Show events of all agents
    Events(events::Arguments),
    /// List batches that did not come
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
            ca::create(&server::tls_dir(&dir), names)?;
            println!(
                "certificates are in {}; now run nightjar-backend token",
                server::tls_dir(&dir).display()
            );
            Ok(())
        }
        Command::Serve(arguments) => runtime.block_on(serve::serve(dir, arguments)),
        Command::Token { valid } => runtime.block_on(async {
            let request = CreateTokenRequest { valid: nanoseconds(valid) };
            let created = client::connect(&dir).await?.create_token(request).await.map_err(client::told)?;
            println!("{}", created.into_inner().token);
            Ok(())
        }),
        Command::Revoke { agent } => runtime.block_on(async {
            client::connect(&dir).await?.revoke(RevokeRequest { agent }).await.map_err(client::told)?;
            Ok(())
        }),
        Command::Agents { json } => runtime.block_on(lists::agents(&dir, json)),
        Command::Gaps { json } => runtime.block_on(lists::gaps(&dir, json)),
        Command::Status { json } => runtime.block_on(lists::status(&dir, json)),
        Command::Events(arguments) => runtime.block_on(events::events(&dir, arguments)),
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
