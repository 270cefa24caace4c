//! Who is let in.

use std::{fs, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper_util::rt::TokioIo;
use nightjar_proto::v1::{
    EnrolRequest, EnrolResponse, Refusal, RenewRequest, enrolment_client::EnrolmentClient,
};
use rcgen::{CertificateParams, KeyPair};
use ring::digest;
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    client::{Answer, Stream, batch, channel},
    process::{Backend, complaint, free_address, printed, run},
};

/// A key, and its certificate.
pub struct Identity(KeyPair, String);

/// By TLS, with a certificate or without.
pub async fn secure(address: SocketAddr, root: &str, identity: Option<&Identity>) -> Channel {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity(key, certificate)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let stream = connector.connect("localhost".try_into().unwrap(), stream).await?;
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connect).await.unwrap()
}

/// A key, and the request to sign it.
fn key() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let request =
        CertificateParams::new(vec!["anything".to_owned()]).unwrap().serialize_request(&key).unwrap();
    (key, request.pem().unwrap())
}

pub async fn enrol(
    address: SocketAddr,
    dir: &Path,
    token: &str,
) -> Result<(EnrolResponse, Identity), Status> {
    let root = fs::read_to_string(dir.join("tls/ca.pem")).unwrap();
    let (key, csr_pem) = key();
    let request = EnrolRequest {
        token: token.to_owned(),
        csr_pem,
        host: "web-1".to_owned(),
        version: "0.1.0".to_owned(),
    };
    let response =
        EnrolmentClient::new(secure(address, &root, None).await).enrol(request).await?.into_inner();
    let identity = Identity(key, response.certificate_pem.clone());
    Ok((response, identity))
}

