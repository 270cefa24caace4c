//! What the subcommands ask of a backend: on its unix socket while it runs, in the same process while it does not.

mod counts;
mod events;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use nightjar_proto::{
    backend::v1::{
        self as api, ClearConfigurationRequest, ClearConfigurationResponse, Configuration,
        CreateTokenRequest, CreateTokenResponse, EventsRequest, EventsResponse, GetAgentRequest,
        GetAgentResponse, GetStatusRequest, GetStatusResponse, ListAgentsRequest, ListAgentsResponse,
        ListConfigurationsRequest, ListConfigurationsResponse, ListGapsRequest, ListGapsResponse,
        RevokeRequest, RevokeResponse, SetConfigurationRequest, SetConfigurationResponse, TailRequest,
        TailResponse, backend_server,
    },
    v1::TailStart,
};
use nightjar_show::expression::Expression;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    ca::{self, Authority},
    control::LastTold,
    locks,
    registry::{AdmissionError, Agent, FindError, Registry, configuration::ConfigurationError},
    store::{
        Store,
        damage::Damage,
        index::{Gap, Index, Position, Stream},
    },
    tails::{Tail, TailError, Tails},
};

/// Where agents reach a backend that does not say.
const PORT: u16 = 4317;

/// The service, and what it tells of.
#[derive(Clone)]
pub struct Admin {
    /// What is kept.
    pub store: Arc<Store>,
    /// Who may publish.
    pub registry: Arc<Registry>,
    /// Who enrols agents. None: nobody, as with certificates of the operator's.
    pub authority: Option<Arc<Authority>>,
    /// Who watches.
    pub tails: Arc<Tails>,
    /// How agents do.
    pub last_told: Arc<LastTold>,
    /// Where it listens, if it does.
    pub address: Option<SocketAddr>,
}

// === impl Admin ===

impl Admin {
    fn agent(&self, index: &Index, id: String, agent: Agent, connected: bool) -> api::Agent {
        let positions = || index.of_agent(&id).map(|(_, position)| position);
        api::Agent {
            missing: positions().map(Position::missing).sum(),
            told_lost: positions().map(Position::told_lost).sum(),
            wanted_configuration: self.registry.wanted_version(&id),
            id,
            host: agent.host,
            version: agent.version,
            enrolled: agent.enrolled,
            last_seen: agent.last_seen,
            connected,
            revoked: agent.revoked,
            lag: agent.lag,
            sensors_served: agent.sensors_served,
            sensors: agent.sensors,
            certificate_ends: agent.certificate_ends,
            configuration: agent.configuration,
            answered: agent.answer.at,
            answer: agent.answer.message(),
        }
    }

    /// As agents on other hosts would call it, where it listens for such.
    fn reached_by(&self, authority: &Authority) -> Result<String, Status> {
        let names = authority.names().map_err(|error| Status::internal(error.to_string()))?;
        let only_here = self.address.is_none_or(|address| address.ip().is_loopback());
        let fits = |name: &&String| ca::LOOPBACK.contains(&name.as_str()) == only_here;
        let name = names.iter().find(fits).or(names.first()).map_or("localhost", String::as_str);
        let port = self.address.map_or(PORT, |address| address.port());
        Ok(if name.contains(':') { format!("[{name}]:{port}") } else { format!("{name}:{port}") })
    }
}

