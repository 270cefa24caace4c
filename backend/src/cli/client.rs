//! Reaches the backend of a data directory: by its socket if one runs, else by opening the directory here.

use std::{io, path::Path, sync::Arc};

use anyhow::{Context as _, Result, anyhow};
use hyper_util::rt::TokioIo;
use nightjar_proto::backend::v1::{backend_client::BackendClient, backend_server::BackendServer};
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint, Server},
};

use crate::{
    admin::Admin,
    ca::{self, Authority},
    registry::Registry,
    server,
    store::{Limits, Store},
};

/// Asks a backend.
pub type Client = BackendClient<Channel>;

/// Bytes that may be under way within this process.
const PIPE: usize = 256 << 10;

/// Connects to the backend of `dir`.
///
/// # Errors
/// When none runs and the directory cannot be opened.
pub async fn connect(dir: &Path) -> Result<Client> {
    let path = server::socket(dir);
    match UnixStream::connect(&path).await {
        Ok(stream) => over(stream).await,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let (here, there) = tokio::io::duplex(PIPE);
            // What there is not is not to be made by looking.
            anyhow::ensure!(dir.is_dir(), "{} is not there; give --data, or start with init", dir.display());
            let store = Arc::new(Store::open(dir, Limits { reserve_bytes: 0, ..Limits::default() })?);
            let own = server::tls_dir(dir);
            let admin = Admin {
                store,
                registry: Arc::new(Registry::open(dir)?),
                authority: ca::exists(&own).then(|| Authority::open(&own)).transpose()?.map(Arc::new),
                tails: Arc::default(),
                last_told: Arc::default(),
                address: None,
            };
            let server = Server::builder().add_service(BackendServer::new(admin));
            let once = tokio_stream::once(io::Result::Ok(there));
            tokio::spawn(server.serve_with_incoming(once));
            over(here).await
        }
        Err(error) => Err(error).with_context(|| format!("cannot reach the backend by {}", path.display())),
    }
}

async fn over<S>(stream: S) -> Result<Client>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let mut stream = Some(stream);
    let connector = tower::service_fn(move |_| {
        let stream = stream.take().map(TokioIo::new);
        async move { stream.ok_or_else(|| io::Error::other("the backend went away")) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await;
    Ok(BackendClient::new(channel.context("the backend does not answer")?))
}

/// What the backend said.
#[allow(clippy::needless_pass_by_value, reason = "what map_err takes")]
pub fn told(status: Status) -> anyhow::Error {
    anyhow!("{}", status.message())
}
