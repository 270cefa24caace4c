//! `nightjar-backend serve`

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::duration;
use crate::{
    server::{self, Settings},
    store::Limits,
    tls::Files,
};

/// How to serve.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Address and port that agents connect to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4317")]
    listen: SocketAddr,
    /// Name or address that agents reach this backend by, besides the host's own; may be given more than once
    #[arg(long = "name", value_name = "HOST", conflicts_with_all = ["plaintext", "certificate"])]
    names: Vec<String>,
    /// Loopback address and port for /healthz and /readyz
    #[arg(long, value_name = "ADDRESS")]
    health: Option<SocketAddr>,
    /// How long events are kept: 72h, 30d
    #[arg(long, value_name = "TIME", default_value = "72h", value_parser = duration)]
    retention: Duration,
    /// Stop taking events when fewer MiB are free on the disk
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    reserve: u64,
    /// Most connections of agents at once
    #[arg(long, value_name = "NUMBER", default_value_t = 4096)]
    connections: usize,
    /// Size at which a file of the log is complete
    #[arg(long, value_name = "KIB", default_value_t = 64 << 10, hide = true)]
    log_file: u64,
    /// Bytes of batches that may wait for the disk, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 64 << 10, hide = true)]
    waiting: usize,
    /// Wait so many milliseconds before each fsync, as a slow disk would
    #[arg(long, value_name = "MS", default_value_t = 0, hide = true)]
    slow_disk: u64,
    /// Without TLS and without enrolment; only on loopback
    #[arg(long)]
    plaintext: bool,
    /// Certificate of your own for this backend, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["key", "client_roots"], conflicts_with = "plaintext")]
    certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Roots that certificates of agents are checked against
    #[arg(long, value_name = "FILE", requires = "certificate")]
    client_roots: Option<PathBuf>,
}

/// Serves until a signal. Where there are no certificates yet they are made.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub async fn serve(dir: PathBuf, arguments: Arguments) -> Result<()> {
    let Arguments {
        listen,
        names,
        health,
        retention,
        reserve,
        connections,
        log_file,
        waiting,
        slow_disk,
        plaintext,
        certificate,
        key,
        client_roots,
    } = arguments;
    let files = match (certificate, key, client_roots) {
        (Some(certificate), Some(key), Some(client_roots)) => Some(Files { certificate, key, client_roots }),
        _ => None,
    };
    let limits = Limits {
        retention,
        reserve_bytes: reserve << 20,
        segment_bytes: log_file << 10,
        waiting_bytes: waiting << 10,
        slow_disk: Duration::from_millis(slow_disk),
    };
    let settings = Settings {
        dir: dir.clone(),
        listen,
        health,
        plaintext,
        files,
        names,
        most_connections: connections,
        limits,
    };
    // A connection is a file; the soft limit is 1024 where nobody raised it.
    let files_limit = getrlimit(Resource::Nofile);
    let _stays = setrlimit(Resource::Nofile, Rlimit { current: files_limit.maximum, ..files_limit });
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut running = server::start(settings).await?;
    tracing::info!("agents connect to {}; events are in {}", running.address, dir.display());
    if running.registry.agents().is_empty() && !plaintext {
        tracing::info!("no agent is enrolled yet; {} makes a token for one", super::command(&dir, "token"));
    }
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        failed = running.failed() => failed?,
    }
    running.stop().await
}
