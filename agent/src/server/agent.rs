//! The gRPC service of a running agent.

use std::time::Duration;

use nightjar_proto::{
    KINDS,
    agent::v1::{GetStatusRequest, TailRequest, TailResponse, agent_server::Agent},
    v1::{self, Event},
};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, Peer};
use crate::{
    export::hub::{Selector, Subscription, Who},
    pipeline::{
        Kinds,
        filter::{Match, container_glob},
    },
    watch::NoAnswer,
};

/// Values of one list of a request, and bytes of one of them: each is held against every event, on the thread that
/// drains the ring.
const VALUES: usize = 64;
const VALUE_BYTES: usize = 256;
/// Bytes of one answer, about; gRPC's own bound is 4 MiB.
const ANSWER: usize = 256 << 10;

/// Events of the history that are looked at in one go.
const HISTORY_PART: usize = 256;

/// Answers by a watch.
pub(super) struct Service {
    answers: Answers,
}

impl Service {
    pub(super) fn new(answers: Answers) -> Self {
        Self { answers }
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type TailStream = ReceiverStream<Result<TailResponse, Status>>;

    async fn tail(&self, request: Request<TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::permission_denied("it is not known who asks"))?;
        let request = request.into_inner();
        let place = self.answers.reader()?;
        let selector = selector(&request).map_err(Status::invalid_argument)?;
        let (who, back) = (Who { pid: peer.pid, uid: peer.uid }, Duration::from_nanos(request.since_ns));
        let subscription = self.answers.handle.subscribe(selector, request.tree, who, back).await;
        let subscription = subscription
            .map_err(|error| no_answer(&error))?
            .map_err(|refused| Status::not_found(refused.to_string()))?;
        // One answer waits to be sent while the next is made; what comes meanwhile waits in the queue.
        let (answers, stream) = mpsc::channel(1);
        tokio::spawn(async move {
            // Nobody reads any more, which is the usual end.
            let _gone = feed(subscription, &answers).await;
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        self.answers.status().await.map(Response::new).map_err(|error| no_answer(&error))
    }
}

fn no_answer(error: &NoAnswer) -> Status {
    Status::unavailable(error.to_string())
}

/// Sends what was, then what comes, until the reader goes away.
async fn feed(
    subscription: Subscription,
    to: &mpsc::Sender<Result<TailResponse, Status>>,
) -> Result<(), mpsc::error::SendError<Result<TailResponse, Status>>> {
    let Subscription { queue, history, selector } = subscription;
    let is_wanted =
        |event: &bytes::Bytes| Event::decode(event.clone()).is_ok_and(|event| selector.fits(&event));
    for part in history.chunks(HISTORY_PART) {
        send(part.iter().filter(|event| is_wanted(event)).cloned(), 0, to).await?;
        // Others are served by the same thread.
        tokio::task::yield_now().await;
    }
    loop {
        // A reader that goes away while nothing happens should not be kept.
        let batch = tokio::select! {
            batch = queue.next() => batch,
            () = to.closed() => return Ok(()),
        };
        let Some(batch) = batch else { return Ok(()) };
        send(batch.events.into_iter(), batch.missed, to).await?;
    }
}

async fn send(
    events: impl Iterator<Item = bytes::Bytes>,
    missed: u64,
    to: &mpsc::Sender<Result<TailResponse, Status>>,
) -> Result<(), mpsc::error::SendError<Result<TailResponse, Status>>> {
    let (mut answer, mut bytes) = (TailResponse::default(), 0);
    for event in events {
        bytes += event.len();
        answer.events.push(event);
        if bytes >= ANSWER {
            bytes = 0;
            to.send(Ok(std::mem::take(&mut answer))).await?;
        }
    }
    answer.missed = missed;
    if answer != TailResponse::default() {
        to.send(Ok(answer)).await?;
    }
    Ok(())
}

/// What a reader asks for.
///
/// # Errors
/// What is wrong about it, in words.
pub fn selector(request: &TailRequest) -> Result<Selector, String> {
    for (name, texts) in [
        ("kinds", &request.kinds),
        ("exes", &request.exes),
        ("users", &request.users),
        ("containers", &request.containers),
    ] {
        if texts.len() > VALUES || texts.iter().any(|text| text.len() > VALUE_BYTES) {
            return Err(format!("{name}: at most {VALUES} values of at most {VALUE_BYTES} bytes each"));
        }
    }
    if request.pids.len() > VALUES {
        return Err(format!("pids: at most {VALUES}"));
    }
    if request.tree && request.pids.is_empty() {
        return Err("a tree needs a process ID that it begins with".to_owned());
    }
    let kinds = Kinds::of(&request.kinds).map_err(|error| error.to_string())?;
    if !request.kinds.is_empty() && !KINDS.iter().any(|kind| kinds.include(kind.name)) {
        return Err("no kind of event is left; begin with '*', and take away from that".to_owned());
    }
    let globs = |texts: &[String]| texts.iter().map(|text| wildmatch::WildMatch::new(text)).collect();
    Ok(Selector {
        conditions: Match {
            kinds: (!request.kinds.is_empty()).then_some(kinds),
            exes: globs(&request.exes),
            users: globs(&request.users),
            either_user: true,
            containers: request.containers.iter().map(|text| container_glob(text)).collect(),
            cgroups: Vec::new(),
        },
        pids: request.pids.clone(),
        tree: None,
    })
}
