//! Speaking to a running agent by its socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::settings;
use anyhow::{Result, anyhow};
use clap::Args;
use hyper_util::rt::TokioIo;
use nightjar_proto::agent::v1::agent_client::AgentClient;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code,
    transport::{Channel, Endpoint, Uri},
};

/// How long an agent may take to answer.
pub(super) const LONGEST_ANSWER: Duration = Duration::from_secs(5);

/// Which agent.
#[derive(Debug, Clone, Args)]
pub(super) struct Target {
    /// Name of the agent, where it is not the usual one
    #[arg(long, value_name = "NAME")]
    instance: Option<String>,

    /// Socket of the agent, where it is not the usual one of its name
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Why there is no agent to speak to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// Nobody listens.
    #[error("no agent answers on {}", .0.display())]
    Nobody(PathBuf),
    /// The mode of the socket.
    #[error(
        "{} may only be read by root and members of the agent's socket.group: use sudo, or ask to be made a member",
        .0.display()
    )]
    Denied(PathBuf),
    /// It takes the connection and says nothing.
    #[error("the agent on {} does not answer: it hangs, or too many are connected", .0.display())]
    Silent(PathBuf),
    /// Something else.
    #[error("cannot speak to the agent on {}", .0.display())]
    Other(PathBuf, #[source] io::Error),
}

impl Target {
    /// Takes what was not said from the configuration.
    ///
    /// # Errors
    /// When the configuration was named and is wrong. The usual one may be unreadable to whoever asks.
    pub(super) fn or_configured(&self, file: Option<&PathBuf>) -> Result<Self> {
        if self.is_named() {
            return Ok(self.clone());
        }
        let configured = match settings::load(file, &[], None) {
            Ok(loaded) => loaded.config.socket_path(),
            Err(error) if file.is_some() => return Err(error.into()),
            Err(_) => return Ok(self.clone()),
        };
        Ok(Self { socket: Some(configured), ..self.clone() })
    }

    /// Path of the socket.
    pub(super) fn path(&self) -> PathBuf {
        let instance = self.instance.as_deref().unwrap_or("default");
        self.socket.clone().unwrap_or_else(|| format!("/run/nightjar/{instance}.sock").into())
    }

    /// Whether somebody said which agent is meant.
    pub(super) fn is_named(&self) -> bool {
        self.socket.is_some() || self.instance.is_some()
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<AgentClient<Channel>, ConnectError> {
        let path = self.path();
        // The transport would hide why.
        match UnixStream::connect(&path).await {
            Ok(_) => {}
            Err(error) => return Err(explain(path, error)),
        }
        let to = path.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let to = to.clone();
            async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(to).await?)) }
        });
        // The name means nothing on a unix socket, but HTTP wants one.
        let endpoint = Endpoint::from_static("http://nightjar");
        let channel = endpoint.connect_with_connector(connector);
        let channel =
            timeout(LONGEST_ANSWER, channel).await.map_err(|_| ConnectError::Silent(path.clone()))?;
        let channel = channel.map_err(|error| ConnectError::Other(path, io::Error::other(error)))?;
        Ok(AgentClient::new(channel))
    }
}

fn explain(path: PathBuf, error: io::Error) -> ConnectError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ConnectError::Nobody(path),
        io::ErrorKind::PermissionDenied => ConnectError::Denied(path),
        _ => ConnectError::Other(path, error),
    }
}

/// Whether the agent answered, and would answer the same again.
pub(super) fn is_final(status: &tonic::Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::ResourceExhausted
    )
}

/// What the agent said, for people.
pub(super) fn refused(path: &Path, status: &tonic::Status) -> anyhow::Error {
    match status.code() {
        _ if is_final(status) => anyhow!("{}", status.message()),
        Code::Unavailable if !status.message().is_empty() => {
            anyhow!("{}: {}", path.display(), status.message())
        }
        _ => anyhow!("the agent on {} does not answer as it should: {}", path.display(), status.message()),
    }
}
