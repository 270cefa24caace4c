//! Nothing is lost and nothing stored twice, whatever the backend does.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use nightjar::deliver::{
    client::State,
    spool::{Batch, Lane},
};
use nightjar_proto::v1::{Refusal, Refused, ingest_client::IngestClient};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
    time::sleep,
};

use super::{agent::Agent, backend::Backend};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_the_spool_is_delivered_once_within_the_credit() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(200);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_acknowledgement_is_made_up_for_by_the_next_welcome() {
    let backend = Arc::new(Backend::default());
    backend.closes_after.store(3, SeqCst);
    let address = backend.serve(None).await;
    let mut agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(40);
    agent.expect_all_acknowledged().await;
    agent.expect("sessions", |status| status.sessions > 5).await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (40, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_in_the_middle_of_a_batch_costs_nothing() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    // Each connection lives for some more bytes than the one before.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = relay.local_addr().unwrap();
    tokio::spawn(async move {
        for budget in (0..).map(|number| 500 + number * 777) {
            let (mut client, _) = relay.accept().await.unwrap();
            let mut server = TcpStream::connect(address).await.unwrap();
            let (mut client_read, mut client_write) = client.split();
            let (mut server_read, mut server_write) = server.split();
            let mut limited = (&mut client_read).take(budget);
            tokio::select! {
                _ = tokio::io::copy(&mut limited, &mut server_write) => {}
                _ = tokio::io::copy(&mut server_read, &mut client_write) => {}
            }
        }
    });
    let agent = Agent::start(&format!("http://{there}"), None, None);
    agent.append(60);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (60, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_never_reads_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut agent = Agent::start(&format!("http://{}", listener.local_addr().unwrap()), None, None);
    agent.append(1);
    let start = Instant::now();
    // By an answer to a ping or the welcome, whichever is missed first.
    agent.expect_problem("check that it is not stopped or overloaded").await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

/// What a `SIGSTOP` of the backend looks like: the connection is open, and nothing is read or answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_hangs_in_a_session_is_noticed_by_pings_and_nothing_is_lost() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = relay.local_addr().unwrap();
    let (hangs, is_hanging) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = relay.accept().await.unwrap();
            let mut is_hanging = is_hanging.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(address).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                    _ = is_hanging.wait_for(|hangs| *hangs) => {}
                }
                sleep(Duration::from_mins(1)).await;
            });
        }
    });
    let mut agent = Agent::start(&format!("http://{there}"), None, None);
    agent.append(20);
    agent.expect_all_acknowledged().await;
    assert_eq!(agent.status.borrow().state, State::Connected);
    // Nothing is under way: only pings can tell.
    hangs.send_replace(true);
    let start = Instant::now();
    agent.expect("a problem", |status| status.last_error.is_some()).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    agent.append(20);
    hangs.send_replace(false);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (40, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_asks_for_a_wait_gets_it() {
    let backend = Arc::new(Backend::default());
    let wait = Duration::from_millis(700);
    let retry_after = u64::try_from(wait.as_nanos()).unwrap();
    let detail = "about to stop".to_owned();
    let refused = Refused { reason: Refusal::Busy.into(), detail, retry_after, batch: None };
    backend.refusal.send_replace(Some(refused));
    let address = backend.serve(None).await;
    let mut agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(5);
    agent.expect_problem("REFUSAL_BUSY").await;
    assert_eq!(agent.status.borrow().state, State::Refused);
    backend.refusal.send_replace(None);
    agent.expect_all_acknowledged().await;
    let hellos = backend.hellos.lock().unwrap();
    assert_eq!(hellos.len(), 2);
    assert!(hellos[1].0 - hellos[0].0 >= wait);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_never_accepted_is_told_as_lost_under_its_number_and_the_rest_goes_on() {
    let backend = Arc::new(Backend::default());
    *backend.refused_batch.lock().unwrap() = Some((2, 4));
    let address = backend.serve(None).await;
    let agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(20);
    agent.expect_all_acknowledged().await;
    let lost = backend.lost.lock().unwrap().clone();
    let [lost] = lost.as_slice() else { panic!("{lost:?}") };
    assert_eq!((lost.lane, lost.first_sequence, lost.last_sequence), (2, 4, 4));
    assert_eq!((lost.events, lost.reason.as_str()), (1, "refused"));
    let told: u64 = agent.spool.stats().lanes.iter().flat_map(|lane| lane.lost).sum();
    assert_eq!((told, agent.status.borrow().refused, agent.status.borrow().sessions), (1, 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_too_large_for_the_backend_is_told_as_lost_and_the_rest_goes_on() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(10);
    for (compressed, uncompressed) in [(1 << 20, 1 << 20), ((1 << 20) + (65 << 10), 9), (9, (1 << 20) + 1)] {
        let events = vec![7; compressed].into();
        let batch = Batch { count: 3, events, uncompressed_bytes: uncompressed, ..Batch::default() };
        agent.spool.append(Lane::Bulk, &batch).unwrap();
    }
    agent.append(10);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (23, 0));
    let lost = backend.lost.lock().unwrap().clone();
    let lost: Vec<_> =
        lost.iter().map(|lost| (lost.first_sequence, lost.last_sequence, lost.events)).collect();
    assert_eq!(lost, [(10, 10, 3), (11, 11, 3)]);
    let counted = agent.spool.stats().lanes[1].lost[5];
    let status = agent.status.borrow().clone();
    assert_eq!((counted, status.refused, status.events, status.sessions), (6, 2, 23, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_tells_what_was_sent_and_acknowledged() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(10);
    agent.expect_all_acknowledged().await;
    let status = agent.status.borrow().clone();
    assert_eq!((status.state, status.backend), (State::Connected, format!("http://{address}")));
    assert_eq!((status.attempts, status.sessions), (1, 1));
    assert_eq!((status.batches, status.events, status.bytes), (10, 10, 7000));
    assert_eq!(status.acknowledged.map(|at| at.sequence), [2, 8]);
    assert!(status.round_trip.unwrap() < Duration::from_secs(1));
    assert_eq!((status.last_error, status.losses_told), (None, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_services_share_the_connection_of_the_session() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let mut agent = Agent::start(&format!("http://{address}"), None, None);
    let channel = agent.channel.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let answer = IngestClient::new(channel.clone()).publish(tokio_stream::empty()).await;
    assert!(answer.is_ok());
    assert_eq!(backend.connections.load(SeqCst), 1);
    // When the session is over, so is the channel: it does not connect by itself.
    let detail = "stop".to_owned();
    let retry_after = 60_000_000_000;
    backend.refusal.send_replace(Some(Refused {
        reason: Refusal::Busy.into(),
        detail,
        retry_after,
        batch: None,
    }));
    agent.channel.wait_for(Option::is_none).await.unwrap();
    drop(agent);
    assert_eq!(backend.connections.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_acknowledges_nothing_is_noticed_and_nothing_is_sent_twice() {
    let backend = Arc::new(Backend::default());
    backend.is_silent.store(true, SeqCst);
    let address = backend.serve(None).await;
    let mut agent = Agent::start(&format!("http://{address}"), None, None);
    agent.append(3);
    agent.expect_problem("no acknowledgement").await;
    backend.is_silent.store(false, SeqCst);
    agent.append(3);
    agent.expect_all_acknowledged().await;
    assert_eq!((backend.count(), backend.duplicates.load(SeqCst)), (6, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_told_to_stop_gives_the_connection_up() {
    let backend = Arc::new(Backend::default());
    let address = backend.serve(None).await;
    let mut agent = Agent::start(&format!("http://{address}"), None, None);
    agent.expect("a session", |status| status.state == State::Connected).await;
    agent.stop().await;
    assert_eq!(agent.status.borrow().state, State::Stopped);
    assert!(agent.channel.borrow().is_none());
}
