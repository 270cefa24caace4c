//! The running backend: what agents connect to, its socket for the subcommands, and its health.

use std::{
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, ensure};
use axum::{Router, http::StatusCode, routing::get};
use nightjar_proto::{
    backend::v1::backend_server::BackendServer,
    v1::{control_server::ControlServer, enrolment_server::EnrolmentServer, ingest_server::IngestServer},
};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;

use crate::{
    admin::Admin,
    ca::{self, Authority},
    check,
    control::{Control, LastTold},
    enrolment::Enrolment,
    ingest::Ingest,
    registry::Registry,
    store::{Limits, Store, state::Condition},
    tails::Tails,
    tls::{self, Certificates, Files, Security},
};

/// Bytes of one connection that may come before they are read. Of a thousand agents that wait for a slow disk this is most
/// of the memory; it is enough for 10 Mbit/s over 100 ms.
const WINDOW: u32 = 128 << 10;

/// A connection on which nothing answers for so long is closed.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// How often is written when agents were last seen.
const FLUSH: Duration = Duration::from_secs(30);

/// How a backend is to run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Data directory.
    pub dir: PathBuf,
    /// Where agents connect to.
    pub listen: SocketAddr,
    /// Where health is told; only loopback.
    pub health: Option<SocketAddr>,
    /// Without TLS; only for loopback.
    pub plaintext: bool,
    /// The operator's own certificates; none: those of `init`, which are made if there are none yet.
    pub files: Option<Files>,
    /// Names that agents reach this backend by, for its own certificate.
    pub names: Vec<String>,
    /// Most connections of agents at once.
    pub most_connections: usize,
    /// What the store may take.
    pub limits: Limits,
}

/// A backend that runs.
pub struct Running {
    /// Where agents connect to.
    pub address: SocketAddr,
    /// What is kept.
    pub store: Arc<Store>,
    /// Who may publish.
    pub registry: Arc<Registry>,
    stop: watch::Sender<bool>,
    tasks: tokio::task::JoinSet<Result<()>>,
}

/// The socket of a data directory.
#[must_use]
pub fn socket(dir: &Path) -> PathBuf {
    dir.join("backend.sock")
}

/// The directory of certificates in a data directory.
#[must_use]
pub fn tls_dir(dir: &Path) -> PathBuf {
    dir.join("tls")
}

/// Starts a backend.
///
/// # Errors
/// When the data directory, the certificates or an address cannot be used.
pub async fn start(settings: Settings) -> Result<Running> {
    let Settings { dir, listen, health, plaintext, files, names, most_connections, limits } = settings;
    let waiting = u64::try_from(limits.waiting_bytes)?;
    ensure!(
        !plaintext || listen.ip().is_loopback(),
        "--plaintext is only for loopback, not for {listen}: anybody on the way could read and change events"
    );
    ensure!(
        health.is_none_or(|address| address.ip().is_loopback()),
        "health is only told on loopback; give --health an address such as 127.0.0.1:4318"
    );
    make(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let store = Arc::new(Store::open(&dir, limits)?);
    let registry = Arc::new(Registry::open(&dir)?);
    let own = tls_dir(&dir);
    let authority = if files.is_none() && !plaintext {
        Some(Arc::new(authority(&own, &names, &registry)?))
    } else {
        None
    };
    let security = if plaintext {
        Security::Plaintext
    } else {
        let elsewhere = files.is_some();
        Security::Tls(Certificates::open(files.unwrap_or_else(|| Files::own(&own)), elsewhere)?)
    };
    // Who finds the address of agents finds the others too.
    let health_listener = match health {
        Some(health) => {
            Some(TcpListener::bind(health).await.with_context(|| format!("cannot listen on {health}"))?)
        }
        None => None,
    };
    let path = socket(&dir);
    let admin_listener = bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = tokio::task::JoinSet::new();

    let (tails, last_told) = (Arc::new(Tails::default()), Arc::new(LastTold::default()));
    let ingest = Ingest::new(Arc::clone(&store), Arc::clone(&registry), waiting);
    let largest = check::MOST_COMPRESSED + (64 << 10);
    let agents = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(8)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(IngestServer::new(ingest).max_decoding_message_size(largest))
        .add_service(
            ControlServer::new(Control::new(
                Arc::clone(&registry),
                Arc::clone(&tails),
                Arc::clone(&last_told),
            ))
            .max_decoding_message_size(largest),
        )
        .add_service(EnrolmentServer::new(Enrolment::new(Arc::clone(&registry), authority.clone())));
    let connections = tls::accept(listener, Arc::new(security), most_connections);
    let end = over(stopped.clone());
    tasks.spawn(async move {
        Ok(agents.serve_with_incoming_shutdown(ReceiverStream::new(connections), end).await?)
    });

    let admin = Admin {
        store: Arc::clone(&store),
        registry: Arc::clone(&registry),
        authority: authority.clone(),
        tails,
        last_told,
        address: Some(address),
    };
    let admin = Server::builder().add_service(BackendServer::new(admin));
    let end = over(stopped.clone());
    tasks.spawn(async move {
        Ok(admin.serve_with_incoming_shutdown(UnixListenerStream::new(admin_listener), end).await?)
    });

    if let Some(listener) = health_listener {
        let routes = health_routes(Arc::clone(&store));
        let end = over(stopped.clone());
        tasks.spawn(async move { Ok(axum::serve(listener, routes).with_graceful_shutdown(end).await?) });
    }
    tasks.spawn(tend(Arc::clone(&registry), authority, stopped));
    Ok(Running { address, store, registry, stop, tasks })
}

/// Makes the data directory, for its owner alone. The mode of one that is there is left as it is: it may be a directory that
/// others use too. What is made in it nobody else can read, by the umask of the process.
fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(
            "{} has mode {:o}; others can see what files are in it: chmod 700",
            dir.display(),
            mode & 0o7777
        );
    }
    Ok(())
}

