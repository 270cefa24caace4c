//! An HTTP/2 connection to the backend, and what to do when there is none.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::deliver::connect::Target;

/// No connection could be made.
#[derive(Debug, thiserror::Error)]
#[error("the backend {backend} cannot be reached: {}", Explained(.problem))]
pub struct ConnectError {
    backend: String,
    problem: tonic::transport::Error,
}

/// An error with all that caused it, as tonic's own text is only "transport error", and with the mend if one is known.
pub(crate) struct Explained<'a, E>(pub &'a E);

const ANOTHER_AUTHORITY: &str =
    "another authority has signed it: is it the right backend? Enrol this agent again if it was set up anew";
/// What to do where the agent's own certificate is too old.
pub(crate) const CERTIFICATE_ENDED: &str = "this agent's certificate has ended; enrol it again";
const ANOTHER_BACKEND: &str = "this agent's certificate is of another backend; enrol it again";

/// What is in a text of rustls or the system, and what to do then. The first that fits counts.
const MENDS: &[(&str, &str)] = &[
    ("certificate: UnknownIssuer", ANOTHER_AUTHORITY),
    ("certificate: BadSignature", ANOTHER_AUTHORITY),
    ("certificate: certificate expired", "renew it on the backend, or set the clock of this host right"),
    ("certificate: certificate not valid yet", "set the clock of this host right, or that of the backend"),
    (
        "certificate: certificate not valid for name",
        "use a name that the certificate has, or set the server name",
    ),
    ("alert: CertificateExpired", CERTIFICATE_ENDED),
    ("alert: CertificateRequired", "the backend wants a certificate of this agent; enrol it"),
    ("alert: UnknownCA", ANOTHER_BACKEND),
    ("alert: DecryptError", ANOTHER_BACKEND),
    ("alert: BadCertificate", ANOTHER_BACKEND),
    ("corrupt message", "it does not speak TLS there; check the port, and that the backend has TLS"),
    ("keep-alive timed out", "the backend does not answer; check that it is not stopped or overloaded"),
    ("Connection refused", "check address and port, and that nightjar-backend runs there"),
    ("failed to lookup address", "check the name of the backend, and DNS on this host"),
];

/// Connects once: when the connection is over, the channel is over. `ping_every` is how often a ping is sent and how long
/// its answer may take; without it there are none.
///
/// # Errors
/// When there is no way, when it is not the backend that answers, or when it does not speak TLS.
pub(crate) async fn open(
    target: &Target,
    tls: Option<Arc<ClientConfig>>,
    ping_every: Option<Duration>,
    agent_version: &str,
) -> Result<Channel, ConnectError> {
    let failed = |problem| ConnectError { backend: target.to_string(), problem };
    // The scheme of the endpoint would make tonic do TLS; the connector does.
    let endpoint = Endpoint::from_static("http://backend").origin(target.origin());
    let mut endpoint = endpoint.user_agent(format!("nightjar/{agent_version}")).map_err(failed)?;
    if let Some(every) = ping_every {
        endpoint =
            endpoint.http2_keep_alive_interval(every).keep_alive_timeout(every).keep_alive_while_idle(true);
    }
    // tonic would make another connection by itself, with certificates that may be old by then.
    let once = Arc::new(Mutex::new(Some((target.clone(), tls))));
    let connector = service_fn(move |_| {
        let once = once.clone();
        async move {
            let Some((target, tls)) = once.lock().await.take() else {
                return Err(io::Error::from(io::ErrorKind::NotConnected));
            };
            Ok(TokioIo::new(target.connect(tls).await?))
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(failed)
}

// === impl Explained ===

impl<E: Error + 'static> fmt::Display for Explained<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: &(dyn Error + 'static) = self.0;
        let causes = std::iter::successors(Some(first), |error| (*error).source());
        let mut texts: Vec<String> = Vec::new();
        for text in causes.map(ToString::to_string) {
            // Some have their cause in their own text.
            if !texts.iter().any(|known| known.contains(&text)) {
                texts.push(text);
            }
        }
        let text = texts.join(": ");
        let mend = MENDS.iter().find(|(needle, _)| text.contains(needle));
        match mend {
            Some((_, mend)) => write!(f, "{text}; {mend}"),
            None => f.write_str(&text),
        }
    }
}
