//! What a running agent answers: gRPC and metrics on its unix socket, metrics on TCP where that is configured.
//!
//! Who connects to the socket is known from the kernel, by [`Peer`]. The mode of the socket keeps others out
//! already; a request of one who came by another way is refused with a reason.

mod agent;
pub mod metrics;
mod peer;

use std::{
    fs, future, io,
    net::SocketAddr,
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net as unix,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use nightjar_proto::{agent::v1::agent_server::AgentServer, v1};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tracing::{debug, warn};

use self::agent::Service;
pub use self::agent::selector;
pub use self::peer::Peer;
use crate::{
    pipeline::CapabilityNames,
    service::Held,
    watch::{Handle, NoAnswer},
};

/// Connections to one listener at a time: of root, and of all others, who cannot keep root out.
const CONNECTIONS: usize = 64;
/// Those who watch at a time.
const READERS: usize = 16;
/// How long those who watch may take at the end for what they have not read yet.
const LONGEST_FAREWELL: Duration = Duration::from_millis(700);
/// After a connection could not be taken: for want of descriptors, mostly.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The folder of the socket.
    #[error("cannot create {} for the socket", .0.display())]
    Folder(PathBuf, #[source] io::Error),
    /// Something else has its name.
    #[error("{} is there and is no socket; move it away, or set socket.path", .0.display())]
    NoSocket(PathBuf),
    /// It cannot be made.
    #[error("cannot listen on {}", .0.display())]
    Unix(PathBuf, #[source] io::Error),
    /// It cannot be given to the group.
    #[error(
        "cannot give {} to group {group} (socket.group); this takes CAP_CHOWN, under systemd in CapabilityBoundingSet",
        path.display()
    )]
    Group {
        /// The socket.
        path: PathBuf,
        /// Number of the group.
        group: u32,
        /// What the kernel said.
        source: io::Error,
    },
    /// Somebody else could put another socket in its place.
    #[error("the folder {} may be written to by others than root; set socket.path to another, or chmod go-w it", .0.display())]
    OpenFolder(PathBuf),
    /// The address cannot be had.
    #[error(
        "cannot listen on {0} for metrics; set metrics.listen to a free address of this host (under systemd, the unit \
         must allow it: PrivateNetwork=no and AF_INET in RestrictAddressFamilies)"
    )]
    Tcp(SocketAddr, #[source] io::Error),
}

/// What the draining thread does not know of the agent: the rest of its status.
#[derive(Clone, Default)]
pub struct About(Arc<Mutex<v1::Status>>);

/// Answers from a watch.
#[derive(Clone)]
pub struct Answers {
    /// The watch.
    pub handle: Handle,
    /// The rest.
    pub about: About,
    /// A place for each who watches.
    readers: Arc<Semaphore>,
    /// The agent is about to end: all places are taken by that.
    ends: Arc<AtomicBool>,
}

/// A listener that is served until this is dropped.
pub struct Serving {
    task: JoinHandle<()>,
    socket: Option<PathBuf>,
}

// === impl About ===

