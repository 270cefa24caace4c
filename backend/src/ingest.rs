//! Takes the streams of agents.
//!
//! Memory is bounded at three places: HTTP/2 windows before a message is read, one message of each agent that is being
//! read, and what waits for the disk ([`Store::append`]). Where the disk is slow the last is full, no further message
//! is read, the windows fill and the agents wait.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use nightjar_proto::v1::{
    Ack, Batch, Hello, LanePosition, PublishRequest, PublishResponse, Refusal, Refused, Welcome,
    ingest_server, publish_request, publish_response,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    check,
    hour::now,
    locks,
    registry::{self, AdmissionError, Kind, Registry, Session},
    store::{
        Pending, Store, StoreError,
        index::{Index, Stream},
    },
    tls::Peer,
};

/// The one schema of the protocol that there is so far.
const SCHEMA: u32 = 1;

/// How long an agent may take to say who it is.
const HELLO: Duration = Duration::from_secs(30);

/// How long a stream that ends waits for what is on its way to the disk, and for an agent that does not read what it is told.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// When an agent may come back that was refused because of the store.
const RETRY: Duration = Duration::from_secs(2);

/// When one may come back whose place another connection took.
const REPLACED: Duration = Duration::from_secs(10);

/// Least and most that one agent may have under way, in bytes.
const CREDIT: std::ops::RangeInclusive<u64> = 256 << 10..=4 << 20;

/// Batches of one agent that may wait for an acknowledgement.
const MOST_WAITING: usize = 256;

/// Most streams of which one agent may say what was acknowledged.
const MOST_STREAMS: usize = 64;

/// The service.
#[derive(Clone)]
pub struct Ingest {
    store: Arc<Store>,
    registry: Arc<Registry>,
    /// What all agents together may have under way.
    credit: u64,
}

/// What goes back to the agent. An error: it went away.
type ToAgent = mpsc::Sender<Result<PublishResponse, Status>>;

/// What was acknowledged to an agent, as it says itself and since: where a stream begins that the store does not know, be
/// it that the agent has a new name or the store is a new one, or that the stream was forgotten because it was silent.
struct Acknowledged(Mutex<BTreeMap<Stream, u64>>);

/// Why a stream ends.
enum End {
    /// Something that the agent is to hear.
    Refused(Refused),
    /// The agent went away.
    Gone,
}

// === impl Ingest ===

impl Ingest {
    /// Takes batches into `store`, from agents that `registry` lets in.
    #[must_use]
    pub fn new(store: Arc<Store>, registry: Arc<Registry>, credit: u64) -> Self {
        Self { store, registry, credit }
    }

    fn credit(&self) -> u64 {
        let sessions = u64::try_from(self.registry.sessions()).unwrap_or(u64::MAX).max(1);
        (self.credit / sessions).clamp(*CREDIT.start(), *CREDIT.end())
    }

    async fn serve(self, peer: Peer, mut requests: Streaming<PublishRequest>, to_agent: ToAgent) {
        let end = match self.greet(&peer, &mut requests, &to_agent).await {
            Ok((session, acknowledged)) => self.take(session, &acknowledged, requests, &to_agent).await,
            Err(end) => end,
        };
        if let End::Refused(refused) = end {
            let message = publish_response::Message::Refused(refused);
            let told = to_agent.send(Ok(PublishResponse { message: Some(message) }));
            let _gone = timeout(LAST_ANSWERS, told).await;
        }
    }

    async fn greet(
        &self,
        peer: &Peer,
        requests: &mut Streaming<PublishRequest>,
        to_agent: &ToAgent,
    ) -> Result<(Session, Acknowledged), End> {
        let first = timeout(HELLO, requests.message()).await;
        let first = first.map_err(|_| End::Gone)?.map_err(|_| End::Gone)?.ok_or(End::Gone)?;
        let Some(publish_request::Message::Hello(hello)) = first.message else {
            return Err(refused(Refusal::Protocol, "the first message must be hello"));
        };
        let schema = speaks(hello.schema, hello.oldest_schema);
        let schema = schema.map_err(|detail| refused(Refusal::Schema, detail))?;
        if !peer.is(&hello.agent_id) {
            let name = peer.name.as_deref().unwrap_or("none");
            let detail = format!("agent {:?} came with a certificate of {name}", hello.agent_id);
            return Err(refused(Refusal::UnknownAgent, detail));
        }
        let (host, version) = (&hello.host, &hello.agent_version);
        let session = self.registry.admit(&hello.agent_id, host, version, peer.anybody, Kind::Publishing);
        let session = session.map_err(|error| {
            let reason = match error {
                AdmissionError::Unknown(_) => Refusal::UnknownAgent,
                AdmissionError::Revoked(_) => Refusal::Revoked,
                AdmissionError::Registry(_) => Refusal::Busy,
            };
            refused(reason, error.to_string())
        })?;
        let welcome = Welcome {
            schema,
            acknowledged: acknowledged(&locks::read(&self.store.state().index), &hello),
            credit_bytes: self.credit(),
            max_uncompressed_bytes: check::MOST_UNCOMPRESSED as u64,
        };
        answer(to_agent, publish_response::Message::Welcome(welcome)).await?;
        Ok((session, Acknowledged::said(&hello)))
    }

