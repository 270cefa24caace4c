//! A thousand agents at once.

use std::time::Instant;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    client::{Answer, EVENTS, Stream, batch, channel},
    process::{Backend, free_address},
};

const AGENTS: u64 = 1000;
const BATCHES: u64 = 8;
/// Of characters that hardly compress: 60 KiB a batch.
const PADDING: usize = 12 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_agents_are_served_in_bounded_memory() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &["--plaintext"]);
    let address = backend.address;
    let start = Instant::now();
    let agent = |number: u64| async move {
        let agent = format!("agent-{number}");
        let mut stream = Stream::open(channel(address).await.unwrap(), &agent).await.unwrap();
        let content = batch(&agent, 1, PADDING);
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
    let peak = backend.peak_memory() >> 20;
    let bytes = backend.number("since_start", "log_bytes") >> 20;
    let syncs = backend.number("since_start", "log_syncs");
    println!("{AGENTS} agents: {bytes} MiB by {syncs} syncs in {:?}, peak {peak} MiB", start.elapsed());
    assert_eq!(backend.number("now", "publishing_agents"), AGENTS);
    assert_eq!(backend.number("since_start", "events_stored"), AGENTS * BATCHES * EVENTS);
    assert!(peak < 512, "{peak} MiB were resident");
    backend.stop();
}
