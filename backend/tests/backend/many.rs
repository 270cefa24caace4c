//! A thousand agents at once, and a disk that is too slow for them.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    client::{Answer, EVENTS, Stream, batch, channel},
    process::{Backend, free_address},
};

/// Most memory of a backend with a thousand agents that all send more than the disk takes: 64 MiB of batches that wait for
/// it, as much again while they are written, and of each agent a window of HTTP/2, a batch that is read, one that waits to
/// be let in, and what a connection takes by itself.
const MOST_MEMORY: u64 = (128 << 20) + AGENTS * ((128 + 2 * 120 + 48) << 10);

const AGENTS: u64 = 1000;
const BATCHES: u64 = 8;
/// Of characters that hardly compress: 60 KiB a batch, twice of which is 120.
const PADDING: usize = 12 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_are_served_in_bounded_memory() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // So slow that what agents may send before anybody waits for the disk is sent.
    let backend = Backend::start(dir.path(), free_address(), &["--plaintext", "--slow-disk", "100"]);
    let address = backend.address;
    let start = Instant::now();
    let agent = |number: u64| async move {
        let agent = format!("agent-{number}");
        let mut stream = Stream::open(channel(address).await.unwrap(), &agent).await.unwrap();
        let content = batch(&agent, 1, 2 * PADDING);
        for sequence in 1..=BATCHES {
            stream.send(nightjar_proto::v1::Batch { sequence, ..content.clone() }).await;
        }
        let mut last = 0;
        while last < BATCHES {
            match stream.answer().await {
                Answer::Acknowledged(sequence) => {
                    assert_eq!(sequence, last + 1);
                    last = sequence;
                }
                other => panic!("{agent}: {other:?}"),
            }
        }
        stream
    };
    let agents: Vec<_> = (0..AGENTS).map(|number| tokio::spawn(agent(number))).collect();
    let mut streams = Vec::new();
    for agent in agents {
        streams.push(agent.await.unwrap());
    }
    let peak = backend.peak_memory();
    let bytes = backend.number("since_start", "log_bytes") >> 20;
    let syncs = backend.number("since_start", "log_syncs");
    println!(
        "{AGENTS} agents: {bytes} MiB by {syncs} syncs in {:?}, peak {} MiB",
        start.elapsed(),
        peak >> 20
    );
    assert_eq!(backend.number("now", "publishing_agents"), AGENTS);
    assert_eq!(backend.number("since_start", "events_stored"), AGENTS * BATCHES * EVENTS);
    assert!(peak < MOST_MEMORY, "{} MiB were resident", peak >> 20);
    backend.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_makes_agents_wait_and_not_memory_grow() {
    const WAITING: u64 = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--plaintext", "--reserve", "1", "--waiting", "256", "--slow-disk", "200"];
    let backend = Backend::start(dir.path(), free_address(), &arguments);
    let address = backend.address;
    // 20 agents with 20 batches of 60 KiB each: 24 MiB, for which this disk takes 20 seconds.
    let agent = |number: u64| async move {
        let agent = format!("agent-{number}");
        let mut stream = Stream::open(channel(address).await.unwrap(), &agent).await.unwrap();
        let content = batch(&agent, 1, PADDING);
        let mut last = 0;
        for sequence in 1..=20 {
            stream.send(nightjar_proto::v1::Batch { sequence, ..content.clone() }).await;
        }
        while last < 20 {
            match stream.answer().await {
                Answer::Acknowledged(sequence) => last = sequence,
                other => panic!("{agent}: {other:?}"),
            }
        }
    };
    let (start, before) = (Instant::now(), backend.peak_memory());
    let agents: Vec<_> = (0..20).map(|number| tokio::spawn(agent(number))).collect();
    let mut most_waiting = 0;
    while agents.iter().any(|agent| !agent.is_finished()) {
        most_waiting = most_waiting.max(backend.number("now", "waiting_bytes"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for agent in agents {
        agent.await.unwrap();
    }
    let grown = backend.peak_memory().saturating_sub(before);
    println!(
        "at most {most_waiting} bytes waited, {} KiB more were resident, {:?}",
        grown >> 10,
        start.elapsed()
    );
    assert!(most_waiting > WAITING / 2, "the disk was not slow: {most_waiting}");
    assert!(most_waiting <= WAITING);
    assert!(grown < 32 << 20, "{grown}");
    assert_eq!(backend.number("since_start", "events_stored"), 20 * 20 * EVENTS);
    assert_eq!(backend.number("now", "stored_events"), 20 * 20 * EVENTS);
    backend.stop();
}