#[tonic::async_trait]
impl backend_server::Backend for Admin {
    type EventsStream = ReceiverStream<Result<EventsResponse, Status>>;
    type TailStream = ReceiverStream<Result<TailResponse, Status>>;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let wanted = events::wanted(&request);
        // Before the cursor: what is committed from here on is not missed.
        let committed = self.store.state().committed.subscribe();
        let cursor = if request.only_new { self.store.follow(wanted) } else { self.store.read(wanted) };
        let (events, responses) = mpsc::channel(4);
        tokio::spawn(events::send(cursor, request.follow, committed, events));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn list_gaps(&self, _: Request<ListGapsRequest>) -> Result<Response<ListGapsResponse>, Status> {
        let index = locks::read(&self.store.state().index);
        let gaps = index.iter().flat_map(|(stream, position)| position.rows().map(|row| gap(stream, row)));
        let mut gaps: Vec<_> = gaps.collect();
        drop(index);
        let state = self.store.state();
        gaps.extend(locks::lock(&state.damages).values().map(|damage| damage_row(&state.dir, damage)));
        Ok(Response::new(ListGapsResponse { gaps }))
    }

    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let index = locks::read(&self.store.state().index);
        let agents = self.registry.agents().into_iter();
        let agents = agents.map(|(id, agent, connected)| self.agent(&index, id, agent, connected));
        Ok(Response::new(ListAgentsResponse { agents: agents.collect() }))
    }

    async fn get_agent(
        &self,
        request: Request<GetAgentRequest>,
    ) -> Result<Response<GetAgentResponse>, Status> {
        let id = self.registry.find(&request.into_inner().agent).map_err(|error| not_found(&error))?;
        let found = self.registry.agent(&id);
        let (agent, connected) = found.ok_or_else(|| not_found(&FindError::Nobody(id.clone())))?;
        let told = self.last_told.get(&id);
        let index = locks::read(&self.store.state().index);
        Ok(Response::new(GetAgentResponse {
            agent: Some(self.agent(&index, id, agent, connected)),
            status: told.status(),
            coverage: told.coverage(),
            told: told.at,
        }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let authority = self.authority.as_ref().ok_or_else(|| {
            Status::failed_precondition(
                "this backend has no authority of its own, so agents are not enrolled by tokens: with --plaintext all \
                 are let in, with --certificate the operator gives them certificates; without either run init or serve \
                 first",
            )
        })?;
        let address = self.reached_by(authority)?;
        let valid = Duration::from_nanos(request.into_inner().valid);
        let created = self.registry.aside(move |registry| registry.create_token(valid)).await;
        let (secret, expires) = created.map_err(|error| Status::unavailable(error.to_string()))?;
        let token = format!("{secret}.{}", authority.fingerprint());
        Ok(Response::new(CreateTokenResponse { token, expires, address }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let agent = request.into_inner().agent;
        let revoked = self.registry.aside(move |registry| registry.revoke(&agent)).await;
        revoked.map_err(|error| match error {
            AdmissionError::Unknown(id) => not_found(&FindError::Nobody(id)),
            other => Status::unavailable(other.to_string()),
        })?;
        Ok(Response::new(RevokeResponse {}))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            condition: self.store.condition().to_string(),
            counts: counts::counts(self.store.state()),
            levels: counts::levels(&self.store, &self.registry, &self.tails),
        }))
    }

    async fn set_configuration(
        &self,
        request: Request<SetConfigurationRequest>,
    ) -> Result<Response<SetConfigurationResponse>, Status> {
        let SetConfigurationRequest { agents, configuration_yaml, policies } = request.into_inner();
        let set =
            move |registry: &Registry| registry.set_configuration(&agents, configuration_yaml, policies);
        let version = self.registry.aside(set).await.map_err(|error| not_set(&error))?;
        tracing::info!("configuration {version} is set");
        Ok(Response::new(SetConfigurationResponse { version }))
    }

    async fn list_configurations(
        &self,
        _: Request<ListConfigurationsRequest>,
    ) -> Result<Response<ListConfigurationsResponse>, Status> {
        let configurations = self.registry.configurations().into_iter();
        let configurations = configurations.map(|(agent, configuration)| Configuration {
            agent,
            set: configuration.set,
            update: Some(configuration.update()),
        });
        Ok(Response::new(ListConfigurationsResponse { configurations: configurations.collect() }))
    }

    async fn clear_configuration(
        &self,
        request: Request<ClearConfigurationRequest>,
    ) -> Result<Response<ClearConfigurationResponse>, Status> {
        let agents = request.into_inner().agents;
        let cleared = self.registry.aside(move |registry| registry.clear_configuration(&agents)).await;
        cleared.map_err(|error| not_set(&error))?;
        Ok(Response::new(ClearConfigurationResponse {}))
    }

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let TailRequest { agent, kinds, r#where, since, most_events } = request.into_inner();
        if !r#where.is_empty() {
            Expression::compile(&r#where).map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        let agent = self.registry.find(&agent).map_err(|error| not_found(&error))?;
        let start = TailStart { id: String::new(), kinds, r#where, since, most_events };
        let tail = self.tails.start(&agent, start).map_err(|error| no_tail(&error))?;
        let (parts, responses) = mpsc::channel(1);
        tokio::spawn(hand_on(tail, parts));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// Hands on what comes until it ends, or nobody watches.
async fn hand_on(mut tail: Tail, to: mpsc::Sender<Result<TailResponse, Status>>) {
    loop {
        let part = tokio::select! {
            part = tail.next() => part,
            () = to.closed() => return,
        };
        let response = match part {
            None => return,
            // Its bytes count until there is room for the next one.
            Some(Ok(part)) => Ok(TailResponse { events: part.events.clone(), missed: part.missed }),
            Some(Err(error)) => Err(no_tail(&error)),
        };
        if to.send(response).await.is_err() {
            return;
        }
    }
}

fn gap(stream: &Stream, gap: &Gap) -> api::Gap {
    api::Gap {
        agent: stream.agent.clone(),
        boot: stream.boot.clone(),
        epoch: stream.epoch,
        lane: stream.lane,
        from: gap.from,
        to: gap.to,
        since: gap.since,
        reason: gap.reason.clone(),
        events: gap.events,
        first_time: gap.first_time,
        last_time: gap.last_time,
    }
}

/// A file that was damaged has batches of many agents.
fn damage_row(dir: &Path, damage: &Damage) -> api::Gap {
    let file = damage.path.strip_prefix(dir).unwrap_or(&damage.path).display();
    let Damage { hour, events, noticed, .. } = damage;
    let reason = format!("a file of the backend is damaged: {file}, of batches that came at {hour}");
    api::Gap { since: *noticed, reason, events: *events, ..api::Gap::default() }
}

fn not_found(error: &FindError) -> Status {
    match error {
        FindError::Nobody(_) => Status::not_found(error.to_string()),
        FindError::Many(..) => Status::invalid_argument(error.to_string()),
    }
}

fn not_set(error: &ConfigurationError) -> Status {
    match error {
        ConfigurationError::Registry(_) => Status::unavailable(error.to_string()),
        ConfigurationError::Unknown(_) => Status::not_found(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}

fn no_tail(error: &TailError) -> Status {
    match error {
        TailError::Agent(_) => Status::aborted(error.to_string()),
        TailError::TooMany => Status::resource_exhausted(error.to_string()),
        TailError::Away | TailError::Busy | TailError::Gone => Status::unavailable(error.to_string()),
    }
}
