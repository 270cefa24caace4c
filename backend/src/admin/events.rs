//! Stored events, and those to come, for who asks.

use std::ops::ControlFlow;

use bytes::Bytes;
use nightjar_proto::backend::v1::{EventsRequest, EventsResponse};
use tokio::sync::{mpsc, watch};
use tonic::Status;
use wildmatch::WildMatch;

use crate::store::{Cursor, wanted::Wanted};

/// Bytes of events that go into one message.
const MESSAGE: usize = 64 << 10;

/// Where they go.
pub type Events = mpsc::Sender<Result<EventsResponse, Status>>;

/// What a request asks for.
pub fn wanted(request: &EventsRequest) -> Wanted {
    let globs = |globs: &[String]| globs.iter().map(|glob| WildMatch::new(glob)).collect();
    Wanted {
        since: Some(request.since).filter(|time| *time != 0),
        until: Some(request.until).filter(|time| *time != 0),
        kinds: globs(&request.kinds),
        hosts: globs(&request.hosts),
        agents: request.agents.clone(),
    }
}

/// Sends what a cursor finds, and goes on if asked for. Ends when nobody listens. What cannot be read is told and passed
/// over.
pub async fn send(mut cursor: Cursor, follow: bool, mut committed: watch::Receiver<u64>, events: Events) {
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
    loop {
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
        if let Err(error) = &result {
            message.unreadable = error.to_string();
        }
        if (!message.events.is_empty() || result.is_err()) && send(message).is_break() {
            return ControlFlow::Break(());
        }
        // After an error what follows is still to be read.
        if let Ok(result) = result {
            return result;
        }
    }
}
