//! Stored events are shown.

use std::{
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use crate::{
    client::{Answer, Stream, batch, channel},
    process::{Backend, complaint, free_address, printed, run, spawn},
};

async fn put(stream: &mut Stream, agent: &str, sequence: u64) {
    stream.send(batch(agent, sequence, 3)).await;
    assert!(matches!(stream.answer().await, Answer::Acknowledged(acked) if acked == sequence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_chosen_by_agent_time_kind_and_expression() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path();
    let backend = Backend::start(data, free_address(), &["--plaintext", "--reserve", "1"]);
    for agent in ["a", "b"] {
        let mut stream = Stream::open(channel(backend.address).await.unwrap(), agent).await.unwrap();
        put(&mut stream, agent, 1).await;
    }
    let count = |arguments: &[&str]| {
        let all = [&["events", "-o", "json"], arguments].concat();
        printed(data, &all).lines().count()
    };
    // Their time is 2027-01-15T08:00:00Z.
    for (arguments, expected) in [
        (&[][..], 10),
        (&["--agent", "a"], 5),
        (&["--agent", "a", "--agent", "b", "-n", "7"], 7),
        (&["--since", "2027-01-15T08:00:00Z"], 10),
        (&["--since", "2027-01-15T08:00:01Z"], 0),
        (&["--until", "2027-01-15T08:00:00Z"], 0),
        (&["--until", "2027-01-15T08:00:01Z", "--agent", "b"], 5),
        (&["--kind", "process.*", "--where", "id.endsWith(\"/0\")"], 2),
        (&["--kind", "file.*"], 0),
    ] {
        assert_eq!(count(arguments), expected, "{arguments:?}");
    }
    assert_eq!(printed(data, &["events"]).lines().count(), 10);
    assert!(complaint(data, &["events", "--where", "kind =="]).contains("--where: column "));
    assert!(complaint(data, &["events", "--agent", "nobody"]).contains("no agent"));
    assert!(complaint(data, &["events", "--since", "1h", "--until", "2h"]).contains("not before"));
    assert_eq!(run(data, &["events", "--since", "yesterday"]).status.code(), Some(2));
    // Nothing is opened, and so nothing dropped, where no backend runs.
    backend.stop();
    assert!(complaint(data, &["events"]).contains("no backend runs"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_sees_an_event_within_a_second_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start(dir.path(), free_address(), &["--plaintext", "--reserve", "1"]);
    let mut stream = Stream::open(channel(backend.address).await.unwrap(), "a").await.unwrap();
    put(&mut stream, "a", 1).await;
    let mut following = spawn(dir.path(), &["events", "--follow", "-o", "json"]);
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    (0..5).for_each(|_| drop(next()));
    for sequence in 2..12 {
        let start = Instant::now();
        put(&mut stream, "a", sequence).await;
        assert!(next().contains(&format!("a/{sequence}/0")));
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
        (0..4).for_each(|_| drop(next()));
    }
    let pid = rustix::process::Pid::from_child(&following);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(following.wait().unwrap().success());
    backend.stop();
}
