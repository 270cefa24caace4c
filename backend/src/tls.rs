//! Connections from agents: TLS with a certificate of each side, or plaintext from this host alone.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    future::pending,
    io,
    net::SocketAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};
use tonic::transport::server::Connected;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::locks;

/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Most handshakes at once. Peers that stall in theirs let a hundred others in a second all the same.
const HANDSHAKES: usize = 512;

/// How long a peer without a certificate may stay: to enrol takes two round trips and a write to the disk.
const STRANGER: Duration = Duration::from_secs(15);

/// Most connections of peers without a certificate, all together.
const STRANGERS: usize = 64;

/// Most connections of one agent. It makes one, and another when its certificate is new.
const OF_ONE_AGENT: usize = 8;

/// Longest name of an agent, in bytes.
const LONGEST_NAME: usize = 128;

/// Files with the backend's certificate, its key and the roots of agents.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificate of the backend, with those between it and the root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Roots that certificates of agents are checked against.
    pub client_roots: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("{path}: {error}; it must be PEM and readable", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
    /// The files do not go together.
    #[error("certificate and key cannot be used: {0}")]
    Config(String),
}

/// Who is at the other end.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: Option<SocketAddr>,
    /// Name in its certificate, which a root has signed.
    pub name: Option<String>,
    /// The connection is plaintext, from this host.
    pub plaintext: bool,
    /// It need not be enrolled here.
    pub anybody: bool,
}

/// One connection.
pub struct Connection {
    stream: Stream,
    peer: Peer,
    /// Comes back when it is to be closed; `None` afterwards.
    end: Option<End>,
    /// Of those for agents; a peer without a certificate has none.
    _place: Option<OwnedSemaphorePermit>,
}

type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Connections that are open, by the name in their certificates and with the oldest first: of each name, and of all peers
/// without one, there are so many at most, and the oldest makes room for the latest. So nobody takes places of others.
#[derive(Default)]
struct Guests(Mutex<BTreeMap<Option<String>, VecDeque<oneshot::Sender<()>>>>);

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What connections are made of.
pub enum Security {
    /// Only for loopback; that is checked where the address is bound.
    Plaintext,
    /// Certificates on both sides.
    Tls(Certificates),
}

/// Certificates, which are read again when the files change.
pub struct Certificates {
    files: Files,
    current: Mutex<(Vec<Version>, Arc<ServerConfig>)>,
    /// None of the agents is enrolled here: the roots are the operator's.
    elsewhere: bool,
}

/// When a file was written, and its inode: what tells that it is another.
type Version = Option<(SystemTime, u64)>;

