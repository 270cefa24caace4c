//! A small certificate authority of the backend's own: one root, in `DIR/tls`, that signs the backend's certificate and
//! those of agents.
//!
//! ```text
//! ca.pem      root, for agents to check the backend against
//! ca.key      its key, readable by the owner alone
//! server.pem  key of the backend, its certificate, and the root: an agent that has only the root's fingerprint sees by
//!             what is sent to it that the root is the right one; readable by the owner alone
//! ```

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, date_time_ymd,
};
use ring::digest;
use x509_parser::{
    pem::Pem,
    prelude::{GeneralName, X509Certificate},
};

use crate::{hour::now, store::sync_dir};

/// Names by which only this host is meant.
pub const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

const DAY: Duration = Duration::from_hours(24);

/// How long the root is good for.
const ROOT: Duration = Duration::from_hours(3650 * 24);
/// How long the backend's certificate is good for.
const SERVER: Duration = Duration::from_hours(825 * 24);
/// The backend's certificate is made again when it is good for no longer than this.
const RENEWAL: Duration = Duration::from_hours(60 * 24);
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
    /// A file is no certificate.
    #[error("{path} is not a certificate in PEM; put it back as it was", path = .path.display())]
    NoCertificate {
        /// Which one.
        path: PathBuf,
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

/// Signs certificates of agents and of the backend.
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    root_pem: String,
    fingerprint: String,
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

/// What stands in the backend's certificate.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    /// Names and addresses that agents may reach it by.
    names: Vec<String>,
    /// When it ends, in seconds since 1970.
    expires: u64,
}

/// Names for a backend's certificate: those that are asked for, the host's own, and those for this host alone.
#[must_use]
pub fn all_names(asked: &[String]) -> Vec<String> {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let others = [host].into_iter().chain(LOOPBACK.map(str::to_owned));
    let mut names: Vec<String> = Vec::new();
    for name in asked.iter().cloned().chain(others).filter(|name| !name.is_empty()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Whether a directory has an authority.
#[must_use]
pub fn exists(dir: &Path) -> bool {
    dir.join("ca.key").exists()
}

/// Makes a root, and a certificate for a backend that has these names.
///
/// # Errors
/// When there is one, or the files cannot be written.
pub fn create(dir: &Path, names: &[String]) -> Result<(), CaError> {
    if exists(dir) {
        return Err(CaError::Exists { path: dir.to_owned() });
    }
    fs::create_dir_all(dir).map_err(|error| CaError::File { path: dir.to_owned(), error })?;
    let mut params = params("Nightjar", Vec::new(), ROOT)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let server = server(&root, &root.pem(), names, SERVER)?;
    // The key of the root is last: with it the authority is there.
    let files = [("server.pem", server), ("ca.pem", root.pem()), ("ca.key", root.key().serialize_pem())];
    files.iter().try_for_each(|(name, content)| write(&dir.join(name), content))
}

/// Key, certificate and root, one after another.
fn server(
    issuer: &Issuer<'_, KeyPair>,
    root_pem: &str,
    names: &[String],
    valid: Duration,
) -> Result<String, CaError> {
    let key = KeyPair::generate()?;
    let first = names.first().cloned().unwrap_or_default();
    let params = leaf(params(&first, names.to_vec(), valid)?, ExtendedKeyUsagePurpose::ServerAuth);
    let certificate = params.signed_by(&key, issuer)?;
    Ok([key.serialize_pem().as_str(), certificate.pem().as_str(), root_pem].concat())
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

/// Takes the place of what is there in one step. What has a key in it is for the owner alone; the root is public.
fn write(path: &Path, content: &str) -> Result<(), CaError> {
    let mode = if content.contains("PRIVATE KEY") { 0o600 } else { 0o644 };
    let temporary = path.with_extension("tmp");
    let written = || {
        let _left_by_a_crash = fs::remove_file(&temporary);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), sync_dir)
    };
    written().map_err(|error| CaError::File { path: path.to_owned(), error })
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|error| CaError::File { path: path.to_owned(), error })
}

