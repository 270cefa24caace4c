//! The output that delivers: from the pipeline to the spool, and from there, on a thread of its own, to the backend.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nightjar_proto::v1::{self, Event};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::{
    client::{Client, ClientConfig, ClientStatus, State},
    connect::Target,
    spool::{BootId, Lane, Limits, NotABootId, OpenError, Reason, Spool, Stats},
    tls::{Tls, TlsError, TlsFiles},
    watermark::Watermark,
    writer::{Writer, WriterLimits, WriterStats},
};

/// Longest time at the end for what waits to be sent; the rest is sent after the next start.
const FAREWELL: Duration = Duration::from_millis(700);

/// Where events go, and what they may take on the way.
#[derive(Debug, Clone)]
pub struct Options {
    /// The backend.
    pub target: Target,
    /// Directory of the state: the spool and the identity are below it.
    pub state: PathBuf,
    /// What the spool may take.
    pub limits: Limits,
    /// Name of the host, as in events.
    pub host: String,
    /// Version of the agent.
    pub version: String,
    /// Name of the agent where it has no certificate, which only a plaintext backend takes.
    pub plaintext_name: String,
}

/// Why nothing can be delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The agent is not known to the backend.
    #[error(
        "{problem}\nthis agent is not enrolled; run nightjar-backend token on the backend, and here: nightjar enrol TOKEN"
    )]
    NotEnrolled {
        /// Which file is missing.
        problem: TlsError,
    },
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The spool is another agent's.
    #[error(transparent)]
    Spool(#[from] OpenError),
    /// The kernel does not say which boot this is.
    #[error("{}: {problem}; is /proc mounted?", path.display())]
    BootFile {
        /// What was to be read.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
    /// It is not known which boot this is.
    #[error("{0}")]
    Boot(#[from] NotABootId),
    /// There is no thread to be had.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// Takes events, on the thread that drains the ring.
pub struct Delivery {
    writer: Writer,
    spool: Spool,
    status: watch::Receiver<ClientStatus>,
    agent_id: String,
    /// Events that waited when the spool was opened.
    waiting_before: u64,
}

/// The way to the backend, not begun yet.
pub struct Link {
    client: Client,
    spool: Spool,
    /// Up to when an earlier run told all, in nanoseconds since 1970.
    pub complete_until: Option<u64>,
    /// Name of the agent.
    pub agent_id: String,
}

/// A link that is being used. When it is dropped, what waits is sent for a short while.
pub struct Linked {
    stop: Option<watch::Sender<bool>>,
    thread: Option<JoinHandle<()>>,
    status: watch::Receiver<ClientStatus>,
    spool: Spool,
}

/// Where the identity is.
#[must_use]
pub fn identity_directory(state: &Path) -> PathBuf {
    state.join("identity")
}

/// The lane of a kind of events: files and sockets make the floods.
fn lane_of(kind: &str) -> Lane {
    if kind.starts_with("file.") || kind.starts_with("network.") { Lane::Bulk } else { Lane::Critical }
}

fn nanoseconds(time: Option<&prost_types::Timestamp>) -> u64 {
    let Some(time) = time else { return 0 };
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.nanos).unwrap_or_default())
}

/// In nanoseconds.
fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn timestamp(nanoseconds: u64) -> prost_types::Timestamp {
    (UNIX_EPOCH + Duration::from_nanos(nanoseconds)).into()
}

// === impl Delivery ===

impl Delivery {
    /// Opens the spool and reads the identity. Nothing is sent before [`Link::start`].
    ///
    /// # Errors
    /// When the agent has no identity, or the spool is another agent's. That the backend is away is none, nor is a
    /// state directory that cannot be written for now.
    pub fn open(options: Options) -> Result<(Self, Link), DeliveryError> {
        let Options { target, state, limits, host, version, plaintext_name } = options;
        let tls = if target.is_plaintext() { None } else { Some(identity(&state)?) };
        let (tls, agent_id) = match tls {
            Some((tls, name)) => (Some(tls), name),
            None => (None, plaintext_name),
        };
        directory(&state);
        let boot_file = Path::new("/proc/sys/kernel/random/boot_id");
        let boot: BootId = fs::read_to_string(boot_file)
            .map_err(|problem| DeliveryError::BootFile { path: boot_file.to_owned(), problem })?
            .trim()
            .parse()?;
        let (spool, reader, recovered) = Spool::open(&state.join("spool"), boot, limits)?;
        if recovered.marks_lost {
            tracing::warn!(
                "the marks of the spool were damaged: events that were sent before may be sent again"
            );
        }
        if !recovered.ready {
            tracing::warn!("{} cannot be used for now; it is tried again", state.join("spool").display());
        }
        let complete = state.join("complete");
        let (watermark, complete_until) = watermark(&complete);
        let waiting_before = waiting(&spool.stats());
        let writer = Writer::start(spool.clone(), WriterLimits::default(), watermark);
        let writer = writer.map_err(DeliveryError::Thread)?;
        let client = Client::new(ClientConfig::new(agent_id.clone(), version, host), target, tls, reader);
        let delivery = Self {
            writer,
            spool: spool.clone(),
            status: client.status(),
            agent_id: agent_id.clone(),
            waiting_before,
        };
        Ok((delivery, Link { client, spool, complete_until, agent_id }))
    }

    /// Takes an event, and its encoding. It never waits; what cannot be taken is counted, and told to the backend.
    pub fn event(&self, event: &Event, encoded: &[u8]) {
        // Counted by the writer.
        let _counted = self.writer.add(lane_of(&event.kind), encoded, nanoseconds(event.time.as_ref()));
    }

    /// All events of before this time were handed over.
    pub fn complete_until(&self, time: SystemTime) {
        self.writer.mark(since_1970(time));
    }

    /// How it is.
    #[must_use]
    pub fn status(&self) -> v1::Delivery {
        let (stats, written) = (self.spool.stats(), self.writer.stats());
        let client = self.status.borrow().clone();
        let lost = lost(&stats);
        let WriterStats { events: spooled, pending, .. } = written;
        let waiting = waiting(&stats);
        let all_lost: u64 = lost.iter().map(|drops| drops.count).sum();
        v1::Delivery {
            backend: client.backend,
            agent_id: self.agent_id.clone(),
            state: word(client.state).to_owned(),
            since: Some(client.since.into()),
            error: client.last_error.filter(|_| client.state != State::Connected).unwrap_or_default(),
            events: spooled + pending,
            acknowledged: (self.waiting_before + spooled).saturating_sub(waiting + all_lost),
            waiting: waiting + pending,
            oldest: stats
                .lanes
                .iter()
                .filter(|lane| lane.waiting_events > 0)
                .map(|lane| lane.waiting_since)
                .min()
                .map(timestamp),
            lost,
            spool_bytes: stats.bytes,
            spool_bytes_bound: stats.limit,
            spool_error: spool_error(&stats),
            round_trip_ns: client
                .round_trip
                .map_or(0, |trip| u64::try_from(trip.as_nanos()).unwrap_or(u64::MAX)),
            sent_bytes: client.bytes,
        }
    }

    /// Writes what was taken, and waits for the disk. Gives why that was not possible.
    pub fn close(self) {
        if let Err(error) = self.writer.close() {
            tracing::warn!("{error}");
        }
    }
}

/// The identity, and the name in it.
fn identity(state: &Path) -> Result<(Tls, String), DeliveryError> {
    let directory = identity_directory(state);
    let files = TlsFiles::in_directory(&directory);
    let is_missing = !files.certificate.exists();
    let mut tls = Tls::new(files);
    match tls.identity() {
        Ok(identity) => {
            let name = identity.name.clone();
            Ok((tls, name))
        }
        Err(problem) if is_missing => Err(DeliveryError::NotEnrolled { problem }),
        Err(problem) => Err(problem.into()),
    }
}

/// Makes the state directory, for root alone. Where that cannot be, as on a disk that is read-only for the moment, the spool
/// tries again, and the agent goes on meanwhile.
fn directory(state: &Path) {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(state);
    if let Err(error) = made.and_then(|()| fs::set_permissions(state, fs::Permissions::from_mode(0o700))) {
        tracing::warn!("{}: {error}; see that it can be written, or set state", state.display());
    }
}

/// The watermark, and what an earlier run has left there.
fn watermark(path: &Path) -> (Option<Watermark>, Option<u64>) {
    let opened = Watermark::open(path).and_then(|(watermark, before)| {
        if before.is_none() {
            // So that a first run that is killed before it gets to say more leaves word of when it began.
            watermark.set(since_1970(SystemTime::now()))?;
        }
        Ok((Some(watermark), before))
    });
    opened.unwrap_or_else(|error| {
        tracing::warn!(
            "{}: {error}; should this agent be killed, nobody will tell from when on",
            path.display()
        );
        (None, None)
    })
}

const fn word(state: State) -> &'static str {
    match state {
        State::Connecting => "connecting",
        State::Connected => "connected",
        State::Waiting => "waiting",
        State::Refused => "refused",
        State::Stopped => "stopped",
    }
}