    /// Takes batches until the agent goes away, is revoked, or something is refused.
    async fn take(
        &self,
        session: Session,
        acknowledged: &Acknowledged,
        mut requests: Streaming<PublishRequest>,
        to_agent: &ToAgent,
    ) -> End {
        let (waiting, to_acknowledge) = mpsc::channel(MOST_WAITING);
        let acknowledging =
            self.acknowledge(session.agent().to_owned(), acknowledged, to_acknowledge, to_agent);
        tokio::pin!(acknowledging);
        // Above what the agent is told, so that one who keeps to it never waits here.
        let in_flight = Arc::new(Semaphore::new(2 * usize::try_from(*CREDIT.end()).expect("credit fits")));
        let result = loop {
            let message = tokio::select! {
                message = requests.message() => message,
                end = &mut acknowledging => return end,
                end = session.ended() => return ended(end),
            };
            let batch = match message {
                Ok(Some(PublishRequest { message: Some(publish_request::Message::Batch(batch)) })) => batch,
                Ok(Some(PublishRequest { message: Some(publish_request::Message::Hello(_)) })) => {
                    break refused(Refusal::Protocol, "hello is only the first message");
                }
                // A message of a newer agent.
                Ok(Some(PublishRequest { message: None })) => continue,
                Ok(None) | Err(_) => break End::Gone,
            };
            tokio::select! {
                taken = self.one(&session, acknowledged, batch, &in_flight, &waiting, to_agent) => match taken {
                    Ok(()) => {}
                    Err(end) => break end,
                },
                end = &mut acknowledging => return end,
                // Not even for what is on its way to the disk: that may take as long as the disk does.
                end = session.ended() => return ended(end),
            }
        };
        // What is on its way to the disk is acknowledged all the same.
        drop(waiting);
        tokio::select! {
            end = timeout(LAST_ANSWERS, acknowledging) => match end {
                Ok(end @ End::Refused(_)) => end,
                _ => result,
            },
            end = session.ended() => ended(end),
        }
    }

    async fn one(
        &self,
        session: &Session,
        acknowledged: &Acknowledged,
        batch: Batch,
        in_flight: &Arc<Semaphore>,
        waiting: &mpsc::Sender<(LanePosition, Pending, OwnedSemaphorePermit)>,
        to_agent: &ToAgent,
    ) -> Result<(), End> {
        if batch.agent_id != session.agent() {
            return Err(refused(
                Refusal::Protocol,
                format!("a batch of another agent, {:?}", batch.agent_id),
            ));
        }
        let stream = Stream::of(&batch);
        let position = position(&stream, batch.sequence);
        if let Err(error) = check::check(&batch) {
            let (reason, batch) = (Refusal::Batch.into(), Some(position));
            let refused = Refused { reason, detail: error.to_string(), batch, ..Refused::default() };
            return answer(to_agent, publish_response::Message::Refused(refused)).await;
        }
        session.note(|agent| {
            if batch.last_time > 0 {
                agent.lag = now().saturating_sub(batch.last_time);
            }
        });
        let bytes = u32::try_from(batch.events.len() + 1).unwrap_or(u32::MAX);
        let permit = Arc::clone(in_flight).acquire_many_owned(bytes).await.map_err(|_| End::Gone)?;
        let starts_after = acknowledged.of(&stream);
        let pending = self.store.append(batch, starts_after).await.map_err(|error| by_store(&error))?;
        waiting.send((position, pending, permit)).await.map_err(|_| End::Gone)
    }

