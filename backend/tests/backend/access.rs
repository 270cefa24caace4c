//! Who is let in.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use nightjar_proto::v1::{EnrolRequest, EnrolResponse, Refusal, enrolment_client::EnrolmentClient};
use rcgen::{CertificateParams, KeyPair};
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
    process::{Backend, free_address, printed, run},
};

/// A key, and its certificate.
struct Identity(KeyPair, String);

/// By TLS, with a certificate or without.
async fn secure(address: SocketAddr, root: &str, identity: Option<&Identity>) -> Channel {
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

async fn enrol(address: SocketAddr, dir: &Path, token: &str) -> Result<(EnrolResponse, Identity), Status> {
    let root = std::fs::read_to_string(dir.join("tls/ca.pem")).unwrap();
    let key = KeyPair::generate().unwrap();
    let request =
        CertificateParams::new(vec!["anything".to_owned()]).unwrap().serialize_request(&key).unwrap();
    let request = EnrolRequest {
        token: token.to_owned(),
        csr_pem: request.pem().unwrap(),
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
async fn two_commands_and_a_token_let_an_agent_in_and_revocation_shuts_it_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    printed(path, &["init"]);
    let token = printed(path, &["token"]).trim().to_owned();
    let backend = Backend::start(path, free_address(), &[]);
    let address = backend.address;

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
    assert!(!run(path, &["revoke", "nobody"]).status.success());
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