fn waiting(stats: &Stats) -> u64 {
    stats.lanes.iter().map(|lane| lane.waiting_events).sum()
}

fn lost(stats: &Stats) -> Vec<v1::Drops> {
    let count = |reason: Reason| stats.lanes.iter().map(|lane| lane.lost[reason.index()]).sum::<u64>();
    let reasons = Reason::ALL.into_iter().map(|(reason, word)| (word, count(reason)));
    reasons
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| v1::Drops { reason: reason.to_owned(), count })
        .collect()
}

/// Why the spool takes nothing at present; empty while it does.
fn spool_error(stats: &Stats) -> String {
    let text = match stats {
        Stats { is_locked_out: true, .. } => "another process has its directory; stop that one",
        Stats { is_ready: false, .. } => "its directory cannot be used; see that it can be written",
        _ => "",
    };
    text.to_owned()
}

// === impl Link ===

impl Link {
    /// The connection to the backend while there is one, for what else is said on it.
    #[must_use]
    pub fn channel(&self) -> watch::Receiver<Option<Channel>> {
        self.client.channel()
    }

    /// Sends from now on, on a thread of its own: the client reads files. `beside` runs on the same thread.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(self, beside: impl Future<Output = ()> + Send + 'static) -> Result<Linked, DeliveryError> {
        let Self { client, spool, .. } = self;
        let status = client.status();
        let (stop, mut stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(DeliveryError::Thread)?;
        let run = move || {
            runtime.block_on(async move {
                let stop = async move {
                    // An end without a word is one as well.
                    let _said_or_gone = stopped.wait_for(|stopped| *stopped).await;
                };
                let beside = tokio::spawn(beside);
                client.run(stop).await;
                beside.abort();
            });
        };
        let thread = thread::Builder::new().name("deliver".to_owned()).spawn(run);
        let thread = Some(thread.map_err(DeliveryError::Thread)?);
        Ok(Linked { stop: Some(stop), thread, status, spool })
    }
}

// === impl Linked ===

impl Drop for Linked {
    fn drop(&mut self) {
        let end = Instant::now() + FAREWELL;
        let is_connected = || self.status.borrow().state == State::Connected;
        while is_connected() && waiting(&self.spool.stats()) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        drop(self.stop.take());
        // A panic there was told by the panic itself.
        let _ended = self.thread.take().map(JoinHandle::join);
    }
}
