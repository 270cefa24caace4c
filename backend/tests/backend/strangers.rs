//! Peers that nobody knows, and that are many.

use std::{
    fs, io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, pem::PemObject},
    },
};

use crate::{
    access::{enrol, secure},
    client::{Answer, Stream, batch},
    process::{Backend, free_address, printed},
};

/// Connections of agents that the backend is told to allow.
const CONNECTIONS: usize = 4;
/// More than there may be handshakes at once.
const STALLING: usize = 700;

/// A TLS connection without a certificate, on which nothing is ever said.
async fn stranger(address: SocketAddr, dir: &Path) -> io::Result<TlsStream<TcpStream>> {
    stranger_on(TcpStream::connect(address).await?, dir).await
}

async fn stranger_on(stream: TcpStream, dir: &Path) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("tls/ca.pem")).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await
}

/// When the backend closes it.
async fn closed(mut stream: TlsStream<TcpStream>) -> Instant {
    // Settings of HTTP/2 come first.
    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
    Instant::now()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_take_no_place_of_an_agent_and_do_not_stay() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let connections = CONNECTIONS.to_string();
    let backend = Backend::start(dir.path(), free_address(), &["--connections", &connections]);
    let address = backend.address;
    let token = printed(dir.path(), &["token"]);
    let (enrolled, identity) = enrol(address, dir.path(), token.trim()).await.unwrap();
    let root = fs::read_to_string(dir.path().join("tls/ca.pem")).unwrap();

    let (mut idle, start) = (Vec::new(), Instant::now());
    for _ in 0..100 {
        idle.push(stranger(address, dir.path()).await.unwrap());
    }
    let idle: Vec<_> = idle.into_iter().map(|stream| tokio::spawn(closed(stream))).collect();
    let mut stalling = Vec::new();
    for _ in 0..STALLING {
        stalling.push(TcpStream::connect(address).await.unwrap());
    }

    let served = async {
        let channel = secure(address, &root, Some(&identity)).await;
        let mut stream = Stream::open(channel, &enrolled.agent_id).await.unwrap();
        stream.send(batch(&enrolled.agent_id, 1, 10)).await;
        assert!(matches!(stream.answer().await, Answer::Acknowledged(1)));
        // Nor is anybody kept from being enrolled.
        let token = printed(dir.path(), &["token"]);
        let (second, identity) = enrol(address, dir.path(), token.trim()).await.unwrap();
        let channel = secure(address, &root, Some(&identity)).await;
        Stream::open(channel, &second.agent_id).await.unwrap();
    };
    timeout(Duration::from_secs(12), served).await.expect("an agent found no place");
    for stream in idle {
        let age = stream.await.unwrap() - start;
        assert!(age < Duration::from_secs(25), "a stranger stayed for {age:?}");
    }
    drop(stalling);
    backend.stop();
}

/// Asks again and again whether the backend is there and never reads that it is, until that closes the connection.
async fn ask_and_hear_nothing(mut stream: TlsStream<TcpStream>) {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let mut bytes = [PREFACE, SETTINGS].concat();
    while stream.write_all(&bytes).await.is_ok() {
        bytes = PING.repeat(1000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_that_hears_nothing_does_not_stay_either() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &[]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(backend.address).await.unwrap();
    let stream = stranger_on(stream, dir.path()).await.unwrap();
    let asking = timeout(Duration::from_secs(25), ask_and_hear_nothing(stream));
    asking.await.expect("it is there after 25 s");
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_agent_takes_no_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &["--connections", "12"]);
    let address = backend.address;
    let root = fs::read_to_string(dir.path().join("tls/ca.pem")).unwrap();
    let mut agents = Vec::new();
    for _ in 0..2 {
        let token = printed(dir.path(), &["token"]);
        agents.push(enrol(address, dir.path(), token.trim()).await.unwrap());
    }
    let (greedy, other) = (&agents[0], &agents[1]);
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(secure(address, &root, Some(&greedy.1)).await);
    }
    let channel = secure(address, &root, Some(&other.1)).await;
    assert!(Stream::open(channel, &other.0.agent_id).await.is_ok());
    // The latest of the many is served too.
    let latest = held.pop().unwrap();
    assert!(Stream::open(latest, &greedy.0.agent_id).await.is_ok());
    backend.stop();
}
