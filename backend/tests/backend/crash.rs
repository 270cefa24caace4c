//! The process is killed while a client publishes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    client::{Answer, EVENTS, Stream, batch, channel, stored},
    process::{Backend, free_address, printed},
};

const KILLS: u64 = 40;

/// With files of the log so small that they become Parquet all the time.
const ARGUMENTS: [&str; 5] = ["--plaintext", "--reserve", "1", "--log-file", "32"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_killed_at_random_moments_has_all_that_it_acknowledged_once() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let over = Arc::new(AtomicBool::new(false));
    let shared = (Arc::clone(&acknowledged), Arc::clone(&over));
    let client = tokio::spawn(async move {
        let (acknowledged, over) = shared;
        let mut sent = 0;
        let mut sent_again = 0;
        while !over.load(Ordering::Relaxed) {
            let Ok(channel) = channel(address).await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let Ok(mut stream) = Stream::open(channel, "a").await else { continue };
            let known = acknowledged.load(Ordering::Relaxed);
            let welcomed = stream.welcome.acknowledged.iter().map(|position| position.sequence).max();
            assert!(welcomed.unwrap_or(0) >= known, "{welcomed:?} after {known} were acknowledged");
            // Sends again what it may have already, as an agent does that did not hear.
            let mut next = known + 1;
            sent_again += sent.max(known) - known;
            'connected: loop {
                while next <= acknowledged.load(Ordering::Relaxed) + 20 && !over.load(Ordering::Relaxed) {
                    stream.send(batch("a", next, 200)).await;
                    sent = sent.max(next);
                    next += 1;
                }
                if over.load(Ordering::Relaxed) && acknowledged.load(Ordering::Relaxed) >= sent {
                    break;
                }
                match stream.answer().await {
                    Answer::Acknowledged(sequence) => acknowledged.store(sequence, Ordering::Relaxed),
                    Answer::Refused(refused) => panic!("{refused:?}"),
                    Answer::Broken => break 'connected,
                }
            }
        }
        (sent, sent_again)
    });
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..KILLS {
        let backend = Backend::start(dir.path(), address, &ARGUMENTS);
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        tokio::time::sleep(Duration::from_millis(5 + random % 1500)).await;
        backend.kill();
    }
    let backend = Backend::start(dir.path(), address, &ARGUMENTS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    over.store(true, Ordering::Relaxed);
    let (sent, sent_again) = client.await.unwrap();
    let partitions = backend.number("now", "partitions");
    assert!(partitions > 10, "only {partitions} Parquet files were made");
    let gaps = printed(dir.path(), &["gaps", "--json"]);
    backend.stop();

    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let stored = stored(dir.path());
    let twice = stored.values().filter(|times| **times != 1).count();
    println!(
        "{KILLS} kills: {sent} batches sent, {sent_again} sent again, {acknowledged} acknowledged, {} events stored, {twice} twice",
        stored.len()
    );
    assert!(acknowledged > 100, "too little went on to say anything");
    assert_eq!(twice, 0);
    assert_eq!(gaps, "");
    for sequence in 1..=acknowledged {
        for part in 0..EVENTS {
            assert!(
                stored.contains_key(&format!("a/{sequence}/{part}")),
                "{sequence}/{part} was acknowledged"
            );
        }
    }
    let last = u64::try_from(stored.len()).unwrap() / EVENTS;
    assert!(last >= acknowledged && last <= sent);
    assert_eq!(stored.len() as u64 % EVENTS, 0, "a batch is stored as a whole");
}
