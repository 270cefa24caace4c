//! What the backend asks of the agent, on the connection that events go by: to record something else, to show what
//! happens now, to say how it is.

use std::{collections::HashMap, time::Duration};

use nightjar_proto::{
    agent::v1::TailRequest,
    v1::{
        AgentMessage, BackendMessage, ConfigurationAnswer, ConfigurationUpdate, ControlHello, Coverage,
        Event, TailEnded, TailEvents, TailStart, agent_message, backend_message,
        configuration_answer::Outcome, control_client::ControlClient,
    },
};
use nightjar_show::expression::Expression;
use prost::Message as _;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, transport::Channel};
use tracing::warn;

use super::backoff::Backoff;
use crate::{
    export::hub::{Subscription, Who},
    server::{Answers, selector},
};

/// How often the backend is told how the agent is, where it does not say.
const STATUS: Duration = Duration::from_secs(30);
/// Most tails by the backend at a time.
const TAILS: usize = 4;
/// Bytes of one message of a tail, about; gRPC's own bound is 4 MiB.
const MESSAGE: usize = 256 << 10;

/// To do as the backend says from now on, and to answer what became of that.
pub struct Order {
    /// What it wants.
    pub update: ConfigurationUpdate,
    /// Who waits for the answer.
    pub reply: oneshot::Sender<ConfigurationAnswer>,
}

/// Obeys the backend.
pub struct Control {
    /// Who the agent is; its version of the configuration is filled in.
    pub hello: ControlHello,
    /// How it is.
    pub answers: Answers,
    /// Where orders go; `None`: the host does not take any.
    pub orders: Option<mpsc::Sender<Order>>,
    /// Whether the backend may see what happens now.
    pub may_tail: bool,
    /// Version of the configuration that came from the backend, as it is in force.
    pub version: watch::Receiver<String>,
}

/// One conversation.
struct Conversation<'a> {
    control: &'a Control,
    to_backend: mpsc::Sender<AgentMessage>,
    tails: HashMap<String, JoinHandle<()>>,
}

// === impl Control ===

impl Control {
    /// Talks to the backend whenever there is a connection to it.
    pub async fn run(self, mut connection: watch::Receiver<Option<Channel>>) {
        let mut backoff = Backoff::default();
        loop {
            let channel = connection.borrow_and_update().clone();
            if let Some(channel) = channel {
                tokio::select! {
                    ended = self.converse(channel) => match ended {
                        Ok(()) => backoff.reset(),
                        Err(status) => warn!("the backend does not steer this agent: {}", status.message()),
                    },
                    changed = connection.changed() => {
                        if changed.is_err() { return }
                        continue;
                    }
                }
                tokio::time::sleep(backoff.wait()).await;
            } else if connection.changed().await.is_err() {
                return;
            }
        }
    }

    async fn converse(&self, channel: Channel) -> Result<(), Status> {
        let (to_backend, messages) = mpsc::channel(16);
        let mut conversation = Conversation { control: self, to_backend, tails: HashMap::new() };
        let configuration_version = self.version.borrow().clone();
        conversation
            .say(agent_message::Message::Hello(ControlHello { configuration_version, ..self.hello.clone() }))
            .await?;
        let mut client = ControlClient::new(channel);
        let mut orders = client.connect(ReceiverStream::new(messages)).await?.into_inner();
        conversation.tell_status(true).await?;
        let mut ticks = interval(STATUS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        loop {
            tokio::select! {
                message = orders.message() => {
                    let Some(BackendMessage { message }) = message? else { return Ok(()) };
                    match message {
                        Some(backend_message::Message::Welcome(welcome)) if welcome.status_interval > 0 => {
                            let every = Duration::from_nanos(welcome.status_interval).max(Duration::from_secs(1));
                            ticks = interval(every);
                            ticks.reset();
                        }
                        Some(message) => conversation.obey(message).await?,
                        // Of a newer backend.
                        None => {}
                    }
                }
                _ = ticks.tick() => conversation.tell_status(false).await?,
            }
        }
    }
}

// === impl Conversation ===

impl Conversation<'_> {
    async fn say(&self, message: agent_message::Message) -> Result<(), Status> {
        let message = AgentMessage { message: Some(message) };
        self.to_backend.send(message).await.map_err(|_| Status::unavailable("the connection is gone"))
    }

    /// With `coverage`, also what the agent can see.
    async fn tell_status(&self, coverage: bool) -> Result<(), Status> {
        // Where the agent does not get to answer, the backend sees by the age of the last status.
        let Ok(status) = self.control.answers.status().await else { return Ok(()) };
        if coverage {
            let uname = rustix::system::uname();
            let coverage = Coverage {
                sensors: status.sensors.clone(),
                kernel: uname.release().to_string_lossy().into_owned(),
                machine: uname.machine().to_string_lossy().into_owned(),
            };
            self.say(agent_message::Message::Coverage(coverage)).await?;
        }
        self.say(agent_message::Message::Status(status)).await
    }

