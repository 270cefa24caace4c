//! The client of the backend: sends what the spool has, and tells the spool what the backend has.
//!
//! A session is one HTTP/2 stream. It begins with the numbers that are known on both sides, so that nothing is sent twice
//! that the backend has, and nothing is left out. At most as many bytes are under way as the backend gave credit for. A
//! session ends when the connection does, when the backend says so, when it does not answer pings, when it acknowledges
//! nothing for a while although something is under way, and when the certificates on disk were replaced. The next one
//! begins after a wait that grows; the backend may ask for a longer one.
//!
//! What was stored and not acknowledged is stored twice if the agent is enrolled anew meanwhile: the backend knows batches
//! by the name of the agent. So it is after a host was set back to a snapshot, see [`SessionError::SetBack`].
//!
//! A batch that the backend will never accept is told as lost under its own number, and is done with when that is
//! acknowledged. One that is larger than the backend takes is not even sent: that would end the session, each time.

mod config;
mod error;
mod flight;
mod notices;
mod status;
mod wire;

use std::{
    collections::VecDeque,
    convert::Infallible,
    time::{Duration, SystemTime},
};

use nightjar_proto::v1::{
    self as proto, PublishRequest, PublishResponse, Refusal, ingest_client::IngestClient,
    publish_request::Message as Request, publish_response::Message as Response,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

pub use self::{
    config::ClientConfig,
    error::SessionError,
    status::{ClientStatus, State},
};
use self::{
    flight::{Flight, Refused, size},
    notices::Notices,
};
use crate::deliver::{
    backoff::Backoff,
    batch::MOST_COMPRESSED,
    channel::{self, CERTIFICATE_ENDED},
    connect::Target,
    spool::{Content, Entry, Lane, Loss, Position, Reader, Reason},
    tls::Tls,
};

/// The protocol that this client speaks.
const SCHEMA: u32 = 1;

/// Messages that wait for HTTP/2 to take them: the credit is the bound, not this.
const QUEUE: usize = 4;

/// How often the files with certificates are looked at.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);

/// Sends what the spool has.
pub struct Client {
    config: ClientConfig,
    target: Target,
    tls: Option<Tls>,
    reader: Reader,
    notices: Notices,
    status: watch::Sender<ClientStatus>,
    channel: watch::Sender<Option<Channel>>,
}

/// One session.
struct Session {
    agent_id: String,
    requests: mpsc::Sender<PublishRequest>,
    /// Goes out before all else: losses in place of batches that were refused.
    first: VecDeque<Entry>,
    /// Was read and waits to be sent.
    next: Option<Entry>,
    credit: u64,
    /// Most bytes of a batch before compression that the backend takes.
    most_uncompressed: u64,
    flight: Flight,
}

// === impl Client ===

impl Client {
    /// Connects to nothing yet. `tls` is `None` for a plaintext target only.
    #[must_use]
    pub fn new(config: ClientConfig, target: Target, tls: Option<Tls>, reader: Reader) -> Self {
        let mut status = ClientStatus::new(target.to_string());
        status.acknowledged = Lane::ALL.map(|lane| reader.acknowledged(lane));
        let (status, channel) = (watch::Sender::new(status), watch::Sender::default());
        Self { config, target, tls, reader, notices: Notices::default(), status, channel }
    }

    /// How it is, as it changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ClientStatus> {
        self.status.subscribe()
    }

    /// The connection of the session that is open, for other services of the backend. `None` between sessions. A channel
    /// makes no connection by itself: when it is over, the next one comes here.
    #[must_use]
    pub fn channel(&self) -> watch::Receiver<Option<Channel>> {
        self.channel.subscribe()
    }

    /// Delivers until `stop` is done. What is under way then is sent again by the next client, unless the backend says
    /// that it has it.
    ///
    /// It reads from the spool where it runs, without giving way: run it on a thread of its own, in a runtime of that
    /// thread (`tokio::runtime::Builder::new_current_thread`). What shares its connection may run there too, if it can
    /// wait for a disk.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = stop => {}
            never = self.deliver() => match never {},
        }
        self.channel.send_replace(None);
        self.status.send_modify(|status| status.enter(State::Stopped));
    }

    async fn deliver(&mut self) -> Infallible {
        let mut backoff = self.config.backoff.clone();
        loop {
            self.status.send_modify(|status| {
                status.enter(State::Connecting);
                status.attempts += 1;
            });
            let Err(problem) = self.session(&mut backoff).await;
            self.channel.send_replace(None);
            let wait = match &problem {
                SessionError::Renewed => Duration::ZERO,
                SessionError::Refused { retry_after, .. } if problem.is_lasting() => {
                    backoff.longest().max(*retry_after)
                }
                SessionError::Refused { retry_after, .. } => backoff.wait().max(*retry_after),
                _ => backoff.wait(),
            };
            let is_refused = matches!(problem, SessionError::Refused { .. });
            let text = self.explained(&problem);
            // A refusal may have numbers in it that change all the time.
            let what = match &problem {
                SessionError::Refused { reason, .. } => reason.as_str_name(),
                _ => &text,
            };
            let is_due = self.notices.is_due(what, Instant::now());
            if !is_due {
                tracing::debug!(problem = %text, ?wait, "not connected to the backend");
            } else if problem.is_lasting() {
                tracing::error!(problem = %text, ?wait, "not connected to the backend");
            } else {
                tracing::warn!(problem = %text, ?wait, "not connected to the backend");
            }
            self.status.send_modify(|status| {
                status.enter(if is_refused { State::Refused } else { State::Waiting });
                status.last_error = Some(text);
            });
            self.wait(wait).await;
        }
    }

    /// What went wrong. Whoever refuses a certificate cannot always say so before the connection is gone.
    fn explained(&mut self, problem: &SessionError) -> String {
        let ended =
            |tls: &mut Tls| tls.identity().is_ok_and(|identity| identity.expires <= SystemTime::now());
        let text = problem.to_string();
        if !text.contains(CERTIFICATE_ENDED) && self.tls.as_mut().is_some_and(ended) {
            format!("{text}; {CERTIFICATE_ENDED}")
        } else {
            text
        }
    }

    /// Waits, but not when there are other certificates: they may be the mend.
    async fn wait(&mut self, wait: Duration) {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            sleep_until(end.min(Instant::now() + LOOK_AT_FILES)).await;
            if self.is_renewed() {
                return;
            }
        }
    }

    fn is_renewed(&mut self) -> bool {
        // What cannot be read is told when it is needed.
        self.tls.as_mut().is_some_and(|tls| tls.refresh().unwrap_or(false))
    }

    async fn session(&mut self, backoff: &mut Backoff) -> Result<Infallible, SessionError> {
        let after = self.config.connect_timeout;
        let opened = timeout(after, self.open()).await;
        let (mut session, mut responses) =
            opened.map_err(|_| SessionError::Hung { awaited: "connection and welcome", after })??;
        self.status.send_modify(|status| {
            status.enter(State::Connected);
            status.sessions += 1;
        });
        let stalled_after = self.config.stalled_after;
        let mut files = interval(LOOK_AT_FILES);
        files.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A session that is over at once is no success.
        let lasting = sleep(backoff.longest());
        tokio::pin!(lasting);
        let mut is_lasting = false;
        loop {
            if session.next.is_none() {
                session.next = self.next_entry(&session.flight, session.most_uncompressed);
            }
            let may_send = session.may_send(self.config.most_under_way);
            tokio::select! {
                response = responses.message() => {
                    let response = response.map_err(SessionError::Ended)?.ok_or(SessionError::Closed)?;
                    if self.take(&mut session, response)? {
                        self.succeed(backoff);
                    }
                }
                permit = session.requests.clone().reserve_owned(), if may_send => {
                    let permit = permit.map_err(|_| SessionError::Closed)?;
                    if let Some(entry) = session.pop() {
                        let batch = wire::batch(&session.agent_id, &entry);
                        permit.send(PublishRequest { message: Some(Request::Batch(batch)) });
                        session.flight.sent(&entry);
                        self.count(&entry);
                    }
                }
                () = self.reader.appended(), if session.next.is_none() => {}
                () = sleep_until(session.flight.progress + stalled_after), if !session.flight.is_empty() => {
                    return Err(SessionError::Hung { awaited: "acknowledgement", after: stalled_after });
                }
                () = &mut lasting, if !is_lasting => {
                    is_lasting = true;
                    self.succeed(backoff);
                }
                _ = files.tick() => {
                    if self.is_renewed() {
                        return Err(SessionError::Renewed);
                    }
                }
            }
        }
    }

    /// The session is one that works.
    fn succeed(&mut self, backoff: &mut Backoff) {
        backoff.reset();
        if self.notices.is_over() {
            tracing::info!("connected to the backend again");
        }
    }

    /// Connects, and says and hears where to begin.
    async fn open(&mut self) -> Result<(Session, Streaming<PublishResponse>), SessionError> {
        let identity = self.tls.as_mut().map(Tls::identity).transpose()?;
        let agent_id = identity.map_or(&self.config.agent_id, |identity| &identity.name).clone();
        let tls = identity.map(|identity| identity.config.clone());
        let (ping, version) = (Some(self.config.ping_every), &self.config.agent_version);
        let channel = channel::open(&self.target, tls, ping, version).await?;
        let (requests, stream) = mpsc::channel(QUEUE);
        let hello = PublishRequest { message: Some(Request::Hello(self.hello(agent_id.clone()))) };
        requests.send(hello).await.map_err(|_| SessionError::Closed)?;
        let mut client = IngestClient::new(channel.clone());
        let responses = client.publish(ReceiverStream::new(stream)).await.map_err(SessionError::Ended)?;
        let mut responses = responses.into_inner();
        loop {
            let response =
                responses.message().await.map_err(SessionError::Ended)?.ok_or(SessionError::Closed)?;
            match response.message {
                Some(Response::Welcome(welcome)) => {
                    let session = self.begin(agent_id, requests, &welcome)?;
                    self.channel.send_replace(Some(channel));
                    return Ok((session, responses));
                }
                Some(Response::Refused(refused)) => return Err((&refused).into()),
                // Not for us, or from a newer backend.
                Some(Response::Ack(_)) | None => {}
            }
        }
    }

    fn hello(&self, agent_id: String) -> proto::Hello {
        let positions = self.reader.positions().into_iter();
        proto::Hello {
            agent_id,
            boot_id: self.reader.boot().to_string(),
            agent_version: self.config.agent_version.clone(),
            host: self.config.host.clone(),
            schema: SCHEMA,
            oldest_schema: SCHEMA,
            lanes: Lane::ALL.map(|lane| wire::lane(lane).into()).into(),
            resume_after: positions.map(|(boot, lane, at)| wire::position(boot, lane, at)).collect(),
        }
    }

    fn begin(
        &mut self,
        agent_id: String,
        requests: mpsc::Sender<PublishRequest>,
        welcome: &proto::Welcome,
    ) -> Result<Session, SessionError> {
        let known: Vec<_> = welcome.acknowledged.iter().filter_map(wire::known_position).collect();
        let is_set_back = self.reader.resume(&known);
        self.tell_acknowledged();
        if is_set_back {
            return Err(SessionError::SetBack);
        }
        Ok(Session {
            agent_id,
            requests,
            first: VecDeque::new(),
            next: None,
            credit: welcome.credit_bytes,
            most_uncompressed: match welcome.max_uncompressed_bytes {
                0 => u64::MAX,
                most => most,
            },
            flight: Flight::new(|lane| self.reader.acknowledged(lane)),
        })
    }

    /// The next batch, what is critical first.
    fn next_entry(&mut self, flight: &Flight, most_uncompressed: u64) -> Option<Entry> {
        let next = |lane| self.reader.next_after(lane, flight.position(lane));
        let entry = Lane::ALL.into_iter().find_map(next)?;
        let Some(loss) = too_large(&entry, most_uncompressed) else { return Some(entry) };
        if self.reader.count_not_taken(entry.lane, entry.at, loss.reason, loss.events) {
            let (lane, sequence, events) = (entry.lane.as_str(), entry.at.sequence, loss.events);
            tracing::error!(lane, sequence, events, "a batch is larger than the backend takes: it is lost");
            self.status.send_modify(|status| status.refused += 1);
        }
        Some(Entry { content: Content::Lost(loss), ..entry })
    }

    fn acknowledge(&mut self, lane: Lane, at: Position) {
        self.reader.acknowledge(lane, at);
        self.tell_acknowledged();
    }

    fn tell_acknowledged(&self) {
        let acknowledged = Lane::ALL.map(|lane| self.reader.acknowledged(lane));
        self.status.send_modify(|status| status.acknowledged = acknowledged);
    }

    /// Takes an answer. True: the backend has taken something.
    fn take(&mut self, session: &mut Session, response: PublishResponse) -> Result<bool, SessionError> {
        match response.message {
            Some(Response::Ack(ack)) => {
                session.credit = ack.credit_bytes;
                let Some(lane) = wire::known_lane(ack.lane) else { return Ok(false) };
                let at = Position { epoch: ack.epoch, sequence: ack.sequence };
                let done = session.flight.acknowledged(lane, at);
                if done.round_trip.is_some() {
                    self.status.send_modify(|status| status.round_trip = done.round_trip);
                }
                if let Some(at) = done.up_to {
                    self.acknowledge(lane, at);
                }
                Ok(true)
            }
            Some(Response::Refused(refused)) if refused.reason() == Refusal::Batch => {
                self.refuse(session, &refused);
                Ok(true)
            }
            Some(Response::Refused(refused)) => Err((&refused).into()),
            // From a newer backend, or once more what is known.
            Some(Response::Welcome(_)) | None => Ok(false),
        }
    }

    /// A batch will never be accepted. Its events are told as lost, under its number.
    fn refuse(&mut self, session: &mut Session, refused: &proto::Refused) {
        let Some(at) = &refused.batch else { return };
        let Some(lane) = wire::known_lane(at.lane) else { return };
        let position = Position { epoch: at.epoch, sequence: at.sequence };
        let (sequence, detail) = (at.sequence, &refused.detail);
        match session.flight.refused(lane, position) {
            Refused::Unknown => {}
            Refused::Tell(loss) => {
                tracing::error!(
                    lane = lane.as_str(),
                    sequence,
                    detail,
                    "the backend refused a batch: it is lost"
                );
                if let Content::Lost(lost) = &loss.content {
                    self.reader.count_not_taken(lane, position, lost.reason, lost.events);
                }
                session.first.push_back(loss);
                self.status.send_modify(|status| status.refused += 1);
            }
            Refused::GivenUp(done) => {
                tracing::error!(
                    lane = lane.as_str(),
                    sequence,
                    detail,
                    "the backend refused to hear of a loss"
                );
                if let Some(at) = done.up_to {
                    self.acknowledge(lane, at);
                }
            }
        }
    }

    fn count(&self, entry: &Entry) {
        self.status.send_modify(|status| match &entry.content {
            Content::Events(batch) => {
                status.batches += 1;
                status.events += batch.count;
                status.bytes += batch.events.len() as u64;
            }
            Content::Lost(_) => status.losses_told += 1,
        });
    }
}

/// What is told in place of a batch that the backend would not take.
fn too_large(entry: &Entry, most_uncompressed: u64) -> Option<Loss> {
    let Content::Events(batch) = &entry.content else { return None };
    if batch.events.len() <= MOST_COMPRESSED && u64::from(batch.uncompressed_bytes) <= most_uncompressed {
        return None;
    }
    Some(Loss {
        first_sequence: entry.at.sequence,
        last_sequence: entry.at.sequence,
        events: batch.count,
        first_time: batch.first_time,
        last_time: batch.last_time,
        reason: Reason::TooLarge,
    })
}

// === impl Session ===

impl Session {
    /// Something waits to be sent, and the backend has room for it. A single batch may always be under way, however large.
    fn may_send(&self, most: u64) -> bool {
        let credit = self.credit.min(most);
        let next = self.first.front().or(self.next.as_ref());
        next.is_some_and(|entry| self.flight.is_empty() || self.flight.bytes + size(entry) <= credit)
    }

    fn pop(&mut self) -> Option<Entry> {
        self.first.pop_front().or_else(|| self.next.take())
    }
}