/// Only this user may ask. The umask keeps others from it until its mode is set.
fn bind(path: &Path) -> io::Result<UnixListener> {
    // The lock of the data directory is held: whoever had the socket is gone.
    let _not_there = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn over(mut stopped: watch::Receiver<bool>) {
    let _sender_is_gone = stopped.wait_for(|stopped| *stopped).await;
}

fn health_routes(store: Arc<Store>) -> Router {
    let ready = move || {
        let condition = store.condition();
        async move {
            let code =
                if condition == Condition::Ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            (code, format!("{condition}\n"))
        }
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(ready))
}

/// The authority of a data directory, which is made if there is none.
fn authority(dir: &Path, names: &[String], registry: &Registry) -> Result<Authority> {
    if !ca::exists(dir) {
        let enrolled = registry.agents().iter().filter(|(_, agent, _)| agent.certificate_ends > 0).count();
        ensure!(
            enrolled == 0,
            "{} has no certificates, but {enrolled} agents have some of it; put them back from a copy, or run init to \
             begin anew: then all agents must be enrolled again",
            dir.display()
        );
        ca::create(dir, &ca::all_names(names))?;
        tracing::info!("certificates for this backend are made in {}", dir.display());
    }
    let authority = Authority::open(dir)?;
    if authority.refresh(names)? {
        tracing::info!("the certificate of this backend is made again");
    }
    Ok(authority)
}

/// Does what is to be done now and then: writes when agents were last seen, and renews the backend's certificate, which
/// is taken for new connections when the file has changed.
async fn tend(
    registry: Arc<Registry>,
    authority: Option<Arc<Authority>>,
    stopped: watch::Receiver<bool>,
) -> Result<()> {
    let end = over(stopped);
    tokio::pin!(end);
    loop {
        let ended = tokio::time::timeout(FLUSH, &mut end).await.is_ok();
        let authority = authority.clone();
        let work = move |registry: &Registry| {
            let refreshed = authority.map_or(Ok(false), |authority| authority.refresh(&[]));
            (registry.flush(), refreshed)
        };
        let (flushed, refreshed) = registry.aside(work).await;
        if let Err(error) = flushed {
            tracing::warn!("{error}");
        }
        match refreshed {
            Ok(true) => tracing::info!("the certificate of this backend is made again"),
            Ok(false) => {}
            Err(error) => tracing::warn!("the certificate of this backend is not renewed: {error}"),
        }
        if ended {
            return Ok(());
        }
    }
}

// === impl Running ===

impl Running {
    /// Stops taking batches, writes what waits and comes back.
    ///
    /// # Errors
    /// When a part of it had failed.
    pub async fn stop(mut self) -> Result<()> {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(5), async {
            while let Some(task) = self.tasks.join_next().await {
                task??;
            }
            Ok(())
        });
        // Streams of agents last for ever; they come back to the next backend.
        let result = ended.await.unwrap_or(Ok(()));
        self.tasks.abort_all();
        let store = Arc::clone(&self.store);
        tokio::task::spawn_blocking(move || store.close()).await?;
        result
    }

    /// Comes back when a part of it fails.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn failed(&mut self) -> Result<()> {
        tokio::select! {
            result = self.tasks.join_next() => result.map_or(Ok(()), |result| result?),
            name = self.store.panicked() => Err(anyhow!(
                "the thread {name} of the store panicked, which is a fault of this program; start it again, and report what \
                 it wrote above"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_backend_whose_writer_panicked_is_not_ready_and_ends_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            health: None,
            plaintext: true,
            files: None,
            names: Vec::new(),
            most_connections: 8,
            limits: Limits { reserve_bytes: 0, ..Limits::default() },
        };
        let mut running = start(settings).await.unwrap();
        assert_eq!(running.store.condition(), Condition::Ready);
        let goes_on = tokio::time::timeout(Duration::from_millis(100), running.failed()).await;
        assert!(goes_on.is_err());
        running.store.break_writer();
        let failed = tokio::time::timeout(Duration::from_secs(10), running.failed()).await.unwrap();
        assert!(failed.unwrap_err().to_string().contains("thread log of the store panicked"));
        assert!(matches!(running.store.condition(), Condition::Failing(why) if why.contains("log")));
    }
}
