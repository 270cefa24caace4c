//! What the subcommands ask of a backend: on its unix socket while it runs, in the same process while it does not.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use nightjar_proto::backend::v1::{
    Agent, Count, CreateTokenRequest, CreateTokenResponse, EventsRequest, EventsResponse, Gap,
    GetStatusRequest, GetStatusResponse, ListAgentsRequest, ListAgentsResponse, ListGapsRequest,
    ListGapsResponse, RevokeRequest, RevokeResponse, backend_server,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use wildmatch::WildMatch;

use crate::{
    locks,
    registry::{AdmissionError, Registry},
    store::{Cursor, Store, index::Position, state::State, wanted::Wanted},
};

/// Bytes of events that go into one message.
const MESSAGE: usize = 64 << 10;

/// The service.
#[derive(Clone)]
pub struct Admin {
    store: Arc<Store>,
    registry: Arc<Registry>,
}

// === impl Admin ===

impl Admin {
    /// Of that store and those agents.
    #[must_use]
    pub fn new(store: Arc<Store>, registry: Arc<Registry>) -> Self {
        Self { store, registry }
    }
}

type Events = mpsc::Sender<Result<EventsResponse, Status>>;

#[tonic::async_trait]
impl backend_server::Backend for Admin {
    type EventsStream = ReceiverStream<Result<EventsResponse, Status>>;

    async fn events(&self, request: Request<EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let globs = |globs: &[String]| globs.iter().map(|glob| WildMatch::new(glob)).collect();
        let wanted = Wanted {
            since: Some(request.since).filter(|time| *time != 0),
            until: Some(request.until).filter(|time| *time != 0),
            kinds: globs(&request.kinds),
            hosts: globs(&request.hosts),
            agents: request.agents,
        };
        let cursor = if request.only_new { self.store.follow(wanted) } else { self.store.read(wanted) };
        let committed = self.store.state().committed.subscribe();
        let (events, responses) = mpsc::channel(4);
        tokio::spawn(send(cursor, request.follow, committed, events));
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn list_gaps(&self, _: Request<ListGapsRequest>) -> Result<Response<ListGapsResponse>, Status> {
        let index = locks::read(&self.store.state().index);
        let gaps = index.iter().flat_map(|(stream, position)| {
            position.gaps.iter().map(|gap| Gap {
                agent: stream.agent.clone(),
                boot: stream.boot.clone(),
                epoch: stream.epoch,
                lane: stream.lane,
                from: gap.from,
                to: gap.to,
                since: gap.since,
                reason: gap.reason.clone(),
                events: gap.events,
            })
        });
        Ok(Response::new(ListGapsResponse { gaps: gaps.collect() }))
    }

    async fn list_agents(
        &self,
        _: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let index = locks::read(&self.store.state().index);
        let missing = |id: &str| {
            let positions = index.of_agent(id).map(|(_, position)| position);
            positions.flat_map(Position::unexplained).map(|gap| gap.to - gap.from + 1).sum()
        };
        let agents = self.registry.agents().into_iter().map(|(id, agent, connected)| Agent {
            missing: missing(&id),
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
        });
        Ok(Response::new(ListAgentsResponse { agents: agents.collect() }))
    }

    async fn create_token(
        &self,
        request: Request<CreateTokenRequest>,
    ) -> Result<Response<CreateTokenResponse>, Status> {
        let created = self.registry.create_token(Duration::from_nanos(request.into_inner().valid));
        let (token, expires) = created.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(CreateTokenResponse { token, expires }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let revoked = self.registry.revoke(&request.into_inner().agent);
        revoked.map_err(|error| match error {
            AdmissionError::Unknown(id) => Status::not_found(format!("there is no agent {id:?}; see agents")),
            other => Status::unavailable(other.to_string()),
        })?;
        Ok(Response::new(RevokeResponse {}))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            condition: self.store.condition().to_string(),
            counts: counts(self.store.state()),
            levels: levels(&self.store, &self.registry),
        }))
    }
}

fn counts(state: &State) -> Vec<Count> {
    let counters = &state.counters;
    let rows = [
        ("batches_stored", &counters.batches),
        ("events_stored", &counters.events),
        ("duplicate_batches", &counters.duplicates),
        ("refused_batches", &counters.refused),
        ("log_syncs", &counters.syncs),
        ("log_bytes", &counters.bytes),
        ("torn_bytes", &counters.torn),
        ("damaged_bytes", &counters.damaged),
        ("damaged_partitions", &counters.damaged_partitions),
        ("dropped_partitions", &counters.dropped_partitions),
        ("maintenance_failures", &counters.maintenance_failures),
    ];
    let count = |(name, counter): (&str, &AtomicU64)| Count {
        name: name.to_owned(),
        value: counter.load(Ordering::Relaxed),
    };
    rows.map(count).into()
}

fn levels(store: &Store, registry: &Registry) -> Vec<Count> {
    let catalog = store.state().catalog();
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let rows = [
        ("sessions", number(registry.sessions())),
        ("waiting_bytes", number(store.waiting_bytes())),
        ("log_files", number(catalog.segments.len())),
        ("live_log_bytes", catalog.segments.values().map(|segment| segment.end()).sum()),
        ("partitions", number(catalog.partitions.len())),
        ("partition_events", catalog.partitions.iter().map(|partition| partition.rows).sum()),
        ("partition_bytes", catalog.partitions.iter().map(|partition| partition.bytes).sum()),
    ];
    rows.map(|(name, value)| Count { name: name.to_owned(), value }).into()
}

/// Sends what a cursor finds, and goes on if asked for. Ends when nobody listens.
async fn send(
    mut cursor: Cursor,
    follow: bool,
    mut committed: tokio::sync::watch::Receiver<u64>,
    events: Events,
) {
    loop {
        committed.mark_unchanged();
        let to = events.clone();
        // Reading blocks, on the disk and on who listens.
        let read = tokio::task::spawn_blocking(move || (read(&mut cursor, &to), cursor)).await;
        let Ok((result, back)) = read else { return };
        cursor = back;
        if result.is_break() || !follow {
            return;
        }
        tokio::select! {
            changed = committed.changed() => if changed.is_err() { return },
            () = events.closed() => return,
        }
    }
}

fn read(cursor: &mut Cursor, to: &Events) -> ControlFlow<()> {
    let mut message = EventsResponse::default();
    let mut bytes = 0;
    let send = |message: EventsResponse| match to.blocking_send(Ok(message)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let mut take = |event: Bytes| {
        bytes += event.len();
        message.events.push(event);
        if bytes < MESSAGE {
            return ControlFlow::Continue(());
        }
        bytes = 0;
        send(std::mem::take(&mut message))
    };
    let result = cursor.read(&mut take);
    if !message.events.is_empty() && send(message).is_break() {
        return ControlFlow::Break(());
    }
    result.unwrap_or_else(|error| {
        let _gone = to.blocking_send(Err(Status::data_loss(error.to_string())));
        ControlFlow::Break(())
    })
}
