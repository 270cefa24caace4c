//! Enrolment: a token becomes a certificate of this agent.
//!
//! # Token
//!
//! `<secret>.<fingerprint>`: the secret is what the backend knows (of it, its hash) and what is sent in
//! `EnrolRequest.token`. The fingerprint is the SHA-256 of the certificate (DER) of the authority that has signed the
//! backend's, in base64url without padding, 43 characters. It is never sent. By it the agent knows that it talks to the
//! right backend before it has any file: the backend sends that certificate in its TLS chain, after its own, and the
//! chain is verified with it as the only root. The secret has no dot in it.
//!
//! A token without a fingerprint is as good if the certificate of the authority is given as a file.
//!
//! # Files
//!
//! `ca.pem`, `agent.key` and `agent.pem`, in this order, each made under another name and moved into place when it is
//! durable. An `agent.pem` from before is removed first. So where there is an `agent.pem`, the two others are of it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nightjar_proto::v1::{EnrolRequest, EnrolResponse, enrolment_client::EnrolmentClient};
use rcgen::{CertificateParams, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::time::timeout;

use super::{
    channel::{self, ConnectError, Explained},
    connect::Target,
    tls::{self, Identity, TlsError, TlsFiles},
};

/// What is needed to enrol. It has no `Debug`: the token is a secret.
pub struct Enrolment<'a> {
    /// The backend; not in plaintext.
    pub target: &'a Target,
    /// Certificates of the authority that has signed the backend's, in PEM. Without it the token must have a fingerprint;
    /// with it, a fingerprint does not count.
    pub authority: Option<&'a Path>,
    /// As `nightjar-backend token` printed it.
    pub token: &'a str,
    /// Where the files go; made if need be.
    pub directory: &'a Path,
    /// Name of the host.
    pub host: &'a str,
    /// Version of the agent.
    pub agent_version: &'a str,
    /// Replaces an identity that is still good.
    pub force: bool,
    /// Longest time for all of it.
    pub within: Duration,
}

/// The identity that an agent got.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Enrolled {
    /// Name of the agent.
    pub agent_id: String,
    /// When its certificate ends.
    pub expires: SystemTime,
    /// Where the files are.
    pub files: TlsFiles,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is one.
    #[error("{} has the identity of agent {agent_id} already; use --force to replace it", directory.display())]
    Enrolled {
        /// Where.
        directory: PathBuf,
        /// Whose it is.
        agent_id: String,
    },
    /// The token was cut, or is something else.
    #[error("the token is not one of nightjar-backend; it reads <secret>.<fingerprint>, copy all of it")]
    Token,
    /// Anybody could answer.
    #[error(
        "the token has no fingerprint of the backend's authority; give its certificate as a file (ca.pem of the backend)"
    )]
    NoTrust,
    /// Anybody could listen.
    #[error("{0} is plaintext, which would give the token away; enrol over https://")]
    Plaintext(String),
    /// The file with the authority, or what the backend sent, is not as it should be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The backend said no.
    #[error("the backend does not enrol this agent: {0}")]
    Refused(String),
    /// The connection broke meanwhile.
    #[error("the backend did not answer: {}; the token may be used up, make another if it is", Explained(.0))]
    Broken(tonic::Status),
    /// It took too long.
    #[error("the backend did not answer within {} s; check that it is not stopped or overloaded", .0.as_secs_f32())]
    Hung(Duration),
    /// No key or request could be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("{}: {problem}; the directory must be writable and have room", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        problem: io::Error,
    },
}

/// A token in its parts. The secret is not shown.
struct Token<'a> {
    secret: &'a str,
    fingerprint: Option<[u8; 32]>,
}

/// Takes a chain that ends in the one authority of which the fingerprint is known.
#[derive(Debug)]
struct Pinned {
    fingerprint: [u8; 32],
    provider: Arc<CryptoProvider>,
}

/// Makes a key, has the backend sign it, and writes the files.
///
/// # Errors
/// When there is an identity, when the backend cannot be reached, cannot be trusted or says no, and when the files cannot
/// be written. A token that the backend has taken is used up even if the files could not be written.
pub async fn enrol(enrolment: &Enrolment<'_>) -> Result<Enrolled, EnrolError> {
    let &Enrolment { target, token, directory, within, .. } = enrolment;
    let files = TlsFiles::in_directory(directory);
    let known = files.read().ok().filter(|known| known.expires > SystemTime::now());
    if let Some(Identity { name: agent_id, .. }) = known
        && !enrolment.force
    {
        return Err(EnrolError::Enrolled { directory: directory.to_owned(), agent_id });
    }
    if target.is_plaintext() {
        return Err(EnrolError::Plaintext(target.to_string()));
    }
    let token = Token::parse(token)?;
    let config = trust(enrolment.authority, token.fingerprint)?;
    // Before the token is used up: what is asked for can be kept.
    let staging = Staging::new(directory)?;
    let key = KeyPair::generate()?;
    let csr_pem = CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
    let request = EnrolRequest {
        token: token.secret.to_owned(),
        csr_pem,
        host: enrolment.host.to_owned(),
        version: enrolment.agent_version.to_owned(),
    };
    let response = timeout(within, ask(target, config, enrolment.agent_version, request)).await;
    let response = response.map_err(|_| EnrolError::Hung(within))??;
    let identity = staging.fill(&response, &key)?;
    staging.commit()?;
    Ok(Enrolled { agent_id: identity.name, expires: identity.expires, files })
}

