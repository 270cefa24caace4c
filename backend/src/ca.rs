//! A small certificate authority of the backend's own: one root, in `DIR/tls`, that signs the backend's certificate and
//! those of agents.
//!
//! ```text
//! ca.pem      root, for agents to check the backend against
//! ca.key      its key, readable by the owner alone
//! server.pem  certificate of the backend
//! server.key  its key
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};

use crate::hour::now;

const DAY: Duration = Duration::from_hours(24);

/// How long the root is good for.
const ROOT: Duration = Duration::from_hours(3650 * 24);
/// How long the backend's certificate is good for.
const SERVER: Duration = Duration::from_hours(825 * 24);
/// How long an agent's certificate is good for.
pub const AGENT: Duration = Duration::from_hours(365 * 24);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file cannot be used.
    #[error("{path}: {error}", path = .path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is there already.
    #[error(
        "{path} has an authority already; a new one would shut all agents out. Remove it by hand if that is meant",
        path = .path.display()
    )]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// What was to be signed is wrong.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Signs certificates of agents.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
}

/// A certificate for an agent.
pub struct Signed {
    /// For the agent.
    pub certificate_pem: String,
    /// What the agent checks the backend against.
    pub root_pem: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
}

/// Makes a root, and a certificate for a backend that has these names.
///
/// # Errors
/// When there is one, or the files cannot be written.
pub fn create(dir: &Path, names: Vec<String>) -> Result<(), CaError> {
    if dir.join("ca.key").exists() {
        return Err(CaError::Exists { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(|error| CaError::File { path: dir.to_owned(), error })?;
    let mut params = params("Nightjar", Vec::new(), ROOT)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let first = names.first().cloned().unwrap_or_default();
    let server = self::params(&first, names, SERVER)?;
    let server = leaf(server, ExtendedKeyUsagePurpose::ServerAuth).signed_by(&key, &root)?;
    // The key of the root is last: with it the authority is there.
    let files = [
        ("server.key", key.serialize_pem()),
        ("server.pem", server.pem()),
        ("ca.pem", root.pem()),
        ("ca.key", root.key().serialize_pem()),
    ];
    files.iter().try_for_each(|(name, content)| write(&dir.join(name), content))
}

fn params(name: &str, names: Vec<String>, valid: Duration) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = date_time_ymd(1970, 1, 1) + Duration::from_nanos(now());
    // Clocks of hosts differ.
    params.not_before = now - DAY;
    params.not_after = now + valid;
    Ok(params)
}

fn leaf(mut params: CertificateParams, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Keys are for the owner alone; the rest is public.
fn write(path: &Path, content: &str) -> Result<(), CaError> {
    let mode = if path.extension().is_some_and(|extension| extension == "key") { 0o600 } else { 0o644 };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| CaError::File { path: path.to_owned(), error })
}

// === impl Authority ===

impl Authority {
    /// Of a directory that [`create`] has filled.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let read = |name| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|error| CaError::File { path, error })
        };
        let (root_pem, key) = (read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?);
        let issuer = Issuer::from_ca_cert_pem(&root_pem, key)?;
        Ok(Self { issuer, root_pem })
    }

    /// Signs the key of a request for an agent with that name. Nothing else of the request counts.
    ///
    /// # Errors
    /// When the request is no PKCS #10 request, or not signed by its own key.
    pub fn sign(&self, csr_pem: &str, agent: &str) -> Result<Signed, CaError> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)?;
        self.sign_key(&request.public_key, agent, AGENT)
    }

    /// Signs a key for an agent.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn sign_key(
        &self,
        key: &impl PublicKeyData,
        agent: &str,
        valid: Duration,
    ) -> Result<Signed, CaError> {
        let params = leaf(params(agent, Vec::new(), valid)?, ExtendedKeyUsagePurpose::ClientAuth);
        let certificate = params.signed_by(key, &self.issuer)?;
        let expires = now() / 1_000_000_000 + valid.as_secs();
        Ok(Signed { certificate_pem: certificate.pem(), root_pem: self.root_pem.clone(), expires })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_for_the_owner_alone_and_no_authority_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), vec!["localhost".to_owned()]).unwrap();
        for (name, mode) in [("ca.key", 0o600), ("server.key", 0o600), ("ca.pem", 0o644)] {
            let found = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
        assert!(matches!(create(dir.path(), vec![]), Err(CaError::Exists { .. })));
    }

    #[test]
    fn names_in_a_request_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), vec!["localhost".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let request =
            CertificateParams::new(vec!["admin".to_owned()]).unwrap().serialize_request(&key).unwrap();
        let signed = Authority::open(dir.path()).unwrap().sign(&request.pem().unwrap(), "a1").unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(signed.certificate_pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        assert_eq!(certificate.subject().to_string(), "CN=a1");
        assert_eq!(certificate.subject_alternative_name().unwrap(), None);
        assert!(Authority::open(dir.path()).unwrap().sign("nonsense", "a1").is_err());
    }
}
