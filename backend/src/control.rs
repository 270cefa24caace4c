//! Hears how agents do.

use std::{sync::Arc, time::Duration};

use nightjar_proto::v1::{
    AgentMessage, BackendMessage, ControlWelcome, Sensor, agent_message, backend_message, control_server,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    ingest::SCHEMA,
    registry::{Registry, Session},
    tls::Peer,
};

/// How often agents tell.
const STATUS: Duration = Duration::from_secs(30);

/// The service.
#[derive(Clone)]
pub struct Control {
    registry: Arc<Registry>,
}

// === impl Control ===

impl Control {
    /// Takes note in `registry`.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }
}

#[tonic::async_trait]
impl control_server::Control for Control {
    type ConnectStream = ReceiverStream<Result<BackendMessage, Status>>;

    async fn connect(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection has no peer"))?;
        let mut messages = request.into_inner();
        let (to_agent, answers) = mpsc::channel(4);
        let registry = Arc::clone(&self.registry);
        tokio::spawn(async move {
            if let Err(status) = converse(&registry, &peer, &mut messages, &to_agent).await {
                let _gone = to_agent.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

async fn converse(
    registry: &Arc<Registry>,
    peer: &Peer,
    messages: &mut Streaming<AgentMessage>,
    to_agent: &mpsc::Sender<Result<BackendMessage, Status>>,
) -> Result<(), Status> {
    let first = messages.message().await?.and_then(|first| first.message);
    let Some(agent_message::Message::Hello(hello)) = first else {
        return Err(Status::failed_precondition("the first message must be hello"));
    };
    if peer.name.as_ref() != Some(&hello.agent_id) && !peer.plaintext {
        return Err(Status::permission_denied("the agent's name is not that of its certificate"));
    }
    let admitted = registry.admit(&hello.agent_id, &hello.host, &hello.agent_version, peer.plaintext);
    let mut session = admitted.map_err(|error| Status::permission_denied(error.to_string()))?;
    let status_interval = crate::hour::nanoseconds(STATUS);
    let welcome = backend_message::Message::Welcome(ControlWelcome { schema: SCHEMA, status_interval });
    let _gone = to_agent.send(Ok(BackendMessage { message: Some(welcome) })).await;
    loop {
        let message = tokio::select! {
            message = messages.message() => message?,
            () = session.revoked() => return Err(Status::permission_denied("the agent was revoked")),
        };
        match message.map(|message| message.message) {
            None => return Ok(()),
            Some(Some(agent_message::Message::Coverage(coverage))) => note(&session, &coverage.sensors),
            Some(Some(agent_message::Message::Status(status))) => note(&session, &status.sensors),
            Some(_) => session.note(|_| {}),
        }
    }
}

fn note(session: &Session, sensors: &[Sensor]) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let served = sensors.iter().filter(|sensor| !sensor.hook.is_empty()).count();
    session.note(|agent| (agent.sensors_served, agent.sensors) = (count(served), count(sensors.len())));
}
