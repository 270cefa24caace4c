//! Agents go on where they were, also with a backend that knows nothing of them.

use crate::{
    client::{Answer, EVENTS, Stream, batch, channel, stored},
    process::{Backend, free_address, printed},
};

const ARGUMENTS: [&str; 3] = ["--plaintext", "--reserve", "1"];

/// Sends these batches as an agent to which all before the first was acknowledged.
async fn publish(backend: &Backend, agent: &str, sequences: impl IntoIterator<Item = u64>) {
    let mut sequences = sequences.into_iter().peekable();
    let acknowledged = sequences.peek().unwrap() - 1;
    let channel = channel(backend.address).await.unwrap();
    let mut stream = Stream::resume(channel, agent, acknowledged).await.unwrap();
    for sequence in sequences {
        stream.send(batch(agent, sequence, 3)).await;
        assert!(matches!(stream.answer().await, Answer::Acknowledged(acked) if acked == sequence));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_new_name_has_no_gap_where_its_old_name_had_got_to() {
    let dir = tempfile::tempdir().unwrap();
    let address = free_address();
    let backend = Backend::start(dir.path(), address, &ARGUMENTS);
    publish(&backend, "before", 1..=5).await;
    publish(&backend, "after", 6..=8).await;
    assert_eq!(printed(dir.path(), &["gaps", "--json"]), "");
    backend.kill();
    // The log has it as well.
    let backend = Backend::start(dir.path(), address, &ARGUMENTS);
    publish(&backend, "after", 7..=9).await;
    assert_eq!(printed(dir.path(), &["gaps", "--json"]), "");
    // Of a name that is known it does not count what the agent says: 10 to 19 are missing.
    publish(&backend, "after", 20..=20).await;
    let gaps = printed(dir.path(), &["gaps", "--json"]);
    assert_eq!(gaps.lines().count(), 1, "{gaps}");
    assert!(gaps.contains("10") && gaps.contains("19"), "{gaps}");
    backend.stop();
    let stored = stored(dir.path());
    assert_eq!((stored.len() as u64, stored.values().max()), (EVENTS * (5 + 4 + 1), Some(&1)));
}