    /// Acknowledges in the order of arrival. After a batch that could not be stored there is no further
    /// acknowledgement, as it would be one of that batch too.
    async fn acknowledge(
        &self,
        agent: String,
        acknowledged: &Acknowledged,
        mut waiting: mpsc::Receiver<(LanePosition, Pending, OwnedSemaphorePermit)>,
        to_agent: &ToAgent,
    ) -> End {
        while let Some((position, pending, permit)) = waiting.recv().await {
            if let Err(error) = pending.outcome().await {
                return by_store(&error);
            }
            drop(permit);
            let LanePosition { boot_id, epoch, lane, sequence } = position;
            acknowledged.raise(Stream { agent: agent.clone(), boot: boot_id.clone(), epoch, lane }, sequence);
            let ack = Ack { boot_id, epoch, lane, sequence, credit_bytes: self.credit() };
            if let Err(end) = answer(to_agent, publish_response::Message::Ack(ack)).await {
                return end;
            }
        }
        End::Gone
    }
}

// === impl Acknowledged ===

impl Acknowledged {
    fn said(hello: &Hello) -> Self {
        let stream = |said: &LanePosition| Stream {
            agent: hello.agent_id.clone(),
            boot: said.boot_id.clone(),
            epoch: said.epoch,
            lane: said.lane,
        };
        let said = hello.resume_after.iter().filter(|said| said.sequence > 0).take(MOST_STREAMS);
        Self(Mutex::new(said.map(|said| (stream(said), said.sequence)).collect()))
    }

    fn of(&self, stream: &Stream) -> u64 {
        locks::lock(&self.0).get(stream).copied().unwrap_or(0)
    }

    fn raise(&self, stream: Stream, sequence: u64) {
        let mut known = locks::lock(&self.0);
        if known.len() < MOST_STREAMS || known.contains_key(&stream) {
            let highest = known.entry(stream).or_default();
            *highest = sequence.max(*highest);
        }
    }
}

#[tonic::async_trait]
impl ingest_server::Ingest for Ingest {
    type PublishStream = ReceiverStream<Result<PublishResponse, Status>>;

    async fn publish(
        &self,
        request: Request<Streaming<PublishRequest>>,
    ) -> Result<Response<Self::PublishStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the connection has no peer"))?;
        let (to_agent, responses) = mpsc::channel(16);
        tokio::spawn(self.clone().serve(peer, request.into_inner(), to_agent));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

/// The schema that both sides speak.
///
/// # Errors
/// Says why there is none.
pub fn speaks(newest: u32, oldest: u32) -> Result<u32, String> {
    let oldest = if oldest == 0 { newest } else { oldest };
    if (oldest..=newest).contains(&SCHEMA) {
        return Ok(SCHEMA);
    }
    Err(format!(
        "the agent speaks schema {oldest} to {newest}, this backend {SCHEMA}; update the older of them"
    ))
}

async fn answer(to_agent: &ToAgent, message: publish_response::Message) -> Result<(), End> {
    to_agent.send(Ok(PublishResponse { message: Some(message) })).await.map_err(|_| End::Gone)
}

fn refused(reason: Refusal, detail: impl Into<String>) -> End {
    End::Refused(Refused { reason: reason.into(), detail: detail.into(), ..Refused::default() })
}

/// A session that another one ended. One that was replaced does not come back at once: two hosts with one certificate
/// would take the place of each other for ever.
fn ended(end: registry::End) -> End {
    let (reason, retry_after) = match end {
        registry::End::Revoked => (Refusal::Revoked, 0),
        registry::End::Replaced => (Refusal::Replaced, crate::hour::nanoseconds(REPLACED)),
    };
    End::Refused(Refused { reason: reason.into(), detail: end.to_string(), retry_after, batch: None })
}

fn by_store(error: &StoreError) -> End {
    let reason = match error {
        StoreError::Full(_) | StoreError::Failing(_) => Refusal::StoreFull,
        StoreError::Closed => Refusal::Busy,
    };
    let retry_after = crate::hour::nanoseconds(RETRY);
    End::Refused(Refused { reason: reason.into(), detail: error.to_string(), retry_after, batch: None })
}

fn position(stream: &Stream, sequence: u64) -> LanePosition {
    LanePosition { boot_id: stream.boot.clone(), epoch: stream.epoch, lane: stream.lane, sequence }
}

/// Up to where the agent need not send: before the first number that is missing and that nothing explains.
fn acknowledged(index: &Index, hello: &Hello) -> Vec<LanePosition> {
    let asked = |stream: &Stream| {
        stream.boot == hello.boot_id || hello.resume_after.iter().any(|asked| asked.boot_id == stream.boot)
    };
    let streams = index.of_agent(&hello.agent_id).filter(|(stream, _)| asked(stream));
    let known = streams.map(|(stream, known)| {
        let first_missing = known.unexplained().next().map(|gap| gap.from - 1);
        position(stream, first_missing.unwrap_or(known.last))
    });
    known.collect()
}