/// The first certificate of a file.
fn first_certificate(path: &Path) -> Result<Pem, CaError> {
    let text = read(path)?;
    let mut sections = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    let found = sections.find(|section| section.label == "CERTIFICATE");
    found.ok_or_else(|| CaError::NoCertificate { path: path.to_owned() })
}

// === impl Server ===

impl Server {
    fn read(path: &Path) -> Result<Self, CaError> {
        let pem = first_certificate(path)?;
        let certificate = pem.parse_x509().map_err(|_| CaError::NoCertificate { path: path.to_owned() })?;
        let expires = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        Ok(Self { names: names(&certificate), expires })
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.map_or(&[][..], |names| names.value.general_names.as_slice());
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| IpAddr::from(bytes).to_string())).ok()
        }
        _ => None,
    };
    names.iter().filter_map(name).collect()
}

// === impl Authority ===

impl Authority {
    /// Of a directory that [`create`] has filled.
    ///
    /// # Errors
    /// When a file cannot be read, or is not what it should be.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let root_pem = read(&dir.join("ca.pem"))?;
        let issuer = Issuer::from_ca_cert_pem(&root_pem, KeyPair::from_pem(&read(&dir.join("ca.key"))?)?)?;
        let root = first_certificate(&dir.join("ca.pem"))?;
        let digest = digest::digest(&digest::SHA256, &root.contents);
        Ok(Self { dir: dir.to_owned(), issuer, root_pem, fingerprint: URL_SAFE_NO_PAD.encode(digest) })
    }

    /// By what an agent that has no certificate yet knows the root: SHA-256 of its DER, in base64 for URLs without
    /// padding.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Names and addresses in the backend's certificate.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self) -> Result<Vec<String>, CaError> {
        Ok(Server::read(&self.dir.join("server.pem"))?.names)
    }

    /// Makes the backend's certificate again where it ends soon, is missing or has not all of these names. Says
    /// whether it did. Those who are connected stay so.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn refresh(&self, wanted: &[String]) -> Result<bool, CaError> {
        let path = self.dir.join("server.pem");
        let soon = now() / 1_000_000_000 + RENEWAL.as_secs();
        let mut names = wanted.to_vec();
        // One that is damaged is as good as none: the names that are wanted are known.
        if let Ok(server) = Server::read(&path) {
            if server.expires > soon && wanted.iter().all(|name| server.names.contains(name)) {
                return Ok(false);
            }
            names.extend(server.names.into_iter().filter(|name| !wanted.contains(name)));
        }
        write(&path, &server(&self.issuer, &self.root_pem, &names, SERVER)?)?;
        Ok(true)
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
    use super::*;

    #[test]
    fn keys_are_for_the_owner_alone_and_no_authority_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &["localhost".to_owned()]).unwrap();
        for (name, mode) in [("ca.key", 0o600), ("server.pem", 0o600), ("ca.pem", 0o644)] {
            let found = fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{name}");
        }
        assert!(matches!(create(dir.path(), &[]), Err(CaError::Exists { .. })));
    }

    #[test]
    fn names_in_a_request_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path(), &["localhost".to_owned()]).unwrap();
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

    #[test]
    fn the_backends_certificate_is_made_again_before_it_ends_and_for_a_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("server.pem"), ["localhost".to_owned(), "10.1.2.3".to_owned()]);
        create(dir.path(), &old).unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        assert!(!authority.refresh(&old).unwrap());

        let ends_soon = server(&authority.issuer, &authority.root_pem, &old, RENEWAL / 2).unwrap();
        write(&path, &ends_soon).unwrap();
        let expires = Server::read(&path).unwrap().expires;
        assert!(authority.refresh(&[]).unwrap());
        let renewed = Server::read(&path).unwrap();
        assert!(renewed.expires > expires + 600 * DAY.as_secs());
        assert_eq!(renewed.names, old);

        assert!(authority.refresh(&["::1".to_owned()]).unwrap());
        assert_eq!(authority.names().unwrap(), ["::1", "localhost", "10.1.2.3"]);
        fs::write(&path, "torn").unwrap();
        assert!(authority.refresh(&old).unwrap());
        assert_eq!(authority.names().unwrap(), old);
    }
}