async fn ask(
    target: &Target,
    config: Arc<ClientConfig>,
    agent_version: &str,
    request: EnrolRequest,
) -> Result<EnrolResponse, EnrolError> {
    use tonic::Code;
    let channel = channel::open(target, Some(config), None, agent_version).await?;
    let response = EnrolmentClient::new(channel).enrol(request).await;
    response.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal => EnrolError::Broken(status),
        _ => EnrolError::Refused(status.message().to_owned()),
    })
}

/// The server must be the backend; the agent has nothing to show yet.
fn trust(authority: Option<&Path>, fingerprint: Option<[u8; 32]>) -> Result<Arc<ClientConfig>, EnrolError> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need");
    let mut config = match (authority, fingerprint) {
        (Some(path), _) => {
            let roots = tls::roots(tls::certificates(path, "certificates of authorities")?);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        (None, Some(fingerprint)) => {
            let pinned = Arc::new(Pinned { fingerprint, provider });
            builder.dangerous().with_custom_certificate_verifier(pinned).with_no_client_auth()
        }
        (None, None) => return Err(EnrolError::NoTrust),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

// === impl Token ===

impl<'a> Token<'a> {
    fn parse(text: &'a str) -> Result<Self, EnrolError> {
        let text = text.trim();
        let (secret, fingerprint) = match text.split_once('.') {
            None => (text, None),
            Some((secret, fingerprint)) => {
                let bytes = BASE64_URL_SAFE_NO_PAD.decode(fingerprint).map_err(|_| EnrolError::Token)?;
                (secret, Some(bytes.try_into().map_err(|_| EnrolError::Token)?))
            }
        };
        if secret.is_empty() || secret.contains(char::is_whitespace) {
            return Err(EnrolError::Token);
        }
        Ok(Self { secret, fingerprint })
    }
}

// === impl Pinned ===

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let is_pinned =
            |certificate: &&CertificateDer<'_>| digest(&SHA256, certificate).as_ref() == self.fingerprint;
        let unknown = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let root = intermediates.iter().find(is_pinned).ok_or_else(|| unknown.clone())?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|_| unknown)?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A directory beside the files, of what is not in place yet. It goes away with this.
struct Staging<'a> {
    directory: &'a Path,
    path: PathBuf,
}

// === impl Staging ===

impl<'a> Staging<'a> {
    fn new(directory: &'a Path) -> Result<Self, EnrolError> {
        let path = directory.join(".enrol");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        made.map_err(|problem| EnrolError::File { path: path.clone(), problem })?;
        Ok(Self { directory, path })
    }

    /// Writes the files, and looks whether they are good.
    fn fill(&self, response: &EnrolResponse, key: &KeyPair) -> Result<Identity, EnrolError> {
        let files = TlsFiles::in_directory(&self.path);
        write(&files.authority, &response.ca_pem, 0o644)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        write(&files.certificate, &response.certificate_pem, 0o644)?;
        Ok(files.read()?)
    }

    fn commit(&self) -> Result<(), EnrolError> {
        let (from, to) = (TlsFiles::in_directory(&self.path), TlsFiles::in_directory(self.directory));
        let failed = |path: &Path, problem| EnrolError::File { path: path.to_owned(), problem };
        match fs::remove_file(&to.certificate) {
            Err(problem) if problem.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&to.certificate, problem));
            }
            _ => {}
        }
        let moves = [(from.authority, to.authority), (from.key, to.key), (from.certificate, to.certificate)];
        for (from, to) in &moves {
            fs::rename(from, to).map_err(|problem| failed(to, problem))?;
        }
        let synced = File::open(self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|problem| failed(self.directory, problem))
    }
}

impl Drop for Staging<'_> {
    fn drop(&mut self) {
        // What is left of it is replaced the next time.
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn write(path: &Path, content: &str, mode: u32) -> Result<(), EnrolError> {
    // What an attempt before has left may have another mode.
    let _ = fs::remove_file(path);
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|problem| EnrolError::File { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_a_secret_and_perhaps_a_fingerprint() {
        let fingerprint = BASE64_URL_SAFE_NO_PAD.encode([7; 32]);
        assert_eq!(fingerprint.len(), 43);
        let text = format!(" abc.{fingerprint}\n");
        let token = Token::parse(&text).unwrap();
        assert_eq!((token.secret, token.fingerprint), ("abc", Some([7; 32])));
        assert_eq!(Token::parse("abc").unwrap().fingerprint, None);
    }

    #[test]
    fn a_token_that_was_cut_is_told_without_showing_it() {
        for text in ["", "secret.abc", "secret.", ".abc", "sec ret"] {
            let error = Token::parse(text).err().unwrap();
            assert!(matches!(error, EnrolError::Token), "{text}");
            assert!(!error.to_string().contains("abc"));
        }
    }
}
