//! Steers agents, and hears how they do.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use nightjar_proto::v1::{
    AgentMessage, BackendMessage, ConfigurationAnswer, ControlHello, ControlWelcome, Coverage, Sensor,
    Status as AgentStatus, agent_message::Message as FromAgent, backend_message::Message as ToAgentMessage,
    control_server,
};
use prost::Message as _;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    hour::now,
    ingest::speaks,
    locks,
    registry::{Kind, Registry, Session, configuration::Answer},
    tails::{Connected, Tails, ToAgent},
    tls::Peer,
};

/// How often agents tell.
const STATUS: Duration = Duration::from_secs(30);

/// How long an agent may take to say who it is, and to take a message.
const PATIENCE: Duration = Duration::from_secs(30);

/// Largest status or coverage that is kept of an agent, encoded. A usual one has a few KiB.
const LARGEST_STATUS: usize = 256 << 10;

/// What agents last told, by their IDs. Encoded, as it is rarely asked for.
#[derive(Default)]
pub struct LastTold(Mutex<BTreeMap<String, Told>>);

/// What one agent last told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    status: Option<Vec<u8>>,
    coverage: Option<Vec<u8>>,
    /// When the status came, in nanoseconds since 1970.
    pub at: u64,
}

/// The service.
#[derive(Clone)]
pub struct Control {
    registry: Arc<Registry>,
    tails: Arc<Tails>,
    last_told: Arc<LastTold>,
}

// === impl LastTold ===

impl LastTold {
    /// Of one agent.
    #[must_use]
    pub fn get(&self, agent: &str) -> Told {
        locks::lock(&self.0).get(agent).cloned().unwrap_or_default()
    }

    fn note(&self, agent: &str, change: impl FnOnce(&mut Told)) {
        change(locks::lock(&self.0).entry(agent.to_owned()).or_default());
    }
}

// === impl Told ===

impl Told {
    /// Its status.
    #[must_use]
    pub fn status(&self) -> Option<AgentStatus> {
        AgentStatus::decode(self.status.as_deref()?).ok()
    }

    /// What it can see.
    #[must_use]
    pub fn coverage(&self) -> Option<Coverage> {
        Coverage::decode(self.coverage.as_deref()?).ok()
    }
}

// === impl Control ===

impl Control {
    /// Takes note in `registry` and `last_told`, and serves `tails`.
    #[must_use]
    pub fn new(registry: Arc<Registry>, tails: Arc<Tails>, last_told: Arc<LastTold>) -> Self {
        Self { registry, tails, last_told }
    }

    async fn converse(
        &self,
        peer: &Peer,
        messages: &mut Streaming<AgentMessage>,
        to_agent: &ToAgent,
    ) -> Result<(), Status> {
        let first = timeout(PATIENCE, messages.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no hello came"))??;
        let Some(FromAgent::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(Status::failed_precondition("the first message must be hello"));
        };
        let session = self.admit(peer, &hello)?;
        let schema = speaks(hello.schema, hello.oldest_schema).map_err(Status::failed_precondition)?;
        let status_interval = crate::hour::nanoseconds(STATUS);
        send(to_agent, ToAgentMessage::Welcome(ControlWelcome { schema, status_interval })).await?;

        let mut changes = self.registry.configuration_changes();
        let mut given = hello.configuration_version;
        session.note(|agent| agent.configuration.clone_from(&given));
        self.give_configuration(&session, &mut given, &mut changes, to_agent).await?;
        let connected = self.tails.connect(session.agent(), to_agent.clone());
        loop {
            tokio::select! {
                message = messages.message() => match message? {
                    None => return Ok(()),
                    Some(AgentMessage { message }) => self.hear(&session, &connected, message),
                },
                end = session.ended() => return Err(Status::permission_denied(end.to_string())),
                _ = changes.changed() => {
                    self.give_configuration(&session, &mut given, &mut changes, to_agent).await?;
                }
            }
        }
    }

    fn admit(&self, peer: &Peer, hello: &ControlHello) -> Result<Session, Status> {
        let id = &hello.agent_id;
        if !peer.is(id) {
            return Err(Status::permission_denied("the agent's name is not that of its certificate"));
        }
        let (host, version) = (&hello.host, &hello.agent_version);
        let admitted = self.registry.admit(id, host, version, peer.anybody, Kind::Control);
        admitted.map_err(|error| Status::permission_denied(error.to_string()))
    }

    /// Sends the configuration that the agent is to have, unless it is the one that it has or was sent last.
    async fn give_configuration(
        &self,
        session: &Session,
        given: &mut String,
        changes: &mut watch::Receiver<u64>,
        to_agent: &ToAgent,
    ) -> Result<(), Status> {
        changes.mark_unchanged();
        let wanted = self.registry.wanted_configuration(session.agent());
        if wanted.version == *given {
            return Ok(());
        }
        given.clone_from(&wanted.version);
        send(to_agent, ToAgentMessage::Configuration(wanted)).await
    }

    fn hear(&self, session: &Session, connected: &Connected, message: Option<FromAgent>) {
        match message {
            Some(FromAgent::Coverage(coverage)) => {
                note_sensors(session, &coverage.sensors);
                let encoded = bounded(coverage.encode_to_vec());
                self.last_told.note(session.agent(), |told| told.coverage = encoded);
            }
            Some(FromAgent::Status(status)) => {
                note_sensors(session, &status.sensors);
                let encoded = bounded(status.encode_to_vec());
                self.last_told.note(session.agent(), |told| (told.status, told.at) = (encoded, now()));
            }
            Some(FromAgent::Configuration(answer)) => note_answer(session, &answer),
            Some(FromAgent::TailEvents(events)) => connected.events(events),
            Some(FromAgent::TailEnded(ended)) => connected.ended(&ended.id, ended.reason),
            // A message of a newer agent.
            None | Some(FromAgent::Hello(_)) => session.note(|_| {}),
        }
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
        let (to_agent, answers) = mpsc::channel(16);
        let control = self.clone();
        tokio::spawn(async move {
            if let Err(status) = control.converse(&peer, &mut messages, &to_agent).await {
                let _gone = timeout(PATIENCE, to_agent.send(Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

/// An agent that takes no messages is not one that can be steered.
async fn send(to_agent: &ToAgent, message: ToAgentMessage) -> Result<(), Status> {
    let sent = timeout(PATIENCE, to_agent.send(Ok(BackendMessage { message: Some(message) }))).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        _ => Err(Status::deadline_exceeded("the agent takes no messages")),
    }
}

fn bounded(encoded: Vec<u8>) -> Option<Vec<u8>> {
    (encoded.len() <= LARGEST_STATUS).then_some(encoded)
}

fn note_sensors(session: &Session, sensors: &[Sensor]) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let served = sensors.iter().filter(|sensor| !sensor.hook.is_empty()).count();
    session.note(|agent| (agent.sensors_served, agent.sensors) = (count(served), count(sensors.len())));
}

fn note_answer(session: &Session, answer: &ConfigurationAnswer) {
    let answer = Answer::of(answer);
    session.note(|agent| {
        if answer.is_applied() {
            agent.configuration.clone_from(&answer.version);
        }
        agent.answer = answer;
    });
}
