//! An agent as far as the protocol goes: it keeps what is not acknowledged, and sends it again.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use nightjar_backend::store::{Limits, Store, wanted::Wanted};
use nightjar_proto::v1::{
    Batch, Event, Hello, Lane, LanePosition, PublishRequest, PublishResponse, Refused, Welcome,
    ingest_client::IngestClient, publish_request, publish_response,
};
use prost::Message as _;
use prost_types::Timestamp;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint},
};

pub const EVENTS: u64 = 5;

/// Events that say which batch they are of. `padding` bytes that do not compress go into each.
pub fn batch(agent: &str, sequence: u64, padding: usize) -> Batch {
    let mut events = Vec::new();
    let mut random = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for part in 0..EVENTS {
        let mut digit = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            char::from(b' ' + u8::try_from(random % 90).unwrap())
        };
        let event = Event {
            schema: 1,
            id: format!("{agent}/{sequence}/{part}"),
            kind: "process.exec".to_owned(),
            host: (0..padding).map(|_| digit()).collect(),
            time: Some(Timestamp { seconds: 1_800_000_000, nanos: 0 }),
            ..Event::default()
        };
        event.encode_length_delimited(&mut events).unwrap();
    }
    Batch {
        agent_id: agent.to_owned(),
        boot_id: "boot".to_owned(),
        lane: Lane::Critical.into(),
        sequence,
        count: EVENTS,
        uncompressed_bytes: events.len() as u64,
        events: zstd::bulk::compress(&events, 1).unwrap().into(),
        ..Batch::default()
    }
}

pub async fn channel(address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_timeout(Duration::from_secs(10)).connect().await
}

/// A stream that was welcomed.
pub struct Stream {
    pub welcome: Welcome,
    requests: mpsc::Sender<PublishRequest>,
    responses: Streaming<PublishResponse>,
}

#[derive(Debug)]
pub enum Answer {
    Acknowledged(u64),
    Refused(Refused),
    /// The connection broke.
    Broken,
}

impl Stream {
    /// Says hello. An error: what came instead of a welcome.
    pub async fn open(channel: Channel, agent: &str) -> Result<Self, Answer> {
        Self::resume(channel, agent, 0).await
    }

    /// The same as an agent to which so much was acknowledged.
    pub async fn resume(channel: Channel, agent: &str, acknowledged: u64) -> Result<Self, Answer> {
        let (requests, to_send) = mpsc::channel(64);
        let hello = Hello {
            agent_id: agent.to_owned(),
            boot_id: "boot".to_owned(),
            host: "host".to_owned(),
            schema: 1,
            resume_after: vec![LanePosition {
                boot_id: "boot".to_owned(),
                epoch: 0,
                lane: Lane::Critical.into(),
                sequence: acknowledged,
            }],
            ..Hello::default()
        };
        let message = Some(publish_request::Message::Hello(hello));
        requests.send(PublishRequest { message }).await.unwrap();
        let answered = IngestClient::new(channel).publish(ReceiverStream::new(to_send)).await;
        let mut responses = answered.map_err(|_| Answer::Broken)?.into_inner();
        let first = responses.message().await.ok().flatten().and_then(|response| response.message);
        match first {
            Some(publish_response::Message::Welcome(welcome)) => Ok(Self { welcome, requests, responses }),
            Some(publish_response::Message::Refused(refused)) => Err(Answer::Refused(refused)),
            _ => Err(Answer::Broken),
        }
    }

    pub async fn send(&self, batch: Batch) {
        let message = Some(publish_request::Message::Batch(batch));
        // That it broke is seen by what it answers.
        let _broken = self.requests.send(PublishRequest { message }).await;
    }

    pub async fn answer(&mut self) -> Answer {
        match self.responses.message().await.ok().flatten().and_then(|response| response.message) {
            Some(publish_response::Message::Ack(ack)) => Answer::Acknowledged(ack.sequence),
            Some(publish_response::Message::Refused(refused)) => Answer::Refused(refused),
            _ => Answer::Broken,
        }
    }
}

/// How often each event is in the store, by its ID.
pub fn stored(dir: &Path) -> BTreeMap<String, u64> {
    let store = Store::open(dir, Limits::default()).unwrap();
    let mut found = BTreeMap::new();
    let mut take = |event: bytes::Bytes| {
        *found.entry(Event::decode(event).unwrap().id).or_default() += 1;
        std::ops::ControlFlow::Continue(())
    };
    assert!(store.read(Wanted::default()).read(&mut take).unwrap().is_continue());
    found
}
