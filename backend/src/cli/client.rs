//! Reaches the backend of a data directory by its socket. Where none runs nothing is opened: to look would be to make a log,
//! to drop what is old and to keep the backend that is about to start from doing so.

use std::{io, path::Path};

use anyhow::{Context as _, Result, anyhow};
use hyper_util::rt::TokioIo;
use nightjar_proto::backend::v1::backend_client::BackendClient;
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::server;

/// Asks a backend.
pub type Client = BackendClient<Channel>;

/// Connects to the backend of `dir`.
///
/// # Errors
/// When none runs.
pub async fn connect(dir: &Path) -> Result<Client> {
    let path = server::socket(dir);
    match UnixStream::connect(&path).await {
        Ok(stream) => over(stream).await,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let dir = dir.display();
            Err(anyhow!("no backend runs on {dir}; start one by nightjar-backend --data {dir} serve"))
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