fn refusal(answer: Result<Stream, Answer>) -> Option<Refusal> {
    match answer {
        Err(Answer::Refused(refused)) => Some(refused.reason()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_and_a_token_let_an_agent_in_and_revocation_shuts_it_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let backend = Backend::start(path, free_address(), &[]);
    let address = backend.address;
    let output = run(path, &["token"]);
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let hint = String::from_utf8(output.stderr).unwrap();
    let command = format!("nightjar enrol --backend localhost:{} {token}\n", address.port());
    assert!(hint.ends_with(&command), "{hint}");

    let (enrolled, identity) = enrol(address, path, &token).await.unwrap();
    let again = enrol(address, path, &token).await.err().unwrap();
    assert_eq!(again.code(), tonic::Code::PermissionDenied);
    let expired = printed(path, &["token", "--valid", "0s"]).trim().to_owned();
    let late = enrol(address, path, &expired).await.err().unwrap();
    assert!(late.message().contains("expired"), "{late}");

    let connect = || secure(address, &enrolled.ca_pem, Some(&identity));
    let mut stream = Stream::open(connect().await, &enrolled.agent_id).await.unwrap();
    stream.send(batch(&enrolled.agent_id, 1, 10)).await;
    assert!(matches!(stream.answer().await, Answer::Acknowledged(1)));
    // Neither another name nor no certificate, nor no TLS.
    let other = Stream::open(connect().await, "other").await;
    assert_eq!(refusal(other), Some(Refusal::UnknownAgent));
    let nobody = Stream::open(secure(address, &enrolled.ca_pem, None).await, &enrolled.agent_id).await;
    assert_eq!(refusal(nobody), Some(Refusal::UnknownAgent));
    if let Ok(channel) = channel(address).await {
        assert!(matches!(Stream::open(channel, &enrolled.agent_id).await, Err(Answer::Broken)));
    }

    assert!(printed(path, &["agents"]).contains("connected"));
    printed(path, &["revoke", &enrolled.agent_id]);
    let told = timeout(Duration::from_secs(2), stream.answer()).await.unwrap();
    assert!(matches!(told, Answer::Refused(refused) if refused.reason() == Refusal::Revoked));
    let back = Stream::open(connect().await, &enrolled.agent_id).await;
    assert_eq!(refusal(back), Some(Refusal::Revoked));
    assert!(printed(path, &["agents"]).contains("revoked"));
    let (_, csr_pem) = key();
    let renewed = EnrolmentClient::new(connect().await).renew(RenewRequest { csr_pem }).await;
    assert_eq!(renewed.unwrap_err().code(), tonic::Code::PermissionDenied);
    assert!(!run(path, &["revoke", "nobody"]).status.success());
    backend.stop();
}

/// The certificates that a server shows.
async fn shown(address: SocketAddr, root: &str) -> Vec<Vec<u8>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let connector = TlsConnector::from(Arc::new(builder.with_no_client_auth()));
    let stream = TcpStream::connect(address).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap().iter().map(|der| der.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_tells_which_of_the_certificates_that_the_backend_shows_is_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let next = printed(dir.path(), &["init", "--name", "backend.example.org"]);
    let data = dir.path().display();
    let commands =
        format!("  nightjar-backend --data {data} serve\n  nightjar-backend --data {data} token\n");
    assert!(next.ends_with(&commands), "{next}");
    // Nothing is opened where none runs: to ask early must not keep it from starting.
    assert!(complaint(dir.path(), &["token"]).contains("no backend runs"));
    let backend = Backend::start(dir.path(), free_address(), &[]);
    let token = printed(dir.path(), &["token"]);
    let (secret, fingerprint) = token.trim().split_once('.').unwrap();
    let root = fs::read_to_string(dir.path().join("tls/ca.pem")).unwrap();
    let chain = shown(backend.address, &root).await;
    let digest = digest::digest(&digest::SHA256, chain.last().unwrap());
    assert_eq!((chain.len(), URL_SAFE_NO_PAD.encode(digest).as_str()), (2, fingerprint));
    // The part before the dot is enough, and good once.
    enrol(backend.address, dir.path(), secret).await.unwrap();
    assert!(enrol(backend.address, dir.path(), token.trim()).await.is_err());
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_renews_its_certificate_by_the_one_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &[]);
    let token = printed(dir.path(), &["token"]);
    let (enrolled, identity) = enrol(backend.address, dir.path(), token.trim()).await.unwrap();
    let (key, csr_pem) = key();
    let request = RenewRequest { csr_pem };
    let nobody = secure(backend.address, &enrolled.ca_pem, None).await;
    let refused = EnrolmentClient::new(nobody).renew(request.clone()).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);

    let channel = secure(backend.address, &enrolled.ca_pem, Some(&identity)).await;
    let renewed = EnrolmentClient::new(channel).renew(request).await.unwrap().into_inner();
    assert_eq!(renewed.agent_id, enrolled.agent_id);
    let identity = Identity(key, renewed.certificate_pem);
    let channel = secure(backend.address, &renewed.ca_pem, Some(&identity)).await;
    assert!(Stream::open(channel, &renewed.agent_id).await.is_ok());
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_certificates_of_the_operator_are_shown_to_who_connects_next_and_their_agents_need_no_token() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    for authority in [&first, &second] {
        printed(authority, &["init"]);
    }
    let (data, files) = (dir.path().join("data"), dir.path().join("files"));
    fs::create_dir(&files).unwrap();
    let install = |from: &Path| {
        for name in ["server.pem", "ca.pem"] {
            fs::copy(from.join("tls").join(name), files.join(name)).unwrap();
        }
    };
    install(&first);
    let file = |name| files.join(name).to_str().unwrap().to_owned();
    let (server, roots) = (file("server.pem"), file("ca.pem"));
    let arguments = ["--certificate", &server, "--key", &server, "--client-roots", &roots];
    let backend = Backend::start(&data, free_address(), &arguments);
    let root = |of: &Path| fs::read_to_string(of.join("tls/ca.pem")).unwrap();
    let before = shown(backend.address, &root(&first)).await;
    install(&second);
    assert_ne!(shown(backend.address, &root(&second)).await, before);
    assert!(!run(&data, &["token"]).status.success());

    let authority = nightjar_backend::ca::Authority::open(&second.join("tls")).unwrap();
    let (key, request) = key();
    let identity = Identity(key, authority.sign(&request, "web-1").unwrap().certificate_pem);
    let channel = secure(backend.address, &root(&second), Some(&identity)).await;
    assert!(Stream::open(channel, "web-1").await.is_ok());
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_connections_of_one_agent_the_later_goes_on_and_the_earlier_is_told_why_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &["--plaintext", "--reserve", "1"]);
    let open = async || Stream::open(channel(backend.address).await.unwrap(), "a").await.unwrap();
    let mut earlier = open().await;
    earlier.send(batch("a", 1, 10)).await;
    assert!(matches!(earlier.answer().await, Answer::Acknowledged(1)));
    let mut later = open().await;
    let told = timeout(Duration::from_secs(2), earlier.answer()).await.unwrap();
    let Answer::Refused(refused) = told else { panic!("{told:?}") };
    assert_eq!(refused.reason(), Refusal::Replaced);
    assert!(refused.detail.contains("later connection") && refused.retry_after > 0, "{refused:?}");
    // What the earlier one has sent and did not hear of is stored once.
    later.send(batch("a", 1, 10)).await;
    later.send(batch("a", 2, 10)).await;
    assert!(matches!(later.answer().await, Answer::Acknowledged(1)));
    assert!(matches!(later.answer().await, Answer::Acknowledged(2)));
    assert_eq!(backend.number("since_start", "batches_stored"), 2);
    assert_eq!(backend.number("since_start", "duplicate_batches"), 1);
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_not_what_it_says_is_refused_and_the_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &["--plaintext", "--reserve", "1"]);
    let mut stream = Stream::open(channel(backend.address).await.unwrap(), "a").await.unwrap();
    let good = batch("a", 1, 10);
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
    let wrong = [
        nightjar_proto::v1::Batch { count: 6, ..good.clone() },
        nightjar_proto::v1::Batch { uncompressed_bytes: 1, ..good.clone() },
        nightjar_proto::v1::Batch { uncompressed_bytes: 1 << 40, ..good.clone() },
        nightjar_proto::v1::Batch { events: bomb.into(), ..good.clone() },
        nightjar_proto::v1::Batch { lane: 0, ..good.clone() },
        nightjar_proto::v1::Batch { sequence: 0, ..good.clone() },
    ];
    for batch in wrong {
        stream.send(batch).await;
        let answer = stream.answer().await;
        assert!(
            matches!(&answer, Answer::Refused(refused) if refused.reason() == Refusal::Batch),
            "{answer:?}"
        );
    }
    for sequence in [1, 1, 3, 2, 2] {
        stream.send(batch("a", sequence, 10)).await;
        assert!(matches!(stream.answer().await, Answer::Acknowledged(acked) if acked == sequence));
    }
    assert_eq!(backend.number("since_start", "batches_stored"), 3);
    assert_eq!(backend.number("since_start", "duplicate_batches"), 2);
    let shown = printed(dir.path(), &["events", "-o", "json", "--where", "id.endsWith(\"/0\")"]);
    assert_eq!(shown.lines().count(), 3);
    stream.send(batch("b", 4, 10)).await;
    assert!(
        matches!(stream.answer().await, Answer::Refused(refused) if refused.reason() == Refusal::Protocol)
    );
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_does_not_wait_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    // The first batch takes a minute to become durable; there is no room for a second one meanwhile.
    let arguments = ["--plaintext", "--reserve", "1", "--waiting", "64", "--slow-disk", "60000"];
    let backend = Backend::start(dir.path(), free_address(), &arguments);
    let mut stream = Stream::open(channel(backend.address).await.unwrap(), "a").await.unwrap();
    for sequence in 1..=3 {
        stream.send(batch("a", sequence, 12_000)).await;
    }
    while backend.number("now", "waiting_bytes") < 32 << 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    printed(dir.path(), &["revoke", "a"]);
    let answer = timeout(Duration::from_secs(5), stream.answer()).await.unwrap();
    assert!(matches!(answer, Answer::Refused(refused) if refused.reason() == Refusal::Revoked));
    assert_eq!(backend.number("now", "publishing_agents"), 0);
}
