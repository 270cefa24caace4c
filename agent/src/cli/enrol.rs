//! `nightjar enrol`

use std::{
    io::{self, Read as _},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::{
    Global, say,
    settings::{self, flag},
};
use crate::deliver::{
    delivery::identity_directory,
    enrol::{Enrolment, enrol},
};

/// Longest time that enrolment may take.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  nightjar enrol --backend https://nightjar.example.com:4317 \"$TOKEN\"
  nightjar-backend token | ssh web-1 sudo nightjar enrol -

The certificate goes into the state directory (setting state), the backend from --backend or backend.address.")]
pub(super) struct Arguments {
    /// What nightjar-backend token printed; - to read it from standard input, where other users do not see it
    token: String,

    /// The backend: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    backend: Option<String>,

    /// Directory of what is kept from one start to the next: spool, identity
    #[arg(long, value_name = "DIRECTORY")]
    state: Option<PathBuf>,

    /// Certificate of the authority that has signed the backend's, if the token has no fingerprint
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,

    /// Replace the identity that there is
    #[arg(long)]
    force: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<()> {
    let mut flags = Vec::new();
    if let Some(backend) = &arguments.backend {
        flags.push(flag("--backend", "backend.address", json!(backend)));
    }
    if let Some(state) = &arguments.state {
        flags.push(flag("--state", "state", json!(state)));
    }
    let config = settings::load(global.config.as_ref(), &flags, None)?.config;
    let target =
        settings::target(&config)?.context("which backend? Give --backend, or set backend.address")?;
    let token = match arguments.token.as_str() {
        "-" => {
            let mut token = String::new();
            io::stdin().take(4096).read_to_string(&mut token).context("cannot read the token")?;
            token
        }
        token => token.to_owned(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let enrolled = runtime.block_on(enrol(&Enrolment {
        target: &target,
        authority: arguments.authority.as_deref(),
        token: token.trim(),
        directory: &identity_directory(&config.state_directory()),
        host: &settings::host(),
        agent_version: env!("CARGO_PKG_VERSION"),
        force: arguments.force,
        within: WITHIN,
    }))?;
    say(&format!("enrolled at {target} as {}", enrolled.agent_id));
    Ok(())
}