impl About {
    /// Changes what is told.
    pub fn update(&self, change: impl FnOnce(&mut v1::Status)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

// === impl Answers ===

impl Answers {
    /// From a watch.
    #[must_use]
    pub fn new(handle: Handle, about: About) -> Self {
        Self { handle, about, readers: Arc::new(Semaphore::new(READERS)), ends: Arc::default() }
    }

    /// A place to watch from.
    ///
    /// # Errors
    /// When there is none, or the agent is about to end.
    pub fn reader(&self) -> Result<OwnedSemaphorePermit, tonic::Status> {
        Arc::clone(&self.readers).try_acquire_owned().map_err(|_| {
            // Whoever waits for the agent to come back goes on to wait.
            if self.ends.load(Ordering::Relaxed) {
                return tonic::Status::unavailable(NoAnswer::Stopping.to_string());
            }
            tonic::Status::resource_exhausted(format!("{READERS} watch already; wait until one of them ends"))
        })
    }

    /// Comes back when those who watch have read to the end, or had the time to.
    pub async fn farewell(&self) {
        self.ends.store(true, Ordering::Relaxed);
        let everybody = u32::try_from(READERS).unwrap_or(u32::MAX);
        let _slow = tokio::time::timeout(LONGEST_FAREWELL, self.readers.acquire_many(everybody)).await;
        // What was handed to the connections is on its way to the sockets.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// All of the status.
    ///
    /// # Errors
    /// When the watch does not answer.
    pub async fn status(&self) -> Result<v1::Status, NoAnswer> {
        let about = self.about.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut status = self.handle.status().await?;
        let resources = status.resources.get_or_insert_default();
        if let Ok(process) = procfs::process::Process::myself() {
            let stat = process.stat();
            resources.resident_bytes =
                stat.as_ref().map_or(0, |stat| stat.rss * rustix::param::page_size() as u64);
            let ticks = stat.map_or(0, |stat| stat.utime + stat.stime);
            resources.cpu_ns =
                ticks.saturating_mul(1_000_000_000 / rustix::param::clock_ticks_per_second().max(1));
        }
        let held = Held::read().map_or(0, |held| held.effective);
        resources.capabilities = CapabilityNames::of_this_kernel().of(held);
        Ok(v1::Status {
            version: about.version,
            instance: about.instance,
            pid: about.pid,
            host: about.host,
            started: about.started,
            configuration: about.configuration,
            ..status
        })
    }
}

/// A unix socket that nobody is answered on yet: who connects waits.
#[derive(Debug)]
pub struct Socket {
    listener: unix::UnixListener,
    path: PathBuf,
    group: Option<u32>,
}

// === impl Socket ===

impl Socket {
    /// Listens for root and members of a group.
    ///
    /// # Errors
    /// When the socket cannot be made. One that nobody listens on is replaced.
    pub fn bind(path: &Path, group: Option<u32>) -> Result<Self, ServerError> {
        let listener = bind(path, group)?;
        Ok(Self { listener, path: path.to_owned(), group })
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// When the runtime does not take the socket.
    pub fn serve(self, answers: &Answers) -> Result<Serving, ServerError> {
        let Self { listener, path, group } = self;
        let listener =
            UnixListener::from_std(listener).map_err(|error| ServerError::Unix(path.clone(), error))?;
        Ok(Serving { task: tokio::spawn(accept(listener, group, answers.clone())), socket: Some(path) })
    }
}

fn bind(path: &Path, group: Option<u32>) -> Result<unix::UnixListener, ServerError> {
    use std::os::unix::fs::FileTypeExt;
    let failed = |error| ServerError::Unix(path.to_owned(), error);
    if let Some(folder) = path.parent() {
        let failed = |error| ServerError::Folder(folder.to_owned(), error);
        fs::create_dir_all(folder).map_err(failed)?;
        let facts = fs::metadata(folder).map_err(failed)?;
        let own = rustix::process::geteuid().as_raw();
        if facts.mode() & 0o022 != 0 || (facts.uid() != 0 && facts.uid() != own) {
            return Err(ServerError::OpenFolder(folder.to_owned()));
        }
    }
    match fs::symlink_metadata(path) {
        Ok(facts) if facts.file_type().is_socket() => {
            if unix::UnixStream::connect(path).is_ok() {
                return Err(failed(io::Error::new(io::ErrorKind::AddrInUse, "somebody else listens on it")));
            }
            fs::remove_file(path).map_err(failed)?;
        }
        Ok(_) => return Err(ServerError::NoSocket(path.to_owned())),
        Err(_) => {}
    }
    let listener = unix::UnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    // To connect takes the right to write, which the default mask leaves to the owner until here.
    if let Some(group) = group
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(group))
    {
        let _half_made = fs::remove_file(path);
        return Err(ServerError::Group { path: path.to_owned(), group, source: error });
    }
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    Ok(listener)
}

async fn accept(listener: UnixListener, group: Option<u32>, answers: Answers) {
    let routes = tonic::service::Routes::new(AgentServer::new(Service::new(answers.clone())));
    let routes = routes.into_axum_router().route("/metrics", metrics_route(answers));
    let (of_root, of_others) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!("a connection could not be taken: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                warn!("a connection of somebody unknown is closed: {error}");
                continue;
            }
        };
        let places = if peer.uid == 0 { &of_root } else { &of_others };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            warn!("user {} has too many connections to the socket, or others have: one is closed", peer.uid);
            continue;
        };
        let may_read = peer.may_read(group);
        debug!("process {} of user {} connected; it may read: {may_read}", peer.pid, peer.uid);
        let routes = if may_read {
            routes.clone().layer(axum::Extension(peer))
        } else {
            Router::new().fallback(move || future::ready(refuse(peer.uid)))
        };
        tokio::spawn(async move {
            serve(stream, routes).await;
            drop(place);
        });
    }
}

/// Listens on TCP for those who scrape metrics; nothing else is told there.
///
/// # Errors
/// When the address cannot be had.
pub async fn listen_for_metrics(address: SocketAddr, answers: &Answers) -> Result<Serving, ServerError> {
    let failed = |error| ServerError::Tcp(address, error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let routes = Router::new().route("/metrics", metrics_route(answers.clone()));
    let task = tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let (stream, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!("a connection could not be taken: {error}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let routes = routes.clone();
            tokio::spawn(async move {
                // Whoever connects and says nothing keeps others out otherwise.
                let _slow = tokio::time::timeout(Duration::from_secs(30), serve(stream, routes)).await;
                drop(place);
            });
        }
    });
    Ok(Serving { task, socket: None })
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, routes: Router) {
    let service = TowerToHyperService::new(routes);
    if let Err(error) =
        auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
    {
        debug!("a connection ended: {error}");
    }
}

fn metrics_route(answers: Answers) -> axum::routing::MethodRouter {
    const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    get(move || {
        let answers = answers.clone();
        async move {
            match answers.status().await {
                Ok(status) => ([(http::header::CONTENT_TYPE, OPENMETRICS)], metrics::openmetrics(&status))
                    .into_response(),
                Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
            }
        }
    })
}

/// To one who may not read: as gRPC and as HTTP say it.
fn refuse(uid: u32) -> axum::response::Response {
    let why =
        format!("user {uid} may not see what happens on this host: be root, or a member of socket.group");
    let mut response = (StatusCode::FORBIDDEN, format!("{why}\n")).into_response();
    let _only_ascii = tonic::Status::permission_denied(why).add_header(response.headers_mut());
    response
}

impl Serving {
    /// Ends it; comes back when the address is free again.
    pub async fn stop(mut self) {
        self.task.abort();
        let _aborted = (&mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(socket) = &self.socket {
            let _gone = fs::remove_file(socket);
        }
    }
}