/// Accepts connections, at most so many of agents at once, and hands over those whose handshake is done.
#[must_use]
pub fn accept(
    listener: TcpListener,
    security: Arc<Security>,
    most: usize,
) -> mpsc::Receiver<io::Result<Connection>> {
    let (ready, connections) = mpsc::channel(16);
    let (handshakes, places) = (Arc::new(Semaphore::new(HANDSHAKES)), Arc::new(Semaphore::new(most)));
    let guests = Arc::new(Guests::default());
    tokio::spawn(async move {
        // Who comes while all handshakes are taken waits in the kernel's queue.
        while let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = ready.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let (security, ready) = (Arc::clone(&security), ready.clone());
                    let (places, guests) = (Arc::clone(&places), Arc::clone(&guests));
                    tokio::spawn(async move {
                        let opened = timeout(HANDSHAKE, async {
                            let (stream, peer) = security.open(stream, address).await?;
                            guests.seat(stream, peer, places).await
                        });
                        let opened = opened.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                        drop(handshake);
                        match opened {
                            Ok(connection) => drop(ready.send(Ok(connection)).await),
                            Err(error) => tracing::debug!("{address}: no connection: {error}"),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!("cannot accept connections: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    });
    connections
}

// === impl Peer ===

impl Peer {
    /// Whether it may call itself so.
    #[must_use]
    pub fn is(&self, agent: &str) -> bool {
        let named = self.plaintext || self.name.as_deref() == Some(agent);
        named && !agent.is_empty() && agent.len() <= LONGEST_NAME
    }
}

// === impl Security ===

impl Security {
    async fn open(&self, stream: TcpStream, address: SocketAddr) -> io::Result<(Stream, Peer)> {
        stream.set_nodelay(true)?;
        let address = Some(address);
        let Self::Tls(certificates) = self else {
            let peer = Peer { address, name: None, plaintext: true, anybody: true };
            return Ok((Stream::Plain(stream), peer));
        };
        let config = certificates.config();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let name = leaf.and_then(common_name);
        let peer = Peer { address, name, plaintext: false, anybody: certificates.elsewhere };
        Ok((Stream::Tls(Box::new(stream)), peer))
    }
}

// === impl Guests ===

impl Guests {
    /// Gives a peer its place: an agent one of `places`, any other peer one that soon ends.
    async fn seat(&self, stream: Stream, peer: Peer, places: Arc<Semaphore>) -> io::Result<Connection> {
        let is_stranger = !peer.plaintext && peer.name.is_none();
        let (most, time) = if is_stranger { (STRANGERS, STRANGER) } else { (OF_ONE_AGENT, Duration::MAX) };
        let end: End = if peer.plaintext {
            // They are all of this host, and none has a name.
            Box::pin(pending())
        } else {
            let replaced = self.come(peer.name.clone(), most);
            Box::pin(async move { drop(timeout(time, replaced).await) })
        };
        let place = if is_stranger { None } else { Some(places.acquire_owned().await) };
        let place = place.transpose().map_err(io::Error::other)?;
        Ok(Connection { stream, peer, end: Some(end), _place: place })
    }

    /// What comes back when the connection is to make room for a later one.
    fn come(&self, name: Option<String>, most: usize) -> oneshot::Receiver<()> {
        let (end, replaced) = oneshot::channel();
        let mut guests = locks::lock(&self.0);
        let same = guests.entry(name).or_default();
        same.retain(|guest| !guest.is_closed());
        if same.len() >= most {
            // That its sender is gone ends it.
            same.pop_front();
        }
        same.push_back(end);
        replaced
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

// === impl Certificates ===

impl Certificates {
    /// Reads the files. `elsewhere`: agents have certificates of the operator's and are not enrolled here.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn open(files: Files, elsewhere: bool) -> Result<Self, TlsError> {
        let current = Mutex::new((files.versions(), files.load()?));
        Ok(Self { files, current, elsewhere })
    }

    /// As the files are now. Where they cannot be used what was read before is, and that is told.
    fn config(&self) -> Arc<ServerConfig> {
        let mut current = locks::lock(&self.current);
        let versions = self.files.versions();
        if versions != current.0 {
            match self.files.load() {
                Ok(config) => *current = (versions, config),
                Err(error) => tracing::warn!("the certificate of before stays in use: {error}"),
            }
        }
        Arc::clone(&current.1)
    }
}

// === impl Files ===

impl Files {
    /// Those that [`crate::ca::create`] makes.
    #[must_use]
    pub fn own(dir: &Path) -> Self {
        let file = |name| dir.join(name);
        Self { certificate: file("server.pem"), key: file("server.pem"), client_roots: file("ca.pem") }
    }

    fn versions(&self) -> Vec<Version> {
        let version = |path: &PathBuf| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.ino()))
        };
        [&self.certificate, &self.key, &self.client_roots].into_iter().map(version).collect()
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, &error))?;
        let mut roots = RootCertStore::empty();
        for root in certificates(&self.client_roots)? {
            roots.add(root).map_err(|error| wrong(&self.client_roots, &error))?;
        }
        let provider = Arc::new(default_provider());
        // Without a certificate one can enrol, and nothing else.
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build();
        let verifier = verifier.map_err(|error| TlsError::Config(error.to_string()))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key));
        let mut config = config.map_err(|error| TlsError::Config(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|error| wrong(path, &error))? {
        chain if chain.is_empty() => Err(wrong(path, &"there is no certificate in it")),
        chain => Ok(chain),
    }
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::File { path: path.to_owned(), error: error.to_string() }
}

// === impl Connection ===

impl Connection {
    /// Fails when it is to be closed. Whatever is done with it asks: from a peer that takes nothing nothing is read either.
    fn go_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(end) = &mut self.end
            && end.as_mut().poll(context).is_pending()
        {
            return Ok(());
        }
        self.end = None;
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.go_on(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, to),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, to),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.go_on(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.go_on(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.go_on(context)?;
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
