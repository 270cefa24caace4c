//! Renewal: before its certificate ends, the agent asks for another, on the connection that it has.
//!
//! The key stays, so that one file alone is replaced, in one step: there is no moment at which certificate and key do not
//! fit. The client sees that the file is another and connects with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nightjar_proto::v1::{RenewRequest, enrolment_client::EnrolmentClient};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::tls::{TlsError, TlsFiles};

/// How long before its end a certificate is renewed.
const BEFORE: Duration = Duration::from_hours(30 * 24);
/// How often is looked whether it is time.
const LOOK: Duration = Duration::from_hours(1);
/// After a connection was made: others come back at the same time.
const PAUSE: Duration = Duration::from_secs(5);

/// Why there is no other certificate.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// The identity that there is cannot be used.
    #[error(transparent)]
    Identity(#[from] TlsError),
    /// The key cannot be used.
    #[error("cannot ask with the key that there is: {0}")]
    Key(#[from] rcgen::Error),
    /// The backend said no.
    #[error("the backend does not renew it: {}", .0.message())]
    Refused(#[from] tonic::Status),
    /// A file cannot be written.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        problem: io::Error,
    },
}

/// Renews the certificate in a directory whenever it is time and there is a connection.
pub async fn run(directory: PathBuf, mut connection: watch::Receiver<Option<Channel>>) {
    loop {
        let channel = connection.borrow_and_update().clone();
        if let Some(channel) = channel {
            tokio::time::sleep(PAUSE).await;
            match renew(&directory, channel, SystemTime::now() + BEFORE).await {
                Ok(true) => tracing::info!("the certificate of this agent was renewed"),
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    "the certificate of this agent ends soon and is not renewed: {error}; it is tried again"
                ),
            }
        }
        let changed = tokio::time::timeout(LOOK, connection.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            return;
        }
    }
}

/// Renews the certificate if it ends before a time. Whether it did.
///
/// # Errors
/// When the backend says no, or files cannot be read or written. Then the one that there is stays.
pub async fn renew(directory: &Path, channel: Channel, before: SystemTime) -> Result<bool, RenewError> {
    let files = TlsFiles::in_directory(directory);
    if files.read()?.expires > before {
        return Ok(false);
    }
    let failed = |path: &Path, problem| RenewError::File { path: path.to_owned(), problem };
    let key = fs::read_to_string(&files.key).map_err(|problem| failed(&files.key, problem))?;
    let key = KeyPair::from_pem(&key)?;
    let csr_pem = CertificateParams::new(Vec::new())?.serialize_request(&key)?.pem()?;
    let renewed = EnrolmentClient::new(channel).renew(RenewRequest { csr_pem }).await?.into_inner();
    let new = TlsFiles { certificate: directory.join("agent.pem.new"), ..files.clone() };
    let written = fs::File::create(&new.certificate).and_then(|mut file| {
        io::Write::write_all(&mut file, renewed.certificate_pem.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|problem| failed(&new.certificate, problem))?;
    // Nothing that does not fit takes the place of what does.
    new.read()?;
    let moved = fs::rename(&new.certificate, &files.certificate);
    moved
        .and_then(|()| fs::File::open(directory)?.sync_all())
        .map_err(|problem| failed(directory, problem))?;
    Ok(true)
}