    async fn obey(&mut self, message: backend_message::Message) -> Result<(), Status> {
        self.tails.retain(|_, tail| !tail.is_finished());
        match message {
            backend_message::Message::Welcome(_) => Ok(()),
            backend_message::Message::Configuration(update) => {
                let answer = self.configure(update).await;
                self.say(agent_message::Message::Configuration(answer)).await?;
                // What is watched may be another.
                self.tell_status(true).await
            }
            backend_message::Message::TailStart(start) => self.start_tail(start).await,
            backend_message::Message::TailStop(stop) => {
                if let Some(tail) = self.tails.remove(&stop.id) {
                    tail.abort();
                }
                Ok(())
            }
        }
    }

    async fn configure(&self, update: ConfigurationUpdate) -> ConfigurationAnswer {
        let version = update.version.clone();
        let refused = |reason: &str| ConfigurationAnswer {
            version: version.clone(),
            outcome: Outcome::Refused.into(),
            reason: reason.to_owned(),
            pending: Vec::new(),
        };
        let Some(orders) = &self.control.orders else {
            return refused(
                "this host does not take configuration from the backend: backend.configure is false",
            );
        };
        let (reply, answer) = oneshot::channel();
        if orders.send(Order { update, reply }).await.is_err() {
            return refused("the agent is stopping");
        }
        answer.await.unwrap_or_else(|_| refused("the agent is stopping"))
    }

    async fn start_tail(&mut self, start: TailStart) -> Result<(), Status> {
        let id = start.id.clone();
        let ended = |reason: String| {
            self.say(agent_message::Message::TailEnded(TailEnded { id: id.clone(), reason }))
        };
        if !self.control.may_tail {
            let reason = "this host is not to be watched by the backend: backend.tail is false";
            return ended(reason.to_owned()).await;
        }
        if self.tails.len() >= TAILS || self.tails.contains_key(&start.id) {
            return ended(format!("{TAILS} watch this agent by the backend already; end one of them")).await;
        }
        let tail = match self.subscribe(&start).await {
            Ok(tail) => tail,
            Err(reason) => return ended(reason).await,
        };
        let to_backend = self.to_backend.clone();
        let task = tokio::spawn(async move {
            // Whether somebody still listens is seen by whoever sent for it.
            let _gone = tail.run(&to_backend).await;
        });
        self.tails.insert(start.id, task);
        Ok(())
    }

    async fn subscribe(&self, start: &TailStart) -> Result<Tail, String> {
        let condition = Some(start.r#where.as_str()).filter(|text| !text.is_empty());
        let condition = condition.map(Expression::compile).transpose().map_err(|error| error.to_string())?;
        let selector = selector(&TailRequest { kinds: start.kinds.clone(), ..TailRequest::default() })?;
        let place = self.control.answers.reader().map_err(|error| error.message().to_owned())?;
        let who = Who { pid: std::process::id(), uid: 0 };
        let back = Duration::from_nanos(start.since);
        let subscription = self.control.answers.handle.subscribe(selector, false, who, back).await;
        let subscription =
            subscription.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let left = if start.most_events == 0 { u64::MAX } else { start.most_events };
        Ok(Tail { id: start.id.clone(), condition, subscription, left, _place: place })
    }
}

impl Drop for Conversation<'_> {
    fn drop(&mut self) {
        for tail in self.tails.values() {
            tail.abort();
        }
    }
}

/// Somebody who watches by the backend.
struct Tail {
    id: String,
    condition: Option<Expression>,
    subscription: Subscription,
    left: u64,
    _place: tokio::sync::OwnedSemaphorePermit,
}

// === impl Tail ===

impl Tail {
    async fn run(
        mut self,
        to: &mpsc::Sender<AgentMessage>,
    ) -> Result<(), mpsc::error::SendError<AgentMessage>> {
        let history = std::mem::take(&mut self.subscription.history);
        let selector = self.subscription.selector.clone();
        let wanted = history
            .into_iter()
            .filter(|event| Event::decode(event.clone()).is_ok_and(|event| selector.fits(&event)));
        self.send(wanted.collect(), 0, to).await?;
        while self.left > 0 {
            let Some(batch) = self.subscription.queue.next().await else { break };
            self.send(batch.events, batch.missed, to).await?;
        }
        let ended = TailEnded { id: self.id.clone(), reason: String::new() };
        to.send(AgentMessage { message: Some(agent_message::Message::TailEnded(ended)) }).await
    }

    async fn send(
        &mut self,
        events: Vec<bytes::Bytes>,
        missed: u64,
        to: &mpsc::Sender<AgentMessage>,
    ) -> Result<(), mpsc::error::SendError<AgentMessage>> {
        let message = |events, missed| {
            let events = TailEvents { id: self.id.clone(), events, missed };
            AgentMessage { message: Some(agent_message::Message::TailEvents(events)) }
        };
        let (mut part, mut bytes, mut left) = (Vec::new(), 0, self.left);
        for event in events {
            if left == 0 {
                break;
            }
            let fits = |condition: &Expression| {
                Event::decode(event.clone()).is_ok_and(|event| condition.fits(&event))
            };
            if !self.condition.as_ref().is_none_or(fits) {
                continue;
            }
            (bytes, left) = (bytes + event.len(), left - 1);
            part.push(event);
            if bytes >= MESSAGE {
                bytes = 0;
                to.send(message(std::mem::take(&mut part), 0)).await?;
            }
        }
        if !part.is_empty() || missed > 0 {
            to.send(message(part, missed)).await?;
        }
        self.left = left;
        Ok(())
    }
}
