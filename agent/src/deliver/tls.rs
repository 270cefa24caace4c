//! Mutual TLS to the backend, from files that may be replaced while the agent runs.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Where keys and certificates are, in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsFiles {
    /// Certificates of the authorities that may have signed the backend's. No others are trusted.
    pub authority: PathBuf,
    /// The agent's certificate, with those between it and an authority that the backend trusts.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not as it should be.
    #[error("{}: {problem}; it must be a PEM file with {wanted}, as `nightjar enrol` writes it", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What was expected in it.
        wanted: &'static str,
        /// What was found.
        problem: pem::Error,
    },
    /// The certificate does not say whose it is.
    #[error("{} has no X.509 certificate with a common name; enrol this agent again", .0.display())]
    Nameless(PathBuf),
    /// The files do not fit each other.
    #[error("{} cannot be used with its key: {problem}; enrol this agent again", path.display())]
    Pair {
        /// The certificate.
        path: PathBuf,
        /// What does not fit.
        problem: rustls::Error,
    },
}

/// What the files are good for.
#[derive(Clone, Debug)]
pub struct Identity {
    /// For connections.
    pub config: Arc<ClientConfig>,
    /// Name of the agent: the common name in its certificate.
    pub name: String,
    /// When its certificate ends.
    pub expires: SystemTime,
}

/// The identity made of the files as they are.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    /// What the files were like when they were last read, whether they could be used or not.
    seen: Option<Stamp>,
    identity: Option<Identity>,
}

/// What tells that a file was replaced or written: of each its inode, size and time of change.
type Stamp = [(u64, u64, i64, i64); 3];

// === impl TlsFiles ===

impl TlsFiles {
    /// `ca.pem`, `agent.pem` and `agent.key` in a directory, as enrolment writes them.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            authority: directory.join("ca.pem"),
            certificate: directory.join("agent.pem"),
            key: directory.join("agent.key"),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    /// When one is missing or wrong, or when certificate and key do not fit.
    pub fn read(&self) -> Result<Identity, TlsError> {
        let roots = roots(certificates(&self.authority, "certificates of authorities")?);
        let chain = certificates(&self.certificate, "the agent's certificate")?;
        let (name, expires) =
            subject(&chain[0]).ok_or_else(|| TlsError::Nameless(self.certificate.clone()))?;
        let wanted = "the agent's key";
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(|problem| TlsError::File { path: self.key.clone(), wanted, problem })?;
        let pair = |problem| TlsError::Pair { path: self.certificate.clone(), problem };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(pair)?;
        let mut config =
            builder.with_root_certificates(roots).with_client_auth_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Identity { config: Arc::new(config), name, expires })
    }
}

// === impl Tls ===

impl Tls {
    /// Reads nothing yet.
    #[must_use]
    pub fn new(files: TlsFiles) -> Self {
        Self { files, seen: None, identity: None }
    }

    /// Reads the files again if they were changed. True: there is another identity now. As long as what was changed cannot
    /// be used, as when only one of two files was replaced yet, what was read before stays in use.
    ///
    /// # Errors
    /// When the files cannot be used and never could.
    pub fn refresh(&mut self) -> Result<bool, TlsError> {
        // Taken before they are read: what changes meanwhile is noticed the next time.
        let stamp = self.stamp().ok();
        if self.identity.is_some() && stamp == self.seen {
            return Ok(false);
        }
        self.seen = stamp;
        match self.files.read() {
            Ok(identity) => {
                self.identity = Some(identity);
                Ok(true)
            }
            Err(error) if self.identity.is_some() => {
                tracing::warn!(%error, "the certificates were changed and cannot be used; using those of before");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The identity of the files as they are, or as they last could be used.
    ///
    /// # Errors
    /// When the files cannot be used and never could.
    ///
    /// # Panics
    /// Never: without an identity there is an error.
    pub fn identity(&mut self) -> Result<&Identity, TlsError> {
        self.refresh()?;
        Ok(self.identity.as_ref().expect("files that could be read give an identity"))
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let mut stamp = Stamp::default();
        let TlsFiles { authority, certificate, key } = &self.files;
        for (stamp, path) in stamp.iter_mut().zip([authority, certificate, key]) {
            let metadata = std::fs::metadata(path)?;
            *stamp = (metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec());
        }
        Ok(stamp)
    }
}

/// A store of the certificates that can be a root.
pub(crate) fn roots(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    roots
}

/// All certificates of a PEM file; at least one.
pub(crate) fn certificates(
    path: &Path,
    wanted: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let error = |problem| TlsError::File { path: path.to_owned(), wanted, problem };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match found {
        Ok(found) if found.is_empty() => Err(error(pem::Error::NoItemsFound)),
        found => found.map_err(error),
    }
}

/// Common name, and when the certificate ends.
fn subject(certificate: &CertificateDer<'_>) -> Option<(String, SystemTime)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Some((name, UNIX_EPOCH + Duration::from_secs(seconds)))
}
